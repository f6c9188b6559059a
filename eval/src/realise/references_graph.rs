//! `exportReferencesGraph`: the closures of some inputs, written down for the builder.
//!
//! Source of the facts: what stock Nix 2.8 writes; the plain form is that of `nix-store --register-validity` without hashes
//! and derivers, the structured one that of `nix path-info --json --closure-size`.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::path::{StoreDir, StorePath};
use ampoule_store::path_info::PathInfo;
use serde_json::{Value, json};

use super::attributes::{AttributeError, Attributes, string_list, words};

const ATTRIBUTE: &str = "exportReferencesGraph";

/// What a graph starts from, by the name of the file or attribute it becomes.
pub(super) type Requests = BTreeMap<String, BTreeSet<StorePath>>;

/// A closure: everything that is known of its members.
pub(super) type Graph = BTreeMap<StorePath, PathInfo>;

/// Why there is no graph.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GraphError {
    #[error("`exportReferencesGraph` has an odd number of words: `{0}`")]
    Odd(String),
    #[error("`exportReferencesGraph` names the file `{0}`, which no graph can be written to")]
    FileName(String),
    #[error("`exportReferencesGraph` holds `{0}`, which is no store path")]
    NoStorePath(String),
    #[error("`exportReferencesGraph` holds `{0}`, which is not among the inputs of the derivation")]
    NotAnInput(StorePath),
    #[error(transparent)]
    Attribute(#[from] AttributeError),
}

/// The graphs a derivation asks for.
pub(super) fn requests(attributes: &Attributes<'_>, store_dir: &StoreDir) -> Result<Requests, GraphError> {
    let Some(structured) = attributes.structured() else {
        return plain_requests(&attributes.text(ATTRIBUTE).unwrap_or_default(), store_dir);
    };
    // As in Nix, anything but an object asks for nothing.
    let Some(Value::Object(graphs)) = structured.get(ATTRIBUTE) else { return Ok(Requests::new()) };
    let mut requests = Requests::new();
    for (name, paths) in graphs {
        let paths = string_list(ATTRIBUTE, paths)?;
        let parse = |text: String| store_dir.parse(&text).map_err(|_| GraphError::NoStorePath(text));
        requests.insert(name.clone(), paths.into_iter().map(parse).collect::<Result<_, _>>()?);
    }
    Ok(requests)
}

fn plain_requests(text: &str, store_dir: &StoreDir) -> Result<Requests, GraphError> {
    let words = words(text);
    if !words.len().is_multiple_of(2) {
        return Err(GraphError::Odd(text.to_owned()));
    }
    let mut requests = Requests::new();
    for pair in words.chunks_exact(2) {
        if !is_file_name(&pair[0]) {
            return Err(GraphError::FileName(pair[0].clone()));
        }
        let path = object_of(&pair[1], store_dir).ok_or_else(|| GraphError::NoStorePath(pair[1].clone()))?;
        // The last of several with one name stays, as a file written twice.
        requests.insert(pair[0].clone(), BTreeSet::from([path]));
    }
    Ok(requests)
}

/// The store object that a path names, or lies in.
fn object_of(path: &str, store_dir: &StoreDir) -> Option<StorePath> {
    let inside = path.strip_prefix(store_dir.as_str())?.strip_prefix('/')?;
    StorePath::parse_base_name(inside.split('/').next()?).ok()
}

fn is_file_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The content of the file.
pub(super) fn render(graph: &Graph, store_dir: &StoreDir) -> String {
    let mut text = String::new();
    for (path, info) in graph {
        let lines = [store_dir.display(path), String::new(), info.references.len().to_string()];
        for line in lines.into_iter().chain(info.references.iter().map(|path| store_dir.display(path))) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// The value of the attribute.
pub(super) fn to_json(graph: &Graph, store_dir: &StoreDir) -> Value {
    let object = |(path, info): (&StorePath, &PathInfo)| {
        let references: Vec<String> = info.references.iter().map(|path| store_dir.display(path)).collect();
        let mut object = json!({
            "path": store_dir.display(path),
            "narHash": format!("sha256:{}", info.nar_hash.to_nix32()),
            "narSize": info.nar_size,
            "references": references,
            "closureSize": closure_size(graph, path),
        });
        if let Some(address) = &info.content_address {
            object["ca"] = address.to_string().into();
        }
        object
    };
    graph.iter().map(object).collect()
}

fn closure_size(graph: &Graph, path: &StorePath) -> u64 {
    let mut reached = BTreeSet::from([path]);
    let mut pending = vec![path];
    let mut size = 0;
    while let Some(info) = pending.pop().and_then(|next| graph.get(next)) {
        size += info.nar_size;
        pending.extend(info.references.iter().filter(|reference| reached.insert(reference)));
    }
    size
}

#[cfg(test)]
mod tests {
    use ampoule_store::content_address::ContentAddress;
    use ampoule_store::hash::Sha256Digest;

    use super::*;

    fn path(number: u8, name: &str) -> StorePath {
        StorePath::new(&[number; 20], name).unwrap()
    }

    fn info(path: &StorePath, size: u64, references: &[&StorePath]) -> (StorePath, PathInfo) {
        let info = PathInfo {
            path: path.clone(),
            nar_hash: Sha256Digest::ZERO,
            nar_size: size,
            references: references.iter().copied().cloned().collect(),
            deriver: Some(path.clone()),
            content_address: None,
            registered_at: 7,
        };
        (path.clone(), info)
    }

    #[test]
    fn a_graph_is_a_list_of_references_or_json() {
        let (a, b) = (path(1, "a"), path(2, "b"));
        let mut graph = Graph::from([info(&a, 10, &[&a, &b]), info(&b, 5, &[])]);
        graph.get_mut(&b).unwrap().content_address = Some(ContentAddress::nar_sha256(Sha256Digest::ZERO));
        let store_dir = StoreDir::default();
        let (shown_a, shown_b) = (store_dir.display(&a), store_dir.display(&b));
        let expected = format!("{shown_a}\n\n2\n{shown_a}\n{shown_b}\n{shown_b}\n\n0\n");
        assert_eq!(render(&graph, &store_dir), expected);
        let json = to_json(&graph, &store_dir);
        let sizes: Vec<_> = json.as_array().unwrap().iter().map(|object| object["closureSize"].as_u64()).collect();
        assert_eq!(sizes, [Some(15), Some(5)]);
        assert_eq!(json[0]["references"], json!([shown_a, shown_b]));
        assert_eq!(json[1]["narHash"], format!("sha256:{}", "0".repeat(52)));
        assert!(json[0].get("ca").is_none() && json[1]["ca"].as_str().unwrap().starts_with("fixed:r:sha256:"));
    }

    #[test]
    fn requests_are_pairs_of_names_and_paths() {
        let store_dir = StoreDir::default();
        let shown = store_dir.display(&path(1, "a"));
        let found = plain_requests(&format!("one {shown}\n two {shown}/bin"), &store_dir).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["one", "two"]);
        for (text, error) in [
            ("one".to_owned(), GraphError::Odd("one".to_owned())),
            (format!("../x {shown}"), GraphError::FileName("../x".to_owned())),
            ("one /etc".to_owned(), GraphError::NoStorePath("/etc".to_owned())),
        ] {
            assert_eq!(plain_requests(&text, &store_dir), Err(error));
        }
    }
}
