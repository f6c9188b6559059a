//! Hashes from one notation into another.

use ampoule_store::hash::Hash;

use super::objects::{AlgorithmName, Notation, written};
use crate::cli::{Failure, output};

/// Hashes to convert.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule store convert-hash sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73
  ampoule store convert-hash --algorithm sha1 --format base64 da39a3ee5e6b4b0d3255bfef95601890afd80709")]
pub(in crate::cli) struct Arguments {
    /// Hashes in base 16, Nix's base 32 or base 64, with or without `ALGORITHM:`, or as `ALGORITHM-BASE64`
    #[arg(required = true, value_name = "HASH")]
    hashes: Vec<String>,
    /// The algorithm of hashes that do not say it
    #[arg(long, value_enum)]
    algorithm: Option<AlgorithmName>,
    /// How to write them
    #[arg(long, value_enum, default_value_t = Notation::Sri)]
    format: Notation,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let expected = arguments.algorithm.map(Into::into);
    for text in &arguments.hashes {
        let hash = Hash::parse(text, expected).map_err(|error| Failure::from_error(&error).code(2))?;
        output::line(&written(&hash, arguments.format))?;
    }
    Ok(())
}
