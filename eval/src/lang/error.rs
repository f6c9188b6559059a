//! What a recipe's author is told when evaluation fails: where, what, and what to do about it.

use std::fmt::{self, Write as _};

use serde::Serialize;
use starlark::codemap::FileSpan;

use super::PRELUDE;

/// Why recipes could not be evaluated, or a target not be chosen.
///
/// Displays as the bare message; [`EvalError::render`] gives the whole text for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvalError {
    /// What is wrong: lower-case, no full stop.
    pub message: String,
    /// The innermost place in the user's own files.
    pub location: Option<Box<Location>>,
    /// How evaluation got there: calls in the user's own files, innermost first.
    pub calls: Vec<Call>,
    /// What to do next.
    pub hint: Option<String>,
    /// What recipes printed before.
    pub printed: Vec<String>,
}

/// A span in a recipe file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file as the loader shows it.
    pub file: String,
    /// Line of the beginning, from 1.
    pub line: usize,
    /// Column of the beginning in characters, from 1.
    pub column: usize,
    /// Line of the end, from 1.
    pub end_line: usize,
    /// Column behind the end in characters, from 1.
    pub end_column: usize,
    /// The text of the first line.
    pub source: String,
}

/// A call on the way to an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// The function that was called.
    pub function: String,
    /// Where it was called.
    pub location: Location,
}

impl std::error::Error for EvalError {}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{location}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl EvalError {
    /// An error that belongs to no place in a file.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), location: None, calls: Vec::new(), hint: None, printed: Vec::new() }
    }

    /// Adds what to do next.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place.
    pub(super) fn at(mut self, span: &FileSpan, files: &dyn DisplayFile) -> Self {
        self.location = Some(Box::new(Location::new(span, files)));
        self
    }

    /// The whole text for a terminal, ending in a line break.
    pub fn render(&self) -> String {
        let mut text: String = self.printed.iter().map(|line| format!("{line}\n")).collect();
        let _ = writeln!(text, "error: {}", self.message);
        let mut notes: Vec<String> = Vec::new();
        if let Some(location) = &self.location {
            location.render(&mut text);
        }
        self.note_calls(&mut notes);
        notes.extend(self.hint.iter().map(|hint| format!("hint: {hint}")));
        let width = self.location.as_ref().map_or(0, |location| location.gutter());
        for note in notes {
            let indented = note.replace('\n', &format!("\n{:width$}   ", ""));
            let _ = writeln!(text, "{:width$} = {indented}", "");
        }
        text
    }
}

impl EvalError {
    /// The calls, of which only the ends of a long row tell something.
    fn note_calls(&self, notes: &mut Vec<String>) {
        const SHOWN_AT_EACH_END: usize = 4;
        let count = self.calls.len();
        for (index, call) in self.calls.iter().enumerate() {
            if index < SHOWN_AT_EACH_END || index + SHOWN_AT_EACH_END >= count {
                notes.push(format!("called: `{}` at {}", call.function, call.location));
            } else if index == SHOWN_AT_EACH_END {
                notes.push(format!("... and {} calls more", count - 2 * SHOWN_AT_EACH_END));
            }
        }
    }
}

/// Shows catalog paths as a person can open them.
pub(super) trait DisplayFile {
    /// The file name to show for the name a module was parsed under.
    fn display_file(&self, name: &str) -> String;
}

impl Location {
    /// The place of a span.
    pub(super) fn new(span: &FileSpan, files: &dyn DisplayFile) -> Self {
        let resolved = span.resolve_span();
        Self {
            file: files.display_file(span.filename()),
            line: resolved.begin.line + 1,
            column: resolved.begin.column + 1,
            end_line: resolved.end.line + 1,
            end_column: resolved.end.column + 1,
            source: span.file.source_line(resolved.begin.line).trim_end().to_owned(),
        }
    }

    fn gutter(&self) -> usize {
        self.line.to_string().len() + 1
    }

    fn render(&self, text: &mut String) {
        let width = self.gutter();
        // Control characters of a hostile file must not reach a terminal; tabs keep the caret in place.
        let source: String =
            self.source.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let length = source.chars().count();
        let begin = (self.column - 1).min(length);
        let end = if self.end_line > self.line { length } else { (self.end_column - 1).min(length) };
        let pad: String = source.chars().take(begin).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(end.saturating_sub(begin).max(1));
        let more = if self.end_line > self.line { " ..." } else { "" };
        let line = self.line;
        let _ = writeln!(text, "{:width$}--> {self}", "");
        let _ = writeln!(text, "{:width$} |", "");
        let _ = writeln!(text, "{line:>width$} | {source}");
        let _ = writeln!(text, "{:width$} | {pad}{carets}{more}", "");
    }
}

/// An error raised by a builtin function of the language; becomes an [`EvalError`] with its place.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct RecipeError {
    message: String,
    hint: Option<String>,
    at: Option<FileSpan>,
}

