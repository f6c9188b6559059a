//! What can be wrong with a cache.

use crate::hash::Sha256Digest;
use crate::local::{AddressError, StageArchiveError};
use crate::narinfo::NarInfoError;
use crate::path::{StoreDir, StorePath};

use super::files::FilesError;
use super::info::CacheInfoError;
use super::realisation::RealisationError;

/// What is wrong with a cache, or with what it sent. Nothing of it was registered.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Its files cannot be handled.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is none.
    #[error("{address} has no `nix-cache-info` and so is no binary cache")]
    NoCache {
        /// Where it was looked for.
        address: String,
    },
    /// It has paths of another store directory.
    #[error("{address} is a cache for the store directory `{found}`, not for `{wanted}`")]
    OtherStoreDir {
        /// The cache.
        address: String,
        /// The store directory of its paths.
        found: StoreDir,
        /// The one that was asked for.
        wanted: StoreDir,
    },
    /// What it says of itself is not of the expected form.
    #[error("`nix-cache-info` of {address} is not valid")]
    Info {
        /// The cache.
        address: String,
        /// What is wrong.
        #[source]
        source: CacheInfoError,
    },
    /// What it says of an object is not of the expected form.
    #[error("`{name}` of {address} is not valid")]
    NarInfo {
        /// The cache.
        address: String,
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: NarInfoError,
    },
    /// What it says of an output is not of the expected form.
    #[error("`{name}` of {address} is not valid")]
    Realisation {
        /// The cache.
        address: String,
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: RealisationError,
    },
    /// A file speaks of an object that it is not named after.
    #[error("`{name}` of {address} speaks of another object, `{found}`")]
    OtherHashPart {
        /// The cache.
        address: String,
        /// The file.
        name: String,
        /// The object it speaks of.
        found: StorePath,
    },
    /// It has another object with the same hash part.
    #[error("{address} has `{found}` where `{wanted}` was asked for")]
    OtherPath {
        /// The cache.
        address: String,
        /// What was asked for.
        wanted: StorePath,
        /// What there is.
        found: StorePath,
    },
    /// Nobody who is trusted vouches for the object.
    #[error("no trusted key signed `{path}` of {address}")]
    Unsigned {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
    },
    /// The path does not follow from the content address that is claimed.
    #[error("the path of `{path}` of {address} does not follow from its content address")]
    Address {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
    },
    /// The content is not what the path was computed from.
    #[error("the content of `{path}` of {address} is not what its path was computed from")]
    Content {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
    },
    /// The archive is not there.
    #[error("`{url}` of {address}, the archive of `{path}`, is missing")]
    NoArchive {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
        /// The archive.
        url: String,
    },
    /// The archive cannot be restored.
    #[error("cannot restore `{path}` from {address}")]
    Archive {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
        /// What is wrong.
        #[source]
        source: StageArchiveError,
    },
    /// The stream cannot be read to its end.
    #[error("cannot read the archive of `{path}` from {address}")]
    Read {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// A size is not the one announced.
    #[error("{what} of `{path}` from {address} has {actual} bytes and not {expected}")]
    Size {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
        /// What was measured.
        what: &'static str,
        /// The size announced.
        expected: u64,
        /// The size found.
        actual: u64,
    },
    /// A hash is not the one announced.
    #[error("{what} of `{path}` from {address} has the hash {}, not {}", actual.to_sri(), expected.to_sri())]
    Hash {
        /// The cache.
        address: String,
        /// The object.
        path: StorePath,
        /// What was hashed.
        what: &'static str,
        /// The hash announced.
        expected: Sha256Digest,
        /// The hash found.
        actual: Sha256Digest,
    },
    /// The restored object cannot be hashed.
    #[error(transparent)]
    Rehash(#[from] AddressError),
}
