//! Stock Nix with a store of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A private store, state and configuration.
#[derive(Debug, Clone)]
pub(crate) struct Nix {
    root: PathBuf,
}

impl Nix {
    /// Whether the programs are installed.
    pub(crate) fn is_there() -> bool {
        let version = Command::new("nix-store").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// One in a directory that is empty.
    pub(crate) fn new(root: &Path) -> Self {
        let root = root.canonicalize().expect("the directory is there");
        std::fs::create_dir_all(root.join("store")).expect("a directory");
        std::fs::create_dir_all(root.join("etc")).expect("a directory");
        // Nix's defaults, but for what needs rights that tests do not have.
        let settings = "build-users-group =\nsandbox = false\nexperimental-features = nix-command\n";
        std::fs::write(root.join("etc/nix.conf"), settings).expect("a file");
        Self { root }
    }

    /// Its store directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where it keeps its database and roots.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("var")
    }

    /// One of its programs, for this store.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("NIX_REMOTE", "").env("HOME", &self.root);
        command.env("NIX_STORE_DIR", self.store()).env("NIX_STATE_DIR", self.root.join("var"));
        command.env("NIX_LOG_DIR", self.root.join("log")).env("NIX_CONF_DIR", self.root.join("etc"));
        command
    }
}
