//! What the tests of the local store share: a home on a fast file system, paths, trees.
#![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::*;
use crate::path_info::PathInfo;

/// The home of a store, removed when it is dropped. In memory where the machine allows, since each registration
/// waits for the disk.
pub(super) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        Self { directory }
    }

    pub(super) fn open(&self) -> LocalStore {
        LocalStore::open(&self.path(), StoreDir::new("/nix/store").unwrap()).unwrap()
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A directory for trees that are to be added.
    pub(super) fn sources(&self) -> PathBuf {
        let sources = self.directory.path().join("sources");
        std::fs::create_dir_all(&sources).unwrap();
        sources
    }

    /// The names in the staging directories of all processes.
    pub(super) fn staged_names(&self) -> Vec<PathBuf> {
        let sessions = std::fs::read_dir(self.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path());
        let names = sessions.flat_map(|session| std::fs::read_dir(session).unwrap().map(|entry| entry.unwrap().path()));
        let own = ["lock", "roots"].map(|name| Some(OsStr::new(name)));
        names.filter(|path| !own.contains(&path.file_name())).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let (Some(parent), Some(name)) = (self.directory.path().parent(), self.directory.path().file_name()) {
            let parent = std::fs::File::open(parent).unwrap();
            let _ = remove::remove_tree(parent.as_fd(), name);
        }
    }
}

pub(super) fn path(digit: u8, name: &str) -> StorePath {
    StorePath::new(&[digit; 20], name).unwrap()
}

/// A registration of a file with this content under this path.
pub(super) fn file(store: &LocalStore, path: &StorePath, content: &str, references: &[&StorePath]) -> Registration {
    Registration {
        staged: store.stage_bytes(content.as_bytes()).unwrap(),
        path: path.clone(),
        references: references.iter().map(|path| (*path).clone()).collect(),
        deriver: None,
        content_address: None,
    }
}

pub(super) fn register(store: &LocalStore, registration: Registration) -> PathInfo {
    store.register(vec![registration]).unwrap().pop().unwrap()
}

/// Stages a tree as a build's output.
pub(super) fn stage(store: &LocalStore, tree: &Path) -> Result<Staged, StageError> {
    let parent = std::fs::File::open(tree.parent().unwrap()).unwrap();
    store.stage_from_fd(parent.as_fd(), tree.file_name().unwrap(), &BTreeSet::new(), None, u64::MAX)
}
