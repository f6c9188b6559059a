//! Makes what a person needs to stand where a build stands: its inputs, and the sandbox it would get.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ampoule_store::path::StorePath;

use super::attributes::Attributes;
use super::build::store_failure;
use super::check::is_sealed;
use super::outcome::Failure;
use super::requirements::check_requirements;
use super::sandboxed::Run;
use super::{Known, Realiser};
use crate::check::{Circumstances, sealed};
use crate::sandbox::{Builder, Bytes, Input, Limits, Root, Spec};

/// What to run in the place of a builder.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// The program, as the build sees it; else one that is there.
    pub program: Option<String>,
    /// A command for it instead of a person.
    pub command: Option<String>,
    /// Whether a person's terminal is handed over.
    pub terminal: bool,
    /// The directory of a failed build, with which `/build` begins.
    pub build: Option<PathBuf>,
}

/// Shells that are looked for in a root file system.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/sh", "/usr/bin/sh"];
/// Under this name the directory of a failed build is shown until it is copied.
const KEPT: &str = ".failed-build";

impl Realiser<'_> {
    /// Makes the inputs of a derivation valid, and gives the sandbox its builder would get, with a shell in the builder's
    /// place. Until the store is closed, the inputs are not collected.
    ///
    /// # Errors
    /// When an input cannot be had, or no shell is there.
    pub fn shell(&self, path: &StorePath, shell: &Shell) -> Result<Spec, Failure> {
        let derivation = &self.derivations[path];
        check_requirements(derivation)?;
        let inputs: Vec<StorePath> = derivation.input_derivations.keys().cloned().collect();
        let outcomes = self.realise(&inputs).map_err(|error| Failure::machine(error.to_string()))?;
        if let Some((input, failure)) = outcomes.failures().next() {
            let message = format!("`{}`, which it needs, cannot be had: {}", input.name(), failure.message);
            return Err(Failure { message, ..failure.clone() });
        }
        self.add_own_sources(path)?;
        let outputs =
            |input| outcomes.realised(input).map(|realised| (StorePath::clone(input), realised.outputs.clone()));
        let known = Known(Mutex::new(inputs.iter().filter_map(outputs).collect()));
        let resolved = self.resolve(path, derivation, &known)?;
        self.store.protect(&resolved.inputs).map_err(|error| store_failure(&error))?;
        let attributes = Attributes::of(&resolved.derivation).map_err(|error| Failure::build(error.to_string()))?;
        let ordinary = Circumstances::ordinary(self.options.cores);
        let circumstances = if is_sealed(&resolved)? { sealed(ordinary) } else { ordinary };
        let run = Run {
            store: self.store,
            engine: self.engine,
            limits: &limits(&self.options.limits),
            path: &resolved.path,
            derivation: &resolved.derivation,
            attributes: &attributes,
            inputs: &resolved.inputs,
            circumstances: &circumstances,
        };
        into_shell(run.prepare()?.spec, shell)
    }

    /// Texts and files that the derivation itself takes as sources.
    fn add_own_sources(&self, path: &StorePath) -> Result<(), Failure> {
        let wanted: BTreeSet<&StorePath> = self.derivations[path].input_sources.iter().collect();
        self.add_sources(&wanted).map_err(|error| Failure::machine(error.to_string()))
    }
}

/// A person may think as long as they like.
fn limits(usual: &Limits) -> Limits {
    Limits { timeout_seconds: u64::MAX, silence_seconds: u64::MAX, log_bytes: u64::MAX, ..usual.clone() }
}

fn into_shell(mut spec: Spec, shell: &Shell) -> Result<Spec, Failure> {
    let program = match &shell.program {
        Some(program) => program.clone(),
        None => find_shell(&spec)?,
    };
    let args: Vec<Bytes> = match &shell.command {
        Some(command) => vec!["-c".into(), command.as_str().into()],
        None if shell.terminal => vec!["-i".into()],
        None => Vec::new(),
    };
    let build = shell.build.as_ref().map(|path| {
        let target = format!("{}/{KEPT}", spec.store_dir);
        spec.inputs.push(Input { source: path.clone(), target: target.clone() });
        target
    });
    spec.builder = Builder::Shell { program, args, terminal: shell.terminal, build };
    Ok(spec)
}

/// A shell of the root file system, else the builder if that is one.
fn find_shell(spec: &Spec) -> Result<String, Failure> {
    if let Root::Tree(tree) = &spec.root
        && let Some(found) = SHELLS.iter().find(|shell| is_there(tree, shell))
    {
        return Ok((*found).to_owned());
    }
    match &spec.builder {
        Builder::Exec { program, .. } if is_shell(program) => Ok(program.clone()),
        _ => Err(Failure::machine("there is no shell in its sandbox")
            .hint("name a program of its root file system or of an input: `--shell /nix/store/...-tools/bin/sh`")),
    }
}

/// Whether there is such a file, seen from the tree as `/`. Links are taken to lead to something.
fn is_there(tree: &Path, path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or_default();
    // `/bin` is often a link to `usr/bin`.
    let within = [directory.to_owned(), format!("/usr{directory}")];
    within.iter().any(|directory| {
        let place = tree.join(directory.trim_start_matches('/'));
        rustix::fs::lstat(place.join(name)).is_ok()
    })
}

fn is_shell(program: &str) -> bool {
    matches!(program.rsplit('/').next(), Some("sh" | "bash" | "dash" | "ash" | "zsh"))
}
