//! What is known of everything that targets are made of: proved, unproved, refuted or pinned, and why.
//!
//! - [`audit`] walks a closure and asks the store; the answer is an [`Audit`], a record for programs.
//! - [`page::render`] makes one self-contained HTML page of it, [`table::render`] a table for the terminal.
//!
//! **Effects.** `collect` and `evidence` read the store; the rest is functions on values.
//!
//! **Invariants.** The same store and the same time give the same record and the same page. The page needs no other
//! file and no network, and what a build, a name or a log says cannot become markup: what is not written in this program
//! goes through one function that escapes it.

mod collect;
mod evidence;
mod layout;
mod markup;
pub mod page;
mod record;
pub mod table;

pub use collect::{AuditError, Goal, Request, audit};
pub use evidence::resolved_path;
pub use record::{Audit, BuildRecord, Comparison, LogExcerpt, Node, OutputRecord, Refutation, Scope, Summary};
