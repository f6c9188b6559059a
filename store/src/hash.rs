//! Digests of content: the algorithms Nix knows, their text forms, and hashers that are written to.

use std::fmt;
use std::io;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::base32;

/// A hash algorithm, in Nix's order and under Nix's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// MD5: broken, only for old pins.
    Md5,
    /// SHA-1: broken, only for old pins.
    Sha1,
    /// SHA-256: what the store itself uses everywhere.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512];

    /// The name, as in `sha256:...`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of a digest in bytes.
    #[must_use]
    pub const fn digest_length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == text)
            .ok_or_else(|| HashError::Algorithm { text: text.to_owned() })
    }
}

/// Why a text is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The algorithm is none of [`Algorithm::ALL`].
    #[error("`{text}` is no known hash algorithm (md5, sha1, sha256, sha512)")]
    Algorithm {
        /// The text that should name one.
        text: String,
    },
    /// Neither the text nor the context says which algorithm it is.
    #[error("hash `{text}` does not say its algorithm")]
    NoAlgorithm {
        /// The text.
        text: String,
    },
    /// The text says one algorithm and the context another.
    #[error("hash `{text}` should be of type `{expected}`")]
    OtherAlgorithm {
        /// The text.
        text: String,
        /// The algorithm the context asks for.
        expected: Algorithm,
    },
    /// The digest is in none of the three text forms, or has another length.
    #[error("hash `{text}` has the wrong length for type `{algorithm}`")]
    Length {
        /// The text.
        text: String,
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// The digest holds a character its form does not allow, or stray bits.
    #[error("invalid {form} hash `{text}`")]
    Digits {
        /// The text.
        text: String,
        /// `base-16`, `base-32` or `base-64`.
        form: &'static str,
    },
}

/// A digest and the algorithm that made it. Displayed as `sha256:<nix32>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    algorithm: Algorithm,
    /// As many bytes as the algorithm makes; zero beyond, so that derived comparison is right.
    bytes: [u8; 64],
}

impl Hash {
    /// A digest of that algorithm, from its bytes; `None` when their number is not the algorithm's.
    #[must_use]
    pub fn new(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        let mut bytes = [0; 64];
        (digest.len() == algorithm.digest_length()).then(|| {
            bytes[..digest.len()].copy_from_slice(digest);
            Self { algorithm, bytes }
        })
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// Reads `sha256:<digest>`, `sha256-<base64>` or, when the context knows the algorithm, a bare digest.
    /// A digest is in base 16, Nix's base 32 or base 64; its length tells which.
    ///
    /// # Errors
    /// When the text is in none of these forms or contradicts the expected algorithm.
    pub fn parse(text: &str, expected: Option<Algorithm>) -> Result<Self, HashError> {
        let (algorithm, digest, only_base64) = match text.split_once([':', '-']) {
            Some((name, digest)) => (name.parse()?, digest, text.as_bytes()[name.len()] == b'-'),
            None => (expected.ok_or_else(|| HashError::NoAlgorithm { text: text.to_owned() })?, text, false),
        };
        match expected {
            Some(expected) if expected != algorithm => {
                Err(HashError::OtherAlgorithm { text: text.to_owned(), expected })
            }
            _ => Self::parse_digest(text, algorithm, digest, only_base64),
        }
    }

    fn parse_digest(text: &str, algorithm: Algorithm, digest: &str, only_base64: bool) -> Result<Self, HashError> {
        let length = algorithm.digest_length();
        let digits = |form| HashError::Digits { text: text.to_owned(), form };
        let bytes = if digest.len() == length.div_ceil(3) * 4 {
            BASE64.decode(digest.as_bytes()).map_err(|_| digits("base-64"))?
        } else if !only_base64 && digest.len() == length * 2 {
            HEXLOWER_PERMISSIVE.decode(digest.as_bytes()).map_err(|_| digits("base-16"))?
        } else if !only_base64 && digest.len() == base32::encoded_length(length) {
            base32::decode(digest, length).map_err(|_| digits("base-32"))?
        } else {
            return Err(HashError::Length { text: text.to_owned(), algorithm });
        };
        Self::new(algorithm, &bytes).ok_or_else(|| HashError::Length { text: text.to_owned(), algorithm })
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_length()]
    }

    /// The digest in lower-case base 16.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }

    /// The digest in Nix's base 32.
    #[must_use]
    pub fn to_nix32(&self) -> String {
        base32::encode(self.as_bytes())
    }

    /// The digest in base 64, padded.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.as_bytes())
    }

    /// The Subresource Integrity form, `sha256-<base64>`.
    #[must_use]
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm, self.to_base64())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_nix32())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Self::parse(text, None)
    }
}

