//! Names and versions of Python distributions in the one spelling that can be compared.

use std::fmt;

use thiserror::Error;

/// A name in lower case, with each run of `-`, `_` and `.` as one `-`. (PEP 503.)
pub fn normalised_name(name: &str) -> String {
    let mut normalised = String::new();
    let mut separated = false;
    for character in name.chars() {
        if matches!(character, '-' | '_' | '.') {
            separated = true;
            continue;
        }
        if separated {
            normalised.push('-');
        }
        separated = false;
        normalised.extend(character.to_lowercase());
    }
    if separated {
        normalised.push('-');
    }
    normalised
}

/// A name as it stands in file names of wheels. (PEP 427.)
pub fn file_name_part(name: &str) -> String {
    normalised_name(name).replace('-', "_")
}

/// A version in its normal form. (PEP 440.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    normal: String,
}

/// A word that is no version.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a version of a Python distribution")]
pub struct VersionError(String);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.normal)
    }
}

impl Version {
    /// Reads a version in any of its spellings: `1.0-alpha.1` is `1.0a1`. Zeros at the end are kept.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let lower = text.trim().to_ascii_lowercase();
        let normal = normalise(lower.strip_prefix('v').unwrap_or(&lower));
        normal.map(|normal| Version { normal }).ok_or_else(|| VersionError(text.to_owned()))
    }

    /// Whether both are the same release: zeros at the end of the release do not count.
    pub fn same(&self, other: &Version) -> bool {
        self.without_zeros() == other.without_zeros()
    }

    /// The version as it stands in file names of wheels.
    pub fn file_name_part(&self) -> String {
        self.normal.replace('-', "_")
    }

    fn without_zeros(&self) -> String {
        let release_end = self.normal.find(|character: char| !matches!(character, '0'..='9' | '.' | '!'));
        let (mut release, mut rest) = self.normal.split_at(release_end.unwrap_or(self.normal.len()));
        // The dot before `post` and `dev` belongs to what follows.
        if release.ends_with('.') {
            (release, rest) = self.normal.split_at(release.len() - 1);
        }
        while let Some(shorter) = release.strip_suffix(".0") {
            release = shorter;
        }
        format!("{release}{rest}")
    }
}

/// Goes through the parts of a version in their order: epoch, release, pre-release, post-release, development, local.
fn normalise(text: &str) -> Option<String> {
    let (public, local) = match text.split_once('+') {
        Some((public, local)) => (public, Some(local)),
        None => (text, None),
    };
    let (epoch, mut rest) = match public.split_once('!') {
        Some((epoch, rest)) => (number(epoch)?, rest),
        None => ("0".to_owned(), public),
    };
    let mut normal = if epoch == "0" { String::new() } else { format!("{epoch}!") };
    let (first, after) = digits(rest)?;
    (normal, rest) = (normal + &first, after);
    while let Some((part, after)) = rest.strip_prefix('.').and_then(digits) {
        normal += &format!(".{part}");
        rest = after;
    }
    let pre = [
        ("alpha", "a"),
        ("beta", "b"),
        ("preview", "rc"),
        ("pre", "rc"),
        ("rc", "rc"),
        ("c", "rc"),
        ("a", "a"),
        ("b", "b"),
    ];
    if let Some((label, count, after)) = labelled(rest, &pre) {
        normal += &format!("{label}{count}");
        rest = after;
    }
    if let Some((count, after)) = rest.strip_prefix('-').and_then(digits) {
        normal += &format!(".post{count}");
        rest = after;
    } else if let Some((_, count, after)) = labelled(rest, &[("post", ""), ("rev", ""), ("r", "")]) {
        normal += &format!(".post{count}");
        rest = after;
    }
    if let Some((_, count, after)) = labelled(rest, &[("dev", "")]) {
        normal += &format!(".dev{count}");
        rest = after;
    }
    if !rest.is_empty() {
        return None;
    }
    match local {
        None => Some(normal),
        Some(local) => {
            let parts: Option<Vec<_>> = local.split(['.', '-', '_']).map(local_part).collect();
            Some(format!("{normal}+{}", parts?.join(".")))
        }
    }
}

fn local_part(part: &str) -> Option<String> {
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some(number(part).unwrap_or_else(|| part.to_owned()))
}

/// A label with separators around it and an optional number, which is 0 if it is missing.
fn labelled<'a>(text: &'a str, labels: &[(&str, &'static str)]) -> Option<(&'static str, String, &'a str)> {
    let separated = |text: &'a str| text.strip_prefix(['.', '-', '_']).unwrap_or(text);
    let body = separated(text);
    let (normal, after) = labels.iter().find_map(|(label, normal)| Some((*normal, body.strip_prefix(label)?)))?;
    match digits(separated(after)) {
        Some((count, after)) => Some((normal, count, after)),
        None => Some((normal, "0".to_owned(), after)),
    }
}

fn digits(text: &str) -> Option<(String, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    Some((number(&text[..end])?, &text[end..]))
}

/// A number without leading zeros, of any length.
fn number(text: &str) -> Option<String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let short = text.trim_start_matches('0');
    Some(if short.is_empty() { "0".to_owned() } else { short.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for spelling in ["Foo.Bar_baz", "foo-bar-baz", "FOO__BAR.-baz"] {
            assert_eq!(normalised_name(spelling), "foo-bar-baz");
            assert_eq!(file_name_part(spelling), "foo_bar_baz");
        }
    }

    #[test]
    fn versions_have_one_spelling() {
        for (spelling, normal) in [
            ("1.0", "1.0"),
            ("v1.0", "1.0"),
            ("01.002", "1.2"),
            ("1.0-alpha.1", "1.0a1"),
            ("1.0beta", "1.0b0"),
            ("1.0.rc-2", "1.0rc2"),
            ("1.0c1", "1.0rc1"),
            ("1.0preview3", "1.0rc3"),
            ("1.0-1", "1.0.post1"),
            ("1.0_rev2", "1.0.post2"),
            ("1.0.post", "1.0.post0"),
            ("1.0DEV5", "1.0.dev5"),
            ("1!2.0a1.post3.dev4+Ubuntu-01_x", "1!2.0a1.post3.dev4+ubuntu.1.x"),
            ("2024.9.11", "2024.9.11"),
        ] {
            assert_eq!(Version::parse(spelling).unwrap().to_string(), normal, "{spelling}");
        }
    }

    #[test]
    fn other_words_are_no_versions() {
        for wrong in ["", "v", "1.", "x", "1.0x", "1.0+", "1.0+a..b", "1 0", "1.0a1b2", "../1", "1!", "1.0.dev1.post1"]
        {
            assert!(Version::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn zeros_at_the_end_do_not_matter() {
        let same = |first: &str, second: &str| Version::parse(first).unwrap().same(&Version::parse(second).unwrap());
        assert!(same("1.0", "1") && same("1.0.0a1", "1a1") && same("1.0.post1", "1.post1") && same("2.10", "2.10.0"));
        assert!(!same("1.0", "1.0+x") && !same("1.0", "1.1") && !same("1.10", "1.1") && !same("10", "1"));
    }
}
