//! What a directory holds, in the order of an archive.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, RawDir};
use rustix::io::Errno;

/// Enough for a few hundred entries in one system call.
pub(crate) const LISTING_LENGTH: usize = 64 << 10;

/// The sorted entries of one directory, and which of them is next.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The names, each with a NUL after it.
    names: Vec<u8>,
    /// The names they get in a copy, at the same places; empty if those are the same.
    renamed: Vec<u8>,
    entries: Vec<Entry>,
    next: usize,
}

/// Where the name begins and ends, its NUL included.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    kind: FileType,
}

impl Entry {
    const fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) name: &'a CStr,
    /// Its name in a copy.
    pub(crate) renamed: &'a CStr,
    pub(crate) kind: FileType,
}

impl Listing {
    /// Lists an open directory. Kinds are known, names sorted by their bytes.
    pub(crate) fn read(directory: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> rustix::io::Result<Self> {
        let mut listing = Self { names: Vec::new(), renamed: Vec::new(), entries: Vec::new(), next: 0 };
        let mut raw = RawDir::new(directory, buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let status = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(status.st_mode)
                }
                kind => kind,
            };
            let place = |length| u32::try_from(length).map_err(|_| Errno::OVERFLOW);
            let start = place(listing.names.len())?;
            listing.names.extend_from_slice(name.to_bytes_with_nul());
            listing.entries.push(Entry { start, end: place(listing.names.len())?, kind });
        }
        let names = &listing.names;
        listing.entries.sort_unstable_by(|a, b| names[a.range()].cmp(&names[b.range()]));
        Ok(listing)
    }

    /// Changes the bytes of the names in a copy, not their lengths; the order is that of the new names.
    pub(crate) fn rename(&mut self, change: impl Fn(&mut [u8])) {
        let mut renamed = self.names.clone();
        for entry in &self.entries {
            let range = entry.range();
            change(&mut renamed[range.start..range.end - 1]);
        }
        self.entries.sort_unstable_by(|a, b| renamed[a.range()].cmp(&renamed[b.range()]));
        self.renamed = renamed;
    }

    /// Goes on to the next entry.
    pub(crate) fn next(&mut self) -> Option<Listed<'_>> {
        if self.next == self.entries.len() {
            return None;
        }
        self.next += 1;
        self.last()
    }

    /// The entry that [`next`](Self::next) gave last.
    pub(crate) fn last(&self) -> Option<Listed<'_>> {
        let entry = *self.entries.get(self.next.checked_sub(1)?)?;
        let name = CStr::from_bytes_with_nul(&self.names[entry.range()]).ok()?;
        let renamed = match &self.renamed {
            renamed if renamed.is_empty() => name,
            renamed => CStr::from_bytes_with_nul(&renamed[entry.range()]).ok()?,
        };
        Some(Listed { name, renamed, kind: entry.kind })
    }
}
