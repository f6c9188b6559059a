//! Replacing hash parts by others of the same length, wherever they stand in bytes.

use std::collections::BTreeMap;

use crate::base32;
use crate::path::{HASH_PART_LENGTH, StorePath};

type HashPart = [u8; HASH_PART_LENGTH];

/// Which hash parts to replace, and by what.
#[derive(Debug, Clone, Default)]
pub(super) struct Rewriter {
    replacements: BTreeMap<HashPart, HashPart>,
}

impl Rewriter {
    /// Replaces the hash part of each path by that of the other.
    pub(super) fn new<'a>(replacements: impl IntoIterator<Item = (&'a StorePath, &'a StorePath)>) -> Self {
        let replacements = replacements.into_iter().map(|(old, new)| (hash_part(old), hash_part(new)));
        Self { replacements: replacements.filter(|(old, new)| old != new).collect() }
    }

    /// Whether nothing is replaced.
    pub(super) fn is_empty(&self) -> bool {
        self.replacements.is_empty()
    }

    /// Replaces every occurrence that lies wholly in `bytes`, from left to right.
    pub(super) fn rewrite(&self, bytes: &mut [u8]) {
        if self.is_empty() {
            return;
        }
        let mut start = 0;
        while let Some(window) = bytes.get_mut(start..start + HASH_PART_LENGTH) {
            if let Some(stop) = window.iter().rposition(|byte| !base32::is_digit(*byte)) {
                // No hash part can hold this byte.
                start += stop + 1;
            } else if let Some(new) = self.replacements.get(&*window) {
                window.copy_from_slice(new);
                start += HASH_PART_LENGTH;
            } else {
                start += 1;
            }
        }
    }
}

fn hash_part(path: &StorePath) -> HashPart {
    path.hash_part().as_bytes().try_into().expect("hash parts have one length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(digit: u8, name: &str) -> StorePath {
        StorePath::new(&[digit; 20], name).unwrap()
    }

    fn check(text: &str, expected: &str) {
        let (old, new, third) = (path(1, "a"), path(2, "b"), path(3, "c"));
        let rewriter = Rewriter::new([(&old, &new), (&third, &third)]);
        let fill = |template: &str| {
            let with = |mark: &str, path: &StorePath, text: &str| text.replace(mark, path.hash_part());
            with("<3>", &third, &with("<2>", &new, &with("<1>", &old, template)))
        };
        let mut bytes = fill(text).into_bytes();
        rewriter.rewrite(&mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), fill(expected));
    }

    #[test]
    fn hash_parts_are_replaced_wherever_they_stand() {
        check("", "");
        check("<1>", "<2>");
        check("/nix/store/<1>-a/bin:<1><1>", "/nix/store/<2>-a/bin:<2><2>");
        check("0<1>0 e<1>", "0<2>0 e<2>");
        check("<3> <2> 0123456789abcdfghijklmnpqrsvwxyz", "<3> <2> 0123456789abcdfghijklmnpqrsvwxyz");
    }

    #[test]
    fn a_part_of_a_hash_part_stays() {
        let (old, new) = (path(1, "a"), path(2, "b"));
        let mut bytes = old.hash_part().as_bytes()[1..].to_vec();
        let before = bytes.clone();
        Rewriter::new([(&old, &new)]).rewrite(&mut bytes);
        assert_eq!(bytes, before);
    }
}
