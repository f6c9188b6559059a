//! The closure as a picture.

use std::collections::BTreeMap;

use super::super::layout::{BOX_HEIGHT, BOX_WIDTH, Line, layout};
use super::super::markup::Markup;
use super::super::record::{Audit, Node};
use super::anchor;
use crate::check::Standing;

/// Characters of a name in its box.
const NAME: usize = 24;
/// With more boxes a picture says nothing.
const MOST: usize = 3000;
/// As many sources that the same derivations take are drawn as one.
const PILE: usize = 3;

/// One box: a node, or several sources.
struct Vertex {
    members: Vec<usize>,
    needs: Vec<usize>,
}

pub(super) fn section(page: &mut Markup, audit: &Audit) {
    let vertices = vertices(&audit.nodes);
    page.raw("<section id=\"graph\"><h2>Closure</h2>\n");
    if vertices.len() > MOST || vertices.is_empty() {
        page.raw("<p class=\"note\">There are too many derivations to draw, or none: see the table.</p></section>\n");
        return;
    }
    page.raw(concat!(
        "<p class=\"note\">What is needed stands left of what needs it. Needs that follow from others are not drawn, and ",
        "sources that are taken together are one box.</p>\n",
        "<div class=\"tools\" hidden><button type=\"button\" id=\"closer\" aria-label=\"Zoom in\">+</button>",
        "<button type=\"button\" id=\"farther\" aria-label=\"Zoom out\">&minus;</button>",
        "<button type=\"button\" id=\"whole\">Fit</button>",
        "<span>drag to move, Ctrl and wheel to zoom, point at a box to see its surroundings</span></div>\n",
    ));
    let needs: Vec<Vec<usize>> = vertices.iter().map(|vertex| vertex.needs.clone()).collect();
    let layout = layout(&needs);
    let size = format!("0 0 {} {}", layout.width, layout.height);
    page.raw(
        "<div class=\"canvas\" tabindex=\"0\" role=\"group\" aria-label=\"Graph of the closure\"><svg id=\"picture\"",
    );
    page.attribute("viewBox", &size).attribute("width", &layout.width.to_string());
    page.attribute("height", &layout.height.to_string()).raw(">\n<g class=\"lines\">\n");
    for line in &layout.lines {
        draw_line(page, line);
    }
    page.raw("</g>\n<g class=\"boxes\">\n");
    for (position, (vertex, corner)) in vertices.iter().zip(&layout.corners).enumerate() {
        draw_box(page, audit, position, vertex, *corner);
    }
    page.raw("</g></svg></div>\n<p id=\"pointed\" class=\"note\" aria-live=\"polite\"></p></section>\n");
}

/// Sources that only the same derivations take, and that need nothing, are piled up.
fn vertices(nodes: &[Node]) -> Vec<Vertex> {
    let positions: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.path.as_str(), at)).collect();
    let needs = |node: &Node| -> Vec<usize> {
        node.inputs.iter().filter_map(|input| positions.get(input.as_str()).copied()).collect()
    };
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        needs(node).into_iter().for_each(|input| needed_by[input].push(at));
    }
    let mut piles: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        if node.standing == Standing::Pinned && node.inputs.is_empty() && node.labels.is_empty() {
            piles.entry(&needed_by[at]).or_default().push(at);
        }
    }
    let mut vertex_of = vec![usize::MAX; nodes.len()];
    let mut vertices: Vec<Vertex> = Vec::new();
    let large = piles.into_values().filter(|pile| pile.len() >= PILE);
    let mut groups: Vec<Vec<usize>> = large.collect();
    let piled: std::collections::BTreeSet<usize> = groups.iter().flatten().copied().collect();
    groups.extend((0..nodes.len()).filter(|at| !piled.contains(at)).map(|at| vec![at]));
    groups.sort();
    for members in groups {
        members.iter().for_each(|member| vertex_of[*member] = vertices.len());
        vertices.push(Vertex { members, needs: Vec::new() });
    }
    for vertex in &mut vertices {
        let mut all: Vec<usize> =
            vertex.members.iter().flat_map(|member| needs(&nodes[*member])).map(|input| vertex_of[input]).collect();
        all.sort_unstable();
        all.dedup();
        vertex.needs = all;
    }
    vertices
}

fn numbers(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn draw_line(page: &mut Markup, line: &Line) {
    let ((x, y), (end_x, end_y)) = (line.from, line.to);
    let bend = (end_x - x) / 2.0;
    let start = if line.passes { format!("M{} {y}H{x}", x - BOX_WIDTH) } else { format!("M{x} {y}") };
    let path = format!("{start}C{} {y} {} {end_y} {end_x} {end_y}", x + bend, end_x - bend);
    page.raw("<path").attribute("d", &path).attribute("data-from", &line.producer.to_string());
    page.attribute("data-to", &numbers(&line.consumers)).raw("/>\n");
}

fn draw_box(page: &mut Markup, audit: &Audit, position: usize, vertex: &Vertex, (x, y): (f64, f64)) {
    let first = vertex.members[0];
    let node = &audit.nodes[first];
    let name = match vertex.members.len() {
        1 => node.name.clone(),
        count => format!("{count} sources"),
    };
    let target = if vertex.members.len() == 1 { anchor(first) } else { "table".to_owned() };
    let goal = if node.labels.is_empty() { "" } else { " goal" };
    page.raw("<a class=\"box\"").attribute("href", &format!("#{target}"));
    page.attribute("data-box", &position.to_string()).attribute("data-needs", &numbers(&vertex.needs));
    page.attribute("data-standing", node.standing.name());
    let search: Vec<&str> = vertex.members.iter().take(400).map(|member| audit.nodes[*member].name.as_str()).collect();
    page.attribute("data-name", &search.join(" "));
    page.attribute("transform", &format!("translate({x} {y})")).raw(">");
    let names: Vec<&str> = search.iter().copied().take(12).collect();
    let more = if search.len() > 12 { format!(" and {} more", vertex.members.len() - 12) } else { String::new() };
    page.raw("<title>").text(&format!("{}: {}{more}", node.standing.name(), names.join(", "))).raw("</title>");
    if vertex.members.len() > 1 {
        outline(page, "pile", 4.0);
    }
    outline(page, &format!("is-{}{goal}", node.standing.name()), 0.0);
    page.raw("<use x=\"8\" y=\"7\" width=\"16\" height=\"16\"")
        .attribute("class", &format!("is-{}", node.standing.name()));
    page.attribute("href", &format!("#{}", node.standing.name())).raw("/>");
    page.element("<text x=\"31\" y=\"20\">", &shorten(&name), "</text></a>\n");
}

fn outline(page: &mut Markup, class: &str, shift: f64) {
    page.raw("<rect rx=\"6\"").attribute("class", class).attribute("x", &shift.to_string());
    page.attribute("y", &shift.to_string()).attribute("width", &BOX_WIDTH.to_string());
    page.attribute("height", &BOX_HEIGHT.to_string()).raw("/>");
}

/// The start and the end of a long name: versions stand at the end.
fn shorten(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= NAME {
        return name.to_owned();
    }
    let (head, tail) = (NAME * 3 / 5, NAME - NAME * 3 / 5 - 1);
    letters[..head].iter().chain(['…'].iter()).chain(&letters[letters.len() - tail..]).collect()
}
