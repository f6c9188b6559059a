//! `ampoule sources`: lists, locks, fetches and verifies what recipes take from outside.

#![expect(clippy::disallowed_methods, reason = "writes the lock, reads stored sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ampoule_derivations::source::{LockedSource, SourceId, SourceRequest};
use ampoule_store::hash::Sha256Hasher;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use serde_json::{Value, json};

use super::context::{Catalog, home, open_store, patterns};
use super::interrupt::exit_when_interrupted;
use super::{Common, Failure, output};
use crate::lang::Mode;
use crate::sources::intern::{InternError, Sources, store_path};
use crate::sources::{Downloads, FetchOptions, LockOptions, Machine, Registries, lock};
use crate::terminal::{bytes, reporter_for_stderr};

/// Sources at a time.
const PARALLEL: usize = 6;

/// Commands on the catalog's sources.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  ampoule sources list                      every pinned source, and whether the store has it
  ampoule sources lock                      pin what recipes newly ask for
  ampoule sources fetch                     bring everything into the store, then work with --offline
  ampoule sources fetch --from /media/usb   take files from a directory first
  ampoule sources verify                    hash the stored sources again, and compare with the lock")]
pub(super) enum Command {
    /// List what the lock pins
    List {
        /// Print a record
        #[arg(long)]
        json: bool,
    },
    /// Bring the lock up to date with the recipes: ask registries about new requests, drop unused ones
    Lock {
        /// Ask the registries again about everything
        #[arg(long)]
        refresh: bool,
        /// Look for files in this directory first
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// Use no network
        #[arg(long)]
        offline: bool,
        /// Accept Debian indexes whose signature cannot be checked
        #[arg(long)]
        allow_unsigned: bool,
        /// Print a record of what changed
        #[arg(long)]
        json: bool,
    },
    /// Bring locked sources into the store, and keep them there: as the root `catalog:DIR`
    Fetch {
        /// Look for files in this directory first
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// Use no network
        #[arg(long)]
        offline: bool,
        /// Print a record
        #[arg(long)]
        json: bool,
    },
    /// Hash the stored sources again, and compare with the lock
    Verify {
        /// Print a record
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::List { json } | Self::Lock { json, .. } | Self::Fetch { json, .. } | Self::Verify { json } => *json,
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    exit_when_interrupted()?;
    match command {
        Command::List { json } => list(common, *json),
        Command::Lock { refresh, from, offline, allow_unsigned, json } => {
            let options = LockOptions {
                refresh: *refresh,
                from: from.clone(),
                offline: *offline,
                allow_unsigned: *allow_unsigned,
            };
            update(common, &options, *json)
        }
        Command::Fetch { from, offline, json } => {
            fetch(common, FetchOptions { offline: *offline, from: from.clone() }, *json)
        }
        Command::Verify { json } => verify(common, *json),
    }
}

/// A source as a record for programs.
fn record(source: &LockedSource, store: &LocalStore) -> Value {
    let (kind, name, version) = describe(&source.id);
    json!({
        "kind": kind,
        "name": name,
        "version": version,
        "file": source.file,
        "size": source.size,
        "sha256": source.sha256.to_hex(),
        "path": store_path(store, source).map(|path| store.store_dir().display(&path)),
    })
}

fn describe(id: &SourceId) -> (&'static str, String, Option<String>) {
    match id {
        SourceId::Pypi { name, version } => ("pypi", name.clone(), Some(version.clone())),
        SourceId::Debian { name, version, architecture, .. } => {
            ("debian", format!("{name}:{architecture}"), Some(version.clone()))
        }
        SourceId::Url { name, .. } => ("url", name.clone(), None),
    }
}

fn list(common: &Common, json: bool) -> Result<(), Failure> {
    let catalog = Catalog::find(common)?;
    let store = open_store(common)?;
    let mut records = Vec::new();
    let mut text = String::new();
    for source in catalog.lock.files() {
        let stored = is_stored(&store, source)?;
        if json {
            let mut record = record(source, &store);
            record["stored"] = stored.into();
            records.push(record);
            continue;
        }
        let (kind, name, version) = describe(&source.id);
        let size = source.size.map(bytes).unwrap_or_default();
        let mark = if stored { "stored" } else { "-" };
        text.push_str(&format!("{kind:<7}{name:<40}{:<28}{size:>10}  {mark}\n", version.unwrap_or_default()));
    }
    if json { output::json(&json!({ "sources": records })) } else { output::data(text.as_bytes()) }
}

fn is_stored(store: &LocalStore, source: &LockedSource) -> Result<bool, Failure> {
    match store_path(store, source) {
        Some(path) => Ok(store.is_valid(&path)?),
        None => Ok(false),
    }
}

fn update(common: &Common, options: &LockOptions, json: bool) -> Result<(), Failure> {
    let catalog = Catalog::find(common)?;
    let evaluation = catalog.evaluate(&patterns(&["//...".to_owned()])?, Mode::Lock)?;
    let requests: Vec<SourceRequest> = evaluation.requests.into_values().collect();
    let reporter = reporter_for_stderr(common.verbosity());
    let registries = Registries::load(Machine::current())?;
    let downloads = Downloads::open(&home(common)?.join("downloads"))?;
    let update = lock::update(&requests, &catalog.lock, &registries, &downloads, options, &*reporter)?;
    drop(reporter);
    let file = catalog.lock_file();
    if update.lock != catalog.lock || !file.exists() {
        replace_file(&file, update.lock.render().as_bytes())
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display())))?;
    }
    if json {
        let record =
            json!({ "lock": file, "added": update.added, "changed": update.changed, "removed": update.removed });
        return output::json(&record);
    }
    for (sign, keys) in [("+", &update.added), ("~", &update.changed), ("-", &update.removed)] {
        for key in keys {
            output::line(&format!("{sign} {key}"))?;
        }
    }
    output::message(&format!("{}: {} sources\n", file.display(), update.lock.files().len()));
    Ok(())
}

