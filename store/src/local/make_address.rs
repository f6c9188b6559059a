//! Names that follow from content: for outputs built under a provisional path, for fetched files, for sources and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};

use super::LocalStore;
use super::copy::{Access, Kind, StageError};
use super::failure::FileError;
use super::query::QueryError;
use super::register::{RegisterError, Registration};
use super::rewrite::Rewriter;
use super::stage::Staged;
use crate::content_address::{ContentAddress, ContentPathError, Method, References};
use crate::hash::{Algorithm, Hash, Hasher, Sha256Digest};
use crate::nar::DumpError;
use crate::path::{PathError, StorePath};
use crate::path_info::PathInfo;
use crate::reference_scan::HashModulo;

/// A staged object and the path that follows from its content.
#[derive(Debug)]
pub struct Addressed {
    /// The object, which speaks of itself by its final path.
    pub staged: Staged,
    /// The final path.
    pub path: StorePath,
    /// The content the path was computed from.
    pub content_address: ContentAddress,
    /// What it refers to.
    pub references: References,
}

impl Addressed {
    /// What is needed to register it.
    #[must_use]
    pub fn registration(self, deriver: Option<StorePath>) -> Registration {
        let mut references = self.references.others;
        if self.references.self_reference {
            references.insert(self.path.clone());
        }
        Registration {
            staged: self.staged,
            path: self.path,
            references,
            deriver,
            content_address: Some(self.content_address),
        }
    }
}

/// Why a staged object has no content-addressed path.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The name or the references are not allowed.
    #[error(transparent)]
    Path(#[from] ContentPathError),
    /// Only a regular file that is not executable has a flat hash.
    #[error("`{name}` is hashed as a file, and must be a regular file that is not executable")]
    NotFlat {
        /// The object's name.
        name: String,
    },
    /// File names hold the object's own hash, and the order of its directories' entries depends on that hash.
    #[error(
        "the order of the entries of `{path}` depends on its own path, so that its path cannot follow from its content"
    )]
    UnstableOrder {
        /// The path it would have had.
        path: StorePath,
    },
    /// The staged object cannot be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The staged object cannot be read or rewritten.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
}

/// That content is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hash mismatch for `{name}`: expected {expected}, got {actual}", expected = expected.to_sri(), actual = actual.to_sri())]
pub struct HashMismatch {
    /// The object's name.
    pub name: String,
    /// The hash that was asked for.
    pub expected: Hash,
    /// The hash of what there is.
    pub actual: Hash,
}

/// Why a fixed output was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddFixedError {
    /// The content is not what it should be.
    #[error(transparent)]
    Mismatch(Box<HashMismatch>),
    /// The content has no such address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The content cannot be staged.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl From<PathError> for AddFixedError {
    fn from(error: PathError) -> Self {
        AddressError::from(ContentPathError::from(error)).into()
    }
}

impl LocalStore {
    /// Finds the path of an output that was built under the provisional path `scratch`: Nix's floating `r:sha256` form.
    ///
    /// The object must have been staged with `scratch` as its own path. If it speaks of itself, its content is copied once
    /// more, with the hash part of `scratch` replaced by the final one in contents, names and link targets.
    ///
    /// # Errors
    /// When the name is not allowed, the copy fails, or names that hold the hash part make the path impossible.
    pub fn into_content_addressed(
        &self,
        staged: Staged,
        name: &str,
        scratch: &StorePath,
    ) -> Result<Addressed, AddressError> {
        let others = staged.references().clone();
        let references = References { others, self_reference: staged.self_reference() };
        if !references.self_reference {
            let content_address = ContentAddress::nar_sha256(staged.nar_hash());
            let path = self.store_dir.content_addressed_path(name, &content_address, &references)?;
            return Ok(Addressed { staged, path, content_address, references });
        }
        let content_address = ContentAddress { method: Method::Nar, hash: hash_modulo(&staged, scratch)? };
        let path = self.store_dir.content_addressed_path(name, &content_address, &references)?;
        let rewriter = Rewriter::new([(scratch, &path)]);
        let staged = self.stage_copy(staged.place(), Access::AsTheyAre, &rewriter, &references.others, Some(&path))?;
        // What verifies the path later knows the final names only.
        if hash_modulo(&staged, &path)? != content_address.hash {
            return Err(AddressError::UnstableOrder { path });
        }
        Ok(Addressed { staged, path, content_address, references })
    }

    /// Replaces paths that a staged object refers to by others: the provisional paths of its sibling outputs by their final ones.
    ///
    /// `own` is the object's own provisional path, as it was when it was staged.
    ///
    /// # Errors
    /// When the object cannot be copied.
    pub fn rewrite_references(
        &self,
        staged: Staged,
        replacements: &BTreeMap<StorePath, StorePath>,
        own: Option<&StorePath>,
    ) -> Result<Staged, StageError> {
        if !staged.references().iter().any(|path| replacements.contains_key(path)) {
            return Ok(staged);
        }
        let replaced = |path: &StorePath| replacements.get(path).unwrap_or(path).clone();
        let candidates: BTreeSet<StorePath> = staged.references().iter().map(replaced).collect();
        self.stage_copy(staged.place(), Access::AsTheyAre, &Rewriter::new(replacements), &candidates, own)
    }

