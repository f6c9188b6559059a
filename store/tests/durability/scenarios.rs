//! What is done while faults happen, and what must hold afterwards.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ampoule_store::cache::{Cache, Compression, Directory, PushOptions, Realisation, Substituters, Trust};
use ampoule_store::content_address::Method;
use ampoule_store::export::{ExportedObject, Exporter};
use ampoule_store::hash::{Algorithm, Sha256Digest};
use ampoule_store::import::Credulity;
use ampoule_store::local::{
    DerivationRow, Durability, Finding, Intent, LocalStore, Policy, RealisationRecord, Registration, Source,
    StageError, Verdict, VerifyOptions,
};
use ampoule_store::nar;
use ampoule_store::path::{StoreDir, StorePath};
use ampoule_store::path_info::PathInfo;

type Outcome = Result<(), Box<dyn Error>>;
/// Where it is said what is done: from then on it must be so, whatever happens.
pub(crate) type Say<'a> = &'a mut dyn FnMut(String);

/// An operation on a store.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Makes the store as it is before, and what lies beside it; there may be none.
    prepare: fn(Option<&LocalStore>, &Path) -> Outcome,
    /// Does it; doing it again is no error.
    perform: fn(&LocalStore, &Path, Say<'_>) -> Outcome,
    /// Whether there is a store before.
    has_store: bool,
}

pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "create", prepare: prepare_sources, perform: add, has_store: false },
    Scenario { name: "add", prepare: prepare_sources, perform: add, has_store: true },
    Scenario { name: "build", prepare: prepare_build, perform: build, has_store: true },
    Scenario { name: "replace", prepare: prepare_replace, perform: replace, has_store: true },
    Scenario { name: "delete", prepare: prepare_delete, perform: delete, has_store: true },
    Scenario { name: "derivations", prepare: prepare_sources, perform: derivations, has_store: false },
    Scenario { name: "import", prepare: prepare_import, perform: import, has_store: true },
    Scenario { name: "collect", prepare: prepare_collect, perform: collect, has_store: true },
    Scenario { name: "verify", prepare: prepare_delete, perform: verify, has_store: true },
    Scenario { name: "optimise", prepare: prepare_optimise, perform: optimise, has_store: true },
    Scenario { name: "repair", prepare: prepare_repair, perform: repair, has_store: true },
    Scenario { name: "push", prepare: prepare_delete, perform: push, has_store: true },
    Scenario { name: "again", prepare: prepare_again, perform: add_again, has_store: true },
];

impl Scenario {
    /// Makes the state before in `home` and `sources`.
    pub(crate) fn prepare(&self, home: &Path, sources: &Path) {
        fs::create_dir(sources).unwrap();
        let store = self.has_store.then(|| open(home).unwrap());
        (self.prepare)(store.as_ref(), sources).unwrap();
    }

    /// Opens the store and does it.
    pub(crate) fn perform(&self, home: &Path, sources: &Path, say: Say<'_>) -> Outcome {
        (self.perform)(&open(home)?, sources, say)
    }

    /// Tries once, and once more if that fails, with the same store if it could be opened.
    pub(crate) fn persist(&self, home: &Path, sources: &Path, say: Say<'_>) -> Outcome {
        let store = open(home).or_else(|_| open(home))?;
        (self.perform)(&store, sources, say).or_else(|_| (self.perform)(&store, sources, say))
    }

