//! The links of an HTML page, as far as package indexes use it (PEP 503). Total: any text gives some list of links.

use std::borrow::Cow;

/// Most links that are taken from one page.
const MAX_LINKS: usize = 1_000_000;

/// A start tag `<a …>` or `<base …>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// `a` or `base`.
    pub(crate) name: &'static str,
    /// Attributes in order, names in lower case, values decoded.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute; the first, if it is repeated.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The `a` and `base` tags of a page, in order. Comments are skipped.
pub(crate) fn tags(page: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = match rest[..name_end].to_ascii_lowercase().as_str() {
            "a" => "a",
            "base" => "base",
            _ => continue,
        };
        let (attributes, after) = attributes(&rest[name_end..]);
        rest = after;
        tags.push(Tag { name, attributes });
        if tags.len() == MAX_LINKS {
            break;
        }
    }
    tags
}

/// Reads attributes up to the tag's end; returns them with what follows the tag.
fn attributes(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return (found, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (found, after);
        }
        let name_end = rest
            .char_indices()
            .skip(1)
            .find(|(_, c)| c.is_ascii_whitespace() || "=>/".contains(*c))
            .map_or(rest.len(), |(index, _)| index);
        let name = rest[..name_end].to_ascii_lowercase();
        rest = rest[name_end..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        let value = match rest.strip_prefix('=') {
            None => "",
            Some(after) => {
                let (value, after) = attribute_value(after.trim_start_matches(|c: char| c.is_ascii_whitespace()));
                rest = after;
                value
            }
        };
        found.push((name, decode_entities(value).into_owned()));
    }
}

fn attribute_value(rest: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = rest.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    rest.split_at(rest.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(rest.len()))
}

/// Decodes the entities that occur in links; others stay as they are.
fn decode_entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        decoded.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.char_indices().take(12).find(|(_, c)| *c == ';').map(|(index, _)| index);
        match end.and_then(|end| Some((end, entity(&rest[1..end])?))) {
            Some((end, character)) => {
                decoded.push(character);
                rest = &rest[end + 1..];
            }
            None => {
                decoded.push('&');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

fn entity(name: &str) -> Option<char> {
    let numeric = name.strip_prefix('#').and_then(|number| {
        let hexadecimal = number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16));
        hexadecimal.unwrap_or_else(|| number.parse()).ok()
    });
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => numeric.and_then(char::from_u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_index() {
        let page = r#"<!DOCTYPE html><html><!-- <a href="no"> --><head><BASE href='/files/'></head>
            <a href="a-1.tar.gz#sha256=00" data-requires-python="&gt;=3.7" data-yanked>a</a><br/>
            <A  HREF = b.whl >b</A><abbr href="no"><a data-yanked="x &#38; &#x79;&bad;&" href='c'/>"#;
        let tags = tags(page);
        let names: Vec<_> = tags.iter().map(|tag| (tag.name, tag.get("href").unwrap_or(""))).collect();
        assert_eq!(names, [("base", "/files/"), ("a", "a-1.tar.gz#sha256=00"), ("a", "b.whl"), ("a", "c")]);
        assert_eq!(tags[1].get("data-requires-python"), Some(">=3.7"));
        assert_eq!(tags[1].get("data-yanked"), Some(""));
        assert_eq!(tags[3].get("data-yanked"), Some("x & y&bad;&"));
    }

    #[test]
    fn any_text_ends() {
        let page = r#"<a href="x" é='&#x79;'><base = "y><!-- <a "#;
        for (end, _) in page.char_indices() {
            let _ = tags(&page[..end]);
            let _ = tags(&page[end..]);
        }
        for odd in
            ["<", "<a", "<a ", "<a =", "<a ==>", "<a '", "<a href=", "<a href=\"", "<!--", "&", "<a x=&#99999999;>"]
        {
            let _ = tags(odd);
        }
    }
}
