//! Finds, evaluates and keeps modules: recipe files and the prelude's.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_derivations::prelude;
use starlark::codemap::FileSpan;
use starlark::environment::{FrozenModule, Globals, Module};
use starlark::eval::{Evaluator, FileLoader};
use starlark::syntax::{AstModule, Dialect, DialectTypes};
use starlark::values::FrozenHeapName;

use super::error::{EvalError, from_starlark};
use super::label::PackageName;
use super::loader::{LoadError, is_catalog_path};
use super::session::{ModuleNumber, Session};
use super::values::Host;
use super::{BUILD_FILE, PRELUDE, bounds, globals, suggest};

/// How much one module may do. Generous: they stop accidents, not attacks.
const MAX_TICKS: u64 = 20_000_000;
const MAX_HEAP_BYTES: usize = 2 << 30;
const MAX_CALL_DEPTH: usize = 100;
const MAX_LOAD_DEPTH: usize = 64;

/// The modules of one evaluation.
pub(super) struct Modules<'s, 'a> {
    session: &'s Session<'a>,
    user_globals: Globals,
    prelude_globals: Globals,
    loaded: BTreeMap<String, Loaded>,
    /// Modules whose loads are being followed, outermost first.
    chain: Vec<String>,
}

#[derive(Clone)]
struct Loaded {
    module: FrozenModule,
    number: ModuleNumber,
    /// Numbers of all modules it loads, directly or not.
    visible: BTreeSet<ModuleNumber>,
}

/// The loads of one module, by what its `load` statements say.
struct Resolved(BTreeMap<String, FrozenModule>);

impl FileLoader for Resolved {
    fn load(&self, path: &str) -> starlark::Result<FrozenModule> {
        Ok(self.0.get(path).expect("every load statement was resolved before evaluation").clone())
    }
}

impl<'s, 'a> Modules<'s, 'a> {
    /// No modules yet.
    pub(super) fn new(session: &'s Session<'a>) -> Self {
        Self {
            session,
            user_globals: globals::for_recipes(),
            prelude_globals: globals::for_prelude(),
            loaded: BTreeMap::new(),
            chain: Vec::new(),
        }
    }

    /// Evaluates a package's `BUILD.star` and what it loads, unless that has been done.
    pub(super) fn package(&mut self, package: &PackageName) -> Result<(), EvalError> {
        self.require(&package.file(BUILD_FILE), None).map(|_| ())
    }

    fn require(&mut self, name: &str, asked: Option<&FileSpan>) -> Result<Loaded, EvalError> {
        if let Some(loaded) = self.loaded.get(name) {
            return Ok(loaded.clone());
        }
        self.check_chain(name, asked)?;
        let text = self.read(name, asked)?;
        self.chain.push(name.to_owned());
        let result = self.evaluate(name, text);
        self.chain.pop();
        let loaded = result?;
        self.loaded.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    fn check_chain(&self, name: &str, asked: Option<&FileSpan>) -> Result<(), EvalError> {
        let message = if let Some(start) = self.chain.iter().position(|outer| outer == name) {
            let cycle = self.chain[start..].iter().map(String::as_str).chain([name]);
            format!("files load each other in a circle: {}", cycle.map(shown).collect::<Vec<_>>().join(" -> "))
        } else if self.chain.len() >= MAX_LOAD_DEPTH {
            format!("more than {MAX_LOAD_DEPTH} files load one another in a row")
        } else {
            return Ok(());
        };
        Err(self.located(EvalError::new(message), asked))
    }

    fn located(&self, error: EvalError, asked: Option<&FileSpan>) -> EvalError {
        match asked {
            Some(span) => error.at(span, self.session),
            None => error,
        }
    }

    fn read(&self, name: &str, asked: Option<&FileSpan>) -> Result<String, EvalError> {
        if let Some(file) = name.strip_prefix(PRELUDE) {
            return self.read_prelude(file, asked);
        }
        let bytes =
            self.session.loader.read(name).map_err(|error| self.located(self.unreadable(name, &error), asked))?;
        String::from_utf8(bytes)
            .map_err(|_| self.located(EvalError::new(format!("`{}` is not UTF-8 text", shown(name))), asked))
    }

    fn read_prelude(&self, file: &str, asked: Option<&FileSpan>) -> Result<String, EvalError> {
        match prelude::FILES.iter().find(|(name, _)| *name == file && is_recipe(name)) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => {
                let names = prelude::FILES.iter().map(|(name, _)| *name).filter(|name| is_recipe(name));
                let error = EvalError::new(format!("the prelude has no file `{file}`"));
                Err(self.located(error.with_hint(suggest::hint("files", file, names)), asked))
            }
        }
    }

    fn unreadable(&self, name: &str, error: &LoadError) -> EvalError {
        let (directory, file) = name.rsplit_once('/').unwrap_or(("", name));
        if !matches!(error, LoadError::Missing) {
            return EvalError::new(format!("cannot read `{}`: {error}", shown(name)));
        }
        if file == BUILD_FILE {
            let missing = format!("//{directory}");
            let packages = super::packages_below(self.session.loader, &PackageName::root()).unwrap_or_default();
            let names: Vec<_> = packages.iter().map(PackageName::to_string).collect();
            let hint = suggest::hint("packages", &missing, names.iter().map(String::as_str));
            return EvalError::new(format!("there is no package `{missing}`")).with_hint(hint);
        }
        let entries = self.session.loader.list(directory).unwrap_or_default();
        let names = entries.iter().filter(|entry| !entry.is_directory).map(|entry| entry.name.as_str());
        EvalError::new(format!("there is no file `{}`", shown(name))).with_hint(suggest::hint("files", file, names))
    }

