//! `ampoule store`: looks into the store and moves objects in and out. One file for each group of commands.

mod contents;
mod convert;
mod derivers;
mod diff;
mod exchange;
mod import;
mod maintenance;
mod objects;
mod optimise;
mod queries;
mod registrations;
mod relations;
mod repair;
mod resolve;
mod roots;
mod signatures;
mod verify;

use super::{Common, Failure};
use crate::sandbox::Embedded;

/// Commands on store objects. Store paths may be written in full, as base names, or as they lie on disk.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  ampoule store add ./patches                      prints the store path, as `nix-store --add` does
  ampoule store dump ./patches > patches.nar       as `nix-store --dump`
  ampoule store restore ./copy < patches.nar
  ampoule store info /nix/store/…-patches --json
  ampoule store ls //wheels:idna                   what a built object holds
  ampoule store tree /nix/store/…-x                what it needs
  ampoule store diff /nix/store/…-x /nix/store/…-y   in what they differ
  ampoule store why-depends /nix/store/…-x /nix/store/…-y
  ampoule store export --closure /nix/store/…-x | nix-store --import
  nix-store --export /nix/store/…-x | ampoule store import
  ampoule store verify")]
pub(super) enum Command {
    #[command(flatten)]
    Objects(objects::Command),
    #[command(flatten)]
    Queries(queries::Command),
    #[command(flatten)]
    Contents(contents::Command),
    #[command(flatten)]
    Relations(relations::Command),
    /// Say in what two objects differ, inside of archives and programs too
    Diff(diff::Arguments),
    #[command(flatten)]
    Derivers(derivers::Command),
    /// Write hashes in another notation
    ConvertHash(convert::Arguments),
    #[command(flatten)]
    Registrations(registrations::Command),
    #[command(flatten)]
    Exchange(exchange::Command),
    #[command(flatten)]
    Import(import::Command),
    #[command(flatten)]
    Signatures(signatures::Command),
    #[command(flatten)]
    Maintenance(maintenance::Command),
    /// Say what is kept from being collected
    #[command(subcommand)]
    Roots(roots::Command),
    /// Delete what nothing needs any more, as `ampoule gc`
    Gc(super::gc::Arguments),
    /// Hash objects again, and say what is wrong
    Verify(verify::Arguments),
    /// Let identical files share their bytes
    Optimise(optimise::Arguments),
    /// Put good copies in the place of broken objects: from a cache, a build, a download, or a file
    Repair(repair::Arguments),
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Objects(command) => command.wants_json(),
            Self::Queries(command) => command.wants_json(),
            Self::Contents(command) => command.wants_json(),
            Self::Relations(command) => command.wants_json(),
            Self::Derivers(command) => command.wants_json(),
            Self::ConvertHash(_) | Self::Registrations(_) => false,
            Self::Roots(command) => command.wants_json(),
            Self::Diff(arguments) => arguments.json,
            Self::Gc(arguments) => arguments.json,
            Self::Exchange(_) => false,
            Self::Maintenance(command) => command.wants_json(),
            Self::Verify(arguments) => arguments.json,
            Self::Optimise(arguments) => arguments.json,
            Self::Repair(arguments) => arguments.json,
            Self::Import(command) => command.wants_json(),
            Self::Signatures(command) => command.wants_json(),
        }
    }
}

pub(super) fn run(
    common: &Common,
    command: &Command,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    let done = match command {
        Command::Diff(arguments) => return diff::run(common, arguments),
        Command::Objects(command) => objects::run(common, command),
        Command::Queries(command) => queries::run(common, command),
        Command::Contents(command) => contents::run(common, command),
        Command::Relations(command) => relations::run(common, command),
        Command::Derivers(command) => derivers::run(common, command),
        Command::ConvertHash(arguments) => convert::run(arguments),
        Command::Registrations(command) => registrations::run(common, command),
        Command::Exchange(command) => exchange::run(common, command),
        Command::Import(command) => import::run(common, command),
        Command::Signatures(command) => signatures::run(common, command),
        Command::Maintenance(command) => maintenance::run(common, command),
        Command::Roots(command) => roots::run(common, command),
        Command::Gc(arguments) => super::gc::run(common, arguments),
        Command::Verify(arguments) => verify::run(common, arguments),
        Command::Optimise(arguments) => optimise::run(common, arguments),
        Command::Repair(arguments) => repair::run(common, arguments, engine),
    };
    done.map(|()| 0)
}
