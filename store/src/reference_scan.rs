//! Finding and replacing the hash parts of store paths in a stream.
//!
//! Nix finds references by looking for the 32 base-32 digits of each candidate anywhere in an object's archive: in contents,
//! names and link targets, also inside longer runs of such digits. What is compressed or encoded otherwise is not found.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::base32::is_digit;
use crate::hash::{Algorithm, Hash, Hasher};
use crate::path::{HASH_PART_LENGTH, StorePath};

type HashPart = [u8; HASH_PART_LENGTH];

fn hash_part(path: &StorePath) -> HashPart {
    path.hash_part().as_bytes().try_into().expect("a hash part has 32 digits")
}

/// Calls `visit` with the offset of every run of 32 digits, overlapping ones included.
///
/// A window is checked from its end, so text without long runs is passed over nearly 32 bytes at a time.
fn for_each_window(bytes: &[u8], mut visit: impl FnMut(usize, &HashPart)) {
    let mut at = 0;
    // How many bytes at the start of the window are known to be digits.
    let mut known = 0;
    while let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HASH_PART_LENGTH>) {
        match window[known..].iter().rposition(|byte| !is_digit(*byte)) {
            Some(position) => {
                at += known + position + 1;
                known = 0;
            }
            None => {
                visit(at, window);
                at += 1;
                known = HASH_PART_LENGTH - 1;
            }
        }
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The candidates whose hash part occurs; the object's own path is not among them.
    pub found: BTreeSet<StorePath>,
    /// Where the object's own hash part occurs, ascending and without overlaps.
    pub own_offsets: Vec<u64>,
}

/// Finds the hash parts of candidates in what is written to it, however the stream is cut into pieces.
///
/// ```
/// use std::{collections::BTreeSet, io::Write as _};
/// use ampoule_store::{path::StorePath, reference_scan::ReferenceScanner};
/// let path: StorePath = "fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello".parse()?;
/// let mut scanner = ReferenceScanner::new([&path], None);
/// scanner.write_all(b"#!/nix/store/fvchbymk0m4jv")?;
/// scanner.write_all(b"ldpb9m5hy0bjy2lf30k-hello/bin/hello")?;
/// assert_eq!(scanner.finish().found, BTreeSet::from([path]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReferenceScanner {
    /// Sorted by hash part. Several paths may share one.
    candidates: Vec<(HashPart, StorePath)>,
    seen: Vec<bool>,
    own: Option<HashPart>,
    own_offsets: Vec<u64>,
    /// The end of what was written, shorter than a hash part.
    tail: Vec<u8>,
    /// The number of bytes written before the tail.
    before_tail: u64,
}

impl ReferenceScanner {
    /// A scanner for these candidates, which records every place of the object's own hash part. Own may be a candidate too.
    pub fn new<'a>(candidates: impl IntoIterator<Item = &'a StorePath>, own: Option<&StorePath>) -> Self {
        let mut candidates: Vec<_> = candidates
            .into_iter()
            .filter(|path| Some(*path) != own)
            .map(|path| (hash_part(path), path.clone()))
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        Self {
            seen: vec![false; candidates.len()],
            candidates,
            own: own.map(hash_part),
            own_offsets: Vec::new(),
            tail: Vec::new(),
            before_tail: 0,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.candidates.is_empty() && self.own.is_none() {
            return;
        }
        let mut tail = std::mem::take(&mut self.tail);
        let head = &bytes[..bytes.len().min(HASH_PART_LENGTH - 1)];
        let tail_length = tail.len();
        // What lies across the edge: the tail and as much of the new bytes as a hash part can reach into.
        tail.extend_from_slice(head);
        self.scan(&tail, self.before_tail);
        let start = self.before_tail + tail_length as u64;
        if bytes.len() < HASH_PART_LENGTH {
            let surplus = tail.len().saturating_sub(HASH_PART_LENGTH - 1);
            tail.drain(..surplus);
            self.before_tail += surplus as u64;
        } else {
            self.scan(bytes, start);
            let rest = bytes.len() - (HASH_PART_LENGTH - 1);
            tail.clear();
            tail.extend_from_slice(&bytes[rest..]);
            self.before_tail = start + rest as u64;
        }
        self.tail = tail;
    }

    fn scan(&mut self, bytes: &[u8], start: u64) {
        for_each_window(bytes, |at, window| {
            if self.own.as_ref() == Some(window) {
                let offset = start + at as u64;
                let free = self.own_offsets.last().is_none_or(|last| last + HASH_PART_LENGTH as u64 <= offset);
                if free {
                    self.own_offsets.push(offset);
                }
            }
            let first = self.candidates.partition_point(|(part, _)| part < window);
            let equal = self.candidates[first..].iter().take_while(|(part, _)| part == window).count();
            self.seen[first..first + equal].fill(true);
        });
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Scan {
        let found = self.candidates.into_iter().zip(self.seen).filter(|(_, seen)| *seen).map(|((_, path), _)| path);
        Scan { found: found.collect(), own_offsets: self.own_offsets }
    }
}

impl Write for ReferenceScanner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to two sinks: hash and scan, or hash and copy, in one pass.
#[derive(Debug, Default)]
pub struct Tee<A, B>(pub A, pub B);

impl<A: Write, B: Write> Write for Tee<A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.1.flush()
    }
}

