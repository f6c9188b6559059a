//! Closures out of caches into a local store.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::{Cache, CacheError, Fetched, Realisation};
use crate::hash::Sha256Digest;
use crate::local::{DatabaseError, LocalStore, LockError, PathLock, QueryError, RegisterForeignError};
use crate::narinfo::NarInfo;
use crate::path::StorePath;
use crate::signature::{Signature, TrustedKeys};

/// How many objects are fetched before they are registered together, and how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 512 << 20;
/// Fetches at a time: mostly waiting, not computing.
const THREADS: usize = 8;

/// Whose word is taken for objects whose path does not follow from their content, and for realisations.
#[derive(Debug, Clone)]
pub enum Trust {
    /// That of these keys.
    Keys(TrustedKeys),
    /// Anybody's.
    Everything,
}

impl Trust {
    /// Whether a statement with these signatures is believed.
    pub fn accepts<'a>(&self, statement: &[u8], signatures: impl IntoIterator<Item = &'a Signature>) -> bool {
        match self {
            Self::Keys(keys) => keys.verify(statement, signatures),
            Self::Everything => true,
        }
    }

    /// Whether this signature is by a key that is known, and genuine.
    pub(super) fn knows(&self, statement: &[u8], signature: &Signature) -> bool {
        matches!(self, Self::Keys(keys) if keys.verify(statement, [signature]))
    }
}

/// Caches in the order in which they are asked, and what is believed of what they say.
#[derive(Debug)]
pub struct Substituters {
    caches: Vec<Cache>,
    trust: Trust,
    /// Caches that failed: they are not asked again.
    failed: Mutex<BTreeMap<usize, String>>,
}

/// What was brought into the store.
#[derive(Debug, Default)]
pub struct Substituted {
    /// The objects, each after what it refers to, and the cache it came from.
    pub objects: Vec<(StorePath, String)>,
}

/// Why a closure is not in the store. What was registered before is whole.
#[derive(Debug, thiserror::Error)]
pub enum SubstituteError {
    /// No cache has an object, or has it in a form that is accepted.
    #[error("no cache has `{path}`{}", reasons.iter().chain(failed).map(|reason| format!("; {reason}")).collect::<String>())]
    Unavailable {
        /// The object.
        path: StorePath,
        /// What was wrong with what there was.
        reasons: Vec<String>,
        /// What was wrong before with caches that were not asked any more.
        failed: Vec<String>,
    },
    /// Objects refer to one another in a circle.
    #[error("objects refer to one another in a circle, among them `{path}`")]
    Cycle {
        /// One of them.
        path: StorePath,
    },
    /// The objects cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterForeignError),
    /// The signatures cannot be kept.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Others cannot be kept from fetching the same.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Substituters {
    /// These caches: those with a lower priority number first, else in this order.
    #[must_use]
    pub fn new(mut caches: Vec<Cache>, trust: Trust) -> Self {
        caches.sort_by_key(|cache| cache.info().priority);
        Self { caches, trust, failed: Mutex::default() }
    }

