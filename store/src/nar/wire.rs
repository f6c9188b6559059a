//! The tokens of a NAR: a 64-bit little-endian length, the bytes, and zeros up to a multiple of eight.

/// The longest file name that is read: what Linux can hold.
pub const NAME_LENGTH_LIMIT: usize = 255;
/// The longest target of a symbolic link that is read: what Linux can hold.
pub const TARGET_LENGTH_LIMIT: usize = 4095;

/// What every archive starts with.
pub(super) const MAGIC: &str = "nix-archive-1";

/// Whether a directory may hold an entry of that name.
#[must_use]
pub fn is_valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// The number of zeros that follow so many bytes.
pub(super) const fn padding(length: u64) -> usize {
    (length.wrapping_neg() % 8) as usize
}

/// The length of these words as tokens.
pub(super) const fn sequence_length(words: &[&str]) -> usize {
    let mut length = 0;
    let mut index = 0;
    while index < words.len() {
        let word = words[index].len();
        length += 8 + word + padding(word as u64);
        index += 1;
    }
    length
}

/// These words as tokens, at compile time: most of an archive is a few constant sequences of them.
pub(super) const fn sequence<const LENGTH: usize>(words: &[&str]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut at = 0;
    let mut index = 0;
    while index < words.len() {
        let word = words[index].as_bytes();
        // Every word is shorter than 256 bytes, so one byte of its length is enough.
        bytes[at] = word.len() as u8;
        at += 8;
        let mut offset = 0;
        while offset < word.len() {
            bytes[at + offset] = word[offset];
            offset += 1;
        }
        at += word.len() + padding(word.len() as u64);
        index += 1;
    }
    bytes
}

/// A constant sequence of tokens.
macro_rules! tokens {
    ($($word:expr),+) => {
        &$crate::nar::wire::sequence::<{ $crate::nar::wire::sequence_length(&[$($word),+]) }>(&[$($word),+])
    };
}
pub(super) use tokens;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_padded_to_eight_bytes() {
        const BYTES: &[u8] = tokens!("(", "contents", "executable");
        assert_eq!(
            BYTES,
            b"\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0contents\x0a\0\0\0\0\0\0\0executable\0\0\0\0\0\0"
        );
        assert_eq!([0, 1, 7, 8, 9, u64::MAX].map(padding), [0, 7, 1, 0, 7, 1]);
    }

    #[test]
    fn names_that_would_leave_the_directory_are_invalid() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(!is_valid_name(name), "{name:?}");
        }
        for name in [&b"..."[..], b".a", b"\xff", b"a\nb", b"-", b" "] {
            assert!(is_valid_name(name), "{name:?}");
        }
    }
}
