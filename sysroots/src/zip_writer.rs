//! Writes zip archives of which every byte follows from names, contents and execute bits.

use std::io::{self, Write};

use thiserror::Error;

/// Level of compression. Part of what makes the bytes, like the compressor itself.
const LEVEL: u8 = 6;
/// Midnight of 1980-01-01, the first moment a zip archive can name.
const DATE: u16 = 1 << 5 | 1;
const TIME: u16 = 0;
const MADE_BY_UNIX: u16 = 3 << 8 | 20;
const NEEDED: u16 = 20;
const UTF8: u16 = 1 << 11;

/// Why an archive could not be written.
#[derive(Debug, Error)]
pub enum ZipWriteError {
    /// The bytes could not be written.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
    /// It needs the 64-bit extensions, which many readers lack.
    #[error("the archive is larger than 4 GiB or has more than 65,534 entries")]
    TooLarge,
}

/// Writes entries in the order in which they are given.
#[derive(Debug)]
pub struct ZipWriter<W> {
    inner: W,
    offset: u32,
    central: Vec<u8>,
    entries: u16,
}

impl<W: Write> ZipWriter<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Self {
        ZipWriter { inner, offset: 0, central: Vec::new(), entries: 0 }
    }

    /// Adds a file. The caller sees to it that names are unique.
    pub fn add(&mut self, name: &str, body: &[u8], executable: bool) -> Result<(), ZipWriteError> {
        let length = |length: usize| u32::try_from(length).ok().filter(|length| *length < u32::MAX);
        let (stored, method) =
            if body.is_empty() { (Vec::new(), 0u16) } else { (miniz_oxide::deflate::compress_to_vec(body, LEVEL), 8) };
        let size = length(body.len()).ok_or(ZipWriteError::TooLarge)?;
        let compressed = length(stored.len()).ok_or(ZipWriteError::TooLarge)?;
        let name_length = u16::try_from(name.len()).map_err(|_| ZipWriteError::TooLarge)?;
        let mut checksum = flate2::Crc::new();
        checksum.update(body);

        // The fields that the local header and the central one have in common.
        let mut common = Vec::new();
        for field in [NEEDED, if name.is_ascii() { 0 } else { UTF8 }, method, TIME, DATE] {
            common.extend(field.to_le_bytes());
        }
        for field in [checksum.sum(), compressed, size] {
            common.extend(field.to_le_bytes());
        }
        common.extend(name_length.to_le_bytes());
        common.extend(0u16.to_le_bytes());

        let local = [&0x0403_4b50u32.to_le_bytes()[..], &common, name.as_bytes(), &stored].concat();
        self.central.extend(0x0201_4b50u32.to_le_bytes());
        self.central.extend(MADE_BY_UNIX.to_le_bytes());
        self.central.extend(common);
        // No comment, first disk, no internal attributes.
        self.central.extend([0; 6]);
        let mode: u32 = if executable { 0o100_755 } else { 0o100_644 };
        self.central.extend((mode << 16).to_le_bytes());
        self.central.extend(self.offset.to_le_bytes());
        self.central.extend(name.as_bytes());

        self.inner.write_all(&local)?;
        let end = length(local.len()).and_then(|length| self.offset.checked_add(length));
        self.offset = end.ok_or(ZipWriteError::TooLarge)?;
        self.entries = self.entries.checked_add(1).filter(|count| *count < u16::MAX).ok_or(ZipWriteError::TooLarge)?;
        Ok(())
    }

    /// Writes the central directory and gives the writer back.
    pub fn finish(mut self) -> Result<W, ZipWriteError> {
        let size = u32::try_from(self.central.len()).map_err(|_| ZipWriteError::TooLarge)?;
        self.inner.write_all(&self.central)?;
        let mut end = 0x0605_4b50u32.to_le_bytes().to_vec();
        end.extend([0; 4]);
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend(size.to_le_bytes());
        end.extend(self.offset.to_le_bytes());
        end.extend([0; 2]);
        self.inner.write_all(&end)?;
        Ok(self.inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::zip_reader::Archive;

    fn sample() -> Vec<u8> {
        let mut writer = ZipWriter::new(Vec::new());
        writer.add("a/b.py", b"print()\n", false).unwrap();
        writer.add("run", &[b'x'; 5000], true).unwrap();
        writer.add("empty", b"", false).unwrap();
        writer.add("Ünïcode", b"body", false).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn our_own_reader_agrees() {
        let bytes = sample();
        let archive = Archive::parse(&bytes).unwrap();
        let found: Vec<_> = archive.entries().iter().map(|entry| (entry.size, entry.executable)).collect();
        assert_eq!(found, [(8, false), (5000, true), (0, false), (4, false)]);
        assert_eq!(archive.read(&archive.entries()[1], 1 << 20).unwrap(), [b'x'; 5000]);
    }

    #[test]
    fn another_reader_agrees() {
        let mut archive = zip::ZipArchive::new(io::Cursor::new(sample())).unwrap();
        assert_eq!(archive.len(), 4);
        let mut entry = archive.by_name("Ünïcode").unwrap();
        let mut body = String::new();
        entry.read_to_string(&mut body).unwrap();
        assert_eq!((body.as_str(), entry.unix_mode()), ("body", Some(0o100_644)));
        let date = entry.last_modified().unwrap();
        assert_eq!((date.year(), date.month(), date.day(), date.hour()), (1980, 1, 1, 0));
    }
}
