//! The embedded engine, from the caller's side: asks for sandboxes, follows their logs, stops them at their limits.

use std::fs;
use std::io;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

use super::error::EngineError;
use super::executor::wire::{self, Report};
use super::executor::zygote;
use super::operations::{Plan, plan};
use super::outcome::{Exit, Outcome};
use super::spec::{BuiltinCall, Contract, Limits, Spec};

/// Runs one build in a sandbox. Shared by the threads that run builds.
pub trait Engine: Sync {
    /// The engine's name, as records of builds keep it.
    fn name(&self) -> &str;

    /// Runs a build to its end, writing its log as it comes. When this returns, no process of the build is left.
    ///
    /// # Errors
    /// If the sandbox could not do its work. A build that failed is no error: see [`Exit`].
    fn run(&self, spec: &Spec, log: &mut dyn Write) -> Result<Outcome, EngineError>;
}

/// The engine that is part of this program. Needs neither a daemon nor root; without user namespaces it refuses to run.
///
/// Everything dies with the caller, also when the caller is killed.
#[derive(Debug)]
pub struct Embedded {
    zygote: OwnedFd,
    zygote_process: i32,
}

impl Embedded {
    /// Starts the engine: forks the process that will create sandboxes. `builtins` runs the builtin builders and
    /// returns their exit code; it is called inside sandboxes only.
    ///
    /// Call this at the start of `main`, on the main thread, before any other thread exists: what is forked while
    /// another thread holds a lock would find it locked for ever.
    ///
    /// # Errors
    /// If there can be no more processes or descriptors.
    pub fn start(builtins: fn(&BuiltinCall) -> i32) -> Result<Self, EngineError> {
        let (zygote, zygote_process) = zygote::start(builtins).map_err(EngineError::Start)?;
        Ok(Self { zygote, zygote_process })
    }

    /// Sends a plan to the zygote; returns the socket of the run and the log's reading end.
    fn request(&self, plan: &Plan, contract: &Contract) -> Result<(OwnedFd, OwnedFd), EngineError> {
        let json = serde_json::to_vec(plan)?;
        let lost = |source: io::Error| EngineError::Lost { doing: "ask for a sandbox", source };
        let hand_over = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            let (log, log_end) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setfl(&log, OFlags::NONBLOCK)?;
            let mut file = fs::File::from(memfd_create(c"plan", MemfdFlags::CLOEXEC)?);
            file.write_all(&json)?;
            let identity = format!("{} {}", contract.user, contract.group);
            wire::send(&self.zygote, identity.as_bytes(), &[theirs.as_fd(), log_end.as_fd(), file.as_fd()])?;
            Ok((ours, log))
        };
        hand_over().map_err(lost)
    }
}

impl Engine for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    fn run(&self, spec: &Spec, log: &mut dyn Write) -> Result<Outcome, EngineError> {
        self.run_with_terminal(spec, log, &mut drop)
    }
}

impl Embedded {
    /// As [`Engine::run`]; `terminal` is given the other end of a shell's terminal, to be read and written until it closes.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub fn run_with_terminal(
        &self,
        spec: &Spec,
        log: &mut dyn Write,
        terminal: &mut dyn FnMut(OwnedFd),
    ) -> Result<Outcome, EngineError> {
        let plan = plan(spec)?;
        let started = Instant::now();
        let (socket, pipe) = self.request(&plan, &spec.conditions.contract)?;
        let mut run = Run {
            socket,
            pipe,
            log,
            limits: &spec.limits,
            started,
            last_byte: started,
            pipe_is_open: true,
            logged: 0,
            init: None,
            results: None,
            verdict: None,
            has_ended: false,
            failure: None,
            terminal,
        };
        run.follow();
        run.conclude()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The zygote tidies up and leaves when nothing more can come.
        if let Some(process) = Pid::from_raw(self.zygote_process) {
            let _ = shutdown(&self.zygote, Shutdown::Both);
            let _ = waitpid(Some(process), WaitOptions::empty());
        }
    }
}

