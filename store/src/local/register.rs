//! Making staged objects valid.
//!
//! In this order, for a whole batch: rename into place, one barrier that makes files and names durable, one transaction.
//! Only the transaction makes an object valid, so whatever stops the program earlier leaves garbage that the next
//! registration of that path replaces.
#![expect(clippy::disallowed_methods, reason = "the clock says when an object was registered")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Transaction, params};
use rustix::fs::Mode;
use rustix::io::Errno;

use super::copy::{Kind, set_times};
use super::database::Refused;
use super::descent::open_directory;
use super::failure::{DatabaseError, FileError};
use super::layout::rename_exclusive;
use super::lock::acquire_objects;
use super::query::QueryError;
use super::realisations::{RealisationRecord, insert_realisations};
use super::remove::remove_tree;
use super::stage::Staged;
use super::{Durability, LocalStore, barrier};
use crate::content_address::ContentAddress;
use crate::path::StorePath;
use crate::path_info::PathInfo;

/// A staged object and what is to be known about it.
#[derive(Debug)]
pub struct Registration {
    /// The object.
    pub staged: Staged,
    /// What it is to be called.
    pub path: StorePath,
    /// What it refers to, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// The content its path was computed from.
    pub content_address: Option<ContentAddress>,
}

/// Why objects were not registered. Then none of the batch was, and nothing of it is left; only after
/// [`DatabaseError::Commit`] files may lie there that count for nothing until they are registered again, or for
/// everything that was to be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// An object refers to one that is neither valid nor in the batch.
    #[error("`{path}` refers to `{reference}`, which is not in the store")]
    MissingReference {
        /// The object.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// What a path's validity depends on cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file cannot be put in place.
    #[error(transparent)]
    File(#[from] FileError),
    /// The rows cannot be written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl LocalStore {
    /// Makes the objects valid, all or none, and returns what the store knows about each, in the order given.
    ///
    /// A path that is valid already stays what it is, and its staged object is dropped. When this returns, the objects
    /// survive a power cut, and are not collected while this store is open.
    ///
    /// # Errors
    /// When a reference is missing, the disk is full or the database refuses.
    pub fn register(&self, batch: Vec<Registration>) -> Result<Vec<PathInfo>, RegisterError> {
        self.register_realised(batch, &[])
    }

    /// As [`LocalStore::register`], and adds the records of what made the objects in the same transaction.
    ///
    /// # Errors
    /// As for [`LocalStore::register`]; then there are no records either.
    pub fn register_realised(
        &self,
        batch: Vec<Registration>,
        records: &[RealisationRecord],
    ) -> Result<Vec<PathInfo>, RegisterError> {
        let order: Vec<StorePath> = batch.iter().map(|registration| registration.path.clone()).collect();
        let mut objects = BTreeMap::new();
        for registration in batch {
            objects.entry(registration.path.clone()).or_insert(registration);
        }
        // Before anybody asks what is valid: a collector may be at work.
        self.protect(objects.keys().chain(objects.values().flat_map(|object| &object.references)))?;
        let _locks = acquire_objects(&self.layout.object_locks, objects.keys())?;
        let (mut infos, mut vanished) = (BTreeMap::new(), Vec::new());
        for path in self.registered_paths(objects.keys())? {
            match self.path_info(&path)? {
                Some(info) => drop(infos.insert(path, info)),
                None => vanished.push(path),
            }
        }
        objects.retain(|path, _| !infos.contains_key(path));
        if objects.is_empty() {
            self.write_rows(&objects, 0, records)?;
        } else {
            self.check_references(&objects)?;
            let registered_at = now();
            self.withdraw(vanished.iter())?;
            self.put_in_place(&objects, registered_at, records)?;
            infos.extend(objects.into_iter().map(|(path, object)| (path, info(object, registered_at))));
        }
        Ok(order.iter().map(|path| infos[path].clone()).collect())
    }

    /// Fails if an object refers to something that is neither valid nor in the batch.
    fn check_references(&self, objects: &BTreeMap<StorePath, Registration>) -> Result<(), RegisterError> {
        let mut known = BTreeSet::new();
        for (path, object) in objects {
            for reference in &object.references {
                if !objects.contains_key(reference) && !known.contains(reference) {
                    if !self.is_valid(reference)? {
                        return Err(missing(path, reference));
                    }
                    known.insert(reference);
                }
            }
        }
        Ok(())
    }

    /// Moves the objects to their names, makes that durable, and writes the rows; undoes the first if the last fails.
    fn put_in_place(
        &self,
        objects: &BTreeMap<StorePath, Registration>,
        registered_at: i64,
        records: &[RealisationRecord],
    ) -> Result<(), RegisterError> {
        let moved = objects.values().try_for_each(|object| self.move_in(object));
        let result = moved
            .and_then(|()| self.make_durable(objects.keys()))
            .map_err(RegisterError::from)
            .and_then(|()| self.write_rows(objects, registered_at, records));
        // After a failed commit the rows may be found to count after all, and must not be without their files then.
        let may_count = matches!(result, Err(RegisterError::Database(DatabaseError::Commit { .. })));
        if result.is_err() && !may_count {
            for path in objects.keys() {
                // No row speaks of it; if it cannot be removed now, the next registration does so.
                let _ = remove_tree(self.layout.store.as_fd(), OsStr::new(path.base_name()));
            }
        }
        result
    }

    /// Those of the paths that have a row, whether the objects are there or not.
    fn registered_paths<'a>(
        &self,
        paths: impl Iterator<Item = &'a StorePath> + Clone,
    ) -> Result<Vec<StorePath>, DatabaseError> {
        self.database.read("look up objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM objects WHERE path = ?1 AND withdrawn = 0")?;
            let mut found = Vec::new();
            for path in paths.clone() {
                if statement.exists([path.base_name()])? {
                    found.push(path.clone());
                }
            }
            Ok(found)
        })
    }

    /// Marks the rows of objects that vanished from the disk, so that what is put in their place is not valid too early.
    fn withdraw<'a>(&self, paths: impl Iterator<Item = &'a StorePath>) -> Result<(), RegisterError> {
        let known = "SELECT id FROM objects WHERE path = ?1 AND withdrawn = 0";
        let paths: Vec<&StorePath> = paths.collect();
        let stale: Vec<i64> = self.database.read("find stale rows", |connection| {
            let mut statement = connection.prepare_cached(known)?;
            let ids = paths.iter().map(|path| statement.query_row([path.base_name()], |row| row.get(0)).optional());
            ids.filter_map(Result::transpose).collect()
        })?;
        if stale.is_empty() {
            return Ok(());
        }
        self.database.write("withdraw objects", |transaction| {
            for id in &stale {
                transaction.execute("UPDATE objects SET withdrawn = 1 WHERE id = ?1", [id])?;
            }
            Ok(())
        })
    }

    fn move_in(&self, object: &Registration) -> Result<(), FileError> {
        let target = (self.layout.store.as_fd(), OsStr::new(object.path.base_name()));
        let fail = |action| move |source: Errno| FileError::new(action, self.physical_path(&object.path), source);
        let moved = match rename_exclusive(object.staged.place(), target) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                // Left by a process that died before it wrote the row.
                remove_tree(target.0, target.1)?;
                rename_exclusive(object.staged.place(), target)
            }
            other => other,
        };
        moved.map_err(fail("move a new object to"))?;
        object.staged.moved();
        if object.staged.kind() == Kind::Directory {
            let directory = open_directory(target.0, target.1).map_err(fail("open"))?;
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o555))
                .and_then(|()| set_times(directory.as_fd()))
                .map_err(fail("finish"))?;
        }
        Ok(())
    }

    /// One barrier for contents, modes and names of the objects, which are in place.
    pub(super) fn make_durable<'a>(&self, objects: impl IntoIterator<Item = &'a StorePath>) -> Result<(), FileError> {
        let names = objects.into_iter().map(|path| OsStr::new(path.base_name()));
        self.wait_for_disk(|store| barrier::objects(store, names))
    }

    /// One barrier for everything in the store's file system.
    pub(super) fn make_all_durable(&self) -> Result<(), FileError> {
        self.wait_for_disk(barrier::everything)
    }

    fn wait_for_disk(&self, wait: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>) -> Result<(), FileError> {
        if self.durability == Durability::Relaxed {
            return Ok(());
        }
        wait(self.layout.store.as_fd())
            .map_err(|source| FileError::new("write to disk", self.layout.home.join("store"), source))
    }

    fn write_rows(
        &self,
        objects: &BTreeMap<StorePath, Registration>,
        registered_at: i64,
        records: &[RealisationRecord],
    ) -> Result<(), RegisterError> {
        if objects.is_empty() && records.is_empty() {
            return Ok(());
        }
        self.database.write("register objects", |transaction| {
            let write = |(path, object)| write_object(transaction, path, object, registered_at);
            let ids = objects.iter().map(write).collect::<rusqlite::Result<Vec<i64>>>()?;
            // After all objects, since they may refer to each other.
            for ((path, object), id) in objects.iter().zip(ids) {
                write_references(transaction, path, object, id)?;
            }
            Ok(insert_realisations(transaction, records)?)
        })
    }
}

