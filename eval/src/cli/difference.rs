//! Where a build that does not come out the same again differs, for people and programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::difference::{Limits, diffoscope, structural_difference};
use crate::realise::{Failure, FailureKind};

/// Most differences that are shown of one output.
const SHOWN: usize = 20;

/// What the failure's two builds differ in, as lines; empty for other failures. `ask` is whether `diffoscope` is asked too.
pub(super) fn text(failure: &Failure, ask: bool) -> String {
    let FailureKind::NotReproducible { first, second, .. } = &failure.kind else { return String::new() };
    let report = structural_difference(first, second, &Limits { changes: SHOWN, ..Limits::default() });
    let mut text = match report {
        Ok(report) => report.to_string(),
        Err(error) => format!("the two builds cannot be compared: {error}\n"),
    };
    if ask {
        text.push_str(&diffoscope_text(first, second));
    }
    text.lines().map(|line| format!("  | {line}\n")).collect()
}

fn diffoscope_text(first: &Path, second: &Path) -> String {
    diffoscope::run(first, second).unwrap_or_else(|error| format!("{error}\n"))
}

/// The same as a record: both builds' places, and in what they differ. Null for other failures.
pub(super) fn record(failure: &Failure, ask: bool) -> Value {
    let FailureKind::NotReproducible { first, second, .. } = &failure.kind else { return Value::Null };
    let report = structural_difference(first, second, &Limits::default());
    json!({
        "first": first,
        "second": second,
        "difference": report.ok(),
        "diffoscope": ask.then(|| diffoscope_text(first, second)),
    })
}
