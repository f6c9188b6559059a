//! Ed25519 signatures in Nix's form: who vouches for an object's content.
//!
//! A key file has one line, `<name>:<base 64>`, of 64 bytes (the seed, then the public key) or, for a public key, of 32.
//! A signature is `<key's name>:<base 64 of 64 bytes>`. Names are what ties the three together.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// The longest key, in characters.
const KEY_LENGTH_LIMIT: usize = 1024;

/// Why a text is no key or signature. Messages never show secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no name before a colon.
    #[error("a {what} looks like `name:base64`")]
    Form {
        /// What was being read.
        what: &'static str,
    },
    /// The name holds what names may not.
    #[error("`{}` cannot be the name of a key", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// What follows the colon is not base 64 of the right length.
    #[error("the {what} of `{name}` is not {length} bytes in base 64")]
    Bytes {
        /// The key's name.
        name: String,
        /// What was being read.
        what: &'static str,
        /// How many bytes it has.
        length: usize,
    },
    /// The bytes are no point of the curve, or the halves of a secret key do not belong together.
    #[error("the {what} of `{name}` is not valid")]
    Invalid {
        /// The key's name.
        name: String,
        /// What was being read.
        what: &'static str,
    },
}

/// A signature and the name of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    key_name: String,
    bytes: [u8; 64],
}

impl Signature {
    /// The name of the key.
    #[must_use]
    pub fn key_name(&self) -> &str {
        &self.key_name
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_name, BASE64.encode(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (key_name, bytes) = split(text, "signature")?;
        Ok(Self { key_name, bytes })
    }
}

/// A key that tells whether a signature is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this key's owner signed the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        self.name == signature.key_name && self.key.verify_strict(message, &bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let what = "public key";
        let (name, bytes) = split::<32>(text, what)?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::Invalid { name, what }),
        }
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// A key of this name from 32 bytes that nobody else may know.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { key_name: self.name.clone(), bytes: self.key.sign(message).to_bytes() }
    }

    /// The content of the key's file, without a line end: a secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let what = "secret key";
        let (name, bytes) = split::<64>(text, what)?;
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::Invalid { name, what }),
        }
    }
}

/// The keys whose signatures count, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<String, Vec<PublicKey>>);

impl TrustedKeys {
    /// Whether one of the signatures is a trusted key's, of this message.
    pub fn verify<'a>(&self, message: &[u8], signatures: impl IntoIterator<Item = &'a Signature>) -> bool {
        signatures.into_iter().any(|signature| {
            self.0.get(&signature.key_name).is_some_and(|keys| keys.iter().any(|key| key.verifies(message, signature)))
        })
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        let mut trusted = Self::default();
        for key in keys {
            trusted.0.entry(key.name.clone()).or_default().push(key);
        }
        trusted
    }
}

/// Splits `name:base64` and decodes exactly `LENGTH` bytes. Space around it, such as a file's line end, is nothing.
fn split<const LENGTH: usize>(text: &str, what: &'static str) -> Result<(String, [u8; LENGTH]), KeyError> {
    let text = text.trim();
    let (name, bytes) =
        text.split_once(':').filter(|_| text.len() <= KEY_LENGTH_LIMIT).ok_or(KeyError::Form { what })?;
    check_name(name)?;
    let bytes = BASE64.decode(bytes.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| KeyError::Bytes { name: name.to_owned(), what, length: LENGTH })?;
    Ok((name.to_owned(), bytes))
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let allowed = |c: char| c.is_ascii_graphic() && c != ':';
    if name.is_empty() || name.len() > 255 || !name.chars().all(allowed) {
        return Err(KeyError::Name { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str =
        "test-key-1:v/7QEC9IqcwII16j8sSXp4Du55vkurrFAaOU1SlnxxRZRwV1WtBNWB6FLClvcVcyxGIM5U2PX4vyghMSQv/FEQ==";
    const PUBLIC: &str = "test-key-1:WUcFdVrQTVgehSwpb3FXMsRiDOVNj1+L8oITEkL/xRE=";

    #[test]
    fn keys_are_read_and_written_as_nix_does() {
        let secret: SecretKey = format!("{SECRET}\n").parse().unwrap();
        assert_eq!(secret.reveal(), SECRET);
        assert_eq!(secret.public().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap(), secret.public());
        assert!(!format!("{secret:?}").contains("v/7Q"));
    }

    #[test]
    fn only_the_message_the_key_and_the_name_that_were_signed_verify() {
        let secret: SecretKey = SECRET.parse().unwrap();
        let signature = secret.sign(b"message");
        assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
        let trusted: TrustedKeys = [secret.public()].into_iter().collect();
        assert!(trusted.verify(b"message", [&signature]));
        assert!(!trusted.verify(b"massage", [&signature]));
        assert!(!trusted.verify(b"message", []));
        let renamed = Signature { key_name: "test-key-2".to_owned(), ..signature.clone() };
        assert!(!trusted.verify(b"message", [&renamed]));
        let other = SecretKey::from_seed("test-key-1", &[7; 32]).unwrap();
        assert!(!trusted.verify(b"message", [&other.sign(b"message")]));
        let both: TrustedKeys = [secret.public(), other.public()].into_iter().collect();
        assert!(both.verify(b"message", [&other.sign(b"message")]) && both.verify(b"message", [&signature]));
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in ["", "a", ":AAAA", "a b:AAAA", "name:", "name:AAAA", "name:!!!!", "a:b:c"] {
            assert!(text.parse::<SecretKey>().is_err(), "{text}");
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
        // A public half that is not the seed's.
        let mut bytes = BASE64.decode(SECRET.split_once(':').unwrap().1.as_bytes()).unwrap();
        bytes[63] ^= 1;
        let error = format!("k:{}", BASE64.encode(&bytes)).parse::<SecretKey>().unwrap_err();
        assert_eq!(error.to_string(), "the secret key of `k` is not valid");
        assert!(SecretKey::from_seed("a:b", &[0; 32]).is_err());
    }
}
