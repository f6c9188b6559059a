//! Eight processes at a time use one store at random: they add, build, collect, verify, optimise, delete, repair, copy.
//! Whatever they do, results are right, nobody hangs, and nobody hears of a database that is busy.
//!
//! `AMPOULE_CONCURRENCY_SECONDS` says for how long, `AMPOULE_CONCURRENCY_SEED` with which choices.

mod shop;
mod worker;

use std::env;
use std::fs;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::harness::Workspace;

use shop::{OBJECTS, Shop};
use worker::Worker;

const PROCESSES: u64 = 8;
const SECONDS: u64 = 6;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("`{variable}` is a number")))
}

#[test]
fn processes_that_do_anything_at_random_get_right_results() {
    let (seconds, seed) = (number("AMPOULE_CONCURRENCY_SECONDS", SECONDS), number("AMPOULE_CONCURRENCY_SEED", 1));
    let shop = Shop::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PROCESSES)
            .map(|place| {
                let shop = &shop;
                scope.spawn(move || {
                    let mut worker = Worker::new(shop, place, seed);
                    while Instant::now() < end && !shop.is_over() {
                        worker.do_something();
                    }
                })
            })
            .collect();
        scope.spawn(|| shop.watch());
        let failed = workers.into_iter().map(|worker| worker.join()).filter(Result::is_err).count();
        shop.close();
        assert_eq!(failed, 0, "with the seed {seed}");
    });
    let done = shop.done.lock().unwrap_or_else(PoisonError::into_inner);
    let total: usize = done.values().sum();
    eprintln!("{total} commands in {seconds} s with the seed {seed}: {done:?}");
    assert!(total > 8, "only {total} commands were run");
    drop(done);
    leaves_nothing(&shop);
}

/// When all is over, nothing is wrong with the store, and nothing stays in it that nothing keeps.
fn leaves_nothing(shop: &Shop) {
    let workspace = &shop.workspace;
    workspace.ok(&["store", "repair", "--all", "--substituter", shop.cache()]);
    workspace.verify_store();
    let other = Workspace::new();
    for object in shop.objects.iter().filter(|object| object.is_published()) {
        other.ok(&["copy", "--from", shop.cache(), &object.path]);
        assert_eq!(shop::dump(&other, &object.path).1, object.archive);
    }
    other.verify_store();
    for root in workspace.ok(&["store", "roots", "list"]).stdout.lines().filter(|line| !line.starts_with(' ')) {
        // Links are roots too, which go below.
        workspace.run(&["store", "roots", "remove", root]);
    }
    let _ = fs::remove_dir_all(shop.links());
    let _ = fs::remove_file(workspace.path().join("tools-link"));
    workspace.ok(&["gc"]);
    let left = fs::read_dir(workspace.home().join("store")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left over: {left:?}");
    for directory in ["tmp", "locks"] {
        let entries = fs::read_dir(workspace.home().join(directory)).into_iter().flatten();
        let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() < OBJECTS, "{directory} has {left:?}");
    }
}
