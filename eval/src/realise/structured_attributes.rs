//! `.attrs.json` and `.attrs.sh`: how a derivation with structured attributes reads them, as Nix writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The attributes with their placeholders replaced and `outputs` added, as the builder sees them.
pub(super) fn attributes(json: &str, outputs: &BTreeMap<String, String>) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("`__json` does not parse: {error}"))?;
    let Value::Object(mut attributes) = value else { return Err("`__json` is no object".to_owned()) };
    let paths = outputs.iter().map(|(name, path)| (name.clone(), Value::String(path.clone()))).collect();
    attributes.insert("outputs".to_owned(), Value::Object(paths));
    Ok(attributes)
}

/// The text of `.attrs.sh`: what bash can express of the attributes. Anything deeper is left to `.attrs.json`.
pub(super) fn shell(attributes: &Map<String, Value>) -> String {
    let mut sorted: Vec<_> = attributes.iter().filter(|(name, _)| is_shell_name(name)).collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut text = String::new();
    for (name, value) in sorted {
        if let Some(simple) = simple(value) {
            text.push_str(&format!("declare {name}={simple}\n"));
        } else if let Some(list) = list(value) {
            text.push_str(&format!("declare -a {name}=({list})\n"));
        } else if let Some(table) = table(value) {
            text.push_str(&format!("declare -A {name}=({table})\n"));
        }
    }
    text
}

fn is_shell_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn simple(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quote(text)),
        Value::Number(number) => number.as_i64().map(|number| number.to_string()),
        Value::Null => Some("''".to_owned()),
        Value::Bool(true) => Some("1".to_owned()),
        Value::Bool(false) => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn list(value: &Value) -> Option<String> {
    let items: Vec<String> = value.as_array()?.iter().map(simple).collect::<Option<_>>()?;
    Some(items.iter().map(|item| format!("{item} ")).collect())
}

fn table(value: &Value) -> Option<String> {
    let mut entries: Vec<(&String, &Value)> = value.as_object()?.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries.iter().map(|(key, value)| Some(format!("[{}]={} ", quote(key), simple(value)?))).collect()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_gets_what_bash_can_express() {
        let json = r#"{"b": true, "n": 3, "f": 1.5, "s": "it's", "no-name": "x", "z": null,
                       "l": ["a b", 1], "t": {"k": "v"}, "deep": [["x"]], "empty": []}"#;
        let outputs = BTreeMap::from([("out".to_owned(), "/s/o".to_owned())]);
        let expected = "declare b=1\ndeclare -a empty=()\ndeclare -a l=('a b' 1 )\ndeclare n=3\n\
                        declare -A outputs=(['out']='/s/o' )\ndeclare s='it'\\''s'\ndeclare -A t=(['k']='v' )\ndeclare z=''\n";
        assert_eq!(shell(&attributes(json, &outputs).unwrap()), expected);
    }

    #[test]
    fn broken_attributes_are_an_error() {
        assert!(attributes("[]", &BTreeMap::new()).is_err());
        assert!(attributes("{", &BTreeMap::new()).is_err());
    }
}
