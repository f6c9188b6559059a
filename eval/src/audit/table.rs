//! An audit as a table for the terminal.

use std::fmt::Write as _;

use super::record::{Audit, Node, OutputRecord};
use crate::check::Standing;
use crate::terminal::{printable, utc};

/// The audit as lines: a table of all outputs, worst first, then what differs, then the sum.
#[must_use]
pub fn render(audit: &Audit) -> String {
    let mut rows: Vec<(&Node, &OutputRecord)> =
        audit.nodes.iter().flat_map(|node| node.outputs.iter().map(move |output| (node, output))).collect();
    rows.sort_by_key(|(_, output)| output.standing);
    let mut cells = vec![["VERDICT", "NAME", "BUILDS", "ROUNDS", "ENGINES", "LAST CHECKED"].map(str::to_owned)];
    cells.extend(rows.iter().map(|(node, output)| row(node, output)));
    let mut text = String::new();
    let widths: [usize; 6] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &cells {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    for (node, output) in &rows {
        text.push_str(&explain(node, output));
    }
    let sentence = audit.summary.sentence();
    let _ = writeln!(text, "\n{sentence}");
    text
}

fn row(node: &Node, output: &OutputRecord) -> [String; 6] {
    let checked = output.checks.iter().map(|check| check.checked_at).max();
    let is_built = output.standing != Standing::Pinned;
    [
        output.standing.name().to_owned(),
        printable(&title(node, output)),
        if output.path.is_none() { "none".to_owned() } else { output.agreeing_builds.to_string() },
        if is_built { output.identical_rounds.to_string() } else { "-".to_owned() },
        if output.engines.is_empty() { "-".to_owned() } else { printable(&output.engines.join(", ")) },
        checked.map_or_else(|| "-".to_owned(), utc),
    ]
}

/// The name of an output among all: that of its derivation, with its own if it has a special one.
pub(super) fn title(node: &Node, output: &OutputRecord) -> String {
    if output.name == "out" { node.name.clone() } else { format!("{}!{}", node.name, output.name) }
}

/// What is known of a refuted output.
fn explain(node: &Node, output: &OutputRecord) -> String {
    let Some(refutation) = &output.refutation else { return String::new() };
    let mut text = format!("\nrefuted: {}\n", printable(&title(node, output)));
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name}: {}", printable(value));
    };
    fact("derivation", &node.path);
    for (name, path) in [("first build", &refutation.first), ("other build", &refutation.second)] {
        fact(name, path.as_deref().unwrap_or("not kept"));
    }
    for sentence in refutation.failure.iter().chain(&refutation.culprit) {
        let _ = writeln!(text, "  {}", printable(sentence));
    }
    for advice in &refutation.advice {
        let _ = writeln!(text, "  advice: {}", printable(advice));
    }
    if let Some(difference) = &refutation.difference {
        for line in difference.to_string().lines() {
            let _ = writeln!(text, "  | {line}");
        }
    }
    text
}
