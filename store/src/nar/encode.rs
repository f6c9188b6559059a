//! Archives from events, in the order in which a tree is walked.

use std::io::{self, Write};

use super::wire::{MAGIC, is_valid_name, padding, tokens};

const BUFFER_LENGTH: usize = 256 << 10;
/// Enough for the archive of a small file: most objects are no more than that.
const FIRST_LENGTH: usize = 1 << 10;

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The sink failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// An entry's name is empty, `.`, `..`, or holds a slash or NUL.
    #[error("`{}` is no file name", name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
    },
    /// An entry does not sort after the one before it.
    #[error("`{}` does not sort after `{}`", name.escape_ascii(), previous.escape_ascii())]
    Order {
        /// The name.
        name: Vec<u8>,
        /// The name before it.
        previous: Vec<u8>,
    },
    /// A file's contents are longer or shorter than was said.
    #[error("file contents should be {missing} bytes longer (or shorter when negative)")]
    Contents {
        /// The number of bytes still missing; negative when there are too many.
        missing: i128,
    },
    /// The event cannot come at this place of a tree.
    #[error("`{event}` cannot come here")]
    Sequence {
        /// The event.
        event: &'static str,
    },
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// A file, a link or a directory.
    Node,
    /// So many bytes of contents of a file of `size` bytes.
    Contents { missing: u64, size: u64 },
    /// An entry, or the end of the directory.
    Entry,
    /// Nothing: the root is complete.
    Nothing,
}

/// Writes an archive from events.
///
/// A tree is: [`regular`](Self::regular) and [`contents`](Self::contents) until its size is reached, or
/// [`symlink`](Self::symlink), or [`directory`](Self::directory), then for each name in ascending order
/// [`entry`](Self::entry) and a tree, then [`end_directory`](Self::end_directory). Wrong sequences are errors, so what is
/// [finished](Self::finish) is a valid archive.
///
/// ```
/// let mut encoder = ampoule_store::nar::Encoder::new(Vec::new());
/// encoder.directory()?;
/// encoder.entry(b"hello")?;
/// encoder.regular(false, 3)?;
/// encoder.contents(b"hi\n")?;
/// encoder.end_directory()?;
/// let (archive, length) = encoder.finish()?;
/// assert_eq!(archive.len() as u64, length);
/// # Ok::<(), ampoule_store::nar::EncodeError>(())
/// ```
#[derive(Debug)]
pub struct Encoder<W> {
    sink: W,
    /// Grows up to its final length; the first `filled` bytes wait to be written.
    buffer: Vec<u8>,
    filled: usize,
    /// The number of bytes that have gone to the sink.
    written: u64,
    expects: Expects,
    /// The last entry's name of every open directory, one after the other.
    names: Vec<u8>,
    /// Where each of them starts in `names`.
    starts: Vec<usize>,
}

impl<W: Write> Encoder<W> {
    /// An encoder that writes to `sink`, in large pieces.
    pub fn new(sink: W) -> Self {
        let mut encoder = Self {
            sink,
            buffer: vec![0; FIRST_LENGTH],
            filled: 0,
            written: 0,
            expects: Expects::Node,
            names: Vec::new(),
            starts: Vec::new(),
        };
        const HEAD: &[u8] = tokens!(MAGIC);
        encoder.buffer[..HEAD.len()].copy_from_slice(HEAD);
        encoder.filled = HEAD.len();
        encoder
    }

    /// Starts a regular file of `size` bytes.
    ///
    /// # Errors
    /// When no node may come here or the sink fails.
    pub fn regular(&mut self, executable: bool, size: u64) -> Result<(), EncodeError> {
        const PLAIN: &[u8] = tokens!("(", "type", "regular", "contents");
        const EXECUTABLE: &[u8] = tokens!("(", "type", "regular", "executable", "", "contents");
        self.expect(Expects::Node, "regular file")?;
        self.put(if executable { EXECUTABLE } else { PLAIN })?;
        self.put(&size.to_le_bytes())?;
        self.expects = Expects::Contents { missing: size, size };
        self.end_contents()
    }

    /// The next piece of the file's contents.
    ///
    /// # Errors
    /// When it exceeds the size given, no contents may come here, or the sink fails.
    pub fn contents(&mut self, piece: &[u8]) -> Result<(), EncodeError> {
        self.put_contents(piece.len(), |encoder| encoder.put(piece))
    }

