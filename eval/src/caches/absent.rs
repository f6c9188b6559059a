//! What servers were found not to have, remembered for a while: a second run does not ask again.
//!
//! One file for each cache, with a line for each answer: until when it holds, in Unix seconds, and the name of the file. Whoever
//! cannot read or write it asks the server.

#![expect(clippy::disallowed_methods, reason = "answers are remembered in a file, for as long as the clock says")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ampoule_store::cache::{Files, FilesError, NewFile};
use ampoule_store::hash::Sha256Digest;

/// A longer file is begun anew.
const LENGTH_LIMIT: u64 = 8 << 20;
/// The longest line that is read.
const LINE_LIMIT: u64 = 1024;

/// A cache's files, of which some are known not to be there.
#[derive(Debug)]
pub(super) struct Absent {
    files: Box<dyn Files>,
    place: PathBuf,
    holds: Duration,
    known: Mutex<BTreeMap<String, u64>>,
}

impl Absent {
    /// Remembers in a file of this directory, for so long.
    pub(super) fn new(files: Box<dyn Files>, directory: &Path, holds: Duration) -> Self {
        let place = directory.join(Sha256Digest::of(files.address().as_bytes()).to_nix32());
        let known = load(&place, now());
        Self { files, place, holds, known: Mutex::new(known) }
    }

    fn is_known(&self, name: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(|until| *until > now())
    }

    fn remember(&self, name: &str) {
        let until = now().saturating_add(self.holds.as_secs());
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), until);
        let write = || {
            fs::create_dir_all(self.place.parent().unwrap_or(Path::new(".")))?;
            let mut file = OpenOptions::new().append(true).create(true).open(&self.place)?;
            if file.metadata()?.len() > LENGTH_LIMIT {
                file.set_len(0)?;
            }
            // In one piece, so that others' lines stay whole.
            file.write_all(format!("{until} {name}\n").as_bytes())
        };
        // Without it the next run asks again, which is all.
        let _: std::io::Result<()> = write();
    }

    fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let _ = fs::remove_file(&self.place);
    }
}

/// Only what says whether there is an object or an output is asked for again and again.
fn is_answer(name: &str) -> bool {
    name.ends_with(".narinfo") || name.ends_with(".doi")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn load(place: &Path, now: u64) -> BTreeMap<String, u64> {
    let Ok(file) = File::open(place) else { return BTreeMap::new() };
    let mut reader = BufReader::new(file.take(LENGTH_LIMIT + LINE_LIMIT));
    let mut known = BTreeMap::new();
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => {}
            _ => return known,
        }
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        let Some((until, name)) = line.trim_end().split_once(' ') else { continue };
        if let Some(until) = until.parse().ok().filter(|until| *until > now && is_answer(name)) {
            known.insert(name.to_owned(), until);
        }
    }
}

impl Files for Absent {
    fn address(&self) -> &str {
        self.files.address()
    }

    fn read(&self, name: &str, expected: Option<u64>) -> Result<Option<Box<dyn Read + Send>>, FilesError> {
        if is_answer(name) && self.is_known(name) {
            return Ok(None);
        }
        let found = self.files.read(name, expected)?;
        if found.is_none() && is_answer(name) {
            self.remember(name);
        }
        Ok(found)
    }

    fn contains(&self, name: &str) -> Result<bool, FilesError> {
        self.files.contains(name)
    }

    fn create(&self) -> Result<Box<dyn NewFile + '_>, FilesError> {
        self.forget();
        self.files.create()
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, FilesError> {
        self.files.list(directory)
    }
}

#[cfg(test)]
mod tests {
    use ampoule_store::cache::Directory;

    use super::*;

    #[test]
    fn answers_hold_for_a_while_and_in_other_processes() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, memory) = (directory.path().join("cache"), directory.path().join("memory"));
        fs::create_dir(&cache).unwrap();
        let open = |holds| Absent::new(Box::new(Directory::new(&cache)), &memory, Duration::from_secs(holds));
        let has = |files: &Absent, name| files.read(name, None).unwrap().is_some();
        let files = open(1000);
        assert!(!has(&files, "x.narinfo") && !has(&files, "nix-cache-info"));
        for name in ["x.narinfo", "y.narinfo", "nix-cache-info"] {
            fs::write(cache.join(name), "").unwrap();
        }
        for files in [&files, &open(1000)] {
            assert!(!has(files, "x.narinfo"), "it is known not to be there");
            assert!(has(files, "y.narinfo") && has(files, "nix-cache-info"));
        }
        // Whoever writes to the cache forgets what it did not have.
        drop(files.create().unwrap());
        assert!(has(&files, "x.narinfo") && has(&open(1000), "x.narinfo"));
        // What has run out does not count, and neither does nonsense.
        assert!(!has(&open(0), "z.narinfo"));
        fs::write(cache.join("z.narinfo"), "").unwrap();
        assert!(has(&open(1000), "z.narinfo"));
        let place = fs::read_dir(&memory).unwrap().next().unwrap().unwrap().path();
        fs::write(place, [b"99999999999 y\n\xff\xff\nnonsense".to_vec(), vec![b'a'; 10_000]].concat()).unwrap();
        assert!(has(&open(1000), "y.narinfo"));
    }
}
