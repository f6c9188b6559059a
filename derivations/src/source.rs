//! Sources named by what they are, never by where they lie: what recipes ask for, and what a lock pins.
//!
//! A [`SourceRequest`] is what a recipe says (`pypi("markupsafe", "2.1.5")`); a [`LockedSource`] is one file whose
//! sha256 is known. Neither holds the address of a registry: where files come from is the machine's configuration.
//! Only [`SourceRequest::Url`] carries addresses, for what no registry keeps.

use std::collections::BTreeSet;
use std::fmt;

use ampoule_store::content_address::ContentAddress;
use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::{StoreDir, name_from_file_name};
use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::derivation::{Derivation, DerivationBuilder, ModuloHashes};
use crate::lock::LockEntry;

/// Longest name, version, file name or address a request or a lock may hold, in bytes.
const MAX_FIELD: usize = 4096;

/// Which of the files published for one version of a Python package is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChoice {
    /// The source distribution: the `.tar.gz` if there is one, else the `.zip`.
    Sdist,
    /// The wheel whose name ends in `-<tags>.whl` for these tags (`py3-none-any`), or which has exactly this name.
    Wheel(String),
}

/// What a recipe asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceRequest {
    /// One file of one version of a Python package.
    Pypi {
        /// Project name; any spelling, compared in its normalised form (PEP 503).
        name: String,
        /// Exact version.
        version: String,
        /// Which of the version's files.
        file: FileChoice,
    },
    /// A file that no registry keeps.
    Url {
        /// File name, which becomes the store name.
        name: String,
        /// Addresses that all serve these bytes, in order of preference.
        urls: Vec<String>,
    },
    /// Debian packages together with everything they depend on.
    #[serde(rename = "debian")]
    DebianClosure {
        /// Suite or code name, e.g. `bookworm`.
        suite: String,
        /// Architectures whose packages may be taken. The first is the native one: packages named without an
        /// architecture are of it.
        architectures: Vec<String>,
        /// Packages wanted: `gcc`, `libc6-dev:arm64`.
        packages: Vec<String>,
        /// Packages cut out of the closure, together with what only they need.
        drop: Vec<String>,
    },
}

/// Why a request makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// The project name breaks the rules of package names.
    #[error("`{0}` is not a Python package name (letters, digits, `.`, `-` and `_`, letter or digit at both ends)")]
    PackageName(String),
    /// The version is empty or holds characters no version has.
    #[error("`{0}` is not an exact version")]
    Version(String),
    /// The tags of a wheel are empty or hold a path separator.
    #[error("`{0}` is not a wheel tag such as `py3-none-any`, nor the file name of a wheel")]
    WheelTag(String),
    /// The file name is empty, hidden, too long or holds a path separator.
    #[error("`{0}` is not a plain file name")]
    FileName(String),
    /// A request by address has none.
    #[error("`{0}` has no address to fetch it from")]
    NoUrls(String),
    /// The scheme of an address is not one that is fetched.
    #[error("`{0}` is not an http or https address")]
    Url(String),
    /// A suite, architecture or package name of Debian breaks the rules.
    #[error("`{0}` is not a Debian {1}")]
    Debian(String, &'static str),
    /// A package is asked for in an architecture that is not among those of the request.
    #[error("`{package}` is of an architecture that is not among `architectures`; add `{architecture}` there")]
    ArchitectureNotListed {
        /// The package as written.
        package: String,
        /// Its architecture.
        architecture: String,
    },
}

impl SourceRequest {
    /// A checked request for a file of a Python package; the name is normalised.
    pub fn pypi(name: &str, version: &str, file: FileChoice) -> Result<Self, RequestError> {
        let request = Self::Pypi { name: normalise_package_name(name), version: version.to_owned(), file };
        request.check().map(|()| request)
    }

    /// A checked request for a file by address.
    pub fn url(name: &str, urls: Vec<String>) -> Result<Self, RequestError> {
        let request = Self::Url { name: name.to_owned(), urls };
        request.check().map(|()| request)
    }

    /// A checked request for a closure of Debian packages; lists are sorted, but for the native architecture,
    /// which stays first.
    pub fn debian(
        suite: &str,
        architectures: Vec<String>,
        packages: Vec<String>,
        drop: Vec<String>,
    ) -> Result<Self, RequestError> {
        let request = Self::DebianClosure { suite: suite.to_owned(), architectures, packages, drop }.canonical();
        request.check().map(|()| request)
    }

    /// Says whether names, versions and addresses follow the rules of their kind.
    pub fn check(&self) -> Result<(), RequestError> {
        match self {
            Self::Pypi { name, version, file } => check_pypi(name, version, file),
            Self::Url { name, urls } => check_url_request(name, urls),
            Self::DebianClosure { suite, architectures, packages, drop } => {
                check_debian(suite, architectures, packages, drop)
            }
        }
    }

