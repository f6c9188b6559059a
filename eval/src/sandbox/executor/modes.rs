//! Makes a dead build's outputs readable to an ordinary user who owns them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fchmod, fstat, openat, statat};

/// Gives the owner the right to read everything below a directory, and to search directories. Every process that could
/// interfere has to be dead. Links are not followed.
///
/// The tree may be as deep as the builder liked, so this neither recurses nor holds a descriptor for every level.
pub(super) fn make_readable(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut current: OwnedFd = open_directory(top, c".")?;
    let mut levels = vec![grant(current.as_fd())?];
    while let Some(directories) = levels.last_mut() {
        if let Some(name) = directories.pop() {
            // The owner's rights come first: without them an ordinary owner could not open it.
            let mode = statat(&current, &*name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
            chmodat(&current, &*name, Mode::from_raw_mode(mode & 0o1777 | 0o700), AtFlags::empty())?;
            current = open_directory(current.as_fd(), &name)?;
            levels.push(grant(current.as_fd())?);
        } else {
            levels.pop();
            if !levels.is_empty() {
                current = open_directory(current.as_fd(), c"..")?;
            }
        }
    }
    Ok(())
}

fn open_directory(base: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(base, name, flags, Mode::empty())?)
}

/// Makes the directory and its files readable; returns the names of its directories.
fn grant(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mode = fstat(directory)?.st_mode;
    if mode & 0o700 != 0o700 {
        fchmod(directory, Mode::from_raw_mode(mode & 0o1777 | 0o700))?;
    }
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type() {
            FileType::Directory if name != c"." && name != c".." => directories.push(name.to_owned()),
            FileType::RegularFile => {
                let mode = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
                if mode & 0o400 == 0 {
                    chmodat(directory, name, Mode::from_raw_mode(mode & 0o777 | 0o400), AtFlags::empty())?;
                }
            }
            _ => {}
        }
    }
    Ok(directories)
}
