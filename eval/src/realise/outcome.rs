//! How the realisation of derivations ended, and which exit code says so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ampoule_store::path::StorePath;

use crate::check::Finding;
use crate::difference::Difference;

/// What became of one derivation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its outputs are valid.
    Realised(Realised),
    /// It could not be realised.
    Failed(Failure),
    /// Something it needs could not be realised: the derivation where the trouble began.
    InputFailed(StorePath),
    /// It was not begun, because something else failed before.
    NotBegun,
}

/// A derivation whose outputs are valid.
#[derive(Clone, Debug)]
pub struct Realised {
    /// The outputs' store paths.
    pub outputs: BTreeMap<String, StorePath>,
    /// How they came to be.
    pub how: How,
    /// Whether a rebuild under other conditions gave the same bytes, now or before.
    pub proved: bool,
}

/// How valid outputs came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They were in the store.
    Found,
    /// Another derivation that resolves to the same one had made them.
    SharedResult,
    /// They came from a binary cache.
    Substituted,
    /// They were fetched.
    Fetched,
    /// They were built.
    Built,
}

/// Why a derivation was not realised.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind, which decides the exit code.
    pub kind: FailureKind,
    /// What happened, for people.
    pub message: String,
    /// What to do next, if there is something.
    pub hint: Option<String>,
    /// The last lines of the build's log.
    pub log_tail: Vec<String>,
    /// How long the build ran.
    pub duration: Duration,
    /// Where its build directory is kept, if that was wanted.
    pub kept: Option<Box<PathBuf>>,
}

impl Failure {
    /// What was found out about a build that does not come out the same again.
    pub fn finding(&self) -> Option<&Finding> {
        match &self.kind {
            FailureKind::NotReproducible { finding, .. } | FailureKind::RebuildFailed { finding } => Some(finding),
            _ => None,
        }
    }

    /// A failure of the build itself.
    pub(crate) fn build(message: impl Into<String>) -> Self {
        let message = message.into();
        let (kind, log_tail) = (FailureKind::Build, Vec::new());
        Self { kind, message, hint: None, log_tail, duration: Duration::ZERO, kept: None }
    }

    /// A failure of the machine, the store or the sandbox.
    pub(crate) fn machine(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Machine, ..Self::build(message) }
    }

    /// The same failure with what to do next.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kinds of failure that programs tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The builder failed, or did not keep the contract.
    Build,
    /// The builder took too long, or was silent for too long.
    TimedOut,
    /// Bytes from outside do not have the stated hash.
    HashMismatch,
    /// A second build gave other bytes: where both outputs are kept, and the first difference.
    NotReproducible {
        /// The first build's output on disk.
        first: PathBuf,
        /// The second build's output on disk.
        second: PathBuf,
        /// Where they first differ.
        difference: Option<Difference>,
        /// What decides.
        finding: Box<Finding>,
    },
    /// A second build failed, under other conditions.
    RebuildFailed {
        /// What decides.
        finding: Box<Finding>,
    },
    /// The machine, the store or the sandbox failed, not the build.
    Machine,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build | Self::RebuildFailed { .. } => "build failed",
            Self::TimedOut => "timed out",
            Self::HashMismatch => "hash mismatch",
            Self::NotReproducible { .. } => "not reproducible",
            Self::Machine => "could not be attempted",
        })
    }
}

/// Everything that was asked for and everything it needed.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(pub BTreeMap<StorePath, Outcome>);

impl Outcomes {
    /// The derivations that failed by themselves, in order.
    pub fn failures(&self) -> impl Iterator<Item = (&StorePath, &Failure)> {
        self.0.iter().filter_map(|(path, outcome)| match outcome {
            Outcome::Failed(failure) => Some((path, failure)),
            _ => None,
        })
    }

    /// The outputs of a derivation, if it was realised.
    pub fn realised(&self, derivation: &StorePath) -> Option<&Realised> {
        match self.0.get(derivation)? {
            Outcome::Realised(realised) => Some(realised),
            _ => None,
        }
    }

    /// Nix's exit code for what failed: 100 a build, 101 time, 102 a hash, 104 reproducibility, combined bit by bit; 1
    /// when only the machine failed; 0 when nothing did.
    pub fn exit_code(&self) -> u8 {
        exit_code(self.failures().map(|(_, failure)| &failure.kind))
    }
}

fn exit_code<'a>(kinds: impl Iterator<Item = &'a FailureKind>) -> u8 {
    let (mut bits, mut machine) = (0, 0);
    for kind in kinds {
        match kind {
            FailureKind::Build | FailureKind::RebuildFailed { .. } => bits |= 0b0100,
            FailureKind::TimedOut => bits |= 0b0101,
            FailureKind::HashMismatch => bits |= 0b0110,
            FailureKind::NotReproducible { .. } => bits |= 0b1000,
            FailureKind::Machine => machine = 1,
        }
    }
    if bits == 0 { machine } else { 0b0110_0000 | bits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Culprit;

    #[test]
    fn exit_codes_are_those_of_nix() {
        let finding = Box::new(Finding::new(Culprit::Itself, 1, None));
        let different =
            FailureKind::NotReproducible { first: PathBuf::new(), second: PathBuf::new(), difference: None, finding };
        let cases: [(&[FailureKind], u8); 7] = [
            (&[], 0),
            (&[FailureKind::Machine], 1),
            (&[FailureKind::Build, FailureKind::Machine], 100),
            (&[FailureKind::TimedOut], 101),
            (&[FailureKind::HashMismatch], 102),
            (std::slice::from_ref(&different), 104),
            (&[FailureKind::HashMismatch, different.clone()], 110),
        ];
        for (kinds, expected) in cases {
            assert_eq!(exit_code(kinds.iter()), expected, "{kinds:?}");
        }
    }
}
