//! The command line: one file per command, one error type, data on standard output and everything else on standard error.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::sandbox::Embedded;
use crate::terminal::Verbosity;

mod audit;
mod build;
mod caches;
mod check;
mod completions;
mod context;
mod copy;
mod difference;
mod dry_run;
mod failure;
mod failures;
mod gc;
mod interrupt;
mod key;
mod log;
mod output;
#[cfg(test)]
mod reference;
mod serve;
mod shell;
mod show;
mod sources;
mod store;
mod subject;

pub use failure::{ExitCode, Failure};

/// Build wheels and sysroots from hashed inputs, in a sandbox without a network, and prove that they come out the same.
#[derive(Debug, Parser)]
#[command(name = "ampoule", version, max_term_width = 100, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ampoule build --check //wheels:markupsafe              build for every platform, twice, and compare
  ampoule build '//wheels:markupsafe[linux-arm64]'       one platform of the matrix
  ampoule show --json '//wheels:markupsafe[linux-arm64]' the derivation, for programs
  ampoule log '//wheels:markupsafe[linux-arm64]'         what its last build wrote
  ampoule sources fetch && ampoule build --offline //wheels/...

Exit codes: 0 done, 1 failed, 2 usage, 100 a build failed, 101 timed out, 102 hash mismatch, 104 not reproducible,
130 interrupted.";

/// Options of every command.
#[derive(Args, Debug)]
struct Common {
    /// Where the store lies [default: /var/lib/ampoule for root, else $XDG_DATA_HOME/ampoule]
    #[arg(long, global = true, env = "AMPOULE_HOME", value_name = "DIR", help_heading = "Global options")]
    home: Option<PathBuf>,
    /// The directory with `ampoule.toml` [default: searched upwards from here]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    root: Option<PathBuf>,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// Say more: `-v` shows what builds write, `-vv` every step
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
}

impl Common {
    fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::VeryVerbose,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build targets, and with --check prove them by building again
    Build(build::Arguments),
    /// Prove targets: build them again under other conditions, and name what decides when they differ
    Check(check::Arguments),
    /// Say what of all that targets are made of is proved, as a table or a page
    Audit(audit::Arguments),
    /// Show what a target or a derivation is made of
    Show(show::Arguments),
    /// Stand where a build stands, or where one failed, with a shell
    Shell(shell::Arguments),
    /// Print the log of a derivation's last build
    Log(log::Arguments),
    /// List, lock, fetch and verify the catalog's sources
    #[command(subcommand)]
    Sources(sources::Command),
    /// Look into the store and move objects in and out
    #[command(subcommand)]
    Store(store::Command),
    /// Delete what nothing needs any more
    Gc(gc::Arguments),
    /// Move objects with all they refer to between stores, binary caches and directories
    Copy(copy::Arguments),
    /// Serve the store as a binary cache, for stock Nix too
    Serve(serve::Arguments),
    /// Make and show keys that sign objects
    #[command(subcommand)]
    Key(key::Command),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Runs the command line `arguments` (the program's name first) and gives the process's exit code. `engine` is asked for at
/// most once, and only by commands that build.
pub fn run(arguments: impl IntoIterator<Item = OsString>, engine: impl FnOnce() -> Result<Embedded, Failure>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows their stream and their exit code.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(ExitCode::Usage as u8);
        }
    };
    let json = cli.command.wants_json();
    match dispatch(&cli.common, cli.command, engine) {
        Ok(code) => code,
        Err(failure) => {
            if json {
                output::record(&failure.to_json());
            }
            say(&failure);
            failure.exit_code()
        }
    }
}

/// Writes a failure to standard error.
pub fn say(failure: &Failure) {
    output::message(&failure.render());
}

impl Command {
    fn wants_json(&self) -> bool {
        match self {
            Self::Build(arguments) => arguments.json,
            Self::Check(arguments) => arguments.build.json,
            Self::Audit(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
            Self::Sources(command) => command.wants_json(),
            Self::Store(command) => command.wants_json(),
            Self::Gc(arguments) => arguments.json,
            Self::Copy(arguments) => arguments.json,
            Self::Shell(_) | Self::Log(_) | Self::Serve(_) | Self::Key(_) | Self::Completions(_) => false,
        }
    }
}

fn dispatch(
    common: &Common,
    command: Command,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    match command {
        Command::Build(arguments) => build::run(common, &arguments, engine),
        Command::Check(arguments) => check::run(common, &arguments, engine),
        Command::Audit(arguments) => audit::run(common, &arguments),
        Command::Show(arguments) => show::run(common, &arguments).map(|()| 0),
        Command::Shell(arguments) => shell::run(common, &arguments, engine),
        Command::Log(arguments) => log::run(common, &arguments).map(|()| 0),
        Command::Sources(command) => sources::run(common, &command).map(|()| 0),
        Command::Store(command) => store::run(common, &command, engine),
        Command::Gc(arguments) => gc::run(common, &arguments).map(|()| 0),
        Command::Copy(arguments) => copy::run(common, &arguments).map(|()| 0),
        Command::Serve(arguments) => serve::run(common, &arguments).map(|()| 0),
        Command::Key(command) => key::run(&command).map(|()| 0),
        Command::Completions(arguments) => completions::run(&arguments).map(|()| 0),
    }
}
