//! Where file bodies wait on disk, beside the tree that will hold them, while that tree is still a model in memory.
//!
//! Effects: makes a directory and files in it, always relative to a directory that it has made itself.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, linkat, mkdirat, open, openat, unlinkat};
use thiserror::Error;

/// The spool's own directory inside the new tree, while that tree is being made. No entry at the root may be called so.
pub(crate) const SPOOL: &str = ".ampoule-spool";

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A regular file of a tree: its bytes and whether it may be executed.
#[derive(Clone, Debug)]
pub struct File {
    content: Content,
    executable: bool,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    Spooled { number: u64, size: u64 },
}

impl File {
    /// A small file, kept in memory.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>, executable: bool) -> Self {
        File { content: Content::Bytes(bytes.into()), executable }
    }

    /// Whether it may be executed.
    pub fn executable(&self) -> bool {
        self.executable
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Spooled { size, .. } => *size,
        }
    }
}

/// What went wrong with the directory that is being made.
#[derive(Debug, Error)]
#[error("{action} `{}`", path.display())]
pub struct SpoolError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A new directory with a spool inside. Bodies may be stored from several threads; the numbers they get depend on
/// timing, the tree does not.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    target: OwnedFd,
    directory: OwnedFd,
    next: AtomicU64,
}

impl Spool {
    /// Makes the new directory `path`, which must not exist, with an empty spool.
    pub fn create(path: &Path) -> Result<Self, SpoolError> {
        let fail = |action| {
            let path = path.to_path_buf();
            move |errno: rustix::io::Errno| SpoolError { action, path, source: errno.into() }
        };
        let invalid = || SpoolError {
            action: "cannot make a directory at",
            path: path.to_path_buf(),
            source: io::ErrorKind::InvalidInput.into(),
        };
        let name = path.file_name().ok_or_else(invalid)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail("cannot open the parent directory of"))?;
        let target = make_directory(parent.as_fd(), name).map_err(fail("cannot make the directory"))?;
        let directory = make_directory(target.as_fd(), OsStr::new(SPOOL)).map_err(fail("cannot make the spool of"))?;
        Ok(Spool { path: path.to_path_buf(), target, directory, next: AtomicU64::new(0) })
    }

    /// Stores a body until its tree is written. The reader decides how long it may be.
    pub fn store(&self, body: &mut dyn Read, executable: bool) -> io::Result<File> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fd = openat(&self.directory, number.to_string(), NEW_FILE, Mode::RUSR | Mode::WUSR)?;
        fchmod(&fd, file_mode(executable))?;
        let mut file = std::fs::File::from(fd);
        let size = io::copy(body, &mut file)?;
        Ok(File { content: Content::Spooled { number, size }, executable })
    }

    /// Reads a whole file back, up to `limit` bytes.
    pub fn read(&self, file: &File, limit: u64) -> io::Result<Vec<u8>> {
        if file.size() > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.open(file)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file for reading.
    pub fn open(&self, file: &File) -> io::Result<Box<dyn Read>> {
        match &file.content {
            Content::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Content::Spooled { number, .. } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(&self.directory, number.to_string(), flags, Mode::empty())?;
                let mut file = std::fs::File::from(fd);
                file.seek(SeekFrom::Start(0))?;
                Ok(Box::new(file))
            }
        }
    }

    /// Whether two files have the same bytes and may be executed alike.
    pub fn same(&self, first: &File, second: &File) -> io::Result<bool> {
        if first.executable != second.executable || first.size() != second.size() {
            return Ok(false);
        }
        if let (Content::Spooled { number, .. }, Content::Spooled { number: other, .. }) =
            (&first.content, &second.content)
            && number == other
        {
            return Ok(true);
        }
        let (mut first, mut second) = (self.open(first)?, self.open(second)?);
        let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            let count = read_full(&mut first, &mut left)?;
            if count != read_full(&mut second, &mut right)? || left[..count] != right[..count] {
                return Ok(false);
            }
            if count < left.len() {
                return Ok(true);
            }
        }
    }

    /// The new directory's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The new directory.
    pub(crate) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// Gives a file its name in a directory. A body that is spooled may get several names.
    pub(crate) fn place(&self, file: &File, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match &file.content {
            Content::Bytes(bytes) => {
                let fd = openat(directory, name, NEW_FILE, Mode::RUSR | Mode::WUSR)?;
                fchmod(&fd, file_mode(file.executable))?;
                std::fs::File::from(fd).write_all(bytes)
            }
            Content::Spooled { number, .. } => {
                Ok(linkat(&self.directory, number.to_string(), directory, name, AtFlags::empty())?)
            }
        }
    }

    /// Removes the spool, leaving the tree.
    pub(crate) fn finish(self) -> io::Result<()> {
        for number in 0..self.next.load(Ordering::Relaxed) {
            match unlinkat(&self.directory, number.to_string(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(unlinkat(&self.target, SPOOL, AtFlags::REMOVEDIR)?)
    }
}

/// Makes and opens a directory that must not exist, with mode 0755 whatever the umask.
pub(crate) fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    mkdirat(parent, name.as_bytes(), Mode::RWXU)?;
    let directory = openat(parent, name.as_bytes(), DIRECTORY, Mode::empty())?;
    fchmod(&directory, Mode::from_raw_mode(0o755))?;
    Ok(directory)
}

fn file_mode(executable: bool) -> Mode {
    Mode::from_raw_mode(if executable { 0o755 } else { 0o644 })
}

fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
