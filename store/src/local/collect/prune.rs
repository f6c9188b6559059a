//! Forgets records, logs and downloads when what they belong to has been gone for long.
#![expect(clippy::disallowed_methods, reason = "logs and downloads are files, whose age the clock says")]

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::LocalStore;
use super::super::failure::{DatabaseError, FileError};
use super::super::logs::derivation_of_log;
use super::{CollectError, Collected};

/// A log is kept so long after it was written, though nothing else is left of its derivation.
const LOG_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A download is kept so long for somebody to go on with.
const DOWNLOAD_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Of neither the derivation nor the output anything is left.
const REALISATIONS: &str = "DELETE FROM realisations
    WHERE derivation NOT IN (SELECT path FROM derivations)
    AND derivation NOT IN (SELECT path FROM objects) AND path NOT IN (SELECT path FROM objects)";
/// The derivation is gone, and nothing says any more that the output is there.
const CHECKS: &str = "DELETE FROM checks
    WHERE derivation NOT IN (SELECT path FROM derivations) AND derivation NOT IN (SELECT path FROM objects)
    AND NOT EXISTS (SELECT 1 FROM realisations
        WHERE realisations.derivation = checks.derivation AND realisations.output = checks.output)";
/// What a log may belong to.
const SUBJECTS: &str = "SELECT path FROM derivations UNION SELECT derivation FROM realisations
    UNION SELECT derivation FROM checks";

impl LocalStore {
    /// Forgets what belongs to what is gone.
    pub(super) fn prune(&self, collected: &mut Collected) -> Result<(), CollectError> {
        if !collected.objects.is_empty() || !collected.derivations.is_empty() {
            let pruned = self.database.write::<_, DatabaseError>("forget records", |transaction| {
                Ok(transaction.execute(REALISATIONS, [])? + transaction.execute(CHECKS, [])?)
            })?;
            collected.records = pruned as u64;
        }
        collected.logs += self.prune_logs()?;
        for entry in old_entries(&self.downloads(), DOWNLOAD_AGE)? {
            collected.downloads += u64::from(remove(&entry)?);
        }
        Ok(())
    }

    fn prune_logs(&self) -> Result<u64, CollectError> {
        let mut old = Vec::new();
        for directory in directory_entries(&self.layout.home.join("log"))? {
            old.extend(old_entries(&directory.path(), LOG_AGE)?);
        }
        if old.is_empty() {
            return Ok(0);
        }
        let subjects: BTreeSet<String> = self.database.read("list derivations", |connection| {
            connection.prepare(SUBJECTS)?.query_map([], |row| row.get(0))?.collect()
        })?;
        let mut removed = 0;
        for entry in old {
            let derivation = entry.file_name().to_str().and_then(derivation_of_log);
            if derivation.is_some_and(|derivation| !subjects.contains(derivation.base_name())) {
                removed += u64::from(remove(&entry)?);
            }
        }
        Ok(removed)
    }
}

/// What has not been changed for so long.
fn old_entries(directory: &Path, age: Duration) -> Result<Vec<DirEntry>, FileError> {
    let old = |entry: &DirEntry| {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|elapsed| elapsed > age))
    };
    Ok(directory_entries(directory)?.into_iter().filter(old).collect())
}

fn directory_entries(directory: &Path) -> Result<Vec<DirEntry>, FileError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    entries.map_err(|source| FileError::new("list", directory, source))
}

/// Removes a file or a directory; `false` if it is gone already.
fn remove(entry: &DirEntry) -> Result<bool, FileError> {
    let path = entry.path();
    let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
    match if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) } {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::new("remove", path, source)),
    }
}
