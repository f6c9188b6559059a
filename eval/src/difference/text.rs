//! How two texts differ: by lines, with a few lines around each difference.

use std::collections::BTreeMap;

use ampoule_sysroots::tree_path::printable;

use super::cause::Cause;
use super::change::{Hunk, Kind, Line, Side};

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Most hunks of one text.
const HUNKS: usize = 6;
/// Most lines that are shown of each side of one difference.
const LINES: usize = 12;
/// Most characters of a line.
const WIDTH: usize = 240;
/// Characters shown before the difference of a line that is longer.
const BEFORE: usize = 80;
/// Texts with more insertions and deletions are not aligned.
const MOST_EDITS: usize = 1200;
/// Texts with more lines are not compared by lines.
const MOST_LINES: usize = 400_000;

/// Whether bytes are text: UTF-8 without NUL, or nearly.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(64 * 1024)];
    let control = |byte: &u8| *byte < 0x20 && !matches!(*byte, b'\n' | b'\r' | b'\t' | 0x0c | 0x1b);
    let broken = start.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    !start.is_empty() && !start.iter().any(control) && broken <= 2 + start.len() / 100
}

/// How two texts differ, with what speaks from the lines; `None` if that cannot be shown by lines.
pub(super) fn compare(first: &[u8], second: &[u8]) -> Option<(Kind, Vec<Cause>)> {
    let (left, right) = (lines(first), lines(second));
    if left.len() > MOST_LINES || right.len() > MOST_LINES {
        return None;
    }
    compare_lines(&left, &right)
}

/// As [`compare`], for lines or strings that were taken apart before.
pub(super) fn compare_lines(left: &[&[u8]], right: &[&[u8]]) -> Option<(Kind, Vec<Cause>)> {
    let edits = align(left, right);
    if edits.is_empty() {
        return None;
    }
    let groups = group(&edits);
    let mut causes: Vec<Cause> = Vec::new();
    let mut hunks = Vec::new();
    for group in groups.iter().take(HUNKS) {
        hunks.push(hunk(left, right, group, &mut causes));
    }
    if same_lines(left, right) {
        causes = vec![Cause::LineOrder];
    }
    causes.sort_unstable();
    causes.dedup();
    Some((Kind::Text { omitted: groups.len() - hunks.len(), hunks }, causes))
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    // What follows the last line end is a line too, so that a missing line end shows.
    if text.is_empty() { Vec::new() } else { text.split(|byte| *byte == b'\n').collect() }
}

fn same_lines(left: &[&[u8]], right: &[&[u8]]) -> bool {
    let sorted = |lines: &[&[u8]]| {
        let mut lines: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        lines.sort_unstable();
        lines
    };
    left.len() == right.len() && sorted(left) == sorted(right)
}

/// A run of lines of the first that became one of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    first: (usize, usize),
    second: (usize, usize),
}

/// The differences, in order. Too many of them count as one.
fn align(left: &[&[u8]], right: &[&[u8]]) -> Vec<Edit> {
    let head = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let rest = (&left[head..], &right[head..]);
    let tail = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(|(a, b)| a == b).count();
    let (inner_left, inner_right) = (&rest.0[..rest.0.len() - tail], &rest.1[..rest.1.len() - tail]);
    if inner_left.is_empty() && inner_right.is_empty() {
        return Vec::new();
    }
    let mut numbers = BTreeMap::new();
    let mut number = |line: &[u8]| {
        let next = numbers.len();
        *numbers.entry(line.to_vec()).or_insert(next)
    };
    let a: Vec<usize> = inner_left.iter().map(|line| number(line)).collect();
    let b: Vec<usize> = inner_right.iter().map(|line| number(line)).collect();
    let kept = shortest_script(&a, &b).unwrap_or_default();
    let mut edits = Vec::new();
    let (mut x, mut y) = (0, 0);
    for (kept_x, kept_y) in kept.into_iter().chain([(a.len(), b.len())]) {
        if kept_x > x || kept_y > y {
            edits.push(Edit { first: (head + x, head + kept_x), second: (head + y, head + kept_y) });
        }
        (x, y) = (kept_x + 1, kept_y + 1);
    }
    edits
}

