//! Files on their way in: partial files that survive interruptions, and verified files by hash.
//!
//! In the downloads directory `<hex>` is a complete file whose sha256 is its name, `<hex>.part` is one that is being
//! fetched, locked by whoever fetches it, and `<hex>.from` says which address and version the part is of.

#![expect(clippy::disallowed_methods, reason = "downloads are files")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ampoule_store::hash::{Sha256Digest, Sha256Hasher};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use url::Url;

use super::http::{Client, HttpError, Resume, Stream, display};

/// Longest file of unknown size, in bytes.
const MAX_UNKNOWN: u64 = 16 << 30;

/// The directory that files arrive in.
#[derive(Clone, Debug)]
pub struct Downloads {
    directory: PathBuf,
}

/// A file that is wanted, known by its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its hash.
    pub(crate) sha256: Sha256Digest,
    /// Its length in bytes, where known.
    pub(crate) size: Option<u64>,
}

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not deliver.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What arrived is something else.
    #[error("{origin} holds other bytes: expected sha256 {}, got {}", expected.to_hex(), got.to_hex())]
    Hash {
        /// Where the bytes came from.
        origin: String,
        /// What the lock says.
        expected: Sha256Digest,
        /// What arrived.
        got: Sha256Digest,
    },
    /// What arrived, or what the server announces, has another length.
    #[error("{origin} has another length: expected {expected} bytes, got {got}")]
    Size {
        /// Where the bytes come from.
        origin: String,
        /// What the lock says.
        expected: u64,
        /// What arrived or was announced.
        got: u64,
    },
    /// The downloads directory cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl DownloadError {
    /// Whether the bytes are not those wanted, as opposed to none having arrived.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Hash { .. } | Self::Size { .. })
    }

    /// Whether the server says that it does not have the file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_absent())
    }
}

/// Is told how many bytes have come, and how many there will be.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, Option<u64>);

/// Which version of which address a partial file is of.
#[derive(Default, Deserialize, Serialize)]
struct Origin {
    url: String,
    validator: Option<String>,
}

impl Downloads {
    /// Uses this directory, which is made if it is absent.
    pub fn open(directory: &Path) -> Result<Self, DownloadError> {
        std::fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Where the complete file of this hash lies, if it is here.
    pub fn complete_path(&self, sha256: &Sha256Digest) -> PathBuf {
        self.directory.join(sha256.to_hex())
    }

    /// The complete file of this hash, if it is here and still has that hash. A damaged one is removed.
    pub(crate) fn find(&self, wanted: &Wanted) -> Result<Option<PathBuf>, DownloadError> {
        let path = self.complete_path(&wanted.sha256);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, source)),
        };
        let mut hasher = Sha256Hasher::new();
        io::copy(&mut file, &mut hasher).map_err(|source| io_error(&path, source))?;
        if hasher.finish() == wanted.sha256 {
            return Ok(Some(path));
        }
        std::fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
        Ok(None)
    }

    /// Fetches a file of known hash, going on with an earlier attempt's partial file where the server allows.
    pub(crate) fn fetch(
        &self,
        client: &Client,
        url: &Url,
        wanted: &Wanted,
        progress: Progress<'_>,
    ) -> Result<PathBuf, DownloadError> {
        let complete = self.complete_path(&wanted.sha256);
        let mut part = Part::open(&self.directory, &wanted.sha256)?;
        // Another process may have fetched it while this one waited for the lock.
        if let Some(path) = self.find(wanted)? {
            part.remove()?;
            return Ok(path);
        }
        match part.fill(client, url, wanted, progress) {
            Ok(()) => part.complete(&complete).map(|()| complete),
            Err(error) => {
                if error.is_mismatch() {
                    part.remove()?;
                }
                Err(error)
            }
        }
    }

    /// Fetches a file whose hash nobody knows yet, and keeps it under the hash it turns out to have.
    pub(crate) fn fetch_unknown(
        &self,
        client: &Client,
        url: &Url,
        progress: Progress<'_>,
    ) -> Result<(Sha256Digest, u64), DownloadError> {
        let (file, digest, size) = client.retrying_with(|| self.fetch_unknown_once(client, url, progress))?;
        self.keep(file, &digest)?;
        Ok((digest, size))
    }

    fn fetch_unknown_once(
        &self,
        client: &Client,
        url: &Url,
        progress: Progress<'_>,
    ) -> Result<(tempfile::NamedTempFile, Sha256Digest, u64), DownloadError> {
        let mut file =
            tempfile::NamedTempFile::new_in(&self.directory).map_err(|source| io_error(&self.directory, source))?;
        let mut stream = client.open(url, None, None)?;
        let mut hasher = Sha256Hasher::new();
        let path = file.path().to_owned();
        let limit = Limit { most: MAX_UNKNOWN, exact: None };
        let size = drain(&mut stream, &mut (&mut hasher, file.as_file_mut(), &path), 0, limit, progress)?;
        Ok((file, hasher.finish(), size))
    }

    /// Copies a file from elsewhere on this machine, if it has the wanted bytes.
    pub(crate) fn copy(&self, source: &Path, wanted: &Wanted) -> Result<PathBuf, DownloadError> {
        let (file, digest, _) = self.copy_unchecked(source)?;
        if digest != wanted.sha256 {
            let (origin, expected) = (source.display().to_string(), wanted.sha256);
            return Err(DownloadError::Hash { origin, expected, got: digest });
        }
        self.keep(file, &digest)?;
        Ok(self.complete_path(&digest))
    }

    /// Copies a file from elsewhere on this machine and keeps it under the hash it has.
    pub(crate) fn copy_unknown(&self, source: &Path) -> Result<(Sha256Digest, u64), DownloadError> {
        let (file, digest, size) = self.copy_unchecked(source)?;
        self.keep(file, &digest)?;
        Ok((digest, size))
    }

    fn copy_unchecked(&self, path: &Path) -> Result<(tempfile::NamedTempFile, Sha256Digest, u64), DownloadError> {
        let mut file =
            tempfile::NamedTempFile::new_in(&self.directory).map_err(|source| io_error(&self.directory, source))?;
        let mut source = File::open(path).map_err(|source| io_error(path, source))?;
        let mut hasher = Sha256Hasher::new();
        let mut buffer = vec![0; 1 << 16];
        let mut size = 0;
        loop {
            let count = source.read(&mut buffer).map_err(|source| io_error(path, source))?;
            if count == 0 {
                return Ok((file, hasher.finish(), size));
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(|source| io_error(&self.directory, source))?;
            size += count as u64;
        }
    }

    fn keep(&self, file: tempfile::NamedTempFile, digest: &Sha256Digest) -> Result<(), DownloadError> {
        let path = self.complete_path(digest);
        file.persist(&path).map(drop).map_err(|error| io_error(&path, error.error))
    }
}

