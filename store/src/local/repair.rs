//! Putting a good copy in the place of a broken object.
//!
//! In this order: the copy's hash is compared with the registered one, the copy is written to disk, the two change places
//! in one step, and that is written to disk. So at any moment there is either the broken object or a whole one.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rusqlite::params;
use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::LocalStore;
use super::copy::{Kind, set_times};
use super::descent::{open_directory, permit_owner};
use super::failure::{DatabaseError, FileError};
use super::layout::rename_exclusive;
use super::lock::acquire_objects;
use super::query::QueryError;
use super::register::now;
use super::stage::Staged;
use crate::hash::Sha256Digest;
use crate::path::StorePath;

/// Why an object was not replaced. Then it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nothing with this path was registered, so nobody knows what it should be.
    #[error("`{path}` is not registered")]
    Unregistered {
        /// The path.
        path: StorePath,
    },
    /// The replacement is something else.
    #[error("the replacement for `{path}` has the archive hash {actual}, not {expected}", expected = expected.to_sri(), actual = actual.to_sri())]
    Different {
        /// The path.
        path: StorePath,
        /// The hash that is registered.
        expected: Sha256Digest,
        /// The hash of the replacement.
        actual: Sha256Digest,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl LocalStore {
    /// Replaces an object by a copy that has the registered hash. Its references and all else that is known of it stay.
    ///
    /// # Errors
    /// When the copy has another hash, nothing is registered, or files cannot be handled.
    pub fn repair(&self, path: &StorePath, copy: Staged) -> Result<(), RepairError> {
        let _locks = acquire_objects(&self.layout.object_locks, [path].into_iter())?;
        let Some(expected) = self.registered(path)?.map(|info| info.nar_hash) else {
            return Err(RepairError::Unregistered { path: path.clone() });
        };
        let actual = copy.nar_hash();
        if actual != expected {
            return Err(RepairError::Different { path: path.clone(), expected, actual });
        }
        let fail = |source: Errno| FileError::new("replace", self.physical_path(path), source);
        finish(&copy, copy.place().0, copy.place().1).map_err(fail)?;
        self.make_all_durable()?;
        self.change_places(path, &copy).map_err(fail)?;
        finish(&copy, self.layout.store.as_fd(), OsStr::new(path.base_name())).map_err(fail)?;
        self.make_all_durable()?;
        self.database.write::<_, DatabaseError>("record verification", |transaction| {
            let statement = "UPDATE objects SET verified_at = ?2 WHERE path = ?1";
            transaction.execute(statement, params![path.base_name(), now()])?;
            // Its files share nothing now.
            let statement = "DELETE FROM optimised WHERE object = (SELECT id FROM objects WHERE path = ?1)";
            transaction.execute(statement, [path.base_name()])?;
            Ok(())
        })?;
        // With the copy goes what is now in its place: the broken object.
        Ok(())
    }

    fn change_places(&self, path: &StorePath, copy: &Staged) -> rustix::io::Result<()> {
        let (from, to) = (copy.place(), (self.layout.store.as_fd(), OsStr::new(path.base_name())));
        let exchange = || rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::EXCHANGE);
        let exchanged = match exchange() {
            // Read-only directories: their entries `..` are about to change, and only root may do that.
            Err(Errno::ACCESS | Errno::PERM) => {
                for (directory, name) in [from, to] {
                    match permit_owner(directory, name, Mode::RWXU) {
                        // A link has no mode.
                        Ok(()) | Err(Errno::ACCESS) => {}
                        Err(source) => return Err(source),
                    }
                }
                exchange()
            }
            other => other,
        };
        match exchanged {
            Err(Errno::NOENT) => rename_exclusive(from, to),
            // The file system cannot do it in one step: for a moment the object is missing, which is no worse than broken.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let session =
                    self.session().map_err(|error| Errno::from_io_error(&error.source).unwrap_or(Errno::IO))?;
                let aside = session.new_name();
                rename_exclusive(to, (session.fd(), &aside))?;
                rename_exclusive(from, to)
            }
            other => other,
        }
    }
}

