//! One HTML page with everything: figures, what needs attention, a graph, a table, and the details.
//!
//! It works without scripts; with them the graph can be moved and the table sorted and filtered. Its own script and style
//! are all that a browser may run: a policy in the page names their hashes.

mod details;
mod graph;
mod rows;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use self::details::{attention, cards};
use super::markup::Markup;
use super::record::{Audit, Node, Scope};
use crate::check::Standing;
use crate::terminal::utc;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Standings in the order of their figures.
const STANDINGS: [Standing; 4] = [Standing::Refuted, Standing::Unproved, Standing::Proved, Standing::Pinned];

/// The page of an audit.
#[must_use]
pub fn render(audit: &Audit) -> String {
    let mut page = Markup::default();
    head(&mut page, audit);
    page.raw("<body>\n");
    symbols(&mut page);
    banner(&mut page, audit);
    page.raw("<main>\n");
    figures(&mut page, audit);
    attention(&mut page, audit);
    graph::section(&mut page, audit);
    rows::section(&mut page, audit);
    cards(&mut page, audit);
    page.raw("</main>\n");
    footer(&mut page, audit);
    page.raw("<script>").raw(SCRIPT).raw("</script>\n</body>\n</html>\n");
    page.finish()
}

fn head(page: &mut Markup, audit: &Audit) {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\"").attribute("content", &policy).raw(">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    // Without this a browser asks for a file that is not there.
    page.raw("<link rel=\"icon\" href=\"data:,\">\n<title>Audit of ");
    page.text(&goals_in_short(audit)).raw("</title>\n<style>").raw(STYLE).raw("</style>\n</head>\n");
}

