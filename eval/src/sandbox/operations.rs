//! From a spec to the operations that set its sandbox up. Pure.
//!
//! Paths inside the sandbox are relative to its root. Sources are opened first, while init still has the caller's
//! identity; later operations name them by their number in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::spec::{Builder, Bytes, Clock, FileSystem, Order, Root, Spec};

/// Entry of the scratch file system that is shown as the store directory.
pub(super) const SCRATCH_STORE: &str = "store";
/// Entry of the scratch file system that is shown as `/build`.
pub(super) const SCRATCH_BUILD: &str = "build";

/// Everything the executor has to do for one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Done by the sandbox's init, in order.
    pub prepare: Vec<Operation>,
    /// Done by the builder's process, in order, before the builder gets control.
    pub enter: Vec<Operation>,
    /// What then runs.
    pub program: Program,
    /// System calls that init answers while the build runs.
    pub supervision: Supervision,
}

/// What runs in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program file.
    Exec {
        /// Its path in the sandbox.
        path: String,
        /// Complete `argv`.
        argv: Vec<Bytes>,
        /// Complete environment, `KEY=value`, sorted.
        env: Vec<Bytes>,
    },
    /// A shell for a person.
    Shell {
        /// Its path in the sandbox.
        path: String,
        /// Complete `argv`.
        argv: Vec<Bytes>,
        /// Complete environment, `KEY=value`, sorted.
        env: Vec<Bytes>,
        /// Whether it gets a terminal.
        terminal: bool,
        /// A directory that is copied to `/build` first.
        build: Option<String>,
    },
    /// A function of this program.
    Builtin {
        /// Its name.
        name: String,
        /// Its environment.
        env: Vec<(Bytes, Bytes)>,
        /// The output it makes.
        out: String,
    },
}

/// System calls that init answers in the kernel's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// The wall clock.
    pub clock: Clock,
    /// The second that new files seem to be from.
    pub file_times: Option<i64>,
    /// The order in which directories are listed.
    pub order: Order,
    /// Where inode and device numbers seem to start.
    pub inode_numbers: Option<u64>,
    /// Random numbers are a function of this one.
    pub random: Option<u64>,
    /// How many processors are seen, if not those that may be used.
    pub processors: Option<u32>,
    /// New processes and programs wait for a moment, as this number decides.
    pub delays: Option<u64>,
    /// What `uname` and `sysinfo` tell.
    pub machine: Machine,
    /// How long the machine has been running, as `sysinfo` tells it.
    pub uptime_seconds: u64,
    /// The host's and the domain's name, as `uname` tells them.
    pub names: (String, String),
}

impl Supervision {
    /// Whether programs have to be changed in memory, because they would not ask the kernel.
    pub fn needs_patches(&self) -> bool {
        self.has_clock() || self.random.is_some()
    }

    /// Whether the wall clock is another one than the kernel's.
    pub fn has_clock(&self) -> bool {
        self.clock != Clock::Host
    }

    /// Whether what `stat` and its kin tell of files is changed.
    pub fn has_files(&self) -> bool {
        self.file_times.is_some() || self.inode_numbers.is_some()
    }
}

/// A resource limit that the executor knows how to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Processes and threads of the build's user.
    Processes,
    /// Private writable memory of a process.
    Data,
    /// Size of core dumps.
    Core,
    /// Open files of a process.
    Files,
    /// Stack of a process.
    Stack,
    /// Size of one file.
    FileSize,
    /// CPU seconds of a process.
    CpuTime,
    /// Address space of a process.
    AddressSpace,
    /// Locked memory.
    LockedMemory,
    /// Bytes in message queues.
    MessageQueues,
    /// Queued signals.
    PendingSignals,
    /// Ceiling of the nice value.
    Nice,
    /// Ceiling of the real-time priority.
    RealTimePriority,
}

