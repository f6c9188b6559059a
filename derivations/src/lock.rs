//! The lock of a catalog: every source it needs, pinned by sha256, in one file that people can review.
//!
//! The file is JSON with one source per line, sorted, so that a changed pin is a changed line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::source::{LockedSource, RequestError, SourceId, SourceRequest};

/// The file's name in the catalog.
pub const LOCK_FILE: &str = "ampoule.lock";

/// The version of the file format that this code reads and writes.
pub const SCHEMA: u64 = 1;

/// Everything a catalog's requests were resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Entries by [`SourceRequest::key`].
    pub sources: BTreeMap<String, LockEntry>,
}

/// What one request was resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LockEntry {
    /// A request for one file.
    One(LockedSource),
    /// A request for packages and all they depend on.
    Closure {
        /// The request, in its canonical form.
        request: SourceRequest,
        /// All packages, sorted by name, then architecture.
        packages: Vec<LockedSource>,
    },
}

impl LockEntry {
    /// The files of this entry.
    pub fn files(&self) -> &[LockedSource] {
        match self {
            Self::One(source) => std::slice::from_ref(source),
            Self::Closure { packages, .. } => packages,
        }
    }
}

/// Why a lock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The text is not JSON of the expected shape.
    #[error("the lock is not well-formed: {0}")]
    Json(#[from] serde_json::Error),
    /// A later version of this program wrote it.
    #[error("the lock has schema {found}, this program knows schemas up to {SCHEMA}: use a newer one")]
    NewerSchema {
        /// The schema the file names.
        found: u64,
    },
    /// An entry names a file that is not a plain file name, or a request that breaks the rules.
    #[error("the lock's entry `{key}` is not valid: {source}")]
    Entry {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        source: RequestError,
    },
    /// An entry is filed under another request's key.
    #[error("the lock's entry `{key}` belongs under `{belongs}`: run `ampoule sources lock`")]
    Misfiled {
        /// The entry's key.
        key: String,
        /// The key its content asks for.
        belongs: String,
    },
}

/// Why a lock has no usable entry for a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FindError {
    /// There is no such entry.
    #[error("`{key}` is not in the lock: run `ampoule sources lock`")]
    Missing {
        /// The request's key.
        key: String,
    },
    /// The recipe's addresses are no longer those the hash was recorded for.
    #[error(
        "the addresses of `{name}` changed since its sha256 was locked (locked: {}; now: {}): run `ampoule sources lock`",
        locked.join(", "), wanted.join(", ")
    )]
    UrlsChanged {
        /// The file's name.
        name: String,
        /// Addresses in the lock.
        locked: Vec<String>,
        /// Addresses in the recipe.
        wanted: Vec<String>,
    },
}

impl Lock {
    /// The entry for a request. A request whose addresses changed since has none: the old bytes are never reused
    /// silently for a new address.
    pub fn find(&self, request: &SourceRequest) -> Result<&LockEntry, FindError> {
        let key = request.key();
        let Some(entry) = self.sources.get(&key) else { return Err(FindError::Missing { key }) };
        if let (SourceRequest::Url { name, urls: wanted }, LockEntry::One(source)) = (request, entry)
            && let SourceId::Url { urls: locked, .. } = &source.id
            && locked != wanted
        {
            return Err(FindError::UrlsChanged { name: name.clone(), locked: locked.clone(), wanted: wanted.clone() });
        }
        Ok(entry)
    }

    /// Every locked file once, in order of key; files that several entries share appear once.
    pub fn files(&self) -> Vec<&LockedSource> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.sources.values().flat_map(LockEntry::files);
        all.filter(|source| seen.insert((source.sha256, source.file.as_str()))).collect()
    }

    /// Reads a lock file's text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // The schema is looked at alone first: a newer one may have any shape.
        let Schema { schema: found } = serde_json::from_str(text)?;
        if found > SCHEMA {
            return Err(ParseError::NewerSchema { found });
        }
        let document: Document = serde_json::from_str(text)?;
        for (key, entry) in &document.sources {
            check_entry(key, entry)?;
        }
        Ok(Self { sources: document.sources })
    }

    /// The lock file's text: one line per source, sorted.
    pub fn render(&self) -> String {
        let mut text = format!("{{\n  \"schema\": {SCHEMA},\n  \"sources\": {{");
        for (index, (key, entry)) in self.sources.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n    {}: ", json(key));
            match entry {
                LockEntry::One(source) => text.push_str(&json(source)),
                LockEntry::Closure { request, packages } => render_closure(&mut text, request, packages),
            }
        }
        text.push_str(if self.sources.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
        text
    }
}

#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "schema")]
    _schema: u64,
    sources: BTreeMap<String, LockEntry>,
}

