//! Outputs from caches, where a cache has them.

use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::QueryError;
use ampoule_store::path::StorePath;

use super::plan::{Status, is_fetch};
use super::requirements::allows_substitutes;
use super::{Realiser, chain};
use crate::caches::{Asked, Modulo};
use crate::reporter::{Activity, Event};

impl Realiser<'_> {
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
