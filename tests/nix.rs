//! The same answers as stock Nix gives: archives, hashes, store paths, derivations, and what they build.
//!
//! Nix works in a store of its own below a directory of the test (`--store DIR`), never in that of the machine.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Ran, Workspace, installed};
use crate::store::{dump, write_tree};

/// Runs one of Nix's programs; its standard output.
fn nix_bytes(workspace: &Workspace, program: &str, arguments: &[&str]) -> Vec<u8> {
    let store = workspace.path().join("nix");
    let mut command = Command::new(program);
    command.args(["--store", store.to_str().unwrap(), "--extra-experimental-features", "nix-command ca-derivations"]);
    for (name, value) in [("substituters", ""), ("build-users-group", ""), ("sandbox", "false"), ("cores", "2")] {
        command.args(["--option", name, value]);
    }
    let output = command.args(arguments).env_remove("NIX_REMOTE").stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    output.stdout
}

fn nix(workspace: &Workspace, program: &str, arguments: &[&str]) -> String {
    let text = String::from_utf8(nix_bytes(workspace, program, arguments)).unwrap();
    text.trim_end().to_owned()
}

#[test]
fn archives_hashes_and_store_paths() {
    if !installed("nix-store") || !installed("nix-hash") {
        return;
    }
    let workspace = Workspace::new();
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let file = tree.join("b.txt");
    let (tree, file) = (tree.to_str().unwrap(), file.to_str().unwrap());
    for path in [tree, file] {
        assert!(dump(&workspace, path) == nix_bytes(&workspace, "nix-store", &["--dump", path]), "{path}");
        assert_eq!(workspace.ok(&["store", "add", path]).text(), nix(&workspace, "nix-store", &["--add", path]));
        for algorithm in ["md5", "sha1", "sha256", "sha512"] {
            let ours = ["store", "hash", "--algorithm", algorithm, "--format", "nix32", path];
            let hashed = Command::new("nix-hash").args(["--type", algorithm, "--base32", path]).output().unwrap();
            assert_eq!(workspace.ok(&ours).stdout, String::from_utf8_lossy(&hashed.stdout));
            let ours = ["store", "add", "--algorithm", algorithm, path];
            let theirs = ["--add-fixed", "--recursive", algorithm, path];
            assert_eq!(workspace.ok(&ours).text(), nix(&workspace, "nix-store", &theirs), "{algorithm} {path}");
        }
    }
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        let ours = workspace.ok(&["store", "add", "--flat", "--algorithm", algorithm, file]);
        assert_eq!(ours.text(), nix(&workspace, "nix-store", &["--add-fixed", algorithm, file]), "{algorithm}");
    }
    // What one wrote, the other restores.
    let archive = workspace.path().join("archive");
    fs::write(&archive, dump(&workspace, tree)).unwrap();
    let restored = workspace.path().join("restored");
    let status =
        Command::new("nix-store").arg("--restore").arg(&restored).stdin(File::open(&archive).unwrap()).status();
    assert!(status.unwrap().success());
    assert!(dump(&workspace, restored.to_str().unwrap()) == fs::read(&archive).unwrap());
}

const RECIPE: &str = r#"
SYSTEM = "x86_64-linux"
note = text("note.txt", "a note\n")
plain = derivation(
    name = "plain",
    system = SYSTEM,
    builder = "/bin/sh",
    args = ["-c", "echo \"$a\" > $out", "tab\t$ \\ é"],
    env = {"a": "b", "list": ["x", "y z"], "yes": True, "no": False, "number": 3, "empty": ""},
    content_addressed = False,
)
several = derivation(
    name = "several",
    system = SYSTEM,
    builder = "/bin/sh",
    args = ["-c", "cat %s %s > $out; echo > $dev; echo > $doc" % (plain, note)],
    outputs = ["out", "dev", "doc"],
    content_addressed = False,
)
fixed = derivation(
    name = "fixed.tar.gz",
    system = SYSTEM,
    builder = "/bin/sh",
    env = {"mirror": plain},
    output_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    output_hash_algo = "sha256",
)
tree = derivation(
    name = "tree",
    system = SYSTEM,
    builder = "/bin/sh",
    output_hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    output_hash_mode = "recursive",
)
derivation(
    name = "all-of-them",
    system = SYSTEM,
    builder = several.dev,
    args = [fixed, tree, "%s/bin" % several.doc],
    env = {"self": placeholder("out"), "long": "as a file"},
    pass_as_file = ["long"],
    content_addressed = False,
)
derivation(
    name = "structured",
    system = SYSTEM,
    builder = "/bin/sh",
    structured_attrs = {"list": ["a", 1, True, None, {"k": "v"}], "from": several, "text": "\"quoted\"\n"},
    content_addressed = False,
)
derivation(
    name = "advanced",
    system = SYSTEM,
    builder = "/bin/sh",
    allowed_references = [plain, "out"],
    allowed_requisites = [plain, several.dev, "bin"],
    disallowed_references = [],
    disallowed_requisites = [note],
    export_references_graph = {"graph": plain, "other": several.doc},
    impure_env_vars = ["UNICORN", "http_proxy"],
    prefer_local_build = True,
    allow_substitutes = False,
    required_system_features = ["rainbow", "uid-range"],
    env = {"__noChroot": True, "__sandboxProfile": "sandcastle"},
    outputs = ["out", "bin"],
    content_addressed = False,
)
derivation(
    name = "advanced-structured",
    system = SYSTEM,
    builder = "/bin/sh",
    structured_attrs = {"__noChroot": True},
    output_checks = {
        "out": {"allowedReferences": [plain, "out"], "maxSize": 789, "maxClosureSize": 5909},
        "bin": {"disallowedRequisites": [several]},
    },
    export_references_graph = {"graph": [plain, several.doc], "other": note},
    unsafe_discard_references = {"out": True},
    impure_env_vars = ["UNICORN"],
    prefer_local_build = True,
    allow_substitutes = False,
    required_system_features = ["rainbow"],
    outputs = ["out", "bin"],
    content_addressed = False,
)
"#;

