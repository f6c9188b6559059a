//! Realises one step of the plan.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ampoule_derivations::derivation::{Derivation, resolve};
use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{LogWriter, RealisationRecord, Registration, Verdict};
use ampoule_store::path::StorePath;

use super::attributes::Attributes;
use super::check::is_sealed;
use super::kept;
use super::log::Log;
use super::outcome::{Failure, How, Realised};
use super::plan::{Step, is_fetch};
use super::requirements::{check_requirements, limits};
use super::sandboxed::{Made, Run, chain};
use super::{Known, Realiser};
use crate::check::{Circumstances, sealed};
use crate::reporter::{Activity, ActivityId, Event, next_activity};

/// A derivation as it is built: its inputs are store paths.
pub(super) struct Resolved {
    /// The derivation that was asked for, under which the log is found.
    pub(super) asked: StorePath,
    pub(super) path: StorePath,
    pub(super) derivation: Arc<Derivation>,
    pub(super) inputs: BTreeSet<StorePath>,
}

impl Realiser<'_> {
    /// Performs a step whose needs are met.
    pub(super) fn perform(&self, step: &Step, known: &Known) -> Result<Realised, Failure> {
        let derivation = &self.derivations[&step.derivation];
        if is_fetch(derivation) {
            if self.substitute(&step.derivation, derivation) {
                let outputs = self.fixed_outputs(derivation)?;
                return Ok(Realised { outputs, how: How::Substituted, proved: true });
            }
            self.fetch.fetch(&step.derivation, derivation)?;
            let outputs = self.fixed_outputs(derivation)?;
            return Ok(Realised { outputs, how: How::Fetched, proved: true });
        }
        let resolved = self.resolve(&step.derivation, derivation, known)?;
        if resolved.path != step.derivation {
            let row = self.row(&resolved.path, &resolved.derivation);
            self.store.add_derivations(&[row]).map_err(|error| store_failure(&error))?;
        }
        // One build of a derivation at a time, whoever wants it: others wait, and then find the result.
        let _lock = self.store.lock(&resolved.path).map_err(|error| store_failure(&error))?;
        let mut realised = match self.valid_outputs(&resolved)? {
            Some(outputs) => {
                let how = if step.make { How::SharedResult } else { How::Found };
                Realised { outputs, how, proved: false }
            }
            None => match self.substituted(&resolved)? {
                Some(outputs) => Realised { outputs, how: How::Substituted, proved: false },
                None => self.make(&resolved)?,
            },
        };
        self.copy_realisations(&resolved, &realised.outputs)?;
        if self.options.check {
            realised.proved = self.check(&resolved, &realised.outputs)?;
        }
        Ok(realised)
    }

    fn fixed_outputs(&self, derivation: &Derivation) -> Result<BTreeMap<String, StorePath>, Failure> {
        let path = derivation.output_path(self.store.store_dir(), "out");
        match path.map_err(|error| Failure::build(error.to_string()))? {
            Some(path) => Ok(BTreeMap::from([("out".to_owned(), path)])),
            None => Err(Failure::build("a fetcher has one output, `out`, whose hash is stated")),
        }
    }

    pub(super) fn resolve(
        &self,
        path: &StorePath,
        derivation: &Arc<Derivation>,
        known: &Known,
    ) -> Result<Resolved, Failure> {
        let store_dir = self.store.store_dir();
        let resolved = resolve(derivation, store_dir, |input, output| known.output(input, output))
            .map_err(|error| Failure::machine(error.to_string()))?;
        let inputs = resolved.input_sources.clone();
        // Nix resolves what is known only from its content; the classic kind is built as it stands.
        let is_known = derivation
            .outputs
            .keys()
            .all(|output| derivation.output_path(store_dir, output).is_ok_and(|path| path.is_some()));
        if is_known || derivation.input_derivations.is_empty() {
            let mut derivation = resolved;
            derivation.outputs.clone_from(&self.derivations[path].outputs);
            return Ok(Resolved { asked: path.clone(), path: path.clone(), derivation: Arc::new(derivation), inputs });
        }
        let asked = path.clone();
        let path = resolved.path(store_dir).map_err(|error| Failure::build(error.to_string()))?;
        Ok(Resolved { asked, path, derivation: Arc::new(resolved), inputs })
    }

    /// The outputs of a resolved derivation, if all are valid.
    fn valid_outputs(&self, resolved: &Resolved) -> Result<Option<BTreeMap<String, StorePath>>, Failure> {
        let status = self.status(&resolved.path, &resolved.derivation).map_err(|error| store_failure(&error))?;
        Ok(status.outputs)
    }

    /// The outputs from a cache, if one knows the resolved form. What was asked for was asked for already.
    fn substituted(&self, resolved: &Resolved) -> Result<Option<BTreeMap<String, StorePath>>, Failure> {
        if resolved.path == resolved.asked || !self.substitute(&resolved.path, &resolved.derivation) {
            return Ok(None);
        }
        self.valid_outputs(resolved)
    }

    fn make(&self, resolved: &Resolved) -> Result<Realised, Failure> {
        check_requirements(&resolved.derivation)?;
        let id = self.start(Activity::Build, &resolved.derivation.name);
        let result = self.make_and_register(resolved, id);
        self.finish(id, &result, "built");
        let outputs = result?;
        Ok(Realised { outputs, how: How::Built, proved: false })
    }

    fn make_and_register(&self, resolved: &Resolved, id: ActivityId) -> Result<BTreeMap<String, StorePath>, Failure> {
        let made = self.run(resolved, &Circumstances::ordinary(self.options.cores), id)?;
        self.phase(id, "registering");
        let mut records: Vec<RealisationRecord> = made
            .outputs
            .iter()
            .map(|(output, object)| self.record(resolved, output, object, &made, Verdict::First))
            .collect();
        if resolved.path != resolved.asked {
            // What `copy_realisations` would add, in the same transaction.
            let copy =
                |record: &RealisationRecord| RealisationRecord { derivation: resolved.asked.clone(), ..record.clone() };
            records.extend(records.iter().map(copy).collect::<Vec<_>>());
        }
        let outputs = made.outputs.iter().map(|(name, object)| (name.clone(), object.path.clone())).collect();
        let objects = made.outputs.into_values().collect();
        self.store.register_realised(objects, &records).map_err(|error| store_failure(&error))?;
        Ok(outputs)
    }

    /// Runs the builder once; its log is kept whether it succeeds or not.
    pub(super) fn run(
        &self,
        resolved: &Resolved,
        circumstances: &Circumstances,
        id: ActivityId,
    ) -> Result<Made, Failure> {
        let kept: LogWriter = self.store.log_writer(&resolved.asked).map_err(|error| store_failure(&error))?;
        let mut log = Log::new(kept, self.reporter, id);
        self.phase(id, "running");
        let directory = Cell::new(None);
        let keep = |build: &OwnedFd| directory.set(self.keep_directory(resolved, build));
        let result = self.run_with(resolved, circumstances, &mut log, &keep);
        let (kept, tail) = log.finish();
        let kept = kept.finish();
        let made =
            result.map_err(|failure| Failure { log_tail: tail, kept: directory.take().map(Box::new), ..failure })?;
        let log = kept.map_err(|error| store_failure(&error))?;
        Ok(Made { log: Some(log), ..made })
    }

    /// Runs the builder once and forgets its log.
    pub(super) fn run_unlogged(&self, resolved: &Resolved, circumstances: &Circumstances) -> Result<Made, Failure> {
        self.run_with(resolved, circumstances, &mut std::io::sink(), &|_| {})
    }

    /// Keeps the directory of a failed build, if that is wanted.
    fn keep_directory(&self, resolved: &Resolved, build: &OwnedFd) -> Option<PathBuf> {
        if !self.options.keep_failed {
            return None;
        }
        match kept::keep(self.store.home(), &resolved.asked, build, self.options.limits.output_bytes) {
            Ok((path, left_out)) => {
                if left_out > 0 {
                    let text = format!("{left_out} things of the build directory could not be kept");
                    self.reporter.report(Event::Warning(text));
                }
                Some(path)
            }
            Err(error) => {
                self.reporter.report(Event::Warning(format!("the build directory cannot be kept: {error}")));
                None
            }
        }
    }

    fn run_with(
        &self,
        resolved: &Resolved,
        circumstances: &Circumstances,
        log: &mut dyn std::io::Write,
        failed: &dyn Fn(&OwnedFd),
    ) -> Result<Made, Failure> {
        let attributes = Attributes::of(&resolved.derivation).map_err(|error| Failure::build(error.to_string()))?;
        let limits = limits(&attributes, &self.options.limits, &self.options.overrides)?;
        let circumstances = match is_sealed(resolved)? {
            true => sealed(circumstances.clone()),
            false => circumstances.clone(),
        };
        let run = Run {
            store: self.store,
            engine: self.engine,
            limits: &limits,
            path: &resolved.path,
            derivation: &resolved.derivation,
            attributes: &attributes,
            inputs: &resolved.inputs,
            circumstances: &circumstances,
        };
        run.make(log, failed)
    }

    pub(super) fn record(
        &self,
        resolved: &Resolved,
        output: &str,
        object: &Registration,
        made: &Made,
        verdict: Verdict,
    ) -> RealisationRecord {
        RealisationRecord {
            derivation: resolved.path.clone(),
            output: output.to_owned(),
            path: object.path.clone(),
            nar_hash: Some(object.staged.nar_hash()),
            engine: self.engine.name().to_owned(),
            started_at: made.started_at,
            duration_milliseconds: u64::try_from(made.duration.as_millis()).unwrap_or(u64::MAX),
            log: made.log.clone(),
            verdict,
        }
    }

    /// Lets the derivation that was asked for share what its resolved form became.
    fn copy_realisations(&self, resolved: &Resolved, outputs: &BTreeMap<String, StorePath>) -> Result<(), Failure> {
        let asked = &resolved.asked;
        if resolved.path == *asked {
            return Ok(());
        }
        let mut copies = Vec::new();
        for (output, path) in outputs {
            let have = self.store.realisation(asked, output).map_err(|error| store_failure(&error))?;
            if have.as_ref() == Some(path) {
                continue;
            }
            let rows = self.store.provenance(&resolved.path, output).map_err(|error| store_failure(&error))?;
            let last = rows.into_iter().rev().find(|row| row.path == *path);
            copies.extend(last.map(|row| RealisationRecord { derivation: asked.clone(), ..row }));
        }
        self.store.record_realisations(&copies).map_err(|error| store_failure(&error))
    }

    pub(super) fn start(&self, activity: Activity, what: &str) -> ActivityId {
        let id = next_activity();
        self.reporter.report(Event::Started { id, activity, what: what.to_owned(), total: None });
        id
    }

    pub(super) fn phase(&self, id: ActivityId, phase: &str) {
        self.reporter.report(Event::Phase { id, phase: phase.to_owned() });
    }

    pub(super) fn finish<T>(&self, id: ActivityId, result: &Result<T, Failure>, done: &str) {
        let (success, outcome) = match result {
            Ok(_) => (true, done.to_owned()),
            Err(failure) => (false, failure.message.clone()),
        };
        self.reporter.report(Event::Finished { id, success, outcome });
    }

    /// The archive hash of a valid object.
    pub(super) fn nar_hash(&self, path: &StorePath) -> Result<Sha256Digest, Failure> {
        match self.store.path_info(path).map_err(|error| store_failure(&error))? {
            Some(info) => Ok(info.nar_hash),
            None => Err(Failure::machine(format!("`{path}` vanished from the store while it was needed"))),
        }
    }
}

pub(super) fn store_failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::machine(chain(error))
}
