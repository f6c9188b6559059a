//! Keeping the store whole and small.

use ampoule_store::local::{DeleteDeadError, DeleteOptions, LocalStore};
use serde_json::json;

use crate::cli::context::open_to_collect;
use crate::cli::subject::store_path;
use crate::cli::{Common, Failure, output};

/// Commands that look after the store.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Delete objects that no root and nothing else needs
    Delete(Delete),
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Delete {
    /// Store paths
    #[arg(required = true)]
    paths: Vec<String>,
    /// Everything they refer to, too
    #[arg(long)]
    recursive: bool,
    /// Leave what has to stay where it is; without this, it is a reason to delete nothing
    #[arg(long)]
    skip_live: bool,
    /// Print a record of what was deleted
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) const fn wants_json(&self) -> bool {
        match self {
            Self::Delete(arguments) => arguments.json,
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Delete(arguments) => delete(&open_to_collect(common)?, arguments),
    }
}

fn delete(store: &LocalStore, arguments: &Delete) -> Result<(), Failure> {
    let paths = arguments.paths.iter().map(|path| store_path(store.store_dir(), path));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    let options = DeleteOptions { recursive: arguments.recursive, skip_live: arguments.skip_live };
    let deleted = store.delete_dead_with(&paths, options).map_err(|error| {
        let alive = matches!(error, DeleteDeadError::Alive { .. });
        let failure = Failure::from(error);
        if alive {
            failure.hint("`ampoule store roots` lists and removes roots; `--skip-live` deletes what else was named")
        } else {
            failure
        }
    })?;
    store.renew_reserve();
    if arguments.json {
        let deleted: Vec<String> = deleted.iter().map(|path| store.store_dir().display(path)).collect();
        return output::json(&json!({ "deleted": deleted }));
    }
    Ok(())
}
