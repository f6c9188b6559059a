//! Keeping the store whole and small.

use ampoule_store::local::{DeleteDeadError, LocalStore};

use crate::cli::context::open_store;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure};

/// Commands that look after the store.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Delete objects that no root and nothing else needs
    Delete {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
    },
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Delete { paths } => delete(&open_store(common)?, paths),
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
