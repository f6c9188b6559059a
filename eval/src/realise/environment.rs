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

/// What a builder starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) variables: BTreeMap<Vec<u8>, Vec<u8>>,
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
        variables: base_variables(store_dir, cores),
        arguments: derivation.args.iter().map(|argument| fill(argument)).collect(),
        files: BTreeMap::new(),
    };
    match derivation.env.get(b"__json".as_slice()) {
        Some(json) => structured(&mut environment, &fill(json), &paths)?,
        None => plain(&mut environment, derivation, &fill, &paths)?,
    }
    Ok(environment)
}

fn base_variables(store_dir: &StoreDir, cores: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut variables: BTreeMap<&str, String> = BTreeMap::from([
        ("PATH", "/path-not-set".to_owned()),
        ("HOME", "/homeless-shelter".to_owned()),
        ("NIX_STORE", store_dir.as_str().to_owned()),
        ("NIX_BUILD_CORES", cores.to_string()),
        ("NIX_LOG_FD", "2".to_owned()),
        ("TERM", "xterm-256color".to_owned()),
    ]);
    for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
        variables.insert(name, BUILD_DIRECTORY.to_owned());
    }
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
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
