//! Reads tar archives: POSIX ustar and pax, GNU long names and old-style sparse files, and the format of version 7.
//!
//! Strict where tools disagree about what an archive says: a link or directory with a body, a pax header that changes
//! sizes for all that follows, and bytes after the end are errors here.

use std::io::{self, Read};

use thiserror::Error;

use crate::tree_path::printable;

const BLOCK: usize = 512;
/// Longest extended header, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;
/// Most data segments of a sparse file.
const MAX_SEGMENTS: usize = 100_000;

/// Why an archive could not be read.
#[derive(Debug, Error)]
pub enum TarError {
    /// The bytes could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive stops in the middle, or without its end mark.
    #[error("the archive ends too early")]
    Truncated,
    /// A header's check sum is wrong.
    #[error("not a tar archive, or broken: wrong check sum in the header at byte {0}")]
    Checksum(u64),
    /// A field of a header makes no sense.
    #[error("the header at byte {offset} has a broken {field}")]
    Field {
        /// Where the header starts in the plain archive.
        offset: u64,
        /// Which part of it.
        field: &'static str,
    },
    /// There is data after the end mark.
    #[error("there is data after the end of the archive")]
    Trailing,
    /// A form of entry that cannot be read.
    #[error("`{path}` is {what}, which is not supported")]
    Unsupported {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
}

/// What one entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file; its body follows.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// One more name for the entry at this path.
    HardLink(Vec<u8>),
    /// Something no tree holds, for example `a device`.
    Special(&'static str),
}

/// One entry's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Length of the body, holes included.
    pub size: u64,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// What the archive says of it besides.
    pub metadata: Metadata,
}

/// What an archive says of an entry and a tree does not take. A number that makes no sense is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The permission bits.
    pub mode: Option<u64>,
    /// The owner's number.
    pub user_id: Option<u64>,
    /// The group's number.
    pub group_id: Option<u64>,
    /// When it was changed, in Unix seconds.
    pub modified: Option<u64>,
    /// The owner's name.
    pub user: Vec<u8>,
    /// The group's name.
    pub group: Vec<u8>,
    /// Records of the pax header but path, link target and size: keys and values.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries in order. Between two calls of [`Reader::next_entry`] it is an [`io::Read`] of the entry's body.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Bytes read so far.
    offset: u64,
    /// Bytes of the body and its padding that are still to come from the archive.
    stored: u64,
    body: Body,
}

#[derive(Debug, Default)]
struct Body {
    position: u64,
    size: u64,
    /// Offset and length of each part that is stored, ascending, without overlap.
    segments: std::collections::VecDeque<(u64, u64)>,
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
    others: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    /// Starts to read an archive that is not compressed.
    pub fn new(inner: R) -> Self {
        Reader { inner, offset: 0, stored: 0, body: Body::default() }
    }

