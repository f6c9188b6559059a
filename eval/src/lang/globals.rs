//! The functions recipes can call without loading anything, and those only the prelude can.

use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension};

use super::{builtins, prelude_builtins};

/// What recipe files see.
pub(super) fn for_recipes() -> Globals {
    builder().build()
}

/// What the prelude's files see.
pub(super) fn for_prelude() -> Globals {
    builder().with(prelude_builtins::functions).build()
}

fn builder() -> GlobalsBuilder {
    let extensions = [LibraryExtension::StructType, LibraryExtension::Json, LibraryExtension::Typing];
    GlobalsBuilder::extended_by(&extensions).with(builtins::functions)
}
