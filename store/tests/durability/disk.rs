//! A file system as values: what a directory tree holds, and what is left of it when the power goes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// The number of a file, directory or link, whatever names it has.
pub(crate) type Inode = usize;

/// The inode of the tree's root.
pub(crate) const ROOT: Inode = 0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    File(Vec<u8>),
    Link(PathBuf),
    Directory(BTreeMap<OsString, Inode>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) mode: u32,
    /// Its modification time is that of all store objects.
    pub(crate) is_dated: bool,
}

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) nodes: BTreeMap<Inode, Node>,
}

/// One change of a tree.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A name in a directory, for an inode that is new or has other names.
    Enter {
        directory: Inode,
        name: OsString,
        inode: Inode,
        node: Node,
    },
    Leave {
        directory: Inode,
        name: OsString,
    },
    Rename {
        inode: Inode,
        from: (Inode, OsString),
        to: (Inode, OsString),
    },
    Exchange {
        from: (Inode, OsString),
        to: (Inode, OsString),
    },
    Write {
        inode: Inode,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: Inode,
        length: usize,
    },
    Mode {
        inode: Inode,
        mode: u32,
    },
    Date {
        inode: Inode,
    },
}

impl Change {
    /// Whether it changes a file's bytes.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Truncate { .. })
    }

    /// Whether `fsync` of the inode makes it durable.
    pub(crate) fn belongs_to(&self, synced: Inode) -> bool {
        match self {
            Self::Enter { directory, .. } | Self::Leave { directory, .. } => *directory == synced,
            Self::Rename { from, to, .. } | Self::Exchange { from, to } => from.0 == synced || to.0 == synced,
            Self::Write { inode, .. }
            | Self::Truncate { inode, .. }
            | Self::Mode { inode, .. }
            | Self::Date { inode } => *inode == synced,
        }
    }
}

impl Disk {
    /// Reads a tree from the real file system.
    pub(crate) fn read(top: &Path) -> Self {
        let mut disk = Self { nodes: BTreeMap::new() };
        disk.read_node(top);
        disk
    }

    fn read_node(&mut self, path: &Path) -> Inode {
        let inode = self.nodes.len();
        let metadata = fs::symlink_metadata(path).unwrap();
        let node = |content| Node { content, mode: metadata.mode() & 0o7777, is_dated: metadata.mtime() == 1 };
        // Takes the number before those below get theirs.
        self.nodes.insert(inode, node(Content::File(Vec::new())));
        let content = if metadata.is_symlink() {
            Content::Link(fs::read_link(path).unwrap())
        } else if metadata.is_dir() {
            let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            Content::Directory(names.map(|name| (name.clone(), self.read_node(&path.join(name)))).collect())
        } else {
            Content::File(fs::read(path).unwrap())
        };
        self.nodes.insert(inode, node(content));
        inode
    }

    /// Writes the tree to the real file system; files with several names become hard links.
    pub(crate) fn write(&self, top: &Path) {
        self.write_node(ROOT, top, &mut BTreeMap::new());
    }

    fn write_node(&self, inode: Inode, path: &Path, written: &mut BTreeMap<Inode, PathBuf>) {
        if let Some(earlier) = written.get(&inode) {
            fs::hard_link(earlier, path).unwrap();
            return;
        }
        let node = &self.nodes[&inode];
        match &node.content {
            Content::File(bytes) => {
                fs::write(path, bytes).unwrap();
                written.insert(inode, path.to_owned());
            }
            Content::Link(target) => symlink(target, path).unwrap(),
            Content::Directory(entries) => {
                fs::create_dir(path).unwrap();
                for (name, below) in entries {
                    self.write_node(*below, &path.join(name), written);
                }
            }
        }
        if node.is_dated {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let times = Timestamps { last_access: second, last_modification: second };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        if !matches!(node.content, Content::Link(_)) {
            fs::set_permissions(path, fs::Permissions::from_mode(node.mode)).unwrap();
        }
    }

    /// The inode of a path below the root.
    pub(crate) fn find(&self, path: &Path) -> Option<Inode> {
        path.iter().try_fold(ROOT, |inode, name| self.entry(inode, name))
    }

    pub(crate) fn entry(&self, directory: Inode, name: &OsStr) -> Option<Inode> {
        match &self.nodes.get(&directory)?.content {
            Content::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    fn entries(&mut self, directory: Inode) -> Option<&mut BTreeMap<OsString, Inode>> {
        match &mut self.nodes.get_mut(&directory)?.content {
            Content::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// What is left of a change whose metadata is lost: the inode, without a name.
    pub(crate) fn lose(&mut self, change: &Change) {
        if let Change::Enter { inode, node, .. } = change {
            self.nodes.entry(*inode).or_insert_with(|| node.clone());
        }
    }

    /// Makes a change; one whose conditions are missing, since an earlier one was lost, is lost too.
    pub(crate) fn apply(&mut self, change: &Change) {
        let _ = self.try_apply(change);
    }

    fn try_apply(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::Enter { directory, name, inode, node } => {
                self.nodes.entry(*inode).or_insert_with(|| node.clone());
                self.entries(*directory)?.insert(name.clone(), *inode);
            }
            Change::Leave { directory, name } => drop(self.entries(*directory)?.remove(name)),
            Change::Rename { inode, from, to } => {
                if self.entry(from.0, &from.1) == Some(*inode) {
                    self.entries(from.0)?.remove(&from.1);
                }
                self.entries(to.0)?.insert(to.1.clone(), *inode);
            }
            Change::Exchange { from, to } => {
                let (one, other) = (self.entry(from.0, &from.1)?, self.entry(to.0, &to.1)?);
                self.entries(to.0)?.insert(to.1.clone(), one);
                self.entries(from.0)?.insert(from.1.clone(), other);
            }
            Change::Write { inode, offset, bytes } => {
                let Content::File(content) = &mut self.nodes.get_mut(inode)?.content else { return None };
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate { inode, length } => {
                let Content::File(content) = &mut self.nodes.get_mut(inode)?.content else { return None };
                content.resize(*length, 0);
            }
            Change::Mode { inode, mode } => self.nodes.get_mut(inode)?.mode = *mode,
            Change::Date { inode } => self.nodes.get_mut(inode)?.is_dated = true,
        }
        Some(())
    }
}