    /// Moves to the next entry, past what is left of the present one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_body()?;
        let mut extended = Extended::default();
        loop {
            let start = self.offset;
            let Some(block) = self.block()? else { return Err(TarError::Truncated) };
            if block.iter().all(|byte| *byte == 0) {
                return self.finish();
            }
            let header = Header { block: &block, start };
            header.check()?;
            match header.kind() {
                b'x' | b'X' => {
                    let records = self.extended_body(&header)?;
                    apply_records(&records, start, &mut extended)?;
                }
                b'g' => {
                    let records = self.extended_body(&header)?;
                    check_global(&records, start)?;
                }
                b'L' => extended.path = Some(until_nul(&self.extended_body(&header)?).to_vec()),
                b'K' => extended.target = Some(until_nul(&self.extended_body(&header)?).to_vec()),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header<'_>, extended: Extended) -> Result<Entry, TarError> {
        let path = extended.path.unwrap_or_else(|| header.path());
        let target = || extended.target.clone().unwrap_or_else(|| until_nul(header.field(157, 100)).to_vec());
        let unsupported = |what| TarError::Unsupported { path: printable(&path), what };
        if extended.sparse {
            return Err(unsupported("a sparse file in pax form"));
        }
        let stored = match extended.size {
            Some(size) => size,
            None => header.number(124, 12, "size")?,
        };
        let mode = header.number(100, 8, "mode")?;
        let mut entry = Entry {
            path: path.clone(),
            kind: EntryKind::File,
            size: stored,
            executable: mode & 0o100 != 0,
            metadata: header.metadata(extended.others.clone()),
        };
        let mut segments = std::collections::VecDeque::from([(0, stored)]);
        entry.kind = match header.kind() {
            b'0' | 0 | b'7' if path.ends_with(b"/") && stored == 0 => EntryKind::Directory,
            b'0' | 0 | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink(target()),
            b'2' => EntryKind::Symlink(target()),
            b'3' | b'4' => EntryKind::Special("a device"),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Special("a named pipe"),
            b'S' => {
                (entry.size, segments) = self.sparse_map(header, stored)?;
                EntryKind::File
            }
            b'D' => return Err(unsupported("a directory of an incremental backup")),
            b'M' => return Err(unsupported("a part of a file on several volumes")),
            b'V' => return Err(unsupported("a volume label")),
            _ => return Err(unsupported("an entry of unknown type")),
        };
        if entry.kind == EntryKind::File {
            self.stored = padded(stored).ok_or_else(|| header.broken("size"))?;
            self.body = Body { position: 0, size: entry.size, segments };
        } else if stored != 0 {
            return Err(header.broken("size: only files have a body"));
        }
        Ok(entry)
    }

    /// The map of an old-style sparse file: real size and stored parts (GNU tar manual, "Old GNU Format").
    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        stored: u64,
    ) -> Result<(u64, std::collections::VecDeque<(u64, u64)>), TarError> {
        let broken = || header.broken("map of a sparse file");
        let size = header.number(483, 12, "size of a sparse file")?;
        let mut segments = std::collections::VecDeque::new();
        let (mut end, mut total) = (0u64, 0u64);
        let mut take = |block: &[u8; BLOCK], start: usize, count: usize| -> Result<(), TarError> {
            let part = Header { block, start: header.start };
            for index in 0..count {
                let at = start + index * 24;
                if part.field(at, 1) == b"\0" {
                    continue;
                }
                let (offset, length) = (part.number(at, 12, "offset")?, part.number(at + 12, 12, "length")?);
                let segment_end = offset.checked_add(length).ok_or_else(broken)?;
                if offset < end || segment_end > size || segments.len() == MAX_SEGMENTS {
                    return Err(broken());
                }
                (end, total) = (segment_end, total + length);
                segments.push_back((offset, length));
            }
            Ok(())
        };
        take(header.block, 386, 4)?;
        let mut more = header.field(482, 1) != b"\0";
        while more {
            let block = self.block()?.ok_or(TarError::Truncated)?;
            take(&block, 0, 21)?;
            more = block[504] != 0;
        }
        if total == stored { Ok((size, segments)) } else { Err(broken()) }
    }

    fn extended_body(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.number(124, 12, "size")?;
        if size > MAX_EXTENDED {
            return Err(header.broken("size: an extended header is too long"));
        }
        let mut body = Vec::new();
        let wanted = padded(size).ok_or_else(|| header.broken("size"))?;
        let count = (&mut self.inner).take(wanted).read_to_end(&mut body).map_err(TarError::Read)?;
        if count as u64 != wanted {
            return Err(TarError::Truncated);
        }
        self.offset += wanted;
        body.truncate(size as usize);
        Ok(body)
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.inner).take(self.stored), &mut io::sink()).map_err(TarError::Read)?;
        if skipped != self.stored {
            return Err(TarError::Truncated);
        }
        self.offset += skipped;
        self.stored = 0;
        self.body = Body::default();
        Ok(())
    }

    /// After the first block of zeros nothing but zeros may follow.
    fn finish(&mut self) -> Result<Option<Entry>, TarError> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) if buffer[..count].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(TarError::Trailing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let body = &mut self.body;
        while let Some((_, 0)) = body.segments.front() {
            body.segments.pop_front();
        }
        let limit = |length: u64| buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let Some((offset, length)) = body.segments.front_mut().filter(|segment| segment.0 == body.position) else {
            let next = body.segments.front().map_or(body.size, |segment| segment.0);
            let count = limit(next - body.position);
            buffer[..count].fill(0);
            body.position += count as u64;
            return Ok(count);
        };
        let count = limit(*length);
        let count = self.inner.read(&mut buffer[..count])?;
        if count == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.position += count as u64;
        *offset += count as u64;
        *length -= count as u64;
        self.stored -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

struct Header<'a> {
    block: &'a [u8; BLOCK],
    start: u64,
}

