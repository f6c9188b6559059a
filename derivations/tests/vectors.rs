//! The golden vectors that concern derivations, both directions: texts made by Nix 2.8 are read, written, and made again.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use ampoule_derivations::aterm;
use ampoule_derivations::derivation::{Derivation, DerivationBuilder, ModuloHashes, Output, OutputKind, resolve};
use ampoule_derivations::json::to_json;
use ampoule_store::content_address::{ContentAddress, Method, References};
use ampoule_store::hash::{Algorithm, Hash, Sha256Digest};
use ampoule_store::nar::regular_file;
use ampoule_store::path::{StoreDir, StorePath};
use ampoule_store::reference_scan::{HashModulo, ReferenceScanner};
use data_encoding::BASE64;
use serde_json::Value;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The golden vectors of this kind.
fn vectors(kind: &str) -> Vec<Value> {
    let all = read(include_str!("../../tests/vectors/nix/nix-vectors.json"));
    let chosen: Vec<_> = all["vectors"].as_array().unwrap().iter().filter(|v| v["kind"] == kind).cloned().collect();
    assert!(!chosen.is_empty(), "no vectors of kind {kind}");
    chosen
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

fn path(value: &str) -> StorePath {
    StoreDir::default().parse(value).unwrap()
}

fn parse(drv: &StorePath, text: &[u8]) -> Derivation {
    aterm::parse(text, drv.derivation_name().unwrap(), &StoreDir::default()).unwrap_or_else(|e| panic!("{drv}: {e}"))
}

/// Every derivation of a vector: its text, and what else is said of it.
fn derivations(vector: &Value) -> BTreeMap<StorePath, (Vec<u8>, Value)> {
    let bytes = |made: &Value| match made.get("aterm_b64") {
        Some(encoded) => BASE64.decode(text(encoded).as_bytes()).unwrap(),
        None => text(&made["aterm"]).as_bytes().to_vec(),
    };
    let made = vector["expect"]["derivations"].as_object().unwrap();
    made.iter().map(|(drv, made)| (path(drv), (bytes(made), made.clone()))).collect()
}

/// Makes the derivation again from what a user would say: everything but output paths.
fn again(derivation: &Derivation, hashes: &mut ModuloHashes) -> (StorePath, Derivation) {
    let mut builder = DerivationBuilder::new(&derivation.name, &derivation.system, &derivation.builder);
    for argument in &derivation.args {
        builder = builder.arg(argument.clone());
    }
    for (name, value) in &derivation.env {
        if name == b"__json" {
            builder = builder.structured_attributes(serde_json::from_slice(value).unwrap());
        } else if std::str::from_utf8(name).is_ok_and(|name| !derivation.outputs.contains_key(name)) {
            builder = builder.env(name.clone(), value.clone());
        }
    }
    for (input, outputs) in &derivation.input_derivations {
        builder = outputs.iter().fold(builder, |builder, output| builder.input_derivation(input.clone(), output));
    }
    for source in &derivation.input_sources {
        builder = builder.input_source(source.clone());
    }
    let kind = match derivation.outputs.values().next().unwrap() {
        Output::InputAddressed(_) | Output::Deferred => OutputKind::InputAddressed,
        Output::Fixed(address) => OutputKind::Fixed(address.clone()),
        Output::Floating { method, algorithm } => OutputKind::Floating { method: *method, algorithm: *algorithm },
    };
    builder.output_names(derivation.outputs.keys()).output_kind(kind).instantiate(&StoreDir::default(), hashes).unwrap()
}

/// The derivations so ordered that each comes after what it needs.
fn ordered(derivations: &BTreeMap<StorePath, Derivation>) -> Vec<StorePath> {
    let mut ordered: Vec<StorePath> = Vec::new();
    while ordered.len() < derivations.len() {
        let ready = |path: &&StorePath| {
            !ordered.contains(path) && derivations[*path].input_derivations.keys().all(|input| ordered.contains(input))
        };
        let ready = derivations.keys().filter(ready).cloned().collect::<Vec<_>>();
        assert!(!ready.is_empty(), "the vectors hold whole closures without cycles");
        ordered.extend(ready);
    }
    ordered
}

#[test]
fn derivations_are_read_written_and_made_as_nix_does() {
    let store_dir = StoreDir::default();
    for vector in vectors("derivation") {
        let texts = derivations(&vector);
        let parsed: BTreeMap<_, _> = texts.iter().map(|(drv, (text, _))| (drv.clone(), parse(drv, text))).collect();
        let mut hashes = ModuloHashes::new();
        for drv in ordered(&parsed) {
            let (derivation, (text, made)) = (&parsed[&drv], &texts[&drv]);
            assert!(aterm::write(derivation, &store_dir) == *text, "{drv}");
            assert_eq!(derivation.path(&store_dir).unwrap(), drv);
            let (path, made_again) = again(derivation, &mut hashes);
            assert_eq!((&path, &made_again), (&drv, derivation));
            hashes.check_output_paths(derivation, &store_dir).unwrap();
            check_facts(derivation, text, made);
        }
        for (drv, shown) in vector["expect"]["show_derivation"].as_object().into_iter().flatten() {
            assert_eq!(&to_json(&parsed[&path(drv)], &store_dir), shown, "{drv}");
        }
        for source in vector["expect"]["input_sources"].as_array().into_iter().flatten() {
            let source = path(text(source));
            assert!(parsed.values().any(|derivation| derivation.input_sources.contains(&source)), "{source}");
        }
        check_built(&vector);
    }
}

/// What a vector says of one derivation beside its text.
fn check_facts(derivation: &Derivation, drv_text: &[u8], made: &Value) {
    let store_dir = StoreDir::default();
    let nar = Sha256Digest::of(&regular_file(false, drv_text));
    assert_eq!(nar.to_string(), text(&made["nar_hash"]));
    let references: BTreeSet<_> = made["references"].as_array().unwrap().iter().map(|p| path(text(p))).collect();
    assert_eq!(derivation.references(), references);
    let outputs = made["outputs"].as_object().unwrap();
    assert_eq!(outputs.keys().collect::<Vec<_>>(), derivation.outputs.keys().collect::<Vec<_>>());
    for (name, output) in outputs {
        let path = derivation.output_path(&store_dir, name).unwrap().map(|path| store_dir.display(&path));
        assert_eq!(path.unwrap_or_default(), text(&output["path"]));
        let (algorithm, hash) = match &derivation.outputs[name] {
            Output::Fixed(address) => (address.method_algorithm(), address.hash.to_hex()),
            Output::Floating { method, algorithm } => (format!("{}{algorithm}", method.prefix()), String::new()),
            Output::InputAddressed(_) | Output::Deferred => Default::default(),
        };
        assert_eq!((algorithm.as_str(), hash.as_str()), (text(&output["hash_algo"]), text(&output["hash"])));
    }
}

/// What was built has the paths that follow from its content.
fn check_built(vector: &Value) {
    let store_dir = StoreDir::default();
    let built = vector["expect"]["built"].as_object().into_iter().flatten();
    for (_, outputs) in built {
        for (built, info) in outputs.as_object().unwrap() {
            let Some(address) = info.get("ca").and_then(Value::as_str) else { continue };
            let built = path(built);
            let mut others: BTreeSet<_> =
                info["references"].as_array().unwrap().iter().map(|reference| path(text(reference))).collect();
            let references = References { self_reference: others.remove(&built), others };
            let address: ContentAddress = address.parse().unwrap();
            assert_eq!(store_dir.content_addressed_path(built.name(), &address, &references).unwrap(), built);
        }
    }
}

#[test]
fn what_nix_refuses_is_refused() {
    for vector in vectors("derivation-reject") {
        let builder = |name: &str| DerivationBuilder::new(name, "x86_64-linux", "/bin/sh");
        let fixed = || ContentAddress { method: Method::Flat, hash: Hash::of(Algorithm::Sha256, b"") };
        let attempt = match text(&vector["id"]) {
            "drv/reject-bad-name" => builder("bad name"),
            "drv/reject-dup-outputs" => builder("dup").outputs(["out", "out"]),
            "drv/reject-output-named-drv" => builder("drvout").outputs(["drv"]),
            other => panic!("say here how `{other}` is asked for"),
        };
        assert!(attempt.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).is_err(), "{}", vector["id"]);
        // Others of the kind, which Nix refuses too.
        for attempt in [
            builder("name.drv"),
            builder(""),
            builder("x").outputs::<&str>([]),
            builder("x").outputs(["a b"]),
            builder("x").outputs([""]),
            builder(&"x".repeat(209)).outputs(["out", "dev"]),
            builder("x").outputs(["out", "dev"]).fixed(fixed()),
            builder("x").outputs(["dev"]).fixed(fixed()),
            builder("x").env("a", "b\0"),
            DerivationBuilder::new("x", "a\"b", "/bin/sh"),
        ] {
            let outcome = attempt.clone().instantiate(&StoreDir::default(), &mut ModuloHashes::new());
            assert!(outcome.is_err(), "{attempt:?}");
        }
    }
}

