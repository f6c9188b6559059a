//! Adding 10,000 files of one line in one process.

use crate::Bench;
use crate::inputs::lines;
use crate::measure::{in_turn, run, settle};
use crate::table::{Aim, Figure, Table};

const OBJECTS: usize = 10_000;

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let files = lines(&bench.scratch("lines-input"), OBJECTS);
    let ours = || {
        let home = bench.scratch("lines-home");
        settle();
        run(bench.ampoule(&home, &["store", "add"]).args(&files))
    };
    let theirs = bench.has_nix.then_some(|| {
        let nix = bench.nix("lines-nix").expect("there is a Nix");
        settle();
        run(nix.command("nix-store", &["--add"]).args(&files))
    });
    let pair = in_turn(bench.runs, ours, theirs);
    table.row("register 10,000 small objects", Figure::Wall, &pair, Aim::Less(10.0));
    table.row("register 10,000 small objects", Figure::Cpu, &pair, Aim::Less(1.0));
    table.memory("register 10,000 small objects", &pair);
}
