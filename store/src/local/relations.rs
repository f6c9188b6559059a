//! What objects and derivations refer to and are referred to by, both taken together.

use std::collections::BTreeSet;

use super::LocalStore;
use super::query::{QueryError, REFERENCES, REFERRERS, linked, parse_path};
use crate::path::StorePath;

/// Which way to look along references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To what is referred to.
    References,
    /// To who refers to it.
    Referrers,
}

const DERIVATION_REFERENCES: &str = "SELECT reference FROM derivation_references
    JOIN derivations ON id = derivation WHERE path = ?1";
const DERIVATION_REFERRERS: &str = "SELECT path FROM derivation_references
    JOIN derivations ON id = derivation WHERE reference = ?1";

impl LocalStore {
    /// The neighbours of an object or a derivation: objects and derivations that the store knows. Nothing if it is unknown.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn neighbours(&self, path: &StorePath, direction: Direction) -> Result<BTreeSet<StorePath>, QueryError> {
        let statements = match direction {
            Direction::References => [REFERENCES, DERIVATION_REFERENCES],
            Direction::Referrers => [REFERRERS, DERIVATION_REFERRERS],
        };
        let names = self.database.read("look up references", |connection| {
            let mut names = linked(connection, statements[0], path)?;
            names.extend(linked(connection, statements[1], path)?);
            Ok(names)
        })?;
        names.iter().map(|name| Ok(parse_path(name)?)).collect()
    }

    /// Everything that is reached from these objects and derivations, themselves included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn reachable(&self, paths: &[StorePath], direction: Direction) -> Result<BTreeSet<StorePath>, QueryError> {
        let mut reached: BTreeSet<StorePath> = paths.iter().cloned().collect();
        let mut pending: Vec<StorePath> = reached.iter().cloned().collect();
        while let Some(path) = pending.pop() {
            for next in self.neighbours(&path, direction)? {
                if reached.insert(next.clone()) {
                    pending.push(next);
                }
            }
        }
        Ok(reached)
    }

    /// Whether the path is one of a derivation that the store knows.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn knows_derivation(&self, path: &StorePath) -> Result<bool, QueryError> {
        Ok(self.database.read("look up a derivation", |connection| {
            connection.prepare_cached("SELECT 1 FROM derivations WHERE path = ?1")?.exists([path.base_name()])
        })?)
    }
}
