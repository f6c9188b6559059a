//! The order of Debian's versions (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions: epoch, then upstream version, then revision.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = split_epoch(left);
    let (right_epoch, right) = split_epoch(right);
    let (left_version, left_revision) = left.rsplit_once('-').unwrap_or((left, ""));
    let (right_version, right_revision) = right.rsplit_once('-').unwrap_or((right, ""));
    compare_digits(left_epoch, right_epoch)
        .then_with(|| compare_part(left_version, right_version))
        .then_with(|| compare_part(left_revision, right_revision))
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("", version))
}

/// Compares runs of non-digits and of digits in turn.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_run(left, false);
        let (right_text, right_rest) = split_run(right, false);
        let (left_number, left_rest) = split_run(left_rest, true);
        let (right_number, right_rest) = split_run(right_rest, true);
        let order = compare_text(left_text, right_text).then_with(|| compare_digits(left_number, right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn split_run(text: &str, digits: bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(text.len()))
}

/// Numbers of any length.
fn compare_digits(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn compare_text(left: &str, right: &str) -> Ordering {
    let rank = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    let length = left.len().max(right.len());
    let at = |text: &str, index: usize| rank(text.as_bytes().get(index).copied());
    (0..length).map(|index| at(left, index).cmp(&at(right, index))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_order() {
        for (left, right) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.0-1", "1.0a-1"),
            ("1.9", "1.10"),
            ("2.0", "1:0.1"),
            ("1.0-1", "1.0-1+b1"),
            ("2.36-9+deb12u9", "2.36-9+deb12u14"),
            ("1.0a", "1.0+"),
            ("1.0~~", "1.0~"),
            ("9", "99999999999999999999999999999999"),
        ] {
            assert_eq!(compare(left, right), Ordering::Less, "{left} {right}");
            assert_eq!(compare(right, left), Ordering::Greater, "{left} {right}");
        }
        assert_eq!(compare("0:1.0", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
    }
}
