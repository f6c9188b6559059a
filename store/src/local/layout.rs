//! Where things lie under the store's home, and the private directory in which a process makes new objects.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::descent::entries;
use super::failure::FileError;
use super::lock::{LockDirectory, Patience, lock_file};
use super::remove::remove_tree;
use crate::nar::DIRECTORY;

/// The directories of a store's home.
const DIRECTORIES: [&str; 9] = ["store", "db", "log", "tmp", "locks", "locks/objects", "downloads", "roots", "seen"];
/// The file in a staging directory whose lock says that its process lives.
pub(super) const SESSION_LOCK: &str = "lock";

/// The open directories of a store's home.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) home: PathBuf,
    /// The objects, each under its base name.
    pub(super) store: OwnedFd,
    /// One directory for each living process that makes objects.
    pub(super) temporary: OwnedFd,
    /// One file for each root: see `LocalStore::add_root`.
    pub(super) roots: OwnedFd,
    /// Locks that callers take: see `LocalStore::lock`.
    pub(super) locks: Arc<LockDirectory>,
    /// Locks that this crate holds while it puts an object in place or takes it away.
    pub(super) object_locks: Arc<LockDirectory>,
}

impl Layout {
    /// Opens the directories under `home`, making those that are missing.
    pub(super) fn open(home: &Path) -> Result<Self, FileError> {
        let home = std::path::absolute(home).map_err(|source| FileError::new("find", home, source))?;
        let root = match rustix::fs::open(&home, DIRECTORY - OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => {
                create_directories(&home)?;
                rustix::fs::open(&home, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())
            }
            other => other,
        }
        .map_err(|source| FileError::new("open", &home, source))?;
        for name in DIRECTORIES {
            match rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(source) => return Err(FileError::new("create", home.join(name), source)),
            }
        }
        let open = |name: &str| {
            rustix::fs::openat(&root, name, DIRECTORY, Mode::empty())
                .map_err(|source| FileError::new("open", home.join(name), source))
        };
        let lock_directory = |name| Ok(Arc::new(LockDirectory { fd: open(name)?, path: home.join(name) }));
        Ok(Self {
            store: open("store")?,
            temporary: open("tmp")?,
            roots: open("roots")?,
            locks: lock_directory("locks")?,
            object_locks: lock_directory("locks/objects")?,
            home,
        })
    }

    /// Starts a staging directory that belongs to this process until it is dropped.
    pub(super) fn start_session(self: &Arc<Self>) -> Result<Session, FileError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let process = rustix::process::getpid().as_raw_nonzero();
        loop {
            let name = format!("{process}-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
            let fail = |source: Errno| FileError::new("create", self.home.join("tmp").join(&name), source);
            // Shared with other starters; a cleaner waits until the new directory has its lock.
            let starting = self.reopen_temporary(FlockOperation::LockShared).map_err(fail)?;
            match rustix::fs::mkdirat(&self.temporary, &name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                other => other.map_err(fail)?,
            }
            let fd = rustix::fs::openat(&self.temporary, &name, DIRECTORY, Mode::empty()).map_err(fail)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            // All bits are asked for: those missing afterwards are what this process's mask takes away.
            let lock = rustix::fs::openat(&fd, SESSION_LOCK, flags, Mode::from_raw_mode(0o777)).map_err(fail)?;
            lock_file(&lock, Patience::Wait).map_err(fail)?;
            drop(starting);
            let granted = rustix::fs::fstat(&lock).map_err(fail)?.st_mode;
            return Ok(Session {
                layout: Arc::clone(self),
                name: name.into(),
                fd,
                _lock: lock,
                modes_are_kept: granted & 0o555 == 0o555,
                counter: AtomicU64::new(0),
            });
        }
    }

    /// Removes the staging directories of processes that died, and tells how many there were.
    pub(super) fn remove_leftovers(&self) -> Result<usize, FileError> {
        let fail = |source: Errno| FileError::new("clean", self.home.join("tmp"), source);
        let names = entries(self.temporary.as_fd()).map_err(fail)?;
        if names.is_empty() {
            return Ok(0);
        }
        // While this lock is held nobody is between making a directory and locking it.
        let cleaning = match self.reopen_temporary(FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(0),
            other => other.map_err(fail)?,
        };
        let dead: Vec<_> =
            names.iter().filter_map(|entry| self.bury(entry.name()).map(|lock| (entry.name(), lock))).collect();
        drop(cleaning);
        for (name, _lock) in &dead {
            remove_tree(self.temporary.as_fd(), name)?;
        }
        Ok(dead.len())
    }

    /// Takes over a staging directory whose process is dead: `None` if it lives, else the lock, if there is one.
    fn bury(&self, name: &OsStr) -> Option<Option<OwnedFd>> {
        let Ok(directory) = rustix::fs::openat(&self.temporary, name, DIRECTORY, Mode::empty()) else {
            return Some(None);
        };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(lock) = rustix::fs::openat(&directory, SESSION_LOCK, flags, Mode::empty()) else {
            return Some(None);
        };
        match lock_file(&lock, Patience::Try) {
            Ok(()) => Some(Some(lock)),
            Err(_) => None,
        }
    }

    /// Locks the directory of staging directories, by a descriptor of its own, so that dropping it unlocks.
    fn reopen_temporary(&self, operation: FlockOperation) -> rustix::io::Result<OwnedFd> {
        let fd = rustix::fs::openat(&self.temporary, ".", DIRECTORY, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, operation))?;
        Ok(fd)
    }
}

