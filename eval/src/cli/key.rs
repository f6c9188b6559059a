//! `ampoule key`: keys that sign objects.

#![expect(clippy::disallowed_methods, reason = "a new key's file is made")]

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ampoule_store::signature::SecretKey;

use super::caches::read_key;
use super::{Failure, output};

/// Keys that sign objects, in the form of Nix's key files.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  ampoule key generate cache.example-1 cache.secret    prints the public key
  ampoule key show cache.secret                        prints it again")]
pub(super) enum Command {
    /// Make a secret key, readable by its owner alone, and print the public key
    Generate {
        /// The key's name, which signatures carry; by custom a host's, with a number
        name: String,
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Print the public key that belongs to a secret key
    Show {
        /// The secret key's file
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let key = match command {
        Command::Generate { name, file } => generate(name, file)?,
        Command::Show { file } => read_key(file)?,
    };
    output::line(&key.public().to_string())
}

fn generate(name: &str, file: &Path) -> Result<SecretKey, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::new(format!("the system has no random numbers: {error}")))?;
    let key = SecretKey::from_seed(name, &seed).map_err(|error| Failure::from_error(&error).code(2))?;
    let cannot = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot write `{}`: {error}", file.display()));
        if error.kind() == ErrorKind::AlreadyExists { failure.hint("a key is never overwritten") } else { failure }
    };
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(cannot)?;
    out.write_all(key.reveal().as_bytes()).and_then(|()| out.sync_all()).map_err(cannot)?;
    Ok(key)
}