/// Gives the root of a copy, if it is a directory, the mode and time that everything below has already.
fn finish(copy: &Staged, directory: std::os::fd::BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    if copy.kind() != Kind::Directory {
        return Ok(());
    }
    let opened = open_directory(directory, name)?;
    rustix::fs::fchmod(&opened, Mode::from_raw_mode(0o555))?;
    set_times(opened.as_fd())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;

    use rustix::fs::CWD;

    use super::super::fixture::{Home, file, path, register, stage};
    use super::super::optimise::Intent;
    use super::super::register::Registration;
    use super::*;

    #[test]
    fn a_good_copy_takes_the_place_of_whatever_is_there() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/run"), "run").unwrap();
        let (object, referrer) = (path(1, "tree"), path(2, "referrer"));
        register(&store, Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, &object, "", &[]) });
        register(&store, file(&store, &referrer, "r", &[&object]));
        let there = store.physical_path(&object);
        let check = |damage: &dyn Fn()| {
            damage();
            assert_eq!(store.verify().unwrap().iter().filter_map(|finding| finding.broken()).count(), 1);
            store.repair(&object, stage(&store, &tree).unwrap()).unwrap();
            assert!(store.verify().unwrap().is_empty());
            assert_eq!(store.referrers(&object).unwrap(), [referrer.clone()].into());
            assert!(home.staged_names().is_empty());
        };
        check(&|| fs::remove_file(there.join("bin/run")).unwrap());
        check(&|| fs::write(there.join("added"), "").unwrap());
        check(&|| fs::remove_dir_all(&there).unwrap());
        check(&|| {
            fs::remove_dir_all(&there).unwrap();
            fs::write(&there, "a file").unwrap();
        });
    }

    #[test]
    fn files_that_share_spoilt_bytes_are_repaired_in_every_object_and_share_again() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("data"), "x".repeat(5000)).unwrap();
        let objects = [path(1, "a"), path(2, "b")];
        for object in &objects {
            register(&store, Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, object, "", &[]) });
        }
        assert_eq!(store.optimise(None, Intent::Share).unwrap().shared, 1);
        for object in &objects {
            // Written in place, as a disk goes bad: with hard links this is one file.
            let data = store.physical_path(object).join("data");
            permit_owner(CWD, data.as_os_str(), Mode::RWXU).unwrap();
            fs::write(&data, "y".repeat(5000)).unwrap();
        }
        let third = path(3, "c");
        register(&store, Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, &third, "", &[]) });
        assert_eq!(store.optimise(None, Intent::Share).unwrap().shared, 0, "spoilt bytes do not spread");
        for object in &objects {
            store.repair(object, stage(&store, &tree).unwrap()).unwrap();
        }
        assert!(store.verify().unwrap().is_empty());
        assert!(store.optimise(None, Intent::Share).unwrap().shared > 0);
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn another_copy_replaces_nothing() {
        let home = Home::new();
        let store = home.open();
        let object = path(1, "a");
        register(&store, file(&store, &object, "good", &[]));
        fs::remove_file(store.physical_path(&object)).unwrap();
        fs::write(store.physical_path(&object), "bad").unwrap();
        let error = store.repair(&object, store.stage_bytes(b"worse").unwrap()).unwrap_err();
        assert!(matches!(error, RepairError::Different { .. }), "{error}");
        assert_eq!(fs::read_to_string(store.physical_path(&object)).unwrap(), "bad");
        let error = store.repair(&path(2, "b"), store.stage_bytes(b"b").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` is not registered", path(2, "b")));
        store.repair(&object, store.stage_bytes(b"good").unwrap()).unwrap();
        assert_eq!(fs::read_to_string(store.physical_path(&object)).unwrap(), "good");
    }
}
