//! Runs one derivation in a sandbox: from its inputs to the staged outputs.

#![expect(clippy::disallowed_methods, reason = "the clock says when a build began")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ampoule_derivations::derivation::{Derivation, Output, output_path_name};
use ampoule_store::content_address::ContentAddress;
use ampoule_store::hash::Sha256Digest;
use ampoule_store::local::{AddFixedError, LocalStore, Registration, StageError, Staged, Workplace};
use ampoule_store::path::{StoreDir, StorePath};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::environment::{Environment, environment};
use super::outcome::{Failure, FailureKind};
use super::output_checks::{Known, OutputError, check_outputs, discards_references};
use super::references_graph::{self, Graph, GraphError};
use crate::check::Circumstances;
use crate::sandbox::{Builder, Bytes, Engine, Exit, FileSystem, Input, Limits, Outcome, Root, Spec};

/// The environment variable that names the sysroot a build runs in.
const ROOTFS: &[u8] = b"rootfs";

/// One run of a builder.
pub(super) struct Run<'a> {
    pub(super) store: &'a LocalStore,
    pub(super) engine: &'a dyn Engine,
    pub(super) limits: &'a Limits,
    /// The derivation to build, its inputs resolved.
    pub(super) path: &'a StorePath,
    pub(super) derivation: &'a Derivation,
    pub(super) attributes: &'a Attributes<'a>,
    /// The store paths of its inputs.
    pub(super) inputs: &'a BTreeSet<StorePath>,
    pub(super) circumstances: &'a Circumstances,
}

/// What a run made.
pub(super) struct Made {
    /// The outputs, ready to be registered, by name.
    pub(super) outputs: BTreeMap<String, Registration>,
    /// When it began, in seconds since 1970.
    pub(super) started_at: i64,
    /// How long it took.
    pub(super) duration: Duration,
    /// The name of its log in the store.
    pub(super) log: Option<String>,
}

/// What a builder gets.
pub(super) struct Prepared {
    pub(super) spec: Spec,
    /// Where it is told to make each output.
    scratch: BTreeMap<String, StorePath>,
    closure: BTreeSet<StorePath>,
}

