//! What the store knows of one derivation's outputs, under whichever of its names.

use ampoule_derivations::derivation::{Derivation, resolve};
use ampoule_store::local::{LocalStore, QueryError};
use ampoule_store::path::StorePath;

/// The derivation that one becomes when its inputs are what they turned out to be: builds are recorded under it too.
///
/// `None` if it is the same, or if its inputs were never made.
///
/// # Errors
/// When the store cannot be read.
pub fn resolved_path(
    store: &LocalStore,
    path: &StorePath,
    derivation: &Derivation,
) -> Result<Option<StorePath>, QueryError> {
    let mut asked = Vec::new();
    for (input, outputs) in &derivation.input_derivations {
        asked.extend(outputs.iter().map(|output| (input.clone(), output.clone())));
    }
    let found = store.realisations(&asked)?;
    let dir = store.store_dir();
    let known = |input: &StorePath, output: &str| {
        let position = asked.iter().position(|(path, name)| path == input && name == output)?;
        found[position].clone()
    };
    let resolved = resolve(derivation, dir, known).ok();
    let path_of = |resolved: Derivation| resolved.path(dir).ok();
    Ok(resolved.and_then(path_of).filter(|resolved| resolved != path))
}
