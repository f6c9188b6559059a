//! What a derivation says its outputs may refer to, and how large they may be.
//!
//! Plain derivations have one set of rules for all outputs: `allowedReferences`, `allowedRequisites` and their opposites.
//! Structured ones have a set for each output in `outputChecks`, with `maxSize` and `maxClosureSize` besides.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::path::{StoreDir, StorePath};
use serde_json::{Map, Value};

use super::attributes::{AttributeError, Attributes, string_list};

const RULES: [(&str, Kind, Reach); 4] = [
    ("allowedReferences", Kind::Allowed, Reach::Direct),
    ("allowedRequisites", Kind::Allowed, Reach::Closure),
    ("disallowedReferences", Kind::Disallowed, Reach::Direct),
    ("disallowedRequisites", Kind::Disallowed, Reach::Closure),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Allowed,
    Disallowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Direct,
    Closure,
}

/// What is known of an object whose rules are checked, or that one of them refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) size: u64,
    /// Itself included, if it refers to itself.
    pub(super) references: BTreeSet<StorePath>,
}

/// The rules of one output.
#[derive(Debug, Default)]
struct Rules {
    lists: Vec<(Kind, Reach, Vec<String>)>,
    max_size: Option<u64>,
    max_closure_size: Option<u64>,
    ignore_self: bool,
}

/// Why outputs are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutputError {
    #[error("output `{output}` is not allowed to refer to the following paths:{}", listed(paths))]
    References { output: String, paths: Vec<String> },
    #[error("output `{output}` is too large: it has {size} bytes, and `maxSize` is {limit}")]
    Size { output: String, size: u64, limit: u64 },
    #[error("output `{output}` is too large with all it refers to: {size} bytes, and `maxClosureSize` is {limit}")]
    ClosureSize { output: String, size: u64, limit: u64 },
    #[error("`{0}` is neither a store path nor the name of an output, so no output can refer to it")]
    Specifier(String),
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error("cannot find what the outputs refer to: {0}")]
    Unknown(String),
}

fn listed(paths: &[String]) -> String {
    paths.iter().map(|path| format!("\n  {path}")).collect()
}

/// Checks the outputs of a build. `outputs` names their paths; `known` tells about them and whatever they refer to.
pub(super) fn check_outputs(
    attributes: &Attributes<'_>,
    outputs: &BTreeMap<String, StorePath>,
    store_dir: &StoreDir,
    known: &dyn Fn(&StorePath) -> Result<Known, OutputError>,
) -> Result<(), OutputError> {
    for (name, path) in outputs {
        let rules = rules(attributes, name)?;
        let check = Check { name, path, rules: &rules, outputs, store_dir, known };
        check.sizes()?;
        check.references()?;
    }
    Ok(())
}

/// The outputs whose references are not looked for, by `unsafeDiscardReferences`.
pub(super) fn discards_references(attributes: &Attributes<'_>, output: &str) -> Result<bool, AttributeError> {
    const NAME: &str = "unsafeDiscardReferences";
    let value = attributes.structured().and_then(|attributes| attributes.get(NAME));
    match value.map(|value| value.as_object().ok_or(value)) {
        None => Ok(false),
        Some(Ok(outputs)) => match outputs.get(output) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| AttributeError::wrong(NAME, "`true` or `false` by output")),
        },
        Some(Err(_)) => Err(AttributeError::wrong(NAME, "`true` or `false` by output")),
    }
}

fn rules(attributes: &Attributes<'_>, output: &str) -> Result<Rules, AttributeError> {
    let Some(structured) = attributes.structured() else {
        let mut rules = Rules { ignore_self: true, ..Rules::default() };
        for (name, kind, reach) in RULES {
            rules.lists.extend(attributes.strings(name)?.map(|list| (kind, reach, list)));
        }
        return Ok(rules);
    };
    const NAME: &str = "outputChecks";
    let wrong = || AttributeError::wrong(NAME, "an object with an object for each output");
    let Some(checks) = structured.get(NAME) else { return Ok(Rules::default()) };
    match checks.as_object().ok_or_else(wrong)?.get(output) {
        None => Ok(Rules::default()),
        Some(rules) => structured_rules(rules.as_object().ok_or_else(wrong)?),
    }
}

