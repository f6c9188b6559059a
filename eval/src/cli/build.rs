//! `ampoule build`: realises targets, and with `--check` proves them.

#![expect(clippy::disallowed_methods, reason = "the number of processors decides how many builds run at a time")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use ampoule_store::cache::Substituters;
use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use ampoule_store::signature::PublicKey;
use serde_json::{Value, json};

use super::caches::open_substituters;
use super::context::open_store;
use super::interrupt::exit_when_interrupted;
use super::subject::{Subject, Subjects};
use super::{Common, Failure, check, dry_run, failures, output};
use crate::realise::{Checking, How, LimitOverrides, Options, Outcomes, Realiser};
use crate::sandbox::{Embedded, Limits};
use crate::sources::FetchOptions;
use crate::sources::intern::Sources;
use crate::terminal::{Verbosity, reporter_for_stderr};

#[derive(clap::Args, Debug, Default)]
#[command(after_help = "\
Examples:
  ampoule build --check //wheels:markupsafe         every platform, built twice and compared
  ampoule build '//wheels:markupsafe[linux-arm64]'  one platform
  ampoule build --check --keep-going //wheels/...   the whole catalog
  ampoule build --offline //wheels:markupsafe       only from what the store has
  ampoule build -o result //wheels:markupsafe       with links that keep the results until they are removed

Standard output has one path for each wheel (or output); with --json a record. Everything else goes to standard error.")]
pub(super) struct Arguments {
    /// Labels, patterns, or paths of derivations
    #[arg(required = true, value_name = "LABEL")]
    labels: Vec<String>,
    /// Build everything that has no proof yet a second time, under other conditions, and compare
    #[arg(long)]
    check: bool,
    /// Let `diffoscope` explain differences too, if it is installed
    #[arg(long)]
    diffoscope: bool,
    /// Use no network: fail if a source is not in the store
    #[arg(long)]
    offline: bool,
    /// Take sources from the files of this directory first
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// Ask this binary cache before building, besides those of the configuration
    #[arg(long, value_name = "URL")]
    substituter: Vec<String>,
    /// Believe what this key signed, besides those of the configuration
    #[arg(long, value_name = "NAME:BASE64")]
    trusted_key: Vec<PublicKey>,
    /// Say what would be fetched, taken from caches and built, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Make a link to each result, which keeps it from being collected: NAME, NAME-2 and so on
    #[arg(short, long, value_name = "NAME", conflicts_with = "dry_run")]
    out_link: Option<PathBuf>,
    /// Builds at a time [default: the number of processors]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Cores each build is told to use [default: the number of processors]
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Go on with what does not need a failed build
    #[arg(short, long)]
    keep_going: bool,
    /// Keep the build directory of a build that fails, for `ampoule shell --failed`
    #[arg(short = 'K', long)]
    keep_failed: bool,
    /// Stop a build after this time; 0 for never [default: what its derivation says, else 4 hours]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Stop a build that writes nothing for this long; 0 for never [default: what its derivation says, else an hour]
    #[arg(long, value_name = "SECONDS")]
    max_silent_time: Option<u64>,
    /// Stop a build that writes more than this to its log; 0 for never [default: what its derivation says, else 64 MiB]
    #[arg(long, value_name = "BYTES")]
    max_log_size: Option<u64>,
    /// The most a build may write: outputs, /build and /tmp together
    ///
    /// [default: half of the machine's memory, at most 16 GiB: what a build writes lies in memory]
    #[arg(long, value_name = "BYTES")]
    max_output_size: Option<u64>,
    /// Processes and threads a build may have at a time [default: 8192]
    #[arg(long, value_name = "N")]
    max_processes: Option<u32>,
    /// Print a record instead of paths
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    /// Those of a command that needs the inputs of something else than a build.
    pub(super) fn for_inputs(offline: bool, from: &[PathBuf], cores: Option<u32>) -> Self {
        Self { offline, from: from.to_vec(), cores, ..Self::default() }
    }

