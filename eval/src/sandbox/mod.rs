//! The sandbox: every build runs here, and there is no way round it.
//!
//! A sandbox is data. A [`Spec`] says what a build may see, what it runs and how much it may use; [`plan`] turns it,
//! purely, into a list of [`Operation`]s; the executor, the only part of Ampoule with `unsafe` code, performs them.
//!
//! - [`Spec`], [`Conditions`], [`Limits`]: what is asked for. Serialisable, so that a record of a build can keep them.
//! - [`Plan`], [`Operation`]: what will be done, in order. Snapshot-tested.
//! - [`Engine`]: the seam; [`Embedded`] is the engine built into this program.
//! - [`Outcome`], [`Exit`]: what became of the build. A failed build is an outcome; an [`EngineError`] means that the
//!   sandbox itself could not do its work.
//!
//! **Effects**: processes, namespaces, mounts inside the build's own mount namespace. Nothing on the host is written.
//!
//! **Invariants**: a build always has its own user, pid, mount, network, ipc, uts, cgroup and time namespaces, also
//! when the caller is root; it has no capabilities and cannot gain any; when [`Engine::run`] returns, every process of
//! the build is dead, so that outputs cannot change under the reader; if any part of the sandbox cannot be set up, the
//! build does not run.
//!
//! **Not here**: copying outputs (the store does it, from the directory descriptor of the [`Outcome`]), the network
//! (fetchers run outside), and the choice of environment variables.

mod engine;
mod error;
mod executor;
mod filter;
mod machine;
mod operations;
mod outcome;
mod rules;
mod spec;

pub use engine::{Embedded, Engine};
pub use error::EngineError;
pub use machine::Machine;
pub use operations::{Operation, Plan, Program, SpecError, Supervision, plan};
pub use outcome::{Exit, Outcome};
pub use spec::{
    Builder, BuiltinCall, Bytes, Clock, Conditions, Contract, Features, FileSystem, Input, Limits, Order, Root, Spec,
};
