//! Keeping the store whole and small.

use ampoule_store::local::{DeleteDeadError, LocalStore};
use serde_json::json;

use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

/// Commands that look after the store.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Delete objects that no root and nothing else needs
    Delete {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Hash every object again, and say what is wrong
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::Verify { json: true })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Delete { paths } => delete(&open_store(common)?, paths),
        Command::Verify { json } => verify(&open_store(common)?, *json),
    }
}

fn delete(store: &LocalStore, paths: &[String]) -> Result<(), Failure> {
    let paths = paths.iter().map(|path| store_path(store.store_dir(), path)).collect::<Result<Vec<_>, _>>()?;
    store.delete_dead(&paths).map_err(|error| {
        let alive = matches!(error, DeleteDeadError::Alive { .. });
        let failure = Failure::from(error);
        if alive { failure.hint("`ampoule store roots` lists and removes roots") } else { failure }
    })
}

fn verify(store: &LocalStore, json: bool) -> Result<(), Failure> {
    let findings = store.verify()?;
    if json {
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        output::json(&json!({ "findings": texts }))?;
    } else {
        for finding in &findings {
            output::line(&finding.to_string())?;
        }
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} things are wrong with the store `{}`", store.home().display()))
            .hint("`ampoule store delete` a broken object and build it again")),
    }
}
