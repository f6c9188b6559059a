//! Against this machine's own registries. Runs only when asked: set `AMPOULE_TEST_REGISTRIES=1`.

use ampoule_derivations::lock::{Lock, LockEntry};
use ampoule_derivations::source::{FileChoice, SourceRequest};

use crate::reporter::Silent;
use crate::sources::fetch::{FetchOptions, fetch};
use crate::sources::lock::{LockOptions, update};
use crate::sources::{Downloads, Machine, Registries};

/// A small file that was published once and for all.
const NAME: &str = "flit-core";
const VERSION: &str = "3.9.0";
const SHA256: &str = "7aada352fb0c7f5538c4fafeddf314d3a6a92ee8e2b1de70482329e42de70301";

#[test]
fn a_small_file_of_known_hash() {
    let machine = Machine::current();
    if machine.variable("AMPOULE_TEST_REGISTRIES").is_none() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: AMPOULE_TEST_REGISTRIES is not set\n"),
        );
        return;
    }
    let registries = Registries::load(machine).unwrap();
    if let Err(reason) = registries.pypi() {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {reason}\n"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let downloads = Downloads::open(directory.path()).unwrap();
    let request = SourceRequest::pypi(NAME, VERSION, FileChoice::Wheel("py3-none-any".into())).unwrap();
    let requests = std::slice::from_ref(&request);
    let updated =
        update(requests, &Lock::default(), &registries, &downloads, &LockOptions::default(), &Silent).unwrap();
    let LockEntry::One(source) = &updated.lock.sources[&request.key()] else { panic!("one file was asked for") };
    assert_eq!(source.sha256.to_hex(), SHA256);
    fetch(source, directory.path(), &registries, &FetchOptions::default(), &Silent).unwrap();
}