#[test]
fn resolved_derivations_are_nixs() {
    let store_dir = StoreDir::default();
    let vector = read(include_str!("../../tests/vectors/nix/resolved.json"));
    let texts = vector["derivations"].as_object().unwrap();
    let parsed: BTreeMap<_, _> =
        texts.iter().map(|(drv, made)| (path(drv), parse(&path(drv), text(made).as_bytes()))).collect();
    let mut hashes = ModuloHashes::new();
    for drv in ordered(&parsed) {
        assert_eq!(again(&parsed[&drv], &mut hashes), (drv.clone(), parsed[&drv].clone()));
    }
    let built = vector["built"].as_array().unwrap();
    let find = |drv: &StorePath, output: &str| {
        let made = built.iter().find(|made| path(text(&made["derivation"])) == *drv && made["output"] == output)?;
        Some(path(text(&made["path"])))
    };
    for expected in vector["resolved"].as_array().unwrap() {
        let derivation = &parsed[&path(text(&expected["derivation"]))];
        let resolved = resolve(derivation, &store_dir, find).unwrap();
        let written = String::from_utf8(aterm::write(&resolved, &store_dir)).unwrap();
        assert_eq!(written, text(&expected["aterm"]));
        assert_eq!(resolved.path(&store_dir).unwrap(), path(text(&expected["path"])));
        ModuloHashes::new().check_output_paths(&resolved, &store_dir).unwrap();
        // Once more changes nothing, and without the inputs nothing can be resolved.
        assert_eq!(resolve(&resolved, &store_dir, |_, _| None), Ok(resolved));
        assert!(resolve(derivation, &store_dir, |_, _| None).is_err());
    }
    for made in built {
        let Some(content) = made.get("text").map(text) else { continue };
        let out = path(text(&made["path"]));
        let nar = regular_file(false, content.as_bytes());
        let mut hasher = HashModulo::new(Algorithm::Sha256, &out);
        std::io::Write::write_all(&mut hasher, &nar).unwrap();
        let candidates: Vec<_> = built.iter().map(|made| path(text(&made["path"]))).collect();
        let mut scanner = ReferenceScanner::new(&candidates, Some(&out));
        scanner.update(&nar);
        let scan = scanner.finish();
        let expected: BTreeSet<_> = made["references"].as_array().unwrap().iter().map(|p| path(text(p))).collect();
        assert_eq!(scan.found, expected);
        let address = ContentAddress { method: Method::Nar, hash: hasher.finish().0 };
        let references = References { others: scan.found, self_reference: !scan.own_offsets.is_empty() };
        assert_eq!(store_dir.content_addressed_path(out.name(), &address, &references).unwrap(), out);
    }
}

