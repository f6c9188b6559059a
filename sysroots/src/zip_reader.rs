//! Reads zip archives strictly: where two readers could disagree about what an archive holds, it is refused.
//!
//! The central directory must lie right before the end record, entries must not overlap and must cover the file from
//! its first byte, each local header must agree with its central one, and names must be unique. (APPNOTE.TXT, version
//! 6.3.10.)

use std::collections::BTreeSet;
use std::io::{self, Read};

use thiserror::Error;

use crate::tree_path::printable;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const END: u32 = 0x0605_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const END64: u32 = 0x0606_4b50;

const END_LENGTH: usize = 22;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ENCRYPTED: u16 = 1;
const HAS_DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
const UNIX: u16 = 3;

/// Why an archive or an entry could not be read.
#[derive(Debug, Error)]
pub enum ZipError {
    /// There is no end record.
    #[error("not a zip archive, or cut short: it has no end record")]
    NoEnd,
    /// A structure makes no sense.
    #[error("the zip archive is broken: {0}")]
    Broken(&'static str),
    /// An entry makes no sense.
    #[error("`{path}` in the zip archive is broken: {what}")]
    Entry {
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry needs what is not supported.
    #[error("`{path}` in the zip archive is {what}, which is not supported")]
    Unsupported {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
}

/// What one entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; the body is its target.
    Symlink,
    /// Something no tree holds.
    Special,
}

/// One entry of the central directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The path, as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Length of the body.
    pub size: u64,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// What its maker says of it besides.
    pub metadata: Metadata,
    method: u16,
    checksum: u32,
    compressed: usize,
    /// Where the stored bytes start.
    start: usize,
}

/// What an entry's maker says of it, as written in the central directory. A tree takes none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// System (high byte) and version of the specification that made it.
    pub made_by: u16,
    /// The general purpose flags.
    pub flags: u16,
    /// How it is compressed: 0 stored, 8 deflated.
    pub method: u16,
    /// Length of what is stored.
    pub stored_size: u64,
    /// When it was changed: the date of MS-DOS in the high half, its time in the low one.
    pub modified: u32,
    /// The external attributes: the mode in the high half if a Unix system made it.
    pub attributes: u32,
    /// The extra field.
    pub extra: Vec<u8>,
    /// The comment.
    pub comment: Vec<u8>,
}

/// An archive in memory.
#[derive(Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
}

impl<'a> Archive<'a> {
    /// Reads the central directory and checks every header against it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ZipError> {
        let directory = find_directory(bytes)?;
        let mut central = Cursor { bytes: &bytes[directory.start..directory.end], position: 0 };
        let mut raw = Vec::new();
        for _ in 0..directory.entries {
            raw.push(RawEntry::parse(&mut central)?);
        }
        if central.position != central.bytes.len() {
            return Err(ZipError::Broken("its directory is longer than its entries"));
        }
        let mut names = BTreeSet::new();
        let mut entries = Vec::new();
        let mut spans = Vec::new();
        for entry in &raw {
            if !names.insert(entry.name) {
                return Err(entry.broken("there are two entries of this name"));
            }
            let (start, end) = entry.locate(&bytes[..directory.start])?;
            spans.push((entry.offset, end, entry));
            entries.push(entry.finish(start)?);
        }
        spans.sort_by_key(|span| (span.0, span.1));
        let mut position = 0;
        for (start, end, entry) in spans {
            if start != position {
                return Err(entry.broken("it overlaps another entry or leaves a gap"));
            }
            position = end;
        }
        if position != directory.start {
            return Err(ZipError::Broken("there are bytes that belong to no entry"));
        }
        Ok(Archive { bytes, entries })
    }

    /// The entries in the order of the central directory.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry's bytes. Reading to the end verifies length and check sum.
    pub fn body(&self, entry: &Entry) -> Body<'a> {
        let stored = &self.bytes[entry.start..entry.start + entry.compressed];
        let source = match entry.method {
            STORED => Source::Stored(stored),
            _ => Source::Deflated(Box::new(flate2::bufread::DeflateDecoder::new(stored))),
        };
        Body { source, left: entry.size, checksum: flate2::Crc::new(), expected: entry.checksum }
    }

    /// All bytes of an entry that has at most `limit` of them.
    pub fn read(&self, entry: &Entry, limit: u64) -> io::Result<Vec<u8>> {
        if entry.size > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.body(entry).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// An entry's bytes, verified at their end.
#[derive(Debug)]
pub struct Body<'a> {
    source: Source<'a>,
    left: u64,
    checksum: flate2::Crc,
    expected: u32,
}