impl Run<'_> {
    /// Finds everything that the builder gets.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        let scratch = self.scratch_paths()?;
        let inputs: Vec<StorePath> = self.inputs.iter().cloned().collect();
        let closure = self.store.closure(&inputs).map_err(|error| machine("find the closure of the inputs", &error))?;
        let spec = self.spec(&scratch, &closure)?;
        Ok(Prepared { spec, scratch, closure })
    }

    /// Runs the builder; its log goes to `log`. `failed` is told of the build directory of one that failed.
    pub(super) fn make(&self, log: &mut dyn Write, failed: &dyn Fn(&OwnedFd)) -> Result<Made, Failure> {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let Prepared { spec, scratch, closure } = self.prepare()?;
        // Removed with all it holds when the outputs have been copied.
        let disk = match self.circumstances.conditions.file_system {
            FileSystem::Disk => Some(self.store.workplace().map_err(|error| machine("make a directory", &error))?),
            FileSystem::Memory => None,
        };
        let disk = disk.as_ref().map(Workplace::path);
        let spec = Spec { disk, ..spec };
        let before = self.identities(&closure)?;
        let outcome = self.engine.run(&spec, log).map_err(|error| {
            let mut failure = machine("set up the sandbox", &error);
            failure.hint = error.hint().map(str::to_owned);
            failure
        })?;
        if self.identities(&closure)? != before {
            return Err(Failure::machine("an input was replaced in the store while the build used it"));
        }
        let duration = outcome.duration;
        let collected = match outcome.exit.success() {
            true => self.collect(&outcome, &scratch, closure),
            false => Err(self.exit_failure(&outcome)),
        };
        let outputs = collected.map_err(|failure| {
            outcome.build.iter().for_each(failed);
            Failure { duration, ..failure }
        })?;
        Ok(Made { outputs, started_at, duration, log: None })
    }

    /// Which files the inputs are. A build whose inputs somebody deletes meanwhile may end well, with wrong outputs.
    fn identities(&self, closure: &BTreeSet<StorePath>) -> Result<Vec<(u64, u64)>, Failure> {
        let identity = |path: &StorePath| match rustix::fs::lstat(self.store.physical_path(path)) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino)),
            Err(error) => Err(machine(&format!("find the input `{path}`, which the build needs"), &error)),
        };
        closure.iter().map(identity).collect()
    }

    /// Where the builder is told to make each output: the final path where it is known, else a path that stands for it.
    fn scratch_paths(&self) -> Result<BTreeMap<String, StorePath>, Failure> {
        let store_dir = self.store.store_dir();
        self.derivation
            .outputs
            .keys()
            .map(|name| {
                let known = self.derivation.output_path(store_dir, name);
                let path = match known.map_err(|error| Failure::build(error.to_string()))? {
                    Some(path) => path,
                    None => self.fallback_path(store_dir, name)?,
                };
                Ok((name.clone(), path))
            })
            .collect()
    }

    /// Nix's path for an output whose own path is not known yet: stable for a derivation, and like no other.
    fn fallback_path(&self, store_dir: &StoreDir, output: &str) -> Result<StorePath, Failure> {
        let kind = format!("rewrite:{}:name:{output}", self.path);
        let name = output_path_name(&self.derivation.name, output);
        store_dir
            .fingerprinted_path(&kind, &Sha256Digest::from_bytes([0; 32]), &name)
            .map_err(|error| Failure::build(format!("output `{output}`: {error}")))
    }

    fn spec(&self, scratch: &BTreeMap<String, StorePath>, closure: &BTreeSet<StorePath>) -> Result<Spec, Failure> {
        let store_dir = self.store.store_dir();
        let graphs = self.graphs(closure)?;
        let Environment { variables, arguments, files } =
            environment(self.attributes, self.derivation, scratch, &graphs, store_dir, self.circumstances.cores);
        let inputs = closure
            .iter()
            .map(|path| Input { source: self.store.physical_path(path), target: store_dir.display(path) });
        Ok(Spec {
            root: self.root()?,
            inputs: inputs.collect(),
            store_dir: store_dir.as_str().to_owned(),
            builder: self.builder(scratch, arguments)?,
            env: self.changed(variables),
            build_files: files.into_iter().map(|(name, content)| (name, Bytes::from(content))).collect(),
            limits: self.limits.clone(),
            conditions: self.circumstances.conditions.clone(),
            disk: None,
        })
    }

    /// The environment under these circumstances: with variables added, and another path of the build directory.
    fn changed(&self, variables: BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<Bytes, Bytes> {
        let directory = format!("/{}", self.circumstances.conditions.contract.build_directory);
        let moved = |value: Vec<u8>| match value.strip_prefix(b"/build") {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => [directory.as_bytes(), rest].concat(),
            _ => value,
        };
        let mut env: BTreeMap<Bytes, Bytes> =
            variables.into_iter().map(|(name, value)| (Bytes::from(name), Bytes::from(moved(value)))).collect();
        for (name, value) in &self.circumstances.variables {
            env.entry((*name).into()).or_insert_with(|| (*value).into());
        }
        env
    }

    /// The closures that the derivation wants to be told about.
    fn graphs(&self, inputs: &BTreeSet<StorePath>) -> Result<BTreeMap<String, Graph>, Failure> {
        let refused = |error: GraphError| Failure::build(error.to_string());
        let requests = references_graph::requests(self.attributes, self.store.store_dir()).map_err(refused)?;
        let mut graphs = BTreeMap::new();
        for (name, starts) in requests {
            if let Some(strange) = starts.iter().find(|path| !inputs.contains(path)) {
                return Err(refused(GraphError::NotAnInput(strange.clone())));
            }
            let starts: Vec<StorePath> = starts.into_iter().collect();
            let members =
                self.store.closure(&starts).map_err(|error| machine("find the closure of an input", &error))?;
            let info = |path: StorePath| match self.store.path_info(&path) {
                Ok(Some(info)) => Ok((path, info)),
                Ok(None) => Err(Failure::machine(format!("`{path}` vanished from the store while it was needed"))),
                Err(error) => Err(machine("look up an input", &error)),
            };
            graphs.insert(name, members.into_iter().map(info).collect::<Result<Graph, _>>()?);
        }
        Ok(graphs)
    }

    fn root(&self) -> Result<Root, Failure> {
        let Some(value) = self.derivation.env.get(ROOTFS) else { return Ok(Root::Empty) };
        let text = String::from_utf8_lossy(value);
        let path = self.store.store_dir().parse(&text).ok().filter(|path| self.inputs.contains(path));
        match path {
            Some(path) => Ok(Root::Tree(self.store.physical_path(&path))),
            None => Err(Failure::build(format!("`rootfs` is `{text}`, which is not the path of an input"))),
        }
    }

    fn builder(&self, scratch: &BTreeMap<String, StorePath>, arguments: Vec<Vec<u8>>) -> Result<Builder, Failure> {
        let name = self.derivation.builder.clone();
        if !name.starts_with("builtin:") {
            return Ok(Builder::Exec { program: name, args: arguments.into_iter().map(Bytes::from).collect() });
        }
        match scratch.get("out") {
            Some(out) if scratch.len() == 1 => Ok(Builder::Builtin { name, out: self.store.store_dir().display(out) }),
            _ => Err(Failure::build(format!("`{name}` makes the one output `out`, and nothing else"))),
        }
    }

    fn exit_failure(&self, outcome: &Outcome) -> Failure {
        let limits = self.limits;
        let (kind, message, hint) = match &outcome.exit {
            Exit::TimedOut => (
                FailureKind::TimedOut,
                format!("the build was stopped after {} seconds", limits.timeout_seconds),
                Some("give it more with `--timeout SECONDS`".to_owned()),
            ),
            Exit::Silent => (
                FailureKind::TimedOut,
                format!("the build was stopped: it wrote nothing for {} seconds", limits.silence_seconds),
                Some("allow more with `--max-silent-time SECONDS`".to_owned()),
            ),
            Exit::LogLimit => (
                FailureKind::Build,
                format!("the build was stopped: its log passed {} bytes", limits.log_bytes),
                Some("allow more with `--max-log-size BYTES`".to_owned()),
            ),
            Exit::NotStarted(reason) => (
                FailureKind::Build,
                format!("the builder `{}` could not be started: {reason}", self.derivation.builder),
                None,
            ),
            exit => (FailureKind::Build, format!("the builder {exit}"), None),
        };
        Failure { kind, hint, duration: outcome.duration, ..Failure::build(message) }
    }

    /// Copies the outputs out of the sandbox and finds their final paths.
    fn collect(
        &self,
        outcome: &Outcome,
        scratch: &BTreeMap<String, StorePath>,
        mut candidates: BTreeSet<StorePath>,
    ) -> Result<BTreeMap<String, Registration>, Failure> {
        candidates.extend(scratch.values().cloned());
        let mut staged = BTreeMap::new();
        let mut left = self.limits.output_bytes;
        for (name, path) in scratch {
            let entry = OsStr::new(path.base_name());
            self.look_at(outcome, name, entry)?;
            let object = self
                .store
                .stage_from_fd(outcome.store.as_fd(), entry, &candidates, Some(path), left)
                .map_err(|error| unstaged(name, &error))?;
            left = left.saturating_sub(object.nar_size());
            staged.insert(name.clone(), object);
        }
        let placed = self.place(staged, scratch)?;
        self.check_outputs(&placed)?;
        Ok(placed)
    }

    /// Whether an output is there, and nobody but the build's user could have written to it.
    fn look_at(&self, outcome: &Outcome, name: &str, entry: &OsStr) -> Result<(), Failure> {
        let stat = match rustix::fs::statat(&outcome.store, entry, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                return Err(Failure::build(format!("the builder succeeded but did not make its output `{name}`"))
                    .hint(format!("it has to create `${name}`: a file, a directory or a symbolic link")));
            }
            Err(error) => return Err(machine(&format!("look at output `{name}`"), &error)),
        };
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let is_builtin = self.derivation.builder.starts_with("builtin:");
        if !is_link && !is_builtin && stat.st_mode & 0o022 != 0 {
            let message = format!("output `{name}` has suspicious permissions: its group or others may write to it");
            return Err(Failure::build(message).hint("Nix refuses such outputs too; end the build with `chmod go-w`"));
        }
        Ok(())
    }

    /// Checks the outputs against what the derivation says of them.
    fn check_outputs(&self, placed: &BTreeMap<String, Registration>) -> Result<(), Failure> {
        let paths = placed.iter().map(|(name, object)| (name.clone(), object.path.clone())).collect();
        let known = |path: &StorePath| {
            if let Some(object) = placed.values().find(|object| object.path == *path) {
                return Ok(Known { size: object.staged.nar_size(), references: object.references.clone() });
            }
            match self.store.path_info(path) {
                Ok(Some(info)) => Ok(Known { size: info.nar_size, references: info.references }),
                Ok(None) => Err(OutputError::Unknown(format!("`{path}` vanished from the store"))),
                Err(error) => Err(OutputError::Unknown(chain(&error))),
            }
        };
        check_outputs(self.attributes, &paths, self.store.store_dir(), &known).map_err(|error| match error {
            OutputError::Unknown(_) => Failure::machine(error.to_string()),
            _ => Failure::build(error.to_string()),
        })
    }

    /// Gives each staged output its final path.
    fn place(
        &self,
        staged: BTreeMap<String, Staged>,
        scratch: &BTreeMap<String, StorePath>,
    ) -> Result<BTreeMap<String, Registration>, Failure> {
        let mut placed: BTreeMap<String, Registration> = BTreeMap::new();
        // Outputs whose final path differs from the one they were made at.
        let mut moved: BTreeMap<StorePath, StorePath> = BTreeMap::new();
        for (name, object) in in_order(staged, scratch)? {
            let own = &scratch[&name];
            let object = self
                .store
                .rewrite_references(object, &moved, Some(own))
                .map_err(|error| machine(&format!("rewrite output `{name}`"), &error))?;
            let discards = discards_references(self.attributes, &name).map_err(|e| Failure::build(e.to_string()))?;
            let object = if discards { object.discard_references() } else { object };
            let mut registration = match &self.derivation.outputs[&name] {
                Output::Fixed(address) => self.fixed(&name, object, address)?,
                Output::Floating { .. } => self.floating(&name, object, own)?,
                Output::InputAddressed(_) | Output::Deferred => self.input_addressed(object, own),
            };
            if discards && registration.content_address.is_none() {
                registration.references.clear();
            }
            moved.insert(own.clone(), registration.path.clone());
            placed.insert(name, registration);
        }
        Ok(placed)
    }

    fn input_addressed(&self, staged: Staged, path: &StorePath) -> Registration {
        let mut references = staged.references().clone();
        if staged.self_reference() {
            references.insert(path.clone());
        }
        let deriver = Some(self.path.clone());
        Registration { staged, path: path.clone(), references, deriver, content_address: None }
    }

    fn floating(&self, output: &str, staged: Staged, scratch: &StorePath) -> Result<Registration, Failure> {
        let name = output_path_name(&self.derivation.name, output);
        let addressed = self
            .store
            .into_content_addressed(staged, &name, scratch)
            .map_err(|error| Failure::build(format!("output `{output}`: {}", chain(&error))))?;
        Ok(addressed.registration(Some(self.path.clone())))
    }

    fn fixed(&self, output: &str, staged: Staged, address: &ContentAddress) -> Result<Registration, Failure> {
        let name = output_path_name(&self.derivation.name, output);
        match self.store.into_fixed(staged, &name, &address.hash, address.method) {
            Ok(addressed) => Ok(addressed.registration(Some(self.path.clone()))),
            Err(error @ AddFixedError::Mismatch { .. }) => {
                Err(Failure { kind: FailureKind::HashMismatch, ..Failure::build(error.to_string()) })
            }
            Err(error) => Err(Failure::build(format!("output `{output}`: {}", chain(&error)))),
        }
    }
}

