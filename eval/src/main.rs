//! The `ampoule` command.

use std::process::ExitCode;

use ampoule_eval::sandbox::{BuiltinCall, Embedded};
use ampoule_eval::{builtins, cli};

/// Evaluation makes and drops millions of small values; with the system's allocator that takes nearly half of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let start = || Embedded::start(builtin).map_err(cli::Failure::from);
    ExitCode::from(cli::run(std::env::args_os(), start))
}

/// Runs a builtin builder as a build's only process; what it has to say goes to the build's log.
fn builtin(call: &BuiltinCall) -> i32 {
    match builtins::run(&call.name, &call.env, &call.out) {
        Ok(()) => 0,
        Err(error) => {
            cli::say(&cli::Failure::from(error));
            1
        }
    }
}
