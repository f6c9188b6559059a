//! `ampoule store diff`: in what two objects differ.

#![expect(clippy::disallowed_methods, reason = "arguments may name files outside of the store")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::{LocalStore, Verdict};
use ampoule_store::path::StorePath;
use serde_json::json;

use super::contents::find;
use super::resolve::is_label;
use crate::audit::resolved_path;
use crate::cli::context::open_store;
use crate::cli::subject::Subjects;
use crate::cli::{Common, Failure, output};
use crate::difference::{Limits, diffoscope, structural_difference};

/// The exit code when there is a difference, as that of `diff`.
const DIFFERENT: u8 = 1;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule store diff //wheels:markupsafe[linux-arm64]     the two builds that a check found different
  ampoule store diff /nix/store/…-x /nix/store/…-y        two objects
  ampoule store diff '//wheels:idna' ./idna-3.7           what was built, and a directory
  ampoule store diff --diffoscope /nix/store/…-x /nix/store/…-y

Archives, compressed files, ELF files and texts are compared by what they hold. Exit code 1 says that there is a difference.")]
pub(in crate::cli) struct Arguments {
    /// A store path, a label, or a path of this machine; a label or derivation alone stands for two builds of it
    #[arg(value_name = "FIRST")]
    first: String,
    /// What to compare with
    #[arg(value_name = "SECOND")]
    second: Option<String>,
    /// Most differences that are shown
    #[arg(long, value_name = "N", default_value_t = Limits::default().changes)]
    most: usize,
    /// Also ask `diffoscope`, which knows more formats and must be installed
    #[arg(long)]
    diffoscope: bool,
    /// Print a record instead of text
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<u8, Failure> {
    let store = open_store(common)?;
    let (first, second) = match &arguments.second {
        Some(second) => (place(common, &store, &arguments.first)?, place(common, &store, second)?),
        None => two_builds(common, store, &arguments.first)?,
    };
    let limits = Limits { changes: arguments.most, ..Limits::default() };
    let report = structural_difference(&first, &second, &limits).map_err(|error| {
        Failure::from(error).context(format!("cannot compare `{}` and `{}`", first.display(), second.display()))
    })?;
    let other = if arguments.diffoscope { Some(diffoscope::run(&first, &second)?) } else { None };
    if arguments.json {
        let record = json!({ "first": first, "second": second, "difference": report, "diffoscope": other });
        output::json(&record)?;
    } else {
        output::data(report.to_string().as_bytes())?;
        output::data(other.unwrap_or_default().as_bytes())?;
    }
    Ok(if report.changes.is_empty() { 0 } else { DIFFERENT })
}

/// Where an argument's bytes lie: in the store, or else at a path of this machine.
fn place(common: &Common, store: &LocalStore, argument: &str) -> Result<PathBuf, Failure> {
    let is_stored = is_label(argument) || store.store_dir().split(argument).is_ok();
    if !is_stored && fs::symlink_metadata(argument).is_ok() {
        return Ok(PathBuf::from(argument));
    }
    find(common, store, argument, None)
}

/// The first build of an output, and the newest that differs from it.
fn two_builds(common: &Common, store: LocalStore, argument: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let store = Arc::new(store);
    let argument = [argument.to_owned()];
    let subjects = Subjects::find(common, &argument, || Ok(Arc::clone(&store)))?;
    for subject in &subjects.chosen {
        let mut pending = vec![&subject.derivation];
        let mut seen = BTreeSet::new();
        while let Some(path) = pending.pop() {
            if !seen.insert(path) {
                continue;
            }
            let derivation = &subjects.derivations[path];
            for output in derivation.outputs.keys() {
                if let Some((first, second)) = different_builds(&store, &subjects.derivations, path, output)? {
                    return Ok((store.physical_path(&first), store.physical_path(&second)));
                }
            }
            pending.extend(derivation.input_derivations.keys());
        }
    }
    Err(Failure::new(format!("nothing that `{}` is made of has two builds that differ in this store", argument[0]))
        .hint("name two objects, or build again and compare with `ampoule check`"))
}

/// Two valid objects that one output became, the second different from the first.
fn different_builds(
    store: &LocalStore,
    derivations: &BTreeMap<StorePath, Arc<Derivation>>,
    path: &StorePath,
    output: &str,
) -> Result<Option<(StorePath, StorePath)>, Failure> {
    let mut builds = store.provenance(path, output)?;
    if let Some(resolved) = resolved_path(store, derivations, path)? {
        builds.extend(store.provenance(&resolved, output)?);
    }
    let Some(second) = builds.iter().rev().find(|build| build.verdict == Verdict::Different) else { return Ok(None) };
    let first = builds.iter().find(|build| build.verdict != Verdict::Different && build.path != second.path);
    let Some(first) = first else { return Ok(None) };
    let both = store.is_valid(&first.path)? && store.is_valid(&second.path)?;
    Ok(both.then(|| (first.path.clone(), second.path.clone())))
}