/// The pairs of elements that stay (Myers 1986, "An O(ND) Difference Algorithm"); `None` if too much changes.
fn shortest_script(a: &[usize], b: &[usize]) -> Option<Vec<(usize, usize)>> {
    let (n, m) = (a.len().cast_signed(), b.len().cast_signed());
    let most = MOST_EDITS.min(a.len() + b.len()).cast_signed();
    let at = |k: isize| (k + most + 1).cast_unsigned();
    let mut reach = vec![0isize; 2 * most.cast_unsigned() + 3];
    let mut trace = Vec::new();
    for d in 0..=most {
        trace.push(reach[at(-d) - 1..=at(d) + 1].to_vec());
        let mut k = -d;
        while k <= d {
            let down = k == -d || k != d && reach[at(k - 1)] < reach[at(k + 1)];
            let mut x = if down { reach[at(k + 1)] } else { reach[at(k - 1)] + 1 };
            while x < n && x - k < m && a[x.cast_unsigned()] == b[(x - k).cast_unsigned()] {
                x += 1;
            }
            reach[at(k)] = x;
            if x >= n && x - k >= m {
                return Some(walk_back(&trace, n, m));
            }
            k += 2;
        }
    }
    None
}

fn walk_back(trace: &[Vec<isize>], n: isize, m: isize) -> Vec<(usize, usize)> {
    let mut kept = Vec::new();
    let (mut x, mut y) = (n, m);
    for (d, reach) in trace.iter().enumerate().rev() {
        let d = d.cast_signed();
        // The row was saved from diagonal -d-1 on.
        let get = |k: isize| reach[(k + d + 1).cast_unsigned()];
        let k = x - y;
        let down = k == -d || k != d && get(k - 1) < get(k + 1);
        let previous_k = if down { k + 1 } else { k - 1 };
        let previous_x = if d == 0 { 0 } else { get(previous_k) };
        let previous_y = if d == 0 { 0 } else { previous_x - previous_k };
        while x > previous_x && y > previous_y {
            (x, y) = (x - 1, y - 1);
            kept.push((x.cast_unsigned(), y.cast_unsigned()));
        }
        (x, y) = (previous_x, previous_y);
    }
    kept.reverse();
    kept
}

/// Differences whose surroundings touch are shown together.
fn group(edits: &[Edit]) -> Vec<Vec<Edit>> {
    let mut groups: Vec<Vec<Edit>> = Vec::new();
    for edit in edits {
        match groups.last_mut() {
            Some(group) if edit.first.0 <= group[group.len() - 1].first.1 + 2 * CONTEXT => group.push(*edit),
            _ => groups.push(vec![*edit]),
        }
    }
    groups
}

fn hunk(left: &[&[u8]], right: &[&[u8]], group: &[Edit], causes: &mut Vec<Cause>) -> Hunk {
    let start = group[0].first.0.saturating_sub(CONTEXT);
    let second_start = group[0].second.0 - (group[0].first.0 - start).min(group[0].second.0);
    let mut lines = Vec::new();
    let mut position = start;
    for edit in group {
        lines.extend(left[position..edit.first.0].iter().map(|line| same(line)));
        let (old, new) = (&left[edit.first.0..edit.first.1], &right[edit.second.0..edit.second.1]);
        for (one, other) in old.iter().zip(new).take(LINES) {
            causes.extend(Cause::of_texts(&printable(one), &printable(other)));
        }
        lines.extend(side(old, new, Side::First));
        lines.extend(side(new, old, Side::Second));
        position = edit.first.1;
    }
    lines.extend(left[position..left.len().min(position + CONTEXT)].iter().map(|line| same(line)));
    // The empty line after the last line end is of interest only where it differs.
    if lines.last().is_some_and(|line: &Line| line.only_in.is_none() && line.text.is_empty()) && position < left.len() {
        let reaches_end = position + CONTEXT >= left.len();
        lines.truncate(lines.len() - usize::from(reaches_end));
    }
    Hunk { first_line: start + 1, second_line: second_start + 1, lines }
}

fn same(line: &[u8]) -> Line {
    Line { only_in: None, text: shorten(&printable(line), 0) }
}

/// The lines of one side, each shortened around where it differs from its counterpart.
fn side(lines: &[&[u8]], others: &[&[u8]], side: Side) -> Vec<Line> {
    let mut shown = Vec::new();
    for (position, line) in lines.iter().take(LINES).enumerate() {
        let text = printable(line);
        let other = others.get(position).map(|other| printable(other)).unwrap_or_default();
        let common = text.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
        shown.push(Line { only_in: Some(side), text: shorten(&text, common) });
    }
    if lines.len() > LINES {
        shown.push(Line { only_in: Some(side), text: format!("… {} more lines", lines.len() - LINES) });
    }
    shown
}

