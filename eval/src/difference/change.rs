//! What a comparison reports.

use std::fmt;

use serde::Serialize;

use super::cause::Cause;

/// In what two trees differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StructuralDifference {
    /// The changes, in the order of their places.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub omitted: u64,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where.
    pub place: Place,
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
    /// What such a change usually comes from.
    pub causes: Vec<Cause>,
}

/// A path inside the trees, then a member of the archive there, and so on; each made printable. Empty for the trees' roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Place(pub Vec<String>);

impl Place {
    /// A place inside this one.
    #[must_use]
    pub fn inside(&self, step: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    /// The last step, or nothing for the root.
    #[must_use]
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { f.write_str(&self.0.join(" » ")) }
    }
}

/// One of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// What differs at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// Only one of them has it.
    OnlyIn {
        /// Which one.
        side: Side,
    },
    /// A property has two values: a type, a mode, a link's target, a time in a header.
    Property {
        /// Its name.
        name: &'static str,
        /// Its value in the first.
        first: String,
        /// Its value in the second.
        second: String,
        /// How many more members of the same archive differ in it.
        others: usize,
    },
    /// The same things in another order: the names from the first place that differs.
    Order {
        /// In the first.
        first: Vec<String>,
        /// In the second.
        second: Vec<String>,
    },
    /// Lines of text.
    Text {
        /// What differs, with some lines around it.
        hunks: Vec<Hunk>,
        /// Hunks that are left out.
        omitted: usize,
    },
    /// Bytes that nothing here gives a meaning to.
    Bytes(Bytes),
}

/// A run of lines around a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunk {
    /// The number of its first line in the first text, from one.
    pub first_line: usize,
    /// The number of its first line in the second text, from one.
    pub second_line: usize,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The text that has it; both if there is nothing.
    pub only_in: Option<Side>,
    /// The line, made printable and shortened around its difference.
    pub text: String,
}

/// Where bytes differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Of the first byte that differs, from zero.
    pub offset: u64,
    /// How many bytes the first has.
    pub first_size: u64,
    /// How many bytes the second has.
    pub second_size: u64,
    /// How many bytes differ, if both have as many.
    pub differing: Option<u64>,
    /// What lies there, for example a symbol.
    pub within: Option<String>,
    /// Where the two windows start.
    pub window: u64,
    /// Bytes around the difference in the first, as hexadecimal digits.
    pub first: String,
    /// Bytes around the difference in the second.
    pub second: String,
    /// The text around the difference in the first, if it is text there.
    pub first_text: Option<String>,
    /// The text around the difference in the second, if it is text there.
    pub second_text: Option<String>,
}

impl StructuralDifference {
    /// The likely causes of all changes, each once, the most telling first.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self.changes.iter().flat_map(|change| change.causes.iter().copied()).collect();
        causes.sort_unstable();
        causes.dedup();
        causes
    }
}
