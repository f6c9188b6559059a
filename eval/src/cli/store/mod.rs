//! `ampoule store`: looks into the store and moves objects in and out. One file for each group of commands.

mod exchange;
mod maintenance;
mod objects;
mod queries;

use super::{Common, Failure};

/// Commands on store objects. Store paths may be written in full, as base names, or as they lie on disk.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  ampoule store add ./patches                      prints the store path, as `nix-store --add` does
  ampoule store dump ./patches > patches.nar       as `nix-store --dump`
  ampoule store restore ./copy < patches.nar
  ampoule store info /nix/store/…-patches --json
  ampoule store export --closure /nix/store/…-x | nix-store --import
  ampoule store verify")]
pub(super) enum Command {
    #[command(flatten)]
    Objects(objects::Command),
    #[command(flatten)]
    Queries(queries::Command),
    #[command(flatten)]
    Exchange(exchange::Command),
    #[command(flatten)]
    Maintenance(maintenance::Command),
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Objects(command) => command.wants_json(),
            Self::Queries(command) => command.wants_json(),
            Self::Exchange(_) => false,
            Self::Maintenance(command) => command.wants_json(),
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Objects(command) => objects::run(common, command),
        Command::Queries(command) => queries::run(common, command),
        Command::Exchange(command) => exchange::run(common, command),
        Command::Maintenance(command) => maintenance::run(common, command),
    }
}
