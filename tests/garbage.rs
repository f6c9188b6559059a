//! `ampoule gc`, roots, and the questions that tell why something is kept.

use std::fs;
use std::path::Path;

use crate::harness::Workspace;

/// Adds a file with this content, and gives its store path.
fn add(workspace: &Workspace, name: &str, content: &str) -> String {
    let file = workspace.path().join(name);
    fs::write(&file, content).unwrap();
    workspace.ok(&["store", "add", file.to_str().unwrap()]).text().to_owned()
}

fn is_valid(workspace: &Workspace, path: &str) -> bool {
    workspace.run(&["store", "info", path]).code == 0
}

#[test]
fn named_roots_keep_and_the_rest_goes() {
    let workspace = Workspace::new();
    let (kept, dead) = (add(&workspace, "kept", "kept"), add(&workspace, "dead", "dead"));
    workspace.ok(&["store", "roots", "add", "mine", &kept]);
    let listed = workspace.ok(&["store", "roots", "list"]).stdout;
    assert_eq!(listed, format!("mine\n  {kept}\n"));
    let plan = workspace.ok(&["gc", "--dry-run", "--json"]).json();
    assert_eq!(plan["objects"][0]["path"], dead.as_str());
    assert_eq!((&plan["liveObjects"], plan["objects"].as_array().unwrap().len()), (&1.into(), 1));
    assert!(workspace.ok(&["gc", "--dry-run"]).stdout.contains(&dead));
    assert!(is_valid(&workspace, &dead), "a dry run deletes nothing");
    workspace.ok(&["gc", "--older-than", "1d"]).says(&["deleted 0 objects"]);
    workspace.ok(&["store", "gc"]).says(&["deleted 1 objects"]);
    assert!(is_valid(&workspace, &kept) && !is_valid(&workspace, &dead));
    workspace.fails(1, &["store", "delete", &kept]).says(&["the root `mine` keeps it", "hint: "]);
    workspace.fails(1, &["store", "roots", "remove", "other"]).says(&["there is no root `other`"]);
    workspace.ok(&["store", "roots", "remove", "mine"]);
    assert_eq!(workspace.ok(&["gc", "--json"]).json()["objects"][0]["path"], kept.as_str());
    assert_eq!(fs::read_dir(workspace.home().join("store")).unwrap().count(), 0);
    workspace.fails(1, &["store", "roots", "add", "mine", &kept]).says(&["is not valid"]);
    workspace.fails(2, &["gc", "--max-free", "much"]).says(&["a whole number is wanted"]);
}

const RECIPE: &str = r#"
lower = sh(name = "lower", script = "mkdir -p $out/lib; echo lower > $out/lib/data")
sh(name = "upper", script = "mkdir -p $out/etc; echo %s > $out/etc/config; echo hello > $out/a" % lower)
"#;

#[test]
fn links_of_builds_keep_results_until_they_are_removed() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let link = workspace.path().join("result");
    let built = workspace.ok(&["build", "--json", "-o", link.to_str().unwrap(), "//:upper"]).json();
    let upper = built["targets"][0]["path"].as_str().unwrap().to_owned();
    assert_eq!(built["targets"][0]["link"], link.to_str().unwrap());
    assert_eq!(fs::read_to_string(link.join("a")).unwrap(), "hello\n");
    let lower =
        workspace.ok(&["build", "--json", "//:lower"]).json()["targets"][0]["path"].as_str().unwrap().to_owned();
    workspace.ok(&["gc"]);
    assert!(is_valid(&workspace, &upper) && is_valid(&workspace, &lower));
    workspace.verify_store();
    fs::remove_file(&link).unwrap();
    workspace.ok(&["gc"]).says(&["result` is gone"]);
    assert!(!is_valid(&workspace, &upper) && !is_valid(&workspace, &lower));
    assert_eq!(workspace.ok(&["store", "roots", "list"]).stdout, "");
    fs::write(&link, "mine").unwrap();
    workspace.verify_store();
}

