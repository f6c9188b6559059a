//! Making derivations: Nix's `derivation` function, without its language.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::content_address::{ContentAddress, ContentPathError, Method};
use ampoule_store::hash::Algorithm;
use ampoule_store::path::{PathError, StoreDir, StorePath};

use super::modulo::{ModuloError, ModuloHashes, input_addressed_path};
use super::{Derivation, InvalidDerivation, Output};
use crate::placeholder;

/// The variable that holds structured attributes.
pub(crate) const STRUCTURED_ATTRIBUTES: &str = "__json";

/// Which kind of outputs a derivation shall have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OutputKind {
    /// Paths that follow from the derivation.
    #[default]
    InputAddressed,
    /// One output, whose content is known.
    Fixed(ContentAddress),
    /// Paths that follow from what is built.
    Floating {
        /// What of the content is hashed.
        method: Method,
        /// The hash algorithm.
        algorithm: Algorithm,
    },
}

/// Why no derivation could be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InstantiateError {
    /// A rule for derivations is broken.
    #[error(transparent)]
    Invalid(#[from] InvalidDerivation),
    /// An output is named twice.
    #[error("derivation `{name}` names output `{output}` twice")]
    DuplicateOutput {
        /// The derivation's name.
        name: String,
        /// The output.
        output: String,
    },
    /// An argument or variable holds a NUL byte, which no process can be given.
    #[error("derivation `{name}`: {what} holds a NUL byte")]
    Nul {
        /// The derivation's name.
        name: String,
        /// `an argument` or the variable.
        what: String,
    },
    /// With structured attributes, a value that is not UTF-8.
    #[error("derivation `{name}`: attribute `{attribute}` is not UTF-8, so it cannot be structured")]
    NotUtf8 {
        /// The derivation's name.
        name: String,
        /// The attribute.
        attribute: String,
    },
    /// An input is not known or lacks an output.
    #[error(transparent)]
    Modulo(#[from] ModuloError),
    /// The fixed output can have no path.
    #[error(transparent)]
    FixedPath(#[from] ContentPathError),
    /// A name is not allowed.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A derivation in the making. What is set here are Nix's attributes; the paths of outputs are filled in at the end.
///
/// ```
/// use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};
/// use ampoule_store::path::StoreDir;
/// let store_dir = StoreDir::default();
/// let builder = DerivationBuilder::new("minimal", "x86_64-linux", "/bin/sh");
/// let (path, derivation) = builder.instantiate(&store_dir, &mut ModuloHashes::new())?;
/// assert_eq!(path.to_string(), "v1x7ylvsiz9y106ac08pngsy82l2igb7-minimal.drv");
/// let out = derivation.output_path(&store_dir, "out")?.map(|path| path.to_string());
/// assert_eq!(out.as_deref(), Some("s5nvav9b8g8kczqzrn1n1npbvs31hgs4-minimal"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct DerivationBuilder {
    name: String,
    system: String,
    builder: String,
    args: Vec<Vec<u8>>,
    env: BTreeMap<Vec<u8>, Vec<u8>>,
    output_names: Vec<String>,
    kind: OutputKind,
    input_derivations: BTreeMap<StorePath, BTreeSet<String>>,
    input_sources: BTreeSet<StorePath>,
    structured_attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

impl DerivationBuilder {
    /// A derivation with one input-addressed output `out`. The environment gets `name`, `system` and `builder`.
    #[must_use]
    pub fn new(name: &str, system: &str, builder: &str) -> Self {
        let derivation = Self {
            name: name.to_owned(),
            system: system.to_owned(),
            builder: builder.to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            output_names: vec!["out".to_owned()],
            kind: OutputKind::InputAddressed,
            input_derivations: BTreeMap::new(),
            input_sources: BTreeSet::new(),
            structured_attributes: None,
        };
        derivation.env("name", name).env("system", system).env("builder", builder)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.args.push(argument.into());
        self
    }

    /// Sets a variable; the last value counts. Those named like outputs are replaced in the end.
    #[must_use]
    pub fn env(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Names the outputs, the default one first, and sets the variable `outputs`.
    #[must_use]
    pub fn outputs<S: AsRef<str>>(self, outputs: impl IntoIterator<Item = S>) -> Self {
        let named = self.output_names(outputs);
        let joined = named.output_names.join(" ");
        named.env("outputs", joined)
    }

    /// Names the outputs, and sets no variable.
    #[must_use]
    pub fn output_names<S: AsRef<str>>(mut self, outputs: impl IntoIterator<Item = S>) -> Self {
        self.output_names = outputs.into_iter().map(|output| output.as_ref().to_owned()).collect();
        self
    }

    /// Fixes the content, and sets the variables `outputHash` (base 16), `outputHashAlgo` and `outputHashMode`.
    #[must_use]
    pub fn fixed(self, address: ContentAddress) -> Self {
        let derivation = self.env("outputHash", address.hash.to_hex()).hashed(address.method, address.hash.algorithm());
        derivation.output_kind(OutputKind::Fixed(address))
    }

    /// Lets the outputs' paths follow from what is built, and sets the variables `outputHashAlgo` and `outputHashMode`.
    #[must_use]
    pub fn floating(self, method: Method, algorithm: Algorithm) -> Self {
        self.hashed(method, algorithm).output_kind(OutputKind::Floating { method, algorithm })
    }

    fn hashed(self, method: Method, algorithm: Algorithm) -> Self {
        let mode = match method {
            Method::Flat => "flat",
            Method::Nar => "recursive",
            Method::Text => "text",
        };
        self.env("outputHashAlgo", algorithm.name()).env("outputHashMode", mode)
    }

    /// Sets the kind of outputs, and no variable.
    #[must_use]
    pub fn output_kind(mut self, kind: OutputKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds an output of another derivation to the inputs.
    #[must_use]
    pub fn input_derivation(mut self, path: StorePath, output: &str) -> Self {
        self.input_derivations.entry(path).or_default().insert(output.to_owned());
        self
    }

    /// Adds a store object to the inputs.
    #[must_use]
    pub fn input_source(mut self, path: StorePath) -> Self {
        self.input_sources.insert(path);
        self
    }

    /// Gives the attributes as JSON instead of as variables: everything set by [`env`](Self::env) becomes an attribute too
    /// (where `attributes` does not have it), and `outputs` a list.
    #[must_use]
    pub fn structured_attributes(mut self, attributes: serde_json::Map<String, serde_json::Value>) -> Self {
        self.structured_attributes = Some(attributes);
        self
    }

    /// The derivation and its path. The hashes must know its inputs, and know it afterwards.
    ///
    /// # Errors
    /// When a rule is broken or an input is not known.
    pub fn instantiate(
        mut self,
        store_dir: &StoreDir,
        hashes: &mut ModuloHashes,
    ) -> Result<(StorePath, Derivation), InstantiateError> {
        self.refuse_duplicate_outputs()?;
        if let Some(attributes) = self.structured_attributes.take() {
            self.structure(attributes)?;
        }
        self.refuse_nul()?;
        let kind = self.kind;
        let output = match &kind {
            OutputKind::InputAddressed => Output::Deferred,
            OutputKind::Fixed(address) => Output::Fixed(address.clone()),
            OutputKind::Floating { method, algorithm } => Output::Floating { method: *method, algorithm: *algorithm },
        };
        let mut derivation = Derivation {
            name: self.name,
            outputs: self.output_names.into_iter().map(|name| (name, output.clone())).collect(),
            input_derivations: self.input_derivations,
            input_sources: self.input_sources,
            system: self.system,
            builder: self.builder,
            args: self.args,
            env: self.env,
        };
        derivation.check()?;
        match kind {
            OutputKind::InputAddressed => derivation.address_by_inputs(store_dir, hashes)?,
            OutputKind::Fixed(_) => {
                let path = derivation.output_path(store_dir, "out")?.map(|path| store_dir.display(&path));
                derivation.env.insert(b"out".to_vec(), path.unwrap_or_default().into());
            }
            OutputKind::Floating { .. } => {
                for output in derivation.outputs.keys() {
                    derivation.env.insert(output.clone().into(), placeholder::output(output).into());
                }
            }
        }
        let path = derivation.path(store_dir)?;
        hashes.insert(&path, &derivation, store_dir)?;
        Ok((path, derivation))
    }

    fn refuse_duplicate_outputs(&self) -> Result<(), InstantiateError> {
        let mut seen = BTreeSet::new();
        match self.output_names.iter().find(|output| !seen.insert(*output)) {
            Some(output) => Err(InstantiateError::DuplicateOutput { name: self.name.clone(), output: output.clone() }),
            None => Ok(()),
        }
    }

    fn refuse_nul(&self) -> Result<(), InstantiateError> {
        let nul = |what: &str| InstantiateError::Nul { name: self.name.clone(), what: what.to_owned() };
        if self.args.iter().any(|argument| argument.contains(&0)) {
            return Err(nul("an argument"));
        }
        if self.builder.contains('\0') {
            return Err(nul("the builder"));
        }
        match self.env.iter().find(|(name, value)| name.contains(&0) || value.contains(&0)) {
            Some((name, _)) => Err(nul(&format!("variable `{}`", name.escape_ascii()))),
            None => Ok(()),
        }
    }

    /// Moves all variables into one with JSON.
    fn structure(
        &mut self,
        mut attributes: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), InstantiateError> {
        for (name, value) in std::mem::take(&mut self.env) {
            let attribute = String::from_utf8_lossy(&name).into_owned();
            let not_utf8 = |_| InstantiateError::NotUtf8 { name: self.name.clone(), attribute: attribute.clone() };
            let name = String::from_utf8(name).map_err(|error| not_utf8(error.utf8_error()))?;
            let value = String::from_utf8(value).map_err(|error| not_utf8(error.utf8_error()))?;
            let value = if name == "outputs" { self.output_names.clone().into() } else { value.into() };
            attributes.entry(name).or_insert(value);
        }
        let json = serde_json::Value::Object(attributes).to_string();
        self.env = BTreeMap::from([(STRUCTURED_ATTRIBUTES.into(), json.into())]);
        Ok(())
    }
}

impl Derivation {
    /// Turns deferred outputs into input-addressed ones, unless an input is known by what it builds only.
    pub(super) fn address_by_inputs(&mut self, store_dir: &StoreDir, hashes: &ModuloHashes) -> Result<(), ModuloError> {
        for output in self.outputs.keys() {
            self.env.insert(output.clone().into(), Vec::new());
        }
        let hash = hashes.masked(self, store_dir)?;
        if hash.deferred {
            return Ok(());
        }
        for (name, output) in &mut self.outputs {
            let path = input_addressed_path(store_dir, &self.name, name, &hash.digest)?;
            self.env.insert(name.clone().into(), store_dir.display(&path).into());
            *output = Output::InputAddressed(path);
        }
        Ok(())
    }
}
