//! `ampoule store repair` and `verify`: broken objects are found, and good ones take their places.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{Ran, Workspace, remove_tree};

/// Gives a file other bytes, as a failing disk would.
fn spoil(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, "spoilt").unwrap();
}

#[test]
fn broken_outputs_are_built_again_inputs_first() {
    let recipe = r#"
upper = sh(name = "upper", script = "echo upper > $out")
sh(name = "lower", script = "mkdir -p $out/share; cat %s > $out/share/text" % upper)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let (upper, lower) = (workspace.ok(&["build", "//:upper"]).path(), workspace.ok(&["build", "//:lower"]).path());
    spoil(&upper);
    remove_tree(&lower);
    workspace.fails(1, &["store", "verify"]).says(&["2 things are wrong", "repair --all"]);
    let ran = workspace.ok(&["store", "repair", "--all", "--offline"]);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    for (object, file) in [(&upper, upper.clone()), (&lower, lower.join("share/text"))] {
        assert_eq!(fs::read_to_string(file).unwrap(), "upper\n", "{}", object.display());
    }
    workspace.verify_store();
    assert_eq!(workspace.ok(&["store", "repair", "--all"]).stdout, "", "nothing is left to do");
}

#[test]
fn a_build_that_gives_other_bytes_replaces_nothing() {
    let recipe = r#"sh(name = "once", script = "cat /proc/sys/kernel/random/uuid > $out")"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let once = workspace.ok(&["build", "//:once"]).path();
    spoil(&once);
    let path = once.to_str().unwrap();
    workspace.fails(1, &["store", "repair", path]).says(&["still broken", "gives other content now"]);
    assert_eq!(fs::read_to_string(&once).unwrap(), "spoilt");
}

#[test]
fn a_file_from_elsewhere_must_have_the_registered_content() {
    let workspace = Workspace::new();
    let (good, bad) = (workspace.path().join("data"), workspace.path().join("bad"));
    fs::write(&good, "good").unwrap();
    fs::write(&bad, "bad").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let path = workspace.ok(&["store", "add", good]).stdout.trim().to_owned();
    let object = workspace.home().join("store").join(path.rsplit('/').next().unwrap());
    spoil(&object);
    workspace.fails(1, &["store", "repair", &path]).says(&["no derivation is known", "--from FILE"]);
    workspace.fails(1, &["store", "repair", &path, "--from", bad]).says(&["has the archive hash"]);
    assert_eq!(fs::read_to_string(&object).unwrap(), "spoilt");
    workspace.ok(&["store", "repair", &path, "--from", good]);
    assert_eq!(fs::read_to_string(&object).unwrap(), "good");
    let ran = workspace.ok(&["store", "verify", "--json", "--older-than", "1", "--rate", "100000000"]);
    assert!(ran.stdout.contains("\"trusted\": 1"), "{}", ran.stdout);
    // Modes are put right where they are.
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    workspace.fails(1, &["store", "verify", &path]).says(&["1 things are wrong"]);
    workspace.ok(&["store", "repair", &path]);
    workspace.verify_store();
}

#[test]
fn identical_files_share_after_optimising_or_at_once() {
    let workspace = Workspace::new();
    let tree = workspace.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for name in ["a", "b", "run"] {
        fs::write(tree.join(name), "x".repeat(10_000)).unwrap();
    }
    fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    workspace.ok(&["store", "add", tree.to_str().unwrap()]);
    let shared = |arguments: &[&str]| workspace.ok(arguments).json()["shared"].as_u64().unwrap();
    assert_eq!(shared(&["store", "optimise", "--dry-run", "--json"]), 1);
    let ran = workspace.ok(&["store", "optimise"]);
    assert!(ran.text().starts_with("1 of 3 new files share the bytes of others"), "{}", ran.stdout);
    assert_eq!(shared(&["store", "optimise", "--json"]), 0);
    let other = workspace.path().join("other");
    fs::write(&other, "x".repeat(10_000)).unwrap();
    workspace.ok(&["store", "add", "--optimise", other.to_str().unwrap()]);
    assert_eq!(shared(&["store", "optimise", "--json"]), 0);
    workspace.verify_store();
}

/// Spoils a store with one tree of which a cache has a copy; gives the store path, the spoilt file and the cache.
fn spoilt_with_cache(workspace: &Workspace) -> (String, PathBuf, PathBuf) {
    let (tree, cache) = (workspace.path().join("tree"), workspace.path().join("cache"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("data"), "good".repeat(1000)).unwrap();
    fs::write(tree.join("same"), "good".repeat(1000)).unwrap();
    let path = workspace.ok(&["store", "add", "--optimise", tree.to_str().unwrap()]).text().to_owned();
    workspace.ok(&["copy", "--to", cache.to_str().unwrap(), "--compression", "none", &path]);
    let object = workspace.home().join("store").join(path.rsplit('/').next().unwrap());
    spoil(&object.join("data"));
    (path, object.join("data"), cache)
}

#[test]
fn caches_that_send_the_registered_content_repair_what_no_derivation_makes() {
    let workspace = Workspace::new();
    let (path, data, cache) = spoilt_with_cache(&workspace);
    workspace.fails(1, &["store", "repair", &path]).says(&["no derivation is known"]);
    // Nobody signed it: the hash that is registered says more.
    let cache = format!("file://{}", cache.display());
    workspace.fails(1, &["store", "repair", "--offline", "--substituter", &cache, &path]);
    assert_eq!(fs::read_to_string(&data).unwrap(), "spoilt");
    assert_eq!(workspace.ok(&["store", "repair", "--all", "--substituter", &cache]).text(), path);
    for name in ["data", "same"] {
        assert_eq!(fs::read_to_string(data.with_file_name(name)).unwrap(), "good".repeat(1000));
    }
    workspace.verify_store();
    let shared = workspace.ok(&["store", "optimise", "--json"]).json()["shared"].as_u64().unwrap();
    assert_eq!(shared, 1, "what was repaired may share again");
    workspace.verify_store();
}

#[test]
fn caches_of_the_configuration_are_asked_and_broken_copies_replace_nothing() {
    let workspace = Workspace::new();
    let (path, data, cache) = spoilt_with_cache(&workspace);
    let configuration = workspace.path().join("config.toml");
    fs::write(&configuration, format!("[caches]\nsubstituters = [{cache:?}]\n")).unwrap();
    let repair = || {
        let mut command = workspace.command();
        command.args(["store", "repair", "--all"]).env("AMPOULE_CONFIG", &configuration);
        Ran::from(command.output().unwrap())
    };
    let archive = fs::read_dir(cache.join("nar")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&archive).unwrap();
    let mut bad = good.clone();
    let place = bad.windows(8).position(|window| window == b"goodgood").unwrap();
    bad[place] = b'G';
    for bytes in [&bad[..], &good[..good.len() - 8], b""] {
        write_over(&archive, bytes);
        let ran = repair();
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        ran.says(&["is still broken", "cache"]);
        assert_eq!(fs::read_to_string(&data).unwrap(), "spoilt");
    }
    write_over(&archive, &good);
    assert_eq!(repair().text(), path);
    workspace.verify_store();
}

fn write_over(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}