const EXPRESSION: &str = r#"
let
  system = "x86_64-linux";
  builder = "/bin/sh";
  note = builtins.toFile "note.txt" "a note\n";
  plain = derivation {
    name = "plain"; inherit system builder;
    args = [ "-c" "echo \"$a\" > $out" "tab\t$ \\ é" ];
    a = "b"; list = [ "x" "y z" ]; yes = true; no = false; number = 3; empty = "";
  };
  several = derivation {
    name = "several"; inherit system builder;
    args = [ "-c" "cat ${plain} ${note} > $out; echo > $dev; echo > $doc" ];
    outputs = [ "out" "dev" "doc" ];
  };
  fixed = derivation {
    name = "fixed.tar.gz"; inherit system builder;
    mirror = plain;
    outputHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    outputHashAlgo = "sha256";
  };
  tree = derivation {
    name = "tree"; inherit system builder;
    outputHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    outputHashMode = "recursive";
  };
  all = derivation {
    name = "all-of-them"; inherit system;
    builder = several.dev;
    args = [ fixed tree "${several.doc}/bin" ];
    self = placeholder "out";
    long = "as a file";
    passAsFile = [ "long" ];
  };
  structured = derivation {
    name = "structured"; inherit system builder;
    __structuredAttrs = true;
    list = [ "a" 1 true null { k = "v"; } ];
    from = several;
    text = "\"quoted\"\n";
  };
  advanced = derivation {
    name = "advanced"; inherit system builder;
    allowedReferences = [ plain "out" ];
    allowedRequisites = [ plain several.dev "bin" ];
    disallowedReferences = [ ];
    disallowedRequisites = [ note ];
    exportReferencesGraph = [ "graph" plain "other" several.doc ];
    impureEnvVars = [ "UNICORN" "http_proxy" ];
    preferLocalBuild = true;
    allowSubstitutes = false;
    requiredSystemFeatures = [ "rainbow" "uid-range" ];
    __noChroot = true;
    __sandboxProfile = "sandcastle";
    outputs = [ "out" "bin" ];
  };
  advanced-structured = derivation {
    name = "advanced-structured"; inherit system builder;
    __structuredAttrs = true;
    __noChroot = true;
    outputChecks = {
      out = { allowedReferences = [ plain "out" ]; maxSize = 789; maxClosureSize = 5909; };
      bin = { disallowedRequisites = [ several ]; };
    };
    exportReferencesGraph = { graph = [ plain several.doc ]; other = [ note ]; };
    unsafeDiscardReferences = { out = true; };
    impureEnvVars = [ "UNICORN" ];
    preferLocalBuild = true;
    allowSubstitutes = false;
    requiredSystemFeatures = [ "rainbow" ];
    outputs = [ "out" "bin" ];
  };
in [ plain several fixed tree all structured advanced advanced-structured ]
"#;

#[test]
fn derivations_and_their_records() {
    if !installed("nix-instantiate") || !installed("nix") {
        return;
    }
    let workspace = Workspace::with(RECIPE);
    let expression = workspace.path().join("expression.nix");
    fs::write(&expression, EXPRESSION).unwrap();
    let paths = nix(&workspace, "nix-instantiate", &[expression.to_str().unwrap()]);
    // `path!output` where there is more than one output.
    let mut paths: Vec<&str> = paths.lines().map(|line| line.split('!').next().unwrap()).collect();
    paths.sort_unstable();
    paths.dedup();
    let ours = workspace.ok(&["show", "--json", "//:all"]).json();
    let names: Vec<&String> = ours.as_object().unwrap().keys().collect();
    assert_eq!(names, paths);

    let mut arguments = vec!["show-derivation"];
    arguments.extend(&paths);
    let theirs: Value = serde_json::from_str(&nix(&workspace, "nix", &arguments)).unwrap();
    for path in paths {
        // Newer ones say more; what this one says must agree.
        for (field, value) in theirs[path].as_object().unwrap() {
            assert_eq!(&ours[path][field], value, "{field} of {path}");
        }
        let aterm = workspace.ok(&["show", "--write", "//:all"]);
        let base_name = path.strip_prefix("/nix/store/").unwrap();
        let written = aterm.stdout.lines().find(|line| line.ends_with(base_name)).unwrap();
        let file = workspace.path().join("nix").join(path.trim_start_matches('/'));
        assert_eq!(fs::read_to_string(written).unwrap(), fs::read_to_string(file).unwrap());
    }
}

