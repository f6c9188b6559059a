//! Recipes as their authors write them, and what comes of them.

mod derivations;
mod errors;
mod rule_errors;
mod rules;

use ampoule_derivations::lock::Lock;
use ampoule_store::path::StoreDir;

use super::*;

/// Evaluates `//...` of a catalog of these files, in the mode that needs no lock.
fn evaluate(files: &[(&str, &str)]) -> Result<Evaluation, EvalError> {
    evaluate_patterns(files, &["//..."], &Lock::default(), Mode::Lock)
}

fn evaluate_patterns(
    files: &[(&str, &str)],
    patterns: &[&str],
    lock: &Lock,
    mode: Mode,
) -> Result<Evaluation, EvalError> {
    let loader = MemoryLoader::new(files.iter().copied());
    let (store_dir, tables) = (StoreDir::default(), Tables::default());
    let inputs = Inputs { loader: &loader, lock, store_dir: &store_dir, mode, tables: &tables };
    let patterns: Vec<Pattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
    inputs.evaluate(&patterns)
}

/// The derivation that makes the only member of a target.
fn derivation<'e>(evaluation: &'e Evaluation, label: &str) -> &'e Derivation {
    let chosen = evaluation.select(&label.parse().unwrap()).unwrap();
    let [Selected { member: Member::Derived(derived), .. }] = chosen.as_slice() else {
        panic!("`{label}` has not one member: {chosen:?}");
    };
    &evaluation.derivations[&derived.derivation]
}

/// The derivation's text.
fn aterm(evaluation: &Evaluation, label: &str) -> String {
    let text = ampoule_derivations::aterm::write(derivation(evaluation, label), &StoreDir::default());
    String::from_utf8(text).unwrap()
}