    /// Checks the state in `home` after a fault: what was said is so, and nothing is broken; then does it again.
    pub(crate) fn check(&self, home: &Path, sources: &Path, said: &str) -> Result<(), String> {
        let fail = |what: &str, error: &dyn Error| format!("{what}: {}", chain(error));
        let store = open(home).map_err(|error| fail("the store does not open", &*error))?;
        let findings = store.verify().map_err(|error| fail("verification stopped", &error))?;
        let is_broken = |finding: &&Finding| match finding {
            Finding::Unregistered { .. } => false,
            Finding::Changed { path, .. } | Finding::Irregular { path, .. } => !is_broken_before(path),
            _ => true,
        };
        let broken = findings.iter().find(is_broken);
        broken.map_or(Ok(()), |finding| Err(format!("before repeating: {}", chain(finding))))?;
        check_promises(&store, said).map_err(|error| fail("what was said does not hold", &*error))?;
        check_references(&store).map_err(|error| fail("references", &*error))?;
        check_cache(&store).map_err(|error| fail("the cache", &*error))?;
        let mut repeated = String::new();
        (self.perform)(&store, sources, &mut |line| repeated.push_str(&(line + "\n")))
            .map_err(|error| fail("cannot be repeated", &*error))?;
        check_promises(&store, &repeated).map_err(|error| fail("what was repeated does not hold", &*error))?;
        let findings = store.verify().map_err(|error| fail("verification stopped", &error))?;
        findings.first().map_or(Ok(()), |finding| Err(format!("after repeating: {}", chain(finding))))?;
        drop(store);
        match fs::read_dir(home.join("tmp")).unwrap().next() {
            None => Ok(()),
            Some(leftover) => Err(format!("left over: {:?}", leftover.unwrap().path())),
        }
    }
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn open(home: &Path) -> Result<LocalStore, Box<dyn Error>> {
    Ok(LocalStore::open(home, StoreDir::new("/nix/store")?)?)
}

/// Checks the lines `whole PATH`, `valid PATH`, `gone PATH`, `derivation PATH`, and `realised DERIVATION PATH`.
fn check_promises(store: &LocalStore, said: &str) -> Outcome {
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let path = StorePath::parse_base_name(words[1])?;
        let holds = match words[0] {
            "whole" => {
                let options = VerifyOptions { only: Some([path].into()), ..VerifyOptions::default() };
                store.verify_some(&options)?.findings.is_empty()
            }
            "valid" => store.path_info(&path)?.is_some(),
            "cached" => is_cached(store, &path)?,
            "gone" => !store.is_valid(&path)?,
            "derivation" => store.derivation(&path)?.is_some(),
            "realised" => store.realisation(&path, "out")?.is_some_and(|output| output.base_name() == words[2]),
            other => panic!("unknown promise {other}"),
        };
        if !holds {
            return Err(format!("`{line}`").into());
        }
    }
    Ok(())
}

/// What a cache says it has, it has.
fn check_cache(store: &LocalStore) -> Outcome {
    if !store.home().with_file_name("cache/nix-cache-info").exists() {
        return Ok(());
    }
    let cache = cache_of(store)?;
    for part in cache.hash_parts()? {
        let info = cache.narinfo_by_hash_part(&part)?.ok_or_else(|| format!("`{part}` is listed but not there"))?;
        cache.fetch(store, &info, &Trust::Everything)?;
    }
    Ok(())
}

fn check_references(store: &LocalStore) -> Outcome {
    let valid = store.all_paths()?;
    for path in &valid {
        let missing = store.references(path)?.into_iter().find(|reference| !valid.contains(reference));
        if let Some(missing) = missing {
            return Err(format!("`{path}` refers to `{missing}`").into());
        }
    }
    Ok(())
}

fn path(digit: u8, name: &str) -> StorePath {
    StorePath::new(&[digit; 20], name).unwrap()
}

fn file(
    store: &LocalStore,
    path: &StorePath,
    content: &str,
    references: &[&StorePath],
) -> Result<Registration, StageError> {
    Ok(Registration {
        staged: store.stage_bytes(content.as_bytes())?,
        path: path.clone(),
        references: references.iter().map(|path| (*path).clone()).collect(),
        deriver: None,
        content_address: None,
    })
}

fn prepare_sources(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    let tree = sources.join("tree");
    fs::create_dir_all(tree.join("bin"))?;
    fs::write(tree.join("bin/run"), "#!/bin/sh\n")?;
    fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o755))?;
    fs::write(tree.join("data"), "data".repeat(500))?;
    fs::write(tree.join("empty"), "")?;
    symlink("data", tree.join("link"))?;
    if let Some(store) = store {
        store.register(vec![file(store, &path(1, "input"), "input", &[])?])?;
    }
    Ok(())
}

