//! What goes in and how it is named: adding, hashing, archives.

use std::fs;
use std::os::unix::fs::symlink;

use super::Case;
use super::stock::Stock;
use crate::harness::Workspace;
use crate::store::{dump, write_tree};

pub const CASES: &[Case] = &[
    Case {
        number: 1,
        name: "add",
        covers: "`add` is `add-fixed` with a recursive SHA-256, other hashes give other paths, links on the way do not matter, a link is added as one",
        tests: &["tests/nix_functional/values.rs::adding", "tests/nix.rs::archives_hashes_and_store_paths"],
        left_out: "",
    },
    Case {
        number: 2,
        name: "hash-path",
        covers: "four algorithms, trees and files",
        tests: &["tests/nix.rs::archives_hashes_and_store_paths"],
        left_out: "modes and times: not yet written",
    },
    Case { number: 3, name: "hash-convert", covers: "", tests: &[], left_out: "conversions: not yet written" },
    Case {
        number: 4,
        name: "nars",
        covers: "what exists is not overwritten; entries twice or out of order are refused",
        tests: &[
            "tests/store.rs::a_tree_goes_in_and_comes_out_the_same",
            "tests/store.rs::hostile_archives_are_refused",
        ],
        left_out: "the case hack belongs to macOS",
    },
];

#[test]
fn adding() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let tree = workspace.path().join("real/tree");
    write_tree(&tree);
    fs::write(workspace.path().join("real/file"), "dummy\n").unwrap();
    symlink("tree", workspace.path().join("real/link")).unwrap();
    symlink("real", workspace.path().join("way")).unwrap();
    for name in ["tree", "file", "link"] {
        let real = format!("{}/real/{name}", workspace.path().display());
        let way = format!("{}/way/{name}", workspace.path().display());
        let added = workspace.ok(&["store", "add", &real]).text().to_owned();
        assert_eq!(added, stock.store(&["--add", &real]));
        for ours in [&["--algorithm", "sha256", &real][..], &[&way]] {
            assert_eq!(workspace.ok(&[&["store", "add"], ours].concat()).text(), added, "{ours:?}");
        }
        for theirs in [&["--add-fixed", "--recursive", "sha256", &real][..], &["--add", &way]] {
            assert_eq!(stock.store(theirs), added, "{theirs:?}");
        }
        assert_ne!(workspace.ok(&["store", "add", "--algorithm", "sha1", &real]).text(), added);
        let hash = stock.store(&["--query", "--hash", &added]);
        let ours = workspace.ok(&["store", "hash", "--format", "nix32", &real]);
        assert_eq!(format!("sha256:{}", ours.text()), hash);
        assert!(dump(&workspace, &added) == stock.bytes("nix-store", &["--dump", &real]), "{name}");
        workspace.ok(&["store", "verify"]);
        stock.store(&["--verify-path", &added]);
    }
    let link = format!("{}/real/link", workspace.path().display());
    let on_disk = workspace.ok(&["store", "add", &link]).text().replace("/nix/store", "");
    assert!(fs::symlink_metadata(workspace.home().join("store").join(&on_disk[1..])).unwrap().is_symlink());
    // A flat hash is one of a file's content.
    let file = format!("{}/real/file", workspace.path().display());
    let flat = workspace.ok(&["store", "add", "--flat", &file]).text().to_owned();
    assert_eq!(flat, stock.store(&["--add-fixed", "sha256", &file]));
    workspace.fails(1, &["store", "add", "--flat", &link]);
}
