//! What a builder finds when it starts: the environment and files of Nix's builder contract.
//!
//! Source of the facts: the build environment of stock Nix as recorded in `tests/vectors/nix` (`drv/build-environment`).

use std::collections::BTreeMap;

use ampoule_derivations::derivation::{Derivation, replace_all};
use ampoule_derivations::placeholder;
use ampoule_store::base32;
use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::{StoreDir, StorePath};
use serde_json::{Map, Value};

use super::attributes::{Attributes, words};
use super::references_graph::{self, Graph};
use super::structured_attributes;

/// Where a build runs.
const BUILD_DIRECTORY: &str = "/build";

type Variables = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a builder starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) variables: Variables,
    pub(super) arguments: Vec<Vec<u8>>,
    /// Files in the build directory, by name.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// The environment of `derivation`, whose outputs are made at the paths `outputs`. `graphs` are those it asks for.
pub(super) fn environment(
    attributes: &Attributes<'_>,
    derivation: &Derivation,
    outputs: &BTreeMap<String, StorePath>,
    graphs: &BTreeMap<String, Graph>,
    store_dir: &StoreDir,
    cores: u32,
) -> Environment {
    let paths: BTreeMap<String, String> =
        outputs.iter().map(|(name, path)| (name.clone(), store_dir.display(path))).collect();
    let placeholders: Vec<(String, &String)> =
        paths.iter().map(|(name, path)| (placeholder::output(name), path)).collect();
    let fill = |value: &[u8]| {
        placeholders.iter().fold(value.to_vec(), |text, (from, to)| replace_all(text, from.as_bytes(), to.as_bytes()))
    };

    let mut environment = Environment {
        variables: default_variables(store_dir, cores),
        arguments: derivation.args.iter().map(|argument| fill(argument)).collect(),
        files: BTreeMap::new(),
    };
    match attributes.structured() {
        Some(structured) => {
            let graphs = graphs.iter().map(|(name, graph)| (name.clone(), references_graph::to_json(graph, store_dir)));
            let seen = structured_attributes::attributes(structured, &paths, graphs.collect());
            add_structured(&mut environment, &seen, &fill);
        }
        None => {
            add_plain(&mut environment, derivation, &fill, &paths);
            let files = graphs.iter().map(|(name, graph)| (name, references_graph::render(graph, store_dir)));
            environment.files.extend(files.map(|(name, text)| (name.clone(), text.into_bytes())));
        }
    }
    environment.variables.extend(fixed_variables());
    if derivation.fixed_output().is_some() {
        environment.variables.insert("NIX_OUTPUT_CHECKED".into(), "1".into());
    }
    environment
}

