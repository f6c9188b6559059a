//! What the store knows of objects.

use ampoule_store::local::LocalStore;
use ampoule_store::path_info::PathInfo;
use serde_json::{Value, json};

use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

/// Questions to the store.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Show what the store knows of objects
    Info {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// Print JSON: records by store path
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Info { json, .. } => *json,
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Info { paths, json } => info(&open_store(common)?, paths, *json),
    }
}

/// What the store knows of a valid object.
pub(super) fn valid(store: &LocalStore, argument: &str) -> Result<PathInfo, Failure> {
    let path = store_path(store.store_dir(), argument)?;
    store.path_info(&path)?.ok_or_else(|| {
        Failure::new(format!(
            "`{}` is not valid in the store `{}`",
            store.store_dir().display(&path),
            store.home().display()
        ))
    })
}

/// As [`valid`], and keeps the object from being collected while it is read.
pub(super) fn kept(store: &LocalStore, argument: &str) -> Result<PathInfo, Failure> {
    store.protect([&store_path(store.store_dir(), argument)?])?;
    valid(store, argument)
}

fn info(store: &LocalStore, paths: &[String], json: bool) -> Result<(), Failure> {
    let infos = paths.iter().map(|path| valid(store, path)).collect::<Result<Vec<_>, _>>()?;
    if json {
        let records = infos.iter().map(|info| (store.store_dir().display(&info.path), info_record(store, info)));
        return output::json(&Value::Object(records.collect()));
    }
    for info in &infos {
        output::data(describe(store, info).as_bytes())?;
    }
    Ok(())
}

fn describe(store: &LocalStore, info: &PathInfo) -> String {
    let dir = store.store_dir();
    let mut text = format!(
        "{}\n  on disk     {}\n  nar hash    {}\n  nar size    {}\n",
        dir.display(&info.path),
        store.physical_path(&info.path).display(),
        info.nar_hash.to_sri(),
        info.nar_size,
    );
    if let Some(address) = &info.content_address {
        text.push_str(&format!("  address     {address}\n"));
    }
    if let Some(deriver) = &info.deriver {
        text.push_str(&format!("  deriver     {}\n", dir.display(deriver)));
    }
    for reference in &info.references {
        text.push_str(&format!("  reference   {}\n", dir.display(reference)));
    }
    text
}

pub(super) fn info_record(store: &LocalStore, info: &PathInfo) -> Value {
    let dir = store.store_dir();
    json!({
        "path": dir.display(&info.path),
        "onDisk": store.physical_path(&info.path),
        "narHash": info.nar_hash.to_sri(),
        "narSize": info.nar_size,
        "references": info.references.iter().map(|path| dir.display(path)).collect::<Vec<_>>(),
        "deriver": info.deriver.as_ref().map(|path| dir.display(path)),
        "ca": info.content_address.as_ref().map(ToString::to_string),
        "registrationTime": info.registered_at,
    })
}
