//! End to end, through the `ampoule` binary only.

mod build;
mod check;
mod command_line;
mod errors;
mod harness;
mod limits;
mod nix;
mod store;
mod tidy;
mod wheels;
