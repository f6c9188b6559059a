//! Going down a directory tree by file descriptors: never through a path, never through a link, to any depth.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// How many directories of one descent are held open; those further up are opened again through `..`.
const OPEN_DIRECTORIES: usize = 64;

/// How directories are opened here.
pub(super) const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories between the root of a tree and where one is in it.
#[derive(Debug, Default)]
pub(super) struct Descent {
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    name: OsString,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
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
    pub(super) fn push(&mut self, name: &OsStr, fd: OwnedFd) -> rustix::io::Result<()> {
        let identity = identity(&fd)?;
        self.frames.push(Frame { name: name.to_owned(), fd: Some(fd), identity });
        if let Some(far) = self.frames.len().checked_sub(OPEN_DIRECTORIES + 1) {
            self.frames[far].fd = None;
        }
        Ok(())
    }

    /// Leaves the present directory for the one above, making sure that it is the one it was entered from.
    pub(super) fn pop(&mut self) -> rustix::io::Result<()> {
        let Some(left) = self.frames.pop() else { return Ok(()) };
        let (Some(above), Some(fd)) = (self.frames.last_mut(), left.fd) else { return Ok(()) };
        if above.fd.is_none() {
            let reopened = rustix::fs::openat(&fd, "..", DIRECTORY_FLAGS, Mode::empty())?;
            if identity(&reopened)? != above.identity {
                // Somebody moved a directory while it was being walked.
                return Err(Errno::STALE);
            }
            above.fd = Some(reopened);
        }
        Ok(())
    }

    /// The present directory.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.frames.last().and_then(|frame| frame.fd.as_ref()).map(AsFd::as_fd)
    }

    /// The name by which the present directory was entered.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.frames.last().map(|frame| frame.name.as_os_str())
    }

    /// The path from the root of the tree to `name` in the present directory, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let directories = self.frames.iter().map(|frame| frame.name.as_os_str());
        directories.chain([name.as_ref()]).map(Path::new).collect()
    }

    /// The path from the root of the tree to the present directory, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.frames.iter().map(|frame| Path::new(&frame.name)).collect()
    }
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
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
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY_FLAGS, Mode::empty())
}

/// Gives the owner the permission bits `wanted` on a regular file or directory, whatever its present mode, never
/// through a link.
pub(super) fn permit_owner(parent: BorrowedFd<'_>, name: &OsStr, wanted: Mode) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&file)?.st_mode;
    if !matches!(FileType::from_raw_mode(mode), FileType::RegularFile | FileType::Directory) {
        return Err(Errno::ACCESS);
    }
    let permissions = Mode::from_raw_mode(mode & 0o777) | wanted;
    // An `O_PATH` descriptor cannot be `fchmod`ed; its entry in /proc leads to the file itself, by no name.
    rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)), permissions)
}
