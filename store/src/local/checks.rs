//! What building outputs again and comparing said.
//!
//! Records are added, never changed or replaced. [`LocalStore::evidence`] gives everything that is known of an output;
//! its [`Standing`] is what all the records together say.

use rusqlite::{Connection, Transaction, params};

use super::LocalStore;
use super::query::QueryError;
use super::realisations::{RealisationRecord, RecordError, insert_realisations, rows};
use crate::hash::Sha256Digest;
use crate::path::StorePath;

/// That an output was built again under other conditions and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRecord {
    /// The derivation.
    pub derivation: StorePath,
    /// The name of the output.
    pub output: String,
    /// The SHA-256 of the NAR that was there.
    pub first_nar_hash: Sha256Digest,
    /// The SHA-256 of the NAR that the second build gave; `None`: it failed, though the first one did not.
    pub second_nar_hash: Option<Sha256Digest>,
    /// Whether both are the same tree, bit by bit.
    pub identical: bool,
    /// Which rebuild of its check this was, from one.
    pub round: u32,
    /// What was varied, as text of the caller's making.
    pub knobs: String,
    /// What was found out about a difference, as text of the caller's making.
    pub finding: Option<String>,
    /// Who built it again.
    pub engine: String,
    /// The version of the program that compared.
    pub tool_version: String,
    /// When, in Unix seconds.
    pub checked_at: i64,
}

/// What all checks of an output say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The newest check gave other bytes, or none.
    Refuted,
    /// It was never built a second time.
    Unproved,
    /// The newest check gave the same bytes.
    Proved,
}

impl Standing {
    /// The word for it: `refuted`, `unproved` or `proved`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuted => "refuted",
            Self::Unproved => "unproved",
            Self::Proved => "proved",
        }
    }
}

/// Everything a store knows of how an output came to be and whether it does so again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Each time it was made, oldest first.
    pub builds: Vec<RealisationRecord>,
    /// Each time it was built again and compared, oldest first.
    pub checks: Vec<CheckRecord>,
}

impl Evidence {
    /// What the records together say.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.checks.last() {
            None => Standing::Unproved,
            Some(newest) if newest.identical => Standing::Proved,
            Some(_) => Standing::Refuted,
        }
    }

    /// How many rebuilds in a row, up to the newest, gave the same bytes.
    #[must_use]
    pub fn identical_rounds(&self) -> usize {
        self.checks.iter().rev().take_while(|check| check.identical).count()
    }
}

impl LocalStore {
    /// Adds a record that an output was built again and compared.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn record_check(&self, record: &CheckRecord) -> Result<(), RecordError> {
        self.record_checks(std::slice::from_ref(record), &[])
    }

    /// Adds several such records, and those of the builds they speak of, all or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn record_checks(&self, checks: &[CheckRecord], builds: &[RealisationRecord]) -> Result<(), RecordError> {
        let Some(first) = checks.first() else { return self.record_realisations(builds) };
        let written = self.database.write("record checks", |transaction: &Transaction<'_>| {
            insert_checks(transaction, checks)?;
            Ok(insert_realisations(transaction, builds)?)
        });
        written.map_err(|source| RecordError {
            derivation: first.derivation.clone(),
            output: first.output.clone(),
            source,
        })
    }

    /// All checks of an output, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn checks(&self, derivation: &StorePath, output: &str) -> Result<Vec<CheckRecord>, QueryError> {
        let statement =
            "SELECT first_nar_hash, second_nar_hash, identical, round, knobs, finding, engine, tool_version,
            checked_at FROM checks WHERE derivation = ?1 AND output = ?2 ORDER BY id";
        Ok(self.database.read("look up checks", |connection| {
            rows(connection, statement, derivation, output, |row| {
                let second: Option<[u8; 32]> = row.get("second_nar_hash")?;
                Ok(CheckRecord {
                    derivation: derivation.clone(),
                    output: output.to_owned(),
                    first_nar_hash: Sha256Digest::from_bytes(row.get("first_nar_hash")?),
                    second_nar_hash: second.map(Sha256Digest::from_bytes),
                    identical: row.get("identical")?,
                    round: row.get("round")?,
                    knobs: row.get("knobs")?,
                    finding: row.get("finding")?,
                    engine: row.get("engine")?,
                    tool_version: row.get("tool_version")?,
                    checked_at: row.get("checked_at")?,
                })
            })
        })?)
    }

    /// Everything known of an output: who made it and when, and every check.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn evidence(&self, derivation: &StorePath, output: &str) -> Result<Evidence, QueryError> {
        Ok(Evidence { builds: self.provenance(derivation, output)?, checks: self.checks(derivation, output)? })
    }

    /// The newest check of an output, if that found no difference.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn proof(&self, derivation: &StorePath, output: &str) -> Result<Option<CheckRecord>, QueryError> {
        Ok(self.checks(derivation, output)?.pop().filter(|newest| newest.identical))
    }

    /// Whether the newest so many checks of an output found no difference, for many outputs at once; in the order of the
    /// questions.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn are_proved(&self, outputs: &[(StorePath, String)], rounds: u32) -> Result<Vec<bool>, QueryError> {
        let statement = "SELECT count(*) FROM (SELECT identical FROM checks WHERE derivation = ?1 AND output = ?2
            ORDER BY id DESC LIMIT ?3) WHERE identical";
        Ok(self.database.read("look up proofs", |connection| {
            let mut statement = connection.prepare_cached(statement)?;
            let identical = outputs.iter().map(|(derivation, output)| {
                statement.query_row(params![derivation.base_name(), output, rounds], |row| row.get::<_, u32>(0))
            });
            identical.map(|identical| Ok(identical? >= rounds)).collect()
        })?)
    }
}

