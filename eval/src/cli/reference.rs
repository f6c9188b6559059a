//! Keeps `docs/user/command-line.md` in step with the commands' own help.

#![expect(clippy::disallowed_methods, reason = "reads the page, and writes it when asked to")]

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use super::Cli;

const INTRODUCTION: &str = "\
# Command line

Every command with its own help, as `ampoule COMMAND --help` prints it. A test keeps this page in step with the program; to bring it up to date, run
`AMPOULE_ACCEPT=1 cargo test -p ampoule-eval --lib cli::reference`.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut command = Cli::command().term_width(100);
    command.build();
    describe(&mut page, &command, "ampoule");
    page
}

fn describe(page: &mut String, command: &Command, name: &str) {
    let help = command.clone().term_width(100).render_long_help().to_string();
    // The environment of whoever runs the test is no part of the page.
    let help: Vec<String> = help.lines().map(|line| without_environment(line.trim_end())).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for inner in command.get_subcommands() {
        describe(page, inner, &format!("{name} {}", inner.get_name()));
    }
}

fn without_environment(line: &str) -> String {
    match line.split_once("[env: AMPOULE_HOME=") {
        Some((before, _)) => format!("{before}[env: AMPOULE_HOME=]"),
        None => line.to_owned(),
    }
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/user/command-line.md");
    if std::env::var_os("AMPOULE_ACCEPT").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, page(), "run this test once with AMPOULE_ACCEPT=1");
}
