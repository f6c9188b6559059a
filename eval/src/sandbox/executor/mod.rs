//! Performs plans: the only part of Ampoule with `unsafe` code, all of it in `system`, `vdso` and the child sides of
//! forks.
//!
//! - `zygote`: a single-threaded process, forked from the caller before it has threads. It alone creates sandboxes.
//! - `init`: process 1 of a sandbox. Prepares it, starts the builder, reaps, kills what is left, reports.
//! - `builder`: the builder's process until the builder has control.
//! - `prepare`, `tree`, `views`, `facts`: the operations.
//! - `supervisor`, `vdso`: answers to questions about the machine, and for the wall clock and random numbers where a run
//!   asks for other ones.
//! - `groups`: limits for a build as a whole. `wire`: messages with file descriptors. `system`: the system calls, as safe functions.
//!
//! All of it runs in single-threaded forked processes, so that allocating after a fork is sound.
#![allow(unsafe_code, reason = "namespaces, forks and filters have no safe interface; every block says why it holds")]
#![expect(clippy::disallowed_methods, reason = "performs the operations of a sandbox inside its own namespaces")]

mod builder;
mod clock;
mod delays;
mod facts;
mod files;
mod groups;
mod identity;
mod init;
mod inspect;
mod listing;
mod modes;
mod prepare;
mod shell;
mod supervisor;
mod system;
mod tree;
mod vdso;
mod views;
pub(super) mod wire;
pub(super) mod zygote;
