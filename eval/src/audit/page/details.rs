//! What needs attention, and everything that is known of each node.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::markup::Markup;
use super::super::record::{Audit, BuildRecord, Comparison, LogExcerpt, Node, OutputRecord, Refutation};
use super::super::table::title;
use super::{anchor, badge, short_hash};
use crate::check::Standing;
use crate::difference::{Bytes, Change, Kind, Line, Side, StructuralDifference};
use crate::terminal::utc;

/// Most values of knobs that are shown of one comparison.
const KNOBS: usize = 60;
/// Most unproved outputs that are listed by name.
const LISTED: usize = 8;

/// Refuted outputs with what differs, and what is to be done about unproved ones.
pub(super) fn attention(page: &mut Markup, audit: &Audit) {
    let mut refuted = Vec::new();
    for (position, node) in audit.nodes.iter().enumerate() {
        refuted.extend(
            node.outputs.iter().filter_map(|output| Some((position, node, output, output.refutation.as_ref()?))),
        );
    }
    if !refuted.is_empty() {
        page.raw("<section id=\"attention\"><h2>Not reproducible</h2>\n");
    }
    for (position, node, output, refutation) in &refuted {
        page.raw("<article class=\"refutation\"><h3>");
        badge(page, Standing::Refuted);
        page.raw(" <a").attribute("href", &format!("#{}", anchor(*position))).raw(">");
        page.text(&title(node, output)).raw("</a></h3>\n");
        explain(page, refutation);
        log(page, node.log.as_ref());
        page.raw("</article>\n");
    }
    if !refuted.is_empty() {
        page.raw("</section>\n");
    }
    unproved(page, audit);
}

fn unproved(page: &mut Markup, audit: &Audit) {
    let names: Vec<(usize, &Node)> =
        audit.nodes.iter().enumerate().filter(|(_, node)| node.standing == Standing::Unproved).collect();
    if names.is_empty() {
        return;
    }
    page.raw("<section id=\"unproved-list\"><h2>Not proved yet</h2>\n<p>");
    for (position, node) in names.iter().take(LISTED) {
        page.raw("<a class=\"link\"").attribute("href", &format!("#{}", anchor(*position))).raw(">");
        page.text(&node.name).raw("</a> ");
    }
    if names.len() > LISTED {
        page.text(&format!("and {} more", names.len() - LISTED));
    }
    let goals: Vec<String> = audit.goals.iter().take(3).map(|goal| format!("'{goal}'")).collect();
    let more = if audit.goals.len() > goals.len() { " …" } else { "" };
    page.raw("</p>\n<p>To build them again and compare: ");
    page.element("<code>", &format!("ampoule check {}{more}", goals.join(" ")), "</code></p></section>\n");
}

fn explain(page: &mut Markup, refutation: &Refutation) {
    for sentence in refutation.failure.iter().chain(&refutation.culprit) {
        page.raw("<p class=\"culprit\">");
        prose(page, sentence);
        page.raw("</p>\n");
    }
    let mut hints: Vec<String> = refutation.advice.clone();
    if let Some(difference) = &refutation.difference {
        hints.extend(difference.causes().into_iter().map(|cause| cause.advice().to_owned()));
    }
    if !hints.is_empty() {
        page.raw("<p class=\"label\">What usually helps</p><ul class=\"hints\">");
        for hint in &hints {
            page.raw("<li>");
            prose(page, hint);
            page.raw("</li>");
        }
        page.raw("</ul>\n");
    }
    match &refutation.difference {
        Some(difference) => show_difference(page, difference),
        None if refutation.failure.is_some() => {}
        None => {
            page.raw("<p class=\"note\">The two builds are not both in the store any more: build again with ");
            page.raw("<code>ampoule check</code> to see what differs.</p>\n");
        }
    }
    page.raw("<dl class=\"pairs\">");
    for (name, path) in [("First build", &refutation.first), ("Other build", &refutation.second)] {
        if let Some(path) = path {
            page.element("<div><dt>", name, "</dt>").element("<dd><code>", path, "</code></dd></div>");
        }
    }
    page.raw("</dl>\n");
}

/// A sentence whose parts between back-ticks are literals.
fn prose(page: &mut Markup, text: &str) {
    for (position, part) in text.split('`').enumerate() {
        if position % 2 == 1 {
            page.element("<code>", part, "</code>");
        } else {
            page.text(part);
        }
    }
}

fn show_difference(page: &mut Markup, difference: &StructuralDifference) {
    page.raw("<div class=\"changes\">\n");
    for change in &difference.changes {
        show_change(page, change);
    }
    if difference.omitted > 0 {
        page.element("<p class=\"note\">", &format!("and {} more differences", difference.omitted), "</p>");
    }
    page.raw("</div>\n");
}

