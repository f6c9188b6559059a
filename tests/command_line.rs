//! The command line itself: help, completions, how much is said where, exit codes.

use std::fs;
use std::process::Stdio;

use crate::harness::Workspace;

#[test]
fn help_has_examples() {
    let workspace = Workspace::new();
    for command in [&[][..], &["build"], &["show"], &["log"], &["sources"], &["store"]] {
        let ran = workspace.ok(&[command, &["--help"]].concat());
        assert!(ran.stdout.contains("Example") && ran.stdout.contains("  ampoule "), "{command:?}: {}", ran.stdout);
        assert_eq!(ran.stderr, "");
    }
    let help = workspace.ok(&["--help"]).stdout;
    for said in ["Exit codes: 0 done", "100 a build failed", "104 not reproducible", "130 interrupted"] {
        assert!(help.replace('\n', " ").contains(said), "{said}: {help}");
    }
    assert!(workspace.ok(&["--version"]).stdout.starts_with("ampoule "));
    assert!(!workspace.home().exists(), "help needs no store");
}

#[test]
fn mistakes_on_the_command_line() {
    let workspace = Workspace::with("");
    for (arguments, words) in [
        (&["build"][..], &["LABEL"][..]),
        (&["build", "--chek", "//:x"], &["--chek", "--check"]),
        (&["biuld"], &["biuld", "build"]),
        (&["build", "--jobs", "0", "//:x"], &["--jobs"]),
        (&["build", "--timeout", "soon", "//:x"], &["soon"]),
        (&["build", "--quiet", "-v", "//:x"], &["--quiet", "--verbose"]),
        (&["build", "///"], &["`//:all`", "`//...`"]),
        (&["build", "wheels:x"], &["wheels:x"]),
        (&["show", "--json", "--aterm", "//:x"], &["--aterm"]),
        (&["completions", "tcsh"], &["tcsh"]),
        (&[], &["Usage"]),
    ] {
        workspace.fails(2, arguments).says(words);
    }
}

#[test]
fn completions_for_every_shell() {
    let workspace = Workspace::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = workspace.ok(&["completions", shell]).stdout;
        assert!(script.contains("ampoule") && script.contains("keep-going"), "{shell}");
    }
}

#[test]
fn quiet_is_quiet_and_verbose_shows_what_builds_write() {
    let recipe = r#"
sh(name = "one", script = "echo a word from the build; echo > $out")
sh(name = "two", script = "echo a word from the build; echo 2 > $out")
sh(name = "three", script = "echo a word from the build; echo 3 > $out")
sh(name = "bad", script = "echo the reason; exit 1")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let quiet = workspace.ok(&["build", "--quiet", "//:one"]);
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.lines().count()), ("", 1));
    workspace.ok(&["build", "//:two"]).says(&["build two"]).is_silent_about(&["a word from the build"]);
    workspace.ok(&["build", "-v", "//:three"]).says(&["a word from the build"]);
    workspace.fails(100, &["build", "--quiet", "//:bad"]).says(&["error: bad: ", "| the reason"]);
}

#[test]
fn logs_are_kept() {
    let recipe = r#"
lower = sh(name = "lower", script = "echo below; echo > $out")
sh(name = "upper", script = "echo on standard error >&2; cat %s > $out" % lower)
sh(name = "bad", script = "echo its last words; exit 1")
sh(name = "wild", script = "printf 'a\\033[31mb\\377\\n'; echo > $out")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.fails(1, &["log", "//:nothing"]);
    workspace.ok(&["build", "--quiet", "//:upper"]);
    let log = workspace.ok(&["log", "//:upper"]).stdout;
    let (below, above) = (log.find("below\n"), log.find("on standard error\n"));
    assert!(below.is_some() && below < above, "{log}");
    assert!(log.contains("==> lower") && log.contains("==> upper"), "{log}");
    workspace.fails(100, &["build", "//:bad"]);
    assert!(workspace.ok(&["log", "//:bad"]).stdout.contains("its last words\n"));
    // By the path of the derivation, too.
    let shown = workspace.ok(&["show", "--json", "//:bad"]).json();
    let path = shown.as_object().unwrap().keys().next().unwrap().clone();
    assert!(workspace.ok(&["log", &path]).stdout.contains("its last words\n"));
    // The terminal is not the build's to drive when its words are shown as it runs.
    workspace.ok(&["build", "-v", "//:wild"]).says(&["[31mb"]).is_silent_about(&["\u{1b}[31m"]);
}

