//! Outputs from caches instead of builds.

#![expect(clippy::disallowed_methods, reason = "the clock says when an output was substituted")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ampoule_derivations::derivation::{Derivation, ModuloHashes};
use ampoule_store::cache::{SubstituteError, Substituters};
use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{LocalStore, RealisationRecord, Verdict};
use ampoule_store::path::{StoreDir, StorePath};

/// What came of asking for a derivation's outputs.
#[derive(Debug)]
pub enum Asked {
    /// All of them are valid now. Each is recorded as what the cache said it is.
    Substituted,
    /// No cache has them all.
    Absent,
    /// Caches have them, but not in a form that is accepted.
    Refused(String),
}

impl Asked {
    /// Asks for all outputs of a derivation, and registers them with all they refer to. `begin` is called when a cache
    /// offers all of them.
    ///
    /// # Errors
    /// When the store does not take them.
    pub fn outputs(
        substituters: &Substituters,
        store: &LocalStore,
        path: &StorePath,
        derivation: &Derivation,
        modulo: &Modulo<'_>,
        begin: impl FnOnce(),
    ) -> Result<Self, SubstituteError> {
        let started = Instant::now();
        let Some(outputs) = outputs(substituters, store, path, derivation, modulo) else { return Ok(Self::Absent) };
        let wanted: Vec<StorePath> = outputs.values().cloned().collect();
        if !wanted.iter().all(|path| substituters.offers(path)) {
            return Ok(Self::Absent);
        }
        begin();
        let substituted = match substituters.substitute(store, &wanted) {
            Ok(substituted) => substituted,
            Err(SubstituteError::Unavailable { reasons, .. }) if reasons.is_empty() => return Ok(Self::Absent),
            Err(error @ SubstituteError::Unavailable { .. }) => return Ok(Self::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for (name, output) in &outputs {
            let from = substituted.objects.iter().find(|(object, _)| object == output);
            let from = from.map_or("a cache's word", |(_, address)| address);
            let mut record = realisation_record(store, path, name, output, from)?;
            record.duration_milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            records.push(record);
        }
        match store.record_realisations(&records) {
            Ok(()) => Ok(Self::Substituted),
            Err(error) => Err(SubstituteError::Database(error.source)),
        }
    }
}

/// What a derivation's outputs are: by the derivation where it says so, else by the word of a cache. `None` if one is not known.
pub fn outputs(
    substituters: &Substituters,
    store: &LocalStore,
    path: &StorePath,
    derivation: &Derivation,
    modulo: &Modulo<'_>,
) -> Option<BTreeMap<String, StorePath>> {
    let output = |name: &String| {
        let known = derivation.output_path(store.store_dir(), name).ok().flatten();
        let hash = || modulo.hash(derivation, store.store_dir());
        let told = || substituters.realisation(path, name, &hash).map(|(realisation, _)| realisation.path);
        Some((name.clone(), known.or_else(told)?))
    };
    derivation.outputs.keys().map(output).collect()
}

/// Hashes of derivations modulo their inputs, by which caches of older programs know them. Computed when first asked for.
pub struct Modulo<'a> {
    derivations: &'a BTreeMap<StorePath, Arc<Derivation>>,
    hashes: RefCell<ModuloHashes>,
}

impl<'a> Modulo<'a> {
    /// Hashes of derivations that need these.
    pub fn new(derivations: &'a BTreeMap<StorePath, Arc<Derivation>>) -> Self {
        Self { derivations, hashes: RefCell::default() }
    }

    /// The hash of a derivation; `None` if an input is not known.
    pub fn hash(&self, derivation: &Derivation, store_dir: &StoreDir) -> Option<Sha256Digest> {
        let mut hashes = self.hashes.borrow_mut();
        for input in derivation.input_derivations.keys() {
            hashes.insert_closure(input, store_dir, |path| self.derivations.get(path).map(Arc::as_ref)).ok()?;
        }
        hashes.masked(derivation, store_dir).ok().map(|hash| hash.digest)
    }
}

/// The record that an output came from a cache.
///
/// # Errors
/// When the store cannot be read.
pub fn realisation_record(
    store: &LocalStore,
    derivation: &StorePath,
    output: &str,
    path: &StorePath,
    address: &str,
) -> Result<RealisationRecord, SubstituteError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Ok(RealisationRecord {
        derivation: derivation.clone(),
        output: output.to_owned(),
        path: path.clone(),
        nar_hash: store.path_info(path)?.map(|info| info.nar_hash),
        engine: format!("substituter {address}"),
        started_at: i64::try_from(now).unwrap_or(i64::MAX),
        duration_milliseconds: 0,
        log: None,
        verdict: Verdict::First,
    })
}