/// A recipe whose builder is an input, so that it runs in any sandbox and outside.
fn portable(tools_hash: &str) -> String {
    format!(
        r#"
tools = derivation(
    name = "tools",
    system = "x86_64-linux",
    builder = "/bin/sh",
    output_hash = "{tools_hash}",
    output_hash_mode = "recursive",
    target = False,
)
BUSYBOX = "%s/bin/busybox" % tools
SCRIPT = """
$busybox mkdir $out
echo I am $out and not $doc > $out/file
$busybox ln -s $busybox $out/link
$busybox cat $textPath $0 > $doc || $busybox cat $textPath > $doc
$busybox env | $busybox grep -v SHLVL | $busybox sort > $out/environment
"""
[
    derivation(
        name = "portable",
        target = target,
        system = "x86_64-linux",
        builder = BUSYBOX,
        args = ["sh", "-euc", SCRIPT],
        env = {{"busybox": BUSYBOX, "text": "passed as a file"}},
        pass_as_file = ["text"],
        outputs = ["out", "doc"],
        content_addressed = target == "floating",
    )
    for target in ["classic", "floating"]
]
"#
    )
}

/// Puts the objects, with all they refer to, into the store of Nix.
fn hand_over(workspace: &Workspace, paths: &[&str]) {
    let stream = workspace.path().join("stream");
    let exported = workspace.command().args(["store", "export", "--closure"]).args(paths).output().unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    fs::write(&stream, exported.stdout).unwrap();
    let mut import = Command::new("nix-store");
    import.args(["--extra-experimental-features", "ca-derivations", "--import", "--store"]);
    let imported = import.arg(workspace.path().join("nix")).stdin(File::open(&stream).unwrap()).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

#[test]
fn stock_nix_builds_our_derivations_to_the_same_paths() {
    if !installed("nix-store") {
        return;
    }
    let Some(workspace) = Workspace::with_tools("") else { return };
    let tools = workspace.path().join("tools");
    fs::create_dir_all(tools.join("bin")).unwrap();
    let busybox = workspace.ok(&["build", "--quiet", "//tools:busybox"]).path().join("usr/bin/busybox");
    fs::copy(busybox, tools.join("bin/busybox")).unwrap();
    fs::set_permissions(tools.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    let tools = tools.to_str().unwrap();
    let added = workspace.ok(&["store", "add", tools]).text().to_owned();
    workspace.write("BUILD.star", &portable(workspace.ok(&["store", "hash", tools]).text()));

    for target in ["//:classic", "//:floating"] {
        let built = workspace.ok(&["build", "--cores", "2", target]).path();
        let written = workspace.ok(&["show", "--write", target]).path();
        let derivation = format!("/nix/store/{}", written.file_name().unwrap().to_str().unwrap());
        hand_over(&workspace, &[&derivation, &added]);
        let Some(realised) = realise(&workspace, &derivation) else { return };
        let base_name = built.file_name().unwrap().to_str().unwrap();
        assert!(realised.iter().any(|path| path.ends_with(base_name)), "{target}: {base_name} {realised:?}");
        for path in realised {
            let info = workspace.ok(&["store", "info", "--json", &path]).json()[&path].clone();
            let theirs = nix(&workspace, "nix-store", &["--query", "--hash", &path]);
            let theirs = theirs.strip_prefix("sha256:").unwrap();
            let on_disk = info["onDisk"].as_str().unwrap();
            let ours = workspace.ok(&["store", "hash", "--format", "nix32", on_disk]);
            assert_eq!(ours.text(), theirs, "{target}: {path}");
            let references = nix(&workspace, "nix-store", &["--query", "--references", &path]);
            let ours: Vec<&str> = info["references"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
            let mut theirs: Vec<&str> = references.lines().collect();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{target}: {path}");
        }
    }
}

/// Builds with Nix; `None` if it cannot build on this machine, which it says.
fn realise(workspace: &Workspace, derivation: &str) -> Option<Vec<String>> {
    let store: PathBuf = workspace.path().join("nix");
    let mut command = Command::new("nix-store");
    command.arg("--store").arg(&store).args(["--extra-experimental-features", "ca-derivations"]);
    for (name, value) in [("substituters", ""), ("build-users-group", ""), ("sandbox", "false"), ("cores", "2")] {
        command.args(["--option", name, value]);
    }
    let ran = Ran::from(command.args(["--realise", derivation]).env_remove("NIX_REMOTE").output().unwrap());
    if ran.code != 0 && !ran.stderr.contains("builder for") {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: stock Nix cannot build in `{}`: {}\n", store.display(), ran.stderr),
        );
        return None;
    }
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let paths: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    assert!(paths.iter().all(|path| Path::new(path).starts_with("/nix/store")), "{paths:?}");
    Some(paths)
}