/// One step of setting a sandbox up.
#[expect(missing_docs, reason = "the sentence at each variant speaks of its fields")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Open a path of the host as the next source.
    Open(PathBuf),
    /// Limit what all processes use together, where the caller may make control groups. Done by the zygote.
    LimitTogether { memory_bytes: u64, processes: u32 },
    /// Take the build's user and group.
    Become { user: u32, group: u32 },
    /// Make the root: an empty file system of its own.
    MountRoot { bytes: u64 },
    /// Make the scratch file system, which holds everything the build writes.
    MountScratch { bytes: u64, inodes: u64 },
    /// Take a source, a directory on disk, as the scratch file system.
    UseScratch { source: usize },
    /// Make a directory of the scratch file system.
    ScratchDirectory { name: String, mode: u32 },
    /// Write a file of the scratch file system.
    ScratchFile { directory: String, name: String, content: Bytes },
    /// Make a directory.
    Directory { path: String, mode: u32 },
    /// Write a file.
    File { path: String, content: Bytes },
    /// Make a symbolic link.
    Symlink { path: String, target: String },
    /// Show a scratch directory, writable.
    ShowScratch { name: String, at: String },
    /// Replace a directory source by a view of it that does not depend on the file system that holds it.
    Arrange { source: usize },
    /// Show a directory source as the root, read-only, entry by entry. Directories in `open` are made anew, so that
    /// other things can exist in them; paths in `hidden` are left out.
    ShowTree { source: usize, open: BTreeSet<String>, hidden: BTreeSet<String> },
    /// Show a source, read-only.
    ShowInput { source: usize, at: String },
    /// Show a device of the host.
    ShowDevice { source: usize, at: String },
    /// Mount a fresh `/proc`.
    MountProcesses { at: String },
    /// Let `/proc` tell about this machine, and nothing about the real one. `None`: as many processors as may be used.
    ShowMachine { machine: Machine, processors: Option<u32>, uptime_seconds: u64, random_seed: Option<u64> },
    /// Let no other program than those of the machine's own kind be started.
    ForgetInterpreters,
    /// Show deterministic bytes in place of the random devices.
    ShowRandomBytes { seed: u64 },
    /// Forbid writing below a path, whatever its owner.
    MakeReadOnly { path: String },
    /// Mount fresh pseudo-terminals.
    MountTerminals { at: String },
    /// Set host and domain name.
    Name { host: String, domain: String },
    /// Bring the loopback interface up.
    RaiseLoopback,
    /// Set the number after which process numbers continue.
    LastProcess(u32),
    /// Let the monotonic and boot clocks of later processes start here.
    StartClocks { seconds: u64 },
    /// Make the root read-only, enter it, and let go of the host's files.
    Seal,
    /// Set the mask of new files.
    Umask(u32),
    /// Change the working directory.
    WorkIn(String),
    /// Set the soft and hard value of a resource limit; `None` means unlimited, as far as the caller may.
    Limit { resource: Resource, soft: Option<u64>, hard: Option<u64> },
    /// Be the kernel's first choice when memory runs out.
    DieFirst,
    /// Choose whether addresses are randomised.
    RandomiseAddresses(bool),
    /// Confine to so many of the processors.
    UseProcessors(u32),
    /// Confine signals and abstract sockets to the build (a second fence, where the kernel has it).
    Confine,
    /// Give up all capabilities, and the way to get any.
    DropPrivileges,
    /// Filter system calls.
    Filter,
}

