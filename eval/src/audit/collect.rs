//! Walks a closure and asks the store what it knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::local::{Direction, LocalStore, LogError, QueryError, Verdict};
use ampoule_store::path::StorePath;

use super::evidence::{evidence, resolved_path};
use super::record::{Audit, BuildRecord, Comparison, LogExcerpt, Node, OutputRecord, Refutation, Scope, Summary};
use crate::check::{Check, Culprit, Finding, OutputVerdict, Standing};
use crate::difference::{Limits, structural_difference};
use crate::terminal::printable;

/// Lines of a log that are shown.
const LOG_LINES: usize = 24;
/// Characters of such a line.
const LOG_WIDTH: usize = 400;
/// Most bytes of a log that are read.
const LOG_BYTES: u64 = 64 << 20;
/// Differences that are shown of one output.
const CHANGES: usize = 30;

/// What to audit.
pub struct Request<'a> {
    /// Every derivation that may be needed.
    pub derivations: &'a BTreeMap<StorePath, Arc<Derivation>>,
    /// What is asked for: labels with derivations and outputs.
    pub goals: &'a [Goal],
    /// Which closure to walk.
    pub scope: Scope,
    /// The present time in Unix seconds, for the record alone.
    pub generated_at: i64,
}

/// A goal of an audit.
#[derive(Clone, Debug)]
pub struct Goal {
    /// How it was asked for.
    pub label: String,
    /// Its derivation.
    pub derivation: StorePath,
    /// The output that is meant.
    pub output: String,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no output whose references could be followed.
    #[error("`{label}` has not been built in this store")]
    NotBuilt {
        /// The goal.
        label: String,
    },
}

/// What the store knows of everything that the goals are made of.
///
/// # Errors
/// When the store cannot be read, or a goal was not built whose references are asked for.
pub fn audit(store: &LocalStore, request: &Request<'_>) -> Result<Audit, AuditError> {
    let mut nodes = match request.scope {
        Scope::BuildTime => build_time(store, request)?,
        Scope::RunTime => run_time(store, request)?,
    };
    nodes.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    Ok(Audit {
        schema: 1,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        generated_at: request.generated_at,
        scope: request.scope,
        goals: request.goals.iter().map(|goal| goal.label.clone()).collect(),
        summary: Summary::of(&nodes),
        nodes,
    })
}

fn labels(request: &Request<'_>) -> BTreeMap<StorePath, Vec<String>> {
    let mut labels: BTreeMap<StorePath, Vec<String>> = BTreeMap::new();
    for goal in request.goals {
        labels.entry(goal.derivation.clone()).or_default().push(goal.label.clone());
    }
    labels
}

fn build_time(store: &LocalStore, request: &Request<'_>) -> Result<Vec<Node>, AuditError> {
    let labels = labels(request);
    let mut pending: VecDeque<&StorePath> = request.goals.iter().map(|goal| &goal.derivation).collect();
    let mut seen = BTreeSet::new();
    let mut nodes = Vec::new();
    while let Some(path) = pending.pop_front() {
        let Some(derivation) = request.derivations.get(path).filter(|_| seen.insert(path)) else { continue };
        pending.extend(derivation.input_derivations.keys());
        let inputs = derivation.input_derivations.keys().map(|input| store.store_dir().display(input)).collect();
        let outputs: Vec<&str> = derivation.outputs.keys().map(String::as_str).collect();
        let labels = labels.get(path).cloned().unwrap_or_default();
        nodes.push(node(store, request, path, &outputs, (labels, inputs))?);
    }
    Ok(nodes)
}

/// The node of a derivation, with these of its outputs.
fn node(
    store: &LocalStore,
    request: &Request<'_>,
    path: &StorePath,
    outputs: &[&str],
    (labels, inputs): (Vec<String>, Vec<String>),
) -> Result<Node, AuditError> {
    let derivation = request.derivations.get(path);
    let pinned = derivation.is_some_and(|derivation| derivation.fixed_output().is_some());
    let resolved = resolved_path(store, request.derivations, path)?;
    let names: Vec<&StorePath> = [path].into_iter().chain(&resolved).collect();
    let mut records = Vec::new();
    for output in outputs {
        let known = match derivation.map(|derivation| derivation.output_path(store.store_dir(), output)) {
            Some(Ok(Some(known))) => Some(known),
            _ => store.realisation(path, output)?,
        };
        records.push(output_record(store, evidence(store, &names, output, pinned)?, known)?);
    }
    let log = if pinned { None } else { newest_log(store, &names, &records)? };
    Ok(Node {
        path: store.store_dir().display(path),
        name: derivation.map_or_else(|| path.name().trim_end_matches(".drv").to_owned(), |one| one.name.clone()),
        labels,
        system: derivation.map(|derivation| derivation.system.clone()),
        builder: derivation.map(|derivation| derivation.builder.clone()),
        standing: records.iter().map(|record| record.standing).min().unwrap_or(Standing::Unproved),
        inputs,
        outputs: records,
        log,
    })
}

