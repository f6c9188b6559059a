//! From a warm store to "nothing to do".

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::measure::{Figure, run};
use crate::repository::{AMPOULE, Repository};

/// Derivations to build, each with a source of its own.
const DERIVATIONS: usize = 400;
const RUNS: usize = 30;

pub(crate) fn measure() {
    println!("warm store, nothing to do: the whole process of `ampoule build --check`");
    let repository = synthetic();
    let archives = repository.archives();
    let from = archives.to_str().expect("a path in UTF-8");
    run(&mut repository.command(&["build", "--quiet", "--check", "--from", from, "//:all"]));
    let check = || repository.command(&["build", "--quiet", "--check", "--offline", "//:all"]);
    compare(&format!("{DERIVATIONS} derivations and {DERIVATIONS} sources"), check);
    own_catalog();
}

/// This repository's own catalog, in the user's own store, if it is built and proved there.
fn own_catalog() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ampoule = |arguments: &[&str]| {
        let mut command = Command::new(AMPOULE);
        command.args(arguments).arg("//wheels/...").current_dir(&root);
        command
    };
    let output = ampoule(&["build", "--check", "--dry-run", "--json"]).output().expect("the program starts");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let is_empty = |list: &str| plan[list].as_array().is_some_and(Vec::is_empty);
    if ["fetch", "build", "check"].into_iter().all(is_empty) {
        compare("this repository's catalog, //wheels/...", || ampoule(&["build", "--quiet", "--check", "--offline"]));
    } else {
        println!("  this repository's catalog: skipped: it is not built and proved in this user's store");
    }
}

fn compare(what: &str, command: impl Fn() -> Command) {
    let (mut start, mut check) = (Figure::default(), Figure::default());
    for _ in 0..RUNS {
        start.add(run(Command::new(AMPOULE).arg("--version")).wall);
        check.add(run(&mut command()).wall);
    }
    start.print("baseline: `ampoule --version`");
    check.print_against(what, &start);
}

fn synthetic() -> Repository {
    let repository = Repository::new();
    let mut recipe = "load(\"@prelude//:fetch.star\", \"fetch\")\n".to_owned();
    for number in 0..DERIVATIONS {
        let content = format!("unit {number}\n");
        let source = repository.add_archive(&format!("unit-{number}.tar"), &[("unit/data", content.as_bytes())]);
        let _ = writeln!(
            recipe,
            "derivation(name = \"unit-{number}\", system = \"x86_64-linux\", builder = \"builtin:unpack-v1\", \
             env = {{\"src\": {source}, \"strip\": \"1\"}})"
        );
    }
    repository.write("BUILD.star", &recipe);
    repository
}
