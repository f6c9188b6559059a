//! The builder's process, from the fork until the builder has control.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::super::filter;
use super::super::operations::{Operation, Plan, Program, Resource, Supervision};
use super::super::spec::{BuiltinCall, Bytes};
use super::prepare::c_string;
use super::wire::{self, Report};
use super::{shell, system, zygote};

/// How eagerly the kernel kills a build when memory runs out: as if it held half of the memory more than it does.
const OUT_OF_MEMORY_SCORE: i32 = 500;

/// What the builder's process is born with.
pub(super) struct Birth<'a> {
    /// Where failures are told.
    pub(super) caller: &'a OwnedFd,
    /// Standard output and standard error.
    pub(super) log: &'a OwnedFd,
    /// `/proc`, writable.
    pub(super) processes: &'a OwnedFd,
    /// Where the filter's listener goes.
    pub(super) supervisor: OwnedFd,
}

/// Does the rest of the set-up and becomes the builder.
pub(super) fn become_builder(plan: &Plan, birth: &Birth<'_>, builtins: zygote::Builtins) -> ! {
    system::reset_signals();
    let failed = |operation: String, error: &io::Error| -> ! {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = wire::report(birth.caller, &Report::Failed { operation, errno }, &[]);
        system::exit(126)
    };
    // Not inherited from init: closing the race needs no check, because init is process 1.
    let streams = match &plan.program {
        Program::Shell { terminal: true, .. } => shell::take_terminal,
        _ => take_standard_streams,
    };
    if let Err(error) = system::set_dumpable(true).and_then(|()| streams(birth)) {
        failed("prepare the builder's standard streams".into(), &error);
    }
    if let Program::Shell { build: Some(build), .. } = &plan.program
        && let Err(error) = shell::copy_directory(Path::new(build), Path::new("/build"))
    {
        failed("copy the directory of the failed build".into(), &error);
    }
    for operation in &plan.enter {
        if let Err(error) = perform(operation, &plan.supervision, birth) {
            failed(operation.to_string(), &error);
        }
    }
    match &plan.program {
        Program::Exec { path, argv, env } | Program::Shell { path, argv, env, .. } => {
            let errno = execute(path, argv, env).raw_os_error().unwrap_or(libc::EINVAL);
            let _ = wire::report(birth.caller, &Report::NotStarted { program: path.clone(), errno }, &[]);
            system::exit(127)
        }
        Program::Builtin { name, env, out } => {
            system::close_from(3);
            system::exit(call(name, env, out, builtins))
        }
    }
}

fn take_standard_streams(birth: &Birth<'_>) -> io::Result<()> {
    system::start_session()?;
    let null = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    system::set_stream(null.as_fd(), 0)?;
    system::set_stream(birth.log.as_fd(), 1)?;
    system::set_stream(birth.log.as_fd(), 2)?;
    system::close_from_on_exec(3);
    Ok(())
}

fn perform(operation: &Operation, supervision: &Supervision, birth: &Birth<'_>) -> io::Result<()> {
    match operation {
        Operation::Umask(mask) => system::set_umask(*mask),
        Operation::WorkIn(path) => rustix::process::chdir(path.as_str())?,
        Operation::Limit { resource, soft, hard } => system::set_limit(number(*resource), *soft, *hard)?,
        Operation::DieFirst => die_first(birth.processes)?,
        Operation::RandomiseAddresses(randomise) => system::randomise_addresses(*randomise)?,
        Operation::UseProcessors(count) => use_processors(*count)?,
        Operation::Confine => system::confine()?,
        Operation::DropPrivileges => system::drop_privileges()?,
        Operation::Filter => {
            install_filter(supervision, &birth.supervisor)?;
        }
        other => return Err(io::Error::other(format!("operation out of place: {other}"))),
    }
    Ok(())
}

/// Installs the filter and hands init its listener. Where init has to change this process, waits for it.
fn install_filter(supervision: &Supervision, supervisor: &OwnedFd) -> io::Result<()> {
    let program = filter::filter(&seen(supervision));
    let listener = system::install_listener(&program)?;
    wire::send(supervisor, b"listener", &[listener.as_fd()])?;
    drop(listener);
    if !supervision.needs_patches() {
        return Ok(());
    }
    match wire::receive(supervisor)? {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// What to answer in the end: processors are answered for only if they are more than there are.
fn seen(supervision: &Supervision) -> Supervision {
    let usable = rustix::thread::sched_getaffinity(None).map_or(1, |allowed| allowed.count());
    Supervision { processors: supervision.processors.filter(|count| *count > usable), ..supervision.clone() }
}

/// What a build keeps in memory is freed when it dies; what the caller keeps there may be worth more. The build cannot
/// take this back, because it sees `/proc` read-only. A score that is higher already stays: it may not be lowered.
fn die_first(processes: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let score = openat(processes, c"self/oom_score_adj", flags, Mode::empty())?;
    let mut text = [0; 16];
    let length = rustix::io::read(&score, &mut text)?;
    let present = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if present.is_none_or(|present| present < OUT_OF_MEMORY_SCORE) {
        rustix::io::write(&score, OUT_OF_MEMORY_SCORE.to_string().as_bytes())?;
    }
    Ok(())
}

/// Keeps the first of the processors that are allowed anyway.
fn use_processors(count: u32) -> io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let mut chosen = rustix::thread::CpuSet::new();
    let numbers = (0..rustix::thread::CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
    numbers.take(count as usize).for_each(|number| chosen.set(number));
    Ok(rustix::thread::sched_setaffinity(None, &chosen)?)
}

fn number(resource: Resource) -> system::Limited {
    match resource {
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Files => libc::RLIMIT_NOFILE,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::CpuTime => libc::RLIMIT_CPU,
        Resource::AddressSpace => libc::RLIMIT_AS,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::MessageQueues => libc::RLIMIT_MSGQUEUE,
        Resource::PendingSignals => libc::RLIMIT_SIGPENDING,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::RealTimePriority => libc::RLIMIT_RTPRIO,
    }
}

fn execute(path: &str, argv: &[Bytes], env: &[Bytes]) -> io::Error {
    let strings = |list: &[Bytes]| list.iter().map(|bytes| c_string(bytes)).collect::<io::Result<Vec<CString>>>();
    match (c_string(path.as_bytes()), strings(argv), strings(env)) {
        (Ok(path), Ok(argv), Ok(env)) => system::execute(&path, &argv, &env),
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    }
}

/// Calls a builtin builder as if it were a program.
fn call(name: &str, env: &[(Bytes, Bytes)], out: &str, builtins: zygote::Builtins) -> i32 {
    let mut variables = BTreeMap::new();
    for (key, value) in env {
        let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
            let _ = writeln!(io::stderr(), "error: the environment variable {key:?} is not UTF-8");
            return 1;
        };
        system::set_variable(key, value);
        variables.insert(key.to_owned(), value.to_owned());
    }
    let call = BuiltinCall { name: name.to_owned(), env: variables, out: PathBuf::from(out) };
    // The panic's own message has gone to the log by then.
    let code = catch_unwind(AssertUnwindSafe(|| builtins(&call))).unwrap_or(101);
    let _ = io::stdout().flush();
    code
}
