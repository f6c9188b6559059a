//! Views of directory trees that are the same whatever file system holds them: entries in order of their names, times of
//! one second after 1970, numbers and sizes that follow from the tree alone. No file is copied.
//!
//! A view is an overlay of two layers: names, modes and times come from a tree of empty files on a tmpfs; contents come
//! from the original, a layer for data only, to which each empty file refers by attribute. Needs Linux 6.16, the first to
//! permit this in a user namespace; before, originals are shown as they are.
//!
//! The trees of names are made by the zygote and kept: a sysroot is walked once for all builds of a run. Each has a file
//! system of its own, so that its inode numbers do not depend on what was shown before. They are mounted in a place that
//! only the zygote's working directory leads to, because the kernel takes layers from a process's own mounts only:
//! sandboxes get copies of these together with that directory.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, fsetxattr, fstat, ftruncate, mkdirat,
    openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

use super::super::operations::{Operation, Plan};
use super::facts::{self, Telling};
use super::prepare::{attach, c_string, make_directory, mount};
use super::system;

/// When so many entries are known, those of earlier builds are forgotten: each takes about a kilobyte of memory.
const MOST_ENTRIES: usize = 1_000_000;
/// When so many trees are known, likewise: each is a mount, which every sandbox gets a copy of at its start.
const MOST_TREES: usize = 2048;
/// The directory below the place where a sandbox's mounts wait.
const WAITING: &str = "waiting";
/// The time of everything that is shown.
const TIME: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// So many different machines are told of before the oldest is forgotten.
const MOST_TOLD: usize = 64;

/// The trees of names that are known.
pub(super) struct Views {
    /// Where they are mounted, by number.
    place: OwnedFd,
    path: &'static str,
    known: BTreeMap<PathBuf, Names>,
    next: usize,
    entries: usize,
    /// Whether a tmpfs lists its newest entry first. Kernels differ, so this one is asked.
    newest_first: Option<bool>,
    /// Set when the kernel cannot do it.
    are_impossible: bool,
    /// What was told lately, in words, and its place: the oldest first.
    told: Vec<(String, usize)>,
}

/// The places of what was prepared for one sandbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Of names, by the number of the source.
    names: BTreeMap<usize, usize>,
    /// Of the facts: a path.
    facts: Option<String>,
}

/// What was prepared for one sandbox.
#[derive(Default)]
pub(super) struct Prepared {
    /// Names for views, by the number of the source.
    pub(super) names: BTreeMap<usize, OwnedFd>,
    /// The directory with what `/proc` tells. A path: a mount by a descriptor's name takes three times as long.
    pub(super) facts: Option<String>,
    /// Where mounts can wait for their final place: a directory that is left behind together with the host's files.
    pub(super) waiting: Option<OwnedFd>,
}

/// The names in one tree.
struct Names {
    /// Its place.
    number: usize,
    /// Device, inode and change of the original's top, which tell whether it is still the same one.
    original: [i64; 4],
}

impl Views {
    /// Starts with none; makes their place the working directory.
    pub(super) fn start() -> io::Result<Self> {
        let place = mount("tmpfs", &[("mode", "0755".to_owned())])?;
        let path = cover_one(&place)?;
        rustix::process::fchdir(&place)?;
        make_directory(place.as_fd(), WAITING, 0o755)?;
        Ok(Self {
            place,
            path,
            known: BTreeMap::new(),
            next: 0,
            entries: 0,
            newest_first: None,
            are_impossible: false,
            told: Vec::new(),
        })
    }

    /// Where the names are for the sources that a plan wants arranged, and what it wants told. A source that is missing is
    /// shown as it is.
    pub(super) fn prepare(&mut self, plan: &Plan) -> Places {
        let mut sources = Vec::new();
        let mut prepared = BTreeMap::new();
        if self.entries > MOST_ENTRIES || self.known.len() > MOST_TREES {
            self.forget();
        }
        for operation in &plan.prepare {
            match operation {
                Operation::Open(path) => sources.push(path),
                Operation::Arrange { source } => {
                    let names = sources.get(*source).and_then(|path| self.names(path));
                    prepared.extend(names.map(|names| (*source, names)));
                }
                _ => {}
            }
        }
        Places { names: prepared, facts: self.facts(plan) }
    }

