//! What is deleted, and what is not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Case;
use super::stock::{Stock, feed};
use crate::harness::{Workspace, wait_until};

pub const CASES: &[Case] = &[
    Case {
        number: 18,
        name: "gc",
        covers: "both keep and delete the same; roots are listed; what is needed is not deleted by name; leftovers go; the store can be emptied",
        tests: &[
            "tests/nix_functional/collecting.rs::the_same_live_and_the_same_die",
            "tests/garbage.rs::named_roots_keep_and_the_rest_goes",
            "store/src/local/collect/tests.rs::what_was_never_registered_goes",
        ],
        left_out: "",
    },
    Case {
        number: 19,
        name: "gc-concurrent",
        covers: "inputs and outputs of a running build, and its locks, outlive collections beside it",
        tests: &[
            "tests/nix_functional/collecting.rs::a_running_build_keeps_what_it_needs",
            "tests/garbage.rs::collecting_beside_builds_loses_nothing",
        ],
        left_out: "",
    },
    Case {
        number: 20,
        name: "gc-non-blocking",
        covers: "what is needed again during a collection is spared",
        tests: &["store/src/local/collect/tests.rs::what_is_needed_again_during_a_collection_is_spared"],
        left_out: "",
    },
    Case {
        number: 21,
        name: "gc-runtime",
        covers: "a running program, an open file, a working directory and an environment keep what they name, until the process ends",
        tests: &[
            "tests/nix_functional/collecting.rs::running_programs_keep_what_they_use",
            "store/src/local/collect/running.rs::what_runs_keeps_its_program_its_files_and_what_its_environment_names",
        ],
        left_out: "",
    },
    Case {
        number: 22,
        name: "gc-auto",
        covers: "a collection ends when enough is free",
        tests: &["store/src/local/collect/tests.rs::age_and_size_limit_a_collection"],
        left_out: "builds do not start collections themselves: `ampoule gc --max-free` does, beside builds",
    },
    Case {
        number: 23,
        name: "gc-closure",
        covers: "deletion with everything below, all or nothing, or of what may go of it",
        tests: &[
            "tests/nix_functional/collecting.rs::deletion_of_a_closure",
            "store/src/local/collect/tests.rs::a_deletion_takes_what_is_referred_to_and_spares_what_has_to_stay",
        ],
        left_out: "",
    },
    Case {
        number: 24,
        name: "selfref-gc",
        covers: "objects that refer to themselves or each other",
        tests: &[
            "tests/nix_functional/collecting.rs::what_refers_to_itself_can_go",
            "store/src/local/collect/tests.rs::circles_and_trees_go",
        ],
        left_out: "",
    },
    Case {
        number: 25,
        name: "delete-no-keep",
        covers: "what only a policy keeps, as the output of a live derivation, can be deleted by name; what a root keeps cannot; the policies agree on random graphs",
        tests: &[
            "tests/nix_functional/collecting.rs::policies_do_not_hinder_deletion_by_name",
            "store/src/local/collect/tests.rs::an_explicit_deletion_respects_roots",
            "store/tests/nix_garbage.rs::what_lives_and_what_is_dead_is_what_nix_says",
        ],
        left_out: "",
    },
];

/// A diamond: `top` needs `left` and `right`, which both need `bottom`; and `other`, which nobody needs.
const DIAMOND: &str = r#"
let
  build = name: inputs: derivation {
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo ${toString inputs} > $out" ];
  };
  bottom = build "bottom" [ "nothing" ];
  left = build "left" [ bottom ];
in [ (build "top" [ left (build "right" [ bottom ]) ]) (build "other" [ left ]) ]
"#;

/// The diamond in both stores, with the derivations; the paths of `top` and `other`.
fn diamond() -> Option<(Workspace, Stock, [String; 2])> {
    let workspace = Workspace::new();
    let stock = Stock::beside(&workspace)?;
    let built: [String; 2] = stock.build(DIAMOND).try_into().unwrap();
    let derivers = built.iter().map(|path| stock.store(&["--query", "--deriver", path]));
    let starts: Vec<String> = derivers.chain(built.iter().cloned()).collect();
    let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
    let needed = stock.store(&[&["--query", "--requisites"], &starts[..]].concat());
    let stream = stock.bytes("nix-store", &[&["--export"], &needed.lines().collect::<Vec<_>>()[..]].concat());
    let imported = feed(workspace.command().args(["store", "import"]), &stream);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    Some((workspace, stock, built))
}

