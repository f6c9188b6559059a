//! Brings locked files here: from the downloads directory, from directories, from registries, from mirrors.
//!
//! Nothing is resolved: a file is wanted by its hash, and whatever holds those bytes will do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ampoule_derivations::source::{LockedSource, SourceId};
use ampoule_store::hash::Sha256Digest;
use url::Url;

use super::debian::index::archive_url;
use super::directories::{Directories, DirectoryError};
use super::download::{DownloadError, Downloads, Wanted};
use super::http::{Client, display};
use super::percent;
use super::pypi;
use super::registries::{Registries, RegistryError, parse_address};
use crate::reporter::{Activity, Event, Reporter, next_activity};

/// How many files are fetched at once.
const PARALLEL: usize = 6;

/// The process exit code when bytes are not those that were locked.
pub const EXIT_HASH_MISMATCH: u8 = 102;

/// How files are fetched.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Use no network at all.
    pub offline: bool,
    /// Directories that are searched before any registry is asked.
    pub from: Vec<PathBuf>,
}

/// A file that is here and has the locked hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies in the downloads directory.
    pub path: PathBuf,
    /// Where it came from, for people.
    pub origin: String,
}

/// Why a file is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Some source has other bytes under its name.
    #[error("{file} ({id}) is not the file that was locked: {source}")]
    Mismatch {
        /// Its file name.
        file: String,
        /// What it is.
        id: String,
        /// Both hashes or lengths, and where from.
        source: Box<DownloadError>,
    },
    /// Nothing that is known here has it.
    #[error("{file} ({id}, sha256 {}) could not be fetched:{}", sha256.to_hex(), tried_text(tried))]
    Unavailable {
        /// Its file name.
        file: String,
        /// What it is.
        id: String,
        /// Its hash.
        sha256: Sha256Digest,
        /// Each place with its answer.
        tried: Vec<String>,
    },
    /// It would have to be fetched, which was ruled out.
    #[error("{file} ({id}, sha256 {}) is not here, and nothing may be fetched offline", sha256.to_hex())]
    Offline {
        /// Its file name.
        file: String,
        /// What it is.
        id: String,
        /// Its hash.
        sha256: Sha256Digest,
    },
    /// The lock holds only a stand-in for it.
    #[error("{file} ({id}) is not locked yet: run `ampoule sources lock`")]
    NotLocked {
        /// Its file name.
        file: String,
        /// What it is.
        id: String,
    },
    /// A directory to be searched cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The downloads directory cannot be used.
    #[error(transparent)]
    Downloads(DownloadError),
}

fn tried_text(tried: &[String]) -> String {
    if tried.is_empty() { " there is nowhere to ask".to_owned() } else { format!("\n    {}", tried.join("\n    ")) }
}

impl FetchError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable { .. } => Some(
                "if a copy exists elsewhere, name its directory with `--from DIR` or a mirror under `[sources] mirrors` in \
                 ampoule/config.toml; if the registry has replaced it, run `ampoule sources lock --refresh`",
            ),
            Self::Mismatch { .. } => Some(
                "do not go on before you know why; if its publisher really replaced it, run `ampoule sources lock --refresh`",
            ),
            Self::Offline { .. } => {
                Some("run `ampoule sources fetch` while there is a network, or name a directory with `--from DIR`")
            }
            Self::NotLocked { .. } | Self::Directory(_) | Self::Downloads(_) => None,
        }
    }

    /// The exit code of a process that fails for this.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Mismatch { .. }) { EXIT_HASH_MISMATCH } else { 1 }
    }
}

/// Several files are not here; all others are.
#[derive(Debug, thiserror::Error)]
#[error("{} of {total} sources are missing:{}", failures.len(), failure_list(failures))]
pub struct FetchAllError {
    /// Why, for each, in the order asked for.
    pub failures: Vec<FetchError>,
    /// How many were asked for.
    pub total: usize,
}

fn failure_list(failures: &[FetchError]) -> String {
    failures.iter().map(|failure| format!("\n  {failure}")).collect()
}

impl FetchAllError {
    /// What to do about the gravest of them.
    pub fn hint(&self) -> Option<&'static str> {
        let gravest = self.failures.iter().find(|failure| failure.exit_code() == EXIT_HASH_MISMATCH);
        gravest.or(self.failures.first()).and_then(FetchError::hint)
    }

    /// The exit code of a process that fails for this.
    pub fn exit_code(&self) -> u8 {
        self.failures.iter().map(FetchError::exit_code).max().unwrap_or(1)
    }
}

