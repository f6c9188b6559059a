#![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

use std::fs;
use std::io::Write as _;

use super::super::derivations::DerivationRow;
use super::super::fixture::{Home, file, path, register, stage};
use super::super::realisations::{RealisationRecord, Verdict};
use super::super::register::Registration;
use super::*;

/// Registers objects and lets go of them, as a process that ends.
fn fill(home: &Home, objects: &[(&StorePath, &[&StorePath])]) {
    let store = home.open();
    for (path, references) in objects {
        register(&store, file(&store, path, path.base_name(), references));
    }
}

fn collect(store: &LocalStore, policy: &Policy<'_>) -> Collected {
    store.collect_garbage(policy, &mut |_, _| {}).unwrap()
}

fn paths(objects: &[DeadObject]) -> BTreeSet<StorePath> {
    objects.iter().map(|object| object.path.clone()).collect()
}

#[test]
fn what_no_root_reaches_goes_and_a_dry_run_says_so_before() {
    let home = Home::new();
    let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|digit| path(digit, "p"));
    // `e` speaks of itself, and `d` is rooted by name.
    fill(&home, &[(&a, &[]), (&b, &[&a]), (&c, &[&a]), (&d, &[&b]), (&e, &[&e])]);
    let store = home.open();
    store.add_root("kept", std::slice::from_ref(&d)).unwrap();
    drop(store);
    let store = home.open();
    let garbage = store.find_garbage(&Policy::default()).unwrap();
    assert_eq!(paths(&garbage.objects), [c.clone(), e.clone()].into());
    assert_eq!((garbage.live_objects, garbage.live_bytes), (3, 3 * garbage.objects[0].nar_size));
    let mut told = Vec::new();
    let collected = store.collect_garbage(&Policy::default(), &mut |done, total| told.push((done, total))).unwrap();
    assert_eq!((collected.objects, told), (garbage.objects, vec![(2, 2)]));
    assert_eq!(store.all_paths().unwrap(), [a, b, d].into());
    assert!(!store.physical_path(&c).exists());
    assert!(store.verify().unwrap().is_empty());
    store.remove_root("kept").unwrap();
    collect(&store, &Policy::default());
    assert!(store.all_paths().unwrap().is_empty());
    assert_eq!(fs::read_dir(home.path().join("store")).unwrap().count(), 0);
}