    /// The place of what a plan wants told.
    fn facts(&mut self, plan: &Plan) -> Option<String> {
        let telling = Telling::of(plan)?;
        let words = format!("{telling:?}");
        if let Some((_, number)) = self.told.iter().find(|(told, _)| *told == words) {
            return Some(format!("{}/{number}", self.path));
        }
        // Several are kept, because a check builds side by side what is told different things.
        if self.told.len() >= MOST_TOLD {
            let (_, oldest) = self.told.remove(0);
            drop(self.remove(oldest));
        }
        let number = facts::make(&telling).and_then(|facts| self.place(&facts)).ok()?;
        self.told.push((words, number));
        Some(format!("{}/{number}", self.path))
    }

    /// Gives a mount a place.
    fn place(&mut self, mount: &OwnedFd) -> io::Result<usize> {
        let number = self.next;
        self.next += 1;
        make_directory(self.place.as_fd(), &number.to_string(), 0o755)?;
        attach(mount, self.place.as_fd(), &number.to_string())?;
        Ok(number)
    }

    /// The names of one tree; `None` if it is no directory, or if something stands in the way: the original may have
    /// paths too long to name, and whatever else is wrong with it is told when it is opened.
    fn names(&mut self, path: &Path) -> Option<usize> {
        if self.are_impossible {
            return None;
        }
        let original = open_directory(CWD, &c_string(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).ok()?);
        let original = original.ok()?;
        let stat = fstat(&original).ok()?;
        let identity =
            [stat.st_dev.cast_signed(), stat.st_ino.cast_signed(), stat.st_ctime, stat.st_ctime_nsec.cast_signed()];
        if let Some(names) = self.known.get(path).filter(|names| names.original == identity) {
            return Some(names.number);
        }
        let number = match self.make(original.as_fd()) {
            Ok(number) => number,
            Err(error) => {
                // Without a file system there can be no view at all.
                self.are_impossible |= matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP));
                return None;
            }
        };
        if let Some(old) = self.known.insert(path.to_owned(), Names { number, original: identity }) {
            let _ = self.remove(old.number);
        }
        Some(number)
    }

    /// Forgets all that is known.
    fn forget(&mut self) {
        for names in std::mem::take(&mut self.known).into_values() {
            let _ = self.remove(names.number);
        }
        self.entries = 0;
    }

    /// Takes a mount from its place. The empty directory stays: removing it would take the mount from sandboxes that have
    /// their own copy of it and are still being made, since the kernel frees a removed directory from all its mounts.
    fn remove(&self, number: usize) -> io::Result<()> {
        system::detach(&c_string(number.to_string().as_bytes())?)
    }

    fn make(&mut self, original: BorrowedFd<'_>) -> io::Result<usize> {
        let newest_first = match self.newest_first {
            Some(known) => known,
            None => *self.newest_first.insert(lists_newest_first()?),
        };
        let names =
            mount("tmpfs", &[("mode", "0755".to_owned()), ("nr_inodes", "0".to_owned()), ("size", "0".to_owned())])?;
        self.entries += copy_names(original, names.as_fd(), newest_first)?;
        self.place(&names)
    }
}

/// Directories that neither the zygote nor a sandbox being made looks into; one of them is where the trees are.
///
/// Not `/`, because a covered root counts as another root, which may have no user namespaces; and nothing below `/proc`,
/// of which a sandbox may have its own only if nothing in the one around it is covered.
const UNUSED: [&str; 4] = ["/dev/pts", "/sys", "/mnt", "/srv"];

