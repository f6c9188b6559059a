//! Archives to the file system.

use std::ffi::{CString, OsStr};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::decode::{DecodeError, Decoder, Event};
use super::directories::{DIRECTORY, DirectoryStack};
use super::wire::is_valid_name;

const BUFFER_LENGTH: usize = 256 << 10;
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The time of everything in a store: one second after the epoch.
const STORE_TIME: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// Why an archive cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The stream is no valid archive.
    #[error("cannot restore `{}`", path.display())]
    Archive {
        /// What was being restored, as seen from the directory given.
        path: PathBuf,
        /// What is wrong with the stream.
        #[source]
        source: DecodeError,
    },
    /// The file system refused.
    #[error("cannot create `{}`", path.display())]
    Write {
        /// What was being restored, as seen from the directory given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Recreates the archived tree as `name` in the directory `parent`, and returns the archive's length.
///
/// Nothing that exists is touched or followed: `name` must be new, and everything is made relative to directories just made. The
/// stream must end with the archive. Files get mode 0644 or 0755 and directories 0755, less the umask. After an error, what was
/// made so far is left for the caller to remove.
///
/// # Errors
/// When the stream is no archive by the rules of [`Decoder`], or something cannot be created.
pub fn restore(archive: impl Read, parent: BorrowedFd<'_>, name: &OsStr) -> Result<u64, RestoreError> {
    let source = BufReader::with_capacity(BUFFER_LENGTH, archive);
    let decoder = restore_as(Form::Plain, source, parent, name)?;
    decoder.finish().map_err(|source| RestoreError::Archive { path: name.into(), source })
}

/// As [`restore`], but in the form that objects have in a store, and without a look at what follows the archive.
///
/// Modes are 0444 and 0555 and all times one second; only a directory at the root stays writable, because moving one takes
/// the right to write it.
pub(crate) fn restore_object(archive: impl BufRead, parent: BorrowedFd<'_>, name: &OsStr) -> Result<u64, RestoreError> {
    Ok(restore_as(Form::Object, archive, parent, name)?.offset())
}

fn restore_as<R: BufRead>(
    form: Form,
    source: R,
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<Decoder<R>, RestoreError> {
    let mut restorer = Restorer {
        form,
        decoder: Decoder::new(source),
        parent,
        directories: DirectoryStack::default(),
        path: name.as_bytes().to_owned(),
        starts: vec![0],
    };
    match restorer.run() {
        Ok(()) => Ok(restorer.decoder),
        Err(Fault::Archive(source)) => Err(RestoreError::Archive { path: restorer.path(), source }),
        Err(Fault::Write(source)) => Err(RestoreError::Write { path: restorer.path(), source }),
    }
}

/// What becomes of modes and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// What the process gives new files.
    Plain,
    /// Those of store objects.
    Object,
}

/// An error that does not yet know its path.
enum Fault {
    Archive(DecodeError),
    Write(io::Error),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Archive(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Write(error.into())
    }
}

struct Restorer<'a, R> {
    form: Form,
    decoder: Decoder<R>,
    parent: BorrowedFd<'a>,
    directories: DirectoryStack,
    /// Where the walk stands, from `parent`.
    path: Vec<u8>,
    /// Where the last component of `path` starts, for the root and each open directory's current entry.
    starts: Vec<usize>,
}

impl<R: BufRead> Restorer<'_, R> {
    fn run(&mut self) -> Result<(), Fault> {
        if !is_valid_name(&self.path) {
            return Err(Fault::Write(io::ErrorKind::InvalidInput.into()));
        }
        while let Some(event) = self.decoder.next_event()? {
            match event {
                Event::Entry { name } => {
                    self.path.truncate(*self.starts.last().expect("the root's start is never popped"));
                    self.path.extend_from_slice(name);
                }
                Event::Regular { executable, .. } => self.regular(executable)?,
                Event::Symlink { target } => {
                    let name = last_component(&self.path, &self.starts)?;
                    let above = self.directories.current().unwrap_or(self.parent);
                    rustix::fs::symlinkat(target, above, &*name)?;
                    if self.form == Form::Object {
                        rustix::fs::utimensat(above, &*name, &STORE_TIME, AtFlags::SYMLINK_NOFOLLOW)?;
                    }
                }
                Event::Directory => self.directory()?,
                Event::EndDirectory => {
                    self.finish_directory()?;
                    self.directories.pop()?;
                    let start = self.starts.pop().expect("a directory that ends has started");
                    self.path.truncate(start.saturating_sub(1));
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self) -> Result<(), Fault> {
        let name = last_component(&self.path, &self.starts)?;
        let above = self.directories.current().unwrap_or(self.parent);
        rustix::fs::mkdirat(above, &*name, Mode::from_raw_mode(0o755))?;
        let made = rustix::fs::openat(above, &*name, DIRECTORY, Mode::empty())?;
        self.directories.push(made)?;
        self.path.push(b'/');
        self.starts.push(self.path.len());
        Ok(())
    }

    /// Gives the open directory, whose entries are all made, its final form.
    fn finish_directory(&self) -> Result<(), Fault> {
        let Some(directory) = self.directories.current().filter(|_| self.form == Form::Object) else { return Ok(()) };
        let is_root = self.starts.len() == 2;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(if is_root { 0o755 } else { 0o555 }))?;
        rustix::fs::futimens(directory, &STORE_TIME)?;
        Ok(())
    }

    fn regular(&mut self, executable: bool) -> Result<(), Fault> {
        let name = last_component(&self.path, &self.starts)?;
        let above = self.directories.current().unwrap_or(self.parent);
        let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
        let file = rustix::fs::openat(above, &*name, NEW_FILE, mode)?;
        loop {
            let piece = self.decoder.contents()?;
            if piece.is_empty() {
                if self.form == Form::Object {
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(if executable { 0o555 } else { 0o444 }))?;
                    rustix::fs::futimens(&file, &STORE_TIME)?;
                }
                return Ok(());
            }
            let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, piece))?;
            self.decoder.consume_contents(count);
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.path.strip_suffix(b"/").unwrap_or(&self.path)))
    }
}

