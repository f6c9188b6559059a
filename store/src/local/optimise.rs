//! Letting identical files share their bytes: by reflink where the file system can, else by hard link.
//!
//! Files are known by the SHA-256 of their bytes and whether they are executable. What was hashed once is recorded, so
//! that later only new objects are read. Before two files share, they are compared: a file that went bad on the disk is
//! never spread.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rusqlite::{OptionalExtension, params};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::LocalStore;
use super::descent::entries;
use super::failure::{DatabaseError, FileError};
use super::lock::acquire_objects;
use super::query::{QueryError, parse_path};
use super::share::{Sharing, hash_file, same_bytes, share};
use crate::hash::Sha256Digest;
use crate::nar::DIRECTORY;
use crate::path::StorePath;

/// How many objects are looked at before it is recorded.
const BATCH: usize = 64;

/// What was saved, or could be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Optimised {
    /// How many objects were looked at; those known already are not counted.
    pub objects: u64,
    /// How many regular files they have.
    pub files: u64,
    /// How many of them now share the bytes of another file.
    pub shared: u64,
    /// How many bytes of the disk that saved.
    pub saved_bytes: u64,
    /// How many could share but did not, since the disk is full, the file system does not allow it, or one of the two
    /// is not what it should be.
    pub refused: u64,
}

/// Whether files are to be shared, or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// They are shared.
    Share,
    /// Nothing is changed.
    Count,
}

/// Why optimising stopped. What was shared before stays so.
#[derive(Debug, thiserror::Error)]
pub enum OptimiseError {
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What two files must have in common to share their bytes.
type Key = (Sha256Digest, bool);

/// A regular file of an object.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) object: StorePath,
    /// Where it is, from the object's root.
    pub(super) place: PathBuf,
    pub(super) executable: bool,
    pub(super) inode: u64,
    /// What it takes on the disk.
    pub(super) disk_bytes: u64,
    pub(super) links: u64,
}

impl LocalStore {
    /// Lets files of objects that were not looked at yet share the bytes of identical files.
    ///
    /// `only` says which objects; without it all that are valid.
    ///
    /// # Errors
    /// When files cannot be read or the database refuses. A full disk and too many links are no errors.
    pub fn optimise(&self, only: Option<&[StorePath]>, intent: Intent) -> Result<Optimised, OptimiseError> {
        self.settle_leftovers()?;
        let mut total = Optimised::default();
        let mut known: BTreeMap<Key, Option<Candidate>> = BTreeMap::new();
        let mut pending = self.unoptimised()?;
        pending.retain(|path| only.is_none_or(|only| only.contains(path)));
        for batch in pending.chunks(BATCH) {
            self.optimise_batch(batch, intent, &mut known, &mut total)?;
        }
        Ok(total)
    }

