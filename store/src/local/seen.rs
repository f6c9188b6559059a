//! What was added before, by its looks: one file in the home's `seen` directory for each tree, named by device and inode.
//!
//! A record says which archive a tree had when it looked as it does. It is a cache: what cannot be read or is not whole
//! counts as absent, none is written to disk with any care, the oldest go when there are many. That the object is in the
//! store is asked of the store each time.

use std::ffi::{CString, OsStr};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::LocalStore;
use super::copy::write_all;
use super::descent::entries;
use super::look::{Look, file_system, look_again};
use crate::hash::{Sha256Digest, Sha256Hasher};
use crate::nar::{DIRECTORY, NarHash};

/// The first bytes of every record. The number changes with the form.
const MAGIC: &[u8; 16] = b"ampoule seen  1\n";
/// The bytes of a SHA-256.
const DIGEST_LENGTH: usize = 32;
/// The magic, the time, the file system, the digest of the look, the archive's hash and size; a digest ends the record.
const HEAD_LENGTH: usize = 16 + 8 + 8 + DIGEST_LENGTH + DIGEST_LENGTH + 8;
/// No record is longer, so that one can be read into memory.
const RECORD_LIMIT: u64 = 32 << 20;
/// The most records that are kept, and the most bytes they may have together.
const RECORDS: usize = 512;
const BYTES: u64 = 64 << 20;

/// A tree that may be known.
pub(super) struct Subject<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    pub(super) stat: &'a Stat,
}

impl Subject<'_> {
    fn record_name(&self) -> String {
        format!("{:x}-{:x}", self.stat.st_dev, self.stat.st_ino)
    }

    /// The file system the tree is in, if that can be trusted.
    fn file_system(&self) -> Option<u64> {
        // Of a file it is that of its directory; were something else mounted there, the device would be another.
        match rustix::fs::openat(self.parent, self.name, DIRECTORY, Mode::empty()) {
            Ok(directory) => file_system(directory.as_fd()),
            Err(Errno::NOTDIR | Errno::LOOP) => file_system(self.parent),
            Err(_) => None,
        }
    }
}

impl LocalStore {
    /// The archive's hash of something that looks exactly as it did when it was added before.
    pub(super) fn recognise(&self, subject: &Subject<'_>, now: i64) -> Option<NarHash> {
        let record = read_record(&self.open_seen().ok()?, &subject.record_name())?;
        let (head, steps) = parse(&record)?;
        if head.taken_at > now || subject.file_system() != Some(head.file_system) {
            return None;
        }
        let name = CString::new(subject.name.as_bytes()).ok()?;
        (look_again(subject.parent, &name, steps)? == head.look).then_some(head.nar)
    }

    /// Remembers what something looked like whose archive is this. Not being able to is no failure.
    pub(super) fn remember(&self, subject: &Subject<'_>, look: Look, nar: NarHash) {
        let taken_at = look.taken_at;
        let Some((steps, look)) = look.finish(nar.size) else { return };
        let Some(file_system) = subject.file_system() else { return };
        // Not put together before: the steps of a large tree take much memory.
        let head = write_head(&Head { taken_at, file_system, look, nar });
        let end = digest_of(&head, &steps);
        let _ = self.put_record(&subject.record_name(), [&head, &steps, end.as_bytes()]);
    }

    fn put_record(&self, name: &str, parts: [&[u8]; 3]) -> rustix::io::Result<()> {
        let seen = self.open_seen()?;
        make_room(&seen, parts.iter().map(|part| part.len() as u64).sum())?;
        let session = self.session().map_err(|error| Errno::from_io_error(&error.source).unwrap_or(Errno::IO))?;
        let temporary = session.new_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(session.fd(), &temporary, flags, Mode::from_raw_mode(0o600))?;
        let written = parts.iter().try_for_each(|part| write_all(&file, part));
        let done = written.and_then(|()| rustix::fs::renameat(session.fd(), &temporary, &seen, name));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(session.fd(), &temporary, AtFlags::empty());
        }
        done
    }

    fn open_seen(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(self.layout.home.join("seen"), DIRECTORY, Mode::empty())
    }
}

/// Removes the oldest records while there are too many for one more of so many bytes.
fn make_room(seen: &OwnedFd, length: u64) -> rustix::io::Result<()> {
    let mut records = Vec::new();
    for entry in entries(seen.as_fd())? {
        if let Ok(stat) = rustix::fs::statat(seen, &*entry.name, AtFlags::SYMLINK_NOFOLLOW) {
            records.push(((stat.st_mtime, stat.st_mtime_nsec), stat.st_size.cast_unsigned(), entry.name));
        }
    }
    records.sort_unstable();
    let (mut count, mut bytes) = (records.len(), records.iter().map(|record| record.1).sum::<u64>() + length);
    for (_, size, name) in records {
        if count < RECORDS && bytes <= BYTES {
            break;
        }
        rustix::fs::unlinkat(seen, &*name, AtFlags::empty())?;
        count -= 1;
        bytes -= size;
    }
    Ok(())
}

