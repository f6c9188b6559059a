//! Versions of Python packages as far as file names need them: whether two spellings mean the same (PEP 440).

/// The one form that all spellings of a version share: `1.0.0-RC1` and `v1.0rc1` give the same text.
///
/// Text that is no version is only folded to lower case, so that equal text stays equal.
pub(crate) fn canonical(version: &str) -> String {
    parse(version).unwrap_or_else(|| version.to_ascii_lowercase())
}

fn parse(version: &str) -> Option<String> {
    let lower = version.trim().to_ascii_lowercase();
    let text = lower.strip_prefix('v').unwrap_or(&lower);
    let (public, local) = match text.split_once('+') {
        Some((public, local)) => (public, Some(local.replace(['-', '_'], "."))),
        None => (text, None),
    };
    let (epoch, rest) = match public.split_once('!') {
        Some((epoch, rest)) => (number(epoch)?, rest),
        None => ("0", public),
    };
    let release_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (release, suffix) = rest.split_at(release_end);
    let release = release.strip_suffix('.').unwrap_or(release);
    let mut parts = release.split('.').map(number).collect::<Option<Vec<_>>>()?;
    while parts.len() > 1 && parts.last() == Some(&"0") {
        parts.pop();
    }
    let local = local.map(|local| format!("+{local}")).unwrap_or_default();
    Some(format!("{epoch}!{}{}{local}", parts.join("."), canonical_suffix(suffix)?))
}

/// Digits without leading zeros.
fn number(text: &str) -> Option<&str> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| match text.trim_start_matches('0') {
        "" => "0",
        significant => significant,
    })
}

/// Pre-, post- and development releases in their short spelling.
fn canonical_suffix(mut text: &str) -> Option<String> {
    const WORDS: [(&str, &str); 11] = [
        ("alpha", "a"),
        ("beta", "b"),
        ("preview", "rc"),
        ("pre", "rc"),
        ("post", ".post"),
        ("rev", ".post"),
        ("dev", ".dev"),
        ("rc", "rc"),
        ("a", "a"),
        ("b", "b"),
        ("c", "rc"),
    ];
    let mut canonical = String::new();
    while !text.is_empty() {
        let bare = text.trim_start_matches(['.', '-', '_']);
        let (word, rest) = match WORDS.iter().find(|(long, _)| bare.starts_with(long)) {
            Some((long, short)) => (*short, &bare[long.len()..]),
            None if bare.starts_with('r') => (".post", &bare[1..]),
            // `1.0-1` is an old spelling of `1.0.post1`.
            None if text.starts_with('-') => (".post", bare),
            None => return None,
        };
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        canonical.push_str(word);
        canonical.push_str(if end == 0 { "0" } else { number(&rest[..end])? });
        text = &rest[end..];
    }
    Some(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (left, right) in [
            ("1.0", "1"),
            ("v1.0.0", "1"),
            ("1.0-RC.1", "1.0rc1"),
            ("1.0c1", "1.0rc1"),
            ("1.0.alpha", "1.0a0"),
            ("1.0-1", "1.0.post1"),
            ("1.0.r2", "1.0.post2"),
            ("1.0_dev3", "1.0.dev3"),
            ("01.02", "1.2"),
            ("1.0+ubuntu-1", "1.0+ubuntu.1"),
            ("0!1.0", "1.0"),
        ] {
            assert_eq!(canonical(left), canonical(right), "{left} {right}");
        }
        for (left, right) in [("1.0", "1.0.1"), ("1.0a1", "1.0b1"), ("1!1.0", "1.0"), ("1.0", "1.0.post0"), ("x", "y")]
        {
            assert_ne!(canonical(left), canonical(right), "{left} {right}");
        }
        for odd in ["", ".", "1..2", "+", "!", "1.0-", "1.0rc1x", "é"] {
            let _ = canonical(odd);
        }
    }
}
