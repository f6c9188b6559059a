//! Feeds every decoder with the corpora of `tests/fuzz`, and with seeds that were changed at random: nothing panics, takes
//! more memory than is left to this process, or does what the functions of `tests/fuzz/src` forbid.
//!
//! `AMPOULE_FUZZ` says how many changes of each seed are tried, `AMPOULE_FUZZ_TARGET` of which decoder alone.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that has its own main, and reads files"
)]

#[allow(unreachable_pub, reason = "it is a crate of its own for fuzzers")]
#[path = "fuzz/src/lib.rs"]
mod decoders;
#[path = "fuzz/mutations.rs"]
mod mutations;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use decoders::Target;
use mutations::mutate;
use rustix::process::{Resource, Rlimit, setrlimit};

/// How many changes of each seed are tried, for the quickest decoders.
const CHANGES: usize = 400;
/// Memory for all of it, in bytes, program and stacks included.
const MEMORY: u64 = 1 << 30;
/// A decoder that takes longer for one input hangs, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        println!("decoders: test");
        return ExitCode::SUCCESS;
    }
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::As, limit).unwrap();
    let changes = std::env::var("AMPOULE_FUZZ").map_or(CHANGES, |text| text.parse().unwrap());
    let only = std::env::var("AMPOULE_FUZZ_TARGET").ok();
    let targets = decoders::targets();
    let complaints = unlisted(&targets);
    let wanted: Vec<Target> =
        targets.into_iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)).collect();
    let run = Run { next: AtomicUsize::new(0), failures: Mutex::new(complaints), now: Mutex::default() };
    let started = Instant::now();
    let tried: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| run.work(&wanted, changes))).collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            run.watch();
            std::thread::sleep(Duration::from_millis(20));
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let failures = run.failures.into_inner().unwrap();
    println!(
        "{tried} inputs for {} decoders in {} s, {} failed",
        wanted.len(),
        started.elapsed().as_secs(),
        failures.len()
    );
    failures.iter().take(12).for_each(|failure| eprintln!("FAILED {failure}"));
    if failures.is_empty() && tried > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Decoders without a corpus or a fuzz target, and corpora and fuzz targets without a decoder.
fn unlisted(targets: &[Target]) -> Vec<String> {
    let names: BTreeSet<String> = targets.iter().map(|target| target.name.to_owned()).collect();
    let manifest = fs::read_to_string(directory().join("Cargo.toml")).unwrap();
    let listed = |place: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(directory().join(place)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let mut complaints = Vec::new();
    for place in ["corpus", "fuzz_targets"] {
        complaints
            .extend(names.symmetric_difference(&listed(place)).map(|name| format!("`{name}`: not also in {place}")));
    }
    let unbuilt = names.iter().filter(|name| !manifest.contains(&format!("name = \"{name}\"")));
    complaints.extend(unbuilt.map(|name| format!("`{name}`: not in tests/fuzz/Cargo.toml")));
    complaints
}

/// What all threads share.
struct Run {
    next: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// What each thread is doing since when.
    now: Mutex<Vec<(std::thread::ThreadId, Instant, String)>>,
}

impl Run {
    fn work(&self, targets: &[Target], changes: usize) -> usize {
        let mut tried = 0;
        while let Some(target) = targets.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let seeds = seeds(target.name);
            for (number, (name, seed)) in seeds.iter().enumerate() {
                tried += usize::from(self.attempt(target, name, seed));
                for change in 0..changes.div_ceil(target.cost) {
                    let other = &seeds[(number + change) % seeds.len()].1;
                    let changed = mutate(seed, other, change as u64);
                    tried += usize::from(self.attempt(target, &format!("{name}, change {change}"), &changed));
                }
            }
        }
        self.forget();
        tried
    }

    fn attempt(&self, target: &Target, what: &str, input: &[u8]) -> bool {
        self.note(format!("{}: {what}", target.name));
        if catch_unwind(|| (target.run)(input)).is_err() {
            let kept =
                std::env::temp_dir().join(format!("ampoule-fuzz-{}-{}", target.name, what.replace([',', ' '], "-")));
            let _ = fs::write(&kept, input);
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push(format!("{}: {what}: the input is kept as {}", target.name, kept.display()));
        }
        true
    }

    fn note(&self, what: String) {
        self.forget();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.push((std::thread::current().id(), Instant::now(), what));
    }

    fn forget(&self) {
        let me = std::thread::current().id();
        self.now.lock().unwrap_or_else(PoisonError::into_inner).retain(|(thread, ..)| *thread != me);
    }

    /// Ends the process when a decoder hangs.
    fn watch(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, what)) = now.iter().find(|(_, since, _)| since.elapsed() > PATIENCE) {
            eprintln!("FAILED {what}: takes more than {} s", PATIENCE.as_secs());
            std::process::exit(1);
        }
    }
}

/// The files of a decoder's corpus.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory().join("corpus").join(name)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap());
    files.into_iter().map(read).collect()
}
