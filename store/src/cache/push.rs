//! Objects of the local store into a cache.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use rayon::prelude::*;

use super::files::{self, FilesError};
use super::listing::write_listing;
use super::{Cache, CacheError, Compression, Realisation, narinfo_name};
use crate::hash::Sha256Hasher;
use crate::local::{LocalStore, QueryError};
use crate::narinfo::NarInfo;
use crate::path::StorePath;
use crate::path_info::PathInfo;
use crate::reference_scan::Tee;
use crate::signature::SecretKey;

/// How many objects are on their way at a time, before the cache says that it has them.
const BATCH: usize = 32;
/// An archive's pieces as they are written.
const BUFFER_LENGTH: usize = 256 << 10;

/// How to write to a cache.
#[derive(Debug, Clone, Copy)]
pub struct PushOptions<'a> {
    /// How to compress.
    pub compression: Compression,
    /// Who vouches for what is written.
    pub key: Option<&'a SecretKey>,
}

/// Why objects did not get into a cache. Those that it says it has are whole, with everything they refer to.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// An object is not in the store.
    #[error("`{path}` is not in the store")]
    NotValid {
        /// The object.
        path: StorePath,
    },
    /// An object's bytes are not those that were registered.
    #[error("`{path}` has changed since it was registered; it is not passed on")]
    Changed {
        /// The object.
        path: StorePath,
    },
    /// An object cannot be read or compressed.
    #[error("cannot write the archive of `{path}`")]
    Archive {
        /// The object.
        path: StorePath,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl From<FilesError> for PushError {
    fn from(error: FilesError) -> Self {
        CacheError::from(error).into()
    }
}

impl Cache {
    /// Writes those of the objects that the cache does not have, and returns them. What they refer to must be among them or
    /// in the cache.
    ///
    /// # Errors
    /// When an object is not valid or not what it was, or a file cannot be written.
    pub fn push(
        &self,
        store: &LocalStore,
        paths: &BTreeSet<StorePath>,
        options: PushOptions<'_>,
    ) -> Result<Vec<StorePath>, PushError> {
        let paths: Vec<&StorePath> = paths.iter().collect();
        let missing = paths.par_iter().map(|path| Ok((*path, !self.files.contains(&narinfo_name(path.hash_part()))?)));
        let missing: Vec<(&StorePath, bool)> = missing.collect::<Result<_, FilesError>>()?;
        let missing: BTreeSet<StorePath> =
            missing.into_iter().filter(|(_, missing)| *missing).map(|(path, _)| path.clone()).collect();
        let ordered = store.references_first(&missing)?;
        if ordered.len() < missing.len() {
            let known: BTreeSet<&StorePath> = ordered.iter().map(|info| &info.path).collect();
            let path = missing.iter().find(|path| !known.contains(path)).expect("one is not among the known");
            return Err(PushError::NotValid { path: path.clone() });
        }
        for batch in ordered.chunks(BATCH) {
            let infos = batch.par_iter().map(|info| self.push_archive(store, info, options));
            // What a narinfo speaks of is there before it, and so is what that refers to.
            for info in infos.collect::<Result<Vec<_>, PushError>>()? {
                let text = info.write(&self.store_dir);
                files::write(&*self.files, &narinfo_name(info.path.hash_part()), text.as_bytes())?;
                self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(info.path.hash_part());
            }
        }
        Ok(ordered.into_iter().map(|info| info.path).collect())
    }

    /// Writes which object an output became.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push_realisation(&self, realisation: &Realisation) -> Result<(), CacheError> {
        if let Some(name) = realisation.file_name() {
            files::write(&*self.files, &name, realisation.write().as_bytes())?;
        }
        Ok(())
    }

    fn push_archive(
        &self,
        store: &LocalStore,
        object: &PathInfo,
        options: PushOptions<'_>,
    ) -> Result<NarInfo, PushError> {
        let fail = |source| PushError::Archive { path: object.path.clone(), source };
        let physical = store.physical_path(&object.path);
        let mut file = self.files.create()?;
        let sink = BufWriter::with_capacity(BUFFER_LENGTH, Tee(Sha256Hasher::new(), &mut file));
        let (sink, plain) = options
            .compression
            .encode(sink, |sink| {
                let mut hasher = Sha256Hasher::new();
                crate::nar::dump(&physical, Tee(&mut hasher, sink)).map_err(io::Error::other)?;
                Ok(hasher)
            })
            .map_err(fail)?;
        let Tee(hasher, _) = sink.into_inner().map_err(|error| fail(error.into_error()))?;
        if (plain.length(), plain.finish()) != (object.nar_size, object.nar_hash) {
            return Err(PushError::Changed { path: object.path.clone() });
        }
        let (file_size, file_hash) = (hasher.length(), hasher.finish());
        let url = format!("nar/{}{}", file_hash.to_nix32(), options.compression.extension());
        if !self.files.contains(&url)? {
            file.publish(&url)?;
        }
        self.push_listing(object, &physical)?;
        let mut info = NarInfo {
            path: object.path.clone(),
            url,
            compression: options.compression,
            file_hash: Some(file_hash),
            file_size: Some(file_size),
            nar_hash: object.nar_hash,
            nar_size: object.nar_size,
            references: object.references.clone(),
            deriver: object.deriver.clone(),
            signatures: store.signatures(&object.path)?,
            content_address: object.content_address.clone(),
        };
        if let Some(key) = options.key {
            info.signatures.insert(key.sign(info.fingerprint(&self.store_dir).as_bytes()));
        }
        Ok(info)
    }

    /// Writes the listing, unless the tree has names that it cannot hold.
    fn push_listing(&self, object: &PathInfo, physical: &std::path::Path) -> Result<(), PushError> {
        let name = format!("{}.ls", object.path.hash_part());
        let mut file = BufWriter::with_capacity(BUFFER_LENGTH, self.files.create()?);
        if write_listing(physical, &mut file).and_then(|()| file.flush()).is_err() {
            return Ok(());
        }
        match file.into_inner() {
            Ok(file) => Ok(file.publish(&name)?),
            Err(_) => Ok(()),
        }
    }
}
