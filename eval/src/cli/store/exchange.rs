//! Objects on their way to other stores.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use ampoule_store::export::{ExportedObject, Exporter};
use ampoule_store::local::LocalStore;
use ampoule_store::nar;
use ampoule_store::path::StorePath;

use super::queries::kept;
use crate::cli::context::open_store;
use crate::cli::{Common, Failure};

/// Commands that carry objects between stores.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Write objects as a stream that `nix-store --import` reads
    Export {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// With everything they refer to
        #[arg(long)]
        closure: bool,
    },
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Export { paths, closure } => export(&open_store(common)?, paths, *closure),
    }
}

fn export(store: &LocalStore, paths: &[String], closure: bool) -> Result<(), Failure> {
    let mut wanted: BTreeSet<StorePath> = BTreeSet::new();
    for path in paths {
        wanted.insert(kept(store, path)?.path);
    }
    if closure {
        wanted = store.closure(&wanted.into_iter().collect::<Vec<_>>())?;
    }
    let out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    let mut exporter = Exporter::new(out, store.store_dir().clone());
    for info in store.references_first(&wanted)? {
        let object = ExportedObject { path: &info.path, references: &info.references, deriver: info.deriver.as_ref() };
        exporter.object(object, |sink| {
            nar::dump(&store.physical_path(&info.path), sink).map(drop).map_err(io::Error::other)
        })?;
    }
    exporter.finish()?.flush()?;
    Ok(())
}
