//! Hashing everything in a store again: a file of 1 GiB and a tree of 50,000 small files.

use crate::Bench;
use crate::inputs::{large_file, small_files};
use crate::measure::{in_turn, run, settle, sha256_alone};
use crate::table::{Aim, Figure, Table};

const MEBIBYTES: usize = 1024;
const FILES: usize = 50_000;

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let input = bench.scratch("verify-input");
    let (file, tree) = (input.join("file"), input.join("tree"));
    large_file(&file, MEBIBYTES);
    small_files(&tree, FILES);
    let paths = [file, tree].map(|path| path.display().to_string());
    let home = bench.scratch("verify-home");
    run(bench.ampoule(&home, &["store", "add"]).args(&paths));
    let nix = bench.nix("verify-nix");
    if let Some(nix) = &nix {
        run(nix.command("nix-store", &["--add"]).args(&paths));
    }
    settle();
    let ours = || run(&mut bench.ampoule(&home, &["store", "verify"]));
    let theirs = nix.as_ref().map(|nix| || run(&mut nix.command("nix-store", &["--verify", "--check-contents"])));
    let pair = in_turn(bench.runs, ours, theirs);
    let case = "verify 1 GiB and 50,000 files";
    table.row(case, Figure::Wall, &pair, Aim::Less(1.0));
    table.row(case, Figure::Cpu, &pair, Aim::Less(1.0));
    table.memory(case, &pair);
    // One object's hash is one chain: the large file alone sets how fast all of it can be.
    let alone = in_turn(bench.runs, ours, Some(|| run(&mut sha256_alone(MEBIBYTES as u64))));
    table.row("verify, beside SHA-256 of the 1 GiB alone", Figure::Wall, &alone, Aim::Within(1.15));
}
