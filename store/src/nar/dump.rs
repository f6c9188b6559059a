//! Archives from the file system.

use std::ffi::{CStr, OsStr};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::directories::{DIRECTORY, DirectoryStack};
use super::encode::{EncodeError, Encoder};
use super::listing::{LISTING_LENGTH, Listed, Listing};
use crate::hash::{Sha256Digest, Sha256Hasher};

/// A file is opened without waiting, since a fifo may have taken its place, and never through a symbolic link.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why a file system object has no archive.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The path, as seen from the argument.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is neither a regular file nor a directory nor a symbolic link.
    #[error("`{}` is a {kind}, which an archive cannot hold", path.display())]
    FileType {
        /// The path, as seen from the argument.
        path: PathBuf,
        /// `fifo`, `socket`, `character device` or `block device`.
        kind: &'static str,
    },
    /// It changed while it was read.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The path, as seen from the argument.
        path: PathBuf,
    },
    /// The sink failed.
    #[error("cannot write the archive of `{}`", path.display())]
    Write {
        /// The path, as seen from the argument.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The SHA-256 and the length of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NarHash {
    /// The digest.
    pub sha256: Sha256Digest,
    /// The archive's length in bytes.
    pub size: u64,
}

/// Hashes the archive of what is at `path`; a symbolic link is not followed.
///
/// # Errors
/// When the object cannot be read or archived.
pub fn nar_hash(path: &Path) -> Result<NarHash, DumpError> {
    nar_hash_at(CWD, path.as_os_str())
}

/// Like [`nar_hash`], relative to an open directory.
///
/// # Errors
/// As [`nar_hash`].
pub fn nar_hash_at(directory: BorrowedFd<'_>, path: &OsStr) -> Result<NarHash, DumpError> {
    let mut hasher = Sha256Hasher::new();
    let size = dump_at(directory, path, &mut hasher)?;
    Ok(NarHash { sha256: hasher.finish(), size })
}

/// Writes the archive of what is at `path` and returns its length; a symbolic link is not followed.
///
/// # Errors
/// When the object cannot be read or archived, or the sink fails.
pub fn dump(path: &Path, sink: impl Write) -> Result<u64, DumpError> {
    dump_at(CWD, path.as_os_str(), sink)
}

/// Like [`dump`], relative to an open directory.
///
/// # Errors
/// As [`dump`].
pub fn dump_at(directory: BorrowedFd<'_>, path: &OsStr, sink: impl Write) -> Result<u64, DumpError> {
    let mut walk = Walk {
        encoder: Encoder::new(sink),
        directories: DirectoryStack::default(),
        listings: Vec::new(),
        listing_buffer: vec![MaybeUninit::uninit(); LISTING_LENGTH],
    };
    walk.root(directory, path).map_err(|fault| walk.explain(path, fault))?;
    let Walk { encoder, .. } = walk;
    let (_, length) = encoder.finish().map_err(|error| Fault::from(error).at(PathBuf::from(path)))?;
    Ok(length)
}

/// An error that does not yet know its path.
enum Fault {
    Read(io::Error),
    FileType(&'static str),
    Changed,
    Write(io::Error),
}

impl Fault {
    fn at(self, path: PathBuf) -> DumpError {
        match self {
            Self::Read(source) => DumpError::Read { path, source },
            Self::FileType(kind) => DumpError::FileType { path, kind },
            Self::Changed => DumpError::Changed { path },
            Self::Write(source) => DumpError::Write { path, source },
        }
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Read(error.into())
    }
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Write(source) => Self::Write(source),
            // The walk calls the encoder in the right order, and sorts. What is left is a directory that listed one
            // name twice, or a file whose size is not what it was a moment ago.
            _ => Self::Changed,
        }
    }
}

struct Walk<W> {
    encoder: Encoder<W>,
    directories: DirectoryStack,
    /// One for each open directory, with the entries still to come.
    listings: Vec<Listing>,
    listing_buffer: Vec<MaybeUninit<u8>>,
}

impl<W: Write> Walk<W> {
    fn root(&mut self, directory: BorrowedFd<'_>, path: &OsStr) -> Result<(), Fault> {
        let status = rustix::fs::statat(directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let opened = rustix::fs::openat(directory, path, DIRECTORY, Mode::empty())?;
                self.enter(opened)?;
                self.below_root()
            }
            FileType::RegularFile => self.file(rustix::fs::openat(directory, path, FILE, Mode::empty())?),
            FileType::Symlink => self.symlink(&rustix::fs::readlinkat(directory, path, Vec::new())?),
            other => Err(Fault::FileType(unsupported(other))),
        }
    }

    /// Walks until the root directory is left.
    fn below_root(&mut self) -> Result<(), Fault> {
        while let Some(listing) = self.listings.last_mut() {
            let directory = self.directories.current().ok_or(Fault::Changed)?;
            let Some(Listed { name, kind, .. }) = listing.next() else {
                self.encoder.end_directory()?;
                self.directories.pop().map_err(Fault::Read)?;
                self.listings.pop();
                continue;
            };
            self.encoder.entry(name.to_bytes())?;
            match kind {
                FileType::RegularFile => {
                    let file = rustix::fs::openat(directory, name, FILE, Mode::empty())?;
                    self.file(file)?;
                }
                FileType::Directory => {
                    let opened = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())?;
                    self.enter(opened)?;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                    self.symlink(&target)?;
                }
                other => return Err(Fault::FileType(unsupported(other))),
            }
        }
        Ok(())
    }

    fn enter(&mut self, directory: OwnedFd) -> Result<(), Fault> {
        self.encoder.directory()?;
        self.listings.push(Listing::read(directory.as_fd(), &mut self.listing_buffer)?);
        self.directories.push(directory).map_err(Fault::Read)
    }

    fn symlink(&mut self, target: &CStr) -> Result<(), Fault> {
        Ok(self.encoder.symlink(target.to_bytes())?)
    }

    fn file(&mut self, file: OwnedFd) -> Result<(), Fault> {
        let status = rustix::fs::fstat(&file)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind != FileType::RegularFile {
            return Err(Fault::FileType(unsupported(kind)));
        }
        let executable = status.st_mode & 0o100 != 0;
        let mut missing = u64::try_from(status.st_size).map_err(|_| Fault::Changed)?;
        self.encoder.regular(executable, missing)?;
        while missing > 0 {
            let read = self.encoder.contents_from(usize::MAX, |room| Ok(rustix::io::read(&file, room)?));
            match read.map_err(Fault::Read)?? {
                0 => return Err(Fault::Changed),
                count => missing -= count as u64,
            }
        }
        Ok(())
    }

    /// Adds the path at which the walk stands.
    fn explain(&self, root: &OsStr, fault: Fault) -> DumpError {
        let mut path = PathBuf::from(root);
        path.extend(
            self.listings.iter().filter_map(Listing::last).map(|listed| OsStr::from_bytes(listed.name.to_bytes())),
        );
        fault.at(path)
    }
}

const fn unsupported(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::RegularFile => "regular file that took another object's place",
        FileType::Directory => "directory that took another object's place",
        FileType::Symlink => "symbolic link that took another object's place",
        FileType::Unknown => "file of unknown type",
    }
}
