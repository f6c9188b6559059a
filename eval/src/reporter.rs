//! The seam through which long work tells people what it does.
//!
//! Work reports what happens to it as [`Event`]s; a [`Reporter`] decides what a person sees: progress bars on a
//! terminal, plain lines in a log, JSON lines for a program, or nothing.

use std::sync::Mutex;

/// Names one running activity between its start and its end. Unique within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivityId(pub u64);

/// What kind of work an activity is; decides how its progress is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Bytes come from a registry, a mirror or a directory.
    Download,
    /// A derivation is being built.
    Build,
    /// A derivation is being built again to compare.
    Check,
    /// Versions are being looked up at a registry.
    Resolve,
}

/// Something a person or a program may want to know while work goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An activity began. `total` is in bytes for downloads, unknown otherwise.
    Started {
        /// Which activity.
        id: ActivityId,
        /// What kind of work.
        activity: Activity,
        /// What it works on, for people.
        what: String,
        /// How much there is, if that is known.
        total: Option<u64>,
    },
    /// An activity has come so far: bytes for downloads.
    Progress {
        /// Which activity.
        id: ActivityId,
        /// How much is done.
        done: u64,
        /// How much there is, if that is known.
        total: Option<u64>,
    },
    /// An activity entered a named phase (`sandbox`, `running`, `registering`, …).
    Phase {
        /// Which activity.
        id: ActivityId,
        /// The phase, for people.
        phase: String,
    },
    /// A line a build wrote.
    LogLine {
        /// Which activity.
        id: ActivityId,
        /// The line, without its end, as the build wrote it.
        line: String,
    },
    /// An activity ended; `outcome` is one short phrase for people.
    Finished {
        /// Which activity.
        id: ActivityId,
        /// Whether it did what it was to do.
        success: bool,
        /// How it ended, in a few words.
        outcome: String,
    },
    /// Something worth a line of its own, shown unless quiet.
    Note(String),
    /// Something is wrong but work goes on; shown even when quiet.
    Warning(String),
    /// Detail for `-v`.
    Detail(String),
}

/// Tells people. Implementations must not block for long: workers call them from any thread.
pub trait Reporter: Sync {
    /// Takes note of one event.
    fn report(&self, event: Event);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _event: Event) {}
}

/// Keeps every event in memory, in order.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    /// Everything reported so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().map(|events| events.clone()).unwrap_or_default()
    }
}

impl Reporter for Recorder {
    fn report(&self, event: Event) {
        if let Ok(mut events) = self.0.lock() {
            events.push(event);
        }
    }
}

/// A fresh id, never given before in this process.
pub fn next_activity() -> ActivityId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ActivityId(NEXT.fetch_add(1, Ordering::Relaxed))
}
