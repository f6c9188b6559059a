//! `ampoule build --check`: what comes out the same is proved once, what does not is caught.

use std::fs;
use std::path::PathBuf;

use crate::harness::Workspace;

#[test]
fn what_comes_out_the_same_is_proved_once() {
    let recipe = r#"
lower = sh(name = "lower", script = "echo lower > $out")
sh(name = "upper", outputs = ["out", "more"], script = "mkdir $out; cat %s > $out/file; echo $out > $more" % lower)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.ok(&["build", "--check", "//:lower"]).says(&["check lower", "identical when built again"]);
    let upper = workspace.ok(&["build", "--check", "//:upper"]);
    upper.says(&["check upper", "//:upper: built, identical when built again"]).is_silent_about(&["check lower"]);
    let again = workspace.ok(&["build", "--check", "//:upper"]);
    again
        .says(&["//:upper: in the store, identical when built again"])
        .is_silent_about(&["check upper", "build upper"]);
    assert_eq!(workspace.ok(&["build", "--check", "--json", "//:upper"]).json()["targets"][0]["proved"], true);
    workspace.verify_store();
}

#[test]
fn what_was_built_before_without_a_check_is_built_once_more() {
    let Some(workspace) = Workspace::with_tools(r#"sh(name = "plain", script = "echo same > $out")"#) else { return };
    workspace.ok(&["build", "//:plain"]);
    assert_eq!(workspace.ok(&["build", "--json", "//:plain"]).json()["targets"][0]["proved"], false);
    workspace.ok(&["build", "--check", "//:plain"]).says(&["check plain"]).is_silent_about(&["build plain"]);
}

/// Builds something that is not reproducible; gives what the two builds made.
fn caught(script: &str) -> Option<(String, String)> {
    let inputs = r#"
tree = sh(name = "tree", script = "mkdir $out; for name in b a d c f e; do echo > $out/$name; done", target = False)
"#;
    let recipe = format!("{inputs}\nsh(name = \"dirty\", script = '''\n{script}\n''', env = {{\"tree\": tree}})");
    let workspace = Workspace::with_tools(&recipe)?;
    let ran = workspace.fails(104, &["build", "--check", "//:dirty"]);
    ran.says(&["error: dirty: output `out` came out differently under other conditions", "first", "then"]);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    let [first, second] = ["first", "second"].map(|which| {
        let line = ran.stderr.lines().find(|line| line.contains(&format!("the {which} build is `")));
        PathBuf::from(line.unwrap().split('`').nth(1).unwrap())
    });
    assert_ne!(first, second);
    let record = workspace.run(&["build", "--check", "--json", "//:dirty"]).json();
    assert_eq!(record["failures"][0]["kind"], "not reproducible", "{record}");
    assert_eq!(record["exit_code"], 104);
    workspace.verify_store();
    let [first, second] = [first, second].map(|path| fs::read_to_string(path).unwrap());
    assert_ne!(first, second);
    Some((first, second))
}

#[test]
fn the_date_is_caught() {
    let Some((first, second)) = caught("date +%Y > $out") else { return };
    assert!(first.trim().parse::<u32>().unwrap() >= 2025 && second.trim().parse::<u32>().unwrap() >= 2000);
}

#[test]
fn the_order_of_directories_is_caught() {
    let Some((first, second)) = caught("find $tree -type f | sed 's,.*/,,' > $out") else { return };
    let (mut first, mut second): (Vec<_>, Vec<_>) = (first.lines().collect(), second.lines().collect());
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(first, second);
}

#[test]
fn random_bytes_are_caught() {
    let _ = caught("head -c 16 /dev/urandom | od -An -tx1 > $out");
}

#[test]
fn random_numbers_of_the_shell_are_caught() {
    let _ = caught("echo $RANDOM$RANDOM > $out");
}

#[test]
fn the_numbers_of_cores_and_processes_are_caught() {
    let _ = caught("echo $NIX_BUILD_CORES > $out");
    let _ = caught("sh -c 'echo $$' > $out");
}

#[test]
fn the_processors_a_build_may_use_are_caught() {
    let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() < 2);
    if alone {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: a machine with one processor cannot take one away\n"),
        );
        return;
    }
    let _ = caught("nproc > $out");
}

#[test]
fn the_first_difference_in_a_tree_is_named() {
    let recipe = r#"
sh(
    name = "tree",
    script = """
mkdir -p $out/deep
echo same > $out/a
printf 'cores: %s.' $NIX_BUILD_CORES > $out/deep/file
echo $NIX_BUILD_CORES > $out/z
""",
)
sh(name = "names", script = "mkdir $out; touch $out/$NIX_BUILD_CORES")
sh(name = "links", script = "ln -s $NIX_BUILD_CORES $out")
sh(name = "modes", script = "echo > $out; test $NIX_BUILD_CORES = 1 || chmod +x $out")
sh(name = "kinds", script = "if test $NIX_BUILD_CORES = 1; then echo > $out; else mkdir $out; fi")
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let ran = workspace.fails(104, &["build", "--check", "--keep-going", "--cores", "5", "//:all"]);
    ran.says(&[
        "error: tree: output `out` came out differently under other conditions: \
         `deep/file`: byte 7 is 0x35 (`5`) first, then 0x31 (`1`)\n",
        "other conditions: `1`: only the second build made it\n",
        "other conditions: `.`: the link points to `5` first, then to `1`\n",
        "other conditions: `.`: executable first, then not\n",
        "other conditions: `.`: a directory first, then a file\n",
    ]);
    workspace.verify_store();
}

