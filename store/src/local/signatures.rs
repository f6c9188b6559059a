//! Who vouches for objects: signatures, kept beside what is known of them.

use std::collections::BTreeSet;

use rusqlite::OptionalExtension;

use super::LocalStore;
use super::failure::DatabaseError;
use super::query::{QueryError, parse_path};
use crate::path::{HASH_PART_LENGTH, StorePath};
use crate::signature::Signature;

impl LocalStore {
    /// The signatures of an object; none if it is unknown.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn signatures(&self, path: &StorePath) -> Result<BTreeSet<Signature>, QueryError> {
        let texts = self.database.read("look up signatures", |connection| {
            let statement = "SELECT signature FROM signatures JOIN objects ON id = object WHERE path = ?1";
            let mut statement = connection.prepare_cached(statement)?;
            statement.query_map([path.base_name()], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        let parse = |text: &String| {
            text.parse().map_err(|_| DatabaseError::InvalidValue { column: "signature", value: text.clone() })
        };
        Ok(texts.iter().map(parse).collect::<Result<_, _>>()?)
    }

    /// Adds signatures to objects, in one transaction. Objects that are unknown get none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add_signatures<'a>(
        &self,
        signatures: impl IntoIterator<Item = (&'a StorePath, &'a Signature)>,
    ) -> Result<(), DatabaseError> {
        let rows: Vec<_> =
            signatures.into_iter().map(|(path, signature)| (path.base_name(), signature.to_string())).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.database.write("add signatures", |transaction| {
            let statement = "INSERT OR IGNORE INTO signatures SELECT id, ?2 FROM objects WHERE path = ?1";
            let mut statement = transaction.prepare_cached(statement)?;
            for row in &rows {
                statement.execute((row.0, &row.1))?;
            }
            Ok(())
        })
    }

    /// The valid object whose base name starts with this hash part.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn path_with_hash_part(&self, hash_part: &str) -> Result<Option<StorePath>, QueryError> {
        if hash_part.len() != HASH_PART_LENGTH || !hash_part.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let name = self.database.read("look up a hash part", |connection| {
            // Everything that starts with `<hash part>-` lies between it and `<hash part>.`, the next character.
            let statement = "SELECT path FROM objects WHERE path > ?1 || '-' AND path < ?1 || '.' AND withdrawn = 0";
            let mut statement = connection.prepare_cached(statement)?;
            statement.query_row([hash_part], |row| row.get::<_, String>(0)).optional()
        })?;
        let Some(name) = name else { return Ok(None) };
        let path = parse_path(&name)?;
        Ok(self.is_on_disk(&path)?.then_some(path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, file, path, register};
    use crate::signature::SecretKey;

    #[test]
    fn signatures_live_as_long_as_their_object() {
        let home = Home::new();
        let store = home.open();
        let object = path(1, "a");
        let (one, two) = ([1, 2].map(|seed| SecretKey::from_seed("k", &[seed; 32]).unwrap().sign(b"m"))).into();
        store.add_signatures([(&object, &one)]).unwrap();
        assert!(store.signatures(&object).unwrap().is_empty());
        register(&store, file(&store, &object, "", &[]));
        store.add_signatures([(&object, &one), (&object, &two), (&object, &one)]).unwrap();
        assert_eq!(store.signatures(&object).unwrap(), [one, two].into());
        store.delete(std::slice::from_ref(&object)).unwrap();
        register(&store, file(&store, &object, "", &[]));
        assert!(store.signatures(&object).unwrap().is_empty());
    }

    #[test]
    fn objects_are_found_by_hash_part() {
        let home = Home::new();
        let store = home.open();
        let object = path(1, "a");
        register(&store, file(&store, &object, "", &[]));
        register(&store, file(&store, &path(2, "a"), "", &[]));
        assert_eq!(store.path_with_hash_part(object.hash_part()).unwrap(), Some(object));
        for absent in [path(3, "a").hash_part(), "", "%", "..", &"_".repeat(32)] {
            assert_eq!(store.path_with_hash_part(absent).unwrap(), None);
        }
    }
}
