//! What arguments mean: store paths as they are, labels by what they became.

use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;

use crate::cli::subject::{Subjects, store_path};
use crate::cli::{Common, Failure};

/// The objects and derivations that arguments name: store paths stand for themselves, labels for what was built of them.
pub(super) fn objects_and_derivations(
    common: &Common,
    store: &LocalStore,
    arguments: &[String],
) -> Result<Vec<StorePath>, Failure> {
    let mut found = Vec::new();
    for argument in arguments {
        if is_label(argument) {
            found.extend(realised(common, store, argument)?);
            continue;
        }
        let path = store_path(store.store_dir(), argument)?;
        if !store.keep_valid(&path)? && !store.knows_derivation(&path)? {
            return Err(not_valid(store, &path));
        }
        found.push(path);
    }
    Ok(found)
}

/// As [`objects_and_derivations`], for an argument that must name one.
pub(super) fn one(common: &Common, store: &LocalStore, argument: &str) -> Result<StorePath, Failure> {
    let mut found = objects_and_derivations(common, store, &[argument.to_owned()])?;
    match (found.pop(), found.len()) {
        (Some(path), 0) => Ok(path),
        (_, more) => Err(Failure::new(format!("`{argument}` names {} objects, and one is wanted", more + 1))
            .hint("name one member of its matrix, as `//package:name[value]`")
            .code(2)),
    }
}

pub(super) fn is_label(argument: &str) -> bool {
    argument.starts_with("//") || argument.starts_with(':')
}

pub(super) fn not_valid(store: &LocalStore, path: &StorePath) -> Failure {
    let path = store.store_dir().display(path);
    Failure::new(format!("`{path}` is not valid in the store `{}`", store.home().display()))
}

/// What the members that a pattern chooses became.
fn realised(common: &Common, store: &LocalStore, label: &str) -> Result<Vec<StorePath>, Failure> {
    let nothing = || Err(Failure::new("a label needs no store"));
    let subjects = Subjects::find(common, &[label.to_owned()], nothing)?;
    let mut found = Vec::new();
    for subject in &subjects.chosen {
        let derivation = &subjects.derivations[&subject.derivation];
        let path = output_of(store, &subject.derivation, derivation, &subject.output)?;
        found.push(path.ok_or_else(|| {
            Failure::new(format!("`{}` has not been built in this store", subject.label))
                .hint(format!("ampoule build '{}'", subject.label))
        })?);
    }
    Ok(found)
}

fn output_of(
    store: &LocalStore,
    path: &StorePath,
    derivation: &Arc<Derivation>,
    output: &str,
) -> Result<Option<StorePath>, Failure> {
    match derivation.output_path(store.store_dir(), output)? {
        Some(known) => Ok(store.keep_valid(&known)?.then_some(known)),
        None => Ok(store.keep_realisation(path, output)?),
    }
}
