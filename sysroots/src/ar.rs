//! Reads `ar` archives, as Debian packages use them: the common format with short names (`ar(5)`).

use std::io::{self, Read};

use thiserror::Error;

use crate::tree_path::printable;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Why an archive could not be read.
#[derive(Debug, Error)]
pub enum ArError {
    /// The bytes could not be read, or ended early.
    #[error("cannot read the ar archive")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("not an ar archive")]
    Magic,
    /// A member's header makes no sense.
    #[error("the ar archive has a broken member header")]
    Header,
}

/// One member's name and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name, without padding and without GNU's trailing slash. `/` is a static library's table of symbols, `//` that
    /// of long names, and `/12` the one that starts there at byte 12.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// What its maker says of it: when it was changed in Unix seconds, owner, group, and mode in octal, as written.
    pub metadata: [String; 4],
}

/// Reads members in order. Between two calls of [`Reader::next_member`] it is an [`io::Read`] of the member's bytes.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    left: u64,
    padded: bool,
}

impl<R: Read> Reader<R> {
    /// Starts to read an archive.
    pub fn new(mut inner: R) -> Result<Self, ArError> {
        let mut magic = [0; 8];
        inner.read_exact(&mut magic).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArError::Magic,
            _ => ArError::Read(error),
        })?;
        if &magic != MAGIC {
            return Err(ArError::Magic);
        }
        Ok(Reader { inner, left: 0, padded: false })
    }

    /// Moves to the next member, past what is left of the present one.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArError> {
        let skipped = io::copy(&mut (&mut self.inner).take(self.left), &mut io::sink()).map_err(ArError::Read)?;
        if skipped != self.left {
            return Err(ArError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left = 0;
        let mut header = Vec::with_capacity(HEADER + 1);
        let wanted = HEADER as u64 + u64::from(self.padded);
        (&mut self.inner).take(wanted).read_to_end(&mut header).map_err(ArError::Read)?;
        // The last member's padding byte may be missing.
        if header.is_empty() || self.padded && header == b"\n" {
            return Ok(None);
        }
        if self.padded && header.remove(0) != b'\n' || header.len() != HEADER {
            return Err(ArError::Header);
        }
        let member = parse_header(&header).ok_or(ArError::Header)?;
        self.left = member.size;
        self.padded = member.size % 2 == 1;
        Ok(Some(member))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn parse_header(header: &[u8]) -> Option<Member> {
    if header.get(58..60)? != b"`\n" {
        return None;
    }
    let name = header.get(..16)?.trim_ascii_end();
    let name = name.strip_suffix(b"/").filter(|name| !matches!(*name, b"" | b"/")).unwrap_or(name);
    let size = header.get(48..58)?.trim_ascii_end();
    if name.is_empty() || size.is_empty() || !size.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = std::str::from_utf8(size).ok()?.parse().ok()?;
    let metadata = [16..28, 28..34, 34..40, 40..48].map(|field| printable(header[field].trim_ascii_end()));
    Some(Member { name: printable(name), size, metadata })
}

/// Writes an archive, for tests.
#[cfg(test)]
pub(crate) fn encode(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = MAGIC.to_vec();
    for (name, body) in members {
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, body.len()).bytes());
        archive.extend(*body);
        if body.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArError> {
        let mut reader = Reader::new(archive)?;
        let mut found = Vec::new();
        while let Some(member) = reader.next_member()? {
            let mut body = Vec::new();
            reader.read_to_end(&mut body).map_err(ArError::Read)?;
            found.push((member.name, body));
        }
        Ok(found)
    }

    #[test]
    fn members_come_back_with_and_without_padding() {
        let archive = encode(&[("debian-binary", b"2.0\n"), ("odd/", b"abc"), ("even", b"")]);
        let expected = [("debian-binary", &b"2.0\n"[..]), ("odd", b"abc"), ("even", b"")];
        assert_eq!(members(&archive).unwrap(), expected.map(|(name, body)| (name.to_owned(), body.to_vec())));
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_list() {
        let archive = encode(&[("one", b"12345"), ("two", b"123456")]);
        for length in 0..archive.len() {
            if let Ok(found) = members(&archive[..length]) {
                assert!(found.len() < 2, "{length}");
            }
        }
    }

    #[test]
    fn no_flipped_byte_panics() {
        let archive = encode(&[("one", b"12345"), ("two", b"123456")]);
        for index in 0..archive.len() {
            for value in [0, b'-', b'9', 0xff] {
                let mut broken = archive.clone();
                broken[index] = value;
                drop(members(&broken));
            }
        }
    }
}
