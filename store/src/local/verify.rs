//! Checking that objects still are what was registered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::params;

use super::LocalStore;
use super::descent::entries;
use super::failure::{DatabaseError, FileError};
use super::lock::acquire_objects;
use super::metadata::Irregularity;
use super::optimise::OptimiseError;
use super::query::{QueryError, parse_path};
use super::register::now;
use crate::content_address::{ContentAddress, Method, References};
use crate::hash::{Sha256Digest, Sha256Hasher};
use crate::nar::DumpError;
use crate::path::StorePath;
use crate::path_info::PathInfo;

/// How many objects are hashed before the time is noted, so that a verification that is stopped has not been for nothing.
const NOTED_OBJECTS: usize = 1024;
/// How many bytes of objects, for the same reason.
const NOTED_BYTES: u64 = 1 << 30;
/// How long, for the same reason.
const NOTED_EVERY: Duration = Duration::from_secs(5);
/// How many bytes are hashed between two looks at the clock.
const PACE_BYTES: u64 = 1 << 20;

/// Something that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// An object is registered, but not there.
    #[error("`{path}` is missing")]
    Missing {
        /// The object.
        path: StorePath,
    },
    /// An object is not what was registered.
    #[error("`{path}` was changed: its archive has the hash {actual}, not {expected}", expected = expected.to_sri(), actual = actual.to_sri())]
    Changed {
        /// The object.
        path: StorePath,
        /// The hash that was registered.
        expected: Sha256Digest,
        /// The hash of what is there.
        actual: Sha256Digest,
    },
    /// An object cannot be read.
    #[error("`{path}` cannot be read")]
    Unreadable {
        /// The object.
        path: StorePath,
        /// Why not.
        #[source]
        source: DumpError,
    },
    /// An object has the right content, but a file in it has another mode or time than objects have.
    #[error("`{path}` has the right content, but {irregularity}")]
    Irregular {
        /// The object.
        path: StorePath,
        /// What is irregular.
        irregularity: Irregularity,
    },
    /// An object's path does not follow from the content address that is registered with it.
    #[error("`{path}` does not have the path that follows from its address `{address}`")]
    Misnamed {
        /// The object.
        path: StorePath,
        /// The address that is registered.
        address: ContentAddress,
    },
    /// Something lies in the store that is not registered: the leavings of a process that died, for example.
    #[error("`{name}` is not registered")]
    Unregistered {
        /// Its name.
        name: String,
    },
}

impl Finding {
    /// The object whose bytes are gone or wrong, if that is what was found.
    #[must_use]
    pub const fn broken(&self) -> Option<&StorePath> {
        match self {
            Self::Missing { path } | Self::Changed { path, .. } | Self::Unreadable { path, .. } => Some(path),
            Self::Irregular { .. } | Self::Misnamed { .. } | Self::Unregistered { .. } => None,
        }
    }
}

/// Why verification stopped.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The store's directory cannot be listed, or an object not be looked at.
    #[error(transparent)]
    File(#[from] FileError),
    /// The result cannot be written down.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<OptimiseError> for VerifyError {
    fn from(error: OptimiseError) -> Self {
        match error {
            OptimiseError::Query(error) => Self::Query(error),
            OptimiseError::File(error) => Self::File(error),
            OptimiseError::Database(error) => Self::Database(error),
        }
    }
}

/// What to verify, and how hard.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Objects that were found whole since then, in Unix seconds, are taken to be so.
    pub trusted_since: Option<i64>,
    /// Only these objects, and nothing that is not registered.
    pub only: Option<BTreeSet<StorePath>>,
    /// The most bytes to read in a second.
    pub bytes_per_second: Option<u64>,
}

/// What verification came to.
#[derive(Debug, Default)]
pub struct Verified {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How many objects were hashed.
    pub objects: usize,
    /// How many bytes their archives have together.
    pub bytes: u64,
    /// How many objects were left out, since they were found whole lately.
    pub trusted: usize,
}

