//! Collecting 10,000 dead objects among 20,000.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{Durability, LocalStore, Registration};
use ampoule_store::path::{StoreDir, StorePath};

use crate::Bench;
use crate::measure::{Sample, in_turn, run, settle};
use crate::nix::Nix;
use crate::table::{Aim, Figure, Table};

const OBJECTS: usize = 20_000;
/// Registered together when the store is filled.
const BATCH: usize = 1000;

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let ours = || collect(bench);
    let theirs = bench.has_nix.then_some(|| collect_with_nix(&bench.nix("collect-nix").expect("there is a Nix")));
    let pair = in_turn(bench.runs, ours, theirs);
    let case = "collect 10,000 dead of 20,000";
    table.row(case, Figure::Wall, &pair, Aim::Less(10.0));
    table.row(case, Figure::Cpu, &pair, Aim::Less(1.0));
    table.memory(case, &pair);
}

/// The first half lives: each object refers to the one before, and the last is a root. In the dead half each refers to
/// one dead and one live object.
fn references(number: usize) -> Vec<usize> {
    let half = OBJECTS / 2;
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

fn collect(bench: &Bench) -> Sample {
    let home = bench.scratch("collect-home");
    fill(&home);
    settle();
    let sample = run(&mut bench.ampoule(&home, &["gc"]));
    let left = fs::read_dir(home.join("store")).expect("the store is there").count();
    assert_eq!(left, OBJECTS / 2, "the live half stays");
    sample
}

fn fill(home: &Path) {
    let store = LocalStore::open_with(home, StoreDir::default(), Durability::Relaxed).expect("a store");
    for first in (0..OBJECTS).step_by(BATCH) {
        let registration = |number| Registration {
            staged: store.stage_bytes(content(number).as_bytes()).expect("it is written"),
            path: path(number),
            references: references(number).into_iter().map(path).collect(),
            deriver: None,
            content_address: None,
        };
        store.register((first..first + BATCH).map(registration).collect()).expect("it is registered");
    }
    store.add_root("live", &[path(OBJECTS / 2 - 1)]).expect("a root");
}

fn collect_with_nix(nix: &Nix) -> Sample {
    let store = nix.store();
    let full = |number: usize| store.join(path(number).base_name()).display().to_string();
    let mut rows = String::new();
    for number in 0..OBJECTS {
        fs::write(full(number), content(number)).expect("a file");
        let references = references(number);
        rows.push_str(&format!("{}\n{}\n1000\n\n{}\n", full(number), Sha256Digest::ZERO.to_hex(), references.len()));
        references.into_iter().for_each(|reference| rows.push_str(&format!("{}\n", full(reference))));
    }
    let mut load = nix.command("nix-store", &["--load-db"]).stdin(Stdio::piped()).spawn().expect("it starts");
    load.stdin.take().expect("it is piped").write_all(rows.as_bytes()).expect("it reads");
    assert!(load.wait().expect("it ends").success(), "Nix takes the rows");
    let roots = nix.state().join("gcroots");
    fs::create_dir_all(&roots).expect("a directory");
    std::os::unix::fs::symlink(full(OBJECTS / 2 - 1), roots.join("live")).expect("a link");
    settle();
    let sample = run(&mut nix.command("nix-store", &["--gc"]));
    let left = (0..OBJECTS).filter(|number| Path::new(&full(*number)).exists()).count();
    assert_eq!(left, OBJECTS / 2, "Nix agrees on what lives");
    sample
}
