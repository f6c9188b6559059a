//! What the store knows of one derivation's outputs, under whichever of its names.

use std::collections::BTreeMap;
use std::sync::Arc;

use ampoule_derivations::derivation::{Derivation, resolve};
use ampoule_store::local::{CheckRecord, LocalStore, QueryError, RealisationRecord};
use ampoule_store::path::StorePath;

use crate::check::{Check, OutputVerdict, Standing};

/// The derivation that one becomes when its inputs are what they turned out to be: builds are recorded under it too.
///
/// `None` if it is the same, or if it or what it needs is not known or was never made.
///
/// # Errors
/// When the store cannot be read.
pub fn resolved_path(
    store: &LocalStore,
    derivations: &BTreeMap<StorePath, Arc<Derivation>>,
    path: &StorePath,
) -> Result<Option<StorePath>, QueryError> {
    let dir = store.store_dir();
    let Some(derivation) = derivations.get(path) else { return Ok(None) };
    let mut known: BTreeMap<(&StorePath, &str), StorePath> = BTreeMap::new();
    for (input, outputs) in &derivation.input_derivations {
        for output in outputs {
            let stated = derivations.get(input).map(|derivation| derivation.output_path(dir, output));
            let found = match stated {
                Some(Ok(Some(stated))) => Some(stated),
                _ => store.realisation(input, output)?,
            };
            known.extend(found.map(|found| ((input, output.as_str()), found)));
        }
    }
    let resolved = resolve(derivation, dir, |input, output| known.get(&(input, output)).cloned()).ok();
    let path_of = |resolved: Derivation| resolved.path(dir).ok();
    Ok(resolved.and_then(path_of).filter(|resolved| resolved != path))
}

/// What the records of an output say, kept under one name or several.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn evidence(
    store: &LocalStore,
    names: &[&StorePath],
    output: &str,
    pinned: bool,
) -> Result<OutputVerdict, QueryError> {
    let (mut builds, mut checks) = (Vec::new(), Vec::new());
    for name in names {
        let evidence = store.evidence(name, output)?;
        builds.extend(evidence.builds);
        checks.extend(evidence.checks);
    }
    Ok(verdict(output, pinned, builds, checks))
}

fn verdict(
    output: &str,
    pinned: bool,
    mut builds: Vec<RealisationRecord>,
    mut checks: Vec<CheckRecord>,
) -> OutputVerdict {
    // One build or check has a record under each name.
    builds.sort_by_key(|build| build.started_at);
    let mut distinct: Vec<RealisationRecord> = Vec::new();
    for build in builds {
        let same = |known: &RealisationRecord| {
            (&known.path, &known.engine, known.started_at, known.duration_milliseconds, &known.log)
                == (&build.path, &build.engine, build.started_at, build.duration_milliseconds, &build.log)
        };
        if !distinct.iter().any(same) {
            distinct.push(build);
        }
    }
    checks.sort_by_key(|check| (check.checked_at, check.round));
    checks.dedup_by(|a, b| {
        (a.checked_at, a.round, a.second_nar_hash, &a.engine, &a.knobs)
            == (b.checked_at, b.round, b.second_nar_hash, &b.engine, &b.knobs)
    });
    let standing = match checks.last() {
        _ if pinned => Standing::Pinned,
        None => Standing::Unproved,
        Some(newest) if newest.identical => Standing::Proved,
        Some(_) => Standing::Refuted,
    };
    let identical_rounds = checks.iter().rev().take_while(|check| check.identical).count();
    let read = |record: CheckRecord| {
        let finding = record.finding.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Check { record, finding }
    };
    let checks = checks.into_iter().map(read).collect();
    OutputVerdict { output: output.to_owned(), standing, identical_rounds, builds: distinct, checks }
}