impl LocalStore {
    /// Hashes every object again, the one verified longest ago first, and says what is wrong.
    ///
    /// # Errors
    /// As for [`LocalStore::verify_some`].
    pub fn verify(&self) -> Result<Vec<Finding>, VerifyError> {
        Ok(self.verify_some(&VerifyOptions::default())?.findings)
    }

    /// Hashes objects again on all processors, the one verified longest ago first, and says what is wrong.
    ///
    /// When an object was found whole is recorded, so that a later verification can go on where this one was stopped.
    ///
    /// # Errors
    /// When the store cannot be listed or the database refuses. Broken objects are findings.
    pub fn verify_some(&self, options: &VerifyOptions) -> Result<Verified, VerifyError> {
        self.settle_leftovers()?;
        let rows = self.verifiable()?;
        let is_wanted = |info: &PathInfo| options.only.as_ref().is_none_or(|only| only.contains(&info.path));
        let is_trusted = |at: Option<i64>| options.trusted_since.is_some_and(|since| at.is_some_and(|at| at >= since));
        let mut verified = Verified::default();
        let mut objects = Vec::new();
        for (info, verified_at) in &rows {
            if is_wanted(info) {
                if is_trusted(*verified_at) {
                    verified.trusted += 1;
                } else {
                    objects.push(info);
                }
            }
        }
        let pace = options.bytes_per_second.map(Pace::new);
        verified.findings = self.verify_objects(&objects, pace.as_ref())?;
        verified.objects = objects.len();
        verified.bytes = objects.iter().map(|info| info.nar_size).sum();
        if options.only.is_none() {
            verified.findings.extend(self.unregistered(&rows)?);
        }
        Ok(verified)
    }