    /// The hash of a staged object's content.
    ///
    /// # Errors
    /// When it cannot be read, or is no plain regular file while `method` is not [`Method::Nar`].
    pub fn content_hash(
        &self,
        staged: &Staged,
        name: &str,
        method: Method,
        algorithm: Algorithm,
    ) -> Result<Hash, AddressError> {
        match (method, algorithm) {
            (Method::Nar, Algorithm::Sha256) => Ok(staged.nar_hash().into()),
            (Method::Nar, _) => {
                let mut hasher = Hasher::new(algorithm);
                let (directory, entry) = staged.place();
                crate::nar::dump_at(directory, entry, &mut hasher)?;
                Ok(hasher.finish())
            }
            _ if staged.kind() != (Kind::Regular { executable: false }) => {
                Err(AddressError::NotFlat { name: name.to_owned() })
            }
            _ => {
                let mut hasher = Hasher::new(algorithm);
                hash_file(staged, &mut hasher).map_err(|source| FileError::new("read", staged.path(), source))?;
                Ok(hasher.finish())
            }
        }
    }

    /// Checks that a staged object has the expected hash, and finds its path.
    ///
    /// # Errors
    /// When the hash is another, the object refers to anything, or it has no flat hash while one is asked for.
    pub fn into_fixed(
        &self,
        staged: Staged,
        name: &str,
        expected: &Hash,
        method: Method,
    ) -> Result<Addressed, AddFixedError> {
        let actual = self.content_hash(&staged, name, method, expected.algorithm())?;
        if actual != *expected {
            let mismatch = HashMismatch { name: name.to_owned(), expected: expected.clone(), actual };
            return Err(AddFixedError::Mismatch(Box::new(mismatch)));
        }
        let content_address = ContentAddress { method, hash: actual };
        let others = staged.references().clone();
        let references = References { others, self_reference: staged.self_reference() };
        if !references.is_empty() {
            let error = ContentPathError::References { name: name.to_owned(), address: content_address };
            return Err(AddressError::from(error).into());
        }
        let path =
            self.store_dir.content_addressed_path(name, &content_address, &references).map_err(AddressError::from)?;
        Ok(Addressed { staged, path, content_address, references })
    }

    /// Adds what was fetched, if it has the expected hash.
    ///
    /// # Errors
    /// As for [`LocalStore::into_fixed`] and [`LocalStore::register`].
    pub fn add_fixed(
        &self,
        staged: Staged,
        name: &str,
        expected: &Hash,
        method: Method,
    ) -> Result<PathInfo, AddFixedError> {
        self.register_one(self.into_fixed(staged, name, expected, method)?)
    }

    /// Adds a staged tree as a source: its path follows from its archive's hash, and it refers to nothing.
    ///
    /// # Errors
    /// As for [`LocalStore::into_fixed`] and [`LocalStore::register`].
    pub fn add_source(&self, staged: Staged, name: &str) -> Result<PathInfo, AddFixedError> {
        let hash = staged.nar_hash().into();
        self.add_fixed(staged, name, &hash, Method::Nar)
    }

    /// Finds the path of a text with these references, and stages it.
    ///
    /// # Errors
    /// When the name is not allowed or the file cannot be written.
    pub fn stage_text(
        &self,
        name: &str,
        content: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<Addressed, AddFixedError> {
        let path = self.store_dir.text_path(name, content, references)?;
        let hash = Sha256Digest::of(content).into();
        Ok(Addressed {
            staged: self.stage_bytes(content)?,
            path,
            content_address: ContentAddress { method: Method::Text, hash },
            references: References { others: references.clone(), self_reference: false },
        })
    }

    /// Adds a text with these references, unless it is there.
    ///
    /// # Errors
    /// When the name is not allowed, a reference is missing, or the file cannot be written.
    pub fn add_text(
        &self,
        name: &str,
        content: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddFixedError> {
        let path = self.store_dir.text_path(name, content, references)?;
        match self.path_info(&path)? {
            Some(info) => Ok(info),
            None => self.register_one(self.stage_text(name, content, references)?),
        }
    }

    fn register_one(&self, object: Addressed) -> Result<PathInfo, AddFixedError> {
        let mut infos = self.register(vec![object.registration(None)])?;
        Ok(infos.pop().expect("one info for one registration"))
    }
}

/// The SHA-256 of a staged object's archive with the hash part of `own` blanked out.
fn hash_modulo(staged: &Staged, own: &StorePath) -> Result<Hash, DumpError> {
    let mut hasher = HashModulo::new(Algorithm::Sha256, own);
    let (directory, entry) = staged.place();
    crate::nar::dump_at(directory, entry, &mut hasher)?;
    Ok(hasher.finish().0)
}

fn hash_file(staged: &Staged, hasher: &mut Hasher) -> io::Result<u64> {
    let (directory, entry) = staged.place();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    io::copy(&mut File::from(rustix::fs::openat(directory, entry, flags, Mode::empty())?), hasher)
}
