//! Finds what strings refer to: store paths and the placeholders of outputs whose paths are not known yet.
//!
//! Starlark strings carry no context, so a dependency is found in the string itself. Both forms hold a hash of what
//! they name, so the look-up is by content: it cannot depend on what happened to be evaluated before.

use ampoule_store::base32;
use ampoule_store::path::HASH_PART_LENGTH;

/// Digits of a placeholder: a sha256.
pub(super) const PLACEHOLDER_LENGTH: usize = base32::encoded_length(32);

/// A place in a string that looks like a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// `/<52 digits>`: an output by placeholder, own or another's. Holds the digits.
    Placeholder(&'a [u8; PLACEHOLDER_LENGTH]),
    /// `<store directory>/<32 digits>…`: a store path.
    StorePath {
        /// The 32 digits.
        hash_part: &'a [u8; HASH_PART_LENGTH],
        /// What follows the digits, up to the end of the string.
        rest: &'a [u8],
    },
}

/// Calls `found` for every reference in `text`, from left to right.
pub(super) fn references<'a, E>(
    text: &'a [u8],
    store_dir: &str,
    mut found: impl FnMut(Reference<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut from = 0;
    while let Some(offset) = text[from..].iter().position(|byte| *byte == b'/') {
        let slash = from + offset;
        let behind = &text[slash + 1..];
        let digits = behind.iter().take_while(|byte| base32::is_digit(**byte)).count();
        from = slash + 1 + digits;
        if let Ok(digits) = <&[u8; PLACEHOLDER_LENGTH]>::try_from(&behind[..digits]) {
            found(Reference::Placeholder(digits))?;
        } else if digits >= HASH_PART_LENGTH
            && text[..slash].ends_with(store_dir.as_bytes())
            && let Some((hash_part, rest)) = behind.split_first_chunk()
        {
            found(Reference::StorePath { hash_part, rest })?;
        }
    }
    Ok(())
}

impl Reference<'_> {
    /// The reference as a person would recognise it: with the name, without what follows.
    pub(super) fn shown(&self, store_dir: &str) -> String {
        match self {
            Self::Placeholder(digits) => format!("/{}", String::from_utf8_lossy(&digits[..])),
            Self::StorePath { hash_part, rest } => {
                let (hash_part, tail) =
                    (String::from_utf8_lossy(&hash_part[..]), String::from_utf8_lossy(path_tail(rest)));
                format!("{store_dir}/{hash_part}{tail}")
            }
        }
    }
}

/// The characters behind a hash part that can belong to the store path: the dash and the name.
fn path_tail(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte)));
    &rest[..end.unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "vlwjqrqiibg93pckwg9a72m9g35lffrs";
    const PLACEHOLDER: &str = "1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";

    fn all(text: &str) -> Vec<Reference<'_>> {
        let mut list = Vec::new();
        let result: Result<(), ()> = references(text.as_bytes(), "/nix/store", |reference| {
            list.push(reference);
            Ok(())
        });
        result.unwrap();
        list
    }

    #[test]
    fn references_are_found_anywhere() {
        let path = format!("/nix/store/{HASH}-name");
        assert_eq!(
            all(&path),
            [Reference::StorePath { hash_part: HASH.as_bytes().try_into().unwrap(), rest: b"-name" }]
        );
        let both = format!("-I{path}/include:/{PLACEHOLDER}/lib//{PLACEHOLDER}");
        assert_eq!(all(&both).len(), 3);
        assert_eq!(
            all(&format!("x/{PLACEHOLDER}")),
            [Reference::Placeholder(PLACEHOLDER.as_bytes().try_into().unwrap())]
        );
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
        for (rest, shown) in [("-a.b/c", "-a.b"), ("-a:b", "-a"), ("", "")] {
            let text = format!("/nix/store/{HASH}{rest}");
            assert_eq!(all(&text)[0].shown("/nix/store"), format!("/nix/store/{HASH}{shown}"));
        }
    }
}
