//! What is in the store: validity, infos, references and closures.
//!
//! An object is valid when it is registered *and* there: somebody who removes files behind the store's back makes them
//! invalid, and the next registration puts them back.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rusqlite::{Connection, OptionalExtension, Row};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::LocalStore;
use super::failure::{DatabaseError, FileError};
use crate::hash::Sha256Digest;
use crate::path::StorePath;
use crate::path_info::PathInfo;

/// Why a question about the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The objects cannot be looked at.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LocalStore {
    /// Whether the object is valid: registered and there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, QueryError> {
        Ok(!self.valid_paths(std::slice::from_ref(path))?.is_empty())
    }

    /// Those of the paths that are valid.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn valid_paths(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, QueryError> {
        let mut valid = self.database.read("look up objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM objects WHERE path = ?1 AND withdrawn = 0")?;
            let mut found = BTreeSet::new();
            for path in paths {
                if statement.exists([path.base_name()])? {
                    found.insert(path.clone());
                }
            }
            Ok(found)
        })?;
        let mut gone = Vec::new();
        for path in &valid {
            if !self.is_on_disk(path)? {
                gone.push(path.clone());
            }
        }
        for path in &gone {
            valid.remove(path);
        }
        Ok(valid)
    }

    /// What the store knows about an object; `None` if it is not valid.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, QueryError> {
        match self.registered(path)? {
            Some(info) if self.is_on_disk(path)? => Ok(Some(info)),
            _ => Ok(None),
        }
    }

    /// What was registered of an object, whether it is there or not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn registered(&self, path: &StorePath) -> Result<Option<PathInfo>, QueryError> {
        let row = self.database.read("look up an object", |connection| {
            let statement = "SELECT id, nar_hash, nar_size, deriver, content_address, registered_at FROM objects
                WHERE path = ?1 AND withdrawn = 0";
            let mut statement = connection.prepare_cached(statement)?;
            let Some(row) = statement.query_row([path.base_name()], ObjectRow::read).optional()? else {
                return Ok(None);
            };
            let references = linked(connection, REFERENCES, path)?;
            Ok(Some((row, references)))
        })?;
        Ok(row.map(|(row, references)| row.parse(path, &references)).transpose()?)
    }

    /// All valid objects.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all_paths(&self) -> Result<BTreeSet<StorePath>, QueryError> {
        let names = self.database.read("list objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT path FROM objects WHERE withdrawn = 0")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        let mut paths = BTreeSet::new();
        for path in names.iter().map(|name| parse_path(name)) {
            let path = path?;
            if self.is_on_disk(&path)? {
                paths.insert(path);
            }
        }
        Ok(paths)
    }

    /// What an object refers to, itself included if it does. Nothing if it is unknown.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn references(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, QueryError> {
        self.linked_paths(REFERENCES, path)
    }

    /// The registered objects that refer to this one, itself included if it does.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn referrers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, QueryError> {
        self.linked_paths(REFERRERS, path)
    }

    /// The paths and everything they refer to, directly or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn closure(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, QueryError> {
        let names = self.database.read("compute a closure", |connection| {
            let mut reached: BTreeSet<String> = paths.iter().map(|path| path.base_name().to_owned()).collect();
            let mut pending: Vec<String> = reached.iter().cloned().collect();
            let mut statement = connection.prepare_cached(REFERENCES)?;
            while let Some(name) = pending.pop() {
                for reference in statement.query_map([&name], |row| row.get::<_, String>(0))? {
                    let reference = reference?;
                    if reached.insert(reference.clone()) {
                        pending.push(reference);
                    }
                }
            }
            Ok(reached)
        })?;
        names.iter().map(|name| Ok(parse_path(name)?)).collect()
    }

    fn linked_paths(&self, statement: &str, path: &StorePath) -> Result<BTreeSet<StorePath>, QueryError> {
        let names = self.database.read("look up references", |connection| linked(connection, statement, path))?;
        names.iter().map(|name| Ok(parse_path(name)?)).collect()
    }

    /// Whether there is anything under the object's name.
    pub(super) fn is_on_disk(&self, path: &StorePath) -> Result<bool, FileError> {
        match rustix::fs::statat(self.layout.store.as_fd(), path.base_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(source) => Err(FileError::new("look at", self.physical_path(path), source)),
        }
    }
}

pub(super) const REFERENCES: &str = "SELECT target.path FROM objects AS source
    JOIN object_references ON referrer = source.id JOIN objects AS target ON target.id = reference
    WHERE source.path = ?1";
pub(super) const REFERRERS: &str = "SELECT source.path FROM objects AS target
    JOIN object_references ON reference = target.id JOIN objects AS source ON source.id = referrer
    WHERE target.path = ?1";

/// Runs one of the two statements above.
pub(super) fn linked(connection: &Connection, statement: &str, path: &StorePath) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached(statement)?.query_map([path.base_name()], |row| row.get(0))?.collect()
}

/// Reads a base name from the database.
pub(super) fn parse_path(name: &str) -> Result<StorePath, DatabaseError> {
    StorePath::parse_base_name(name).map_err(|_| invalid("store path", name))
}

/// Says that the database holds something this program never writes.
pub(super) fn invalid(column: &'static str, value: impl ToString) -> DatabaseError {
    DatabaseError::InvalidValue { column, value: value.to_string() }
}

struct ObjectRow {
    nar_hash: [u8; 32],
    nar_size: i64,
    deriver: Option<String>,
    content_address: Option<String>,
    registered_at: i64,
}

impl ObjectRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            nar_hash: row.get("nar_hash")?,
            nar_size: row.get("nar_size")?,
            deriver: row.get("deriver")?,
            content_address: row.get("content_address")?,
            registered_at: row.get("registered_at")?,
        })
    }

    fn parse(self, path: &StorePath, references: &[String]) -> Result<PathInfo, DatabaseError> {
        let address = self.content_address.map(|text| text.parse().map_err(|_| invalid("content address", text)));
        Ok(PathInfo {
            path: path.clone(),
            nar_hash: Sha256Digest::from_bytes(self.nar_hash),
            nar_size: u64::try_from(self.nar_size).map_err(|_| invalid("archive size", self.nar_size))?,
            references: references.iter().map(|name| parse_path(name)).collect::<Result<_, _>>()?,
            deriver: self.deriver.as_deref().map(parse_path).transpose()?,
            content_address: address.transpose()?,
            registered_at: self.registered_at,
        })
    }
}