fn check_entry(key: &str, entry: &LockEntry) -> Result<(), ParseError> {
    let invalid = |source| ParseError::Entry { key: key.to_owned(), source };
    for source in entry.files() {
        source.check().map_err(invalid)?;
    }
    let misfiled = |belongs: String| Err(ParseError::Misfiled { key: key.to_owned(), belongs });
    match entry {
        LockEntry::Closure { request, .. } => {
            request.check().map_err(invalid)?;
            if request.key() != key { misfiled(request.key()) } else { Ok(()) }
        }
        LockEntry::One(LockedSource { id: SourceId::Pypi { name, version }, .. }) => {
            let prefix = format!("pypi:{name}=={version}:");
            if key.starts_with(&prefix) { Ok(()) } else { misfiled(format!("{prefix}…")) }
        }
        LockEntry::One(LockedSource { id: SourceId::Url { name, urls }, .. }) => {
            let request = SourceRequest::Url { name: name.clone(), urls: urls.clone() };
            request.check().map_err(invalid)?;
            if request.key() != key { misfiled(request.key()) } else { Ok(()) }
        }
        LockEntry::One(LockedSource { id: SourceId::Debian { .. }, .. }) => misfiled("debian:…".to_owned()),
    }
}

fn render_closure(text: &mut String, request: &SourceRequest, packages: &[LockedSource]) {
    let _ = write!(text, "{{\n      \"request\": {},\n      \"packages\": [", json(request));
    for (index, package) in packages.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n        {}", json(package));
    }
    text.push_str(if packages.is_empty() { "]\n    }" } else { "\n      ]\n    }" });
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists of them always encode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FileChoice;

    fn zlib() -> SourceRequest {
        SourceRequest::url("zlib-1.3.1.tar.gz", vec!["https://files.example/zlib-1.3.1.tar.gz".into()]).unwrap()
    }

    fn example() -> Lock {
        let digest = |byte| ampoule_store::hash::Sha256Digest::from_bytes([byte; 32]);
        let package = |name: &str, byte| LockedSource {
            id: SourceId::Debian {
                architecture: "amd64".into(),
                name: name.into(),
                path: format!("pool/main/{name}_1_amd64.deb"),
                suite: "bookworm".into(),
                version: "1:1".into(),
            },
            file: format!("{name}_1_amd64.deb"),
            size: Some(10),
            sha256: digest(byte),
        };
        let debian =
            SourceRequest::debian("bookworm", vec!["amd64".into()], vec!["gcc".into()], vec!["perl".into()]).unwrap();
        let markupsafe = SourceRequest::pypi("MarkupSafe", "2.1.5", FileChoice::Sdist).unwrap();
        let one =
            |id, file: &str, size| LockEntry::One(LockedSource { id, file: file.into(), size, sha256: digest(1) });
        let SourceRequest::Url { name, urls } = zlib() else { unreachable!() };
        Lock {
            sources: BTreeMap::from([
                (zlib().key(), one(SourceId::Url { name: name.clone(), urls }, &name, Some(7))),
                (
                    markupsafe.key(),
                    one(
                        SourceId::Pypi { name: "markupsafe".into(), version: "2.1.5".into() },
                        "MarkupSafe-2.1.5.tar.gz",
                        None,
                    ),
                ),
                (
                    debian.key(),
                    LockEntry::Closure { request: debian, packages: vec![package("cpp", 2), package("gcc", 3)] },
                ),
            ]),
        }
    }

    #[test]
    fn text_round_trips_with_one_line_per_source() {
        let lock = example();
        let text = lock.render();
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert_eq!(text.lines().filter(|line| line.contains("\"sha256\"")).count(), 4);
        assert_eq!(Lock::parse(&Lock::default().render()).unwrap(), Lock::default());
        // It is plain JSON to everybody else.
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn a_newer_schema_is_named_whatever_its_shape() {
        let error = Lock::parse(r#"{"schema": 2, "other": []}"#).unwrap_err();
        assert!(matches!(error, ParseError::NewerSchema { found: 2 }), "{error}");
    }

    #[test]
    fn hostile_locks_are_refused() {
        let text = example().render();
        for (from, to) in [
            ("\"MarkupSafe-2.1.5.tar.gz\"", "\"../x\""),
            ("0101", "zz01"),
            ("pypi:markupsafe==2.1.5:sdist", "pypi:other==2.1.5:sdist"),
            ("url:zlib", "url:other"),
            ("[\"gcc\"]", "[\"make\"]"),
            ("\"schema\": 1", "\"schema\": 1, \"x\": 1"),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(Lock::parse(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(Lock::parse("").is_err());
    }

    #[test]
    fn a_changed_address_is_an_error_with_both() {
        let lock = example();
        assert!(lock.find(&zlib()).is_ok());
        let moved = SourceRequest::url("zlib-1.3.1.tar.gz", vec!["https://other.example/z".into()]).unwrap();
        let message = lock.find(&moved).unwrap_err().to_string();
        assert!(message.contains("files.example") && message.contains("other.example"), "{message}");
        let missing = SourceRequest::pypi("MarkupSafe", "2.1.6", FileChoice::Sdist).unwrap();
        let message = lock.find(&missing).unwrap_err().to_string();
        assert!(message.contains("pypi:markupsafe==2.1.6:sdist") && message.contains("sources lock"), "{message}");
    }

    #[test]
    fn shared_files_are_listed_once() {
        let mut lock = example();
        assert_eq!(lock.files().len(), 4);
        let copy = lock.sources.values().next().cloned().unwrap();
        lock.sources.insert("zzz".into(), copy);
        assert_eq!(lock.files().len(), 4);
    }
}
