//! Resolves requests to files: this is the only place where versions meet what registries answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ampoule_derivations::lock::{Lock, LockEntry};
use ampoule_derivations::source::{FileChoice, LockedSource, RequestError, SourceId, SourceRequest};
use url::Url;

use super::debian::SuiteError;
use super::debian::index::{self, Indexes};
use super::debian::packages::{self, Package};
use super::debian::resolve::{ResolveError, Universe};
use super::directories::{Directories, DirectoryError};
use super::download::{DownloadError, Downloads};
use super::pypi::{self, IndexedFile};
use super::registries::{Registries, RegistryError, parse_address};
use crate::reporter::{Activity, Event, Reporter, next_activity};

/// How many requests are resolved at once.
const PARALLEL: usize = 4;

/// How a lock is brought up to date.
#[derive(Clone, Debug, Default)]
pub struct LockOptions {
    /// Resolve every request anew, not only those the lock lacks.
    pub refresh: bool,
    /// Directories whose files are preferred to what registries have.
    pub from: Vec<PathBuf>,
    /// Ask nobody: use directories only.
    pub offline: bool,
    /// Believe archives whose signature cannot be checked.
    pub allow_unsigned: bool,
}

/// A lock that fits its requests, and what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The new lock.
    pub lock: Lock,
    /// Keys that were not there.
    pub added: Vec<String>,
    /// Keys whose files are others now.
    pub changed: Vec<String>,
    /// Keys that nothing requests any more.
    pub removed: Vec<String>,
}

/// Why there is no lock. The old one stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A request breaks the rules.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Two requests want different things under one name.
    #[error("`{key}` is requested with different addresses: {first}; {second}")]
    Conflict {
        /// The key they share.
        key: String,
        /// The addresses of one.
        first: String,
        /// The addresses of the other.
        second: String,
    },
    /// A directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The downloads directory cannot be used.
    #[error(transparent)]
    Downloads(DownloadError),
    /// Requests that could not be resolved.
    #[error("{} of the requests could not be resolved:{}", .0.len(), list(.0))]
    Unresolved(Vec<Unresolved>),
}

fn list(failures: &[Unresolved]) -> String {
    failures.iter().map(|failure| format!("\n  {}: {}", failure.key, failure.reason)).collect()
}

/// A request that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Unresolved {
    /// The request's key.
    pub key: String,
    /// Why.
    #[source]
    pub reason: UnresolvedReason,
}

/// Why a request could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UnresolvedReason {
    /// The machine has no registry of this kind.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Nobody may be asked.
    #[error("it is not in the lock, and nothing may be fetched offline")]
    Offline,
    /// No index has the file.
    #[error("no index has it ({}){}", tried.join("; "), known_text(known))]
    NoFile {
        /// Each index with its answer.
        tried: Vec<String>,
        /// Versions, or files of the version, that there are.
        known: Vec<String>,
    },
    /// No address of a file answered with it.
    #[error("none of its addresses has it ({})", .0.join("; "))]
    NoAddress(Vec<String>),
    /// A file did not arrive.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A suite's packages are not known.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// The packages have no closure.
    #[error("{source}; searched the suites {suites} for {architectures}")]
    Closure {
        /// What is missing.
        source: ResolveError,
        /// Suites searched.
        suites: String,
        /// Architectures searched.
        architectures: String,
    },
}

fn known_text(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) }
}

