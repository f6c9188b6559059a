//! How long it takes to collect the dead half of a store, in whole processes, beside a stock Nix where there is one.
//!
//! `cargo bench -p ampoule-eval --bench gc [-- <objects>]`; `TMPDIR` says on which file system.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and says what it measured")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{Durability, LocalStore, Registration};
use ampoule_store::path::{StoreDir, StorePath};

const BATCH: usize = 1000;

fn main() {
    let objects: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = ours(&directory.path().join("ampoule"), objects);
    println!("gc: {} dead of {objects}: ampoule {ours:.3} s", objects / 2);
    match theirs(&directory.path().join("nix"), objects) {
        Some(theirs) => {
            println!("gc: {} dead of {objects}: nix-store {theirs:.3} s: {:.1} times", objects / 2, theirs / ours)
        }
        None => println!("gc: skipped the comparison: `nix-store` is not installed or has no private store here"),
    }
}

/// The first half lives: each object refers to the one before, and the last is a root. In the dead half each refers to
/// one dead and one live object.
fn references(number: usize, objects: usize) -> Vec<usize> {
    let half = objects / 2;
    match number {
        0 => vec![],
        _ if number < half => vec![number - 1],
        _ if number == half => vec![0],
        _ => vec![number - half, half + (number - half) / 2],
    }
}

fn path(number: usize) -> StorePath {
    let digest = Sha256Digest::of(&number.to_le_bytes());
    let hash: &[u8; 20] = digest.as_bytes()[..20].try_into().expect("a digest has 32 bytes");
    StorePath::new(hash, &format!("object-{number}")).expect("the name is allowed")
}

/// An object's content: one line, as most sources and configuration files of a store are small.
fn content(number: usize) -> String {
    format!("the content of object {number}\n")
}

fn ours(home: &Path, objects: usize) -> f64 {
    let store = LocalStore::open_with(home, StoreDir::default(), Durability::Relaxed).expect("a store");
    for first in (0..objects).step_by(BATCH) {
        let mut batch = Vec::new();
        for number in first..objects.min(first + BATCH) {
            batch.push(Registration {
                staged: store.stage_bytes(content(number).as_bytes()).expect("it is written"),
                path: path(number),
                references: references(number, objects).into_iter().map(path).collect(),
                deriver: None,
                content_address: None,
            });
        }
        store.register(batch).expect("it is registered");
    }
    store.add_root("live", &[path(objects / 2 - 1)]).expect("a root");
    drop(store);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
    command.arg("gc").env("AMPOULE_HOME", home);
    let seconds = time(&mut command);
    let left = fs::read_dir(home.join("store")).expect("the store is there").count();
    assert_eq!(left, objects / 2, "the live half stays");
    seconds
}

fn theirs(root: &Path, objects: usize) -> Option<f64> {
    let store = root.join("store");
    let state = root.join("var/nix");
    fs::create_dir_all(&store).expect("a directory");
    let command = |arguments: &[&str]| {
        let mut command = Command::new("nix-store");
        command.args(arguments).env("NIX_STORE_DIR", &store).env("NIX_STATE_DIR", &state).env("NIX_REMOTE", "");
        command.env("NIX_LOG_DIR", root.join("log")).env("NIX_CONF_DIR", root.join("etc")).env("HOME", root);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    command(&["--version"]).status().ok()?;
    let full = |number: usize| store.join(path(number).base_name()).display().to_string();
    let mut rows = String::new();
    for number in 0..objects {
        fs::write(full(number), content(number)).expect("a file");
        let references = references(number, objects);
        rows.push_str(&format!("{}\n{}\n1000\n\n{}\n", full(number), Sha256Digest::ZERO.to_hex(), references.len()));
        references.into_iter().for_each(|reference| rows.push_str(&format!("{}\n", full(reference))));
    }
    let mut load = command(&["--load-db"]).stdin(Stdio::piped()).spawn().ok()?;
    load.stdin.take()?.write_all(rows.as_bytes()).ok()?;
    if !load.wait().ok()?.success() {
        return None;
    }
    let roots: PathBuf = state.join("gcroots");
    fs::create_dir_all(&roots).expect("a directory");
    std::os::unix::fs::symlink(full(objects / 2 - 1), roots.join("live")).expect("a link");
    let seconds = time(&mut command(&["--gc"]));
    let left = (0..objects).filter(|number| Path::new(&full(*number)).exists()).count();
    assert_eq!(left, objects / 2, "Nix agrees on what lives");
    Some(seconds)
}

fn time(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
    assert!(status.success(), "{status}");
    start.elapsed().as_secs_f64()
}
