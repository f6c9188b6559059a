//! Objects and what is known of them, as streams.

use std::fs;

use super::Case;
use super::stock::{Stock, feed};
use crate::harness::Workspace;
use crate::store::dump;

pub const CASES: &[Case] = &[
    Case {
        number: 38,
        name: "export",
        covers: "closures as streams, both ways; a missing dependency and a stream that was tampered with are refused",
        tests: &[
            "tests/nix_functional/exchange.rs::streams_of_closures",
            "tests/caches.rs::streams_are_imported_if_they_prove_themselves",
            "tests/caches.rs::stock_nix_reads_what_we_write_and_we_what_it_writes",
        ],
        left_out: "",
    },
    Case { number: 39, name: "dump-db", covers: "", tests: &[], left_out: "not yet written" },
];

/// Three objects, each of which refers to the one before, in the store of Nix; their paths.
fn chain(stock: &Stock) -> Vec<String> {
    let expression = r#"
        let
          one = builtins.toFile "one" "one\n";
          two = builtins.toFile "two" "two after ${one}\n";
        in [ one two (builtins.toFile "three" "three after ${two}\n") ]
    "#;
    let text =
        stock.ok("nix-instantiate", &["--eval", "--read-write-mode", "--strict", "--json", "--expr", expression]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn streams_of_closures() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let chain = chain(&stock);
    let [one, two, three] = &chain[..] else { panic!("{chain:?}") };
    let whole = stock.bytes("nix-store", &["--export", one, two, three]);
    let alone = stock.bytes("nix-store", &["--export", three]);
    let import =
        |arguments: &[&str], stream: &[u8]| feed(workspace.command().args(["store", "import"]).args(arguments), stream);
    // What it refers to is not there: both refuse, and take nothing.
    assert_eq!(import(&[], &alone).code, 1);
    workspace.fails(1, &["store", "info", three]);
    let other = Stock::at(&workspace.path().join("other")).unwrap();
    assert_ne!(other.feed("nix-store", &["--import"], &alone).code, 0);
    assert_ne!(other.run("nix-store", &["--check-validity", three]).code, 0);
    // Broken off, tampered with, followed by more.
    for length in [0, 1, 7, 8, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        assert_eq!(import(&[], &whole[..length]).code, 1, "{length} bytes");
    }
    let mut tampered = whole.clone();
    let place = tampered.windows(4).position(|window| window == b"two ").unwrap();
    tampered[place] = b'T';
    assert_eq!(import(&["--strict"], &tampered).code, 1);
    workspace.fails(1, &["store", "info", two]);
    workspace.verify_store();
    // Whole: there and back again.
    let ran = import(&["--strict"], &whole);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let back = workspace.command().args(["store", "export", "--closure", three]).output().unwrap().stdout;
    assert!(back == whole, "the same bytes");
    other.take(&workspace, &[three]);
    for path in &chain {
        other.store(&["--verify-path", path]);
        assert!(dump(&workspace, path) == other.dump(path));
        assert_eq!(fs::read(other.on_disk(path)).unwrap(), fs::read(stock.on_disk(path)).unwrap());
    }
    assert_eq!(other.store(&["--query", "--requisites", three]).lines().count(), 3);
    assert_eq!(workspace.ok(&["store", "closure", three]).stdout.lines().count(), 3);
}
