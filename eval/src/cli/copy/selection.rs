//! What is to be copied.

use std::collections::BTreeSet;
use std::sync::Arc;

use ampoule_derivations::aterm;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;

use crate::cli::subject::{Subjects, store_path};
use crate::cli::{Common, Failure};

/// Whether an argument is a label or pattern, as opposed to a store path.
pub(super) fn is_label(argument: &str) -> bool {
    argument.starts_with("//") || argument.starts_with(':')
}

/// Objects, and the derivations that made them.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) paths: BTreeSet<StorePath>,
    derivations: BTreeSet<StorePath>,
}

impl Selection {
    /// What the arguments name in `store`. Derivations become objects of it.
    pub(super) fn find(
        common: &Common,
        local: &Arc<LocalStore>,
        store: &LocalStore,
        arguments: &[String],
        all: bool,
    ) -> Result<Self, Failure> {
        let mut selection = Self::default();
        if all {
            selection.paths = store.keep_valid_paths(&store.all_paths()?.into_iter().collect::<Vec<_>>())?;
        }
        let (labels, paths): (Vec<String>, Vec<String>) =
            arguments.iter().cloned().partition(|argument| is_label(argument));
        for argument in &paths {
            let path = store_path(store.store_dir(), argument)?;
            // Before anything is asked about it: somebody may be collecting.
            if !store.keep_valid(&path)? && path.is_derivation() {
                store.materialise_derivation(&path)?;
            }
            selection.derivations.extend(store.realised_as(&path)?.into_iter().map(|(derivation, _)| derivation));
            selection.derivations.extend(path.is_derivation().then(|| path.clone()));
            selection.paths.insert(path);
        }
        if !labels.is_empty() {
            let subjects = Subjects::find(common, &labels, || Ok(Arc::clone(local)))?;
            selection.add_subjects(store, subjects)?;
        }
        Ok(selection)
    }

    fn add_subjects(&mut self, store: &LocalStore, subjects: &Subjects) -> Result<(), Failure> {
        for subject in &subjects.chosen {
            let derivation = &subjects.derivations[&subject.derivation];
            let known = derivation.output_path(store.store_dir(), &subject.output)?;
            let path = match known {
                Some(path) => Some(path),
                None => store.keep_realisation(&subject.derivation, &subject.output)?,
            };
            let path = path.ok_or_else(|| {
                Failure::new(format!("`{}` has not been built", subject.label))
                    .hint(format!("run `ampoule build '{}'` first", subject.label))
            })?;
            self.paths.insert(path);
            self.derivations.extend(subject.tests.iter().chain([&subject.derivation]).cloned());
        }
        // What was built long ago, or came from a cache, may have left no trace of how it is made.
        subjects.record(store)?;
        Ok(())
    }

    /// Adds the derivations that made the objects, all that those need, and all sources.
    pub(super) fn add_sources(&mut self, store: &LocalStore) -> Result<(), Failure> {
        let mut pending: Vec<StorePath> = self.derivations.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(path) = pending.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let unknown = || Failure::new(format!("the store does not know the derivation `{path}`"));
            let text = store.derivation(&path)?.ok_or_else(unknown)?;
            let name = path.derivation_name().unwrap_or_default();
            let derivation = aterm::parse(&text, name, store.store_dir())
                .map_err(|error| Failure::from(error).context(format!("`{path}` is not a valid derivation")))?;
            pending.extend(derivation.input_derivations.keys().cloned());
            if derivation.fixed_output().is_some() {
                for output in derivation.outputs.keys() {
                    self.paths.extend(derivation.output_path(store.store_dir(), output)?);
                }
            }
        }
        let missing: Vec<StorePath> = self.paths.iter().cloned().collect();
        let valid = store.keep_valid_paths(&missing)?;
        if let Some(path) = missing.iter().find(|path| !valid.contains(path)) {
            return Err(Failure::new(format!("the source `{}` is not in the store", store.store_dir().display(path)))
                .hint("`ampoule sources fetch` brings all sources of the catalog"));
        }
        for path in &self.derivations {
            store.materialise_derivation(path)?;
            self.paths.insert(path.clone());
        }
        Ok(())
    }
}
