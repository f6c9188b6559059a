//! Checking that objects still are what was registered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;

use rayon::prelude::*;
use rusqlite::params;

use super::LocalStore;
use super::descent::entries;
use super::failure::{DatabaseError, FileError};
use super::query::QueryError;
use super::register::now;
use crate::hash::Sha256Digest;
use crate::nar::DumpError;
use crate::path::StorePath;

/// How many objects are hashed before the time is noted, so that a verification that is stopped has not been for nothing.
const BATCH: usize = 256;

/// Something that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// An object is registered, but not there.
    #[error("`{path}` is missing")]
    Missing {
        /// The object.
        path: StorePath,
    },
    /// An object is not what was registered.
    #[error("`{path}` was changed: its archive has the hash {actual}, not {expected}", expected = expected.to_sri(), actual = actual.to_sri())]
    Changed {
        /// The object.
        path: StorePath,
        /// The hash that was registered.
        expected: Sha256Digest,
        /// The hash of what is there.
        actual: Sha256Digest,
    },
    /// An object cannot be read.
    #[error("`{path}` cannot be read")]
    Unreadable {
        /// The object.
        path: StorePath,
        /// Why not.
        #[source]
        source: DumpError,
    },
    /// Something lies in the store that is not registered: the leavings of a process that died, for example.
    #[error("`{name}` is not registered")]
    Unregistered {
        /// Its name.
        name: String,
    },
}

/// Why verification stopped.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The store's directory cannot be listed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The result cannot be written down.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl LocalStore {
    /// Hashes every object again, the one verified longest ago first, and says what is wrong.
    ///
    /// When an object was found whole is recorded, so that a later verification can go on where this one was stopped.
    ///
    /// # Errors
    /// When the store cannot be listed or the database refuses. Broken objects are findings.
    pub fn verify(&self) -> Result<Vec<Finding>, VerifyError> {
        let rows = self.database.read("list objects", |connection| {
            let statement = "SELECT path, nar_hash FROM objects WHERE withdrawn = 0
                ORDER BY COALESCE(verified_at, 0), path";
            let mut statement = connection.prepare_cached(statement)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut objects = Vec::with_capacity(rows.len());
        for (name, hash) in rows {
            let name: String = name;
            objects.push((super::query::parse_path(&name)?, Sha256Digest::from_bytes(hash)));
        }
        let mut findings = Vec::new();
        for batch in objects.chunks(BATCH) {
            findings.extend(self.verify_batch(batch)?);
        }
        findings.extend(self.unregistered(&objects)?);
        Ok(findings)
    }

    fn verify_batch(&self, batch: &[(StorePath, Sha256Digest)]) -> Result<Vec<Finding>, VerifyError> {
        let checked: Vec<_> =
            batch.par_iter().map(|(path, hash)| (path, self.verify_object(path, *hash).transpose())).collect();
        let whole: Vec<&StorePath> =
            checked.iter().filter(|(_, result)| result.is_none()).map(|(path, _)| *path).collect();
        let verified_at = now();
        self.database.write::<_, DatabaseError>("record verification", |transaction| {
            let mut statement = transaction.prepare_cached("UPDATE objects SET verified_at = ?2 WHERE path = ?1")?;
            for path in &whole {
                statement.execute(params![path.base_name(), verified_at])?;
            }
            Ok(())
        })?;
        checked.into_iter().filter_map(|(_, result)| result).collect()
    }

    fn verify_object(&self, path: &StorePath, expected: Sha256Digest) -> Result<Option<Finding>, VerifyError> {
        if !self.is_on_disk(path)? {
            return Ok(Some(Finding::Missing { path: path.clone() }));
        }
        let path = path.clone();
        Ok(match crate::nar::nar_hash_at(self.layout.store.as_fd(), OsStr::new(path.base_name())) {
            Ok(nar) if nar.sha256 == expected => None,
            Ok(nar) => Some(Finding::Changed { path, expected, actual: nar.sha256 }),
            Err(source) => Some(Finding::Unreadable { path, source }),
        })
    }

    fn unregistered(&self, objects: &[(StorePath, Sha256Digest)]) -> Result<Vec<Finding>, VerifyError> {
        let known: BTreeSet<&str> = objects.iter().map(|(path, _)| path.base_name()).collect();
        let found = entries(self.layout.store.as_fd())
            .map_err(|source| FileError::new("list", self.layout.home.join("store"), source))?;
        let names = found.iter().map(|entry| entry.name().to_string_lossy().into_owned());
        Ok(names.filter(|name| !known.contains(name.as_str())).map(|name| Finding::Unregistered { name }).collect())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::fixture::{Home, file, path, register};

    #[test]
    fn whole_objects_are_noted_and_the_others_are_findings() {
        let home = Home::new();
        let store = home.open();
        let paths = [1, 2, 3, 4].map(|digit| path(digit, "p"));
        for path in &paths {
            register(&store, file(&store, path, "content", &[]));
        }
        assert!(store.verify().unwrap().is_empty());
        let changed = store.physical_path(&paths[0]);
        fs::set_permissions(&changed, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&changed, "c0ntent").unwrap();
        fs::remove_file(store.physical_path(&paths[1])).unwrap();
        fs::write(home.path().join("store/stray"), "").unwrap();
        let findings: Vec<String> = store.verify().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 3);
        assert!(findings[0].starts_with(&format!("`{}` was changed", paths[0])), "{findings:?}");
        assert_eq!(findings[1..], [format!("`{}` is missing", paths[1]), "`stray` is not registered".to_owned()]);
        let verified: i64 = store
            .database
            .read("count", |c| {
                c.query_row("SELECT count(*) FROM objects WHERE verified_at IS NOT NULL", [], |row| row.get(0))
            })
            .unwrap();
        assert_eq!(verified, 4, "the first verification noted all of them");
    }
}
