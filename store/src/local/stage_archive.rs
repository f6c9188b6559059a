//! Objects out of archives that somebody else made: restored, hashed and measured in one pass.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

use rustix::fs::{AtFlags, FileType};

use super::LocalStore;
use super::copy::Kind;
use super::failure::FileError;
use super::make_address::{AddressError, hash_modulo};
use super::stage::Staged;
use crate::content_address::{ContentAddress, ContentPathError, Method, References};
use crate::hash::{Algorithm, Hash, Sha256Hasher};
use crate::nar::RestoreError;
use crate::path::StorePath;

/// Why an archive did not become an object. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StageArchiveError {
    /// The stream is no archive, breaks off, or cannot be written.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LocalStore {
    /// Makes an object of the archive that starts here, and reads nothing after its end. At most `limit` bytes are taken.
    ///
    /// Memory does not follow the archive's size. Nothing is scanned for.
    ///
    /// # Errors
    /// When the stream is no archive or longer than the limit, or the tree cannot be written.
    pub fn stage_archive(&self, archive: impl BufRead, limit: u64) -> Result<Staged, StageArchiveError> {
        let place = self.new_place()?;
        let (directory, name) = place.get();
        let mut archive = Observed { source: archive, hasher: Sha256Hasher::new(), seen: 0, left: limit };
        let nar_size = crate::nar::restore_object(&mut archive, directory, name)?;
        archive.pass_on();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|source| FileError::new("look at", place.path(), source))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Regular { executable: stat.st_mode & 0o100 != 0 },
        };
        let nar_hash = archive.hasher.finish();
        Ok(Staged { place, kind, nar_hash, nar_size, references: BTreeSet::new(), self_reference: false })
    }

    /// Whether a staged object's content is what this address says, for an object of this path and these references.
    ///
    /// # Errors
    /// When the object cannot be read.
    pub fn content_fits(
        &self,
        staged: &Staged,
        path: &StorePath,
        address: &ContentAddress,
        references: &References,
    ) -> Result<bool, AddressError> {
        let computed = match self.store_dir.content_addressed_path(path.name(), address, references) {
            Ok(computed) => computed,
            Err(ContentPathError::Name(error)) => return Err(ContentPathError::Name(error).into()),
            Err(_) => return Ok(false),
        };
        if computed != *path {
            return Ok(false);
        }
        Ok(self.hash_for(staged, path, address.method, address.hash.algorithm(), references)?.as_ref()
            == Some(&address.hash))
    }

    /// The address from which a staged object's path follows, with SHA-256: texts, sources, fixed outputs.
    ///
    /// # Errors
    /// When the object cannot be read.
    pub fn find_address(
        &self,
        staged: &Staged,
        path: &StorePath,
        references: &References,
    ) -> Result<Option<ContentAddress>, AddressError> {
        for method in [Method::Nar, Method::Text, Method::Flat] {
            let Some(hash) = self.hash_for(staged, path, method, Algorithm::Sha256, references)? else { continue };
            let address = ContentAddress { method, hash };
            let computed = self.store_dir.content_addressed_path(path.name(), &address, references);
            if computed.as_ref() == Ok(path) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// The hash of a staged object by the method and algorithm of an address; `None` if the object has none.
    fn hash_for(
        &self,
        staged: &Staged,
        path: &StorePath,
        method: Method,
        algorithm: Algorithm,
        references: &References,
    ) -> Result<Option<Hash>, AddressError> {
        if method == Method::Nar && references.self_reference {
            return Ok(Some(hash_modulo(staged, path)?));
        }
        match self.content_hash(staged, path.name(), method, algorithm) {
            Ok(hash) => Ok(Some(hash)),
            Err(AddressError::NotFlat { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Passes bytes on while it hashes those that were consumed, in pieces as large as the source gives.
struct Observed<R> {
    source: R,
    hasher: Sha256Hasher,
    /// How many bytes of the source's buffer were consumed and are not hashed yet.
    seen: usize,
    /// How many bytes may still be consumed.
    left: u64,
}

impl<R: BufRead> Observed<R> {
    /// Hashes what was consumed, and lets the source go on.
    fn pass_on(&mut self) {
        if self.seen == 0 {
            return;
        }
        // What is not consumed yet is still in the buffer, so this reads nothing.
        if let Ok(buffer) = self.source.fill_buf() {
            let seen = self.seen.min(buffer.len());
            self.hasher.update(&buffer[..seen]);
        }
        self.source.consume(self.seen);
        self.seen = 0;
    }
}

impl<R: BufRead> BufRead for Observed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.seen > 0 && self.source.fill_buf()?.len() == self.seen {
            self.pass_on();
        }
        let buffer = &self.source.fill_buf()?[self.seen..];
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("it is longer than it may be"));
        }
        Ok(&buffer[..usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()))])
    }

    fn consume(&mut self, count: usize) {
        self.seen += count;
        self.left -= count as u64;
    }
}

impl<R: BufRead> Read for Observed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::io::BufReader;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::super::fixture::{Home, stage};
    use super::*;

    /// A tree, its archive, and what staging the tree itself gives.
    fn example(home: &Home) -> (Vec<u8>, Staged) {
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/large"), vec![b'x'; 700_000]).unwrap();
        fs::write(tree.join("a/b/small"), "y").unwrap();
        symlink("nowhere", tree.join("link")).unwrap();
        let mut archive = Vec::new();
        crate::nar::dump(&tree, &mut archive).unwrap();
        (archive, stage(&home.open(), &tree).unwrap())
    }

    #[test]
    fn an_archive_becomes_the_object_that_its_tree_would() {
        let home = Home::new();
        let store = home.open();
        let (archive, expected) = example(&home);
        for capacity in [1, 7, 64, 1 << 16] {
            let more = [&archive[..], b"more"].concat();
            let mut source = BufReader::with_capacity(capacity, &more[..]);
            let staged = store.stage_archive(&mut source, archive.len() as u64).unwrap();
            assert_eq!((staged.nar_hash(), staged.nar_size()), (expected.nar_hash(), expected.nar_size()));
            assert_eq!(staged.kind(), Kind::Directory);
            let mut rest = String::new();
            source.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "more");
            for (path, mode) in [("", 0o755), ("a", 0o555), ("a/b/small", 0o444), ("link", 0o777)] {
                let stat = fs::symlink_metadata(staged.path().join(path)).unwrap();
                assert_eq!((stat.mode() & 0o7777, stat.mtime()), (mode, 1), "{path}");
            }
        }
    }

    #[test]
    fn an_archive_that_is_too_long_or_breaks_off_leaves_nothing() {
        let home = Home::new();
        let store = home.open();
        let (archive, expected) = example(&home);
        drop(expected);
        for limit in [0, 1, 700_000, archive.len() as u64 - 1] {
            store.stage_archive(&archive[..], limit).unwrap_err();
        }
        for length in [0, 1, 100, 700_000, archive.len() - 1] {
            store.stage_archive(&archive[..length], u64::MAX).unwrap_err();
        }
        assert!(home.staged_names().is_empty());
    }
}