impl RecipeError {
    /// An error at the call of the builtin.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, at: None }
    }

    /// Adds what to do next.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Moves the error to another place, such as the call that made an argument.
    pub(super) fn at(mut self, span: Option<FileSpan>) -> Self {
        self.at = span;
        self
    }
}

impl From<RecipeError> for starlark::Error {
    fn from(error: RecipeError) -> Self {
        Self::new_other(error)
    }
}

/// The error of the interpreter as the author of `module` should see it.
pub(super) fn from_starlark(error: &starlark::Error, module: &str, files: &dyn DisplayFile) -> EvalError {
    let (message, hint, moved) = explain(error.kind());
    let frames = &error.call_stack().frames;
    // Each place lies in the function that the frame before it entered.
    let mut places: Vec<(Option<&FileSpan>, &str)> =
        frames.iter().map(|frame| (frame.location.as_ref(), frame.name.as_str())).collect();
    places.push((error.span(), ""));
    let mut own: Vec<(&FileSpan, &str)> = places
        .into_iter()
        .filter_map(|(span, callee)| span.map(|span| (span, callee)))
        .filter(|(span, _)| !span.filename().starts_with(PRELUDE))
        .collect();
    let innermost = own.pop().map(|(span, _)| span);
    // The call of a builtin function is the place itself, not the way to it.
    if own.last().is_some_and(|(span, _)| Some(*span) == innermost) {
        own.pop();
    }
    let span = moved.as_ref().or(innermost).or(error.span());
    let call = |(span, callee): &(&FileSpan, &str)| Call {
        function: (*callee).to_owned(),
        location: Location::new(span, files),
    };
    let calls = own.iter().rev().map(call).collect();
    let message = match span {
        Some(_) => message,
        None => format!("{message}, while evaluating {}", files.display_file(module)),
    };
    EvalError {
        message,
        location: span.map(|span| Box::new(Location::new(span, files))),
        calls,
        hint,
        printed: Vec::new(),
    }
}

/// Message, hint and, if the error belongs elsewhere, its place.
fn explain(kind: &starlark::ErrorKind) -> (String, Option<String>, Option<FileSpan>) {
    use starlark::ErrorKind as Kind;
    let inner = match kind {
        Kind::Native(inner) | Kind::Other(inner) | Kind::Value(inner) | Kind::Function(inner) => inner,
        Kind::Fail(inner) => return (inner.to_string().trim().to_owned(), None, None),
        Kind::StackOverflow(_) => {
            return (
                "calls are nested too deeply".to_owned(),
                Some("is there a function that calls itself without end?".to_owned()),
                None,
            );
        }
        Kind::Scope(inner) | Kind::Parser(inner) | Kind::Freeze(inner) | Kind::Internal(inner) => inner,
        other => return (tidy(&other.to_string()), None, None),
    };
    match inner.downcast_ref::<RecipeError>() {
        Some(own) => (own.message.clone(), own.hint.clone(), own.at.clone()),
        None => {
            let text = tidy(&inner.to_string());
            if text.contains("limit of") && text.contains("exceeded") {
                return (
                    text,
                    Some("is there a loop that never ends, or data that grows without bound?".to_owned()),
                    None,
                );
            }
            match text.split_once(", did you mean ") {
                Some((message, near)) => (message.to_owned(), Some(format!("did you mean {near}")), None),
                None => (text, None, None),
            }
        }
    }
}

/// The interpreter's messages in this project's form: first letter small, no full stop, no endless value.
fn tidy(message: &str) -> String {
    const LONGEST: usize = 500;
    let message = message.trim().trim_end_matches('.');
    let mut chars = message.chars();
    let mut tidied = match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(message.chars().skip(1)).collect()
        }
        _ => message.to_owned(),
    };
    let length = tidied.chars().count();
    if length > LONGEST {
        // Values are shown in full at the front, what is wrong with them behind.
        let front: String = tidied.chars().take(LONGEST / 2).collect();
        let back: String = tidied.chars().skip(length - LONGEST / 2).collect();
        tidied = format!("{front} ... {back}");
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    struct AsIs;

    impl DisplayFile for AsIs {
        fn display_file(&self, name: &str) -> String {
            name.to_owned()
        }
    }

    #[test]
    fn a_span_over_several_lines_is_marked_on_its_first() {
        let span = FileSpan::new("a/BUILD.star".into(), "wheel(\n    1,\n)\n".into());
        let error = EvalError::new("no").at(&span, &AsIs).with_hint("one\ntwo");
        let expected = "\
error: no
  --> a/BUILD.star:1:1
   |
 1 | wheel(
   | ^^^^^^ ...
   = hint: one
     two
";
        assert_eq!(error.render(), expected);
        assert_eq!(error.to_string(), "a/BUILD.star:1:1: no");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let span = FileSpan::new("x".into(), "a\u{1b}[31m\tb".into());
        assert!(!EvalError::new("no").at(&span, &AsIs).render().contains('\u{1b}'));
    }
}
