//! Going down a directory tree by file descriptors: never through a path, never through a link, to any depth.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::nar::{DIRECTORY, DirectoryStack};

/// The directories between the root of a tree and where one is in it, with the names by which they were entered.
#[derive(Debug, Default)]
pub(super) struct Descent {
    names: Vec<OsString>,
    directories: DirectoryStack,
}

/// A name in a directory and the type the directory gives for it, which may be unknown.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: CString,
    pub(super) kind: FileType,
}

impl Entry {
    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.to_bytes())
    }
}

impl Descent {
    /// Enters an open directory that is reached from the present one by `name`.
    pub(super) fn push(&mut self, name: &OsStr, directory: OwnedFd) -> io::Result<()> {
        self.directories.push(directory)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Leaves the present directory for the one above, making sure that it is the one it was entered from.
    pub(super) fn pop(&mut self) -> io::Result<()> {
        self.names.pop();
        self.directories.pop()
    }

    /// The present directory.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.directories.current()
    }

    /// The name by which the present directory was entered.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.names.last().map(OsString::as_os_str)
    }

    /// The path from the root of the tree to `name` in the present directory, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path().join(name.as_ref())
    }

    /// The path from the root of the tree to the present directory, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.names.iter().collect()
    }
}

/// The entries of a directory, in the order of their names' bytes.
pub(super) fn entries(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(Entry { name: entry.file_name().to_owned(), kind: entry.file_type() });
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Opens a directory that must be a directory itself, not a link to one.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Gives the owner the permission bits `wanted` on a regular file or directory, whatever its present mode, never
/// through a link.
pub(super) fn permit_owner(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    wanted: Mode,
) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&file)?.st_mode;
    if !matches!(FileType::from_raw_mode(mode), FileType::RegularFile | FileType::Directory) {
        return Err(Errno::ACCESS);
    }
    let permissions = Mode::from_raw_mode(mode & 0o777) | wanted;
    // An `O_PATH` descriptor cannot be `fchmod`ed; its entry in /proc leads to the file itself, by no name.
    rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), permissions)
}
