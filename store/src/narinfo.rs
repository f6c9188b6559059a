//! What a binary cache says of one object: the `<hash part>.narinfo` file.
//!
//! Lines of `Name: value`. Nobody vouches for the text until its [fingerprint](NarInfo::fingerprint) is signed or its path is
//! computed again from the content. The parser is stricter than Nix's in what can only be a mistake or an attack: no field
//! twice, no archive outside the cache, no hash but SHA-256.

use std::collections::BTreeSet;

use crate::cache::{Compression, UnknownCompression};
use crate::content_address::{ContentAddress, ContentAddressError, References};
use crate::hash::{HashError, Sha256Digest};
use crate::path::{PathError, StoreDir, StorePath};
use crate::path_info::PathInfo;
use crate::signature::{KeyError, Signature};

/// The longest narinfo that is read, in bytes: several thousand references.
pub const LENGTH_LIMIT: u64 = 1 << 20;
const URL_LENGTH_LIMIT: usize = 1024;

/// What a binary cache says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The object.
    pub path: StorePath,
    /// Where its archive lies, relative to the cache.
    pub url: String,
    /// How the archive is compressed.
    pub compression: Compression,
    /// The SHA-256 of the archive as it lies there.
    pub file_hash: Option<Sha256Digest>,
    /// The size of the archive as it lies there, in bytes.
    pub file_size: Option<u64>,
    /// The SHA-256 of the NAR.
    pub nar_hash: Sha256Digest,
    /// The size of the NAR in bytes; never zero.
    pub nar_size: u64,
    /// What the object refers to, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// Who vouches for it.
    pub signatures: BTreeSet<Signature>,
    /// The content its path was computed from.
    pub content_address: Option<ContentAddress>,
}

/// Why a text is no narinfo. Lines are counted from one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// It is longer than any honest one.
    #[error("a narinfo may have {LENGTH_LIMIT} bytes and not more")]
    TooLong,
    /// It is not UTF-8, or the last line has no end.
    #[error("line {line}: not a line of text")]
    Text {
        /// Where.
        line: usize,
    },
    /// A line is not `Name: value`.
    #[error("line {line}: `Name: value` expected")]
    Line {
        /// Where.
        line: usize,
    },
    /// A field is there twice.
    #[error("line {line}: `{field}` is there twice")]
    Duplicate {
        /// Where.
        line: usize,
        /// Its name.
        field: &'static str,
    },
    /// A field is not there.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("line {line}: `{field}`: {reason}")]
    Value {
        /// Where.
        line: usize,
        /// Its name.
        field: &'static str,
        /// What is wrong.
        reason: ValueError,
    },
}