fn create_directories(home: &Path) -> Result<(), FileError> {
    let mut missing: Vec<&Path> = Vec::new();
    for directory in home.ancestors() {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => break,
            Err(Errno::NOENT) => missing.push(directory),
            Err(source) => return Err(FileError::new("create", directory, source)),
        }
    }
    for directory in missing.into_iter().rev() {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(source) => return Err(FileError::new("create", directory, source)),
        }
    }
    Ok(())
}

/// A staging directory. Its lock lives as long as the process; who finds it unlocked may remove the directory.
#[derive(Debug)]
pub(super) struct Session {
    layout: Arc<Layout>,
    name: OsString,
    fd: OwnedFd,
    _lock: OwnedFd,
    /// Whether new files get the mode that is asked for: the process's mask takes none of the bits that objects have.
    pub(super) modes_are_kept: bool,
    counter: AtomicU64,
}

impl Session {
    /// A name that nothing in this directory has.
    pub(super) fn new_name(&self) -> OsString {
        self.counter.fetch_add(1, Ordering::Relaxed).to_string().into()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The path of the staging directory.
    pub(super) fn path(&self) -> PathBuf {
        self.layout.home.join("tmp").join(&self.name)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover for the next process that opens the store.
        let _ = remove_tree(self.layout.temporary.as_fd(), &self.name);
    }
}

/// Moves something between directories of one file system, refusing to replace anything.
pub(super) fn rename_exclusive(from: (BorrowedFd<'_>, &OsStr), to: (BorrowedFd<'_>, &OsStr)) -> rustix::io::Result<()> {
    use rustix::fs::{RenameFlags, renameat, renameat_with, statat};
    match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // The file system does not know the flag.
        Err(Errno::INVAL) => match statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(from.0, from.1, to.0, to.1),
            Err(source) => Err(source),
            Ok(_) => Err(Errno::EXIST),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;

    use super::*;

    #[test]
    fn a_home_is_made_with_its_parents_and_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let home = parent.path().join("a/b/c");
        Layout::open(&home).unwrap();
        Layout::open(&home).unwrap();
        for directory in DIRECTORIES {
            assert!(home.join(directory).is_dir());
        }
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        Layout::open(&parent.path().join("file")).unwrap_err();
        Layout::open(&parent.path().join("file/below")).unwrap_err();
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let home = tempfile::tempdir().unwrap();
        let layout = Arc::new(Layout::open(home.path()).unwrap());
        let living = layout.start_session().unwrap();
        fs::write(living.path().join("0"), "being made").unwrap();
        let dead = layout.start_session().unwrap();
        let dead_path = dead.path();
        fs::create_dir(dead_path.join("0")).unwrap();
        // What a killed process leaves: the directory and an unlocked lock file; or no lock file yet; or a stray file.
        let copy = home.path().join("tmp/copy");
        fs::create_dir_all(copy.join("tree")).unwrap();
        fs::write(copy.join(SESSION_LOCK), "").unwrap();
        fs::create_dir(home.path().join("tmp/unlocked")).unwrap();
        fs::write(home.path().join("tmp/stray"), "").unwrap();
        assert_eq!(layout.remove_leftovers().unwrap(), 3);
        assert!(dead_path.exists() && living.path().join("0").exists());
        drop(dead);
        assert!(!dead_path.exists());
        assert_eq!(layout.remove_leftovers().unwrap(), 0);
    }
}