impl Operation {
    /// Whether it only opens something.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

impl fmt::Display for Operation {
    /// What the operation does, as it reads after "cannot".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path) => write!(f, "open `{}`", path.display()),
            Self::LimitTogether { .. } => f.write_str("limit the build as a whole"),
            Self::Become { user, group } => write!(f, "become user {user} and group {group}"),
            Self::MountRoot { .. } => f.write_str("mount the root"),
            Self::MountScratch { bytes, .. } => write!(f, "mount a scratch file system of {bytes} bytes"),
            Self::UseScratch { .. } => f.write_str("use a directory on disk"),
            Self::ScratchDirectory { name, .. } => write!(f, "make the scratch directory `{name}`"),
            Self::ScratchFile { directory, name, .. } => write!(f, "write `/{directory}/{name}`"),
            Self::Directory { path, .. } => write!(f, "make the directory `/{path}`"),
            Self::File { path, .. } => write!(f, "write `/{path}`"),
            Self::Symlink { path, .. } => write!(f, "make the link `/{path}`"),
            Self::ShowScratch { at, .. } => write!(f, "mount `/{at}`"),
            Self::Arrange { .. } => f.write_str("arrange a directory"),
            Self::ShowTree { .. } => f.write_str("show the root tree"),
            Self::ShowInput { at, .. } => write!(f, "show the input `/{at}`"),
            Self::ShowDevice { at, .. } => write!(f, "show the device `/{at}`"),
            Self::MountProcesses { at } => write!(f, "mount `/{at}`"),
            Self::ShowMachine { .. } => f.write_str("mask what `/proc` tells about the machine"),
            Self::ForgetInterpreters => f.write_str("forget the interpreters of foreign programs"),
            Self::ShowRandomBytes { .. } => f.write_str("mask the random devices"),
            Self::MakeReadOnly { path } => write!(f, "make `/{path}` read-only"),
            Self::MountTerminals { at } => write!(f, "mount `/{at}`"),
            Self::Name { .. } => f.write_str("set the host name"),
            Self::RaiseLoopback => f.write_str("bring the loopback interface up"),
            Self::LastProcess(_) => f.write_str("set the last process number"),
            Self::StartClocks { .. } => f.write_str("set the clocks of the time namespace"),
            Self::Seal => f.write_str("enter the root"),
            Self::Umask(_) => f.write_str("set the umask"),
            Self::WorkIn(path) => write!(f, "enter `{path}`"),
            Self::Limit { resource, .. } => write!(f, "limit the resource {resource:?}"),
            Self::DieFirst => f.write_str("set the out-of-memory score"),
            Self::RandomiseAddresses(_) => f.write_str("set the personality"),
            Self::UseProcessors(_) => f.write_str("choose processors"),
            Self::Confine => f.write_str("confine signals"),
            Self::DropPrivileges => f.write_str("drop privileges"),
            Self::Filter => f.write_str("filter system calls"),
        }
    }
}

/// Why a spec cannot become a plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The store directory is not an absolute, normal path, or clashes with a directory of the sandbox.
    #[error("`{0}` cannot be the store directory of a build")]
    StoreDir(String),
    /// An input does not belong directly into the store directory.
    #[error("input `{0}` is not an entry of the store directory")]
    Input(String),
    /// Two inputs claim the same path.
    #[error("input `{0}` is given twice")]
    Duplicate(String),
    /// A file of the build directory has an impossible name.
    #[error("`{0}` cannot be the name of a file in the build directory")]
    BuildFile(String),
    /// The name or value of something handed to the builder contains a NUL or is otherwise impossible.
    #[error("environment variable `{0:?}` is impossible")]
    Environment(Bytes),
    /// A program name or argument contains a NUL.
    #[error("argument `{0:?}` of the builder is impossible")]
    Argument(Bytes),
    /// A limit or condition is zero or too large.
    #[error("{0} is out of range")]
    Range(&'static str),
}

