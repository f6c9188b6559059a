//! `ampoule store repair`: puts good copies in the place of broken objects.

#![expect(
    clippy::disallowed_methods,
    reason = "the number of processors decides how many cores a builder is told to use"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use ampoule_derivations::derivation::Derivation;
use ampoule_store::cache::{SubstituteError, Substituters};
use ampoule_store::local::{Durability, Finding, LocalStore, Staged, VerifyOptions};
use ampoule_store::path::StorePath;
use serde_json::json;

use crate::cli::caches::open_substituters;
use crate::cli::context::open_store;
use crate::cli::interrupt::exit_when_interrupted;
use crate::cli::subject::{Subjects, store_path};
use crate::cli::{Common, Failure, output};
use crate::realise::{Checking, Fetch, LimitOverrides, Options, Realiser};
use crate::reporter::Reporter;
use crate::sandbox::{Embedded, Limits};
use crate::sources::FetchOptions;
use crate::sources::intern::Sources;
use crate::terminal::reporter_for_stderr;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
A copy replaces a broken object only if its archive has the hash that was registered.

Examples:
  ampoule store repair --all                           verifies the store, and repairs what is broken
  ampoule store repair /nix/store/…-markupsafe         takes it from a cache, or builds it again
  ampoule store repair /nix/store/…-patches --from ./patches")]
pub(in crate::cli) struct Arguments {
    /// Store paths
    #[arg(required_unless_present = "all")]
    paths: Vec<String>,
    /// Verify the store, and repair whatever is broken
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    /// Take the copy from this file or tree
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    from: Option<PathBuf>,
    /// Ask this binary cache before building again, besides those of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "from")]
    substituter: Vec<String>,
    /// Use no network, and ask no caches
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(
    common: &Common,
    arguments: &Arguments,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<(), Failure> {
    if arguments.from.is_some() && arguments.paths.len() != 1 {
        return Err(Failure::new("`--from` has the content of one object, and several were given").code(2));
    }
    // Before anything starts a thread. Where there can be no sandbox, caches can still help.
    let engine = arguments.from.is_none().then(engine);
    exit_when_interrupted()?;
    let store = open_store(common)?;
    let paths = arguments.paths.iter().map(|path| store_path(store.store_dir(), path));
    let paths = paths.collect::<Result<BTreeSet<_>, _>>()?;
    let only = (!arguments.all).then_some(paths);
    let findings = store.verify_some(&VerifyOptions { only, ..VerifyOptions::default() })?.findings;
    let mut repaired = restore_metadata(&store, &findings)?;
    let mut broken: BTreeSet<StorePath> = findings.iter().filter_map(|finding| finding.broken().cloned()).collect();
    if let (Some(from), Some(path)) = (&arguments.from, broken.first().cloned()) {
        store.repair(&path, store.stage_from_path(from)?)?;
        repaired.extend(broken.pop_first());
    }
    let reporter = reporter_for_stderr(common.verbosity());
    let mut failures = BTreeMap::new();
    if let Some(engine) = &engine
        && !broken.is_empty()
    {
        let substituters = match arguments.offline {
            true => Substituters::none(),
            false => open_substituters(&store, &arguments.substituter, &[], &*reporter)?,
        };
        let (reporter, offline) = (&*reporter, arguments.offline);
        let workshop = Workshop { common, store: &store, engine, substituters, reporter, offline };
        failures = workshop.repair_all(&mut broken, &mut repaired);
    }
    drop(reporter);
    report(arguments, &store, &repaired, &failures)
}

fn restore_metadata(store: &LocalStore, findings: &[Finding]) -> Result<BTreeSet<StorePath>, Failure> {
    let mut repaired = BTreeSet::new();
    for finding in findings {
        if let Finding::Irregular { path, .. } = finding {
            store.restore_metadata(path)?;
            repaired.insert(path.clone());
        }
    }
    Ok(repaired)
}

fn report(
    arguments: &Arguments,
    store: &LocalStore,
    repaired: &BTreeSet<StorePath>,
    failures: &BTreeMap<StorePath, Failure>,
) -> Result<(), Failure> {
    let shown = |path: &StorePath| store.store_dir().display(path);
    if arguments.json {
        output::json(&json!({
            "repaired": repaired.iter().map(shown).collect::<Vec<_>>(),
            "failures": failures.iter().map(|(path, failure)| (shown(path), failure.to_json())).collect::<BTreeMap<_, _>>(),
        }))?;
    } else {
        for path in repaired {
            output::line(&shown(path))?;
        }
    }
    let Some((path, failure)) = failures.iter().next() else { return Ok(()) };
    for (path, failure) in failures.iter().skip(1) {
        output::message(&format!("`{}` is still broken: {}\n", shown(path), message(failure)));
    }
    Err(Failure::new(format!("`{}` is still broken: {}", shown(path), message(failure)))
        .hint("`ampoule store repair PATH --from FILE` takes the content from elsewhere"))
}

/// What is needed to make things again.
struct Workshop<'a> {
    common: &'a Common,
    store: &'a LocalStore,
    engine: &'a Result<Embedded, Failure>,
    substituters: Substituters,
    reporter: &'a dyn Reporter,
    offline: bool,
}

impl Workshop<'_> {
    /// Repairs one object after the other, and goes through those that failed again while that helps: one may be made from
    /// another.
    fn repair_all(
        &self,
        broken: &mut BTreeSet<StorePath>,
        repaired: &mut BTreeSet<StorePath>,
    ) -> BTreeMap<StorePath, Failure> {
        loop {
            let mut failures = BTreeMap::new();
            let before = repaired.len();
            for path in std::mem::take(broken) {
                match self.repair(&path) {
                    Ok(()) => drop(repaired.insert(path)),
                    Err(failure) => drop(failures.insert(path, failure)),
                }
            }
            if failures.is_empty() || repaired.len() == before {
                return failures;
            }
            broken.extend(failures.into_keys());
        }
    }

