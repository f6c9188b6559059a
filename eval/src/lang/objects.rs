//! Store objects made of bytes that evaluation has: texts, and files of the catalog.

use std::collections::BTreeSet;
use std::sync::Arc;

use ampoule_derivations::prelude;
use ampoule_store::content_address::{ContentAddress, Method};
use ampoule_store::hash::Sha256Digest;

use super::derive::unexplained;
use super::error::RecipeError;
use super::label::PackageName;
use super::loader::is_catalog_path;
use super::registry::{Referent, StoreObject};
use super::scan::references;
use super::session::Session;
use super::values::ObjectValue;

/// An object with this content, which may refer to other objects, but not to outputs that are still to be built.
pub(super) fn text(session: &Session<'_>, name: &str, content: &str) -> Result<ObjectValue, RecipeError> {
    let mut others = BTreeSet::new();
    let state = session.state();
    references(content.as_bytes(), session.store_dir.as_str(), |reference| {
        match state.registry.explain(reference) {
            Some(Referent::Object(path)) => drop(others.insert(path.clone())),
            Some(Referent::Output { derivation, .. }) => {
                return Err(refers_to_output(name, derivation.derivation_name().unwrap_or_default()));
            }
            None => return Err(unexplained(session, &format!("the content of text `{name}`"), reference)),
        }
        Ok(())
    })?;
    drop(state);
    let address = ContentAddress { method: Method::Text, hash: Sha256Digest::of(content.as_bytes()).into() };
    add(session, name, StoreObject { content: Arc::from(content.as_bytes()), address, references: others })
}

fn refers_to_output(name: &str, derivation: &str) -> RecipeError {
    RecipeError::new(format!("text `{name}` refers to an output of `{derivation}`, which is not built yet"))
        .with_hint("let a derivation write the file: pass the text in `env` and name it in `pass_as_file`")
}

/// An object with the content of a file of the catalog. `path` is relative to the directory of the module `caller`, or
/// a label such as `//wheels:patches/x.patch`.
pub(super) fn file(session: &Session<'_>, caller: &str, path: &str) -> Result<ObjectValue, RecipeError> {
    let full = locate(caller, path)?;
    let content = session
        .loader
        .read(&full)
        .map_err(|error| RecipeError::new(format!("cannot read `{}`: {error}", session.loader.display(&full))))?;
    let name = full.rsplit_once('/').map_or(full.as_str(), |(_, name)| name);
    flat(session, name, content)
}

/// An object with the content of a file of the prelude.
pub(super) fn prelude_file(session: &Session<'_>, name: &str) -> Result<ObjectValue, RecipeError> {
    let content = prelude::FILES.iter().find(|(known, _)| *known == name).map(|(_, content)| *content);
    let content = content.ok_or_else(|| RecipeError::new(format!("the prelude has no file `{name}`")))?;
    flat(session, name, content.as_bytes().to_vec())
}

/// Files are addressed by their bytes alone, so neither modes nor times of a checkout matter.
fn flat(session: &Session<'_>, name: &str, content: Vec<u8>) -> Result<ObjectValue, RecipeError> {
    let address = ContentAddress::flat_sha256(Sha256Digest::of(&content));
    add(session, name, StoreObject { content: content.into(), address, references: BTreeSet::new() })
}

fn add(session: &Session<'_>, name: &str, object: StoreObject) -> Result<ObjectValue, RecipeError> {
    let (path, object) = object
        .place(session.store_dir, name)
        .map_err(|error| RecipeError::new(format!("`{name}` cannot be the name of a store object: {error}")))?;
    let value = ObjectValue::new(name, session.store_dir.display(&path));
    session.state().registry.add_object(path, object);
    Ok(value)
}

fn locate(caller: &str, path: &str) -> Result<String, RecipeError> {
    let invalid = || {
        RecipeError::new(format!("`{path}` is not a path in the catalog"))
            .with_hint("paths are relative to the file that names them, or labels such as `//wheels:patches/x.patch`; they have no `..`")
    };
    let full = match path.strip_prefix("//") {
        Some(label) => {
            let (package, file) = label.split_once(':').ok_or_else(invalid)?;
            package.parse::<PackageName>().map_err(|_| invalid())?.file(file)
        }
        None => match caller.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{path}"),
            None => path.to_owned(),
        },
    };
    if is_catalog_path(&full) { Ok(full) } else { Err(invalid()) }
}
