//! A cache's files in a directory of this machine: `file://` caches.
#![expect(clippy::disallowed_methods, reason = "the cache is files")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Advice;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::files::{Files, FilesError, NewFile};

/// How many bytes of a new file are on their way to disk together.
const BEGIN_BYTES: u64 = 8 << 20;

/// Files below a directory, which is made when the first file is.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    address: String,
    /// Directories that got new names which the disk may not have yet.
    unsettled: Mutex<BTreeSet<PathBuf>>,
}

impl Directory {
    /// The files below this directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let address = format!("file://{}", root.display());
        Self { root: root.to_owned(), address, unsettled: Mutex::default() }
    }

    /// Makes the directories that a file lies in, and returns those that get new names with it.
    fn make_parents(&self, target: &Path) -> io::Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for parent in target.ancestors().skip(1) {
            changed.push(parent.to_owned());
            // The root was made for the new file, and perhaps only then.
            if parent != self.root && parent.is_dir() {
                break;
            }
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(changed)
    }

    fn fail(&self, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> FilesError {
        move |error| FilesError::new(self, action, name, error)
    }
}

impl Files for Directory {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(&self, name: &str, _expected: Option<u64>) -> Result<Option<Box<dyn Read + Send>>, FilesError> {
        // Names come from parsers that refuse ways up; a question mark belongs to the network.
        let path = self.root.join(name.split('?').next().unwrap_or_default());
        let file = match File::open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            other => other.map_err(self.fail("open", name))?,
        };
        if !file.metadata().map_err(self.fail("open", name))?.is_file() {
            return Err(self.fail("open", name)(ErrorKind::InvalidInput.into()));
        }
        Ok(Some(Box::new(file)))
    }

    fn contains(&self, name: &str) -> Result<bool, FilesError> {
        self.root.join(name).try_exists().map_err(self.fail("look for", name))
    }

    fn create(&self) -> Result<Box<dyn NewFile + '_>, FilesError> {
        let make = || {
            fs::create_dir_all(&self.root)?;
            tempfile::Builder::new().prefix(".new-").tempfile_in(&self.root)
        };
        let file = make().map_err(self.fail("create", "a new file"))?;
        Ok(Box::new(New { directory: self, file, length: 0, begun: 0 }))
    }

    fn lasts_at_once(&self) -> bool {
        false
    }

    fn settle(&self) -> Result<(), FilesError> {
        let settle = || {
            let root = File::open(&self.root)?;
            match rustix::fs::syncfs(&root) {
                Err(Errno::NOSYS) => rustix::fs::sync(),
                other => other?,
            }
            Ok(())
        };
        settle().map_err(self.fail("write to disk", "new files"))
    }

    fn settle_names(&self) -> Result<(), FilesError> {
        let directories = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        let settle = |directory: &PathBuf| File::open(directory)?.sync_all();
        directories.iter().try_for_each(settle).map_err(self.fail("write to disk", "new names"))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, FilesError> {
        let entries = match fs::read_dir(self.root.join(directory)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(self.fail("list", directory))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(self.fail("list", directory))?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

struct New<'a> {
    directory: &'a Directory,
    file: NamedTempFile,
    length: u64,
    /// How much of it the system was told to write to disk already.
    begun: u64,
}

impl Write for New<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        if self.length - self.begun >= BEGIN_BYTES {
            // The bytes go to disk while others are being made: who waits for them in the end waits less. Only a hint.
            let length = NonZeroU64::new(self.length - self.begun);
            let _ = rustix::fs::fadvise(self.file.as_file(), self.begun, length, Advice::DontNeed);
            self.begun = self.length;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for New<'_> {
    fn settle(&mut self) -> Result<(), FilesError> {
        self.file.as_file().sync_data().map_err(self.directory.fail("write to disk", "a new file"))
    }

    fn publish(self: Box<Self>, name: &str) -> Result<(), FilesError> {
        let Self { directory, file, .. } = *self;
        let target = directory.root.join(name);
        let put = || {
            let changed = directory.make_parents(&target)?;
            // Temporary files are private; a cache is for others to read.
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(&target).map_err(|error| error.error)?;
            directory.unsettled.lock().unwrap_or_else(PoisonError::into_inner).extend(changed);
            Ok(())
        };
        put().map_err(directory.fail("write", name))
    }
}