/// Replaces every occurrence of one hash part by other bytes of the same length, on the way to a sink.
///
/// Occurrences are taken from the left and do not overlap. The last bytes are held back until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Rewriter<W> {
    sink: W,
    from: HashPart,
    to: HashPart,
    offsets: Vec<u64>,
    pending: Vec<u8>,
    /// The number of bytes that went to the sink.
    written: u64,
    /// Where the last occurrence ends: no other starts before, whatever the bytes put there look like.
    free: u64,
}

impl<W: Write> Rewriter<W> {
    /// Replaces the hash part of one store path by that of another.
    pub fn new(sink: W, from: &StorePath, to: &StorePath) -> Self {
        Self::with_bytes(sink, hash_part(from), hash_part(to))
    }

    /// Replaces the hash part by NUL bytes.
    fn blank(sink: W, own: &StorePath) -> Self {
        Self::with_bytes(sink, hash_part(own), [0; HASH_PART_LENGTH])
    }

    const fn with_bytes(sink: W, from: HashPart, to: HashPart) -> Self {
        Self { sink, from, to, offsets: Vec::new(), pending: Vec::new(), written: 0, free: 0 }
    }

    /// Writes what was held back; returns the sink and the offset of each occurrence.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn finish(mut self) -> io::Result<(W, Vec<u64>)> {
        self.sink.write_all(&self.pending)?;
        Ok((self.sink, self.offsets))
    }

    /// Replaces in `pending`, which starts at `written`.
    fn replace(&mut self) {
        let mut places = Vec::new();
        for_each_window(&self.pending, |at, window| {
            let offset = self.written + at as u64;
            if offset >= self.free && *window == self.from {
                places.push(at);
                self.free = offset + HASH_PART_LENGTH as u64;
            }
        });
        for at in places {
            self.pending[at..at + HASH_PART_LENGTH].copy_from_slice(&self.to);
            self.offsets.push(self.written + at as u64);
        }
    }
}

impl<W: Write> Write for Rewriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        self.replace();
        // An occurrence that is not complete yet starts in the last 31 bytes.
        let keep = self.pending.len().min(HASH_PART_LENGTH - 1);
        let done = self.pending.len() - keep;
        self.sink.write_all(&self.pending[..done])?;
        self.pending.drain(..done);
        self.written += done as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Hashes an object's archive modulo its own path: every occurrence of its hash part counts as 32 NUL bytes, and the offset of
/// each, as `|` and a decimal number, follows the archive. Without occurrences this is the plain hash.
///
/// (Nix 2.17 to 2.34 left out the offsets; 2.8 and 2.35 agree on this form.)
#[derive(Debug)]
pub struct HashModulo {
    rewriter: Rewriter<Hasher>,
}

impl HashModulo {
    /// A hasher modulo `own`.
    #[must_use]
    pub fn new(algorithm: Algorithm, own: &StorePath) -> Self {
        Self { rewriter: Rewriter::blank(Hasher::new(algorithm), own) }
    }

    /// The hash, and where the own hash part occurred.
    #[must_use]
    pub fn finish(self) -> (Hash, Vec<u64>) {
        let (mut hasher, offsets) = self.rewriter.finish().expect("a hasher takes all bytes");
        for offset in &offsets {
            hasher.update(format!("|{offset}").as_bytes());
        }
        (hasher.finish(), offsets)
    }
}