fn show_change(page: &mut Markup, change: &Change) {
    page.raw("<div class=\"change\"><p class=\"place\">");
    let steps = if change.place.0.is_empty() { vec![".".to_owned()] } else { change.place.0.clone() };
    for (position, step) in steps.iter().enumerate() {
        page.raw(if position == 0 { "" } else { " <span class=\"step\">»</span> " }).element("<code>", step, "</code>");
    }
    page.raw("</p>");
    match &change.kind {
        Kind::Property { first, second, .. } => {
            page.element("<p class=\"what\">", &change.kind.summary(), "</p><pre>");
            shown_line(page, Some(Side::First), first);
            shown_line(page, Some(Side::Second), second);
            page.raw("</pre>");
        }
        Kind::Order { first, second } => {
            page.element("<p class=\"what\">", &change.kind.summary(), "</p><pre>");
            shown_line(page, Some(Side::First), &first.join(", "));
            shown_line(page, Some(Side::Second), &second.join(", "));
            page.raw("</pre>");
        }
        Kind::Text { hunks, omitted } => {
            for hunk in hunks {
                let place = match (hunk.first_line, hunk.second_line) {
                    (first, second) if first == second => format!("from line {first}"),
                    (first, second) => format!("from line {first}, in the other from line {second}"),
                };
                page.element("<p class=\"what\">", &place, "</p><pre>");
                hunk.lines.iter().for_each(|Line { only_in, text }| shown_line(page, *only_in, text));
                page.raw("</pre>");
            }
            if *omitted > 0 {
                page.element("<p class=\"note\">", &format!("and {omitted} more places"), "</p>");
            }
        }
        Kind::Bytes(bytes) => {
            page.element("<p class=\"what\">", &change.kind.summary(), "</p><pre>");
            for (side, text) in window(bytes) {
                shown_line(page, Some(side), &text);
            }
            page.raw("</pre>");
        }
        Kind::OnlyIn { .. } => {
            page.element("<p class=\"what\">", &change.kind.summary(), "</p>");
        }
    }
    page.raw("</div>\n");
}

fn window(bytes: &Bytes) -> Vec<(Side, String)> {
    let mut lines = Vec::new();
    for line in bytes.windows().lines() {
        let line = line.trim_start();
        let side = if line.starts_with('-') { Side::First } else { Side::Second };
        lines.push((side, line.get(2..).unwrap_or_default().to_owned()));
    }
    lines
}

/// A line of a difference: its sign says what its colour says.
fn shown_line(page: &mut Markup, side: Option<Side>, text: &str) {
    page.raw(match side {
        None => "<span class=\"same\">  ",
        Some(Side::First) => "<span class=\"gone\">- ",
        Some(Side::Second) => "<span class=\"new\">+ ",
    });
    page.text(text).raw("</span>");
}

fn log(page: &mut Markup, log: Option<&LogExcerpt>) {
    let Some(log) = log.filter(|log| !log.lines.is_empty()) else { return };
    let omitted = if log.omitted > 0 { format!(" (without {} lines before)", log.omitted) } else { String::new() };
    page.raw("<details class=\"log\"><summary>End of the log").text(&omitted).raw("</summary><pre>");
    for line in &log.lines {
        page.text(line).raw("\n");
    }
    page.raw("</pre></details>\n");
}

/// Each node with everything that is known of it.
pub(super) fn cards(page: &mut Markup, audit: &Audit) {
    let positions: BTreeMap<&str, usize> =
        audit.nodes.iter().enumerate().map(|(at, node)| (node.path.as_str(), at)).collect();
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); audit.nodes.len()];
    for (at, node) in audit.nodes.iter().enumerate() {
        let inputs = node.inputs.iter().filter_map(|input| positions.get(input.as_str()));
        inputs.for_each(|input| needed_by[*input].push(at));
    }
    page.raw("<section id=\"details\"><h2>Details</h2>\n");
    for (position, node) in audit.nodes.iter().enumerate() {
        let inputs = node.inputs.iter().filter_map(|input| positions.get(input.as_str()).copied()).collect::<Vec<_>>();
        page.raw("<details class=\"card\"").attribute("id", &anchor(position)).raw("><summary>");
        badge(page, node.standing);
        page.raw(" ").element("<span class=\"name\">", &node.name, "</span> ");
        page.element("<code class=\"hash\">", short_hash(node), "</code></summary>\n<dl class=\"pairs\">");
        facts(page, node);
        for (name, others) in [("Needs", &inputs), ("Needed by", &needed_by[position])] {
            links(page, audit, name, others);
        }
        page.raw("</dl>\n");
        node.outputs.iter().for_each(|output| output_card(page, output));
        log(page, node.log.as_ref());
        page.raw("</details>\n");
    }
    page.raw("</section>\n");
}

