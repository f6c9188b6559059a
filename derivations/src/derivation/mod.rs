//! The derivation: what is built, from what, and what its outputs' paths will be.
//!
//! The model and every path that follows from it are Nix's; `docs/formats/derivation.md` says how.
//! [`DerivationBuilder::instantiate`] makes derivations, [`aterm`] reads and writes them,
//! [`ModuloHashes`] knows the hashes by which derivations are inputs of others, and [`resolve`] replaces inputs by what was built.

mod instantiate;
mod modulo;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::content_address::{ContentAddress, ContentPathError, Method, References};
use ampoule_store::hash::Algorithm;
use ampoule_store::path::{PathError, StoreDir, StorePath, check_name};

use crate::aterm;

pub use instantiate::{DerivationBuilder, InstantiateError, OutputKind};
pub use modulo::{ModuloError, ModuloHash, ModuloHashes};
pub use resolve::{ResolveError, replace_all, resolve};

/// What is known of an output before it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Its path, which follows from the derivation.
    InputAddressed(StorePath),
    /// Its content, from which its path follows.
    Fixed(ContentAddress),
    /// How its content will be hashed; its path follows from what is built.
    Floating {
        /// What of the content is hashed.
        method: Method,
        /// The hash algorithm.
        algorithm: Algorithm,
    },
    /// Nothing yet: it is input-addressed, but an input's path follows from what is built.
    Deferred,
}

/// A derivation. Values are bytes, as in Nix: they need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The name, without `.drv`.
    pub name: String,
    /// The outputs, all of one kind; never empty.
    pub outputs: BTreeMap<String, Output>,
    /// The derivations that are built first, with the outputs that are needed.
    pub input_derivations: BTreeMap<StorePath, BTreeSet<String>>,
    /// The store objects that are needed as they are.
    pub input_sources: BTreeSet<StorePath>,
    /// The kind of machine that can build it, such as `x86_64-linux`, or `builtin`.
    pub system: String,
    /// The program that builds it, or `builtin:<name>`.
    pub builder: String,
    /// The builder's arguments.
    pub args: Vec<Vec<u8>>,
    /// The builder's environment, as far as the derivation says it.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why a value of [`Derivation`] is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDerivation {
    /// The name, or that of an output's path, is not allowed.
    #[error("derivation `{name}` has a name that is not allowed")]
    Name {
        /// The derivation's name.
        name: String,
        /// The rule it breaks.
        #[source]
        source: PathError,
    },
    /// The name ends in `.drv`.
    #[error("derivation name `{name}` may not end in `.drv`")]
    NameOfDerivation {
        /// The derivation's name.
        name: String,
    },
    /// There is no output.
    #[error("derivation `{name}` has no outputs")]
    NoOutputs {
        /// The derivation's name.
        name: String,
    },
    /// The name of an output is not allowed.
    #[error("derivation `{name}` cannot have an output named `{output}`")]
    OutputName {
        /// The derivation's name.
        name: String,
        /// The output's name.
        output: String,
    },
    /// Outputs of several kinds.
    #[error("outputs of derivation `{name}` are of different kinds")]
    MixedOutputs {
        /// The derivation's name.
        name: String,
    },
    /// A fixed output that is not the only one or not named `out`.
    #[error("derivation `{name}` has a fixed output, so its only output must be `out`")]
    FixedOutputs {
        /// The derivation's name.
        name: String,
    },
    /// An output's path has another name than the derivation gives it.
    #[error("output `{output}` of derivation `{name}` cannot be `{path}`: it would be named otherwise")]
    OutputPath {
        /// The derivation's name.
        name: String,
        /// The output's name.
        output: String,
        /// The path.
        path: StorePath,
    },
    /// The system holds a character that Nix writes in a way it cannot read.
    #[error("system `{}` of derivation `{name}` holds a quote, a backslash or a control character", system.escape_debug())]
    System {
        /// The derivation's name.
        name: String,
        /// The system.
        system: String,
    },
    /// An input derivation's path does not end in `.drv`, or none of its outputs is named.
    #[error("input `{path}` of derivation `{name}` is no derivation with outputs")]
    Input {
        /// The derivation's name.
        name: String,
        /// The input.
        path: StorePath,
    },
}