    /// All registered objects with the time at which they were verified, those verified on the longest past day first, and
    /// among those of one day the largest: none of them is to be left over when all others are done.
    fn verifiable(&self) -> Result<Vec<(PathInfo, Option<i64>)>, VerifyError> {
        let rows = self.database.read("list objects", |connection| {
            let statement = "SELECT path, nar_hash, nar_size, content_address, verified_at FROM objects
                WHERE withdrawn = 0 ORDER BY COALESCE(verified_at, 0) / 86400, nar_size DESC, path";
            let mut statement = connection.prepare_cached(statement)?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?))
            };
            statement.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut infos = Vec::with_capacity(rows.len());
        for (name, hash, size, address, verified_at) in rows {
            let address: Option<String> = address;
            let invalid = |value| DatabaseError::InvalidValue { column: "content address", value };
            let info = PathInfo {
                path: parse_path(&name)?,
                nar_hash: Sha256Digest::from_bytes(hash),
                nar_size: size.try_into().unwrap_or(0),
                references: BTreeSet::new(),
                deriver: None,
                content_address: address.map(|text| text.parse().map_err(|_| invalid(text))).transpose()?,
                registered_at: 0,
            };
            infos.push((info, verified_at));
        }
        Ok(infos)
    }

    /// Hashes these objects, each processor taking the next one when it is done with one, and notes which are whole.
    fn verify_objects(&self, objects: &[&PathInfo], pace: Option<&Pace>) -> Result<Vec<Finding>, VerifyError> {
        let threads = rayon::current_num_threads().min(objects.len());
        let next = AtomicUsize::new(0);
        let (sender, checked) = sync_channel(NOTED_OBJECTS);
        let work = |sender: SyncSender<(usize, Result<Option<Finding>, VerifyError>)>| {
            while let Some((position, info)) = following(&next, objects) {
                if sender.send((position, self.verify_object(info, pace))).is_err() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (work, sender) = (&work, sender.clone());
                scope.spawn(move || work(sender));
            }
            drop(sender);
            self.note(objects, checked)
        })
    }

    /// Notes which objects are whole as the answers come, and returns what was found with the others.
    fn note(
        &self,
        objects: &[&PathInfo],
        checked: Receiver<(usize, Result<Option<Finding>, VerifyError>)>,
    ) -> Result<Vec<Finding>, VerifyError> {
        let mut findings = Vec::new();
        let mut whole: Vec<&StorePath> = Vec::new();
        let (mut bytes, mut noted_at) = (0, Instant::now());
        for (position, result) in checked {
            match result {
                Ok(None) => whole.push(&objects[position].path),
                Ok(Some(finding)) => findings.push((position, finding)),
                Err(error) => {
                    self.note_whole(&whole)?;
                    return Err(error);
                }
            }
            bytes += objects[position].nar_size;
            if whole.len() >= NOTED_OBJECTS || bytes >= NOTED_BYTES || noted_at.elapsed() >= NOTED_EVERY {
                self.note_whole(&whole)?;
                whole.clear();
                (bytes, noted_at) = (0, Instant::now());
            }
        }
        self.note_whole(&whole)?;
        findings.sort_by_key(|(position, _)| *position);
        Ok(findings.into_iter().map(|(_, finding)| finding).collect())
    }

    fn note_whole(&self, whole: &[&StorePath]) -> Result<(), DatabaseError> {
        if whole.is_empty() {
            return Ok(());
        }
        let verified_at = now();
        // Lost in a power cut, or on a full disk, it costs no more than hashing them again.
        let noted = self.database.write_lazily::<_, DatabaseError>("record verification", |transaction| {
            let mut statement = transaction.prepare_cached("UPDATE objects SET verified_at = ?2 WHERE path = ?1")?;
            for path in whole {
                statement.execute(params![path.base_name(), verified_at])?;
            }
            Ok(())
        });
        match noted {
            Err(error) if error.is_disk_full() => Ok(()),
            other => other,
        }
    }

    fn verify_object(&self, info: &PathInfo, pace: Option<&Pace>) -> Result<Option<Finding>, VerifyError> {
        if let Ok(None) = self.look_at(info, pace) {
            return Ok(None);
        }
        // Somebody may have been deleting it, making it again or letting its files share at that moment.
        let _lock = acquire_objects(&self.layout.object_locks, [&info.path].into_iter())?;
        self.look_at(info, pace)
    }

    fn look_at(&self, info: &PathInfo, pace: Option<&Pace>) -> Result<Option<Finding>, VerifyError> {
        let path = info.path.clone();
        if !self.is_on_disk(&path)? {
            return Ok(self.is_still(info)?.then_some(Finding::Missing { path }));
        }
        let mut sink = Paced { hasher: Sha256Hasher::new(), pace, unreported: 0 };
        let actual = match crate::nar::dump_at(self.layout.store.as_fd(), OsStr::new(path.base_name()), &mut sink) {
            Ok(_) => sink.finish(),
            // Deleted meanwhile.
            Err(_) if !self.is_still(info)? => return Ok(None),
            Err(source) => return Ok(Some(Finding::Unreadable { path, source })),
        };
        if actual != info.nar_hash {
            let changed = Finding::Changed { path, expected: info.nar_hash, actual };
            return Ok(self.is_still(info)?.then_some(changed));
        }
        if let Some(irregularity) = self.irregularity(&path)? {
            return Ok(Some(Finding::Irregular { path, irregularity }));
        }
        match &info.content_address {
            Some(address) if !self.is_rightly_named(info, address)? => {
                Ok(Some(Finding::Misnamed { path, address: address.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// Whether the object is registered as it was when verification began: it may have been deleted, and made again.
    fn is_still(&self, info: &PathInfo) -> Result<bool, VerifyError> {
        let found = self.database.read("look up an object", |connection| {
            let statement = "SELECT 1 FROM objects WHERE path = ?1 AND nar_hash = ?2 AND withdrawn = 0";
            connection.prepare_cached(statement)?.exists(params![info.path.base_name(), info.nar_hash.as_bytes()])
        })?;
        Ok(found)
    }

    fn is_rightly_named(&self, info: &PathInfo, address: &ContentAddress) -> Result<bool, VerifyError> {
        let mut others = self.references(&info.path)?;
        let self_reference = others.remove(&info.path);
        // What speaks of itself has another hash in its path than in its row.
        let is_other = |hash| hash != info.nar_hash;
        if address.method == Method::Nar && !self_reference && Sha256Digest::try_from(&address.hash).is_ok_and(is_other)
        {
            return Ok(false);
        }
        let references = References { others, self_reference };
        let path = self.store_dir.content_addressed_path(info.path.name(), address, &references);
        Ok(path.is_ok_and(|path| path == info.path))
    }

    fn unregistered(&self, objects: &[(PathInfo, Option<i64>)]) -> Result<Vec<Finding>, VerifyError> {
        let known: BTreeSet<&str> = objects.iter().map(|(info, _)| info.path.base_name()).collect();
        let found = entries(self.layout.store.as_fd())
            .map_err(|source| FileError::new("list", self.layout.home.join("store"), source))?;
        let names = found.iter().map(|entry| entry.name().to_string_lossy().into_owned());
        let mut unknown: Vec<String> = names.filter(|name| !known.contains(name.as_str())).collect();
        let paths: Vec<StorePath> = unknown.iter().filter_map(|name| StorePath::parse_base_name(name).ok()).collect();
        // Under their locks nobody is registering or deleting them.
        let _locks = acquire_objects(&self.layout.object_locks, paths.iter())?;
        for path in &paths {
            if self.registered(path)?.is_some() || !self.is_on_disk(path)? {
                unknown.retain(|name| name != path.base_name());
            }
        }
        Ok(unknown.into_iter().map(|name| Finding::Unregistered { name }).collect())
    }
}

/// The next object that no thread has taken.
fn following<'b>(next: &AtomicUsize, objects: &[&'b PathInfo]) -> Option<(usize, &'b PathInfo)> {
    let position = next.fetch_add(1, Ordering::Relaxed);
    objects.get(position).map(|info| (position, *info))
}

/// How fast all threads together may read.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    /// When what was read so far may have been read.
    free_at: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until this many bytes more may have been read.
    fn wait(&self, bytes: u64) {
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *free_at = (*free_at).max(Instant::now()) + cost;
            *free_at
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// A hasher that waits now and then.
struct Paced<'a> {
    hasher: Sha256Hasher,
    pace: Option<&'a Pace>,
    unreported: u64,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unreported += bytes.len() as u64;
        match self.pace {
            Some(pace) if self.unreported >= PACE_BYTES => pace.wait(std::mem::take(&mut self.unreported)),
            _ => {}
        }
        self.hasher.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paced<'_> {
    fn finish(self) -> Sha256Digest {
        if let Some(pace) = self.pace {
            pace.wait(self.unreported);
        }
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::fixture::{Home, file, path, register, stage};
    use super::super::register::Registration;
    use super::*;

    #[test]
    fn whole_objects_are_noted_and_the_others_are_findings() {
        let home = Home::new();
        let store = home.open();
        let paths = [1, 2, 3, 4].map(|digit| path(digit, "p"));
        for path in &paths {
            register(&store, file(&store, path, "content", &[]));
        }
        assert!(store.verify().unwrap().is_empty());
        let changed = store.physical_path(&paths[0]);
        fs::set_permissions(&changed, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&changed, "c0ntent").unwrap();
        fs::remove_file(store.physical_path(&paths[1])).unwrap();
        fs::write(home.path().join("store/stray"), "").unwrap();
        let findings: Vec<String> = store.verify().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 3);
        assert!(findings[0].starts_with(&format!("`{}` was changed", paths[0])), "{findings:?}");
        assert_eq!(findings[1..], [format!("`{}` is missing", paths[1]), "`stray` is not registered".to_owned()]);
        let verified: i64 = store
            .database
            .read("count", |c| {
                c.query_row("SELECT count(*) FROM objects WHERE verified_at IS NOT NULL", [], |row| row.get(0))
            })
            .unwrap();
        assert_eq!(verified, 4, "the first verification noted all of them");
    }

    #[test]
    fn modes_and_times_are_looked_at_and_can_be_restored() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("deep/er")).unwrap();
        fs::write(tree.join("deep/er/file"), "x").unwrap();
        let object = path(1, "tree");
        register(&store, Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, &object, "", &[]) });
        assert!(store.verify().unwrap().is_empty());
        let there = store.physical_path(&object);
        let check = |damage: &dyn Fn(), expected: &str| {
            damage();
            let findings = store.verify().unwrap();
            let expected = format!("`{object}` has the right content, but {expected}");
            assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
            assert_eq!(findings[0].broken(), None);
            store.restore_metadata(&object).unwrap();
            assert!(store.verify().unwrap().is_empty());
        };
        let permit =
            |name: &str, mode| fs::set_permissions(there.join(name), fs::Permissions::from_mode(mode)).unwrap();
        check(&|| permit("deep/er/file", 0o644), "`deep/er/file` has the mode 0644, not 0444");
        check(&|| permit("deep", 0o755), "`deep` has the mode 0755, not 0555");
        check(&|| permit("", 0o1555), "its root has the mode 1555, not 0555");
        let touch = || {
            let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(7));
            fs::File::open(there.join("deep/er/file")).unwrap().set_times(times).unwrap();
        };
        check(&touch, "`deep/er/file` has the modification time 7, not 1");
    }

    #[test]
    fn what_was_verified_lately_is_trusted_if_asked_and_only_some_may_be() {
        let home = Home::new();
        let store = home.open();
        let (a, b) = (path(1, "a"), path(2, "b"));
        register(&store, file(&store, &a, "a", &[]));
        let check = |options: VerifyOptions, objects, trusted, findings| {
            let verified = store.verify_some(&options).unwrap();
            assert_eq!((verified.objects, verified.trusted, verified.findings.len()), (objects, trusted, findings));
        };
        check(VerifyOptions::default(), 1, 0, 0);
        register(&store, file(&store, &b, "b", &[]));
        fs::write(home.path().join("store/stray"), "").unwrap();
        check(VerifyOptions { trusted_since: Some(1), ..VerifyOptions::default() }, 1, 1, 1);
        check(VerifyOptions { trusted_since: Some(i64::MAX), ..VerifyOptions::default() }, 2, 0, 1);
        check(VerifyOptions { only: Some([b].into()), ..VerifyOptions::default() }, 1, 0, 0);
    }

    #[test]
    fn a_path_that_does_not_follow_from_its_address_is_found() {
        let home = Home::new();
        let store = home.open();
        let text = store.add_text("text", b"text", &BTreeSet::new()).unwrap();
        let address = text.content_address;
        assert!(store.verify().unwrap().is_empty());
        let object = path(1, "text");
        register(&store, Registration { content_address: address, ..file(&store, &object, "text", &[]) });
        let findings = store.verify().unwrap();
        assert!(matches!(&findings[..], [Finding::Misnamed { path, .. }] if *path == object), "{findings:?}");
    }

    #[test]
    fn all_of_many_are_noted_and_findings_are_in_order() {
        let home = Home::new();
        let store = home.open();
        let many: Vec<_> = (0..NOTED_OBJECTS + 100)
            .map(|number| {
                let name = format!("p{number}");
                let digit = u8::try_from(number % 250).unwrap();
                file(&store, &path(digit, &name), &"x".repeat(number), &[])
            })
            .collect();
        let infos = store.register(many).unwrap();
        for broken in [3, 700, 900] {
            fs::remove_file(store.physical_path(&infos[broken].path)).unwrap();
        }
        let findings = store.verify().unwrap();
        // The largest first.
        let missing: Vec<&StorePath> = findings.iter().filter_map(Finding::broken).collect();
        assert_eq!(missing, [&infos[900].path, &infos[700].path, &infos[3].path]);
        let later = VerifyOptions { trusted_since: Some(1), ..VerifyOptions::default() };
        assert_eq!(store.verify_some(&later).unwrap().trusted, infos.len() - 3);
    }
}
