//! How fast the store is: whole processes of `ampoule` and of stock Nix, in turn, on the same inputs.
//!
//! `cargo bench --bench store [-- PART... --runs=N]` measures the groups whose names contain one of the parts, and prints
//! one table. `TMPDIR` says on which file system. What the rows mean is in `docs/user/performance.md`; nothing here
//! passes or fails by time. A group is a file with one function, listed below.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it runs programs and says how long they took")]

mod add_file;
mod add_tree;
mod collect;
mod copy;
mod inputs;
mod measure;
mod nix;
mod register;
mod table;
mod verify;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::Nix;
use table::Table;

/// Measures some cases and adds their rows.
type Group = fn(&Bench, &mut Table);

/// What is measured, by name, in the order of the table.
const GROUPS: &[(&str, Group)] = &[
    ("add-tree", add_tree::measure),
    ("add-file", add_file::measure),
    ("register", register::measure),
    ("collect", collect::measure),
    ("verify", verify::measure),
    ("copy", copy::measure),
];

/// What all groups need.
struct Bench {
    /// Removed at the end; everything is made in it.
    directory: tempfile::TempDir,
    /// How many directories were put aside.
    put_aside: Cell<usize>,
    /// Runs of each command; the median counts.
    runs: usize,
    /// Whether a stock Nix is there to compare with.
    has_nix: bool,
}

impl Bench {
    /// A new, empty directory. One that had the name is put aside until the end: ext4 takes ten times as long to make
    /// files soon after as many were removed.
    fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        if path.exists() {
            self.put_aside.set(self.put_aside.get() + 1);
            let aside = self.directory.path().join(format!("aside-{}", self.put_aside.get()));
            std::fs::rename(&path, aside).expect("the directory can be renamed");
        }
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// `ampoule` with its store in `home`.
    fn ampoule(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
        command.args(arguments).env("AMPOULE_HOME", home);
        command
    }

    /// A private Nix with an empty store, if there is a Nix.
    fn nix(&self, name: &str) -> Option<Nix> {
        self.has_nix.then(|| Nix::new(&self.scratch(name)))
    }
}

fn main() {
    if measure::is_baseline() {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let runs = arguments.iter().find_map(|argument| argument.strip_prefix("--runs=")?.parse().ok()).unwrap_or(5);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bench = Bench { directory, put_aside: Cell::new(0), runs, has_nix: Nix::is_there() };
    let mut table = Table::default();
    println!("processors: {}, runs: {runs}", std::thread::available_parallelism().map_or(0, usize::from));
    for (name, measure) in GROUPS {
        if parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str())) {
            measure(&bench, &mut table);
        }
    }
    if !bench.has_nix {
        println!("no comparison: `nix-store` is not installed, or cannot have a private store here");
    }
    inputs::remove(bench.directory.path());
}
