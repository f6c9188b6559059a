//! Plain lines for logs and CI: one when an activity begins to matter, one when it ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use super::{Verbosity, bytes, duration, printable, printable_lines};
use crate::reporter::{Activity, ActivityId, Event, Reporter};

/// Writes one line to standard error for each thing worth knowing.
#[derive(Debug)]
pub struct Lines {
    verbosity: Verbosity,
    running: Mutex<BTreeMap<ActivityId, Running>>,
}

#[derive(Debug)]
struct Running {
    activity: Activity,
    what: String,
    total: Option<u64>,
    since: Instant,
}

impl Lines {
    /// A reporter that tells as much as `verbosity` says.
    pub fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, running: Mutex::new(BTreeMap::new()) }
    }

    fn line(&self, event: &Event) -> Option<String> {
        let mut running = self.running.lock().ok()?;
        let normal = self.verbosity >= Verbosity::Normal;
        match event {
            Event::Started { id, activity, what, total } => {
                let entry = Running { activity: *activity, what: what.clone(), total: *total, since: Instant::now() };
                running.insert(*id, entry);
                let shown = normal && matches!(activity, Activity::Build | Activity::Check);
                shown.then(|| format!("{} {what}", verb(*activity)))
            }
            Event::Progress { id, total, .. } => {
                if let (Some(entry), Some(total)) = (running.get_mut(id), total) {
                    entry.total = Some(*total);
                }
                None
            }
            Event::Phase { id, phase } => {
                let what = running.get(id).map(|entry| entry.what.clone()).unwrap_or_default();
                (self.verbosity >= Verbosity::VeryVerbose).then(|| format!("{what}: {phase}"))
            }
            Event::LogLine { id, line } => {
                let what = running.get(id).map(|entry| entry.what.clone()).unwrap_or_default();
                (self.verbosity >= Verbosity::Verbose).then(|| format!("{what}> {}", printable(line)))
            }
            Event::Finished { id, success, outcome } => {
                let entry = running.remove(id)?;
                normal.then(|| finished_line(&entry, *success, outcome))
            }
            Event::Note(text) => normal.then(|| text.clone()),
            Event::Warning(text) => Some(format!("warning: {text}")),
            Event::Detail(text) => (self.verbosity >= Verbosity::Verbose).then(|| text.clone()),
        }
    }
}

impl Reporter for Lines {
    fn report(&self, event: Event) {
        if let Some(line) = self.line(&event) {
            // A reader that went away must not stop the work.
            let _ = writeln!(std::io::stderr().lock(), "{}", printable_lines(&line));
        }
    }
}

/// What an activity does, as the first word of a line.
pub(super) fn verb(activity: Activity) -> &'static str {
    match activity {
        Activity::Download => "fetch",
        Activity::Build => "build",
        Activity::Check => "check",
        Activity::Resolve => "resolve",
    }
}

fn finished_line(entry: &Running, success: bool, outcome: &str) -> String {
    let took = duration(entry.since.elapsed());
    let size = match (entry.activity, entry.total) {
        (Activity::Download, Some(total)) => format!(", {}", bytes(total)),
        _ => String::new(),
    };
    let mark = match (success, outcome) {
        (true, _) => "",
        (false, "") => "failed",
        (false, _) => "failed: ",
    };
    format!("{} {}: {mark}{outcome} ({took}{size})", verb(entry.activity), entry.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(verbosity: Verbosity) -> Vec<String> {
        let reporter = Lines::new(verbosity);
        let id = ActivityId(7);
        let events = [
            Event::Started { id, activity: Activity::Build, what: "hello".into(), total: None },
            Event::LogLine { id, line: "compiling\u{7}".into() },
            Event::Phase { id, phase: "registering".into() },
            Event::Finished { id, success: true, outcome: "built".into() },
            Event::Warning("careful".into()),
        ];
        events.iter().filter_map(|event| reporter.line(event)).map(|line| line.replace("0.0 s", "T")).collect()
    }

    #[test]
    fn quiet_shows_warnings_only() {
        assert_eq!(lines(Verbosity::Quiet), ["warning: careful"]);
    }

    #[test]
    fn normal_shows_begin_and_end() {
        assert_eq!(lines(Verbosity::Normal), ["build hello", "build hello: built (T)", "warning: careful"]);
    }

    #[test]
    fn verbose_shows_the_log_made_safe() {
        let shown = lines(Verbosity::VeryVerbose);
        assert_eq!(shown[1..3], ["hello> compiling\u{fffd}".to_owned(), "hello: registering".to_owned()]);
    }
}
