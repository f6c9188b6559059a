//! What a builder finds when it starts: the environment and files of Nix's builder contract.
//!
//! Source of the facts: the build environment of stock Nix as recorded in `tests/vectors/nix` (`drv/build-environment`).

use std::collections::BTreeMap;

use ampoule_derivations::derivation::{Derivation, replace_all};
use ampoule_derivations::placeholder;
use ampoule_store::base32;
use ampoule_store::hash::Sha256Digest;
use ampoule_store::path::{StoreDir, StorePath};

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

/// Why a derivation cannot be given its environment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum EnvironmentError {
    #[error("structured attributes: {0}")]
    StructuredAttributes(String),
    #[error("`passAsFile` names `{0}`, which is no attribute of the derivation")]
    PassAsFile(String),
}

/// The environment of `derivation`, whose outputs are made at the paths `outputs`.
pub(super) fn environment(
    derivation: &Derivation,
    outputs: &BTreeMap<String, StorePath>,
    store_dir: &StoreDir,
    cores: u32,
) -> Result<Environment, EnvironmentError> {
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
    match derivation.env.get(b"__json".as_slice()) {
        Some(json) => structured(&mut environment, &fill(json), &paths)?,
        None => plain(&mut environment, derivation, &fill, &paths)?,
    }
    environment.variables.extend(fixed_variables());
    Ok(environment)
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

fn plain(
    environment: &mut Environment,
    derivation: &Derivation,
    fill: &dyn Fn(&[u8]) -> Vec<u8>,
    paths: &BTreeMap<String, String>,
) -> Result<(), EnvironmentError> {
    let as_file = derivation.env.get(b"passAsFile".as_slice()).map(|names| words(names)).unwrap_or_default();
    for name in &as_file {
        if !derivation.env.contains_key(name.as_bytes()) {
            return Err(EnvironmentError::PassAsFile(name.clone()));
        }
    }
    for (name, value) in &derivation.env {
        match as_file.iter().find(|wanted| wanted.as_bytes() == name.as_slice()) {
            Some(wanted) => {
                let file = format!(".attr-{}", base32::encode(Sha256Digest::of(name).as_bytes()));
                let variable = format!("{wanted}Path");
                environment.variables.insert(variable.into(), format!("{BUILD_DIRECTORY}/{file}").into());
                environment.files.insert(file, fill(value));
            }
            None => {
                environment.variables.insert(name.clone(), fill(value));
            }
        }
    }
    for (name, path) in paths {
        environment.variables.insert(name.clone().into(), path.clone().into());
    }
    Ok(())
}

fn structured(
    environment: &mut Environment,
    json: &[u8],
    paths: &BTreeMap<String, String>,
) -> Result<(), EnvironmentError> {
    let text = String::from_utf8_lossy(json);
    let attributes = structured_attributes::attributes(&text, paths).map_err(EnvironmentError::StructuredAttributes)?;
    let shell = structured_attributes::shell(&attributes);
    let json = serde_json::Value::Object(attributes).to_string();
    for (variable, file, content) in
        [("NIX_ATTRS_JSON_FILE", ".attrs.json", json), ("NIX_ATTRS_SH_FILE", ".attrs.sh", shell)]
    {
        environment.variables.insert(variable.into(), format!("{BUILD_DIRECTORY}/{file}").into());
        environment.files.insert(file.to_owned(), content.into());
    }
    Ok(())
}

fn words(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).split_ascii_whitespace().map(str::to_owned).collect()
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
        environment(&derivation, &outputs, &store_dir, 2).unwrap()
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
        let builder = DerivationBuilder::new("env", "x86_64-linux", "/bin/sh").env("passAsFile", "none");
        let store_dir = StoreDir::default();
        let (_, derivation) = builder.instantiate(&store_dir, &mut ModuloHashes::new()).unwrap();
        let error = environment_error(&derivation);
        assert_eq!(error, EnvironmentError::PassAsFile("none".to_owned()));
    }

    fn environment_error(derivation: &Derivation) -> EnvironmentError {
        environment(derivation, &BTreeMap::new(), &StoreDir::default(), 1).unwrap_err()
    }
}
