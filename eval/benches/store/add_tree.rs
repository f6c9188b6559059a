//! Adding a tree of 50,000 small files: for the first time, and again when nothing changed.

use std::time::Duration;

use crate::Bench;
use crate::inputs::small_files;
use crate::measure::{in_turn, run, settle};
use crate::table::{Aim, Figure, Table};

const FILES: usize = 50_000;
/// Longer than what changed just now is distrusted.
const AGE: Duration = Duration::from_secs(3);

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let tree = bench.scratch("tree-input").join("tree");
    small_files(&tree, FILES);
    let tree = tree.to_str().expect("the path is text").to_owned();
    settle();
    std::thread::sleep(AGE);
    let ours = || {
        let home = bench.scratch("tree-home");
        settle();
        run(&mut bench.ampoule(&home, &["store", "add", &tree]))
    };
    let theirs = bench.has_nix.then_some(|| {
        let nix = bench.nix("tree-nix").expect("there is a Nix");
        settle();
        run(&mut nix.command("nix-store", &["--add", &tree]))
    });
    let first = in_turn(bench.runs, ours, theirs);
    table.row("add 50,000 small files", Figure::Cpu, &first, Aim::Less(10.0));
    table.row("add 50,000 small files", Figure::Wall, &first, Aim::Less(5.0));
    table.memory("add 50,000 small files", &first);
    again(bench, table, &tree);
}

fn again(bench: &Bench, table: &mut Table, tree: &str) {
    let home = bench.scratch("tree-home");
    let nix = bench.nix("tree-nix");
    run(&mut bench.ampoule(&home, &["store", "add", tree]));
    if let Some(nix) = &nix {
        run(&mut nix.command("nix-store", &["--add", tree]));
    }
    settle();
    let ours = || run(&mut bench.ampoule(&home, &["store", "add", tree]));
    let theirs = nix.as_ref().map(|nix| || run(&mut nix.command("nix-store", &["--add", tree])));
    let pair = in_turn(bench.runs, ours, theirs);
    table.row("the same again, unchanged", Figure::Cpu, &pair, Aim::Less(50.0));
    table.row("the same again, unchanged", Figure::Wall, &pair, Aim::Less(5.0));
    table.memory("the same again, unchanged", &pair);
}