fn last_component(path: &[u8], starts: &[usize]) -> io::Result<CString> {
    let start = starts.last().copied().unwrap_or_default();
    // The decoder refuses names with NUL; the root's name was checked by `run`.
    CString::new(&path[start..]).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::dump::{DumpError, dump, nar_hash};
    use super::super::encode::{Encoder, regular_file};
    use super::*;

    fn open(path: &std::path::Path) -> fs::File {
        fs::File::open(path).unwrap()
    }

    #[test]
    fn a_tree_is_restored_as_it_was() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir_all(tree.join("sub/empty")).unwrap();
        fs::write(tree.join("sub/file"), b"contents").unwrap();
        fs::write(tree.join("sub/large"), vec![7; BUFFER_LENGTH * 2 + 1]).unwrap();
        fs::write(tree.join(OsStr::from_bytes(b"new\nline\xff")), b"").unwrap();
        fs::write(tree.join("tool"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("tool"), fs::Permissions::from_mode(0o744)).unwrap();
        std::os::unix::fs::symlink("../outside", tree.join("link")).unwrap();
        let mut archive = Vec::new();
        let length = dump(&tree, &mut archive).unwrap();
        assert_eq!(length, archive.len() as u64);
        let directory = open(scratch.path());
        assert_eq!(restore(&archive[..], directory.as_fd(), OsStr::new("copy")).unwrap(), length);
        assert_eq!(nar_hash(&scratch.path().join("copy")).unwrap(), nar_hash(&tree).unwrap());
        assert_eq!(fs::read_link(scratch.path().join("copy/link")).unwrap(), PathBuf::from("../outside"));
    }

    #[test]
    fn what_exists_is_not_touched() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = open(scratch.path());
        fs::write(scratch.path().join("file"), b"old").unwrap();
        fs::create_dir(scratch.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("elsewhere", scratch.path().join("link")).unwrap();
        for name in ["file", "directory", "link"] {
            let error = restore(&regular_file(false, b"new")[..], directory.as_fd(), OsStr::new(name)).unwrap_err();
            assert!(
                matches!(error, RestoreError::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
            );
        }
        for name in ["", ".", "..", "a/b"] {
            assert!(restore(&regular_file(false, b"new")[..], directory.as_fd(), OsStr::new(name)).is_err());
        }
        assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"old");
        assert!(!scratch.path().join("elsewhere").exists());
    }

    #[test]
    fn errors_name_the_place() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = open(scratch.path());
        let mut encoder = Encoder::new(Vec::new());
        encoder.directory().unwrap();
        encoder.entry(b"a").unwrap();
        encoder.directory().unwrap();
        encoder.end_directory().unwrap();
        encoder.entry(b"b").unwrap();
        encoder.directory().unwrap();
        encoder.entry(b"c").unwrap();
        encoder.regular(false, 1).unwrap();
        encoder.contents(b"x").unwrap();
        encoder.end_directory().unwrap();
        encoder.end_directory().unwrap();
        let mut archive = encoder.finish().unwrap().0;
        archive.truncate(archive.len() - 5 * 16);
        let error = restore(&archive[..], directory.as_fd(), OsStr::new("t")).unwrap_err();
        assert_eq!(error.to_string(), "cannot restore `t/b/c`");
    }

    #[test]
    fn special_files_have_no_archive() {
        let scratch = tempfile::tempdir().unwrap();
        let fifo = scratch.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        let error = nar_hash(scratch.path()).unwrap_err();
        assert!(matches!(&error, DumpError::FileType { path, kind: "fifo" } if *path == fifo), "{error}");
        assert!(matches!(nar_hash(&fifo), Err(DumpError::FileType { kind: "fifo", .. })));
        assert!(matches!(nar_hash(&scratch.path().join("absent")), Err(DumpError::Read { .. })));
    }

    #[test]
    fn ten_thousand_levels_are_archived_and_restored() {
        const DEPTH: usize = 10_000;
        let mut encoder = Encoder::new(Vec::new());
        for _ in 0..DEPTH {
            encoder.directory().unwrap();
            encoder.entry(b"d").unwrap();
        }
        encoder.regular(false, 0).unwrap();
        (0..DEPTH).for_each(|_| encoder.end_directory().unwrap());
        let archive = encoder.finish().unwrap().0;
        let scratch = tempfile::tempdir().unwrap();
        let directory = open(scratch.path());
        restore(&archive[..], directory.as_fd(), OsStr::new("deep")).unwrap();
        let mut again = Vec::new();
        dump(&scratch.path().join("deep"), &mut again).unwrap();
        assert!(again == archive);
        // Taken down level by level, since what removes the scratch directory opens all levels at once.
        let (top, below) = (scratch.path().join("deep"), scratch.path().join("below"));
        for _ in 0..DEPTH {
            fs::rename(top.join("d"), &below).unwrap();
            fs::remove_dir(&top).unwrap();
            fs::rename(&below, &top).unwrap();
        }
    }
}
