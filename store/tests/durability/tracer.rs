//! Runs a program one system call at a time: each may be looked at, made to fail, or be the program's last.
//!
//! The only code of the tests that talks to the kernel directly; x86-64 Linux.
#![allow(unsafe_code, reason = "no safe interface to ptrace exists")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr;

/// After this time a traced program counts as hung.
const PATIENCE_SECONDS: u32 = 60;

/// What is to become of a system call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Happens,
    /// It never happens: the program is killed first.
    Killed,
    /// It does nothing and answers with this error.
    Fails(i32),
    /// Its third argument, a length, is replaced.
    Shortened(u64),
}

/// Is told about each system call.
pub(crate) trait Watcher {
    fn enter(&mut self, call: &Call) -> Fate;
    fn leave(&mut self, _call: &Call, _result: i64) {}
}

/// A system call with its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// The thread that makes it.
    pub(crate) process: i32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// The program's memory.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let memory = File::open(format!("/proc/{}/mem", self.process)).unwrap();
        memory.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    /// The text that ends with a zero byte.
    pub(crate) fn text(&self, address: u64) -> OsString {
        let memory = File::open(format!("/proc/{}/mem", self.process)).unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        for position in address.. {
            memory.read_exact_at(&mut byte, position).unwrap();
            if byte[0] == 0 {
                break;
            }
            text.push(byte[0]);
        }
        OsString::from_vec(text)
    }

    /// The path of an open file; `None` if it has none, for example because it was unlinked.
    pub(crate) fn file(&self, descriptor: u64) -> Option<PathBuf> {
        let number = descriptor as i32;
        let link = match number {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.process),
            _ => format!("/proc/{}/fd/{number}", self.process),
        };
        let path = fs::read_link(link).ok()?;
        path.is_absolute().then_some(path).filter(|path| !path.to_string_lossy().ends_with(" (deleted)"))
    }

    /// The path that the arguments `directory` and `name` speak of.
    pub(crate) fn path(&self, directory: usize, name: usize) -> Option<PathBuf> {
        Some(self.absolute(self.file(self.arguments[directory])?, name))
    }

    /// The path that the argument `name` speaks of, in the working directory.
    pub(crate) fn plain_path(&self, name: usize) -> Option<PathBuf> {
        Some(self.absolute(self.file(libc::AT_FDCWD as u64)?, name))
    }

    fn absolute(&self, directory: PathBuf, name: usize) -> PathBuf {
        let text = self.text(self.arguments[name]);
        // `/proc/self/fd/7` is how a file is named that has no descriptor for writing.
        match text.to_str().and_then(|text| text.strip_prefix("/proc/self/fd/")) {
            Some(number) => self.file(number.parse().unwrap()).unwrap_or_default(),
            None => directory.join(Path::new(&text)).components().collect(),
        }
    }
}

/// How a traced program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// To be called by the program that is to be traced, before it does anything else: waits for the tracer.
pub(crate) fn begin() {
    // SAFETY: none of these calls touches memory of this process.
    unsafe {
        libc::alarm(PATIENCE_SECONDS);
        assert_eq!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0), 0, "{}", io::Error::last_os_error());
        libc::raise(libc::SIGSTOP);
    }
}

/// Starts a program that calls [`begin`], and follows it and its threads to its end.
#[expect(clippy::zombie_processes, reason = "`follow` waits for it")]
pub(crate) fn run(command: &mut Command, watcher: &mut dyn Watcher) -> Ended {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let main = child.id() as i32;
    let code = follow(main, watcher);
    // What the program says fits into the pipes.
    let read = |stream: &mut dyn Read| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    Ended { code, stdout: read(child.stdout.as_mut().unwrap()), stderr: read(child.stderr.as_mut().unwrap()) }
}

/// What is going on in a thread of the program.
struct Thread {
    /// The call it is in, and the answer that is to be given instead of the kernel's.
    call: Option<(Call, Option<i64>)>,
}

fn follow(main: i32, watcher: &mut dyn Watcher) -> Option<i32> {
    let mut threads: BTreeMap<i32, Thread> = BTreeMap::new();
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let process = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(process > 0, "{}", io::Error::last_os_error());
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            threads.remove(&process);
            if process == main {
                return libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            }
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        let is_new = !threads.contains_key(&process);
        let thread = threads.entry(process).or_insert(Thread { call: None });
        let mut delivered = 0;
        if is_new {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, process, options as u64);
        } else if signal == libc::SIGTRAP | 0x80 {
            step(process, main, thread, watcher);
        } else if status >> 16 == 0 && signal != libc::SIGTRAP {
            delivered = signal;
        }
        request(libc::PTRACE_SYSCALL, process, delivered as u64);
    }
}

fn step(process: i32, main: i32, thread: &mut Thread, watcher: &mut dyn Watcher) {
    let Some(mut registers) = registers(process) else { return };
    if let Some((call, answer)) = thread.call.take() {
        if let Some(answer) = answer {
            registers.rax = answer as u64;
            set_registers(process, &registers);
        }
        watcher.leave(&call, registers.rax as i64);
        return;
    }
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let call = Call { process, number: registers.orig_rax as i64, arguments };
    let mut answer = None;
    let fate = if lists_processes(&call) { Fate::Fails(libc::ENOENT) } else { watcher.enter(&call) };
    match fate {
        Fate::Happens => {}
        // SAFETY: no memory is involved.
        Fate::Killed => drop(unsafe { libc::kill(main, libc::SIGKILL) }),
        Fate::Fails(error) => {
            registers.orig_rax = u64::MAX;
            set_registers(process, &registers);
            answer = Some(-i64::from(error));
        }
        Fate::Shortened(length) => {
            registers.rdx = length;
            set_registers(process, &registers);
        }
    }
    thread.call = Some((call, answer));
}

/// Whether the program is about to look at all processes of the machine: it may not, since it would make thousands of calls
/// that have nothing to do with its store, and others each time.
fn lists_processes(call: &Call) -> bool {
    call.number == libc::SYS_openat && call.text(call.arguments[1]) == "/proc"
}

/// A request on a stopped thread; one that was killed meanwhile is no error.
fn request(request: libc::c_uint, process: i32, data: u64) {
    // SAFETY: these requests take no pointers.
    unsafe { libc::ptrace(request, process, 0, data) };
}

fn registers(process: i32) -> Option<libc::user_regs_struct> {
    // SAFETY: a struct of integers, for which zeros are valid, that outlives the call which fills it.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let done = libc::ptrace(libc::PTRACE_GETREGS, process, ptr::null_mut::<u8>(), &raw mut registers);
        (done == 0).then_some(registers)
    }
}

fn set_registers(process: i32, registers: &libc::user_regs_struct) {
    // SAFETY: the struct outlives the call, which only reads it.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, process, ptr::null_mut::<u8>(), ptr::from_ref(registers)) };
}
