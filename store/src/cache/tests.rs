//! Caches in directories: honest, broken and hostile ones.
#![expect(clippy::disallowed_methods, reason = "tests make and break files")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::content_address::{ContentAddress, References};
use crate::local::{LocalStore, Registration};
use crate::path_info::PathInfo;
use crate::signature::{SecretKey, TrustedKeys};

/// A directory for stores and caches, in memory where the machine allows.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn store(&self, name: &str) -> LocalStore {
        LocalStore::open(&self.0.path().join(name), StoreDir::default()).unwrap()
    }

    fn cache_dir(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn cache(&self) -> Cache {
        Cache::open_or_create(Box::new(Directory::new(&self.cache_dir())), StoreDir::default()).unwrap()
    }

    fn substituters(&self, trust: Trust) -> Substituters {
        Substituters::new(vec![self.cache()], trust)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::process::Command::new("chmod").arg("-R").arg("u+w").arg(self.0.path()).status();
    }
}

fn key() -> SecretKey {
    SecretKey::from_seed("cache-1", &[9; 32]).unwrap()
}

fn trust() -> Trust {
    Trust::Keys(TrustedKeys::from_iter([key().public()]))
}

/// Adds a tree whose path follows from its content.
fn add_source(store: &LocalStore, scratch: &Scratch) -> StorePath {
    let tree = scratch.0.path().join("tree");
    fs::create_dir_all(tree.join("directory")).unwrap();
    fs::write(tree.join("directory/large"), vec![7; 300_000]).unwrap();
    fs::write(tree.join("small"), "small").unwrap();
    let staged = store.stage_from_path(&tree).unwrap();
    store.add_source(staged, "tree").unwrap().path
}

/// Registers a file under a path that proves nothing, which refers to others.
fn add_output(store: &LocalStore, digit: u8, references: &[&StorePath]) -> StorePath {
    let path = StorePath::new(&[digit; 20], "output").unwrap();
    let staged = store.stage_bytes(format!("{digit} {references:?}").as_bytes()).unwrap();
    let references = references.iter().map(|path| (*path).clone()).collect();
    let object = Registration { staged, path: path.clone(), references, deriver: None, content_address: None };
    store.register(vec![object]).unwrap();
    path
}

fn push(cache: &Cache, store: &LocalStore, path: &StorePath, options: PushOptions<'_>) -> Vec<StorePath> {
    let closure = store.closure(std::slice::from_ref(path)).unwrap();
    cache.push(store, &closure, options).unwrap()
}

const ZSTD: PushOptions<'_> = PushOptions { compression: Compression::Zstd, key: None };

#[test]
fn closures_go_through_a_cache_in_every_compression() {
    let written = [Compression::None, Compression::Bzip2, Compression::Gzip, Compression::Xz, Compression::Zstd];
    for compression in written {
        let scratch = Scratch::new();
        let (one, two) = (scratch.store("one"), scratch.store("two"));
        let source = add_source(&one, &scratch);
        let middle = add_output(&one, 1, &[&source]);
        let top = add_output(&one, 2, &[&middle, &source]);
        let cache = scratch.cache();
        let key = key();
        let options = PushOptions { compression, key: Some(&key) };
        assert_eq!(push(&cache, &one, &top, options), [source.clone(), middle.clone(), top.clone()]);
        assert!(push(&cache, &one, &top, options).is_empty());
        let got = scratch.substituters(trust()).substitute(&two, std::slice::from_ref(&top)).unwrap();
        assert_eq!(got.objects.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&source, &middle, &top]);
        for path in [&source, &middle, &top] {
            let strip = |info: PathInfo| PathInfo { registered_at: 0, ..info };
            let (mine, theirs) = (one.path_info(path).unwrap().unwrap(), two.path_info(path).unwrap().unwrap());
            assert_eq!(strip(mine), strip(theirs));
            assert_eq!(two.signatures(path).unwrap().len(), 1);
        }
        assert!(two.verify().unwrap().is_empty());
        assert!(scratch.cache_dir().join(format!("{}.ls", source.hash_part())).exists());
    }
}

