//! Making objects beside the store: copied into a private directory, in canonical form, hashed and scanned on the way.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::LocalStore;
use super::copy::{Access, Kind, Manner, StageError, copy_tree, set_times};
use super::descent::DIRECTORY_FLAGS;
use super::failure::FileError;
use super::layout::Session;
use super::remove::remove_tree;
use super::rewrite::Rewriter;
use crate::hash::{Sha256Digest, Sha256Hasher};
use crate::path::StorePath;
use crate::reference_scan::{ReferenceScanner, Tee};

/// An object that is ready to be registered: in the store's staging directory, canonical, hashed. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    place: Place,
    kind: Kind,
    nar_hash: Sha256Digest,
    nar_size: u64,
    references: BTreeSet<StorePath>,
    self_reference: bool,
}

impl Staged {
    /// The SHA-256 of its NAR.
    #[must_use]
    pub const fn nar_hash(&self) -> Sha256Digest {
        self.nar_hash
    }

    /// The size of its NAR in bytes.
    #[must_use]
    pub const fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// What its root is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Those of the candidates whose hash part was found in it; never its own path.
    #[must_use]
    pub const fn references(&self) -> &BTreeSet<StorePath> {
        &self.references
    }

    /// Whether the hash part of its own path, if one was given, was found in it.
    #[must_use]
    pub const fn self_reference(&self) -> bool {
        self.self_reference
    }

    /// Where it lies until it is registered; for reading only.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// The directory it lies in and its name there.
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &OsStr) {
        self.place.get()
    }
}

/// A name in the staging directory, and whatever has it. Dropping it removes that.
#[derive(Debug)]
struct Place {
    session: Arc<Session>,
    name: OsString,
}

impl Place {
    fn get(&self) -> (BorrowedFd<'_>, &OsStr) {
        (self.session.fd(), &self.name)
    }

    fn path(&self) -> PathBuf {
        self.session.path().join(&self.name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After registration there is nothing left here. What cannot be removed now goes with the staging directory.
        let _ = remove_tree(self.session.fd(), &self.name);
    }
}

impl LocalStore {
    /// Copies what `entry` names in the directory `parent`, and finds which of `candidates` it refers to.
    ///
    /// `own` is the path under which the object was made, if its maker could know it. The tree must be the caller's to
    /// change: files that their owner may not read are made readable.
    ///
    /// # Errors
    /// When the tree holds a socket, pipe or device, changes meanwhile, or cannot be read or written; a full disk is a
    /// [`StageError::File`]. Nothing is left behind.
    pub fn stage_from_fd(
        &self,
        parent: BorrowedFd<'_>,
        entry: &OsStr,
        candidates: &BTreeSet<StorePath>,
        own: Option<&StorePath>,
    ) -> Result<Staged, StageError> {
        self.stage_copy((parent, entry), Access::MayBeGranted, &Rewriter::default(), candidates, own)
    }

    /// Copies the tree at `path`, which is left as it is; a link at `path` itself is copied as a link. Nothing is scanned for.
    ///
    /// # Errors
    /// As for [`LocalStore::stage_from_fd`].
    pub fn stage_from_path(&self, path: &Path) -> Result<Staged, StageError> {
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (Path::new("."), name),
            (Some(parent), Some(name)) => (parent, name),
            // `/` or a path that ends in `..`.
            _ => (path, OsStr::new(".")),
        };
        let directory = rustix::fs::open(parent, DIRECTORY_FLAGS - OFlags::NOFOLLOW, Mode::empty())
            .map_err(|source| FileError::new("open", parent, source))?;
        let nothing = BTreeSet::new();
        self.stage_copy((directory.as_fd(), name), Access::AsTheyAre, &Rewriter::default(), &nothing, None)
    }

    /// Makes a regular file of what `content` yields.
    ///
    /// # Errors
    /// When `content` cannot be read or the file not written.
    pub fn stage_file(&self, content: &mut dyn Read, executable: bool) -> Result<Staged, StageError> {
        let place = self.new_place()?;
        write_file(&place, content, executable).map_err(|source| FileError {
            action: "write",
            path: place.path(),
            source,
        })?;
        let (directory, name) = place.get();
        let nar = crate::nar::nar_hash_at(directory, name)
            .map_err(|source| FileError::new("hash", place.path(), io::Error::other(source)))?;
        Ok(Staged {
            place,
            kind: Kind::Regular { executable },
            nar_hash: nar.sha256,
            nar_size: nar.size,
            references: BTreeSet::new(),
            self_reference: false,
        })
    }

    /// As [`LocalStore::stage_file`], from bytes, not executable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn stage_bytes(&self, content: &[u8]) -> Result<Staged, StageError> {
        self.stage_file(&mut &*content, false)
    }

    /// Copies a tree with hash parts replaced.
    pub(super) fn stage_copy(
        &self,
        source: (BorrowedFd<'_>, &OsStr),
        access: Access,
        rewriter: &Rewriter,
        candidates: &BTreeSet<StorePath>,
        own: Option<&StorePath>,
    ) -> Result<Staged, StageError> {
        let place = self.new_place()?;
        let sink = Tee(Sha256Hasher::new(), ReferenceScanner::new(candidates, own));
        let manner = Manner { access, rewriter, modes_are_kept: place.session.modes_are_kept };
        let (kind, Tee(hasher, scanner)) = copy_tree(source, place.get(), sink, manner)?;
        let scan = scanner.finish();
        Ok(Staged {
            place,
            kind,
            nar_size: hasher.length(),
            nar_hash: hasher.finish(),
            references: scan.found,
            self_reference: !scan.own_offsets.is_empty(),
        })
    }

    /// An unused name in the staging directory.
    fn new_place(&self) -> Result<Place, FileError> {
        let session = self.session()?;
        Ok(Place { name: session.new_name(), session })
    }

    /// The staging directory of this process, made when it is first needed.
    pub(super) fn session(&self) -> Result<Arc<Session>, FileError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let started = Arc::new(self.layout.start_session()?);
        *session = Some(Arc::clone(&started));
        Ok(started)
    }
}

/// Writes a regular file in its final form.
fn write_file(place: &Place, content: &mut dyn Read, executable: bool) -> io::Result<()> {
    let (directory, name) = place.get();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
    io::copy(content, &mut file)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(if executable { 0o555 } else { 0o444 }))?;
    set_times(file.as_fd())?;
    Ok(())
}
