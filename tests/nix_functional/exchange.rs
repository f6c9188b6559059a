//! Objects and what is known of them, as streams.

use std::fs;

use super::Case;
use super::stock::{Stock, feed};
use crate::harness::{Workspace, remove_tree};
use crate::store::{dump, write_tree};

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
    Case {
        number: 39,
        name: "dump-db",
        covers: "the dump is stock Nix's, byte for byte; the database is deleted and loaded from it, and dumps the same; what was changed or is missing is not loaded",
        tests: &[
            "tests/nix_functional/exchange.rs::the_database_as_text",
            "store/src/registrations.rs::what_is_no_registration_is_refused",
        ],
        left_out: "",
    },
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

#[test]
fn the_database_as_text() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let chain = chain(&stock);
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    stock.store(&["--add", tree.to_str().unwrap()]);
    let all = stock.store(&["--query", "--requisites", &chain[2], &stock.store(&["--add", tree.to_str().unwrap()])]);
    let stream = stock.bytes("nix-store", &[&["--export"], &all.lines().collect::<Vec<_>>()[..]].concat());
    assert_eq!(feed(workspace.command().args(["store", "import"]), &stream).code, 0);
    let text = workspace.ok(&["store", "dump-db"]).stdout;
    assert_eq!(text, stock.store(&["--dump-db"]) + "\n");
    assert_eq!(text.lines().filter(|line| chain.iter().any(|path| path == line)).count(), 5, "two of them twice");
    // The database is lost, the objects are not.
    fs::remove_dir_all(workspace.home().join("db")).unwrap();
    assert_eq!(workspace.ok(&["store", "dump-db"]).stdout, "");
    let load = |text: &str| feed(workspace.command().args(["store", "load-db"]), text.as_bytes());
    let loaded = load(&text);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    assert_eq!(loaded.stdout.lines().count(), 4);
    assert_eq!(workspace.ok(&["store", "dump-db"]).stdout, text);
    assert_eq!(load(&text).stdout, "", "all is there");
    workspace.ok(&["store", "verify-signatures"]);
    workspace.verify_store();
    // Some of it, and stock Nix's of the same.
    let other = Stock::at(&workspace.path().join("other")).unwrap();
    other.take(&workspace, &[&chain[2]]);
    let part = workspace.ok(&["store", "dump-db", &chain[0], &chain[1], &chain[2]]).stdout;
    let theirs = other.store(&["--dump-db"]);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(lines(&theirs), lines(&part));
    // What is not what it was, or is not there.
    fs::remove_dir_all(workspace.home().join("db")).unwrap();
    let changed = workspace.home().join("store").join(&chain[1]["/nix/store/".len()..]);
    remove_tree(&changed);
    assert_eq!(load(&text).code, 1);
    fs::write(&changed, "two AFTER it\n").unwrap();
    load(&text).says(&["and not the registered"]);
    assert!(!workspace.ok(&["store", "dump-db"]).stdout.contains(&chain[1]));
    for bad in ["nonsense\n", "/nix/store/x\n", &text[..text.len() - 1]] {
        assert_eq!(load(bad).code, 1, "{bad}");
    }
}