impl Write for HashModulo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rewriter.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(base_name: &str) -> StorePath {
        base_name.parse().unwrap()
    }

    fn sample() -> (StorePath, StorePath, StorePath) {
        (
            path("fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello"),
            path("z4asv3j07d89ywjf8fxkn7sg6mf5s9q5-dep"),
            path("2afr4prs10604j2dqdrp5ara1g9ip7mf-own"),
        )
    }

    /// Scans the text cut into pieces of every length.
    fn check(text: &[u8], candidates: &[StorePath], own: Option<&StorePath>, expected: &Scan) {
        for piece in 1..=text.len() {
            let mut scanner = ReferenceScanner::new(candidates, own);
            text.chunks(piece).for_each(|chunk| scanner.update(chunk));
            assert_eq!(&scanner.finish(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn hash_parts_are_found_wherever_the_stream_is_cut() {
        let (hello, dep, own) = sample();
        let text = format!("..{hello}{}x0123456789abcdf{}-{own} {}", own.hash_part(), dep.hash_part(), own.hash_part());
        let offsets = text.match_indices(own.hash_part()).map(|(offset, _)| offset as u64).collect::<Vec<_>>();
        assert_eq!(offsets.len(), 3);
        let expected = Scan { found: BTreeSet::from([hello.clone(), dep.clone()]), own_offsets: offsets };
        check(text.as_bytes(), &[hello.clone(), dep.clone(), own.clone()], Some(&own), &expected);
        let only_hello = Scan { found: BTreeSet::from([hello.clone()]), own_offsets: Vec::new() };
        check(text.as_bytes(), &[hello], None, &only_hello);
    }

    #[test]
    fn what_is_altered_or_cut_is_not_found() {
        let (hello, dep, _) = sample();
        let text = format!("{} {} {}", hello.hash_part().to_uppercase(), &dep.hash_part()[1..], &dep.hash_part()[..31]);
        check(text.as_bytes(), &[hello, dep], None, &Scan::default());
    }

    #[test]
    fn paths_that_share_a_hash_part_are_all_found() {
        let (hello, ..) = sample();
        let twin = path("fvchbymk0m4jvldpb9m5hy0bjy2lf30k-other");
        let expected = Scan { found: BTreeSet::from([hello.clone(), twin.clone()]), own_offsets: Vec::new() };
        check(hello.base_name().as_bytes(), &[hello.clone(), twin], None, &expected);
    }

    #[test]
    fn occurrences_that_overlap_count_once() {
        let own = path(&format!("{}-own", "a".repeat(32)));
        let text = "a".repeat(100);
        let expected = Scan { found: BTreeSet::new(), own_offsets: vec![0, 32, 64] };
        check(text.as_bytes(), &[], Some(&own), &expected);
        let to = path("fvchbymk0m4jvldpb9m5hy0bjy2lf30k-to");
        for piece in 1..=text.len() {
            let mut rewriter = Rewriter::new(Vec::new(), &own, &to);
            text.as_bytes().chunks(piece).for_each(|chunk| rewriter.write_all(chunk).unwrap());
            let (bytes, offsets) = rewriter.finish().unwrap();
            assert_eq!(offsets, expected.own_offsets, "pieces of {piece}");
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{}aaaa", to.hash_part().repeat(3)));
        }
    }

    #[test]
    fn what_was_put_in_is_not_taken_for_an_occurrence() {
        let own = path(&format!("{}{}-own", "a".repeat(16), "b".repeat(16)));
        let to = path(&format!("{}-to", "a".repeat(32)));
        let text = format!("{}{}", own.hash_part(), "b".repeat(16));
        for piece in 1..=text.len() {
            let mut rewriter = Rewriter::new(Vec::new(), &own, &to);
            text.as_bytes().chunks(piece).for_each(|chunk| rewriter.write_all(chunk).unwrap());
            let (bytes, offsets) = rewriter.finish().unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{}{}", "a".repeat(32), "b".repeat(16)));
            assert_eq!(offsets, [0]);
        }
    }

    #[test]
    fn rewriting_changes_the_hash_part_and_nothing_else() {
        let (hello, dep, own) = sample();
        let text = format!("{own}/{}{}.{hello}", own.hash_part(), own.hash_part());
        let expected = text.replace(own.hash_part(), dep.hash_part());
        for piece in 1..=text.len() {
            let mut rewriter = Rewriter::new(Vec::new(), &own, &dep);
            text.as_bytes().chunks(piece).for_each(|chunk| rewriter.write_all(chunk).unwrap());
            let (bytes, offsets) = rewriter.finish().unwrap();
            assert_eq!((String::from_utf8(bytes).unwrap(), offsets), (expected.clone(), vec![0, 37, 69]));
        }
    }

    #[test]
    fn the_hash_modulo_covers_zeros_and_offsets() {
        let (.., own) = sample();
        let text = format!("a{own}");
        let mut hasher = HashModulo::new(Algorithm::Sha256, &own);
        hasher.write_all(text.as_bytes()).unwrap();
        let blanked = format!("a{}-own|1", "\0".repeat(32));
        assert_eq!(hasher.finish(), (Hash::of(Algorithm::Sha256, blanked.as_bytes()), vec![1]));
        let mut plain = HashModulo::new(Algorithm::Sha256, &own);
        plain.write_all(b"nothing of it").unwrap();
        assert_eq!(plain.finish(), (Hash::of(Algorithm::Sha256, b"nothing of it"), Vec::new()));
    }
}