fn read_record(seen: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(seen, name, flags, Mode::empty()).ok()?;
    let length = rustix::fs::fstat(&file).ok()?.st_size.cast_unsigned();
    if length > RECORD_LIMIT {
        return None;
    }
    let mut record = vec![0; usize::try_from(length).ok()?];
    let mut filled = 0;
    while filled < record.len() {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut record[filled..])).ok()? {
            0 => return None,
            count => filled += count,
        }
    }
    Some(record)
}

/// What a record says, apart from the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    taken_at: i64,
    file_system: u64,
    look: Sha256Digest,
    nar: NarHash,
}

fn write_head(head: &Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_LENGTH);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&head.taken_at.to_le_bytes());
    bytes.extend_from_slice(&head.file_system.to_le_bytes());
    bytes.extend_from_slice(head.look.as_bytes());
    bytes.extend_from_slice(head.nar.sha256.as_bytes());
    bytes.extend_from_slice(&head.nar.size.to_le_bytes());
    bytes
}

/// What a record ends with.
fn digest_of(head: &[u8], steps: &[u8]) -> Sha256Digest {
    let mut hasher = Sha256Hasher::new();
    [head, steps].iter().for_each(|part| hasher.write_all(part).expect("a hasher takes all"));
    hasher.finish()
}

