//! How fast `ampoule` is: three figures, each beside a baseline of the same run, so that a slow or busy machine shows.
//!
//! `cargo bench --bench speed [-- PART...]` runs those whose names contain one of the parts: `warm`, `evaluation`,
//! `sandbox`, `chain`. What they mean is in `docs/user/performance.md`. Nothing here passes or fails by time.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it runs programs and says how long they took")]

mod chain;
mod evaluation;
mod measure;
mod repository;
mod sandbox;
mod warm;

use ampoule_eval::sandbox::Embedded;

fn main() {
    // Before any thread exists; no builtin builder is measured by itself.
    let engine = Embedded::start(|_| 1).expect("the engine starts");
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()));
    println!("processors: {}", std::thread::available_parallelism().map_or(0, usize::from));
    if wanted("warm") {
        warm::measure();
    }
    if wanted("evaluation") {
        evaluation::measure();
    }
    if wanted("sandbox") {
        sandbox::measure(&engine);
    }
    if wanted("chain") {
        chain::measure();
    }
}