fn add(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    let info = store.add_source(store.stage_from_path(&sources.join("tree"))?, "tree")?;
    say(format!("valid {}", info.path));
    let info = store.add_text("text", b"text", &[info.path].into())?;
    say(format!("valid {}", info.path));
    Ok(())
}

fn prepare_build(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    let output = sources.join("output");
    fs::create_dir_all(output.join("share"))?;
    fs::write(output.join("share/me"), format!("{} needs {}", path(7, "out"), path(1, "input")))?;
    fs::write(output.join("plain"), "x".repeat(3000))?;
    Ok(())
}

/// What a build does: a derivation, a log, two outputs of which one speaks of itself and the other of it, records.
fn build(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    let (input, scratch) = (path(1, "input"), path(7, "out"));
    let derivation = derivation_row(store, "out.drv", "Derive(out)", [input.clone()].into())?;
    // Alone it is not waited for: recipes say it again. With what it made it is.
    store.add_derivations(std::slice::from_ref(&derivation))?;
    let mut log = store.log_writer(&derivation.path)?;
    log.write_all(b"building\n")?;
    let parent = File::open(sources)?;
    let candidates = [input].into();
    let staged = store.stage_from_fd(parent.as_fd(), OsStr::new("output"), &candidates, Some(&scratch), u64::MAX)?;
    let made = store.into_content_addressed(staged, "out", &scratch)?;
    let output = made.path.clone();
    let document = path(8, "document");
    let document = file(store, &document, &output.to_string(), &[&output])?;
    let infos = store.register(vec![document, made.registration(Some(derivation.path.clone()))])?;
    let log = log.finish()?;
    say(format!("derivation {}", derivation.path));
    for info in &infos {
        say(format!("valid {}", info.path));
    }
    store.record_realisation(&RealisationRecord {
        derivation: derivation.path.clone(),
        output: "out".into(),
        path: output.clone(),
        nar_hash: Some(infos[1].nar_hash),
        engine: "test".into(),
        started_at: 1,
        duration_milliseconds: 1,
        log: Some(log),
        verdict: Verdict::First,
    })?;
    say(format!("realised {} {output}", derivation.path));
    Ok(())
}

/// A directory without a row has one object's name, and another object's row has no file any more.
fn prepare_replace(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    let store = store.expect("there is a store");
    let (leftover, vanished) = (path(2, "leftover"), path(3, "vanished"));
    fs::create_dir(store.physical_path(&leftover))?;
    fs::write(store.physical_path(&leftover).join("file"), "old")?;
    store.register(vec![file(store, &vanished, "vanished", &[])?])?;
    store.register(vec![file(store, &path(4, "referrer"), "referrer", &[&vanished])?])?;
    fs::remove_file(store.physical_path(&vanished))?;
    restore_vanished(store)
}

fn restore_vanished(store: &LocalStore) -> Outcome {
    // Not through the store: a half-written file that a crash left, for which there is no valid row.
    store.delete(&[path(4, "referrer"), path(3, "vanished")])?;
    Ok(fs::write(store.physical_path(&path(3, "vanished")), "van")?)
}

fn replace(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    let (leftover, vanished, referrer) = (path(2, "leftover"), path(3, "vanished"), path(4, "referrer"));
    let tree = store.stage_from_path(&sources.join("tree"))?;
    let tree = Registration { staged: tree, ..file(store, &leftover, "", &[&vanished])? };
    store.register(vec![tree, file(store, &vanished, "vanished", &[])?, file(store, &referrer, "r", &[&vanished])?])?;
    for path in [leftover, vanished, referrer] {
        say(format!("valid {path}"));
    }
    Ok(())
}

