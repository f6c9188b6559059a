//! The registries of this machine, put together from our own configuration and that of the users' other clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use url::Url;

use super::credentials;
use super::debian::apt::{self, AptError, Archive};
use super::directories::{Directories, DirectoryError};
use super::http::{Client, Settings};
use super::machine::{Machine, ReadError};
use super::own::{OwnConfiguration, OwnConfigurationError};
use super::pip::{self, AskError, PipConfiguration};
use super::pypi::{self, IndexedFile};

/// Where files come from on this machine. What needs a program to be asked is found out when first used.
pub struct Registries {
    machine: Machine,
    own: OwnConfiguration,
    base_settings: Settings,
    pypi: OnceLock<Result<Pypi, RegistryError>>,
    debian: OnceLock<Result<Debian, RegistryError>>,
    web: OnceLock<Client>,
    mirrors: Vec<Url>,
    mirror_directories: Directories,
    pages: Mutex<BTreeMap<Url, Arc<ProjectPage>>>,
    listed: Mutex<BTreeMap<Vec<PathBuf>, Arc<Directories>>>,
}

/// A project's files, or what the index answered instead.
pub(crate) type ProjectPage = Result<Vec<IndexedFile>, String>;

/// Package indexes of Python, and how to talk to them.
pub struct Pypi {
    /// In order of preference.
    pub(crate) indexes: Vec<Url>,
    /// Files that pip would find in directories.
    pub(crate) directories: Directories,
    /// Talks to the indexes.
    pub(crate) client: Client,
}

/// Archives of Debian, and how to talk to them.
pub struct Debian {
    /// In order of preference.
    pub(crate) archives: Vec<Archive>,
    /// Talks to the archives.
    pub(crate) client: Client,
}