#[test]
fn objects_are_listed_and_their_references_explained() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let path = |label: &str| {
        let built = workspace.ok(&["build", "--json", label]).json();
        (
            built["targets"][0]["path"].as_str().unwrap().to_owned(),
            built["targets"][0]["derivation"].as_str().unwrap().to_owned(),
        )
    };
    let ((upper, upper_drv), (lower, lower_drv)) = (path("//:upper"), path("//:lower"));
    assert_eq!(workspace.ok(&["store", "ls", "//:upper"]).stdout, "a\netc\n");
    assert_eq!(workspace.ok(&["store", "ls", "-R", &lower]).stdout, "lib\nlib/data\n");
    let long = workspace.ok(&["store", "ls", "-l", &format!("{lower}/lib")]).stdout;
    assert_eq!(long, "-r--r--r--            6  data\n");
    let record = workspace.ok(&["store", "ls", "--json", &lower, "lib/data"]).json();
    assert_eq!(record, serde_json::json!([{ "path": "data", "type": "regular", "size": 6, "executable": false }]));
    assert_eq!(workspace.ok(&["store", "cat", "//:upper", "etc/config"]).text(), lower);
    assert_eq!(workspace.ok(&["store", "cat", &format!("{lower}/lib/data")]).text(), "lower");
    workspace.fails(1, &["store", "cat", &lower]).says(&["is a directory"]);
    workspace.fails(2, &["store", "cat", &lower, "../x"]).says(&["no `..`"]);

    let mut both = [upper.clone(), lower.clone()];
    both.sort();
    assert_eq!(workspace.ok(&["store", "closure", "--json", "//:upper"]).json(), serde_json::json!(both));
    let referrers = workspace.ok(&["store", "referrers", &lower]).stdout;
    assert!(referrers.contains(&format!("{upper}\n")) && referrers.contains("-upper.drv\n"), "{referrers}");
    let needed = workspace.ok(&["store", "closure", &upper_drv]).stdout;
    assert!(needed.contains(&lower_drv) && needed.contains(&upper_drv), "{needed}");
    let why = workspace.ok(&["store", "why-depends", "//:upper", &lower]).stdout;
    assert_eq!(why, format!("{upper}\n└── etc/config: {lower}\n"));
    let why = workspace.ok(&["store", "why-depends", "--json", &upper, &lower]).json();
    assert_eq!(why[0]["file"], "etc/config");
    workspace.fails(1, &["store", "why-depends", &lower, &upper]).says(&["does not need"]);
    assert_eq!(workspace.ok(&["store", "tree", &upper]).stdout, format!("{upper}\n└── {lower}\n"));
    assert_eq!(workspace.ok(&["store", "tree", "--json", &lower]).json()[&lower], serde_json::json!([]));
    workspace.rewrite("sh(name = \"new\", script = \"echo > $out\")");
    workspace.fails(1, &["store", "closure", "//:new"]).says(&["has not been built", "ampoule build"]);
}

#[test]
fn fetched_sources_of_a_catalog_are_a_root() {
    let Some(workspace) = Workspace::with_tools("sh(name = \"x\", script = \"echo > $out\")") else { return };
    workspace.ok(&["sources", "fetch", "--offline"]);
    let roots = workspace.ok(&["store", "roots", "list", "--json"]).json();
    assert_eq!(roots[0]["name"], format!("catalog:{}", workspace.root().display()));
    workspace.ok(&["gc"]);
    for path in roots[0]["paths"].as_array().unwrap() {
        assert!(is_valid(&workspace, path.as_str().unwrap()));
    }
    assert!(!roots[0]["paths"].as_array().unwrap().is_empty());
    workspace.ok(&["build", "--offline", "//:x"]);
}

/// Builders, adders and collectors at once: whoever is told a path can use what it needs for as long as a link keeps it.
#[test]
fn collecting_beside_builds_loses_nothing() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    workspace.ok(&["sources", "fetch", "--offline"]);
    std::thread::scope(|scope| {
        let worker = |number: usize| {
            let workspace = &workspace;
            move || {
                for round in 0..4 {
                    let link = workspace.path().join(format!("result-of-{number}"));
                    workspace.ok(&["build", "--quiet", "--offline", "-o", link.to_str().unwrap(), "//:upper"]);
                    let config = fs::read_to_string(link.join("etc/config")).unwrap();
                    assert!(
                        Path::new(&workspace.home().join("store"))
                            .join(config.trim().rsplit('/').next().unwrap())
                            .exists()
                    );
                    add(workspace, &format!("file-{number}-{round}"), "x");
                    fs::remove_file(&link).unwrap();
                }
            }
        };
        for number in 0..3 {
            scope.spawn(worker(number));
        }
        scope.spawn(|| {
            for _ in 0..12 {
                workspace.ok(&["gc"]);
            }
        });
    });
    workspace.verify_store();
    workspace.ok(&["gc", "--keep-derivations", "false"]);
    workspace.verify_store();
}