#[test]
fn structured_attributes_are_nixs() {
    let vector = read(include_str!("../../tests/vectors/nix/resolved.json"))["structured"].clone();
    let drv = path(text(&vector["path"]));
    let parsed = parse(&drv, text(&vector["aterm"]).as_bytes());
    assert_eq!(again(&parsed, &mut ModuloHashes::new()), (drv.clone(), parsed));
    let attributes = serde_json::json!({
        "g": 1.5, "f": "/nix é b", "empty": [], "e": {"z": "w\n\t\"\\"}, "d": [1, "x", {"y": 2}], "c": null, "b": true, "a": 1,
    });
    let builder = DerivationBuilder::new("sa", "x86_64-linux", "/bin/sh").arg("-c").arg("x").outputs(["out", "dev"]);
    let builder = builder.structured_attributes(attributes.as_object().unwrap().clone());
    assert_eq!(builder.instantiate(&StoreDir::default(), &mut ModuloHashes::new()).unwrap().0, drv);
}

#[test]
fn nobody_can_claim_the_path_of_another_derivation() {
    let store_dir = StoreDir::default();
    let make = |argument: &str| {
        let builder = DerivationBuilder::new("x", "x86_64-linux", "/bin/sh").arg(argument);
        builder.instantiate(&store_dir, &mut ModuloHashes::new()).unwrap().1
    };
    let (victim, mut thief) = (make("good"), make("evil"));
    let hashes = ModuloHashes::new();
    hashes.check_output_paths(&thief, &store_dir).unwrap();
    thief.outputs = victim.outputs;
    assert!(hashes.check_output_paths(&thief, &store_dir).is_err());
}

#[test]
fn a_closure_of_any_depth_is_hashed() {
    let store_dir = StoreDir::default();
    let mut hashes = ModuloHashes::new();
    let mut all = BTreeMap::new();
    let mut last: Option<StorePath> = None;
    for index in 0..3000 {
        let builder = DerivationBuilder::new(&format!("d{index}"), "x86_64-linux", "/bin/sh");
        let builder = match last.take() {
            Some(input) => builder.input_derivation(input, "out"),
            None => builder,
        };
        let (path, derivation) = builder.instantiate(&store_dir, &mut hashes).unwrap();
        all.insert(path.clone(), derivation);
        last = Some(path);
    }
    let last = last.unwrap();
    let mut fresh = ModuloHashes::new();
    let hash = fresh.insert_closure(&last, &store_dir, |path| all.get(path)).unwrap();
    assert_eq!(Some(hash), hashes.get(&last));
    let missing = last.clone();
    let partial = |path: &StorePath| (path.name() != "d7.drv").then(|| all.get(path)).flatten();
    assert!(ModuloHashes::new().insert_closure(&missing, &store_dir, partial).is_err());
}
