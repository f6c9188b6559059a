//! The rules of the prelude.

use std::path::Path;

use ampoule_derivations::lock::LockEntry;
use ampoule_derivations::source::{LockedSource, SourceId};

use ampoule_store::hash::Sha256Digest;

use super::*;

/// Every file below a directory of the catalog, in memory.
fn read_all(loader: &DirectoryLoader, directory: &str, into: &mut MemoryLoader) {
    for entry in loader.list(directory).unwrap() {
        let path = if directory.is_empty() { entry.name } else { format!("{directory}/{}", entry.name) };
        if entry.is_directory {
            read_all(loader, &path, into);
        } else {
            into.insert(path.clone(), loader.read(&path).unwrap());
        }
    }
}

#[test]
fn the_catalog_evaluates_to_the_same_from_anywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../derivations/catalog");
    let directory = DirectoryLoader::open(&root, Path::new("derivations/catalog")).unwrap();
    let mut memory = MemoryLoader::default();
    read_all(&directory, "", &mut memory);
    let text = String::from_utf8(directory.read("ampoule.lock").unwrap()).unwrap();
    let (lock, store_dir, tables) = (Lock::parse(&text).unwrap(), StoreDir::default(), Tables::default());
    let evaluate = |loader: &dyn Loader, pattern: &str| {
        let inputs = Inputs { loader, lock: &lock, store_dir: &store_dir, mode: Mode::Build, tables: &tables };
        inputs.evaluate(&[pattern.parse().unwrap()]).unwrap_or_else(|error| panic!("{}", error.render()))
    };
    let evaluation = evaluate(&directory, "//...");
    let again = evaluate(&memory, "//...");
    assert!(evaluation.derivations == again.derivations && evaluation.objects == again.objects);
    assert_eq!(evaluation.targets, again.targets);
    let chosen = evaluation.select(&"//wheels:markupsafe".parse().unwrap()).unwrap();
    let labels: Vec<_> = chosen.iter().map(Selected::label).collect();
    assert_eq!(labels, ["//wheels:markupsafe[linux-arm64,cp311]", "//wheels:markupsafe[linux-x86_64,cp311]"]);
    assert!(evaluation.requests.contains_key("pypi:markupsafe==2.1.5:sdist"));
    // Whatever a derivation needs is there too.
    for derivation in evaluation.derivations.values() {
        assert!(derivation.input_derivations.keys().all(|input| evaluation.derivations.contains_key(input)));
        assert!(derivation.input_sources.iter().all(|input| evaluation.objects.contains_key(input)));
    }
}

/// What wheel recipes of these tests start with.
pub(super) const PREAMBLE: &str = r#"
load("@prelude//:matrix.star", "expect", "matrix", "when")
load("@prelude//:wheel.star", "wheel")
def root(name): return derivation(name = name, system = "s", builder = "b", target = False)
TOOLCHAINS = {
    "linux-arm64": struct(build = root("build-arm64"), run = root("run-arm64")),
    "linux-x86_64": struct(build = root("build-x86_64"), run = root("run-x86_64")),
}
BOTH = matrix(platform = ["linux-x86_64", "linux-arm64"], python = ["cp311", "cp312"])
"#;

/// Evaluates a wheel with these further arguments.
fn wheel(arguments: &str) -> Evaluation {
    let recipe = format!("{PREAMBLE}wheel(name = \"w\", version = \"1\", toolchains = TOOLCHAINS, {arguments})");
    let files = [("BUILD.star", recipe.as_str()), ("a.patch", "a"), ("b.patch", "b")];
    evaluate(&files).unwrap_or_else(|error| panic!("{}", error.render()))
}

/// The derivations of one member: canonical wheel, what the backend makes, and test.
fn member<'e>(evaluation: &'e Evaluation, label: &str) -> (&'e Derivation, &'e Derivation, Option<&'e Derivation>) {
    let chosen = evaluation.select(&label.parse().unwrap()).unwrap();
    let [Selected { member: Member::Derived(derived), .. }] = chosen.as_slice() else { panic!("{chosen:?}") };
    let canonical = evaluation.derivations[&derived.derivation].as_ref();
    let raw = canonical.input_derivations.keys().next().unwrap();
    let test = derived.tests.first().map(|test| evaluation.derivations[test].as_ref());
    (canonical, &evaluation.derivations[raw], test)
}