impl Derivation {
    /// The path of the derivation itself: that of its text, with its inputs as references.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn path(&self, store_dir: &StoreDir) -> Result<StorePath, PathError> {
        self.path_of_text(store_dir, &aterm::write(self, store_dir))
    }

    /// Like [`path`](Self::path), when the text is at hand.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn path_of_text(&self, store_dir: &StoreDir, text: &[u8]) -> Result<StorePath, PathError> {
        store_dir.text_path(&format!("{}.drv", self.name), text, &self.references())
    }

    /// The store paths that the derivation itself refers to: all inputs.
    #[must_use]
    pub fn references(&self) -> BTreeSet<StorePath> {
        self.input_derivations.keys().chain(&self.input_sources).cloned().collect()
    }

    /// The path of an output, where it is known before it is built; `None` also when there is no such output.
    ///
    /// # Errors
    /// When the output is fixed and its content can have no path of this name.
    pub fn output_path(&self, store_dir: &StoreDir, output: &str) -> Result<Option<StorePath>, ContentPathError> {
        match self.outputs.get(output) {
            Some(Output::InputAddressed(path)) => Ok(Some(path.clone())),
            Some(Output::Fixed(address)) => {
                let name = output_path_name(&self.name, output);
                store_dir.content_addressed_path(&name, address, &References::default()).map(Some)
            }
            Some(Output::Floating { .. } | Output::Deferred) | None => Ok(None),
        }
    }

    /// The content that the derivation must produce, if it is a fixed-output one.
    #[must_use]
    pub fn fixed_output(&self) -> Option<&ContentAddress> {
        match self.outputs.get("out") {
            Some(Output::Fixed(address)) => Some(address),
            _ => None,
        }
    }

    /// Whether the outputs' paths follow from what is built.
    #[must_use]
    pub fn is_floating(&self) -> bool {
        self.outputs.values().any(|output| matches!(output, Output::Floating { .. }))
    }

    /// The value of an environment variable, if it is there and UTF-8.
    #[must_use]
    pub fn env_str(&self, name: &str) -> Option<&str> {
        self.env.get(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Checks what every derivation must fulfil, whoever made it.
    ///
    /// # Errors
    /// With the first rule that is broken.
    pub fn check(&self) -> Result<(), InvalidDerivation> {
        let name = || self.name.clone();
        check_name(&self.name).map_err(|source| InvalidDerivation::Name { name: name(), source })?;
        if self.name.ends_with(".drv") {
            return Err(InvalidDerivation::NameOfDerivation { name: name() });
        }
        // Nix writes the system without escapes, so one of these would give a text that it cannot read.
        if self.system.contains(['"', '\\', '\n', '\r', '\t', '\0']) {
            return Err(InvalidDerivation::System { name: name(), system: self.system.clone() });
        }
        let no_derivation = |(path, outputs): &(&StorePath, &BTreeSet<String>)| {
            !path.is_derivation() || outputs.is_empty() || !outputs.iter().all(|output| is_output_name(output))
        };
        if let Some((path, _)) = self.input_derivations.iter().find(no_derivation) {
            return Err(InvalidDerivation::Input { name: name(), path: path.clone() });
        }
        self.check_outputs()
    }

    fn check_outputs(&self) -> Result<(), InvalidDerivation> {
        let name = || self.name.clone();
        let Some(first) = self.outputs.values().next() else {
            return Err(InvalidDerivation::NoOutputs { name: name() });
        };
        for (output, kind) in &self.outputs {
            if !is_output_name(output) {
                return Err(InvalidDerivation::OutputName { name: name(), output: output.clone() });
            }
            let path_name = output_path_name(&self.name, output);
            check_name(&path_name).map_err(|source| InvalidDerivation::Name { name: name(), source })?;
            if std::mem::discriminant(kind) != std::mem::discriminant(first) {
                return Err(InvalidDerivation::MixedOutputs { name: name() });
            }
            match kind {
                Output::InputAddressed(path) if path.name() != path_name => {
                    return Err(InvalidDerivation::OutputPath {
                        name: name(),
                        output: output.clone(),
                        path: path.clone(),
                    });
                }
                Output::Fixed(_) if self.outputs.len() > 1 || output != "out" => {
                    return Err(InvalidDerivation::FixedOutputs { name: name() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether an output may have this name: that of a store object, and not `drv`, which Nix keeps for the derivation itself.
fn is_output_name(output: &str) -> bool {
    output != "drv" && check_name(output).is_ok()
}

/// The name of an output's path: the derivation's name, and for other outputs than `out` a dash and the output's name.
#[must_use]
pub fn output_path_name(derivation: &str, output: &str) -> String {
    match output {
        "out" => derivation.to_owned(),
        _ => format!("{derivation}-{output}"),
    }
}
