//! What was found out about a build that does not come out the same again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::knobs::Knob;

/// What decides between the first build's bytes and a rebuild's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Culprit {
    /// One knob, or several together.
    Knobs {
        /// Which ones; all of them are needed.
        knobs: Vec<Knob>,
    },
    /// The build differs from itself though nothing differs around it.
    Itself,
    /// None of the knobs makes the difference: something that no knob varies does.
    Unknown,
    /// It was not looked for.
    NotSought,
}

/// What was found out about a build that does not come out the same again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What decides.
    pub culprit: Culprit,
    /// How many rebuilds it took to find that out, after the one that differed.
    pub rebuilds: u32,
    /// Why the rebuild failed, if it made nothing at all.
    #[serde(default)]
    pub failure: Option<String>,
    /// What usually helps, for people.
    #[serde(default)]
    pub advice: Vec<String>,
}

impl Finding {
    /// A finding with the advice for its culprit.
    #[must_use]
    pub fn new(culprit: Culprit, rebuilds: u32, failure: Option<String>) -> Self {
        let advice = match &culprit {
            Culprit::Knobs { knobs } => knobs.iter().map(|knob| knob.advice().to_owned()).collect(),
            Culprit::Itself => vec![
                "look for a race between processes or threads (does `--cores 1` help?), for memory that is used before \
                 it is set (valgrind, `-fsanitize=memory`), and for times in fractions of a second"
                    .to_owned(),
            ],
            Culprit::Unknown => vec![
                "what remains is what no program can be lied to about: the processor's own counter, random and \
                 identification instructions, and the time that steps take"
                    .to_owned(),
            ],
            Culprit::NotSought => Vec::new(),
        };
        Self { culprit, rebuilds, failure, advice }
    }
}

impl fmt::Display for Finding {
    /// A sentence without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.failure.is_some() { "whether it succeeds" } else { "the difference" };
        match &self.culprit {
            Culprit::Knobs { knobs } => match knobs.as_slice() {
                [one] => write!(f, "culprit: {one} (`{}`) decides {what}", one.name())?,
                several => {
                    let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                    let words: Vec<&str> = several.iter().map(|knob| knob.name()).collect();
                    write!(f, "culprits: {} (`{}`) together decide {what}", names.join(" and "), words.join("`, `"))?;
                }
            },
            Culprit::Itself => write!(
                f,
                "culprit: the build itself: it comes out differently even under identical conditions, as a race or \
                 uninitialised memory does"
            )?,
            Culprit::Unknown => write!(f, "culprit: unknown: nothing that was varied alone decides {what}")?,
            Culprit::NotSought => return write!(f, "the culprit was not sought"),
        }
        write!(f, "; found in {} more rebuild{}", self.rebuilds, if self.rebuilds == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(culprit: Culprit, expected: &str) {
        let finding = Finding::new(culprit, 5, None);
        assert!(finding.to_string().starts_with(expected), "{finding}");
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }

    #[test]
    fn findings_are_sentences_and_records() {
        check(
            Culprit::Knobs { knobs: vec![Knob::Date] },
            "culprit: the date (`date`) decides the difference; found in 5",
        );
        check(
            Culprit::Knobs { knobs: vec![Knob::Date, Knob::Jobs] },
            "culprits: the date and the number of jobs (`date`, `jobs`) together decide",
        );
        check(Culprit::Itself, "culprit: the build itself");
        check(Culprit::Unknown, "culprit: unknown");
        check(Culprit::NotSought, "the culprit was not sought");
    }
}
