//! Builds a derivation again under other conditions, and compares.
//!
//! What the builder contract leaves open is varied, all of it at once: see [`Knob`]. What it fixes (paths, users, the
//! environment, locale) stays. When the outputs differ, `seek` finds out why.

#![expect(clippy::disallowed_methods, reason = "the clock says what another date is; looks into what was made")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{CheckRecord, RealisationRecord, Registration, Verdict};
use ampoule_store::path::StorePath;

use super::Realiser;
use super::attributes::Attributes;
use super::build::{Resolved, store_failure};
use super::outcome::{Failure, FailureKind};
use super::sandboxed::Made;
use super::seek::{Seen, Suspicion};
use crate::check::{Circumstances, Finding, Knob, SEALED, Setting};
use crate::difference::first_difference;
use crate::reporter::{Activity, ActivityId, Event};
use crate::sandbox::Features;

/// Larger files are not searched for the environment.
const MOST_SEARCHED: u64 = 64 << 20;

/// One rebuild and what it is compared with.
pub(super) struct Round<'a> {
    pub(super) resolved: &'a Resolved,
    /// The outputs of the first build.
    pub(super) outputs: &'a BTreeMap<String, StorePath>,
    /// Their archive hashes.
    pub(super) first: BTreeMap<String, Sha256Digest>,
    /// What is varied.
    pub(super) knobs: Vec<Knob>,
    pub(super) setting: Setting,
    pub(super) id: ActivityId,
}

impl Round<'_> {
    /// The circumstances with all knobs varied but these.
    pub(super) fn without(&self, flipped: &BTreeSet<Knob>) -> Circumstances {
        self.setting.vary(&self.knobs.iter().copied().filter(|knob| !flipped.contains(knob)).collect())
    }
}

