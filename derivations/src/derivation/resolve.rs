//! Replacing inputs by what they built: Nix's resolved derivations.

use std::collections::BTreeMap;

use ampoule_store::path::{StoreDir, StorePath};

use super::modulo::{ModuloError, ModuloHashes};
use super::{Derivation, Output};
use crate::placeholder;

/// Why a derivation cannot be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// An input has not been built.
    #[error("derivation `{derivation}` needs output `{output}` of `{input}`, which is not built")]
    NotBuilt {
        /// The name of the derivation.
        derivation: String,
        /// The input.
        input: StorePath,
        /// The output.
        output: String,
    },
    /// The outputs can have no paths.
    #[error(transparent)]
    Modulo(#[from] ModuloError),
}

/// The derivation with its input derivations replaced by their outputs, which `built` knows.
///
/// Placeholders of these outputs become their paths, in the builder, the arguments and the environment; deferred outputs become
/// input-addressed. A derivation without input derivations is resolved already, but for deferred outputs.
///
/// # Errors
/// When an output that is needed has not been built.
pub fn resolve(
    derivation: &Derivation,
    store_dir: &StoreDir,
    mut built: impl FnMut(&StorePath, &str) -> Option<StorePath>,
) -> Result<Derivation, ResolveError> {
    let mut resolved = derivation.clone();
    let mut replacements = Vec::new();
    for (input, outputs) in std::mem::take(&mut resolved.input_derivations) {
        for output in outputs {
            let path = built(&input, &output).ok_or_else(|| ResolveError::NotBuilt {
                derivation: derivation.name.clone(),
                input: input.clone(),
                output: output.clone(),
            })?;
            replacements.push((placeholder::upstream(&input, &output), store_dir.display(&path)));
            resolved.input_sources.insert(path);
        }
    }
    rewrite(&mut resolved, &replacements);
    if resolved.outputs.values().any(|output| *output == Output::Deferred) {
        resolved.address_by_inputs(store_dir, &ModuloHashes::new())?;
    }
    Ok(resolved)
}

fn rewrite(derivation: &mut Derivation, replacements: &[(String, String)]) {
    let replace = |text: &[u8]| {
        replacements.iter().fold(text.to_vec(), |text, (from, to)| replace_all(text, from.as_bytes(), to.as_bytes()))
    };
    for (from, to) in replacements {
        derivation.builder = derivation.builder.replace(from, to);
    }
    for argument in &mut derivation.args {
        *argument = replace(argument);
    }
    let env = std::mem::take(&mut derivation.env);
    // As in Nix, the first of two variables that become one keeps its value.
    let mut rewritten = BTreeMap::new();
    for (name, value) in env {
        rewritten.entry(replace(&name)).or_insert_with(|| replace(&value));
    }
    derivation.env = rewritten;
}

/// The text with every occurrence of a placeholder, which starts with a slash, replaced.
#[must_use]
pub fn replace_all(text: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut rest = &text[..];
    let mut replaced = Vec::new();
    while let Some(at) = find(rest, from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    if replaced.is_empty() && rest.len() == text.len() {
        return text;
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// Where `needle`, which starts with a slash, first occurs.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let mut start = 0;
    while let Some(slash) = text[start..].iter().position(|byte| *byte == needle[0]) {
        start += slash;
        if text[start..].starts_with(needle) {
            return Some(start);
        }
        start += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_occurrences_are_replaced() {
        for (text, expected) in
            [("", ""), ("/a", "/bb"), ("x/a/a/ay/", "x/bb/bb/bby/"), ("//a/", "//bb/"), ("none", "none")]
        {
            assert_eq!(replace_all(text.into(), b"/a", b"/bb"), expected.as_bytes(), "{text}");
        }
    }
}
