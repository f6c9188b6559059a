//! Binary caches: objects as compressed archives, and what is known of them, in a directory of files near or far.
//!
//! - [`Files`] is where a cache's files lie: [`Directory`] is one on this machine; others are made by whoever has a network;
//! - [`Cache`] is a cache with its settings, which is asked and written to;
//! - [`Substituters`] brings closures from several caches into a local store, as far as [`Trust`] goes.
//!
//! Nothing a cache says is believed: an archive is restored beside the store while it is hashed, bounded by the sizes that were
//! announced, and registered only if sizes and hashes agree and a trusted key signed them, or the path follows from the content.

mod compression;
mod directory;
mod error;
mod fetch;
mod files;
mod info;
mod listing;
mod push;
mod realisation;
mod replacement;
mod substitute;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

pub use compression::{Compression, UnknownCompression};
pub use directory::Directory;
pub use error::CacheError;
pub use fetch::Fetched;
pub use files::{Files, FilesError, NewFile};
pub use info::{CacheInfo, CacheInfoError};
pub use listing::write_listing;
pub use push::{PushError, PushOptions};
pub use realisation::{Realisation, RealisationError};
pub use substitute::{SubstituteError, Substituted, Substituters, Trust};

use crate::hash::Sha256Digest;
use crate::narinfo::{self, NarInfo};
use crate::path::{StoreDir, StorePath};

/// The longest small file that is read, other than a narinfo, in bytes.
const SMALL_FILE_LIMIT: u64 = 64 << 10;
/// How many answers are remembered.
const REMEMBERED: usize = 200_000;

/// A binary cache for one store directory.
#[derive(Debug)]
pub struct Cache {
    files: Box<dyn Files>,
    info: CacheInfo,
    store_dir: StoreDir,
    /// Answers by hash part, those that there is nothing included.
    known: Mutex<BTreeMap<String, Option<Arc<NarInfo>>>>,
}

impl Cache {
    /// Opens a cache for reading.
    ///
    /// # Errors
    /// When there is none, or it is for another store directory.
    pub fn open(files: Box<dyn Files>, store_dir: StoreDir) -> Result<Self, CacheError> {
        match read_info(&*files)? {
            Some(info) => Self::with_info(files, info, store_dir),
            None => Err(CacheError::NoCache { address: files.address().to_owned() }),
        }
    }

    /// Opens a cache for writing, and makes it one if it is none yet.
    ///
    /// # Errors
    /// When its settings cannot be written, or it is for another store directory.
    pub fn open_or_create(files: Box<dyn Files>, store_dir: StoreDir) -> Result<Self, CacheError> {
        if let Some(info) = read_info(&*files)? {
            return Self::with_info(files, info, store_dir);
        }
        let info = CacheInfo::new(&store_dir);
        files::write(&*files, info::NAME, info.write().as_bytes())?;
        Self::with_info(files, info, store_dir)
    }

    fn with_info(files: Box<dyn Files>, info: CacheInfo, store_dir: StoreDir) -> Result<Self, CacheError> {
        match &info.store_dir {
            Some(found) if *found != store_dir => Err(CacheError::OtherStoreDir {
                address: files.address().to_owned(),
                found: found.clone(),
                wanted: store_dir,
            }),
            _ => Ok(Self { files, info, store_dir, known: Mutex::default() }),
        }
    }

