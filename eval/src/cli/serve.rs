//! `ampoule serve`: the local store as a binary cache.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use ampoule_store::cache::Compression;

use super::caches::read_key;
use super::context::open_store;
use super::interrupt::exit_when_interrupted;
use super::{Common, Failure, output};
use crate::serve::{Server, Service};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule serve --listen 127.0.0.1:8080 --key cache.secret
  nix-store --realise /nix/store/…-x --option substituters http://127.0.0.1:8080 \\
      --option trusted-public-keys \"$(ampoule key show cache.secret)\"

Standard output has the address, on one line, as soon as it answers. Anybody who reaches it can read the whole store.
Below ADDRESS/zstd and ADDRESS/none is the same cache with archives compressed, and not.")]
pub(super) struct Arguments {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Sign what is served with the secret key in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Caches with lower numbers are asked first
    #[arg(long, value_name = "N", default_value_t = 50)]
    priority: u64,
    /// Compress archives for clients that do not ask otherwise
    #[arg(long, value_enum, default_value_t = Compressed::None)]
    compression: Compressed,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value = "64")]
    connections: NonZeroUsize,
}

/// How archives are sent.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Compressed {
    None,
    Zstd,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    exit_when_interrupted()?;
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let store = open_store(common)?;
    let cannot = |error| Failure::new(format!("cannot listen on `{}`: {error}", arguments.listen));
    let server = Server::bind(&arguments.listen).map_err(cannot)?;
    output::line(&format!("http://{}", server.address()))?;
    let compression = match arguments.compression {
        Compressed::None => Compression::None,
        Compressed::Zstd => Compression::Zstd,
    };
    let service = Service { store, key, priority: arguments.priority, compression, threads: arguments.connections };
    Ok(server.run(service)?)
}
