//! What a person sees of long work: bars on a terminal, plain lines elsewhere, nothing when quiet.

mod bars;
mod date;
mod lines;
mod relay;

use std::io::IsTerminal;

use crate::reporter::Reporter;

pub use bars::Bars;
pub use date::utc;
pub use lines::Lines;
pub use relay::{Raw, Relay};

/// How much a person wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors only.
    Quiet,
    /// What begins and ends.
    Normal,
    /// And what builds write.
    Verbose,
    /// And every step.
    VeryVerbose,
}

/// The reporter that fits standard error: bars when it is a terminal that a person watches, lines otherwise.
pub fn reporter_for_stderr(verbosity: Verbosity) -> Box<dyn Reporter + Send + Sync> {
    if verbosity == Verbosity::Normal && std::io::stderr().is_terminal() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::new(verbosity))
    }
}

/// A count of bytes as people read it: `12.3 MB`. Powers of ten, as registries show sizes.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of time as people read it: `0.4 s`, `12 s`, `3 min 05 s`.
pub fn duration(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// Text from a build made safe to show: control characters but tabs are replaced, so no build can drive the terminal.
pub fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], for text of several lines: messages quote names that a build or an archive chose.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_are_short() {
        let shown: Vec<String> = [0, 999, 1000, 999_949, 999_951, 1_000_000, 12_345_678_901].map(bytes).to_vec();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 MB", "12.3 GB"]);
    }

    #[test]
    fn spans_are_short() {
        let shown: Vec<String> =
            [400, 9_940, 12_600, 185_000].map(|millis| duration(Duration::from_millis(millis))).to_vec();
        assert_eq!(shown, ["0.4 s", "9.9 s", "12 s", "3 min 05 s"]);
    }

    #[test]
    fn a_build_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\r"), "a\u{fffd}[2Jb\tc\u{fffd}");
        assert_eq!(printable_lines("a\u{9b}\nb\u{1b}\n"), "a\u{fffd}\nb\u{fffd}\n");
    }
}
