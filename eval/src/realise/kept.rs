//! The build directories of failed builds, kept for people to look into: below `failed/` in the store's home.
//!
//! They are ordinary files of whoever built, no store objects and no roots; `ampoule gc` removes the old ones.

#![expect(clippy::disallowed_methods, reason = "kept directories are files; the clock says how old they are")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ampoule_store::path::StorePath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// Directories within directories deeper than this are left out.
const MAX_DEPTH: usize = 200;
/// Opens what a build made, whatever it made, without following or waiting.
const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A directory that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// When the build failed.
    pub since: SystemTime,
}

fn place(home: &Path) -> PathBuf {
    home.join("failed")
}

/// The directories of this derivation's failed builds, the newest last.
///
/// # Errors
/// When they cannot be listed.
pub fn kept(home: &Path, derivation: &StorePath) -> io::Result<Vec<Kept>> {
    let all = list(home)?;
    Ok(all.into_iter().filter(|(name, _)| name == derivation.base_name()).map(|(_, kept)| kept).collect())
}

/// Removes what was kept longer ago than this; gives what that was. Without `really`, only says so.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_older(home: &Path, age: Duration, really: bool) -> io::Result<Vec<PathBuf>> {
    let now = SystemTime::now();
    let is_old = |kept: &Kept| now.duration_since(kept.since).unwrap_or_default() >= age;
    let old: Vec<PathBuf> =
        list(home)?.into_iter().filter(|(_, kept)| is_old(kept)).map(|(_, kept)| kept.path).collect();
    for path in old.iter().filter(|_| really) {
        fs::remove_dir_all(path)?;
    }
    Ok(old)
}

/// Everything kept, by the derivation's base name, older before newer.
fn list(home: &Path) -> io::Result<Vec<(String, Kept)>> {
    let entries = match fs::read_dir(place(home)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((derivation, _)) = name.rsplit_once('.') {
            found.push((derivation.to_owned(), Kept { path: entry.path(), since: entry.metadata()?.modified()? }));
        }
    }
    found.sort_by(|(_, one), (_, other)| one.since.cmp(&other.since).then_with(|| one.path.cmp(&other.path)));
    Ok(found)
}

/// Keeps the build directory of a failed build, as far as it is files, directories and links and `limit` bytes in all.
/// Gives where, and how many entries were left out.
///
/// # Errors
/// When the copy cannot be written.
pub(super) fn keep(home: &Path, derivation: &StorePath, build: &OwnedFd, limit: u64) -> io::Result<(PathBuf, usize)> {
    let path = new_directory(home, derivation)?;
    let target = open_directory(&path)?;
    let mut copy = Copy { left: limit, left_out: 0 };
    let source = rustix::fs::openat(build, c".", LOOK | OFlags::DIRECTORY, Mode::empty())?;
    copy.directory(source, target.as_fd(), 0)?;
    Ok((path, copy.left_out))
}

fn new_directory(home: &Path, derivation: &StorePath) -> io::Result<PathBuf> {
    fs::create_dir_all(place(home))?;
    for number in 1.. {
        let path = place(home).join(format!("{derivation}.{number}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("there are more numbers than directories")
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, LOOK | OFlags::DIRECTORY, Mode::empty())?)
}

struct Copy {
    left: u64,
    left_out: usize,
}

impl Copy {
    // Its depth is bounded by `MAX_DEPTH`.
    fn directory(&mut self, source: OwnedFd, target: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        let entries: Vec<_> = Dir::read_from(&source)?.collect::<Result<_, _>>()?;
        for entry in entries {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < MAX_DEPTH => {
                    let Ok(inner) = rustix::fs::openat(&source, name, LOOK | OFlags::DIRECTORY, Mode::empty()) else {
                        self.left_out += 1;
                        continue;
                    };
                    rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                    let made = rustix::fs::openat(target, name, LOOK | OFlags::DIRECTORY, Mode::empty())?;
                    self.directory(inner, made.as_fd(), depth + 1)?;
                    // The owner has to be able to read and to remove it, and a build that is entered again to read it.
                    rustix::fs::fchmod(&made, mode | Mode::RWXU | Mode::from_raw_mode(0o055))?;
                    rustix::fs::futimens(&made, &times(&stat))?;
                }
                FileType::RegularFile => self.file(&source, target, name, &stat, mode)?,
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&source, name, Vec::new())?;
                    rustix::fs::symlinkat(&*link, target, name)?;
                }
                _ => self.left_out += 1,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        target: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        stat: &rustix::fs::Stat,
        mode: Mode,
    ) -> io::Result<()> {
        let from = match rustix::fs::openat(source, name, LOOK, Mode::empty()) {
            Ok(from) => File::from(from),
            Err(Errno::ACCESS | Errno::PERM) => {
                self.left_out += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // A file of holes takes no room where it is.
        if stat.st_size.cast_unsigned() > self.left {
            self.left_out += 1;
            return Ok(());
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut into = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
        self.left -= io::copy(&mut from.take(self.left), &mut into)?;
        rustix::fs::fchmod(&into, mode | Mode::RUSR | Mode::WUSR | Mode::from_raw_mode(0o044))?;
        Ok(rustix::fs::futimens(&into, &times(stat))?)
    }
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: modified, last_modification: modified }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_directories_and_links_are_kept_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let build = tempfile::tempdir().unwrap();
        fs::create_dir_all(build.path().join("a/b")).unwrap();
        fs::write(build.path().join("a/b/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(build.path().join("a/b/run"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("/etc/passwd", build.path().join("link")).unwrap();
        File::create(build.path().join("holes")).unwrap().set_len(1 << 40).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, build.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let derivation: StorePath = "00000000000000000000000000000000-x.drv".parse().unwrap();
        let source = open_directory(build.path()).unwrap();
        let (first, left_out) = keep(home.path(), &derivation, &source, 1000).unwrap();
        assert_eq!(left_out, 2, "the file of holes and the pipe");
        let mode = fs::metadata(first.join("a/b/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o754);
        assert_eq!(fs::read_link(first.join("link")).unwrap(), Path::new("/etc/passwd"));
        let (second, _) = keep(home.path(), &derivation, &source, 1000).unwrap();
        let found: Vec<PathBuf> = kept(home.path(), &derivation).unwrap().into_iter().map(|kept| kept.path).collect();
        assert_eq!(found, [first.clone(), second]);
        assert!(remove_older(home.path(), Duration::from_secs(60), true).unwrap().is_empty());
        assert_eq!(remove_older(home.path(), Duration::ZERO, false).unwrap().len(), 2);
        assert!(first.exists());
        assert_eq!(remove_older(home.path(), Duration::ZERO, true).unwrap().len(), 2);
        assert!(!first.exists() && kept(home.path(), &derivation).unwrap().is_empty());
    }
}
