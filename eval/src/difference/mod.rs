//! In what two trees differ: at first sight, and in a form that means something.
//!
//! - [`first_difference`]: the first path that differs and the first byte in it; reads no more than it must.
//! - [`structural_difference`]: every difference, looked for inside archives, ELF files and texts, as a
//!   [`StructuralDifference`]: [`Change`]s at [`Place`]s, with the [`Cause`]s that their patterns speak for.
//! - [`diffoscope`]: the same question asked of `diffoscope`, where it is installed.
//!
//! **Effects.** `first`, `walk` and `diffoscope` read files; the rest is functions on bytes.
//!
//! **Invariants.** The trees are untrusted: what is read, unpacked and reported is bounded by [`Limits`], nothing
//! recurses on their depth, and no bytes cause a panic. Different trees have at least one change. The same trees give the
//! same report.

mod archive;
mod cause;
mod change;
mod compressed;
mod content;
pub mod diffoscope;
mod elf;
mod first;
mod render;
mod text;
mod walk;
mod windows;

pub use cause::Cause;
pub use change::{Bytes, Change, Hunk, Kind, Line, Place, Side, StructuralDifference};
pub use first::{Difference, DifferenceKind, first_difference};
pub use walk::structural_difference;

/// How far a comparison goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most changes that are reported; those beyond are counted.
    pub changes: usize,
    /// Archives inside archives that are opened.
    pub depth: usize,
    /// A larger file is compared byte by byte only.
    pub file_bytes: u64,
    /// Most bytes that are unpacked in all.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { changes: 100, depth: 6, file_bytes: 256 << 20, total_bytes: 2 << 30 }
    }
}

#[cfg(test)]
mod tests;
