//! The modes and times that everything in an object has: looking whether it does, and making it so.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::LocalStore;
use super::copy::EPOCH;
use super::descent::{Descent, Entry, entries, open_directory, permit_owner};
use super::failure::FileError;
use crate::path::StorePath;

/// Something in an object that does not have the mode or time it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irregularity {
    /// Where it is, from the object's root.
    pub place: PathBuf,
    /// What is wrong with it.
    pub what: Metadata,
}

/// A mode or time that objects do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// The permission bits, and those there should be.
    Mode(u32, u32),
    /// The modification time in Unix seconds; it should be 1.
    ModifiedAt(i64),
}

impl std::fmt::Display for Irregularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.place.as_os_str().is_empty() {
            write!(f, "its root has ")?;
        } else {
            write!(f, "`{}` has ", self.place.display())?;
        }
        match self.what {
            Metadata::Mode(found, wanted) => write!(f, "the mode {found:04o}, not {wanted:04o}"),
            Metadata::ModifiedAt(found) => write!(f, "the modification time {found}, not 1"),
        }
    }
}

impl LocalStore {
    /// The first thing in an object that does not have the mode or time it should.
    pub(super) fn irregularity(&self, path: &StorePath) -> Result<Option<Irregularity>, FileError> {
        let mut found = None;
        self.walk(path, &mut |_, _, irregularity| {
            found = Some(irregularity);
            Ok(Step::Stop)
        })?;
        Ok(found)
    }

    /// Gives everything in an object the mode and time it should have; contents are not looked at.
    ///
    /// # Errors
    /// When the object is not there or belongs to somebody else.
    pub fn restore_metadata(&self, path: &StorePath) -> Result<(), FileError> {
        self.regularise(path)?;
        self.make_all_durable()
    }

    /// As [`LocalStore::restore_metadata`], but not on the disk yet.
    pub(super) fn regularise(&self, path: &StorePath) -> Result<(), FileError> {
        self.walk(path, &mut |directory, name, irregularity| {
            if let Metadata::Mode(_, mode) = irregularity.what {
                // Adds what may be missing to open it, then sets all bits.
                permit_owner(directory, name, Mode::empty())?;
                rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            }
            rustix::fs::utimensat(directory, name, &EPOCH, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(Step::GoOn)
        })
    }

    /// Goes through an object and shows what is irregular, in directories first their entries.
    fn walk(&self, path: &StorePath, show: &mut Show<'_>) -> Result<(), FileError> {
        let root = OsStr::new(path.base_name());
        let fail =
            |source: Errno, place: &Path| FileError::new("look at", self.physical_path(path).join(place), source);
        let store = self.layout.store.as_fd();
        let mut walk = Descent::default();
        let mut pending: Vec<std::vec::IntoIter<Entry>> = Vec::new();
        let mut next = Some((root.to_owned(), FileType::Unknown));
        loop {
            let Some((name, kind)) = next.take() else {
                let Some(children) = pending.last_mut() else { return Ok(()) };
                if let Some(entry) = children.next() {
                    next = Some((OsStr::from_bytes(entry.name.to_bytes()).to_owned(), entry.kind));
                } else {
                    pending.pop();
                    let name = walk.name().map(OsStr::to_owned).unwrap_or_default();
                    walk.pop().map_err(|source| FileError::new("leave", self.physical_path(path), source))?;
                    let place = place(&walk, &name);
                    let step = examine(walk.fd().unwrap_or(store), &name, &place, show);
                    if step.map_err(|source| fail(source, &place))? == Step::Stop {
                        return Ok(());
                    }
                }
                continue;
            };
            let directory = walk.fd().unwrap_or(store);
            if matches!(kind, FileType::Directory | FileType::Unknown) {
                match open_directory(directory, &name) {
                    Ok(opened) => {
                        let found = entries(opened.as_fd()).map_err(|source| fail(source, &place(&walk, &name)))?;
                        walk.push(&name, opened)
                            .map_err(|source| FileError::new("enter", self.physical_path(path), source))?;
                        pending.push(found.into_iter());
                        continue;
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    Err(source) => return Err(fail(source, &place(&walk, &name))),
                }
            }
            let place = place(&walk, &name);
            if examine(directory, &name, &place, show).map_err(|source| fail(source, &place))? == Step::Stop {
                return Ok(());
            }
        }
    }
}

/// Is shown what is irregular, by the directory it is in and its name there.
type Show<'a> = dyn FnMut(BorrowedFd<'_>, &OsStr, Irregularity) -> rustix::io::Result<Step> + 'a;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    GoOn,
    Stop,
}

/// Where something is, from the object's root.
fn place(walk: &Descent, name: &OsStr) -> PathBuf {
    walk.path_of(name).iter().skip(1).map(OsString::from).collect()
}

fn examine(directory: BorrowedFd<'_>, name: &OsStr, place: &Path, show: &mut Show<'_>) -> rustix::io::Result<Step> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = stat.st_mode & 0o7777;
    let wanted = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if mode & 0o100 == 0 => 0o444,
        FileType::RegularFile | FileType::Directory => 0o555,
        _ => mode,
    };
    let what = if mode != wanted {
        Metadata::Mode(mode, wanted)
    } else if stat.st_mtime != 1 {
        Metadata::ModifiedAt(stat.st_mtime)
    } else {
        return Ok(Step::GoOn);
    };
    show(directory, name, Irregularity { place: place.to_owned(), what })
}
