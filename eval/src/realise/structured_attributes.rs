//! `.attrs.json` and `.attrs.sh`: how a derivation with structured attributes reads them, as Nix writes them.
//!
//! Source of the facts: what stock Nix 2.8 writes. Its numbers are those of its JSON library and, for the shell, those of a
//! cast to a 32-bit integer.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The attributes as the builder sees them: with `outputs` added and graphs in place of what asks for them.
pub(super) fn attributes(
    attributes: &Map<String, Value>,
    outputs: &BTreeMap<String, String>,
    graphs: BTreeMap<String, Value>,
) -> Map<String, Value> {
    let mut attributes = attributes.clone();
    let paths = outputs.iter().map(|(name, path)| (name.clone(), Value::String(path.clone()))).collect();
    attributes.insert("outputs".to_owned(), Value::Object(paths));
    attributes.extend(graphs);
    attributes
}

/// The text of `.attrs.json`.
pub(super) fn json(attributes: &Map<String, Value>) -> String {
    let mut text = String::new();
    write_object(&mut text, attributes);
    text
}

// Values that a JSON parser gave are nested only so deep.
fn write(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => text.push_str(&Number::of(number).json()),
        Value::Object(fields) => write_object(text, fields),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write(text, item);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

fn write_object(text: &mut String, fields: &Map<String, Value>) {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    text.push('{');
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        text.push_str(&Value::String(name.clone()).to_string());
        text.push(':');
        write(text, value);
    }
    text.push('}');
}

/// A number as Nix holds it.
#[derive(Clone, Copy)]
enum Number {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
}

impl Number {
    fn of(number: &serde_json::Number) -> Self {
        // Only whole literals are integers; `as_i64` would say so of others too if they were small enough.
        let text = number.to_string();
        let integer = text.parse().map(Self::Integer).or_else(|_| text.parse().map(Self::Unsigned));
        integer.unwrap_or_else(|_| Self::Float(text.parse().unwrap_or(f64::INFINITY)))
    }

    fn json(self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Float(number) => float(number),
        }
    }

    /// What the shell gets; nothing for a fraction.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "Nix tests a 32-bit float and prints a 32-bit integer"
    )]
    fn shell(self) -> Option<i32> {
        let (rounded, integer) = match self {
            Self::Integer(number) => (number as f32, number as i32),
            Self::Unsigned(number) => (number as f32, number as i32),
            // What the processor makes of a number that does not fit.
            Self::Float(number) if number.abs() >= 2_147_483_648.0 => (number as f32, i32::MIN),
            Self::Float(number) => (number as f32, number as i32),
        };
        (rounded.ceil() == rounded).then_some(integer)
    }
}

/// The shortest digits that mean the number, in the notation of Nix's JSON library.
fn float(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0.0".to_owned() } else { "0.0".to_owned() };
    }
    if !number.is_finite() {
        return "null".to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // The decimal point comes after so many of the digits.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let body = if length <= point && point <= 15 {
        format!("{digits}{}.0", zeros(point - length))
    } else if 0 < point && point <= 15 {
        let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{whole}.{rest}")
    } else if -4 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let exponent = point - 1;
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{first}{dot}{rest}e{sign}{:02}", exponent.abs())
    };
    format!("{sign}{body}")
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
        Value::Number(number) => Number::of(number).shell().map(|number| number.to_string()),
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

    fn given(json: &str) -> Map<String, Value> {
        let outputs = BTreeMap::from([("out".to_owned(), "/s/o".to_owned())]);
        let parsed: Value = serde_json::from_str(json).unwrap();
        attributes(parsed.as_object().unwrap(), &outputs, BTreeMap::new())
    }

    /// What stock Nix 2.8 made of these.
    #[test]
    fn numbers_are_written_as_nix_does() {
        let given = given(
            r#"{"big": 3000000000, "huge": 9223372036854775807, "g": 2, "h": 1e+15, "i": 1e+16, "neg": -5,
                "floats": [1,1.5,0.1,1e+20,1e-07,1.23457e+08,1.5e+300,0.0001,1e-05]}"#,
        );
        let expected = r#"{"big":3000000000,"floats":[1,1.5,0.1,1e+20,1e-07,123457000.0,1.5e+300,0.0001,1e-05],"g":2,"h":1e+15,"huge":9223372036854775807,"i":1e+16,"neg":-5,"outputs":{"out":"/s/o"}}"#;
        assert_eq!(json(&given), expected);
        let expected = "declare big=-1294967296\ndeclare g=2\ndeclare h=-2147483648\ndeclare huge=-1\n\
                        declare i=-2147483648\ndeclare neg=-5\ndeclare -A outputs=(['out']='/s/o' )\n";
        assert_eq!(shell(&given), expected);
        for (number, expected) in [
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (-12.5, "-12.5"),
            (1e100, "1e+100"),
            (1.25e-10, "1.25e-10"),
            (1e14, "100000000000000.0"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn bash_gets_what_bash_can_express() {
        let given = given(
            r#"{"b": true, "n": 3, "f": 1.5, "s": "it's", "no-name": "x", "z": null,
                "l": ["a b", 1], "t": {"k": "v"}, "deep": [["x"]], "empty": []}"#,
        );
        let expected = "declare b=1\ndeclare -a empty=()\ndeclare -a l=('a b' 1 )\ndeclare n=3\n\
                        declare -A outputs=(['out']='/s/o' )\ndeclare s='it'\\''s'\ndeclare -A t=(['k']='v' )\ndeclare z=''\n";
        assert_eq!(shell(&given), expected);
    }

    #[test]
    fn graphs_take_the_place_of_what_asked_for_them() {
        let parsed: Value = serde_json::json!({ "exportReferencesGraph": { "g": ["/p"] }, "g": 1 });
        let graphs = BTreeMap::from([("g".to_owned(), serde_json::json!([{ "path": "/p" }]))]);
        let given = attributes(parsed.as_object().unwrap(), &BTreeMap::new(), graphs);
        assert_eq!(json(&given), r#"{"exportReferencesGraph":{"g":["/p"]},"g":[{"path":"/p"}],"outputs":{}}"#);
    }
}