/// Covers one of them; which.
fn cover_one(mount: &OwnedFd) -> io::Result<&'static str> {
    let mut last = None;
    for place in UNUSED {
        match move_mount(mount, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
            Ok(()) => return Ok(place),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(io::ErrorKind::NotFound.into(), io::Error::from))
}

impl Places {
    /// Opens what was prepared. Has to happen before the working directory changes.
    pub(super) fn open(&self) -> io::Result<Prepared> {
        let open = |name: &str| -> io::Result<OwnedFd> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(openat(CWD, name, flags, Mode::empty())?)
        };
        let names = self.names.iter().map(|(source, number)| Ok((*source, open(&number.to_string())?)));
        Ok(Prepared {
            names: names.collect::<io::Result<_>>()?,
            waiting: self.facts.as_ref().map(|_| open(WAITING)).transpose()?,
            facts: self.facts.clone(),
        })
    }
}

/// A mount, without a place yet, of an original's contents under these names.
pub(super) fn view(original: BorrowedFd<'_>, names: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_set_string(&context, "lowerdir+", format!("/proc/self/fd/{}", names.as_raw_fd()))?;
    fsconfig_set_string(&context, "datadir+", format!("/proc/self/fd/{}", original.as_raw_fd()))?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn lists_newest_first() -> io::Result<bool> {
    let probe = mount("tmpfs", &[("mode", "0755".to_owned())])?;
    make_directory(probe.as_fd(), "older", 0o755)?;
    make_directory(probe.as_fd(), "newer", 0o755)?;
    let listed = entries(open_directory(probe.as_fd(), c".")?.as_fd())?;
    Ok(listed.first().is_some_and(|(name, _)| name.as_c_str() == c"newer"))
}

fn open_directory(base: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(base, path, flags, Mode::empty())?)
}

/// The names and kinds in a directory, in the order the file system gives.
fn entries(directory: BorrowedFd<'_>) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Copies names, modes and links, but no contents, in order of the names; how many there were.
fn copy_names(original: BorrowedFd<'_>, copy: BorrowedFd<'_>, newest_first: bool) -> io::Result<usize> {
    let mut count = 0;
    // Paths instead of descriptors: a tree may be deeper than descriptors last. Longer ones than the kernel takes
    // are an error.
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let here = if path.is_empty() { c".".to_owned() } else { c_string(&path)? };
        let (from, to) = (open_directory(original, &here)?, open_directory(copy, &here)?);
        let mut names = entries(from.as_fd())?;
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if newest_first {
            names.reverse();
        }
        count += names.len();
        for (name, kind) in names {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend(name.as_bytes());
            if copy_entry(&from, &to, &name, kind, &inner)? {
                waiting.push(inner);
            }
        }
        let mode = fstat(&from)?.st_mode & 0o777;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(mode))?;
        set_time(to.as_fd(), c".")?;
    }
    Ok(count)
}

/// Copies one entry; whether it is a directory.
fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, kind: FileType, path: &[u8]) -> io::Result<bool> {
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            return Ok(true);
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            set_time(to.as_fd(), name)?;
        }
        FileType::RegularFile | FileType::Unknown => {
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => copy_file(to, name, stat.st_mode, stat.st_size.unsigned_abs(), path)?,
                FileType::Unknown => {}
                kind => return copy_entry(from, to, name, kind, path),
            }
        }
        // Store objects have no other kinds; a socket would be a way out.
        _ => {}
    }
    Ok(false)
}

fn copy_file(to: &OwnedFd, name: &CStr, mode: u32, size: u64, path: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(to, name, flags, Mode::from_raw_mode(mode & 0o777))?;
    if size > 0 {
        ftruncate(&file, size)?;
        fsetxattr(&file, c"user.overlay.metacopy", b"", XattrFlags::empty())?;
        fsetxattr(&file, c"user.overlay.redirect", &[b"/", path].concat(), XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: TIME, last_modification: TIME })?)
}

fn set_time(base: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let times = Timestamps { last_access: TIME, last_modification: TIME };
    Ok(utimensat(base, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