/// Why an output did not get into the store: usually its builder's fault, but not if the disk is full.
fn unstaged(output: &str, error: &StageError) -> Failure {
    let message = format!("output `{output}`: {}", chain(error));
    match error {
        StageError::File(_) => Failure::machine(message),
        StageError::TooLarge { .. } => Failure::build(message).hint(
            "files count with their holes, and once for each of their names; `--max-output-size BYTES` allows more",
        ),
        _ => Failure::build(message),
    }
}

/// Outputs in an order in which each comes after those it refers to.
fn in_order(
    mut staged: BTreeMap<String, Staged>,
    scratch: &BTreeMap<String, StorePath>,
) -> Result<Vec<(String, Staged)>, Failure> {
    let mut ordered = Vec::new();
    while !staged.is_empty() {
        let next =
            staged.iter().find(|(_, object)| staged.keys().all(|other| !object.references().contains(&scratch[other])));
        let Some(name) = next.map(|(name, _)| name.clone()) else {
            let names: Vec<&str> = staged.keys().map(String::as_str).collect();
            return Err(Failure::build(format!("outputs refer to each other in a circle: `{}`", names.join("`, `"))));
        };
        let object = staged.remove(&name).expect("it was just found");
        ordered.push((name, object));
    }
    Ok(ordered)
}

fn machine(doing: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::machine(format!("cannot {doing}: {}", chain(error)))
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
