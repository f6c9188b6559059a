//! Times, and how they are told.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run took.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// From start to end.
    pub(crate) wall: Duration,
    /// Time on processors, of the process and of all it waited for, in user and kernel mode.
    pub(crate) cpu: Duration,
}

/// Runs a command that must succeed, with nobody listening.
pub(crate) fn run(command: &mut Command) -> Sample {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (cpu, started) = (cpu_of_children(), Instant::now());
    let output = command.output().expect("the program starts");
    let sample = Sample { wall: started.elapsed(), cpu: cpu_of_children().saturating_sub(cpu) };
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    sample
}

/// The CPU time of all children that have ended, as the kernel keeps it: in ticks, usually of 10 ms.
fn cpu_of_children() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("`/proc` is there");
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).expect("a number of ticks");
    let milliseconds_per_tick = 1000 / rustix::param::clock_ticks_per_second();
    Duration::from_millis((ticks(13) + ticks(14)) * milliseconds_per_tick)
}

/// Several measurements of one thing.
#[derive(Default)]
pub(crate) struct Figure(Vec<Duration>);

impl Figure {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort_unstable();
    }

    pub(crate) fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    pub(crate) fn min(&self) -> Duration {
        self.0[0]
    }

    /// Prints the figure alone.
    pub(crate) fn print(&self, what: &str) {
        println!("{}", self.line(what));
    }

    /// Prints the figure and how it compares.
    pub(crate) fn print_against(&self, what: &str, baseline: &Self) {
        let ratio = |own: Duration, other: Duration| own.as_secs_f64() / other.as_secs_f64().max(1e-9);
        let (median, min) = (ratio(self.median(), baseline.median()), ratio(self.min(), baseline.min()));
        println!("{}  {median:.1} x the baseline (of the minima {min:.1} x)", self.line(what));
    }

    fn line(&self, what: &str) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, min, runs) = (milliseconds(self.median()), milliseconds(self.min()), self.0.len());
        format!("  {what:<58} median {median:9.3} ms  min {min:9.3} ms  of {runs:3}")
    }
}