fn output_record(
    store: &LocalStore,
    verdict: OutputVerdict,
    known: Option<StorePath>,
) -> Result<OutputRecord, AuditError> {
    let dir = store.store_dir();
    let info = match &known {
        Some(path) => store.path_info(path)?,
        None => None,
    };
    let agrees = |path: &StorePath| known.as_ref() == Some(path);
    let agreeing = verdict.builds.iter().filter(|build| agrees(&build.path) && build.verdict != Verdict::Different);
    let engines: BTreeSet<String> = verdict.builds.iter().map(|build| build.engine.clone()).collect();
    let refutation = match verdict.standing {
        Standing::Refuted => Some(refutation(store, &verdict, known.as_ref())?),
        _ => None,
    };
    let builds = verdict.builds.iter().map(|build| BuildRecord {
        path: dir.display(&build.path),
        nar_hash: build.nar_hash.map(|hash| hash.to_sri()),
        engine: build.engine.clone(),
        started_at: build.started_at,
        duration_milliseconds: build.duration_milliseconds,
        log: build.log.clone(),
        verdict: build.verdict.name(),
    });
    Ok(OutputRecord {
        name: verdict.output.clone(),
        standing: verdict.standing,
        agreeing_builds: agreeing.count(),
        identical_rounds: verdict.identical_rounds,
        nar_hash: info.map(|info| info.nar_hash.to_sri()),
        engines: engines.into_iter().collect(),
        builds: builds.collect(),
        checks: verdict.checks.iter().map(comparison).collect(),
        refutation,
        path: known.map(|path| dir.display(&path)),
    })
}

fn comparison(check: &Check) -> Comparison {
    let record = &check.record;
    let knobs = serde_json::from_str(&record.knobs);
    Comparison {
        checked_at: record.checked_at,
        round: record.round,
        identical: record.identical,
        nar_hash: record.second_nar_hash.map(|hash| hash.to_sri()),
        engine: record.engine.clone(),
        tool_version: record.tool_version.clone(),
        knobs: knobs.unwrap_or_else(|_| serde_json::Value::String(record.knobs.clone())),
        finding: check.finding.clone(),
    }
}

/// In what the newest build that differs does so.
fn refutation(
    store: &LocalStore,
    verdict: &OutputVerdict,
    known: Option<&StorePath>,
) -> Result<Refutation, AuditError> {
    let finding = verdict.checks.last().and_then(|check| check.finding.clone());
    let second = verdict.builds.iter().rev().find(|build| build.verdict == Verdict::Different);
    let second = second.map(|build| &build.path).filter(|path| Some(*path) != known);
    let mut difference = None;
    if let (Some(first), Some(second)) = (known, second)
        && store.is_valid(first)?
        && store.is_valid(second)?
    {
        let limits = Limits { changes: CHANGES, ..Limits::default() };
        // One that cannot be read is shown as one that is not there.
        difference = structural_difference(&store.physical_path(first), &store.physical_path(second), &limits).ok();
    }
    let shown = |path: &StorePath| store.store_dir().display(path);
    let failed = verdict.checks.last().is_some_and(|check| check.record.second_nar_hash.is_none());
    let failure = failed.then(|| match finding.as_ref().and_then(|finding| finding.failure.as_deref()) {
        Some(why) => format!("the rebuild failed, though the first build did not: {why}"),
        None => "the rebuild failed, though the first build did not".to_owned(),
    });
    let is_sought = |finding: &&Finding| finding.culprit != Culprit::NotSought;
    Ok(Refutation {
        first: known.map(shown),
        second: second.map(shown).filter(|_| !failed),
        difference: difference.filter(|_| !failed),
        failure,
        culprit: finding.as_ref().filter(is_sought).map(ToString::to_string),
        advice: finding.map(|finding| finding.advice).unwrap_or_default(),
    })
}