/// Directories of the sandbox that a store directory may not be in or above.
const OWN: [&str; 6] = ["build", "dev", "etc", "proc", "sys", "tmp"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const PASSWD: &str = "root:x:0:0:root:/build:/noshell\n\
                      nixbld:x:1000:100:Nix build user:/build:/noshell\n\
                      nobody:x:65534:65534:Nobody:/:/noshell\n";
const GROUPS: &str = "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
/// Files of `/etc` that are the sandbox's; one that would tell about the host or the machine is simply absent.
const ETC: [(&str, Option<&str>); 6] = [
    ("etc/passwd", Some(PASSWD)),
    ("etc/group", Some(GROUPS)),
    ("etc/hosts", Some(HOSTS)),
    ("etc/hostname", None),
    ("etc/machine-id", None),
    ("etc/resolv.conf", None),
];
/// Turns a spec into what has to be done for it.
///
/// # Errors
/// When the spec asks for something that cannot exist, such as an input outside the store directory.
pub fn plan(spec: &Spec) -> Result<Plan, SpecError> {
    let store = checked_store_dir(&spec.store_dir)?;
    check_inputs(spec)?;
    check_limits(spec)?;
    let mut prepare = Vec::new();
    let sources = open_sources(spec, &mut prepare);
    let contract = &spec.conditions.contract;
    if let Some(memory_bytes) = spec.limits.memory_bytes {
        prepare.push(Operation::LimitTogether { memory_bytes, processes: spec.limits.processes });
    }
    prepare.push(Operation::Become { user: contract.user, group: contract.group });
    prepare.push(Operation::MountRoot { bytes: 1 << 30 });
    make_scratch(spec, &sources, &mut prepare)?;
    make_root(spec, store, &mut prepare);
    show_sources(spec, &sources, &mut prepare);
    make_processes(spec, &mut prepare);
    prepare.push(Operation::Name { host: contract.host.clone(), domain: contract.domain.clone() });
    prepare.push(Operation::RaiseLoopback);
    prepare.push(Operation::StartClocks { seconds: spec.conditions.monotonic_start_seconds });
    // What is written there is not the build's to choose, such as which processes die first when memory runs out.
    prepare.push(Operation::MakeReadOnly { path: "proc".into() });
    prepare.push(Operation::Seal);
    Ok(Plan { prepare, enter: enter(spec), program: program(spec)?, supervision: supervision(spec) })
}

fn checked_store_dir(store_dir: &str) -> Result<&str, SpecError> {
    let refuse = || SpecError::StoreDir(store_dir.to_owned());
    let relative = store_dir.strip_prefix('/').ok_or_else(refuse)?;
    let normal = relative.split('/').all(is_file_name);
    let top = relative.split('/').next().unwrap_or_default();
    if normal && !OWN.contains(&top) { Ok(relative) } else { Err(refuse()) }
}

/// Whether a name may be a directory entry.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}

fn check_inputs(spec: &Spec) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    for input in &spec.inputs {
        let name = input.target.strip_prefix(&spec.store_dir).and_then(|rest| rest.strip_prefix('/'));
        if !name.is_some_and(is_file_name) || !input.source.is_absolute() {
            return Err(SpecError::Input(input.target.clone()));
        }
        if !seen.insert(&input.target) {
            return Err(SpecError::Duplicate(input.target.clone()));
        }
    }
    Ok(())
}

fn check_limits(spec: &Spec) -> Result<(), SpecError> {
    let limits = &spec.limits;
    let conditions = &spec.conditions;
    let last = conditions.last_process.unwrap_or(1);
    let wrong = [
        ("the timeout", limits.timeout_seconds == 0),
        ("the silence limit", limits.silence_seconds == 0),
        ("the output limit", limits.output_bytes < 4096),
        ("the limit of processes", limits.processes == 0),
        ("the number of processors", conditions.cpus == Some(0)),
        ("the start of the monotonic clock", conditions.monotonic_start_seconds > 1 << 31),
        ("the last process number", last == 0 || last > 4_000_000),
        ("the machine", !conditions.machine.is_possible()),
        ("the start of the clock", !start_of(conditions.clock).is_none_or(is_possible_time)),
        ("the time of new files", !conditions.file_times.is_none_or(is_possible_time)),
        ("the disk", (conditions.file_system == FileSystem::Disk) != spec.disk.is_some()),
        ("the build directory", !is_file_name(&conditions.contract.build_directory)),
    ];
    match wrong.iter().find(|(_, is_wrong)| *is_wrong) {
        Some((what, _)) => Err(SpecError::Range(what)),
        None => Ok(()),
    }
}

/// Where a chosen clock starts.
fn start_of(clock: Clock) -> Option<i64> {
    match clock {
        Clock::Host => None,
        Clock::StartAt(seconds) | Clock::Steady(seconds) => Some(seconds),
    }
}

fn is_possible_time(seconds: i64) -> bool {
    (0..1 << 34).contains(&seconds)
}

/// Numbers of the sources that have been opened.
struct Sources {
    disk: Option<usize>,
    devices: usize,
    tree: Option<usize>,
    inputs: usize,
}

fn open_sources(spec: &Spec, operations: &mut Vec<Operation>) -> Sources {
    let disk = spec.disk.is_some().then_some(0);
    operations.extend(spec.disk.iter().map(|path| Operation::Open(path.clone())));
    let devices = operations.len();
    operations.extend(DEVICES.map(|name| Operation::Open(PathBuf::from(format!("/dev/{name}")))));
    let tree = match &spec.root {
        Root::Tree(path) => {
            operations.push(Operation::Open(path.clone()));
            Some(operations.len() - 1)
        }
        Root::Empty => None,
    };
    let inputs = operations.len();
    operations.extend(spec.inputs.iter().map(|input| Operation::Open(input.source.clone())));
    Sources { disk, devices, tree, inputs }
}

