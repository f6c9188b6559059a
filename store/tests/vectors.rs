//! The golden vectors that concern values of the store, both directions.
//!
//! Where Nix 2.8, which made them, is more lenient than current Nix, the tests follow current Nix. The vectors concerned are
//! listed here by name, with the reason.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod trees;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use ampoule_store::content_address::{ContentAddress, Method, References};
use ampoule_store::export::{ExportedObject, Exporter};
use ampoule_store::hash::{Algorithm, Hash, Hasher, Sha256Digest};
use ampoule_store::nar::{Decoder, dump, nar_hash, restore};
use ampoule_store::path::{StoreDir, StorePath, check_name};
use ampoule_store::reference_scan::{HashModulo, ReferenceScanner, Rewriter};
use data_encoding::HEXLOWER;
use serde_json::Value;

use trees::{base64, plant, text, vectors};

/// Names that 2.8 accepted, with the reason why they are refused.
const NAMES_REFUSED_SINCE: [(&str, &str); 1] = [("name/..", "current Nix refuses names that read as relative paths")];

/// Archives that 2.8 accepted, with the reason why they are refused.
const ARCHIVES_REFUSED_SINCE: [(&str, &str); 2] = [
    ("nar-malformed/trailing-zeros", "an archive is all of its stream: two streams would give one tree"),
    ("nar-malformed/contents-before-executable", "the flag comes first: two archives would give one tree"),
];

fn algorithms() -> [(&'static str, Algorithm); 4] {
    Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm))
}

#[test]
fn hashes_have_nixs_text_forms() {
    for vector in vectors("hash-encode") {
        let (input, expect) = (&vector["input"], &vector["expect"]);
        let digest = HEXLOWER.decode(text(&input["hex"]).as_bytes()).unwrap();
        let algorithm = text(&input["algo"]).parse().unwrap();
        let hash = Hash::new(algorithm, &digest).unwrap();
        for (form, ours) in [("nix32", hash.to_nix32()), ("sri", hash.to_sri()), ("base64", hash.to_base64())] {
            if let Some(theirs) = expect[form].as_str() {
                assert_eq!(ours, theirs, "{}", vector["id"]);
                assert_eq!(Hash::parse(theirs, Some(algorithm)), Ok(hash.clone()), "{}", vector["id"]);
            }
        }
    }
    for vector in vectors("hash-decode-reject") {
        let algorithm = text(&vector["input"]["algo"]).parse().unwrap();
        assert!(Hash::parse(text(&vector["input"]["nix32"]), Some(algorithm)).is_err(), "{}", vector["id"]);
    }
}

#[test]
fn fixed_output_paths() {
    for vector in vectors("fixed-output-path") {
        let input = &vector["input"];
        let store_dir = StoreDir::new(text(&input["store_dir"])).unwrap();
        let method = match text(&input["mode"]) {
            "flat" => Method::Flat,
            "recursive" => Method::Nar,
            other => panic!("unknown mode {other}"),
        };
        let hash = Hash::parse(text(&input["hash_hex"]), Some(text(&input["algo"]).parse().unwrap())).unwrap();
        let address = ContentAddress { method, hash };
        let path = store_dir.content_addressed_path(text(&input["name"]), &address, &References::default()).unwrap();
        assert_eq!(store_dir.display(&path), text(&vector["expect"]["path"]), "{}", vector["id"]);
        assert_eq!(store_dir.parse(text(&vector["expect"]["path"])), Ok(path));
    }
}

#[test]
fn names_are_those_of_current_nix() {
    for vector in vectors("store-name-validity") {
        let id = text(&vector["id"]);
        let accepted = vector["expect"]["accepted"] == true;
        let expected = accepted && !NAMES_REFUSED_SINCE.iter().any(|(refused, _)| *refused == id);
        assert_eq!(check_name(text(&vector["input"]["name"])).is_ok(), expected, "{id}");
    }
}

#[test]
fn trees_have_nixs_archives_hashes_and_paths() {
    for vector in vectors("nar-tree") {
        let (id, expect) = (text(&vector["id"]), &vector["expect"]);
        let scratch = tempfile::tempdir().unwrap();
        let tree = plant(&vector, scratch.path());
        let mut archive = Vec::new();
        if let Err(error) = dump(&tree, &mut archive) {
            assert!(!rustix::process::geteuid().is_root(), "{id}: {error}");
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: {id} has a file that only root can read\n"),
            );
            continue;
        }
        assert_eq!(archive.len() as u64, expect["nar_size"].as_u64().unwrap(), "{id}");
        if let Some(nar) = expect.get("nar_b64") {
            assert!(archive == base64(nar), "{id}");
        }
        let hash = nar_hash(&tree).unwrap();
        assert_eq!(
            (hash.size, hash.sha256.to_nix32().as_str()),
            (archive.len() as u64, text(&expect["nar_sha256_nix32"]))
        );
        for (name, algorithm) in algorithms() {
            assert_eq!(Hash::of(algorithm, &archive).to_hex(), text(&expect[&format!("nar_{name}_hex")]), "{id}");
        }
        check_paths(&vector, &archive, &tree);
        check_restored(id, &archive, scratch.path());
    }
}

