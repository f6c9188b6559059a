//! The arguments of `derivation` that become one attribute each: what Nix's builder reads besides the environment.

use starlark::values::Value;
use starlark::values::dict::DictRef;

use super::arguments::{entries, expected, strings};
use super::coerce::{append_quoted, items, to_json, to_text};
use super::error::RecipeError;
use super::suggest;

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Number,
    Names,
    /// Store objects, or names of the derivation's own outputs.
    References,
    /// Store objects by name: one or several for each.
    Graph,
    /// Anything, of a derivation with structured attributes.
    Structured,
}

/// The arguments, each with the attribute it sets.
const OPTIONS: [(&str, &str, Kind); 14] = [
    ("allow_substitutes", "allowSubstitutes", Kind::Flag),
    ("allowed_references", "allowedReferences", Kind::References),
    ("allowed_requisites", "allowedRequisites", Kind::References),
    ("disallowed_references", "disallowedReferences", Kind::References),
    ("disallowed_requisites", "disallowedRequisites", Kind::References),
    ("export_references_graph", "exportReferencesGraph", Kind::Graph),
    ("impure_env_vars", "impureEnvVars", Kind::Names),
    ("max_log_size", "__maxLogSize", Kind::Number),
    ("max_silent_time", "__maxSilentTime", Kind::Number),
    ("output_checks", "outputChecks", Kind::Structured),
    ("prefer_local_build", "preferLocalBuild", Kind::Flag),
    ("sealed", "sealed", Kind::Flag),
    ("timeout", "__timeout", Kind::Number),
    ("unsafe_discard_references", "unsafeDiscardReferences", Kind::Structured),
];

/// The names of the arguments.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(argument, ..)| *argument)
}

/// The argument that sets this attribute.
pub(super) fn argument_for(attribute: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|(_, own, _)| *own == attribute).map(|(argument, ..)| *argument)
}

/// The options of one call.
#[derive(Default)]
pub(super) struct Options<'v>(Vec<(&'static str, &'static str, Kind, Value<'v>)>);

impl<'v> Options<'v> {
    /// Takes them from the arguments that are no parameters; any other is an error. `parameters` are what else there is.
    pub(super) fn from_rest(rest: Value<'v>, parameters: &'static [&'static str]) -> Result<Self, RecipeError> {
        let mut options = Vec::new();
        let rest = DictRef::from_value(rest);
        for (name, value) in rest.iter().flat_map(|rest| rest.iter()) {
            let name = name.unpack_str().unwrap_or_default();
            match OPTIONS.iter().find(|(argument, ..)| *argument == name) {
                // `None` is as good as not given.
                Some(_) if value.is_none() => {}
                Some((argument, attribute, kind)) => options.push((*argument, *attribute, *kind, value)),
                None => {
                    let known = parameters.iter().copied().chain(names());
                    return Err(RecipeError::new(format!("`derivation` has no argument `{name}`"))
                        .with_hint(suggest::hint("arguments", name, known)));
                }
            }
        }
        Ok(Self(options))
    }

    /// The variables they become.
    pub(super) fn variables(&self) -> Result<Vec<(&'static str, String)>, RecipeError> {
        let variable = |(argument, attribute, kind, value): &(&str, &'static str, Kind, Value<'v>)| {
            let what = || format!("`{argument}`");
            let text = match kind {
                Kind::Flag => flag(*value, argument).map(|flag| if flag { "1" } else { "" }.to_owned()),
                Kind::Number => number(*value, argument).map(|number| number.to_string()),
                Kind::Names => strings(*value, &what()).map(|names| names.join(" ")),
                Kind::References => reference_list(*value, argument).and_then(|_| to_text(*value, &what)),
                Kind::Graph => graph_words(*value, argument),
                Kind::Structured => Err(RecipeError::new(format!("`{argument}` needs `structured_attrs`"))
                    .with_hint("`structured_attrs = {...}` takes the place of `env`")),
            };
            text.map(|text| (*attribute, text))
        };
        self.0.iter().map(variable).collect()
    }

    /// The fields of the structured attributes they become, as JSON.
    pub(super) fn fields(&self) -> Result<Vec<(&'static str, String)>, RecipeError> {
        let field = |(argument, attribute, kind, value): &(&str, &'static str, Kind, Value<'v>)| {
            let what = || format!("`{argument}`");
            let json = match kind {
                Kind::Flag => flag(*value, argument).map(|flag| flag.to_string()),
                Kind::Number => number(*value, argument).map(|number| number.to_string()),
                Kind::Names => strings(*value, &what()).and_then(|_| to_json(*value, &what)),
                Kind::References => {
                    let hint =
                        format!("`output_checks = {{\"out\": {{\"{attribute}\": [...]}}}}` says it for each output");
                    Err(RecipeError::new(format!("`{argument}` excludes `structured_attrs`")).with_hint(hint))
                }
                Kind::Graph => graph_json(*value, argument),
                Kind::Structured => entries(*value, &what()).and_then(|_| to_json(*value, &what)),
            };
            json.map(|json| (*attribute, json))
        };
        self.0.iter().map(field).collect()
    }
}

fn flag(value: Value<'_>, argument: &str) -> Result<bool, RecipeError> {
    value.unpack_bool().ok_or_else(|| expected(&format!("`{argument}`"), "`True` or `False`", value))
}

fn number(value: Value<'_>, argument: &str) -> Result<i32, RecipeError> {
    let number = value.unpack_i32().filter(|number| *number >= 0 && value.unpack_bool().is_none());
    number.ok_or_else(|| expected(&format!("`{argument}`"), "a number that is not negative, 0 for no limit", value))
}

fn reference_list(value: Value<'_>, argument: &str) -> Result<(), RecipeError> {
    match items(value) {
        Some(_) => Ok(()),
        None => Err(expected(&format!("`{argument}`"), "a list of store objects and of names of outputs", value)),
    }
}

/// The graphs by name, each with what it starts from.
fn graphs<'v>(value: Value<'v>, argument: &str) -> Result<Vec<(&'v str, Vec<Value<'v>>)>, RecipeError> {
    let graphs = entries(value, &format!("`{argument}`"))?;
    Ok(graphs.into_iter().map(|(name, of)| (name, items(of).map_or_else(|| vec![of], <[_]>::to_vec))).collect())
}

fn graph_words(value: Value<'_>, argument: &str) -> Result<String, RecipeError> {
    let mut words = Vec::new();
    for (name, starts) in graphs(value, argument)? {
        let [start] = starts.as_slice() else {
            let message = format!("`{argument}[\"{name}\"]` must be one store object, not {}", starts.len());
            return Err(RecipeError::new(message).with_hint("with `structured_attrs` it can be several"));
        };
        words.push(name.to_owned());
        words.push(to_text(*start, &|| format!("`{argument}[\"{name}\"]`"))?);
    }
    Ok(words.join(" "))
}

fn graph_json(value: Value<'_>, argument: &str) -> Result<String, RecipeError> {
    let mut json = "{".to_owned();
    let mut graphs = graphs(value, argument)?;
    graphs.sort_unstable_by_key(|(name, _)| *name);
    for (index, (name, starts)) in graphs.iter().enumerate() {
        json.push_str(if index == 0 { "" } else { "," });
        append_quoted(&mut json, name);
        json.push_str(":[");
        for (index, start) in starts.iter().enumerate() {
            json.push_str(if index == 0 { "" } else { "," });
            append_quoted(&mut json, &to_text(*start, &|| format!("`{argument}[\"{name}\"]`"))?);
        }
        json.push(']');
    }
    json.push('}');
    Ok(json)
}