fn goals_in_short(audit: &Audit) -> String {
    match audit.goals.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// The signs of the standings, each with a shape of its own.
fn symbols(page: &mut Markup) {
    page.raw(concat!(
        "<svg width=\"0\" height=\"0\" class=\"symbols\" aria-hidden=\"true\"><defs>\n",
        "<symbol id=\"proved\" viewBox=\"0 0 16 16\"><circle cx=\"8\" cy=\"8\" r=\"8\"/>",
        "<path class=\"sign\" d=\"M4.2 8.4l2.6 2.6 5-5.4\"/></symbol>\n",
        "<symbol id=\"refuted\" viewBox=\"0 0 16 16\"><path d=\"M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7z\"/>",
        "<path class=\"sign\" d=\"M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6\"/></symbol>\n",
        "<symbol id=\"unproved\" viewBox=\"0 0 16 16\"><path d=\"M8 .6l8 14.4H0z\"/>",
        "<path class=\"sign\" d=\"M8 5.6v4.2M8 12v.6\"/></symbol>\n",
        "<symbol id=\"pinned\" viewBox=\"0 0 16 16\"><rect x=\"1\" y=\"1\" width=\"14\" height=\"14\" rx=\"3\"/>",
        "<path class=\"sign\" d=\"M6.6 4l-1 8M10.4 4l-1 8M4.4 6.6h7.6M4 9.6h7.6\"/></symbol>\n",
        "</defs></svg>\n",
    ));
}

/// The sign of a standing.
fn sign(page: &mut Markup, standing: Standing) {
    page.raw("<svg").attribute("class", &format!("icon is-{}", standing.name()));
    page.raw(" aria-hidden=\"true\" width=\"16\" height=\"16\"><use")
        .attribute("href", &format!("#{}", standing.name()));
    page.raw("/></svg>");
}

/// The sign and the word of a standing.
fn badge(page: &mut Markup, standing: Standing) {
    page.raw("<span").attribute("class", &format!("badge is-{}", standing.name())).raw(">");
    sign(page, standing);
    page.text(standing.name()).raw("</span>");
}

fn banner(page: &mut Markup, audit: &Audit) {
    let summary = &audit.summary;
    let worst = match (summary.refuted, summary.unproved) {
        (1.., _) => Standing::Refuted,
        (0, 1..) => Standing::Unproved,
        _ => Standing::Proved,
    };
    page.raw("<header").attribute("class", &format!("banner is-{}", worst.name())).raw(">\n<div class=\"kind\">");
    page.raw("<span>Reproducibility audit</span>");
    page.raw("<button type=\"button\" id=\"theme\" hidden>Dark</button></div>\n<h1>");
    sign(page, worst);
    page.raw("<span>");
    let sentence = summary.sentence();
    let mut letters = sentence.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    page.text(&first).text(letters.as_str()).raw(".</span></h1>\n<p class=\"goals\">");
    for (position, goal) in audit.goals.iter().take(12).enumerate() {
        page.raw(if position == 0 { "" } else { " " }).element("<code>", goal, "</code>");
    }
    if audit.goals.len() > 12 {
        page.text(&format!(" and {} more", audit.goals.len() - 12));
    }
    page.raw("</p>\n</header>\n");
}

fn figures(page: &mut Markup, audit: &Audit) {
    let summary = &audit.summary;
    let count = |standing| match standing {
        Standing::Refuted => summary.refuted,
        Standing::Unproved => summary.unproved,
        Standing::Proved => summary.proved,
        Standing::Pinned => summary.pinned,
    };
    page.raw("<section class=\"figures\" aria-label=\"Figures\">\n");
    for standing in STANDINGS {
        let meaning = match standing {
            Standing::Refuted => "built again, other bytes",
            Standing::Unproved => "not built a second time",
            Standing::Proved => "built again, the same bytes",
            Standing::Pinned => "sources with a stated hash",
        };
        page.raw("<div").attribute("class", &format!("figure is-{}", standing.name())).raw("><strong>");
        page.text(&count(standing).to_string()).raw("</strong> ");
        badge(page, standing);
        page.element("<small>", meaning, "</small></div>\n");
    }
    page.raw("</section>\n");
    bar(page, summary.outputs, &STANDINGS.map(|standing| (standing, count(standing))));
    let engines = if summary.engines.is_empty() { "none".to_owned() } else { summary.engines.join(", ") };
    let checked = summary.last_checked_at.map_or_else(|| "never".to_owned(), utc);
    let facts = [
        ("Outputs", summary.outputs.to_string()),
        ("Builds on record", summary.builds.to_string()),
        ("Rebuilds compared", summary.rebuilds.to_string()),
        ("Built by", engines),
        ("Last compared", checked),
    ];
    page.raw("<dl class=\"facts\">");
    for (name, value) in facts {
        page.element("<div><dt>", name, "</dt>").element("<dd>", &value, "</dd></div>");
    }
    page.raw("</dl>\n");
}

/// All outputs in one bar, each standing with its share.
fn bar(page: &mut Markup, total: usize, shares: &[(Standing, usize)]) {
    if total == 0 {
        return;
    }
    let words: Vec<String> = shares.iter().map(|(standing, count)| format!("{count} {}", standing.name())).collect();
    page.raw("<svg class=\"bar\" viewBox=\"0 0 1000 12\" preserveAspectRatio=\"none\" role=\"img\"");
    page.attribute("aria-label", &words.join(", ")).raw(">");
    let mut start = 0;
    for (standing, count) in shares {
        let (from, to) = (start * 1000 / total, (start + count) * 1000 / total);
        start += count;
        if to > from {
            page.raw("<rect y=\"0\" height=\"12\"").attribute("class", &format!("is-{}", standing.name()));
            page.attribute("x", &from.to_string()).attribute("width", &(to - from).to_string()).raw("/>");
        }
    }
    page.raw("</svg>\n");
}

fn footer(page: &mut Markup, audit: &Audit) {
    let scope = match audit.scope {
        Scope::BuildTime => "everything that is needed to build the targets",
        Scope::RunTime => "what the targets refer to at run time",
    };
    page.raw("<footer>").element("<p>Scope: ", scope, ". ");
    page.element("Written on <time>", &utc(audit.generated_at), "</time> by ");
    page.element("ampoule ", &audit.tool_version, ".</p>\n");
    page.raw(concat!(
        "<p>Proved: a rebuild under other conditions (date, random numbers, order of directories, processors and more) gave ",
        "the same bytes. Refuted: it gave others. Unproved: nobody has built it twice. Pinned: its hash is stated in the ",
        "recipe or the lock, so whoever makes it makes these bytes.</p></footer>\n",
    ));
}

/// The name by which a node is linked to.
fn anchor(position: usize) -> String {
    format!("n{position}")
}

/// What tells nodes of the same name apart: the first characters of the path's hash.
fn short_hash(node: &Node) -> &str {
    let base = node.path.rsplit('/').next().unwrap_or(&node.path);
    base.get(..8).unwrap_or(base)
}

#[cfg(test)]
mod tests;