fn facts(page: &mut Markup, node: &Node) {
    let mut fact = |name: &str, value: &str| {
        page.element("<div><dt>", name, "</dt>").element("<dd><code>", value, "</code></dd></div>");
    };
    fact("Path", &node.path);
    node.labels.iter().for_each(|label| fact("Target", label));
    node.builder.iter().for_each(|builder| fact("Builder", builder));
    node.system.iter().for_each(|system| fact("System", system));
}

fn links(page: &mut Markup, audit: &Audit, name: &str, others: &[usize]) {
    if others.is_empty() {
        return;
    }
    page.element("<div><dt>", name, "</dt><dd>");
    for other in others {
        page.raw("<a class=\"link\"").attribute("href", &format!("#{}", anchor(*other))).raw(">");
        page.text(&audit.nodes[*other].name).raw("</a> ");
    }
    page.raw("</dd></div>");
}

fn output_card(page: &mut Markup, output: &OutputRecord) {
    page.raw("<h4>");
    badge(page, output.standing);
    page.text(&format!(" output {}", output.name)).raw("</h4>\n<dl class=\"pairs\">");
    let missing = "not built in this store".to_owned();
    page.element("<div><dt>Object</dt><dd><code>", output.path.as_ref().unwrap_or(&missing), "</code></dd></div>");
    if let Some(hash) = &output.nar_hash {
        page.element("<div><dt>Hash</dt><dd><code>", hash, "</code></dd></div>");
    }
    page.raw("</dl>\n");
    if output.refutation.is_some() {
        page.raw("<p class=\"note\">What differs is shown under <a href=\"#attention\">Not reproducible</a>.</p>\n");
    }
    builds(page, &output.builds);
    checks(page, &output.checks);
}

fn builds(page: &mut Markup, builds: &[BuildRecord]) {
    if builds.is_empty() {
        return;
    }
    page.raw("<div class=\"wide\"><table><caption>Builds</caption><thead><tr><th>Started</th><th>By</th>");
    page.raw("<th class=\"number\">Took</th><th>Result</th><th>Object</th></tr></thead><tbody>");
    for build in builds {
        let span = crate::terminal::duration(std::time::Duration::from_millis(build.duration_milliseconds));
        page.element("<tr><td>", &utc(build.started_at), "</td>").element("<td>", &build.engine, "</td>");
        page.element("<td class=\"number\">", &span, "</td>").element("<td>", build.verdict, "</td>");
        let base = build.path.rsplit('/').next().unwrap_or(&build.path);
        page.element("<td><code>", base, "</code></td></tr>");
    }
    page.raw("</tbody></table></div>\n");
}

fn checks(page: &mut Markup, checks: &[Comparison]) {
    if checks.is_empty() {
        return;
    }
    page.raw("<div class=\"wide\"><table><caption>Comparisons</caption><thead><tr><th>When</th>");
    page.raw("<th class=\"number\">Round</th><th>By</th><th>Result</th><th>Varied</th></tr></thead><tbody>");
    for check in checks {
        page.element("<tr><td>", &utc(check.checked_at), "</td>");
        page.element("<td class=\"number\">", &check.round.to_string(), "</td>");
        page.element("<td>", &format!("{} {}", check.engine, check.tool_version), "</td><td>");
        page.text(match (&check.nar_hash, check.identical) {
            (_, true) => "identical",
            (Some(_), false) => "different",
            (None, false) => "failed",
        });
        page.raw("</td><td><details><summary>");
        let knobs = leaves(&check.knobs);
        let summary = match check.knobs["varied"].as_array() {
            Some(varied) => format!("{} knobs", varied.len()),
            None => format!("{} values", knobs.len()),
        };
        page.text(&summary).raw("</summary><ul class=\"knobs\">");
        for (name, value) in knobs.iter().take(KNOBS) {
            page.element("<li><code>", name, "</code> ").text(value).raw("</li>");
        }
        page.raw("</ul></details></td></tr>");
    }
    page.raw("</tbody></table></div>\n");
}

/// The values in a record, each with its way there; no deeper than a few steps.
fn leaves(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), value)];
    while let Some((name, value)) = pending.pop() {
        match value {
            Value::Object(fields) if found.len() + pending.len() < 1000 => {
                let join = |field: &String| if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                pending.extend(fields.iter().rev().map(|(field, value)| (join(field), value)));
            }
            Value::String(text) => found.push((name, text.clone())),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                found.push((name, words.join(", ")));
            }
            other => found.push((name, other.to_string())),
        }
    }
    found
}
