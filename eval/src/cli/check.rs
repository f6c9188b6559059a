//! `ampoule check`: builds again under other conditions, and says what decides when something differs.

use ampoule_store::path::StorePath;
use serde_json::{Value, json};

use super::{Common, Failure, build, output};
use crate::check::Finding;
use crate::realise::{Checking, Outcomes, Realiser};
use crate::sandbox::Embedded;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule check //wheels:markupsafe                 prove every platform, and all it is made of
  ampoule check --rounds 3 //wheels/...             three rebuilds of each, every one under conditions of its own
  ampoule check --keep-going --json //wheels/...    everything, as a record
  ampoule check --lint //wheels:markupsafe          also say what depends on build path, user, umask, locale and the like

What has enough proofs is not built again. Exit code 104: something came out differently. The message then names what
decides (the culprit), where the outputs differ and where both are kept.")]
#[group(skip)]
#[command(mut_arg("check", |argument| argument.hide(true)))]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) build: build::Arguments,
    /// How many rebuilds in a row must be identical, each under conditions of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Stop at a difference: do not build more often to find out what decides
    #[arg(long)]
    no_culprit: bool,
    /// Also vary what the contract fixes, and report without failing what depends on it
    #[arg(long)]
    lint: bool,
}

pub(super) fn run(
    common: &Common,
    arguments: &Arguments,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    let checking = Checking { rounds: arguments.rounds, seek: !arguments.no_culprit };
    build::run_checking(common, &arguments.build, Some(checking), arguments.lint, engine)
}

/// What depends on what the contract fixes, of each goal that was realised.
pub(super) fn lint(
    realiser: &Realiser<'_>,
    goals: &[StorePath],
    outcomes: &Outcomes,
) -> Result<Vec<(String, Finding)>, Failure> {
    let mut found = Vec::new();
    for path in goals.iter().filter(|path| outcomes.realised(path).is_some()) {
        let name = &realiser.derivations[path].name;
        match realiser.lint(path) {
            Ok(None) => {}
            Ok(Some(finding)) => found.push((name.clone(), finding)),
            Err(failure) => return Err(Failure::new(format!("{name}: {}", failure.message))),
        }
    }
    Ok(found)
}

/// Says what was found; it is no failure.
pub(super) fn report_lint(found: &[(String, Finding)]) {
    for (name, finding) in found {
        let mut text = format!("lint: {name}: {finding}\n");
        for line in &finding.advice {
            text.push_str(&format!("hint: {line}\n"));
        }
        output::message(&text);
    }
}

/// The same for programs.
pub(super) fn lint_record(found: &[(String, Finding)]) -> Vec<Value> {
    found.iter().map(|(name, finding)| json!({ "name": name, "finding": finding })).collect()
}