    /// No caches.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new(), Trust::Keys(TrustedKeys::default()))
    }

    /// Whether there is no cache to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// What was wrong with caches that are not asked any more.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether a cache has something to say of an object, be it believed or not.
    #[must_use]
    pub fn offers(&self, path: &StorePath) -> bool {
        !matches!(self.find(path), Err(SubstituteError::Unavailable { reasons, .. }) if reasons.is_empty())
    }

    /// What an output of a derivation became, by the first cache whose word is taken, and that cache's address. `modulo` gives the
    /// derivation's hash modulo its inputs, by which older caches know it, if it can be told.
    #[must_use]
    pub fn realisation(
        &self,
        derivation: &StorePath,
        output: &str,
        modulo: &dyn Fn() -> Option<Sha256Digest>,
    ) -> Option<(Realisation, &str)> {
        let modulo = LazyCell::new(modulo);
        self.asked().find_map(|(index, cache)| match self.realisation_of(cache, derivation, output, &modulo) {
            Ok(found) => Some((found?, cache.address())),
            Err(error) => {
                self.note(index, &error);
                None
            }
        })
    }

    fn realisation_of(
        &self,
        cache: &Cache,
        derivation: &StorePath,
        output: &str,
        modulo: &LazyCell<Option<Sha256Digest>, &dyn Fn() -> Option<Sha256Digest>>,
    ) -> Result<Option<Realisation>, CacheError> {
        let mut found = cache.realisation(derivation, output)?.map(|found| (found.fingerprint(), found));
        if found.is_none()
            && let Some(modulo) = &**modulo
        {
            let older = cache.older_realisation(derivation, modulo, output)?;
            found = older.map(|(found, signed)| (signed, found));
        }
        let believed = found.filter(|(signed, found)| self.trust.accepts(signed.as_bytes(), &found.signatures));
        Ok(believed.map(|(_, found)| found))
    }

    /// Brings objects and all they refer to into the store, as far as they are not in it.
    ///
    /// # Errors
    /// When one of them is nowhere to be had, or cannot be registered.
    pub fn substitute(&self, store: &LocalStore, paths: &[StorePath]) -> Result<Substituted, SubstituteError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build();
        match pool {
            Ok(pool) => pool.install(|| self.substitute_here(store, paths)),
            Err(_) => self.substitute_here(store, paths),
        }
    }

    /// What [`Self::substitute`] would fetch, each object after what it refers to.
    ///
    /// # Errors
    /// When one of them is nowhere to be had, or the store cannot be asked.
    pub fn missing(&self, store: &LocalStore, paths: &[StorePath]) -> Result<Vec<Arc<NarInfo>>, SubstituteError> {
        ordered(&self.closure(store, paths)?)
    }

    fn substitute_here(&self, store: &LocalStore, paths: &[StorePath]) -> Result<Substituted, SubstituteError> {
        let infos = self.closure(store, paths)?;
        let mut substituted = Substituted::default();
        let mut rest = &ordered(&infos)?[..];
        while !rest.is_empty() {
            let mut bytes = 0_u64;
            let within = |info: &&Arc<NarInfo>| {
                let fits = bytes < BATCH_BYTES;
                bytes = bytes.saturating_add(info.nar_size);
                fits
            };
            let count = rest.iter().take(BATCH).take_while(within).count().max(1);
            let (batch, later) = rest.split_at(count);
            rest = later;
            // Whoever wants the same waits here, and then finds it.
            let _locks = lock(store, batch)?;
            let names: Vec<StorePath> = batch.iter().map(|info| info.path.clone()).collect();
            let valid = store.keep_valid_paths(&names)?;
            let missing: Vec<&Arc<NarInfo>> = batch.iter().filter(|info| !valid.contains(&info.path)).collect();
            let fetched = missing.par_iter().map(|info| self.fetch(store, info));
            let fetched = fetched.collect::<Result<Vec<_>, SubstituteError>>()?;
            let mut signatures = Vec::new();
            let mut registrations = Vec::new();
            for (one, address) in fetched {
                let path = one.registration.path.clone();
                signatures.extend(one.signatures.into_iter().map(|signature| (path.clone(), signature)));
                substituted.objects.push((path, address));
                registrations.push(one.registration);
            }
            store.register_foreign(registrations)?;
            store.add_signatures(signatures.iter().map(|(path, signature)| (path, signature)))?;
        }
        Ok(substituted)
    }

    /// What caches say of the objects that are missing, and of everything missing that those refer to.
    fn closure(
        &self,
        store: &LocalStore,
        paths: &[StorePath],
    ) -> Result<BTreeMap<StorePath, Arc<NarInfo>>, SubstituteError> {
        let mut infos = BTreeMap::new();
        let mut seen: BTreeSet<StorePath> = paths.iter().cloned().collect();
        let mut next: Vec<StorePath> = seen.iter().cloned().collect();
        while !next.is_empty() {
            let valid = store.keep_valid_paths(&next)?;
            next.retain(|path| !valid.contains(path));
            let found = next.par_iter().map(|path| self.find(path)).collect::<Result<Vec<_>, _>>()?;
            next.clear();
            for info in found {
                for reference in &info.references {
                    if seen.insert(reference.clone()) {
                        next.push(reference.clone());
                    }
                }
                infos.insert(info.path.clone(), info);
            }
        }
        Ok(infos)
    }

    /// What the first cache says whose word is taken.
    fn find(&self, path: &StorePath) -> Result<Arc<NarInfo>, SubstituteError> {
        self.first(path, |cache, info| cache.admit(&info, &self.trust).map(|()| info)).map(|(info, _)| info)
    }

    /// The object from the first cache that sends what it should.
    fn fetch(&self, store: &LocalStore, expected: &NarInfo) -> Result<(Fetched, String), SubstituteError> {
        self.first(&expected.path, |cache, info| cache.fetch(store, &info, &self.trust))
    }

    pub(super) fn first<T>(
        &self,
        path: &StorePath,
        take: impl Fn(&Cache, Arc<NarInfo>) -> Result<T, CacheError>,
    ) -> Result<(T, String), SubstituteError> {
        let mut reasons = Vec::new();
        let failed = self.failures();
        for (index, cache) in self.asked() {
            let taken = cache.narinfo(path).and_then(|info| info.map(|info| take(cache, info)).transpose());
            match taken {
                Ok(Some(taken)) => return Ok((taken, cache.address().to_owned())),
                Ok(None) => {}
                Err(error) => {
                    self.note(index, &error);
                    reasons.push(chain(&error));
                }
            }
        }
        Err(SubstituteError::Unavailable { path: path.clone(), reasons, failed })
    }

    /// The caches that have not failed yet.
    fn asked(&self) -> impl Iterator<Item = (usize, &Cache)> {
        let failed: BTreeSet<usize> =
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        self.caches.iter().enumerate().filter(move |(index, _)| !failed.contains(index))
    }

    /// Remembers a cache that could not be reached. One that sends nonsense may still have better things.
    fn note(&self, index: usize, error: &CacheError) {
        if matches!(error, CacheError::Files(_)) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(index, chain(error));
        }
    }
}

