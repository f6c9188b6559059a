//! What objects and derivations refer to, and who refers to them.

#![expect(clippy::disallowed_methods, reason = "looks for references in the files of objects")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ampoule_store::local::{Direction, LocalStore};
use ampoule_store::path::StorePath;
use ampoule_store::reference_scan::ReferenceScanner;
use serde_json::{Value, json};

use super::resolve::{objects_and_derivations, one};
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};
use crate::terminal::printable;

/// Questions about references.
#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List objects or derivations with everything they refer to
    #[command(after_help = "\
Examples:
  ampoule store closure //wheels:idna
  ampoule store closure /nix/store/…-x.drv        derivations and sources it needs")]
    Closure {
        /// Store paths, labels, or paths of derivations
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List what refers to objects or derivations
    Referrers {
        /// Store paths, labels, or paths of derivations
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
        /// Also what refers to those, and so on
        #[arg(long)]
        closure: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the shortest way by which one object needs another, and the files that hold the references
    #[command(after_help = "\
Example:
  ampoule store why-depends //wheels:idna /nix/store/…-x")]
    WhyDepends {
        /// What needs it: a store path, a label, or the path of a derivation
        path: String,
        /// What is needed
        needed: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what objects or derivations need as a graph in the language of Graphviz
    #[command(after_help = "\
Example:
  ampoule store graph //wheels:idna | dot -Tsvg > idna.svg")]
    Graph {
        /// Store paths, labels, or paths of derivations
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Draw what an object or a derivation needs as a tree
    Tree {
        /// A store path, a label, or the path of a derivation
        path: String,
        /// Print JSON: references by path
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Closure { json, .. }
            | Self::Referrers { json, .. }
            | Self::WhyDepends { json, .. }
            | Self::Tree { json, .. } => *json,
            Self::Graph { .. } => false,
        }
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    let store = open_store(common)?;
    match command {
        Command::Closure { paths, json } => {
            let starts = objects_and_derivations(common, &store, paths)?;
            print(&store, &store.reachable(&starts, Direction::References)?, *json)
        }
        Command::Referrers { paths, closure, json } => {
            let starts = objects_and_derivations(common, &store, paths)?;
            let mut found = BTreeSet::new();
            if *closure {
                found = store.reachable(&starts, Direction::Referrers)?;
            } else {
                for start in &starts {
                    found.extend(store.neighbours(start, Direction::Referrers)?);
                }
            }
            print(&store, &found, *json)
        }
        Command::WhyDepends { path, needed, json } => {
            let (from, to) = (one(common, &store, path)?, one(common, &store, needed)?);
            why_depends(&store, &from, &to, *json)
        }
        Command::Graph { paths } => graph(&store, &objects_and_derivations(common, &store, paths)?),
        Command::Tree { path, json } => tree(&store, &one(common, &store, path)?, *json),
    }
}

fn print(store: &LocalStore, paths: &BTreeSet<StorePath>, json: bool) -> Result<(), Failure> {
    let shown: Vec<String> = paths.iter().map(|path| store.store_dir().display(path)).collect();
    if json {
        return output::json(&json!(shown));
    }
    output::data(shown.iter().map(|path| format!("{path}\n")).collect::<String>().as_bytes())
}

fn why_depends(store: &LocalStore, from: &StorePath, to: &StorePath, json: bool) -> Result<(), Failure> {
    let dir = store.store_dir();
    let chain = shortest_chain(store, from, to)?
        .ok_or_else(|| Failure::new(format!("`{}` does not need `{}`", dir.display(from), dir.display(to))))?;
    let mut links = Vec::new();
    for pair in chain.windows(2) {
        links.push((&pair[0], &pair[1], holder(store, &pair[0], &pair[1])?));
    }
    if json {
        let record = |(referrer, reference, file): &(&StorePath, &StorePath, Option<PathBuf>)| {
            let file = file.as_ref().map(|file| file.to_string_lossy());
            json!({ "referrer": dir.display(referrer), "reference": dir.display(reference), "file": file })
        };
        return output::json(&Value::Array(links.iter().map(record).collect()));
    }
    let mut text = format!("{}\n", dir.display(from));
    for (depth, (_, reference, file)) in links.iter().enumerate() {
        let place = match file {
            Some(file) if file.as_os_str().is_empty() => String::new(),
            Some(file) => format!("{}: ", printable(&file.to_string_lossy())),
            None => String::new(),
        };
        text.push_str(&format!("{}└── {place}{}\n", "    ".repeat(depth), dir.display(reference)));
    }
    output::data(text.as_bytes())
}

/// The objects on the shortest way from one to another, both included.
fn shortest_chain(store: &LocalStore, from: &StorePath, to: &StorePath) -> Result<Option<Vec<StorePath>>, Failure> {
    let mut before: BTreeMap<StorePath, StorePath> = BTreeMap::new();
    let mut pending = VecDeque::from([from.clone()]);
    while let Some(path) = pending.pop_front() {
        if path == *to {
            let mut chain = vec![path];
            while let Some(previous) = before.get(&chain[chain.len() - 1]).filter(|_| chain[chain.len() - 1] != *from) {
                chain.push(previous.clone());
            }
            chain.reverse();
            return Ok(Some(chain));
        }
        for next in store.neighbours(&path, Direction::References)? {
            if next != *from && !before.contains_key(&next) {
                before.insert(next.clone(), path.clone());
                pending.push_back(next);
            }
        }
    }
    Ok(None)
}

/// The first file of an object that holds a reference, relative to the object; empty if the object is that file. Nothing
/// for a derivation that is no object.
fn holder(store: &LocalStore, referrer: &StorePath, reference: &StorePath) -> Result<Option<PathBuf>, Failure> {
    if !store.is_valid(referrer)? {
        return Ok(None);
    }
    let top = store.physical_path(referrer);
    let mut pending = vec![top.clone()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let mut scanner = ReferenceScanner::new([reference], None);
        if metadata.is_symlink() {
            scanner.write_all(fs::read_link(&path)?.as_os_str().as_bytes())?;
        } else if metadata.is_file() {
            io::copy(&mut File::open(&path)?, &mut scanner)?;
        } else {
            let mut inside = fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            // The first by name is looked at first.
            inside.sort_by(|a, b| b.cmp(a));
            pending.extend(inside);
        }
        let named = path != top && is_named_after(&path, reference);
        if named || !scanner.finish().found.is_empty() {
            return Ok(Some(path.strip_prefix(&top).unwrap_or(&path).to_owned()));
        }
    }
    Ok(None)
}

fn is_named_after(path: &Path, reference: &StorePath) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(reference.hash_part()))
}

/// Names of store paths have nothing in them that would have to be escaped.
fn graph(store: &LocalStore, starts: &[StorePath]) -> Result<(), Failure> {
    let mut text = "digraph G {\n".to_owned();
    for path in store.reachable(starts, Direction::References)? {
        text.push_str(&format!("\"{path}\" [label = \"{}\", shape = box];\n", path.name()));
        for reference in store.neighbours(&path, Direction::References)?.iter().filter(|other| **other != path) {
            text.push_str(&format!("\"{reference}\" -> \"{path}\";\n"));
        }
    }
    text.push_str("}\n");
    output::data(text.as_bytes())
}

/// What was drawn before is named again and marked, not drawn again.
fn tree(store: &LocalStore, top: &StorePath, json: bool) -> Result<(), Failure> {
    let dir = store.store_dir();
    if json {
        let mut record = serde_json::Map::new();
        for path in store.reachable(std::slice::from_ref(top), Direction::References)? {
            let references = store.neighbours(&path, Direction::References)?;
            let references: Vec<String> = references.iter().map(|path| dir.display(path)).collect();
            record.insert(dir.display(&path), json!(references));
        }
        return output::json(&Value::Object(record));
    }
    let mut drawn = BTreeSet::new();
    let mut text = String::new();
    // A line still to be drawn: what its branch looks like, what stands before its own branches, and what it names.
    let mut pending = vec![(String::new(), String::new(), top.clone())];
    while let Some((branch, lead, path)) = pending.pop() {
        let references = store.neighbours(&path, Direction::References)?;
        let inner: Vec<StorePath> = references.into_iter().filter(|reference| *reference != path).collect();
        let is_new = drawn.insert(path.clone());
        let mark = if is_new || inner.is_empty() { "" } else { " [...]" };
        text.push_str(&format!("{branch}{}{mark}\n", dir.display(&path)));
        if is_new {
            for (position, reference) in inner.iter().enumerate().rev() {
                let (corner, bar) =
                    if position + 1 == inner.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
                pending.push((format!("{lead}{corner}"), format!("{lead}{bar}"), reference.clone()));
            }
        }
    }
    output::data(text.as_bytes())
}
