//! Asks `diffoscope`, where it is installed.

#![expect(clippy::disallowed_methods, reason = "runs a program and looks for it")]

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Most bytes of a report.
const REPORT_BYTES: &str = "2000000";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum DiffoscopeError {
    /// There is no such program.
    #[error("`diffoscope` is not installed")]
    Missing,
    /// It cannot be started.
    #[error("cannot run `diffoscope`")]
    Start(#[source] io::Error),
    /// It failed.
    #[error("`diffoscope` failed: {0}")]
    Failed(String),
}

/// What `diffoscope` says of two trees, as plain text; empty if they are the same to it.
///
/// # Errors
/// When it is not there or fails.
pub fn run(first: &Path, second: &Path) -> Result<String, DiffoscopeError> {
    let output = Command::new("diffoscope")
        .args(["--no-progress", "--text-color", "never", "--max-text-report-size", REPORT_BYTES, "--text", "-", "--"])
        .args([first, second])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DiffoscopeError::Missing,
            _ => DiffoscopeError::Start(error),
        })?;
    match output.status.code() {
        // One says that there are differences.
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(DiffoscopeError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