/// Brings a lock up to date with the requests: adds what is missing, removes what nothing requests.
pub fn update(
    requests: &[SourceRequest],
    old: &Lock,
    registries: &Registries,
    downloads: &Downloads,
    options: &LockOptions,
    reporter: &dyn Reporter,
) -> Result<Update, LockError> {
    let wanted = by_key(requests)?;
    let reusable = |request: &SourceRequest| if options.refresh { None } else { old.find(request).ok().cloned() };
    let mut lock = Lock::default();
    let mut missing = Vec::new();
    for (key, request) in &wanted {
        match reusable(request) {
            Some(entry) => drop(lock.sources.insert(key.clone(), entry)),
            None => missing.push((key, request)),
        }
    }
    let resolver = Resolver {
        registries,
        downloads,
        directories: registries.directories(&options.from)?,
        offline: options.offline,
        indexes: Indexes::new(registries, downloads, options.allow_unsigned),
        reporter,
    };
    lock.sources.extend(resolver.resolve_all(&missing)?);
    let update = compare(old, lock);
    for key in &update.changed {
        warn_of_other_bytes(key, &old.sources[key], &update.lock.sources[key], reporter);
    }
    Ok(update)
}

/// The files of one version of a package are not supposed to change; that somebody asked for news does not make it less odd.
fn warn_of_other_bytes(key: &str, old: &LockEntry, new: &LockEntry, reporter: &dyn Reporter) {
    if let (LockEntry::One(old), LockEntry::One(new)) = (old, new)
        && (old.file == new.file && old.sha256 != new.sha256)
    {
        let (file, old, new) = (&new.file, old.sha256.to_hex(), new.sha256.to_hex());
        reporter.report(Event::Warning(format!("{key}: {file} has other bytes than before: was {old}, is {new}")));
    }
}

/// Requests by key. Requests of one key must want the same.
fn by_key(requests: &[SourceRequest]) -> Result<BTreeMap<String, SourceRequest>, LockError> {
    let mut wanted: BTreeMap<String, SourceRequest> = BTreeMap::new();
    for request in requests {
        request.check()?;
        let request = request.canonical();
        let key = request.key();
        match wanted.get(&key) {
            Some(first) if *first != request => {
                let addresses = |request: &SourceRequest| match request {
                    SourceRequest::Url { urls, .. } => urls.join(", "),
                    other => other.key(),
                };
                let (first, second) = (addresses(first), addresses(&request));
                return Err(LockError::Conflict { key, first, second });
            }
            _ => drop(wanted.insert(key, request)),
        }
    }
    Ok(wanted)
}

fn compare(old: &Lock, lock: Lock) -> Update {
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (key, entry) in &lock.sources {
        match old.sources.get(key) {
            None => added.push(key.clone()),
            Some(before) if before != entry => changed.push(key.clone()),
            Some(_) => {}
        }
    }
    let removed = old.sources.keys().filter(|key| !lock.sources.contains_key(*key)).cloned().collect();
    Update { lock, added, changed, removed }
}

struct Resolver<'a> {
    registries: &'a Registries,
    downloads: &'a Downloads,
    directories: Arc<Directories>,
    offline: bool,
    indexes: Indexes<'a>,
    reporter: &'a dyn Reporter,
}

