//! A view of a directory tree that lists every directory in the opposite order, without copying any file.
//!
//! An overlay of two layers: names, modes and times come from a tree of empty files on a tmpfs, made in the wanted
//! order; contents come from the original, a layer for data only, to which each empty file refers by attribute. Needs
//! Linux 6.16, the first to permit this in a user namespace.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags, fsetxattr, ftruncate, mkdirat,
    openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::prepare::{attach, c_string, make_directory, mount};
use super::system;

/// Where views are until the root is sealed.
const VIEWS: &str = ".views";

/// Makes a view of a directory.
pub(super) fn view(original: BorrowedFd<'_>, root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let views = views(root)?;
    let name = original.as_raw_fd().to_string();
    make_directory(views.as_fd(), &name, 0o755)?;
    let names = open_directory(views.as_fd(), &c_string(name.as_bytes())?)?;
    copy_names(original, names.as_fd(), lists_newest_first(views.as_fd(), &name)?)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_set_string(&context, "lowerdir+", format!("/proc/self/fd/{}", names.as_raw_fd()))?;
    fsconfig_set_string(&context, "datadir+", format!("/proc/self/fd/{}", original.as_raw_fd()))?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let view = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let place = format!("{name}-view");
    make_directory(views.as_fd(), &place, 0o755)?;
    attach(&view, views.as_fd(), &place)?;
    Ok(view)
}

/// Takes the views' places away, if there are any; what is shown of them elsewhere stays.
pub(super) fn detach_views(root: BorrowedFd<'_>) -> io::Result<()> {
    if rustix::fs::accessat(root, VIEWS, rustix::fs::Access::EXISTS, AtFlags::empty()).is_err() {
        return Ok(());
    }
    system::detach(&c_string(VIEWS.as_bytes())?)?;
    Ok(rustix::fs::unlinkat(root, VIEWS, AtFlags::REMOVEDIR)?)
}

fn views(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match make_directory(root, VIEWS, 0o755) {
        Ok(()) => attach(&mount("tmpfs", &[("mode", "0755".to_owned())])?, root, VIEWS)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    open_directory(root, &c_string(VIEWS.as_bytes())?)
}

/// Kernels differ in how a tmpfs lists its entries; this one is asked.
fn lists_newest_first(views: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let probe = format!("{name}-order");
    make_directory(views, &probe, 0o755)?;
    let probe = open_directory(views, &c_string(probe.as_bytes())?)?;
    make_directory(probe.as_fd(), "older", 0o755)?;
    make_directory(probe.as_fd(), "newer", 0o755)?;
    Ok(entries(probe.as_fd())?.first().is_some_and(|name| name.as_c_str() == c"newer"))
}

fn open_directory(base: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(base, path, flags, Mode::empty())?)
}

/// The names in a directory, in the order the file system gives.
fn entries(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Copies names, modes, times and links, but no contents.
fn copy_names(original: BorrowedFd<'_>, copy: BorrowedFd<'_>, newest_first: bool) -> io::Result<()> {
    // Paths instead of descriptors: a tree may be deeper than descriptors last. Longer ones than the kernel takes
    // are an error.
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let here = if path.is_empty() { c".".to_owned() } else { c_string(&path)? };
        let (from, to) = (open_directory(original, &here)?, open_directory(copy, &here)?);
        let mut names = entries(from.as_fd())?;
        if !newest_first {
            names.reverse();
        }
        for name in names {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend(name.as_bytes());
            if copy_entry(&from, &to, &name, &inner)? {
                waiting.push(inner);
            }
        }
        set_times(to.as_fd(), c".", &rustix::fs::fstat(&from)?)?;
    }
    Ok(())
}

/// Copies one entry; whether it is a directory.
fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &[u8]) -> io::Result<bool> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, mode | Mode::RWXU)?;
            return Ok(true);
        }
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat(to, name, flags, mode)?;
            if stat.st_size > 0 {
                ftruncate(&file, stat.st_size.unsigned_abs())?;
                fsetxattr(&file, c"user.overlay.metacopy", b"", XattrFlags::empty())?;
                let target = [b"/", path].concat();
                fsetxattr(&file, c"user.overlay.redirect", &target, XattrFlags::empty())?;
            }
        }
        // Store objects have no other kinds.
        _ => return Ok(false),
    }
    set_times(to.as_fd(), name, &stat)?;
    Ok(false)
}

fn set_times(base: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(base, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
