//! Builds a derivation again under other conditions, and compares.
//!
//! What the builder contract leaves open is varied: the date, random bytes, the order of directories, the numbers of
//! cores and processes, addresses. What it fixes (paths, users, the environment, locale) stays.

#![expect(clippy::disallowed_methods, reason = "the clock says what another date is")]

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ampoule_store::local::{CheckRecord, RealisationRecord, Registration, Verdict};
use ampoule_store::path::StorePath;

use super::Realiser;
use super::build::{Resolved, store_failure};
use super::outcome::{Failure, FailureKind};
use super::sandboxed::Made;
use crate::difference::first_difference;
use crate::reporter::{Activity, ActivityId, Event};
use crate::sandbox::{Clock, Conditions, Order};

/// How far ahead the second build's clock is: years, months, days, hours and minutes all differ.
const CLOCK_AHEAD_SECONDS: i64 = ((3 * 365 + 5 * 31 + 11) * 24 + 7) * 3600 + 13 * 60;
/// The last second of a 32-bit clock, which some builders still have.
const LAST_32_BIT_SECOND: i64 = i32::MAX as i64;

impl Realiser<'_> {
    /// Whether the outputs come out the same again. A difference is a failure that names it; both builds are kept.
    pub(super) fn check(&self, resolved: &Resolved, outputs: &BTreeMap<String, StorePath>) -> Result<bool, Failure> {
        if resolved.derivation.fixed_output().is_some() {
            return Ok(true);
        }
        let proved = self.is_proved(&resolved.path, &resolved.derivation).map_err(|error| store_failure(&error))?;
        if !proved {
            let id = self.start(Activity::Check, &resolved.derivation.name);
            let result = self.build_again(resolved, outputs, id);
            self.finish(id, &result, "identical");
            return result.map(|()| true);
        }
        if resolved.path != resolved.asked {
            self.copy_proofs(resolved)?;
        }
        Ok(true)
    }

    fn build_again(
        &self,
        resolved: &Resolved,
        outputs: &BTreeMap<String, StorePath>,
        id: ActivityId,
    ) -> Result<(), Failure> {
        let cores = if self.options.cores == 1 { 2 } else { 1 };
        let (made, conditions) = self.run_again(resolved, cores, id).map_err(|failure| Failure {
            message: format!("the second build failed: {}", failure.message),
            ..failure
        })?;
        let knobs = serde_json::json!({ "cores": cores, "conditions": conditions }).to_string();
        let mut different = None;
        let mut checks = Vec::new();
        for (output, object) in &made.outputs {
            let first = self.nar_hash(&outputs[output])?;
            let second = object.staged.nar_hash();
            let identical = first == second;
            checks.extend(both(resolved).into_iter().map(|derivation| CheckRecord {
                round: 1,
                finding: None,
                engine: self.engine.name().to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                derivation: derivation.clone(),
                output: output.clone(),
                first_nar_hash: first,
                second_nar_hash: Some(second),
                identical,
                knobs: knobs.clone(),
                checked_at: made.started_at,
            }));
            if !identical && different.is_none() {
                different = Some(output.clone());
            }
        }
        let builds = if different.is_none() { self.second_builds(resolved, &made, outputs) } else { Vec::new() };
        self.store.record_checks(&checks, &builds).map_err(|error| store_failure(&error))?;
        match different {
            None => Ok(()),
            Some(output) => Err(self.keep_both(resolved, made, &output, outputs)),
        }
    }

    /// Builds under other conditions, and says which ones those were. A kernel that cannot show inputs in another order
    /// (Linux before 6.16) still varies all the rest.
    fn run_again(&self, resolved: &Resolved, cores: u32, id: ActivityId) -> Result<(Made, Conditions), Failure> {
        let conditions = other_conditions(now(), cores);
        let failure = match self.run(resolved, conditions.clone(), cores, id) {
            Err(failure) if failure.kind == FailureKind::Machine => failure,
            other => return other.map(|made| (made, conditions)),
        };
        let conditions = Conditions { directory_order: Order::AsIs, ..conditions };
        // If it was something else that the machine could not do, it cannot do this either.
        let made = self.run(resolved, conditions.clone(), cores, id).map_err(|_| failure.clone())?;
        self.reporter.report(Event::Warning(format!(
            "{}: the second build saw its inputs in the same order as the first: {}",
            resolved.derivation.name, failure.message
        )));
        Ok((made, conditions))
    }

    /// Several builds of one output are several records.
    fn second_builds(
        &self,
        resolved: &Resolved,
        made: &Made,
        outputs: &BTreeMap<String, StorePath>,
    ) -> Vec<RealisationRecord> {
        let record = made.outputs.iter().map(|(output, object)| {
            let path = outputs[output].clone();
            RealisationRecord { path, ..self.record(resolved, output, object, made, Verdict::Identical) }
        });
        record.collect()
    }

    /// Registers the second build beside the first, and says where they differ.
    fn keep_both(
        &self,
        resolved: &Resolved,
        mut made: Made,
        output: &str,
        outputs: &BTreeMap<String, StorePath>,
    ) -> Failure {
        let first = self.store.physical_path(&outputs[output]);
        let duration = made.duration;
        let kept = made.outputs.remove(output).map(|object| self.keep_second(resolved, output, object, &made));
        let second = match kept {
            Some(Ok(path)) => self.store.physical_path(&path),
            Some(Err(failure)) => return failure,
            None => return Failure::machine(format!("output `{output}` was not made again")),
        };
        let difference = first_difference(&first, &second).ok().flatten();
        let place = difference.as_ref().map(|difference| format!(": {difference}")).unwrap_or_default();
        let message = format!("output `{output}` came out differently under other conditions{place}");
        let hint = format!("the first build is `{}`\nthe second build is `{}`", first.display(), second.display());
        let kind = FailureKind::NotReproducible { first, second, difference };
        Failure { kind, message, hint: Some(hint), log_tail: Vec::new(), duration }
    }

    fn keep_second(
        &self,
        resolved: &Resolved,
        output: &str,
        object: Registration,
        made: &Made,
    ) -> Result<StorePath, Failure> {
        let object = match object.content_address {
            Some(_) => object,
            // The path of an input-addressed output is taken by the first build: keep this one by its content.
            None => {
                let name = object.path.name().to_owned();
                let path = object.path.clone();
                let addressed = self.store.into_content_addressed(object.staged, &name, &path);
                addressed.map_err(|error| store_failure(&error))?.registration(Some(resolved.path.clone()))
            }
        };
        let record = self.record(resolved, output, &object, made, Verdict::Different);
        let path = object.path.clone();
        self.store.register_realised(vec![object], &[record]).map_err(|error| store_failure(&error))?;
        self.reporter.report(Event::Detail(format!("kept the second build as `{path}`")));
        Ok(path)
    }

    fn copy_proofs(&self, resolved: &Resolved) -> Result<(), Failure> {
        let asked = &resolved.asked;
        for output in resolved.derivation.outputs.keys() {
            let proof = self.store.proof(&resolved.path, output).map_err(|error| store_failure(&error))?;
            let have = self.store.proof(asked, output).map_err(|error| store_failure(&error))?;
            if let (Some(proof), None) = (proof, have) {
                let copy = CheckRecord { derivation: asked.clone(), ..proof };
                self.store.record_check(&copy).map_err(|error| store_failure(&error))?;
            }
        }
        Ok(())
    }
}

