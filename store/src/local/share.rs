//! One file in place of two: comparing, and replacing in one step.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::copy::set_times;
use super::descent::permit_owner;
use super::failure::FileError;
use super::optimise::open_file;
use crate::hash::{Sha256Digest, Sha256Hasher};

/// What came of two files that could share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    Done,
    /// The file system allows no more names for the first one.
    TooManyLinks,
    /// They differ, or there is no room, or the file system cannot do it.
    Refused,
}

pub(super) fn hash_file(path: &Path) -> io::Result<Sha256Digest> {
    let mut hasher = Sha256Hasher::new();
    io::copy(&mut open_file(path)?, &mut hasher)?;
    Ok(hasher.finish())
}

/// Whether two files hold the same bytes.
pub(super) fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (open_file(one)?, open_file(other)?);
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let count = fill(&mut one, &mut left)?;
        if fill(&mut other, &mut right)? != count || left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Puts something that shares the bytes of `from` in the place of `to`, by way of the unused name `temporary`.
pub(super) fn share(from: &Path, to: &Path, temporary: &Path, executable: bool) -> Result<Sharing, FileError> {
    let made = match clone_file(from, temporary, executable) {
        Ok(()) => Ok(()),
        Err(_) => {
            let _ = rustix::fs::unlink(temporary);
            rustix::fs::linkat(CWD, from, CWD, temporary, AtFlags::empty())
        }
    };
    let placed = made.and_then(|()| rename_over(temporary, to));
    if placed.is_err() {
        let _ = rustix::fs::unlink(temporary);
    }
    match placed {
        Ok(()) => Ok(Sharing::Done),
        Err(Errno::MLINK) => Ok(Sharing::TooManyLinks),
        // Either file may have been deleted meanwhile; links may be forbidden, and the disk may be full.
        Err(Errno::NOENT | Errno::NOSPC | Errno::DQUOT | Errno::PERM | Errno::OPNOTSUPP | Errno::XDEV) => {
            Ok(Sharing::Refused)
        }
        Err(source) => Err(FileError::new("replace", to, source)),
    }
}

/// Makes a file with the blocks of another.
fn clone_file(from: &Path, to: &Path, executable: bool) -> rustix::io::Result<()> {
    let source = rustix::fs::open(from, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(to, flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::ioctl_ficlone(&target, &source)?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(if executable { 0o555 } else { 0o444 }))?;
    set_times(target.as_fd())?;
    // It replaces a file whose bytes are on the disk.
    rustix::fs::fsync(&target)
}

fn rename_over(temporary: &Path, to: &Path) -> rustix::io::Result<()> {
    match rustix::fs::rename(temporary, to) {
        // A read-only directory; its mode is put right when the object is settled.
        Err(Errno::ACCESS) => {
            let (Some(parent), Some(above)) = (to.parent(), to.parent().and_then(Path::parent)) else {
                return Err(Errno::ACCESS);
            };
            let directory = rustix::fs::open(above, crate::nar::DIRECTORY, Mode::empty())?;
            permit_owner(directory.as_fd(), parent.file_name().unwrap_or_default(), Mode::RWXU)?;
            rustix::fs::rename(temporary, to)
        }
        other => other,
    }
}