/// What a derivation's own variables may replace.
fn default_variables(store_dir: &StoreDir, cores: u32) -> Variables {
    let variables: [(&str, String); 4] = [
        ("PATH", "/path-not-set".to_owned()),
        ("HOME", "/homeless-shelter".to_owned()),
        ("NIX_STORE", store_dir.as_str().to_owned()),
        ("NIX_BUILD_CORES", cores.to_string()),
    ];
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// What they may not: it is so whatever a derivation says.
fn fixed_variables() -> Variables {
    let directory = ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"].map(|name| (name, BUILD_DIRECTORY));
    let variables = directory.into_iter().chain([("NIX_LOG_FD", "2"), ("TERM", "xterm-256color")]);
    variables.map(|(name, value)| (name.into(), value.into())).collect()
}

fn add_plain(
    environment: &mut Environment,
    derivation: &Derivation,
    fill: &dyn Fn(&[u8]) -> Vec<u8>,
    paths: &BTreeMap<String, String>,
) {
    let as_file = derivation.env.get(b"passAsFile".as_slice());
    let as_file = as_file.map(|names| words(&String::from_utf8_lossy(names))).unwrap_or_default();
    for (name, value) in &derivation.env {
        match as_file.iter().find(|wanted| wanted.as_bytes() == name.as_slice()) {
            Some(wanted) => {
                let file = format!(".attr-{}", base32::encode(Sha256Digest::of(name).as_bytes()));
                let variable = format!("{wanted}Path");
                environment.variables.insert(variable.into(), format!("{BUILD_DIRECTORY}/{file}").into());
                environment.files.insert(file, fill(value));
            }
            None => {
                environment.variables.insert(fill(name), fill(value));
            }
        }
    }
    for (name, path) in paths {
        environment.variables.insert(name.clone().into(), path.clone().into());
    }
}

fn add_structured(environment: &mut Environment, attributes: &Map<String, Value>, fill: &dyn Fn(&[u8]) -> Vec<u8>) {
    let (json, shell) = (structured_attributes::json(attributes), structured_attributes::shell(attributes));
    for (variable, file, content) in
        [("NIX_ATTRS_JSON_FILE", ".attrs.json", json), ("NIX_ATTRS_SH_FILE", ".attrs.sh", shell)]
    {
        environment.variables.insert(variable.into(), format!("{BUILD_DIRECTORY}/{file}").into());
        environment.files.insert(file.to_owned(), fill(content.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use ampoule_derivations::derivation::{DerivationBuilder, ModuloHashes};
    use ampoule_store::content_address::Method;
    use ampoule_store::hash::Algorithm;

    use super::*;

    fn of(builder: DerivationBuilder) -> Environment {
        let store_dir = StoreDir::default();
        let (_, derivation) = builder.instantiate(&store_dir, &mut ModuloHashes::new()).unwrap();
        let path: StorePath = "3m75lmwfxfzi4asy7cgvky08f8y8lzsa-env".parse().unwrap();
        let outputs = derivation.outputs.keys().map(|name| (name.clone(), path.clone())).collect();
        environment_of(&derivation, &outputs, &BTreeMap::new())
    }

    fn environment_of(
        derivation: &Derivation,
        outputs: &BTreeMap<String, StorePath>,
        graphs: &BTreeMap<String, Graph>,
    ) -> Environment {
        let attributes = Attributes::of(derivation).unwrap();
        environment(&attributes, derivation, outputs, graphs, &StoreDir::default(), 2)
    }

    fn lines(variables: &Variables) -> String {
        let line = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            format!("{}={}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        variables.iter().map(line).collect()
    }

    #[test]
    fn plain_derivations_get_the_environment_of_nix() {
        let text = include_str!("../../../tests/vectors/nix/nix-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vector =
            vectors["vectors"].as_array().unwrap().iter().find(|v| v["id"] == "drv/build-environment").unwrap();
        // The rest was printed by the vector's own builder, a shell, which counts its level too.
        let expected = vector["expect"]["env_text"].as_str().unwrap();
        let expected: String = expected
            .lines()
            .filter(|l| l.contains('=') && !l.starts_with("SHLVL=") && !l.starts_with("uid="))
            .map(|l| format!("{l}\n"))
            .collect();
        let environment = of(DerivationBuilder::new("env", "x86_64-linux", "/bin/sh").env("foo", "bar"));
        assert_eq!(lines(&environment.variables), expected);
    }

    #[test]
    fn placeholders_become_paths_and_fixed_variables_stay() {
        let builder = DerivationBuilder::new("env", "x86_64-linux", "/bin/sh")
            .floating(Method::Nar, Algorithm::Sha256)
            .env("HOME", "/build")
            .env("TMPDIR", "/elsewhere")
            .env("target", format!("{}/bin", placeholder::output("out")))
            .arg(format!("--prefix={}", placeholder::output("out")));
        let environment = of(builder);
        let path = "/nix/store/3m75lmwfxfzi4asy7cgvky08f8y8lzsa-env";
        let value = |name: &str| String::from_utf8_lossy(&environment.variables[name.as_bytes()]).into_owned();
        assert_eq!(value("out"), path);
        assert_eq!(value("target"), format!("{path}/bin"));
        assert_eq!((value("HOME").as_str(), value("TMPDIR").as_str()), ("/build", "/build"));
        assert_eq!(environment.arguments, [format!("--prefix={path}").into_bytes()]);
    }

    #[test]
    fn variables_can_be_files() {
        let builder =
            DerivationBuilder::new("env", "x86_64-linux", "/bin/sh").env("passAsFile", "big").env("big", "content");
        let environment = of(builder);
        let (name, content) = environment.files.first_key_value().unwrap();
        assert_eq!(content, b"content");
        let path = format!("/build/{name}");
        assert_eq!(environment.variables.get(b"bigPath".as_slice()), Some(&path.into_bytes()));
        assert!(!environment.variables.contains_key(b"big".as_slice()));
        // What is not there cannot be passed, and is no error for Nix.
        let builder = DerivationBuilder::new("env", "x86_64-linux", "/bin/sh").env("passAsFile", "none");
        assert!(of(builder).files.is_empty());
    }

    #[test]
    fn builders_of_fixed_outputs_know_that_they_are_checked() {
        let address = ampoule_store::content_address::ContentAddress::flat_sha256(Sha256Digest::ZERO);
        let fixed = of(DerivationBuilder::new("env", "x86_64-linux", "/bin/sh").fixed(address));
        assert_eq!(fixed.variables.get(b"NIX_OUTPUT_CHECKED".as_slice()).map(Vec::as_slice), Some(b"1".as_slice()));
        assert!(fixed.variables.contains_key(b"outputHash".as_slice()));
    }

    #[test]
    fn structured_attributes_leave_no_variables_but_those_of_their_files() {
        let own = placeholder::output("out");
        let json = serde_json::json!({ "a": 1, "own": own, "exportReferencesGraph": { "graph": [] } });
        let builder = DerivationBuilder::new("env", "x86_64-linux", "/bin/sh")
            .structured_attributes(json.as_object().unwrap().clone());
        let (_, derivation) = builder.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).unwrap();
        let path: StorePath = "3m75lmwfxfzi4asy7cgvky08f8y8lzsa-env".parse().unwrap();
        let outputs = BTreeMap::from([("out".to_owned(), path)]);
        let graphs = BTreeMap::from([("graph".to_owned(), Graph::new())]);
        let environment = environment_of(&derivation, &outputs, &graphs);
        assert!(!environment.variables.contains_key(b"out".as_slice()));
        let shown = |name: &str| String::from_utf8_lossy(&environment.files[name]).into_owned();
        let path = "/nix/store/3m75lmwfxfzi4asy7cgvky08f8y8lzsa-env";
        assert!(shown(".attrs.json").contains(&format!(r#""own":"{path}""#)), "{}", shown(".attrs.json"));
        assert!(shown(".attrs.json").contains(r#""graph":[]"#));
        assert!(shown(".attrs.sh").contains(&format!("declare own='{path}'\ndeclare")), "{}", shown(".attrs.sh"));
    }
}
