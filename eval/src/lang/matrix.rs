//! Matrices and the changes recipes make to some of their members.
//!
//! All `when`s that match a cell apply in order; lists append, dicts update, anything else replaces.

use starlark::codemap::FileSpan;
use starlark::collections::SmallMap;
use starlark::eval::Evaluator;
use starlark::values::dict::{Dict, DictRef};
use starlark::values::structs::{AllocStruct, StructRef};
use starlark::values::tuple::AllocTuple;
use starlark::values::{Heap, Value};

use super::arguments::{entries, expected, strings};
use super::coerce::items;
use super::error::RecipeError;
use super::session::Session;
use super::suggest::{self, quoted};
use super::tables::Tables;
use super::values::MatrixValue;

/// The setting that leaves a cell out.
const SKIP: &str = "skip";

/// A matrix of these axes (a dict of lists).
pub(super) fn matrix(tables: &Tables, axes: Value<'_>) -> Result<MatrixValue, RecipeError> {
    let mut checked: Vec<(String, Vec<String>)> = Vec::new();
    for (name, values) in entries(axes, "the axes of a matrix")? {
        let values = strings(values, &format!("axis `{name}`"))?;
        if values.is_empty() {
            return Err(RecipeError::new(format!("axis `{name}` has no values")));
        }
        for (index, value) in values.iter().enumerate() {
            tables.check(name, value).map_err(|(message, hint)| RecipeError::new(message).with_hint(hint))?;
            let first_use = |(other, earlier): &(String, Vec<String>)| earlier.contains(value).then(|| other.clone());
            if values[..index].contains(value) {
                return Err(RecipeError::new(format!("axis `{name}` has the value `{value}` twice")));
            }
            if let Some(other) = checked.iter().find_map(first_use) {
                let message = format!("the axes `{other}` and `{name}` share the value `{value}`");
                return Err(RecipeError::new(message).with_hint("labels name members by their values alone"));
            }
        }
        checked.push((name.to_owned(), values));
    }
    if checked.is_empty() {
        return Err(RecipeError::new(
            "a matrix needs at least one axis, as in `matrix(platform = [\"linux-x86_64\"])`",
        ));
    }
    Ok(MatrixValue::new(checked))
}

/// A `when` of a recipe.
struct Guard<'v> {
    /// For each axis it chooses by: its number and the patterns.
    selectors: Vec<(usize, Vec<String>)>,
    changes: Vec<(&'v str, Value<'v>)>,
    /// Whether a value depends on the cell.
    has_functions: bool,
    place: Option<FileSpan>,
}

/// Settings that cells share.
struct Group<'v> {
    guards: Vec<usize>,
    settings: Value<'v>,
    skip: Value<'v>,
}

/// The cells of a matrix with the settings of each: a list of structs of
/// `key` (a tuple of axis values), `cell` (the same as a struct), `settings`, `skip` (a reason or `None`) and `group`
/// (a number that cells with the same settings share).
pub(super) fn cells<'v>(
    matrix: &MatrixValue,
    base: Value<'v>,
    overrides: Value<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Vec<Value<'v>>> {
    let base = entries(base, "settings")?;
    if let Some((axis, _)) = matrix.axes().iter().find(|(axis, _)| base.iter().any(|(setting, _)| setting == axis)) {
        return Err(RecipeError::new(format!("no axis can be named `{axis}`: it is a setting")).into());
    }
    let guards = guards(matrix, &base, overrides, Session::of(eval))?;
    let heap = eval.heap();
    let mut groups: Vec<Group<'v>> = Vec::new();
    let mut cells = Vec::new();
    for key in matrix.cells() {
        let cell =
            heap.alloc(AllocStruct(matrix.axes().iter().map(|(name, _)| name.as_str()).zip(key.iter().copied())));
        let matching: Vec<usize> = (0..guards.len()).filter(|index| guards[*index].matches(&key)).collect();
        let shareable = !matching.iter().any(|index| guards[*index].has_functions);
        let known = groups.iter().position(|group| shareable && group.guards == matching);
        let number = match known {
            Some(number) => number,
            None => {
                let chosen: Vec<_> = matching.iter().map(|index| &guards[*index]).collect();
                let (settings, skip) = merge(&base, &chosen, cell, eval)?;
                groups.push(Group { guards: matching, settings, skip });
                groups.len() - 1
            }
        };
        let group = &groups[number];
        let fields = [
            ("key", heap.alloc(AllocTuple(key))),
            ("cell", cell),
            ("settings", group.settings),
            ("skip", group.skip),
            ("group", heap.alloc(i32::try_from(number).unwrap_or(i32::MAX))),
        ];
        cells.push(heap.alloc(AllocStruct(fields)));
    }
    Ok(cells)
}

fn guards<'v>(
    matrix: &MatrixValue,
    base: &[(&'v str, Value<'v>)],
    overrides: Value<'v>,
    session: &Session<'_>,
) -> Result<Vec<Guard<'v>>, RecipeError> {
    let list = items(overrides).ok_or_else(|| expected("`overrides`", "a list of `when(...)`", overrides))?;
    let mut guards = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let fields = StructRef::from_value(*item);
        let field = |wanted: &str| {
            let fields = fields.as_ref()?;
            fields.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, value)| value)
        };
        let (Some(changes), Some(place)) = (field("when"), field("place")) else {
            return Err(expected(&format!("`overrides[{index}]`"), "made by `when(...)`", *item));
        };
        let place = session.place(place.unpack_i32());
        let guard = guard(matrix, base, changes, session.tables).map_err(|error| error.at(place.clone()))?;
        guards.push(Guard { place, ..guard });
    }
    Ok(guards)
}