#[derive(Debug)]
enum Source<'a> {
    Stored(&'a [u8]),
    Deflated(Box<flate2::bufread::DeflateDecoder<&'a [u8]>>),
}

impl Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Stored(bytes) => bytes.read(buffer),
            Source::Deflated(decoder) => decoder.read(buffer),
        }
    }

    fn rest(&self) -> usize {
        match self {
            Source::Stored(bytes) => bytes.len(),
            Source::Deflated(decoder) => decoder.get_ref().len(),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let invalid = |what: &'static str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if self.left == 0 {
            return match self.source.read(&mut [0; 1])? {
                0 if self.source.rest() > 0 => invalid("there are bytes after the compressed data"),
                0 if self.checksum.sum() != self.expected => invalid("wrong check sum"),
                0 => Ok(0),
                _ => invalid("longer than the directory says"),
            };
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return invalid("shorter than the directory says");
        }
        self.checksum.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

struct Directory {
    start: usize,
    end: usize,
    entries: u64,
}

/// The end record is the last one whose comment reaches exactly to the end of the file.
fn find_directory(bytes: &[u8]) -> Result<Directory, ZipError> {
    let last = bytes.len().checked_sub(END_LENGTH).ok_or(ZipError::NoEnd)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let fits = |at: &usize| {
        let comment = usize::from(u16::from_le_bytes([bytes[at + 20], bytes[at + 21]]));
        bytes[*at..*at + 4] == END.to_le_bytes() && at + END_LENGTH + comment == bytes.len()
    };
    let at = (first..=last).rev().find(fits).ok_or(ZipError::NoEnd)?;
    let mut record = Cursor { bytes: &bytes[at + 4..], position: 0 };
    let (disk, first_disk) = (record.u16()?, record.u16()?);
    let (here, total) = (record.u16()?, record.u16()?);
    let (size, offset) = (record.u32()?, record.u32()?);
    if disk != 0 || first_disk != 0 || here != total {
        return Err(ZipError::Broken("it is split into several parts"));
    }
    let (end, entries, size, offset) = if total == u16::MAX || size == u32::MAX || offset == u32::MAX {
        find_directory64(bytes, at)?
    } else {
        (at, u64::from(total), u64::from(size), u64::from(offset))
    };
    let start = usize::try_from(offset).map_err(|_| ZipError::Broken("its directory lies outside"))?;
    if size.checked_add(offset) != Some(end as u64) {
        return Err(ZipError::Broken("its directory does not end where the end record starts"));
    }
    // The smallest entry of a directory has 46 bytes.
    if entries > size / 46 {
        return Err(ZipError::Broken("its directory has no room for its entries"));
    }
    Ok(Directory { start, end, entries })
}

fn find_directory64(bytes: &[u8], end: usize) -> Result<(usize, u64, u64, u64), ZipError> {
    let missing = || ZipError::Broken("it has no 64-bit end record");
    let locator_at = end.checked_sub(20).ok_or_else(missing)?;
    let mut locator = Cursor { bytes: &bytes[locator_at..end], position: 0 };
    let (magic, _disk, at) = (locator.u32()?, locator.u32()?, locator.u64()?);
    let record_at = usize::try_from(at).ok().filter(|at| at.checked_add(56) == Some(locator_at));
    let record_at = record_at.filter(|_| magic == LOCATOR64).ok_or_else(missing)?;
    let mut record = Cursor { bytes: &bytes[record_at..locator_at], position: 0 };
    let (magic, length) = (record.u32()?, record.u64()?);
    record.skip(12)?;
    let (here, total, size, offset) = (record.u64()?, record.u64()?, record.u64()?, record.u64()?);
    if magic != END64 || length != 44 || here != total {
        return Err(missing());
    }
    Ok((record_at, total, size, offset))
}

/// One entry of the central directory, before its local header is known.
struct RawEntry<'a> {
    name: &'a [u8],
    made_by: u16,
    flags: u16,
    method: u16,
    checksum: u32,
    compressed: u64,
    size: u64,
    modified: u32,
    attributes: u32,
    offset: usize,
    extra: &'a [u8],
    comment: &'a [u8],
}

