//! Checks of what recipes hand to functions.

use starlark::values::Value;
use starlark::values::dict::DictRef;

use super::coerce::items;
use super::error::RecipeError;
use super::suggest;

/// Refuses arguments a function does not have; `unknown` holds those that matched no parameter.
pub(super) fn refuse_unknown(function: &str, unknown: Value<'_>, known: &[&str]) -> Result<(), RecipeError> {
    let dict = DictRef::from_value(unknown);
    let Some(name) = dict.as_ref().and_then(|dict| dict.keys().next()).and_then(Value::unpack_str) else {
        return Ok(());
    };
    let message = format!("`{function}` has no argument `{name}`");
    Err(RecipeError::new(message).with_hint(suggest::hint("arguments", name, known.iter().copied())))
}

/// A list of strings.
pub(super) fn strings(value: Value<'_>, what: &str) -> Result<Vec<String>, RecipeError> {
    let list = items(value).ok_or_else(|| expected(what, "a list of strings", value))?;
    let text = |item: &Value<'_>| item.unpack_str().map(ToOwned::to_owned);
    list.iter().map(|item| text(item).ok_or_else(|| expected(what, "a list of strings", *item))).collect()
}

/// A dict with string keys, in its own order.
pub(super) fn entries<'v>(value: Value<'v>, what: &str) -> Result<Vec<(&'v str, Value<'v>)>, RecipeError> {
    let dict = DictRef::from_value(value).ok_or_else(|| expected(what, "a dict", value))?;
    let key = |key: Value<'v>| key.unpack_str().ok_or_else(|| expected(what, "a dict with strings as keys", key));
    dict.iter().map(|(name, value)| Ok((key(name)?, value))).collect()
}

/// The error about a value of the wrong type.
pub(super) fn expected(what: &str, wanted: &str, found: Value<'_>) -> RecipeError {
    RecipeError::new(format!("{what} must be {wanted}, not a {}", type_name(found)))
}

/// What a value is called in messages.
pub(super) fn type_name(value: Value<'_>) -> &'static str {
    match value.get_type() {
        "NoneType" => "None",
        "store_object" => "text or file",
        other => other,
    }
}
