//! Bad input: each kind is refused with its exit code and words that help, and the store stays whole.

use std::fs;
use std::path::PathBuf;

use crate::harness::Workspace;

/// Evaluates a recipe that is wrong, and insists on the words.
fn refused(recipe: &str, label: &str, words: &[&str]) {
    let workspace = Workspace::with(recipe);
    let ran = workspace.fails(1, &["build", label]);
    ran.says(&["error: "]).says(words);
    assert_eq!(ran.stdout, "");
    // Programs get the same in their own form.
    let record = workspace.fails(1, &["build", "--json", label]).json();
    assert_eq!(record["exit_code"], 1);
    assert!(words[0].is_empty() || record["error"].as_str().unwrap().contains(words[0]), "{record}");
    workspace.verify_store();
}

#[test]
fn mistakes_in_recipes_are_shown_where_they_are() {
    refused("derivation(name = \"x\" system = \"y\")", "//:x", &["parse error", "--> BUILD.star:1:23", "^^^^^^"]);
    refused("x = 1\ny = x + undefined_name\n", "//:x", &["undefined_name", "--> BUILD.star:2:9"]);
    refused("derivation(name = \"x\", sistem = \"y\")", "//:x", &["system", "--> BUILD.star:1:1"]);
    let twice = "derivation(name = \"x\", system = \"s\", builder = \"b\")\n";
    refused(&twice.repeat(2), "//:x", &["//:x", "--> BUILD.star:2:1"]);
    refused("fail(\"on purpose\")", "//:x", &["on purpose", "BUILD.star:1:1"]);
    refused("load(\"//nowhere:defs.star\", \"x\")", "//:x", &["defs.star", "--> BUILD.star:1:6"]);
    refused("load(\"@prelude//:whel.star\", \"wheel\")", "//:x", &["whel.star", "did you mean `wheel.star`"]);
    refused("load(\"@prelude//:wheel.star\", \"weel\")", "//:x", &["weel", "did you mean `wheel`"]);
    refused("def f(n):\n    return f(n)\nf(1)\n", "//:x", &["", "BUILD.star:2"]);
    refused("while True:\n    pass\n", "//:x", &["BUILD.star:1:1"]);
}

#[test]
fn names_that_are_nearly_right() {
    let recipe = "derivation(name = \"hello\", system = \"s\", builder = \"b\")";
    refused(recipe, "//:helo", &["no target `//:helo`", "did you mean `hello`"]);
    refused(recipe, "//:hello[linux-arm64]", &["no member", "has no matrix"]);
    let workspace = Workspace::with("");
    workspace.write("wheels/BUILD.star", recipe);
    workspace.fails(1, &["build", "//weels:hello"]).says(&["there is no package `//weels`", "did you mean `//wheels`"]);
    workspace.fails(1, &["build", "//nowhere/..."]).says(&["there is no package in `//nowhere/...`"]);
    workspace.fails(1, &["log", "//wheels:hallo"]).says(&["did you mean `hello`"]);
}

/// A recipe of a wheel whose source the lock has, for these platforms and with this further setting.
fn wheel(platforms: &str, further: &str) -> String {
    format!(
        r#"
load("@prelude//:fetch.star", "fetch")
load("@prelude//:wheel.star", "matrix", "wheel", "when")
root = derivation(name = "root", system = "x86_64-linux", builder = "/bin/sh", target = False)
source = fetch(name = "w-1.tar.gz", urls = ["https://files.example/w-1.tar.gz"], sha256 = "{}")
wheel(
    name = "w",
    version = "1",
    src = source,
    over = matrix(platform = [{platforms}], python = ["cp311"]),
    toolchains = {{"linux-x86_64": struct(build = root, run = root), "linux-arm64": struct(build = root, run = root)}},
    {further}
)
"#,
        "0".repeat(63) + "1"
    )
}

