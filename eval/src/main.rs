//! The `ampoule` command.

use std::process::ExitCode;

use ampoule_eval::{builtins, cli, sandbox};

fn main() -> ExitCode {
    let start = || sandbox::Embedded::start(builtins::call).map_err(cli::Failure::from);
    ExitCode::from(cli::run(std::env::args_os(), start))
}
