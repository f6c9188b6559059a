//! The hash of a derivation modulo what does not matter to those that use it: Nix's `hashDerivationModulo`.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::content_address::ContentPathError;
use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::{PathError, StoreDir, StorePath};

use super::{Derivation, Output, output_path_name};
use crate::aterm::write_modulo;

/// The hash by which a derivation is an input of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuloHash {
    /// The hash.
    pub digest: Sha256Digest,
    /// Whether it, or a derivation it needs, is known by what it builds only. Input-addressed derivations that need it are
    /// then [deferred](Output::Deferred).
    pub deferred: bool,
    /// The outputs it stands for.
    outputs: BTreeSet<String>,
}

/// Why a derivation has no hash modulo its inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuloError {
    /// An input derivation is not known.
    #[error("derivation `{derivation}` needs `{input}`, which is not known")]
    UnknownInput {
        /// The name of the derivation.
        derivation: String,
        /// The input.
        input: StorePath,
    },
    /// An input derivation has no output of that name.
    #[error("derivation `{derivation}` needs output `{output}` of `{input}`, which has no such output")]
    UnknownOutput {
        /// The name of the derivation.
        derivation: String,
        /// The input.
        input: StorePath,
        /// The output.
        output: String,
    },
    /// The derivation's fixed output can have no path.
    #[error(transparent)]
    FixedPath(#[from] ContentPathError),
    /// An output's name is not allowed.
    #[error(transparent)]
    Name(#[from] PathError),
    /// An output's path is not the one that follows from the derivation.
    #[error("output `{output}` of derivation `{derivation}` is `{claimed}`, but should be `{expected}`")]
    OutputPath {
        /// The name of the derivation.
        derivation: String,
        /// The output.
        output: String,
        /// The path that the derivation claims.
        claimed: String,
        /// The path that follows from it.
        expected: String,
    },
    /// Derivations that need each other.
    #[error("derivation `{path}` needs itself")]
    Cycle {
        /// One of them.
        path: StorePath,
    },
}

/// The hashes of derivations, by path.
///
/// A derivation's hash needs those of its inputs, so derivations are [inserted](Self::insert) after what they need.
#[derive(Debug, Clone, Default)]
pub struct ModuloHashes {
    hashes: BTreeMap<StorePath, ModuloHash>,
}

impl ModuloHashes {
    /// No hashes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash of the derivation at that path, if it is known.
    #[must_use]
    pub fn get(&self, path: &StorePath) -> Option<&ModuloHash> {
        self.hashes.get(path)
    }

    /// Hashes a derivation as an input of others, and keeps the hash.
    ///
    /// # Errors
    /// When an input is not known, or lacks an output.
    pub fn insert(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        store_dir: &StoreDir,
    ) -> Result<&ModuloHash, ModuloError> {
        let hash = match self.hashes.remove(path) {
            Some(hash) => hash,
            None => self.hash_as_input(derivation, store_dir)?,
        };
        Ok(self.hashes.entry(path.clone()).or_insert(hash))
    }

    /// Hashes the derivation at that path and, before it, all that it needs; `find` knows them.
    ///
    /// # Errors
    /// When one is not found, lacks an output that another needs, or needs itself.
    pub fn insert_closure<'a>(
        &mut self,
        path: &StorePath,
        store_dir: &StoreDir,
        find: impl Fn(&StorePath) -> Option<&'a Derivation>,
    ) -> Result<&ModuloHash, ModuloError> {
        let look = |path: &StorePath, user: &str| {
            find(path).ok_or_else(|| ModuloError::UnknownInput { derivation: user.to_owned(), input: path.clone() })
        };
        let mut pending = vec![(path.clone(), look(path, path.name())?)];
        let mut entered = BTreeSet::new();
        while let Some((path, derivation)) = pending.last().cloned() {
            let missing = derivation.input_derivations.keys().filter(|input| !self.hashes.contains_key(*input));
            let missing: Vec<_> = missing.cloned().collect();
            if missing.is_empty() {
                self.insert(&path, derivation, store_dir)?;
                pending.pop();
            } else if entered.insert(path.clone()) {
                for input in missing {
                    let found = look(&input, &derivation.name)?;
                    pending.push((input, found));
                }
            } else {
                return Err(ModuloError::Cycle { path });
            }
        }
        Ok(&self.hashes[path])
    }

    /// The hash for the derivation's own output paths: with output paths, and the variables named like outputs, left empty.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn masked(&self, derivation: &Derivation, store_dir: &StoreDir) -> Result<ModuloHash, ModuloError> {
        let (inputs, deferred) = self.inputs(derivation)?;
        let text = write_modulo(derivation, store_dir, true, &inputs);
        Ok(ModuloHash {
            digest: Sha256Digest::of(&text),
            deferred,
            outputs: derivation.outputs.keys().cloned().collect(),
        })
    }

    /// Checks that the paths of input-addressed outputs are those that follow from the derivation, so that nobody can claim
    /// another derivation's paths. Outputs of other kinds claim none.
    ///
    /// # Errors
    /// When one is not, or as [`insert`](Self::insert).
    pub fn check_output_paths(&self, derivation: &Derivation, store_dir: &StoreDir) -> Result<(), ModuloError> {
        let claimed = |output: &Output| match output {
            Output::InputAddressed(path) => Some(path.clone()),
            _ => None,
        };
        let claims: Vec<_> =
            derivation.outputs.iter().filter_map(|(name, output)| Some((name, claimed(output)?))).collect();
        if claims.is_empty() {
            return Ok(());
        }
        let hash = self.masked(derivation, store_dir)?;
        for (output, claimed) in claims {
            let expected = input_addressed_path(store_dir, &derivation.name, output, &hash.digest)?;
            if hash.deferred || claimed != expected {
                return Err(ModuloError::OutputPath {
                    derivation: derivation.name.clone(),
                    output: output.clone(),
                    claimed: claimed.to_string(),
                    expected: if hash.deferred { "deferred".to_owned() } else { expected.to_string() },
                });
            }
        }
        Ok(())
    }

    fn hash_as_input(&self, derivation: &Derivation, store_dir: &StoreDir) -> Result<ModuloHash, ModuloError> {
        let outputs = derivation.outputs.keys().cloned().collect();
        if let Some(address) = derivation.fixed_output() {
            // Only what it makes matters to others, not how: a mirror may change without rebuilding anything.
            let path = derivation.output_path(store_dir, "out")?.map(|path| store_dir.display(&path));
            let method = address.method_algorithm();
            let text = format!("fixed:out:{method}:{}:{}", address.hash.to_hex(), path.unwrap_or_default());
            return Ok(ModuloHash { digest: Sha256Digest::of(text.as_bytes()), deferred: false, outputs });
        }
        let (inputs, deferred) = self.inputs(derivation)?;
        let text = write_modulo(derivation, store_dir, false, &inputs);
        let deferred = deferred || derivation.is_floating();
        Ok(ModuloHash { digest: Sha256Digest::of(&text), deferred, outputs })
    }

    /// The inputs by their hashes instead of their paths, and whether one of them is deferred. Inputs with equal hashes merge.
    fn inputs<'a>(
        &self,
        derivation: &'a Derivation,
    ) -> Result<(BTreeMap<String, BTreeSet<&'a str>>, bool), ModuloError> {
        let mut inputs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let mut deferred = false;
        for (input, outputs) in &derivation.input_derivations {
            let name = || derivation.name.clone();
            let hash = self
                .hashes
                .get(input)
                .ok_or_else(|| ModuloError::UnknownInput { derivation: name(), input: input.clone() })?;
            if let Some(output) = outputs.iter().find(|output| !hash.outputs.contains(*output)) {
                let (input, output) = (input.clone(), output.clone());
                return Err(ModuloError::UnknownOutput { derivation: name(), input, output });
            }
            deferred |= hash.deferred;
            inputs.entry(hash.digest.to_hex()).or_default().extend(outputs.iter().map(String::as_str));
        }
        Ok((inputs, deferred))
    }
}

/// The path of an input-addressed output, from the derivation's masked hash.
pub(super) fn input_addressed_path(
    store_dir: &StoreDir,
    derivation: &str,
    output: &str,
    digest: &Sha256Digest,
) -> Result<StorePath, PathError> {
    store_dir.fingerprinted_path(&format!("output:{output}"), digest, &output_path_name(derivation, output))
}
