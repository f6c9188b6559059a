//! What commands work on: the store of this machine and the catalog around the working directory.

#![expect(clippy::disallowed_methods, reason = "finds the store and the catalog: environment variables and files")]

use std::env;
use std::path::{Path, PathBuf};

use ampoule_derivations::lock::Lock;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StoreDir;
use serde::Deserialize;

use super::{Common, Failure, output};
use crate::lang::{DirectoryLoader, Evaluation, Inputs, Mode, Pattern, Tables};

/// The file that marks the root of a recipe repository.
const ROOT_FILE: &str = "ampoule.toml";
/// The lock's name in the catalog.
const LOCK_FILE: &str = "ampoule.lock";
/// Where the store of root lies.
const SYSTEM_HOME: &str = "/var/lib/ampoule";

/// `ampoule.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    #[serde(default)]
    catalog: CatalogTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogTable {
    path: Option<PathBuf>,
}

/// A tree of recipes with its lock.
pub(super) struct Catalog {
    loader: DirectoryLoader,
    pub(super) directory: PathBuf,
    pub(super) lock: Lock,
}

impl Catalog {
    /// Finds the catalog: `--root`, else the nearest directory upwards with `ampoule.toml`.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let root = match &common.root {
            Some(root) => root.clone(),
            None => search_upwards()?,
        };
        let file = root.join(ROOT_FILE);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", file.display())).hint(no_root_hint()))?;
        let settings: RootFile = toml::from_str(&text)
            .map_err(|error| Failure::new(format!("`{}` is not valid: {}", file.display(), error.message())))?;
        let directory = root.join(settings.catalog.path.unwrap_or_default());
        let lock = read_lock(&directory.join(LOCK_FILE))?;
        let loader = DirectoryLoader::open(&directory, &shown_from_here(&directory))
            .map_err(|error| Failure::new(format!("cannot open the catalog `{}`: {error}", directory.display())))?;
        Ok(Self { loader, directory, lock })
    }

    /// Where the lock is kept.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.directory.join(LOCK_FILE)
    }

    /// Evaluates what the patterns may choose from.
    pub(super) fn evaluate(&self, patterns: &[Pattern], mode: Mode) -> Result<Evaluation, Failure> {
        let inputs = Inputs {
            loader: &self.loader,
            lock: &self.lock,
            store_dir: &StoreDir::default(),
            mode,
            tables: &Tables::default(),
        };
        let evaluation = inputs.evaluate(patterns).map_err(|error| Failure::from_recipe(&error))?;
        for line in &evaluation.printed {
            output::message(&format!("{line}\n"));
        }
        Ok(evaluation)
    }
}

/// A directory as a person here would write it.
fn shown_from_here(directory: &Path) -> PathBuf {
    let here = env::current_dir().ok();
    let inside = here.as_deref().and_then(|here| directory.strip_prefix(here).ok());
    inside.unwrap_or(directory).to_owned()
}

fn search_upwards() -> Result<PathBuf, Failure> {
    let start =
        env::current_dir().map_err(|error| Failure::new(format!("cannot tell the working directory: {error}")))?;
    let found = start.ancestors().find(|directory| directory.join(ROOT_FILE).is_file());
    found.map(Path::to_owned).ok_or_else(|| {
        Failure::new(format!("there is no `{ROOT_FILE}` in `{}` or above it", start.display())).hint(no_root_hint())
    })
}

fn no_root_hint() -> String {
    format!(
        "run inside a recipe repository, or name one with `--root DIR`; an empty `{ROOT_FILE}` makes a directory one"
    )
}

fn read_lock(path: &Path) -> Result<Lock, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Lock::parse(&text).map_err(|error| {
            let failure = Failure::from_error(&error);
            failure.context(format!("`{}` is not a valid lock", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => Err(Failure::new(format!("cannot read `{}`: {error}", path.display()))),
    }
}

/// Parses patterns of the command line.
pub(super) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Failure> {
    texts.iter().map(|text| text.parse::<Pattern>().map_err(|error| Failure::from_error(&error).code(2))).collect()
}

/// Where this user's store lies.
pub(super) fn home(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(home) = &common.home {
        return std::path::absolute(home).map_err(|error| Failure::new(format!("`{}`: {error}", home.display())));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM_HOME));
    }
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    data.filter(|path| path.is_absolute()).map(|data| data.join("ampoule")).ok_or_else(|| {
        Failure::new(
            "cannot tell where the store lies: neither AMPOULE_HOME, XDG_DATA_HOME nor HOME is an absolute path",
        )
        .hint("name a directory with `--home DIR` or AMPOULE_HOME")
    })
}

/// Opens this user's store, creating it if there is none.
pub(super) fn open_store(common: &Common) -> Result<LocalStore, Failure> {
    let home = home(common)?;
    LocalStore::open(&home, StoreDir::default())
        .map_err(|error| Failure::from_error(&error).context(format!("cannot open the store in `{}`", home.display())))
}

/// As [`open_store`], though its disk may be full.
pub(super) fn open_to_collect(common: &Common) -> Result<LocalStore, Failure> {
    let home = home(common)?;
    LocalStore::open_to_collect(&home, StoreDir::default())
        .map_err(|error| Failure::from_error(&error).context(format!("cannot open the store in `{}`", home.display())))
}
