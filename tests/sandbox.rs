//! The embedded engine, tested with real sandboxes: as the caller and, if that is root, as an ordinary user too.
//!
//! A runner of its own, because the engine has to start before any thread does. Arguments: parts of the names of the
//! cases to run; `--bench` measures instead.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, missing_docs)]
#![allow(unsafe_code, reason = "attacks on a sandbox are made of system calls")]

#[path = "sandbox/attacks.rs"]
mod attacks;
#[path = "sandbox/bench.rs"]
mod bench;
#[path = "sandbox/cases.rs"]
mod cases;
#[path = "sandbox/conditions.rs"]
mod conditions;
#[path = "sandbox/escapes.rs"]
mod escapes;
#[path = "sandbox/workshop.rs"]
mod workshop;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use ampoule_eval::sandbox::Embedded;

use crate::workshop::Workshop;

/// A case: its name and what it does. It fails by panicking.
type Case = (&'static str, fn(&Workshop));

/// The user that root becomes for the second half.
const ORDINARY: u32 = 12_345;

fn main() -> ExitCode {
    let engine = Embedded::start(attacks::run).expect("the engine starts");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A process that will be killed works below its parent's directory, for the parent to clear away.
    let is_helper =
        arguments.first().is_some_and(|first| matches!(first.as_str(), "--victim" | "--helpless" | "--limited"));
    let workshop = Workshop::open(engine, if is_helper { &arguments[2] } else { "/tmp" });
    match arguments.first().map(String::as_str) {
        Some("--victim") => {
            cases::be_victim(&workshop, &arguments[1]);
            return ExitCode::SUCCESS;
        }
        Some("--helpless") => {
            cases::be_helpless(&workshop, &arguments[1]);
            return ExitCode::SUCCESS;
        }
        Some("--limited") => {
            cases::be_limited(&workshop);
            return ExitCode::SUCCESS;
        }
        Some("--bench") => {
            bench::measure(&workshop);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = run_cases(&workshop, &wanted);
    if rustix::process::geteuid().is_root() {
        failed |= !rerun_as_ordinary_user(&arguments);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether any case failed.
fn run_cases(workshop: &Workshop, wanted: &[&String]) -> bool {
    let user = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let (mut passed, mut failed, mut attacks) = (0, 0, 0);
    for (name, case) in cases::CASES.iter().chain(conditions::CASES) {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| case(workshop))) {
            Ok(()) => passed += 1,
            Err(_) => {
                println!("FAILED: {name} (as {user})");
                failed += 1;
            }
        }
    }
    for (name, _) in escapes::ATTACKS {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| workshop.succeed(&workshop.builtin(name)))) {
            Ok(_) => attacks += 1,
            Err(_) => {
                println!("ESCAPED: an attack by {name} (as {user})");
                failed += 1;
            }
        }
    }
    println!("attacks as {user}: {attacks} stopped");
    println!("sandbox cases as {user}: {passed} passed, {failed} failed");
    failed > 0
}

/// Whether all cases passed.
fn rerun_as_ordinary_user(arguments: &[String]) -> bool {
    // The target directory may be out of an ordinary user's reach.
    let copy = tempfile::tempdir().unwrap();
    std::fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = copy.path().join("sandbox-cases");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(arguments).current_dir("/").uid(ORDINARY).gid(ORDINARY);
    command.status().is_ok_and(|status| status.success())
}
