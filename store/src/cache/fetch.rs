//! One object out of a cache, checked in every way that there is, beside the store.

use std::io::{self, BufRead, BufReader, Read};

use super::substitute::Trust;
use super::{Cache, CacheError};
use crate::hash::Sha256Hasher;
use crate::local::{LocalStore, Registration, Staged};
use crate::narinfo::NarInfo;
use crate::path::StorePath;
use crate::signature::Signature;

const BUFFER_LENGTH: usize = 256 << 10;
/// How much longer than its plain form an archive may be whose size is not announced.
const COMPRESSION_OVERHEAD: u64 = 1 << 20;

/// An object that is ready to be registered.
#[derive(Debug)]
pub struct Fetched {
    /// The object.
    pub registration: Registration,
    /// Those of its signatures that are by trusted keys.
    pub signatures: Vec<Signature>,
}

impl Cache {
    /// Whether what the cache says of an object may be believed, if the content agrees.
    ///
    /// # Errors
    /// When a content address is claimed from which the path does not follow, or nobody trusted vouches for it.
    pub fn admit(&self, info: &NarInfo, trust: &Trust) -> Result<(), CacheError> {
        let address = || self.address().to_owned();
        match info.address_fits(&self.store_dir) {
            Some(true) => Ok(()),
            Some(false) => Err(CacheError::Address { address: address(), path: info.path.clone() }),
            None if trust.accepts(info.fingerprint(&self.store_dir).as_bytes(), &info.signatures) => Ok(()),
            None => Err(CacheError::Unsigned { address: address(), path: info.path.clone() }),
        }
    }

    /// Brings an object beside the store, and checks it.
    ///
    /// # Errors
    /// When it may not be believed, cannot be read, or is not what the cache says.
    pub fn fetch(&self, store: &LocalStore, info: &NarInfo, trust: &Trust) -> Result<Fetched, CacheError> {
        self.admit(info, trust)?;
        let staged = self.restore(store, info)?;
        if let Some(address) = &info.content_address
            && !store.content_fits(&staged, &info.path, address, &info.split_references())?
        {
            return Err(CacheError::Content { address: self.address().to_owned(), path: info.path.clone() });
        }
        let fingerprint = info.fingerprint(&self.store_dir);
        let signatures =
            info.signatures.iter().filter(|one| trust.knows(fingerprint.as_bytes(), one)).cloned().collect();
        let registration = Registration {
            staged,
            path: info.path.clone(),
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            content_address: info.content_address.clone(),
        };
        Ok(Fetched { registration, signatures })
    }

    /// Decompresses, restores and hashes in one pass; compares sizes and hashes with those announced.
    pub(super) fn restore(&self, store: &LocalStore, info: &NarInfo) -> Result<Staged, CacheError> {
        let address = || self.address().to_owned();
        let path = || info.path.clone();
        let limit = info.file_size.unwrap_or_else(|| info.nar_size.saturating_add(COMPRESSION_OVERHEAD));
        let Some(file) = self.files.read(&info.url, Some(limit))? else {
            return Err(CacheError::NoArchive { address: address(), path: path(), url: info.url.clone() });
        };
        let broken = |source| CacheError::Read { address: address(), path: path(), source };
        let counted = Counted { source: file, hasher: Sha256Hasher::new(), limit };
        let mut compressed = BufReader::with_capacity(BUFFER_LENGTH, counted);
        let staged = {
            let plain = info.compression.decode(&mut compressed).map_err(broken)?;
            let mut plain = BufReader::with_capacity(BUFFER_LENGTH, plain);
            let staged = store.stage_archive(&mut plain, info.nar_size);
            let staged = staged.map_err(|source| CacheError::Archive { address: address(), path: path(), source })?;
            if !plain.fill_buf().map_err(broken)?.is_empty() {
                return Err(broken(io::Error::new(io::ErrorKind::InvalidData, "bytes after the archive")));
            }
            staged
        };
        // What a decompressor does not need to see belongs to the file all the same.
        io::copy(&mut compressed, &mut io::sink()).map_err(broken)?;
        let file = compressed.into_inner().hasher;
        self.compare(&info.path, "the archive", info.file_size, file.length(), info.file_hash, || file.finish())?;
        let nar = || staged.nar_hash();
        self.compare(&info.path, "the NAR", Some(info.nar_size), staged.nar_size(), Some(info.nar_hash), nar)?;
        Ok(staged)
    }

    pub(super) fn compare(
        &self,
        path: &StorePath,
        what: &'static str,
        expected_size: Option<u64>,
        actual_size: u64,
        expected_hash: Option<crate::hash::Sha256Digest>,
        actual_hash: impl FnOnce() -> crate::hash::Sha256Digest,
    ) -> Result<(), CacheError> {
        let (address, path) = (self.address().to_owned(), path.clone());
        if let Some(expected) = expected_size.filter(|size| *size != actual_size) {
            return Err(CacheError::Size { address, path, what, expected, actual: actual_size });
        }
        let Some(expected) = expected_hash else { return Ok(()) };
        let actual = actual_hash();
        if actual == expected { Ok(()) } else { Err(CacheError::Hash { address, path, what, expected, actual }) }
    }
}

/// Hashes what is read, and fails when it is more than it may be.
struct Counted {
    source: Box<dyn Read + Send>,
    hasher: Sha256Hasher,
    limit: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if self.hasher.length() > self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {} bytes", self.limit)));
        }
        Ok(count)
    }
}
