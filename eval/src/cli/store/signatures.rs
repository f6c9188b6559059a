//! Who vouches for objects.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use ampoule_store::path_info::PathInfo;
use ampoule_store::signature::PublicKey;
use serde_json::json;

use super::queries::valid;
use crate::cli::caches::{read_key, trusted_keys};
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};

/// Commands about signatures.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Sign objects, so that those who trust the key take them from a cache
    Sign {
        /// The secret key's file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// With everything they refer to
        #[arg(long)]
        closure: bool,
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Say which objects neither prove themselves by their path nor are signed by a trusted key
    VerifySignatures {
        /// Trust this key, besides those of the configuration
        #[arg(long, value_name = "NAME:BASE64")]
        trusted_key: Vec<PublicKey>,
        /// With everything they refer to
        #[arg(long)]
        closure: bool,
        /// Print a record
        #[arg(long)]
        json: bool,
        /// Store paths [default: all]
        paths: Vec<String>,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::VerifySignatures { json: true, .. })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let store = open_store(common)?;
    match command {
        Command::Sign { key, closure, paths } => {
            let key = read_key(key)?;
            let mut signed = Vec::new();
            for info in chosen(&store, paths, *closure)? {
                let signature = key.sign(info.fingerprint(store.store_dir()).as_bytes());
                signed.push((info.path, signature));
            }
            Ok(store.add_signatures(signed.iter().map(|(path, signature)| (path, signature)))?)
        }
        Command::VerifySignatures { trusted_key, closure, json, paths } => {
            verify(&store, &chosen(&store, paths, *closure)?, trusted_key, *json)
        }
    }
}

fn chosen(store: &LocalStore, paths: &[String], closure: bool) -> Result<Vec<PathInfo>, Failure> {
    let mut wanted: BTreeSet<StorePath> = BTreeSet::new();
    for path in paths {
        wanted.insert(valid(store, path)?.path);
    }
    if paths.is_empty() {
        wanted = store.all_paths()?;
    } else if closure {
        wanted = store.closure(&wanted.into_iter().collect::<Vec<_>>())?;
    }
    Ok(store.references_first(&wanted)?)
}

fn verify(store: &LocalStore, infos: &[PathInfo], keys: &[PublicKey], json: bool) -> Result<(), Failure> {
    let trusted = trusted_keys(keys)?;
    let mut untrusted = Vec::new();
    for info in infos {
        let proves_itself = info.content_address.as_ref().is_some_and(|address| {
            let computed =
                store.store_dir().content_addressed_path(info.path.name(), address, &info.split_references());
            computed.as_ref() == Ok(&info.path)
        });
        let fingerprint = info.fingerprint(store.store_dir());
        if !proves_itself && !trusted.verify(fingerprint.as_bytes(), &store.signatures(&info.path)?) {
            untrusted.push(store.store_dir().display(&info.path));
        }
    }
    if json {
        output::json(&json!({ "checked": infos.len(), "untrusted": untrusted }))?;
    } else {
        untrusted.iter().try_for_each(|path| output::line(path))?;
    }
    match untrusted.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} objects are not signed by a trusted key"))),
    }
}
