//! `ampoule serve`: the local store as a binary cache.

use std::num::NonZeroUsize;
use std::path::PathBuf;

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

Standard output has the address, on one line, as soon as it answers. Anybody who reaches it can read the whole store.")]
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
    /// Connections at a time
    #[arg(long, value_name = "N", default_value = "64")]
    connections: NonZeroUsize,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    exit_when_interrupted()?;
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let store = open_store(common)?;
    let cannot = |error| Failure::new(format!("cannot listen on `{}`: {error}", arguments.listen));
    let server = Server::bind(&arguments.listen).map_err(cannot)?;
    output::line(&format!("http://{}", server.address()))?;
    let service = Service { store, key, priority: arguments.priority, threads: arguments.connections };
    Ok(server.run(service)?)
}
