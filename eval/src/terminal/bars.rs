//! Progress bars for a person at a terminal.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines::verb;
use super::{duration, printable, printable_lines};
use crate::reporter::{Activity, ActivityId, Event, Reporter};

/// Draws one bar for each running activity on standard error, and leaves a line behind for each build.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    running: Mutex<BTreeMap<ActivityId, Running>>,
}

#[derive(Debug)]
struct Running {
    activity: Activity,
    what: String,
    bar: ProgressBar,
    since: Instant,
}

impl Bars {
    /// Bars on standard error.
    pub fn new() -> Self {
        Self { all: MultiProgress::new(), running: Mutex::new(BTreeMap::new()) }
    }

    fn start(&self, id: ActivityId, activity: Activity, what: String, total: Option<u64>) {
        let bar = self.all.add(match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        });
        bar.set_style(style(activity, total.is_some()));
        bar.set_prefix(format!("{:>7} {what}", verb(activity)));
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Ok(mut running) = self.running.lock() {
            running.insert(id, Running { activity, what, bar, since: Instant::now() });
        }
    }

    fn finish(&self, id: ActivityId, success: bool, outcome: &str) {
        let Some(entry) = self.running.lock().ok().and_then(|mut running| running.remove(&id)) else { return };
        entry.bar.finish_and_clear();
        self.all.remove(&entry.bar);
        if matches!(entry.activity, Activity::Build | Activity::Check) || !success {
            let mark = if success { "✓" } else { "✗ failed:" };
            let took = duration(entry.since.elapsed());
            self.say(&format!("{:>7} {} {mark} {outcome} ({took})", verb(entry.activity), entry.what));
        }
    }

    fn with(&self, id: ActivityId, change: impl FnOnce(&Running)) {
        if let Ok(running) = self.running.lock()
            && let Some(entry) = running.get(&id)
        {
            change(entry);
        }
    }

    fn say(&self, line: &str) {
        // A terminal that went away must not stop the work.
        let _ = self.all.println(printable_lines(line));
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Reporter for Bars {
    fn report(&self, event: Event) {
        match event {
            Event::Started { id, activity, what, total } => self.start(id, activity, what, total),
            Event::Progress { id, done, total } => self.with(id, |entry| {
                if let Some(total) = total
                    && entry.bar.length() != Some(total)
                {
                    entry.bar.set_length(total);
                    entry.bar.set_style(style(entry.activity, true));
                }
                entry.bar.set_position(done);
            }),
            Event::Phase { id, phase } => self.with(id, |entry| entry.bar.set_message(phase)),
            Event::LogLine { id, line } => self.with(id, |entry| entry.bar.set_message(printable(&line))),
            Event::Finished { id, success, outcome } => self.finish(id, success, &outcome),
            Event::Note(text) => self.say(&text),
            Event::Warning(text) => self.say(&format!("warning: {text}")),
            Event::Detail(_) => {}
        }
    }
}

fn style(activity: Activity, sized: bool) -> ProgressStyle {
    let template = match (activity, sized) {
        (Activity::Download, true) => "{prefix:50!} {bar:20} {bytes:>10}/{total_bytes} {bytes_per_sec} {eta}",
        (Activity::Download, false) => "{prefix:50!} {spinner} {bytes} {bytes_per_sec}",
        _ => "{prefix:50!} {spinner} {elapsed:>4} {wide_msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
