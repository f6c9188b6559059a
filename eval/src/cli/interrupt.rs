//! What happens when a person presses Ctrl-C, or a supervisor asks the process to end.
//!
//! Nothing has to be undone: running builds die with this process, and whatever they had staged is removed when the store is
//! opened next.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{ExitCode, Failure, output};

/// From now on, ends the process with exit code 130 when it is told to stop.
///
/// # Errors
/// When the system refuses to say when that happens.
pub(super) fn exit_when_interrupted() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(format!("cannot watch for signals: {error}")))?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            output::message("\ninterrupted: nothing is lost; run the command again to go on\n");
            std::process::exit(ExitCode::Interrupted as i32);
        }
    });
    Ok(())
}
