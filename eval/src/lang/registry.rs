//! Everything evaluation has made, found by the texts that stand for it in strings.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::content_address::{ContentAddress, References};
use ampoule_store::path::{HASH_PART_LENGTH, StoreDir, StorePath};

use super::scan::{PLACEHOLDER_LENGTH, Reference};
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
    placeholders: HashMap<PlaceholderDigits, Explanations>,
    paths: HashMap<HashPart, Explanations>,
    current: ModuleNumber,
    visible: BTreeSet<ModuleNumber>,
}

type PlaceholderDigits = [u8; PLACEHOLDER_LENGTH];
type HashPart = [u8; HASH_PART_LENGTH];

/// What one text can stand for. Mostly that is one thing; but several derivations can have the same fixed output.
struct Explanations {
    first: Explanation,
    others: Vec<Explanation>,
}

struct Explanation {
    referent: Referent,
    /// The modules that made it.
    first_maker: ModuleNumber,
    other_makers: Vec<ModuleNumber>,
}

/// What a reference in a string means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Referent {
    /// An output of a derivation.
    Output {
        /// Path of the derivation.
        derivation: StorePath,
        /// Name of the output.
        output: Cow<'static, str>,
        /// The output's path, if it is known before it is built.
        path: Option<StorePath>,
    },
    /// A store object evaluation knows the bytes of.
    Object(StorePath),
}

impl Explanation {
    fn new(referent: Referent, maker: ModuleNumber) -> Self {
        Self { referent, first_maker: maker, other_makers: Vec::new() }
    }

    fn is_seen_by(&self, visible: &BTreeSet<ModuleNumber>) -> bool {
        visible.contains(&self.first_maker) || self.other_makers.iter().any(|maker| visible.contains(maker))
    }
}

impl Explanations {
    fn all(&self) -> impl Iterator<Item = &Explanation> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn add(&mut self, referent: Referent, maker: ModuleNumber) {
        let same = std::iter::once(&mut self.first).chain(&mut self.others).find(|known| known.referent == referent);
        match same {
            Some(same) if same.first_maker == maker || same.other_makers.contains(&maker) => {}
            Some(same) => same.other_makers.push(maker),
            None => self.others.push(Explanation::new(referent, maker)),
        }
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
        let (known, rest) = match reference {
            Reference::Placeholder(digits) => (self.placeholders.get(digits), None),
            Reference::StorePath { hash_part, rest } => (self.paths.get(hash_part), Some(rest)),
        };
        // Among several the choice depends on what they are, not on which was made first.
        let seen = known?.all().filter(|explanation| explanation.is_seen_by(&self.visible));
        let referent = &seen.min_by(|a, b| a.referent.cmp(&b.referent))?.referent;
        match (rest, referent.known_path()) {
            (None, None) => Some(referent),
            (Some(rest), Some(path)) => {
                let name = rest.strip_prefix(b"-")?;
                name.starts_with(path.name().as_bytes()).then_some(referent)
            }
            _ => None,
        }
    }

    /// Adds a derivation and what stands for its outputs.
    pub(super) fn add_derivation(&mut self, path: &StorePath, derivation: Derivation, outputs: &[OutputText]) {
        for OutputText { output, text, path: output_path } in outputs {
            let output = if output == "out" { Cow::Borrowed("out") } else { Cow::Owned(output.clone()) };
            let referent = Referent::Output { derivation: path.clone(), output, path: output_path.clone() };
            match output_path {
                Some(known) => self.explain_path(known, referent),
                None => {
                    let digits = text.as_bytes()[1..].try_into().expect("a placeholder is a slash and its digits");
                    explain(&mut self.placeholders, digits, referent, self.current);
                }
            }
        }
        self.derivations.entry(path.clone()).or_insert_with(|| Arc::new(derivation));
    }

    /// Adds an object and says its path.
    pub(super) fn add_object(&mut self, path: StorePath, object: StoreObject) {
        self.explain_path(&path, Referent::Object(path.clone()));
        self.objects.insert(path, object);
    }

    fn explain_path(&mut self, path: &StorePath, referent: Referent) {
        let hash_part = path.hash_part().as_bytes().try_into().expect("a hash part has its length");
        explain(&mut self.paths, hash_part, referent, self.current);
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

fn explain<K: Eq + Hash>(explained: &mut HashMap<K, Explanations>, key: K, referent: Referent, maker: ModuleNumber) {
    match explained.entry(key) {
        Entry::Occupied(mut known) => known.get_mut().add(referent, maker),
        Entry::Vacant(free) => {
            free.insert(Explanations { first: Explanation::new(referent, maker), others: Vec::new() });
        }
    }
}

/// What stands for an output in strings.
pub(super) struct OutputText {
    /// Name of the output.
    pub(super) output: String,
    /// Its path, or its placeholder.
    pub(super) text: String,
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
