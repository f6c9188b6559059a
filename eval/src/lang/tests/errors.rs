//! What authors are told.

use super::*;

/// Evaluates a catalog and compares the error's whole text.
fn check(files: &[(&str, &str)], expected: &str) {
    let error = evaluate(files).expect_err("the recipe is wrong");
    assert_eq!(error.render(), expected, "\n{}", error.render());
}

#[test]
fn syntax_errors() {
    let files = [(
        "BUILD.star",
        r#"x = 1
derivation(name = "a",, system = "s")
"#,
    )];
    let expected = r#"error: parse error: unexpected symbol ',', expected expression
  --> BUILD.star:2:23
   |
 2 | derivation(name = "a",, system = "s")
   |                       ^
"#;
    check(&files, expected);
}

#[test]
fn unknown_names() {
    let files = [(
        "BUILD.star",
        "hello = 1
print_it = helo + 1
",
    )];
    let expected = "\
error: variable `helo` not found
  --> BUILD.star:2:12
   |
 2 | print_it = helo + 1
   |            ^^^^
   = hint: did you mean `hello`?
";
    check(&files, expected);
}

#[test]
fn unknown_loaded_symbols() {
    let files = [
        (
            "BUILD.star",
            r#"load(":defs.star", "mak")
"#,
        ),
        (
            "defs.star",
            "make = 1
",
        ),
    ];
    let expected = r#"error: module has no symbol `mak`
  --> BUILD.star:1:20
   |
 1 | load(":defs.star", "mak")
   |                    ^^^^^
   = hint: did you mean `make`?
"#;
    check(&files, expected);
}

#[test]
fn wrong_types() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = 1, system = "s", builder = "b")
"#,
    )];
    let expected = r#"error: type of parameter `name` doesn't match, expected `str`, actual `int (repr: 1)`
  --> BUILD.star:1:1
   |
 1 | derivation(name = 1, system = "s", builder = "b")
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn missing_arguments() {
    let files = [(
        "BUILD.star",
        r#"derivation(
    name = "a",
    builder = "b",
)
"#,
    )];
    let expected = "\
error: missing named-only parameter `system` for call to `derivation`
  --> BUILD.star:1:1
   |
 1 | derivation(
   | ^^^^^^^^^^^ ...
";
    check(&files, expected);
}

#[test]
fn unknown_arguments() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", ouputs = ["out"])
"#,
    )];
    let expected = r#"error: `derivation` has no argument `ouputs`
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", ouputs = ["out"])
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: did you mean `outputs`? there are 29 arguments
"#;
    check(&files, expected);
}

#[test]
fn arguments_of_the_wrong_kind() {
    for (arguments, expected) in [
        ("allowedReferences = []", "`derivation` has no argument `allowedReferences`"),
        (
            "allowed_references = \"out\"",
            "`allowed_references` must be a list of store objects and of names of outputs, not a string",
        ),
        ("allow_substitutes = 1", "`allow_substitutes` must be `True` or `False`, not a int"),
        ("timeout = -1", "`timeout` must be a number that is not negative, 0 for no limit, not a int"),
        ("output_checks = {}", "`output_checks` needs `structured_attrs`"),
        ("structured_attrs = {}, output_checks = []", "`output_checks` must be a dict, not a list"),
        ("structured_attrs = {}, allowed_references = []", "`allowed_references` excludes `structured_attrs`"),
        ("export_references_graph = {\"a\": []}", "`export_references_graph[\"a\"]` must be one store object, not 0"),
        ("env = {\"preferLocalBuild\": \"1\"}, prefer_local_build = True", "`preferLocalBuild` is there twice"),
        ("env = {\"__impure\": True}", "`__impure` makes a derivation whose result changes"),
        ("pass_as_file = [\"x\"]", "`pass_as_file` names `x`, which is no variable of `env`"),
    ] {
        let recipe = format!("derivation(name = \"a\", system = \"s\", builder = \"b\", {arguments})\n");
        let error = evaluate(&[("BUILD.star", &recipe)]).expect_err("the recipe is wrong").render();
        assert!(error.contains(expected), "{arguments}: {error}");
        assert!(!arguments.starts_with("allowedR") || error.contains("did you mean `allowed_references`?"), "{error}");
    }
}

#[test]
fn values_that_are_no_strings() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", env = {"x": {"a": 1}})
"#,
    )];
    let expected = r#"error: `env["x"]` cannot be a dict
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", env = {"x": {"a": 1}})
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: use a string, number, bool, list or store object; `json.encode(...)` makes a string of anything else
"#;
    check(&files, expected);
}

