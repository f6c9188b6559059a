//! Everything evaluation has made, found by the texts that stand for it in strings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::content_address::{ContentAddress, References};
use ampoule_store::path::{StoreDir, StorePath};

use super::scan::{Reference, path_tail};
use super::session::ModuleNumber;

/// A store object whose bytes come from evaluation: a text, or a file of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreObject {
    /// The bytes; the object is a plain file that is not executable.
    pub content: Arc<[u8]>,
    /// How its path is computed.
    pub address: ContentAddress,
    /// Store paths the bytes refer to.
    pub references: BTreeSet<StorePath>,
}

/// Derivations and objects, by path and by the texts that stand for them.
#[derive(Default)]
pub(super) struct Registry {
    derivations: HashMap<StorePath, Arc<Derivation>>,
    objects: BTreeMap<StorePath, StoreObject>,
    /// By the digits of a placeholder, or the hash part of a store path. Several derivations can have one fixed output.
    explained: HashMap<Box<str>, Vec<Explanation>>,
    current: ModuleNumber,
    visible: BTreeSet<ModuleNumber>,
}

struct Explanation {
    referent: Referent,
    /// The modules that made it.
    makers: Vec<ModuleNumber>,
}

/// What a reference in a string means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Referent {
    /// An output of a derivation.
    Output {
        /// Path of the derivation.
        derivation: StorePath,
        /// Name of the output.
        output: String,
        /// The output's path, if it is known before it is built.
        path: Option<StorePath>,
    },
    /// A store object evaluation knows the bytes of.
    Object(StorePath),
}

impl Explanation {
    fn is_seen_by(&self, visible: &BTreeSet<ModuleNumber>) -> bool {
        self.makers.iter().any(|maker| visible.contains(maker))
    }
}

impl Referent {
    fn known_path(&self) -> Option<&StorePath> {
        match self {
            Self::Object(path) => Some(path),
            Self::Output { path, .. } => path.as_ref(),
        }
    }
}

impl Registry {
    /// From now on everything belongs to this module, which can see what the `visible` ones made.
    ///
    /// A string may only refer to what its module can have got a value of. Otherwise a path written out by hand would
    /// be accepted or refused depending on which other packages happened to be evaluated first.
    pub(super) fn enter(&mut self, module: ModuleNumber, visible: &BTreeSet<ModuleNumber>) {
        self.current = module;
        self.visible.clone_from(visible);
        self.visible.insert(module);
    }

    /// What a reference means to the module being evaluated.
    pub(super) fn explain(&self, reference: Reference<'_>) -> Option<&Referent> {
        let (key, rest) = match reference {
            Reference::Placeholder(digits) => (digits, None),
            Reference::StorePath { hash_part, rest } => (hash_part, Some(rest)),
        };
        // Among several the choice depends on what they are, not on which was made first.
        let seen = self.explained.get(key)?.iter().filter(|explanation| explanation.is_seen_by(&self.visible));
        let referent = &seen.min_by(|a, b| a.referent.cmp(&b.referent))?.referent;
        match (rest, referent.known_path()) {
            (None, None) => Some(referent),
            (Some(rest), Some(path)) => {
                let name = path_tail(rest).strip_prefix('-')?;
                name.starts_with(path.name()).then_some(referent)
            }
            _ => None,
        }
    }

    /// Adds a derivation. `outputs` are its outputs with their paths where they are known, `placeholders` the digits
    /// that stand for the others.
    pub(super) fn add_derivation(&mut self, path: &StorePath, derivation: Derivation, outputs: &[OutputKey]) {
        for OutputKey { output, key, path: output_path } in outputs {
            let referent =
                Referent::Output { derivation: path.clone(), output: output.clone(), path: output_path.clone() };
            self.explain_as(key, referent);
        }
        self.derivations.entry(path.clone()).or_insert_with(|| Arc::new(derivation));
    }

    /// Adds an object and says its path.
    pub(super) fn add_object(&mut self, path: StorePath, object: StoreObject) {
        self.explain_as(path.hash_part(), Referent::Object(path.clone()));
        self.objects.insert(path, object);
    }

    fn explain_as(&mut self, key: &str, referent: Referent) {
        let maker = self.current;
        let Some(known) = self.explained.get_mut(key) else {
            self.explained.insert(key.into(), vec![Explanation { referent, makers: vec![maker] }]);
            return;
        };
        match known.iter_mut().find(|explanation| explanation.referent == referent) {
            Some(same) if same.makers.contains(&maker) => {}
            Some(same) => same.makers.push(maker),
            None => known.push(Explanation { referent, makers: vec![maker] }),
        }
    }

    /// The derivation at this path.
    pub(super) fn derivation(&self, path: &StorePath) -> Option<&Arc<Derivation>> {
        self.derivations.get(path)
    }

    /// All derivations and all objects.
    pub(super) fn into_parts(self) -> (BTreeMap<StorePath, Arc<Derivation>>, BTreeMap<StorePath, StoreObject>) {
        (self.derivations.into_iter().collect(), self.objects)
    }
}

/// How strings refer to an output.
pub(super) struct OutputKey {
    /// Name of the output.
    pub(super) output: String,
    /// Digits of its placeholder, or the hash part of its path.
    pub(super) key: String,
    /// Its path, if it is known before it is built.
    pub(super) path: Option<StorePath>,
}

impl StoreObject {
    /// An object and its path.
    pub(super) fn place(
        self,
        store_dir: &StoreDir,
        name: &str,
    ) -> Result<(StorePath, Self), ampoule_store::content_address::ContentPathError> {
        let references = References { others: self.references.clone(), self_reference: false };
        let path = store_dir.content_addressed_path(name, &self.address, &references)?;
        Ok((path, self))
    }
}
