//! What a sandbox costs.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::workshop::Workshop;

const ROUNDS: usize = 200;

pub(crate) fn measure(workshop: &Workshop) {
    let program = workshop.tree().join("usr/bin/true");
    report("plain fork and exec", || drop(Command::new(&program).status()));
    let nothing = workshop.builtin("nothing");
    report("sandboxed builtin", || drop(workshop.succeed(&nothing)));
    let exec = workshop.exec("/bin/true", &[]);
    report("sandboxed exec", || drop(workshop.succeed(&exec)));
    let mut many = exec.clone();
    many.inputs.extend((0..100).map(|number| workshop.input(&format!("input-{number}"), &[])));
    report("sandboxed exec, 100 inputs", || drop(workshop.succeed(&many)));
}

fn report(what: &str, once: impl Fn()) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            once();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what}: min {:.2?}, median {:.2?}", times[0], times[ROUNDS / 2]);
}
