//! What builtin functions share while recipes are evaluated: the inputs, and what has been made so far.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};

use ampoule_derivations::derivation::{Derivation, ModuloError, ModuloHashes, Output, output_path_name};
use ampoule_derivations::lock::Lock;
use ampoule_derivations::source::SourceRequest;
use ampoule_store::path::{StoreDir, StorePath};
use starlark::codemap::FileSpan;
use starlark::eval::Evaluator;

use super::error::{DisplayFile, Location, RecipeError};
use super::label::{Label, PackageName};
use super::loader::Loader;
use super::registry::Registry;
use super::tables::Tables;
use super::target::Target;
use super::values::Host;
use super::{Mode, PRELUDE};

/// One evaluation: its inputs, and its results so far.
pub(super) struct Session<'a> {
    /// Gives files.
    pub(super) loader: &'a dyn Loader,
    /// Pins sources.
    pub(super) lock: &'a Lock,
    /// Where store paths lie.
    pub(super) store_dir: &'a StoreDir,
    /// What to do about sources that are not locked.
    pub(super) mode: Mode,
    /// Values that axes may have.
    pub(super) tables: &'a Tables,
    state: RefCell<State>,
}

/// What has been made so far.
#[derive(Default)]
pub(super) struct State {
    /// Derivations and store objects, by path and by what stands for them in strings.
    pub(super) registry: Registry,
    /// Targets by label, each with the place of the call that made it.
    pub(super) targets: BTreeMap<Label, (Target, String)>,
    /// What was asked of registries, by key.
    pub(super) requests: BTreeMap<String, SourceRequest>,
    /// What recipes printed.
    pub(super) printed: Vec<String>,
    /// Hashes of derivations as inputs of input-addressed ones; nothing else needs them.
    hashes: ModuloHashes,
    /// Calls that later errors may point at.
    places: Vec<FileSpan>,
    /// The package whose targets the module being evaluated defines, if it is a `BUILD.star`.
    package: Option<PackageName>,
}

/// Numbers modules in the order of their evaluation.
pub(super) type ModuleNumber = u32;

impl<'a> Session<'a> {
    /// A session in which nothing has been evaluated.
    pub(super) fn new(
        loader: &'a dyn Loader,
        lock: &'a Lock,
        store_dir: &'a StoreDir,
        mode: Mode,
        tables: &'a Tables,
    ) -> Self {
        Self { loader, lock, store_dir, mode, tables, state: RefCell::default() }
    }

    /// The session a builtin function runs in.
    pub(super) fn of<'e>(eval: &Evaluator<'_, '_, 'e>) -> &'e Session<'e> {
        let host = eval.extra.and_then(|extra| extra.downcast_ref::<Host<'e>>());
        host.expect("every evaluator of recipes is given its session").0
    }

    /// The mutable part. Builtin functions must not hold it while they call back into recipes.
    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Keeps a line that a recipe prints.
    pub(super) fn print(&self, place: Option<&FileSpan>, text: &str) {
        const MOST: usize = 1000;
        let place = place.map(|span| Location::new(span, self).to_string()).unwrap_or_default();
        let printed = &mut self.state().printed;
        match printed.len() {
            MOST => printed.push("... and more lines, which are not kept".to_owned()),
            count if count < MOST => printed.push(format!("{place}: {text}")),
            _ => {}
        }
    }

    /// Remembers a place and gives its number.
    pub(super) fn remember_place(&self, place: FileSpan) -> i32 {
        let places = &mut self.state().places;
        places.push(place);
        i32::try_from(places.len() - 1).unwrap_or(i32::MAX)
    }

    /// The place with this number.
    pub(super) fn place(&self, number: Option<i32>) -> Option<FileSpan> {
        let number = usize::try_from(number?).ok()?;
        self.state().places.get(number).cloned()
    }

    /// What has been made, when all is done.
    pub(super) fn into_state(self) -> State {
        self.state.into_inner()
    }
}

impl DisplayFile for Session<'_> {
    fn display_file(&self, name: &str) -> String {
        if name.starts_with(PRELUDE) { name.to_owned() } else { self.loader.display(name) }
    }
}

impl State {
    /// Enters a module; everything made from now on is its.
    pub(super) fn enter(
        &mut self,
        module: ModuleNumber,
        visible: &BTreeSet<ModuleNumber>,
        package: Option<PackageName>,
    ) {
        self.registry.enter(module, visible);
        self.package = package;
    }

    /// Gives a derivation's outputs the paths that follow from its inputs, unless an input's path is not known itself.
    pub(super) fn address_by_inputs(
        &mut self,
        derivation: &mut Derivation,
        store_dir: &StoreDir,
    ) -> Result<(), ModuloError> {
        for input in derivation.input_derivations.keys() {
            let find = |path: &StorePath| self.registry.derivation(path).map(AsRef::as_ref);
            self.hashes.insert_closure(input, store_dir, find)?;
        }
        derivation.env.extend(derivation.outputs.keys().map(|output| (output.clone().into(), Vec::new())));
        let hash = self.hashes.masked(derivation, store_dir)?;
        if hash.deferred {
            return Ok(());
        }
        for (name, output) in &mut derivation.outputs {
            let path_name = output_path_name(&derivation.name, name);
            let path = store_dir.fingerprinted_path(&format!("output:{name}"), &hash.digest, &path_name)?;
            derivation.env.insert(name.clone().into(), store_dir.display(&path).into());
            *output = Output::InputAddressed(path);
        }
        Ok(())
    }

    /// Defines a target, if the module being evaluated is a package's `BUILD.star`; `place` says where.
    pub(super) fn define(
        &mut self,
        name: &str,
        place: impl FnOnce() -> String,
        make: impl FnOnce(Label) -> Target,
    ) -> Result<(), RecipeError> {
        let Some(package) = &self.package else { return Ok(()) };
        let label = Label::new(package.clone(), name).map_err(|error| RecipeError::new(error.to_string()))?;
        if let Some((_, first)) = self.targets.get(&label) {
            let message = format!("there is already a target `{label}`");
            return Err(RecipeError::new(message).with_hint(format!("the first one is at {first}")));
        }
        self.targets.insert(label.clone(), (make(label), place()));
        Ok(())
    }
}

/// The innermost place in the user's own files from which a builtin function was reached.
pub(super) fn call_site(eval: &Evaluator<'_, '_, '_>) -> Option<FileSpan> {
    (0..eval.call_stack_count())
        .filter_map(|depth| eval.call_stack_nth_location(depth))
        .find(|span| !span.filename().starts_with(PRELUDE))
}

/// Whether a builtin function was called by the prelude, not by the user's own code.
pub(super) fn called_by_prelude(eval: &Evaluator<'_, '_, '_>) -> bool {
    eval.call_stack_top_location().is_some_and(|span| span.filename().starts_with(PRELUDE))
}

/// The place in the module being evaluated from which a builtin function was reached, as a person can read it.
pub(super) fn outermost_place(eval: &Evaluator<'_, '_, '_>) -> String {
    let outermost = (0..eval.call_stack_count()).rev().find_map(|depth| eval.call_stack_nth_location(depth));
    let shown = |span: FileSpan| Location::new(&span, Session::of(eval)).to_string();
    outermost.map(shown).unwrap_or_default()
}
