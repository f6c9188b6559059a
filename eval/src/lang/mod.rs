//! Recipes in Starlark, evaluated into derivations.
//!
//! [`Inputs::evaluate`] is a function: from the files of a catalog (through a [`Loader`], its only effect), the lock
//! and the store directory to an [`Evaluation`], which holds [`Target`]s by [`Label`] and every derivation they need.
//! The same files give the same derivations, byte for byte, whatever else is evaluated with them.
//!
//! - [`label`]: names and patterns; [`loader`], [`directory`]: where files come from;
//! - [`target`]: what is found under a label; [`error`]: what an author is told;
//! - `modules` evaluates files, `globals` and `builtins` are the language's functions, the rules themselves are
//!   Starlark: `derivations/prelude/*.star`.

pub mod directory;
pub mod error;
pub mod label;
pub mod loader;
pub mod tables;
pub mod target;

mod arguments;
mod bounds;
mod builtins;
mod call;
mod coerce;
mod define;
mod derive;
mod globals;
mod matrix;
mod modules;
mod objects;
mod options;
mod prelude_builtins;
mod registry;
mod requests;
mod scan;
mod session;
mod suggest;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_derivations::lock::Lock;
use ampoule_derivations::source::SourceRequest;
use ampoule_store::path::{StoreDir, StorePath};

pub use self::directory::DirectoryLoader;
pub use self::error::{EvalError, Location};
pub use self::label::{Label, LabelError, MemberKey, PackageName, Pattern, Scope};
pub use self::loader::{LoadError, Loader, MemoryLoader};
pub use self::registry::StoreObject;
pub use self::tables::Tables;
pub use self::target::{Axis, Derived, Member, Selected, Target};

/// The file that makes a directory a package.
pub const BUILD_FILE: &str = "BUILD.star";

/// Address space for the stack of evaluation; memory is taken only as far as it is used.
const STACK_BYTES: usize = 256 << 20;

/// What labels of the prelude's files start with.
const PRELUDE: &str = "@prelude//:";

/// What to do about a source that the lock does not pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is an error that names the request.
    #[default]
    Build,
    /// It gets a stand-in that cannot be fetched, so that all requests can be collected.
    Lock,
}

/// Everything evaluation depends on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Gives the catalog's files.
    pub loader: &'a dyn Loader,
    /// Pins the sources.
    pub lock: &'a Lock,
    /// Where store paths lie.
    pub store_dir: &'a StoreDir,
    /// What to do about sources that are not pinned.
    pub mode: Mode,
    /// Values that matrix axes may have.
    pub tables: &'a Tables,
}

/// What recipes evaluate to.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// Targets of every package that was evaluated, whether a pattern chose them or not.
    pub targets: BTreeMap<Label, Target>,
    /// Every derivation made, by path: whatever a target needs is among them.
    pub derivations: BTreeMap<StorePath, Arc<Derivation>>,
    /// Texts and files that derivations take as sources.
    pub objects: BTreeMap<StorePath, StoreObject>,
    /// What recipes asked of registries, by key.
    pub requests: BTreeMap<String, SourceRequest>,
    /// What recipes printed, each line with its place.
    pub printed: Vec<String>,
}

impl Inputs<'_> {
    /// Evaluates the packages that these patterns may choose from, and what those load.
    ///
    /// # Errors
    /// The first error of a recipe, or a pattern that names a package that is not there.
    pub fn evaluate(&self, patterns: &[Pattern]) -> Result<Evaluation, EvalError> {
        // The interpreter recurses on what files nest; on the stack of a usual thread it would not get far.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("evaluation".to_owned()).stack_size(STACK_BYTES);
            let running = thread.spawn_scoped(scope, || self.evaluate_here(patterns));
            let running = running.map_err(|error| EvalError::new(format!("cannot start a thread: {error}")))?;
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn evaluate_here(&self, patterns: &[Pattern]) -> Result<Evaluation, EvalError> {
        let session = session::Session::new(self.loader, self.lock, self.store_dir, self.mode, self.tables);
        let mut modules = modules::Modules::new(&session);
        for package in self.packages(patterns)? {
            modules
                .package(&package)
                .map_err(|error| EvalError { printed: session.state().printed.clone(), ..error })?;
        }
        drop(modules);
        let state = session.into_state();
        let (derivations, objects) = state.registry.into_parts();
        let targets = state.targets.into_iter().map(|(label, (target, _))| (label, target)).collect();
        Ok(Evaluation { targets, derivations, objects, requests: state.requests, printed: state.printed })
    }

    /// The packages that patterns range over, sorted.
    fn packages(&self, patterns: &[Pattern]) -> Result<BTreeSet<PackageName>, EvalError> {
        let mut packages = BTreeSet::new();
        for pattern in patterns {
            match &pattern.scope {
                Scope::Target(label) => drop(packages.insert(label.package().clone())),
                Scope::Package(package) => drop(packages.insert(package.clone())),
                Scope::Below(top) => {
                    let found = packages_below(self.loader, top)
                        .map_err(|error| EvalError::new(format!("cannot look for packages of `{pattern}`: {error}")))?;
                    if found.is_empty() {
                        return Err(EvalError::new(format!("there is no package in `{pattern}`")));
                    }
                    packages.extend(found);
                }
            }
        }
        Ok(packages)
    }
}

/// All packages at or below `top`: directories with a `BUILD.star`. Hidden directories are passed over.
fn packages_below(loader: &dyn Loader, top: &PackageName) -> Result<Vec<PackageName>, LoadError> {
    let mut packages = Vec::new();
    let mut pending = vec![top.clone()];
    while let Some(package) = pending.pop() {
        let entries = match loader.list(package.as_str()) {
            Err(LoadError::Missing) if package == *top => break,
            entries => entries?,
        };
        for entry in entries {
            if entry.is_directory {
                pending.extend(package.file(&entry.name).parse::<PackageName>().ok());
            } else if entry.name == BUILD_FILE {
                packages.push(package.clone());
            }
        }
    }
    Ok(packages)
}

#[cfg(test)]
mod tests;
