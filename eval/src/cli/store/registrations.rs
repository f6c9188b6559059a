//! What the store knows of its objects, as text.

use std::io::{self, BufReader};

use ampoule_store::path::StorePath;
use ampoule_store::registrations;

use super::queries::valid;
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};

/// Commands on registrations.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Print what the store knows of objects, as `nix-store --dump-db` does
    DumpDb {
        /// Store paths [default: all]
        paths: Vec<String>,
    },
    /// Register objects that lie in the store but are not valid, by what `dump-db` printed, from standard input
    ///
    /// Each is hashed first. Prints the paths that are valid now and were not before.
    LoadDb,
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let store = open_store(common)?;
    match command {
        Command::DumpDb { paths } => {
            let infos = match paths.is_empty() {
                true => {
                    let all: Vec<StorePath> = store.all_paths()?.into_iter().collect();
                    let infos = all.iter().map(|path| store.path_info(path));
                    infos.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?
                }
                false => paths.iter().map(|path| valid(&store, path)).collect::<Result<Vec<_>, _>>()?,
            };
            let texts = infos.iter().map(|info| registrations::write(store.store_dir(), info));
            output::data(texts.collect::<String>().as_bytes())
        }
        Command::LoadDb => {
            let loaded = registrations::load(&store, BufReader::new(io::stdin().lock()))?;
            loaded.iter().try_for_each(|path| output::line(&store.store_dir().display(path)))
        }
    }
}
