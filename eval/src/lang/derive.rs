//! Makes derivations: finds what their strings refer to, addresses their outputs, and names them.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_derivations::derivation::{Derivation, Output};
use ampoule_derivations::placeholder;
use ampoule_store::content_address::{ContentAddress, Method};
use ampoule_store::hash::Algorithm;
use ampoule_store::path::{StorePath, check_name};

use super::error::RecipeError;
use super::registry::{OutputText, Referent, Registry};
use super::scan::{Reference, references};
use super::session::Session;
use super::values::DerivationValue;

/// A derivation before anything is looked up or computed.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) system: String,
    pub(super) builder: String,
    pub(super) args: Vec<Vec<u8>>,
    /// All variables but those of the outputs.
    pub(super) env: Variables,
    /// Names of the outputs in the recipe's order.
    pub(super) outputs: Vec<String>,
    pub(super) addressing: Addressing,
}

/// An environment as derivations hold it.
pub(super) type Variables = BTreeMap<Vec<u8>, Vec<u8>>;

/// How outputs get their paths.
#[derive(Clone, Debug)]
pub(super) enum Addressing {
    /// From their content, once it is built.
    Floating,
    /// From their content, which is known beforehand.
    Fixed(ContentAddress),
    /// From the inputs.
    Input,
}

/// What a derivation's strings refer to.
#[derive(Default)]
struct Inputs {
    derivations: BTreeMap<StorePath, BTreeSet<String>>,
    sources: BTreeSet<StorePath>,
}

/// Makes the derivation, keeps it, and gives the value that stands for it.
pub(super) fn derive(session: &Session<'_>, recipe: Recipe) -> Result<DerivationValue, RecipeError> {
    check(&recipe)?;
    let own: Vec<String> = recipe.outputs.iter().map(|output| placeholder::output(output)).collect();
    let inputs = find_inputs(session, &recipe, &own)?;
    let (derivation, order) = instantiate(session, recipe, inputs, &own)?;
    Ok(keep(session, derivation, &order))
}

fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    check_name(&recipe.name).map_err(|error| RecipeError::new(format!("`name`: {error}")))?;
    if recipe.name.ends_with(".drv") {
        let message = format!("`name`: `{}` ends like the file of a derivation", recipe.name);
        return Err(RecipeError::new(message));
    }
    for (name, text) in [("system", &recipe.system), ("builder", &recipe.builder)] {
        if text.is_empty() {
            return Err(RecipeError::new(format!("`{name}` is empty")));
        }
    }
    check_outputs(recipe)
}

fn check_outputs(recipe: &Recipe) -> Result<(), RecipeError> {
    let mut seen = BTreeSet::new();
    for output in &recipe.outputs {
        let named = format!("{}-{output}", recipe.name);
        check_name(output)
            .and_then(|()| check_name(&named))
            .map_err(|error| RecipeError::new(format!("`outputs`: {error}")))?;
        if output == "drv" || matches!(output.as_str(), "name" | "outputs") {
            return Err(RecipeError::new(format!("`outputs`: no output can be named `{output}`")));
        }
        if !seen.insert(output) {
            return Err(RecipeError::new(format!("`outputs`: `{output}` is there twice")));
        }
        if recipe.env.contains_key(output.as_bytes()) {
            let message = format!("`env` cannot hold `{output}`: it is the variable of an output");
            return Err(RecipeError::new(message));
        }
    }
    match (&recipe.addressing, recipe.outputs.as_slice()) {
        (_, []) => Err(RecipeError::new("`outputs` is empty")),
        (Addressing::Fixed(_), outputs) if outputs != ["out"] => {
            Err(RecipeError::new("a derivation with `output_hash` has one output, `out`"))
        }
        _ => Ok(()),
    }
}

fn find_inputs(session: &Session<'_>, recipe: &Recipe, own: &[String]) -> Result<Inputs, RecipeError> {
    let state = session.state();
    let mut finder = Finder { session, registry: &state.registry, name: &recipe.name, own, inputs: Inputs::default() };
    finder.look(recipe.builder.as_bytes(), &|| "`builder`".to_owned())?;
    for (index, argument) in recipe.args.iter().enumerate() {
        finder.look(argument, &|| format!("`args[{index}]`"))?;
    }
    for (name, value) in &recipe.env {
        let what = || match String::from_utf8_lossy(name).as_ref() {
            "__json" => "`structured_attrs`".to_owned(),
            name => format!("`env[\"{name}\"]`"),
        };
        finder.look(value, &what)?;
    }
    Ok(finder.inputs)
}

