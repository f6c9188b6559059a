//! Tests with other processes: many at once, killed ones, other users, full disks. Each runs this test binary again.
#![expect(clippy::disallowed_methods, reason = "tests make files and processes and look at the environment")]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::fixture::{Home, file, path, register, stage};
use super::*;

const ROLE: &str = "AMPOULE_STORE_TEST_ROLE";
const HOME: &str = "AMPOULE_STORE_TEST_HOME";

/// What this process is to do, if it was started by one of the tests below.
#[test]
fn role() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let home = std::env::var_os(HOME).unwrap();
    match role.to_str().unwrap() {
        "add" => add_the_same_objects(Path::new(&home)),
        "churn" => churn(Path::new(&home)),
        "life" => whole_life(Path::new(&home)),
        "fill" => fill_the_disk(Path::new(&home)),
        other => panic!("unknown role {other}"),
    }
}

fn arguments() -> [&'static str; 4] {
    ["local::processes::role", "--exact", "--nocapture", "--test-threads=1"]
}

fn start(role: &str, home: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments()).env(ROLE, role).env(HOME, home).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn open(home: &Path) -> LocalStore {
    LocalStore::open(home, StoreDir::new("/nix/store").unwrap()).unwrap()
}

fn check_success(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn processes_that_create_one_store_and_add_the_same_objects_agree() {
    let home = Home::new();
    let children: Vec<_> = (0..4).map(|_| start("add", &home.path()).spawn().unwrap()).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let store = home.open();
    assert_eq!(store.all_paths().unwrap().len(), 40);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 0);
    let locks = fs::read_dir(home.path().join("locks/objects")).unwrap().count();
    assert_eq!(locks, 0, "released locks leave no files");
}

fn add_the_same_objects(home: &Path) {
    let store = open(home);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for digit in 0..40 {
                    let digit = if thread == 0 { digit } else { 39 - digit };
                    let object = file(store, &path(digit, "shared"), &"x".repeat(digit.into()), &[]);
                    assert_eq!(register(store, object).nar_size % 8, 0);
                }
            });
        }
    });
}

/// Adds and deletes objects for ever, and tells each that it was told is done.
fn churn(home: &Path) {
    let store = open(home);
    let tree = home.parent().unwrap().join("sources/tree");
    let base = path(0, "base");
    for round in 1_u32.. {
        let name = format!("tree-{}-{round}", std::process::id());
        let object = path(1, &name);
        let staged = stage(&store, &tree).unwrap();
        let references = [base.clone(), object.clone()].into();
        let batch = vec![
            file(&store, &base, "base", &[]),
            Registration { staged, references, ..file(&store, &object, "", &[]) },
        ];
        store.register(batch).unwrap();
        println!("\nadded {object}");
        std::io::stdout().flush().unwrap();
        if round % 3 == 0 {
            println!("\ndeleting {object}");
            std::io::stdout().flush().unwrap();
            store.delete(&[object]).unwrap();
        }
    }
}

#[test]
fn killed_processes_lose_nothing_that_was_reported_and_leave_nothing_behind() {
    let home = Home::new();
    let tree = home.sources().join("tree");
    for directory in 0..5 {
        fs::create_dir_all(tree.join(directory.to_string())).unwrap();
        fs::write(tree.join(directory.to_string()).join("file"), "x".repeat(5000)).unwrap();
    }
    let mut promised = BTreeSet::new();
    for round in 0..25_u64 {
        let mut child = start("churn", &home.path()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("added"));
        let mut said: Vec<String> = started.into_iter().collect();
        std::thread::sleep(Duration::from_micros(round * 977 % 7919));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        for line in said {
            match line.split_once(' ') {
                Some(("added", name)) => drop(promised.insert(name.to_owned())),
                Some(("deleting", name)) => drop(promised.remove(name)),
                _ => {}
            }
        }
        let store = home.open();
        let valid: BTreeSet<String> = store.all_paths().unwrap().iter().map(ToString::to_string).collect();
        assert!(promised.is_subset(&valid), "lost: {:?}", promised.difference(&valid));
        let findings = store.verify().unwrap();
        let broken = findings.iter().find(|finding| !matches!(finding, Finding::Unregistered { .. }));
        assert!(broken.is_none(), "{broken:?}");
        assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 0, "leftovers are removed");
    }
    assert!(promised.len() >= 20);
}

