//! Shows a directory tree of the host as the root of a sandbox.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::prepare;

/// How a tree is shown.
pub(super) struct Shape<'a> {
    /// Directories that are walked through instead of shown whole, so that they can have other entries too.
    pub(super) open: &'a BTreeSet<String>,
    /// Paths that are left out.
    pub(super) hidden: &'a BTreeSet<String>,
}

/// Shows `source` as `root`, entry by entry, read-only. Entries that are neither directories, files nor links do not
/// belong into a root and are left out.
pub(super) fn show(source: BorrowedFd<'_>, root: BorrowedFd<'_>, shape: &Shape<'_>) -> io::Result<()> {
    let mut waiting = vec![String::new()];
    while let Some(directory) = waiting.pop() {
        for name in names(source, &directory)? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if shape.hidden.contains(&path) {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = openat(source, &path, flags, Mode::empty())?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode);
            if shape.open.contains(&path) {
                if kind == FileType::Directory {
                    make_if_missing(root, &path)?;
                    waiting.push(path);
                }
            } else if matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink) {
                prepare::show(std::os::fd::AsFd::as_fd(&entry), root, &path)?;
            }
        }
    }
    Ok(())
}

fn make_if_missing(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    match rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

/// The names in a directory, sorted. A name that is not UTF-8 has no place at the top of a root.
fn names(source: BorrowedFd<'_>, directory: &str) -> io::Result<Vec<String>> {
    let directory = if directory.is_empty() { "." } else { directory };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(source, directory, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(opened)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    names.sort_unstable();
    Ok(names)
}