/// Replaces a file by a whole one: whoever reads it sees the old or the new bytes.
fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".ampoule-").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(permissions)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn fetch(common: &Common, options: FetchOptions, json: bool) -> Result<(), Failure> {
    let catalog = Catalog::find(common)?;
    let store = open_store(common)?;
    let reporter = reporter_for_stderr(common.verbosity());
    let sources = Sources::new(&store, options, &*reporter);
    let wanted = catalog.lock.files();
    let failures = intern_all(&sources, &wanted);
    drop(sources);
    drop(reporter);
    keep_sources(&store, &catalog, &wanted)?;
    if json {
        let failed: Vec<Value> = failures.values().map(|error| error.to_string().into()).collect();
        let stored: Vec<Value> = wanted
            .iter()
            .enumerate()
            .filter(|(index, _)| !failures.contains_key(index))
            .map(|(_, source)| record(source, &store))
            .collect();
        output::json(&json!({ "stored": stored, "failures": failed }))?;
    }
    let Some(worst) = failures.values().max_by_key(|error| error.exit_code()) else {
        output::message(&format!("all {} sources are in the store\n", wanted.len()));
        return Ok(());
    };
    let list: Vec<String> = failures.values().map(|error| format!("\n  {error}")).collect();
    let failure = Failure::new(format!("{} of {} sources are missing:{}", failures.len(), wanted.len(), list.concat()))
        .code(worst.exit_code());
    Err(match worst.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// Sets the root that keeps a catalog's sources from being collected.
fn keep_sources(store: &LocalStore, catalog: &Catalog, wanted: &[&LockedSource]) -> Result<(), Failure> {
    let paths: BTreeSet<StorePath> = wanted.iter().filter_map(|source| store_path(store, source)).collect();
    let paths: Vec<StorePath> = paths.into_iter().collect();
    let stored: Vec<StorePath> = store.valid_paths(&paths)?.into_iter().collect();
    // One spelling for one directory.
    let directory: PathBuf = std::path::absolute(&catalog.directory)?.components().collect();
    Ok(store.add_root(&format!("catalog:{}", directory.display()), &stored)?)
}

/// Brings sources into the store, several at a time; gives the failures by position.
fn intern_all(sources: &Sources<'_>, wanted: &[&LockedSource]) -> BTreeMap<usize, InternError> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(wanted.len()) {
            scope.spawn(|| {
                while let Some((index, source)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    wanted.get(index).map(|source| (index, source))
                } {
                    if let Err(error) = sources.intern(source)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.insert(index, error);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap_or_default()
}

fn verify(common: &Common, json: bool) -> Result<(), Failure> {
    let catalog = Catalog::find(common)?;
    let store = open_store(common)?;
    let (mut good, mut missing, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for source in catalog.lock.files() {
        match store_path(&store, source) {
            Some(path) if store.is_valid(&path)? => {
                let mut hasher = Sha256Hasher::new();
                io::copy(&mut File::open(store.physical_path(&path))?, &mut hasher)?;
                let list = if hasher.finish() == source.sha256 { &mut good } else { &mut broken };
                list.push(source.file.clone());
            }
            _ => missing.push(source.file.clone()),
        }
    }
    if json {
        output::json(&json!({ "good": good, "missing": missing, "broken": broken }))?;
    } else {
        output::line(&format!("{} good, {} not in the store, {} broken", good.len(), missing.len(), broken.len()))?;
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("these stored sources are not what the lock pins: {}", broken.join(", ")))
        .hint("delete them with `ampoule store delete`, then run `ampoule sources fetch`")
        .code(102))
}
