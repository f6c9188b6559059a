//! The indexes of suites, fetched from the machine's archives and verified.

#![expect(clippy::disallowed_methods, reason = "indexes are files once they were fetched")]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use ampoule_store::hash::Sha256Digest;
use url::Url;

use super::apt::Archive;
use super::deb822::MalformedLine;
use super::release::{IndexFile, Release, ReleaseError};
use super::signature::{self, SignatureError};
use crate::sources::download::{DownloadError, Downloads, Wanted};
use crate::sources::http::{HttpError, display};
use crate::sources::registries::{Registries, RegistryError};
use crate::sources::{percent, registries};

/// Longest release file, in bytes.
const MAX_RELEASE: u64 = 16 << 20;

/// Longest index, unpacked, in bytes.
const MAX_INDEX: u64 = 1 << 30;

/// Why a suite's packages are not known.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The machine has no archive.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No archive has the suite.
    #[error("no configured Debian archive has the suite `{suite}` ({})", tried.join("; "))]
    NotFound {
        /// The suite.
        suite: String,
        /// Each archive with its answer.
        tried: Vec<String>,
    },
    /// The suite is not signed by whom it should be.
    #[error("{url}: {source}")]
    Signature {
        /// The release file.
        url: String,
        /// What is wrong with its signature.
        source: SignatureError,
    },
    /// The release file cannot be read.
    #[error("{url}: {source}")]
    Release {
        /// The release file.
        url: String,
        /// What is wrong.
        source: ReleaseError,
    },
    /// The suite lacks an architecture.
    #[error("the suite `{suite}` of {base} has no packages for the architecture `{architecture}`")]
    NoArchitecture {
        /// The suite.
        suite: String,
        /// The archive.
        base: String,
        /// The architecture.
        architecture: String,
    },
    /// An index did not arrive or is not the one that was signed.
    #[error("the index {path} of the suite `{suite}`: {source}{}", if source.is_mismatch() { " (the mirror may be in the middle of an update: try again later)" } else { "" })]
    Index {
        /// The suite.
        suite: String,
        /// The index's path below the suite.
        path: String,
        /// What went wrong.
        source: Box<DownloadError>,
    },
    /// An index cannot be unpacked or read.
    #[error("the index {path} of the suite `{suite}`: {reason}")]
    Unreadable {
        /// The suite.
        suite: String,
        /// The index's path below the suite.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// The texts of the components of one suite and architecture.
type Texts = Arc<Vec<String>>;

/// Indexes fetched in this run, so that each is fetched once.
pub(crate) struct Indexes<'a> {
    registries: &'a Registries,
    downloads: &'a Downloads,
    allow_unsigned: bool,
    suites: Mutex<BTreeMap<String, Arc<Suite>>>,
    texts: Mutex<BTreeMap<(String, String), Texts>>,
}

/// A suite whose release file was verified.
pub(crate) struct Suite {
    name: String,
    base: Url,
    components: Vec<String>,
    release: Release,
}

impl<'a> Indexes<'a> {
    pub(crate) fn new(registries: &'a Registries, downloads: &'a Downloads, allow_unsigned: bool) -> Self {
        Self { registries, downloads, allow_unsigned, suites: Mutex::default(), texts: Mutex::default() }
    }

    /// The texts of a suite's `Packages` for an architecture, one for each component.
    pub(crate) fn packages(&self, suite: &str, architecture: &str) -> Result<Texts, SuiteError> {
        let key = (suite.to_owned(), architecture.to_owned());
        if let Some(texts) = lock(&self.texts).get(&key) {
            return Ok(Arc::clone(texts));
        }
        let suite = self.suite(suite)?;
        let mut texts = self.component_texts(&suite, architecture)?;
        if texts.is_empty() {
            let (suite, base) = (suite.name.clone(), display(&suite.base));
            return Err(SuiteError::NoArchitecture { suite, base, architecture: architecture.to_owned() });
        }
        if suite.release.lists_all_apart {
            texts.extend(self.component_texts(&suite, "all")?);
        }
        let texts = Arc::new(texts);
        lock(&self.texts).insert(key, Arc::clone(&texts));
        Ok(texts)
    }

    fn suite(&self, name: &str) -> Result<Arc<Suite>, SuiteError> {
        if let Some(suite) = lock(&self.suites).get(name) {
            return Ok(Arc::clone(suite));
        }
        let suite = Arc::new(self.find_suite(name)?);
        lock(&self.suites).insert(name.to_owned(), Arc::clone(&suite));
        Ok(suite)
    }

    /// Asks archives whose configuration names the suite first, then all others: they may serve it all the same,
    /// under its code name for example.
    fn find_suite(&self, name: &str) -> Result<Suite, SuiteError> {
        let archives = &self.registries.debian()?.archives;
        let names_it = |archive: &&Archive| archive.suites.iter().any(|suite| suite == name);
        let (first, others): (Vec<_>, Vec<_>) = archives.iter().partition(names_it);
        let mut tried = Vec::new();
        let mut asked = std::collections::BTreeSet::new();
        for archive in first.into_iter().chain(others) {
            let Some(base) = archive_url(&archive.base) else { continue };
            if !asked.insert(base.clone()) {
                continue;
            }
            match self.try_suite(name, archive, base) {
                Ok(Ok(suite)) => return Ok(suite),
                Ok(Err(answer)) => tried.push(answer),
                Err(error) => return Err(error),
            }
        }
        Err(SuiteError::NotFound { suite: name.to_owned(), tried })
    }