    fn evaluate(&mut self, name: &str, text: String) -> Result<Loaded, EvalError> {
        bounds::check(&text).map_err(|excess| EvalError::new(format!("`{}` {excess}", shown(name))))?;
        let explain = |error: starlark::Error| from_starlark(&error, name, self.session);
        let syntax = AstModule::parse(name, text, &dialect(name)).map_err(explain)?;
        let (resolved, visible) = self.follow_loads(name, &syntax)?;
        let number = ModuleNumber::try_from(self.loaded.len()).expect("memory ends before module numbers do");
        self.session.state().enter(number, &visible, defined_package(name));
        let globals = if name.starts_with(PRELUDE) { &self.prelude_globals } else { &self.user_globals };
        let module = run(self.session, name, syntax, &resolved, globals)
            .map_err(|error| from_starlark(&error, name, self.session))?;
        Ok(Loaded { module, number, visible })
    }

    fn follow_loads(
        &mut self,
        name: &str,
        syntax: &AstModule,
    ) -> Result<(Resolved, BTreeSet<ModuleNumber>), EvalError> {
        let mut resolved = BTreeMap::new();
        let mut visible = BTreeSet::new();
        for load in syntax.loads() {
            let target = resolve_load(name, load.module_id).map_err(|error| error.at(&load.span, self.session))?;
            let loaded = self.require(&target, Some(&load.span))?;
            visible.insert(loaded.number);
            visible.extend(&loaded.visible);
            resolved.insert(load.module_id.to_owned(), loaded.module);
        }
        Ok((Resolved(resolved), visible))
    }
}

fn run(
    session: &Session<'_>,
    name: &str,
    syntax: AstModule,
    loads: &Resolved,
    globals: &Globals,
) -> starlark::Result<FrozenModule> {
    let host = Host(session);
    Module::with_temp_heap(|module| {
        {
            let mut eval = Evaluator::new(&module);
            eval.set_max_callstack_size(MAX_CALL_DEPTH)?;
            eval.set_max_heap_size(MAX_HEAP_BYTES)?;
            eval.set_max_tick_count(MAX_TICKS)?;
            eval.set_loader(loads);
            eval.extra = Some(&host);
            eval.eval_module(syntax, globals)?;
        }
        Ok(module.freeze_named(FrozenHeapName::User(Box::new(name.to_owned())))?)
    })
}

fn dialect(name: &str) -> Dialect {
    Dialect {
        enable_keyword_only_arguments: true,
        enable_types: DialectTypes::Enable,
        // Rules of the prelude are loaded together with what their arguments are made of.
        enable_load_reexport: name.starts_with(PRELUDE),
        enable_top_level_stmt: true,
        enable_f_strings: true,
        ..Dialect::Standard
    }
}

/// The module a `load` statement in `from` means: a catalog path, or a prelude file.
fn resolve_load(from: &str, text: &str) -> Result<String, EvalError> {
    let invalid = |why: &str| {
        EvalError::new(format!("cannot load `{text}`: {why}")).with_hint(
            "write `//package:file.star` for a file of the catalog, `:file.star` for one beside this file, or \
             `@prelude//:file.star`",
        )
    };
    let name = if let Some(file) = text.strip_prefix(PRELUDE) {
        return Ok(format!("{PRELUDE}{file}"));
    } else if let Some(file) = text.strip_prefix(':') {
        match (from.strip_prefix(PRELUDE), from.rsplit_once('/')) {
            (Some(_), _) => return Ok(format!("{PRELUDE}{file}")),
            (None, Some((directory, _))) => format!("{directory}/{file}"),
            (None, None) => file.to_owned(),
        }
    } else if let Some(rest) = text.strip_prefix("//") {
        let (package, file) = rest.split_once(':').ok_or_else(|| invalid("it names no file"))?;
        let package: PackageName =
            package.parse().map_err(|error: super::label::LabelError| invalid(&error.to_string()))?;
        package.file(file)
    } else {
        return Err(invalid("it is not a label"));
    };
    match () {
        () if !is_recipe(&name) => Err(invalid("only `.star` files are loaded")),
        () if !is_catalog_path(&name) => Err(invalid("it leads out of the catalog")),
        () => Ok(name),
    }
}

fn is_recipe(name: &str) -> bool {
    name.ends_with(".star")
}

/// The package whose targets a file defines.
fn defined_package(name: &str) -> Option<PackageName> {
    match name.rsplit_once('/') {
        _ if name.starts_with(PRELUDE) => None,
        Some((directory, BUILD_FILE)) => directory.parse().ok(),
        None if name == BUILD_FILE => Some(PackageName::root()),
        _ => None,
    }
}

/// A module's name as a label: `//wheels:defs.star`.
fn shown(name: &str) -> String {
    match name.rsplit_once('/') {
        _ if name.starts_with(PRELUDE) => name.to_owned(),
        Some((directory, file)) => format!("//{directory}:{file}"),
        None => format!("//:{name}"),
    }
}
