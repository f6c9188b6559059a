//! The decoders of derivations and lock files.

use std::collections::BTreeMap;

use ampoule_derivations::builtin::{ALL, Request};
use ampoule_derivations::derivation::ModuloHashes;
use ampoule_derivations::lock::Lock;
use ampoule_derivations::{aterm, json};
use ampoule_store::path::StoreDir;

use super::Target;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "aterm", run: aterm, cost: 2 },
    Target { name: "lock", run: lock, cost: 2 },
    Target { name: "builtin", run: builtin, cost: 2 },
];

/// Derivations that are accepted are written as they were read.
pub(super) fn aterm(bytes: &[u8]) {
    let store_dir = StoreDir::default();
    let Ok(derivation) = aterm::parse(bytes, "name", &store_dir) else { return };
    assert_eq!(aterm::write(&derivation, &store_dir), bytes);
    let _ = json::to_json(&derivation, &store_dir);
    let _ = (derivation.path(&store_dir), derivation.references(), derivation.check());
    let _ = ModuloHashes::new().check_output_paths(&derivation, &store_dir);
    for output in derivation.outputs.keys() {
        let _ = derivation.output_path(&store_dir, output);
    }
}

/// Locks that are accepted mean the same when they are written and read again.
pub(super) fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(lock) = Lock::parse(text) else { return };
    let rendered = lock.render();
    let again = Lock::parse(&rendered).expect("what was written can be read");
    assert_eq!(again, lock);
    assert_eq!(again.render(), rendered);
    for file in lock.files() {
        let _ = (file.check(), file.store_name(), file.id.to_json());
    }
}

/// A record of variables, as JSON, for each builtin builder.
pub(super) fn builtin(bytes: &[u8]) {
    let Ok(env) = serde_json::from_slice::<BTreeMap<String, String>>(bytes) else { return };
    for builder in ALL {
        let _ = Request::parse(builder, &env);
    }
}
