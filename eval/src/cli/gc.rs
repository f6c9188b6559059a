//! `ampoule gc`: deletes what nothing needs any more.

#![expect(clippy::disallowed_methods, reason = "the clock says what is old")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ampoule_derivations::aterm;
use ampoule_store::local::{Collected, DeadObject, Garbage, LocalStore, OutputsOf, Policy};
use ampoule_store::path::{StoreDir, StorePath};
use clap::ArgAction;
use serde_json::{Value, json};

use super::context::{open_store, open_to_collect};
use super::{Common, Failure, output};
use crate::realise::kept;
use crate::terminal::{Verbosity, bytes};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule gc --dry-run                        what would go, and its size
  ampoule gc                                  everything that no root reaches
  ampoule gc --older-than 30d --max-free 10G  at most about 10 GB, nothing younger than 30 days
  ampoule gc --keep-outputs                   also keep what roots were built from

Roots are `ampoule store roots`, the links of `ampoule build --out-link`, the sources of catalogs that were fetched with
`ampoule sources fetch`, and whatever running commands and programs use. Objects that they refer to stay too. It is safe to collect while
others build.")]
pub(super) struct Arguments {
    /// Say what would be deleted, and delete nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Stop when so much is freed: a number of bytes, or one with K, M, G or T
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_free: Option<u64>,
    /// Keep what was registered in this time: seconds, or a number with s, m, h, d or w
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<u64>,
    /// Keep the derivations that made live objects
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          action = ArgAction::Set)]
    keep_derivations: bool,
    /// Keep the outputs of live derivations
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, default_missing_value = "true",
          action = ArgAction::Set)]
    keep_outputs: bool,
    /// Delete what `ampoule build --keep-failed` kept longer ago than this
    #[arg(long, value_name = "AGE", value_parser = parse_age, default_value = "1d")]
    failed_older_than: u64,
    /// Delete the logs of derivations that are deleted
    #[arg(long)]
    delete_logs: bool,
    /// Print a record
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let store = if arguments.dry_run { open_store(common)? } else { open_to_collect(common)? };
    let outputs_of = |path: &StorePath, text: &[u8]| stated_outputs(store.store_dir(), path, text);
    let keep_outputs: Option<&OutputsOf<'_>> = if arguments.keep_outputs { Some(&outputs_of) } else { None };
    let policy = Policy {
        keep_derivations: arguments.keep_derivations,
        keep_outputs,
        registered_before: arguments.older_than.map(|age| now().saturating_sub_unsigned(age)),
        enough_bytes: arguments.max_free,
        delete_logs: arguments.delete_logs,
    };
    let failed = Duration::from_secs(arguments.failed_older_than);
    let failed = kept::remove_older(store.home(), failed, !arguments.dry_run)
        .map_err(|error| Failure::new(format!("cannot remove the directories of failed builds: {error}")))?;
    if common.verbosity() > Verbosity::Quiet && !arguments.json {
        let done = if arguments.dry_run { "would be deleted" } else { "deleted" };
        failed.iter().for_each(|path| output::message(&format!("{done}: failed build `{}`\n", path.display())));
    }
    if arguments.dry_run {
        return show_garbage(&store, &store.find_garbage(&policy)?, arguments.json);
    }
    let collected = store.collect_garbage(&policy, &mut |_, _| {})?;
    show_collected(common, &store, &collected, arguments.json)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// The output paths that a derivation states beforehand.
fn stated_outputs(store_dir: &StoreDir, path: &StorePath, text: &[u8]) -> Vec<StorePath> {
    let Some(derivation) = path.derivation_name().and_then(|name| aterm::parse(text, name, store_dir).ok()) else {
        return Vec::new();
    };
    let names = derivation.outputs.keys();
    names.filter_map(|name| derivation.output_path(store_dir, name).ok().flatten()).collect()
}

