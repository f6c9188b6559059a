//! What objects hold: their files, listed and printed.

#![expect(clippy::disallowed_methods, reason = "objects are files")]

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use ampoule_store::local::LocalStore;
use serde_json::{Value, json};

use super::objects::at;
use super::resolve::one;
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};
use crate::terminal::printable;

/// Commands on the files of an object.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List the files of an object
    #[command(after_help = "\
Examples:
  ampoule store ls //wheels:idna
  ampoule store ls -lR /nix/store/…-x/lib
  ampoule store ls //toolchains:gcc usr/bin")]
    Ls {
        /// A store path, also one of a file inside an object, or a label
        path: String,
        /// A file or directory inside the object
        inside: Option<PathBuf>,
        /// Show types and sizes
        #[arg(short, long)]
        long: bool,
        /// List directories inside too
        #[arg(short = 'R', long)]
        recursive: bool,
        /// Print JSON: a record for each file
        #[arg(long)]
        json: bool,
    },
    /// Print a file of an object
    #[command(after_help = "\
Example:
  ampoule store cat /nix/store/…-x/lib/os-release")]
    Cat {
        /// A store path, also one of a file inside an object, or a label
        path: String,
        /// The file inside the object
        inside: Option<PathBuf>,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::Ls { json: true, .. })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let store = open_store(common)?;
    match command {
        Command::Ls { path, inside, long, recursive, json } => {
            let top = find(common, &store, path, inside.as_deref())?;
            let found = list(&top, *recursive).map_err(|error| at(&top, &error))?;
            if *json {
                output::json(&Value::Array(found.iter().map(Listed::record).collect()))
            } else {
                print(&found, *long)
            }
        }
        Command::Cat { path, inside } => cat(&find(common, &store, path, inside.as_deref())?),
    }
}

/// Where the file lies that is meant. No link inside an object is followed.
/// Where an argument's file or object lies: a store path, also one of a file inside an object, or a label.
pub(super) fn find(
    common: &Common,
    store: &LocalStore,
    argument: &str,
    inside: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let (object, rest) = match store.store_dir().split(argument) {
        Ok((path, rest)) if !rest.is_empty() => (store.store_dir().display(&path), rest.trim_start_matches('/')),
        _ => (argument.to_owned(), ""),
    };
    let path = one(common, store, &object)?;
    if !store.is_valid(&path)? {
        return Err(
            super::resolve::not_valid(store, &path).hint("a derivation becomes a file with `ampoule show --write`")
        );
    }
    let mut place = store.physical_path(&path);
    for component in Path::new(rest).components().chain(inside.into_iter().flat_map(Path::components)) {
        match component {
            Component::Normal(name) => {
                if fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_symlink()) {
                    return Err(Failure::new(format!("`{}` is a link", place.display())));
                }
                place.push(name);
            }
            Component::CurDir => {}
            _ => return Err(Failure::new("a path inside an object has no `..` and no `/` in front").code(2)),
        }
    }
    Ok(place)
}

/// A file of an object.
struct Listed {
    /// Relative to what was asked for; empty for that itself.
    path: PathBuf,
    metadata: Metadata,
    target: Option<PathBuf>,
}

impl Listed {
    fn new(top: &Path, path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let target = if metadata.is_symlink() { Some(fs::read_link(path)?) } else { None };
        Ok(Self { path: path.strip_prefix(top).unwrap_or(path).to_owned(), metadata, target })
    }

    fn is_executable(&self) -> bool {
        self.metadata.is_file() && self.metadata.permissions().mode() & 0o100 != 0
    }

    fn record(&self) -> Value {
        let path = self.path.to_string_lossy();
        if self.metadata.is_dir() {
            json!({ "path": path, "type": "directory" })
        } else if let Some(target) = &self.target {
            json!({ "path": path, "type": "symlink", "target": target.to_string_lossy() })
        } else {
            let executable = self.is_executable();
            json!({ "path": path, "type": "regular", "size": self.metadata.len(), "executable": executable })
        }
    }
}

/// What a directory holds, by name; a file as itself.
fn list(top: &Path, recursive: bool) -> io::Result<Vec<Listed>> {
    let start = Listed::new(top, top)?;
    if !start.metadata.is_dir() {
        return Ok(vec![Listed { path: top.file_name().map(PathBuf::from).unwrap_or_default(), ..start }]);
    }
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let listed = Listed::new(top, &entry?.path())?;
            if recursive && listed.metadata.is_dir() {
                pending.push(top.join(&listed.path));
            }
            found.push(listed);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn print(found: &[Listed], long: bool) -> Result<(), Failure> {
    let mut text = String::new();
    for file in found {
        if long {
            let kind = match (file.metadata.is_dir(), file.metadata.is_symlink(), file.is_executable()) {
                (true, ..) => "dr-xr-xr-x",
                (_, true, _) => "lrwxrwxrwx",
                (_, _, true) => "-r-xr-xr-x",
                _ => "-r--r--r--",
            };
            let size = if file.metadata.is_file() { file.metadata.len() } else { 0 };
            text.push_str(&format!("{kind} {size:>12}  "));
        }
        text.push_str(&printable(&file.path.to_string_lossy()));
        if let (true, Some(target)) = (long, &file.target) {
            text.push_str(&format!(" -> {}", printable(&target.to_string_lossy())));
        }
        text.push('\n');
    }
    output::data(text.as_bytes())
}

fn cat(path: &Path) -> Result<(), Failure> {
    let metadata = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "directory" } else { "link" };
        return Err(Failure::new(format!("`{}` is a {kind}", path.display())));
    }
    let mut file = File::open(path).map_err(|error| at(path, &error))?;
    match io::copy(&mut file, &mut io::stdout().lock()) {
        // A reader that has gone away (`| head`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(at(path, &error)),
        _ => Ok(()),
    }
}
