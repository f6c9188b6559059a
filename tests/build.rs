//! `ampoule build`: what is built, what is not built again, and what builders see.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::{Ran, Workspace, remove_tree, tools_files};

/// How many builds a run began.
fn builds(ran: &Ran) -> usize {
    let begun = ran.stderr.lines().filter(|line| line.starts_with("build ") && !line.contains(": "));
    begun.count()
}

#[test]
fn a_build_prints_its_path_and_a_second_run_finds_it() {
    let Some(workspace) = Workspace::with_tools(r#"sh(name = "hello", script = "echo hello > $out")"#) else { return };
    let first = workspace.ok(&["build", "//:hello"]);
    first.says(&["build hello", "//:hello: built"]);
    assert!(first.path().starts_with(workspace.home().join("store")), "{}", first.stdout);
    assert_eq!(fs::read_to_string(first.path()).unwrap(), "hello\n");

    let second = workspace.ok(&["build", "//:hello"]);
    second.says(&["//:hello: in the store"]);
    assert_eq!((builds(&first), builds(&second)), (1, 0));
    assert_eq!(second.stdout, first.stdout);
    workspace.verify_store();
}

#[test]
fn a_change_above_that_makes_the_same_bytes_rebuilds_nothing_below() {
    let recipe = |comment: &str| {
        format!(
            r#"
upper = sh(name = "upper", script = "echo same > $out # {comment}")
lower = sh(name = "lower", script = "cat %s > $out" % upper)
sh(name = "lowest", script = "cat %s > $out" % lower)
"#
        )
    };
    let Some(workspace) = Workspace::with_tools(&recipe("one")) else { return };
    let first = workspace.ok(&["build", "//:lowest"]);
    assert_eq!(builds(&first), 3);
    workspace.rewrite(&recipe("two"));
    let second = workspace.ok(&["build", "//:lowest"]);
    second.says(&["build upper", "//:lowest: same as an earlier build"]).is_silent_about(&["build lower"]);
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(builds(&workspace.ok(&["build", "//:lowest"])), 0);
}

#[test]
fn derivations_that_resolve_to_the_same_one_are_built_once() {
    let recipe = r#"
a = sh(name = "source", script = "echo same > $out # a", target = "source-a")
b = sh(name = "source", script = "echo same > $out # b", target = "source-b")
sh(name = "user", script = "cat %s > $out" % a, target = "user-a")
sh(name = "user", script = "cat %s > $out" % b, target = "user-b")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let ran = workspace.ok(&["build", "--jobs", "2", "//:user-a", "//:user-b"]);
    assert_eq!(builds(&ran), 3, "{}", ran.stderr);
    let paths: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(paths[0], paths[1]);
}

#[test]
fn outputs_refer_to_themselves_and_to_each_other() {
    let recipe = r#"
sh(
    name = "several",
    outputs = ["out", "lib", "doc"],
    script = """
mkdir $lib $out
echo library at $lib > $lib/library
ln -s $lib/library $out/link
echo $out > $out/self
echo about nothing > $doc
""",
)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let out = workspace.ok(&["build", "//:several"]).text().to_owned();
    let info = workspace.ok(&["store", "info", "--json", &out]).json();
    let (logical, info) = info.as_object().unwrap().iter().next().unwrap();
    let references: Vec<&str> =
        info["references"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(references.len(), 2, "{references:?}");
    assert!(references.contains(&logical.as_str()), "{references:?}");
    assert_eq!(fs::read_to_string(format!("{out}/self")).unwrap().trim(), logical);
    let library = fs::read_link(format!("{out}/link")).unwrap();
    let library = library.to_str().unwrap().strip_suffix("/library").unwrap();
    assert!(library.ends_with("-several-lib") && references.contains(&library), "{library} {references:?}");
    let stored = workspace.ok(&["store", "info", "--json", library]).json()[library]["onDisk"].clone();
    let text = fs::read_to_string(format!("{}/library", stored.as_str().unwrap())).unwrap();
    assert_eq!(text, format!("library at {library}\n"));
    workspace.verify_store();
}

#[test]
fn outputs_in_a_circle_are_refused() {
    let recipe = r#"sh(name = "circle", outputs = ["out", "lib"], script = "echo $lib > $out; echo $out > $lib")"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.fails(100, &["build", "//:circle"]).says(&["outputs refer to each other in a circle", "`lib`", "`out`"]);
}

#[test]
fn the_environment_is_that_of_nix() {
    let recipe = r#"
derivation(
    name = "environment",
    system = "x86_64-linux",
    builder = "/bin/sh",
    args = ["-c", "/bin/env | /bin/sort > $out; /bin/id -u >> $out; /bin/id -g >> $out; /bin/hostname >> $out; umask >> $out"],
    env = {"number": 3, "yes": True, "no": False, "list": ["a", "b c"], "empty": ""},
    rootfs = busybox,
)
"#;
    let recipe = format!("load(\"//tools:BUILD.star\", \"busybox\")\n{recipe}");
    let Some(workspace) = Workspace::with_tools(&recipe) else { return };
    let text = fs::read_to_string(workspace.ok(&["build", "--cores", "3", "//:environment"]).path()).unwrap();
    let shown = |line: &str| {
        let (name, value) = line.split_once('=')?;
        // The shell itself adds these two; store paths differ from machine to machine.
        (!matches!(name, "SHLVL" | "OLDPWD")).then(|| match name {
            "out" | "rootfs" => format!("{name}=(a store path: {})", value.starts_with("/nix/store/")),
            _ => line.to_owned(),
        })
    };
    let variables: Vec<String> = text.lines().filter_map(shown).collect();
    let expected = [
        "HOME=/homeless-shelter",
        "NIX_BUILD_CORES=3",
        "NIX_BUILD_TOP=/build",
        "NIX_LOG_FD=2",
        "NIX_STORE=/nix/store",
        "PATH=/path-not-set",
        "PWD=/build",
        "TEMP=/build",
        "TEMPDIR=/build",
        "TERM=xterm-256color",
        "TMP=/build",
        "TMPDIR=/build",
        "builder=/bin/sh",
        "empty=",
        "list=a b c",
        "name=environment",
        "no=",
        "number=3",
        "out=(a store path: true)",
        "requiredSystemFeatures=rootfs",
        "rootfs=(a store path: true)",
        "system=x86_64-linux",
        "yes=1",
    ];
    assert_eq!(variables, expected);
    let rest: Vec<&str> = text.lines().filter(|line| !line.contains('=')).collect();
    assert_eq!(rest, ["1000", "100", "localhost", "0022"]);
}

#[test]
fn attributes_are_passed_as_files_and_as_json() {
    let recipe = r#"
sh(
    name = "as-file",
    script = "test -z \"${long-}\"; echo $longPath > $out; cat $longPath >> $out",
    env = {"long": "some text"},
    pass_as_file = ["long"],
)
sh(
    name = "structured",
    script = """out=$(sed 's/.*"outputs":{"out":"//; s/".*//' $NIX_ATTRS_JSON_FILE); cp $NIX_ATTRS_JSON_FILE $out""",
    structured_attrs = {"list": ["a", 1, True, None], "table": {"key": "value"}},
)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let file = workspace.built("//:as-file");
    let (path, content) = file.split_once('\n').unwrap();
    assert!(path.starts_with("/build/.attr-"), "{path}");
    assert_eq!(content, "some text");

    let json: serde_json::Value = serde_json::from_str(&workspace.built("//:structured")).unwrap();
    assert_eq!(json["list"], serde_json::json!(["a", 1, true, null]));
    assert_eq!(json["table"]["key"], "value");
    assert_eq!(json["name"], "structured");
    assert!(json["outputs"]["out"].as_str().unwrap().ends_with("-structured"), "{json}");
}

#[test]
fn interpolation_makes_inputs() {
    let recipe = r#"
note = text("note.txt", "from a text\n")
part = sh(name = "part", script = "echo from a build > $out", target = False)
sh(
    name = "whole",
    script = f"cat {note} {part} $own $listed > $out",
    env = {"own": file("own.txt"), "listed": [note, part]},
)
sh(name = "apart", script = "seen=$(ls /nix/store); echo \"$seen\" > $out; cat %s >> $out" % note)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.write("own.txt", "from a file\n");
    assert_eq!(workspace.built("//:whole"), "from a text\nfrom a build\nfrom a file\nfrom a text\nfrom a build\n");
    // A build sees its inputs and nothing else.
    let seen = workspace.built("//:apart");
    let names: Vec<&str> = seen.lines().filter_map(|line| line.split_once('-').map(|(_, name)| name)).collect();
    assert_eq!(names.iter().filter(|name| **name != "busybox").collect::<Vec<_>>(), [&"note.txt"], "{seen}");
    let shown = workspace.ok(&["show", "--json", "//:whole"]).json();
    let shown = shown.as_object().unwrap().values().next().unwrap();
    assert_eq!(shown["inputDrvs"].as_object().unwrap().len(), 2, "{shown}");
    assert_eq!(shown["inputSrcs"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let recipe = r#"
one = sh(name = "one", script = "echo 1 > $out")
sh(name = "two", script = "cat %s > $out" % one)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    assert_eq!(workspace.ok(&["build", "--dry-run", "//:two"]).stdout, "build one\nbuild two\n");
    let record = workspace.ok(&["build", "--dry-run", "--json", "--check", "//:one"]).json();
    assert_eq!(record["build"], serde_json::json!(["one"]));
    assert_eq!(record["fetch"], serde_json::json!([]));
    assert!(record["check"].as_array().unwrap().contains(&"one".into()), "{record}");
    let begun = workspace.ok(&["build", "//:two"]);
    assert_eq!(builds(&begun), 2);
    assert_eq!(workspace.ok(&["build", "--dry-run", "//:two"]).stdout, "");
}

#[test]
fn a_record_for_programs() {
    let recipe = r#"
sh(name = "good", script = "echo > $out")
sh(name = "bad", script = "echo so it is; exit 3")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let ran = workspace.fails(100, &["build", "--json", "--keep-going", "//:good", "//:bad"]);
    let record = ran.json();
    assert_eq!(record["exit_code"], 100);
    assert_eq!(record["skipped"], serde_json::json!([]));
    let [good, bad] = record["targets"].as_array().unwrap().as_slice() else { panic!("{record}") };
    assert_eq!((&good["label"], &good["success"]), (&"//:good".into(), &true.into()));
    assert!(
        good["path"].as_str().unwrap().ends_with("-good") && good["derivation"].as_str().unwrap().ends_with(".drv")
    );
    assert!(good["files"][0].as_str().unwrap().starts_with(workspace.home().to_str().unwrap()), "{good}");
    assert_eq!((&bad["success"], &bad["path"]), (&false.into(), &serde_json::Value::Null));
    let [failure] = record["failures"].as_array().unwrap().as_slice() else { panic!("{record}") };
    assert_eq!((&failure["name"], &failure["kind"]), (&"bad".into(), &"build failed".into()));
    assert_eq!(failure["log_tail"], serde_json::json!(["so it is"]));
}

#[test]
fn failures_name_what_needs_them_and_others_go_on_if_asked() {
    let recipe = r#"
bad = sh(name = "bad", script = "echo the last words; exit 7")
middle = sh(name = "middle", script = "cat %s > $out" % bad)
sh(name = "top", script = "cat %s > $out" % middle)
sh(name = "other", script = "sleep 0.2; echo fine > $out")
sh(name = "another", script = "echo fine, too > $out")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let arguments = ["build", "--jobs", "1", "//:top", "//:other", "//:another"];
    let stopped = workspace.fails(100, &arguments);
    stopped.says(&["error: bad: the builder", "7", "| the last words", "ampoule log", "not begun: another, other"]);
    stopped.says(&["needed by: //:top, through middle", "not built because of it: middle, top"]);
    let went_on = workspace.fails(100, &[&arguments[..], &["--keep-going"]].concat());
    went_on.says(&["error: bad", "//:other: ", "//:another: "]).is_silent_about(&["build middle", "build top"]);
    assert_eq!(went_on.stdout.lines().count(), 2, "{}", went_on.stdout);
    assert!(workspace.ok(&["log", "//:bad"]).stdout.ends_with("the last words\n"));
    workspace.verify_store();
}

#[test]
fn outputs_that_were_removed_are_built_again() {
    let recipe = r#"
one = sh(name = "one", script = "mkdir $out; echo 1 > $out/file")
sh(name = "two", script = "cat %s/file > $out" % one)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let one = workspace.ok(&["build", "//:one"]).path();
    let two = workspace.ok(&["build", "//:two"]).path();
    let listing = fs::read_dir(workspace.home().join("store")).unwrap().count();
    assert!(listing >= 2);
    remove_tree(&one);
    remove_tree(&two);
    let again = workspace.ok(&["build", "//:two"]);
    assert_eq!(builds(&again), 2, "{}", again.stderr);
    assert_eq!(again.path(), two);
    assert_eq!(fs::read_to_string(&two).unwrap(), "1\n");
    // Only the lower one is gone: what it was made of serves.
    remove_tree(&two);
    assert_eq!(builds(&workspace.ok(&["build", "//:two"])), 1);
    workspace.verify_store();
}

#[test]
fn an_ordinary_user_makes_the_same_bytes_elsewhere() {
    if !rustix::process::geteuid().is_root() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: only root can become another user\n"),
        );
        return;
    }
    const ORDINARY: u32 = 12_345;
    let script = "mkdir $out; echo $out > $out/file; id > $out/who; stat -c %u:%g:%a /build / $out > $out/list";
    let Some(workspace) = Workspace::with_tools(&format!("sh(name = \"same\", script = \"{script}\")")) else { return };
    let as_root = workspace.ok(&["build", "--check", "//:same"]).path();
    // The binary, the recipes and the sources where that user can read them, and a directory of its own for the store.
    let theirs = tempfile::tempdir().unwrap();
    let program = theirs.path().join("ampoule");
    fs::copy(env!("CARGO_BIN_EXE_ampoule"), &program).unwrap();
    let copied = Command::new("cp").arg("-r").args([&workspace.root(), tools_files()]).arg(theirs.path()).status();
    assert!(copied.unwrap().success());
    let owned = Command::new("chown").arg("-R").arg(ORDINARY.to_string()).arg(theirs.path()).status().unwrap();
    assert!(owned.success());
    let mut command = Command::new(&program);
    command
        .args(["build", "--check", "--offline", "--cores", "7", "--from"])
        .arg(theirs.path().join("files"))
        .arg("//:same");
    command.env("AMPOULE_HOME", theirs.path().join("another/home")).current_dir(theirs.path().join("recipes"));
    let ran = Ran::from(command.uid(ORDINARY).gid(ORDINARY).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.path().file_name(), as_root.file_name());
    ran.says(&["identical when built again"]);
}
