//! Turns values into what derivations hold: environment strings by Nix's rules, and JSON in one canonical form.

use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::list::ListRef;
use starlark::values::structs::StructRef;
use starlark::values::tuple::TupleRef;

use super::error::RecipeError;
use super::values::store_text;

/// Lists within lists deeper than this are refused: a list can even hold itself.
const MAX_DEPTH: usize = 64;

/// A value as an environment string, as Nix does it: `True` is `1`, `False` and `None` are empty, numbers are decimal,
/// lists are joined by spaces, what stands for a store object is its path or placeholder.
pub(super) fn to_text(value: Value<'_>, what: &dyn Fn() -> String) -> Result<String, RecipeError> {
    if let Some(text) = value.unpack_str() {
        return check_text(text, what).map(ToOwned::to_owned);
    }
    let mut text = String::new();
    append_text(&mut text, value, what, 0)?;
    Ok(text)
}

fn append_text(
    text: &mut String,
    value: Value<'_>,
    what: &dyn Fn() -> String,
    depth: usize,
) -> Result<(), RecipeError> {
    if let Some(part) = value.unpack_str() {
        text.push_str(check_text(part, what)?);
    } else if let Some(part) = store_text(value) {
        text.push_str(part);
    } else if let Some(flag) = value.unpack_bool() {
        text.push_str(if flag { "1" } else { "" });
    } else if value.is_none() {
    } else if let Some(items) = items(value) {
        if depth == MAX_DEPTH {
            return Err(too_deep(what));
        }
        for (index, item) in items.iter().enumerate() {
            append_text(text, *item, what, depth + 1)?;
            // Nix leaves out the space behind an empty list, and only there.
            let empty_list = self::items(*item).is_some_and(<[_]>::is_empty);
            if index + 1 < items.len() && !empty_list {
                text.push(' ');
            }
        }
    } else if value.get_type() == "int" {
        text.push_str(&value.to_str());
    } else {
        let message = format!("{} cannot be a {}", what(), value.get_type());
        let hint =
            "use a string, number, bool, list or store object; `json.encode(...)` makes a string of anything else";
        return Err(RecipeError::new(message).with_hint(hint));
    }
    Ok(())
}

/// The items of a list or tuple.
pub(super) fn items<'v>(value: Value<'v>) -> Option<&'v [Value<'v>]> {
    ListRef::from_value(value).map(ListRef::content).or_else(|| TupleRef::from_value(value).map(TupleRef::content))
}

fn check_text<'t>(text: &'t str, what: &dyn Fn() -> String) -> Result<&'t str, RecipeError> {
    match text.bytes().position(|byte| byte == 0) {
        None => Ok(text),
        Some(_) => Err(RecipeError::new(format!("{} holds a NUL character", what()))),
    }
}

fn too_deep(what: &dyn Fn() -> String) -> RecipeError {
    RecipeError::new(format!("{} is nested more than {MAX_DEPTH} deep", what()))
}

/// A value as JSON with sorted keys and no white space.
pub(super) fn to_json(value: Value<'_>, what: &dyn Fn() -> String) -> Result<String, RecipeError> {
    let mut json = String::new();
    append_json(&mut json, value, what, 0)?;
    Ok(json)
}

fn append_json(
    json: &mut String,
    value: Value<'_>,
    what: &dyn Fn() -> String,
    depth: usize,
) -> Result<(), RecipeError> {
    if depth == MAX_DEPTH {
        return Err(too_deep(what));
    }
    if let Some(text) = value.unpack_str() {
        append_quoted(json, check_text(text, what)?);
    } else if let Some(text) = store_text(value) {
        append_quoted(json, text);
    } else if let Some(flag) = value.unpack_bool() {
        json.push_str(if flag { "true" } else { "false" });
    } else if value.is_none() {
        json.push_str("null");
    } else if let Some(items) = items(value) {
        json.push('[');
        for (index, item) in items.iter().enumerate() {
            json.push_str(if index == 0 { "" } else { "," });
            append_json(json, *item, what, depth + 1)?;
        }
        json.push(']');
    } else if let Some(mut fields) = fields(value, what)? {
        fields.sort_unstable_by_key(|(key, _)| *key);
        append_object(json, &fields, what, depth)?;
    } else if value.get_type() == "int" {
        json.push_str(&value.to_str());
    } else {
        return Err(RecipeError::new(format!("{} cannot hold a {}", what(), value.get_type())));
    }
    Ok(())
}

fn append_object(
    json: &mut String,
    fields: &[(&str, Value<'_>)],
    what: &dyn Fn() -> String,
    depth: usize,
) -> Result<(), RecipeError> {
    json.push('{');
    for (index, (key, value)) in fields.iter().enumerate() {
        json.push_str(if index == 0 { "" } else { "," });
        append_quoted(json, key);
        json.push(':');
        append_json(json, *value, what, depth + 1)?;
    }
    json.push('}');
    Ok(())
}

/// The fields of a dict with string keys, or of a struct.
fn fields<'v>(value: Value<'v>, what: &dyn Fn() -> String) -> Result<Option<Vec<(&'v str, Value<'v>)>>, RecipeError> {
    if let Some(dict) = DictRef::from_value(value) {
        let key = |key: Value<'v>| {
            key.unpack_str().ok_or_else(|| {
                RecipeError::new(format!("{} has the key `{}`: keys must be strings", what(), key.to_repr()))
            })
        };
        return dict.iter().map(|(name, value)| Ok((key(name)?, value))).collect::<Result<_, _>>().map(Some);
    }
    Ok(StructRef::from_value(value).map(|fields| fields.iter().map(|(name, value)| (name.as_str(), value)).collect()))
}

/// Appends a string in quotes, escaped as JSON asks and no further.
pub(super) fn append_quoted(json: &mut String, text: &str) {
    json.push_str(&serde_json::to_string(text).expect("strings always encode"));
}
