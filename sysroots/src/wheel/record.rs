//! `RECORD`: each file of a wheel with its digest and length, as comma-separated values. (PEP 376, PEP 427.)

use std::collections::BTreeMap;

use thiserror::Error;

use super::contents::{Contents, Digest};

/// What is wrong with a `RECORD`.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// A line is not three values.
    #[error("line {0} is not a path, a digest and a length")]
    Line(usize),
    /// A file is listed twice.
    #[error("`{0}` is listed twice")]
    Twice(String),
    /// A file is listed and not there.
    #[error("`{0}` is listed but not in the wheel")]
    Missing(String),
    /// A file is there and not listed.
    #[error("`{0}` is in the wheel but not listed")]
    Unlisted(String),
    /// A file has other contents.
    #[error("`{path}` has the digest {found}, listed is {listed}")]
    Digest {
        /// The file.
        path: String,
        /// Its digest.
        found: String,
        /// What the list says.
        listed: String,
    },
    /// A file has another length.
    #[error("`{path}` has {found} bytes, listed are {listed}")]
    Size {
        /// The file.
        path: String,
        /// Its length.
        found: u64,
        /// What the list says.
        listed: String,
    },
}

/// Compares the list with the files, both ways.
pub(super) fn verify(contents: &Contents) -> Result<(), RecordError> {
    let own = format!("{}/RECORD", contents.dist_info);
    let mut listed = BTreeMap::new();
    for (number, line) in split(&contents.record)? {
        let [path, digest, size] = <[String; 3]>::try_from(line).map_err(|_| RecordError::Line(number))?;
        if listed.insert(path.clone(), (digest, size)).is_some() {
            return Err(RecordError::Twice(path));
        }
    }
    for (path, (digest, size)) in &listed {
        let (_, found) = contents.files.get(path).ok_or_else(|| RecordError::Missing(path.clone()))?;
        if *path == own {
            continue;
        }
        if found.to_string() != digest.trim_end_matches('=') {
            let (found, listed) = (found.to_string(), digest.clone());
            return Err(RecordError::Digest { path: path.clone(), found, listed });
        }
        if !size.is_empty() && found.size.to_string() != *size {
            return Err(RecordError::Size { path: path.clone(), found: found.size, listed: size.clone() });
        }
    }
    let unlisted = contents.files.keys().find(|path| **path != own && !listed.contains_key(*path));
    unlisted.map_or(Ok(()), |path| Err(RecordError::Unlisted(path.clone())))
}

/// One line of a file.
pub(super) fn line(path: &str, digest: &Digest) -> String {
    format!("{},{digest},{}\n", quoted(path), digest.size)
}

/// The line of `RECORD` itself.
pub(super) fn own_line(path: &str) -> String {
    format!("{},,\n", quoted(path))
}

fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

/// The lines that are not empty, with their numbers from 1, split into values; values may be in quotes.
fn split(text: &str) -> Result<Vec<(usize, Vec<String>)>, RecordError> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let broken = || RecordError::Line(index + 1);
        if line.is_empty() {
            continue;
        }
        let mut values = Vec::new();
        let mut rest = line;
        loop {
            let (value, after) = match rest.strip_prefix('"') {
                Some(inner) => quoted_value(inner).ok_or_else(broken)?,
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            values.push(value);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(broken()),
            }
        }
        lines.push((index + 1, values));
    }
    Ok(lines)
}

/// A value up to its closing quote, and what follows that. Two quotes stand for one.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_in_quotes() {
        let lines = split("a,b,c\r\n\n\"x,\"\"y\"\"\",,\n").unwrap();
        assert_eq!(lines[0].1, ["a", "b", "c"]);
        assert_eq!(lines[1], (3, vec!["x,\"y\"".to_owned(), String::new(), String::new()]));
        for wrong in ["\"a", "\"a\"b,c", "\"a\"\""] {
            assert_eq!(split(wrong), Err(RecordError::Line(1)), "{wrong}");
        }
    }

    #[test]
    fn written_lines_read_back() {
        for path in ["plain", "with,comma", "with\"quote"] {
            let line = line(path, &Digest::of(b"body"));
            assert_eq!(split(&line).unwrap()[0].1[0], path);
        }
    }
}
