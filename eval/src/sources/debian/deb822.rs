//! Stanzas of `Key: value` lines, as Debian's control files, indexes and source lists have them (deb822(5)).

/// One stanza; keys and values borrow from the text.
#[derive(Debug, Default)]
pub(crate) struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

/// A line that is neither a field, nor a continuation, nor blank.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} is not a field, a continuation or blank")]
pub struct MalformedLine {
    /// Its number, from 1.
    pub line: usize,
}

impl<'a> Stanza<'a> {
    /// A field's value, continuation lines included, without the blanks around it. Case of the key is ignored.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim())
    }

    /// The words of a field; none if it is absent.
    pub(crate) fn words(&self, key: &str) -> Vec<String> {
        self.get(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }
}

/// Reads a text's stanzas in order, each borrowing from the text.
pub(crate) fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { text, at: 0, line: 0 }
}

/// Iterator over stanzas; made by [`stanzas`].
pub(crate) struct Stanzas<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, MalformedLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut stanza = Stanza::default();
        // Where the value of the field being read starts in the text: continuation lines follow it without a gap.
        let mut value_start = 0;
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let line = rest.split_once('\n').map_or(rest, |(line, _)| line);
            let start = self.at;
            self.at = (start + line.len() + 1).min(self.text.len());
            self.line += 1;
            if line.trim().is_empty() {
                if stanza.fields.is_empty() { continue } else { break }
            }
            if line.starts_with([' ', '\t']) {
                let Some((_, value)) = stanza.fields.last_mut() else {
                    return Some(Err(self.malformed()));
                };
                *value = &self.text[value_start..start + line.len()];
            } else if let Some((key, value)) = line.split_once(':').filter(|(key, _)| !key.is_empty()) {
                value_start = start + key.len() + 1;
                stanza.fields.push((key, value));
            } else {
                return Some(Err(self.malformed()));
            }
        }
        if stanza.fields.is_empty() { None } else { Some(Ok(stanza)) }
    }
}

impl Stanzas<'_> {
    /// The error for the line just read; nothing is read after it.
    fn malformed(&mut self) -> MalformedLine {
        self.at = self.text.len();
        MalformedLine { line: self.line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continuations_and_stanzas() {
        let text = "\n\nA: 1\nB:\n x y\n\tz\n\n\nc:2:3\n";
        let all: Vec<_> = stanzas(text).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("a"), Some("1"));
        assert_eq!(all[0].get("B"), Some("x y\n\tz"));
        assert_eq!(all[0].words("B"), ["x", "y", "z"]);
        assert_eq!(all[1].get("C"), Some("2:3"));
        assert_eq!(all[1].get("A"), None);
        assert!(stanzas("").next().is_none());
    }

    #[test]
    fn other_lines_are_errors() {
        for (text, line) in [("nonsense\n", 1), (" x: 1\n", 1), ("A: 1\n:x\n", 2), ("A: 1\nB", 2)] {
            let error = stanzas(text).find_map(Result::err);
            assert_eq!(error, Some(MalformedLine { line }), "{text:?}");
            assert_eq!(stanzas(text).count(), 1, "nothing follows an error");
        }
    }
}
