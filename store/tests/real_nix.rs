//! The same questions to us and to the `nix-store` of the machine, where there is one.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

#[allow(dead_code, reason = "shared with the golden vectors")]
mod trees;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use ampoule_store::content_address::{ContentAddress, Method, References};
use ampoule_store::hash::{Algorithm, Hash, Hasher};
use ampoule_store::nar::{dump, nar_hash, restore};
use ampoule_store::path::{StoreDir, name_from_file_name};

/// A private store of the machine's Nix.
struct Nix {
    home: tempfile::TempDir,
}

impl Nix {
    /// `None`, and a word about it, when the machine has no Nix.
    fn start() -> Option<Self> {
        if Command::new("nix-store").arg("--version").output().is_err() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: nix-store is not installed\n"),
            );
            return None;
        }
        Some(Self { home: tempfile::tempdir().unwrap() })
    }

    fn command(&self, program: &str) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command.env("HOME", home);
        command.env("NIX_CONF_DIR", home.join("etc"));
        command.env("NIX_STATE_DIR", home.join("var"));
        command.env("NIX_LOG_DIR", home.join("log"));
        command.env("NIX_STORE_DIR", "/nix/store");
        command.env("NIX_REMOTE", format!("local?root={}", home.join("root").display()));
        command
    }

    fn run(&self, program: &str, arguments: &[&OsStr]) -> Vec<u8> {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn line(&self, program: &str, arguments: &[&str], path: &Path) -> String {
        let arguments = arguments.iter().map(OsStr::new).chain([path.as_os_str()]).collect::<Vec<_>>();
        String::from_utf8(self.run(program, &arguments)).unwrap().trim_end().to_owned()
    }
}

impl Drop for Nix {
    fn drop(&mut self) {
        // Store objects are read-only, which stops everybody but root from removing them.
        let _ = Command::new("chmod").arg("-R").arg("u+w").arg(self.home.path()).status();
    }
}

#[test]
fn archives_hashes_and_paths_are_nixs() {
    let Some(nix) = Nix::start() else { return };
    let store_dir = StoreDir::default();
    for seed in 1000..1012 {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        trees::grow(&mut trees::Numbers::new(seed), &tree, 4);
        let mut archive = Vec::new();
        dump(&tree, &mut archive).unwrap();
        assert!(archive == nix.run("nix-store", &["--dump".as_ref(), tree.as_ref()]), "seed {seed}");
        let hash = nar_hash(&tree).unwrap().sha256;
        assert_eq!(nix.line("nix-hash", &["--type", "sha256", "--base32"], &tree), hash.to_nix32(), "seed {seed}");
        let path = |method, hash| {
            let address = ContentAddress { method, hash };
            let path = store_dir.content_addressed_path("tree", &address, &References::default()).unwrap();
            store_dir.display(&path)
        };
        assert_eq!(nix.line("nix-store", &["--add"], &tree), path(Method::Nar, hash.into()), "seed {seed}");
        for algorithm in [Algorithm::Md5, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm);
            dump(&tree, &mut hasher).unwrap();
            let theirs = nix.line("nix-store", &["--add-fixed", "--recursive", algorithm.name()], &tree);
            assert_eq!(theirs, path(Method::Nar, hasher.finish()), "seed {seed}");
        }
    }
}

#[test]
fn flat_hashes_and_names_are_nixs() {
    let Some(nix) = Nix::start() else { return };
    let store_dir = StoreDir::default();
    let scratch = tempfile::tempdir().unwrap();
    for (name, contents) in [("a.tar.gz", &b"abc"[..]), ("gcc_12_amd64.deb", b""), ("_=?+", b"x")] {
        assert_eq!(name_from_file_name(name), name);
        let file = scratch.path().join(name);
        fs::write(&file, contents).unwrap();
        for algorithm in Algorithm::ALL {
            let address = ContentAddress { method: Method::Flat, hash: Hash::of(algorithm, contents) };
            let path = store_dir.content_addressed_path(name, &address, &References::default()).unwrap();
            let theirs = nix.line("nix-store", &["--add-fixed", algorithm.name()], &file);
            assert_eq!(theirs, store_dir.display(&path));
        }
    }
}

#[test]
fn nix_restores_our_archives_and_we_nixs() {
    let Some(nix) = Nix::start() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for seed in 2000..2008 {
        trees::grow(&mut trees::Numbers::new(seed), &tree.join(seed.to_string()), 3);
    }
    let archive = scratch.path().join("archive");
    dump(&tree, fs::File::create(&archive).unwrap()).unwrap();
    let mut restorer = nix.command("nix-store");
    restorer.arg("--restore").arg(scratch.path().join("theirs")).stdin(fs::File::open(&archive).unwrap());
    assert!(restorer.status().unwrap().success());
    let theirs = nix.run("nix-store", &["--dump".as_ref(), scratch.path().join("theirs").as_ref()]);
    let directory = fs::File::open(scratch.path()).unwrap();
    restore(&theirs[..], directory.as_fd(), OsStr::new("ours")).unwrap();
    assert_eq!(nar_hash(&scratch.path().join("ours")).unwrap(), nar_hash(&tree).unwrap());
}
