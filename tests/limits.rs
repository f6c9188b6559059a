//! Builds that want too much, and builds that make too little.

use crate::harness::{Workspace, long_sleep, processes_with, wait_until};

/// Builds one script, which fails with this code, and insists on the words; the store stays whole and no process stays.
fn fails(code: i32, script: &str, options: &[&str], words: &[&str]) {
    let recipe =
        format!("sh(name = \"greedy\", script = '''\n{script}\n''')\nsh(name = \"fine\", script = \"echo > $out\")");
    let Some(workspace) = Workspace::with_tools(&recipe) else { return };
    workspace.fails(code, &[&["build", "//:greedy"], options].concat()).says(&["error: greedy: "]).says(words);
    workspace.ok(&["build", "//:fine"]);
    workspace.verify_store();
    assert_eq!(std::fs::read_dir(workspace.home().join("tmp")).unwrap().count(), 0);
}

#[test]
fn one_that_never_ends() {
    let sleep = long_sleep(1);
    let script = format!("echo still here; {sleep} & while :; do :; done");
    fails(101, &script, &["--timeout", "2"], &["stopped after 2 seconds", "| still here", "hint: ", "--timeout"]);
    wait_until("its processes are gone", || processes_with(&sleep).is_empty());
}

#[test]
fn one_that_is_silent() {
    let options = ["--max-silent-time", "1", "--timeout", "60"];
    let sleep = long_sleep(2);
    fails(101, &format!("echo once; {sleep}"), &options, &["wrote nothing for 1 seconds", "--max-silent-time"]);
    wait_until("its processes are gone", || processes_with(&sleep).is_empty());
}

#[test]
fn one_that_forks_without_end() {
    let script = "bomb() { bomb | bomb & bomb; }\nbomb";
    fails(100, script, &["--max-processes", "100", "--timeout", "30"], &["can't fork"]);
}

#[test]
fn one_that_fills_the_disk() {
    let script = "mkdir $out; yes > $out/full";
    fails(100, script, &["--max-output-size", "4000000"], &["No space left on device"]);
}

#[test]
fn one_that_fills_the_scratch_directories() {
    for directory in ["/build", "/tmp"] {
        let script = format!("yes > {directory}/full");
        fails(100, &script, &["--max-output-size", "4000000"], &["No space left on device"]);
    }
}

#[test]
fn one_that_talks_without_end() {
    fails(100, "yes", &["--max-log-size", "100000"], &["its log passed 100000 bytes", "--max-log-size"]);
}

#[test]
fn one_that_makes_nothing() {
    fails(100, "true", &[], &["the builder succeeded but did not make its output `out`", "hint: ", "$out"]);
}

#[test]
fn one_that_makes_what_no_store_can_keep() {
    fails(100, "mkfifo $out", &[], &["output `out`"]);
}

#[test]
fn one_that_tries_the_network() {
    // An address that documentation may use.
    fails(100, "nc -w 5 192.0.2.1 80 > $out", &[], &["Network is unreachable"]);
}

#[test]
fn one_that_looks_for_servers_of_this_machine() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    fails(100, &format!("nc -w 5 127.0.0.1 {port} > $out"), &[], &["Connection refused"]);
}

#[test]
fn one_whose_builder_is_not_there() {
    let recipe = r#"
derivation(name = "lost", system = "x86_64-linux", builder = "/bin/nothing", rootfs = busybox)
derivation(name = "rootless", system = "x86_64-linux", builder = "/bin/sh", args = ["-c", ":"])
"#;
    let recipe = format!("load(\"//tools:BUILD.star\", \"busybox\")\n{recipe}");
    let Some(workspace) = Workspace::with_tools(&recipe) else { return };
    for name in ["lost", "rootless"] {
        let ran = workspace.fails(100, &["build", &format!("//:{name}")]);
        ran.says(&[&format!("error: {name}: the builder `/bin/"), "could not be started"]);
    }
}

#[test]
fn one_that_is_killed_or_fails() {
    fails(100, "echo about to fall; kill -SEGV $$", &[], &["the builder ", "| about to fall"]);
    fails(100, "exit 42", &[], &["42"]);
}

#[test]
fn one_that_writes_where_it_may_not() {
    let recipe = r#"
input = sh(name = "input", script = "mkdir $out; echo kept > $out/file")
sh(
    name = "tries",
    script = """
for place in /etc/x /x /usr/bin/sh $input/file $input/new; do
    if (echo > $place) 2>/dev/null; then echo wrote $place; exit 3; fi
done
rm -rf $input /usr/bin/sh 2>/dev/null || echo refused > $out
""",
    env = {"input": input},
)
sh(name = "litters", script = "echo > /nix/store/litter; echo > $out")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    assert_eq!(workspace.built("//:tries"), "refused\n");
    assert_eq!(workspace.built("//:litters"), "\n");
    assert!(!workspace.home().join("store/litter").exists());
    let input = workspace.ok(&["build", "//:input"]).path();
    assert_eq!(std::fs::read_to_string(input.join("file")).unwrap(), "kept\n");
    workspace.verify_store();
}
