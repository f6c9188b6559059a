//! What the store knows of objects.

use ampoule_store::local::{Evidence, LocalStore};
use ampoule_store::path::StorePath;
use ampoule_store::path_info::PathInfo;
use serde_json::{Map, Value, json};

use crate::check::Finding;
use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};
use crate::terminal::utc;

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
        let mut records = Map::new();
        for info in &infos {
            let mut record = info_record(store, info);
            record["proofs"] = proofs(store, &info.path)?.iter().map(|proof| proof_record(store, proof)).collect();
            records.insert(store.store_dir().display(&info.path), record);
        }
        return output::json(&Value::Object(records));
    }
    for info in &infos {
        let mut text = describe(store, info);
        for proof in proofs(store, &info.path)? {
            text.push_str(&describe_proof(&proof));
        }
        output::data(text.as_bytes())?;
    }
    Ok(())
}

/// What is known of one output that became an object.
struct Proof {
    derivation: StorePath,
    output: String,
    evidence: Evidence,
}

/// Everything that is known of what became this object.
fn proofs(store: &LocalStore, path: &StorePath) -> Result<Vec<Proof>, Failure> {
    let made_by = store.realised_as(path)?.into_iter().map(|(derivation, output)| {
        let evidence = store.evidence(&derivation, &output)?;
        Ok(Proof { derivation, output, evidence })
    });
    made_by.collect()
}

fn describe_proof(proof: &Proof) -> String {
    let Proof { derivation, output, evidence } = proof;
    let standing = evidence.standing().name();
    let mut text = format!("  {standing:<11} {derivation}, output `{output}`: ");
    match evidence.checks.last() {
        None => text.push_str("never built a second time\n"),
        Some(newest) => {
            let (rounds, engine, version) = (evidence.identical_rounds(), &newest.engine, &newest.tool_version);
            let when = utc(newest.checked_at);
            text.push_str(&format!("{rounds} identical of {}", evidence.checks.len()));
            text.push_str(&format!(", by {engine} {version} on {when}\n"));
            let finding = newest.finding.as_deref().and_then(|text| serde_json::from_str::<Finding>(text).ok());
            text.extend(finding.map(|finding| format!("              {finding}\n")));
        }
    }
    text
}

fn proof_record(store: &LocalStore, proof: &Proof) -> Value {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
    let checks = proof.evidence.checks.iter().map(|check| {
        json!({
            "round": check.round,
            "identical": check.identical,
            "first": check.first_nar_hash.to_sri(),
            "second": check.second_nar_hash.map(|hash| hash.to_sri()),
            "knobs": parsed(&check.knobs),
            "finding": check.finding.as_deref().map(parsed),
            "engine": check.engine,
            "version": check.tool_version,
            "when": check.checked_at,
        })
    });
    json!({
        "derivation": store.store_dir().display(&proof.derivation),
        "output": proof.output,
        "standing": proof.evidence.standing().name(),
        "identicalRounds": proof.evidence.identical_rounds(),
        "checks": checks.collect::<Vec<_>>(),
    })
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