#[test]
fn only_what_proves_itself_needs_no_signature() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.store("one"), scratch.store("two"));
    let source = add_source(&one, &scratch);
    let output = add_output(&one, 1, &[]);
    let cache = scratch.cache();
    push(&cache, &one, &source, ZSTD);
    push(&cache, &one, &output, ZSTD);
    scratch.substituters(trust()).substitute(&two, &[source]).unwrap();
    let error = scratch.substituters(trust()).substitute(&two, std::slice::from_ref(&output)).unwrap_err();
    assert!(error.to_string().contains("no trusted key signed"), "{error}");
    scratch.substituters(Trust::Everything).substitute(&two, &[output]).unwrap();
}

/// Pushes one object that proves itself and one that is signed, lets `break_it` at the narinfo, and insists on a refusal.
fn check_refused(break_it: impl Fn(&Path, &str) -> String, expected: &str) {
    for compression in [Compression::None, Compression::Zstd, Compression::Xz] {
        let scratch = Scratch::new();
        let (one, two) = (scratch.store("one"), scratch.store("two"));
        let source = add_source(&one, &scratch);
        let key = key();
        push(&scratch.cache(), &one, &source, PushOptions { compression, key: Some(&key) });
        let file = scratch.cache_dir().join(narinfo_name(source.hash_part()));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, break_it(&scratch.cache_dir(), &text)).unwrap();
        let error = scratch.substituters(trust()).substitute(&two, std::slice::from_ref(&source)).unwrap_err();
        assert!(error.to_string().contains(expected), "{compression}: {error}");
        assert!(two.all_paths().unwrap().is_empty());
        let staged = fs::read_dir(two.home().join("tmp")).unwrap().flatten();
        let left = staged.flat_map(|session| fs::read_dir(session.path()).unwrap().flatten());
        let left = left.filter(|entry| entry.file_name() != "lock" && entry.file_name() != "roots");
        assert_eq!(left.count(), 0);
    }
}

/// The archive's file, from the narinfo.
fn archive(cache: &Path, text: &str) -> PathBuf {
    cache.join(text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap())
}

fn replace_field(text: &str, field: &str, value: &str) -> String {
    let start = format!("{field}: ");
    let lines = text
        .lines()
        .map(|line| if line.starts_with(&start) { format!("{start}{value}\n") } else { format!("{line}\n") });
    lines.collect()
}

#[test]
fn broken_archives_are_refused_and_nothing_is_registered() {
    let change = |by: fn(&mut Vec<u8>)| {
        move |cache: &Path, text: &str| {
            let file = archive(cache, text);
            let mut bytes = fs::read(&file).unwrap();
            by(&mut bytes);
            fs::write(&file, bytes).unwrap();
            text.to_owned()
        }
    };
    check_refused(change(|bytes| bytes.truncate(bytes.len() / 2)), "no cache has");
    check_refused(change(Vec::clear), "no cache has");
    check_refused(change(|bytes| bytes.extend(b"more")), "no cache has");
    let middle = |bytes: &mut Vec<u8>| {
        let index = bytes.len() - 100.min(bytes.len() / 2);
        bytes[index] ^= 1;
    };
    check_refused(change(middle), "no cache has");
    let absent = |cache: &Path, text: &str| {
        fs::remove_file(archive(cache, text)).unwrap();
        text.to_owned()
    };
    check_refused(absent, "is missing");
}

#[test]
fn false_announcements_are_refused() {
    let field = |name: &'static str, value: &'static str| move |_: &Path, text: &str| replace_field(text, name, value);
    let zero = "sha256:0000000000000000000000000000000000000000000000000000";
    check_refused(field("NarHash", zero), "the NAR of");
    check_refused(field("FileHash", zero), "the archive of");
    check_refused(field("FileSize", "999999999"), "the archive of");
    check_refused(field("FileSize", "7"), "more than 7 bytes");
    check_refused(field("NarSize", "999999999"), "the NAR of");
    check_refused(field("NarSize", "100"), "longer than it may be");
    check_refused(field("URL", "../../etc/passwd"), "not a path within the cache");
    check_refused(
        field("CA", "fixed:r:sha256:0000000000000000000000000000000000000000000000000000"),
        "does not follow",
    );
    let other = StorePath::new(&[5; 20], "other").unwrap();
    let value = format!("/nix/store/{other}");
    check_refused(move |_, text| replace_field(text, "StorePath", &value), "speaks of another object");
    check_refused(|_, text| format!("{text}{text}"), "is there twice");
    check_refused(|_, _| "x".repeat(3 << 20), "and not more");
    check_refused(|_, text| replace_field(text, "References", other.base_name()), "does not follow");
}

