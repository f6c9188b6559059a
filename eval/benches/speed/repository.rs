//! A recipe repository and a store of a measurement's own, on the file system that builds use.

use std::path::{Path, PathBuf};
use std::process::Command;

use ampoule_store::hash::Sha256Digest;
use tempfile::TempDir;

/// The program that is measured.
pub(crate) const AMPOULE: &str = env!("CARGO_BIN_EXE_ampoule");

/// Removed at the end.
pub(crate) struct Repository(TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        // Not the machine's directory for temporary files, which may be in memory: a store lies on a disk.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let repository = Self(directory);
        repository.write("ampoule.toml", "");
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where archives for `--from` lie.
    pub(crate) fn archives(&self) -> PathBuf {
        self.path().join("archives")
    }

    /// Writes a file of the recipe repository.
    pub(crate) fn write(&self, name: &str, content: &str) {
        write(&self.path().join("recipes").join(name), content.as_bytes());
    }

    /// Adds an archive of files that may be run, and gives the call of `fetch` for it.
    pub(crate) fn add_archive(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            header.set_entry_type(tar::EntryType::Regular);
            archive.append_data(&mut header, path, *content).expect("memory takes everything");
        }
        let bytes = archive.into_inner().expect("memory takes everything");
        write(&self.archives().join(name), &bytes);
        let sha256 = Sha256Digest::of(&bytes).to_hex();
        format!("fetch(name = \"{name}\", urls = [\"https://files.example/{name}\"], sha256 = \"{sha256}\")")
    }

    /// The command with this repository and its store.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(AMPOULE);
        command.args(arguments).env("AMPOULE_HOME", self.path().join("home")).current_dir(self.path().join("recipes"));
        command
    }
}

fn write(path: &Path, content: &[u8]) {
    let directory = path.parent().expect("it is in a directory");
    std::fs::create_dir_all(directory).expect("directories can be made");
    std::fs::write(path, content).expect("files can be written");
}
