//! Tests against servers of their own on the loopback interface; and one against this machine's registries, if asked.

#![expect(clippy::disallowed_methods, reason = "the tests' own files")]

mod download;
mod fetch;
mod lock;
mod real;
mod server;

use std::collections::BTreeMap;
use std::path::Path;

use super::machine::Machine;
use super::registries::{Registries, impatient};

/// A machine in a directory of its own, with these variables.
fn registries(root: &Path, variables: &[(&str, &str)]) -> Registries {
    let mut environment: BTreeMap<_, _> =
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    environment.entry("HOME".to_owned()).or_insert_with(|| root.join("home").to_str().unwrap().to_owned());
    if let Some(path) = std::env::var_os("PATH").and_then(|path| path.into_string().ok()) {
        environment.entry("PATH".to_owned()).or_insert(path);
    }
    Registries::with_settings(Machine::new(root, environment), impatient()).unwrap()
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