/// The store paths of `--add` and `--add-fixed`.
fn check_paths(vector: &Value, archive: &[u8], tree: &std::path::Path) {
    let (store_dir, expect) = (StoreDir::default(), &vector["expect"]);
    let path = |method, hash: Hash| {
        let address = ContentAddress { method, hash };
        let name = text(&vector["input"]["name"]);
        store_dir.content_addressed_path(name, &address, &References::default()).map(|path| store_dir.display(&path))
    };
    let source = path(Method::Nar, Hash::of(Algorithm::Sha256, archive));
    assert_eq!(source.as_deref(), Ok(text(&expect["store_path_source_sha256"])), "{}", vector["id"]);
    for (name, algorithm) in algorithms() {
        let recursive = path(Method::Nar, Hash::of(algorithm, archive));
        assert_eq!(recursive.as_deref(), Ok(text(&expect["add_fixed_recursive"][name])), "{}", vector["id"]);
        if let Some(hex) = expect["flat_hex"].get(name) {
            let hash = Hash::of(algorithm, &fs::read(tree).unwrap());
            assert_eq!(hash.to_hex(), text(hex));
            assert_eq!(
                path(Method::Flat, hash).as_deref(),
                Ok(text(&expect["add_fixed_flat"][name])),
                "{}",
                vector["id"]
            );
        }
    }
}

fn check_restored(id: &str, archive: &[u8], scratch: &std::path::Path) {
    let directory = fs::File::open(scratch).unwrap();
    restore(archive, directory.as_fd(), OsStr::new("restored")).unwrap_or_else(|error| panic!("{id}: {error}"));
    let mut again = Vec::new();
    dump(&scratch.join("restored"), &mut again).unwrap();
    assert!(again == archive, "{id} is restored otherwise");
}

#[test]
fn malformed_archives_are_refused() {
    for vector in vectors("nar-restore") {
        let id = text(&vector["id"]);
        let scratch = tempfile::tempdir().unwrap();
        let directory = fs::File::open(scratch.path()).unwrap();
        let outcome = restore(&base64(&vector["input"]["nar_b64"])[..], directory.as_fd(), OsStr::new("tree"));
        let stricter = ARCHIVES_REFUSED_SINCE.iter().any(|(refused, _)| *refused == id);
        let expected = vector["expect"]["nix28_accepts"] == true && !stricter;
        assert_eq!(outcome.is_ok(), expected, "{id}: {outcome:?}");
        let beside = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert!(beside.iter().all(|name| name == "tree"), "{id} escaped: {beside:?}");
    }
}

#[test]
fn content_addressed_copies_have_nixs_paths() {
    let store_dir = StoreDir::default();
    for vector in vectors("make-content-addressed") {
        for (from, made) in vector["expect"].as_object().unwrap() {
            let id = format!("{} {from}", vector["id"]);
            let (from, to) = (store_dir.parse(from).unwrap(), store_dir.parse(text(&made["to"])).unwrap());
            let archive = base64(&made["info"]["nar_b64"]);
            assert_eq!(Sha256Digest::of(&archive).to_sri(), text(&made["info"]["narHash"]), "{id}");

            let listed = made["info"]["references"].as_array().unwrap().iter();
            let listed: BTreeSet<_> = listed.map(|path| store_dir.parse(text(path)).unwrap()).collect();
            let mut scanner = ReferenceScanner::new(&listed, Some(&to));
            scanner.update(&archive);
            let scan = scanner.finish();
            let references = References { others: scan.found, self_reference: !scan.own_offsets.is_empty() };
            let mut found = references.others.clone();
            found.extend(references.self_reference.then(|| to.clone()));
            assert_eq!(found, listed, "{id}");

            // The hash does not depend on which path the object had before.
            for own in [&to, &from] {
                let mut rewriter = Rewriter::new(Vec::new(), &to, own);
                rewriter.write_all(&archive).unwrap();
                let (moved, offsets) = rewriter.finish().unwrap();
                assert_eq!(offsets, scan.own_offsets, "{id}");
                let mut hasher = HashModulo::new(Algorithm::Sha256, own);
                moved.chunks(50).for_each(|chunk| hasher.write_all(chunk).unwrap());
                let (hash, offsets) = hasher.finish();
                assert_eq!(offsets, scan.own_offsets, "{id}");
                let address = ContentAddress { method: Method::Nar, hash };
                assert_eq!(address.to_string(), text(&made["info"]["ca"]), "{id}");
                assert_eq!(
                    store_dir.content_addressed_path(to.name(), &address, &references).as_ref(),
                    Ok(&to),
                    "{id}"
                );
            }
        }
    }
}

