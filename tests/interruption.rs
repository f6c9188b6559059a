//! What several processes at once, Ctrl-C and `kill -9` leave behind: a whole store and no process.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::{Ran, Workspace, long_sleep, processes_with, wait_until};

fn finish(child: Child) -> Ran {
    Ran::from(child.wait_with_output().unwrap())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

#[test]
fn two_processes_that_want_the_same_build_it_once() {
    let recipe = r#"sh(name = "shared", script = "sleep 1; echo done > $out")"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let both: Vec<Child> = (0..2).map(|_| workspace.start(&["build", "//:shared"])).collect();
    let both: Vec<Ran> = both.into_iter().map(finish).collect();
    assert_eq!((both[0].code, both[1].code), (0, 0), "{}\n{}", both[0].stderr, both[1].stderr);
    assert_eq!(both[0].stdout, both[1].stdout);
    let built = both.iter().filter(|ran| ran.stderr.contains("build shared: built")).count();
    assert_eq!(built, 1, "{}\n{}", both[0].stderr, both[1].stderr);
    workspace.verify_store();
}

#[test]
fn interrupted_by_ctrl_c() {
    let sleep = long_sleep(0);
    let recipe = format!("sh(name = \"endless\", script = \"echo begun; {sleep}\")");
    let Some(workspace) = Workspace::with_tools(&recipe) else { return };
    for stop in [Signal::INT, Signal::TERM] {
        let mut command = workspace.command();
        command.args(["build", "//:endless"]).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_until("the build has begun", || !processes_with(&sleep).is_empty());
        // As a terminal does it: to the whole group.
        kill_process_group(pid(&child), stop).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "killed by the signal, not stopped by it");
        let ran = Ran::from(output);
        assert_eq!(ran.code, 130, "{}", ran.stderr);
        ran.says(&["interrupted"]);
        wait_until("its processes are gone", || processes_with(&sleep).is_empty());
    }
    // What was left behind is no obstacle, and is cleared away.
    workspace.rewrite(r#"sh(name = "short", script = "echo > $out")"#);
    workspace.ok(&["build", "//:short"]);
    assert_eq!(fs::read_dir(workspace.home().join("tmp")).unwrap().count(), 0);
    workspace.verify_store();
}

#[test]
fn killed_at_any_moment_the_store_stays_whole() {
    let recipe = |round: u32| {
        format!(
            r#"
previous = "/dev/null"
for step in range(6):
    previous = sh(
        name = "step-%d" % step,
        outputs = ["out", "more"],
        script = "sleep 0.0{round}; mkdir $out $more; cat %s > $out/file; echo {round} $out >> $out/file; seq 2000 > $more/file" % previous,
    )
    previous = "%s/file" % previous
"#
        )
    };
    let recipe = |round| format!("def steps():\n{}\nsteps()\n", recipe(round).replace('\n', "\n    "));
    let Some(workspace) = Workspace::with_tools(&recipe(0)) else { return };
    for round in 0..12 {
        workspace.rewrite(&recipe(round % 4));
        let mut child = workspace.start(&["build", "--check", "//:step-5"]);
        std::thread::sleep(Duration::from_millis(u64::from(round) * 37));
        child.kill().unwrap();
        let _ = child.wait();
    }
    for round in 0..4 {
        workspace.rewrite(&recipe(round));
        workspace.ok(&["build", "--check", "//:step-5"]).says(&["//:step-5: ", "identical when built again"]);
    }
    workspace.verify_store();
    assert_eq!(fs::read_dir(workspace.home().join("tmp")).unwrap().count(), 0);
}
