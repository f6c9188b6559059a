//! Adding one large file, against SHA-256 of as many bytes that are in memory already.

use crate::Bench;
use crate::inputs::large_file;
use crate::measure::{Pair, in_turn, run, settle, sha256_alone};
use crate::table::{Aim, Figure, Table};

const MEBIBYTES: usize = 1024;

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let file = bench.scratch("file-input").join("large");
    large_file(&file, MEBIBYTES);
    let file = file.to_str().expect("the path is text").to_owned();
    let ours = || {
        let home = bench.scratch("file-home");
        settle();
        run(&mut bench.ampoule(&home, &["store", "add", &file]))
    };
    let hashing = in_turn(bench.runs, ours, Some(|| run(&mut sha256_alone(MEBIBYTES as u64))));
    table.row("add a 1 GiB file, against SHA-256 alone", Figure::Wall, &hashing, Aim::Within(1.15));
    let theirs = bench.has_nix.then_some(|| {
        let nix = bench.nix("file-nix").expect("there is a Nix");
        settle();
        run(&mut nix.command("nix-store", &["--add", &file]))
    });
    let theirs = theirs.map_or_else(Vec::new, |theirs| (0..bench.runs).map(|_| theirs()).collect());
    let pair = Pair { ours: hashing.ours, theirs };
    table.row("add a 1 GiB file", Figure::Wall, &pair, Aim::Less(1.0));
    table.memory("add a 1 GiB file", &pair);
}
