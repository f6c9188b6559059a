//! The open directories on the way from a tree's root to where a walk is, with a bounded number of file descriptors.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// How many directories are kept open; those above are closed and opened again, through `..`, on the way back.
const OPEN_LIMIT: usize = 64;

/// How a directory is opened: never through a symbolic link.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directories from the root (first) to the current one (last), for walks of any depth that never use a path.
#[derive(Debug, Default)]
pub struct DirectoryStack {
    slots: Vec<Slot>,
    /// Every slot from this one on is open, and none before it.
    first_open: usize,
}

#[derive(Debug)]
enum Slot {
    Open(OwnedFd),
    /// Device and inode of the directory that was closed.
    Closed(u64, u64),
}

impl DirectoryStack {
    /// The current directory; `None` outside the root.
    #[must_use]
    pub fn current(&self) -> Option<BorrowedFd<'_>> {
        match self.slots.last() {
            Some(Slot::Open(directory)) => Some(directory.as_fd()),
            _ => None,
        }
    }

    /// Goes down into a directory that was opened in the current one.
    ///
    /// # Errors
    /// When the directory to be closed instead cannot be examined.
    pub fn push(&mut self, directory: OwnedFd) -> io::Result<()> {
        self.slots.push(Slot::Open(directory));
        if self.slots.len() - self.first_open > OPEN_LIMIT {
            let slot = &mut self.slots[self.first_open];
            if let Slot::Open(directory) = &*slot {
                let (device, inode) = identity(directory.as_fd())?;
                *slot = Slot::Closed(device, inode);
            }
            self.first_open += 1;
        }
        Ok(())
    }

    /// Goes back up; nothing happens outside the root.
    ///
    /// # Errors
    /// When the directory above cannot be opened again, or is no longer the one that the walk came through.
    pub fn pop(&mut self) -> io::Result<()> {
        let left = self.slots.pop();
        if let (Some(Slot::Open(left)), Some(above @ Slot::Closed(..))) = (left, self.slots.last_mut()) {
            let reopened = rustix::fs::openat(&left, c"..", DIRECTORY, Mode::empty())?;
            let (device, inode) = identity(reopened.as_fd())?;
            if !matches!(above, Slot::Closed(d, i) if (*d, *i) == (device, inode)) {
                return Err(io::Error::other("the directory was moved while it was walked"));
            }
            *above = Slot::Open(reopened);
            self.first_open -= 1;
        }
        self.first_open = self.first_open.min(self.slots.len());
        Ok(())
    }
}

fn identity(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = rustix::fs::fstat(directory)?;
    Ok((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_the_way_down_and_few_directories_are_open() {
        let root = tempfile::tempdir().unwrap();
        let mut stack = DirectoryStack::default();
        let mut inodes = Vec::new();
        let opened = rustix::fs::openat(rustix::fs::CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        stack.push(opened).unwrap();
        for _ in 0..OPEN_LIMIT * 3 {
            let current = stack.current().unwrap();
            inodes.push(identity(current).unwrap());
            rustix::fs::mkdirat(current, c"d", Mode::from_raw_mode(0o755)).unwrap();
            let below = rustix::fs::openat(current, c"d", DIRECTORY, Mode::empty()).unwrap();
            stack.push(below).unwrap();
            assert!(stack.slots.iter().filter(|slot| matches!(slot, Slot::Open(_))).count() <= OPEN_LIMIT);
        }
        while let Some(expected) = inodes.pop() {
            stack.pop().unwrap();
            assert_eq!(identity(stack.current().unwrap()).unwrap(), expected);
        }
        stack.pop().unwrap();
        assert_eq!((stack.slots.len(), stack.current().is_some()), (0, false));
    }

    #[test]
    fn a_directory_that_moved_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let mut stack = DirectoryStack::default();
        let opened = rustix::fs::openat(rustix::fs::CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        stack.push(opened).unwrap();
        for _ in 0..OPEN_LIMIT {
            let current = stack.current().unwrap();
            rustix::fs::mkdirat(current, c"d", Mode::from_raw_mode(0o755)).unwrap();
            let below = rustix::fs::openat(current, c"d", DIRECTORY, Mode::empty()).unwrap();
            stack.push(below).unwrap();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        rustix::fs::rename(root.path().join("d"), elsewhere.path().join("d")).unwrap();
        let outcome = (0..OPEN_LIMIT).try_for_each(|_| stack.pop());
        assert!(outcome.unwrap_err().to_string().contains("moved"));
    }
}