    /// Lets `read` fill in a piece of the file's contents of at most `limit` bytes (and the rest of the file at most), in place.
    /// Returns the number of bytes it gave; 0 says that it gave none, or that no contents are missing.
    ///
    /// # Errors
    /// When `read` fails (the outer result) or the sink does (the inner one).
    pub fn contents_from(
        &mut self,
        limit: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Result<usize, EncodeError>> {
        let Expects::Contents { missing, .. } = self.expects else { return Ok(Ok(0)) };
        let wanted = usize::try_from(missing).unwrap_or(usize::MAX).min(limit).min(BUFFER_LENGTH);
        if let Err(error) = self.make_room(wanted) {
            return Ok(Err(error));
        }
        let room = self.filled..self.filled + wanted;
        let count = read(&mut self.buffer[room])?.min(wanted);
        Ok(self
            .put_contents(count, |encoder| {
                encoder.filled += count;
                Ok(())
            })
            .map(|()| count))
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When no node may come here or the sink fails.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), EncodeError> {
        self.expect(Expects::Node, "symbolic link")?;
        self.put(tokens!("(", "type", "symlink", "target"))?;
        self.put_token(target)?;
        self.end_node()
    }

    /// Starts a directory.
    ///
    /// # Errors
    /// When no node may come here or the sink fails.
    pub fn directory(&mut self) -> Result<(), EncodeError> {
        self.expect(Expects::Node, "directory")?;
        self.put(tokens!("(", "type", "directory"))?;
        self.starts.push(self.names.len());
        self.expects = Expects::Entry;
        Ok(())
    }

    /// Starts an entry of the open directory; its node is next.
    ///
    /// # Errors
    /// When the name is not allowed or does not sort after the last one, no entry may come here, or the sink fails.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), EncodeError> {
        self.expect(Expects::Entry, "directory entry")?;
        if !is_valid_name(name) {
            return Err(EncodeError::Name { name: name.to_owned() });
        }
        let start = *self.starts.last().expect("an entry is expected in an open directory only");
        let previous = &self.names[start..];
        if !previous.is_empty() && name <= previous {
            return Err(EncodeError::Order { name: name.to_owned(), previous: previous.to_owned() });
        }
        self.names.truncate(start);
        self.names.extend_from_slice(name);
        self.put(tokens!("entry", "(", "name"))?;
        self.put_token(name)?;
        self.put(tokens!("node"))?;
        self.expects = Expects::Node;
        Ok(())
    }

    /// Ends the open directory.
    ///
    /// # Errors
    /// When there is none, an entry lacks its node, or the sink fails.
    pub fn end_directory(&mut self) -> Result<(), EncodeError> {
        self.expect(Expects::Entry, "end of directory")?;
        let start = self.starts.pop().expect("an entry is expected in an open directory only");
        self.names.truncate(start);
        self.end_node()
    }

    /// Writes out the rest; returns the sink and the archive's length.
    ///
    /// # Errors
    /// When the tree is not complete or the sink fails.
    pub fn finish(mut self) -> Result<(W, u64), EncodeError> {
        self.expect(Expects::Nothing, "end of archive")?;
        self.write_out()?;
        Ok((self.sink, self.written))
    }

    fn expect(&self, expected: Expects, event: &'static str) -> Result<(), EncodeError> {
        match self.expects {
            found if found == expected => Ok(()),
            Expects::Contents { missing, .. } => Err(EncodeError::Contents { missing: missing.into() }),
            _ => Err(EncodeError::Sequence { event }),
        }
    }

    fn put_contents(
        &mut self,
        length: usize,
        put: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Expects::Contents { missing, size } = self.expects else {
            // An empty piece may follow a file that is already complete.
            return if length == 0 { Ok(()) } else { Err(EncodeError::Sequence { event: "contents" }) };
        };
        let length = length as u64;
        if length > missing {
            return Err(EncodeError::Contents { missing: i128::from(missing) - i128::from(length) });
        }
        put(self)?;
        self.expects = Expects::Contents { missing: missing - length, size };
        self.end_contents()
    }

    fn end_contents(&mut self) -> Result<(), EncodeError> {
        if let Expects::Contents { missing: 0, size } = self.expects {
            self.put(&[0; 8][..padding(size)])?;
            self.end_node()?;
        }
        Ok(())
    }

    /// Closes the node and, but for the root, the entry that holds it.
    fn end_node(&mut self) -> Result<(), EncodeError> {
        if self.starts.is_empty() {
            self.expects = Expects::Nothing;
            self.put(tokens!(")"))
        } else {
            self.expects = Expects::Entry;
            self.put(tokens!(")", ")"))
        }
    }