impl Header<'_> {
    fn field(&self, start: usize, length: usize) -> &[u8] {
        &self.block[start..start + length]
    }

    fn broken(&self, field: &'static str) -> TarError {
        TarError::Field { offset: self.start, field }
    }

    fn kind(&self) -> u8 {
        self.block[156]
    }

    fn check(&self) -> Result<(), TarError> {
        let sum = |range: std::ops::Range<usize>| self.block[range].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let expected = self.number(148, 8, "check sum").map_err(|_| TarError::Checksum(self.start))?;
        let actual = sum(0..148) + sum(156..BLOCK) + 8 * u64::from(b' ');
        if expected == actual { Ok(()) } else { Err(TarError::Checksum(self.start)) }
    }

    fn metadata(&self, extended: Vec<(Vec<u8>, Vec<u8>)>) -> Metadata {
        let number = |start, length| self.number(start, length, "field").ok();
        Metadata {
            mode: number(100, 8),
            user_id: number(108, 8),
            group_id: number(116, 8),
            modified: number(136, 12),
            user: until_nul(self.field(265, 32)).to_vec(),
            group: until_nul(self.field(297, 32)).to_vec(),
            extended,
        }
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        // GNU's own format keeps other things where POSIX keeps the prefix.
        if self.field(257, 6) == b"ustar\0" && !prefix.is_empty() { [prefix, name].join(&b'/') } else { name.to_vec() }
    }

    /// A number: octal digits between spaces and NULs, or big-endian binary marked by the first bit.
    fn number(&self, start: usize, length: usize, field: &'static str) -> Result<u64, TarError> {
        let bytes = self.field(start, length);
        if bytes[0] & 0x80 != 0 {
            let (high, low) = bytes.split_at(length.saturating_sub(8));
            let clear = high.iter().enumerate().all(|(index, byte)| *byte == if index == 0 { 0x80 } else { 0 });
            if high.is_empty() || !clear {
                return Err(self.broken(field));
            }
            return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        let digits = until_nul(bytes.trim_ascii_start()).trim_ascii_end();
        let rest_is_blank = bytes.iter().skip_while(|byte| byte.is_ascii_whitespace()).skip(digits.len());
        if !rest_is_blank.into_iter().all(|byte| *byte == 0 || *byte == b' ')
            || !digits.iter().all(|byte| (b'0'..=b'7').contains(byte))
        {
            return Err(self.broken(field));
        }
        Ok(digits.iter().fold(0, |number, byte| number << 3 | u64::from(byte - b'0')))
    }
}

fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records of a pax header: `<length> <key>=<value>\n`, where the length counts the whole record.
fn records(bytes: &[u8], start: u64) -> Result<Vec<Record<'_>>, TarError> {
    let broken = || TarError::Field { offset: start, field: "extended header" };
    let mut left = bytes;
    let mut found = Vec::new();
    while !left.is_empty() {
        let space = left.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
        let digits = std::str::from_utf8(&left[..space]).map_err(|_| broken())?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let length: usize = digits.parse().ok().filter(|_| plain).ok_or_else(broken)?;
        if length <= space + 1 || length > left.len() || left[length - 1] != b'\n' {
            return Err(broken());
        }
        let record = &left[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        found.push((&record[..equals], &record[equals + 1..]));
        left = &left[length..];
    }
    Ok(found)
}

fn apply_records(bytes: &[u8], start: u64, extended: &mut Extended) -> Result<(), TarError> {
    for (key, value) in records(bytes, start)? {
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.target = Some(value.to_vec()),
            b"size" => {
                let digits =
                    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let size = digits.and_then(|text| text.parse().ok());
                extended.size = Some(size.ok_or(TarError::Field { offset: start, field: "extended size" })?);
            }
            _ if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
            _ => extended.others.push((key.to_vec(), value.to_vec())),
        }
    }
    Ok(())
}

fn check_global(bytes: &[u8], start: u64) -> Result<(), TarError> {
    let changes_all = |key: &[u8]| matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
    match records(bytes, start)?.iter().any(|(key, _)| changes_all(key)) {
        true => Err(TarError::Field { offset: start, field: "global header: it renames all that follows" }),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
