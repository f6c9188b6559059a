//! All outputs in one table.

use super::super::markup::Markup;
use super::super::record::{Audit, Node, OutputRecord};
use super::super::table::title;
use super::{STANDINGS, anchor, badge, short_hash, sign};
use crate::check::Standing;
use crate::terminal::utc;

/// The columns: heading, and whether they hold numbers.
const COLUMNS: [(&str, bool); 6] = [
    ("Verdict", false),
    ("Output", false),
    ("Builds", true),
    ("Rounds", true),
    ("Built by", false),
    ("Last compared", false),
];

pub(super) fn section(page: &mut Markup, audit: &Audit) {
    let mut rows: Vec<(usize, &Node, &OutputRecord)> = Vec::new();
    for (position, node) in audit.nodes.iter().enumerate() {
        rows.extend(node.outputs.iter().map(|output| (position, node, output)));
    }
    rows.sort_by_key(|(_, _, output)| output.standing);
    page.raw("<section id=\"table\"><h2>Outputs</h2>\n<div class=\"tools\" hidden>");
    page.raw("<input type=\"search\" id=\"search\" placeholder=\"Name or hash\" aria-label=\"Search\">");
    for standing in STANDINGS.into_iter().filter(|one| rows.iter().any(|row| row.2.standing == *one)) {
        page.raw("<button type=\"button\" class=\"chip\" aria-pressed=\"true\"");
        page.attribute("data-standing", standing.name()).raw(">");
        sign(page, standing);
        page.text(standing.name()).raw("</button>");
    }
    page.raw("<span id=\"shown\" aria-live=\"polite\"></span></div>\n");
    page.raw(
        "<p class=\"note\">Builds: how many builds gave this object. Rounds: how many rebuilds in a row, up to the ",
    );
    page.raw("newest, gave the same bytes.</p>\n<div class=\"wide\"><table id=\"outputs\"><thead><tr>");
    for (heading, is_number) in COLUMNS {
        page.raw(if is_number { "<th class=\"number\" scope=\"col\">" } else { "<th scope=\"col\">" });
        page.text(heading).raw("</th>");
    }
    page.raw("</tr></thead>\n<tbody>\n");
    for (position, node, output) in rows {
        row(page, position, node, output);
    }
    page.raw("</tbody></table></div></section>\n");
}

fn row(page: &mut Markup, position: usize, node: &Node, output: &OutputRecord) {
    let search = format!("{} {} {}", title(node, output), node.labels.join(" "), node.path);
    page.raw("<tr").attribute("data-standing", output.standing.name()).attribute("data-name", &search).raw("><td");
    let rank = STANDINGS.iter().position(|one| *one == output.standing).unwrap_or(0);
    page.attribute("data-sort", &rank.to_string()).raw(">");
    badge(page, output.standing);
    page.raw("</td><td").attribute("data-sort", &title(node, output)).raw("><a");
    page.attribute("href", &format!("#{}", anchor(position))).raw(">").text(&title(node, output)).raw("</a> ");
    page.element("<code class=\"hash\">", short_hash(node), "</code>");
    if let Some(label) = node.labels.first() {
        page.raw("<br>").element("<small>", label, "</small>");
    }
    page.raw("</td>");
    let is_pinned = output.standing == Standing::Pinned;
    let rounds = if is_pinned { None } else { Some(output.identical_rounds) };
    let builds = output.path.as_ref().map(|_| output.agreeing_builds);
    for (count, missing) in [(builds, "not built"), (rounds, "–")] {
        let (shown, key) = match count {
            Some(count) => (count.to_string(), count.to_string()),
            None => (missing.to_owned(), "-1".to_owned()),
        };
        page.raw("<td class=\"number\"").attribute("data-sort", &key).raw(">").text(&shown).raw("</td>");
    }
    let engines = if output.engines.is_empty() { "–".to_owned() } else { output.engines.join(", ") };
    page.raw("<td").attribute("data-sort", &engines).raw(">").text(&engines).raw("</td>");
    let checked = output.checks.iter().map(|check| check.checked_at).max();
    page.raw("<td").attribute("data-sort", &checked.unwrap_or(-1).to_string()).raw(">");
    page.text(&checked.map_or_else(|| "–".to_owned(), utc)).raw("</td></tr>\n");
}
