//! Taking objects out of the store.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use rusqlite::Transaction;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::LocalStore;
use super::database::Refused;
use super::descent::permit_owner;
use super::failure::{DatabaseError, FileError};
use super::layout::rename_exclusive;
use super::lock::acquire_objects;
use super::query::{REFERRERS, linked, parse_path};
use super::remove_many::remove_trees;
use crate::path::StorePath;

/// Why objects were not deleted. Then none of them was, unless it is a file that could not be removed: those objects
/// are no longer valid, and what is left of them is in nobody's way.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Another object refers to one of them.
    #[error("`{path}` cannot be deleted, because `{referrer}` refers to it")]
    Referenced {
        /// The object that was to be deleted.
        path: StorePath,
        /// One that refers to it and was not to be deleted.
        referrer: StorePath,
    },
    /// A file cannot be removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl LocalStore {
    /// Deletes objects, and whatever has their names without being registered. Unknown ones are no error.
    ///
    /// The rows go first, in one transaction; then the files, which a crash may leave for the next registration to replace.
    /// Whether anybody still needs the objects is the caller's business.
    ///
    /// # Errors
    /// When an object that is not to be deleted refers to one that is, or files or rows cannot be removed.
    pub fn delete(&self, paths: &[StorePath]) -> Result<(), DeleteError> {
        let paths: BTreeSet<&StorePath> = paths.iter().collect();
        let locks = acquire_objects(&self.layout.object_locks, paths.iter().copied())?;
        self.database.write("delete objects", |transaction| delete_rows(transaction, &paths))?;
        let session = self.session()?;
        let mut moved: Vec<OsString> = Vec::new();
        for path in &paths {
            let name = session.new_name();
            if self.move_out(path, (session.fd(), &name))? {
                moved.push(name);
            }
        }
        // The names are free again; the rest needs no lock.
        drop(locks);
        Ok(remove_trees(session.fd(), &moved)?)
    }

    /// Moves what has the object's name elsewhere; `false` if there is nothing.
    pub(super) fn move_out(
        &self,
        path: &StorePath,
        target: (std::os::fd::BorrowedFd<'_>, &OsStr),
    ) -> Result<bool, FileError> {
        let source = (self.layout.store.as_fd(), OsStr::new(path.base_name()));
        let moved = match rename_exclusive(source, target) {
            // A read-only directory: its entry `..` is about to change, and only root may do that.
            Err(Errno::ACCESS | Errno::PERM) => {
                permit_owner(source.0, source.1, Mode::RWXU).and_then(|()| rename_exclusive(source, target))
            }
            other => other,
        };
        match moved {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(source) => Err(FileError::new("remove", self.physical_path(path), source)),
        }
    }
}

fn delete_rows(transaction: &Transaction<'_>, paths: &BTreeSet<&StorePath>) -> Result<(), Refused<DeleteError>> {
    for path in paths {
        for referrer in linked(transaction, REFERRERS, path)? {
            let referrer = parse_path(&referrer).map_err(|error| Refused::Because(error.into()))?;
            if !paths.contains(&referrer) {
                return Err(Refused::Because(DeleteError::Referenced { path: (*path).clone(), referrer }));
            }
        }
    }
    // The references among them first, or they would hold each other.
    let references = "DELETE FROM object_references WHERE referrer = (SELECT id FROM objects WHERE path = ?1)";
    for statement in [references, "DELETE FROM objects WHERE path = ?1"] {
        let mut statement = transaction.prepare_cached(statement)?;
        for path in paths {
            statement.execute([path.base_name()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;

    use super::super::fixture::{Home, file, path, register, stage};
    use super::super::register::Registration;

    #[test]
    fn what_is_referred_to_stays_until_its_referrers_go() {
        let home = Home::new();
        let store = home.open();
        let (a, b, c) = (path(1, "a"), path(2, "b"), path(3, "c"));
        register(&store, file(&store, &a, "a", &[&a]));
        register(&store, file(&store, &b, "b", &[&a]));
        register(&store, file(&store, &c, "c", &[]));
        let error = store.delete(&[c.clone(), a.clone()]).unwrap_err();
        assert_eq!(error.to_string(), format!("`{a}` cannot be deleted, because `{b}` refers to it"));
        assert_eq!(store.all_paths().unwrap().len(), 3);
        store.delete(&[a.clone(), b]).unwrap();
        assert_eq!(store.all_paths().unwrap(), [c].into());
        assert!(!store.physical_path(&a).exists());
        assert!(home.staged_names().is_empty());
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn a_cycle_is_deleted_as_a_whole() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        store.register(vec![file(&store, &a, "a", &[&b]), file(&store, &b, "b", &[&a])]).unwrap();
        store.delete(std::slice::from_ref(&a)).unwrap_err();
        store.delete(&[a, b]).unwrap();
        assert!(store.all_paths().unwrap().is_empty());
    }

    #[test]
    fn trees_and_leftovers_go_and_unknown_paths_are_no_error() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/c"), "").unwrap();
        let staged = stage(&store, &tree).unwrap();
        register(&store, Registration { staged, ..file(&store, &path(1, "tree"), "", &[]) });
        fs::write(store.physical_path(&path(2, "leftover")), "").unwrap();
        store.delete(&[path(1, "tree"), path(2, "leftover"), path(3, "unknown")]).unwrap();
        assert_eq!(fs::read_dir(home.path().join("store")).unwrap().count(), 0);
    }
}