fn structured_rules(checks: &Map<String, Value>) -> Result<Rules, AttributeError> {
    let number = |name: &str| {
        let wrong = || AttributeError::wrong(name, "a number that is not negative");
        checks.get(name).map(|value| value.as_u64().ok_or_else(wrong)).transpose()
    };
    let ignore_self = match checks.get("ignoreSelfRefs") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| AttributeError::wrong("ignoreSelfRefs", "`true` or `false`"))?,
    };
    let mut rules = Rules {
        lists: Vec::new(),
        max_size: number("maxSize")?,
        max_closure_size: number("maxClosureSize")?,
        ignore_self,
    };
    for (name, kind, reach) in RULES {
        rules
            .lists
            .extend(checks.get(name).map(|value| string_list(name, value)).transpose()?.map(|l| (kind, reach, l)));
    }
    Ok(rules)
}

/// One output under its rules.
struct Check<'a> {
    name: &'a str,
    path: &'a StorePath,
    rules: &'a Rules,
    outputs: &'a BTreeMap<String, StorePath>,
    store_dir: &'a StoreDir,
    known: &'a dyn Fn(&StorePath) -> Result<Known, OutputError>,
}

impl Check<'_> {
    fn sizes(&self) -> Result<(), OutputError> {
        let output = || self.name.to_owned();
        if let Some(limit) = self.rules.max_size {
            let size = (self.known)(self.path)?.size;
            if size > limit {
                return Err(OutputError::Size { output: output(), size, limit });
            }
        }
        if let Some(limit) = self.rules.max_closure_size {
            let size = self.closure()?.values().map(|known| known.size).sum();
            if size > limit {
                return Err(OutputError::ClosureSize { output: output(), size, limit });
            }
        }
        Ok(())
    }

    fn references(&self) -> Result<(), OutputError> {
        for (kind, reach, list) in &self.rules.lists {
            let named: BTreeSet<StorePath> = list.iter().map(|text| self.named(text)).collect::<Result<_, _>>()?;
            let used = match reach {
                Reach::Direct => (self.known)(self.path)?.references,
                Reach::Closure => {
                    let mut closure: BTreeSet<StorePath> = self.closure()?.into_keys().collect();
                    // As in Nix, which asks what else a whole closure holds, but leaves direct references as they are.
                    if self.rules.ignore_self {
                        closure.remove(self.path);
                    }
                    closure
                }
            };
            let refused = used.iter().filter(|path| named.contains(path) == (*kind == Kind::Disallowed));
            let paths: Vec<String> = refused.map(|path| self.store_dir.display(path)).collect();
            if !paths.is_empty() {
                return Err(OutputError::References { output: self.store_dir.display(self.path), paths });
            }
        }
        Ok(())
    }

    /// A store path, or the path of the output with this name.
    fn named(&self, text: &str) -> Result<StorePath, OutputError> {
        match self.store_dir.parse(text) {
            Ok(path) => Ok(path),
            Err(_) => self.outputs.get(text).cloned().ok_or_else(|| OutputError::Specifier(text.to_owned())),
        }
    }

    fn closure(&self) -> Result<BTreeMap<StorePath, Known>, OutputError> {
        let mut reached = BTreeMap::new();
        let mut pending = vec![self.path.clone()];
        while let Some(path) = pending.pop() {
            if reached.contains_key(&path) {
                continue;
            }
            let known = (self.known)(&path)?;
            pending.extend(known.references.iter().cloned());
            reached.insert(path, known);
        }
        Ok(reached)
    }
}

