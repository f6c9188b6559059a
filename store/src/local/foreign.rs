//! Objects from elsewhere into the store, and the order in which objects go elsewhere.
#![expect(clippy::disallowed_methods, reason = "derivations among the new objects are read")]

use std::collections::BTreeSet;

use super::derivations::{AddDerivationsError, DerivationRow};
use super::failure::FileError;
use super::query::QueryError;
use super::register::{RegisterError, Registration};
use super::{Kind, LocalStore};
use crate::content_address::Method;
use crate::path::StorePath;
use crate::path_info::PathInfo;

/// Why objects from elsewhere were not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterForeignError {
    /// They cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The derivations among them cannot be added.
    #[error(transparent)]
    Derivations(#[from] AddDerivationsError),
    /// A derivation among them cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LocalStore {
    /// As [`LocalStore::register`]; derivations among the objects become known as derivations too.
    ///
    /// # Errors
    /// When the objects cannot be registered; then none of them is.
    pub fn register_foreign(&self, batch: Vec<Registration>) -> Result<Vec<PathInfo>, RegisterForeignError> {
        let is_text = |one: &&Registration| {
            one.content_address.as_ref().is_some_and(|address| address.method == Method::Text)
                && one.path.is_derivation()
                && matches!(one.staged.kind(), Kind::Regular { .. })
        };
        let mut rows = Vec::new();
        for object in batch.iter().filter(is_text) {
            let file = object.staged.path();
            let aterm = std::fs::read(&file).map_err(|source| FileError::new("read", file, source))?;
            rows.push(DerivationRow { path: object.path.clone(), aterm, references: object.references.clone() });
        }
        let infos = self.register(batch)?;
        self.add_derivations(&rows)?;
        Ok(infos)
    }

    /// Those of the objects that are valid, each after those of them it refers to.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn references_first(&self, paths: &BTreeSet<StorePath>) -> Result<Vec<PathInfo>, QueryError> {
        let mut ordered: Vec<PathInfo> = Vec::new();
        let mut seen: BTreeSet<StorePath> = BTreeSet::new();
        for start in paths {
            // Each object is met twice: on the way in, and again when what it refers to is done.
            let mut pending = vec![(start.clone(), None)];
            while let Some((path, info)) = pending.pop() {
                if let Some(info) = info {
                    ordered.push(info);
                } else if seen.insert(path.clone())
                    && let Some(info) = self.path_info(&path)?
                {
                    let others = info.references.iter().filter(|other| paths.contains(*other));
                    let others: Vec<_> = others.map(|other| (other.clone(), None)).collect();
                    pending.push((path, Some(info)));
                    pending.extend(others);
                }
            }
        }
        Ok(ordered)
    }
}
