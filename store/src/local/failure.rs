//! What every operation on the local store can meet: a file that cannot be handled, a database that refuses.

use std::io;
use std::path::{Path, PathBuf};

/// A system call on a file of the store, or of a tree being added to it, failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", on_one_line(path))]
pub struct FileError {
    /// What was tried, as a verb: `open`, `rename`.
    pub action: &'static str,
    /// The file it was tried on. Inside a tree being copied it is relative to the tree's root.
    pub path: PathBuf,
    /// What the system answered.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(super) fn new(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Whether the file system has no room left, which a caller may want to answer by collecting garbage.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A path for a message. Builders choose names, so what could end the line or drive a terminal is replaced.
pub(super) fn on_one_line(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The store's database refused a statement.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite answered with an error, or stayed busy for longer than the store is willing to wait.
    #[error("cannot {action} in the store's database")]
    Sqlite {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// What SQLite answered.
        #[source]
        source: rusqlite::Error,
    },
    /// A transaction could not be ended properly. It may count or not: what its frames are worth is found out by
    /// whoever reads the database next after this process.
    #[error("cannot {action} in the store's database")]
    Commit {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// What SQLite answered.
        #[source]
        source: rusqlite::Error,
    },
    /// A row holds what this program never writes.
    #[error("the store's database holds an invalid {column} `{value}`")]
    InvalidValue {
        /// Which kind of value.
        column: &'static str,
        /// The value as text.
        value: String,
    },
}

impl DatabaseError {
    /// Whether the file system that holds the database has no room left.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } | Self::Commit { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            Self::InvalidValue { .. } => false,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
        match self {
            Self::Sqlite { source, .. } | Self::Commit { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
            }
            Self::InvalidValue { .. } => false,
        }
    }
}