/// What is wrong with a field's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No store path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No SHA-256.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// No size.
    #[error("not a size greater than zero")]
    Size,
    /// No place in the cache.
    #[error("not a path within the cache")]
    Url,
    /// A compression that cannot be undone.
    #[error(transparent)]
    Compression(#[from] UnknownCompression),
    /// No signature.
    #[error(transparent)]
    Signature(#[from] KeyError),
    /// No content address.
    #[error(transparent)]
    ContentAddress(#[from] ContentAddressError),
}

impl NarInfo {
    /// Reads a narinfo of a cache for this store directory.
    ///
    /// # Errors
    /// When it is none, or strays from the form in one of the ways that [`NarInfoError`] lists.
    pub fn parse(text: &[u8], store_dir: &StoreDir) -> Result<Self, NarInfoError> {
        if text.len() as u64 > LENGTH_LIMIT {
            return Err(NarInfoError::TooLong);
        }
        let mut fields = Fields::default();
        let mut rest = text;
        let mut line = 0;
        while !rest.is_empty() {
            line += 1;
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or(NarInfoError::Text { line })?;
            let one = std::str::from_utf8(&rest[..end]).map_err(|_| NarInfoError::Text { line })?;
            let (name, value) = one.split_once(':').ok_or(NarInfoError::Line { line })?;
            // Nix writes a space, also before nothing.
            let value = value.strip_prefix(' ').ok_or(NarInfoError::Line { line })?;
            fields.add(line, name, value, store_dir)?;
            rest = &rest[end + 1..];
        }
        fields.finish()
    }

    /// The text in Nix's order, which [`NarInfo::parse`] reads back as the same value.
    #[must_use]
    pub fn write(&self, store_dir: &StoreDir) -> String {
        let mut text = format!(
            "StorePath: {}\nURL: {}\nCompression: {}\n",
            store_dir.display(&self.path),
            self.url,
            self.compression
        );
        if let Some(hash) = &self.file_hash {
            text.push_str(&format!("FileHash: {hash}\n"));
        }
        if let Some(size) = self.file_size {
            text.push_str(&format!("FileSize: {size}\n"));
        }
        text.push_str(&format!("NarHash: {}\nNarSize: {}\n", self.nar_hash, self.nar_size));
        let references: Vec<&str> = self.references.iter().map(StorePath::base_name).collect();
        text.push_str(&format!("References: {}\n", references.join(" ")));
        if let Some(deriver) = &self.deriver {
            text.push_str(&format!("Deriver: {deriver}\n"));
        }
        for signature in &self.signatures {
            text.push_str(&format!("Sig: {signature}\n"));
        }
        if let Some(address) = &self.content_address {
            text.push_str(&format!("CA: {address}\n"));
        }
        text
    }

    /// What signatures are made of.
    #[must_use]
    pub fn fingerprint(&self, store_dir: &StoreDir) -> String {
        fingerprint(store_dir, &self.path, &self.nar_hash, self.nar_size, &self.references)
    }

    /// Whether the path follows from the content address that is claimed; `None` if none is claimed.
    #[must_use]
    pub fn address_fits(&self, store_dir: &StoreDir) -> Option<bool> {
        let address = self.content_address.as_ref()?;
        let computed = store_dir.content_addressed_path(self.path.name(), address, &self.split_references());
        Some(computed.as_ref() == Ok(&self.path))
    }

    /// The references, split as content addresses need them.
    #[must_use]
    pub fn split_references(&self) -> References {
        let mut others = self.references.clone();
        let self_reference = others.remove(&self.path);
        References { others, self_reference }
    }
}

impl PathInfo {
    /// What signatures of this object are made of.
    #[must_use]
    pub fn fingerprint(&self, store_dir: &StoreDir) -> String {
        fingerprint(store_dir, &self.path, &self.nar_hash, self.nar_size, &self.references)
    }
}

fn fingerprint(
    store_dir: &StoreDir,
    path: &StorePath,
    nar_hash: &Sha256Digest,
    nar_size: u64,
    references: &BTreeSet<StorePath>,
) -> String {
    let references: Vec<String> = references.iter().map(|path| store_dir.display(path)).collect();
    format!("1;{};{nar_hash};{nar_size};{}", store_dir.display(path), references.join(","))
}

/// The fields met so far.
#[derive(Default)]
struct Fields {
    path: Option<StorePath>,
    url: Option<String>,
    compression: Option<Compression>,
    file_hash: Option<Sha256Digest>,
    file_size: Option<u64>,
    nar_hash: Option<Sha256Digest>,
    nar_size: Option<u64>,
    references: Option<BTreeSet<StorePath>>,
    deriver: Option<Option<StorePath>>,
    signatures: BTreeSet<Signature>,
    content_address: Option<ContentAddress>,
}

impl Fields {
    fn add(&mut self, line: usize, name: &str, value: &str, store_dir: &StoreDir) -> Result<(), NarInfoError> {
        match name {
            "StorePath" => set(&mut self.path, line, "StorePath", store_dir.parse(value)),
            "URL" => set(&mut self.url, line, "URL", parse_url(value)),
            "Compression" if !value.is_empty() => set(&mut self.compression, line, "Compression", value.parse()),
            "FileHash" => set(&mut self.file_hash, line, "FileHash", value.parse()),
            "FileSize" => set(&mut self.file_size, line, "FileSize", parse_size(value)),
            "NarHash" => set(&mut self.nar_hash, line, "NarHash", value.parse()),
            "NarSize" => set(&mut self.nar_size, line, "NarSize", parse_size(value)),
            "References" => {
                let names = value.split(' ').filter(|name| !name.is_empty());
                let paths = names.map(StorePath::parse_base_name).collect::<Result<_, _>>();
                set(&mut self.references, line, "References", paths)
            }
            "Deriver" => {
                let deriver = match value {
                    "unknown-deriver" => Ok(None),
                    name => StorePath::parse_base_name(name).map(Some),
                };
                set(&mut self.deriver, line, "Deriver", deriver)
            }
            "Sig" => {
                let mut signature = None;
                set(&mut signature, line, "Sig", value.parse())?;
                self.signatures.extend(signature);
                Ok(())
            }
            "CA" if !value.is_empty() => set(&mut self.content_address, line, "CA", value.parse()),
            // Newer programs may say more.
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<NarInfo, NarInfoError> {
        let missing = |field| NarInfoError::Missing { field };
        Ok(NarInfo {
            path: self.path.ok_or(missing("StorePath"))?,
            url: self.url.ok_or(missing("URL"))?,
            // So Nix takes it, too.
            compression: self.compression.unwrap_or(Compression::Bzip2),
            file_hash: self.file_hash,
            file_size: self.file_size,
            nar_hash: self.nar_hash.ok_or(missing("NarHash"))?,
            nar_size: self.nar_size.ok_or(missing("NarSize"))?,
            references: self.references.unwrap_or_default(),
            deriver: self.deriver.flatten(),
            signatures: self.signatures,
            content_address: self.content_address,
        })
    }
}

fn set<T, E: Into<ValueError>>(
    slot: &mut Option<T>,
    line: usize,
    field: &'static str,
    value: Result<T, E>,
) -> Result<(), NarInfoError> {
    let value = value.map_err(|reason| NarInfoError::Value { line, field, reason: reason.into() })?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(NarInfoError::Duplicate { line, field }),
    }
}

fn parse_size(text: &str) -> Result<u64, ValueError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|size| digits && *size > 0).ok_or(ValueError::Size)
}

/// A place within the cache: no scheme, no host, no way up, not even an encoded one.
fn parse_url(text: &str) -> Result<String, ValueError> {
    let path = text.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let plain = text.len() <= URL_LENGTH_LIMIT && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let inside = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let encoded = ["%2e", "%2f", "%5c", "%00"].iter().any(|one| lower.contains(one));
    if plain && inside && !encoded && !path.contains([':', '#']) { Ok(text.to_owned()) } else { Err(ValueError::Url) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{PublicKey, SecretKey, TrustedKeys};

    #[expect(clippy::disallowed_methods, reason = "the vectors are a file")]
    fn vector() -> serde_json::Value {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/nix/nix-vectors.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        vectors.iter().find(|vector| vector["kind"] == "binary-cache").unwrap().clone()
    }

    fn texts() -> Vec<(String, String)> {
        let vector = vector();
        let files = vector["expect"]["files"].as_object().unwrap();
        let narinfos = files.iter().filter(|(name, _)| name.ends_with(".narinfo"));
        narinfos.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn nixs_own_are_read_written_and_signed_byte_for_byte() {
        let vector = vector();
        let store_dir = StoreDir::default();
        let secret: SecretKey = vector["input"]["secret_key"].as_str().unwrap().parse().unwrap();
        let public: PublicKey = vector["input"]["public_key"].as_str().unwrap().parse().unwrap();
        let trusted: TrustedKeys = [public].into_iter().collect();
        let texts = texts();
        assert!(texts.len() >= 7);
        for (name, text) in texts {
            let info = NarInfo::parse(text.as_bytes(), &store_dir).unwrap();
            assert_eq!(info.write(&store_dir), text);
            let fingerprint = info.fingerprint(&store_dir);
            assert_eq!(fingerprint, vector["expect"]["fingerprints"][&name].as_str().unwrap());
            assert!(trusted.verify(fingerprint.as_bytes(), &info.signatures));
            assert_eq!(info.signatures, [secret.sign(fingerprint.as_bytes())].into());
            assert!(info.address_fits(&store_dir).unwrap_or(true));
        }
    }

    fn check(change: impl Fn(&str) -> String, expected: &str) {
        let (_, text) = texts().swap_remove(0);
        let error = NarInfo::parse(change(&text).as_bytes(), &StoreDir::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn hostile_texts_are_refused_with_the_reason() {
        for field in ["StorePath", "URL", "Compression", "NarHash", "NarSize", "References", "FileHash", "FileSize"] {
            let double = |text: &str| {
                let line = text.lines().find(|line| line.starts_with(field)).unwrap();
                format!("{text}{line}\n")
            };
            check(double, &format!("`{field}` is there twice"));
        }
        for url in [
            "../x",
            "nar/../../x",
            "/etc/passwd",
            "file:///etc/passwd",
            "http://a.example/x",
            "//a.example/x",
            "",
            "nar/%2e%2e/x",
            "nar\\x",
            "nar/a b",
            "nar/./x",
            "nar//x",
        ] {
            let replace = |text: &str| {
                let lines = text
                    .lines()
                    .map(|line| if line.starts_with("URL:") { format!("URL: {url}\n") } else { format!("{line}\n") });
                lines.collect()
            };
            check(replace, "not a path within the cache");
        }
        check(|text| text.replace("NarSize: ", "NarSize: +"), "not a size");
        check(|text| text.replace("NarSize: ", "NarSize: 99999999999999999999"), "not a size");
        check(|text| text.replace("Compression: none", "Compression: lzip"), "`lzip` is not supported");
        check(|text| text.replace("/nix/store/", "/gnu/store/"), "StorePath");
        check(|text| text.trim_end().to_owned(), "not a line of text");
        check(|text| text.replace("NarHash: sha256:", "NarHash: md5:"), "NarHash");
        check(|_| "a".repeat(2 << 20), "and not more");
        check(|_| String::new(), "`StorePath` is missing");
    }

    #[test]
    fn broken_texts_never_panic() {
        for (_, text) in texts() {
            for index in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[index] ^= 0x41;
                let _ = NarInfo::parse(&bytes, &StoreDir::default());
                let _ = NarInfo::parse(&bytes[..index], &StoreDir::default());
            }
        }
    }

    #[test]
    fn unknown_fields_and_derivers_are_passed_over() {
        let (_, text) = texts().swap_remove(0);
        let without = text.lines().filter(|line| !line.starts_with("Deriver:")).map(|line| format!("{line}\n"));
        let text: String =
            without.chain(["Deriver: unknown-deriver\n".to_owned(), "New: thing\n".to_owned()]).collect();
        assert_eq!(NarInfo::parse(text.as_bytes(), &StoreDir::default()).unwrap().deriver, None);
    }
}
