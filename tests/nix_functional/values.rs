//! What goes in and how it is named: adding, hashing, archives.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::Case;
use super::stock::{Stock, feed};
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
        covers: "four algorithms, archives and flat; which modes, times and links matter",
        tests: &["tests/nix_functional/values.rs::hashing_paths", "tests/nix.rs::archives_hashes_and_store_paths"],
        left_out: "",
    },
    Case {
        number: 3,
        name: "hash-convert",
        covers: "every notation into every other, with and without the algorithm; what is no hash is refused",
        tests: &[
            "tests/nix_functional/values.rs::converting_hashes",
            "tests/store.rs::hashes_in_every_notation",
            "store/src/hash.rs::what_is_no_hash_is_refused",
        ],
        left_out: "",
    },
    Case {
        number: 4,
        name: "nars",
        covers: "files, directories and links in the way stay; entries that are there twice or out of order, and names that lead elsewhere, are refused; names of any alphabet and bytes",
        tests: &[
            "tests/nix_functional/values.rs::restoring_archives",
            "tests/store.rs::hostile_archives_are_refused",
            "store/src/nar/restore.rs::what_exists_is_not_touched",
        ],
        left_out: "the case hack, which belongs to macOS",
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

#[test]
fn hashing_paths() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let directory = workspace.path().join("hashed");
    fs::create_dir_all(directory.join("empty")).unwrap();
    let (file, link) = (directory.join("hello"), directory.join("link"));
    fs::write(&file, "Hello World").unwrap();
    fs::write(directory.join("empty-file"), "").unwrap();
    symlink("hello", &link).unwrap();
    let both = |path: &Path, algorithm: &str| {
        let path = path.to_str().unwrap();
        let ours = ["store", "hash", "--algorithm", algorithm, "--format", "base16", path];
        let ours = workspace.ok(&ours).text().to_owned();
        assert_eq!(ours, stock.ok("nix-hash", &["--type", algorithm, path]), "{algorithm} {path}");
        ours
    };
    let flat = |algorithm: &str| {
        let path = file.to_str().unwrap();
        let ours = ["store", "hash", "--flat", "--algorithm", algorithm, "--format", "base16", path];
        let ours = workspace.ok(&ours).text().to_owned();
        assert_eq!(ours, stock.ok("nix-hash", &["--flat", "--type", algorithm, path]));
        ours
    };
    // Known ones, of Nix's own test.
    assert_eq!(flat("md5"), "b10a8db164e0754105b7a99be72e3fe5");
    assert_eq!(flat("sha1"), "0a4d55a8d778e5022fab701977c5d840bbc486d0");
    assert_eq!(flat("sha256"), "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e");
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        for path in [&directory, &file, &directory.join("empty"), &directory.join("empty-file")] {
            both(path, algorithm);
        }
        flat(algorithm);
    }
    // Only whether the owner may execute it counts.
    let before = both(&directory, "sha256");
    let with_mode = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        both(&directory, "sha256")
    };
    for mode in [0o600, 0o666, 0o611] {
        assert_eq!(with_mode(mode), before, "{mode:o}");
    }
    let executable = with_mode(0o744);
    assert_ne!(executable, before);
    assert_eq!(with_mode(0o755), executable);
    assert_eq!(with_mode(0o644), before);
    // Nor when it was changed.
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(both(&directory, "sha256"), before);
    // But where a link leads.
    fs::remove_file(&link).unwrap();
    symlink("other", &link).unwrap();
    assert_ne!(both(&directory, "sha256"), before);
}

#[test]
fn converting_hashes() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let file = workspace.path().join("file").to_str().unwrap().to_owned();
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        fs::write(&file, algorithm).unwrap();
        let hash = |format: &str| {
            let arguments = ["store", "hash", "--flat", "--algorithm", algorithm, "--format", format, &file];
            workspace.ok(&arguments).text().to_owned()
        };
        let formats = [("base16", "to-base16"), ("nix32", "to-base32"), ("base64", "to-base64"), ("sri", "to-sri")];
        for (format, theirs) in formats {
            let wanted = hash(format);
            for (from, _) in formats {
                let bare = hash(from);
                let named = if from == "sri" { bare.clone() } else { format!("{algorithm}:{bare}") };
                for arguments in [vec![&*named], vec!["--algorithm", algorithm, &*bare]] {
                    let ours = [&["store", "convert-hash", "--format", format], &arguments[..]].concat();
                    assert_eq!(workspace.ok(&ours).text(), wanted, "{ours:?}");
                }
                assert_eq!(stock.ok("nix", &["hash", theirs, "--type", algorithm, &bare]), wanted);
            }
        }
        let nix32 = hash("nix32");
        for bad in [
            String::new(),
            nix32.clone(),
            format!("{algorithm}:"),
            format!("{algorithm}:{}", &nix32[1..]),
            format!("{algorithm}:{nix32}0"),
            format!("{algorithm}:{}e", &nix32[..nix32.len() - 1]),
            format!("{algorithm}-{nix32}"),
            format!("sha3:{nix32}"),
        ] {
            workspace.fails(2, &["store", "convert-hash", &bad]);
            assert_ne!(stock.run("nix", &["hash", "to-sri", &bad]).code, 0, "{bad}");
        }
    }
}

#[test]
fn restoring_archives() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    // In both forms of Unicode, and in none.
    for name in ["caf\u{e9}", "cafe\u{301}", "\u{30c9}", "\u{30c8}\u{3099}", "new\nline", " ", "-x", "~nix~case~hack~1"]
    {
        fs::write(tree.join(name), name).unwrap();
    }
    fs::write(tree.join(OsStr::from_bytes(b"\xff\xfe")), "no text").unwrap();
    let archive = stock.bytes("nix-store", &["--dump", tree.to_str().unwrap()]);
    assert!(dump(&workspace, tree.to_str().unwrap()) == archive);
    let restore = |target: &Path| {
        let mut command = workspace.command();
        feed(command.args(["store", "restore", target.to_str().unwrap()]), &archive).code
    };
    let target = workspace.path().join("restored");
    assert_eq!(restore(&target), 0);
    assert!(stock.bytes("nix-store", &["--dump", target.to_str().unwrap()]) == archive);
    // What is in the way stays as it is, and is not gone through.
    for way in ["file", "directory", "link", "dangling"] {
        let (target, elsewhere) = (workspace.path().join(way), workspace.path().join("elsewhere"));
        match way {
            "file" => fs::write(&target, "mine").unwrap(),
            "directory" => fs::create_dir(&target).unwrap(),
            "link" => {
                fs::create_dir(&elsewhere).unwrap();
                symlink(&elsewhere, &target).unwrap();
            }
            _ => symlink(workspace.path().join("nowhere"), &target).unwrap(),
        }
        let before = fs::symlink_metadata(&target).unwrap();
        assert_eq!(restore(&target), 1, "{way}");
        let after = fs::symlink_metadata(&target).unwrap();
        assert_eq!((before.file_type(), before.len()), (after.file_type(), after.len()), "{way}");
        assert!(!target.is_dir() || fs::read_dir(&target).unwrap().count() == 0, "{way}");
        assert!(!workspace.path().join("nowhere").exists());
    }
    assert_eq!(fs::read_to_string(workspace.path().join("file")).unwrap(), "mine");
}