/// Collects what the strings of one derivation refer to.
struct Finder<'f, 's> {
    session: &'f Session<'s>,
    registry: &'f Registry,
    name: &'f str,
    /// Placeholders of the derivation's own outputs.
    own: &'f [String],
    inputs: Inputs,
}

impl Finder<'_, '_> {
    fn look(&mut self, text: &[u8], what: &dyn Fn() -> String) -> Result<(), RecipeError> {
        references(text, self.session.store_dir.as_str(), |reference| {
            match self.registry.explain(reference) {
                Some(Referent::Object(path)) => drop(self.inputs.sources.insert(path.clone())),
                Some(Referent::Output { derivation, output, .. }) => self.add_output(derivation, output),
                None if self.is_own(reference) => {}
                None => {
                    let place = format!("{} of derivation `{}`", what(), self.name);
                    return Err(unexplained(self.session, &place, reference));
                }
            }
            Ok(())
        })
    }

    fn add_output(&mut self, derivation: &StorePath, output: &str) {
        match self.inputs.derivations.get_mut(derivation) {
            Some(outputs) if outputs.contains(output) => {}
            Some(outputs) => drop(outputs.insert(output.to_owned())),
            None => {
                let outputs = BTreeSet::from([output.to_owned()]);
                self.inputs.derivations.insert(derivation.clone(), outputs);
            }
        }
    }

    fn is_own(&self, reference: Reference<'_>) -> bool {
        matches!(reference, Reference::Placeholder(digits) if self.own.iter().any(|own| &own.as_bytes()[1..] == digits))
    }
}

/// The error about a reference that nothing visible to the module explains.
pub(super) fn unexplained(session: &Session<'_>, place: &str, reference: Reference<'_>) -> RecipeError {
    let what = match reference {
        Reference::Placeholder(_) => "placeholder",
        Reference::StorePath { .. } => "store path",
    };
    let text = reference.shown(session.store_dir.as_str());
    RecipeError::new(format!("{place} holds the {what} `{text}`, which nothing in this file or what it loads has made"))
        .with_hint("use the value that stands for it, as in f\"{dependency}/bin\"; if another file makes it, `load` it from there")
}

/// Addresses the outputs; gives also their order in the recipe.
fn instantiate(
    session: &Session<'_>,
    recipe: Recipe,
    inputs: Inputs,
    own: &[String],
) -> Result<(Derivation, Vec<String>), RecipeError> {
    let Recipe { name, system, builder, args, env, outputs, addressing } = recipe;
    let output = match &addressing {
        Addressing::Floating => Output::Floating { method: Method::Nar, algorithm: Algorithm::Sha256 },
        Addressing::Fixed(address) => Output::Fixed(address.clone()),
        Addressing::Input => Output::Deferred,
    };
    let mut derivation = Derivation {
        name,
        outputs: outputs.iter().map(|name| (name.clone(), output.clone())).collect(),
        input_derivations: inputs.derivations,
        input_sources: inputs.sources,
        system,
        builder,
        args,
        env,
    };
    let rejected = |error: &dyn std::fmt::Display| RecipeError::new(error.to_string());
    derivation.check().map_err(|error| rejected(&error))?;
    match addressing {
        Addressing::Floating => {
            let variables =
                outputs.iter().zip(own).map(|(name, own)| (name.as_bytes().to_vec(), own.as_bytes().to_vec()));
            derivation.env.extend(variables);
        }
        Addressing::Fixed(_) => {
            let path = derivation.output_path(session.store_dir, "out").map_err(|error| rejected(&error))?;
            let path = path.map(|path| session.store_dir.display(&path)).unwrap_or_default();
            derivation.env.insert(b"out".to_vec(), path.into_bytes());
        }
        Addressing::Input => {
            session.state().address_by_inputs(&mut derivation, session.store_dir).map_err(|error| rejected(&error))?
        }
    }
    Ok((derivation, outputs))
}

/// Keeps a derivation under its path and gives the value for it, whose first output is chosen.
pub(super) fn keep(session: &Session<'_>, derivation: Derivation, order: &[String]) -> DerivationValue {
    let path = derivation.path(session.store_dir).expect("its name has been checked");
    let text_of = |output: &String| {
        let known = derivation.output_path(session.store_dir, output).expect("its names have been checked");
        let text = match &known {
            Some(known) => session.store_dir.display(known),
            None => placeholder::upstream(&path, output),
        };
        OutputText { output: output.clone(), text, path: known }
    };
    let texts: Vec<OutputText> = order.iter().map(text_of).collect();
    let name = derivation.name.clone();
    session.state().registry.add_derivation(&path, derivation, &texts);
    DerivationValue::new(name, &path, texts.into_iter().map(|text| (text.output, text.text)).collect())
}