#[test]
fn variables_with_an_argument_of_their_own() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", env = {"outputHashAlgo": "x"})
"#,
    )];
    let expected = r#"error: `outputHashAlgo` is set by the argument `output_hash_algo`
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", env = {"outputHashAlgo": "x"})
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn variables_of_outputs() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", env = {"out": "x"})
"#,
    )];
    let expected = r#"error: `env` cannot hold `out`: it is the variable of an output
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", env = {"out": "x"})
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn variables_of_arguments() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", env = {"name": "x"})
"#,
    )];
    let expected = r#"error: `name` is set by the argument `name`
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", env = {"name": "x"})
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn bad_names() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a b", system = "s", builder = "b")
"#,
    )];
    let expected = r#"error: `name`: name `a b` holds the illegal character ` `
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a b", system = "s", builder = "b")
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn bad_hashes() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", output_hash = "sha256-xyz")
"#,
    )];
    let expected = r#"error: `output_hash`: hash `sha256-xyz` has the wrong length for type `sha256`
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", output_hash = "sha256-xyz")
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn unknown_store_paths() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", args = ["-I/nix/store/vlwjqrqiibg93pckwg9a72m9g35lffrs-zlib/include"])
"#,
    )];
    let expected = r#"error: `args[0]` of derivation `a` holds the store path `/nix/store/vlwjqrqiibg93pckwg9a72m9g35lffrs-zlib`, which nothing in this file or what it loads has made
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", args = ["-I/nix/store/vlwjqrqiibg93pckwg9a72m9g35lffrs-zlib/include"])
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: use the value that stands for it, as in f"{dependency}/bin"; if another file makes it, `load` it from there
"#;
    check(&files, expected);
}

#[test]
fn unknown_placeholders() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "a", system = "s", builder = "b", env = {"x": placeholder("dev")})
"#,
    )];
    let expected = r#"error: `env["x"]` of derivation `a` holds the placeholder `/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz`, which nothing in this file or what it loads has made
  --> BUILD.star:1:1
   |
 1 | derivation(name = "a", system = "s", builder = "b", env = {"x": placeholder("dev")})
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: use the value that stands for it, as in f"{dependency}/bin"; if another file makes it, `load` it from there
"#;
    check(&files, expected);
}

#[test]
fn texts_of_unbuilt_outputs() {
    let files = [(
        "BUILD.star",
        r#"d = derivation(name = "a", system = "s", builder = "b")
text("t", f"{d}")
"#,
    )];
    let expected = r#"error: text `t` refers to an output of `a`, which is not built yet
  --> BUILD.star:2:1
   |
 2 | text("t", f"{d}")
   | ^^^^^^^^^^^^^^^^^
   = hint: let a derivation write the file: pass the text in `env` and name it in `pass_as_file`
"#;
    check(&files, expected);
}

#[test]
fn duplicate_targets() {
    let files = [
        (
            "wheels/BUILD.star",
            r#"load("//:defs.star", "make")
make("a")

make("a")
"#,
        ),
        (
            "defs.star",
            r#"def make(name):
    derivation(name = name, system = "s", builder = "b")
"#,
        ),
    ];
    let expected = r#"error: there is already a target `//wheels:a`
  --> defs.star:2:5
   |
 2 |     derivation(name = name, system = "s", builder = "b")
   |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = called: `make` at wheels/BUILD.star:4:1
   = hint: the first one is at wheels/BUILD.star:2:1
"#;
    check(&files, expected);
}

#[test]
fn missing_files_to_load() {
    let files = [
        (
            "BUILD.star",
            r#"load("//lib:def.star", "x")
"#,
        ),
        (
            "lib/defs.star",
            "x = 1
",
        ),
    ];
    let expected = r#"error: there is no file `//lib:def.star`
  --> BUILD.star:1:6
   |
 1 | load("//lib:def.star", "x")
   |      ^^^^^^^^^^^^^^^^
   = hint: did you mean `defs.star`? files: `defs.star`
"#;
    check(&files, expected);
}

#[test]
fn bad_load_labels() {
    let files = [(
        "BUILD.star",
        r#"load("../x.star", "x")
"#,
    )];
    let expected = r#"error: cannot load `../x.star`: it is not a label
  --> BUILD.star:1:6
   |
 1 | load("../x.star", "x")
   |      ^^^^^^^^^^^
   = hint: write `//package:file.star` for a file of the catalog, `:file.star` for one beside this file, or `@prelude//:file.star`
"#;
    check(&files, expected);
}

#[test]
fn escaping_load_labels() {
    let files = [(
        "a/BUILD.star",
        r#"load(":../../x.star", "x")
"#,
    )];
    let expected = r#"error: cannot load `:../../x.star`: it leads out of the catalog
  --> a/BUILD.star:1:6
   |
 1 | load(":../../x.star", "x")
   |      ^^^^^^^^^^^^^^^
   = hint: write `//package:file.star` for a file of the catalog, `:file.star` for one beside this file, or `@prelude//:file.star`
"#;
    check(&files, expected);
}