/// Keeps others from fetching these. Everybody takes locks in the order of the paths, and has none from before.
fn lock(store: &LocalStore, batch: &[Arc<NarInfo>]) -> Result<Vec<PathLock>, LockError> {
    let paths: BTreeSet<&StorePath> = batch.iter().map(|info| &info.path).collect();
    paths.into_iter().map(|path| store.lock_fetch(path)).collect()
}

/// The objects, each after those it refers to.
fn ordered(infos: &BTreeMap<StorePath, Arc<NarInfo>>) -> Result<Vec<Arc<NarInfo>>, SubstituteError> {
    let mut ordered = Vec::with_capacity(infos.len());
    let mut done: BTreeMap<&StorePath, bool> = BTreeMap::new();
    for start in infos.keys() {
        // Each object is met twice: on the way in, and again when what it refers to is done.
        let mut pending = vec![(start, false)];
        while let Some((path, references_done)) = pending.pop() {
            let Some(info) = infos.get(path) else { continue };
            match (done.get(path), references_done) {
                (Some(true), _) => {}
                (Some(false), true) => {
                    done.insert(path, true);
                    ordered.push(Arc::clone(info));
                }
                (Some(false), false) => return Err(SubstituteError::Cycle { path: path.clone() }),
                (None, _) => {
                    done.insert(path, false);
                    pending.push((path, true));
                    let others = info.references.iter().filter(|other| **other != info.path);
                    pending.extend(others.filter(|other| done.get(other) != Some(&true)).map(|other| (other, false)));
                }
            }
        }
    }
    Ok(ordered)
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