fn make_scratch(spec: &Spec, sources: &Sources, operations: &mut Vec<Operation>) -> Result<(), SpecError> {
    let bytes = spec.limits.output_bytes;
    operations.push(match sources.disk {
        Some(source) => Operation::UseScratch { source },
        // An inode of a tmpfs takes about a kilobyte of kernel memory that the size limit does not count.
        None => Operation::MountScratch { bytes, inodes: (bytes / 4096).clamp(4096, 4_000_000) },
    });
    for (name, mode) in [(SCRATCH_STORE, 0o1775), (SCRATCH_BUILD, 0o700), ("tmp", 0o1777), ("shm", 0o1777)] {
        operations.push(Operation::ScratchDirectory { name: name.into(), mode });
    }
    for (name, content) in &spec.build_files {
        if !is_file_name(name) {
            return Err(SpecError::BuildFile(name.clone()));
        }
        let (directory, name, content) = (SCRATCH_BUILD.into(), name.clone(), content.clone());
        operations.push(Operation::ScratchFile { directory, name, content });
    }
    Ok(())
}

fn make_root(spec: &Spec, store: &str, operations: &mut Vec<Operation>) {
    let directory = |path: &str| Operation::Directory { path: path.into(), mode: 0o755 };
    let build = &*spec.conditions.contract.build_directory;
    operations.extend(["dev", "dev/pts", "dev/shm", "etc", "proc", build, "tmp"].map(directory));
    operations.extend(parents(store).into_iter().chain([store.to_owned()]).map(|path| directory(&path)));
    for (path, content) in ETC {
        operations.extend(content.map(|content| Operation::File { path: path.into(), content: content.into() }));
    }
    let links = [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
    operations.extend(links.map(|(name, number)| Operation::Symlink {
        path: format!("dev/{name}"),
        target: format!("/proc/self/fd{number}"),
    }));
    operations.push(Operation::Symlink { path: "dev/ptmx".into(), target: "pts/ptmx".into() });
    operations.push(Operation::MountTerminals { at: "dev/pts".into() });
    for (name, at) in [(SCRATCH_BUILD, build), ("tmp", "tmp"), ("shm", "dev/shm"), (SCRATCH_STORE, store)] {
        operations.push(Operation::ShowScratch { name: name.into(), at: at.into() });
    }
    if let Some(seed) = spec.conditions.random_seed {
        operations.push(Operation::ShowRandomBytes { seed });
    }
}

/// `a/b/c` has the parents `a` and `a/b`.
fn parents(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect()
}

fn show_sources(spec: &Spec, sources: &Sources, operations: &mut Vec<Operation>) {
    let seeded = spec.conditions.random_seed.is_some();
    for (number, name) in DEVICES.iter().enumerate() {
        if !(seeded && matches!(*name, "random" | "urandom")) {
            operations.push(Operation::ShowDevice { source: sources.devices + number, at: format!("dev/{name}") });
        }
    }
    if let Some(source) = sources.tree {
        let store = &spec.store_dir[1..];
        let build = &*spec.conditions.contract.build_directory;
        let mut hidden: BTreeSet<String> =
            ["build", build, "dev", "proc", "sys", "tmp", store].map(str::to_owned).into();
        hidden.extend(ETC.map(|(path, _)| path.to_owned()));
        let mut open: BTreeSet<String> = parents(store).into_iter().collect();
        open.insert("etc".into());
        operations.extend([Operation::Arrange { source }, Operation::ShowTree { source, open, hidden }]);
    }
    for (input, source) in spec.inputs.iter().zip(sources.inputs..) {
        operations.push(Operation::Arrange { source });
        operations.push(Operation::ShowInput { source, at: input.target[1..].to_owned() });
    }
}

fn make_processes(spec: &Spec, operations: &mut Vec<Operation>) {
    operations.push(Operation::MountProcesses { at: "proc".into() });
    operations.extend(spec.conditions.last_process.map(Operation::LastProcess));
    operations.push(Operation::ShowMachine {
        machine: spec.conditions.machine.clone(),
        processors: spec.conditions.cpus,
        uptime_seconds: spec.conditions.monotonic_start_seconds,
        random_seed: spec.conditions.random_seed,
    });
    operations.push(Operation::ForgetInterpreters);
}

fn enter(spec: &Spec) -> Vec<Operation> {
    let contract = &spec.conditions.contract;
    let directory = format!("/{}", contract.build_directory);
    let mut operations = vec![Operation::Umask(contract.umask), Operation::WorkIn(directory)];
    let limits = [
        (Resource::Core, Some(1)),
        (Resource::Files, Some(4096)),
        (Resource::FileSize, None),
        (Resource::CpuTime, None),
        (Resource::AddressSpace, None),
        (Resource::LockedMemory, Some(64 << 10)),
        (Resource::MessageQueues, Some(819_200)),
        (Resource::PendingSignals, Some(1024)),
        (Resource::Nice, Some(0)),
        (Resource::RealTimePriority, Some(0)),
        (Resource::Data, spec.limits.memory_bytes),
        (Resource::Processes, Some(u64::from(spec.limits.processes))),
    ];
    operations.extend(limits.map(|(resource, value)| Operation::Limit { resource, soft: value, hard: value }));
    // Programs that recurse deeply raise their stack themselves.
    operations.push(Operation::Limit { resource: Resource::Stack, soft: Some(8 << 20), hard: None });
    operations.push(Operation::DieFirst);
    operations.push(Operation::RandomiseAddresses(spec.conditions.address_randomisation));
    operations.extend(spec.conditions.cpus.map(Operation::UseProcessors));
    operations.extend([Operation::DropPrivileges, Operation::Confine, Operation::Filter]);
    operations
}

fn program(spec: &Spec) -> Result<Program, SpecError> {
    let mut variables = spec.env.clone();
    if let Some(tunables) = spec.conditions.processor_features.tunables() {
        variables.entry("GLIBC_TUNABLES".into()).or_insert_with(|| tunables.into());
    }
    for (key, value) in &variables {
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) || value.contains(&0) {
            return Err(SpecError::Environment(key.clone()));
        }
    }
    match &spec.builder {
        Builder::Exec { program, args } => {
            let argv = argv(program, args)?;
            Ok(Program::Exec { path: program.clone(), argv, env: environment(&variables) })
        }
        Builder::Shell { program, args, terminal, build } => Ok(Program::Shell {
            path: program.clone(),
            argv: argv(program, args)?,
            env: environment(&variables),
            terminal: *terminal,
            build: build.clone(),
        }),
        Builder::Builtin { name, out } => {
            let env = variables.into_iter().collect();
            Ok(Program::Builtin { name: name.clone(), env, out: out.clone() })
        }
    }
}