/// Keeps an object in Nix's store.
fn keep(workspace: &Workspace, name: &str, path: &str) {
    let roots = workspace.path().join("stock/root/nix/var/nix/gcroots");
    fs::create_dir_all(&roots).unwrap();
    symlink(path, roots.join(name)).unwrap();
}

fn is_valid(workspace: &Workspace, path: &str) -> bool {
    workspace.run(&["store", "info", path]).code == 0
}

/// What would be deleted, by both, without derivations: those are kept in another way here.
fn dead(workspace: &Workspace, stock: &Stock) -> [BTreeSet<String>; 2] {
    let plan = workspace.ok(&["gc", "--dry-run", "--json"]).json();
    let ours = plan["objects"].as_array().unwrap().iter().map(|object| object["path"].as_str().unwrap().to_owned());
    let theirs = stock.store(&["--gc", "--print-dead"]);
    let objects = |paths: &mut dyn Iterator<Item = String>| -> BTreeSet<String> {
        paths.filter(|path| path.starts_with("/nix/store/") && !path.ends_with(".drv")).collect()
    };
    [objects(&mut ours.into_iter()), objects(&mut theirs.lines().map(str::to_owned))]
}

#[test]
fn the_same_live_and_the_same_die() {
    let Some((workspace, stock, [top, other])) = diamond() else { return };
    let store = workspace.home().join("store");
    let [ours, theirs] = dead(&workspace, &stock);
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 5, "no root, so nothing lives");
    workspace.ok(&["store", "roots", "add", "mine", &top]);
    keep(&workspace, "mine", &top);
    let [ours, theirs] = dead(&workspace, &stock);
    assert_eq!(ours, theirs);
    assert_eq!(ours, BTreeSet::from([other.clone()]));
    assert!(stock.store(&["--query", "--roots", &top]).contains("mine"));
    assert_eq!(workspace.ok(&["store", "roots", "list"]).stdout, format!("mine\n  {top}\n"));
    // Not by name either.
    let requisites = stock.store(&["--query", "--requisites", &top]);
    for path in requisites.lines() {
        assert_ne!(stock.run("nix-store", &["--delete", path]).code, 0, "{path}");
        assert_eq!(workspace.run(&["store", "delete", path]).code, 1, "{path}");
    }
    // Leftovers of others.
    fs::create_dir(store.join("00000000000000000000000000000000-x.drv.chroot")).unwrap();
    fs::write(store.join("00000000000000000000000000000000-x.lock"), "").unwrap();
    workspace.ok(&["gc"]);
    stock.store(&["--gc"]);
    for path in requisites.lines().chain([&*other]) {
        assert_eq!(is_valid(&workspace, path), stock.has(path), "{path}");
        assert_eq!(is_valid(&workspace, path), *path != other, "{path}");
    }
    workspace.verify_store();
    stock.store(&["--verify", "--check-contents"]);
    // And nothing in the end.
    workspace.ok(&["store", "roots", "remove", "mine"]);
    workspace.ok(&["gc", "--keep-derivations", "false"]);
    assert_eq!(fs::read_dir(store).unwrap().count(), 0);
    assert_eq!(workspace.ok(&["store", "dump-db"]).stdout, "");
}

#[test]
fn a_running_build_keeps_what_it_needs() {
    let recipe = r#"
lower = sh(name = "lower", script = "echo lower > $out")
sh(name = "slow", script = "for i in $(seq 15); do sleep 0.2; cat %s; done > $out" % lower)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.ok(&["sources", "fetch", "--offline"]);
    let mut build = workspace.start(&["build", "--offline", "//:slow"]);
    let mut collections = 0;
    while build.try_wait().unwrap().is_none() {
        workspace.ok(&["gc"]);
        collections += 1;
    }
    let ran = crate::harness::Ran::from(build.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "after {collections} collections: {}", ran.stderr);
    workspace.verify_store();
}

