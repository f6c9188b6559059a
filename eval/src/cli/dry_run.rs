//! `ampoule build --dry-run`: what would be done.

use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use serde_json::json;

use super::subject::Subjects;
use super::{Common, Failure, output};
use crate::realise::Foreseen;
use crate::terminal::{Verbosity, bytes};

/// Lists what would be fetched, taken from caches, built and checked, and how much there is to download.
pub(super) fn show(
    common: &Common,
    store: &LocalStore,
    foreseen: &Foreseen,
    subjects: &Subjects,
    json: bool,
) -> Result<(), Failure> {
    let plan = &foreseen.plan;
    let name = |path: &StorePath| subjects.derivations[path].name.clone();
    let sources: Vec<&StorePath> = plan.fetches().filter(|path| !foreseen.substituted.contains(*path)).collect();
    let size = |path: &&StorePath| subjects.derivations[*path].env_str("size")?.parse::<u64>().ok();
    let fetch_bytes: u64 = sources.iter().filter_map(size).sum();
    let fetch: Vec<String> = sources.into_iter().map(name).collect();
    let build: Vec<String> = plan.builds().map(name).collect();
    let check: Vec<String> = plan.checks().map(name).collect();
    let objects = &foreseen.objects;
    let download: u64 = objects.iter().map(|object| object.file_size.unwrap_or(object.nar_size)).sum();
    let unpacked: u64 = objects.iter().map(|object| object.nar_size).sum();
    if json {
        let substitute = objects.iter().map(|object| {
            json!({
                "path": store.store_dir().display(&object.path),
                "downloadSize": object.file_size,
                "narSize": object.nar_size,
            })
        });
        return output::json(&json!({
            "fetch": fetch,
            "fetchBytes": fetch_bytes,
            "substitute": substitute.collect::<Vec<_>>(),
            "downloadBytes": download,
            "unpackedBytes": unpacked,
            "build": build,
            "check": check,
        }));
    }
    if common.verbosity() != Verbosity::Quiet && !objects.is_empty() {
        let (count, download, unpacked) = (objects.len(), bytes(download), bytes(unpacked));
        output::message(&format!("{count} objects from caches: {download} to download, {unpacked} unpacked\n"));
    }
    if common.verbosity() != Verbosity::Quiet && !fetch.is_empty() {
        output::message(&format!("{} sources: {} to fetch\n", fetch.len(), bytes(fetch_bytes)));
    }
    let substitute: Vec<String> = objects.iter().map(|object| store.store_dir().display(&object.path)).collect();
    let mut text = String::new();
    for (what, names) in [("fetch", fetch), ("substitute", substitute), ("build", build), ("check", check)] {
        for one in names {
            text.push_str(&format!("{what} {one}\n"));
        }
    }
    output::data(text.as_bytes())
}
