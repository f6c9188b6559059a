//! Roots: what is kept, with all it refers to, until somebody says otherwise.
//!
//! Each root is a file under `roots/`, replaced as a whole. A *named* root lists store paths; a *link* says where in the
//! file system a link lies whose present target is kept, so that removing the link is enough to let go of it.
#![expect(clippy::disallowed_methods, reason = "roots are files, and links anywhere in the file system")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::descent::entries;
use super::failure::FileError;
use super::query::QueryError;
use super::register::now;
use super::{Durability, LocalStore};
use crate::hash::Sha256Digest;
use crate::path::StorePath;

/// The longest name of a root, in bytes: that of the longest path of a file system.
const NAME_LENGTH_LIMIT: usize = 4096;

/// What a root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    /// Lasts until it is removed.
    Named,
    /// Lasts as long as a link in the file system, whose place is the root's name.
    Link,
}

/// Something that keeps objects and derivations from being collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name; for a link, the absolute path at which it lies.
    pub name: String,
    /// What it is.
    pub kind: RootKind,
    /// What it keeps. Nothing if it is a link that is gone or leads elsewhere by now.
    pub paths: BTreeSet<StorePath>,
    /// When it was set, in Unix seconds.
    pub created_at: i64,
}

/// Why a root was not set, removed or read.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The name is empty, too long, or holds control characters.
    #[error("`{}` cannot be the name of a root", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// What it is to keep is not in the store.
    #[error("`{path}` is not in the store, so that nothing can keep it there")]
    NotValid {
        /// The path.
        path: StorePath,
    },
    /// Something that is not a link into the store lies where the link is to be.
    #[error("`{}` exists and is no link into the store", path.display())]
    Occupied {
        /// The place.
        path: PathBuf,
    },
    /// A root's file does not say what it keeps, so that nothing may be collected.
    #[error("the root in `{}` cannot be understood", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// A root's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    kind: RootKind,
    paths: BTreeSet<String>,
    created_at: i64,
}

impl LocalStore {
    /// Sets a named root, in the place of one that has the name already. It keeps objects and derivations.
    ///
    /// # Errors
    /// When one of the paths is not in the store, the name is not allowed or the file cannot be written.
    pub fn add_root(&self, name: &str, paths: &[StorePath]) -> Result<(), RootError> {
        self.protect(paths)?;
        for path in paths {
            if !self.is_valid(path)? && self.derivation(path)?.is_none() {
                return Err(RootError::NotValid { path: path.clone() });
            }
        }
        self.write_root(name, RootKind::Named, paths)
    }

    /// Makes a link to an object, which keeps the object as long as the link is there and leads to it. A link into the
    /// store that lies in its place is replaced.
    ///
    /// # Errors
    /// When the object is not valid, something else lies in the link's place, or a file cannot be written.
    pub fn add_link(&self, link: &Path, path: &StorePath) -> Result<(), RootError> {
        let link = std::path::absolute(link).map_err(|source| FileError::new("find", link, source))?;
        let name = link.to_str().ok_or_else(|| RootError::Name { name: link.to_string_lossy().into_owned() })?;
        if !self.keep_valid(path)? {
            return Err(RootError::NotValid { path: path.clone() });
        }
        match fs::read_link(&link) {
            Ok(target) if self.target_of_link(&target).is_some() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(RootError::Occupied { path: link }),
        }
        let target = self.physical_path(path);
        replace_link(&link, &target).map_err(|source| FileError::new("make the link", &link, source))?;
        // After the link: a collector may clear away roots whose links are not there.
        self.write_root(name, RootKind::Link, std::slice::from_ref(path))
    }

