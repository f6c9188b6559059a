//! Nix's base 32: the digits `0-9 a-z` without `e o t u`, most significant digit first, over the bytes read as one
//! little-endian number.

/// The digits, in ascending order of value; it is ascending in ASCII too, so texts of one length sort like numbers.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The value of each byte as a digit; [`NOT_A_DIGIT`] for every other byte.
const VALUES: [u8; 256] = {
    let mut values = [NOT_A_DIGIT; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NOT_A_DIGIT: u8 = 0xff;

/// Why a text is not the base-32 form of so many bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text has another number of digits than the bytes need.
    #[error("`{text}` has {found} digits where {expected} are needed")]
    Length {
        /// The text.
        text: String,
        /// The number of digits it has.
        found: usize,
        /// The number of digits it should have.
        expected: usize,
    },
    /// A character is no digit.
    #[error("`{text}` holds `{character}`, which is no base-32 digit")]
    Character {
        /// The text.
        text: String,
        /// The first character that is no digit.
        character: char,
    },
    /// The number is too big: bits above the last byte are set.
    #[error("`{text}` is too big a number for {bytes} bytes")]
    Overflow {
        /// The text.
        text: String,
        /// The number of bytes it should fit in.
        bytes: usize,
    },
}

/// Whether the byte is a base-32 digit.
#[must_use]
pub const fn is_digit(byte: u8) -> bool {
    VALUES[byte as usize] != NOT_A_DIGIT
}

/// The number of digits that so many bytes need.
#[must_use]
pub const fn encoded_length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// The base-32 form of the bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let digits = encoded_length(bytes.len());
    let mut text = String::with_capacity(digits);
    for digit in (0..digits).rev() {
        let (byte, shift) = (digit * 5 / 8, digit * 5 % 8);
        let high = bytes.get(byte + 1).copied().unwrap_or(0);
        let pair = u16::from_le_bytes([bytes[byte], high]);
        text.push(char::from(ALPHABET[usize::from(pair >> shift) & 0x1f]));
    }
    text
}

/// The `length` bytes whose base-32 form is `text`.
///
/// # Errors
/// When the text has the wrong length, holds something else than digits, or sets bits beyond the last byte.
pub fn decode(text: &str, length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = vec![0; length];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

/// Like [`decode`], into a slice whose length says how many bytes are expected.
///
/// # Errors
/// As [`decode`]; the slice then holds nothing of use.
pub fn decode_into(text: &str, bytes: &mut [u8]) -> Result<(), DecodeError> {
    let expected = encoded_length(bytes.len());
    if let Some(character) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(is_digit)) {
        return Err(DecodeError::Character { text: text.to_owned(), character });
    }
    if text.len() != expected {
        return Err(DecodeError::Length { text: text.to_owned(), found: text.len(), expected });
    }
    bytes.fill(0);
    for (digit, character) in text.bytes().rev().enumerate() {
        let (byte, shift) = (digit * 5 / 8, digit * 5 % 8);
        let [low, high] = (u16::from(VALUES[usize::from(character)]) << shift).to_le_bytes();
        bytes[byte] |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high == 0 => {}
            None => return Err(DecodeError::Overflow { text: text.to_owned(), bytes: bytes.len() }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_survives_the_round_trip() {
        for length in 0..70_usize {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 151 + length * 31) as u8).collect();
            let text = encode(&bytes);
            assert_eq!(text.len(), encoded_length(length));
            assert_eq!(decode(&text, length), Ok(bytes));
        }
    }

    #[test]
    fn a_known_digest() {
        // nix-hash --to-base32 --type md5 of the empty string's digest
        let digest = [0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e];
        assert_eq!(encode(&digest), "3y8bwfr609h3lh9ch0izcqq7fl");
    }

    #[test]
    fn texts_that_are_no_number_of_that_size_are_refused() {
        assert!(matches!(decode(&"z".repeat(52), 32), Err(DecodeError::Overflow { bytes: 32, .. })));
        assert!(matches!(decode(&"0".repeat(51), 32), Err(DecodeError::Length { found: 51, expected: 52, .. })));
        assert!(matches!(decode("e", 1), Err(DecodeError::Character { character: 'e', .. })));
        assert!(matches!(decode("é0", 1), Err(DecodeError::Character { character: 'é', .. })));
        assert!(matches!(decode("0\0", 1), Err(DecodeError::Character { character: '\0', .. })));
    }
}