fn prepare_delete(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    let store = store.expect("there is a store");
    let (a, b, kept) = (path(2, "a"), path(3, "b"), path(4, "kept"));
    let tree = Registration { staged: store.stage_from_path(&sources.join("tree"))?, ..file(store, &a, "", &[&a])? };
    store.register(vec![tree, file(store, &b, "b", &[&a, &kept])?, file(store, &kept, "kept", &[])?])?;
    Ok(())
}

fn delete(store: &LocalStore, _sources: &Path, say: Say<'_>) -> Outcome {
    let (a, b, kept) = (path(2, "a"), path(3, "b"), path(4, "kept"));
    say(format!("valid {kept}"));
    store.delete(&[a.clone(), b.clone()])?;
    say(format!("gone {a}"));
    say(format!("gone {b}"));
    Ok(())
}

fn derivations(store: &LocalStore, _sources: &Path, say: Say<'_>) -> Outcome {
    let first = derivation_row(store, "first.drv", "Derive(first)", BTreeSet::new())?;
    let second = derivation_row(store, "second.drv", "Derive(second)", [first.path.clone()].into())?;
    store.add_derivations(&[first.clone(), second.clone()])?;
    let info = store.materialise_derivation(&second.path)?;
    say(format!("derivation {}", first.path));
    say(format!("derivation {}", second.path));
    assert_eq!(info.content_address.map(|address| address.hash), Some(Sha256Digest::of(&second.aterm).into()));
    say(format!("valid {}", first.path));
    say(format!("valid {}", second.path));
    Ok(())
}

fn prepare_import(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    let store_dir = StoreDir::new("/nix/store")?;
    let other = LocalStore::open(&sources.join("other"), store_dir.clone())?;
    let first = other.add_source(other.stage_from_path(&sources.join("tree"))?, "tree")?;
    let second = other.add_text("text", b"text", &[first.path.clone()].into())?;
    let mut exporter = Exporter::new(File::create(sources.join("stream"))?, store_dir);
    for info in [first, second] {
        let object = ExportedObject { path: &info.path, references: &info.references, deriver: None };
        let archive = |sink: &mut File| {
            nar::dump(&other.physical_path(&info.path), sink).map(drop).map_err(std::io::Error::other)
        };
        exporter.object(object, archive)?;
    }
    exporter.finish()?;
    Ok(())
}

fn import(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    let mut stream = BufReader::new(File::open(sources.join("stream"))?);
    for path in ampoule_store::import::import(store, &mut stream, Credulity::Nothing)? {
        say(format!("valid {path}"));
    }
    Ok(())
}

fn prepare_collect(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_delete(store, sources)?;
    let store = store.expect("there is a store");
    Ok(store.add_root("kept", &[path(4, "kept")])?)
}

fn collect(store: &LocalStore, _sources: &Path, say: Say<'_>) -> Outcome {
    say(format!("valid {}", path(4, "kept")));
    store.collect_garbage(&Policy::default(), &mut |_, _| {})?;
    say(format!("gone {}", path(2, "a")));
    say(format!("gone {}", path(3, "b")));
    Ok(())
}

fn verify(store: &LocalStore, _sources: &Path, _: Say<'_>) -> Outcome {
    match store.verify()?.first() {
        None => Ok(()),
        Some(finding) => Err(finding.to_string().into()),
    }
}

fn prepare_optimise(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    fs::write(sources.join("tree/again"), "data".repeat(500))?;
    let store = store.expect("there is a store");
    for digit in [2, 3] {
        let path = path(digit, "tree");
        let staged = store.stage_from_path(&sources.join("tree"))?;
        store.register(vec![Registration { staged, ..file(store, &path, "", &[])? }])?;
    }
    Ok(())
}

fn optimise(store: &LocalStore, _sources: &Path, say: Say<'_>) -> Outcome {
    store.optimise(None, Intent::Share)?;
    say(format!("whole {}", path(2, "tree")));
    say(format!("whole {}", path(3, "tree")));
    Ok(())
}

