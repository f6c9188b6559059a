//! Puts fetched sources into the store, where builds find them.

#![expect(clippy::disallowed_methods, reason = "copies downloaded files into the store and removes them")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::OnceLock;

use ampoule_derivations::builtin::{self, Request};
use ampoule_derivations::derivation::Derivation;
use ampoule_derivations::source::LockedSource;
use ampoule_store::content_address::{ContentAddress, Method, References};
use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{AddFixedError, LocalStore, QueryError};
use ampoule_store::path::StorePath;

use super::fetch::EXIT_HASH_MISMATCH;
use super::registries::LoadError;
use super::{FetchError, FetchOptions, Fetcher, Machine, Registries};
use crate::realise::{Failure, FailureKind, Fetch};
use crate::reporter::Reporter;

/// Brings locked sources into a store. The machine's configuration is read when the first one is fetched.
pub struct Sources<'a> {
    store: &'a LocalStore,
    options: FetchOptions,
    reporter: &'a dyn Reporter,
    registries: OnceLock<Result<Registries, LoadError>>,
}

/// Why a source is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum InternError {
    /// The machine's configuration cannot be used.
    #[error("the configuration of this machine cannot be used: {0}")]
    Configuration(String),
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What was downloaded cannot be read.
    #[error("cannot read the download of `{file}`: {source}")]
    Read {
        /// The file's name.
        file: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The store does not take it.
    #[error("cannot put `{file}` into the store: {source}")]
    Add {
        /// The file's name.
        file: String,
        /// What the store says.
        source: Box<AddFixedError>,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl InternError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fetch(error) => error.hint(),
            _ => None,
        }
    }

    /// The exit code of a process that fails for this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fetch(error) => error.exit_code(),
            Self::Add { source, .. } if matches!(**source, AddFixedError::Mismatch { .. }) => EXIT_HASH_MISMATCH,
            _ => 1,
        }
    }
}

impl<'a> Sources<'a> {
    /// Sources for this store.
    pub fn new(store: &'a LocalStore, options: FetchOptions, reporter: &'a dyn Reporter) -> Self {
        Self { store, options, reporter, registries: OnceLock::new() }
    }

    /// Makes the source valid in the store, fetching it if need be.
    ///
    /// # Errors
    /// When nobody has it, or the store does not take it.
    pub fn intern(&self, source: &LockedSource) -> Result<StorePath, InternError> {
        if let Some(path) = store_path(self.store, source)
            && self.store.keep_valid(&path)?
        {
            return Ok(path);
        }
        let registries = match self.registries.get_or_init(|| Registries::load(Machine::current())) {
            Ok(registries) => registries,
            Err(error) => return Err(InternError::Configuration(error.to_string())),
        };
        let fetcher = Fetcher::new(&self.store.downloads(), registries, &self.options, self.reporter)?;
        let fetched = fetcher.fetch(source)?;
        let read = |error| InternError::Read { file: source.file.clone(), source: error };
        let mut content = File::open(&fetched.path).map_err(read)?;
        let add = |error: AddFixedError| InternError::Add { file: source.file.clone(), source: Box::new(error) };
        let staged = self.store.stage_file(&mut content, false).map_err(|error| add(error.into()))?;
        let expected = source.sha256.into();
        let info = self.store.add_fixed(staged, &source.store_name(), &expected, Method::Flat).map_err(add)?;
        // The store has it now; a copy that stays behind costs room and nothing else.
        let _ = fs::remove_file(&fetched.path);
        Ok(info.path)
    }
}

impl Fetch for Sources<'_> {
    fn fetch(&self, path: &StorePath, derivation: &Derivation) -> Result<(), Failure> {
        let source = locked_source(derivation).map_err(|reason| Failure::build(format!("`{path}`: {reason}")))?;
        self.intern(&source).map(drop).map_err(|error| {
            let kind =
                if error.exit_code() == EXIT_HASH_MISMATCH { FailureKind::HashMismatch } else { FailureKind::Machine };
            let hint = error.hint().map(str::to_owned);
            Failure { kind, hint, ..Failure::build(error.to_string()) }
        })
    }
}

/// The store path of a source; `None` if its name can be none.
pub fn store_path(store: &LocalStore, source: &LockedSource) -> Option<StorePath> {
    let address = ContentAddress::flat_sha256(source.sha256);
    store.store_dir().content_addressed_path(&source.store_name(), &address, &References::default()).ok()
}

/// What a fetching derivation asks for.
fn locked_source(derivation: &Derivation) -> Result<LockedSource, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let env: BTreeMap<String, String> = derivation.env.iter().map(|(name, value)| (text(name), text(value))).collect();
    let request = match Request::parse(builtin::FETCH, &env).map_err(|error| error.to_string())? {
        Request::Fetch(request) => request,
        _ => return Err("it is no fetching derivation".to_owned()),
    };
    let address = derivation.fixed_output().ok_or("its hash is not stated")?;
    if address.method != Method::Flat {
        return Err("a source is hashed as a file (`outputHashMode` is `flat`)".to_owned());
    }
    let sha256 = Sha256Digest::try_from(&address.hash).map_err(|_| "a source is pinned by its sha256")?;
    let id = serde_json::from_str(&request.source).map_err(|error| format!("its `source` does not parse: {error}"))?;
    let source = LockedSource { id, file: request.file, size: request.size, sha256 };
    source.check().map_err(|error| error.to_string())?;
    Ok(source)
}
