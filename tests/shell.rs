//! `ampoule shell`, and the directories of failed builds.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::harness::{Ran, Workspace, installed};

const RECIPE: &str = r#"
part = sh(name = "part", script = "echo part > $out")
sh(name = "environment", script = "env | grep -v SHLVL | sort > $out; id >> $out; umask >> $out # %s" % part,
    env = {"long": "text", "own": placeholder("out")}, pass_as_file = ["long"], content_addressed = False)
sh(name = "bad", script = "mkdir -p a/b; echo so far > a/b/file; chmod 750 a/b; ln -s b a/link; exit 7")
sh(name = "on-bad", script = "cat %s" % sh(name = "badly", script = "echo left > here; exit 1", target = False))
"#;

#[test]
fn a_command_sees_what_the_builder_sees() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let built = workspace.built("//:environment");
    let command = "PATH=/bin; env | grep -v SHLVL | sort; id; umask";
    let shown = workspace.ok(&["shell", "//:environment", "-c", command]).stdout;
    assert_eq!(shown, built);
    assert!(shown.contains("longPath=/build/.attr-"), "{shown}");
    let command = "PATH=/bin; cat $longPath; ls /nix/store | grep -c part; echo > /nix/store/x-part/x; wget -q http://127.0.0.1; exit 5";
    let ran = workspace.fails(5, &["shell", "//:environment", "--command", command]);
    assert!(ran.stdout.starts_with("text1\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("can't create /nix/store/x-part/x"), "{}", ran.stdout);
    // Nothing of it stays.
    workspace.verify_store();
    assert_eq!(fs::read_dir(workspace.home().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_failed_build_is_kept_entered_and_removed() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let none = workspace.fails(1, &["shell", "--failed", "//:bad", "-c", "true"]);
    none.says(&["no failed build of `//:bad` is kept", "--keep-failed"]);
    workspace.fails(100, &["build", "//:bad"]).is_silent_about(&["kept: "]);
    let failed = workspace.fails(100, &["build", "--keep-failed", "--json", "//:bad"]);
    let kept = failed.json()["failures"][0]["kept"].as_str().unwrap().to_owned();
    failed.says(&[&format!("kept: {kept}")]);
    assert_eq!(fs::read_to_string(format!("{kept}/a/b/file")).unwrap(), "so far\n");
    let command = "PATH=/bin; cat a/link/file; stat -c %U a/b/file; echo more >> a/b/file && rm -r a && pwd";
    let ran = workspace.ok(&["shell", "--failed", "//:bad", "-c", command]);
    assert_eq!(ran.stdout, "so far\nnixbld\n/build\n");
    assert_eq!(fs::read_to_string(format!("{kept}/a/b/file")).unwrap(), "so far\n", "it is a copy that was entered");

    // The step that failed need not be the one that was asked for.
    workspace.fails(100, &["build", "-K", "//:on-bad"]);
    assert_eq!(workspace.ok(&["shell", "--failed", "//:on-bad", "-c", "PATH=/bin; cat here"]).stdout, "left\n");

    workspace.ok(&["gc"]);
    assert!(fs::exists(&kept).unwrap(), "it is younger than a day");
    workspace.ok(&["gc", "--failed-older-than", "0", "--dry-run"]).says(&["would be deleted: failed build"]);
    assert!(fs::exists(&kept).unwrap());
    workspace.ok(&["gc", "--failed-older-than", "0"]);
    assert!(!fs::exists(&kept).unwrap());
}

#[test]
fn without_a_shell_it_says_how_to_name_one() {
    let recipe = r#"
load("//tools:BUILD.star", "busybox")
derivation(name = "plain", system = "x86_64-linux", builder = "%s/usr/bin/sh" % busybox, content_addressed = False)
derivation(name = "none", system = "x86_64-linux", builder = "%s/usr/bin/env" % busybox, content_addressed = False)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.fails(1, &["shell", "//:none", "-c", "true"]).says(&["there is no shell", "--shell "]);
    workspace
        .fails(1, &["shell", "//:none", "--shell", "/bin/zsh", "-c", "true"])
        .says(&["`/bin/zsh`", "--shell PATH"]);
    assert_eq!(workspace.ok(&["shell", "//:plain", "-c", "echo $name"]).stdout, "plain\n");
    workspace.fails(2, &["shell", "//:all"]).says(&["names 2 builds"]);
}

#[test]
fn a_person_gets_a_terminal() {
    if !installed("script") {
        return;
    }
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let program = format!("{} shell //:environment", env!("CARGO_BIN_EXE_ampoule"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &program, "/dev/null"]);
    command.env("AMPOULE_HOME", workspace.home()).current_dir(workspace.root());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let mut shown = child.stdout.take().unwrap();
    let mut seen = String::new();
    for (keys, expected) in [
        ("", "~ $"),
        ("PATH=/bin; test -t 0 && echo it is a $((1 + 1))-way terminal\n", "it is a 2-way terminal"),
        ("exit 9\n", "exit 9"),
    ] {
        typed.write_all(keys.as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        while !seen.contains(expected.trim_end()) {
            let count = shown.read(&mut buffer).unwrap();
            assert!(count > 0, "{expected} is not in {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        seen.clear();
    }
    let mut rest = Vec::new();
    shown.read_to_end(&mut rest).unwrap();
    drop(typed);
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).code, 9);
}