impl Realiser<'_> {
    /// Whether the outputs come out the same again, as often as was asked for. A difference is a failure that names it;
    /// both builds are kept.
    pub(super) fn check(&self, resolved: &Resolved, outputs: &BTreeMap<String, StorePath>) -> Result<bool, Failure> {
        if resolved.derivation.fixed_output().is_some() {
            return Ok(true);
        }
        let rounds = self.options.checking.rounds;
        let done = self.identical_rounds(resolved)?;
        if done < rounds {
            let id = self.start(Activity::Check, &resolved.derivation.name);
            let result = (done + 1..=rounds).try_for_each(|round| self.check_round(resolved, outputs, round, id));
            self.finish(id, &result, "identical");
            return result.map(|()| true);
        }
        if resolved.path != resolved.asked {
            self.copy_proofs(resolved)?;
        }
        Ok(true)
    }

    /// How often in a row all outputs came out the same, up to the newest check.
    fn identical_rounds(&self, resolved: &Resolved) -> Result<u32, Failure> {
        let mut least = u32::MAX;
        for output in resolved.derivation.outputs.keys() {
            let checks = self.store.checks(&resolved.path, output).map_err(|error| store_failure(&error))?;
            let identical = checks.iter().rev().take_while(|check| check.identical).count();
            least = least.min(u32::try_from(identical).unwrap_or(u32::MAX));
        }
        Ok(least)
    }

    fn check_round(
        &self,
        resolved: &Resolved,
        outputs: &BTreeMap<String, StorePath>,
        round: u32,
        id: ActivityId,
    ) -> Result<(), Failure> {
        let mut round = self.round(resolved, outputs, round, id)?;
        loop {
            match self.build_again(&round)? {
                None => return Ok(()),
                // Checked once more without it.
                Some(knob) => round.knobs.retain(|other| *other != knob),
            }
        }
    }

    /// A round in which everything is varied that the contract leaves open.
    pub(super) fn round<'a>(
        &self,
        resolved: &'a Resolved,
        outputs: &'a BTreeMap<String, StorePath>,
        round: u32,
        id: ActivityId,
    ) -> Result<Round<'a>, Failure> {
        let is_sealed = is_sealed(resolved)?;
        let knobs = Knob::OPEN.into_iter().filter(|knob| !(is_sealed && SEALED.contains(knob))).collect();
        let first = outputs.iter().map(|(output, path)| Ok((output.clone(), self.nar_hash(path)?)));
        let first = first.collect::<Result<_, Failure>>()?;
        let processors = rustix::thread::sched_getaffinity(None).map_or(1, |allowed| allowed.count()).clamp(1, 64);
        let setting = Setting { now: now(), cores: self.options.cores, processors, round };
        Ok(Round { resolved, outputs, first, knobs, setting, id })
    }

    /// Builds again and records what came of it. Gives a knob that must not be varied for this build, if there is one.
    fn build_again(&self, round: &Round<'_>) -> Result<Option<Knob>, Failure> {
        let circumstances = round.without(&BTreeSet::new());
        let made = match self.run(round.resolved, &circumstances, round.id) {
            Ok(made) => made,
            Err(failure) if failure.kind == FailureKind::Build => {
                return self.failed_again(round, &circumstances, failure);
            }
            Err(failure) => {
                return Err(Failure { message: format!("the second build failed: {}", failure.message), ..failure });
            }
        };
        let hashes = hashes(&made);
        let different = hashes.iter().find(|(output, hash)| round.first.get(*output) != Some(hash));
        let Some((output, _)) = different else {
            let builds = self.second_builds(round, &made);
            self.record_round(round, &circumstances, Some(&hashes), None, &builds)?;
            return Ok(None);
        };
        let output = output.clone();
        if round.knobs.contains(&Knob::ProcessorFeatures) && writes_environment(&made) {
            return Ok(Some(Knob::ProcessorFeatures));
        }
        let finding = match self.seek(round, &Seen::Made(hashes.clone()), None) {
            Suspicion::Found(finding) => finding,
            Suspicion::NotTheBuild(knob) => return Ok(Some(knob)),
        };
        self.record_round(round, &circumstances, Some(&hashes), Some(&finding), &[])?;
        Err(self.keep_both(round, made, &output, finding))
    }

    /// The rebuild failed where the first build did not: that is a finding too.
    fn failed_again(
        &self,
        round: &Round<'_>,
        circumstances: &Circumstances,
        failure: Failure,
    ) -> Result<Option<Knob>, Failure> {
        let finding = match self.seek(round, &Seen::Failed, Some(failure.message.clone())) {
            Suspicion::Found(finding) => finding,
            Suspicion::NotTheBuild(knob) => return Ok(Some(knob)),
        };
        self.record_round(round, circumstances, None, Some(&finding), &[])?;
        let hint = explain(&finding);
        let message = format!("the second build failed: {}", failure.message);
        let kind = FailureKind::RebuildFailed { finding: Box::new(finding) };
        Err(Failure { kind, message, hint: Some(hint), ..failure })
    }

    fn record_round(
        &self,
        round: &Round<'_>,
        circumstances: &Circumstances,
        second: Option<&BTreeMap<String, Sha256Digest>>,
        finding: Option<&Finding>,
        builds: &[RealisationRecord],
    ) -> Result<(), Failure> {
        let json = |what: serde_json::Result<String>| what.map_err(|error| Failure::machine(error.to_string()));
        let knobs = json(serde_json::to_string(circumstances))?;
        let finding = finding.map(|finding| json(serde_json::to_string(finding))).transpose()?;
        let mut checks = Vec::new();
        for (output, first) in &round.first {
            let second = second.and_then(|hashes| hashes.get(output).copied());
            let identical = second == Some(*first);
            checks.extend(both(round.resolved).into_iter().map(|derivation| CheckRecord {
                derivation: derivation.clone(),
                output: output.clone(),
                first_nar_hash: *first,
                second_nar_hash: second,
                identical,
                round: round.setting.round,
                knobs: knobs.clone(),
                finding: finding.clone().filter(|_| !identical),
                engine: self.engine.name().to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                checked_at: round.setting.now,
            }));
        }
        self.store.record_checks(&checks, builds).map_err(|error| store_failure(&error))
    }

    /// Several builds of one output are several records.
    fn second_builds(&self, round: &Round<'_>, made: &Made) -> Vec<RealisationRecord> {
        let record = made.outputs.iter().map(|(output, object)| {
            let path = round.outputs[output].clone();
            RealisationRecord { path, ..self.record(round.resolved, output, object, made, Verdict::Identical) }
        });
        record.collect()
    }

    /// Registers the second build beside the first, and says where they differ.
    fn keep_both(&self, round: &Round<'_>, mut made: Made, output: &str, finding: Finding) -> Failure {
        let first = self.store.physical_path(&round.outputs[output]);
        let duration = made.duration;
        let kept = made.outputs.remove(output).map(|object| self.keep_second(round.resolved, output, object, &made));
        let second = match kept {
            Some(Ok(path)) => self.store.physical_path(&path),
            Some(Err(failure)) => return failure,
            None => return Failure::machine(format!("output `{output}` was not made again")),
        };
        let difference = first_difference(&first, &second).ok().flatten();
        let place = difference.as_ref().map(|difference| format!(": {difference}")).unwrap_or_default();
        let message = format!("output `{output}` came out differently under other conditions{place}");
        let hint = format!(
            "{}\nthe first build is `{}`\nthe second build is `{}`",
            explain(&finding),
            first.display(),
            second.display()
        );
        let kind = FailureKind::NotReproducible { first, second, difference, finding: Box::new(finding) };
        Failure { kind, hint: Some(hint), duration, ..Failure::build(message) }
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

    /// Lets the derivation that was asked for share the proofs of its resolved form.
    fn copy_proofs(&self, resolved: &Resolved) -> Result<(), Failure> {
        let asked = &resolved.asked;
        let mut copies = Vec::new();
        for output in resolved.derivation.outputs.keys() {
            let have = self.store.checks(asked, output).map_err(|error| store_failure(&error))?;
            let newest = have.iter().map(|check| check.checked_at).max().unwrap_or(i64::MIN);
            let known = self.store.checks(&resolved.path, output).map_err(|error| store_failure(&error))?;
            let new = known.into_iter().filter(|check| check.checked_at > newest);
            copies.extend(new.map(|check| CheckRecord { derivation: asked.clone(), ..check }));
        }
        self.store.record_checks(&copies, &[]).map_err(|error| store_failure(&error))
    }
}

