//! Applies derivations to their inputs: from recipes to proved store objects.

pub mod builtins;
pub mod cli;
pub mod difference;
pub mod lang;
pub mod realise;
pub mod reporter;
pub mod sandbox;
pub mod sources;
pub mod terminal;
