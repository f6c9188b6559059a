//! What objects have to do with each other, and with what made them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::Case;
use super::stock::{Stock, feed};
use crate::harness::Workspace;

pub const CASES: &[Case] = &[
    Case {
        number: 5,
        name: "simple",
        covers: "a build, whose output nobody may write to, and its deletion; paths of other store directories",
        tests: &[
            "tests/nix_functional/relations.rs::what_is_built_is_read_only_and_can_go",
            "tests/store.rs::what_others_refer_to_is_not_deleted",
            "store/tests/vectors.rs::fixed_output_paths",
        ],
        left_out: "building for another store directory: ours is `/nix/store` for every user",
    },
    Case {
        number: 6,
        name: "dependencies",
        covers: "closures, referrers and theirs, derivers and outputs, the tree and the graph, as stock Nix has them; a derivation that is deleted makes nothing any more",
        tests: &[
            "tests/nix_functional/relations.rs::dependencies",
            "tests/garbage.rs::objects_are_listed_and_their_references_explained",
        ],
        left_out: "",
    },
    Case {
        number: 28,
        name: "referrers",
        covers: "a chain of 500 objects is registered, exported, and collected as a whole; nothing of it is left",
        tests: &["tests/nix_functional/relations.rs::long_chains"],
        left_out: "",
    },
];

#[test]
fn what_is_built_is_read_only_and_can_go() {
    let recipe = "sh(name = \"simple\", script = \"mkdir $out; echo Hello World! > $out/hello; chmod 700 $out; chmod 600 $out/hello\")";
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let built = workspace.ok(&["build", "//:simple"]).path();
    assert_eq!(fs::read_to_string(built.join("hello")).unwrap(), "Hello World!\n");
    let path = format!("/nix/store/{}", built.file_name().unwrap().to_str().unwrap());
    assert_eq!(workspace.ok(&["store", "cat", &path, "hello"]).stdout, "Hello World!\n");
    for file in [&built, &built.join("hello")] {
        let metadata = fs::symlink_metadata(file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o222, 0, "{}", file.display());
        assert_eq!(metadata.modified().unwrap(), std::time::UNIX_EPOCH + std::time::Duration::from_secs(1));
    }
    // The same in stock Nix, which verifies what we made.
    if let Some(stock) = Stock::beside(&workspace) {
        stock.take(&workspace, &[&path]);
        stock.store(&["--verify-path", &path]);
        assert_eq!(fs::read_to_string(stock.on_disk(&path).join("hello")).unwrap(), "Hello World!\n");
        stock.store(&["--delete", &path]);
    }
    workspace.ok(&["store", "delete", &path]);
    assert!(!built.exists());
    workspace.fails(1, &["store", "info", &path]);
}

/// A diamond: `top` needs `left` and `right`, which both need `bottom`.
const DIAMOND: &str = r#"
let
  build = name: inputs: derivation {
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo ${toString inputs} > $out" ];
  };
  bottom = build "bottom" [ "nothing" ];
in build "top" [ (build "left" [ bottom ]) (build "right" [ bottom ]) ]
"#;

