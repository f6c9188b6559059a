//! `ampoule store roots`: what is kept from being collected.

use ampoule_store::local::{LocalStore, Root, RootKind};
use serde_json::{Value, json};

use super::resolve::objects_and_derivations;
use crate::cli::context::open_store;
use crate::cli::{Common, Failure, output};

/// Commands on roots.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  ampoule store roots add release-7 //wheels/...        keep what was built, under a name of yours
  ampoule store roots add mine /nix/store/…-x           keep an object, with all it refers to
  ampoule store roots list
  ampoule store roots remove release-7                  the next `ampoule gc` may delete it")]
pub(in crate::cli) enum Command {
    /// Keep objects and derivations under a name; a root of that name is replaced
    Add {
        /// The root's name
        name: String,
        /// Store paths, labels, or paths of derivations
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// List roots: their names and what they keep
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove roots; nothing is deleted before the next collection
    Remove {
        /// Names, as `list` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

impl Command {
    pub(super) fn wants_json(&self) -> bool {
        matches!(self, Self::List { json: true })
    }
}

pub(super) fn run(common: &Common, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Add { name, paths } => {
            let store = open_store(common)?;
            let paths = objects_and_derivations(common, &store, paths)?;
            Ok(store.add_root(name, &paths)?)
        }
        Command::List { json } => list(&open_store(common)?, *json),
        Command::Remove { names } => remove(&open_store(common)?, names),
    }
}

fn list(store: &LocalStore, json: bool) -> Result<(), Failure> {
    let roots = store.roots()?;
    if json {
        return output::json(&Value::Array(roots.iter().map(|root| record(store, root)).collect()));
    }
    let mut text = String::new();
    for root in &roots {
        let stale = if root.kind == RootKind::Link && root.paths.is_empty() { "  (gone)" } else { "" };
        text.push_str(&format!("{}{stale}\n", root.name));
        for path in &root.paths {
            text.push_str(&format!("  {}\n", store.store_dir().display(path)));
        }
    }
    output::data(text.as_bytes())
}

fn record(store: &LocalStore, root: &Root) -> Value {
    json!({
        "name": root.name,
        "kind": root.kind,
        "paths": root.paths.iter().map(|path| store.store_dir().display(path)).collect::<Vec<_>>(),
        "createdAt": root.created_at,
    })
}

fn remove(store: &LocalStore, names: &[String]) -> Result<(), Failure> {
    let mut unknown = Vec::new();
    for name in names {
        if !store.remove_root(name)? {
            unknown.push(format!("`{name}`"));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("there is no root {}", unknown.join(", ")))
        .hint("`ampoule store roots list` shows them all"))
}
