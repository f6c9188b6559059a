//! Makes a derivation's outputs again though they are known: to put a good copy in the place of a broken one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ampoule_store::local::Registration;
use ampoule_store::path::StorePath;

use super::outcome::Failure;
use super::{Known, Realiser};
use crate::check::Circumstances;
use crate::reporter::Activity;

impl Realiser<'_> {
    /// Builds a derivation whatever is known of its outputs, and gives them by name. Nothing is registered but inputs that
    /// are missing.
    ///
    /// # Errors
    /// When its inputs cannot be had, or it cannot be built.
    pub fn make_again(&self, path: &StorePath) -> Result<BTreeMap<String, Registration>, Failure> {
        let derivation = &self.derivations[path];
        let inputs: Vec<StorePath> = derivation.input_derivations.keys().cloned().collect();
        let outcomes = self.realise(&inputs).map_err(|error| Failure::machine(error.to_string()))?;
        if let Some((input, failure)) = outcomes.failures().next() {
            return Err(Failure::machine(format!("its input `{input}` cannot be made: {}", failure.message)));
        }
        let outputs =
            |input| outcomes.realised(input).map(|realised| (StorePath::clone(input), realised.outputs.clone()));
        let known = Known(Mutex::new(inputs.iter().filter_map(outputs).collect()));
        let resolved = self.resolve(path, derivation, &known)?;
        super::requirements::check_requirements(&resolved.derivation)?;
        let id = self.start(Activity::Build, &derivation.name);
        let made = self.run(&resolved, &Circumstances::ordinary(self.options.cores), id);
        self.finish(id, &made, "built again");
        Ok(made?.outputs)
    }
}
