//! A build's log on its way: kept compressed in the store, its last lines remembered, each line reported.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::reporter::{ActivityId, Event, Reporter};

/// Lines remembered for the message of a failed build.
const TAIL_LINES: usize = 25;
/// A longer line is cut where it is remembered and reported; the kept log has all of it.
const LINE_BYTES: usize = 4096;

/// Takes what a build writes.
pub(super) struct Log<'a, W> {
    kept: W,
    reporter: &'a dyn Reporter,
    activity: ActivityId,
    line: Vec<u8>,
    tail: VecDeque<String>,
}

impl<'a, W: Write> Log<'a, W> {
    pub(super) fn new(kept: W, reporter: &'a dyn Reporter, activity: ActivityId) -> Self {
        Self { kept, reporter, activity, line: Vec::new(), tail: VecDeque::new() }
    }

    /// What is kept, and the last lines.
    pub(super) fn finish(mut self) -> (W, Vec<String>) {
        if !self.line.is_empty() {
            self.end_line();
        }
        (self.kept, self.tail.into())
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        self.reporter.report(Event::LogLine { id: self.activity, line });
    }
}

impl<W: Write> Write for Log<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.write_all(bytes)?;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.kept.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporter::Recorder;

    #[test]
    fn lines_are_reported_whole_and_kept_verbatim() {
        let recorder = Recorder::default();
        let mut log = Log::new(Vec::new(), &recorder, ActivityId(1));
        for piece in ["first\nsec", "ond\n", "\nlast"] {
            log.write_all(piece.as_bytes()).unwrap();
        }
        let (kept, tail) = log.finish();
        assert_eq!(kept, b"first\nsecond\n\nlast");
        assert_eq!(tail, ["first", "second", "", "last"]);
        assert_eq!(recorder.events().len(), 4);
    }

    #[test]
    fn the_tail_and_its_lines_are_bounded() {
        let recorder = Recorder::default();
        let mut log = Log::new(io::sink(), &recorder, ActivityId(1));
        for number in 0..100 {
            writeln!(log, "{number}{}", "x".repeat(10_000)).unwrap();
        }
        let (_, tail) = log.finish();
        assert_eq!(tail.len(), TAIL_LINES);
        assert!(tail[0].starts_with("75x") && tail.iter().all(|line| line.len() == LINE_BYTES));
    }
}
