//! Archives to events, from a stream that nobody vouches for.

use std::io::{self, BufRead};

use super::wire::{MAGIC, NAME_LENGTH_LIMIT, TARGET_LENGTH_LIMIT, is_valid_name, padding, tokens};

/// The longest word of the format itself.
const WORD_LENGTH_LIMIT: usize = 16;

/// Why a stream is no archive. Offsets count bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stream failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends too early.
    #[error("the archive ends early, at byte {offset}")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// The stream does not start like an archive.
    #[error("not an archive: it does not start with `nix-archive-1`")]
    Magic,
    /// A word of the format is missing.
    #[error("malformed archive: {expected} expected before byte {offset}")]
    Token {
        /// Just after it.
        offset: u64,
        /// What should have been there.
        expected: &'static str,
    },
    /// Padding is not zero.
    #[error("malformed archive: padding before byte {offset} is not zero")]
    Padding {
        /// Just after it.
        offset: u64,
    },
    /// A name or target is longer than a file system could hold.
    #[error("malformed archive: a {what} of {length} bytes before byte {offset}")]
    Length {
        /// Just after the length.
        offset: u64,
        /// `file name` or `link target`.
        what: &'static str,
        /// Its length.
        length: u64,
    },
    /// An entry's name is empty, `.`, `..`, or holds a slash or NUL.
    #[error("malformed archive: `{}` is no file name, before byte {offset}", name.escape_ascii())]
    Name {
        /// Just after it.
        offset: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// An entry does not sort after the one before it.
    #[error("malformed archive: entry `{}` does not sort after `{}`, before byte {offset}", name.escape_ascii(), previous.escape_ascii())]
    Order {
        /// Just after the name.
        offset: u64,
        /// The name.
        name: Vec<u8>,
        /// The name before it.
        previous: Vec<u8>,
    },
    /// Something follows the archive.
    #[error("the archive ends at byte {offset}, but more follows")]
    Trailing {
        /// Where it ends.
        offset: u64,
    },
}

/// A step of the walk through the archived tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A regular file; its contents can be read before the next event.
    Regular {
        /// Whether its owner may execute it.
        executable: bool,
        /// Its length in bytes, as claimed: the stream may end before.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes, possibly none.
        target: &'a [u8],
    },
    /// A directory starts; entries follow.
    Directory,
    /// An entry of the open directory; its node is the next event.
    Entry {
        /// Its name, greater than the last one's.
        name: &'a [u8],
    },
    /// The open directory ends.
    EndDirectory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Magic,
    Node,
    Contents { missing: u64, size: u64 },
    Entry,
    Nothing,
}

/// Reads an archive as [`Event`]s, and no byte beyond its end.
///
/// As strict as current Nix: what it accepts is the one archive of its tree. Memory follows the depth of the tree, bounded by the
/// stream's own length, and never a length that the stream claims.
#[derive(Debug)]
pub struct Decoder<R> {
    source: R,
    offset: u64,
    expects: Expects,
    /// The last entry's name of every open directory, one after the other.
    names: Vec<u8>,
    /// Where each of them starts in `names`.
    starts: Vec<usize>,
    target: Vec<u8>,
}

impl<R: BufRead> Decoder<R> {
    /// A decoder of the archive that starts here.
    pub fn new(source: R) -> Self {
        Self { source, offset: 0, expects: Expects::Magic, names: Vec::new(), starts: Vec::new(), target: Vec::new() }
    }

