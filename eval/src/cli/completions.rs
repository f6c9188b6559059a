//! `ampoule completions`: a script that teaches a shell the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, output};

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ampoule completions bash > ~/.local/share/bash-completion/completions/ampoule")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "ampoule", &mut script);
    output::data(&script)
}
