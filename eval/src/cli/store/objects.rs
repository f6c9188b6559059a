//! Objects and archives: into the store, out of it, and their hashes.

#![expect(clippy::disallowed_methods, reason = "the place a tree is restored to is opened")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ampoule_store::content_address::Method;
use ampoule_store::hash::{Algorithm, Hash, Hasher};
use ampoule_store::local::{Added, Intent, LocalStore, Source};
use ampoule_store::nar;
use ampoule_store::path::{StoreDir, StorePath, name_from_file_name};
use clap::ValueEnum;
use serde_json::Value;

use super::queries::{info_record, kept};
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};

/// So many objects become durable and valid at once.
const BATCH: usize = 10_000;

/// Commands on objects and archives.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Copy files or trees into the store, and print their store paths
    Add {
        /// What to add
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// The object's name [default: the file's name]
        #[arg(long)]
        name: Option<String>,
        /// Address a file by its bytes alone, not by its archive
        #[arg(long)]
        flat: bool,
        /// The hash the path follows from
        #[arg(long, value_enum, default_value_t = AlgorithmName::Sha256)]
        algorithm: AlgorithmName,
        /// Let its files share the bytes of identical ones in the store
        #[arg(long)]
        optimise: bool,
        /// Print records instead of paths
        #[arg(long)]
        json: bool,
    },
    /// Write the NAR archive of a store object, or of any file or tree, to standard output
    Dump {
        /// A store path, or a path of the file system
        path: String,
    },
    /// Unpack a NAR archive from standard input
    Restore {
        /// Where to; must not exist
        path: PathBuf,
    },
    /// Print the hash of a file's or tree's archive
    Hash {
        /// A path of the file system
        path: PathBuf,
        /// Hash a file's bytes, not its archive
        #[arg(long)]
        flat: bool,
        /// The algorithm
        #[arg(long, value_enum, default_value_t = AlgorithmName::Sha256)]
        algorithm: AlgorithmName,
        /// How to write it
        #[arg(long, value_enum, default_value_t = Notation::Sri)]
        format: Notation,
    },
}

/// A hash algorithm on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum AlgorithmName {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// How a hash is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Notation {
    Sri,
    Base16,
    Nix32,
    Base64,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Md5 => Self::Md5,
            AlgorithmName::Sha1 => Self::Sha1,
            AlgorithmName::Sha256 => Self::Sha256,
            AlgorithmName::Sha512 => Self::Sha512,
        }
    }
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::Add { json: true, .. })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add { paths, name, flat, algorithm, optimise, json } => {
            let method = if *flat { Method::Flat } else { Method::Nar };
            let store = open_store(common)?;
            let added = add(&store, paths, name.as_deref(), method, (*algorithm).into(), *json)?;
            if *optimise {
                store.optimise(Some(&added), Intent::Share)?;
            }
            Ok(())
        }
        Command::Dump { path } => dump(common, path),
        Command::Restore { path } => restore(path),
        Command::Hash { path, flat, algorithm, format } => hash(path, *flat, (*algorithm).into(), *format),
    }
}

fn add(
    store: &LocalStore,
    paths: &[PathBuf],
    name: Option<&str>,
    method: Method,
    algorithm: Algorithm,
    json: bool,
) -> Result<Vec<StorePath>, Failure> {
    if name.is_some() && paths.len() > 1 {
        return Err(Failure::new("`--name` names one object, and several were given").code(2));
    }
    let (mut records, mut added) = (Vec::new(), Vec::new());
    for batch in paths.chunks(BATCH) {
        let sources = batch.iter().map(|path| source(path, name)).collect::<io::Result<Vec<Source>>>()?;
        let Added { infos, error } = store.add_paths(&sources, method, algorithm);
        let failed = error.map(|error| at(&batch[infos.len()], &error));
        if json {
            records.extend(infos.iter().map(|info| info_record(store, info)));
        } else {
            let lines: String = infos.iter().map(|info| store.store_dir().display(&info.path) + "\n").collect();
            output::data(lines.as_bytes())?;
        }
        added.extend(infos.into_iter().map(|info| info.path));
        if let Some(failure) = failed {
            return Err(failure);
        }
    }
    if json {
        output::json(&Value::Array(records))?;
    }
    Ok(added)
}

fn source(path: &Path, name: Option<&str>) -> io::Result<Source> {
    let file_name = std::path::absolute(path)?.file_name().map(OsStr::to_os_string).unwrap_or_default();
    let name = name.map_or_else(|| name_from_file_name(&file_name.to_string_lossy()), str::to_owned);
    Ok(Source { path: path.to_owned(), name })
}

pub(super) fn at(path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error(error).context(format!("`{}`", path.display()))
}

fn dump(common: &Common, argument: &str) -> Result<(), Failure> {
    let inside_store = argument.starts_with(StoreDir::default().as_str());
    // Open until the end: it keeps the object.
    let store = inside_store.then(|| open_store(common)).transpose()?;
    let path = match &store {
        Some(store) => store.physical_path(&kept(store, argument)?.path),
        None => PathBuf::from(argument),
    };
    let mut out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    nar::dump(&path, &mut out).map_err(|error| at(&path, &error))?;
    out.flush()?;
    Ok(())
}

fn restore(path: &Path) -> Result<(), Failure> {
    let (Some(name), parent) = (path.file_name(), path.parent()) else {
        return Err(Failure::new(format!("`{}` names no new file or directory", path.display())).code(2));
    };
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(|error| at(parent, &error))?;
    nar::restore(io::stdin().lock(), directory.as_fd(), name).map_err(|error| at(path, &error))?;
    Ok(())
}

fn hash(path: &Path, flat: bool, algorithm: Algorithm, format: Notation) -> Result<(), Failure> {
    let mut hasher = Hasher::new(algorithm);
    if flat {
        io::copy(&mut File::open(path).map_err(|error| at(path, &error))?, &mut hasher)
            .map_err(|error| at(path, &error))?;
    } else {
        nar::dump(path, &mut hasher).map_err(|error| at(path, &error))?;
    }
    output::line(&written(&hasher.finish(), format))
}

pub(super) fn written(hash: &Hash, format: Notation) -> String {
    match format {
        Notation::Sri => hash.to_sri(),
        Notation::Base16 => hash.to_hex(),
        Notation::Nix32 => hash.to_nix32(),
        Notation::Base64 => hash.to_base64(),
    }
}
