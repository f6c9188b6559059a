//! Objects from the stream of another store.

use std::io::{self, BufReader};

use ampoule_store::import::{Credulity, ImportError, import};
use serde_json::json;

use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};

/// Takes objects from a stream.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Add the objects of a stream from standard input, as `nix-store --export` writes it, and print their paths
    Import {
        /// Take also objects that nothing vouches for: whose path does not follow from their content, and that no derivation made
        #[arg(long, conflicts_with = "strict")]
        trust: bool,
        /// Take only objects whose path follows from their content
        #[arg(long)]
        strict: bool,
        /// Print a record
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::Import { json: true, .. })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let Command::Import { trust, strict, json } = command;
    let credulity = match (trust, strict) {
        (true, _) => Credulity::Everything,
        (_, true) => Credulity::Nothing,
        _ => Credulity::NamedDerivers,
    };
    let store = open_store(common)?;
    let stream = BufReader::with_capacity(1 << 18, io::stdin().lock());
    let imported = import(&store, stream, credulity).map_err(|error| match error {
        ImportError::Unproved { .. } if !strict => Failure::from_error(&error).hint(
            "its content was tampered with, or it is an output whose derivation was forgotten: then `--trust` takes it",
        ),
        _ => Failure::from_error(&error),
    })?;
    let paths: Vec<String> = imported.iter().map(|path| store.store_dir().display(path)).collect();
    match json {
        true => output::json(&json!({ "paths": paths })),
        false => paths.iter().try_for_each(|path| output::line(path)),
    }
}