fn shorten(text: &str, difference: usize) -> String {
    let length = text.chars().count();
    if length <= WIDTH {
        return text.to_owned();
    }
    let start = if difference < WIDTH - BEFORE { 0 } else { difference - BEFORE };
    let middle: String = text.chars().skip(start).take(WIDTH).collect();
    let (lead, end) = (if start > 0 { "…" } else { "" }, if start + WIDTH < length { "…" } else { "" });
    format!("{lead}{middle}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(first: &str, second: &str) -> String {
        let Some((Kind::Text { hunks, .. }, _)) = compare(first.as_bytes(), second.as_bytes()) else {
            return String::new();
        };
        let mut text = String::new();
        for hunk in hunks {
            text.push_str(&format!("@{},{}", hunk.first_line, hunk.second_line));
            for line in hunk.lines {
                let mark = match line.only_in {
                    None => ' ',
                    Some(Side::First) => '-',
                    Some(Side::Second) => '+',
                };
                text.push_str(&format!("|{mark}{}", line.text));
            }
        }
        text
    }

    #[test]
    fn changed_lines_are_shown_in_their_surroundings() {
        assert_eq!(shown("a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD\ne\nf\n"), "@1,1| a| b| c|-d|+D| e| f");
        assert_eq!(shown("a\nb", "b\nc"), "@1,1|-a| b|+c");
        assert_eq!(shown("", "x"), "@1,1|+x");
        assert_eq!(shown("x\n", "x"), "@1,1| x|-");
        assert_eq!(shown("x", "x"), "");
    }

    #[test]
    fn distant_changes_are_apart_and_near_ones_together() {
        let first: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let mut second = first.clone();
        second[2] = "two".to_owned();
        second[6] = "six".to_owned();
        second.remove(30);
        let found = shown(&first.join("\n"), &second.join("\n"));
        assert_eq!(found, "@1,1| 0| 1|-2|+two| 3| 4| 5|-6|+six| 7| 8| 9@28,28| 27| 28| 29|-30| 31| 32| 33");
    }

    /// Alignments are right on all small texts: what stays is a common subsequence, and the longest one.
    #[test]
    fn scripts_are_right_and_shortest() {
        let texts: Vec<Vec<usize>> = (0..81usize)
            .flat_map(|code| (0..=4).map(move |length| (0..length).map(|at| code / 3usize.pow(at) % 3).collect()))
            .collect();
        for a in texts.iter().step_by(7) {
            for b in &texts {
                let kept = shortest_script(a, b).unwrap();
                assert!(kept.iter().all(|(x, y)| a[*x] == b[*y]), "{a:?} {b:?} {kept:?}");
                assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
                assert_eq!(kept.len(), longest_common(a, b), "{a:?} {b:?}");
            }
        }
    }

    fn longest_common(a: &[usize], b: &[usize]) -> usize {
        let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
        for x in 0..a.len() {
            for y in 0..b.len() {
                let best = rows[x][y + 1].max(rows[x + 1][y]);
                rows[x + 1][y + 1] = if a[x] == b[y] { rows[x][y] + 1 } else { best };
            }
        }
        rows[a.len()][b.len()]
    }

    #[test]
    fn order_is_recognised() {
        let causes = |first: &str, second: &str| compare(first.as_bytes(), second.as_bytes()).unwrap().1;
        assert_eq!(causes("a\nb\nc\n", "c\na\nb\n"), [Cause::LineOrder]);
        assert_eq!(causes("x\n{a, b}\n", "x\n{b, a}\n"), [Cause::WordOrder]);
        assert_eq!(causes("x 2026-11-21\ny 7\n", "x 2030-04-02\ny 9\n"), [Cause::Date, Cause::Number]);
    }

    #[test]
    fn large_and_hostile_texts_are_bounded() {
        let first: String = (0..30_000).map(|number| format!("{number}\n")).collect();
        let second: String = (0..30_000).map(|number| format!("{}\n", number * 7 + 1)).collect();
        let Some((Kind::Text { hunks, .. }, _)) = compare(first.as_bytes(), second.as_bytes()) else { panic!() };
        assert!(hunks.iter().map(|hunk| hunk.lines.len()).sum::<usize>() < 400);
        let long = "x".repeat(100_000);
        let found = shown(&format!("{long}1{long}"), &format!("{long}2{long}"));
        assert!(found.len() < 1200 && found.contains("x1x") && found.contains("x2x"), "{}", found.len());
        assert_eq!(shown("a\x1b[31m\n", "b\n"), "@1,1|-a\\u{1b}[31m|+b");
    }

    #[test]
    fn text_is_told_from_bytes() {
        assert!(is_text("some text, größer\n".as_bytes()));
        assert!(is_text(b"latin-1: gr\xf6\xdfer, once\n"));
        assert!(!is_text(b"a\0b"));
        assert!(!is_text(b""));
        assert!(!is_text(&[0xff; 100]));
    }
}
