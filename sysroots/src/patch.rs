//! Applies unified diffs to a tree, strictly: context must match to the byte. Hunks may have moved, but not changed.

mod parse;

use std::io;

use thiserror::Error;

use crate::spool::{File, Spool};
use crate::tree::{Item, Node, Origin, Tree, TreeError};
use crate::tree_path::{PathError, TreePath};

pub use parse::ParseError;

/// Largest file that can be patched, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// Changes to files of a tree, with one leading directory left out of their names (`-p1`).
#[derive(Clone, Debug)]
pub struct Patch {
    label: Origin,
    files: Vec<FilePatch>,
}

/// Changes to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FilePatch {
    /// The name before, unless the file is new.
    old: Option<TreePath>,
    /// The name after, unless the file is deleted.
    new: Option<TreePath>,
    /// Whether it may be executed afterwards, if the patch says so.
    executable: Option<bool>,
    hunks: Vec<Hunk>,
}

/// One run of changed lines, each with its end of line if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hunk {
    /// Where the old lines were, counted from 0.
    position: usize,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

/// Why a patch does not apply.
#[derive(Debug, Error)]
pub enum PatchError {
    /// It is not a unified diff.
    #[error("the patch {label} cannot be read at line {line}: {source}")]
    Parse {
        /// Which patch.
        label: Origin,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A path in it is refused.
    #[error("the patch {label} is refused: {source}")]
    Path {
        /// Which patch.
        label: Origin,
        /// Why.
        source: PathError,
    },
    /// The file to change is not there.
    #[error("the patch {label} does not apply: there is no file `{path}`")]
    Missing {
        /// Which patch.
        label: Origin,
        /// The path.
        path: String,
    },
    /// The file to make is there already.
    #[error("the patch {label} does not apply: it makes `{path}`, which exists")]
    Exists {
        /// Which patch.
        label: Origin,
        /// The path.
        path: String,
    },
    /// The lines to change are not there.
    #[error("the patch {label} does not apply: hunk {hunk} of `{path}` (line {line}) does not match")]
    Mismatch {
        /// Which patch.
        label: Origin,
        /// The path.
        path: String,
        /// Which hunk of this file, counted from 1.
        hunk: usize,
        /// The line it names, counted from 1.
        line: usize,
    },
    /// A file to delete has more lines than the patch takes away.
    #[error("the patch {label} does not apply: it deletes `{path}` but leaves lines of it")]
    NotEmpty {
        /// Which patch.
        label: Origin,
        /// The path.
        path: String,
    },
    /// A path cannot be changed.
    #[error("the patch {label} does not apply: {source}")]
    Tree {
        /// Which patch.
        label: Origin,
        /// Why.
        source: TreeError,
    },
    /// A file could not be read.
    #[error("the patch {label} does not apply: cannot read `{path}`")]
    Read {
        /// Which patch.
        label: Origin,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Patch {
    /// Reads a unified diff, plain or as `git` writes it. The label is its name in messages.
    pub fn parse(label: &str, text: &[u8]) -> Result<Self, PatchError> {
        let label = Origin::from(label);
        let fail = |(line, source)| PatchError::Parse { label: label.clone(), line, source };
        let files = parse::parse(text).map_err(fail)?;
        Ok(Patch { files, label })
    }

    /// Changes a tree.
    pub fn apply(&self, tree: &mut Tree, spool: &Spool) -> Result<(), PatchError> {
        for file in &self.files {
            self.apply_file(file, tree, spool)?;
        }
        Ok(())
    }

    fn apply_file(&self, change: &FilePatch, tree: &mut Tree, spool: &Spool) -> Result<(), PatchError> {
        let failed = |source| PatchError::Tree { label: self.label.clone(), source };
        let (mut lines, executable) = match &change.old {
            Some(old) => self.load(old, tree, spool)?,
            None => (Vec::new(), false),
        };
        let Some(shown) = change.new.as_ref().or(change.old.as_ref()) else { return Ok(()) };
        self.apply_hunks(&change.hunks, &mut lines, shown)?;
        if change.new != change.old
            && let Some(new) = &change.new
            && tree.find(new, &self.label).map_err(failed)?.is_some()
        {
            return Err(PatchError::Exists { label: self.label.clone(), path: new.to_string() });
        }
        if let Some(old) = &change.old {
            tree.remove(old, &self.label).map_err(failed)?;
        }
        let Some(new) = &change.new else {
            let left = lines.is_empty();
            let path = shown.to_string();
            return if left { Ok(()) } else { Err(PatchError::NotEmpty { label: self.label.clone(), path }) };
        };
        let file = File::from_bytes(lines.concat(), change.executable.unwrap_or(executable));
        tree.insert(new, Item::File(file), &self.label).map_err(failed)?;
        Ok(())
    }

    fn load(&self, path: &TreePath, tree: &Tree, spool: &Spool) -> Result<(Vec<Vec<u8>>, bool), PatchError> {
        let found = tree.find(path, &self.label);
        let found = found.map_err(|source| PatchError::Tree { label: self.label.clone(), source })?;
        let Some(Node::File(file)) = found.map(|id| tree.node(id)) else {
            return Err(PatchError::Missing { label: self.label.clone(), path: path.to_string() });
        };
        let bytes = spool.read(file, MAX_FILE).map_err(|source| PatchError::Read {
            label: self.label.clone(),
            path: path.to_string(),
            source,
        })?;
        Ok((bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(), file.executable()))
    }

    fn apply_hunks(&self, hunks: &[Hunk], lines: &mut Vec<Vec<u8>>, path: &TreePath) -> Result<(), PatchError> {
        // Hunks apply in order and never to lines that an earlier one has made.
        let mut done = 0;
        let mut shift = 0isize;
        for (index, hunk) in hunks.iter().enumerate() {
            let expected = hunk.position.saturating_add_signed(shift);
            let Some(at) = find(lines, &hunk.old, expected, done) else {
                return Err(PatchError::Mismatch {
                    label: self.label.clone(),
                    path: path.to_string(),
                    hunk: index + 1,
                    line: hunk.position + 1,
                });
            };
            lines.splice(at..at + hunk.old.len(), hunk.new.iter().cloned());
            done = at + hunk.new.len();
            shift = at as isize - hunk.position as isize + hunk.new.len() as isize - hunk.old.len() as isize;
        }
        Ok(())
    }
}

/// Where the wanted lines are, not before `first`: at the expected place or else as near to it as possible.
fn find(lines: &[Vec<u8>], wanted: &[Vec<u8>], expected: usize, first: usize) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len())?;
    let fits = |at: usize| (first..=last).contains(&at) && lines[at..at + wanted.len()] == *wanted;
    if wanted.is_empty() {
        return fits(expected).then_some(expected);
    }
    // The nearest place that exists at all, and then ever farther from it.
    let start = expected.clamp(first.min(last), last);
    let near = |distance: usize| [start.checked_sub(distance), start.checked_add(distance)];
    (0..=last).flat_map(near).flatten().find(|at| fits(*at))
}

#[cfg(test)]
mod tests;
