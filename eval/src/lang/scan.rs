//! Finds what strings refer to: store paths and the placeholders of outputs whose paths are not known yet.
//!
//! Starlark strings carry no context, so a dependency is found in the string itself. Both forms hold a hash of what
//! they name, so the look-up is by content: it cannot depend on what happened to be evaluated before.

use ampoule_store::base32;
use ampoule_store::path::HASH_PART_LENGTH;

/// Digits of a placeholder: a sha256.
const PLACEHOLDER_LENGTH: usize = base32::encoded_length(32);

/// A place in a string that looks like a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// `/<52 digits>`: an output by placeholder, own or another's. Holds the digits.
    Placeholder(&'a str),
    /// `<store directory>/<32 digits>…`: a store path.
    StorePath {
        /// The 32 digits.
        hash_part: &'a str,
        /// What follows the digits, up to the end of the string.
        rest: &'a str,
    },
}

/// Calls `found` for every reference in `text`, from left to right.
pub(super) fn references<'a, E>(
    text: &'a str,
    store_dir: &str,
    mut found: impl FnMut(Reference<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(slash) = next_slash(bytes, from) {
        let digits = digits_at(bytes, slash + 1);
        from = slash + 1 + digits;
        if digits == PLACEHOLDER_LENGTH {
            found(Reference::Placeholder(&text[slash + 1..from]))?;
        } else if digits >= HASH_PART_LENGTH && text[..slash].ends_with(store_dir) {
            let (hash_part, rest) = text[slash + 1..].split_at(HASH_PART_LENGTH);
            found(Reference::StorePath { hash_part, rest })?;
        }
    }
    Ok(())
}

fn next_slash(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|byte| *byte == b'/').map(|offset| from + offset)
}

fn digits_at(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().take_while(|byte| base32::is_digit(**byte)).count()
}

/// The characters behind a hash part that can belong to the store path: the dash and the name.
pub(super) fn path_tail(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._?=".contains(c)));
    &rest[..end.unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "vlwjqrqiibg93pckwg9a72m9g35lffrs";
    const PLACEHOLDER: &str = "1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";

    fn all(text: &str) -> Vec<Reference<'_>> {
        let mut list = Vec::new();
        let result: Result<(), ()> = references(text, "/nix/store", |reference| {
            list.push(reference);
            Ok(())
        });
        result.unwrap();
        list
    }

    #[test]
    fn references_are_found_anywhere() {
        let path = format!("/nix/store/{HASH}-name");
        assert_eq!(all(&path), [Reference::StorePath { hash_part: HASH, rest: "-name" }]);
        let both = format!("-I{path}/include:/{PLACEHOLDER}/lib//{PLACEHOLDER}");
        assert_eq!(all(&both).len(), 3);
        assert_eq!(all(&format!("x/{PLACEHOLDER}")), [Reference::Placeholder(PLACEHOLDER)]);
        // The tail of one is the beginning of another.
        assert_eq!(all(&format!("/{PLACEHOLDER}{path}")).len(), 2);
    }

    #[test]
    fn other_text_is_not_a_reference() {
        for text in [
            String::new(),
            "/".to_owned(),
            "/nix/store".to_owned(),
            "/nix/store/".to_owned(),
            format!("/other/store/{HASH}-name"),
            PLACEHOLDER.to_owned(),
            format!("/{PLACEHOLDER}0"),
            format!("/{}", &PLACEHOLDER[1..]),
            "/nix/store/short-name".to_owned(),
            "/nix/store/ümlaut/ß".to_owned(),
        ] {
            assert_eq!(all(&text), [], "{text}");
        }
    }

    #[test]
    fn a_path_ends_where_its_name_ends() {
        assert_eq!(path_tail("-a.b/c"), "-a.b");
        assert_eq!(path_tail("-a:b"), "-a");
        assert_eq!(path_tail(""), "");
    }
}
