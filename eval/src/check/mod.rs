//! Reproducibility: what a rebuild varies, who is to blame for a difference, and what is known of an output.
//!
//! - [`Knob`]: one thing that a rebuild varies, with advice; [`Setting`] has its two values;
//! - [`find_culprit`](culprit::find_culprit): which knob decides, in about as many rebuilds as their number has bits;
//! - [`Finding`]: what was found out, with advice;
//! - [`verdicts`]: everything the store knows of a derivation's outputs, for reports.
//!
//! All of it are functions on values, but for [`verdicts`], which reads the store. `realise` runs the rebuilds.

pub mod culprit;
mod finding;
mod knobs;
mod setting;
mod verdict;

pub use finding::{Culprit, Finding};
pub use knobs::Knob;
pub use setting::{Circumstances, SEALED, Setting, sealed};
pub use verdict::{Check, OutputVerdict, Standing, verdicts};
