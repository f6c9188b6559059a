//! `ampoule audit`: what is known of everything that targets are made of.

#![expect(clippy::disallowed_methods, reason = "writes the page, and the clock says when")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::context::open_store;
use super::subject::Subjects;
use super::{Common, Failure, output};
use crate::audit::{Goal, Request, Scope, audit, page, table};

/// The exit code when something is refuted: the one of a build that is not reproducible.
const REFUTED: u8 = 104;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule audit //wheels:markupsafe
  ampoule audit --html audit.html //wheels/...        a page to look at and to hand on
  ampoule audit --runtime --json //images:base        what it refers to, for programs

Nothing is built: `ampoule check LABEL` proves what is unproved. Exit code 104 says that something is refuted.")]
pub(super) struct Arguments {
    /// Labels, patterns, or paths of derivations
    #[arg(required = true, value_name = "LABEL")]
    labels: Vec<String>,
    /// Look at what the outputs refer to, instead of at everything that is needed to build them
    #[arg(long)]
    runtime: bool,
    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print a record instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<u8, Failure> {
    let store = Arc::new(open_store(common)?);
    let subjects = Subjects::find(common, &arguments.labels, || Ok(Arc::clone(&store)))?;
    let mut goals = Vec::new();
    for subject in &subjects.chosen {
        let label = subject.label.clone();
        goals.push(Goal { label, derivation: subject.derivation.clone(), output: subject.output.clone() });
        // Tests are built, and so audited, but nothing refers to them.
        for test in subject.tests.iter().filter(|_| !arguments.runtime) {
            let output = subjects.derivations[test].outputs.keys().next().cloned().unwrap_or_default();
            goals.push(Goal { label: format!("{} (test)", subject.label), derivation: test.clone(), output });
        }
    }
    let request = Request {
        derivations: &subjects.derivations,
        goals: &goals,
        scope: if arguments.runtime { Scope::RunTime } else { Scope::BuildTime },
        generated_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed()),
    };
    let mut audit = audit(&store, &request)?;
    audit.goals = subjects.chosen.iter().map(|subject| subject.label.clone()).collect();
    if let Some(file) = &arguments.html {
        std::fs::write(file, page::render(&audit))
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display())))?;
        output::message(&format!("wrote {}\n", file.display()));
    }
    if arguments.json {
        output::json(&serde_json::to_value(&audit)?)?;
    } else if arguments.html.is_none() || common.verbosity() != crate::terminal::Verbosity::Quiet {
        output::data(table::render(&audit).as_bytes())?;
    }
    Ok(if audit.summary.refuted > 0 { REFUTED } else { 0 })
}
