//! What a store knows about one of its objects.

use std::collections::BTreeSet;

use crate::content_address::{ContentAddress, References};
use crate::hash::Sha256Digest;
use crate::path::StorePath;

/// What a store knows about one of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The object.
    pub path: StorePath,
    /// The SHA-256 of its NAR.
    pub nar_hash: Sha256Digest,
    /// The size of its NAR in bytes.
    pub nar_size: u64,
    /// The objects it refers to, itself among them if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it, if one did.
    pub deriver: Option<StorePath>,
    /// The content its path was computed from; `None` for an input-addressed object.
    pub content_address: Option<ContentAddress>,
    /// When it became valid in this store, in Unix seconds.
    pub registered_at: i64,
}

impl PathInfo {
    /// The references, split as content addresses need them.
    #[must_use]
    pub fn split_references(&self) -> References {
        let mut others = self.references.clone();
        let self_reference = others.remove(&self.path);
        References { others, self_reference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_into_others_and_self() {
        let path = StorePath::new(&[1; 20], "a").unwrap();
        let other = StorePath::new(&[2; 20], "b").unwrap();
        let info = PathInfo {
            path: path.clone(),
            nar_hash: Sha256Digest::ZERO,
            nar_size: 0,
            references: [path, other.clone()].into(),
            deriver: None,
            content_address: None,
            registered_at: 0,
        };
        assert_eq!(info.split_references(), References { others: [other].into(), self_reference: true });
    }
}