impl<'a> RawEntry<'a> {
    fn parse(central: &mut Cursor<'a>) -> Result<Self, ZipError> {
        if central.u32()? != CENTRAL {
            return Err(ZipError::Broken("its directory has a broken entry"));
        }
        let (made_by, _needed) = (central.u16()?, central.u16()?);
        let (flags, method) = (central.u16()?, central.u16()?);
        let modified = central.u32()?;
        let checksum = central.u32()?;
        let (compressed, size) = (central.u32()?, central.u32()?);
        let (name_length, extra_length) = (central.u16()?, central.u16()?);
        let comment_length = central.u16()?;
        let disk = central.u16()?;
        central.skip(2)?;
        let (attributes, offset) = (central.u32()?, central.u32()?);
        let name = central.take(usize::from(name_length))?;
        let extra = central.take(usize::from(extra_length))?;
        let comment = central.take(usize::from(comment_length))?;
        let mut wide = Wide::find(extra, name)?;
        let (size, compressed) = (wide.widen(size)?, wide.widen(compressed)?);
        let offset = usize::try_from(wide.widen(offset)?).map_err(|_| ZipError::Broken("an entry lies outside"))?;
        if disk != 0 {
            return Err(ZipError::Broken("it is split into several parts"));
        }
        Ok(RawEntry {
            name,
            made_by,
            flags,
            method,
            checksum,
            compressed,
            size,
            modified,
            attributes,
            offset,
            extra,
            comment,
        })
    }

    fn broken(&self, what: &'static str) -> ZipError {
        ZipError::Entry { path: printable(self.name), what }
    }

    /// Where the stored bytes start and where the whole local entry ends, once its header agrees with this one.
    fn locate(&self, bytes: &[u8]) -> Result<(usize, usize), ZipError> {
        let rest = bytes.get(self.offset..).ok_or_else(|| self.broken("it lies outside"))?;
        let mut local = Cursor { bytes: rest, position: 0 };
        if local.u32()? != LOCAL {
            return Err(self.broken("it has no local header"));
        }
        local.skip(2)?;
        let (flags, method) = (local.u16()?, local.u16()?);
        local.skip(4)?;
        let (checksum, compressed, size) = (local.u32()?, local.u32()?, local.u32()?);
        let (name_length, extra_length) = (local.u16()?, local.u16()?);
        let name = local.take(usize::from(name_length))?;
        let extra = local.take(usize::from(extra_length))?;
        let mut wide = Wide::find(extra, name)?;
        let (size, compressed) = (wide.widen(size)?, wide.widen(compressed)?);
        if name != self.name || method != self.method || flags != self.flags {
            return Err(self.broken("its two headers disagree"));
        }
        let agrees = checksum == self.checksum && compressed == self.compressed && size == self.size;
        let deferred = flags & HAS_DESCRIPTOR != 0 && checksum == 0 && compressed == 0 && size == 0;
        if !agrees && !deferred {
            return Err(self.broken("its two headers disagree"));
        }
        let start = self.offset + local.position;
        let length = usize::try_from(self.compressed).map_err(|_| self.broken("it lies outside"))?;
        local.skip(length).map_err(|_| self.broken("it lies outside"))?;
        if flags & HAS_DESCRIPTOR != 0 {
            self.skip_descriptor(&mut local)?;
        }
        Ok((start, self.offset + local.position))
    }

