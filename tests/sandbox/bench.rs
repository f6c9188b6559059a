//! What a sandbox costs.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::workshop::Workshop;

const ROUNDS: usize = 100;

pub(crate) fn measure(workshop: &Workshop) {
    let program = workshop.tree().join("usr/bin/true");
    report("plain fork and exec", || drop(Command::new(&program).status()));
    let nothing = workshop.builtin("nothing");
    report("sandboxed builtin", || drop(workshop.succeed(&nothing)));
    let exec = workshop.exec("/bin/true", &[]);
    report("sandboxed exec", || drop(workshop.succeed(&exec)));
    let files: Vec<String> = (0..10).map(|number| format!("share/file-{number}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "content")).collect();
    for count in [1, 10, 100, 1000] {
        let mut many = exec.clone();
        many.inputs.extend((0..count).map(|number| workshop.input(&format!("input-{count}-{number}"), &files)));
        let started = Instant::now();
        workshop.succeed(&many);
        println!("sandboxed exec, {count} inputs of 10 files, first time: {:.2?}", started.elapsed());
        report(&format!("sandboxed exec, {count} inputs of 10 files"), || drop(workshop.succeed(&many)));
    }
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