/// One run, as its caller sees it.
struct Run<'a> {
    socket: OwnedFd,
    pipe: OwnedFd,
    log: &'a mut dyn Write,
    limits: &'a Limits,
    started: Instant,
    last_byte: Instant,
    /// Whether anybody may still write to the log.
    pipe_is_open: bool,
    logged: u64,
    /// Init's process descriptor, once it exists.
    init: Option<OwnedFd>,
    /// The store directory and `/build`, once they exist.
    results: Option<(OwnedFd, OwnedFd)>,
    verdict: Option<Exit>,
    /// Whether init has told that every process of the build is dead.
    has_ended: bool,
    /// Why the engine gives up; the build is being killed then.
    failure: Option<EngineError>,
    /// Takes the other end of a shell's terminal.
    terminal: &'a mut dyn FnMut(OwnedFd),
}

/// What a round of waiting has shown.
struct Seen {
    log: bool,
    socket: bool,
    died: bool,
}

impl Run<'_> {
    /// Follows the run until its last process is dead, also after giving up.
    fn follow(&mut self) {
        let mut socket_is_open = true;
        loop {
            let seen = match self.wait(socket_is_open) {
                Ok(seen) => seen,
                Err(source) => {
                    self.give_up(EngineError::Lost { doing: "wait for a build", source });
                    return;
                }
            };
            if seen.log {
                self.read_log();
            }
            if seen.socket {
                socket_is_open = self.read_report();
            }
            if seen.died {
                // What was said before the end is still there.
                while socket_is_open {
                    socket_is_open = self.read_report();
                }
                self.read_log();
                return;
            }
            if !socket_is_open && self.init.is_none() {
                return;
            }
            if self.has_ended && self.failure.is_none() {
                // Init has buried everybody else. It takes its file systems down without us.
                return self.read_log();
            }
            self.enforce_limits();
        }
    }

    /// Waits for news or for the next limit.
    fn wait(&self, socket_is_open: bool) -> io::Result<Seen> {
        let now = Instant::now();
        let (time_left, silence_left) = self.time_left(now);
        let left = time_left.min(silence_left).min(Duration::from_secs(3600));
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut watched = Vec::with_capacity(3);
        watched.extend(self.pipe_is_open.then(|| PollFd::new(&self.pipe, PollFlags::IN)));
        watched.extend(socket_is_open.then(|| PollFd::new(&self.socket, PollFlags::IN)));
        watched.extend(self.init.as_ref().map(|init| PollFd::new(init, PollFlags::IN)));
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = watched.iter().map(|watched| !watched.revents().is_empty());
        let mut next = |is_watched: bool| is_watched && happened.next().unwrap_or(false);
        Ok(Seen { log: next(self.pipe_is_open), socket: next(socket_is_open), died: next(self.init.is_some()) })
    }

    fn time_left(&self, now: Instant) -> (Duration, Duration) {
        let deadline = self.started.checked_add(Duration::from_secs(self.limits.timeout_seconds));
        let silence = self.last_byte.checked_add(Duration::from_secs(self.limits.silence_seconds));
        let left = |end: Option<Instant>| end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
        (left(deadline), left(silence))
    }

    /// Reads what there is of the log.
    fn read_log(&mut self) {
        let mut buffer = [0; 64 << 10];
        loop {
            let count = match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    self.pipe_is_open = false;
                    return;
                }
                Err(Errno::AGAIN) => return,
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    return self.give_up(EngineError::Lost { doing: "read a build log", source: error.into() });
                }
            };
            self.last_byte = Instant::now();
            let room = self.limits.log_bytes.saturating_sub(self.logged);
            let kept = count.min(usize::try_from(room).unwrap_or(usize::MAX));
            self.logged += kept as u64;
            if let Err(error) = self.log.write_all(&buffer[..kept]) {
                return self.give_up(EngineError::Log(error));
            }
            if kept < count {
                // Counts even if the builder has just ended well: whether it had must not decide.
                self.verdict = Some(Exit::LogLimit);
                return self.kill();
            }
        }
    }

    /// Reads one report; whether more may come.
    fn read_report(&mut self) -> bool {
        let (report, descriptors) = match wire::receive_report(&self.socket) {
            Ok(Some(message)) => message,
            Ok(None) => return false,
            Err(source) => {
                self.give_up(EngineError::Lost { doing: "hear about a build", source });
                return false;
            }
        };
        let mut descriptors = descriptors.into_iter();
        match report {
            Report::Created => self.init = descriptors.next(),
            Report::Terminal => descriptors.next().into_iter().for_each(&mut *self.terminal),
            Report::Ready => self.results = descriptors.next().zip(descriptors.next()),
            Report::NotStarted { program, errno } => {
                self.verdict.get_or_insert_with(|| not_started(&program, errno));
            }
            Report::Ended { status } => {
                self.has_ended = true;
                self.verdict.get_or_insert_with(|| exit_of(status));
            }
            Report::Failed { operation, errno } => {
                let source = io::Error::from_raw_os_error(errno);
                self.give_up(EngineError::Setup { operation, source, hint: hint(errno) });
            }
        }
        true
    }

    fn enforce_limits(&mut self) {
        let (time_left, silence_left) = self.time_left(Instant::now());
        if time_left.is_zero() {
            self.stop(Exit::TimedOut);
        } else if silence_left.is_zero() {
            self.stop(Exit::Silent);
        }
    }

    /// Stops the build with this verdict, unless it has one already.
    fn stop(&mut self, verdict: Exit) {
        self.verdict.get_or_insert(verdict);
        self.kill();
    }

    /// Stops the build because the engine cannot go on. The first reason counts.
    fn give_up(&mut self, failure: EngineError) {
        self.failure.get_or_insert(failure);
        self.kill();
    }

    /// Kills init; the kernel kills everything else in its pid namespace before init counts as dead.
    fn kill(&self) {
        if let Some(init) = &self.init {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
    }

    fn conclude(self) -> Result<Outcome, EngineError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let (Some(exit), Some((store, build))) = (self.verdict, self.results) else { return Err(EngineError::Died) };
        Ok(Outcome { exit, duration: self.started.elapsed(), store, build: Some(build) })
    }
}

