//! The rules of the prelude.

use std::path::Path;

use super::*;

#[test]
fn the_catalog_evaluates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../derivations/catalog");
    let loader = DirectoryLoader::open(&root, Path::new("derivations/catalog")).unwrap();
    let (lock, store_dir, tables) = (Lock::default(), StoreDir::default(), Tables::default());
    let inputs = Inputs { loader: &loader, lock: &lock, store_dir: &store_dir, mode: Mode::Lock, tables: &tables };
    let evaluation = inputs.evaluate(&["//...".parse().unwrap()]).unwrap_or_else(|error| panic!("{}", error.render()));
    let chosen = evaluation.select(&"//wheels:markupsafe".parse().unwrap()).unwrap();
    let labels: Vec<_> = chosen.iter().map(Selected::label).collect();
    assert_eq!(labels, ["//wheels:markupsafe[linux-arm64,cp311]", "//wheels:markupsafe[linux-x86_64,cp311]"]);
    assert!(evaluation.requests.contains_key("pypi:markupsafe==2.1.5:sdist"));
}
