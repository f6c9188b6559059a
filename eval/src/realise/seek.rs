//! Finds out what makes the difference between two builds, and what depends on the contract without a need.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::StorePath;

use super::check::{Round, hashes};
use super::outcome::{Failure, FailureKind};
use super::{Known, Realiser};
use crate::check::culprit::find_culprit;
use crate::check::{Circumstances, Culprit, Finding, Knob};
use crate::reporter::{Activity, Event};
use crate::sandbox::Features;

/// What came of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Outputs with these archive hashes.
    Made(BTreeMap<String, Sha256Digest>),
    /// Nothing.
    Failed,
}

/// Who is suspected of a difference.
pub(super) enum Suspicion {
    /// What was found out.
    Found(Finding),
    /// Not the build: this knob cannot be varied without the build noticing, though it does not depend on it.
    NotTheBuild(Knob),
}

impl Realiser<'_> {
    /// Finds out why a rebuild with all knobs varied was not like the first build.
    pub(super) fn seek(&self, round: &Round<'_>, reference: &Seen, failure: Option<String>) -> Suspicion {
        if !self.options.checking.seek {
            return Suspicion::Found(Finding::new(Culprit::NotSought, 0, failure));
        }
        let mut count = 0;
        let found = find_culprit(&round.knobs, reference, |flipped| {
            count += 1;
            self.phase(round.id, &format!("looking for the culprit: rebuild {count}"));
            self.rebuild(round, &round.without(flipped))
        });
        let found = found.and_then(|(culprit, rebuilds)| self.without_pretence(round, culprit, rebuilds));
        match found {
            Ok((Culprit::Knobs { knobs }, _)) if knobs.is_empty() => Suspicion::NotTheBuild(Knob::ProcessorFeatures),
            Ok((culprit, rebuilds)) => Suspicion::Found(Finding::new(culprit, rebuilds, failure)),
            Err(trouble) => {
                let name = &round.resolved.derivation.name;
                let text = format!("{name}: the search for the culprit was given up: {}", trouble.message);
                self.reporter.report(Event::Warning(text));
                Suspicion::Found(Finding::new(Culprit::NotSought, count, failure))
            }
        }
    }

    /// The processor's features are masked by a variable. That a build writes all variables into its output says nothing
    /// about the features: then they are no culprit.
    fn without_pretence(&self, round: &Round<'_>, culprit: Culprit, rebuilds: u32) -> Result<(Culprit, u32), Failure> {
        let Culprit::Knobs { knobs } = culprit else { return Ok((culprit, rebuilds)) };
        if !knobs.contains(&Knob::ProcessorFeatures) {
            return Ok((Culprit::Knobs { knobs }, rebuilds));
        }
        let absent = round.without(&[Knob::ProcessorFeatures].into());
        let mut pretended = absent.clone();
        pretended.conditions.processor_features = Features::Pretended;
        let same = self.rebuild(round, &pretended)? == self.rebuild(round, &absent)?;
        let knobs = knobs.into_iter().filter(|knob| same || *knob != Knob::ProcessorFeatures).collect();
        Ok((Culprit::Knobs { knobs }, rebuilds + 2))
    }

    /// Builds under these circumstances, without keeping anything.
    fn rebuild(&self, round: &Round<'_>, circumstances: &Circumstances) -> Result<Seen, Failure> {
        match self.run_unlogged(round.resolved, circumstances) {
            Ok(made) => Ok(Seen::Made(hashes(&made))),
            Err(failure) if failure.kind == FailureKind::Machine => Err(failure),
            Err(_) => Ok(Seen::Failed),
        }
    }

    /// Builds a realised derivation once more with everything changed that the contract fixes. Gives what the outputs
    /// depend on though they need not, if there is something. Nothing is recorded: such a build keeps the contract.
    ///
    /// # Errors
    /// When it cannot be built at all here.
    pub fn lint(&self, path: &StorePath) -> Result<Option<Finding>, Failure> {
        let derivation = &self.derivations[path];
        if derivation.fixed_output().is_some() {
            return Ok(None);
        }
        let goals: Vec<StorePath> = derivation.input_derivations.keys().chain([path]).cloned().collect();
        let outcomes = self.realise(&goals).map_err(|error| Failure::machine(error.to_string()))?;
        let outputs = |goal: &StorePath| outcomes.realised(goal).map(|realised| realised.outputs.clone());
        let Some(own) = outputs(path) else { return Ok(None) };
        let inputs = goals.iter().filter_map(|goal| Some((goal.clone(), outputs(goal)?)));
        let known = Known(std::sync::Mutex::new(inputs.collect()));
        let resolved = self.resolve(path, derivation, &known)?;
        let id = self.start(Activity::Check, &format!("{} (lint)", derivation.name));
        let found = self.round(&resolved, &own, 1, id).and_then(|round| {
            let round = Round { knobs: Knob::FIXED.to_vec(), ..round };
            self.look_for_lint(&round)
        });
        self.finish(id, &found, "done");
        found
    }

    fn look_for_lint(&self, round: &Round<'_>) -> Result<Option<Finding>, Failure> {
        let seen = match self.run_unlogged(round.resolved, &round.without(&BTreeSet::new())) {
            Ok(made) => (Seen::Made(hashes(&made)), None),
            Err(failure) if failure.kind == FailureKind::Machine => return Err(failure),
            Err(failure) => (Seen::Failed, Some(failure.message)),
        };
        if seen.0 == Seen::Made(round.first.clone()) {
            return Ok(None);
        }
        match self.seek(round, &seen.0, seen.1) {
            Suspicion::Found(finding) => Ok(Some(finding)),
            Suspicion::NotTheBuild(_) => Ok(None),
        }
    }
}