/// Everything that a store does in its life, with trees that only root may handle carelessly.
fn whole_life(home: &Path) {
    // Few files may be open, fewer than there are objects in a batch.
    let limit = rustix::process::Rlimit { current: Some(128), maximum: Some(128) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let store = open(home);
    let many: Vec<_> = (0..=255).map(|digit| file(&store, &path(digit, "many"), "", &[])).collect();
    store.register(many).unwrap();
    let tree = home.join("built");
    fs::create_dir_all(tree.join("shut")).unwrap();
    fs::write(tree.join("shut/secret"), "content").unwrap();
    for (name, mode) in [("shut/secret", 0o000), ("shut", 0o000), ("", 0o555)] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    if !rustix::process::geteuid().is_root() {
        let refused = store.stage_from_path(&tree).unwrap_err();
        assert!(refused.to_string().contains("built/shut"), "{refused}");
    }
    let object = path(1, "tree");
    let registration = || Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, &object, "", &[]) };
    let there = store.physical_path(&object);
    // A leftover that is read-only all the way down.
    fs::create_dir_all(there.join("a")).unwrap();
    fs::write(there.join("a/file"), "").unwrap();
    for name in ["a", ""] {
        fs::set_permissions(there.join(name), fs::Permissions::from_mode(0o555)).unwrap();
    }
    register(&store, registration());
    assert_eq!(fs::read_to_string(there.join("shut/secret")).unwrap(), "content");
    assert_eq!(fs::symlink_metadata(&there).unwrap().permissions().mode() & 0o7777, 0o555);
    assert!(store.verify().unwrap().is_empty());
    let (scratch, rewritten) = (path(7, "self"), home.join("self"));
    fs::create_dir(&rewritten).unwrap();
    fs::write(rewritten.join("me"), scratch.to_string()).unwrap();
    let parent = fs::File::open(home).unwrap();
    let staged = store
        .stage_from_fd(
            std::os::fd::AsFd::as_fd(&parent),
            OsStr::new("self"),
            &BTreeSet::new(),
            Some(&scratch),
            u64::MAX,
        )
        .unwrap();
    let made = store.into_content_addressed(staged, "self", &scratch).unwrap();
    store.register(vec![made.registration(None)]).unwrap();
    store.delete(std::slice::from_ref(&object)).unwrap();
    assert!(!there.exists());
    drop(registration());
    drop(store);
    assert_eq!(fs::read_dir(home.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_user_without_privileges_has_a_store_of_their_own() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    let mut command = start("life", &home.path());
    if rustix::process::geteuid().is_root() {
        // The test binary may lie where only root may look.
        let copy = home.path().parent().unwrap().join("binary");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        command = Command::new(&copy);
        command.args(arguments()).env(ROLE, "life").env(HOME, home.path()).current_dir("/").uid(65534).gid(65534);
        for directory in [home.path().parent().unwrap(), &home.path()] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    }
    check_success(&mut command);
}

#[test]
fn a_strict_mask_changes_no_modes() {
    let home = Home::new();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 0277; mkdir -m 700 -p \"$0\"; umask 077; exec \"$@\""]).arg(home.path());
    command.arg(std::env::current_exe().unwrap()).args(arguments()).env(ROLE, "life").env(HOME, home.path());
    check_success(&mut command);
}

fn fill_the_disk(home: &Path) {
    let store = open(home);
    let small = path(1, "small");
    register(&store, file(&store, &small, "small", &[]));
    let large = home.parent().unwrap().join("large");
    // All hole, so that it takes no room itself.
    fs::File::create(&large).unwrap().set_len(8 << 20).unwrap();
    let error = stage(&store, &large).unwrap_err();
    let StageError::File(error) = error else { panic!("{error}") };
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(error.to_string(), "cannot write the copy of `large`");
    let error = store.stage_file(&mut fs::File::open(&large).unwrap(), false).unwrap_err();
    assert!(matches!(&error, StageError::File(error) if error.is_disk_full()), "{error:?}");
    assert!(store.is_valid(&small).unwrap() && store.verify().unwrap().is_empty());
    // The failed attempts gave their room back.
    let medium = store.stage_bytes(&vec![b'x'; 1 << 20]).unwrap();
    register(&store, Registration { staged: medium, ..file(&store, &path(2, "medium"), "", &[]) });
    println!("the disk was full");
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=4m none \"$0\" || { echo cannot mount; exit 0; }; exec \"$@\"";
    let user: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    command.args(user).args(["sh", "-c", script]).arg(home.path()).arg(std::env::current_exe().unwrap());
    command.args(arguments()).env(ROLE, "fill").env(HOME, OsString::from(home.path().join("home")));
    if !command.stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        // Shows what went wrong, unless namespaces are what is missing.
        let possible = Command::new("unshare").args(user).arg("true").status().is_ok_and(|status| status.success());
        if possible {
            panic!("{}", check_success(&mut command));
        }
        println!("skipped: this machine lets nobody mount a small disk");
    }
}