    /// The same request in the one form that all its spellings share: names normalised, lists sorted without
    /// repetitions (the native architecture stays first).
    pub fn canonical(&self) -> Self {
        match self {
            Self::Pypi { name, version, file } => {
                Self::Pypi { name: normalise_package_name(name), version: version.clone(), file: file.clone() }
            }
            Self::Url { .. } => self.clone(),
            Self::DebianClosure { suite, architectures, packages, drop } => {
                let native = architectures.first();
                let others: BTreeSet<_> = architectures.iter().filter(|a| Some(*a) != native).collect();
                Self::DebianClosure {
                    suite: suite.clone(),
                    architectures: native.into_iter().chain(others).cloned().collect(),
                    packages: sorted(packages),
                    drop: sorted(drop),
                }
            }
        }
    }

    /// The key of this request in a lock. Equal requests have equal keys, however they are spelled.
    pub fn key(&self) -> String {
        match self.canonical() {
            Self::Pypi { name, version, file: FileChoice::Sdist } => format!("pypi:{name}=={version}:sdist"),
            Self::Pypi { name, version, file: FileChoice::Wheel(tag) } => {
                format!("pypi:{name}=={version}:wheel:{tag}")
            }
            Self::Url { name, .. } => format!("url:{name}"),
            Self::DebianClosure { suite, architectures, packages, drop } => {
                let canonical = serde_json::json!([architectures, drop, packages, suite]).to_string();
                let digest = Sha256Digest::of(canonical.as_bytes()).to_hex();
                format!("debian:{suite}:{}", &digest[..16])
            }
        }
    }

    /// A stand-in for this request's entry in a lock, with an all-zero hash: lets recipes be evaluated before there
    /// is a lock, so that their requests can be collected. Its files cannot be fetched.
    pub fn placeholder(&self) -> LockEntry {
        let sha256 = Sha256Digest::ZERO;
        let one = |id, file| LockEntry::One(LockedSource { id, file, size: None, sha256 });
        match self.canonical() {
            Self::Pypi { name, version, file } => {
                let file = match file {
                    FileChoice::Sdist => format!("{name}-{version}.tar.gz"),
                    FileChoice::Wheel(name) if name.ends_with(".whl") => name,
                    FileChoice::Wheel(tag) => format!("{}-{version}-{tag}.whl", name.replace('-', "_")),
                };
                one(SourceId::Pypi { name, version }, file)
            }
            Self::Url { name, urls } => one(SourceId::Url { name: name.clone(), urls }, name),
            request @ Self::DebianClosure { .. } => LockEntry::Closure { request, packages: Vec::new() },
        }
    }
}

/// Says which thing a locked file is, without saying where it lies.
//
// Fields stand in alphabetical order, so that the derived encoding has sorted keys: it is hashed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceId {
    /// A file of a version of a Python package.
    Pypi {
        /// Normalised project name.
        name: String,
        /// Exact version.
        version: String,
    },
    /// A file by address.
    Url {
        /// File name.
        name: String,
        /// Addresses in order of preference.
        urls: Vec<String>,
    },
    /// A Debian package.
    Debian {
        /// Architecture, which may be `all`.
        architecture: String,
        /// Package name.
        name: String,
        /// Where an archive keeps it, relative to the archive's base. Only a hint: the sha256 is the identity.
        path: String,
        /// The suite it was found in.
        suite: String,
        /// Full version, with its epoch.
        version: String,
    },
}

impl SourceId {
    /// The canonical JSON text: one line, sorted keys. This is what a fetching derivation carries.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and lists of strings always encode")
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pypi { name, version } => write!(f, "{name} {version}"),
            Self::Url { .. } => f.write_str("by address"),
            Self::Debian { architecture, name, version, .. } => write!(f, "{name}:{architecture} {version}"),
        }
    }
}

/// One file that a lock pins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    /// What it is.
    pub id: SourceId,
    /// Its file name, a plain one: no directories.
    pub file: String,
    /// Its length in bytes, where the registry says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The sha256 of its bytes: its identity.
    pub sha256: Sha256Digest,
}

impl LockedSource {
    /// The name of its store object: the file name with every character that store names lack replaced, and cut so that
    /// the name of its derivation, which ends in `.drv`, is not too long either.
    pub fn store_name(&self) -> String {
        const LONGEST: usize = 207;
        let mut name = name_from_file_name(&self.file);
        name.truncate(LONGEST);
        name
    }