/// Fetches one file.
pub fn fetch(
    source: &LockedSource,
    downloads: &Path,
    registries: &Registries,
    options: &FetchOptions,
    reporter: &dyn Reporter,
) -> Result<Fetched, FetchError> {
    Fetcher::new(downloads, registries, options, reporter)?.fetch(source)
}

/// Fetches files.
pub struct Fetcher<'a> {
    downloads: Downloads,
    registries: &'a Registries,
    directories: Arc<Directories>,
    offline: bool,
    reporter: &'a dyn Reporter,
}

impl<'a> Fetcher<'a> {
    /// A fetcher into this downloads directory.
    pub fn new(
        downloads: &Path,
        registries: &'a Registries,
        options: &FetchOptions,
        reporter: &'a dyn Reporter,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            downloads: Downloads::open(downloads).map_err(FetchError::Downloads)?,
            registries,
            directories: registries.directories(&options.from)?,
            offline: options.offline,
            reporter,
        })
    }

    /// Fetches several files at once, in any order; failures do not keep others from being fetched.
    pub fn fetch_all(&self, sources: &[&LockedSource]) -> Result<Vec<Fetched>, FetchAllError> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(sources.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(source) = sources.get(index) else { break };
                        let outcome = self.fetch(source);
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
                    }
                });
            }
        });
        let (mut fetched, mut failures) = (Vec::new(), Vec::new());
        for outcome in outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            match outcome {
                Ok(file) => fetched.push(file),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(fetched) } else { Err(FetchAllError { failures, total: sources.len() }) }
    }

    /// Fetches one file.
    pub fn fetch(&self, source: &LockedSource) -> Result<Fetched, FetchError> {
        let (file, id) = (source.file.clone(), source.id.to_string());
        if source.is_placeholder() {
            return Err(FetchError::NotLocked { file, id });
        }
        let wanted = Wanted { sha256: source.sha256, size: source.size };
        if let Some(fetched) = self.search_this_machine(source, &wanted)? {
            return Ok(fetched);
        }
        if self.offline {
            let absent = FetchError::Offline { file, id, sha256: source.sha256 };
            return Err(self.other_bytes_here(source).map_or(absent, |error| failure(source, error)));
        }
        let activity = next_activity();
        let started =
            Event::Started { id: activity, activity: Activity::Download, what: file.clone(), total: source.size };
        self.reporter.report(started);
        let progress = |done, total| self.reporter.report(Event::Progress { id: activity, done, total });
        let outcome = self.ask_network(source, &wanted, &progress);
        let phrase = match &outcome {
            Ok(fetched) => fetched.origin.clone(),
            Err(FetchError::Mismatch { .. }) => "hash mismatch".to_owned(),
            Err(_) => "not available".to_owned(),
        };
        self.reporter.report(Event::Finished { id: activity, success: outcome.is_ok(), outcome: phrase });
        outcome
    }

    fn search_this_machine(&self, source: &LockedSource, wanted: &Wanted) -> Result<Option<Fetched>, FetchError> {
        if let Some(path) = self.downloads.find(wanted).map_err(FetchError::Downloads)? {
            return Ok(Some(Fetched { origin: path.display().to_string(), path }));
        }
        for directories in [self.directories.as_ref(), self.registries.mirror_directories()] {
            if let Some(found) = directories.find(&source.file, source.size, &source.sha256) {
                let path = self.downloads.copy(found, wanted).map_err(|error| failure(source, error))?;
                return Ok(Some(Fetched { path, origin: found.display().to_string() }));
            }
        }
        Ok(None)
    }

    /// What the file's name stands for in the directories to be searched, where none of them has its bytes.
    fn other_bytes_here(&self, source: &LockedSource) -> Option<DownloadError> {
        let (path, got) = self.directories.named_with_hash(&source.file)?;
        Some(DownloadError::Hash { origin: path.display().to_string(), expected: source.sha256, got })
    }

    fn ask_network(
        &self,
        source: &LockedSource,
        wanted: &Wanted,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Fetched, FetchError> {
        let mut attempt = Attempt { fetcher: self, source, wanted, progress, tried: Vec::new(), other_bytes: None };
        let found = match &source.id {
            SourceId::Pypi { name, .. } => attempt.pypi(name)?,
            SourceId::Debian { path, suite, .. } => attempt.debian(path, suite)?,
            SourceId::Url { urls, .. } => attempt.urls(urls)?,
        };
        let found = match found {
            Some(fetched) => Some(fetched),
            None => attempt.mirrors()?,
        };
        let other_bytes = attempt.other_bytes.or_else(|| self.other_bytes_here(source));
        match (found, other_bytes) {
            (Some(fetched), _) => Ok(fetched),
            (None, Some(error)) => Err(failure(source, error)),
            (None, None) => Err(FetchError::Unavailable {
                file: source.file.clone(),
                id: source.id.to_string(),
                sha256: source.sha256,
                tried: attempt.tried,
            }),
        }
    }
}