#[test]
fn missing_prelude_files() {
    let files = [(
        "BUILD.star",
        r#"load("@prelude//:wheels.star", "wheel")
"#,
    )];
    let expected = r#"error: the prelude has no file `wheels.star`
  --> BUILD.star:1:6
   |
 1 | load("@prelude//:wheels.star", "wheel")
   |      ^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: did you mean `wheel.star`? files: `debian.star`, `fetch.star`, `matrix.star`, `pypi.star`, `sysroot.star`, `wheel.star`
"#;
    check(&files, expected);
}

#[test]
fn load_cycles() {
    let files = [
        (
            "BUILD.star",
            r#"load("//a:x.star", "x")
"#,
        ),
        (
            "a/x.star",
            r#"load(":y.star", "x")
"#,
        ),
        (
            "a/y.star",
            r#"y = 1
load("//a:x.star", "x")
"#,
        ),
    ];
    let expected = r#"error: files load each other in a circle: //a:x.star -> //a:y.star -> //a:x.star
  --> a/y.star:2:6
   |
 2 | load("//a:x.star", "x")
   |      ^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn missing_files() {
    let files = [(
        "BUILD.star",
        r#"file("patches/x.patch")
"#,
    )];
    let expected = r#"error: cannot read `patches/x.patch`: no such file
  --> BUILD.star:1:1
   |
 1 | file("patches/x.patch")
   | ^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn escaping_files() {
    let files = [(
        "BUILD.star",
        r#"file("../../etc/passwd")
"#,
    )];
    let expected = r#"error: `../../etc/passwd` is not a path in the catalog
  --> BUILD.star:1:1
   |
 1 | file("../../etc/passwd")
   | ^^^^^^^^^^^^^^^^^^^^^^^^
   = hint: paths are relative to the file that names them, or labels such as `//wheels:patches/x.patch`; they have no `..`
"#;
    check(&files, expected);
}

#[test]
fn failures() {
    let files = [(
        "BUILD.star",
        r#"fail("no", "way")
"#,
    )];
    let expected = r#"error: no way
  --> BUILD.star:1:1
   |
 1 | fail("no", "way")
   | ^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn endless_recursion() {
    let files = [(
        "BUILD.star",
        "def f(x):
    return f(x + 1)

f(1)
",
    )];
    let expected = "\
error: calls are nested too deeply
  --> BUILD.star:2:12
   |
 2 |     return f(x + 1)
   |            ^^^^^^^^
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:2:12
   = ... and 90 calls more
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:2:12
   = called: `f` at BUILD.star:4:1
   = hint: is there a function that calls itself without end?
";
    check(&files, expected);
}

#[test]
fn endless_loops() {
    let files = [(
        "BUILD.star",
        "def f():
    for x in range(1000000000):
        pass

f()
",
    )];
    let expected = "\
error: execution duration limit of 20000000 ticks has been exceeded, while evaluating BUILD.star
 = hint: is there a loop that never ends, or data that grows without bound?
";
    check(&files, expected);
}

#[test]
fn deep_brackets() {
    let recipe = format!("x = {}{}", "[".repeat(300), "]".repeat(300));
    check(&[("BUILD.star", &recipe)], "error: `//:BUILD.star` nests brackets more than 200 deep\n");
}

#[test]
fn reserved_names() {
    let files = [(
        "BUILD.star",
        r#"derivation(name = "all", system = "s", builder = "b")
"#,
    )];
    let expected = r#"error: no target can be named `all`: `:all` chooses every target of a package
  --> BUILD.star:1:1
   |
 1 | derivation(name = "all", system = "s", builder = "b")
   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(&files, expected);
}

#[test]
fn calls_through_the_users_own_functions() {
    let files = [
        (
            "BUILD.star",
            r#"load(":defs.star", "make")

make("a")
"#,
        ),
        (
            "defs.star",
            r#"def make(name):
    helper(name)

def helper(name):
    derivation(name = name, system = "", builder = "b")
"#,
        ),
    ];
    let expected = r#"error: `system` is empty
  --> defs.star:5:5
   |
 5 |     derivation(name = name, system = "", builder = "b")
   |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = called: `helper` at defs.star:2:5
   = called: `make` at BUILD.star:3:1
"#;
    check(&files, expected);
}

#[test]
fn what_was_printed_before() {
    let files = [(
        "BUILD.star",
        r#"print("x is", 1)
fail("no")
"#,
    )];
    let expected = r#"BUILD.star:1:1: x is 1
error: no
  --> BUILD.star:2:1
   |
 2 | fail("no")
   | ^^^^^^^^^^
"#;
    check(&files, expected);
}