/// Whether the derivation asks for constants in place of what the machine tells.
pub(super) fn is_sealed(resolved: &Resolved) -> Result<bool, Failure> {
    let wrong = |error: super::attributes::AttributeError| Failure::build(error.to_string());
    Attributes::of(&resolved.derivation).map_err(wrong)?.flag("sealed", false).map_err(wrong)
}

/// The archive hashes of what was made.
pub(super) fn hashes(made: &Made) -> BTreeMap<String, Sha256Digest> {
    made.outputs.iter().map(|(output, object)| (output.clone(), object.staged.nar_hash())).collect()
}

/// Whether an output holds the variable that masks the processor's features: then they cannot be masked unnoticed, and
/// nothing is learned from the difference.
fn writes_environment(made: &Made) -> bool {
    let needle = Features::Masked.tunables().unwrap_or_default().as_bytes();
    let mut pending: Vec<PathBuf> = made.outputs.values().map(|object| object.staged.path()).collect();
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.is_file()
            && metadata.len() < MOST_SEARCHED
            && fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
        {
            return true;
        }
    }
    false
}

/// A finding with its advice, one a line.
fn explain(finding: &Finding) -> String {
    let lines = [finding.to_string()].into_iter().chain(finding.advice.iter().cloned());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths under which a proof is looked for.
fn both(resolved: &Resolved) -> Vec<&StorePath> {
    let Resolved { path, asked, .. } = resolved;
    if path == asked { vec![asked] } else { vec![path, asked] }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::Write;
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use ampoule_derivations::derivation::{Derivation, DerivationBuilder, ModuloHashes};
    use ampoule_store::cache::Substituters;
    use ampoule_store::content_address::Method;
    use ampoule_store::hash::Algorithm;
    use ampoule_store::local::LocalStore;
    use ampoule_store::path::{StoreDir, StorePath};

    use super::super::{Checking, Failure, Fetch, LimitOverrides, Options, Outcome, Realiser};
    use crate::check::{Culprit, Knob, Standing, verdicts};
    use crate::reporter::Recorder;
    use crate::sandbox::{Conditions, Engine, EngineError, Exit, Features, Limits, Order, Outcome as Ended, Spec};

    /// What the output of a build is, or that it fails, as a function of its conditions.
    type Build = fn(&Spec, u32) -> Option<String>;

    /// Makes outputs without running anything.
    struct Pretender {
        directory: tempfile::TempDir,
        build: Build,
        runs: AtomicU32,
    }

    impl Engine for Pretender {
        fn name(&self) -> &str {
            "pretender"
        }

        fn run(&self, spec: &Spec, _log: &mut dyn Write) -> Result<Ended, EngineError> {
            // Kept until the test ends: the files outlive this function, as those of a real sandbox do.
            let directory = tempfile::tempdir_in(&self.directory).unwrap().keep();
            let out = variable(spec, "out").unwrap();
            let made = (self.build)(spec, self.runs.fetch_add(1, Ordering::Relaxed));
            let exit = Exit::Code(i32::from(made.is_none()));
            fs::write(directory.join(out.rsplit('/').next().unwrap()), made.unwrap_or_default()).unwrap();
            let store = File::open(&directory).unwrap().into();
            Ok(Ended { exit, duration: Duration::ZERO, store, build: None })
        }
    }

    fn variable(spec: &Spec, name: &str) -> Option<String> {
        let value = spec.env.iter().find(|(key, _)| &***key == name.as_bytes()).map(|(_, value)| value.to_vec());
        value.map(|value| String::from_utf8(value).unwrap())
    }

    struct NoSources;

    impl Fetch for NoSources {
        fn fetch(&self, _path: &StorePath, _derivation: &Derivation) -> Result<(), Failure> {
            unreachable!("nothing is fetched")
        }
    }

    /// What became of a checked build: its outcome, its standing, and how often it ran.
    struct Checked {
        outcome: Outcome,
        standing: Standing,
        finding: Option<crate::check::Finding>,
        rounds: usize,
        lint: Option<Option<crate::check::Finding>>,
    }

    fn check_with(build: Build, sealed: bool, checking: Checking) -> Checked {
        let home = tempfile::tempdir().unwrap();
        let store = LocalStore::open(home.path(), StoreDir::default()).unwrap();
        let builder = DerivationBuilder::new("x", "x86_64-linux", "/bin/sh").floating(Method::Nar, Algorithm::Sha256);
        let builder = if sealed { builder.env("sealed", "1") } else { builder };
        let (path, derivation) = builder.instantiate(store.store_dir(), &mut ModuloHashes::new()).unwrap();
        let engine = Pretender { directory: tempfile::tempdir().unwrap(), build, runs: AtomicU32::new(0) };
        let derivations = BTreeMap::from([(path.clone(), Arc::new(derivation))]);
        let realiser = Realiser {
            store: &store,
            derivations: &derivations,
            objects: &BTreeMap::new(),
            engine: &engine,
            fetch: &NoSources,
            substituters: &Substituters::none(),
            reporter: &Recorder::default(),
            options: Options {
                jobs: NonZeroUsize::MIN,
                cores: 2,
                keep_going: false,
                check: true,
                checking,
                limits: Limits::default(),
                keep_failed: false,
                overrides: LimitOverrides::default(),
            },
        };
        let outcomes = realiser.realise(std::slice::from_ref(&path)).unwrap();
        let verdict = verdicts(&store, &path, &derivations[&path]).unwrap().remove(0);
        Checked {
            outcome: outcomes.0[&path].clone(),
            standing: verdict.standing,
            finding: verdict.checks.last().and_then(|check| check.finding.clone()),
            rounds: verdict.identical_rounds,
            lint: outcomes.realised(&path).map(|_| realiser.lint(&path).unwrap()),
        }
    }

    fn check(build: Build) -> Checked {
        check_with(build, false, Checking::default())
    }

    #[track_caller]
    fn blames(build: Build, expected: &[Knob]) {
        let checked = check(build);
        assert_eq!(checked.standing, Standing::Refuted);
        let finding = checked.finding.unwrap();
        assert_eq!(finding.culprit, Culprit::Knobs { knobs: expected.to_vec() }, "{finding:?}");
        let Outcome::Failed(failure) = checked.outcome else { panic!("it did not fail") };
        assert_eq!(failure.finding(), Some(&finding));
        assert!(failure.hint.unwrap().contains(expected[0].advice()));
    }

    #[test]
    fn what_decides_is_blamed() {
        blames(|spec, _| Some(format!("{:?}", spec.conditions.clock)), &[Knob::Date]);
        blames(|spec, _| Some(format!("{:?}", spec.conditions.file_times)), &[Knob::FileTimes]);
        blames(
            |spec, _| Some((spec.conditions.directory_order == Order::Reversed).to_string()),
            &[Knob::DirectoryOrder],
        );
        blames(|spec, _| variable(spec, "NIX_BUILD_CORES"), &[Knob::Jobs]);
        blames(|spec, _| Some(spec.conditions.machine.kernel_release.clone()), &[Knob::Kernel]);
        blames(
            |spec, _| Some((spec.conditions.processor_features == Features::Masked).to_string()),
            &[Knob::ProcessorFeatures],
        );
        blames(
            |spec, run| Some(if spec.conditions.address_randomisation { format!("{run}") } else { String::new() }),
            &[Knob::Addresses],
        );
        blames(
            |spec, _| {
                let Conditions { last_process, monotonic_start_seconds, .. } = spec.conditions;
                Some((last_process.is_some() && monotonic_start_seconds > 0).to_string())
            },
            &[Knob::ProcessNumbers, Knob::Uptime],
        );
    }

    #[test]
    fn a_rebuild_that_fails_has_a_culprit_too() {
        let fragile: Build = |spec, _| (spec.conditions.machine.memory_bytes > 4 << 30).then(String::new);
        blames(fragile, &[Knob::Memory]);
        let Outcome::Failed(failure) = check(fragile).outcome else { panic!("it did not fail") };
        assert!(failure.message.contains("the second build failed"), "{}", failure.message);
    }

    #[test]
    fn a_build_that_never_comes_out_the_same_is_told() {
        let checked = check(|_, run| Some(run.to_string()));
        assert_eq!(checked.finding.unwrap().culprit, Culprit::Itself);
        let checking = Checking { seek: false, ..Checking::default() };
        let checked = check_with(|_, run| Some(run.to_string()), false, checking);
        assert_eq!(checked.finding.unwrap().culprit, Culprit::NotSought);
    }

    #[test]
    fn a_build_that_writes_its_environment_is_innocent() {
        let checked = check(|spec, _| Some(spec.conditions.processor_features.clone_name().to_owned()));
        assert_eq!(checked.standing, Standing::Proved);
        assert!(matches!(checked.outcome, Outcome::Realised(realised) if realised.proved));
    }

    impl Features {
        /// What the variable says, as a build would write it.
        fn clone_name(self) -> &'static str {
            match self {
                Self::All => "",
                Self::Masked => "masked",
                Self::Pretended => "pretended",
            }
        }
    }

    #[test]
    fn every_round_is_another_one() {
        let checking = Checking { rounds: 3, ..Checking::default() };
        let checked = check_with(|_, _| Some(String::new()), false, checking);
        assert_eq!((checked.standing, checked.rounds), (Standing::Proved, 3));
        let one_processor: Build = |spec, _| Some((spec.conditions.cpus == Some(1)).to_string());
        assert_eq!(check_with(one_processor, false, checking).standing, Standing::Refuted);
    }

    #[test]
    fn a_sealed_build_sees_constants() {
        let leaks: Build = |spec, _| {
            let conditions = &spec.conditions;
            let facts = (conditions.clock, conditions.random_seed, &conditions.machine, conditions.cpus);
            Some(format!("{facts:?} {:?}", variable(spec, "NIX_BUILD_CORES")))
        };
        assert_eq!(check(leaks).standing, Standing::Refuted);
        assert_eq!(check_with(leaks, true, Checking::default()).standing, Standing::Proved);
        let order: Build = |spec, _| Some(format!("{:?}", spec.conditions.directory_order == Order::Reversed));
        assert_eq!(check_with(order, true, Checking::default()).standing, Standing::Refuted);
    }

    #[test]
    fn lint_varies_what_the_contract_fixes() {
        assert_eq!(check(|_, _| Some(String::new())).lint, Some(None));
        let lint = check(|spec, _| Some(spec.conditions.contract.umask.to_string())).lint.unwrap().unwrap();
        assert_eq!(lint.culprit, Culprit::Knobs { knobs: vec![Knob::Umask] });
        let lint = check(|spec, _| variable(spec, "TMPDIR")).lint.unwrap().unwrap();
        assert_eq!(lint.culprit, Culprit::Knobs { knobs: vec![Knob::BuildPath] });
        let lint = check(|spec, _| Some(format!("{:?}", variable(spec, "TZ")))).lint.unwrap().unwrap();
        assert_eq!(lint.culprit, Culprit::Knobs { knobs: vec![Knob::TimeZone] });
    }
}