    fn put_token(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let length = bytes.len() as u64;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)?;
        self.put(&[0; 8][..padding(length)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() >= BUFFER_LENGTH {
            self.write_out()?;
            self.written += bytes.len() as u64;
            return self.sink.write_all(bytes).map_err(EncodeError::Write);
        }
        self.make_room(bytes.len())?;
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }

    /// Makes room for so many more bytes, which are not more than the buffer's final length.
    fn make_room(&mut self, wanted: usize) -> Result<(), EncodeError> {
        if self.buffer.len() - self.filled >= wanted {
            return Ok(());
        }
        if BUFFER_LENGTH - self.filled < wanted {
            self.write_out()?;
        }
        let needed = self.filled + wanted;
        if self.buffer.len() < needed {
            self.buffer.resize(needed.max(BUFFER_LENGTH.min(self.buffer.len() * 4)), 0);
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), EncodeError> {
        self.sink.write_all(&self.buffer[..self.filled]).map_err(EncodeError::Write)?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

/// The archive of one regular file.
#[must_use]
pub fn regular_file(executable: bool, contents: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(contents.len() + 160));
    let written = encoder.regular(executable, contents.len() as u64).and_then(|()| encoder.contents(contents));
    let finished = written.and_then(|()| encoder.finish());
    finished.expect("a vector takes all bytes, and the sequence is a whole file").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_piecewise_contents_give_the_same_bytes() {
        let contents: Vec<u8> = (0..BUFFER_LENGTH * 2 + 3).map(|i| (i % 251) as u8).collect();
        let whole = regular_file(true, &contents);
        for piece in [1000, BUFFER_LENGTH - 1, BUFFER_LENGTH, BUFFER_LENGTH + 1] {
            let mut encoder = Encoder::new(Vec::new());
            encoder.regular(true, contents.len() as u64).unwrap();
            contents.chunks(piece).for_each(|chunk| encoder.contents(chunk).unwrap());
            let (archive, length) = encoder.finish().unwrap();
            assert_eq!((archive.len() as u64, &archive), (length, &whole), "{piece}");

            let mut encoder = Encoder::new(Vec::new());
            encoder.regular(true, contents.len() as u64).unwrap();
            let mut rest = &contents[..];
            while 0 < encoder.contents_from(piece, |room| io::Read::read(&mut rest, room)).unwrap().unwrap() {}
            assert_eq!(encoder.finish().unwrap().0, whole, "{piece}");
        }
    }

    #[test]
    fn wrong_sequences_are_errors() {
        let encoder = || Encoder::new(io::sink());
        assert!(matches!(encoder().finish(), Err(EncodeError::Sequence { event: "end of archive" })));
        assert!(matches!(encoder().entry(b"a"), Err(EncodeError::Sequence { .. })));
        assert!(matches!(encoder().end_directory(), Err(EncodeError::Sequence { .. })));
        assert!(matches!(encoder().contents(b"a"), Err(EncodeError::Sequence { .. })));

        let mut file = encoder();
        file.regular(false, 2).unwrap();
        assert!(matches!(file.contents(b"abc"), Err(EncodeError::Contents { missing: -1 })));
        file.contents(b"a").unwrap();
        assert!(matches!(file.finish(), Err(EncodeError::Contents { missing: 1 })));

        let mut two_roots = encoder();
        two_roots.symlink(b"a").unwrap();
        assert!(matches!(two_roots.symlink(b"b"), Err(EncodeError::Sequence { .. })));

        let mut directory = encoder();
        directory.directory().unwrap();
        assert!(matches!(directory.entry(b".."), Err(EncodeError::Name { .. })));
        directory.entry(b"b").unwrap();
        assert!(matches!(directory.end_directory(), Err(EncodeError::Sequence { .. })));
        directory.symlink(b"").unwrap();
        assert!(matches!(directory.entry(b"b"), Err(EncodeError::Order { .. })));
        assert!(matches!(directory.entry(b"a"), Err(EncodeError::Order { .. })));
        directory.entry(b"b.").unwrap();
        directory.directory().unwrap();
        directory.entry(b"a").unwrap();
        directory.regular(false, 0).unwrap();
        directory.end_directory().unwrap();
        directory.end_directory().unwrap();
        directory.finish().unwrap();
    }
}
