//! Content addresses, and the store paths that follow from content.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::hash::{Algorithm, Hash, HashError, Sha256Digest};
use crate::path::{PathError, StoreDir, StorePath};

/// How content becomes the bytes that are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The bytes of one regular file that is not executable.
    Flat,
    /// The NAR of any file system object.
    Nar,
    /// The bytes of one regular file, which may refer to other store paths: derivations and texts.
    Text,
}

impl Method {
    /// What stands before the algorithm in a derivation's output: nothing, `r:` or `text:`.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Flat => "",
            Self::Nar => "r:",
            Self::Text => "text:",
        }
    }

    /// Splits `[r:|text:]<algorithm>`, the form of a derivation's output.
    ///
    /// # Errors
    /// When the algorithm is unknown.
    pub fn parse_with_algorithm(text: &str) -> Result<(Self, Algorithm), HashError> {
        let (method, algorithm) = match (text.strip_prefix("r:"), text.strip_prefix("text:")) {
            (Some(algorithm), _) => (Self::Nar, algorithm),
            (_, Some(algorithm)) => (Self::Text, algorithm),
            _ => (Self::Flat, text),
        };
        Ok((method, algorithm.parse()?))
    }
}

/// A method and the hash it gave. Displayed as `fixed:r:sha256:<nix32>`, `fixed:sha256:<nix32>` or `text:sha256:<nix32>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentAddress {
    /// What was hashed.
    pub method: Method,
    /// The hash.
    pub hash: Hash,
}

impl ContentAddress {
    /// The content address of a NAR by SHA-256: that of sources and of content-addressed outputs.
    #[must_use]
    pub fn nar_sha256(digest: Sha256Digest) -> Self {
        Self { method: Method::Nar, hash: digest.into() }
    }

    /// The content address of one file's bytes by SHA-256: that of fetched files.
    #[must_use]
    pub fn flat_sha256(digest: Sha256Digest) -> Self {
        Self { method: Method::Flat, hash: digest.into() }
    }

    /// `[r:|text:]<algorithm>`, as in a derivation's output.
    #[must_use]
    pub fn method_algorithm(&self) -> String {
        format!("{}{}", self.method.prefix(), self.hash.algorithm())
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Method::Text => write!(f, "text:{}", self.hash),
            Method::Flat | Method::Nar => write!(f, "fixed:{}{}", self.method.prefix(), self.hash),
        }
    }
}

/// Why a text is no content address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentAddressError {
    /// It starts with neither `fixed:` nor `text:`.
    #[error("`{text}` is no content address: it starts with neither `fixed:` nor `text:`")]
    Form {
        /// The text.
        text: String,
    },
    /// The hash is malformed.
    #[error("content address `{text}` holds no valid hash")]
    Hash {
        /// The text.
        text: String,
        /// What is wrong with it.
        #[source]
        source: HashError,
    },
}

impl FromStr for ContentAddress {
    type Err = ContentAddressError;

    fn from_str(text: &str) -> Result<Self, ContentAddressError> {
        let (method, hash) =
            match (text.strip_prefix("fixed:r:"), text.strip_prefix("fixed:"), text.strip_prefix("text:")) {
                (Some(hash), _, _) => (Method::Nar, hash),
                (_, Some(hash), _) => (Method::Flat, hash),
                (_, _, Some(hash)) => (Method::Text, hash),
                _ => return Err(ContentAddressError::Form { text: text.to_owned() }),
            };
        let hash = hash.parse().map_err(|source| ContentAddressError::Hash { text: text.to_owned(), source })?;
        Ok(Self { method, hash })
    }
}

/// The store paths an object refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// The other objects.
    pub others: BTreeSet<StorePath>,
    /// Whether it refers to itself. Its hash is then taken with its own hash part blanked out.
    pub self_reference: bool,
}

impl References {
    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && !self.self_reference
    }
}

/// Why content has no store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentPathError {
    /// The name is not allowed.
    #[error(transparent)]
    Name(#[from] PathError),
    /// This kind of content may not refer to anything.
    #[error("`{name}` may not refer to store paths: its content address is `{address}`")]
    References {
        /// The object's name.
        name: String,
        /// Its content address.
        address: ContentAddress,
    },
    /// A text may not refer to itself.
    #[error("text `{name}` may not refer to itself")]
    SelfReference {
        /// The object's name.
        name: String,
    },
    /// Texts are hashed with SHA-256 only.
    #[error("text `{name}` must be hashed with sha256, not {algorithm}")]
    TextAlgorithm {
        /// The object's name.
        name: String,
        /// The algorithm given.
        algorithm: Algorithm,
    },
}