#[test]
fn export_streams_are_nixs() {
    let store_dir = StoreDir::default();
    for vector in vectors("export") {
        let stream = base64(&vector["expect"]["b64"]);
        let mut exporter = Exporter::new(Vec::new(), store_dir.clone());
        let objects = read_export(&stream, &store_dir);
        assert_eq!(objects.len(), vector["input"]["paths"].as_array().unwrap().len());
        for (archive, path, references, deriver) in &objects {
            let object = ExportedObject { path, references, deriver: deriver.as_ref() };
            exporter.object(object, |sink| sink.write_all(archive)).unwrap();
        }
        assert!(exporter.finish().unwrap() == stream, "{}", vector["id"]);
    }
}

type Exported = (Vec<u8>, StorePath, BTreeSet<StorePath>, Option<StorePath>);

/// Takes an export stream apart. The decoder must leave alone what follows an archive.
fn read_export(mut stream: &[u8], store_dir: &StoreDir) -> Vec<Exported> {
    fn number(stream: &mut &[u8]) -> u64 {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
    let token = |stream: &mut &[u8]| {
        let length = usize::try_from(number(stream)).unwrap();
        let bytes = String::from_utf8(stream[..length].to_vec()).unwrap();
        stream.consume(length.next_multiple_of(8));
        bytes
    };
    let mut objects = Vec::new();
    while number(&mut stream) == 1 {
        let start = stream;
        let mut decoder = Decoder::new(&mut stream);
        while decoder.next_event().unwrap().is_some() {}
        let length = usize::try_from(decoder.offset()).unwrap();
        let archive = start[..length].to_vec();
        assert_eq!(number(&mut stream), 0x4558_494e);
        let path = store_dir.parse(&token(&mut stream)).unwrap();
        let count = number(&mut stream);
        let references = (0..count).map(|_| store_dir.parse(&token(&mut stream)).unwrap()).collect();
        let deriver = Some(token(&mut stream)).filter(|path| !path.is_empty());
        let deriver = deriver.map(|path| store_dir.parse(&path).unwrap());
        assert_eq!(number(&mut stream), 0);
        objects.push((archive, path, references, deriver));
    }
    assert!(stream.is_empty());
    objects
}

/// Random trees: our archive, that of an independent codec, and what both restore.
#[test]
fn an_independent_codec_agrees() {
    use nix_archive::nar::{CaseHack, encode_path};
    for seed in 0..25 {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        trees::grow(&mut trees::Numbers::new(seed), &tree, 4);
        let mut archive = Vec::new();
        let length = dump(&tree, &mut archive).unwrap();
        let mut theirs = Vec::new();
        encode_path(&mut theirs, &tree, CaseHack::Disabled).unwrap();
        assert!(archive == theirs, "seed {seed}");
        let directory = fs::File::open(scratch.path()).unwrap();
        assert_eq!(restore(&archive[..], directory.as_fd(), OsStr::new("ours")).unwrap(), length);
        nix_archive::nar::restore(&archive, &scratch.path().join("theirs"), CaseHack::Disabled).unwrap();
        let expected = nar_hash(&tree).unwrap();
        for copy in ["ours", "theirs"] {
            assert_eq!(nar_hash(&scratch.path().join(copy)).unwrap(), expected, "seed {seed}");
        }
    }
}

/// Damaged archives: whatever is accepted is the archive of the tree that it gives.
#[test]
fn what_is_accepted_is_canonical() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/c"), b"0123456789").unwrap();
    std::os::unix::fs::symlink("c", tree.join("a/l")).unwrap();
    let mut archive = Vec::new();
    dump(&tree, &mut archive).unwrap();
    let directory = fs::File::open(scratch.path()).unwrap();
    let mut numbers = trees::Numbers::new(1);
    let mut accepted = 0;
    for round in 0..600 {
        let mut damaged = archive.clone();
        for _ in 0..=numbers.below(2) {
            let at = usize::try_from(numbers.below(damaged.len() as u64)).unwrap();
            match numbers.below(3) {
                0 => damaged[at] ^= 1 << numbers.below(8),
                1 => damaged.truncate(at.max(1)),
                _ => drop(damaged.splice(at..at, damaged[at..].iter().take(8).copied().collect::<Vec<_>>())),
            }
        }
        let name = format!("damaged-{round}");
        let copy = scratch.path().join(&name);
        if restore(&damaged[..], directory.as_fd(), OsStr::new(&name)).is_ok() {
            accepted += 1;
            let mut hasher = Hasher::new(Algorithm::Sha256);
            dump(&copy, &mut hasher).unwrap();
            assert_eq!(hasher.finish(), Hash::of(Algorithm::Sha256, &damaged), "round {round}");
        }
    }
    assert!(accepted > 0, "no damage was harmless, so nothing was tested");
}