#[test]
fn a_second_build_that_fails_is_no_proof() {
    let recipe = r#"sh(name = "fickle", script = "test $NIX_BUILD_CORES = 7; echo > $out")"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let ran = workspace.fails(100, &["build", "--check", "--cores", "7", "//:fickle"]);
    ran.says(&["error: fickle: the second build failed"]);
    workspace.ok(&["build", "--cores", "7", "//:fickle"]).says(&["in the store"]);
}

#[test]
fn what_a_stated_hash_pins_needs_no_proof() {
    let recipe = r#"
sh(
    name = "pinned",
    script = "echo hello > $out",
    output_hash = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
)
sh(
    name = "wrong",
    script = "echo hullo > $out",
    output_hash = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.ok(&["build", "--check", "//:pinned"]).is_silent_about(&["check pinned"]);
    workspace.fails(102, &["build", "//:wrong"]).says(&["error: wrong: ", "hash"]);
}

/// Small builds of every kind of content; what they make depends on nothing but the contract.
const SAME: &str = r#"
lower = sh(name = "lower", script = "mkdir -p $out/bin $out/deep/er; echo text > $out/deep/er/file; echo '#!/bin/sh' > $out/bin/run; chmod +x $out/bin/run; ln -s ../deep $out/bin/link")
sh(name = "archive", script = "cp -r %s tree; tar cf - tree | wc -c > $out" % lower)
sh(name = "self", outputs = ["out", "more"], script = "mkdir $out; echo $out > $out/me; echo $out > $more; cat %s/deep/er/file >> $more" % lower)
sh(name = "who", script = "id > $out; umask >> $out; pwd >> $out; env | grep -v CORES >> $out")
sh(name = "many", script = "mkdir $out; for n in $(seq 200); do echo $n > $out/$n; done; head -c 3000000 /dev/zero > $out/large")
"#;

fn paths(ran: &crate::harness::Ran) -> Vec<(String, String)> {
    let record = ran.json();
    let text = |target: &serde_json::Value, field: &str| target[field].as_str().unwrap().to_owned();
    record["targets"].as_array().unwrap().iter().map(|target| (text(target, "label"), text(target, "path"))).collect()
}

#[test]
fn one_and_two_cores_memory_and_disk_give_the_same_bytes() {
    let Some(workspace) = Workspace::with_tools(SAME) else { return };
    let ran = workspace.ok(&["check", "--rounds", "3", "--cores", "2", "--json", "//:all"]);
    let record = ran.json();
    assert!(record["targets"].as_array().unwrap().iter().all(|target| target["proved"] == true), "{record}");
    let first = paths(&ran);
    let info = workspace.ok(&["store", "info", "--json", &first[0].1]).json();
    let proof = &info[&first[0].1]["proofs"][0];
    assert_eq!((&proof["standing"], &proof["identicalRounds"]), (&"proved".into(), &3.into()), "{info}");
    let systems: Vec<_> =
        proof["checks"].as_array().unwrap().iter().map(|check| &check["knobs"]["conditions"]["file_system"]).collect();
    assert_eq!(systems, ["Disk"; 3], "{info}");
    assert!(workspace.ok(&["store", "info", &first[0].1]).stdout.contains("3 identical of 3"));
    let other = Workspace::with_tools(SAME).expect("it worked before");
    assert_eq!(first, paths(&other.ok(&["build", "--cores", "1", "--jobs", "1", "--json", "//:all"])));
}

#[test]
fn root_and_an_ordinary_user_build_the_same_bytes() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: only root can be two users\n"));
        return;
    }
    let Some(workspace) = Workspace::with_tools(SAME) else { return };
    let as_root = paths(&workspace.ok(&["build", "--json", "//:all"]));
    let place = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &str| {
        let done = std::process::Command::new("cp").arg("-r").arg(from).arg(place.path().join(to)).status();
        assert!(done.unwrap().success());
    };
    copy(&workspace.root(), "recipes");
    copy(crate::harness::tools_files(), "files");
    copy(std::path::Path::new(env!("CARGO_BIN_EXE_ampoule")), "ampoule");
    let own = std::process::Command::new("chown").args(["-R", "12345:12345"]).arg(place.path()).status();
    assert!(own.unwrap().success());
    let mut command = std::process::Command::new(place.path().join("ampoule"));
    command.uid(12_345).gid(12_345).current_dir(place.path().join("recipes"));
    command.env("AMPOULE_HOME", place.path().join("home")).env("HOME", place.path());
    let from = place.path().join("files");
    command.args(["check", "--json", "--offline", "--from"]).arg(from).arg("//:all");
    let ran = crate::harness::Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(as_root, paths(&ran));
}