#[test]
fn circles_and_trees_go() {
    let home = Home::new();
    let [a, b, c] = [1, 2, 3].map(|digit| path(digit, "p"));
    let tree = home.sources().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/c"), "").unwrap();
    let store = home.open();
    let staged = stage(&store, &tree).unwrap();
    let batch = vec![
        file(&store, &a, "a", &[&b]),
        file(&store, &b, "b", &[&a, &c]),
        Registration { staged, ..file(&store, &c, "", &[]) },
    ];
    store.register(batch).unwrap();
    assert!(collect(&store, &Policy::default()).objects.is_empty(), "its own process still holds them");
    drop(store);
    assert_eq!(collect(&home.open(), &Policy::default()).objects.len(), 3);
    assert_eq!(fs::read_dir(home.path().join("store")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_link_keeps_its_object_until_it_is_removed() {
    let home = Home::new();
    let a = path(1, "a");
    fill(&home, &[(&a, &[])]);
    let link = home.sources().join("result");
    home.open().add_link(&link, &a).unwrap();
    let store = home.open();
    assert!(collect(&store, &Policy::default()).objects.is_empty());
    fs::remove_file(&link).unwrap();
    assert_eq!(store.find_garbage(&Policy::default()).unwrap().stale_links, [link.to_str().unwrap()]);
    let collected = collect(&store, &Policy::default());
    assert_eq!((collected.objects.len(), collected.stale_links.len()), (1, 1));
    assert!(store.roots().unwrap().is_empty());
}

#[test]
fn what_a_living_process_protects_stays() {
    let home = Home::new();
    let [a, b, c] = [1, 2, 3].map(|digit| path(digit, "p"));
    fill(&home, &[(&a, &[]), (&b, &[&a]), (&c, &[])]);
    let (user, collector) = (home.open(), home.open());
    assert!(user.keep_valid(&b).unwrap());
    assert_eq!(paths(&collect(&collector, &Policy::default()).objects), [c].into());
    assert!(collector.delete_dead(std::slice::from_ref(&a)).unwrap_err().to_string().contains("a running process"));
    drop(user);
    assert_eq!(collect(&collector, &Policy::default()).objects.len(), 2);
}

/// What becomes reachable while a collection is under way is spared, by whatever way.
#[test]
fn what_is_needed_again_during_a_collection_is_spared() {
    let home = Home::new();
    let [a, b, c, d, e, f, new] = [1, 2, 3, 4, 5, 6, 7].map(|digit| path(digit, "p"));
    fill(&home, &[(&a, &[]), (&b, &[&a]), (&c, &[]), (&d, &[]), (&e, &[]), (&f, &[])]);
    let store = home.open();
    let policy = Policy::default();
    let (graph, live) = store.survey(&policy).unwrap();
    let order = store.chosen(&graph, &live, &policy);
    assert_eq!(order.len(), 6);
    let user = home.open();
    // Protected by a process that lives; rooted by one that ended; needed by an object nobody holds.
    user.protect([&b]).unwrap();
    home.open().add_root("c", std::slice::from_ref(&c)).unwrap();
    fill(&home, &[(&new, &[&d])]);
    // Deleted by somebody else, and made again in the same place.
    store.delete(std::slice::from_ref(&f)).unwrap();
    fill(&home, &[(&f, &[&e])]);
    user.protect([&f]).unwrap();
    let mut collected = Collected::default();
    store.sweep(&graph, live, &policy, &order, &mut collected, &mut |_, _| {}).unwrap();
    assert_eq!(paths(&collected.objects), [].into());
    drop(user);
    assert_eq!(paths(&collect(&store, &policy).objects), [a, b, d, e, f, new].into());
}

fn derivation(store: &LocalStore, name: &str, references: &[&StorePath]) -> StorePath {
    let references: BTreeSet<_> = references.iter().map(|path| (*path).clone()).collect();
    let aterm = name.as_bytes().to_vec();
    let path = store.store_dir().text_path(name, &aterm, &references).unwrap();
    store.add_derivations(&[DerivationRow { path: path.clone(), aterm, references }]).unwrap();
    path
}

fn realise(store: &LocalStore, derivation: &StorePath, path: &StorePath) {
    let record = RealisationRecord {
        derivation: derivation.clone(),
        output: "out".into(),
        path: path.clone(),
        nar_hash: None,
        engine: "test".into(),
        started_at: 0,
        duration_milliseconds: 0,
        log: None,
        verdict: Verdict::First,
    };
    store.record_realisation(&record).unwrap();
}

/// A source, an input with its derivation, and an output with its own, as `(source, input, output, [derivations])`.
fn built(home: &Home) -> (StorePath, StorePath, StorePath, [StorePath; 2]) {
    let (source, input, output) = (path(1, "source"), path(2, "input"), path(3, "output"));
    fill(home, &[(&source, &[]), (&input, &[]), (&output, &[])]);
    let store = home.open();
    let lower = derivation(&store, "lower.drv", &[]);
    let upper = derivation(&store, "upper.drv", &[&lower, &source]);
    realise(&store, &lower, &input);
    realise(&store, &upper, &output);
    (source, input, output, [lower, upper])
}

#[test]
fn derivations_and_outputs_are_kept_as_the_policy_says() {
    let home = Home::new();
    let (source, input, output, [lower, upper]) = built(&home);
    home.open().add_root("x", std::slice::from_ref(&output)).unwrap();
    let store = home.open();
    let dead = |keep_derivations, keep_outputs: bool| {
        let none = |_: &StorePath, _: &[u8]| Vec::new();
        let keep_outputs: Option<&OutputsOf<'_>> = if keep_outputs { Some(&none) } else { None };
        let garbage = store.find_garbage(&Policy { keep_derivations, keep_outputs, ..Policy::default() }).unwrap();
        (paths(&garbage.objects), garbage.derivations.into_iter().collect::<BTreeSet<_>>())
    };
    assert_eq!(dead(true, true), (BTreeSet::new(), BTreeSet::new()));
    assert_eq!(dead(true, false), ([input.clone()].into(), BTreeSet::new()));
    let all = ([input, source].into(), [lower, upper.clone()].into());
    assert_eq!(dead(false, false), all);
    assert_eq!(dead(false, true), all);
    // A derivation as a root keeps what it refers to, and its outputs if they are to be kept.
    store.remove_root("x").unwrap();
    home.open().add_root("y", std::slice::from_ref(&upper)).unwrap();
    assert_eq!(dead(false, true).0.len(), 0);
    assert_eq!(dead(true, false).0.len(), 2);
}

#[test]
fn outputs_that_derivations_state_are_kept_when_asked_for() {
    let home = Home::new();
    let fetched = path(4, "fetched");
    fill(&home, &[(&fetched, &[])]);
    let store = home.open();
    let fetch = derivation(&store, "fetch.drv", &[]);
    store.add_root("x", std::slice::from_ref(&fetch)).unwrap();
    drop(store);
    let outputs = |derivation: &StorePath, text: &[u8]| {
        assert_eq!((derivation, text), (&fetch, &b"fetch.drv"[..]));
        vec![fetched.clone()]
    };
    let policy = Policy { keep_outputs: Some(&outputs), ..Policy::default() };
    let store = home.open();
    assert!(store.find_garbage(&policy).unwrap().objects.is_empty());
    assert_eq!(store.find_garbage(&Policy::default()).unwrap().objects.len(), 1);
}

#[test]
fn dead_derivations_go_with_their_logs_when_asked_for() {
    let home = Home::new();
    let (_, _, _, [lower, upper]) = built(&home);
    let store = home.open();
    for derivation in [&lower, &upper] {
        let mut log = store.log_writer(derivation).unwrap();
        log.write_all(b"hello").unwrap();
        log.finish().unwrap();
    }
    let collected = collect(&store, &Policy::default());
    assert_eq!((collected.objects.len(), collected.derivations.len(), collected.logs), (3, 2, 0));
    assert!(store.all_derivations().unwrap().is_empty());
    assert!(store.open_log(&upper).unwrap().is_some());
    let upper = derivation(&home.open(), "upper.drv", &[]);
    let mut log = store.log_writer(&upper).unwrap();
    log.write_all(b"hello").unwrap();
    log.finish().unwrap();
    assert_eq!(collect(&store, &Policy { delete_logs: true, ..Policy::default() }).logs, 1);
    assert!(store.open_log(&upper).unwrap().is_none());
}

#[test]
fn age_and_size_limit_a_collection() {
    let home = Home::new();
    let [a, b, c] = [1, 2, 3].map(|digit| path(digit, "p"));
    fill(&home, &[(&a, &[]), (&b, &[&a]), (&c, &[])]);
    let store = home.open();
    for (path, time) in [(&a, 100), (&b, 300), (&c, 200)] {
        store
            .database
            .write::<_, DatabaseError>("x", |t| {
                Ok(t.execute("UPDATE objects SET registered_at = ?2 WHERE path = ?1", (path.base_name(), time))?)
            })
            .unwrap();
    }
    let dead = |policy: Policy<'_>| paths(&store.find_garbage(&policy).unwrap().objects);
    assert_eq!(dead(Policy { registered_before: Some(300), ..Policy::default() }), [c.clone()].into());
    assert_eq!(dead(Policy { registered_before: Some(50), ..Policy::default() }), [].into());
    assert_eq!(dead(Policy { registered_before: Some(301), ..Policy::default() }).len(), 3);
    // The oldest of those that nothing refers to.
    assert_eq!(dead(Policy { enough_bytes: Some(1), ..Policy::default() }), [c.clone()].into());
    assert_eq!(dead(Policy { enough_bytes: Some(0), ..Policy::default() }), [].into());
    let size = store.path_info(&c).unwrap().unwrap().nar_size;
    let policy = Policy { enough_bytes: Some(size + 1), ..Policy::default() };
    assert_eq!(paths(&collect(&store, &policy).objects), [b, c].into());
    assert_eq!(store.all_paths().unwrap(), [a].into());
}

#[test]
fn what_was_never_registered_goes() {
    let home = Home::new();
    let a = path(1, "a");
    fill(&home, &[(&a, &[])]);
    home.open().add_root("a", std::slice::from_ref(&a)).unwrap();
    let directory = home.path().join("store");
    fs::create_dir_all(directory.join(path(2, "tree").base_name()).join("b")).unwrap();
    fs::write(directory.join(path(3, "file").base_name()), "").unwrap();
    fs::write(directory.join("stray"), "").unwrap();
    fs::create_dir(directory.join(".links")).unwrap();
    let store = home.open();
    assert_eq!(collect(&store, &Policy::default()).leftovers, 3);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    assert!(store.is_valid(&a).unwrap());
}

#[test]
fn nothing_is_deleted_when_a_root_cannot_be_understood() {
    let home = Home::new();
    let a = path(1, "a");
    fill(&home, &[(&a, &[])]);
    fs::write(home.path().join("roots/x"), "not a root").unwrap();
    let store = home.open();
    let error = store.collect_garbage(&Policy::default(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, CollectError::Root(RootError::Malformed { .. })), "{error}");
    assert!(store.is_valid(&a).unwrap());
}

#[test]
fn an_explicit_deletion_respects_roots() {
    let home = Home::new();
    let [a, b, c] = [1, 2, 3].map(|digit| path(digit, "p"));
    fill(&home, &[(&a, &[]), (&b, &[&a]), (&c, &[])]);
    home.open().add_root("mine", std::slice::from_ref(&b)).unwrap();
    let store = home.open();
    let error = store.delete_dead(&[c.clone(), a.clone()]).unwrap_err();
    assert_eq!(error.to_string(), format!("`{a}` cannot be deleted, because the root `mine` keeps it"));
    store.delete_dead(std::slice::from_ref(&c)).unwrap();
    assert_eq!(store.all_paths().unwrap(), [a, b].into());
}

#[test]
fn the_database_shrinks_when_much_of_it_is_free() {
    let home = Home::new();
    let store = home.open();
    let rows: Vec<DerivationRow> = (0..2000_u32)
        .map(|number| {
            let aterm = format!("{number} {}", "x".repeat(1500)).into_bytes();
            let path = store.store_dir().text_path("x.drv", &aterm, &BTreeSet::new()).unwrap();
            DerivationRow { path, aterm, references: BTreeSet::new() }
        })
        .collect();
    store.add_derivations(&rows).unwrap();
    drop(store);
    let store = home.open();
    let collected = collect(&store, &Policy::default());
    assert_eq!(collected.derivations.len(), 2000);
    assert!(collected.database_bytes > 2_000_000, "{}", collected.database_bytes);
    let size = |name| fs::metadata(home.path().join("db").join(name)).unwrap().len();
    assert!(size("store.sqlite") < 1_000_000, "{}", size("store.sqlite"));
    assert_eq!(size("store.sqlite-wal"), 0);
}

#[test]
fn a_deletion_takes_what_is_referred_to_and_spares_what_has_to_stay() {
    let home = Home::new();
    let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|digit| path(digit, "p"));
    // `d` is needed by `e`, which nobody names; `a` by the root `c`.
    let objects: [(&StorePath, &[&StorePath]); 5] = [(&a, &[]), (&d, &[&d]), (&b, &[&a, &d]), (&c, &[&a]), (&e, &[&d])];
    fill(&home, &objects);
    home.open().add_root("c", std::slice::from_ref(&c)).unwrap();
    let store = home.open();
    let delete =
        |recursive, skip_live| store.delete_dead_with(std::slice::from_ref(&b), DeleteOptions { recursive, skip_live });
    assert!(matches!(delete(true, false), Err(DeleteDeadError::Alive { path, .. }) if path == a));
    assert_eq!(delete(true, true).unwrap(), [b.clone()].into());
    assert_eq!(delete(true, true).unwrap(), [].into(), "it is gone already");
    let rest = [e.clone(), c.clone()];
    let all = DeleteOptions { recursive: true, skip_live: true };
    assert_eq!(store.delete_dead_with(&rest, all).unwrap(), [d, e].into());
    assert_eq!(store.all_paths().unwrap(), [a, c].into());
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn room_on_disk_is_that_which_nothing_else_shares() {
    let home = Home::new();
    let [a, b] = [1, 2].map(|digit| path(digit, "p"));
    let tree = home.sources().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/large"), vec![b'x'; 1 << 20]).unwrap();
    let store = home.open();
    for one in [&a, &b] {
        register(&store, Registration { staged: stage(&store, &tree).unwrap(), ..file(&store, one, "", &[]) });
    }
    let alone = store.disk_usage([&a]).unwrap();
    assert!(alone >= 1 << 20, "{alone}");
    store.optimise(None, super::super::Intent::Share).unwrap();
    let shared = store.disk_usage([&a]).unwrap();
    let both = store.disk_usage([&a, &b]).unwrap();
    assert!(shared < 1 << 20 || both >= 2 << 20, "a file system that shares blocks tells of both: {shared}, {both}");
    assert!((1 << 20..3 << 20).contains(&both), "{both}");
    assert_eq!(store.disk_usage([&path(9, "unknown")]).unwrap(), 0);
    drop(store);
    let garbage = home.open().find_garbage(&Policy::default()).unwrap();
    assert_eq!(garbage.disk_bytes, both);
}

#[test]
fn records_go_when_nothing_is_left_of_what_they_speak_of() {
    let home = Home::new();
    let (source, _, output, [_, upper]) = built(&home);
    home.open().add_root("x", std::slice::from_ref(&output)).unwrap();
    let store = home.open();
    let policy = Policy { keep_derivations: false, ..Policy::default() };
    let collected = collect(&store, &policy);
    assert!(!store.is_valid(&source).unwrap());
    assert_eq!((collected.derivations.len(), collected.records), (2, 1), "that of the input");
    assert_eq!(store.realisation(&upper, "out").unwrap(), Some(output), "its output is there");
    store.remove_root("x").unwrap();
    assert_eq!(collect(&store, &policy).records, 1);
}

#[test]
fn old_downloads_and_logs_of_nothing_go() {
    let home = Home::new();
    let store = home.open();
    let (gone, known) = (path(1, "gone.drv"), derivation(&store, "known.drv", &[]));
    store.add_root("known", std::slice::from_ref(&known)).unwrap();
    let mut files = vec![store.downloads().join("old"), store.downloads().join("new")];
    for derivation in [&gone, &known] {
        let mut log = store.log_writer(derivation).unwrap();
        log.write_all(b"hello").unwrap();
        let name = log.finish().unwrap();
        files.push(store.log_directory(derivation).join(name));
    }
    fs::write(&files[0], "x").unwrap();
    fs::write(&files[1], "x").unwrap();
    for old in [0, 2, 3] {
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::options().write(true).open(&files[old]).unwrap().set_times(times).unwrap();
    }
    let collected = collect(&store, &Policy::default());
    assert_eq!((collected.downloads, collected.logs), (1, 1));
    assert_eq!(files.iter().map(|file| file.exists()).collect::<Vec<_>>(), [false, true, false, true]);
}