/// The paths under which a proof is looked for.
fn both(resolved: &Resolved) -> Vec<&StorePath> {
    let Resolved { path, asked, .. } = resolved;
    if path == asked { vec![asked] } else { vec![path, asked] }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// Conditions that differ from the ordinary ones in everything the contract leaves open.
fn other_conditions(now: i64, cores: u32) -> Conditions {
    let date = now + CLOCK_AHEAD_SECONDS;
    // Past the end of 32 bits only the way back is left.
    let date = if date < LAST_32_BIT_SECOND { date } else { now - CLOCK_AHEAD_SECONDS };
    let ordinary = Conditions::default();
    Conditions {
        clock: Clock::StartAt(date),
        cpus: Some(cores),
        directory_order: Order::Reversed,
        random_seed: Some(0x5eed_0000 ^ now.unsigned_abs()),
        address_randomisation: !ordinary.address_randomisation,
        last_process: Some(4000),
        monotonic_start_seconds: ordinary.monotonic_start_seconds + 86_400 * 40,
        machine: ordinary.machine,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::{self, Write};
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::time::Duration;

    use ampoule_derivations::derivation::{Derivation, DerivationBuilder, ModuloHashes};
    use ampoule_store::cache::Substituters;
    use ampoule_store::content_address::Method;
    use ampoule_store::hash::Algorithm;
    use ampoule_store::local::LocalStore;
    use ampoule_store::path::StoreDir;

    use super::super::{Fetch, LimitOverrides, Options};
    use super::*;
    use crate::reporter::Recorder;
    use crate::sandbox::{Engine, EngineError, Exit, Limits, Outcome, Spec};

    /// Makes the output without running anything, and cannot show inputs in another order: an old kernel.
    struct OldKernel(tempfile::TempDir);

    impl Engine for OldKernel {
        fn name(&self) -> &str {
            "old kernel"
        }

        fn run(&self, spec: &Spec, _log: &mut dyn Write) -> Result<Outcome, EngineError> {
            if spec.conditions.directory_order == Order::Reversed {
                let source = io::Error::from(io::ErrorKind::Unsupported);
                return Err(EngineError::Setup { operation: "reverse inputs".to_owned(), source, hint: None });
            }
            // Kept until the test ends: the files outlive this function, as those of a real sandbox do.
            let directory = tempfile::tempdir_in(&self.0).unwrap().keep();
            let out = spec.env.iter().find(|(name, _)| &***name == b"out").map(|(_, path)| path.to_vec()).unwrap();
            let name = String::from_utf8(out).unwrap().rsplit('/').next().unwrap().to_owned();
            fs::write(directory.join(name), "made").unwrap();
            let store = File::open(&directory).unwrap().into();
            Ok(Outcome { exit: Exit::Code(0), duration: Duration::ZERO, store, build: None })
        }
    }

    struct NoSources;

    impl Fetch for NoSources {
        fn fetch(&self, _path: &StorePath, _derivation: &Derivation) -> Result<(), Failure> {
            unreachable!("nothing is fetched")
        }
    }

    #[test]
    fn a_kernel_that_cannot_vary_one_condition_still_proves_with_the_others() {
        let home = tempfile::tempdir().unwrap();
        let store = LocalStore::open(home.path(), StoreDir::default()).unwrap();
        let builder = DerivationBuilder::new("x", "x86_64-linux", "/bin/sh").floating(Method::Nar, Algorithm::Sha256);
        let (path, derivation) = builder.instantiate(store.store_dir(), &mut ModuloHashes::new()).unwrap();
        let recorder = Recorder::default();
        let realiser = Realiser {
            store: &store,
            derivations: &BTreeMap::from([(path.clone(), Arc::new(derivation))]),
            objects: &BTreeMap::new(),
            engine: &OldKernel(tempfile::tempdir().unwrap()),
            fetch: &NoSources,
            substituters: &Substituters::none(),
            reporter: &recorder,
            options: Options {
                jobs: NonZeroUsize::MIN,
                cores: 2,
                keep_going: false,
                check: true,
                limits: Limits::default(),
                overrides: LimitOverrides::default(),
            },
        };
        let outcomes = realiser.realise(std::slice::from_ref(&path)).unwrap();
        assert!(outcomes.realised(&path).is_some_and(|realised| realised.proved), "{outcomes:?}");
        let warned = |event: &Event| matches!(event, Event::Warning(text) if text.contains("cannot reverse inputs"));
        assert!(recorder.events().iter().any(warned));
        let proof = store.proof(&path, "out").unwrap().unwrap();
        assert!(proof.knobs.contains("\"directory_order\":\"AsIs\""), "{}", proof.knobs);
    }

    #[test]
    fn every_condition_differs() {
        let (ordinary, other) = (Conditions::default(), other_conditions(1_800_000_000, 1));
        let (ordinary, other) = (serde_json::to_value(ordinary).unwrap(), serde_json::to_value(other).unwrap());
        for (knob, value) in ordinary.as_object().unwrap() {
            assert_ne!(*value, other[knob], "{knob}");
        }
    }

    #[test]
    fn dates_stay_within_32_bits() {
        for now in [1_500_000_000, 2_100_000_000, 2_147_000_000] {
            let Clock::StartAt(date) = other_conditions(now, 1).clock else { panic!("no other clock") };
            assert!((1..LAST_32_BIT_SECOND).contains(&date) && date != now, "{date}");
        }
    }
}
