//! Objects of the local store into a cache.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::sync::PoisonError;

use rayon::prelude::*;

use super::files::{self, FilesError, NewFile};
use super::listing::write_listing;
use super::{Cache, CacheError, Compression, Realisation, narinfo_name};
use crate::hash::Sha256Hasher;
use crate::local::{LocalStore, QueryError};
use crate::narinfo::NarInfo;
use crate::path::StorePath;
use crate::path_info::PathInfo;
use crate::reference_scan::Tee;
use crate::signature::SecretKey;

/// How many objects are made before the cache says that it has them. Their files are open until then.
const BATCH: usize = 64;
/// The files of so few objects are written to disk one by one.
const FEW: usize = 4;
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

/// A new file and the name it is to get.
type Named<'a> = (Box<dyn NewFile + 'a>, String);

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
            self.push_batch(store, batch, options)?;
        }
        Ok(ordered.into_iter().map(|info| info.path).collect())
    }

    /// Writes some objects of which none is spoken of before all are there.
    fn push_batch(&self, store: &LocalStore, batch: &[PathInfo], options: PushOptions<'_>) -> Result<(), PushError> {
        // The largest first, or it would be waited for when all others are done.
        let mut by_size: Vec<(usize, &PathInfo)> = batch.iter().enumerate().collect();
        by_size.sort_by_key(|(_, info)| Reverse(info.nar_size));
        let made = by_size
            .par_iter()
            .with_max_len(1)
            .map(|(position, info)| Ok((*position, self.make_files(store, info, options)?)));
        let mut made = made.collect::<Result<Vec<_>, PushError>>()?;
        // What a narinfo speaks of is there before it, and so is what that refers to.
        made.sort_by_key(|(position, _)| *position);
        if made.len() <= FEW {
            made.iter_mut().flat_map(|(_, files)| files).try_for_each(|(file, _)| file.settle())?;
        } else {
            self.files.settle()?;
        }
        let mut named = Vec::with_capacity(made.len());
        for (_, mut files) in made {
            named.extend(files.pop());
            files.into_iter().try_for_each(|(file, name)| file.publish(&name))?;
        }
        // Or a power cut could leave a narinfo without its archive, and nobody would bring that any more.
        self.files.settle_names()?;
        named.into_iter().try_for_each(|(file, name)| file.publish(&name))?;
        self.files.settle_names()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        batch.iter().for_each(|info| drop(known.remove(info.path.hash_part())));
        Ok(())
    }

    /// Writes which object an output became.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push_realisation(&self, realisation: &Realisation) -> Result<(), CacheError> {
        if let Some(name) = realisation.file_name() {
            files::write(&*self.files, &name, realisation.write().as_bytes())?;
            self.files.settle_names()?;
        }
        Ok(())
    }

    /// Makes the files that an object is in the cache, with their names, in the order in which they are to appear there.
    fn make_files<'a>(
        &'a self,
        store: &LocalStore,
        object: &PathInfo,
        options: PushOptions<'_>,
    ) -> Result<Vec<Named<'a>>, PushError> {
        let (file, info) = self.make_archive(store, object, options)?;
        let text = info.write(&self.store_dir);
        let mut files = Vec::with_capacity(3);
        if !self.files.contains(&info.url)? {
            files.push((file, info.url));
        }
        let name = format!("{}.ls", object.path.hash_part());
        files.extend(self.make_listing(&store.physical_path(&object.path))?.map(|file| (file, name)));
        let name = narinfo_name(object.path.hash_part());
        let mut file = self.files.create()?;
        file.write_all(text.as_bytes()).map_err(|error| FilesError::new(&*self.files, "write", &name, error))?;
        if self.files.lasts_at_once() {
            files.drain(..).try_for_each(|(file, name)| file.publish(&name))?;
        }
        files.push((file, name));
        Ok(files)
    }

    fn make_archive<'a>(
        &'a self,
        store: &LocalStore,
        object: &PathInfo,
        options: PushOptions<'_>,
    ) -> Result<(Box<dyn NewFile + 'a>, NarInfo), PushError> {
        let fail = |source| PushError::Archive { path: object.path.clone(), source };
        let physical = store.physical_path(&object.path);
        let mut file = self.files.create()?;
        let sink = BufWriter::with_capacity(BUFFER_LENGTH, Tee(Sha256Hasher::new(), &mut file));
        let (sink, plain) = options
            .compression
            .encode(sink, object.nar_size, |sink| {
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
        let mut info = NarInfo {
            path: object.path.clone(),
            url: format!("nar/{}{}", file_hash.to_nix32(), options.compression.extension()),
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
        Ok((file, info))
    }

    /// Makes the listing, unless the tree has names that it cannot hold.
    fn make_listing(&self, physical: &std::path::Path) -> Result<Option<Box<dyn NewFile + '_>>, PushError> {
        let mut file = BufWriter::with_capacity(BUFFER_LENGTH, self.files.create()?);
        if write_listing(physical, &mut file).and_then(|()| file.flush()).is_err() {
            return Ok(None);
        }
        Ok(file.into_inner().ok())
    }
}