    /// Where it lies, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        self.files.address()
    }

    /// Its settings.
    #[must_use]
    pub const fn info(&self) -> &CacheInfo {
        &self.info
    }

    /// What the cache says of an object; asked once.
    ///
    /// # Errors
    /// When the cache cannot be read, or its answer is no narinfo of that object.
    pub fn narinfo(&self, path: &StorePath) -> Result<Option<Arc<NarInfo>>, CacheError> {
        let Some(info) = self.narinfo_by_hash_part(path.hash_part())? else { return Ok(None) };
        if info.path == *path {
            return Ok(Some(info));
        }
        let address = self.address().to_owned();
        Err(CacheError::OtherPath { address, wanted: path.clone(), found: info.path.clone() })
    }

    /// As [`Cache::narinfo`], for whatever object has this hash part.
    ///
    /// # Errors
    /// As for [`Cache::narinfo`].
    pub fn narinfo_by_hash_part(&self, hash_part: &str) -> Result<Option<Arc<NarInfo>>, CacheError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(hash_part).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.read_narinfo(hash_part)?.map(Arc::new);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash_part.to_owned(), found.clone());
        Ok(found)
    }

    fn read_narinfo(&self, hash_part: &str) -> Result<Option<NarInfo>, CacheError> {
        let name = narinfo_name(hash_part);
        // One byte more than allowed, so that the parser sees that there are too many.
        let Some(text) = read_small(&*self.files, &name, narinfo::LENGTH_LIMIT + 1)? else { return Ok(None) };
        let fail = |source| CacheError::NarInfo { address: self.address().to_owned(), name: name.clone(), source };
        let info = NarInfo::parse(&text, &self.store_dir).map_err(fail)?;
        if info.path.hash_part() == hash_part {
            return Ok(Some(info));
        }
        Err(CacheError::OtherHashPart { address: self.address().to_owned(), name, found: info.path })
    }

    /// What the cache says an output of a derivation became. Nobody vouches for it but its signatures.
    ///
    /// # Errors
    /// When the cache cannot be read, or its answer is not of the expected form.
    pub fn realisation(&self, derivation: &StorePath, output: &str) -> Result<Option<Realisation>, CacheError> {
        let Some(name) = realisation::file_name(derivation, output) else { return Ok(None) };
        let Some(text) = read_small(&*self.files, &name, SMALL_FILE_LIMIT)? else { return Ok(None) };
        let parsed = Realisation::parse(derivation, output, &text);
        let fail = |source| CacheError::Realisation { address: self.address().to_owned(), name, source };
        parsed.map(Some).map_err(fail)
    }

    /// As [`Cache::realisation`], in the form of Nix before 2.35, which names derivations by their hashes modulo inputs; with the
    /// text that is signed.
    ///
    /// # Errors
    /// As for [`Cache::realisation`].
    pub fn older_realisation(
        &self,
        derivation: &StorePath,
        modulo: &Sha256Digest,
        output: &str,
    ) -> Result<Option<(Realisation, String)>, CacheError> {
        let Some(name) = realisation::older_file_name(modulo, output) else { return Ok(None) };
        let Some(text) = read_small(&*self.files, &name, narinfo::LENGTH_LIMIT)? else { return Ok(None) };
        let parsed = Realisation::parse_older(derivation, modulo, output, &text);
        let fail = |source| CacheError::Realisation { address: self.address().to_owned(), name, source };
        parsed.map(Some).map_err(fail)
    }

    /// The hash parts of all objects, sorted, if the cache can tell.
    ///
    /// # Errors
    /// When its files cannot be listed.
    pub fn hash_parts(&self) -> Result<Vec<String>, CacheError> {
        let mut names = self.files.list("")?;
        names.retain(|name| name.len() == crate::path::HASH_PART_LENGTH + ".narinfo".len());
        let mut parts: Vec<String> =
            names.iter().filter_map(|name| name.strip_suffix(".narinfo")).map(str::to_owned).collect();
        parts.sort();
        Ok(parts)
    }

    /// All realisations, if the cache can tell.
    ///
    /// # Errors
    /// When its files cannot be listed or one of them is not of the expected form.
    pub fn realisations(&self) -> Result<Vec<Realisation>, CacheError> {
        let mut found = Vec::new();
        for name in self.files.list(realisation::DIRECTORY)? {
            let Ok(derivation) = StorePath::parse_base_name(&name) else { continue };
            for file in self.files.list(&format!("{}/{name}", realisation::DIRECTORY))? {
                if let Some(output) = file.strip_suffix(".doi") {
                    found.extend(self.realisation(&derivation, output)?);
                }
            }
        }
        Ok(found)
    }
}

fn narinfo_name(hash_part: &str) -> String {
    format!("{hash_part}.narinfo")
}

fn read_info(files: &dyn Files) -> Result<Option<CacheInfo>, CacheError> {
    let Some(text) = read_small(files, info::NAME, SMALL_FILE_LIMIT)? else { return Ok(None) };
    let fail = |source| CacheError::Info { address: files.address().to_owned(), source };
    Ok(Some(CacheInfo::parse(&text).map_err(fail)?))
}

/// Reads at most `limit` bytes of a file.
fn read_small(files: &dyn Files, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
    let Some(reader) = files.read(name, Some(limit))? else { return Ok(None) };
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| FilesError::new(files, "read", name, error))?;
    Ok(Some(bytes))
}
