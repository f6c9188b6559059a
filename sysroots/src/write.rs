//! Writes a finished tree to disk, once.
//!
//! Effects: makes directories, links and files below a directory that is new.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::symlinkat;
use thiserror::Error;

use crate::spool::{SPOOL, Spool, make_directory};
use crate::tree::{Node, NodeId, Tree};
use crate::tree_path::printable;

/// Why a tree could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// An entry could not be made.
    #[error("cannot write `{path}` below `{}`", target.display())]
    Entry {
        /// The path in the tree.
        path: String,
        /// The new directory.
        target: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The spool could not be removed.
    #[error("cannot remove the spool of `{}`", target.display())]
    Spool {
        /// The new directory.
        target: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An entry has the spool's own name.
    #[error("the tree has an entry called `{SPOOL}`, which is reserved")]
    Reserved,
}

/// Writes the tree into the spool's new directory and removes the spool.
///
/// Every step is relative to an open directory that this function has just made, so nothing it does follows a link, and
/// nothing that exists is ever opened.
pub fn write(tree: &Tree, spool: Spool) -> Result<(), WriteError> {
    let target = spool.path().to_path_buf();
    let duplicate = spool.target().try_clone_to_owned();
    let root = duplicate.map_err(|source| WriteError::Spool { target: target.clone(), source })?;
    if let Node::Directory(entries) = tree.node(tree.root())
        && entries.contains_key(SPOOL.as_bytes())
    {
        return Err(WriteError::Reserved);
    }
    let mut levels = vec![Level::new(tree, tree.root(), root)];
    let mut path: Vec<Vec<u8>> = Vec::new();
    while let Some(level) = levels.last_mut() {
        let Some((name, id)) = level.left.pop() else {
            levels.pop();
            path.pop();
            continue;
        };
        let made = place(tree, &spool, id, &level.directory, OsStr::from_bytes(&name));
        path.push(name);
        let made = made.map_err(|source| {
            let path = printable(&path.join(&b'/'));
            WriteError::Entry { path, target: target.clone(), source }
        })?;
        match made {
            Some(directory) => levels.push(Level::new(tree, id, directory)),
            None => drop(path.pop()),
        }
    }
    spool.finish().map_err(|source| WriteError::Spool { target, source })
}

/// An open directory and its entries that are not yet written, last first.
struct Level {
    directory: OwnedFd,
    left: Vec<(Vec<u8>, NodeId)>,
}

impl Level {
    fn new(tree: &Tree, id: NodeId, directory: OwnedFd) -> Self {
        let left = match tree.node(id) {
            Node::Directory(entries) => entries.iter().rev().map(|(name, id)| (name.clone(), *id)).collect(),
            _ => Vec::new(),
        };
        Level { directory, left }
    }
}

fn place(tree: &Tree, spool: &Spool, id: NodeId, directory: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match tree.node(id) {
        Node::Directory(_) => Ok(Some(make_directory(directory.as_fd(), name)?)),
        Node::File(file) => spool.place(file, directory.as_fd(), name).map(|()| None),
        Node::Symlink(target) => {
            symlinkat(&target[..], directory, name)?;
            Ok(None)
        }
    }
}
