//! From store to store on one machine, without a cache between them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ampoule_store::local::{LocalStore, Registration};
use ampoule_store::path::{StoreDir, StorePath};

use super::Copied;
use crate::caches::local_directory;
use crate::cli::Failure;

/// How many objects are registered together.
const BATCH: usize = 64;

/// What kind of place an argument names.
pub(super) enum Place {
    /// The home of a store.
    Store(PathBuf),
    /// A binary cache, or a directory that can become one.
    Cache,
}

impl Place {
    pub(super) fn of(argument: &str) -> Self {
        let directory = if argument.contains("://") { None } else { local_directory(argument) };
        match directory.filter(|directory| directory.join("db/store.sqlite").is_file()) {
            Some(home) => Self::Store(home),
            None => Self::Cache,
        }
    }
}

pub(super) fn open(home: &Path) -> Result<LocalStore, Failure> {
    LocalStore::open(home, StoreDir::default())
        .map_err(|error| Failure::from_error(&error).context(format!("cannot open the store in `{}`", home.display())))
}

/// Copies objects; each is hashed on the way, and one that is not what was registered is not passed on.
pub(super) fn copy(from: &LocalStore, to: &LocalStore, paths: &BTreeSet<StorePath>) -> Result<Copied, Failure> {
    let there = to.valid_paths(&paths.iter().cloned().collect::<Vec<_>>())?;
    let missing: BTreeSet<StorePath> = paths.difference(&there).cloned().collect();
    let mut copied = Copied::default();
    for batch in from.references_first(&missing)?.chunks(BATCH) {
        let mut registrations = Vec::new();
        let mut signatures = Vec::new();
        for info in batch {
            let staged = to.stage_from_path(&from.physical_path(&info.path))?;
            if staged.nar_hash() != info.nar_hash {
                return Err(Failure::new(format!(
                    "`{}` has changed since it was registered; it is not passed on",
                    from.store_dir().display(&info.path)
                ))
                .hint("`ampoule store verify` tells what else has"));
            }
            for signature in from.signatures(&info.path)? {
                signatures.push((info.path.clone(), signature));
            }
            registrations.push(Registration {
                staged,
                path: info.path.clone(),
                references: info.references.clone(),
                deriver: info.deriver.clone(),
                content_address: info.content_address.clone(),
            });
            copied.paths.push(info.path.clone());
        }
        to.register_foreign(registrations)?;
        to.add_signatures(signatures.iter().map(|(path, signature)| (path, signature)))?;
    }
    for path in paths {
        for (derivation, output) in from.realised_as(path)? {
            if to.realisation(&derivation, &output)?.is_none() {
                let records = from.provenance(&derivation, &output)?;
                let records: Vec<_> = records.into_iter().filter(|record| record.path == *path).take(1).collect();
                to.record_realisations(&records)?;
                copied.realisations += records.len();
            }
        }
    }
    Ok(copied)
}