/// Takes a record apart; `None` if it is not exactly what was written.
fn parse(record: &[u8]) -> Option<(Head, &[u8])> {
    let (signed, digest) = record.split_last_chunk::<DIGEST_LENGTH>()?;
    let (magic, rest) = signed.split_first_chunk::<16>()?;
    if magic != MAGIC || Sha256Digest::of(signed).as_bytes() != digest {
        return None;
    }
    let (taken_at, rest) = rest.split_first_chunk()?;
    let (file_system, rest) = rest.split_first_chunk()?;
    let (look, rest) = rest.split_first_chunk()?;
    let (sha256, rest) = rest.split_first_chunk()?;
    let (size, steps) = rest.split_first_chunk()?;
    let head = Head {
        taken_at: i64::from_le_bytes(*taken_at),
        file_system: u64::from_le_bytes(*file_system),
        look: Sha256Digest::from_bytes(*look),
        nar: NarHash { sha256: Sha256Digest::from_bytes(*sha256), size: u64::from_le_bytes(*size) },
    };
    Some((head, steps))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and change files")]

    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use super::super::fixture::Home;
    use super::super::register::now;
    use super::*;

    fn write(head: &Head, steps: &[u8]) -> Vec<u8> {
        let head = write_head(head);
        [&head, steps, digest_of(&head, steps).as_bytes()].concat()
    }

    /// Long enough for what was made just now to be trusted.
    const LATER: i64 = 10;

    struct Tree {
        home: Home,
        store: LocalStore,
        path: PathBuf,
    }

    impl Tree {
        fn new() -> Self {
            let home = Home::new();
            let (store, path) = (home.open(), home.sources().join("tree"));
            fs::create_dir_all(path.join("sub/deep")).unwrap();
            for number in 0..30 {
                fs::write(path.join(format!("sub/{number}")), format!("content {number}")).unwrap();
            }
            fs::write(path.join("sub/deep/file"), "deep").unwrap();
            symlink("sub/1", path.join("link")).unwrap();
            Self { home, store, path }
        }

        fn with<T>(&self, run: impl FnOnce(&Subject<'_>) -> T) -> T {
            let parent = File::open(self.path.parent().unwrap()).unwrap();
            let name = self.path.file_name().unwrap();
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            run(&Subject { parent: parent.as_fd(), name, stat: &stat })
        }

        /// Reads the tree as if it were `now`, and remembers what it looked like.
        fn remember(&self, now: i64) -> NarHash {
            self.with(|subject| {
                let mut look = Look::new(now);
                let staged = self.store.stage_from((subject.parent, subject.name), Some(&mut look)).unwrap();
                let nar = NarHash { sha256: staged.nar_hash(), size: staged.nar_size() };
                assert_eq!(nar, crate::nar::nar_hash(&self.path).unwrap());
                self.store.remember(subject, look, nar);
                nar
            })
        }

        fn recognise(&self, now: i64) -> Option<NarHash> {
            self.with(|subject| self.store.recognise(subject, now))
        }
    }

    fn check(what: &str, change: impl FnOnce(&Path)) {
        let tree = Tree::new();
        let now = now();
        let nar = tree.remember(now + LATER);
        assert_eq!(tree.recognise(now + LATER), Some(nar), "{what}: before");
        // Even where the clock of the file system goes in steps of some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(&tree.path);
        assert_eq!(tree.recognise(now + LATER), None, "{what}: after");
        assert_eq!(tree.remember(now + LATER), crate::nar::nar_hash(&tree.path).unwrap());
    }

    #[test]
    fn every_way_to_change_a_tree_is_noticed() {
        let replace = |path: PathBuf, content: &str| {
            let new = path.with_extension("new");
            fs::write(&new, content).unwrap();
            fs::rename(new, path).unwrap();
        };
        check("other bytes", |tree| fs::write(tree.join("sub/3"), "CONTENT 3").unwrap());
        check("the same bytes again", |tree| fs::write(tree.join("sub/3"), "content 3").unwrap());
        check("more bytes", |tree| fs::write(tree.join("sub/deep/file"), "deeper").unwrap());
        check("other bytes, the time set back", |tree| {
            let path = tree.join("sub/3");
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "CONTENT 3").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        });
        check("a file replaced by an equal one", |tree| replace(tree.join("sub/3"), "content 3"));
        check("a file executable", |tree| {
            fs::set_permissions(tree.join("sub/3"), fs::Permissions::from_mode(0o755)).unwrap();
        });
        check("a file more", |tree| fs::write(tree.join("sub/deep/new"), "").unwrap());
        check("a file less", |tree| fs::remove_file(tree.join("sub/3")).unwrap());
        check("an empty directory more", |tree| fs::create_dir(tree.join("sub/deep/new")).unwrap());
        check("another name", |tree| fs::rename(tree.join("sub/3"), tree.join("sub/333")).unwrap());
        check("two names exchanged", |tree| {
            let directory = File::open(tree.join("sub")).unwrap();
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(&directory, "3", &directory, "4", flags).unwrap();
        });
        check("another target of a link", |tree| {
            fs::remove_file(tree.join("link")).unwrap();
            symlink("sub/2", tree.join("link")).unwrap();
        });
        check("a directory replaced by a link to it", |tree| {
            fs::rename(tree.join("sub/deep"), tree.join("deep")).unwrap();
            symlink("../deep", tree.join("sub/deep")).unwrap();
        });
        check("a file replaced by a directory", |tree| {
            fs::remove_file(tree.join("sub/deep/file")).unwrap();
            fs::create_dir(tree.join("sub/deep/file")).unwrap();
        });
        check("another tree in its place", |tree| {
            fs::rename(tree, tree.with_extension("old")).unwrap();
            fs::create_dir_all(tree.join("sub")).unwrap();
        });
    }

    #[test]
    fn what_changed_just_now_is_not_trusted() {
        let tree = Tree::new();
        let now = now();
        tree.remember(now + 1);
        assert_eq!(tree.recognise(now + LATER), None);
    }

    #[test]
    fn a_clock_that_went_back_trusts_nothing() {
        let tree = Tree::new();
        let now = now();
        tree.remember(now + LATER);
        assert_eq!(tree.recognise(now + LATER - 1), None);
    }

    #[test]
    fn small_things_are_not_remembered() {
        let tree = Tree::new();
        fs::remove_dir_all(tree.path.join("sub")).unwrap();
        tree.remember(now() + LATER);
        assert_eq!(fs::read_dir(tree.store.home().join("seen")).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_is_not_whole_or_of_another_file_system_counts_as_none() {
        let tree = Tree::new();
        let now = now();
        tree.remember(now + LATER);
        let record = fs::read_dir(tree.store.home().join("seen")).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&record).unwrap();
        let (head, steps) = parse(&whole).unwrap();
        assert_eq!(write(&head, steps), whole);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert_eq!(parse(&torn), None, "{at}");
        }
        assert_eq!(parse(&[&whole[..], b"x"].concat()), None);
        let foreign = Head { file_system: head.file_system ^ 1, ..head };
        for bytes in [&b""[..], b"no record", &write(&foreign, steps), &write(&head, b"d"), &write(&head, b"x\0")] {
            fs::write(&record, bytes).unwrap();
            assert_eq!(tree.recognise(now + LATER), None);
        }
        fs::write(&record, &whole).unwrap();
        assert!(tree.recognise(now + LATER).is_some());
    }

    #[test]
    fn a_record_says_nothing_about_the_store() {
        let tree = Tree::new();
        let nar = tree.remember(now() + LATER);
        assert_eq!(tree.store.valid_source(nar, "tree").unwrap(), None);
        let info = tree.store.add_source(tree.store.stage_from_path(&tree.path).unwrap(), "tree").unwrap();
        assert_eq!(tree.store.valid_source(nar, "tree").unwrap(), Some(info.clone()));
        assert_eq!(tree.store.valid_source(nar, "other").unwrap(), None);
        let other = tree.home.open();
        drop(tree.store);
        other.delete(&[info.path]).unwrap();
        assert_eq!(other.valid_source(nar, "tree").unwrap(), None);
    }

    #[test]
    fn the_oldest_records_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let seen: OwnedFd = File::open(directory.path()).unwrap().into();
        for number in 0..RECORDS + 8 {
            fs::write(directory.path().join(number.to_string()), "x").unwrap();
        }
        make_room(&seen, 1).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), RECORDS - 1);
        make_room(&seen, BYTES).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