fn show_garbage(store: &LocalStore, garbage: &Garbage, json: bool) -> Result<(), Failure> {
    let freed = total(&garbage.objects);
    if json {
        return output::json(&json!({
            "objects": records(store, &garbage.objects),
            "derivations": displayed(store, &garbage.derivations),
            "staleLinks": garbage.stale_links,
            "bytes": freed,
            "diskBytes": garbage.disk_bytes,
            "liveObjects": garbage.live_objects,
            "liveBytes": garbage.live_bytes,
        }));
    }
    let mut text = String::new();
    for object in &garbage.objects {
        text.push_str(&format!("{:>10}  {}\n", bytes(object.nar_size), store.store_dir().display(&object.path)));
    }
    output::data(text.as_bytes())?;
    output::message(&format!(
        "{} objects ({}, on disk {}) and {} derivations would be deleted; {} objects ({}) stay\n",
        garbage.objects.len(),
        bytes(freed),
        bytes(garbage.disk_bytes),
        garbage.derivations.len(),
        garbage.live_objects,
        bytes(garbage.live_bytes),
    ));
    Ok(())
}

fn show_collected(common: &Common, store: &LocalStore, collected: &Collected, json: bool) -> Result<(), Failure> {
    let freed = total(&collected.objects);
    if json {
        return output::json(&json!({
            "objects": records(store, &collected.objects),
            "derivations": displayed(store, &collected.derivations),
            "staleLinks": collected.stale_links,
            "bytes": freed,
            "diskBytes": collected.disk_bytes,
            "leftovers": collected.leftovers,
            "logs": collected.logs,
            "downloads": collected.downloads,
            "records": collected.records,
            "databaseBytes": collected.database_bytes,
        }));
    }
    if common.verbosity() == Verbosity::Quiet {
        return Ok(());
    }
    let mut text = format!(
        "deleted {} objects ({}, on disk {}) and {} derivations\n",
        collected.objects.len(),
        bytes(freed),
        bytes(collected.disk_bytes),
        collected.derivations.len()
    );
    for link in &collected.stale_links {
        text.push_str(&format!("`{link}` is gone, and keeps nothing any more\n"));
    }
    let others = [
        (collected.leftovers, "leftovers of interrupted commands"),
        (collected.logs, "logs"),
        (collected.downloads, "downloads that nobody went on with"),
        (collected.records, "records of what is gone"),
    ];
    for (count, what) in others {
        if count > 0 {
            text.push_str(&format!("deleted {count} {what}\n"));
        }
    }
    if collected.database_bytes > 0 {
        text.push_str(&format!("the database is {} smaller\n", bytes(collected.database_bytes)));
    }
    output::message(&text);
    Ok(())
}

fn total(objects: &[DeadObject]) -> u64 {
    objects.iter().map(|object| object.nar_size).sum()
}

fn records(store: &LocalStore, objects: &[DeadObject]) -> Vec<Value> {
    let record = |object: &DeadObject| {
        json!({
            "path": store.store_dir().display(&object.path),
            "narSize": object.nar_size,
            "registrationTime": object.registered_at,
        })
    };
    objects.iter().map(record).collect()
}

fn displayed(store: &LocalStore, paths: &[StorePath]) -> Vec<String> {
    paths.iter().map(|path| store.store_dir().display(path)).collect()
}

/// `1500`, `10K`, `2G`: powers of ten, as sizes are shown.
fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_scaled(text, &[('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000), ('T', 1_000_000_000_000)])
}

/// `90`, `12h`, `30d`, in seconds.
fn parse_age(text: &str) -> Result<u64, String> {
    parse_scaled(text, &[('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)])
}

fn parse_scaled(text: &str, units: &[(char, u64)]) -> Result<u64, String> {
    let unit = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(*unit)?, *scale)));
    let (number, scale) = unit.unwrap_or((text, 1));
    let number: u64 = number.parse().map_err(|_| {
        let units: Vec<String> = units.iter().map(|(unit, _)| unit.to_string()).collect();
        format!("a whole number is wanted, alone or with one of {}", units.join(", "))
    })?;
    number.checked_mul(scale).ok_or_else(|| "it is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        assert_eq!(parse_bytes("1500"), Ok(1500));
        assert_eq!(parse_bytes("2G"), Ok(2_000_000_000));
        assert_eq!(parse_age("30d"), Ok(30 * 86_400));
        for bad in ["", "G", "-1", "1.5G", "2x", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