    /// Whether it stands for a source not locked yet, as [`SourceRequest::placeholder`] makes them.
    pub fn is_placeholder(&self) -> bool {
        self.sha256 == Sha256Digest::ZERO
    }

    /// Says whether its file name is a plain one.
    pub fn check(&self) -> Result<(), RequestError> {
        check_file_name(&self.file)
    }
}

/// The fixed-output derivation that interns a locked source: the same for recipes that use it and for whoever fetches it.
pub fn fetch_derivation(source: &LockedSource, store_dir: &StoreDir) -> Derivation {
    let mut builder = DerivationBuilder::new(&source.store_name(), builtin::FETCH_SYSTEM, builtin::FETCH)
        .fixed(ContentAddress::flat_sha256(source.sha256))
        .env("source", source.id.to_json())
        .env("file", source.file.as_str());
    if let Some(size) = source.size {
        builder = builder.env("size", size.to_string());
    }
    let instantiated = builder.instantiate(store_dir, &mut ModuloHashes::new());
    instantiated.expect("a store name is always valid, and there are no inputs").1
}

/// The name of a Python package in the form in which names are compared (PEP 503).
pub fn normalise_package_name(name: &str) -> String {
    let mut normalised = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if normalised.ends_with('-') => {}
            '-' | '_' | '.' => normalised.push('-'),
            other => normalised.extend(other.to_lowercase()),
        }
    }
    normalised
}

fn sorted(list: &[String]) -> Vec<String> {
    list.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn check_pypi(name: &str, version: &str, file: &FileChoice) -> Result<(), RequestError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !inner || !edge(name.chars().next()) || !edge(name.chars().last()) || name.len() > MAX_FIELD {
        return Err(RequestError::PackageName(name.to_owned()));
    }
    let version_ok = version.chars().all(|c| c.is_ascii_alphanumeric() || ".!+_-".contains(c));
    if !version_ok || !edge(version.chars().next()) || version.len() > MAX_FIELD {
        return Err(RequestError::Version(version.to_owned()));
    }
    match file {
        FileChoice::Sdist => Ok(()),
        FileChoice::Wheel(tag) if check_file_name(tag).is_ok() && !tag.contains(char::is_whitespace) => Ok(()),
        FileChoice::Wheel(tag) => Err(RequestError::WheelTag(tag.clone())),
    }
}

fn check_url_request(name: &str, urls: &[String]) -> Result<(), RequestError> {
    check_file_name(name)?;
    if urls.is_empty() {
        return Err(RequestError::NoUrls(name.to_owned()));
    }
    let good = |url: &&String| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty()) && url.len() <= MAX_FIELD && url.bytes().all(|b| b.is_ascii_graphic())
    };
    match urls.iter().find(|url| !good(url)) {
        Some(url) => Err(RequestError::Url(url.clone())),
        None => Ok(()),
    }
}

fn check_debian(
    suite: &str,
    architectures: &[String],
    packages: &[String],
    drop: &[String],
) -> Result<(), RequestError> {
    let suite_parts_ok = suite.split('/').all(|part| is_debian_word(part, "._-+~"));
    if !suite_parts_ok {
        return Err(RequestError::Debian(suite.to_owned(), "suite"));
    }
    if let Some(bad) = architectures.iter().find(|a| !is_debian_word(a, "-")) {
        return Err(RequestError::Debian(bad.clone(), "architecture"));
    }
    if architectures.is_empty() {
        return Err(RequestError::Debian(String::new(), "architecture"));
    }
    for package in packages.iter().chain(drop) {
        let (name, architecture) = split_package(package);
        if !is_debian_word(name, "+-.") {
            return Err(RequestError::Debian(package.clone(), "package name"));
        }
        if let Some(architecture) = architecture
            && !architectures.iter().any(|listed| listed == architecture)
        {
            let (package, architecture) = (package.clone(), architecture.to_owned());
            return Err(RequestError::ArchitectureNotListed { package, architecture });
        }
    }
    Ok(())
}

/// Parts `libc6-dev:arm64` into name and architecture.
pub fn split_package(package: &str) -> (&str, Option<&str>) {
    match package.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (package, None),
    }
}