#[cfg(test)]
mod tests {
    use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};

    use super::*;

    fn path(number: u8, name: &str) -> StorePath {
        StorePath::new(&[number; 20], name).unwrap()
    }

    /// Output `out` refers to itself, to output `dev` and to `a`; `dev` to nothing; `a` to `b`.
    fn check(builder: DerivationBuilder) -> Result<(), OutputError> {
        let store_dir = StoreDir::default();
        let builder = builder.output_names(["out", "dev"]);
        let (_, derivation) = builder.instantiate(&store_dir, &mut ModuloHashes::new()).unwrap();
        let [out, dev, a, b] = [(1, "x"), (2, "x-dev"), (3, "a"), (4, "b")].map(|(number, name)| path(number, name));
        let known = BTreeMap::from([
            (out.clone(), Known { size: 100, references: [out.clone(), dev.clone(), a.clone()].into() }),
            (dev.clone(), Known { size: 10, references: BTreeSet::new() }),
            (a, Known { size: 1000, references: [b.clone()].into() }),
            (b, Known { size: 5, references: BTreeSet::new() }),
        ]);
        let outputs = BTreeMap::from([("out".to_owned(), out), ("dev".to_owned(), dev)]);
        check_outputs(&Attributes::of(&derivation).unwrap(), &outputs, &store_dir, &|path| Ok(known[path].clone()))
    }

    fn plain(name: &str, value: &str) -> Result<(), OutputError> {
        let store_dir = StoreDir::default();
        let value =
            value.replace("/a", &store_dir.display(&path(3, "a"))).replace("/b", &store_dir.display(&path(4, "b")));
        check(DerivationBuilder::new("x", "x86_64-linux", "/bin/sh").env(name, value))
    }

    fn structured(checks: Value) -> Result<(), OutputError> {
        let json = serde_json::json!({ "outputChecks": checks });
        let builder = DerivationBuilder::new("x", "x86_64-linux", "/bin/sh");
        check(builder.structured_attributes(json.as_object().unwrap().clone()))
    }

    #[test]
    fn plain_rules_hold_for_every_output() {
        for (name, value, is_fine) in [
            ("allowedReferences", "out dev /a", true),
            ("allowedReferences", "dev /a", false),
            ("allowedReferences", "", false),
            ("allowedRequisites", "dev /a /b", true),
            ("allowedRequisites", "dev /a", false),
            ("disallowedReferences", "/b", true),
            ("disallowedReferences", "/a", false),
            ("disallowedReferences", "out", false),
            ("disallowedRequisites", "/b", false),
            ("disallowedRequisites", "out", true),
        ] {
            assert_eq!(plain(name, value).is_ok(), is_fine, "{name} = {value}");
        }
        assert_eq!(plain("allowedReferences", "nowhere"), Err(OutputError::Specifier("nowhere".to_owned())));
        let error = plain("disallowedRequisites", "/b").unwrap_err().to_string();
        assert!(error.contains("is not allowed to refer to the following paths:\n  /nix/store/"), "{error}");
    }

    #[test]
    fn structured_rules_are_those_of_one_output() {
        use serde_json::json;
        for (checks, is_fine) in [
            (json!({ "dev": { "allowedReferences": [] } }), true),
            (json!({ "out": { "allowedReferences": [] } }), false),
            (json!({ "out": { "maxSize": 100, "maxClosureSize": 1115 }, "dev": { "maxSize": 10 } }), true),
            (json!({ "out": { "maxSize": 99 } }), false),
            (json!({ "out": { "maxClosureSize": 1114 } }), false),
            (json!({ "dev": { "allowedRequisites": ["dev"] } }), true),
            (json!({ "dev": { "allowedRequisites": [] } }), false),
            (json!({ "dev": { "allowedRequisites": [], "ignoreSelfRefs": true } }), true),
            (json!({ "other": { "maxSize": 0 } }), true),
            (json!({ "out": { "maxSize": "1" } }), false),
            (json!([]), false),
        ] {
            assert_eq!(structured(checks.clone()).is_ok(), is_fine, "{checks}");
        }
    }
}