/// Why the machine's configuration cannot be used as a whole.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Our own configuration.
    #[error(transparent)]
    Own(#[from] OwnConfigurationError),
    /// An address of our own configuration.
    #[error("`{0}` under `[sources] mirrors` is neither an http or https address nor an absolute path")]
    Mirror(String),
    /// A directory of our own configuration.
    #[error("a mirror cannot be listed: {0}")]
    Directory(#[from] DirectoryError),
}

/// Why a kind of registry cannot be used on this machine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// No package index is known.
    #[error("no Python package index is known: {0}; set PIP_INDEX_URL (or `index-url` in pip.conf) to one")]
    NoIndex(String),
    /// No archive is known.
    #[error(
        "no Debian archive is known: apt's configuration names none; set {} to the base address of one",
        super::own::DEBIAN_MIRRORS
    )]
    NoArchive,
    /// An address of a configuration is not one.
    #[error("`{address}`, which {whose} names, is not an http or https address")]
    Address {
        /// The address as written.
        address: String,
        /// Whose configuration it is.
        whose: &'static str,
    },
    /// A client's configuration cannot be read.
    #[error("the configuration of {whose} cannot be used: {reason}")]
    Client {
        /// Which client.
        whose: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Registries {
    /// Reads our own configuration. Clients are read when they are first needed.
    pub fn load(machine: Machine) -> Result<Self, LoadError> {
        Self::with_settings(machine, Settings::default())
    }

    /// Like [`Registries::load`], with other patience.
    pub fn with_settings(machine: Machine, settings: Settings) -> Result<Self, LoadError> {
        let own = OwnConfiguration::load(&machine)?;
        let (proxies, no_proxy) = machine.proxies();
        let mut certificate_bundles = own.certificates.clone();
        certificate_bundles.extend(machine.certificate_bundles());
        let (mut mirrors, mut directories) = (Vec::new(), Vec::new());
        for mirror in &own.mirrors {
            match (parse_address(mirror), mirror.starts_with('/')) {
                (Some(url), _) => mirrors.push(url),
                (None, true) => directories.push(PathBuf::from(mirror)),
                (None, false) => return Err(LoadError::Mirror(mirror.clone())),
            }
        }
        Ok(Self {
            mirror_directories: Directories::list(&directories)?,
            base_settings: Settings { proxies, no_proxy, certificate_bundles, ..settings },
            machine,
            own,
            pypi: OnceLock::new(),
            debian: OnceLock::new(),
            web: OnceLock::new(),
            mirrors,
            pages: Mutex::default(),
            listed: Mutex::default(),
        })
    }

    /// The files of a project in an index, asked for once.
    pub(crate) fn page(&self, client: &Client, url: &Url) -> Arc<ProjectPage> {
        let known = lock(&self.pages).get(url).cloned();
        known.unwrap_or_else(|| {
            let page = Arc::new(pypi::fetch_page(client, url));
            lock(&self.pages).insert(url.clone(), Arc::clone(&page));
            page
        })
    }

    /// The files below directories, listed and hashed once.
    pub(crate) fn directories(&self, paths: &[PathBuf]) -> Result<Arc<Directories>, DirectoryError> {
        let mut listed = lock(&self.listed);
        if let Some(directories) = listed.get(paths) {
            return Ok(Arc::clone(directories));
        }
        let directories = Arc::new(Directories::list(paths)?);
        listed.insert(paths.to_vec(), Arc::clone(&directories));
        Ok(directories)
    }

    /// The machine this is about.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Addresses that hold any file as `<base>/sha256/<hex>`.
    pub(crate) fn mirrors(&self) -> &[Url] {
        &self.mirrors
    }

    /// Files of this machine's mirror directories.
    pub(crate) fn mirror_directories(&self) -> &Directories {
        &self.mirror_directories
    }

    /// Talks to addresses that no registry is behind.
    pub(crate) fn web(&self) -> &Client {
        self.web.get_or_init(|| Client::new(self.base_settings.clone()))
    }

    /// The package indexes.
    pub(crate) fn pypi(&self) -> Result<&Pypi, RegistryError> {
        self.pypi.get_or_init(|| self.load_pypi()).as_ref().map_err(Clone::clone)
    }

    /// The archives.
    pub(crate) fn debian(&self) -> Result<&Debian, RegistryError> {
        self.debian.get_or_init(|| self.load_debian()).as_ref().map_err(Clone::clone)
    }

    fn load_pypi(&self) -> Result<Pypi, RegistryError> {
        let client_error = |error: ReadError| RegistryError::Client { whose: "pip", reason: error.to_string() };
        let mut pip = PipConfiguration::load(&self.machine).map_err(client_error)?;
        let (whose, indexes) = if !self.own.pypi.is_empty() {
            ("`[sources] pypi`", self.own.pypi.clone())
        } else {
            if pip.index.is_none() && !pip.no_index {
                pip = self.ask_pip(pip)?;
            }
            ("pip's configuration", pip.indexes())
        };
        let addresses = indexes.iter().map(|index| address(index, whose)).collect::<Result<Vec<_>, _>>()?;
        let directories = pip.find_links.iter().filter_map(|link| local_directory(link));
        // pip passes over directories that are not there, and so do we.
        let directories: Vec<_> = directories.filter(|directory| directory.is_dir()).collect();
        let directories = Directories::list(&directories)
            .map_err(|error| RegistryError::Client { whose: "pip", reason: error.to_string() })?;
        if addresses.is_empty() && directories.is_empty() {
            return Err(RegistryError::NoIndex("pip's configuration says `no-index`".to_owned()));
        }
        let credentials = credentials::of_pip(&self.machine).map_err(client_error)?;
        let settings = Settings { credentials, ..self.pip_settings(&pip) };
        Ok(Pypi { indexes: addresses, directories, client: Client::new(settings) })
    }

    /// Asks pip for its default, which its files and variables do not replace here.
    fn ask_pip(&self, written: PipConfiguration) -> Result<PipConfiguration, RegistryError> {
        match pip::ask(&self.machine) {
            Ok(answer) => {
                let certificates = written.certificates.or(answer.certificates);
                let extra_indexes = [written.extra_indexes, answer.extra_indexes].concat();
                let mut known = std::collections::BTreeSet::new();
                let extra_indexes = extra_indexes.into_iter().filter(|index| known.insert(index.clone())).collect();
                Ok(PipConfiguration { certificates, extra_indexes, ..answer })
            }
            Err(_) if !written.extra_indexes.is_empty() || !written.find_links.is_empty() => Ok(written),
            Err(error @ (AskError::NoPip | AskError::NoAnswer(_))) => Err(RegistryError::NoIndex(error.to_string())),
        }
    }

    fn pip_settings(&self, pip: &PipConfiguration) -> Settings {
        let mut settings = self.base_settings.clone();
        settings.certificate_bundles.extend(pip.certificates.clone());
        settings.trusted_hosts.clone_from(&pip.trusted_hosts);
        if let Some(proxy) = &pip.proxy {
            settings.proxies = ["http", "https"].map(|scheme| (scheme.to_owned(), proxy.clone())).into();
        }
        settings
    }

    fn load_debian(&self) -> Result<Debian, RegistryError> {
        let client_error = |error: AptError| RegistryError::Client { whose: "apt", reason: error.to_string() };
        let configured = apt::archives(&self.machine).map_err(client_error)?;
        let archives = if self.own.debian.is_empty() {
            configured
        } else {
            let keyrings = &self.own.debian_keyrings;
            self.own.debian.iter().map(|base| apt::bare_archive(base, keyrings)).collect()
        };
        for archive in &archives {
            address(&archive.base, "the list of Debian archives")?;
        }
        if archives.is_empty() {
            return Err(RegistryError::NoArchive);
        }
        let mut settings = self.base_settings.clone();
        let own: BTreeMap<_, _> =
            apt::proxies(&self.machine).map_err(|error| client_error(error.into()))?.into_iter().collect();
        settings.proxies.extend(own);
        settings.credentials = credentials::of_apt(&self.machine).map_err(|error| client_error(error.into()))?;
        Ok(Debian { archives, client: Client::new(settings) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads an address that can be asked.
pub(crate) fn parse_address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn address(text: &str, whose: &'static str) -> Result<Url, RegistryError> {
    parse_address(text).ok_or_else(|| RegistryError::Address { address: text.to_owned(), whose })
}

fn local_directory(link: &str) -> Option<PathBuf> {
    if link.starts_with('/') {
        return Some(PathBuf::from(link));
    }
    Url::parse(link).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

/// Patience for tests: nothing is waited for longer than needed.
#[doc(hidden)]
pub fn impatient() -> Settings {
    Settings {
        stall_timeout: Duration::from_secs(5),
        attempts: 3,
        back_off: Duration::from_millis(1),
        redirects: 4,
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn registries(variables: &[(&str, &str)]) -> Registries {
        let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Registries::load(Machine::new(Path::new("/nonexistent"), environment)).unwrap()
    }

    #[test]
    fn what_is_missing_is_named_with_its_setting() {
        let message = registries(&[]).pypi().map(drop).unwrap_err().to_string();
        assert!(message.contains("no pip") && message.contains("PIP_INDEX_URL"), "{message}");
        let message = registries(&[]).debian().map(drop).unwrap_err().to_string();
        assert!(message.contains("AMPOULE_DEBIAN_MIRRORS"), "{message}");
        let message = registries(&[("PIP_INDEX_URL", "ftp://x")]).pypi().map(drop).unwrap_err().to_string();
        assert!(message.contains("ftp://x") && message.contains("pip"), "{message}");
    }

    #[test]
    fn indexes_and_archives() {
        let variables = [("PIP_INDEX_URL", "https://a.example/simple"), ("PIP_PROXY", "http://p.example")];
        let registries =
            registries(&[variables.as_slice(), &[("AMPOULE_DEBIAN_MIRRORS", "http://d.example/debian")]].concat());
        let pypi = registries.pypi().unwrap();
        assert_eq!(pypi.indexes[0].as_str(), "https://a.example/simple");
        assert_eq!(pypi.client.settings().proxies["https"], "http://p.example");
        assert_eq!(registries.debian().unwrap().archives[0].base, "http://d.example/debian");
        assert!(registries.debian().unwrap().client.settings().proxies.is_empty());
    }
}