impl Client {
    /// Like [`Client::retrying`] for downloads.
    fn retrying_with<T>(&self, mut attempt: impl FnMut() -> Result<T, DownloadError>) -> Result<T, DownloadError> {
        let mut other = None;
        let outcome = self.retrying(|| match attempt() {
            Ok(value) => Ok(Some(value)),
            Err(DownloadError::Http(error)) => Err(error),
            Err(error) => {
                other = Some(error);
                Ok(None)
            }
        })?;
        match (outcome, other) {
            (Some(value), _) => Ok(value),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("without a value there is an error"),
        }
    }
}

/// A partial file, locked against other processes.
struct Part {
    file: File,
    path: PathBuf,
    origin_path: PathBuf,
}

impl Part {
    /// Opens and locks the partial file, waiting for whoever has it.
    fn open(directory: &Path, sha256: &Sha256Digest) -> Result<Self, DownloadError> {
        let path = directory.join(format!("{}.part", sha256.to_hex()));
        let origin_path = directory.join(format!("{}.from", sha256.to_hex()));
        loop {
            let error = |source| io_error(&path, source);
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(error)?;
            flock(&file, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
            // Whoever had the lock may have renamed or removed the file meanwhile: then the name is another's.
            let locked = file.metadata().map_err(error)?;
            let named = std::fs::metadata(&path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
                return Ok(Self { file, path, origin_path });
            }
        }
    }

    /// Fetches until the file is complete and verified.
    fn fill(
        &mut self,
        client: &Client,
        url: &Url,
        wanted: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), DownloadError> {
        client.retrying_with(|| match self.attempt(client, url, wanted, progress) {
            // The part was of other bytes, whatever the server said: they get one more chance from the start.
            Err((error, true)) if error.is_mismatch() => {
                self.restart()?;
                self.attempt(client, url, wanted, progress).map_err(|(error, _)| error)
            }
            outcome => outcome.map_err(|(error, _)| error),
        })
    }

    /// One request. The flag of a failure says whether it built on bytes of an earlier one.
    fn attempt(
        &mut self,
        client: &Client,
        url: &Url,
        wanted: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), (DownloadError, bool)> {
        let fresh = |error: DownloadError| (error, false);
        let resume = self.resumable(url, wanted).map_err(fresh)?;
        let mut stream = client.open(url, resume.as_ref(), wanted.size).map_err(|error| fresh(error.into()))?;
        let resumed = stream.offset > 0;
        if resume.as_ref().map_or(0, |resume| resume.from) != stream.offset && resumed {
            // The server sends a part that was not asked for: nothing of it can be used.
            self.restart().map_err(fresh)?;
            let source = io::Error::new(io::ErrorKind::InvalidData, "the server resumed at another place");
            return Err(fresh(HttpError::Broken { url: display(&stream.url), source }.into()));
        }
        if let (Some(expected), Some(got)) = (wanted.size, stream.total)
            && expected != got
        {
            return Err((DownloadError::Size { origin: display(&stream.url), expected, got }, resumed));
        }
        self.receive(url, &mut stream, wanted, progress).map_err(|error| (error, resumed))
    }

    fn receive(
        &mut self,
        url: &Url,
        stream: &mut Stream,
        wanted: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), DownloadError> {
        let mut hasher = self.hash_prefix(stream.offset)?;
        self.record_origin(&Origin { url: display(url), validator: stream.validator.clone() })?;
        let limit = Limit { most: wanted.size.unwrap_or(MAX_UNKNOWN), exact: wanted.size };
        let offset = stream.offset;
        drain(stream, &mut (&mut hasher, &mut self.file, &self.path), offset, limit, progress)?;
        let got = hasher.finish();
        if got != wanted.sha256 {
            return Err(DownloadError::Hash { origin: display(&stream.url), expected: wanted.sha256, got });
        }
        Ok(())
    }

    /// What can be asked for instead of the whole, if the part is of the same address.
    fn resumable(&mut self, url: &Url, wanted: &Wanted) -> Result<Option<Resume>, DownloadError> {
        let from = self.file.metadata().map_err(|source| io_error(&self.path, source))?.len();
        let origin: Origin = std::fs::read(&self.origin_path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let usable = from > 0 && wanted.size.is_none_or(|size| from < size) && origin.url == display(url);
        match origin.validator {
            Some(validator) if usable => Ok(Some(Resume { from, validator: Some(validator) })),
            _ => Ok(None),
        }
    }

    /// Cuts the file to its first `length` bytes, hashes them, and stands behind them.
    fn hash_prefix(&mut self, length: u64) -> Result<Sha256Hasher, DownloadError> {
        let mut hasher = Sha256Hasher::new();
        let mut prepare = || {
            self.file.set_len(length)?;
            self.file.seek(SeekFrom::Start(0))?;
            io::copy(&mut (&self.file).take(length), &mut hasher)?;
            self.file.seek(SeekFrom::Start(length))
        };
        prepare().map_err(|source| io_error(&self.path, source))?;
        Ok(hasher)
    }

    fn record_origin(&self, origin: &Origin) -> Result<(), DownloadError> {
        let bytes = serde_json::to_vec(origin).expect("strings always encode");
        std::fs::write(&self.origin_path, bytes).map_err(|source| io_error(&self.origin_path, source))
    }

    /// Forgets what has come so far.
    fn restart(&mut self) -> Result<(), DownloadError> {
        let _ = std::fs::remove_file(&self.origin_path);
        self.file.set_len(0).map_err(|source| io_error(&self.path, source))
    }

    fn complete(self, path: &Path) -> Result<(), DownloadError> {
        let _ = std::fs::remove_file(&self.origin_path);
        std::fs::rename(&self.path, path).map_err(|source| io_error(path, source))
    }

    fn remove(self) -> Result<(), DownloadError> {
        let _ = std::fs::remove_file(&self.origin_path);
        std::fs::remove_file(&self.path).map_err(|source| io_error(&self.path, source))
    }
}

/// How much a body may hold.
#[derive(Clone, Copy)]
struct Limit {
    most: u64,
    exact: Option<u64>,
}

/// Moves the rest of a body into a hasher and a file; returns the whole length.
fn drain(
    stream: &mut Stream,
    sink: &mut (&mut Sha256Hasher, &mut File, &Path),
    offset: u64,
    limit: Limit,
    progress: Progress<'_>,
) -> Result<u64, DownloadError> {
    let expected = limit.exact.or(stream.total);
    let (hasher, file, path) = sink;
    let mut buffer = vec![0; 1 << 16];
    let mut length = offset;
    progress(length, expected);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        match limit.exact {
            Some(expected) if length > expected => {
                return Err(DownloadError::Size { origin: display(&stream.url), expected, got: length });
            }
            _ if length > limit.most => {
                return Err(HttpError::TooLong { url: display(&stream.url), limit: limit.most }.into());
            }
            _ => {}
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(|source| io_error(path, source))?;
        progress(length, expected);
    }
    match expected {
        Some(expected) if length < expected => {
            let message = format!("it ended after {length} of {expected} bytes");
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, message);
            Err(HttpError::Broken { url: display(&stream.url), source }.into())
        }
        _ => Ok(length),
    }
}

fn io_error(path: &Path, source: io::Error) -> DownloadError {
    DownloadError::Io { path: path.to_owned(), source }
}
