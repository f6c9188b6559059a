//! What a builder finds, made by stock Nix and by us from the same derivations, and compared byte for byte.

use std::fs;

use super::portable::Portable;

/// Keeps all that a builder finds: its environment, and the files of its directory.
const KEEP: &str = r#"KEEP = "mkdir $out; env | grep -v '^SHLVL=' | sort > $out/environment; cp -r /build/. $out/files; pwd > $out/pwd"
"#;

/// As above with structured attributes, whose variables name another directory in Nix 2.8 than they should.
const KEEP_STRUCTURED: &str = r#"KEEP_STRUCTURED = """
out=$(sed 's/.*"outputs":{[^}]*"out":"//; s/".*//' /build/.attrs.json)
mkdir $out
env | grep -v '^SHLVL=' | grep -v '^NIX_ATTRS_' | sort > $out/environment
cp -r /build/. $out/files
"""
"#;

#[test]
fn environments_and_files_are_the_same() {
    let recipe = r#"
sh(name = "plain", script = KEEP, env = {"list": ["a", 1, True, None], "empty": "", "HOME": "/elsewhere", "TMPDIR": "/no",
    "multi": "line\nline\ttab \\ \" $x", "PATH": "/own", "NIX_STORE": "/mine", "TERM": "dumb"})
sh(name = "as-file", script = KEEP, env = {"big": "some\ntext %s" % placeholder("out"), "other": "x", "kept": "k"},
    pass_as_file = ["big", "other"])
sh(name = "placeholders", script = KEEP, env = {"mine": placeholder("out"), "theirs": "%s/doc" % placeholder("doc")},
    outputs = ["out", "doc"], target = False)
sh(name = "several", script = KEEP + "; echo $lib > $lib; ln -s $lib $dev; echo $out > $out/self",
    outputs = ["out", "dev", "lib"])
sh(name = "floating", script = KEEP + "; echo $out > $out/self; echo $doc > $doc", content_addressed = True,
    outputs = ["out", "doc"])
sh(name = "hints", script = KEEP, prefer_local_build = True, allow_substitutes = False, impure_env_vars = ["USER"],
    required_system_features = ["big-parallel"])
"#;
    let Some(portable) = Portable::with(&format!("{KEEP}{recipe}")) else { return };
    for label in ["//:plain", "//:as-file", "//:several", "//:floating", "//:hints"] {
        portable.same(label);
    }
    let file = portable.outputs("//:as-file");
    let kept = portable.workspace.ok(&["store", "cat", &format!("{}/environment", file["out"])]).stdout;
    assert!(kept.contains("bigPath=/build/.attr-") && !kept.contains("\nbig="), "{kept}");
}

#[test]
fn structured_attributes_are_the_same() {
    let recipe = r#"
part = sh(name = "part", script = "echo part > $out")
sh(
    name = "structured",
    script = KEEP_STRUCTURED + "for o in dev; do echo $o > $(sed 's/.*\"dev\":\"//; s/\".*//' /build/.attrs.json); done",
    outputs = ["out", "dev"],
    structured_attrs = {
        "text": "line\nline \"quoted\" 'it''s' \\ é \u0001",
        "yes": True, "no": False, "nothing": None, "number": 42, "negative": -1, "big": 3000000000, "huge": 1 << 62,
        "list": ["a b", 1, True, None], "nested": [["x"], {"k": "v"}], "empty": [], "table": {"k k": "v", "n": 1, "b": False},
        "deep": {"a": {"b": "c"}}, "with-dash": 1, "1digit": 2, "_under": 3, "": "no name", "own": placeholder("out"),
        "from": part, "path": "%s/x" % part, "é": "not for the shell",
    },
)
"#;
    let Some(portable) = Portable::with(&format!("{KEEP_STRUCTURED}{recipe}")) else { return };
    let outputs = portable.same("//:structured");
    let shell = fs::read_to_string(outputs["out"].join("files/.attrs.sh")).unwrap();
    assert!(shell.contains("declare big=-1294967296\n") && shell.contains("declare -A table=("), "{shell}");
}

#[test]
fn graphs_are_the_same() {
    let recipe = r#"
leaf = sh(name = "leaf", script = "echo leaf > $out")
middle = sh(name = "middle", script = "mkdir $out; echo %s $out > $out/refs" % leaf)
top = sh(name = "top", script = "echo %s > $out" % middle)
note = text("note.txt", "a note\n")
floating = sh(name = "floating", script = "echo %s $out > $out" % leaf, content_addressed = True)
sh(name = "plain", script = KEEP, export_references_graph = {"top": top, "inside.txt": "%s/refs" % middle, "note": note})
sh(name = "structured", script = KEEP_STRUCTURED, structured_attrs = {"x": 1},
    export_references_graph = {"closure": [top, leaf], "one": middle})
sh(name = "of-floating", script = KEEP, export_references_graph = {"it": floating}, content_addressed = True)
sh(name = "of-floating-structured", script = KEEP_STRUCTURED, structured_attrs = {}, content_addressed = True,
    export_references_graph = {"it": floating})
"#;
    let Some(portable) = Portable::with(&format!("{KEEP}{KEEP_STRUCTURED}{recipe}")) else { return };
    let plain = portable.same("//:plain");
    for label in ["//:structured", "//:of-floating", "//:of-floating-structured"] {
        portable.same(label);
    }
    let graph = fs::read_to_string(plain["out"].join("files/top")).unwrap();
    assert_eq!(graph.lines().filter(|line| line.is_empty()).count(), 3, "{graph}");
}

#[test]
fn fixed_outputs_are_the_same_in_all_forms() {
    let recipe = r#"
sh(name = "flat", script = "env | grep NIX_OUTPUT_CHECKED > $out", output_hash = "HASH-FLAT")
[
    sh(name = "by-" + algorithm, script = "mkdir $out; echo x > $out/x", output_hash = hash, output_hash_algo = algorithm,
        output_hash_mode = "recursive")
    for (algorithm, hash) in HASHES
]
one = sh(name = "same", script = "sleep 0.3; echo same > $out # one", output_hash = "HASH-SAME", target = "one")
two = sh(name = "same", script = "sleep 0.3; echo same > $out # two", output_hash = "HASH-SAME", target = "two")
sh(name = "both", script = "cat %s %s > $out" % (one, two))
"#;
    let Some(portable) = Portable::with("") else { return };
    let workspace = &portable.workspace;
    let directory = workspace.path().join("x");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("x"), "x\n").unwrap();
    fs::write(workspace.path().join("flat"), "NIX_OUTPUT_CHECKED=1\n").unwrap();
    fs::write(workspace.path().join("same"), "same\n").unwrap();
    let hash = |name: &str, options: &[&str]| {
        let path = workspace.path().join(name);
        let arguments = [&["store", "hash"], options, &[path.to_str().unwrap()]].concat();
        workspace.ok(&arguments).text().to_owned()
    };
    let algorithms = ["md5", "sha1", "sha256", "sha512"];
    let hashes = algorithms.map(|name| format!("(\"{name}\", \"{}\")", hash("x", &["--algorithm", name])));
    let recipe = recipe.replace("HASHES", &format!("[{}]", hashes.join(", ")));
    let recipe = recipe.replace("HASH-FLAT", &hash("flat", &["--flat"]));
    let recipe = recipe.replace("HASH-SAME", &hash("same", &["--flat"]));
    let before = fs::read_to_string(workspace.root().join("BUILD.star")).unwrap();
    workspace.write("BUILD.star", &format!("{before}{recipe}"));
    portable.same("//:flat");
    for algorithm in algorithms {
        portable.same(&format!("//:by-{algorithm}"));
    }
    portable.same("//:both");
}
