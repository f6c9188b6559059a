//! `ampoule copy`: objects with all they refer to, between stores, binary caches and directories.

mod from_cache;
mod selection;
mod stores;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ampoule_store::cache::{Compression, PushOptions, Realisation};
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use ampoule_store::signature::{PublicKey, SecretKey};
use clap::ValueEnum;
use serde_json::json;

use self::selection::Selection;
use self::stores::Place;
use super::caches::{read_key, remembering_caches};
use super::context::open_store;
use super::interrupt::exit_when_interrupted;
use super::{Common, Failure, output};
use crate::caches::CacheSettings;
use crate::sources::Machine;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule copy --to /srv/cache --key cache.secret //wheels/...    a cache that any web server can serve
  ampoule copy --from https://cache.example /nix/store/…-x
  ampoule copy --to ~/other-home /nix/store/…-x                   the home of another store
  ampoule copy --to /media/usb/bundle --with-sources //wheels:markupsafe
  ampoule copy --from /media/usb/bundle --all                     on a machine without a network, which can then rebuild

A place is an http, https or file address of a binary cache, a directory that is one or becomes one, or the home of a store.
Standard output has the paths that were copied.")]
pub(super) struct Arguments {
    /// Copy from the store to this place
    #[arg(long, value_name = "PLACE", required_unless_present = "from", conflicts_with = "from")]
    to: Option<String>,
    /// Copy from this place into the store
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Store paths, derivations, labels or patterns
    #[arg(value_name = "PATH|LABEL", required_unless_present = "all")]
    subjects: Vec<String>,
    /// Copy everything there is, and with --from what outputs are known to have become
    #[arg(long, conflicts_with = "subjects")]
    all: bool,
    /// Only the objects themselves, without what they refer to
    #[arg(long)]
    no_closure: bool,
    /// With the derivations that made them, and all sources of those, so that they can be built again
    #[arg(long, conflicts_with_all = ["from", "all", "no_closure"])]
    with_sources: bool,
    /// How to compress in a cache
    #[arg(long, value_enum, default_value_t = CompressionName::Zstd)]
    compression: CompressionName,
    /// Sign what is written to a cache with the secret key in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Believe what this key signed, besides those of the configuration
    #[arg(long, value_name = "NAME:BASE64")]
    trusted_key: Vec<PublicKey>,
    /// Believe what nobody signed
    #[arg(long, alias = "no-check-sigs")]
    no_check_signatures: bool,
    /// Print a record
    #[arg(long)]
    pub(super) json: bool,
}

/// A compression on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionName {
    Zstd,
    Xz,
    Gzip,
    None,
}

impl From<CompressionName> for Compression {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::Zstd => Self::Zstd,
            CompressionName::Xz => Self::Xz,
            CompressionName::Gzip => Self::Gzip,
            CompressionName::None => Self::None,
        }
    }
}

/// What was copied, in an order in which each object comes after what it refers to.
#[derive(Debug, Default)]
struct Copied {
    paths: Vec<StorePath>,
    realisations: usize,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    exit_when_interrupted()?;
    let local = Arc::new(open_store(common)?);
    let copied = match (&arguments.to, &arguments.from) {
        (Some(to), _) => copy_to(common, arguments, &local, to)?,
        (None, Some(from)) => copy_from(common, arguments, &local, from)?,
        (None, None) => return Err(Failure::new("where to, or where from?").code(2)),
    };
    let paths: Vec<String> = copied.paths.iter().map(|path| local.store_dir().display(path)).collect();
    match arguments.json {
        true => output::json(&json!({ "paths": paths, "realisations": copied.realisations })),
        false => paths.iter().try_for_each(|path| output::line(path)),
    }
}

fn copy_to(common: &Common, arguments: &Arguments, local: &Arc<LocalStore>, to: &str) -> Result<Copied, Failure> {
    let mut selection = Selection::find(common, local, local, &arguments.subjects, arguments.all)?;
    if arguments.with_sources {
        selection.add_sources(local)?;
    }
    let paths = wanted(local, &selection, arguments.no_closure)?;
    match Place::of(to) {
        Place::Store(home) => stores::copy(local, &stores::open(&home)?, &paths),
        Place::Cache => {
            let key = arguments.key.as_deref().map(read_key).transpose()?;
            push(arguments, local, to, &paths, key.as_ref())
        }
    }
}

fn copy_from(common: &Common, arguments: &Arguments, local: &Arc<LocalStore>, from: &str) -> Result<Copied, Failure> {
    match Place::of(from) {
        Place::Store(home) => {
            let other = Arc::new(stores::open(&home)?);
            let selection = Selection::find(common, local, &other, &arguments.subjects, arguments.all)?;
            let paths = wanted(&other, &selection, arguments.no_closure)?;
            stores::copy(&other, local, &paths)
        }
        Place::Cache => from_cache::copy(common, arguments, local, from),
    }
}

/// The selected objects, with what they refer to unless told otherwise.
fn wanted(store: &LocalStore, selection: &Selection, no_closure: bool) -> Result<BTreeSet<StorePath>, Failure> {
    let paths: Vec<StorePath> = selection.paths.iter().cloned().collect();
    let valid = store.valid_paths(&paths)?;
    if let Some(path) = paths.iter().find(|path| !valid.contains(path)) {
        let (path, home) = (store.store_dir().display(path), store.home().display());
        return Err(Failure::new(format!("`{path}` is not valid in the store `{home}`")));
    }
    if no_closure { Ok(selection.paths.clone()) } else { Ok(store.closure(&paths)?) }
}

/// Writes objects to a cache, and what is known of which outputs they are.
fn push(
    arguments: &Arguments,
    store: &LocalStore,
    address: &str,
    paths: &BTreeSet<StorePath>,
    key: Option<&SecretKey>,
) -> Result<Copied, Failure> {
    let machine = Machine::current();
    // What the cache did not have, it has now.
    let cache = remembering_caches(store, &machine, &CacheSettings::load(&machine)?)?.open_or_create(address)?;
    let options = PushOptions { compression: arguments.compression.into(), key };
    let mut copied = Copied { paths: cache.push(store, paths, options)?, realisations: 0 };
    for path in paths {
        for (derivation, output) in store.realised_as(path)? {
            // Another object may be what the output counts as.
            if store.realisation(&derivation, &output)?.as_ref() != Some(path) {
                continue;
            }
            let realisation = Realisation { derivation, output, path: path.clone(), signatures: BTreeSet::new() };
            let realisation = key.map_or(realisation.clone(), |key| realisation.signed(key));
            cache.push_realisation(&realisation)?;
            copied.realisations += 1;
        }
    }
    Ok(copied)
}