fn argv(program: &str, args: &[Bytes]) -> Result<Vec<Bytes>, SpecError> {
    let base = program.rsplit('/').next().unwrap_or_default();
    let argv: Vec<Bytes> = [Bytes::from(base)].into_iter().chain(args.iter().cloned()).collect();
    let path = Bytes::from(program);
    let wrong = argv.iter().chain([&path]).find(|argument| argument.contains(&0)).cloned();
    wrong.map_or(Ok(argv), |wrong| Err(SpecError::Argument(wrong)))
}

fn environment(variables: &BTreeMap<Bytes, Bytes>) -> Vec<Bytes> {
    let pair = |(key, value): (&Bytes, &Bytes)| Bytes::from([key, &b"="[..], value].concat());
    variables.iter().map(pair).collect()
}

fn supervision(spec: &Spec) -> Supervision {
    let conditions = &spec.conditions;
    Supervision {
        clock: conditions.clock,
        file_times: conditions.file_times,
        order: conditions.directory_order,
        inode_numbers: conditions.inode_numbers,
        random: conditions.random_seed,
        processors: conditions.cpus,
        delays: conditions.delays,
        machine: conditions.machine.clone(),
        uptime_seconds: conditions.monotonic_start_seconds,
        names: (conditions.contract.host.clone(), conditions.contract.domain.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Conditions, Contract, Features, Input, Limits};

    fn spec() -> Spec {
        Spec {
            root: Root::Tree("/home/me/store/sysroot".into()),
            inputs: vec![Input { source: "/home/me/store/abc-zlib".into(), target: "/nix/store/abc-zlib".into() }],
            store_dir: "/nix/store".into(),
            builder: Builder::Exec { program: "/bin/sh".into(), args: vec!["-e".into(), "script".into()] },
            env: [("out", "/nix/store/def-out"), ("HOME", "/build")].map(|(k, v)| (k.into(), v.into())).into(),
            build_files: [("attrs".to_owned(), Bytes::from("{}"))].into(),
            limits: Limits { output_bytes: 1 << 30, ..Limits::default() },
            conditions: Conditions::default(),
            disk: None,
        }
    }

    /// A plan, one operation a line.
    fn render(plan: &Plan) -> String {
        let mut lines = Vec::new();
        for (title, operations) in [("prepare", &plan.prepare), ("enter", &plan.enter)] {
            lines.push(format!("{title}:"));
            lines.extend(operations.iter().map(|operation| format!("  {}", serde_json::to_string(operation).unwrap())));
        }
        lines.push(format!("run: {}", serde_json::to_string(&plan.program).unwrap()));
        lines.push(format!("answer: {}", serde_json::to_string(&plan.supervision).unwrap()));
        lines.join("\n") + "\n"
    }

    fn check(spec: &Spec, expected: &str) {
        let plan = plan(spec).unwrap();
        assert_eq!(render(&plan), expected);
        let json = serde_json::to_vec(&plan).unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&json).unwrap(), plan);
    }

    #[test]
    fn an_ordinary_plan() {
        check(&spec(), include_str!("../../../tests/vectors/sandbox/ordinary.plan"));
    }

    #[test]
    fn a_plan_under_other_conditions() {
        let mut spec = spec();
        spec.store_dir = "/opt/deep/store".into();
        spec.inputs[0].target = "/opt/deep/store/abc-zlib".into();
        spec.builder = Builder::Builtin { name: "builtin:unpack-v1".into(), out: "/opt/deep/store/def-out".into() };
        spec.disk = Some("/home/me/store/tmp/disk".into());
        spec.conditions = Conditions {
            clock: Clock::StartAt(2_000_000_000),
            file_times: Some(1_900_000_000),
            cpus: Some(1),
            directory_order: Order::Reversed,
            inode_numbers: Some(5000),
            random_seed: Some(7),
            address_randomisation: true,
            last_process: Some(30_000),
            monotonic_start_seconds: 77,
            machine: Machine { kernel_release: "5.4.0".into(), memory_bytes: 1 << 30, ..Machine::default() },
            file_system: FileSystem::Disk,
            processor_features: Features::Masked,
            delays: Some(3),
            contract: Contract { build_directory: "elsewhere".into(), umask: 0o027, ..Contract::default() },
        };
        check(&spec, include_str!("../../../tests/vectors/sandbox/conditions.plan"));
    }

    fn refused(change: impl FnOnce(&mut Spec)) -> String {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec).unwrap_err().to_string()
    }

    #[test]
    fn impossible_specs_are_refused() {
        for store in ["nix/store", "/", "/etc/store", "/proc", "/nix//store", "/nix/store/", "/nix/../store"] {
            assert!(refused(|spec| spec.store_dir = store.into()).contains("store directory"), "{store}");
        }
        for target in ["/nix/store", "/nix/store/", "/nix/store/a/b", "/nix/store/..", "/nix/storage/a", "a"] {
            assert!(refused(|spec| spec.inputs[0].target = target.into()).contains("not an entry"), "{target}");
        }
        assert!(refused(|spec| spec.inputs.push(spec.inputs[0].clone())).contains("twice"));
        assert!(refused(|spec| drop(spec.build_files.insert("a/b".into(), "".into()))).contains("`a/b`"));
        assert!(refused(|spec| drop(spec.env.insert("a\0".into(), "".into()))).contains("environment"));
        assert!(refused(|spec| spec.limits.timeout_seconds = 0).contains("timeout"));
        assert!(refused(|spec| spec.conditions.cpus = Some(0)).contains("processors"));
    }
}