    fn repair(&self, path: &StorePath) -> Result<(), Failure> {
        let mut last = None;
        match self
            .copy_of(path)
            .and_then(|copy| copy.map(|copy| self.store.repair(path, copy)).transpose().map_err(Failure::from))
        {
            Ok(Some(())) => return Ok(()),
            Ok(None) => {}
            Err(failure) => last = Some(failure),
        }
        for derivation in self.makers(path)? {
            match self.make(&derivation, path).and_then(|copy| Ok(self.store.repair(path, copy)?)) {
                Ok(()) => return Ok(()),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::new("no derivation is known that makes it")))
    }

    /// A copy from a cache; `None` if no cache says anything of it.
    fn copy_of(&self, path: &StorePath) -> Result<Option<Staged>, Failure> {
        let Some(registered) = self.store.registered(path)? else { return Ok(None) };
        match self.substituters.replacement(self.store, &registered) {
            Ok(copy) => Ok(Some(copy)),
            Err(SubstituteError::Unavailable { reasons, .. }) if reasons.is_empty() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The derivations that made an object, or would.
    fn makers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, Failure> {
        let made = self.store.realised_as(path)?.into_iter().map(|(derivation, _)| derivation);
        let mut makers: BTreeSet<StorePath> = made.collect();
        makers.extend(self.store.registered(path)?.and_then(|info| info.deriver));
        if makers.is_empty() {
            // What was fetched has no record: its path follows from the derivation.
            for candidate in self.store.all_derivations()? {
                let derivation = crate::cli::subject::read_derivation(self.store, &candidate)?;
                let output = derivation.output_path(self.store.store_dir(), "out");
                if derivation.fixed_output().is_some() && output.is_ok_and(|output| output.as_ref() == Some(path)) {
                    makers.insert(candidate);
                }
            }
        }
        Ok(makers)
    }

    fn make(&self, derivation: &StorePath, wanted: &StorePath) -> Result<Staged, Failure> {
        let argument = self.store.store_dir().display(derivation);
        let subjects = Subjects::find(self.common, &[argument], || Ok(Arc::new(open_store(self.common)?)))?;
        let options = || FetchOptions { offline: self.offline, from: Vec::new() };
        if subjects.derivations[derivation].builder == ampoule_derivations::builtin::FETCH {
            return self.fetch(derivation, &subjects.derivations[derivation], wanted, options());
        }
        let engine = self.engine.as_ref().map_err(|failure| Failure::new(message(failure)))?;
        let fetch = Sources::new(self.store, options(), self.reporter);
        let processors = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        // What is broken is rebuilt, not taken from where nobody checked that it is the same.
        let substituters = Substituters::none();
        let realiser = Realiser {
            store: self.store,
            derivations: &subjects.derivations,
            objects: &subjects.objects,
            engine,
            fetch: &fetch,
            substituters: &substituters,
            reporter: self.reporter,
            options: Options {
                jobs: processors,
                cores: u32::try_from(processors.get()).unwrap_or(1),
                keep_going: false,
                check: false,
                checking: Checking::default(),
                limits: Limits::default(),
                keep_failed: false,
                overrides: LimitOverrides::default(),
            },
        };
        let made = realiser.make_again(derivation).map_err(|failure| Failure::new(failure.message))?;
        let found = made.into_values().find(|object| object.path == *wanted);
        found.map(|object| object.staged).ok_or_else(|| {
            Failure::new(format!(
                "`{argument}` gives other content now",
                argument = self.store.store_dir().display(derivation)
            ))
        })
    }

    /// Fetches into a store of its own, whose bytes count for nothing until they are compared.
    fn fetch(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        wanted: &StorePath,
        options: FetchOptions,
    ) -> Result<Staged, Failure> {
        let directory = tempfile::tempdir_in(self.store.downloads())?;
        let other = LocalStore::open_with(directory.path(), self.store.store_dir().clone(), Durability::Relaxed)?;
        Sources::new(&other, options, self.reporter)
            .fetch(path, derivation)
            .map_err(|failure| Failure::new(failure.message))?;
        Ok(self.store.stage_from_path(&other.physical_path(wanted))?)
    }
}

fn message(failure: &Failure) -> String {
    failure.to_json()["error"].as_str().unwrap_or_default().to_owned()
}
