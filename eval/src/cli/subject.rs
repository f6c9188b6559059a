//! What an argument of the command line speaks of: a member of a target, a derivation, or a store object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ampoule_derivations::aterm;
use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::{DerivationRow, LocalStore};
use ampoule_store::path::{StoreDir, StorePath};

use super::context::{Catalog, patterns};
use super::{Common, Failure};
use crate::lang::{Evaluation, Member, Mode, StoreObject};
use crate::realise::stage_object;

/// Derivations and the objects they take as sources.
#[derive(Default)]
pub(super) struct Subjects {
    pub(super) chosen: Vec<Subject>,
    /// Members that match but are left out by their recipes: label and reason.
    pub(super) skipped: Vec<(String, String)>,
    /// Labels of all members that match, since several patterns can choose one.
    seen: BTreeSet<String>,
    pub(super) derivations: BTreeMap<StorePath, Arc<Derivation>>,
    pub(super) objects: BTreeMap<StorePath, StoreObject>,
}

/// A derivation that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// How it was asked for: a member's full label, or the derivation's path.
    pub(super) label: String,
    /// The rule that made it, if a recipe did.
    pub(super) kind: Option<String>,
    pub(super) derivation: StorePath,
    /// The output that is meant.
    pub(super) output: String,
    pub(super) tests: Vec<StorePath>,
}

impl Subjects {
    /// Finds what the arguments name. Store paths of derivations need a store that knows them; labels need a catalog.
    ///
    /// They live as long as the process: taking apart what a large catalog evaluates to takes a third of the time that
    /// evaluating it does.
    pub(super) fn find(
        common: &Common,
        arguments: &[String],
        store: impl FnOnce() -> Result<Arc<LocalStore>, Failure>,
    ) -> Result<&'static Self, Failure> {
        let (paths, labels): (Vec<String>, Vec<String>) =
            arguments.iter().cloned().partition(|argument| argument.ends_with(".drv"));
        let mut subjects = Self::default();
        if !paths.is_empty() {
            let store = store()?;
            for path in &paths {
                subjects.add_derivation(&store, path)?;
            }
        }
        if !labels.is_empty() {
            let patterns = patterns(&labels)?;
            let evaluation = Catalog::find(common)?.evaluate(&patterns, Mode::Build)?;
            for pattern in &patterns {
                let selected = evaluation.select(pattern).map_err(|error| Failure::from_recipe(&error))?;
                for one in selected {
                    subjects.add_member(one.label(), &one.target.kind, one.member);
                }
            }
            subjects.add_evaluation(evaluation);
        }
        Ok(Box::leak(Box::new(subjects)))
    }

    /// Lets the store know the derivations, and puts what they take as sources into it.
    pub(super) fn record(&self, store: &LocalStore) -> Result<(), Failure> {
        let row = |(path, derivation): (&StorePath, &Arc<Derivation>)| DerivationRow {
            path: path.clone(),
            aterm: aterm::write(derivation, store.store_dir()),
            references: derivation.references(),
        };
        store.add_derivations(&self.derivations.iter().map(row).collect::<Vec<_>>())?;
        let mut batch = Vec::new();
        for (path, object) in &self.objects {
            if !store.keep_valid(path)? {
                batch.push(stage_object(store, path, object)?);
            }
        }
        store.register(batch)?;
        Ok(())
    }

    /// The derivation and all it needs that is built, inputs first, tests last.
    pub(super) fn steps(&self, subject: &Subject) -> Vec<StorePath> {
        let mut ordered = Vec::new();
        let mut done = BTreeSet::new();
        for goal in std::iter::once(&subject.derivation).chain(&subject.tests) {
            let mut pending = vec![(goal, false)];
            while let Some((path, inputs_done)) = pending.pop() {
                let Some(derivation) = self.derivations.get(path) else { continue };
                if done.contains(path) || derivation.builder == ampoule_derivations::builtin::FETCH {
                    continue;
                }
                if inputs_done {
                    done.insert(path.clone());
                    ordered.push(path.clone());
                } else {
                    pending.push((path, true));
                    pending.extend(derivation.input_derivations.keys().map(|input| (input, false)));
                }
            }
        }
        ordered
    }

    fn add_member(&mut self, label: String, kind: &str, member: &Member) {
        if !self.seen.insert(label.clone()) {
            return;
        }
        match member {
            Member::Skipped(reason) => self.skipped.push((label, reason.clone())),
            Member::Derived(derived) => self.chosen.push(Subject {
                label,
                kind: Some(kind.to_owned()),
                derivation: derived.derivation.clone(),
                output: derived.output.clone(),
                tests: derived.tests.clone(),
            }),
        }
    }

    fn add_evaluation(&mut self, evaluation: Evaluation) {
        let mut derivations = evaluation.derivations;
        // The few that the store gave go to the many, not the other way round.
        derivations.append(&mut self.derivations);
        self.derivations = derivations;
        self.objects.extend(evaluation.objects);
    }

    /// Adds a derivation that the store knows, and all it needs.
    fn add_derivation(&mut self, store: &LocalStore, argument: &str) -> Result<(), Failure> {
        let path = store_path(store.store_dir(), argument)?;
        let mut pending = vec![path.clone()];
        while let Some(next) = pending.pop() {
            if self.derivations.contains_key(&next) {
                continue;
            }
            let derivation = read_derivation(store, &next)?;
            pending.extend(derivation.input_derivations.keys().cloned());
            self.derivations.insert(next, Arc::new(derivation));
        }
        let output = self.derivations[&path].outputs.keys().next().cloned().unwrap_or_default();
        let output = if self.derivations[&path].outputs.contains_key("out") { "out".to_owned() } else { output };
        let label = store.store_dir().display(&path);
        self.chosen.push(Subject { label, kind: None, derivation: path, output, tests: Vec::new() });
        Ok(())
    }
}

/// Reads a derivation from its row, or from its file in the store.
pub(super) fn read_derivation(store: &LocalStore, path: &StorePath) -> Result<Derivation, Failure> {
    let unknown = || {
        Failure::new(format!("the store does not know the derivation `{}`", store.store_dir().display(path)))
            .hint("derivations become known when their target is built, or with `ampoule show --write LABEL`")
    };
    let name = path.derivation_name().ok_or_else(unknown)?;
    let text = store.derivation(path)?.ok_or_else(unknown)?;
    aterm::parse(&text, name, store.store_dir())
        .map_err(|error| Failure::from(error).context(format!("`{path}` is not a valid derivation")))
}

/// A store path as people write it: full, or its base name, or where the object lies on disk.
pub(super) fn store_path(store_dir: &StoreDir, argument: &str) -> Result<StorePath, Failure> {
    if let Ok(path) = store_dir.parse(argument) {
        return Ok(path);
    }
    let base_name = argument.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    StorePath::parse_base_name(base_name).map_err(|error| {
        Failure::new(format!("`{argument}` is not a store path: {error}"))
            .hint(format!("store paths look like `{store_dir}/<32 characters>-<name>`"))
            .code(2)
    })
}
