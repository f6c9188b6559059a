//! Removing trees by file descriptor: links are removed, never followed, and read-only directories are no obstacle.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::descent::{Descent, Entry, entries, open_directory, permit_owner};
use super::failure::FileError;

/// Removes whatever `name` is in `parent`, with all it holds. Nothing there is no error.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), FileError> {
    if remove_leaf(parent, name, FileType::Unknown).map_err(|source| FileError::new("remove", name, source))? {
        return Ok(());
    }
    let mut walk = Descent::default();
    let (fd, children) = open_to_empty(&walk, parent, name)?;
    let mut pending = vec![children];
    enter(&mut walk, name, fd)?;
    while let Some(children) = pending.last_mut() {
        if let Some(child) = children.pop() {
            let here = walk.fd().expect("one directory is entered for each list of children");
            let fail = |source| FileError::new("remove", walk.path_of(child.name()), source);
            if !remove_leaf(here, child.name(), child.kind).map_err(fail)? {
                let (fd, inner) = open_to_empty(&walk, here, child.name())?;
                enter(&mut walk, child.name(), fd)?;
                pending.push(inner);
            }
            continue;
        }
        let emptied: OsString = walk.name().expect("entered by a name").to_owned();
        walk.pop().map_err(|source| FileError::new("leave", &emptied, source))?;
        pending.pop();
        let above = walk.fd().unwrap_or(parent);
        match rustix::fs::unlinkat(above, &emptied, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(source) => return Err(FileError::new("remove", walk.path_of(&emptied), source)),
        }
    }
    Ok(())
}

/// Opens and lists a directory that is to be emptied, after giving its owner the permission to do so.
fn open_to_empty(walk: &Descent, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, Vec<Entry>), FileError> {
    let open = || {
        let fd = match open_directory(parent, name) {
            Err(Errno::ACCESS) => permit_owner(parent, name, Mode::RWXU).and_then(|()| open_directory(parent, name)),
            other => other,
        }?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode & 0o777);
        if !mode.contains(Mode::RWXU) {
            rustix::fs::fchmod(&fd, mode | Mode::RWXU)?;
        }
        let children = entries(fd.as_fd())?;
        Ok((fd, children))
    };
    open().map_err(|source: Errno| FileError::new("empty", walk.path_of(name), source))
}

fn enter(walk: &mut Descent, name: &OsStr, fd: OwnedFd) -> Result<(), FileError> {
    walk.push(name, fd).map_err(|source| FileError::new("open", walk.path_of(name), source))
}

/// Removes anything but a directory; `false` if it is one.
fn remove_leaf(parent: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> rustix::io::Result<bool> {
    if kind == FileType::Directory {
        return Ok(false);
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        // POSIX's answer for a directory; on Linux also that of an immutable file.
        Err(Errno::PERM) => {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { Ok(false) } else { Err(Errno::PERM) }
        }
        Err(source) => Err(source),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::OFlags;

    use super::*;

    fn check(build: impl FnOnce(&std::path::Path)) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/kept"), "kept").unwrap();
        build(home.path());
        let parent = fs::File::open(home.path()).unwrap();
        remove_tree(parent.as_fd(), OsStr::new("victim")).unwrap();
        assert!(fs::symlink_metadata(home.path().join("victim")).is_err());
        assert_eq!(fs::read_to_string(home.path().join("outside/kept")).unwrap(), "kept");
    }

    #[test]
    fn nothing_and_leaves_are_removed() {
        check(|_| {});
        check(|home| fs::write(home.join("victim"), "x").unwrap());
        check(|home| symlink("outside", home.join("victim")).unwrap());
    }

    #[test]
    fn links_inside_are_not_followed_and_read_only_directories_are_emptied() {
        check(|home| {
            fs::create_dir_all(home.join("victim/a/b")).unwrap();
            symlink("../../outside", home.join("victim/a/link")).unwrap();
            fs::write(home.join("victim/a/b/file"), "x").unwrap();
            for directory in ["victim/a/b", "victim/a", "victim"] {
                fs::set_permissions(home.join(directory), fs::Permissions::from_mode(0o555)).unwrap();
            }
        });
        check(|home| {
            fs::create_dir_all(home.join("victim/shut/inner")).unwrap();
            fs::set_permissions(home.join("victim/shut"), fs::Permissions::from_mode(0o000)).unwrap();
        });
    }

    #[test]
    fn depth_is_no_limit() {
        check(|home| {
            let mut here = rustix::fs::open(home, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
            for name in std::iter::once("victim").chain(std::iter::repeat_n("d", 3000)) {
                rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
                here = rustix::fs::openat(&here, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
            }
        });
    }
}