fn write_object(
    transaction: &Transaction<'_>,
    path: &StorePath,
    object: &Registration,
    registered_at: i64,
) -> rusqlite::Result<i64> {
    let statement = "INSERT INTO objects (path, nar_hash, nar_size, deriver, content_address, registered_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (path) DO UPDATE SET nar_hash = ?2, nar_size = ?3, deriver = ?4, content_address = ?5,
            registered_at = ?6, verified_at = NULL, withdrawn = 0
        RETURNING id";
    transaction.prepare_cached(statement)?.query_row(
        params![
            path.base_name(),
            object.staged.nar_hash().as_bytes(),
            i64::try_from(object.staged.nar_size()).unwrap_or(i64::MAX),
            object.deriver.as_ref().map(StorePath::base_name),
            object.content_address.as_ref().map(ToString::to_string),
            registered_at,
        ],
        |row| row.get(0),
    )
}

fn write_references(
    transaction: &Transaction<'_>,
    path: &StorePath,
    object: &Registration,
    referrer: i64,
) -> Result<(), Refused<RegisterError>> {
    let find = "SELECT id FROM objects WHERE path = ?1 AND withdrawn = 0";
    let id_of = |path: &StorePath| -> rusqlite::Result<Option<i64>> {
        transaction.prepare_cached(find)?.query_row([path.base_name()], |row| row.get(0)).optional()
    };
    transaction.prepare_cached("DELETE FROM object_references WHERE referrer = ?1")?.execute([referrer])?;
    let mut insert = transaction.prepare_cached("INSERT INTO object_references VALUES (?1, ?2)")?;
    for reference in &object.references {
        // It was valid a moment ago; somebody may have deleted it since.
        let Some(id) = id_of(reference)? else {
            return Err(Refused::Because(missing(path, reference)));
        };
        insert.execute([referrer, id])?;
    }
    Ok(())
}

