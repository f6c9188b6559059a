//! Why an engine could not do its work.

use std::io;

use super::operations::SpecError;

/// The sandbox could not be set up or watched. Never says anything about the build itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The spec asks for something impossible.
    #[error("impossible sandbox: {0}")]
    Spec(#[from] SpecError),
    /// The helper process could not be started.
    #[error("cannot start the sandbox helper: {0}")]
    Start(#[source] io::Error),
    /// An operation of the set-up failed; the build did not run.
    #[error("cannot set up the sandbox: cannot {operation}: {source}")]
    Setup {
        /// What failed, as in "cannot …".
        operation: String,
        /// Why.
        source: io::Error,
        /// What may help.
        hint: Option<String>,
    },
    /// A plan that another version wrote, or that got lost on its way.
    #[error("cannot hand the plan of the sandbox over: {0}")]
    Plan(#[from] serde_json::Error),
    /// The conversation with the helper broke.
    #[error("lost the sandbox helper while trying to {doing}: {source}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The sandbox's init died without a word, for instance for want of memory.
    #[error("the sandbox died without reporting how the build ended")]
    Died,
    /// The log could not be written; the build was stopped.
    #[error("cannot write the build log: {0}")]
    Log(#[source] io::Error),
}

impl EngineError {
    /// What the user may do about it, if known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Setup { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
