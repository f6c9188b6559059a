//! The canonical bytes of derivations: the ATerm text in `.drv` files.
//!
//! ```text
//! Derive([outputs],[input derivations],[input sources],"system","builder",[arguments],[environment])
//! ```
//!
//! Everything but the arguments is sorted, there is no white space, and the only escapes are `\" \\ \n \r \t`. A text in any other
//! form is refused, so that a derivation and its text are one to one.

mod parse;
mod write;

pub use parse::{ParseError, parse};
pub use write::write;
pub(crate) use write::write_modulo;