fn sorted(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn dependencies() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let top = stock.build(DIAMOND).remove(0);
    let derivation = stock.store(&["--query", "--deriver", &top]);
    let needed = stock.store(&["--query", "--requisites", &top, &derivation]);
    let stream = stock.bytes("nix-store", &[&["--export"], &needed.lines().collect::<Vec<_>>()[..]].concat());
    let imported = feed(workspace.command().args(["store", "import"]), &stream);
    assert_eq!(imported.code, 0, "{}", imported.stderr);

    let requisites = stock.store(&["--query", "--requisites", &top]);
    assert_eq!(requisites.lines().count(), 4);
    let bottom = requisites.lines().find(|path| path.ends_with("-bottom")).unwrap();
    for (ours, theirs) in [
        (&["closure", &top][..], &["--requisites", &top][..]),
        (&["closure", &derivation], &["--requisites", &derivation]),
        (&["referrers", bottom], &["--referrers", bottom]),
        (&["referrers", "--closure", bottom], &["--referrers-closure", bottom]),
        (&["outputs", &derivation], &["--outputs", &derivation]),
        (&["derivers", &top], &["--deriver", &top]),
    ] {
        let theirs = stock.store(&[&["--query"], theirs].concat());
        let ran = workspace.ok(&[&["store"], ours].concat());
        assert_eq!(sorted(ran.text()), sorted(&theirs), "{ours:?}");
    }
    // Both say the same in trees and graphs, drawn in their own ways.
    let tree = workspace.ok(&["store", "tree", &top]).stdout;
    let theirs = stock.store(&["--query", "--tree", &top]);
    for path in requisites.lines() {
        assert!(tree.contains(path) && theirs.contains(path), "{path}");
    }
    let edges = |text: &str| -> BTreeSet<String> {
        let edges = text.lines().filter(|line| line.contains("->"));
        edges.map(|line| line.split(['[', ';']).next().unwrap().trim().to_owned()).collect()
    };
    let graph = workspace.ok(&["store", "graph", &top]).stdout;
    assert_eq!(edges(&graph), edges(&stock.store(&["--query", "--graph", &top])));
    assert_eq!(edges(&graph).len(), 4);
    // Whoever is gone makes nothing.
    workspace.ok(&["store", "roots", "add", "top", &top]);
    workspace.ok(&["gc", "--keep-derivations", "false"]);
    assert_eq!(workspace.ok(&["store", "derivers", &top]).stdout, "");
    assert_eq!(workspace.ok(&["store", "closure", &top]).stdout.lines().count(), 4);
    workspace.verify_store();
}

#[test]
fn long_chains() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let expression = r#"
        let chain = n: if n == 0 then [ (builtins.toFile "chain-0" "end") ] else
          let rest = chain (n - 1);
          in [ (builtins.toFile "chain-${toString n}" "then ${builtins.head rest}") ] ++ rest;
        in chain 499
    "#;
    let arguments = ["--eval", "--read-write-mode", "--strict", "--json", "--expr", expression];
    let chain: Vec<String> = serde_json::from_str(&stock.ok("nix-instantiate", &arguments)).unwrap();
    assert_eq!(chain.len(), 500);
    let paths: Vec<&str> = chain.iter().rev().map(String::as_str).collect();
    let stream = stock.bytes("nix-store", &[&["--export"], &paths[..]].concat());
    let import = || feed(workspace.command().args(["store", "import", "--strict"]), &stream);
    let imported = import();
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let (first, last) = (&chain[0], &chain[499]);
    assert_eq!(workspace.ok(&["store", "closure", first]).stdout.lines().count(), 500);
    assert_eq!(workspace.ok(&["store", "referrers", "--closure", last]).stdout.lines().count(), 500);
    assert_eq!(workspace.ok(&["store", "referrers", last]).text(), chain[498]);
    workspace.fails(1, &["store", "delete", last]);
    // Kept as a whole by its first, then gone as a whole.
    workspace.ok(&["store", "roots", "add", "chain", first]);
    workspace.ok(&["gc"]).says(&["deleted 0 objects"]);
    workspace.ok(&["store", "roots", "remove", "chain"]);
    workspace.ok(&["gc"]).says(&["deleted 500 objects"]);
    assert_eq!(fs::read_dir(workspace.home().join("store")).unwrap().count(), 0);
    assert_eq!(workspace.ok(&["gc", "--dry-run", "--json"]).json()["liveObjects"], 0);
    assert_eq!(workspace.ok(&["store", "dump-db"]).stdout, "");
    // Back again, with nothing left from the first time.
    assert_eq!(import().code, 0);
    assert_eq!(workspace.ok(&["store", "referrers", last]).text(), chain[498]);
}