#[test]
fn running_programs_keep_what_they_use() {
    let workspace = Workspace::new();
    let add = |name: &str| {
        let tree = workspace.path().join(name);
        fs::create_dir(&tree).unwrap();
        fs::copy("/bin/sleep", tree.join("sleep")).unwrap();
        fs::set_permissions(tree.join("sleep"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("file"), name).unwrap();
        let path = workspace.ok(&["store", "add", tree.to_str().unwrap()]).text().to_owned();
        let on_disk = workspace.home().join("store").join(&path["/nix/store/".len()..]);
        (path, on_disk)
    };
    let used: Vec<(String, std::path::PathBuf)> =
        ["program", "open", "directory", "environment"].iter().map(|name| add(name)).collect();
    let (unused, _) = add("unused");
    let sleep = |program: &Path| {
        let mut command = Command::new(program);
        command.arg("600").stdin(Stdio::null());
        command
    };
    let mut processes = vec![
        sleep(&used[0].1.join("sleep")).spawn().unwrap(),
        sleep(Path::new("sleep")).stdin(fs::File::open(used[1].1.join("file")).unwrap()).spawn().unwrap(),
        sleep(Path::new("sleep")).current_dir(&used[2].1).spawn().unwrap(),
        sleep(Path::new("sleep")).env("USES", format!("x{}/file", used[3].0)).spawn().unwrap(),
    ];
    // Until each has become what it is to be.
    for process in &processes {
        let line = format!("/proc/{}/cmdline", process.id());
        wait_until("a program starts", || fs::read(&line).is_ok_and(|line| line.ends_with(b"600\0")));
    }
    workspace.ok(&["gc"]);
    for (path, _) in &used {
        assert!(is_valid(&workspace, path), "{path}");
        workspace.fails(1, &["store", "delete", path]);
    }
    assert!(!is_valid(&workspace, &unused));
    for process in &mut processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    workspace.ok(&["gc"]);
    assert!(used.iter().all(|(path, _)| !is_valid(&workspace, path)));
}

#[test]
fn deletion_of_a_closure() {
    let Some((workspace, stock, [top, other])) = diamond() else { return };
    let requisites = stock.store(&["--query", "--requisites", &top]);
    let path = |name: &str| requisites.lines().find(|path| path.ends_with(name)).unwrap();
    // `other` needs `left` and so `bottom`.
    workspace.fails(1, &["store", "delete", "--recursive", &top]);
    assert!(requisites.lines().all(|path| is_valid(&workspace, path)), "all or nothing");
    workspace.ok(&["store", "delete", "--recursive", "--skip-live", &top]);
    for (path, stays) in [(&*top, false), (path("-right"), false), (path("-left"), true), (path("-bottom"), true)] {
        assert_eq!(is_valid(&workspace, path), stays, "{path}");
    }
    workspace.ok(&["store", "delete", "--recursive", &other]);
    assert!(requisites.lines().all(|path| !is_valid(&workspace, path)));
    workspace.verify_store();
}

#[test]
fn what_refers_to_itself_can_go() {
    let workspace = Workspace::new();
    let Some(stock) = Stock::beside(&workspace) else { return };
    let itself = stock.build(
        r#"derivation {
          name = "itself"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo $out > $out" ];
        }"#,
    );
    let path = &itself[0];
    assert_eq!(stock.store(&["--query", "--references", path]), *path);
    let stream = stock.bytes("nix-store", &["--export", path]);
    let imported = feed(workspace.command().args(["store", "import", "--trust"]), &stream);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let info = workspace.ok(&["store", "info", "--json", path]).json();
    assert_eq!(info[path]["references"], serde_json::json!([path]));
    workspace.ok(&["store", "delete", path]);
    stock.store(&["--delete", path]);
    assert!(!is_valid(&workspace, path) && !stock.has(path));
}

#[test]
fn policies_do_not_hinder_deletion_by_name() {
    let Some((workspace, stock, [top, _])) = diamond() else { return };
    let derivation = stock.store(&["--query", "--deriver", &top]);
    workspace.ok(&["store", "roots", "add", "mine", &derivation]);
    keep(&workspace, "mine", &derivation);
    stock.set("keep-outputs = true");
    workspace.ok(&["gc", "--keep-outputs"]);
    stock.store(&["--gc"]);
    assert!(is_valid(&workspace, &top) && stock.has(&top), "a policy keeps it");
    workspace.ok(&["store", "delete", &top]);
    // That of this version has to be told; later ones know.
    stock.store(&["--delete", &top, "--option", "keep-outputs", "false"]);
    assert!(!is_valid(&workspace, &top) && !stock.has(&top));
    // A root does hinder it.
    assert_eq!(workspace.run(&["store", "delete", &derivation]).code, 1);
    assert_ne!(stock.run("nix-store", &["--delete", &derivation]).code, 0);
}