/// A wait status, in words.
fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

fn not_started(program: &str, errno: i32) -> Exit {
    let error = io::Error::from_raw_os_error(errno);
    let advice = match errno {
        libc::ENOENT => " (it, or the interpreter it names, is not in the sandbox)",
        libc::ENOEXEC => " (it is neither a program for this machine nor a script)",
        _ => "",
    };
    Exit::NotStarted(format!("`{program}`: {error}{advice}"))
}

/// What may help when the kernel refused.
#[expect(clippy::disallowed_methods, reason = "asks the kernel why it refused")]
fn hint(errno: i32) -> Option<String> {
    if !matches!(errno, libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS | libc::EINVAL | libc::ENOSYS) {
        return None;
    }
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned()).ok();
    let suspects = [
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "15000"),
        ("user/max_net_namespaces", "0", "15000"),
    ];
    for (name, bad, good) in suspects {
        if setting(name).as_deref() == Some(bad) {
            let key = name.replace('/', ".");
            return Some(format!("user namespaces are disabled here; as root, run `sysctl -w {key}={good}`"));
        }
    }
    matches!(errno, libc::EPERM | libc::EACCES | libc::ENOSYS).then(|| {
        "if this runs in a container, its runtime forbids user namespaces: give it an unconfined seccomp and AppArmor \
         profile and an unmasked `/proc`, or run outside"
            .to_owned()
    })
}