/// The path agrees with the content address that is claimed, and the NAR with its hash, but the one is not of the other.
#[test]
fn content_that_is_not_the_addresss_is_refused() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.store("one"), scratch.store("two"));
    let wanted: crate::hash::Hash = crate::hash::Sha256Digest::of(b"wanted").into();
    for (method, name) in [(crate::content_address::Method::Flat, "a"), (crate::content_address::Method::Text, "b")] {
        let address = ContentAddress { method, hash: wanted.clone() };
        let path = one.store_dir().content_addressed_path(name, &address, &References::default()).unwrap();
        let staged = one.stage_bytes(b"other").unwrap();
        let object = Registration {
            staged,
            path: path.clone(),
            references: BTreeSet::new(),
            deriver: None,
            content_address: Some(address),
        };
        one.register(vec![object]).unwrap();
        push(&scratch.cache(), &one, &path, ZSTD);
        let error = scratch.substituters(trust()).substitute(&two, &[path]).unwrap_err();
        assert!(error.to_string().contains("not what its path was computed from"), "{error}");
    }
    assert!(two.all_paths().unwrap().is_empty());
}

#[test]
fn a_second_cache_helps_where_the_first_is_broken() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.store("one"), scratch.store("two"));
    let source = add_source(&one, &scratch);
    let good = scratch.0.path().join("good");
    let open = |path: &Path| Cache::open_or_create(Box::new(Directory::new(path)), StoreDir::default()).unwrap();
    for cache in [scratch.cache(), open(&good)] {
        push(&cache, &one, &source, ZSTD);
    }
    let text = fs::read_to_string(scratch.cache_dir().join(narinfo_name(source.hash_part()))).unwrap();
    fs::write(archive(&scratch.cache_dir(), &text), "nonsense").unwrap();
    fs::write(scratch.cache_dir().join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 1\n").unwrap();
    let substituters = Substituters::new(vec![open(&good), scratch.cache()], trust());
    let got = substituters.substitute(&two, std::slice::from_ref(&source)).unwrap();
    assert_eq!(got.objects, [(source, format!("file://{}", good.display()))]);
}

#[test]
fn a_changed_object_is_not_passed_on() {
    let scratch = Scratch::new();
    let one = scratch.store("one");
    let output = add_output(&one, 1, &[]);
    let file = one.physical_path(&output);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&file, "changed").unwrap();
    let error = scratch.cache().push(&one, &[output].into(), ZSTD).unwrap_err();
    assert!(matches!(error, PushError::Changed { .. }), "{error}");
    assert!(scratch.cache().hash_parts().unwrap().is_empty());
}

#[test]
fn realisations_count_if_a_trusted_key_signed_them() {
    let scratch = Scratch::new();
    let derivation = StorePath::new(&[1; 20], "a.drv").unwrap();
    let path = StorePath::new(&[2; 20], "a").unwrap();
    let plain = Realisation { derivation: derivation.clone(), output: "out".to_owned(), path, signatures: [].into() };
    scratch.cache().push_realisation(&plain).unwrap();
    assert!(scratch.substituters(trust()).realisation(&derivation, "out", &|| None).is_none());
    assert!(scratch.substituters(Trust::Everything).realisation(&derivation, "out", &|| None).is_some());
    let signed = plain.signed(&key());
    scratch.cache().push_realisation(&signed).unwrap();
    assert_eq!(scratch.substituters(trust()).realisation(&derivation, "out", &|| None).unwrap().0, signed);
    assert!(scratch.substituters(trust()).realisation(&derivation, "dev", &|| None).is_none());
    assert_eq!(scratch.cache().realisations().unwrap(), [signed]);
}

#[test]
fn caches_for_others_are_refused() {
    let scratch = Scratch::new();
    let open = || Cache::open(Box::new(Directory::new(&scratch.cache_dir())), StoreDir::default());
    assert!(matches!(open(), Err(CacheError::NoCache { .. })));
    fs::create_dir(scratch.cache_dir()).unwrap();
    fs::write(scratch.cache_dir().join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
    assert!(matches!(open(), Err(CacheError::OtherStoreDir { .. })));
    fs::write(scratch.cache_dir().join("nix-cache-info"), "nonsense\n").unwrap();
    assert!(matches!(open(), Err(CacheError::Info { .. })));
}