impl StoreDir {
    /// The store path of content-addressed content: Nix's rules for texts, sources and everything else.
    ///
    /// - text: kind `text` with the references, over the content's SHA-256;
    /// - NAR by SHA-256: kind `source` with the references, over that digest (self references blanked);
    /// - all others: kind `output:out`, over a digest of the method and the hash; no references.
    ///
    /// # Errors
    /// When the name is not allowed or the references are.
    pub fn content_addressed_path(
        &self,
        name: &str,
        address: &ContentAddress,
        references: &References,
    ) -> Result<StorePath, ContentPathError> {
        match (address.method, Sha256Digest::try_from(&address.hash)) {
            (Method::Text, _) if references.self_reference => {
                Err(ContentPathError::SelfReference { name: name.to_owned() })
            }
            (Method::Text, Ok(digest)) => Ok(self.fingerprinted_path(&self.kind("text", references), &digest, name)?),
            (Method::Text, Err(_)) => {
                Err(ContentPathError::TextAlgorithm { name: name.to_owned(), algorithm: address.hash.algorithm() })
            }
            (Method::Nar, Ok(digest)) => {
                Ok(self.fingerprinted_path(&self.kind("source", references), &digest, name)?)
            }
            _ if references.is_empty() => {
                let inner = format!("fixed:out:{}:{}:", address.method_algorithm(), address.hash.to_hex());
                Ok(self.fingerprinted_path("output:out", &Sha256Digest::of(inner.as_bytes()), name)?)
            }
            _ => Err(ContentPathError::References { name: name.to_owned(), address: address.clone() }),
        }
    }

    /// The store path of a text with these references.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn text_path(
        &self,
        name: &str,
        content: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, PathError> {
        let kind = self.kind_of("text", references);
        self.fingerprinted_path(&kind, &Sha256Digest::of(content), name)
    }

    fn kind(&self, word: &str, references: &References) -> String {
        let mut kind = self.kind_of(word, &references.others);
        if references.self_reference {
            kind.push_str(":self");
        }
        kind
    }

    fn kind_of(&self, word: &str, references: &BTreeSet<StorePath>) -> String {
        let mut kind = word.to_owned();
        for path in references {
            kind.extend([":", self.as_str(), "/", path.base_name()]);
        }
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read_back() {
        let hash = Hash::of(Algorithm::Sha1, b"abc");
        for (method, prefix) in [(Method::Flat, "fixed:"), (Method::Nar, "fixed:r:"), (Method::Text, "text:")] {
            let address = ContentAddress { method, hash: hash.clone() };
            assert_eq!(address.to_string(), format!("{prefix}{hash}"));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        assert!(matches!("sha256:00".parse::<ContentAddress>(), Err(ContentAddressError::Form { .. })));
        assert!(matches!("fixed:git:sha1:00".parse::<ContentAddress>(), Err(ContentAddressError::Hash { .. })));
    }

    #[test]
    fn the_output_form_is_read() {
        assert_eq!(Method::parse_with_algorithm("r:sha256"), Ok((Method::Nar, Algorithm::Sha256)));
        assert_eq!(Method::parse_with_algorithm("md5"), Ok((Method::Flat, Algorithm::Md5)));
        assert_eq!(Method::parse_with_algorithm("text:sha256"), Ok((Method::Text, Algorithm::Sha256)));
        assert!(Method::parse_with_algorithm("r:r:md5").is_err());
    }

    #[test]
    fn a_text_path_depends_on_its_references() {
        let store_dir = StoreDir::default();
        let none = store_dir.text_path("cfg", b"key=value\n", &BTreeSet::new()).unwrap();
        // builtins.toFile "cfg" "key=value\n"
        assert_eq!(none.base_name(), "9kg2g7da3wyvjkarcz60fyzf5ilri0b0-cfg");
        let address = ContentAddress { method: Method::Text, hash: Hash::of(Algorithm::Sha256, b"key=value\n") };
        let references = References { others: BTreeSet::from([none.clone()]), self_reference: false };
        let one = store_dir.content_addressed_path("cfg", &address, &references).unwrap();
        assert_ne!(one, none);
        assert_eq!(store_dir.text_path("cfg", b"key=value\n", &references.others), Ok(one));
        assert_eq!(store_dir.content_addressed_path("cfg", &address, &References::default()), Ok(none));
    }

    #[test]
    fn references_are_refused_where_the_hash_does_not_cover_them() {
        let store_dir = StoreDir::default();
        let own = References { others: BTreeSet::new(), self_reference: true };
        let path = |method, algorithm| {
            let address = ContentAddress { method, hash: Hash::of(algorithm, b"") };
            store_dir.content_addressed_path("x", &address, &own)
        };
        assert!(path(Method::Nar, Algorithm::Sha256).is_ok());
        assert!(matches!(path(Method::Nar, Algorithm::Sha512), Err(ContentPathError::References { .. })));
        assert!(matches!(path(Method::Flat, Algorithm::Sha256), Err(ContentPathError::References { .. })));
        assert!(matches!(path(Method::Text, Algorithm::Sha256), Err(ContentPathError::SelfReference { .. })));
    }

    #[test]
    fn texts_are_hashed_with_sha256_only() {
        let address = ContentAddress { method: Method::Text, hash: Hash::of(Algorithm::Md5, b"") };
        assert!(matches!(
            StoreDir::default().content_addressed_path("x", &address, &References::default()),
            Err(ContentPathError::TextAlgorithm { algorithm: Algorithm::Md5, .. })
        ));
    }
}
