//! Bounds on what an archive may become.

use std::io::{self, Read};

use thiserror::Error;

/// Bounds on what one archive may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most plain bytes, headers included.
    pub bytes: u64,
    /// Plain bytes that are fine whatever the archive's own size.
    pub free_bytes: u64,
    /// Beyond those, most plain bytes for each byte of the archive.
    pub ratio: u64,
}

impl Limits {
    /// Far above what source archives and packages are in practice, far below what fills a machine.
    pub const DEFAULT: Limits = Limits { entries: 1_000_000, bytes: 16 << 30, free_bytes: 256 << 20, ratio: 300 };

    /// The most plain bytes for an archive of this size.
    pub(crate) fn bytes_for(&self, archive: u64) -> u64 {
        self.bytes.min(archive.saturating_mul(self.ratio).max(self.free_bytes))
    }
}

/// What an archive has too much of.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LimitError {
    /// Plain bytes.
    #[error("it unpacks to more than {0} bytes, which is out of proportion")]
    Bytes(u64),
    /// Entries.
    #[error("it has more than {0} entries")]
    Entries(u64),
}

/// Passes bytes on until there are too many of them.
#[derive(Debug)]
pub(crate) struct Limited<R> {
    inner: R,
    limit: u64,
    left: u64,
}

impl<R> Limited<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Limited { inner, limit, left: limit }
    }

    /// Goes on with what an earlier reader left of a limit.
    pub(crate) fn with_left(inner: R, limit: u64, left: u64) -> Self {
        Limited { inner, limit, left }
    }

    /// How many bytes may still come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(LimitError::Bytes(self.limit)))?;
        Ok(count)
    }
}