fn is_debian_word(word: &str, others: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.len() <= 255
        && word.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Says whether a name is a plain file name: not empty, not hidden, no separator, no control character.
pub fn check_file_name(name: &str) -> Result<(), RequestError> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
    if plain { Ok(()) } else { Err(RequestError::FileName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_depend_on_spelling() {
        let sdist = |name: &str| SourceRequest::pypi(name, "2.1.5", FileChoice::Sdist).unwrap().key();
        assert_eq!(sdist("MarkupSafe"), "pypi:markupsafe==2.1.5:sdist");
        assert_eq!(sdist("Foo__Bar.-baz"), "pypi:foo-bar-baz==2.1.5:sdist");
        let wheel = SourceRequest::pypi("setuptools", "75.1.0", FileChoice::Wheel("py3-none-any".into())).unwrap();
        assert_eq!(wheel.key(), "pypi:setuptools==75.1.0:wheel:py3-none-any");

        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let debian = |architectures: &[&str], packages: &[&str]| {
            SourceRequest::debian("bookworm", strings(architectures), strings(packages), Vec::new()).unwrap().key()
        };
        let key = debian(&["amd64", "arm64", "armhf"], &["gcc", "make"]);
        assert!(key.starts_with("debian:bookworm:") && key.len() == "debian:bookworm:".len() + 16);
        assert_eq!(key, debian(&["amd64", "armhf", "arm64"], &["make", "gcc", "make"]));
        assert_ne!(key, debian(&["arm64", "amd64", "armhf"], &["gcc", "make"]));
    }

    #[test]
    fn hostile_requests_are_refused() {
        for name in ["", "../x", "-a", "a-", "a b", "a/b"] {
            assert!(SourceRequest::pypi(name, "1", FileChoice::Sdist).is_err(), "{name}");
        }
        for version in ["", ">=1", "1*", "../1", "1 2"] {
            assert!(SourceRequest::pypi("a", version, FileChoice::Sdist).is_err(), "{version}");
        }
        for tag in ["", "../x", "a/b"] {
            assert!(SourceRequest::pypi("a", "1", FileChoice::Wheel(tag.into())).is_err(), "{tag}");
        }
        for (name, url) in [("../x", "https://a.example/x"), ("x", "file:///etc/passwd"), ("x", "https://"), ("", "")] {
            assert!(SourceRequest::url(name, vec![url.into()]).is_err(), "{name} {url}");
        }
        assert!(SourceRequest::url("x", Vec::new()).is_err());
        let debian = |suite: &str, package: &str| {
            SourceRequest::debian(suite, vec!["amd64".into()], vec![package.into()], Vec::new())
        };
        assert!(debian("bookworm", "libstdc++6").is_ok());
        assert!(debian("../x", "gcc").is_err());
        assert!(debian("bookworm", "gcc/..").is_err());
        let error = debian("bookworm", "gcc:arm64").unwrap_err();
        assert!(matches!(error, RequestError::ArchitectureNotListed { architecture, .. } if architecture == "arm64"));
    }

    #[test]
    fn a_locked_source_is_a_fixed_output() {
        let id = SourceId::Url { name: "a~b.tar".into(), urls: vec!["https://files.example/a~b.tar".into()] };
        let sha256 = Sha256Digest::of(b"bytes");
        let source = LockedSource { id, file: "a~b.tar".into(), size: Some(5), sha256 };
        let derivation = fetch_derivation(&source, &StoreDir::default());
        assert_eq!(derivation.fixed_output(), Some(&ContentAddress::flat_sha256(sha256)));
        assert_eq!(derivation.env_str("source"), Some(source.id.to_json().as_str()));
        assert_eq!((derivation.env_str("file"), derivation.env_str("size")), (Some("a~b.tar"), Some("5")));
        let path = derivation.output_path(&StoreDir::default(), "out").unwrap().unwrap();
        assert_eq!(path.name(), "a-b.tar");
        // Where the bytes are said to lie does not change what they are.
        let moved = LockedSource { id: SourceId::Url { name: "a~b.tar".into(), urls: Vec::new() }, ..source };
        let moved = fetch_derivation(&moved, &StoreDir::default());
        assert_eq!(moved.output_path(&StoreDir::default(), "out").unwrap().unwrap(), path);
    }

    /// Control characters, quotes and odd names in a hostile lock never make a derivation that cannot be written.
    #[test]
    fn odd_files_are_derivations_too() {
        for file in ["\"x\\", ".x", "…", &"y".repeat(300)] {
            let id = SourceId::Url { name: file.into(), urls: Vec::new() };
            let source = LockedSource { id, file: file.into(), size: None, sha256: Sha256Digest::ZERO };
            fetch_derivation(&source, &StoreDir::default());
        }
    }

    #[test]
    fn the_canonical_text_has_sorted_keys() {
        let id = SourceId::Debian {
            architecture: "amd64".into(),
            name: "gcc".into(),
            path: "pool/g.deb".into(),
            suite: "bookworm".into(),
            version: "4:12.2.0-3".into(),
        };
        let json = id.to_json();
        let sorted: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, sorted.to_string());
        assert_eq!(serde_json::from_str::<SourceId>(&json).unwrap(), id);
    }
}
