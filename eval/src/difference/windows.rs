//! Differences that have no better form: bytes, shown with their neighbours.

use super::cause::Cause;
use super::change::{Bytes, Kind};

/// Bytes shown before a difference, at least, and in all.
const BEFORE: usize = 16;
const SHOWN: usize = 48;
/// Text shown before and after a difference.
const TEXT_BEFORE: usize = 80;
const TEXT_AFTER: usize = 160;
/// A shorter run of printable bytes is no text.
const SHORTEST_TEXT: usize = 5;

/// How two runs of bytes differ; `None` if they are the same. `within` names what lies at an offset.
pub(super) fn compare(
    first: &[u8],
    second: &[u8],
    within: impl FnOnce(u64) -> Option<String>,
) -> Option<(Kind, Vec<Cause>)> {
    let common = first.iter().zip(second).position(|(a, b)| a != b).unwrap_or(first.len().min(second.len()));
    if common == first.len() && common == second.len() {
        return None;
    }
    let differing = (first.len() == second.len())
        .then(|| first[common..].iter().zip(&second[common..]).filter(|(a, b)| a != b).count() as u64);
    let (first_text, second_text) = (text_at(first, common), text_at(second, common));
    let causes = match (&first_text, &second_text) {
        (Some(left), Some(right)) => Cause::of_texts(left, right),
        _ => Cause::of_bytes(first, second, common),
    };
    let bytes = Bytes {
        offset: common as u64,
        first_size: first.len() as u64,
        second_size: second.len() as u64,
        differing,
        within: within(common as u64),
        window: window_start(common) as u64,
        first: window(first, common),
        second: window(second, common),
        first_text,
        second_text,
    };
    Some((Kind::Bytes(bytes), causes.into_iter().collect()))
}

/// Where the window around an offset starts.
pub(super) fn window_start(offset: usize) -> usize {
    offset.saturating_sub(BEFORE) / 16 * 16
}

/// How many bytes a window has.
pub(super) const fn window_length() -> usize {
    SHOWN
}

fn window(bytes: &[u8], offset: usize) -> String {
    let start = window_start(offset).min(bytes.len());
    hexadecimal(&bytes[start..bytes.len().min(start + SHOWN)])
}

/// Bytes as digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The run of printable bytes around an offset, if it is long enough to be text.
fn text_at(bytes: &[u8], offset: usize) -> Option<String> {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\t';
    let before =
        bytes[..offset.min(bytes.len())].iter().rev().take(TEXT_BEFORE).take_while(|byte| is_text(byte)).count();
    let after = bytes[offset.min(bytes.len())..].iter().take(TEXT_AFTER).take_while(|byte| is_text(byte)).count();
    let run = &bytes[offset.min(bytes.len()) - before..offset.min(bytes.len()) + after];
    (run.len() >= SHORTEST_TEXT && after > 0).then(|| String::from_utf8_lossy(run).replace('\t', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: &[u8], second: &[u8]) -> Bytes {
        match compare(first, second, |_| None) {
            Some((Kind::Bytes(bytes), _)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_byte_is_shown_with_its_neighbours() {
        let first: Vec<u8> = (0..100).collect();
        let mut second = first.clone();
        second[50] = 0xff;
        second[70] = 0xff;
        let found = bytes(&first, &second);
        assert_eq!((found.offset, found.window, found.differing), (50, 32, Some(2)));
        assert_eq!(found.first.len(), 96);
        assert_eq!(&found.second[36..38], "ff");
    }

    #[test]
    fn ends_and_empty_runs_are_no_trouble() {
        assert_eq!(bytes(b"", b"x").first, "");
        let found = bytes(&[7; 100], &[7; 30]);
        assert_eq!((found.offset, found.differing, found.second), (30, None, "07".repeat(30)));
        assert!(compare(b"same", b"same", |_| None).is_none());
    }

    #[test]
    fn text_between_bytes_is_shown_and_understood() {
        let (kind, causes) = compare(b"\0\x01built Nov 21 2026\0", b"\0\x01built Apr  2 2030\0", |_| None).unwrap();
        let Kind::Bytes(found) = kind else { panic!("{kind:?}") };
        assert_eq!(found.first_text.as_deref(), Some("built Nov 21 2026"));
        assert_eq!(causes, [Cause::Date]);
    }
}
