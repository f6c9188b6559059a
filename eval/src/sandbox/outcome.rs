//! What became of a build.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A finished run. Every process of the build is dead.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// Wall time from the request to the death of the last process.
    pub duration: Duration,
    /// The logical store directory as the build left it, on a file system of its own: the outputs, and an empty
    /// placeholder for each input. If the builder exited, the caller can read everything below it, whatever modes the
    /// build chose. Names, kinds and contents are the build's and not to be trusted.
    pub store: OwnedFd,
    /// `/build` as the build left it, for those who want to look at a failed build.
    pub build: Option<OwnedFd>,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The builder exited with this code.
    Code(i32),
    /// The builder was killed by this signal.
    Signal(i32),
    /// The builder could not be started; the text says why.
    NotStarted(String),
    /// It used up its wall time.
    TimedOut,
    /// It wrote nothing to the log for too long.
    Silent,
    /// It wrote too much to the log.
    LogLimit,
}

impl Exit {
    /// Whether the builder exited with code 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::NotStarted(reason) => write!(f, "could not be started: {reason}"),
            Self::TimedOut => f.write_str("used up its time"),
            Self::Silent => f.write_str("was silent for too long"),
            Self::LogLimit => f.write_str("wrote too much to its log"),
        }
    }
}
