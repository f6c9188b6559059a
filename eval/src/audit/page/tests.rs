use super::*;
use crate::audit::record::{BuildRecord, Comparison, LogExcerpt, OutputRecord, Refutation, Summary};
use crate::check::{Culprit, Finding, Knob};
use crate::difference::{Bytes, Cause, Change, Hunk, Kind, Line, Place, Side, StructuralDifference};

/// What a name or a log could try.
const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=\"alert('2')\"> ]]> --> `${x}` \u{202e}";

fn output(standing: Standing, text: &str) -> OutputRecord {
    let change = |kind, causes| Change { place: Place(vec![text.to_owned(), text.to_owned()]), kind, causes };
    let bytes = Bytes {
        offset: 1,
        first_size: 2,
        second_size: 2,
        differing: Some(1),
        within: Some(text.to_owned()),
        window: 0,
        first: "0001".into(),
        second: "0002".into(),
        first_text: Some(text.to_owned()),
        second_text: Some(text.to_owned()),
    };
    let property = Kind::Property { name: "mode", first: text.into(), second: text.into(), others: 1 };
    let line = |only_in| Line { only_in, text: text.to_owned() };
    let lines = vec![line(None), line(Some(Side::First)), line(Some(Side::Second))];
    let changes = vec![
        change(property, vec![Cause::Mode]),
        change(Kind::Order { first: vec![text.into()], second: vec![text.into()] }, vec![]),
        change(Kind::Text { hunks: vec![Hunk { first_line: 1, second_line: 2, lines }], omitted: 1 }, vec![]),
        change(Kind::Bytes(bytes), vec![]),
        change(Kind::OnlyIn { side: Side::First }, vec![]),
    ];
    let finding = Finding::new(Culprit::Knobs { knobs: vec![Knob::Date] }, 3, Some(text.to_owned()));
    OutputRecord {
        name: text.to_owned(),
        standing,
        path: Some(text.to_owned()),
        nar_hash: Some(text.to_owned()),
        agreeing_builds: 1,
        identical_rounds: 0,
        engines: vec![text.to_owned()],
        builds: vec![BuildRecord {
            path: text.to_owned(),
            nar_hash: None,
            engine: text.to_owned(),
            started_at: 1_795_222_634,
            duration_milliseconds: 1500,
            log: Some(text.to_owned()),
            verdict: "first",
        }],
        checks: vec![Comparison {
            checked_at: 1_795_222_634,
            round: 1,
            identical: standing == Standing::Proved,
            nar_hash: None,
            engine: text.to_owned(),
            tool_version: text.to_owned(),
            knobs: serde_json::json!({ text: { text: [text], "n": 1 } }),
            finding: Some(finding.clone()),
        }],
        refutation: (standing == Standing::Refuted).then(|| Refutation {
            first: Some(text.to_owned()),
            second: Some(text.to_owned()),
            difference: Some(StructuralDifference { changes, omitted: 1 }),
            failure: Some(text.to_owned()),
            culprit: Some(format!("{finding} {text}")),
            advice: vec![text.to_owned()],
        }),
    }
}

fn node(number: usize, standing: Standing, inputs: &[usize], text: &str) -> Node {
    Node {
        path: format!("/nix/store/{number:032}-{text}.drv"),
        name: format!("node-{number}{text}"),
        labels: if number == 0 { vec![format!("//:goal{text}")] } else { Vec::new() },
        system: Some(text.to_owned()),
        builder: Some(text.to_owned()),
        standing,
        inputs: inputs.iter().map(|input| format!("/nix/store/{input:032}-{text}.drv")).collect(),
        outputs: vec![output(standing, text)],
        log: Some(LogExcerpt { name: text.to_owned(), omitted: 3, lines: vec![text.to_owned()] }),
    }
}

fn audit(nodes: Vec<Node>, text: &str) -> Audit {
    Audit {
        schema: 1,
        tool_version: text.to_owned(),
        generated_at: 1_795_222_634,
        scope: Scope::BuildTime,
        goals: vec![format!("//:goal{text}")],
        summary: Summary::of(&nodes),
        nodes,
    }
}

fn example(text: &str) -> Audit {
    let mut nodes = vec![
        node(0, Standing::Refuted, &[1, 2], text),
        node(1, Standing::Proved, &[3, 4, 5], text),
        node(2, Standing::Unproved, &[1], text),
    ];
    nodes.extend((3..6).map(|number| node(number, Standing::Pinned, &[], text)));
    audit(nodes, text)
}

/// The tags of a page, without their attributes' values: what its structure is.
fn structure(page: &str) -> Vec<String> {
    let body = page.split("<body>").nth(1).unwrap().split("<script>").next().unwrap();
    let mut tags = Vec::new();
    for tag in body.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        // Every other piece is a value in quotes.
        tags.push(tag.split('"').step_by(2).collect::<String>());
    }
    tags
}

#[test]
fn what_comes_from_outside_changes_no_structure() {
    // Literals between back-ticks in sentences are set apart, whoever wrote them.
    let (hostile, tame) = (render(&example(HOSTILE)), render(&example("tame `literal`")));
    let differs = structure(&hostile).into_iter().zip(structure(&tame)).find(|(one, other)| one != other);
    assert_eq!(differs, None);
    assert_eq!(structure(&hostile).len(), structure(&tame).len());
    assert_eq!(hostile.matches("<script>").count(), 1);
    assert_eq!(hostile.matches("</script>").count(), 1);
    assert!(!hostile.contains('\u{202e}'));
    assert!(!hostile.contains("<img"));
}

#[test]
fn the_page_needs_nothing_else_and_is_the_same_each_time() {
    let page = render(&example("x"));
    assert_eq!(page, render(&example("x")));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("), "an address");
    assert!(!page.contains("style=\""), "the policy forbids styles of single elements");
    assert_eq!(page.matches("2026-11-21 00:57:14 UTC</time>").count(), 1);
    for hash in [STYLE, SCRIPT] {
        assert!(page.contains(&BASE64.encode(&Sha256::digest(hash.as_bytes()))));
    }
    assert!(page.contains("1 of 3 outputs is not reproducible."), "the sentence");
}

#[test]
fn every_node_has_a_box_a_row_and_a_card() {
    let page = render(&example(""));
    // Three sources that one derivation takes are one box.
    assert_eq!(page.matches("class=\"box\"").count(), 4);
    assert!(page.contains(">3 sources</text>"));
    assert_eq!(page.matches("<tr data-standing").count(), 6);
    for position in 0..6 {
        assert_eq!(page.matches(&format!("id=\"n{position}\"")).count(), 1);
    }
}

#[test]
fn the_smallest_audits_are_pages_too() {
    let nothing = render(&audit(Vec::new(), ""));
    assert!(nothing.contains("Nothing here is built"), "{nothing}");
    let one = render(&audit(vec![node(0, Standing::Proved, &[], "")], ""));
    assert!(one.contains("The one output is proved reproducible."));
}

#[test]
fn a_closure_too_large_to_draw_is_a_table() {
    let nodes = (0..3100).map(|number| node(number, Standing::Unproved, &[], "")).collect();
    let page = render(&audit(nodes, ""));
    assert!(page.contains("too many derivations to draw"));
    assert_eq!(page.matches("<tr data-standing").count(), 3100);
}
