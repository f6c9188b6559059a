//! `ampoule store`: looks into the store and moves objects in and out.

#![expect(clippy::disallowed_methods, reason = "the place a tree is restored to is opened")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ampoule_store::content_address::Method;
use ampoule_store::export::{ExportedObject, Exporter};
use ampoule_store::hash::{Algorithm, Hash, Hasher};
use ampoule_store::local::LocalStore;
use ampoule_store::nar;
use ampoule_store::path::{StorePath, name_from_file_name};
use ampoule_store::path_info::PathInfo;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::context::open_store;
use super::subject::store_path;
use super::{Common, Failure, output};

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
    /// Show what the store knows of objects
    Info {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// Print JSON: records by store path
        #[arg(long)]
        json: bool,
    },
    /// Write objects as a stream that `nix-store --import` reads
    Export {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// With everything they refer to
        #[arg(long)]
        closure: bool,
    },
    /// Delete objects that nothing else refers to
    Delete {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Hash every object again, and say what is wrong
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A hash algorithm on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AlgorithmName {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// How a hash is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Notation {
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
        matches!(self, Self::Add { json: true, .. } | Self::Info { json: true, .. } | Self::Verify { json: true })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add { paths, name, flat, algorithm, json } => {
            let method = if *flat { Method::Flat } else { Method::Nar };
            add(&open_store(common)?, paths, name.as_deref(), method, (*algorithm).into(), *json)
        }
        Command::Dump { path } => dump(common, path),
        Command::Restore { path } => restore(path),
        Command::Hash { path, flat, algorithm, format } => hash(path, *flat, (*algorithm).into(), *format),
        Command::Info { paths, json } => info(&open_store(common)?, paths, *json),
        Command::Export { paths, closure } => export(&open_store(common)?, paths, *closure),
        Command::Delete { paths } => delete(&open_store(common)?, paths),
        Command::Verify { json } => verify(&open_store(common)?, *json),
    }
}

fn add(
    store: &LocalStore,
    paths: &[PathBuf],
    name: Option<&str>,
    method: Method,
    algorithm: Algorithm,
    json: bool,
) -> Result<(), Failure> {
    if name.is_some() && paths.len() > 1 {
        return Err(Failure::new("`--name` names one object, and several were given").code(2));
    }
    let mut records = Vec::new();
    for path in paths {
        let file_name = std::path::absolute(path)?.file_name().map(OsStr::to_os_string).unwrap_or_default();
        let name = match name {
            Some(name) => name.to_owned(),
            None => name_from_file_name(&file_name.to_string_lossy()),
        };
        let staged = store.stage_from_path(path).map_err(|error| at(path, &error))?;
        let hash = store.content_hash(&staged, &name, method, algorithm).map_err(|error| at(path, &error))?;
        let info = store.add_fixed(staged, &name, &hash, method).map_err(|error| at(path, &error))?;
        if json {
            records.push(info_record(store, &info));
        } else {
            output::line(&store.store_dir().display(&info.path))?;
        }
    }
    if json { output::json(&Value::Array(records)) } else { Ok(()) }
}

fn at(path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error(error).context(format!("`{}`", path.display()))
}

