//! Functions: the derivation model, its canonical bytes, the builtin builders' contracts, and the recipe library.
//!
//! - [`Derivation`](derivation::Derivation) says how outputs are made; [`DerivationBuilder`](derivation::DerivationBuilder) makes one;
//! - [`aterm`] is its text, whose hash is its path; [`json`] shows it to people;
//! - [`ModuloHashes`](derivation::ModuloHashes) are the hashes by which derivations are inputs of others;
//! - [`placeholder`] stands for paths that are not known yet, until [`resolve`](derivation::resolve) puts in what was built;
//! - [`builtin`] names our own builders and what they are asked;
//! - [`source`] is what comes from outside, and [`lock`] pins it.
//!
//! **Effects**: none.
//!
//! **Uses**: `ampoule-store`, for paths and hashes.
//!
//! **Invariants**: the model is Nix's, byte for byte (`docs/formats/derivation.md`): stock Nix computes the same paths. A derivation and its text are one to one.
//!
//! **Not here**: the language that recipes are written in, and building.
//!
//! Start reading at [`derivation`]; its builder has an example.

pub mod aterm;
pub mod builtin;
pub mod derivation;
pub mod json;
pub mod lock;
pub mod placeholder;
pub mod prelude;
pub mod source;