fn guard<'v>(
    matrix: &MatrixValue,
    base: &[(&'v str, Value<'v>)],
    arguments: Value<'v>,
    tables: &Tables,
) -> Result<Guard<'v>, RecipeError> {
    let mut guard = Guard { selectors: Vec::new(), changes: Vec::new(), has_functions: false, place: None };
    for (name, value) in entries(arguments, "the arguments of `when`")? {
        if let Some(axis) = matrix.axes().iter().position(|(axis, _)| axis == name) {
            guard.selectors.push((axis, selector(matrix, axis, value, tables)?));
        } else if name == SKIP || base.iter().any(|(setting, _)| *setting == name) {
            guard.has_functions |= is_function(value);
            guard.changes.push((name, value));
        } else {
            return Err(unknown_setting(matrix, base, name));
        }
    }
    if guard.changes.is_empty() {
        return Err(RecipeError::new("this `when` changes nothing"));
    }
    Ok(guard)
}

fn unknown_setting(matrix: &MatrixValue, base: &[(&str, Value<'_>)], name: &str) -> RecipeError {
    let settings = base.iter().map(|(setting, _)| *setting).chain([SKIP]);
    let axes: Vec<_> = matrix.axes().iter().map(|(axis, _)| axis.as_str()).collect();
    let near = suggest::nearest(name, axes.iter().copied().chain(settings.clone()));
    let mut settings: Vec<_> = settings.collect();
    settings.sort_unstable();
    let near = near.map(|near| format!("did you mean `{near}`?"));
    let lists = [format!("axes: {}", quoted(&axes)), format!("settings: {}", quoted(&settings))];
    RecipeError::new(format!("`when` has neither an axis nor a setting `{name}`"))
        .with_hint(near.into_iter().chain(lists).collect::<Vec<_>>().join("\n"))
}

/// The patterns an axis is chosen by; each must choose something.
fn selector(matrix: &MatrixValue, axis: usize, value: Value<'_>, tables: &Tables) -> Result<Vec<String>, RecipeError> {
    let (name, values) = &matrix.axes()[axis];
    let patterns = match value.unpack_str() {
        Some(one) => vec![one.to_owned()],
        None => strings(value, &format!("`{name}` in `when`"))?,
    };
    for pattern in &patterns {
        if !values.iter().any(|value| chooses(pattern, value)) {
            let (message, hint) = match tables.check(name, pattern) {
                Err(unknown) if !pattern.contains('*') => unknown,
                _ => (
                    format!("this `when` matches no member: the matrix has no {name} `{pattern}`"),
                    format!("values of `{name}`: {}", quoted(values)),
                ),
            };
            return Err(RecipeError::new(message).with_hint(hint));
        }
    }
    if patterns.is_empty() {
        return Err(RecipeError::new(format!("this `when` matches no member: its list of `{name}` is empty")));
    }
    Ok(patterns)
}

/// Whether a pattern, exact or `prefix*`, chooses a value.
fn chooses(pattern: &str, value: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => value.starts_with(prefix),
        None => value == pattern,
    }
}

impl Guard<'_> {
    fn matches(&self, key: &[&str]) -> bool {
        self.selectors.iter().all(|(axis, patterns)| patterns.iter().any(|pattern| chooses(pattern, key[*axis])))
    }
}

fn merge<'v>(
    base: &[(&'v str, Value<'v>)],
    guards: &[&Guard<'v>],
    cell: Value<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<(Value<'v>, Value<'v>)> {
    let mut settings: SmallMap<&str, Value<'v>> = base.iter().copied().collect();
    let mut skip = Value::new_none();
    for guard in guards {
        for (name, change) in &guard.changes {
            let change = if is_function(*change) { eval.eval_function(*change, &[cell], &[])? } else { *change };
            if *name == SKIP {
                skip = reason(change).map_err(|error| error.at(guard.place.clone()))?;
            } else {
                let before = settings.get(name).copied().expect("only settings that the rule has are changed");
                let merged =
                    merged(name, before, change, eval.heap()).map_err(|error| error.at(guard.place.clone()))?;
                settings.insert(name, merged);
            }
        }
    }
    Ok((eval.heap().alloc(AllocStruct(settings)), skip))
}

fn reason(value: Value<'_>) -> Result<Value<'_>, RecipeError> {
    match value.unpack_str() {
        Some(text) if !text.trim().is_empty() => Ok(value),
        None if value.is_none() => Ok(value),
        _ => Err(RecipeError::new("`skip` needs a reason")
            .with_hint("write why, as in `skip = \"needs OpenSSL\"`: it is shown to whoever asks for this member")),
    }
}

/// One setting changed: lists append, dicts update, anything else is replaced.
fn merged<'v>(name: &str, before: Value<'v>, change: Value<'v>, heap: Heap<'v>) -> Result<Value<'v>, RecipeError> {
    let what = || format!("`{name}` in `when`");
    if let Some(list) = items(before) {
        let more = items(change).ok_or_else(|| expected(&what(), "a list, which is appended", change))?;
        return Ok(heap.alloc(list.iter().chain(more).copied().collect::<Vec<_>>()));
    }
    if let Some(dict) = DictRef::from_value(before) {
        let more = DictRef::from_value(change)
            .ok_or_else(|| expected(&what(), "a dict, which updates the setting", change))?;
        let mut updated: SmallMap<Value<'v>, Value<'v>> = SmallMap::with_capacity(dict.len() + more.len());
        for (key, value) in dict.iter_hashed().chain(more.iter_hashed()) {
            updated.insert_hashed(key, value);
        }
        return Ok(heap.alloc(Dict::new(updated)));
    }
    Ok(change)
}

fn is_function(value: Value<'_>) -> bool {
    value.get_type() == "function"
}
