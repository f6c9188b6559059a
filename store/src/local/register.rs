//! Making staged objects valid.
//!
//! In this order, for a whole batch: rename into place, one barrier that makes files and names durable, one transaction.
//! Only the transaction makes an object valid, so whatever stops the program earlier leaves garbage that the next
//! registration of that path replaces.
#![expect(clippy::disallowed_methods, reason = "the clock says when an object was registered")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Transaction, params};
use rustix::fs::Mode;
use rustix::io::Errno;

use super::copy::{Kind, set_times};
use super::database::Refused;
use super::descent::open_directory;
use super::failure::{DatabaseError, FileError};
use super::layout::rename_exclusive;
use super::lock::acquire_all;
use super::query::QueryError;
use super::remove::remove_tree;
use super::stage::Staged;
use super::{Durability, LocalStore};
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

/// Why objects were not registered. Then none of the batch was, and nothing of it is left.
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
    /// survive a power cut.
    ///
    /// # Errors
    /// When a reference is missing, the disk is full or the database refuses.
    pub fn register(&self, batch: Vec<Registration>) -> Result<Vec<PathInfo>, RegisterError> {
        let order: Vec<StorePath> = batch.iter().map(|registration| registration.path.clone()).collect();
        let mut objects = BTreeMap::new();
        for registration in batch {
            objects.entry(registration.path.clone()).or_insert(registration);
        }
        let _locks = acquire_all(&self.layout.object_locks, objects.keys().map(StorePath::base_name))?;
        let mut infos = BTreeMap::new();
        for path in objects.keys() {
            if let Some(info) = self.path_info(path)? {
                infos.insert(path.clone(), info);
            }
        }
        objects.retain(|path, _| !infos.contains_key(path));
        if !objects.is_empty() {
            self.check_references(&objects)?;
            let registered_at = now();
            self.put_in_place(&objects, registered_at)?;
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
    ) -> Result<(), RegisterError> {
        self.withdraw(objects.keys())?;
        let moved = objects.values().try_for_each(|object| self.move_in(object));
        let result = moved
            .and_then(|()| self.make_durable())
            .map_err(RegisterError::from)
            .and_then(|()| self.write_rows(objects, registered_at));
        if result.is_err() {
            for path in objects.keys() {
                // No row speaks of it; if it cannot be removed now, the next registration does so.
                let _ = remove_tree(self.layout.store.as_fd(), OsStr::new(path.base_name()));
            }
        }
        result
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
        if object.staged.kind() == Kind::Directory {
            let directory = open_directory(target.0, target.1).map_err(fail("open"))?;
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o555))
                .and_then(|()| set_times(directory.as_fd()))
                .map_err(fail("finish"))?;
        }
        Ok(())
    }

    /// One barrier for everything in the store's file system: contents, modes and names.
    fn make_durable(&self) -> Result<(), FileError> {
        if self.durability == Durability::Relaxed {
            return Ok(());
        }
        match rustix::fs::syncfs(&self.layout.store) {
            Err(Errno::NOSYS) => rustix::fs::sync(),
            other => other.map_err(|source| FileError::new("write to disk", self.layout.home.join("store"), source))?,
        }
        Ok(())
    }

    fn write_rows(
        &self,
        objects: &BTreeMap<StorePath, Registration>,
        registered_at: i64,
    ) -> Result<(), RegisterError> {
        self.database.write("register objects", |transaction| {
            for (path, object) in objects {
                write_object(transaction, path, object, registered_at)?;
            }
            // After all objects, since they may refer to each other.
            for (path, object) in objects {
                write_references(transaction, path, object)?;
            }
            Ok(())
        })
    }
}

fn write_object(
    transaction: &Transaction<'_>,
    path: &StorePath,
    object: &Registration,
    registered_at: i64,
) -> rusqlite::Result<()> {
    let statement = "INSERT INTO objects (path, nar_hash, nar_size, deriver, content_address, registered_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (path) DO UPDATE SET nar_hash = ?2, nar_size = ?3, deriver = ?4, content_address = ?5,
            registered_at = ?6, verified_at = NULL, withdrawn = 0";
    transaction.prepare_cached(statement)?.execute(params![
        path.base_name(),
        object.staged.nar_hash().as_bytes(),
        i64::try_from(object.staged.nar_size()).unwrap_or(i64::MAX),
        object.deriver.as_ref().map(StorePath::base_name),
        object.content_address.as_ref().map(ToString::to_string),
        registered_at,
    ])?;
    Ok(())
}

fn write_references(
    transaction: &Transaction<'_>,
    path: &StorePath,
    object: &Registration,
) -> Result<(), Refused<RegisterError>> {
    let find = "SELECT id FROM objects WHERE path = ?1 AND withdrawn = 0";
    let id_of = |path: &StorePath| -> rusqlite::Result<Option<i64>> {
        transaction.prepare_cached(find)?.query_row([path.base_name()], |row| row.get(0)).optional()
    };
    let referrer = id_of(path)?;
    transaction.prepare_cached("DELETE FROM object_references WHERE referrer = ?1")?.execute([referrer])?;
    let mut insert = transaction.prepare_cached("INSERT INTO object_references VALUES (?1, ?2)")?;
    for reference in &object.references {
        // It was valid a moment ago; somebody may have deleted it since.
        let Some(id) = id_of(reference)? else {
            return Err(Refused::Because(missing(path, reference)));
        };
        insert.execute([referrer, Some(id)])?;
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
