//! What a shell has that a builder has not: a terminal, and the directory of a build that failed.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::builder::Birth;
use super::system;
use super::wire::{self, Report};

/// Makes a terminal of the sandbox's own the standard streams and hands its other end to the caller.
pub(super) fn take_terminal(birth: &Birth<'_>) -> io::Result<()> {
    system::start_session()?;
    let (ours, theirs) = system::open_terminal(c"/dev/pts/ptmx")?;
    wire::report(birth.caller, &Report::Terminal, &[theirs.as_fd()])?;
    drop(theirs);
    system::control_terminal(ours.as_fd())?;
    for stream in 0..=2 {
        system::set_stream(ours.as_fd(), stream)?;
    }
    system::close_from_on_exec(3);
    Ok(())
}

/// Copies what is in a directory, which the caller of the sandbox has made of files, directories and links.
pub(super) fn copy_directory(from: &Path, into: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), into.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&source)?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            continue;
        }
        if metadata.is_dir() {
            fs::create_dir(&target)?;
            copy_directory(&source, &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(metadata.mode() | 0o700))?;
        } else {
            fs::copy(&source, &target)?;
            // It is shown as inputs are, which nobody may write to.
            fs::set_permissions(&target, fs::Permissions::from_mode(metadata.mode() | 0o200))?;
        }
        let modified = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(CWD, &target, &times, AtFlags::empty())?;
    }
    Ok(())
}
