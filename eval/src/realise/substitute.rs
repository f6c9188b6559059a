//! Outputs from caches, where a cache has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::QueryError;
use ampoule_store::narinfo::NarInfo;
use ampoule_store::path::StorePath;

use super::plan::{self, Plan, Status, is_fetch};
use super::requirements::allows_substitutes;
use super::{RealiseError, Realiser, chain};
use crate::caches::{Asked, Modulo, outputs};
use crate::reporter::{Activity, Event};

/// What would be done, by the word of caches.
#[derive(Debug)]
pub struct Foreseen {
    /// The work that is left.
    pub plan: Plan,
    /// What would come from caches, each after what it refers to.
    pub objects: Vec<Arc<NarInfo>>,
    /// Derivations whose outputs those are. Sources among them are in the plan all the same.
    pub substituted: BTreeSet<StorePath>,
}

impl Realiser<'_> {
    /// What [`realise`](Self::realise) would do, if caches send what they say they have. Nothing is done.
    ///
    /// # Errors
    /// When a derivation is not known or the store cannot be read.
    pub fn foresee(&self, goals: &[StorePath]) -> Result<Foreseen, RealiseError> {
        let modulo = Modulo::new(self.derivations);
        let mut offers = Offers::default();
        let plan = plan::plan(goals, self.options.check, self.derivations, |asked| {
            let mut statuses = self.statuses(asked)?;
            for ((path, derivation), status) in asked.iter().zip(&mut statuses) {
                if status.outputs.is_none() && !is_fetch(derivation) {
                    status.outputs = self.offered(path, derivation, &modulo, &mut offers);
                    status.substituted = status.outputs.is_some();
                }
            }
            Ok::<_, QueryError>(statuses)
        })?;
        for path in plan.fetches() {
            self.offered(path, &self.derivations[path], &modulo, &mut offers);
        }
        Ok(Foreseen { plan, objects: offers.objects, substituted: offers.derivations })
    }

    /// What a derivation's outputs are, if caches have all of them with everything they refer to.
    fn offered(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        modulo: &Modulo<'_>,
        offers: &mut Offers,
    ) -> Option<BTreeMap<String, StorePath>> {
        if self.substituters.is_empty() || !allows_substitutes(derivation) {
            return None;
        }
        let outputs = outputs(self.substituters, self.store, path, derivation, modulo)?;
        let wanted: Vec<StorePath> = outputs.values().cloned().collect();
        // A cache that fails or lies is met again when it counts, and told of then.
        let missing = self.substituters.missing(self.store, &wanted).ok()?;
        offers.objects.extend(missing.into_iter().filter(|object| offers.known.insert(object.path.clone())));
        offers.derivations.insert(path.clone());
        Some(outputs)
    }

    /// As [`Self::statuses`], after asking caches for outputs that are not there. Sources are left to the workers, which fetch
    /// several at a time.
    pub(super) fn statuses_with_caches(&self, asked: &[(&StorePath, &Derivation)]) -> Result<Vec<Status>, QueryError> {
        let mut statuses = self.statuses(asked)?;
        let modulo = Modulo::new(self.derivations);
        for ((path, derivation), status) in asked.iter().zip(&mut statuses) {
            if status.outputs.is_none() && !is_fetch(derivation) && self.substitute_with(path, derivation, &modulo) {
                *status = Status { substituted: true, ..self.status(path, derivation)? };
            }
        }
        Ok(statuses)
    }

    /// Brings a derivation's outputs from caches, and tells whether that worked. If it did not, they can still be built.
    pub(super) fn substitute(&self, path: &StorePath, derivation: &Derivation) -> bool {
        self.substitute_with(path, derivation, &Modulo::new(self.derivations))
    }

    fn substitute_with(&self, path: &StorePath, derivation: &Derivation, modulo: &Modulo<'_>) -> bool {
        if self.substituters.is_empty() || !allows_substitutes(derivation) {
            return false;
        }
        // What no cache offers is not worth a word.
        let mut begun = None;
        let begin = || begun = Some(self.start(Activity::Download, &derivation.name));
        let asked = Asked::outputs(self.substituters, self.store, path, derivation, modulo, begin);
        let (have, trouble) = match asked {
            Ok(Asked::Substituted) => (true, None),
            Ok(Asked::Absent) => (false, None),
            Ok(Asked::Refused(reason)) => (false, Some(reason)),
            Err(error) => (false, Some(chain(&error))),
        };
        if let Some(id) = begun {
            let outcome = if have { "from a cache" } else { "not substituted" };
            self.reporter.report(Event::Finished { id, success: have, outcome: outcome.to_owned() });
        }
        if let Some(reason) = trouble {
            let name = &derivation.name;
            self.reporter.report(Event::Warning(format!("`{name}` is not taken from a cache: {reason}")));
        }
        have
    }
}

/// What caches were found to have.
#[derive(Default)]
struct Offers {
    objects: Vec<Arc<NarInfo>>,
    known: BTreeSet<StorePath>,
    derivations: BTreeSet<StorePath>,
}
