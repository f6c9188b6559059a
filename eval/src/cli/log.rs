//! `ampoule log`: what a derivation's last build wrote.

use std::io::{IsTerminal, Read};
use std::sync::Arc;

use ampoule_store::local::{LocalStore, LogReader};
use ampoule_store::path::StorePath;

use super::context::open_store;
use super::subject::Subjects;
use super::{Common, Failure, output};
use crate::terminal::printable_lines;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  ampoule log '//wheels:markupsafe[linux-arm64]'

A wheel is made in several steps: the log of each one's last build is shown, under its derivation.")]
pub(super) struct Arguments {
    /// A label or the path of a derivation
    #[arg(value_name = "LABEL")]
    label: String,
    /// Print the bytes as they are, also to a terminal, which they could drive
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let store = Arc::new(open_store(common)?);
    let subjects = Subjects::find(common, std::slice::from_ref(&arguments.label), || Ok(Arc::clone(&store)))?;
    let harmless = !arguments.raw && std::io::stdout().is_terminal();
    let mut found = false;
    for subject in &subjects.chosen {
        let logged = logged(&store, &subjects.steps(subject))?;
        for (derivation, log) in logged.iter().filter(|(_, log)| !log.is_empty() || logged.len() == 1) {
            if logged.len() > 1 {
                output::line(&format!("==> {}", derivation.name()))?;
            }
            match harmless {
                true => output::data(printable_lines(&String::from_utf8_lossy(log)).as_bytes())?,
                false => output::data(log)?,
            }
        }
        found |= !logged.is_empty();
    }
    if found {
        return Ok(());
    }
    Err(Failure::new(format!("there is no log of `{}`", arguments.label)).hint("it has not been built in this store"))
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
