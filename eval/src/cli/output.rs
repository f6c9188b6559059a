//! Standard output and standard error.

use std::io::{self, Write};

use serde_json::Value;

use super::Failure;
use crate::terminal::printable_lines;

/// Writes data to standard output. A reader that has gone away (`| head`) is no failure.
pub(super) fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line of text to standard output.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    data(format!("{text}\n").as_bytes())
}

/// Writes a record for programs to standard output.
pub(super) fn json(record: &Value) -> Result<(), Failure> {
    line(&format!("{record:#}"))
}

/// Like [`json`], where a failure could not be reported any more.
pub(super) fn record(value: &Value) {
    let _ = json(value);
}

/// Writes to standard error; there is nowhere to report a failure to do so. What could drive a terminal is replaced.
pub(super) fn message(text: &str) {
    let _ = io::stderr().lock().write_all(printable_lines(text).as_bytes());
}