#[test]
fn mistakes_in_a_matrix() {
    let both = r#""linux-x86_64", "linux-arm64""#;
    let good = Workspace::with(&wheel(both, ""));
    assert_eq!(good.ok(&["show", "//:w"]).stdout.lines().filter(|line| line.starts_with("//:w[")).count(), 2);
    good.fails(1, &["show", "//:w[linux-amr64]"]).says(&["`linux-amr64`", "linux-arm64"]);
    good.fails(1, &["show", "//:w[linux-arm64,linux-x86_64]"]).says(&["//:w"]);
    refused(&wheel("\"linux-amr64\"", ""), "//:w", &["unknown platform `linux-amr64`", "did you mean `linux-arm64`"]);
    let unknown = r#"overrides = [when(platform = "linux-amd64", env = {"A": "b"})],"#;
    refused(&wheel(both, unknown), "//:w", &["linux-amd64", "BUILD.star:"]);
    let setting = r#"overrides = [when(platform = "linux-arm64", enf = {"A": "b"})],"#;
    refused(&wheel(both, setting), "//:w", &["`enf`", "`env`"]);
    refused(&wheel(both, r#"overrides = [when(platform = "linux-arm64", skip = "")],"#), "//:w", &["skip"]);
    let workspace =
        Workspace::with(&wheel(both, r#"overrides = [when(platform = "linux-arm64", skip = "no reason")],"#));
    assert!(workspace.ok(&["show", "//:w"]).stdout.contains("skipped     no reason"));
}

#[test]
fn files_that_load_each_other_in_a_circle() {
    let workspace = Workspace::with("load(\"//a:a.star\", \"x\")\n");
    workspace.write("a/a.star", "load(\"//a:b.star\", \"x\")\n");
    workspace.write("a/b.star", "load(\"//a:a.star\", \"x\")\n");
    workspace
        .fails(1, &["build", "//:x"])
        .says(&["files load each other in a circle: //a:a.star -> //a:b.star -> //a:a.star", "--> a/b.star:1:6"]);
}

#[test]
fn a_store_path_that_no_input_explains() {
    let path = "/nix/store/zzyd9i3ds49wlm6mz97yhbw4ljqq1r5x-y";
    let recipe = format!("derivation(name = \"x\", system = \"s\", builder = \"b\", env = {{\"p\": \"{path}/bin\"}})");
    refused(&recipe, "//:x", &["`env[\"p\"]` of derivation `x` holds the store path", path, "hint: "]);
}

#[test]
fn repositories_that_are_none() {
    let workspace = Workspace::new();
    fs::remove_file(workspace.root().join("ampoule.toml")).unwrap();
    let ran = workspace.fails(1, &["build", "//:x"]);
    ran.says(&["there is no `ampoule.toml` in", "or above it", "hint: ", "--root DIR"]);
    workspace.write("ampoule.toml", "[catalogue]\n");
    workspace.fails(1, &["build", "//:x"]).says(&["ampoule.toml` is not valid", "catalogue", "`catalog`"]);
    workspace.write("ampoule.toml", "[catalog]\npath = \"nowhere\"\n");
    workspace.fails(1, &["build", "//:x"]).says(&["nowhere"]);
    workspace.write("ampoule.toml", "");
    workspace.fails(1, &["build", "//:x"]).says(&["there is no package `//`"]);
}

#[test]
fn locks_that_are_none() {
    let workspace = Workspace::with("");
    for (lock, words) in [
        ("{", &["ampoule.lock` is not a valid lock"][..]),
        ("{\"schema\": 2, \"sources\": {}}", &["schema 2", "use a newer one"]),
        ("[]", &["ampoule.lock` is not a valid lock"]),
        ("{\"schema\": 1, \"sources\": {\"url:x\": {}}}", &["ampoule.lock` is not a valid lock"]),
    ] {
        workspace.write("ampoule.lock", lock);
        workspace.fails(1, &["build", "//:all"]).says(words);
        workspace.fails(1, &["sources", "list"]).says(words);
    }
}

#[test]
fn a_store_that_cannot_be_one() {
    let workspace = Workspace::with("derivation(name = \"x\", system = \"s\", builder = \"b\")");
    let file: PathBuf = workspace.path().join("file");
    fs::write(&file, "").unwrap();
    let ran = workspace.fails(1, &["--home", file.to_str().unwrap(), "build", "//:x"]);
    ran.says(&["cannot open the store in `", "file`"]);
    // One that a newer version made.
    workspace.ok(&["store", "verify"]);
    fs::write(workspace.home().join("db/store.sqlite"), "not a database, but long enough to be looked at".repeat(30))
        .unwrap();
    workspace.fails(1, &["build", "//:x"]).says(&["cannot open the store in `", "home`"]);
}

#[test]
fn systems_and_builders_that_are_none() {
    let recipe = r#"
derivation(name = "elsewhere", system = "riscv64-linux", builder = "/bin/sh")
derivation(name = "builtin", system = "x86_64-linux", builder = "builtin:unpak-v1")
"#;
    let workspace = Workspace::with(recipe);
    workspace.fails(1, &["build", "//:elsewhere"]).says(&["error: elsewhere: ", "`riscv64-linux`", "this machine"]);
    workspace.fails(100, &["build", "//:builtin"]).says(&["error: builtin: ", "builtin:unpak-v1"]);
    workspace.verify_store();
}
