//! Binary caches by their addresses: `http://`, `https://`, `file://`, or a directory.
//!
//! **Effects**: the network, through the same careful client that fetches sources.

mod absent;
mod remote;
mod settings;
#[cfg(test)]
mod stalls;
mod substituters;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ampoule_store::cache::{Cache, CacheError, Directory, Files};
use ampoule_store::path::StoreDir;
use url::Url;

pub use remote::Remote;
pub use settings::{CacheSettings, CacheSettingsError};
pub use substituters::{Asked, Modulo, outputs, realisation_record};

use self::absent::Absent;
use crate::sources::Machine;
use crate::sources::http::{Client, Settings};
use crate::sources::own::{OwnConfiguration, OwnConfigurationError};

/// Opens caches the way this machine reaches them.
#[derive(Clone)]
pub struct Caches {
    client: Arc<Client>,
    store_dir: StoreDir,
    /// Where it is remembered what servers do not have, and for how long.
    memory: Option<(PathBuf, Duration)>,
}

/// Why a cache is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenCacheError {
    /// The address is of no kind that is known.
    #[error("`{0}` is neither an http, https or file address nor a directory")]
    Address(String),
    /// It is none, or it cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Caches {
    /// For paths of this store directory, with this machine's proxies and certificates.
    pub fn new(machine: &Machine, store_dir: StoreDir) -> Result<Self, OwnConfigurationError> {
        let own = OwnConfiguration::load(machine)?;
        let (proxies, no_proxy) = machine.proxies();
        let mut certificate_bundles = own.certificates;
        certificate_bundles.extend(machine.certificate_bundles());
        let settings = Settings { proxies, no_proxy, certificate_bundles, ..Settings::default() };
        Ok(Self::with_settings(settings, store_dir))
    }

    /// With other patience.
    pub fn with_settings(settings: Settings, store_dir: StoreDir) -> Self {
        Self { client: Arc::new(Client::new(settings)), store_dir, memory: None }
    }

    /// Remembers in files of this directory what servers do not have, for so long; not at all if that is no time.
    #[must_use]
    pub fn remembering(self, directory: PathBuf, holds: Duration) -> Self {
        let memory = (!holds.is_zero()).then_some((directory, holds));
        Self { memory, ..self }
    }

    /// Opens a cache for reading.
    pub fn open(&self, address: &str) -> Result<Cache, OpenCacheError> {
        Ok(Cache::open(self.files(address)?, self.store_dir.clone())?)
    }

    /// Opens a cache for writing; a directory becomes one.
    pub fn open_or_create(&self, address: &str) -> Result<Cache, OpenCacheError> {
        Ok(Cache::open_or_create(self.files(address)?, self.store_dir.clone())?)
    }

    fn files(&self, address: &str) -> Result<Box<dyn Files>, OpenCacheError> {
        if let Some(directory) = local_directory(address) {
            return Ok(Box::new(Directory::new(&directory)));
        }
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| OpenCacheError::Address(address.to_owned()))?;
        let remote = Box::new(Remote::new(Arc::clone(&self.client), url));
        match &self.memory {
            Some((directory, holds)) => Ok(Box::new(Absent::new(remote, directory, *holds))),
            None => Ok(remote),
        }
    }
}

/// The directory that an address names, if it is on this machine.
pub fn local_directory(address: &str) -> Option<PathBuf> {
    match address.strip_prefix("file://") {
        // Nix allows settings after a question mark, none of which matter here.
        Some(path) => Some(PathBuf::from(path.split('?').next().unwrap_or_default())),
        None if address.contains("://") => None,
        None => Some(Path::new(address).to_owned()),
    }
}
