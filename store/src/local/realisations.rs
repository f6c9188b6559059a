//! Which object each output of a derivation became, each time somebody made it.
//!
//! Records are added, never changed or replaced: two builds of one output are two records.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, params};

use super::LocalStore;
use super::failure::DatabaseError;
use super::query::{QueryError, invalid, parse_path};
use crate::hash::Sha256Digest;
use crate::path::StorePath;

/// What the first builds of an output say about this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There was nothing to compare with.
    First,
    /// It gave the same bytes.
    Identical,
    /// It gave other bytes.
    Different,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::First, Self::Identical, Self::Different];

    /// The word for it: `first`, `identical` or `different`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Identical => "identical",
            Self::Different => "different",
        }
    }
}

/// That an output was made: by whom, when, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealisationRecord {
    /// The derivation.
    pub derivation: StorePath,
    /// The name of the output.
    pub output: String,
    /// The object it became.
    pub path: StorePath,
    /// The SHA-256 of that object's NAR, if it was computed: an input-addressed path does not tell.
    pub nar_hash: Option<Sha256Digest>,
    /// Who made it: a sandbox engine, or a substituter.
    pub engine: String,
    /// When the build started, in Unix seconds.
    pub started_at: i64,
    /// How long it took.
    pub duration_milliseconds: u64,
    /// The name of the build's log: see [`LocalStore::open_log`].
    pub log: Option<String>,
    /// How it compares with what was made before.
    pub verdict: Verdict,
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot record what became of output `{output}` of `{derivation}`")]
pub struct RecordError {
    /// The derivation.
    pub derivation: StorePath,
    /// The name of the output.
    pub output: String,
    /// What the database says.
    #[source]
    pub source: DatabaseError,
}

