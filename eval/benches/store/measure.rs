//! Whole processes: time, processor time and memory, as the kernel accounts them when a process has ended.
#![allow(unsafe_code, reason = "the standard library does not hand out what the kernel says of a process that ended")]

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ampoule_store::hash::Sha256Hasher;

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// From start to end.
    pub(crate) wall: f64,
    /// Seconds on processors, in user and kernel mode, of all its processes.
    pub(crate) cpu: f64,
    /// The most memory one process had, in MiB.
    pub(crate) memory: f64,
}

/// Runs a command that must succeed, with nobody listening.
pub(crate) fn run(command: &mut Command) -> Sample {
    let errors = tempfile::tempfile().expect("a temporary file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().expect("a descriptor"));
    let started = Instant::now();
    #[expect(clippy::zombie_processes, reason = "it is waited for below, by another call")]
    let child = command.spawn().expect("the program starts");
    let (status, usage) = wait(child.id());
    let wall = started.elapsed().as_secs_f64();
    assert!(status == 0, "{command:?}: status {status}: {}", text(errors));
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Sample { wall, cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), memory: usage.ru_maxrss as f64 / 1024.0 }
}

fn wait(process: u32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types, which the kernel fills in.
    let waited = unsafe { libc::wait4(process as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    assert!(waited == process as libc::pid_t, "{}", std::io::Error::last_os_error());
    (status, usage)
}

fn text(mut file: File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

/// The runs of two commands that were started in turn.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) ours: Vec<Sample>,
    /// Empty where there is nothing to compare with.
    pub(crate) theirs: Vec<Sample>,
}

/// Runs ours and theirs in turn, so that whatever else the machine does hits both. Each prepares what it needs before it
/// takes its sample.
pub(crate) fn in_turn(
    runs: usize,
    mut ours: impl FnMut() -> Sample,
    mut theirs: Option<impl FnMut() -> Sample>,
) -> Pair {
    let mut pair = Pair::default();
    for _ in 0..runs {
        pair.ours.push(ours());
        if let Some(theirs) = &mut theirs {
            pair.theirs.push(theirs());
        }
    }
    pair
}

/// The median of one figure; `None` of nothing.
pub(crate) fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = samples.iter().map(figure).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

const BASELINE: &str = "--sha256-of-mebibytes=";

/// A process of its own that hashes so many MiB of memory in one thread: the speed of SHA-256 on this processor.
pub(crate) fn sha256_alone(mebibytes: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(format!("{BASELINE}{mebibytes}"));
    command
}

/// Whether this process is that one, and has done its work.
pub(crate) fn is_baseline() -> bool {
    let mebibytes = std::env::args().find_map(|argument| argument.strip_prefix(BASELINE)?.parse::<u64>().ok());
    let Some(mebibytes) = mebibytes else { return false };
    let (mut hasher, buffer) = (Sha256Hasher::new(), vec![7; 1 << 20]);
    (0..mebibytes).for_each(|_| std::io::Write::write_all(&mut hasher, &buffer).expect("a hasher takes all"));
    std::hint::black_box(hasher.finish());
    true
}

/// Lets what was written settle, so that it is not counted for the next command.
pub(crate) fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(50));
}
