//! The one error type at the top: what went wrong, what to do next, and the exit code that tells programs.

use std::error::Error;
use std::fmt::Write as _;

use crate::lang::EvalError;

/// Exit codes of `ampoule`. Those of builds are Nix's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done.
    Done = 0,
    /// Something failed that is no build.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Stopped by a signal from outside.
    Interrupted = 130,
}

/// A command's failure, ready for a person.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// The whole text for people, and the record for programs, of an error that knows its own form.
    shown: Option<(String, serde_json::Value)>,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: ExitCode::Failed as u8, shown: None }
    }

    /// A failure that says what an error and its causes say.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !message.contains(&text) {
                let _ = write!(message, ": {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }

    /// A recipe's error, shown with the place in the recipe.
    pub fn from_recipe(error: &EvalError) -> Self {
        let record = serde_json::to_value(error).unwrap_or_default();
        Self { shown: Some((error.render(), record)), ..Self::new(error.to_string()) }
    }

    /// The same failure with what was being done in front of it.
    #[must_use]
    pub fn context(mut self, doing: impl std::fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same failure with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with another exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// The text for standard error, with a line end.
    pub fn render(&self) -> String {
        if let Some((text, _)) = &self.shown {
            return format!("{}\n", text.trim_end());
        }
        let mut text = format!("error: {}\n", self.message);
        if let Some(hint) = &self.hint {
            for (number, line) in hint.lines().enumerate() {
                let lead = if number == 0 { "hint: " } else { "      " };
                let _ = writeln!(text, "{lead}{line}");
            }
        }
        text
    }

    /// The failure as a record for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut record = serde_json::json!({ "error": self.message, "hint": self.hint, "exit_code": self.code });
        if let Some((_, details)) = &self.shown {
            record["details"] = details.clone();
        }
        record
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `x`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_and_hints_stand_apart() {
        let failure = Failure::from(Outer(std::io::Error::other("disk on fire"))).hint("call someone\nor run");
        assert_eq!(failure.render(), "error: cannot open `x`: disk on fire\nhint: call someone\n      or run\n");
        assert_eq!(failure.exit_code(), 1);
    }
}
