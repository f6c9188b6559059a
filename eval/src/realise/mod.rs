//! Makes derivations' outputs valid: finds, fetches or builds them, and proves them by building again.
//!
//! [`Realiser::realise`] plans from the goals inwards, then works through the plan in parallel. A derivation is *resolved*
//! before it is built: its inputs become the store paths they turned out to be, and derivations that resolve to the
//! same one share its result.

mod again;
mod attributes;
mod build;
mod check;
mod environment;
pub mod kept;
mod log;
mod outcome;
mod output_checks;
mod plan;
mod references_graph;
mod requirements;
mod sandboxed;
mod schedule;
mod seek;
mod shell;
mod structured_attributes;
mod substitute;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use ampoule_derivations::aterm;
use ampoule_derivations::derivation::{Derivation, Output};
use ampoule_store::cache::Substituters;
use ampoule_store::local::{DerivationRow, LocalStore, QueryError, Registration, StageError};
use ampoule_store::path::StorePath;

pub use outcome::{Failure, FailureKind, How, Outcome, Outcomes, Realised};
pub use plan::{Plan, PlanError, Status, Step};
pub use shell::Shell;
pub use substitute::Foreseen;

pub(crate) use sandboxed::chain;

use self::schedule::{Ended, Threads};
use crate::lang::StoreObject;
use crate::reporter::Reporter;
use crate::sandbox::{Engine, Limits};

/// Downloads at a time: more do not make a mirror faster.
const FETCHES: NonZeroUsize = NonZeroUsize::new(6).expect("six is not zero");

/// Brings a source's bytes into the store.
pub trait Fetch: Sync {
    /// Makes the output of the fixed-output derivation valid, or says why not.
    ///
    /// # Errors
    /// When nobody has the bytes, they have another hash, or the store refuses them.
    fn fetch(&self, path: &StorePath, derivation: &Derivation) -> Result<(), Failure>;
}

/// How to go about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Builds at a time.
    pub jobs: NonZeroUsize,
    /// Cores that a builder is told to use.
    pub cores: u32,
    /// Whether to go on with what does not need a failed derivation.
    pub keep_going: bool,
    /// Whether everything realised must have a proof.
    pub check: bool,
    /// How proofs are made.
    pub checking: Checking,
    /// Whether the directories of failed builds are kept.
    pub keep_failed: bool,
    /// How much a build may use, if nobody says otherwise.
    pub limits: Limits,
    /// What holds whatever a derivation says.
    pub overrides: LimitOverrides,
}

/// How proofs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checking {
    /// How many rebuilds in a row must be identical, each under conditions of its own.
    pub rounds: u32,
    /// Whether to build more often after a difference, to find out what decides.
    pub seek: bool,
}

impl Default for Checking {
    fn default() -> Self {
        Self { rounds: 1, seek: true }
    }
}

/// Limits that go before those of derivations; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitOverrides {
    /// Wall time of a build. A derivation says it as `__timeout`.
    pub timeout_seconds: Option<u64>,
    /// Wall time without a byte of log. A derivation says it as `__maxSilentTime`.
    pub silence_seconds: Option<u64>,
    /// Bytes of log. A derivation says it as `__maxLogSize`.
    pub log_bytes: Option<u64>,
}

/// Makes outputs valid.
pub struct Realiser<'a> {
    /// Where outputs are kept.
    pub store: &'a LocalStore,
    /// Every derivation that may be needed.
    pub derivations: &'a BTreeMap<StorePath, Arc<Derivation>>,
    /// Texts and files that derivations take as sources.
    pub objects: &'a BTreeMap<StorePath, StoreObject>,
    /// Runs builders.
    pub engine: &'a dyn Engine,
    /// Fetches sources.
    pub fetch: &'a dyn Fetch,
    /// Are asked for outputs before they are built or fetched.
    pub substituters: &'a Substituters,
    /// Is told what happens.
    pub reporter: &'a dyn Reporter,
    /// How to go about it.
    pub options: Options,
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError<QueryError>),
    /// The derivations, or the objects they take as sources, cannot be put into the store.
    #[error("cannot put the derivations into the store: {0}")]
    Prepare(String),
}