/// The one object that a scenario begins with in pieces.
fn is_broken_before(object: &StorePath) -> bool {
    object.name() == "broken"
}

fn prepare_repair(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    let store = store.expect("there is a store");
    let broken = path(2, "broken");
    let tree = Registration { staged: store.stage_from_path(&sources.join("tree"))?, ..file(store, &broken, "", &[])? };
    store.register(vec![tree, file(store, &path(3, "referrer"), "r", &[&broken])?])?;
    Ok(fs::write(store.physical_path(&broken).join("data"), "other")?)
}

fn repair(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    let broken = path(2, "broken");
    store.repair(&broken, store.stage_from_path(&sources.join("tree"))?)?;
    say(format!("whole {broken}"));
    say(format!("valid {}", path(3, "referrer")));
    Ok(())
}

/// What was added before is known again by its looks, but not what is younger than two seconds.
fn prepare_again(store: Option<&LocalStore>, sources: &Path) -> Outcome {
    prepare_sources(store, sources)?;
    for (name, content) in [("gone", "gone"), ("new", "new")] {
        fs::create_dir(sources.join(name))?;
        fs::write(sources.join(name).join("file"), content.repeat(20_000))?;
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let store = store.expect("there is a store");
    let infos = add_all(store, sources, &["tree", "gone"])?;
    // Known by its looks, and not there any more.
    Ok(store.delete(&[infos[1].path.clone()])?)
}

fn add_again(store: &LocalStore, sources: &Path, say: Say<'_>) -> Outcome {
    for info in add_all(store, sources, &["tree", "gone", "new"])? {
        say(format!("whole {}", info.path));
    }
    Ok(())
}

fn add_all(store: &LocalStore, sources: &Path, names: &[&str]) -> Result<Vec<PathInfo>, Box<dyn Error>> {
    let source = |name: &&str| Source { path: sources.join(name), name: (*name).to_owned() };
    let sources: Vec<Source> = names.iter().map(source).collect();
    let added = store.add_paths(&sources, Method::Nar, Algorithm::Sha256);
    added.error.map_or(Ok(added.infos), |error| Err(error.into()))
}

/// The cache beside a store.
fn cache_of(store: &LocalStore) -> Result<Cache, Box<dyn Error>> {
    let directory = store.home().parent().ok_or("a store lies somewhere")?.join("cache");
    Ok(Cache::open_or_create(Box::new(Directory::new(&directory)), store.store_dir().clone())?)
}

fn push(store: &LocalStore, _sources: &Path, say: Say<'_>) -> Outcome {
    let closure = store.closure(&[path(3, "b")])?;
    let cache = cache_of(store)?;
    cache.push(store, &closure, PushOptions { compression: Compression::Zstd, key: None })?;
    let output = path(2, "a");
    let derivation = StorePath::new(&[9; 20], "a.drv")?;
    let realisation = Realisation { derivation, output: "out".into(), path: output, signatures: BTreeSet::new() };
    cache.push_realisation(&realisation)?;
    for path in &closure {
        say(format!("cached {path}"));
    }
    Ok(())
}

/// Whether a cache has an object, whole, and all that it needs: whatever it says it has, it must have.
fn is_cached(store: &LocalStore, path: &StorePath) -> Result<bool, Box<dyn Error>> {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let other = LocalStore::open_with(directory.path(), store.store_dir().clone(), Durability::Relaxed)?;
    let substituters = Substituters::new(vec![cache_of(store)?], Trust::Everything);
    if !substituters.offers(path) {
        return Ok(false);
    }
    substituters.substitute(&other, std::slice::from_ref(path))?;
    Ok(true)
}

fn derivation_row(
    store: &LocalStore,
    name: &str,
    aterm: &str,
    references: BTreeSet<StorePath>,
) -> Result<DerivationRow, Box<dyn Error>> {
    let path = store.store_dir().text_path(name, aterm.as_bytes(), &references)?;
    Ok(DerivationRow { path, aterm: aterm.into(), references })
}