impl LocalStore {
    /// Adds a record that an output was made.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn record_realisation(&self, record: &RealisationRecord) -> Result<(), RecordError> {
        self.record_realisations(std::slice::from_ref(record))
    }

    /// Adds several such records, all or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn record_realisations(&self, records: &[RealisationRecord]) -> Result<(), RecordError> {
        let Some(first) = records.first() else { return Ok(()) };
        let written =
            self.database.write("record realisations", |transaction| Ok(insert_realisations(transaction, records)?));
        written.map_err(|source| RecordError {
            derivation: first.derivation.clone(),
            output: first.output.clone(),
            source,
        })
    }

    /// The valid object that an output of a derivation became: the first that was made and is still there.
    ///
    /// One that was found to differ from an earlier one is the answer only if nothing else is left.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn realisation(&self, derivation: &StorePath, output: &str) -> Result<Option<StorePath>, QueryError> {
        let asked = [(derivation.clone(), output.to_owned())];
        Ok(self.realisations(&asked)?.pop().flatten())
    }

    /// As [`LocalStore::realisation`], for many outputs at once; the answers are in the order of the questions.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn realisations(&self, outputs: &[(StorePath, String)]) -> Result<Vec<Option<StorePath>>, QueryError> {
        let names = self.database.read("look up realisations", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT realisations.path FROM realisations JOIN objects ON objects.path = realisations.path
                WHERE derivation = ?1 AND output = ?2 AND withdrawn = 0
                ORDER BY verdict = 'different', realisations.id",
            )?;
            let mut found: Vec<Vec<String>> = Vec::with_capacity(outputs.len());
            for (derivation, output) in outputs {
                let rows = statement.query_map([derivation.base_name(), output], |row| row.get(0))?;
                found.push(rows.collect::<rusqlite::Result<_>>()?);
            }
            Ok(found)
        })?;
        names.iter().map(|candidates| self.first_on_disk(candidates)).collect()
    }

    fn first_on_disk(&self, names: &[String]) -> Result<Option<StorePath>, QueryError> {
        for name in names {
            let path = parse_path(name)?;
            if self.is_on_disk(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// All records of an output, oldest first, whether or not the objects are still there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn provenance(&self, derivation: &StorePath, output: &str) -> Result<Vec<RealisationRecord>, QueryError> {
        let statement = "SELECT path, nar_hash, engine, started_at, duration_milliseconds, log, verdict
            FROM realisations WHERE derivation = ?1 AND output = ?2 ORDER BY id";
        let rows = self.database.read("look up provenance", |connection| {
            rows(connection, statement, derivation, output, RealisationRow::read)
        })?;
        Ok(rows.into_iter().map(|row| row.parse(derivation, output)).collect::<Result<_, _>>()?)
    }

    /// The outputs that are known to have become this object: derivation and output name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn realised_as(&self, path: &StorePath) -> Result<BTreeSet<(StorePath, String)>, QueryError> {
        let rows = self.database.read("look up what made an object", |connection| {
            let statement = "SELECT DISTINCT derivation, output FROM realisations WHERE path = ?1";
            let mut statement = connection.prepare_cached(statement)?;
            let rows = statement.query_map([path.base_name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
        })?;
        rows.into_iter().map(|(derivation, output)| Ok((parse_path(&derivation)?, output))).collect()
    }
}

/// Adds rows of realisations.
pub(super) fn insert_realisations(connection: &Connection, records: &[RealisationRecord]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO realisations (derivation, output, path, nar_hash, engine, started_at, duration_milliseconds, log,
            verdict) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for record in records {
        statement.execute(params![
            record.derivation.base_name(),
            record.output,
            record.path.base_name(),
            record.nar_hash.as_ref().map(Sha256Digest::as_bytes),
            record.engine,
            record.started_at,
            i64::try_from(record.duration_milliseconds).unwrap_or(i64::MAX),
            record.log,
            record.verdict.name(),
        ])?;
    }
    Ok(())
}

pub(super) fn rows<T>(
    connection: &Connection,
    statement: &str,
    derivation: &StorePath,
    output: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(statement)?.query_map([derivation.base_name(), output], read)?.collect()
}

struct RealisationRow {
    path: String,
    nar_hash: Option<[u8; 32]>,
    engine: String,
    started_at: i64,
    duration_milliseconds: i64,
    log: Option<String>,
    verdict: String,
}

impl RealisationRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            path: row.get("path")?,
            nar_hash: row.get("nar_hash")?,
            engine: row.get("engine")?,
            started_at: row.get("started_at")?,
            duration_milliseconds: row.get("duration_milliseconds")?,
            log: row.get("log")?,
            verdict: row.get("verdict")?,
        })
    }

    fn parse(self, derivation: &StorePath, output: &str) -> Result<RealisationRecord, DatabaseError> {
        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.name() == self.verdict);
        Ok(RealisationRecord {
            derivation: derivation.clone(),
            output: output.to_owned(),
            path: parse_path(&self.path)?,
            nar_hash: self.nar_hash.map(Sha256Digest::from_bytes),
            engine: self.engine,
            started_at: self.started_at,
            duration_milliseconds: u64::try_from(self.duration_milliseconds)
                .map_err(|_| invalid("duration", self.duration_milliseconds))?,
            log: self.log,
            verdict: verdict.ok_or_else(|| invalid("verdict", self.verdict))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, file, path, register};
    use super::*;

    fn record(derivation: &StorePath, path: &StorePath, verdict: Verdict) -> RealisationRecord {
        RealisationRecord {
            derivation: derivation.clone(),
            output: "out".into(),
            path: path.clone(),
            nar_hash: Some(Sha256Digest::of(path.base_name().as_bytes())),
            engine: "embedded".into(),
            started_at: 1_700_000_000,
            duration_milliseconds: 1234,
            log: Some("log".into()),
            verdict,
        }
    }

    #[test]
    fn several_builds_are_several_records_and_the_first_that_is_there_counts() {
        let home = Home::new();
        let store = home.open();
        let (drv, first, second, third) = (path(1, "a.drv"), path(2, "a"), path(3, "a"), path(4, "a"));
        let records = [
            record(&drv, &first, Verdict::First),
            record(&drv, &second, Verdict::Different),
            record(&drv, &third, Verdict::Identical),
        ];
        store.record_realisations(&records[..2]).unwrap();
        store.record_realisation(&records[2]).unwrap();
        assert_eq!(store.realisation(&drv, "out").unwrap(), None, "none of the objects is there");
        for path in [&second, &first, &third] {
            register(&store, file(&store, path, path.base_name(), &[]));
        }
        let store = home.open();
        assert_eq!(store.provenance(&drv, "out").unwrap(), records);
        assert_eq!(store.realisation(&drv, "out").unwrap(), Some(first.clone()));
        store.delete(std::slice::from_ref(&first)).unwrap();
        assert_eq!(store.realisation(&drv, "out").unwrap(), Some(third.clone()));
        store.delete(&[third]).unwrap();
        assert_eq!(store.realisation(&drv, "out").unwrap(), Some(second));
        assert_eq!(store.provenance(&drv, "out").unwrap(), records, "records outlive objects");
        assert_eq!(store.realised_as(&first).unwrap(), [(drv, "out".into())].into());
    }

    #[test]
    fn many_outputs_are_looked_up_at_once_in_order() {
        let home = Home::new();
        let store = home.open();
        let (drv, object) = (path(1, "a.drv"), path(2, "a"));
        register(&store, file(&store, &object, "", &[]));
        store.record_realisation(&record(&drv, &object, Verdict::First)).unwrap();
        let asked = [(drv.clone(), "dev".into()), (drv.clone(), "out".into()), (path(9, "b.drv"), "out".into())];
        assert_eq!(store.realisations(&asked).unwrap(), [None, Some(object), None]);
        assert!(store.realisations(&[]).unwrap().is_empty());
    }

    #[test]
    fn records_come_with_the_objects_or_not_at_all() {
        let home = Home::new();
        let store = home.open();
        let (drv, object, missing) = (path(1, "a.drv"), path(2, "a"), path(3, "missing"));
        let records = [record(&drv, &object, Verdict::First)];
        let refused = store.register_realised(vec![file(&store, &object, "a", &[&missing])], &records);
        refused.unwrap_err();
        assert_eq!(store.provenance(&drv, "out").unwrap(), []);
        store.register_realised(vec![file(&store, &object, "a", &[])], &records).unwrap();
        assert_eq!(store.provenance(&drv, "out").unwrap(), records);
        // Made once more: the object is there, the record is new.
        store.register_realised(vec![file(&store, &object, "a", &[])], &records).unwrap();
        assert_eq!(home.open().provenance(&drv, "out").unwrap().len(), 2);
    }
}
