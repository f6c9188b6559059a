//! A derivation's attributes as builders of Nix read them: from its environment, or from its structured attributes.

use ampoule_derivations::derivation::Derivation;
use serde_json::{Map, Value};

/// The variable that holds structured attributes.
const STRUCTURED: &[u8] = b"__json";

/// The attributes of one derivation.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    derivation: &'a Derivation,
    structured: Option<Map<String, Value>>,
}

/// Why an attribute cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttributeError {
    #[error("structured attributes: `__json` {0}")]
    NotAnObject(String),
    #[error("attribute `{name}` must be {expected}")]
    Type { name: String, expected: &'static str },
}

impl AttributeError {
    pub(super) fn wrong(name: &str, expected: &'static str) -> Self {
        Self::Type { name: name.to_owned(), expected }
    }
}

impl<'a> Attributes<'a> {
    pub(super) fn of(derivation: &'a Derivation) -> Result<Self, AttributeError> {
        let Some(json) = derivation.env.get(STRUCTURED) else { return Ok(Self { derivation, structured: None }) };
        let value: Value = serde_json::from_slice(json)
            .map_err(|error| AttributeError::NotAnObject(format!("does not parse: {error}")))?;
        match value {
            Value::Object(attributes) => Ok(Self { derivation, structured: Some(attributes) }),
            _ => Err(AttributeError::NotAnObject("is no object".to_owned())),
        }
    }

    /// The attributes with their structure, if they have one.
    pub(super) const fn structured(&self) -> Option<&Map<String, Value>> {
        self.structured.as_ref()
    }

    /// The attribute as text, of a derivation without structured attributes.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = self.derivation.env.get(name.as_bytes()).filter(|_| self.structured.is_none())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// A truth value: `true`, or the text `1`.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, AttributeError> {
        match &self.structured {
            None => Ok(self.text(name).map_or(default, |text| text == "1")),
            Some(attributes) => match attributes.get(name) {
                None => Ok(default),
                Some(value) => value.as_bool().ok_or_else(|| AttributeError::wrong(name, "`true` or `false`")),
            },
        }
    }

    /// A list of strings, or words.
    pub(super) fn strings(&self, name: &str) -> Result<Option<Vec<String>>, AttributeError> {
        match &self.structured {
            None => Ok(self.text(name).map(|text| words(&text))),
            Some(attributes) => attributes.get(name).map(|value| string_list(name, value)).transpose(),
        }
    }

    /// A number that is not negative, or the text of one.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, AttributeError> {
        let wrong = || AttributeError::wrong(name, "a number that is not negative");
        match &self.structured {
            None => match self.text(name) {
                Some(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| wrong()),
                _ => Ok(None),
            },
            Some(attributes) => attributes.get(name).map(|value| value.as_u64().ok_or_else(wrong)).transpose(),
        }
    }
}

/// The items of a JSON list of strings.
pub(super) fn string_list(name: &str, value: &Value) -> Result<Vec<String>, AttributeError> {
    let wrong = || AttributeError::wrong(name, "a list of strings");
    let items = value.as_array().ok_or_else(wrong)?;
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

/// The words of a text, separated as Nix does it: by blanks, tabs and line ends.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split([' ', '\t', '\n', '\r']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};
    use ampoule_store::path::StoreDir;

    use super::*;

    fn derivation(builder: DerivationBuilder) -> Derivation {
        builder.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).unwrap().1
    }

    fn plain() -> DerivationBuilder {
        DerivationBuilder::new("x", "x86_64-linux", "/bin/sh")
    }

    #[test]
    fn texts_become_what_is_asked_for() {
        let derivation = derivation(plain().env("on", "1").env("off", "").env("list", " a\tb\nc ").env("n", "12"));
        let attributes = Attributes::of(&derivation).unwrap();
        let flag = |name| attributes.flag(name, true).unwrap();
        assert_eq!((flag("on"), flag("off"), flag("absent")), (true, false, true));
        assert_eq!(attributes.strings("list").unwrap().unwrap(), ["a", "b", "c"]);
        assert_eq!(attributes.strings("off").unwrap(), Some(Vec::new()));
        assert_eq!((attributes.number("n"), attributes.number("off")), (Ok(Some(12)), Ok(None)));
        assert!(attributes.number("list").is_err());
    }

    #[test]
    fn structured_attributes_have_their_types() {
        let json = serde_json::json!({ "on": true, "list": ["a b"], "n": 3, "text": "1" });
        let derivation = derivation(plain().structured_attributes(json.as_object().unwrap().clone()));
        let attributes = Attributes::of(&derivation).unwrap();
        assert_eq!(attributes.flag("on", false), Ok(true));
        assert_eq!(attributes.strings("list").unwrap().unwrap(), ["a b"]);
        assert_eq!(attributes.number("n"), Ok(Some(3)));
        let error = attributes.flag("text", false).unwrap_err();
        assert_eq!(error.to_string(), "attribute `text` must be `true` or `false`");
        assert!(attributes.strings("n").is_err() && attributes.number("list").is_err());
    }
}
