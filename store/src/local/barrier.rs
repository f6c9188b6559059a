//! Making new objects durable.
//!
//! A barrier for a whole file system also waits for whatever else is being written to it. So the parts of small objects
//! are written to disk one by one, and only larger batches by such a barrier, for which that is cheaper.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The most files and directories that are written one by one.
const FEW: usize = 16;

/// Returns when contents, modes and names of the objects in the directory `store` would survive a power cut.
pub(super) fn objects<'a>(store: BorrowedFd<'_>, names: impl Iterator<Item = &'a OsStr>) -> rustix::io::Result<()> {
    match parts(store, names)? {
        Some(parts) => {
            // From the leaves to the root: a name is written after what it names.
            parts.iter().rev().try_for_each(rustix::fs::fsync)?;
            rustix::fs::fsync(store)
        }
        None => everything(store),
    }
}

/// Returns when everything in the file system of this directory would survive a power cut.
pub(super) fn everything(store: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match rustix::fs::syncfs(store) {
        Err(Errno::NOSYS) => {
            rustix::fs::sync();
            Ok(())
        }
        other => other,
    }
}

/// All files and directories of the objects, each directory before what it holds; `None` if they are more than a few,
/// or some are symbolic links, which cannot be opened.
fn parts<'a>(
    store: BorrowedFd<'_>,
    names: impl Iterator<Item = &'a OsStr>,
) -> rustix::io::Result<Option<Vec<OwnedFd>>> {
    let mut parts = Vec::new();
    for name in names {
        if !add(&mut parts, store, name)? {
            return Ok(None);
        }
    }
    let mut looked_at = 0;
    while let Some(part) = parts.get(looked_at) {
        looked_at += 1;
        if FileType::from_raw_mode(rustix::fs::fstat(part)?.st_mode) != FileType::Directory {
            continue;
        }
        let directory = part.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !add(&mut parts, directory.as_fd(), name)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(parts))
}

/// Opens one more part; says whether that was possible.
fn add(parts: &mut Vec<OwnedFd>, directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<bool> {
    if parts.len() == FEW {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(part) => {
            parts.push(part);
            Ok(true)
        }
        Err(Errno::LOOP) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn count(store: &Path, names: &[&str]) -> Option<usize> {
        let directory = File::open(store).unwrap();
        objects(directory.as_fd(), names.iter().map(OsStr::new)).unwrap();
        parts(directory.as_fd(), names.iter().map(OsStr::new)).unwrap().map(|parts| parts.len())
    }

    #[test]
    fn every_part_of_a_small_object_is_found() {
        let store = tempfile::tempdir().unwrap();
        fs::create_dir_all(store.path().join("tree/a/b")).unwrap();
        for file in ["file", "tree/x", "tree/a/y", "tree/a/b/z"] {
            fs::write(store.path().join(file), file).unwrap();
        }
        assert_eq!(count(store.path(), &["file"]), Some(1));
        assert_eq!(count(store.path(), &["tree", "file"]), Some(7));
        assert_eq!(count(store.path(), &[]), Some(0));
    }

    #[test]
    fn large_objects_and_links_take_the_other_way() {
        let store = tempfile::tempdir().unwrap();
        fs::create_dir(store.path().join("tree")).unwrap();
        for number in 1..FEW {
            fs::write(store.path().join(format!("tree/{number}")), "").unwrap();
        }
        assert_eq!(count(store.path(), &["tree"]), Some(FEW));
        fs::write(store.path().join("tree/last"), "").unwrap();
        assert_eq!(count(store.path(), &["tree"]), None);
        symlink("nowhere", store.path().join("link")).unwrap();
        assert_eq!(count(store.path(), &["link"]), None);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let store = tempfile::tempdir().unwrap();
        let directory = File::open(store.path()).unwrap();
        objects(directory.as_fd(), [OsStr::new("missing")].into_iter()).unwrap_err();
    }
}
