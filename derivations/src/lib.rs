//! Functions: the derivation model, its canonical bytes, the builtin builders' contracts, and the recipe library.

pub mod aterm;
pub mod builtin;
pub mod derivation;
pub mod json;
pub mod lock;
pub mod placeholder;
pub mod prelude;
pub mod source;
