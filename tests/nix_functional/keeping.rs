//! What keeps objects whole: sharing, verification, repair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Case;
use super::stock::Stock;
use crate::harness::Workspace;
use crate::store::write_tree;

pub const CASES: &[Case] = &[
    Case {
        number: 26,
        name: "optimise-store",
        covers: "identical files share, executable ones not with others",
        tests: &[
            "store/src/local/optimise.rs::identical_files_share_but_not_executable_ones_with_others",
            "tests/repair.rs::identical_files_share_after_optimising_or_at_once",
        ],
        left_out: "there is no directory of links to empty",
    },
    Case {
        number: 27,
        name: "repair",
        covers: "a file that was added, removed or changed, and a mode, are found by both; repaired from a build, a cache or a file; no damage is spread by shared files",
        tests: &[
            "tests/nix_functional/keeping.rs::both_find_the_same_damage",
            "tests/store.rs::damage_is_found",
            "tests/repair.rs::broken_outputs_are_built_again_inputs_first",
            "tests/repair.rs::a_file_from_elsewhere_must_have_the_registered_content",
            "store/src/local/optimise.rs::a_file_that_went_bad_is_not_spread_and_repair_parts_it_from_the_others",
        ],
        left_out: "",
    },
];

/// Does this to an object.
type Damage = fn(&Path);

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn both_find_the_same_damage() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let tree = tree.to_str().unwrap();
    let damages: [(&str, Damage); 5] = [
        ("a file was added", |object| {
            open(object);
            fs::write(object.join("new"), "new").unwrap();
        }),
        ("a file was removed", |object| {
            open(&object.join("b"));
            fs::remove_file(object.join("b/file")).unwrap();
        }),
        ("a file was changed", |object| {
            open(&object.join("b/file"));
            fs::write(object.join("b/file"), "CONTENT\n").unwrap();
        }),
        ("a link leads elsewhere", |object| {
            open(&object.join("b/c"));
            fs::remove_file(object.join("b/c/link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", object.join("b/c/link")).unwrap();
        }),
        ("a program is none any more", |object| {
            fs::set_permissions(object.join("program"), fs::Permissions::from_mode(0o444)).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let path = stock.store(&["--add", tree]);
        assert_eq!(workspace.ok(&["store", "add", tree]).text(), path);
        stock.store(&["--verify-path", &path]);
        workspace.verify_store();
        damage(&stock.on_disk(&path));
        damage(&workspace.home().join("store").join(&path["/nix/store/".len()..]));
        assert_ne!(stock.run("nix-store", &["--verify-path", &path]).code, 0, "{what}");
        assert_ne!(stock.run("nix-store", &["--verify", "--check-contents"]).code, 0, "{what}");
        let ran = workspace.fails(1, &["store", "verify"]);
        assert!(ran.stdout.contains(&path["/nix/store/".len()..]), "{what}: {}", ran.stdout);
        // What is not what it was is not passed on by either.
        assert_ne!(stock.run("nix-store", &["--export", &path]).code, 0, "{what}");
        assert_eq!(
            workspace.run(&["copy", "--to", workspace.path().join("cache").to_str().unwrap(), &path]).code,
            1,
            "{what}"
        );
        stock.store(&["--delete", &path]);
        workspace.ok(&["store", "delete", &path]);
    }
}