/// The end of the newest log under these names, or of the build whose result is shared.
fn newest_log(
    store: &LocalStore,
    names: &[&StorePath],
    outputs: &[OutputRecord],
) -> Result<Option<LogExcerpt>, AuditError> {
    let mut found = outputs.iter().flat_map(|output| &output.builds).rev().find_map(|build| build.log.clone());
    for name in names {
        if found.is_none() {
            found = store.logs(name)?.pop();
        }
    }
    let Some(name) = found else { return Ok(None) };
    let Some(log) = store.open_log_named(&name)? else { return Ok(None) };
    let mut lines = VecDeque::new();
    let mut count = 0;
    for line in BufReader::new(log.take(LOG_BYTES)).split(b'\n') {
        // One that breaks off ends there.
        let Ok(line) = line else { break };
        count += 1;
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        let text: String = String::from_utf8_lossy(&line).chars().take(LOG_WIDTH).collect();
        lines.push_back(printable(&text));
    }
    Ok(Some(LogExcerpt { name, omitted: count - lines.len(), lines: lines.into() }))
}

fn run_time(store: &LocalStore, request: &Request<'_>) -> Result<Vec<Node>, AuditError> {
    let labels = labels(request);
    let mut starts = Vec::new();
    for goal in request.goals {
        let known = match request.derivations[&goal.derivation].output_path(store.store_dir(), &goal.output) {
            Ok(Some(known)) if store.is_valid(&known)? => Some(known),
            _ => store.realisation(&goal.derivation, &goal.output)?,
        };
        starts.push(known.ok_or_else(|| AuditError::NotBuilt { label: goal.label.clone() })?);
    }
    let objects = store.reachable(&starts, Direction::References)?;
    // Which node an object is: that of what made it, or its own.
    let mut makers = BTreeMap::new();
    for object in &objects {
        let candidates = store.realised_as(object)?;
        let known = candidates.iter().find(|(derivation, _)| labels.contains_key(derivation));
        let known = known.or_else(|| candidates.iter().find(|one| request.derivations.contains_key(&one.0)));
        makers.insert(object.clone(), known.or_else(|| candidates.first()).cloned());
    }
    let key = |object: &StorePath| match makers.get(object) {
        Some(Some((derivation, _))) => derivation.clone(),
        _ => object.clone(),
    };
    let mut members: BTreeMap<StorePath, BTreeSet<&StorePath>> = BTreeMap::new();
    for object in &objects {
        members.entry(key(object)).or_default().insert(object);
    }
    let mut nodes = Vec::new();
    for (path, objects) in &members {
        let mut inputs = BTreeSet::new();
        for object in objects {
            inputs.extend(store.neighbours(object, Direction::References)?.iter().map(key));
        }
        inputs.remove(path);
        let inputs = inputs.iter().map(|input| store.store_dir().display(input)).collect();
        let outputs: Vec<&str> =
            objects.iter().filter_map(|object| makers[*object].as_ref()).map(|maker| maker.1.as_str()).collect();
        let labels = labels.get(path).cloned().unwrap_or_default();
        let mut node = node(store, request, path, &outputs, (labels, inputs))?;
        if outputs.is_empty() {
            add_object(store, &mut node, path)?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// An object that nothing is known to have made: one whose path follows from its content is what it says.
fn add_object(store: &LocalStore, node: &mut Node, path: &StorePath) -> Result<(), AuditError> {
    let info = store.path_info(path)?;
    let addressed = info.as_ref().is_some_and(|info| info.content_address.is_some() && info.deriver.is_none());
    node.standing = if addressed { Standing::Pinned } else { Standing::Unproved };
    node.outputs.push(OutputRecord {
        name: "out".to_owned(),
        standing: node.standing,
        path: Some(store.store_dir().display(path)),
        nar_hash: info.map(|info| info.nar_hash.to_sri()),
        agreeing_builds: 0,
        identical_rounds: 0,
        engines: Vec::new(),
        builds: Vec::new(),
        checks: Vec::new(),
        refutation: None,
    });
    Ok(())
}
