//! End to end, through the `ampoule` binary only.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests work on files and processes"
)]

mod audit;
mod browser;
mod build;
mod caches;
mod check;
mod command_line;
mod concurrency;
mod errors;
mod garbage;
mod harness;
mod hostile_caches;
mod interruption;
mod limits;
mod nix;
mod nix_functional;
mod offenders;
mod repair;
mod shell;
mod sources;
mod store;
mod tidy;
mod transfers;
mod wheels;