    fn options(&self, checking: Option<Checking>) -> Options {
        let processors = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let cores = u32::try_from(processors.get()).unwrap_or(1);
        Options {
            jobs: self.jobs.unwrap_or(processors),
            cores: self.cores.filter(|cores| *cores > 0).unwrap_or(cores),
            keep_going: self.keep_going,
            check: checking.is_some(),
            checking: checking.unwrap_or_default(),
            keep_failed: self.keep_failed,
            limits: Limits {
                output_bytes: self.max_output_size.unwrap_or_else(default_output_bytes),
                processes: self.max_processes.unwrap_or(Limits::default().processes),
                ..Limits::default()
            },
            overrides: LimitOverrides {
                timeout_seconds: self.timeout,
                silence_seconds: self.max_silent_time,
                log_bytes: self.max_log_size,
            },
        }
    }
}

/// Half of the memory, but no more than the limit of an ordinary build.
fn default_output_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    let memory = system.totalram.saturating_mul(u64::from(system.mem_unit));
    Limits::default().output_bytes.min(memory / 2)
}

pub(super) fn run(
    common: &Common,
    arguments: &Arguments,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    let checking = arguments.check.then(Checking::default);
    run_checking(common, arguments, checking, false, engine)
}

/// Builds, and proves if it is said how; `lint` looks for more than a proof needs.
pub(super) fn run_checking(
    common: &Common,
    arguments: &Arguments,
    checking: Option<Checking>,
    lint: bool,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    // Before anything starts a thread.
    let engine = engine()?;
    exit_when_interrupted()?;
    let store = Arc::new(open_store(common)?);
    let subjects = Subjects::find(common, &arguments.labels, || Ok(Arc::clone(&store)))?;
    let session = Session { common, arguments, checking, store: &store, subjects, engine: &engine };
    let goals: Vec<StorePath> =
        subjects.chosen.iter().flat_map(|subject| subject.tests.iter().chain([&subject.derivation])).cloned().collect();
    if arguments.dry_run {
        let foreseen = session.realise(|realiser| realiser.foresee(&goals))??;
        return dry_run::show(common, &store, &foreseen, subjects, arguments.json).map(|()| 0);
    }
    let (outcomes, lints) = session.realise(|realiser| {
        let outcomes = realiser.realise(&goals)?;
        let lints = if lint { check::lint(realiser, &goals, &outcomes)? } else { Vec::new() };
        Ok::<_, Failure>((outcomes, lints))
    })??;
    failures::report(subjects, &outcomes, arguments.keep_going, arguments.diffoscope);
    check::report_lint(&lints);
    let links = match &arguments.out_link {
        Some(name) => make_links(&store, subjects, &outcomes, name)?,
        None => BTreeMap::new(),
    };
    if arguments.json {
        let mut record = record(&store, subjects, &outcomes, &links, arguments.diffoscope);
        record["lint"] = check::lint_record(&lints).into();
        output::json(&record)?;
    } else {
        print_paths(&store, subjects, &outcomes)?;
        summarise(common, subjects, &outcomes, checking.is_some());
    }
    Ok(outcomes.exit_code())
}

/// What it takes to realise anything.
pub(super) struct Session<'a> {
    pub(super) common: &'a Common,
    pub(super) arguments: &'a Arguments,
    pub(super) checking: Option<Checking>,
    pub(super) store: &'a LocalStore,
    pub(super) subjects: &'a Subjects,
    pub(super) engine: &'a Embedded,
}

impl Session<'_> {
    /// Does what is to be done, with everything around it.
    pub(super) fn realise<T>(&self, work: impl FnOnce(&Realiser<'_>) -> T) -> Result<T, Failure> {
        let arguments = self.arguments;
        let reporter = reporter_for_stderr(self.common.verbosity());
        let options = FetchOptions { offline: arguments.offline, from: arguments.from.clone() };
        let fetch = Sources::new(self.store, options, &*reporter);
        let substituters = match arguments.offline {
            true => Substituters::none(),
            false => open_substituters(self.store, &arguments.substituter, &arguments.trusted_key, &*reporter)?,
        };
        let result = work(&Realiser {
            store: self.store,
            derivations: &self.subjects.derivations,
            objects: &self.subjects.objects,
            engine: self.engine,
            fetch: &fetch,
            substituters: &substituters,
            reporter: &*reporter,
            options: arguments.options(self.checking),
        });
        drop(reporter);
        for failure in substituters.failures() {
            output::message(&format!("warning: a cache failed and was not asked any more: {failure}\n"));
        }
        Ok(result)
    }
}

