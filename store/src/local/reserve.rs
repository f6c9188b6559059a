//! A file that does nothing but take room: removing it lets garbage be collected on a disk that is full.
#![expect(clippy::disallowed_methods, reason = "the reserve is a file")]

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, statvfs};

use super::failure::FileError;

/// The reserve's name in the store's home.
const RESERVE: &str = "reserve";
/// Its size: what the database needs to delete from itself.
const RESERVE_BYTES: u64 = 8 << 20;
/// A reserve is made while there is this many times as much room.
const ROOM: u64 = 8;

/// Makes the reserve if there is none and there is room; a store does without it otherwise.
pub(super) fn make(home: &Path) {
    let file = home.join(RESERVE);
    let present = fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES);
    let room = statvfs(home).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= ROOM * RESERVE_BYTES);
    if present || !room {
        return;
    }
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(&file, flags, Mode::from_raw_mode(0o600))
        .and_then(|fd| fallocate(fd, FallocateFlags::empty(), 0, RESERVE_BYTES));
    if made.is_err() {
        // Half a reserve, or one on a file system that promises no room, is worth nothing.
        let _ = fs::remove_file(&file);
    }
}

/// Whether the disk has less room than the reserve has, so that it is time to give it up.
pub(super) fn is_needed(home: &Path) -> bool {
    statvfs(home).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < RESERVE_BYTES)
}

/// Gives the reserve's room back to the file system.
pub(super) fn release(home: &Path) -> Result<(), FileError> {
    let file = home.join(RESERVE);
    match fs::remove_file(&file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::new("remove", file, source)),
    }
}
