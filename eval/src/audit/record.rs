//! What an audit says, for programs and for the page.

use serde::Serialize;
use serde_json::Value;

use crate::check::{Finding, Standing};
use crate::difference::StructuralDifference;

/// What is known of everything that some goals are made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The version of this form.
    pub schema: u32,
    /// The version of the program that wrote it.
    pub tool_version: String,
    /// When it was written, in Unix seconds.
    pub generated_at: i64,
    /// What was walked.
    pub scope: Scope,
    /// What was asked for, as it was asked for.
    pub goals: Vec<String>,
    /// All of it in figures.
    pub summary: Summary,
    /// The derivations, or at run time objects, sorted by name.
    pub nodes: Vec<Node>,
}

/// Which closure an audit walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything that is needed to build the goals.
    BuildTime,
    /// What the goals' outputs refer to.
    RunTime,
}

/// An audit in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Outputs in all.
    pub outputs: usize,
    /// Those whose rebuild gave other bytes.
    pub refuted: usize,
    /// Those that were not built again.
    pub unproved: usize,
    /// Those whose rebuilds gave the same bytes.
    pub proved: usize,
    /// Those whose hash is stated.
    pub pinned: usize,
    /// Builds on record, rebuilds included.
    pub builds: usize,
    /// Rebuilds that were compared.
    pub rebuilds: usize,
    /// Who built.
    pub engines: Vec<String>,
    /// When the newest comparison was, in Unix seconds.
    pub last_checked_at: Option<i64>,
}

/// A derivation or an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// The derivation's path, or the object's if no derivation is known.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Which goals it is, as they were asked for.
    pub labels: Vec<String>,
    /// What it is built for.
    pub system: Option<String>,
    /// What builds it.
    pub builder: Option<String>,
    /// The worst of its outputs.
    pub standing: Standing,
    /// The paths of the nodes that it needs.
    pub inputs: Vec<String>,
    /// Its outputs.
    pub outputs: Vec<OutputRecord>,
    /// The end of its newest log.
    pub log: Option<LogExcerpt>,
}

/// What is known of one output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputRecord {
    /// Its name.
    pub name: String,
    /// What all records together say.
    pub standing: Standing,
    /// The object it is, if it was ever made.
    pub path: Option<String>,
    /// The hash of that object's archive.
    pub nar_hash: Option<String>,
    /// How many builds gave this object.
    pub agreeing_builds: usize,
    /// How many rebuilds in a row, up to the newest, gave the same bytes.
    pub identical_rounds: usize,
    /// Who built it.
    pub engines: Vec<String>,
    /// Each time it was made, oldest first.
    pub builds: Vec<BuildRecord>,
    /// Each time it was compared, oldest first.
    pub checks: Vec<Comparison>,
    /// In what the builds differ, if it is refuted.
    pub refutation: Option<Refutation>,
}

/// One time that an output was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuildRecord {
    /// The object it became.
    pub path: String,
    /// The hash of that object's archive.
    pub nar_hash: Option<String>,
    /// Who made it.
    pub engine: String,
    /// When, in Unix seconds.
    pub started_at: i64,
    /// How long it took.
    pub duration_milliseconds: u64,
    /// The name of its log.
    pub log: Option<String>,
    /// `first`, `identical` or `different`.
    pub verdict: &'static str,
}

/// One rebuild that was compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// When, in Unix seconds.
    pub checked_at: i64,
    /// Which rebuild of its check it was, from one.
    pub round: u32,
    /// Whether it gave the same bytes.
    pub identical: bool,
    /// The hash it gave; nothing if it failed.
    pub nar_hash: Option<String>,
    /// Who built.
    pub engine: String,
    /// The version of the program that compared.
    pub tool_version: String,
    /// What was varied.
    pub knobs: Value,
    /// What was found out about a difference.
    pub finding: Option<Finding>,
}

/// In what two builds differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refutation {
    /// The first build's object.
    pub first: Option<String>,
    /// The other build's object, if it was kept.
    pub second: Option<String>,
    /// What differs, if both are still there.
    pub difference: Option<StructuralDifference>,
    /// That the rebuild made nothing, if so.
    pub failure: Option<String>,
    /// Who is to blame, in a sentence without a full stop.
    pub culprit: Option<String>,
    /// What usually helps.
    pub advice: Vec<String>,
}

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogExcerpt {
    /// Its name.
    pub name: String,
    /// Lines that are left out before.
    pub omitted: usize,
    /// The last lines, made printable.
    pub lines: Vec<String>,
}

impl Summary {
    pub(super) fn of(nodes: &[Node]) -> Self {
        let mut summary = Self::default();
        let mut engines = std::collections::BTreeSet::new();
        for output in nodes.iter().flat_map(|node| &node.outputs) {
            summary.outputs += 1;
            match output.standing {
                Standing::Refuted => summary.refuted += 1,
                Standing::Unproved => summary.unproved += 1,
                Standing::Proved => summary.proved += 1,
                Standing::Pinned => summary.pinned += 1,
            }
            summary.builds += output.builds.len();
            summary.rebuilds += output.checks.len();
            engines.extend(output.engines.iter().cloned());
            let newest = output.checks.iter().map(|check| check.checked_at).max();
            summary.last_checked_at = summary.last_checked_at.max(newest);
        }
        summary.engines = engines.into_iter().collect();
        summary
    }

    /// The whole of it in a sentence without a full stop. Pinned sources are no outputs here.
    #[must_use]
    pub fn sentence(&self) -> String {
        let made = self.outputs - self.pinned;
        let outputs = if made == 1 { "output" } else { "outputs" };
        match (made, self.refuted, self.unproved) {
            (0, ..) => "nothing here is built, all of it is pinned by hashes".to_owned(),
            (1, 0, 0) => "the one output is proved reproducible".to_owned(),
            (_, 0, 0) => format!("all {made} {outputs} are proved reproducible"),
            (_, 0, unproved) if unproved == made => format!("none of {made} {outputs} is proved yet"),
            (_, 0, unproved) => format!("{unproved} of {made} {outputs} {} not proved yet", are(unproved)),
            (_, refuted, _) => format!("{refuted} of {made} {outputs} {} not reproducible", are(refuted)),
        }
    }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