    fn unoptimised(&self) -> Result<Vec<StorePath>, OptimiseError> {
        let names = self.database.read("list objects", |connection| {
            let statement = "SELECT path FROM objects WHERE withdrawn = 0 AND NOT EXISTS
                (SELECT 1 FROM optimised WHERE object = id AND optimised.registered_at = objects.registered_at)
                ORDER BY id";
            let mut statement = connection.prepare_cached(statement)?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        Ok(names.iter().map(|name| parse_path(name)).collect::<Result<_, _>>()?)
    }

    fn optimise_batch(
        &self,
        batch: &[StorePath],
        intent: Intent,
        known: &mut BTreeMap<Key, Option<Candidate>>,
        total: &mut Optimised,
    ) -> Result<(), OptimiseError> {
        let _locks = acquire_objects(&self.layout.object_locks, batch.iter())?;
        let mut candidates = Vec::new();
        let mut seen = Vec::new();
        for path in batch.iter().filter(|path| self.is_valid(path).unwrap_or(false)) {
            // What cannot be listed is a matter for verification.
            if let Ok(found) = self.candidates(path) {
                candidates.extend(found);
                seen.push(path);
            }
        }
        total.objects += seen.len() as u64;
        total.files += candidates.len() as u64;
        let hashed: Vec<(Candidate, Option<Sha256Digest>)> = candidates
            .into_par_iter()
            .map(|candidate| {
                let digest = hash_file(&self.file_of(&candidate)).ok();
                (candidate, digest)
            })
            .collect();
        let (mut pairs, mut new) = (Vec::new(), Vec::new());
        for (candidate, digest) in hashed {
            let Some(digest) = digest else { continue };
            let key = (digest, candidate.executable);
            let first = match known.get(&key) {
                Some(first) => first.clone(),
                None => self.representative(key)?,
            };
            match first.filter(|first| self.still_there(first)) {
                Some(first) if first.inode == candidate.inode => drop(known.insert(key, Some(first))),
                Some(first) => {
                    known.insert(key, Some(first.clone()));
                    pairs.push((key, first, candidate));
                }
                None => {
                    known.insert(key, Some(candidate.clone()));
                    new.push((key, candidate));
                }
            }
        }
        if intent == Intent::Share && !pairs.is_empty() {
            self.unsettle(pairs.iter().map(|(.., candidate)| &candidate.object))?;
        }
        for (key, first, candidate) in pairs {
            match self.join(&first, &candidate, intent)? {
                Sharing::Done => {
                    total.shared += 1;
                    total.saved_bytes += if candidate.links == 1 { candidate.disk_bytes } else { 0 };
                }
                Sharing::TooManyLinks => {
                    known.insert(key, Some(candidate.clone()));
                    new.push((key, candidate));
                }
                Sharing::Refused => total.refused += 1,
            }
        }
        if intent == Intent::Share {
            self.settle()?;
            self.record_optimised(&seen, &new)?;
        }
        Ok(())
    }

    fn join(&self, first: &Candidate, candidate: &Candidate, intent: Intent) -> Result<Sharing, OptimiseError> {
        let (from, to) = (self.file_of(first), self.file_of(candidate));
        if !same_bytes(&from, &to).unwrap_or(false) {
            return Ok(Sharing::Refused);
        }
        if intent == Intent::Count {
            return Ok(Sharing::Done);
        }
        let session = self.session()?;
        let temporary = session.path().join(session.new_name());
        Ok(share(&from, &to, &temporary, candidate.executable)?)
    }

    /// The regular files of an object that have any content.
    fn candidates(&self, path: &StorePath) -> Result<Vec<Candidate>, FileError> {
        let root = self.physical_path(path);
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(place) = pending.pop() {
            let file = root.join(&place);
            let fail = |source: Errno| FileError::new("look at", &file, source);
            let file = if place.as_os_str().is_empty() { &root } else { &file };
            let stat = rustix::fs::statat(CWD, file, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let directory = rustix::fs::open(file, DIRECTORY, Mode::empty()).map_err(fail)?;
                    let names = entries(std::os::fd::AsFd::as_fd(&directory)).map_err(fail)?;
                    pending.extend(names.iter().map(|entry| place.join(entry.name())));
                }
                // What has another mode is not what it should be, and does not get company.
                FileType::RegularFile if stat.st_size > 0 && matches!(stat.st_mode & 0o7777, 0o444 | 0o555) => {
                    found.push(Candidate {
                        object: path.clone(),
                        place,
                        executable: stat.st_mode & 0o100 != 0,
                        inode: stat.st_ino,
                        disk_bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
                        links: stat.st_nlink,
                    });
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn file_of(&self, candidate: &Candidate) -> PathBuf {
        let root = self.physical_path(&candidate.object);
        if candidate.place.as_os_str().is_empty() { root } else { root.join(&candidate.place) }
    }

    /// The file with this content that was recorded, if it is still there.
    fn representative(&self, (digest, executable): Key) -> Result<Option<Candidate>, OptimiseError> {
        let row = self.database.read("look up a file", |connection| {
            let statement = "SELECT path, place FROM files JOIN objects ON id = object
                WHERE sha256 = ?1 AND executable = ?2 AND withdrawn = 0";
            let mut statement = connection.prepare_cached(statement)?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?));
            statement.query_row(params![digest.as_bytes(), executable], row).optional()
        })?;
        let Some((name, place)) = row else { return Ok(None) };
        let (object, place) = (parse_path(&name)?, PathBuf::from(OsStr::from_bytes(&place)));
        let mut found = Candidate { object, place, executable, inode: 0, disk_bytes: 0, links: 1 };
        let stat = rustix::fs::statat(CWD, self.file_of(&found), AtFlags::SYMLINK_NOFOLLOW);
        found.inode = stat.map_or(0, |stat| stat.st_ino);
        Ok(Some(found))
    }

    fn still_there(&self, candidate: &Candidate) -> bool {
        let mode = if candidate.executable { 0o555 } else { 0o444 };
        let stat = rustix::fs::statat(CWD, self.file_of(candidate), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o7777 == mode
        })
    }

    /// Notes that directories of these objects are about to have another time for a moment.
    fn unsettle<'a>(&self, objects: impl Iterator<Item = &'a StorePath>) -> Result<(), DatabaseError> {
        let objects: std::collections::BTreeSet<&StorePath> = objects.collect();
        self.database.write("begin to optimise", |transaction| {
            let statement = "INSERT OR IGNORE INTO unsettled SELECT id FROM objects WHERE path = ?1";
            let mut statement = transaction.prepare_cached(statement)?;
            for path in &objects {
                statement.execute([path.base_name()])?;
            }
            Ok(())
        })
    }

    /// Gives objects in which files were being replaced when a program died their modes and times.
    pub(super) fn settle_leftovers(&self) -> Result<(), OptimiseError> {
        let left = self.unsettled()?;
        if left.is_empty() {
            return Ok(());
        }
        // Whoever is optimising holds these until all is settled.
        let _locks = acquire_objects(&self.layout.object_locks, left.iter())?;
        self.settle()
    }

    fn unsettled(&self) -> Result<Vec<StorePath>, OptimiseError> {
        let names = self.database.read("list unsettled objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT path FROM unsettled JOIN objects ON id = object")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        Ok(names.iter().map(|name| parse_path(name)).collect::<Result<_, _>>()?)
    }

    fn settle(&self) -> Result<(), OptimiseError> {
        let paths = self.unsettled()?;
        if paths.is_empty() {
            return Ok(());
        }
        for path in &paths {
            if self.is_on_disk(path)? {
                self.regularise(path)?;
            }
        }
        self.make_all_durable()?;
        self.database.write::<_, DatabaseError>("end optimising", |transaction| {
            let statement = "DELETE FROM unsettled WHERE object = (SELECT id FROM objects WHERE path = ?1)";
            let mut statement = transaction.prepare_cached(statement)?;
            for path in &paths {
                statement.execute([path.base_name()])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn record_optimised(&self, objects: &[&StorePath], new: &[(Key, Candidate)]) -> Result<(), DatabaseError> {
        self.database.write("record shared files", |transaction| {
            let statement = "INSERT OR REPLACE INTO optimised SELECT id, registered_at FROM objects WHERE path = ?1";
            let mut statement = transaction.prepare_cached(statement)?;
            for path in objects {
                statement.execute([path.base_name()])?;
            }
            let statement = "INSERT OR REPLACE INTO files (sha256, executable, object, place)
                SELECT ?1, ?2, id, ?4 FROM objects WHERE path = ?3";
            let mut statement = transaction.prepare_cached(statement)?;
            for ((digest, executable), file) in new {
                let place = file.place.as_os_str().as_bytes();
                statement.execute(params![digest.as_bytes(), executable, file.object.base_name(), place])?;
            }
            Ok(())
        })
    }
}

/// Opens a regular file for reading, never through a link.
pub(super) fn open_file(path: &Path) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::fixture::{Home, file, path, register, stage};
    use super::super::register::Registration;
    use super::*;

    fn add(home: &Home, store: &LocalStore, digit: u8, files: &[(&str, &str, u32)]) -> StorePath {
        let tree = home.sources().join(digit.to_string());
        fs::create_dir_all(tree.join("deep")).unwrap();
        for (name, content, mode) in files {
            fs::write(tree.join(name), content).unwrap();
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(*mode)).unwrap();
        }
        let object = path(digit, "tree");
        register(store, Registration { staged: stage(store, &tree).unwrap(), ..file(store, &object, "", &[]) });
        object
    }

    fn inode(store: &LocalStore, object: &StorePath, name: &str) -> u64 {
        fs::symlink_metadata(store.physical_path(object).join(name)).unwrap().ino()
    }

    #[test]
    fn identical_files_share_but_not_executable_ones_with_others() {
        let home = Home::new();
        let store = home.open();
        let a = add(&home, &store, 1, &[("a", "same", 0o644), ("run", "same", 0o755), ("deep/b", "same", 0o600)]);
        let b = add(&home, &store, 2, &[("c", "same", 0o644), ("other", "other", 0o644), ("empty", "", 0o644)]);
        let counted = store.optimise(None, Intent::Count).unwrap();
        assert_eq!((counted.objects, counted.files, counted.shared, counted.refused), (2, 5, 2, 0));
        assert_ne!(inode(&store, &a, "a"), inode(&store, &b, "c"), "nothing was changed");
        assert_eq!(store.optimise(None, Intent::Share).unwrap(), counted);
        if inode(&store, &a, "a") != inode(&store, &b, "c") {
            println!("shared by reflinks");
        }
        assert_ne!(inode(&store, &a, "a"), inode(&store, &a, "run"));
        assert!(store.verify().unwrap().is_empty());
        assert!(home.staged_names().is_empty());
        assert_eq!(store.optimise(None, Intent::Share).unwrap(), Optimised::default(), "all is known");
        // A new object is compared with what was recorded.
        add(&home, &store, 3, &[("d", "same", 0o644)]);
        let later = home.open().optimise(None, Intent::Share).unwrap();
        assert_eq!((later.objects, later.files, later.shared), (1, 1, 1));
    }

    #[test]
    fn sharing_goes_on_when_the_first_one_is_deleted() {
        let home = Home::new();
        let store = home.open();
        let a = add(&home, &store, 1, &[("a", "same", 0o644)]);
        let b = add(&home, &store, 2, &[("a", "same", 0o644)]);
        store.optimise(None, Intent::Share).unwrap();
        store.delete(&[a]).unwrap();
        assert_eq!(fs::read_to_string(store.physical_path(&b).join("a")).unwrap(), "same");
        add(&home, &store, 3, &[("a", "same", 0o644)]);
        assert_eq!(store.optimise(None, Intent::Share).unwrap().shared, 0, "the record went with the object");
        add(&home, &store, 4, &[("a", "same", 0o644)]);
        assert_eq!(store.optimise(None, Intent::Share).unwrap().shared, 1);
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_went_bad_is_not_spread_and_repair_parts_it_from_the_others() {
        let home = Home::new();
        let store = home.open();
        let a = add(&home, &store, 1, &[("a", "same", 0o644)]);
        store.optimise(None, Intent::Share).unwrap();
        fs::write(store.physical_path(&a).join("a"), "bad!").unwrap();
        let b = add(&home, &store, 2, &[("a", "same", 0o644)]);
        let optimised = store.optimise(None, Intent::Share).unwrap();
        assert_eq!((optimised.shared, optimised.refused), (0, 1));
        assert_eq!(fs::read_to_string(store.physical_path(&b).join("a")).unwrap(), "same");
        store.repair(&a, stage(&store, &home.sources().join("1")).unwrap()).unwrap();
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn objects_that_are_files_share_too() {
        let home = Home::new();
        let store = home.open();
        for digit in 1..=3 {
            register(&store, file(&store, &path(digit, "f"), "content", &[]));
        }
        assert_eq!(store.optimise(Some(&[path(1, "f"), path(2, "f")]), Intent::Share).unwrap().shared, 1);
        assert_eq!(store.optimise(None, Intent::Share).unwrap().shared, 1);
        assert!(store.verify().unwrap().is_empty());
    }
}