    /// The number of bytes read so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next event; `None` after the root is complete. Contents that were not read are passed over.
    ///
    /// # Errors
    /// When the stream fails or is no archive. After an error nothing more can be read.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, DecodeError> {
        if self.expects == Expects::Magic {
            self.expect(tokens!(MAGIC), "`nix-archive-1`").map_err(|error| match error {
                DecodeError::Token { .. } => DecodeError::Magic,
                other => other,
            })?;
            self.expects = Expects::Node;
        }
        if let Expects::Contents { size, .. } = self.expects {
            self.skip_contents()?;
            self.expect_padding(size)?;
            self.end_node()?;
        }
        match self.expects {
            Expects::Node => self.node().map(Some),
            Expects::Entry => self.entry_or_end().map(Some),
            _ => Ok(None),
        }
    }

    /// The next piece of the file's contents; empty when all of them are [consumed](Self::consume_contents).
    ///
    /// # Errors
    /// When the stream fails or ends.
    pub fn contents(&mut self) -> Result<&[u8], DecodeError> {
        let Expects::Contents { missing: missing @ 1.., .. } = self.expects else { return Ok(&[]) };
        // The buffer is looked at twice because a borrow that may be returned cannot be given up in a loop.
        while let Err(error) = self.source.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(DecodeError::Read(error));
            }
        }
        let piece = self.source.fill_buf().map_err(DecodeError::Read)?;
        if piece.is_empty() {
            return Err(DecodeError::Truncated { offset: self.offset });
        }
        Ok(&piece[..usize::try_from(missing).map_or(piece.len(), |missing| missing.min(piece.len()))])
    }

    /// Says that so many bytes of the last piece are done with.
    pub fn consume_contents(&mut self, count: usize) {
        if let Expects::Contents { missing, .. } = &mut self.expects {
            let count = count.min(usize::try_from(*missing).unwrap_or(usize::MAX));
            self.source.consume(count);
            self.offset += count as u64;
            *missing -= count as u64;
        }
    }

    /// Checks that the root is complete and the stream ends with it; returns the archive's length.
    ///
    /// # Errors
    /// When more events or bytes follow.
    pub fn finish(mut self) -> Result<u64, DecodeError> {
        while self.next_event()?.is_some() {}
        match self.source.read(&mut [0]) {
            Ok(0) => Ok(self.offset),
            Ok(_) => Err(DecodeError::Trailing { offset: self.offset }),
            Err(error) => Err(DecodeError::Read(error)),
        }
    }

    fn node(&mut self) -> Result<Event<'_>, DecodeError> {
        self.expect(tokens!("(", "type"), "a node")?;
        let mut word = [0; WORD_LENGTH_LIMIT];
        match self.word(&mut word)? {
            b"regular" => self.regular(),
            b"directory" => {
                self.starts.push(self.names.len());
                self.expects = Expects::Entry;
                Ok(Event::Directory)
            }
            b"symlink" => {
                self.expect(tokens!("target"), "`target`")?;
                let mut target = std::mem::take(&mut self.target);
                target.clear();
                self.token(&mut target, TARGET_LENGTH_LIMIT, "link target")?;
                self.target = target;
                self.end_node()?;
                Ok(Event::Symlink { target: &self.target })
            }
            _ => Err(self.unexpected("`regular`, `directory` or `symlink`")),
        }
    }

    fn regular(&mut self) -> Result<Event<'_>, DecodeError> {
        let mut word = [0; WORD_LENGTH_LIMIT];
        let executable = match self.word(&mut word)? {
            b"contents" => false,
            b"executable" => {
                self.expect(tokens!(""), "an empty value of `executable`")?;
                self.expect(tokens!("contents"), "`contents`")?;
                true
            }
            _ => return Err(self.unexpected("`executable` or `contents`")),
        };
        let size = self.number()?;
        self.expects = Expects::Contents { missing: size, size };
        Ok(Event::Regular { executable, size })
    }

    fn entry_or_end(&mut self) -> Result<Event<'_>, DecodeError> {
        let mut word = [0; WORD_LENGTH_LIMIT];
        match self.word(&mut word)? {
            b"entry" => self.entry(),
            b")" => {
                if let Some(start) = self.starts.pop() {
                    self.names.truncate(start);
                }
                self.end_entry()?;
                Ok(Event::EndDirectory)
            }
            _ => Err(self.unexpected("`entry` or `)`")),
        }
    }

    fn entry(&mut self) -> Result<Event<'_>, DecodeError> {
        self.expect(tokens!("(", "name"), "an entry's name")?;
        let previous = self.starts.last().copied().unwrap_or_default();
        let start = self.names.len();
        let mut names = std::mem::take(&mut self.names);
        self.token(&mut names, NAME_LENGTH_LIMIT, "file name")?;
        self.names = names;
        let name = &self.names[start..];
        if !is_valid_name(name) {
            return Err(DecodeError::Name { offset: self.offset, name: name.to_owned() });
        }
        let last = &self.names[previous..start];
        if !last.is_empty() && name <= last {
            let (name, previous) = (name.to_owned(), last.to_owned());
            return Err(DecodeError::Order { offset: self.offset, name, previous });
        }
        self.names.drain(previous..start);
        self.expect(tokens!("node"), "`node`")?;
        self.expects = Expects::Node;
        Ok(Event::Entry { name: &self.names[previous..] })
    }

    fn end_node(&mut self) -> Result<(), DecodeError> {
        self.expect(tokens!(")"), "`)`")?;
        self.end_entry()
    }

    /// Reads the end of the entry that held the node that just ended; the root has none.
    fn end_entry(&mut self) -> Result<(), DecodeError> {
        if self.starts.is_empty() {
            self.expects = Expects::Nothing;
            return Ok(());
        }
        self.expects = Expects::Entry;
        self.expect(tokens!(")"), "`)`")
    }

    fn skip_contents(&mut self) -> Result<(), DecodeError> {
        loop {
            match self.contents()?.len() {
                0 => return Ok(()),
                count => self.consume_contents(count),
            }
        }
    }

    /// Reads a short word of the format into `room`.
    fn word<'a>(&mut self, room: &'a mut [u8; WORD_LENGTH_LIMIT]) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        let word = usize::try_from(length).ok().and_then(|length| room.get_mut(..length));
        let word = word.ok_or_else(|| self.unexpected("a word of the format"))?;
        self.read_exact(word)?;
        self.expect_padding(length)?;
        Ok(word)
    }

    /// Appends a token of any bytes.
    fn token(&mut self, bytes: &mut Vec<u8>, limit: usize, what: &'static str) -> Result<(), DecodeError> {
        let length = self.number()?;
        let count = usize::try_from(length).ok().filter(|count| *count <= limit);
        let count = count.ok_or(DecodeError::Length { offset: self.offset, what, length })?;
        let start = bytes.len();
        bytes.resize(start + count, 0);
        self.read_exact(&mut bytes[start..])?;
        self.expect_padding(length)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn expect_padding(&mut self, length: u64) -> Result<(), DecodeError> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes[..padding(length)])?;
        if bytes == [0; 8] { Ok(()) } else { Err(DecodeError::Padding { offset: self.offset }) }
    }

    /// Reads exactly these bytes, at most 64 of them.
    fn expect(&mut self, expected: &[u8], what: &'static str) -> Result<(), DecodeError> {
        let mut bytes = [0; 64];
        let bytes = &mut bytes[..expected.len()];
        self.read_exact(bytes)?;
        if bytes == expected { Ok(()) } else { Err(self.unexpected(what)) }
    }

    const fn unexpected(&self, expected: &'static str) -> DecodeError {
        DecodeError::Token { offset: self.offset, expected }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DecodeError::Truncated { offset: self.offset },
            _ => DecodeError::Read(error),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::Encoder;
    use super::*;

    /// A tree with every kind of node, as events.
    fn sample() -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        encoder.directory().unwrap();
        encoder.entry(b"a").unwrap();
        encoder.regular(true, 9).unwrap();
        encoder.contents(b"123456789").unwrap();
        encoder.entry(b"b\xff").unwrap();
        encoder.directory().unwrap();
        encoder.entry(b"a").unwrap();
        encoder.symlink(b"../a").unwrap();
        encoder.end_directory().unwrap();
        encoder.entry(b"c").unwrap();
        encoder.regular(false, 0).unwrap();
        encoder.end_directory().unwrap();
        encoder.finish().unwrap().0
    }

    /// Decodes and encodes again.
    fn copy(archive: &[u8], buffer: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(io::BufReader::with_capacity(buffer, archive));
        let mut encoder = Encoder::new(Vec::new());
        while let Some(event) = decoder.next_event()? {
            let regular = match event {
                Event::Regular { executable, size } => Some((executable, size)),
                Event::Symlink { target } => encoder.symlink(target).map(|()| None).unwrap(),
                Event::Directory => encoder.directory().map(|()| None).unwrap(),
                Event::Entry { name } => encoder.entry(name).map(|()| None).unwrap(),
                Event::EndDirectory => encoder.end_directory().map(|()| None).unwrap(),
            };
            if let Some((executable, size)) = regular {
                encoder.regular(executable, size).unwrap();
                loop {
                    let count = {
                        let piece = decoder.contents()?;
                        encoder.contents(piece).unwrap();
                        piece.len()
                    };
                    if count == 0 {
                        break;
                    }
                    decoder.consume_contents(count);
                }
            }
        }
        assert_eq!(decoder.finish()?, archive.len() as u64);
        Ok(encoder.finish().unwrap().0)
    }

    #[test]
    fn what_is_decoded_encodes_to_the_same_bytes() {
        let archive = sample();
        for buffer in [1, 7, 4096] {
            assert_eq!(copy(&archive, buffer).unwrap(), archive);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let archive = sample();
        for length in 0..archive.len() {
            assert!(matches!(copy(&archive[..length], 64), Err(DecodeError::Truncated { .. })), "{length}");
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_or_another_tree() {
        let archive = sample();
        for index in 0..archive.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = archive.clone();
                changed[index] ^= flip;
                if let Ok(copied) = copy(&changed, 64) {
                    assert_eq!(copied, changed, "byte {index} is read but not kept");
                }
            }
        }
    }

    /// Decodes an archive of these words after the magic one.
    fn decode_words(words: &[&str]) -> Result<u64, DecodeError> {
        let mut archive = Vec::new();
        for word in [&["nix-archive-1"], words].concat() {
            archive.extend_from_slice(&(word.len() as u64).to_le_bytes());
            archive.extend_from_slice(word.as_bytes());
            archive.resize(archive.len().next_multiple_of(8), 0);
        }
        Decoder::new(&archive[..]).finish()
    }

    #[test]
    fn only_one_archive_of_a_tree_is_accepted() {
        const FILE: [&str; 6] = ["(", "type", "regular", "contents", "x", ")"];
        let directory = |names: &[&'static str]| {
            let mut words = vec!["(", "type", "directory"];
            for name in names {
                words.extend(["entry", "(", "name", name, "node"].into_iter().chain(FILE).chain([")"]));
            }
            words.push(")");
            decode_words(&words)
        };
        assert!(directory(&[]).is_ok() && directory(&["A", "a", "a-b", "a.b", "ab"]).is_ok());
        for names in [&["a", "a"][..], &["b", "a"], &["a.b", "a-b"], &["a", "B"]] {
            assert!(matches!(directory(names), Err(DecodeError::Order { .. })), "{names:?}");
        }
        for name in ["", ".", "..", "a/b", "a\0b"] {
            assert!(matches!(directory(&[name]), Err(DecodeError::Name { .. })), "{name:?}");
        }
        let long = "n".repeat(256);
        let words = [&["(", "type", "directory", "entry", "(", "name", &long, "node"][..], &FILE, &[")", ")"]].concat();
        assert!(matches!(decode_words(&words), Err(DecodeError::Length { what: "file name", length: 256, .. })));
        assert!(decode_words(&["(", "type", "regular", "executable", "", "contents", "x", ")"]).is_ok());
        for words in [
            &["(", "type", "regular", ")"][..],
            &["(", "type", "regular", "contents", "x", "executable", "", ")"],
            &["(", "type", "regular", "executable", "1", "contents", "x", ")"],
            &["(", "type", "regular", "contents", "x", "contents", "x", ")"],
            &["(", "type", "directory", "entry", "(", "node", "(", "type", "directory", ")", "name", "a", ")", ")"],
            &["(", "type", "symlink", ")"],
            &["(", "type", "fifo", ")"],
            &["(", "type", "a word that is much too long", ")"],
        ] {
            assert!(matches!(decode_words(words), Err(DecodeError::Token { .. })), "{words:?}");
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        for words in [&["(", "type", "symlink", "target"][..], &["(", "type", "regular", "contents"]] {
            let mut archive = Vec::new();
            for word in [&["nix-archive-1"], words].concat() {
                archive.extend_from_slice(&(word.len() as u64).to_le_bytes());
                archive.extend_from_slice(word.as_bytes());
                archive.resize(archive.len().next_multiple_of(8), 0);
            }
            archive.extend_from_slice(&u64::MAX.to_le_bytes());
            archive.extend_from_slice(b"short");
            let outcome = Decoder::new(&archive[..]).finish();
            assert!(matches!(outcome, Err(DecodeError::Length { .. } | DecodeError::Truncated { .. })), "{outcome:?}");
        }
    }

    #[test]
    fn bytes_after_the_archive_are_an_error_but_are_not_read_over() {
        let mut archive = sample();
        archive.extend_from_slice(b"more");
        assert!(
            matches!(copy(&archive, 64), Err(DecodeError::Trailing { offset }) if offset + 4 == archive.len() as u64)
        );
        let mut rest = &archive[..];
        let mut decoder = Decoder::new(&mut rest);
        while decoder.next_event().unwrap().is_some() {}
        assert_eq!(rest, b"more");
    }

    #[test]
    fn contents_that_nobody_reads_are_passed_over() {
        let mut decoder = Decoder::new(&sample()[..]).finish();
        assert_eq!(decoder.as_mut().unwrap(), &(sample().len() as u64));
    }
}