impl Resolver<'_> {
    /// Resolves several requests at once; all failures are collected, so that they can be mended together.
    fn resolve_all(&self, missing: &[(&String, &SourceRequest)]) -> Result<BTreeMap<String, LockEntry>, LockError> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new((BTreeMap::new(), Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(missing.len()) {
                scope.spawn(|| {
                    while let Some((key, request)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.resolve_reported(key, request);
                        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                        match outcome {
                            Ok(entry) => drop(outcomes.0.insert((*key).clone(), entry)),
                            Err(reason) => outcomes.1.push(Unresolved { key: (*key).clone(), reason }),
                        }
                    }
                });
            }
        });
        let (resolved, mut failures) = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.sort_by(|left, right| left.key.cmp(&right.key));
        if failures.is_empty() { Ok(resolved) } else { Err(LockError::Unresolved(failures)) }
    }

    fn resolve_reported(&self, key: &str, request: &SourceRequest) -> Result<LockEntry, UnresolvedReason> {
        let id = next_activity();
        self.reporter.report(Event::Started { id, activity: Activity::Resolve, what: key.to_owned(), total: None });
        let outcome = self.resolve(request);
        let (success, phrase) = match &outcome {
            Ok(LockEntry::One(source)) => (true, source.file.clone()),
            Ok(LockEntry::Closure { packages, .. }) => (true, format!("{} packages", packages.len())),
            Err(_) => (false, "not resolved".to_owned()),
        };
        self.reporter.report(Event::Finished { id, success, outcome: phrase });
        outcome
    }

    fn resolve(&self, request: &SourceRequest) -> Result<LockEntry, UnresolvedReason> {
        match request {
            SourceRequest::Pypi { name, version, file } => self.pypi(name, version, file).map(LockEntry::One),
            SourceRequest::Url { name, urls } => self.url(name, urls).map(LockEntry::One),
            SourceRequest::DebianClosure { suite, architectures, packages, drop } => {
                let packages = self.debian(suite, architectures, packages, drop)?;
                Ok(LockEntry::Closure { request: request.clone(), packages })
            }
        }
    }

    fn pypi(&self, name: &str, version: &str, choice: &FileChoice) -> Result<LockedSource, UnresolvedReason> {
        let id = || SourceId::Pypi { name: name.to_owned(), version: version.to_owned() };
        if let Some(source) = self.search_directories(&self.directories, id, name, version, choice)? {
            return Ok(source);
        }
        if self.offline {
            return Err(UnresolvedReason::Offline);
        }
        let pypi = self.registries.pypi()?;
        if let Some(source) = self.search_directories(&pypi.directories, id, name, version, choice)? {
            return Ok(source);
        }
        let (mut tried, mut known) = (Vec::new(), Vec::new());
        for index in &pypi.indexes {
            let Some(url) = pypi::project_url(index, name) else { continue };
            let page = self.registries.page(&pypi.client, &url);
            let files = match page.as_ref() {
                Ok(files) => files,
                Err(answer) => {
                    tried.push(answer.clone());
                    continue;
                }
            };
            match pypi::choose(files, name, version, choice) {
                Some(file) => return self.indexed(id(), file),
                None => {
                    tried.push(format!("{} lists {} files, not this one", super::http::display(&url), files.len()));
                    known.extend(alternatives(files, name, version));
                }
            }
        }
        Err(UnresolvedReason::NoFile { tried, known })
    }

    fn search_directories(
        &self,
        directories: &Directories,
        id: impl Fn() -> SourceId,
        name: &str,
        version: &str,
        choice: &FileChoice,
    ) -> Result<Option<LockedSource>, UnresolvedReason> {
        let mut fitting: Vec<_> = directories.names().filter(|file| pypi::fits(file, name, version, choice)).collect();
        fitting.sort_by_key(|file| !file.ends_with(".tar.gz"));
        let Some((file, path)) = fitting.first().and_then(|file| Some((*file, directories.named(file)?))) else {
            return Ok(None);
        };
        let (sha256, size) = self.downloads.copy_unknown(path)?;
        Ok(Some(LockedSource { id: id(), file: file.to_owned(), size: Some(size), sha256 }))
    }

    /// A file that an index offers. Where the index has no hash, the file itself must come.
    fn indexed(&self, id: SourceId, file: &IndexedFile) -> Result<LockedSource, UnresolvedReason> {
        if let Some(reason) = &file.yanked {
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            self.reporter.report(Event::Warning(format!("{} was withdrawn by its publisher: {reason}", file.name)));
        }
        let (sha256, size) = match file.sha256 {
            Some(sha256) => (sha256, file.size),
            None => {
                let client = &self.registries.pypi()?.client;
                let (sha256, size) = self.download(client, &file.url, &file.name)?;
                (sha256, Some(size))
            }
        };
        Ok(LockedSource { id, file: file.name.clone(), size, sha256 })
    }

    fn url(&self, name: &str, urls: &[String]) -> Result<LockedSource, UnresolvedReason> {
        let id = SourceId::Url { name: name.to_owned(), urls: urls.to_vec() };
        let located = |(sha256, size)| LockedSource { id, file: name.to_owned(), size: Some(size), sha256 };
        if let Some(path) = self.directories.named(name) {
            return Ok(located(self.downloads.copy_unknown(path)?));
        }
        if self.offline {
            return Err(UnresolvedReason::Offline);
        }
        let mut tried = Vec::new();
        for url in urls {
            let Some(url) = parse_address(url) else { continue };
            match self.download(self.registries.web(), &url, name) {
                Ok(found) => return Ok(located(found)),
                Err(DownloadError::Http(error)) => tried.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(UnresolvedReason::NoAddress(tried))
    }

    fn download(
        &self,
        client: &super::http::Client,
        url: &Url,
        name: &str,
    ) -> Result<(ampoule_store::hash::Sha256Digest, u64), DownloadError> {
        let id = next_activity();
        let what = name.to_owned();
        self.reporter.report(Event::Started { id, activity: Activity::Download, what, total: None });
        let progress = |done, total| self.reporter.report(Event::Progress { id, done, total });
        let outcome = self.downloads.fetch_unknown(client, url, &progress);
        let success = outcome.is_ok();
        let phrase = if success { "fetched" } else { "" };
        self.reporter.report(Event::Finished { id, success, outcome: phrase.to_owned() });
        outcome
    }

    fn debian(
        &self,
        suite: &str,
        architectures: &[String],
        wanted: &[String],
        drop: &[String],
    ) -> Result<Vec<LockedSource>, UnresolvedReason> {
        if self.offline {
            return Err(UnresolvedReason::Offline);
        }
        let Some(native) = architectures.first() else { return Ok(Vec::new()) };
        let suites: Vec<&str> = suite.split(',').collect();
        let mut texts = Vec::new();
        for architecture in architectures {
            for suite in &suites {
                texts.push((architecture.as_str(), *suite, self.indexes.packages(suite, architecture)?));
            }
        }
        let mut parsed: Vec<(&str, Vec<Package<'_>>)> = Vec::new();
        for (architecture, suite, texts) in &texts {
            for text in texts.iter() {
                let packages = packages::parse(text, suite);
                parsed.push((architecture, packages.map_err(|error| index::malformed(suite, architecture, &error))?));
            }
        }
        let indexes: Vec<_> =
            parsed.iter().map(|(architecture, packages)| (*architecture, packages.as_slice())).collect();
        let universe = Universe::new(native, &indexes);
        let closure = universe.closure(wanted, drop).map_err(|source| UnresolvedReason::Closure {
            source,
            suites: suites.join(", "),
            architectures: architectures.join(", "),
        })?;
        Ok(closure.into_iter().map(locked_package).collect())
    }
}

fn locked_package(package: &Package<'_>) -> LockedSource {
    LockedSource {
        id: SourceId::Debian {
            architecture: package.architecture.to_owned(),
            name: package.name.to_owned(),
            path: package.path.to_owned(),
            suite: package.suite.to_owned(),
            version: package.version.to_owned(),
        },
        file: package.path.rsplit('/').next().unwrap_or(package.path).to_owned(),
        size: Some(package.size),
        sha256: package.sha256,
    }
}

/// What a message can offer instead: the version's other files, else other versions.
fn alternatives(files: &[IndexedFile], name: &str, version: &str) -> Vec<String> {
    let wanted = super::version::canonical(version);
    let of_version = |file: &&IndexedFile| {
        let single = pypi::versions(std::slice::from_ref(file), name, 1);
        single.first().is_some_and(|version| super::version::canonical(version) == wanted)
    };
    let same: BTreeSet<_> = files.iter().filter(of_version).map(|file| format!("`{}`", file.name)).collect();
    if same.is_empty() {
        return pypi::versions(files, name, 8).into_iter().map(|version| format!("version {version}")).collect();
    }
    same.into_iter().take(12).collect()
}