fn missing(path: &StorePath, reference: &StorePath) -> RegisterError {
    RegisterError::MissingReference { path: path.clone(), reference: reference.clone() }
}

fn info(object: Registration, registered_at: i64) -> PathInfo {
    PathInfo {
        nar_hash: object.staged.nar_hash(),
        nar_size: object.staged.nar_size(),
        path: object.path,
        references: object.references,
        deriver: object.deriver,
        content_address: object.content_address,
        registered_at,
    }
}

/// The present time in Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::fixture::{Home, file, path, register, stage};
    use super::*;

    #[test]
    fn a_registered_tree_is_canonical_and_known_to_another_process() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::write(tree.join("data"), "data").unwrap();
        symlink("bin/run", tree.join("link")).unwrap();
        let expected = crate::nar::nar_hash(&tree).unwrap();
        let object = Registration {
            staged: stage(&store, &tree).unwrap(),
            path: path(1, "tree"),
            references: [path(1, "tree")].into(),
            deriver: Some(path(9, "tree.drv")),
            content_address: Some(ContentAddress::nar_sha256(expected.sha256)),
        };
        let info = register(&store, object);
        assert_eq!((info.nar_hash, info.nar_size), (expected.sha256, expected.size));
        let there = store.physical_path(&path(1, "tree"));
        for (name, mode) in [("", 0o40555), ("bin", 0o40555), ("bin/run", 0o100_555), ("data", 0o100_444)] {
            let metadata = fs::symlink_metadata(there.join(name)).unwrap();
            assert_eq!((metadata.mode(), metadata.mtime()), (mode, 1), "{name}");
        }
        assert_eq!(fs::symlink_metadata(there.join("link")).unwrap().mtime(), 1);
        assert_eq!(crate::nar::nar_hash(&there).unwrap(), expected);
        assert_eq!(home.open().path_info(&path(1, "tree")).unwrap(), Some(info));
        assert_eq!(home.staged_names(), Vec::<std::path::PathBuf>::new());
    }

    #[test]
    fn a_valid_object_stays_what_it_is() {
        let home = Home::new();
        let store = home.open();
        let first = register(&store, file(&store, &path(1, "a"), "first", &[]));
        let second = store
            .register(vec![file(&store, &path(1, "a"), "second", &[]), file(&store, &path(1, "a"), "third", &[])])
            .unwrap();
        assert_eq!(second, [first.clone(), first]);
        assert_eq!(fs::read_to_string(store.physical_path(&path(1, "a"))).unwrap(), "first");
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn a_batch_may_refer_to_itself_in_any_order_and_around() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        let batch = vec![file(&store, &b, "b", &[&a]), file(&store, &a, "a", &[&a, &b])];
        let infos = store.register(batch).unwrap();
        assert_eq!(infos.iter().map(|info| info.path.clone()).collect::<Vec<_>>(), [b.clone(), a.clone()]);
        assert_eq!(store.referrers(&a).unwrap(), [a.clone(), b.clone()].into());
    }

    #[test]
    fn a_missing_reference_refuses_the_whole_batch() {
        let home = Home::new();
        let store = home.open();
        let (a, b, gone) = (path(1, "a"), path(2, "b"), path(3, "gone"));
        let batch = vec![file(&store, &a, "a", &[]), file(&store, &b, "b", &[&gone])];
        let error = store.register(batch).unwrap_err();
        assert!(matches!(&error, RegisterError::MissingReference { reference, .. } if *reference == gone), "{error}");
        assert!(store.all_paths().unwrap().is_empty());
        assert!(home.staged_names().is_empty());
        assert!(!store.physical_path(&a).exists());
        // What is registered but was removed behind the store's back is missing, too.
        register(&store, file(&store, &gone, "gone", &[]));
        fs::remove_file(store.physical_path(&gone)).unwrap();
        store.register(vec![file(&store, &b, "b", &[&gone])]).unwrap_err();
    }

    #[test]
    fn what_lies_under_the_name_without_a_row_is_replaced() {
        let home = Home::new();
        let store = home.open();
        let there = store.physical_path(&path(1, "a"));
        fs::create_dir_all(there.join("read-only/deep")).unwrap();
        fs::set_permissions(there.join("read-only"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o555)).unwrap();
        assert!(!store.is_valid(&path(1, "a")).unwrap());
        register(&store, file(&store, &path(1, "a"), "new", &[]));
        assert_eq!(fs::read_to_string(&there).unwrap(), "new");
        fs::create_dir(store.physical_path(&path(2, "b"))).unwrap();
        let tree = home.sources().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("x"), "").unwrap();
        let staged = stage(&store, &tree).unwrap();
        let object = Registration { staged, ..file(&store, &path(2, "b"), "", &[]) };
        register(&store, object);
        assert!(store.physical_path(&path(2, "b")).join("x").exists());
    }

    #[test]
    fn an_object_that_vanished_is_invalid_and_can_be_registered_again() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        register(&store, file(&store, &a, "old", &[]));
        register(&store, file(&store, &b, "b", &[&a]));
        fs::remove_file(store.physical_path(&a)).unwrap();
        assert!(!store.is_valid(&a).unwrap());
        assert_eq!(store.path_info(&a).unwrap(), None);
        assert_eq!(store.all_paths().unwrap(), [b.clone()].into());
        let info = register(&store, file(&store, &a, "newer", &[]));
        assert_eq!(store.path_info(&a).unwrap(), Some(info));
        assert_eq!(store.referrers(&a).unwrap(), [b].into(), "whoever referred to it still does");
    }

    #[test]
    fn a_withdrawn_object_is_not_valid_though_it_is_there() {
        let home = Home::new();
        let store = home.open();
        let a = path(1, "a");
        register(&store, file(&store, &a, "old", &[]));
        // What a program leaves that dies between moving the object back and writing its row.
        store.withdraw([&a].into_iter()).unwrap();
        assert!(!store.is_valid(&a).unwrap() && store.path_info(&a).unwrap().is_none());
        assert!(store.all_paths().unwrap().is_empty());
        register(&store, file(&store, &a, "new", &[]));
        assert_eq!(fs::read_to_string(store.physical_path(&a)).unwrap(), "new");
        assert!(store.is_valid(&a).unwrap());
    }
}