#[test]
fn what_was_never_built_has_no_log() {
    let recipe = r#"derivation(name = "x", system = "x86_64-linux", builder = "/bin/sh")"#;
    let workspace = Workspace::with(recipe);
    workspace.fails(1, &["log", "//:x"]).says(&["there is no log of `//:x`", "hint: "]);
}

#[test]
fn shown_for_people_and_for_programs() {
    let recipe = r#"
note = text("note", "x")
lower = derivation(name = "lower", system = "x86_64-linux", builder = "/bin/sh", args = ["-c", "echo > $out"])
derivation(
    name = "upper",
    system = "x86_64-linux",
    builder = "/bin/sh",
    args = ["-c", "cat %s %s" % (lower, note)],
    env = {"a": "b"},
)
derivation(name = "known", system = "x86_64-linux", builder = "/bin/sh", content_addressed = False)
"#;
    let workspace = Workspace::with(recipe);
    let text = workspace.ok(&["show", "//:upper"]).stdout;
    let facts = ["//:upper\n", "rule        derivation", "needs       /nix/store/", "sources     /nix/store/", " a=b"];
    for said in facts.iter().chain(&["known when it is built"]) {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(workspace.ok(&["show", "//:known"]).stdout.contains("output      out: /nix/store/"));
    let all = workspace.ok(&["show", "//..."]).stdout;
    assert_eq!(all.lines().filter(|line| line.starts_with("//")).count(), 3, "{all}");
    assert_eq!(workspace.ok(&["show", "--json", "//:upper"]).json().as_object().unwrap().len(), 1);
    assert_eq!(workspace.ok(&["show", "--json", "--recursive", "//:upper"]).json().as_object().unwrap().len(), 2);
    let bytes = workspace.ok(&["show", "--aterm", "//:upper"]).stdout;
    assert!(bytes.starts_with("Derive(["), "{bytes}");
    workspace.fails(2, &["show", "--aterm", "//..."]).says(&["prints one derivation", "//:upper"]);
    assert!(!workspace.home().exists(), "showing needs no store");
    let written = workspace.ok(&["show", "--write", "//:upper"]).path();
    assert_eq!(fs::read_to_string(&written).unwrap(), bytes);
    // A derivation that the store knows can be shown without its recipe.
    workspace.write("BUILD.star", "");
    assert_eq!(workspace.ok(&["show", "--aterm", written.to_str().unwrap()]).stdout, bytes);
    workspace.verify_store();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let recipe = "[derivation(name = \"d%d\" % n, system = \"s\", builder = \"b\") for n in range(2000)]";
    let workspace = Workspace::with(recipe);
    let mut child = workspace.command().args(["show", "//..."]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_root_is_found_upwards_or_named() {
    let workspace = Workspace::with("derivation(name = \"x\", system = \"s\", builder = \"b\")");
    workspace.write("deep/er/file", "");
    let mut below = workspace.command();
    below.args(["show", "//:x"]).current_dir(workspace.root().join("deep/er"));
    assert!(below.output().unwrap().status.success());
    let mut elsewhere = workspace.command();
    elsewhere.args(["show", "//:x", "--root"]).arg(workspace.root()).current_dir("/");
    assert!(elsewhere.output().unwrap().status.success());
    workspace.write("ampoule.toml", "[catalog]\npath = \"recipes\"\n");
    workspace.write("recipes/BUILD.star", "derivation(name = \"y\", system = \"s\", builder = \"b\")");
    workspace.ok(&["show", "//:y"]);
    workspace.fails(1, &["show", "//:x"]).says(&["//:x"]);
}