impl Realiser<'_> {
    /// Makes the outputs of `goals` valid, and with a check proves everything they are made of.
    ///
    /// # Errors
    /// When nothing could be begun. Failures of single derivations are in the outcomes.
    pub fn realise(&self, goals: &[StorePath]) -> Result<Outcomes, RealiseError> {
        // From the goals inwards: what a cache has needs nothing else.
        let statuses = |asked: &[(&StorePath, &Derivation)]| self.statuses_with_caches(asked);
        let plan = plan::plan(goals, self.options.check, self.derivations, statuses)?;
        if !plan.steps.is_empty() {
            self.prepare(&plan)?;
        }
        let known = Known::new(&plan);
        let threads = Threads { fetch: FETCHES, build: self.options.jobs };
        let ended = schedule::run(&plan.tasks(), threads, self.options.keep_going, &|position| {
            let step = &plan.steps[position];
            let result = self.perform(step, &known);
            if let Ok(realised) = &result {
                known.add(step.derivation.clone(), realised.outputs.clone());
            }
            let success = result.is_ok();
            (result, success)
        });
        Ok(outcomes(plan, ended))
    }

    /// What the store knows of a derivation's outputs. Those it has are not collected while it is open.
    fn status(&self, path: &StorePath, derivation: &Derivation) -> Result<Status, QueryError> {
        Ok(self.statuses(&[(path, derivation)])?.pop().unwrap_or_default())
    }

    /// What the store knows of the outputs of many derivations, in their order. Those it has are not collected meanwhile.
    fn statuses(&self, asked: &[(&StorePath, &Derivation)]) -> Result<Vec<Status>, QueryError> {
        let mut statuses: Vec<Status> = Vec::with_capacity(asked.len());
        // Each output is looked up by its path where that is known beforehand, else by what it became.
        let (mut floating, mut positions, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (position, (path, derivation)) in asked.iter().enumerate() {
            let proved = derivation.fixed_output().is_some();
            statuses.push(Status { outputs: Some(BTreeMap::new()), proved, substituted: false });
            for (name, output) in &derivation.outputs {
                match output {
                    Output::Floating { .. } | Output::Deferred => {
                        floating.push(((*path).clone(), name.clone()));
                        positions.push(position);
                    }
                    Output::Fixed(_) | Output::InputAddressed(_) => {
                        let path = derivation.output_path(self.store.store_dir(), name).ok().flatten();
                        known.push((position, name, path));
                    }
                }
            }
        }
        let found = self.store.keep_realisations(&floating)?;
        for ((position, (_, name)), found) in positions.into_iter().zip(&floating).zip(found) {
            statuses[position].add_output(name, found);
        }
        let paths: Vec<StorePath> = known.iter().filter_map(|(_, _, path)| path.clone()).collect();
        let valid = self.store.keep_valid_paths(&paths)?;
        for (position, name, path) in known {
            statuses[position].add_output(name, path.filter(|path| valid.contains(path)));
        }
        self.add_proofs(asked, &mut statuses)?;
        Ok(statuses)
    }

    fn add_proofs(&self, asked: &[(&StorePath, &Derivation)], statuses: &mut [Status]) -> Result<(), QueryError> {
        let mut outputs = Vec::new();
        let mut positions = Vec::new();
        for (position, (path, derivation)) in asked.iter().enumerate() {
            if !statuses[position].proved {
                outputs.extend(derivation.outputs.keys().map(|name| ((*path).clone(), name.clone())));
                positions.extend(derivation.outputs.keys().map(|_| position));
                // Until one of its outputs turns out to have no proof.
                statuses[position].proved = true;
            }
        }
        for (position, proved) in
            positions.into_iter().zip(self.store.are_proved(&outputs, self.options.checking.rounds)?)
        {
            statuses[position].proved &= proved;
        }
        Ok(())
    }

    /// Puts what the steps need beforehand into the store: the derivations themselves, and texts and files.
    fn prepare(&self, plan: &Plan) -> Result<(), RealiseError> {
        let fail = |error: &(dyn std::error::Error + 'static)| RealiseError::Prepare(sandboxed::chain(error));
        let derivations = plan.steps.iter().map(|step| (&step.derivation, &self.derivations[&step.derivation]));
        let rows: Vec<DerivationRow> =
            derivations.clone().map(|(path, derivation)| self.row(path, derivation)).collect();
        self.store.add_derivations(&rows).map_err(|error| fail(&error))?;

        self.add_sources(&derivations.flat_map(|(_, derivation)| &derivation.input_sources).collect())
    }

    /// Puts texts and files that derivations take as sources into the store.
    fn add_sources(&self, wanted: &BTreeSet<&StorePath>) -> Result<(), RealiseError> {
        let fail = |error: &(dyn std::error::Error + 'static)| RealiseError::Prepare(sandboxed::chain(error));
        let wanted: Vec<StorePath> = wanted.iter().copied().cloned().collect();
        // Before asking what is valid: a collector may be at work.
        self.store.protect(&wanted).map_err(|error| fail(&error))?;
        let valid = self.store.valid_paths(&wanted).map_err(|error| fail(&error))?;
        let mut batch = Vec::new();
        for path in wanted.iter().filter(|path| !valid.contains(path)) {
            // What is not among the objects must be in the store already, which the build will find out.
            if let Some(object) = self.objects.get(path) {
                batch.push(stage_object(self.store, path, object).map_err(|error| fail(&error))?);
            }
        }
        self.store.register(batch).map_err(|error| fail(&error))?;
        Ok(())
    }

    fn row(&self, path: &StorePath, derivation: &Derivation) -> DerivationRow {
        let aterm = aterm::write(derivation, self.store.store_dir());
        DerivationRow { path: path.clone(), aterm, references: derivation.references() }
    }
}

/// A text or file of the recipes, ready to be registered.
///
/// # Errors
/// When it cannot be written.
pub fn stage_object(store: &LocalStore, path: &StorePath, object: &StoreObject) -> Result<Registration, StageError> {
    Ok(Registration {
        staged: store.stage_bytes(&object.content)?,
        path: path.clone(),
        references: object.references.clone(),
        deriver: None,
        content_address: Some(object.address.clone()),
    })
}

/// Outputs known so far, shared by all workers.
struct Known(Mutex<BTreeMap<StorePath, BTreeMap<String, StorePath>>>);

impl Known {
    fn new(plan: &Plan) -> Self {
        let found = plan.found.iter().filter_map(|(path, status)| Some((path.clone(), status.outputs.clone()?)));
        Self(Mutex::new(found.collect()))
    }

    fn add(&self, derivation: StorePath, outputs: BTreeMap<String, StorePath>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(derivation, outputs);
    }

    fn output(&self, derivation: &StorePath, output: &str) -> Option<StorePath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(derivation)?.get(output).cloned()
    }
}

fn outcomes(plan: Plan, ended: Vec<Ended<Result<Realised, Failure>>>) -> Outcomes {
    let mut outcomes: BTreeMap<StorePath, Outcome> = plan
        .found
        .into_iter()
        .filter_map(|(path, status)| {
            let how = if status.substituted { How::Substituted } else { How::Found };
            let realised = Realised { outputs: status.outputs?, how, proved: status.proved };
            Some((path, Outcome::Realised(realised)))
        })
        .collect();
    for (step, ended) in plan.steps.iter().zip(ended) {
        let outcome = match ended {
            Ended::Ran(Ok(realised)) => Outcome::Realised(realised),
            Ended::Ran(Err(failure)) => Outcome::Failed(failure),
            Ended::NeedFailed(origin) => Outcome::InputFailed(plan.steps[origin].derivation.clone()),
            Ended::NotBegun => Outcome::NotBegun,
        };
        outcomes.insert(step.derivation.clone(), outcome);
    }
    Outcomes(outcomes)
}