/// A SHA-256 digest: the hash of nearly everything here. Displayed as `sha256:<nix32>`, serialised as base 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// All bits zero: the digest of nothing known, used as a stand-in.
    pub const ZERO: Self = Self([0; 32]);

    /// A digest from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha256::digest(content).into())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case base 16, 64 digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Nix's base 32, 52 digits.
    #[must_use]
    pub fn to_nix32(&self) -> String {
        base32::encode(&self.0)
    }

    /// The Subresource Integrity form, `sha256-<base64>`.
    #[must_use]
    pub fn to_sri(&self) -> String {
        format!("sha256-{}", BASE64.encode(&self.0))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_nix32())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads base 16, Nix's base 32 or base 64, bare or after `sha256:`, and the form `sha256-<base64>`.
impl FromStr for Sha256Digest {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let hash = Hash::parse(text, Some(Algorithm::Sha256))?;
        Self::try_from(&hash)
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> Self {
        digest.to_hex()
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<Sha256Digest> for Hash {
    fn from(digest: Sha256Digest) -> Self {
        Self::new(Algorithm::Sha256, &digest.0).expect("a SHA-256 digest has 32 bytes")
    }
}

impl TryFrom<&Hash> for Sha256Digest {
    type Error = HashError;

    fn try_from(hash: &Hash) -> Result<Self, HashError> {
        let expected = Algorithm::Sha256;
        match hash.as_bytes().try_into() {
            Ok(bytes) if hash.algorithm == expected => Ok(Self(bytes)),
            _ => Err(HashError::OtherAlgorithm { text: hash.to_string(), expected }),
        }
    }
}

/// SHA-256 of what is written to it, which it also counts.
#[derive(Clone, Default)]
pub struct Sha256Hasher {
    state: sha2::Sha256,
    length: u64,
}

impl Sha256Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// The number of bytes seen so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The digest of everything written.
    #[must_use]
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.state.finalize().into())
    }
}

impl io::Write for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256Hasher").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A hasher of any [`Algorithm`].
#[derive(Clone)]
pub struct Hasher {
    state: State,
}

#[derive(Clone)]
enum State {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Md5 => State::Md5(md5::Md5::new()),
            Algorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        };
        Self { state }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Md5(state) => state.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything written.
    #[must_use]
    pub fn finish(self) -> Hash {
        let hash = match self.state {
            State::Md5(state) => Hash::new(Algorithm::Md5, &state.finalize()),
            State::Sha1(state) => Hash::new(Algorithm::Sha1, &state.finalize()),
            State::Sha256(state) => Hash::new(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Hash::new(Algorithm::Sha512, &state.finalize()),
        };
        hash.expect("each algorithm makes digests of its own length")
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_back() {
        for algorithm in Algorithm::ALL {
            let hash = Hash::of(algorithm, b"abc");
            let texts = [hash.to_string(), hash.to_sri(), format!("{algorithm}:{}", hash.to_hex())];
            for text in texts {
                assert_eq!(text.parse(), Ok(hash.clone()), "{text}");
                assert_eq!(Hash::parse(&text, Some(algorithm)), Ok(hash.clone()), "{text}");
            }
            for text in [hash.to_hex(), hash.to_nix32(), hash.to_base64(), hash.to_hex().to_uppercase()] {
                assert_eq!(Hash::parse(&text, Some(algorithm)), Ok(hash.clone()), "{text}");
                assert!(matches!(text.parse::<Hash>(), Err(HashError::NoAlgorithm { .. })), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let sha256 = Hash::of(Algorithm::Sha256, b"");
        assert!(matches!("sha3:00".parse::<Hash>(), Err(HashError::Algorithm { .. })));
        assert!(matches!("sha1:00".parse::<Hash>(), Err(HashError::Length { .. })));
        assert!(matches!(
            Hash::parse(&sha256.to_string(), Some(Algorithm::Md5)),
            Err(HashError::OtherAlgorithm { expected: Algorithm::Md5, .. })
        ));
        assert!(matches!(format!("sha256-{}", sha256.to_hex()).parse::<Hash>(), Err(HashError::Length { .. })));
        assert!(matches!(
            format!("md5:{}", "g".repeat(32)).parse::<Hash>(),
            Err(HashError::Digits { form: "base-16", .. })
        ));
    }

    #[test]
    fn the_sha256_newtype_agrees_with_the_general_hash() {
        let digest = Sha256Digest::of(b"abc");
        assert_eq!(Hash::from(digest), Hash::of(Algorithm::Sha256, b"abc"));
        assert_eq!(digest.to_hex().parse(), Ok(digest));
        assert_eq!(digest.to_nix32().parse(), Ok(digest));
        assert_eq!(digest.to_sri().parse(), Ok(digest));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(Sha256Digest::try_from(&Hash::of(Algorithm::Md5, b"")).is_err());
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{}\"", digest.to_hex()));
        assert_eq!(serde_json::from_str::<Sha256Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn hashing_in_pieces_is_hashing_the_whole() {
        let content: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            content.chunks(7).for_each(|chunk| hasher.update(chunk));
            assert_eq!(hasher.finish(), Hash::of(algorithm, &content));
        }
        let mut hasher = Sha256Hasher::new();
        content.chunks(7).for_each(|chunk| hasher.update(chunk));
        assert_eq!(hasher.length(), 1000);
        assert_eq!(hasher.finish(), Sha256Digest::of(&content));
    }
}