/// Whether the member's output and all its tests were realised.
fn succeeded(subject: &Subject, outcomes: &Outcomes) -> bool {
    subject.tests.iter().chain([&subject.derivation]).all(|goal| outcomes.realised(goal).is_some())
}

/// Links to what succeeded, by label.
fn make_links(
    store: &LocalStore,
    subjects: &Subjects,
    outcomes: &Outcomes,
    name: &Path,
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut links = BTreeMap::new();
    for subject in subjects.chosen.iter().filter(|subject| succeeded(subject, outcomes)) {
        let outputs = outcomes.realised(&subject.derivation).map(|realised| &realised.outputs);
        let Some(path) = outputs.and_then(|outputs| outputs.get(&subject.output)) else { continue };
        let mut link = name.as_os_str().to_owned();
        if !links.is_empty() {
            link.push(format!("-{}", links.len() + 1));
        }
        let link = std::path::absolute(link)?;
        store.add_link(&link, path)?;
        links.insert(subject.label.clone(), link);
    }
    Ok(links)
}

fn print_paths(store: &LocalStore, subjects: &Subjects, outcomes: &Outcomes) -> Result<(), Failure> {
    for subject in subjects.chosen.iter().filter(|subject| succeeded(subject, outcomes)) {
        for file in files(store, subject, outcomes) {
            output::line(&file.display().to_string())?;
        }
    }
    Ok(())
}

/// What a person wants of a subject: its wheels, else its output as a whole.
fn files(store: &LocalStore, subject: &Subject, outcomes: &Outcomes) -> Vec<PathBuf> {
    let path = outcomes.realised(&subject.derivation).and_then(|realised| realised.outputs.get(&subject.output));
    let Some(path) = path.map(|path| store.physical_path(path)) else { return Vec::new() };
    let wheels = if subject.kind.as_deref() == Some("wheel") { wheels_in(&path) } else { Vec::new() };
    if wheels.is_empty() { vec![path] } else { wheels }
}

fn wheels_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut wheels: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "whl")).collect();
    wheels.sort();
    wheels
}

fn summarise(common: &Common, subjects: &Subjects, outcomes: &Outcomes, check: bool) {
    if common.verbosity() == Verbosity::Quiet {
        return;
    }
    for (label, reason) in &subjects.skipped {
        output::message(&format!("{label}: skipped: {reason}\n"));
    }
    for subject in subjects.chosen.iter().filter(|subject| succeeded(subject, outcomes)) {
        let Some(realised) = outcomes.realised(&subject.derivation) else { continue };
        let how = match realised.how {
            How::Found => "in the store",
            How::SharedResult => "same as an earlier build",
            How::Substituted => "from a cache",
            How::Fetched => "fetched",
            How::Built => "built",
        };
        let proof = if check && realised.proved { ", identical when built again" } else { "" };
        output::message(&format!("{}: {how}{proof}\n", subject.label));
    }
}

fn record(
    store: &LocalStore,
    subjects: &Subjects,
    outcomes: &Outcomes,
    links: &BTreeMap<String, PathBuf>,
    ask_diffoscope: bool,
) -> Value {
    let targets: Vec<Value> = subjects
        .chosen
        .iter()
        .map(|subject| {
            let realised = outcomes.realised(&subject.derivation);
            let path = realised.and_then(|realised| realised.outputs.get(&subject.output));
            json!({
                "label": subject.label,
                "derivation": store.store_dir().display(&subject.derivation),
                "success": succeeded(subject, outcomes),
                "path": path.map(|path| store.store_dir().display(path)),
                "link": links.get(&subject.label),
                "files": path.map(|_| files(store, subject, outcomes)),
                "proved": realised.map(|realised| realised.proved),
                "tests": subject.tests.iter().map(|test| store.store_dir().display(test)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let failures = failures::records(store, subjects, outcomes, ask_diffoscope);
    let skipped: Vec<Value> =
        subjects.skipped.iter().map(|(label, reason)| json!({ "label": label, "reason": reason })).collect();
    json!({ "targets": targets, "failures": failures, "skipped": skipped, "exit_code": outcomes.exit_code() })
}
