//! `ampoule shell`: a shell where a build stands, or where one failed.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ampoule_store::local::LocalStore;
use ampoule_store::path::StorePath;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::build::{Arguments as BuildArguments, Session};
use super::context::open_store;
use super::subject::{Subject, Subjects};
use super::{Common, ExitCode, Failure, output};
use crate::realise::kept::{Kept, kept};
use crate::realise::{self, Shell};
use crate::sandbox::{Embedded, Engine, Exit, Spec};
use crate::terminal::{Raw, Relay, Verbosity};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule shell '//wheels:markupsafe[linux-arm64]'    stand where its builder would
  ampoule shell --failed //wheels:markupsafe          where a build kept by `ampoule build --keep-failed` stopped
  ampoule shell //:hello -c 'env; ls /nix/store'      run one command there

Inputs are built or fetched first. Files, environment, user and limits are those of the build, and there is no network. What is
made there is thrown away in the end.")]
pub(super) struct Arguments {
    /// A label or the path of a derivation
    #[arg(value_name = "LABEL")]
    label: String,
    /// Run this command of the shell instead of talking to a person
    #[arg(short, long, value_name = "CMD")]
    command: Option<String>,
    /// Begin with what the last failed build left in its directory
    #[arg(long)]
    failed: bool,
    /// The shell, as the build would see it [default: bash or sh of the root file system, or the builder if it is a shell]
    #[arg(long, value_name = "PATH")]
    shell: Option<String>,
    /// Use no network: fail if a source is not in the store
    #[arg(long)]
    offline: bool,
    /// Take sources from the files of this directory first
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// Cores the build is told to use [default: the number of processors]
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
}

pub(super) fn run(
    common: &Common,
    arguments: &Arguments,
    engine: impl FnOnce() -> Result<Embedded, Failure>,
) -> Result<u8, Failure> {
    // Before anything starts a thread.
    let engine = engine()?;
    let store = Arc::new(open_store(common)?);
    let subjects = Subjects::find(common, std::slice::from_ref(&arguments.label), || Ok(Arc::clone(&store)))?;
    let [subject] = subjects.chosen.as_slice() else {
        let found: Vec<&str> = subjects.chosen.iter().map(|subject| subject.label.as_str()).collect();
        let message = format!("`{}` names {} builds, and a shell stands in one", arguments.label, found.len());
        return Err(Failure::new(message).hint(format!("choose one: {}", found.join(", "))).code(2));
    };
    let (derivation, directory) = match arguments.failed {
        true => failed_step(&store, subjects, subject).map(|(path, kept)| (path, Some(kept.path)))?,
        false => (subject.derivation.clone(), None),
    };
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let shell =
        Shell { program: arguments.shell.clone(), command: arguments.command.clone(), terminal, build: directory };
    let options = BuildArguments::for_inputs(arguments.offline, &arguments.from, arguments.cores);
    let session = Session { common, arguments: &options, checking: None, store: &store, subjects, engine: &engine };
    let spec = session.realise(|realiser| realiser.shell(&derivation, &shell).map_err(from_realise))??;
    if common.verbosity() > Verbosity::Quiet && arguments.command.is_none() {
        output::message(&welcome(subjects, &derivation));
    }
    exit_code(match terminal {
        true => in_terminal(&engine, &spec)?,
        false => {
            restore_when_told_to_stop(None)?;
            engine.run(&spec, &mut io::stdout().lock())?.exit
        }
    })
}

fn from_realise(failure: realise::Failure) -> Failure {
    let error = Failure::new(failure.message);
    match failure.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What to know before typing.
fn welcome(subjects: &Subjects, path: &StorePath) -> String {
    let derivation = &subjects.derivations[path];
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut words = vec![quote(&derivation.builder)];
    words.extend(derivation.args.iter().map(|argument| quote(&String::from_utf8_lossy(argument))));
    let text = format!("in the build environment of {}; its builder:\n{}\n", derivation.name, words.join(" "));
    crate::terminal::printable_lines(&text)
}

/// The newest failed build among the target's own derivation and all it needs.
fn failed_step(store: &LocalStore, subjects: &Subjects, subject: &Subject) -> Result<(StorePath, Kept), Failure> {
    let mut found: Option<(StorePath, Kept)> = None;
    for path in subjects.steps(subject) {
        if let Some(kept) = kept(store.home(), &path)?.pop()
            && found.as_ref().is_none_or(|(_, before)| before.since <= kept.since)
        {
            found = Some((path, kept));
        }
    }
    found.ok_or_else(|| {
        Failure::new(format!("no failed build of `{}` is kept", subject.label))
            .hint("`ampoule build --keep-failed` keeps the directory of a build that fails")
    })
}

/// Lets a person type until the shell ends.
fn in_terminal(engine: &Embedded, spec: &Spec) -> Result<Exit, Failure> {
    let raw = Arc::new(Raw::enter()?);
    restore_when_told_to_stop(Some(Arc::clone(&raw)))?;
    let mut relay = None;
    let outcome = engine.run_with_terminal(spec, &mut io::sink(), &mut |terminal| relay = Relay::start(terminal).ok());
    if let Some(relay) = relay.take() {
        relay.finish();
    }
    raw.leave();
    Ok(outcome?.exit)
}

/// Ends the process when it is told to, with the terminal as it was.
fn restore_when_told_to_stop(raw: Option<Arc<Raw>>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            raw.iter().for_each(|raw| raw.leave());
            std::process::exit(ExitCode::Interrupted as i32);
        }
    });
    Ok(())
}

/// The shell's own exit code.
fn exit_code(exit: Exit) -> Result<u8, Failure> {
    io::stdout().flush()?;
    match exit {
        Exit::Code(code) => Ok(u8::try_from(code).unwrap_or(1)),
        Exit::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(1)),
        Exit::NotStarted(reason) => Err(Failure::new(format!("the shell could not be started: {reason}"))
            .hint("name one that is there with `--shell PATH`, as the build would see it")),
        other => Err(Failure::new(format!("the shell {other}"))),
    }
}
