//! Where a cache's files lie: a seam, because the network is not this room's business.

use std::error::Error;
use std::fmt;
use std::io::{Read, Write};

/// A place for files, by relative names with slashes. Shared by threads.
pub trait Files: Send + Sync + fmt::Debug {
    /// Where this is, for people.
    fn address(&self) -> &str;

    /// Opens a file; `None` if there is none. `expected` is the most bytes that the caller is going to read, if it knows.
    ///
    /// # Errors
    /// When it cannot be told or opened.
    fn read(&self, name: &str, expected: Option<u64>) -> Result<Option<Box<dyn Read + Send>>, FilesError>;

    /// Whether there is such a file.
    ///
    /// # Errors
    /// When it cannot be told.
    fn contains(&self, name: &str) -> Result<bool, FilesError>;

    /// Starts a file that nobody sees until it is published.
    ///
    /// # Errors
    /// When files cannot be written here.
    fn create(&self) -> Result<Box<dyn NewFile + '_>, FilesError>;

    /// Whether a file lasts as soon as it is published. Otherwise it is better to settle many before any is published.
    fn lasts_at_once(&self) -> bool {
        true
    }

    /// Returns when what was written to new files would survive a power cut, whether they were published yet or not.
    ///
    /// # Errors
    /// When that cannot be had.
    fn settle(&self) -> Result<(), FilesError> {
        Ok(())
    }

    /// Returns when the names under which files were published so far would survive a power cut.
    ///
    /// # Errors
    /// When that cannot be had.
    fn settle_names(&self) -> Result<(), FilesError> {
        Ok(())
    }

    /// The names in a directory, `""` being the topmost. None if there is no such directory.
    ///
    /// # Errors
    /// When this place cannot list its files.
    fn list(&self, directory: &str) -> Result<Vec<String>, FilesError>;
}

/// A file that is being written. Dropping it leaves nothing.
pub trait NewFile: Write + Send {
    /// Returns when what was written to this file would survive a power cut. To be called before it is published, unless
    /// [`Files::settle`] is.
    ///
    /// # Errors
    /// When that cannot be had.
    fn settle(&mut self) -> Result<(), FilesError> {
        Ok(())
    }

    /// Puts the whole file in its place, at once. What has the name already is replaced.
    ///
    /// # Errors
    /// When it cannot be put there.
    fn publish(self: Box<Self>, name: &str) -> Result<(), FilesError>;
}

/// A file of a cache cannot be handled.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{name}` of {address}")]
pub struct FilesError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The file.
    pub name: String,
    /// Whose file it is.
    pub address: String,
    /// Why not.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl FilesError {
    /// An error of this place.
    pub fn new(
        files: &dyn Files,
        action: &'static str,
        name: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { action, name: name.to_owned(), address: files.address().to_owned(), source: source.into() }
    }
}

/// Writes a small file.
pub(super) fn write(files: &dyn Files, name: &str, content: &[u8]) -> Result<(), FilesError> {
    let mut file = files.create()?;
    file.write_all(content).map_err(|error| FilesError::new(files, "write", name, error))?;
    file.settle()?;
    file.publish(name)
}
