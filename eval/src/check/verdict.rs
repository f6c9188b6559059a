//! What the store knows of a derivation's reproducibility, output by output.

use ampoule_derivations::derivation::{Derivation, Output};
use ampoule_store::local::{CheckRecord, Evidence, LocalStore, QueryError, RealisationRecord};
use ampoule_store::path::StorePath;

use super::finding::Finding;

/// What all that is known of an output says, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// A rebuild gave other bytes, or failed.
    Refuted,
    /// Nobody has built it a second time, or not at all.
    Unproved,
    /// Every rebuild since the last difference, at least one, gave the same bytes.
    Proved,
    /// Its hash is stated beforehand: whoever makes it makes these bytes.
    Pinned,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuted => "refuted",
            Self::Unproved => "unproved",
            Self::Proved => "proved",
            Self::Pinned => "pinned",
        }
    }
}

/// One rebuild that was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The store's record: hashes, round, engine, version, time, and the knobs as JSON.
    pub record: CheckRecord,
    /// What was found out about the difference, if there was one and this program can read it.
    pub finding: Option<Finding>,
}

/// What is known of one output of a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputVerdict {
    /// The output's name.
    pub output: String,
    /// What the records together say.
    pub standing: Standing,
    /// How many rebuilds in a row, up to the newest, gave the same bytes.
    pub identical_rounds: usize,
    /// Each time it was made, oldest first; a rebuild that was kept because it differs has the verdict `Different`, and
    /// its `path` is where it lies.
    pub builds: Vec<RealisationRecord>,
    /// Each rebuild that was compared, oldest first.
    pub checks: Vec<Check>,
}

/// What is known of each output of a derivation, in the order of their names.
///
/// `path` is the derivation as recipes give it or in its resolved form: records are kept under both. For a closure, call
/// this for every derivation of `Evaluation::derivations` (or of `Realiser::derivations`) that is of interest:
///
/// ```no_run
/// # use ampoule_eval::check::{Standing, verdicts};
/// # fn audit(store: &ampoule_store::local::LocalStore,
/// #          path: &ampoule_store::path::StorePath,
/// #          derivation: &ampoule_derivations::derivation::Derivation)
/// #          -> Result<(), Box<dyn std::error::Error>> {
/// for verdict in verdicts(store, path, derivation)? {
///     println!("{path}!{}: {}", verdict.output, verdict.standing.name());
///     if let Some(finding) = verdict.checks.last().and_then(|check| check.finding.as_ref()) {
///         println!("  {finding}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the store cannot be read.
pub fn verdicts(
    store: &LocalStore,
    path: &StorePath,
    derivation: &Derivation,
) -> Result<Vec<OutputVerdict>, QueryError> {
    let verdicts = derivation.outputs.iter().map(|(name, output)| {
        let evidence = store.evidence(path, name)?;
        Ok(verdict(name, matches!(output, Output::Fixed(_)), evidence))
    });
    verdicts.collect()
}

fn verdict(output: &str, pinned: bool, evidence: Evidence) -> OutputVerdict {
    let standing = match evidence.standing() {
        _ if pinned => Standing::Pinned,
        ampoule_store::local::Standing::Refuted => Standing::Refuted,
        ampoule_store::local::Standing::Unproved => Standing::Unproved,
        ampoule_store::local::Standing::Proved => Standing::Proved,
    };
    let identical_rounds = evidence.identical_rounds();
    let read = |record: CheckRecord| {
        let finding = record.finding.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Check { record, finding }
    };
    let checks = evidence.checks.into_iter().map(read).collect();
    OutputVerdict { output: output.to_owned(), standing, identical_rounds, builds: evidence.builds, checks }
}
