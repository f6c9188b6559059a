//! Temporary roots: what a process uses is not collected while it lives.
//!
//! A process writes the names of what it is about to rely on into a file in its staging directory, and only then asks
//! whether they are valid. It writes under the shared lock `locks/gc`. A collector holds that lock exclusively from
//! reading these files to deleting rows, so a name is either seen by the collector, or already gone when its writer looks.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::LocalStore;
use super::copy::write_all;
use super::descent::{entries, open_directory};
use super::failure::FileError;
use super::layout::{Layout, SESSION_LOCK, Session};
use super::query::QueryError;
use crate::path::StorePath;

/// The file of a staging directory that names what its process relies on, one base name a line.
const ROOTS: &str = "roots";
/// The lock between who writes roots and who deletes.
const ROOTS_LOCK: &str = "gc";
/// The lock that one collector has at a time.
const COLLECTOR_LOCK: &str = "collector";

/// What this process has protected.
#[derive(Debug)]
pub(super) struct Protection {
    _session: Arc<Session>,
    file: OwnedFd,
    lock: OwnedFd,
    protected: BTreeSet<StorePath>,
}

impl LocalStore {
    /// From now until this store is dropped, keeps these objects and derivations, and whatever they refer to, from being
    /// collected: those that are valid now, and those that become so.
    ///
    /// To rely on an object, protect it first and ask whether it is valid then. What [`LocalStore::register`] and
    /// [`LocalStore::add_derivations`] add is protected without further ado.
    ///
    /// # Errors
    /// When the file that tells collectors so cannot be written.
    pub fn protect<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Result<(), FileError> {
        let mut protection = self.protection.lock().unwrap_or_else(PoisonError::into_inner);
        let known = protection.as_ref().map(|protection| &protection.protected);
        let new: BTreeSet<&StorePath> =
            paths.into_iter().filter(|path| known.is_none_or(|known| !known.contains(path))).collect();
        if new.is_empty() {
            return Ok(());
        }
        let protection = match &mut *protection {
            Some(protection) => protection,
            none => none.insert(self.start_protection()?),
        };
        let mut text = String::with_capacity(new.len() * 64);
        for path in &new {
            text.push_str(path.base_name());
            text.push('\n');
        }
        let fail = |source: Errno| FileError::new("protect", self.layout.home.join("tmp"), source);
        flock(&protection.lock, FlockOperation::LockShared).map_err(fail)?;
        let written = write_all(&protection.file, text.as_bytes());
        flock(&protection.lock, FlockOperation::Unlock).map_err(fail)?;
        if let Err(source) = written {
            // A name that was cut off must not swallow the one that is written next.
            let _ = write_all(&protection.file, b"\n");
            return Err(fail(source));
        }
        protection.protected.extend(new.into_iter().cloned());
        Ok(())
    }

    /// Whether the object is valid; if so, it is kept from being collected until this store is dropped.
    ///
    /// # Errors
    /// When the store cannot be read, or the object not protected.
    pub fn keep_valid(&self, path: &StorePath) -> Result<bool, QueryError> {
        Ok(!self.keep_valid_paths(std::slice::from_ref(path))?.is_empty())
    }

    /// Those of the paths that are valid; they are kept from being collected until this store is dropped.
    ///
    /// # Errors
    /// When the store cannot be read, or the objects not protected.
    pub fn keep_valid_paths(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, QueryError> {
        self.protect(paths)?;
        self.valid_paths(paths)
    }

    /// As [`LocalStore::realisation`], and keeps the answer from being collected until this store is dropped.
    ///
    /// # Errors
    /// When the store cannot be read, or the object not protected.
    pub fn keep_realisation(&self, derivation: &StorePath, output: &str) -> Result<Option<StorePath>, QueryError> {
        while let Some(path) = self.realisation(derivation, output)? {
            if self.keep_valid(&path)? {
                return Ok(Some(path));
            }
            // It was collected between the two questions, so that the answer is another one now.
        }
        Ok(None)
    }

    /// As [`LocalStore::keep_realisation`], for many outputs at once; the answers are in the order of the questions.
    ///
    /// # Errors
    /// When the store cannot be read, or the objects not protected.
    pub fn keep_realisations(&self, outputs: &[(StorePath, String)]) -> Result<Vec<Option<StorePath>>, QueryError> {
        let mut answers = self.realisations(outputs)?;
        let found: Vec<StorePath> = answers.iter().flatten().cloned().collect();
        let valid = self.keep_valid_paths(&found)?;
        for ((derivation, output), answer) in outputs.iter().zip(&mut answers) {
            if answer.as_ref().is_some_and(|path| !valid.contains(path)) {
                *answer = self.keep_realisation(derivation, output)?;
            }
        }
        Ok(answers)
    }

    fn start_protection(&self) -> Result<Protection, FileError> {
        let session = self.session()?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Several stores may be open in one process; each has a staging directory, and thus a file, of its own.
        let file = rustix::fs::openat(session.fd(), ROOTS, flags, Mode::from_raw_mode(0o600))
            .map_err(|source| FileError::new("open", session.path().join(ROOTS), source))?;
        let lock = self.layout.open_lock(ROOTS_LOCK)?;
        Ok(Protection { _session: session, file, lock, protected: BTreeSet::new() })
    }
}

impl Layout {
    /// Keeps everybody from protecting anything until the result is dropped.
    pub(super) fn hold_roots(&self) -> Result<OwnedFd, FileError> {
        self.locked(ROOTS_LOCK, FlockOperation::LockExclusive)
    }

