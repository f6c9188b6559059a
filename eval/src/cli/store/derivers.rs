//! Which derivations make which objects.

use std::collections::BTreeSet;

use ampoule_derivations::aterm;
use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use serde_json::{Map, Value, json};

use super::queries::valid;
use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

/// Questions about derivations and what they made.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List the outputs of derivations, as far as it is known what they are
    Outputs {
        /// Paths of derivations
        #[arg(required = true, value_name = "DERIVATION")]
        derivations: Vec<String>,
        /// Print JSON: paths by output, by derivation
        #[arg(long)]
        json: bool,
    },
    /// List the derivations that the store has and that made objects, or would make them
    Derivers {
        /// Store paths
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
        /// Print JSON: derivations by path
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Outputs { json, .. } | Self::Derivers { json, .. } => *json,
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let store = open_store(common)?;
    match command {
        Command::Outputs { derivations, json } => outputs(&store, derivations, *json),
        Command::Derivers { paths, json } => derivers(&store, paths, *json),
    }
}

fn outputs(store: &LocalStore, arguments: &[String], json: bool) -> Result<(), Failure> {
    let dir = store.store_dir();
    let mut record = Map::new();
    for argument in arguments {
        let path = store_path(dir, argument)?;
        let derivation = read(store, &path)?.ok_or_else(|| {
            Failure::new(format!("the store `{}` has no derivation `{}`", store.home().display(), dir.display(&path)))
        })?;
        let mut known = Map::new();
        for name in derivation.outputs.keys() {
            let stated = derivation.output_path(dir, name)?;
            let output = match stated {
                Some(stated) => Some(stated),
                None => store.realisation(&path, name)?,
            };
            if let (Some(output), false) = (&output, json) {
                output::line(&dir.display(output))?;
            }
            known.insert(name.clone(), json!(output.map(|output| dir.display(&output))));
        }
        record.insert(dir.display(&path), Value::Object(known));
    }
    if json { output::json(&Value::Object(record)) } else { Ok(()) }
}

fn derivers(store: &LocalStore, arguments: &[String], json: bool) -> Result<(), Failure> {
    let dir = store.store_dir();
    let mut record = Map::new();
    for argument in arguments {
        let info = valid(store, argument)?;
        let made = store.realised_as(&info.path)?.into_iter().map(|(derivation, _)| derivation);
        let found: BTreeSet<StorePath> = made.chain(info.deriver).collect();
        let mut known = Vec::new();
        for derivation in found {
            if store.knows_derivation(&derivation)? || store.is_valid(&derivation)? {
                known.push(dir.display(&derivation));
            }
        }
        if !json {
            known.iter().try_for_each(|path| output::line(path))?;
        }
        record.insert(dir.display(&info.path), json!(known));
    }
    if json { output::json(&Value::Object(record)) } else { Ok(()) }
}

fn read(store: &LocalStore, path: &StorePath) -> Result<Option<Derivation>, Failure> {
    let Some(bytes) = store.derivation(path)? else { return Ok(None) };
    let Some(name) = path.name().strip_suffix(".drv") else { return Ok(None) };
    Ok(Some(aterm::parse(&bytes, name, store.store_dir())?))
}
