//! `ampoule log`: what a derivation's last build wrote.

use std::io::Read;
use std::sync::Arc;

use ampoule_store::local::{LocalStore, LogReader};
use ampoule_store::path::StorePath;

use super::context::open_store;
use super::subject::{Subject, Subjects};
use super::{Common, Failure, output};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  ampoule log '//wheels:markupsafe[linux-arm64]'

A wheel is made in several steps: the log of each one's last build is shown, under its derivation.")]
pub(super) struct Arguments {
    /// A label or the path of a derivation
    #[arg(value_name = "LABEL")]
    label: String,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let store = Arc::new(open_store(common)?);
    let subjects = Subjects::find(common, std::slice::from_ref(&arguments.label), || Ok(Arc::clone(&store)))?;
    let mut found = false;
    for subject in &subjects.chosen {
        let logged = logged(&store, &steps(subjects, subject))?;
        for (derivation, log) in logged.iter().filter(|(_, log)| !log.is_empty() || logged.len() == 1) {
            if logged.len() > 1 {
                output::line(&format!("==> {}", derivation.name()))?;
            }
            output::data(log)?;
        }
        found |= !logged.is_empty();
    }
    if found {
        return Ok(());
    }
    Err(Failure::new(format!("there is no log of `{}`", arguments.label)).hint("it has not been built in this store"))
}

/// The derivation and all it needs that is built, inputs first, tests last.
fn steps(subjects: &Subjects, subject: &Subject) -> Vec<StorePath> {
    let mut ordered = Vec::new();
    let goals = std::iter::once(&subject.derivation).chain(&subject.tests);
    for goal in goals {
        let mut pending = vec![(goal, false)];
        while let Some((path, inputs_done)) = pending.pop() {
            let Some(derivation) = subjects.derivations.get(path) else { continue };
            if ordered.contains(path) || derivation.fixed_output().is_some() {
                continue;
            }
            if inputs_done {
                ordered.push(path.clone());
            } else {
                pending.push((path, true));
                pending.extend(derivation.input_derivations.keys().map(|input| (input, false)));
            }
        }
    }
    ordered
}

/// The newest logs of these derivations, as far as there are any.
fn logged(store: &LocalStore, steps: &[StorePath]) -> Result<Vec<(StorePath, Vec<u8>)>, Failure> {
    let mut logs = Vec::new();
    for derivation in steps {
        if let Some(mut log) = newest_log(store, derivation)? {
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            logs.push((derivation.clone(), text));
        }
    }
    Ok(logs)
}

/// The derivation's own last log, else that of the build whose result it shares.
fn newest_log(store: &LocalStore, derivation: &StorePath) -> Result<Option<LogReader>, Failure> {
    if let Some(log) = store.open_log(derivation)? {
        return Ok(Some(log));
    }
    let shared = store.provenance(derivation, "out")?.into_iter().rev().find_map(|build| build.log);
    Ok(match shared {
        Some(name) => store.open_log_named(&name)?,
        None => None,
    })
}