    /// For who changes roots: shared, so that no collector is between reading them and deleting.
    pub(super) fn share_roots(&self) -> Result<OwnedFd, FileError> {
        self.locked(ROOTS_LOCK, FlockOperation::LockShared)
    }

    /// Waits until no other process collects, and keeps others from doing so until the result is dropped.
    pub(super) fn become_collector(&self) -> Result<OwnedFd, FileError> {
        self.locked(COLLECTOR_LOCK, FlockOperation::LockExclusive)
    }

    fn locked(&self, name: &str, operation: FlockOperation) -> Result<OwnedFd, FileError> {
        let file = self.open_lock(name)?;
        flock(&file, operation).map_err(|source| FileError::new("lock", self.home.join("locks").join(name), source))?;
        Ok(file)
    }

    /// Opens one of the two locks above. Unlike those of paths, their files stay.
    fn open_lock(&self, name: &str) -> Result<OwnedFd, FileError> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.locks.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|source| FileError::new("open", self.home.join("locks").join(name), source))
    }

    /// What living processes have protected. To be asked while [`Layout::hold_roots`] is held.
    pub(super) fn temporary_roots(&self) -> Result<BTreeSet<StorePath>, FileError> {
        let fail = |source: Errno| FileError::new("read", self.home.join("tmp"), source);
        let mut roots = BTreeSet::new();
        for entry in entries(self.temporary.as_fd()).map_err(fail)? {
            if let Some(text) = self.roots_of_session(entry.name()).map_err(fail)? {
                // The last line may be cut off, by a full disk or a process that was killed: then nobody relies on it.
                let names = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
                roots.extend(names.filter_map(|name| StorePath::parse_base_name(name).ok()));
            }
        }
        Ok(roots)
    }

    /// The roots in a staging directory, if its process lives and has any.
    fn roots_of_session(&self, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
        // What is gone, or no staging directory, says nothing.
        let absent =
            |error| if matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) { Ok(None) } else { Err(error) };
        let open = |directory: &OwnedFd, name| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::empty())
        };
        let directory = match open_directory(self.temporary.as_fd(), name) {
            Ok(directory) => directory,
            Err(error) => return absent(error),
        };
        let file = match open(&directory, ROOTS) {
            Ok(file) => file,
            Err(error) => return absent(error),
        };
        match open(&directory, SESSION_LOCK) {
            // Whoever can lock it knows that its process is dead.
            Ok(lock) if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() => return Ok(None),
            Ok(_) => {}
            Err(error) => return absent(error),
        }
        let mut text = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut chunk[..]))? {
                0 => return Ok(Some(text)),
                length => text.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

fn flock(file: impl AsFd, operation: FlockOperation) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, file, path, register};

    #[test]
    fn what_is_protected_is_seen_until_the_store_is_dropped() {
        let home = Home::new();
        let (here, there) = (home.open(), home.open());
        let (a, b, c) = (path(1, "a"), path(2, "b"), path(3, "c"));
        here.protect([&a]).unwrap();
        here.protect([&a, &b]).unwrap();
        there.protect([&c]).unwrap();
        assert_eq!(there.layout.temporary_roots().unwrap(), [a.clone(), b, c.clone()].into());
        drop(here);
        assert_eq!(there.layout.temporary_roots().unwrap(), [c].into());
        assert!(!there.keep_valid(&a).unwrap());
    }

    #[test]
    fn what_is_added_is_protected() {
        let home = Home::new();
        let store = home.open();
        register(&store, file(&store, &path(1, "a"), "a", &[]));
        assert_eq!(store.layout.temporary_roots().unwrap(), [path(1, "a")].into());
    }
}