fn dump(common: &Common, argument: &str) -> Result<(), Failure> {
    let inside_store = argument.starts_with(ampoule_store::path::StoreDir::default().as_str());
    let path = if inside_store {
        let store = open_store(common)?;
        store.physical_path(&valid(&store, argument)?.path)
    } else {
        PathBuf::from(argument)
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
    output::line(&notation(&hasher.finish(), format))
}

fn notation(hash: &Hash, format: Notation) -> String {
    match format {
        Notation::Sri => hash.to_sri(),
        Notation::Base16 => hash.to_hex(),
        Notation::Nix32 => hash.to_nix32(),
        Notation::Base64 => hash.to_base64(),
    }
}

/// What the store knows of a valid object.
fn valid(store: &LocalStore, argument: &str) -> Result<PathInfo, Failure> {
    let path = store_path(store.store_dir(), argument)?;
    store.path_info(&path)?.ok_or_else(|| {
        Failure::new(format!(
            "`{}` is not valid in the store `{}`",
            store.store_dir().display(&path),
            store.home().display()
        ))
    })
}

fn info(store: &LocalStore, paths: &[String], json: bool) -> Result<(), Failure> {
    let infos = paths.iter().map(|path| valid(store, path)).collect::<Result<Vec<_>, _>>()?;
    if json {
        let records = infos.iter().map(|info| (store.store_dir().display(&info.path), info_record(store, info)));
        return output::json(&Value::Object(records.collect()));
    }
    for info in &infos {
        output::data(describe(store, info).as_bytes())?;
    }
    Ok(())
}

fn describe(store: &LocalStore, info: &PathInfo) -> String {
    let dir = store.store_dir();
    let mut text = format!(
        "{}\n  on disk     {}\n  nar hash    {}\n  nar size    {}\n",
        dir.display(&info.path),
        store.physical_path(&info.path).display(),
        info.nar_hash.to_sri(),
        info.nar_size,
    );
    if let Some(address) = &info.content_address {
        text.push_str(&format!("  address     {address}\n"));
    }
    if let Some(deriver) = &info.deriver {
        text.push_str(&format!("  deriver     {}\n", dir.display(deriver)));
    }
    for reference in &info.references {
        text.push_str(&format!("  reference   {}\n", dir.display(reference)));
    }
    text
}

fn info_record(store: &LocalStore, info: &PathInfo) -> Value {
    let dir = store.store_dir();
    json!({
        "path": dir.display(&info.path),
        "onDisk": store.physical_path(&info.path),
        "narHash": info.nar_hash.to_sri(),
        "narSize": info.nar_size,
        "references": info.references.iter().map(|path| dir.display(path)).collect::<Vec<_>>(),
        "deriver": info.deriver.as_ref().map(|path| dir.display(path)),
        "ca": info.content_address.as_ref().map(ToString::to_string),
        "registrationTime": info.registered_at,
    })
}

fn export(store: &LocalStore, paths: &[String], closure: bool) -> Result<(), Failure> {
    let mut wanted: BTreeSet<StorePath> = BTreeSet::new();
    for path in paths {
        wanted.insert(valid(store, path)?.path);
    }
    if closure {
        wanted = store.closure(&wanted.into_iter().collect::<Vec<_>>())?;
    }
    let out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    let mut exporter = Exporter::new(out, store.store_dir().clone());
    for info in references_first(store, &wanted)? {
        let object = ExportedObject { path: &info.path, references: &info.references, deriver: info.deriver.as_ref() };
        exporter.object(object, |sink| {
            nar::dump(&store.physical_path(&info.path), sink).map(drop).map_err(io::Error::other)
        })?;
    }
    exporter.finish()?.flush()?;
    Ok(())
}

/// The objects in an order in which each comes after those it refers to.
fn references_first(store: &LocalStore, wanted: &BTreeSet<StorePath>) -> Result<Vec<PathInfo>, Failure> {
    let mut ordered: Vec<PathInfo> = Vec::new();
    let mut done: BTreeSet<StorePath> = BTreeSet::new();
    for start in wanted {
        let mut pending = vec![(start.clone(), false)];
        while let Some((path, references_done)) = pending.pop() {
            if done.contains(&path) {
                continue;
            }
            let info = valid(store, path.base_name())?;
            if references_done {
                done.insert(path);
                ordered.push(info);
            } else {
                let others = info.references.iter().filter(|other| **other != path && wanted.contains(other));
                let others: Vec<_> = others.map(|other| (other.clone(), false)).collect();
                pending.push((path, true));
                pending.extend(others);
            }
        }
    }
    Ok(ordered)
}

fn delete(store: &LocalStore, paths: &[String]) -> Result<(), Failure> {
    let paths = paths.iter().map(|path| store_path(store.store_dir(), path)).collect::<Result<Vec<_>, _>>()?;
    Ok(store.delete(&paths)?)
}

fn verify(store: &LocalStore, json: bool) -> Result<(), Failure> {
    let findings = store.verify()?;
    if json {
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        output::json(&json!({ "findings": texts }))?;
    } else {
        for finding in &findings {
            output::line(&finding.to_string())?;
        }
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} things are wrong with the store `{}`", store.home().display()))
            .hint("`ampoule store delete` a broken object and build it again")),
    }
}
