//! Locks between threads and processes: one `flock`ed file per locked thing, removed when it is released.
//!
//! A lock dies with its holder, so nothing is left to break after a crash but an empty file, which the next holder reuses.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::failure::FileError;
use crate::path::{HASH_PART_LENGTH, StorePath};

/// A directory of lock files.
#[derive(Debug)]
pub(super) struct LockDirectory {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// An exclusive lock, held until it is dropped.
#[derive(Debug)]
pub struct PathLock {
    directory: Arc<LockDirectory>,
    name: OsString,
    _file: OwnedFd,
}

/// Whether to wait for the present holder of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Wait,
    Try,
}

/// Takes the lock called `name`; `None` if it is held and `patience` is [`Patience::Try`].
///
/// The holder unlinks the file when it lets go, so whoever gets the lock of an unlinked file has the lock of nothing
/// and starts again.
pub(super) fn acquire(
    directory: &Arc<LockDirectory>,
    name: &str,
    patience: Patience,
) -> Result<Option<PathLock>, FileError> {
    let fail = |action, source: Errno| FileError::new(action, directory.path.join(name), source);
    loop {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|source| fail("open the lock file", source))?;
        match lock_file(&file, patience) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if patience == Patience::Try => return Ok(None),
            Err(source) => return Err(fail("lock", source)),
        }
        if rustix::fs::fstat(&file).map_err(|source| fail("look at", source))?.st_nlink > 0 {
            return Ok(Some(PathLock { directory: Arc::clone(directory), name: name.into(), _file: file }));
        }
    }
}

/// Takes the locks that guard these objects' names.
///
/// There is one lock for each last digit of a hash part, so that a batch of any size takes few; they are taken in order,
/// so that no two batches can wait for each other.
pub(super) fn acquire_objects<'a>(
    directory: &Arc<LockDirectory>,
    paths: impl Iterator<Item = &'a StorePath>,
) -> Result<Vec<PathLock>, FileError> {
    let digits: BTreeSet<&str> = paths.map(|path| &path.hash_part()[HASH_PART_LENGTH - 1..]).collect();
    let wait = |digit| Ok(acquire(directory, digit, Patience::Wait)?.expect("waiting ends with the lock"));
    digits.into_iter().map(wait).collect()
}

/// `flock`s a file exclusively, going on after signals.
pub(super) fn lock_file(file: impl AsFd, patience: Patience) -> rustix::io::Result<()> {
    let operation = match patience {
        Patience::Wait => FlockOperation::LockExclusive,
        Patience::Try => FlockOperation::NonBlockingLockExclusive,
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Unlinked while still locked: see `acquire`. A file that stays behind is harmless.
        let _ = rustix::fs::unlinkat(&self.directory.fd, &self.name, rustix::fs::AtFlags::empty());
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock `{path}`")]
pub struct LockError {
    /// The store path whose lock was asked for, as its base name.
    pub path: String,
    /// What went wrong.
    #[source]
    pub source: FileError,
}

impl From<LockError> for io::Error {
    fn from(error: LockError) -> Self {
        let kind = error.source.source.kind();
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn directory(home: &std::path::Path) -> Arc<LockDirectory> {
        let fd = rustix::fs::open(home, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Arc::new(LockDirectory { fd, path: home.to_owned() })
    }

    #[test]
    fn a_held_lock_is_refused_to_others_and_free_after_drop() {
        let home = tempfile::tempdir().unwrap();
        let locks = directory(home.path());
        let held = acquire(&locks, "a", Patience::Try).unwrap().unwrap();
        assert!(acquire(&locks, "a", Patience::Try).unwrap().is_none());
        assert!(acquire(&locks, "b", Patience::Try).unwrap().is_some());
        drop(held);
        assert!(acquire(&locks, "a", Patience::Try).unwrap().is_some());
        assert_eq!(home.path().read_dir().unwrap().count(), 0, "released locks leave no files");
    }

    #[test]
    fn threads_exclude_each_other_while_files_come_and_go() {
        let home = tempfile::tempdir().unwrap();
        let locks = directory(home.path());
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _held = acquire(&locks, "x", Patience::Wait).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    }
                });
            }
        });
    }

    #[test]
    fn a_stale_lock_file_is_reused() {
        let home = tempfile::tempdir().unwrap();
        rustix::fs::symlink("nowhere", home.path().join("link")).unwrap();
        let locks = directory(home.path());
        drop(rustix::fs::openat(&locks.fd, "stale", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap());
        assert!(acquire(&locks, "stale", Patience::Try).unwrap().is_some());
        acquire(&locks, "link", Patience::Try).unwrap_err();
    }
}
