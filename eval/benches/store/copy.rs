//! Copying a closure of 250 MB into a `file://` cache with Zstandard.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Bench;
use crate::inputs::{Noise, remove};
use crate::measure::{Sample, in_turn, run, settle};
use crate::nix::Nix;
use crate::table::{Aim, Figure, Table};

const BYTES: usize = 250 << 20;
/// As most trees of programs are: some large files, many small ones.
const FILE_BYTES: [usize; 6] = [400_000, 2_000, 9_000, 70_000, 700, 30_000];

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let tree = bench.scratch("copy-input").join("tree");
    text(&tree);
    let tree = tree.display().to_string();
    let home = bench.scratch("copy-home");
    let path = printed(bench.ampoule(&home, &["store", "add", &tree]));
    let nix = bench.nix("copy-nix").map(|nix| {
        let path = printed(nix.command("nix-store", &["--add", &tree]));
        (nix, path)
    });
    let cache = bench.scratch("copy-caches");
    let ours = || {
        let place = place(&cache, "ours");
        run(&mut bench.ampoule(&home, &["copy", "--to", &format!("file://{}", place.display()), &path]))
    };
    let theirs = nix.as_ref().map(|(nix, path)| || copy_with_nix(nix, path, &place(&cache, "theirs")));
    let pair = in_turn(bench.runs, ours, theirs);
    let case = "copy 250 MB to a file:// cache, zstd";
    table.row(case, Figure::Wall, &pair, Aim::Less(2.0));
    table.row(case, Figure::Cpu, &pair, Aim::Less(1.0));
    table.memory(case, &pair);
}

fn copy_with_nix(nix: &Nix, path: &str, place: &Path) -> Sample {
    let place = format!("file://{}?compression=zstd", place.display());
    run(&mut nix.command("nix", &["copy", "--no-check-sigs", "--to", &place, path]))
}

/// Where a cache is to be that is not there.
fn place(caches: &Path, name: &str) -> PathBuf {
    let place = caches.join(name);
    if place.exists() {
        remove(&place);
    }
    settle();
    place
}

fn printed(mut command: std::process::Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a store path is ASCII").trim().to_owned()
}

/// A tree of files that compress about as programs and their sources do, to a quarter.
fn text(root: &Path) {
    let mut noise = Noise::new(3);
    let words: Vec<String> = (0..4000).map(|_| format!("{:x} ", noise.next() >> (24 + noise.next() % 24))).collect();
    let (mut written, mut number) = (0, 0);
    while written < BYTES {
        let length = FILE_BYTES[number % FILE_BYTES.len()];
        let mut content = String::with_capacity(length + 16);
        while content.len() < length {
            content.push_str(&words[(noise.next() % words.len() as u64) as usize]);
        }
        let directory = root.join(format!("directory-{}", number / 50));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(format!("file-{number}")), &content).expect("a file");
        written += content.len();
        number += 1;
    }
}