    /// The descriptor after the data: with or without a signature, with 32-bit or 64-bit lengths.
    fn skip_descriptor(&self, local: &mut Cursor<'_>) -> Result<(), ZipError> {
        let rest = &local.bytes[local.position..];
        let checksum = self.checksum.to_le_bytes();
        let narrow = |number: u64| u32::try_from(number).ok().map(u32::to_le_bytes);
        let mut forms = vec![[&checksum[..], &self.compressed.to_le_bytes(), &self.size.to_le_bytes()].concat()];
        if let (Some(compressed), Some(size)) = (narrow(self.compressed), narrow(self.size)) {
            forms.push([checksum, compressed, size].concat());
        }
        let signed: Vec<_> = forms.iter().map(|form| [&DESCRIPTOR.to_le_bytes()[..], form].concat()).collect();
        let found = signed.iter().chain(&forms).find(|form| rest.starts_with(form));
        let found = found.ok_or_else(|| self.broken("its data descriptor disagrees with its header"))?;
        local.skip(found.len())
    }

    fn finish(&self, start: usize) -> Result<Entry, ZipError> {
        let unsupported = |what| Err(ZipError::Unsupported { path: printable(self.name), what });
        if self.flags & ENCRYPTED != 0 {
            return unsupported("encrypted");
        }
        if self.method != STORED && self.method != DEFLATED {
            return unsupported("compressed by something else than deflate");
        }
        if self.flags & UTF8 != 0 && std::str::from_utf8(self.name).is_err() {
            return Err(self.broken("its name is marked as UTF-8 and is not"));
        }
        if self.name.contains(&b'\\') {
            return Err(self.broken("its name has a backslash"));
        }
        let mode = if self.made_by >> 8 == UNIX { self.attributes >> 16 } else { 0 };
        let kind = match mode & 0o170_000 {
            0o120_000 => EntryKind::Symlink,
            0 | 0o100_000 | 0o040_000 if self.name.ends_with(b"/") => EntryKind::Directory,
            0 | 0o100_000 => EntryKind::File,
            _ => EntryKind::Special,
        };
        if kind == EntryKind::Directory && self.size != 0 {
            return Err(self.broken("a directory has a body"));
        }
        Ok(Entry {
            path: self.name.to_vec(),
            kind,
            size: self.size,
            executable: mode & 0o100 != 0,
            metadata: Metadata {
                made_by: self.made_by,
                flags: self.flags,
                method: self.method,
                stored_size: self.compressed,
                modified: self.modified,
                attributes: self.attributes,
                extra: self.extra.to_vec(),
                comment: self.comment.to_vec(),
            },
            method: self.method,
            checksum: self.checksum,
            compressed: self.compressed as usize,
            start,
        })
    }
}

/// The 64-bit lengths of an entry's extra field, in the order in which they replace 32-bit ones.
struct Wide<'a> {
    values: Cursor<'a>,
}

impl<'a> Wide<'a> {
    fn find(extra: &'a [u8], name: &[u8]) -> Result<Self, ZipError> {
        let mut fields = Cursor { bytes: extra, position: 0 };
        let broken = |_| ZipError::Entry { path: printable(name), what: "its extra field" };
        let mut values = Cursor { bytes: &[], position: 0 };
        while fields.position < extra.len() {
            let (id, length) = (fields.u16().map_err(broken)?, fields.u16().map_err(broken)?);
            let body = fields.take(usize::from(length)).map_err(broken)?;
            if id == 1 {
                values = Cursor { bytes: body, position: 0 };
            }
        }
        Ok(Wide { values })
    }

    fn widen(&mut self, narrow: u32) -> Result<u64, ZipError> {
        if narrow == u32::MAX { self.values.u64() } else { Ok(u64::from(narrow)) }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ZipError> {
        let end = self.position.checked_add(length);
        let part = end.and_then(|end| self.bytes.get(self.position..end)).ok_or(ZipError::Broken("it is cut short"))?;
        self.position += length;
        Ok(part)
    }

    fn skip(&mut self, length: usize) -> Result<(), ZipError> {
        self.take(length).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ZipError> {
        self.take(N)?.try_into().map_err(|_| ZipError::Broken("it is cut short"))
    }

    fn u16(&mut self) -> Result<u16, ZipError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ZipError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ZipError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
