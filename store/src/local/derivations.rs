//! Derivations are rows, not files: a catalog of ten thousand of them costs one transaction. One becomes a store object
//! when somebody wants to hand it to other tools.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, params};

use super::LocalStore;
use super::failure::{DatabaseError, FileError};
use super::make_address::AddFixedError;
use super::query::{QueryError, parse_path};
use super::register::RegisterError;
use crate::path::StorePath;
use crate::path_info::PathInfo;

/// A derivation's canonical bytes, and what they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivationRow {
    /// Its path, which is that of its bytes as a text.
    pub path: StorePath,
    /// Its canonical bytes.
    pub aterm: Vec<u8>,
    /// Its input derivations and sources.
    pub references: BTreeSet<StorePath>,
}

/// Why derivations were not added. Then none of them was.
#[derive(Debug, thiserror::Error)]
pub enum AddDerivationsError {
    /// The path is not that of the bytes with those references.
    #[error("derivation `{path}` has other bytes or references than its path says")]
    WrongPath {
        /// The path given.
        path: StorePath,
    },
    /// They cannot be protected from collectors.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a derivation did not become a store object.
#[derive(Debug, thiserror::Error)]
pub enum MaterialiseError {
    /// The derivation, or one it needs, is not known.
    #[error("derivation `{path}` is not in the store")]
    Unknown {
        /// Its path.
        path: StorePath,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its file cannot be made.
    #[error(transparent)]
    Add(#[from] AddFixedError),
    /// It cannot be registered, for example because a source it refers to is missing.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl LocalStore {
    /// Adds derivations, in one transaction; those that are known already cost a look-up each. They are not collected
    /// while this store is open.
    ///
    /// # Errors
    /// When a path does not fit its bytes or the database refuses.
    pub fn add_derivations(&self, rows: &[DerivationRow]) -> Result<(), AddDerivationsError> {
        self.protect(rows.iter().map(|row| &row.path))?;
        let known = self.database.read("look up derivations", |connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM derivations WHERE path = ?1")?;
            rows.iter().map(|row| statement.exists([row.path.base_name()])).collect::<rusqlite::Result<Vec<bool>>>()
        })?;
        let new: Vec<&DerivationRow> = rows.iter().zip(known).filter(|(_, known)| !known).map(|(row, _)| row).collect();
        for row in &new {
            let path = self.store_dir.text_path(row.path.name(), &row.aterm, &row.references);
            if path.as_ref() != Ok(&row.path) {
                return Err(AddDerivationsError::WrongPath { path: row.path.clone() });
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        // Recipes say them again whenever they are needed; so nobody waits for the disk.
        self.database.write_lazily("add derivations", |transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT OR IGNORE INTO derivations (path, aterm) VALUES (?1, ?2)")?;
            let mut refer = transaction.prepare_cached("INSERT INTO derivation_references VALUES (?1, ?2)")?;
            for row in &new {
                if insert.execute(params![row.path.base_name(), row.aterm])? == 0 {
                    // Another process was faster, or it is here twice.
                    continue;
                }
                let id = transaction.last_insert_rowid();
                for reference in &row.references {
                    refer.execute(params![id, reference.base_name()])?;
                }
            }
            Ok(())
        })
    }

    /// The canonical bytes of a derivation, if it is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn derivation(&self, path: &StorePath) -> Result<Option<Vec<u8>>, QueryError> {
        Ok(self.database.read("look up a derivation", |connection| {
            let mut statement = connection.prepare_cached("SELECT aterm FROM derivations WHERE path = ?1")?;
            statement.query_row([path.base_name()], |row| row.get(0)).optional()
        })?)
    }

    /// A derivation with what it refers to, if it is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn derivation_row(&self, path: &StorePath) -> Result<Option<DerivationRow>, QueryError> {
        let Some(aterm) = self.derivation(path)? else { return Ok(None) };
        let names = self.database.read("look up a derivation", |connection| {
            let statement = "SELECT reference FROM derivation_references JOIN derivations ON id = derivation
                WHERE path = ?1";
            let mut statement = connection.prepare_cached(statement)?;
            statement.query_map([path.base_name()], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        let references = names.iter().map(|name| parse_path(name)).collect::<Result<_, _>>()?;
        Ok(Some(DerivationRow { path: path.clone(), aterm, references }))
    }

    /// The paths of all derivations that are known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_derivations(&self) -> Result<BTreeSet<StorePath>, QueryError> {
        let names = self.database.read("list derivations", |connection| {
            let mut statement = connection.prepare_cached("SELECT path FROM derivations")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        names.iter().map(|name| Ok(parse_path(name)?)).collect()
    }

    /// Makes a derivation, and those it needs, store objects: the `.drv` files that other tools read.
    ///
    /// # Errors
    /// When one of them is unknown, or a source that one of them refers to is not in the store.
    pub fn materialise_derivation(&self, path: &StorePath) -> Result<PathInfo, MaterialiseError> {
        let mut rows = BTreeMap::new();
        let mut pending = vec![path.clone()];
        while let Some(next) = pending.pop() {
            if rows.contains_key(&next) || self.is_valid(&next)? {
                continue;
            }
            let Some(row) = self.derivation_row(&next)? else {
                return Err(MaterialiseError::Unknown { path: next });
            };
            pending.extend(row.references.iter().filter(|reference| reference.is_derivation()).cloned());
            rows.insert(next, row);
        }
        let mut batch = Vec::with_capacity(rows.len());
        for (path, row) in &rows {
            batch.push(self.stage_text(path.name(), &row.aterm, &row.references)?.registration(None));
        }
        self.register(batch)?;
        self.path_info(path)?.ok_or_else(|| MaterialiseError::Unknown { path: path.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, file, path, register};
    use super::*;

    fn row(store: &LocalStore, name: &str, aterm: &str, references: &[&StorePath]) -> DerivationRow {
        let references: BTreeSet<_> = references.iter().map(|path| (*path).clone()).collect();
        let path = store.store_dir().text_path(name, aterm.as_bytes(), &references).unwrap();
        DerivationRow { path, aterm: aterm.into(), references }
    }

    #[test]
    fn derivations_are_kept_once_and_read_back() {
        let home = Home::new();
        let store = home.open();
        let a = row(&store, "a.drv", "Derive(a)", &[]);
        let b = row(&store, "b.drv", "Derive(b)", &[&a.path, &path(1, "source")]);
        store.add_derivations(&[b.clone(), a.clone(), a.clone()]).unwrap();
        store.add_derivations(std::slice::from_ref(&a)).unwrap();
        assert_eq!(home.open().derivation(&a.path).unwrap().as_deref(), Some(&a.aterm[..]));
        assert_eq!(store.derivation_row(&b.path).unwrap(), Some(b.clone()));
        assert_eq!(store.all_derivations().unwrap(), [a.path, b.path].into());
        assert_eq!(store.derivation(&path(1, "c.drv")).unwrap(), None);
    }

    #[test]
    fn a_path_that_is_not_that_of_the_bytes_is_refused() {
        let home = Home::new();
        let store = home.open();
        let good = row(&store, "a.drv", "Derive(a)", &[]);
        let bad = DerivationRow { aterm: b"Derive(b)".to_vec(), ..good.clone() };
        let error = store.add_derivations(&[row(&store, "c.drv", "Derive(c)", &[]), bad]).unwrap_err();
        assert!(matches!(&error, AddDerivationsError::WrongPath { path } if *path == good.path), "{error}");
        assert!(store.all_derivations().unwrap().is_empty());
    }

    #[test]
    fn a_derivation_becomes_an_object_with_all_it_needs() {
        let home = Home::new();
        let store = home.open();
        let source = path(1, "source");
        let a = row(&store, "a.drv", "Derive(a)", &[]);
        let b = row(&store, "b.drv", "Derive(b)", &[&a.path, &source]);
        let c = row(&store, "c.drv", "Derive(c)", &[&a.path, &b.path]);
        store.add_derivations(&[a.clone(), b.clone(), c.clone()]).unwrap();
        let error = store.materialise_derivation(&c.path).unwrap_err();
        assert!(matches!(error, MaterialiseError::Register(RegisterError::MissingReference { .. })), "{error}");
        register(&store, file(&store, &source, "source", &[]));
        let info = store.materialise_derivation(&c.path).unwrap();
        assert_eq!(info.references, c.references);
        assert_eq!(store.materialise_derivation(&c.path).unwrap(), info);
        assert_eq!(store.closure(&[c.path]).unwrap(), [info.path, a.path, b.path, source].into());
        let unknown = store.materialise_derivation(&path(2, "x.drv")).unwrap_err();
        assert!(matches!(unknown, MaterialiseError::Unknown { .. }), "{unknown}");
    }
}