fn insert_checks(connection: &Connection, checks: &[CheckRecord]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO checks (derivation, output, first_nar_hash, second_nar_hash, identical, round, knobs, finding,
            engine, tool_version, checked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for check in checks {
        statement.execute(params![
            check.derivation.base_name(),
            check.output,
            check.first_nar_hash.as_bytes(),
            check.second_nar_hash.as_ref().map(Sha256Digest::as_bytes),
            check.identical,
            check.round,
            check.knobs,
            check.finding,
            check.engine,
            check.tool_version,
            check.checked_at,
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, path};
    use super::*;

    fn check(number: u8, identical: bool, checked_at: i64) -> CheckRecord {
        CheckRecord {
            derivation: path(number, "a.drv"),
            output: "out".into(),
            first_nar_hash: Sha256Digest::of(b"1"),
            second_nar_hash: Some(Sha256Digest::of(if identical { b"1" } else { b"2" })),
            identical,
            round: 1,
            knobs: "{}".into(),
            finding: (!identical).then(|| "the date".into()),
            engine: "embedded".into(),
            tool_version: "1".into(),
            checked_at,
        }
    }

    #[test]
    fn the_newest_check_is_the_proof_if_it_found_no_difference() {
        let home = Home::new();
        let store = home.open();
        let drv = path(1, "a.drv");
        assert_eq!(store.proof(&drv, "out").unwrap(), None);
        assert_eq!(store.evidence(&drv, "out").unwrap().standing(), Standing::Unproved);
        store.record_check(&check(1, true, 1)).unwrap();
        assert_eq!(store.proof(&drv, "out").unwrap(), Some(check(1, true, 1)));
        assert_eq!(store.evidence(&drv, "out").unwrap().standing(), Standing::Proved);
        let failed = CheckRecord { second_nar_hash: None, round: 2, ..check(1, false, 2) };
        store.record_check(&failed).unwrap();
        assert_eq!(store.proof(&drv, "out").unwrap(), None);
        assert_eq!(store.checks(&drv, "out").unwrap(), [check(1, true, 1), failed]);
        let evidence = store.evidence(&drv, "out").unwrap();
        assert_eq!((evidence.standing(), evidence.identical_rounds()), (Standing::Refuted, 0));
        store.record_check(&check(1, true, 3)).unwrap();
        let evidence = store.evidence(&drv, "out").unwrap();
        assert_eq!((evidence.standing(), evidence.identical_rounds()), (Standing::Proved, 1));
        assert_eq!(store.proof(&drv, "dev").unwrap(), None);
    }

    #[test]
    fn proofs_are_looked_up_at_once_in_order() {
        let home = Home::new();
        let store = home.open();
        store.record_checks(&[check(1, true, 1), check(2, true, 1), check(3, false, 1)], &[]).unwrap();
        store.record_checks(&[check(2, false, 1), check(3, true, 1)], &[]).unwrap();
        let asked = [4, 3, 2, 1].map(|number| (path(number, "a.drv"), "out".to_owned()));
        assert_eq!(store.are_proved(&asked, 1).unwrap(), [false, true, false, true]);
        assert_eq!(store.are_proved(&asked, 2).unwrap(), [false; 4]);
        store.record_check(&check(1, true, 2)).unwrap();
        assert_eq!(store.are_proved(&asked, 2).unwrap(), [false, false, false, true]);
        assert!(store.are_proved(&[], 1).unwrap().is_empty());
    }
}