    /// Removes a root, and says whether there was one. A link itself stays where it is.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn remove_root(&self, name: &str) -> Result<bool, RootError> {
        let _shared = self.layout.share_roots()?;
        Ok(self.unlink_root(name)?)
    }

    pub(super) fn unlink_root(&self, name: &str) -> Result<bool, FileError> {
        let path = self.root_file(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FileError::new("remove", path, source)),
        }
    }

    /// All roots, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn roots(&self) -> Result<Vec<Root>, RootError> {
        let directory = self.layout.home.join("roots");
        let found = entries(self.layout.roots.as_fd()).map_err(|source| FileError::new("list", &directory, source))?;
        let mut roots = Vec::with_capacity(found.len());
        for entry in found {
            roots.extend(self.read_root(&directory.join(entry.name()))?);
        }
        roots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(roots)
    }

    /// Reads a root's file; `None` if it was removed meanwhile.
    fn read_root(&self, file: &Path) -> Result<Option<Root>, RootError> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::new("read", file, source).into()),
        };
        let malformed = |source| RootError::Malformed { path: file.to_owned(), source };
        let record: Record = serde_json::from_slice(&text).map_err(malformed)?;
        let mut paths = BTreeSet::new();
        for name in &record.paths {
            paths.insert(StorePath::parse_base_name(name).map_err(|error| malformed(serde::de::Error::custom(error)))?);
        }
        if record.kind == RootKind::Link {
            match fs::read_link(&record.name) {
                Ok(target) => paths = self.target_of_link(&target).into_iter().collect(),
                Err(error) if is_absence(&error) => paths.clear(),
                // It cannot be seen from here, so it may still be what it was.
                Err(_) => {}
            }
        }
        Ok(Some(Root { name: record.name, kind: record.kind, paths, created_at: record.created_at }))
    }

    /// The object that a link with this target leads to, if it leads to one.
    fn target_of_link(&self, target: &Path) -> Option<StorePath> {
        let inside = target
            .strip_prefix(self.layout.home.join("store"))
            .or_else(|_| target.strip_prefix(self.store_dir.as_str()))
            .ok()?;
        StorePath::parse_base_name(inside.components().next()?.as_os_str().to_str()?).ok()
    }

    fn write_root(&self, name: &str, kind: RootKind, paths: &[StorePath]) -> Result<(), RootError> {
        if name.is_empty() || name.len() > NAME_LENGTH_LIMIT || name.chars().any(char::is_control) {
            return Err(RootError::Name { name: name.to_owned() });
        }
        let paths = paths.iter().map(|path| path.base_name().to_owned()).collect();
        let record = Record { name: name.to_owned(), kind, paths, created_at: now() };
        let text = serde_json::to_vec_pretty(&record).expect("a record of texts is JSON");
        let staged = self.session()?;
        let temporary = staged.path().join(staged.new_name());
        let file = self.root_file(name);
        let _shared = self.layout.share_roots()?;
        let write = || {
            fs::write(&temporary, &text)?;
            if self.durability == Durability::Full {
                fs::File::open(&temporary)?.sync_all()?;
            }
            fs::rename(&temporary, &file)?;
            if self.durability == Durability::Full {
                rustix::fs::fsync(&self.layout.roots)?;
            }
            Ok(())
        };
        Ok(write().map_err(|source: io::Error| FileError::new("write", &file, source))?)
    }

    fn root_file(&self, name: &str) -> PathBuf {
        self.layout.home.join("roots").join(&Sha256Digest::of(name.as_bytes()).to_nix32()[..32])
    }
}

fn is_absence(error: &io::Error) -> bool {
    // Something else than a link, or a directory on the way that is none any more.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory)
}

/// Puts a link in place in one step.
fn replace_link(link: &Path, target: &Path) -> io::Result<()> {
    let name = link.file_name().unwrap_or(OsStr::new("link")).to_string_lossy();
    let temporary = link.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    symlink(target, &temporary)?;
    fs::rename(&temporary, link)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, file, path, register};
    use super::*;

    #[test]
    fn named_roots_are_set_replaced_listed_and_removed() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        let error = store.add_root("x", std::slice::from_ref(&a)).unwrap_err();
        assert!(matches!(error, RootError::NotValid { .. }), "{error}");
        for one in [&a, &b] {
            register(&store, file(&store, one, "", &[]));
        }
        store.add_root("catalog:/some/where", &[a.clone(), b.clone()]).unwrap();
        store.add_root("x", std::slice::from_ref(&a)).unwrap();
        store.add_root("x", std::slice::from_ref(&b)).unwrap();
        for bad in ["", "a\nb", &"x".repeat(5000)] {
            assert!(matches!(store.add_root(bad, &[]), Err(RootError::Name { .. })));
        }
        let roots = home.open().roots().unwrap();
        let found: Vec<_> = roots.iter().map(|root| (root.name.as_str(), root.kind, root.paths.clone())).collect();
        let expected =
            [("catalog:/some/where", RootKind::Named, [a, b.clone()].into()), ("x", RootKind::Named, [b].into())];
        assert_eq!(found, expected);
        assert!(store.remove_root("x").unwrap() && !store.remove_root("x").unwrap());
        assert_eq!(store.roots().unwrap().len(), 1);
    }

    #[test]
    fn a_link_keeps_what_it_leads_to() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        for one in [&a, &b] {
            register(&store, file(&store, one, "", &[]));
        }
        let link = home.sources().join("result");
        store.add_link(&link, &a).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), store.physical_path(&a));
        let kept = || store.roots().unwrap().pop().unwrap().paths;
        assert_eq!(kept(), [a].into());
        store.add_link(&link, &b).unwrap();
        assert_eq!(kept(), [b.clone()].into());
        assert_eq!(store.roots().unwrap().len(), 1);
        fs::remove_file(&link).unwrap();
        assert!(kept().is_empty());
        symlink("/etc", &link).unwrap();
        assert!(kept().is_empty());
        assert!(matches!(store.add_link(&link, &b), Err(RootError::Occupied { .. })));
        fs::remove_file(&link).unwrap();
        fs::write(&link, "somebody's file").unwrap();
        assert!(matches!(store.add_link(&link, &b), Err(RootError::Occupied { .. })));
    }

    #[test]
    fn a_root_that_cannot_be_understood_is_an_error() {
        let home = Home::new();
        let store = home.open();
        fs::write(home.path().join("roots/x"), "{").unwrap();
        assert!(matches!(store.roots(), Err(RootError::Malformed { .. })));
    }
}