/// Bytes that are not those locked end everything; that a place lacks the file does not.
fn failure(source: &LockedSource, error: DownloadError) -> FetchError {
    let (file, id) = (source.file.clone(), source.id.to_string());
    match error {
        DownloadError::Io { .. } => FetchError::Downloads(error),
        _ => FetchError::Mismatch { file, id, source: Box::new(error) },
    }
}

/// One file being looked for.
struct Attempt<'f, 'a> {
    fetcher: &'f Fetcher<'a>,
    source: &'f LockedSource,
    wanted: &'f Wanted,
    progress: &'f dyn Fn(u64, Option<u64>),
    tried: Vec<String>,
    /// An index that lists the name with another hash, in case no other has it with the right one.
    other_bytes: Option<DownloadError>,
}

impl Attempt<'_, '_> {
    fn pypi(&mut self, name: &str) -> Result<Option<Fetched>, FetchError> {
        let pypi = match self.fetcher.registries.pypi() {
            Ok(pypi) => pypi,
            Err(error) => return Ok(self.no_registry(&error)),
        };
        if let Some(found) = pypi.directories.find(&self.source.file, self.source.size, &self.source.sha256) {
            let copied = self.fetcher.downloads.copy(found, self.wanted);
            let path = copied.map_err(|error| failure(self.source, error))?;
            return Ok(Some(Fetched { path, origin: found.display().to_string() }));
        }
        for index in &pypi.indexes {
            let Some(url) = pypi::project_url(index, name) else { continue };
            let page = self.fetcher.registries.page(&pypi.client, &url);
            let files = match page.as_ref() {
                Ok(files) => files,
                Err(answer) => {
                    self.tried.push(answer.clone());
                    continue;
                }
            };
            let Some(file) = files.iter().find(|file| file.name == self.source.file) else {
                self.tried.push(format!("{} does not list it", display(&url)));
                continue;
            };
            match file.sha256 {
                Some(got) if got != self.wanted.sha256 => {
                    let (origin, expected) = (display(&url), self.wanted.sha256);
                    self.other_bytes = Some(DownloadError::Hash { origin, expected, got });
                }
                _ => {
                    if let Some(fetched) = self.download(&pypi.client, &file.url)? {
                        return Ok(Some(fetched));
                    }
                }
            }
        }
        Ok(None)
    }

    fn debian(&mut self, path: &str, suite: &str) -> Result<Option<Fetched>, FetchError> {
        let debian = match self.fetcher.registries.debian() {
            Ok(debian) => debian,
            Err(error) => return Ok(self.no_registry(&error)),
        };
        let mut archives: Vec<_> = debian.archives.iter().collect();
        archives.sort_by_key(|archive| !archive.suites.iter().any(|own| own == suite));
        let mut asked = std::collections::BTreeSet::new();
        for archive in archives {
            let url = archive_url(&archive.base).and_then(|base| base.join(&percent::encode_path(path)).ok());
            let Some(url) = url.filter(|url| asked.insert(url.clone())) else { continue };
            if let Some(fetched) = self.download(&debian.client, &url)? {
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    fn urls(&mut self, urls: &[String]) -> Result<Option<Fetched>, FetchError> {
        for url in urls {
            let Some(url) = parse_address(url) else {
                self.tried.push(format!("{url} is not an address"));
                continue;
            };
            if let Some(fetched) = self.download(self.fetcher.registries.web(), &url)? {
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    /// Mirrors hold files of all kinds by their hash, in the layout of Nix's hashed mirrors.
    fn mirrors(&mut self) -> Result<Option<Fetched>, FetchError> {
        for mirror in self.fetcher.registries.mirrors() {
            let base = archive_url(mirror.as_str());
            let Some(url) = base.and_then(|base| base.join(&format!("sha256/{}", self.wanted.sha256.to_hex())).ok())
            else {
                continue;
            };
            if let Some(fetched) = self.download(self.fetcher.registries.web(), &url)? {
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    fn no_registry(&mut self, error: &RegistryError) -> Option<Fetched> {
        self.tried.push(error.to_string());
        None
    }

    /// The file, or nothing if this address does not deliver it.
    fn download(&mut self, client: &Client, url: &Url) -> Result<Option<Fetched>, FetchError> {
        match self.fetcher.downloads.fetch(client, url, self.wanted, self.progress) {
            Ok(path) => Ok(Some(Fetched { path, origin: display(url) })),
            Err(DownloadError::Http(error)) => {
                self.tried.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(failure(self.source, error)),
        }
    }
}