fn variable<'d>(derivation: &'d Derivation, name: &str) -> &'d str {
    derivation.env_str(name).unwrap_or_else(|| panic!("`{}` has no variable `{name}`", derivation.name))
}

fn inputs(derivation: &Derivation) -> Vec<&str> {
    let mut names: Vec<_> = derivation.input_derivations.keys().map(|path| path.derivation_name().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_wheel_is_built_made_canonical_and_tested() {
    let arguments = r#"over = BOTH, expect = expect(native = True, modules = ["w._speed"]), env = {"A": "b"}, config_settings = {"k": "v"}, patches = [file("a.patch")]"#;
    let evaluation = wheel(arguments);
    let (canonical, raw, test) = member(&evaluation, "//:w[linux-arm64,cp311]");
    assert_eq!(canonical.name, "w-1-linux-arm64-cp311");
    assert_eq!(canonical.builder, "builtin:wheel-v1");
    let env = canonical.env.iter().map(|(k, v)| (String::from_utf8_lossy(k).into(), String::from_utf8_lossy(v).into()));
    let request = ampoule_derivations::builtin::Request::parse(&canonical.builder, &env.collect()).unwrap();
    let ampoule_derivations::builtin::Request::Wheel(request) = request else { panic!() };
    assert_eq!((request.name.as_str(), request.version.as_str()), ("w", "1"));
    assert_eq!((request.platform.as_str(), request.python.as_str()), ("linux-arm64", "cp311"));
    assert!(request.expect.native && request.expect.modules == ["w._speed"]);
    assert_eq!(variable(canonical, "expect"), r#"{"modules":["w._speed"],"native":true}"#);

    assert_eq!(inputs(raw), ["build-arm64", "python-path", "w-1-source"]);
    assert_eq!(raw.builder, "/usr/bin/python3");
    assert_eq!(variable(raw, "target"), r#"{"platform":"linux-arm64","python":"cp311"}"#);
    assert_eq!(variable(raw, "config_settings"), r#"{"k":"v"}"#);
    assert_eq!((variable(raw, "A"), variable(raw, "requiredSystemFeatures")), ("b", "rootfs"));
    let source = raw.input_derivations.keys().find(|path| path.name() == "w-1-source.drv").unwrap();
    let source = &evaluation.derivations[source];
    assert_eq!((source.builder.as_str(), inputs(source)), ("builtin:unpack-v1", vec!["w-1.tar.gz"]));
    assert_eq!(source.input_sources.iter().map(StorePath::name).collect::<Vec<_>>(), ["a.patch"]);

    let test = test.unwrap();
    assert_eq!(test.builder, "/usr/bin/qemu-aarch64-static");
    assert_eq!((test.args[0].as_slice(), test.args[2].as_slice()), (&b"/usr/bin/python3"[..], &b"w._speed"[..]));
    assert_eq!(inputs(test), ["run-arm64", "w-1-linux-arm64-cp311"]);
    let (_, _, test) = member(&evaluation, "//:w[linux-x86_64,cp311]");
    assert_eq!((test.unwrap().builder.as_str(), test.unwrap().args.len()), ("/usr/bin/python3", 2));
}

#[test]
fn changes_apply_in_order_lists_append_dicts_update_others_replace() {
    let arguments = r#"over = BOTH, env = {"A": "1", "B": "1"}, patches = [file("a.patch")], overrides = [
        when(platform = "linux-arm64", env = {"B": "2", "C": "2"}, patches = [file("b.patch")]),
        when(python = "cp31*", env = {"C": "3"}),
        when(platform = "linux-*", python = ["cp312"], env = lambda cell: {"D": cell.platform + cell.python}),
        when(platform = "linux-arm64", python = "cp312", skip_test = "slow"),
    ]"#;
    let evaluation = wheel(arguments);
    let env = |label: &str| {
        let (_, raw, _) = member(&evaluation, label);
        ["A", "B", "C", "D"].map(|name| raw.env_str(name).unwrap_or("-")).join(" ")
    };
    assert_eq!(env("//:w[linux-x86_64,cp311]"), "1 1 3 -");
    assert_eq!(env("//:w[linux-arm64,cp311]"), "1 2 3 -");
    assert_eq!(env("//:w[linux-arm64,cp312]"), "1 2 3 linux-arm64cp312");
    let (_, raw, test) = member(&evaluation, "//:w[linux-arm64,cp312]");
    let source = raw.input_derivations.keys().find(|path| path.name() == "w-1-source.drv").unwrap();
    assert_eq!(evaluation.derivations[source].input_sources.len(), 2);
    assert!(test.is_none());
    assert!(member(&evaluation, "//:w[linux-arm64,cp311]").2.is_some());
}

#[test]
fn members_left_out_say_why() {
    let arguments =
        r#"over = BOTH, overrides = [when(platform = "linux-arm64", python = "cp312", skip = "no such Python yet")]"#;
    let evaluation = wheel(arguments);
    let chosen = evaluation.select(&"//:w[linux-arm64,cp312]".parse().unwrap()).unwrap();
    assert_eq!(chosen[0].member, &Member::Skipped("no such Python yet".to_owned()));
    assert_eq!(evaluation.select(&"//:w".parse().unwrap()).unwrap().len(), 4);
}

#[test]
fn wheels_for_any_platform_are_built_by_the_machines_own_toolchain() {
    let evaluation = wheel(r#"over = matrix(platform = ["any"], python = ["cp311"])"#);
    let (canonical, raw, test) = member(&evaluation, "//:w[any]");
    assert_eq!(canonical.name, "w-1-any-cp311");
    assert_eq!(variable(canonical, "platform"), "linux-x86_64");
    assert_eq!(inputs(raw), ["build-x86_64", "python-path", "w-1-source"]);
    assert_eq!(test.unwrap().builder, "/usr/bin/python3");
}

#[test]
fn a_wheel_is_a_dict_that_other_recipes_can_use() {
    let recipe = format!(
        "{PREAMBLE}
wheels = wheel(name = \"w\", version = \"1\", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = \"cp312\", skip = \"no\")])
derivation(name = \"all\" + \"-wheels\", system = \"s\", builder = \"b\", env = {{\"wheels\": wheels.values()}})
derivation(name = \"one\", system = \"s\", builder = wheels[(\"linux-arm64\", \"cp311\")])
"
    );
    let evaluation = evaluate(&[("BUILD.star", &recipe)]).unwrap_or_else(|error| panic!("{}", error.render()));
    assert_eq!(inputs(derivation(&evaluation, "//:all-wheels")).len(), 2);
    assert_eq!(inputs(derivation(&evaluation, "//:one")), ["w-1-linux-arm64-cp311"]);
}

#[test]
fn sysroots_hold_what_the_lock_pins() {
    let recipe = r#"
load("@prelude//:debian.star", "debian")
load("@prelude//:sysroot.star", "sysroot")
sysroot(
    name = "gcc",
    packages = debian(suite = "bookworm", architectures = ["amd64"], packages = ["gcc"]),
    links = {"usr/bin/cc": "gcc"}, files = {"etc/hosts": "x\n"}, drop_paths = ["usr/share/doc"],
)
"#;
    let request = SourceRequest::debian("bookworm", vec!["amd64".into()], vec!["gcc".into()], Vec::new()).unwrap();
    let package = |name: &str, byte| LockedSource {
        id: SourceId::Debian {
            architecture: "amd64".into(),
            name: name.into(),
            path: format!("pool/{name}.deb"),
            suite: "bookworm".into(),
            version: "1".into(),
        },
        file: format!("{name}_1_amd64.deb"),
        size: Some(1),
        sha256: Sha256Digest::from_bytes([byte; 32]),
    };
    let packages = vec![package("cpp", 1), package("gcc", 2)];
    let entry = LockEntry::Closure { request: request.clone(), packages };
    let lock = Lock { sources: [(request.key(), entry)].into() };
    let evaluation = evaluate_patterns(&[("BUILD.star", recipe)], &["//:gcc"], &lock, Mode::Build).unwrap();
    let tree = derivation(&evaluation, "//:gcc");
    assert_eq!(inputs(tree), ["cpp_1_amd64.deb", "gcc_1_amd64.deb"]);
    assert_eq!(variable(tree, "links"), r#"{"usr/bin/cc":"gcc"}"#);
    assert_eq!(variable(tree, "files"), r#"{"etc/hosts":"x\n"}"#);
    assert_eq!(variable(tree, "drop"), r#"["usr/share/doc"]"#);
    assert_eq!(evaluation.targets[&"//:gcc".parse().unwrap()].kind, "sysroot");
    assert_eq!(evaluation.requests.len(), 1);
}

/// Evaluates one use of `fetch` and gives the derivation of the target that uses it.
fn fetched(arguments: &str, lock: &Lock, mode: Mode) -> Result<Evaluation, EvalError> {
    let recipe = format!(
        "load(\"@prelude//:fetch.star\", \"fetch\")\nsource = fetch(name = \"x.tar.gz\", {arguments})\n\
         derivation(name = \"t\", system = \"s\", builder = source)\n"
    );
    evaluate_patterns(&[("BUILD.star", &recipe)], &["//:t"], lock, mode)
}

#[test]
fn a_file_by_address_is_pinned_by_the_recipe_or_by_the_lock() {
    let hex = "11".repeat(32);
    let (here, urls) =
        (format!("urls = [\"https://a.example/x\"], sha256 = \"{hex}\""), "urls = [\"https://a.example/x\"]");
    let by_recipe = fetched(&here, &Lock::default(), Mode::Build).unwrap();
    let request = SourceRequest::url("x.tar.gz", vec!["https://a.example/x".into()]).unwrap();
    let lock_of = |byte: u8| {
        let LockEntry::One(source) = request.placeholder() else { panic!() };
        let entry = LockEntry::One(LockedSource { sha256: Sha256Digest::from_bytes([byte; 32]), ..source });
        Lock { sources: [(request.key(), entry)].into() }
    };
    let by_lock = fetched(urls, &lock_of(0x11), Mode::Build).unwrap();
    assert_eq!(aterm(&by_recipe, "//:t"), aterm(&by_lock, "//:t"));
    let conflict = fetched(&here, &lock_of(0x22), Mode::Build).unwrap_err();
    assert!(conflict.message.starts_with("the lock has another sha256 for `x.tar.gz`"), "{conflict}");
    let moved = fetched("urls = [\"https://b.example/x\"]", &lock_of(0x11), Mode::Build).unwrap_err();
    assert_eq!(moved.message, "the addresses of `x.tar.gz` changed since its sha256 was locked");
    assert!(moved.hint.unwrap().ends_with("run: ampoule sources lock"));
}

/// Every example of the manual that starts with a comment naming its file belongs to one catalog.
#[test]
fn the_manuals_examples_evaluate() {
    let manual = include_str!("../../../../docs/user/recipes.md");
    let examples = manual.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let files: Vec<_> =
        examples.map(|example| (example.lines().next().unwrap().trim_start_matches("# "), example)).collect();
    assert!(files.len() >= 4);
    let evaluation = evaluate(&files).unwrap_or_else(|error| panic!("{}", error.render()));
    let labels: Vec<_> = evaluation.targets.keys().map(ToString::to_string).collect();
    let expected = [
        "//hello:hello",
        "//hello:shell",
        "//toolchains:gcc-linux-x86_64",
        "//toolchains:python-linux-x86_64",
        "//wheels:simplejson",
    ];
    assert_eq!(labels, expected);
}

#[test]
fn recipes_may_print() {
    let evaluation = evaluate(&[("BUILD.star", "print(\"a\", 1)\nprint([text(\"x\", \"y\").name])\n")]).unwrap();
    assert_eq!(evaluation.printed, ["BUILD.star:1:1: a 1", "BUILD.star:2:1: [\"x\"]"]);
}

#[test]
fn an_expectation_changes_only_in_what_is_said() {
    let arguments = r#"over = BOTH, expect = expect(native = True, modules = ["a"]), overrides = [
        when(python = "cp312", expect = expect(modules = ["b"])), when(platform = "linux-arm64", expect = {"tag": "x"}),
    ]"#;
    let evaluation = wheel(arguments);
    let (canonical, _, _) = member(&evaluation, "//:w[linux-arm64,cp312]");
    assert_eq!(variable(canonical, "expect"), r#"{"modules":["b"],"native":true,"tag":"x"}"#);
}
