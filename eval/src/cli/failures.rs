//! What a person, or a program, is told of builds that failed: each once, with all that cannot be had because of it.

use std::collections::BTreeSet;

use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use serde_json::{Value, json};

use super::subject::{Subject, Subjects};
use super::{difference, output};
use crate::realise::{Failure, FailureKind, Outcome, Outcomes};
use crate::terminal::printable;

/// Chains and names that are shown; more are counted.
const SHOWN: usize = 10;

/// Writes to standard error what failed, and what was not built because of it.
pub(super) fn report(subjects: &Subjects, outcomes: &Outcomes, keep_going: bool, ask_diffoscope: bool) {
    for (path, failure) in outcomes.failures() {
        output::message(&text(subjects, outcomes, path, failure, ask_diffoscope));
    }
    let not_begun: Vec<&str> = outcomes
        .0
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::NotBegun))
        .map(|(path, _)| subjects.derivations[path].name.as_str())
        .collect();
    if !not_begun.is_empty() && !keep_going {
        let names = shortened(&not_begun);
        output::message(&format!("not begun: {names}\nhint: `--keep-going` builds what does not need what failed\n"));
    }
}

fn text(subjects: &Subjects, outcomes: &Outcomes, path: &StorePath, failure: &Failure, ask_diffoscope: bool) -> String {
    let mut text = format!("error: {}: {}\n", subjects.derivations[path].name, failure.message);
    if failure.kind != FailureKind::Machine {
        for line in &failure.log_tail {
            text.push_str(&format!("  | {}\n", printable(line)));
        }
    }
    if let Some(kept) = &failure.kept {
        text.push_str(&format!("kept: {}\n", kept.display()));
    }
    text.push_str(&difference::text(failure, ask_diffoscope));
    for line in failure.hint.iter().flat_map(|hint| hint.lines()) {
        text.push_str(&format!("hint: {line}\n"));
    }
    let affected = affected(subjects, outcomes, path);
    for Affected { label, through } in affected.iter().take(SHOWN) {
        let through = if through.is_empty() { String::new() } else { format!(", through {}", through.join(", ")) };
        text.push_str(&format!("needed by: {label}{through}\n"));
    }
    if affected.len() > SHOWN {
        text.push_str(&format!("and by {} more\n", affected.len() - SHOWN));
    }
    let skipped = skipped(subjects, outcomes, path);
    if !skipped.is_empty() {
        text.push_str(&format!("not built because of it: {}\n", shortened(&skipped)));
    }
    if matches!(failure.kind, FailureKind::Build | FailureKind::TimedOut | FailureKind::RebuildFailed { .. }) {
        let argument = affected.first().map_or_else(|| path.to_string(), |first| format!("'{}'", first.label));
        text.push_str(&format!("the whole log: ampoule log {argument}\n"));
    }
    text
}

fn shortened(names: &[&str]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The failures as records.
pub(super) fn records(
    store: &LocalStore,
    subjects: &Subjects,
    outcomes: &Outcomes,
    ask_diffoscope: bool,
) -> Vec<Value> {
    let record = |(path, failure): (&StorePath, &Failure)| {
        let needed_by = affected(subjects, outcomes, path);
        let needed_by = needed_by.iter().map(|one| json!({ "label": one.label, "through": one.through }));
        json!({
            "derivation": store.store_dir().display(path),
            "name": subjects.derivations[path].name,
            "kind": failure.kind.to_string(),
            "message": failure.message,
            "hint": failure.hint,
            "finding": failure.finding(),
            "log_tail": failure.log_tail,
            "builds": difference::record(failure, ask_diffoscope),
            "kept": failure.kept,
            "needed_by": needed_by.collect::<Vec<_>>(),
            "not_built": skipped(subjects, outcomes, path),
            "duration_seconds": failure.duration.as_secs_f64(),
        })
    };
    outcomes.failures().map(record).collect()
}

/// A target that cannot be had because a derivation failed.
struct Affected<'a> {
    label: &'a str,
    /// The names of the derivations in between, from what failed to the target; neither of the two is among them.
    through: Vec<&'a str>,
}

fn affected<'a>(subjects: &'a Subjects, outcomes: &Outcomes, failed: &StorePath) -> Vec<Affected<'a>> {
    let goals = |subject: &'a Subject| std::iter::once(&subject.derivation).chain(&subject.tests);
    let chain = |subject| goals(subject).find_map(|goal| chain(subjects, outcomes, failed, goal));
    let affected = |subject: &'a Subject| Some(Affected { label: &subject.label, through: chain(subject)? });
    subjects.chosen.iter().filter_map(affected).collect()
}

/// Whether the derivation was not built because of the one that failed.
fn fell(outcomes: &Outcomes, failed: &StorePath, path: &StorePath) -> bool {
    match outcomes.0.get(path) {
        Some(Outcome::Failed(_)) => path == failed,
        Some(Outcome::InputFailed(origin)) => origin == failed,
        _ => false,
    }
}

/// What lies between the goal and what failed, if the goal fell with it.
fn chain<'a>(
    subjects: &'a Subjects,
    outcomes: &Outcomes,
    failed: &StorePath,
    goal: &'a StorePath,
) -> Option<Vec<&'a str>> {
    if !fell(outcomes, failed, goal) {
        return None;
    }
    let mut names = Vec::new();
    let mut at = goal;
    while at != failed {
        let inputs = &subjects.derivations[at].input_derivations;
        at = inputs.keys().find(|input| fell(outcomes, failed, input))?;
        if at != failed {
            names.push(subjects.derivations[at].name.as_str());
        }
    }
    names.reverse();
    Some(names)
}

/// The names of all derivations that fell with one that failed, once each.
fn skipped<'a>(subjects: &'a Subjects, outcomes: &Outcomes, failed: &StorePath) -> Vec<&'a str> {
    let fallen = outcomes.0.keys().filter(|path| *path != failed && fell(outcomes, failed, path));
    let names: BTreeSet<&str> = fallen.map(|path| subjects.derivations[path].name.as_str()).collect();
    names.into_iter().collect()
}