    /// The suite, or what the archive answered instead.
    fn try_suite(&self, name: &str, archive: &Archive, base: Url) -> Result<Result<Suite, String>, SuiteError> {
        let client = &self.registries.debian()?.client;
        let Ok(url) = base.join(&format!("dists/{}/InRelease", percent::encode_path(name))) else {
            return Ok(Err(format!("{} is not a base address", display(&base))));
        };
        let page = match client.page(&url, "*/*", MAX_RELEASE) {
            Ok(page) => page,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let shown = display(&url);
        let unsigned = self.allow_unsigned || archive.trusted;
        let text = if unsigned {
            signature::unverified(&page.body)
        } else {
            signature::verify(&page.body, &archive.signed_by, self.registries.machine())
                .map_err(|source| SuiteError::Signature { url: shown.clone(), source })?
        };
        let release = Release::parse(&text).map_err(|source| SuiteError::Release { url: shown.clone(), source })?;
        if !release.is_suite(name) {
            return Ok(Err(format!("{shown} is of the suite `{}` (`{}`)", release.suite, release.codename)));
        }
        let components =
            if archive.components.is_empty() { vec!["main".to_owned()] } else { archive.components.clone() };
        Ok(Ok(Suite { name: name.to_owned(), base, components, release }))
    }

    fn component_texts(&self, suite: &Suite, architecture: &str) -> Result<Vec<String>, SuiteError> {
        let mut texts = Vec::new();
        for component in &suite.components {
            // Updates of security suites name their components `updates/main`; the index does not.
            let directory = format!("{}/binary-{architecture}", component.rsplit('/').next().unwrap_or(component));
            let plain = suite.release.files.get(&format!("{directory}/Packages"));
            let packed = ["xz", "gz", ""].into_iter().find_map(|extension| {
                let dot = if extension.is_empty() { "" } else { "." };
                let path = format!("{directory}/Packages{dot}{extension}");
                Some((extension, suite.release.files.get(&path).copied()?, path))
            });
            let Some((extension, file, path)) = packed else { continue };
            let bytes = self.fetch(suite, &path, file)?;
            let unpacked = unpack(&bytes, extension, plain).map_err(|reason| SuiteError::Unreadable {
                suite: suite.name.clone(),
                path,
                reason,
            })?;
            texts.push(unpacked);
        }
        Ok(texts)
    }

    /// The bytes of an index, from the downloads directory if they are there.
    fn fetch(&self, suite: &Suite, path: &str, file: IndexFile) -> Result<Vec<u8>, SuiteError> {
        let failed =
            |source| SuiteError::Index { suite: suite.name.clone(), path: path.to_owned(), source: Box::new(source) };
        let wanted = Wanted { sha256: file.sha256, size: Some(file.size) };
        let found = match self.downloads.find(&wanted).map_err(failed)? {
            Some(found) => found,
            None => self.fetch_from(suite, path, &wanted)?,
        };
        std::fs::read(&found).map_err(|source| failed(DownloadError::Io { path: found, source }))
    }

    fn fetch_from(&self, suite: &Suite, path: &str, wanted: &Wanted) -> Result<std::path::PathBuf, SuiteError> {
        let failed =
            |source| SuiteError::Index { suite: suite.name.clone(), path: path.to_owned(), source: Box::new(source) };
        let client = &self.registries.debian()?.client;
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let by_hash = format!("{directory}/by-hash/SHA256/{}", wanted.sha256.to_hex());
        let ways = if suite.release.by_hash { vec![by_hash.as_str(), path] } else { vec![path] };
        let mut last = None;
        for way in ways {
            let relative = format!("dists/{}/{way}", suite.name);
            let Ok(url) = suite.base.join(&percent::encode_path(&relative)) else { continue };
            match self.downloads.fetch(client, &url, wanted, &|_, _| {}) {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        let unreachable = || DownloadError::Http(HttpError::Status { url: display(&suite.base), status: 404 });
        Err(failed(last.unwrap_or_else(unreachable)))
    }
}

/// Unpacks an index; it must be the one whose plain form the release lists, where it lists that.
fn unpack(bytes: &[u8], extension: &str, plain: Option<&IndexFile>) -> Result<String, String> {
    let limit = plain.map_or(MAX_INDEX, |plain| plain.size.min(MAX_INDEX));
    let mut text = Vec::new();
    let read = match extension {
        "xz" => lzma_rust2::XzReader::new(bytes, true).take(limit + 1).read_to_end(&mut text),
        "gz" => flate2::read::MultiGzDecoder::new(bytes).take(limit + 1).read_to_end(&mut text),
        _ => bytes.take(limit + 1).read_to_end(&mut text),
    };
    read.map_err(|error| format!("cannot be unpacked: {error}"))?;
    if text.len() as u64 > limit {
        return Err(format!("is longer than {limit} bytes when unpacked"));
    }
    if let Some(plain) = plain
        && Sha256Digest::of(&text) != plain.sha256
    {
        return Err("is not the one that was signed".to_owned());
    }
    String::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())
}

/// The base address of an archive, ending in a slash.
pub(crate) fn archive_url(base: &str) -> Option<Url> {
    registries::parse_address(&format!("{}/", base.trim_end_matches('/')))
}

/// The error of a malformed index.
pub(crate) fn malformed(suite: &str, architecture: &str, error: &MalformedLine) -> SuiteError {
    let path = format!("binary-{architecture}/Packages");
    SuiteError::Unreadable { suite: suite.to_owned(), path, reason: error.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
