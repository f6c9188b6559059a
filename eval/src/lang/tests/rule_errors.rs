//! What authors of matrices and wheels are told.

use super::rules::PREAMBLE;
use super::*;

/// Evaluates a recipe behind the preamble and compares the error's whole text.
fn check(mode: Mode, recipe: &str, expected: &str) {
    let recipe = format!("{PREAMBLE}{recipe}");
    let lock = Lock::default();
    let error = evaluate_patterns(&[("BUILD.star", &recipe)], &["//..."], &lock, mode).expect_err("it is wrong");
    assert_eq!(error.render(), expected, "\n{}", error.render());
}

#[test]
fn a_setting_that_does_not_exist() {
    let recipe = r#"wheel(
    name = "w",
    version = "1",
    over = BOTH,
    toolchains = TOOLCHAINS,
    overrides = [
        when(platform = "linux-arm64", evn = {"A": "b"}),
    ],
)
"#;
    let expected = r#"error: `when` has neither an axis nor a setting `evn`
   --> BUILD.star:16:9
    |
 16 |         when(platform = "linux-arm64", evn = {"A": "b"}),
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: did you mean `env`?
      axes: `platform`, `python`
      settings: `build_requires`, `config_settings`, `env`, `expect`, `patches`, `skip`, `skip_test`, `src`, `test_requires`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_platform_that_does_not_exist() {
    let recipe = r#"BOTH = matrix(platform = ["linux-x86_64", "linux-arm9"])
"#;
    let expected = r#"error: unknown platform `linux-arm9`
   --> BUILD.star:10:8
    |
 10 | BOTH = matrix(platform = ["linux-x86_64", "linux-arm9"])
    |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: did you mean `linux-arm64`? platforms: `any`, `linux-arm64`, `linux-x86_64`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_platform_by_another_name() {
    let recipe = r#"BOTH = matrix(platform = ["aarch64"])
"#;
    let expected = r#"error: unknown platform `aarch64`
   --> BUILD.star:10:8
    |
 10 | BOTH = matrix(platform = ["aarch64"])
    |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: it is called `linux-arm64` here
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_python_by_another_name() {
    let recipe = r#"BOTH = matrix(python = ["3.11"])
"#;
    let expected = r#"error: unknown Python `3.11`
   --> BUILD.star:10:8
    |
 10 | BOTH = matrix(python = ["3.11"])
    |        ^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: it is called `cp311` here
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_change_for_a_platform_that_does_not_exist() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(platform = "linux-arm9", skip = "no")])
"#;
    let expected = r#"error: unknown platform `linux-arm9`
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(platform = "linux-arm9", skip = "no")])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: did you mean `linux-arm64`? platforms: `any`, `linux-arm64`, `linux-x86_64`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_change_that_matches_no_member() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp313", skip = "no")])
"#;
    let expected = r#"error: this `when` matches no member: the matrix has no python `cp313`
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp313", skip = "no")])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: values of `python`: `cp311`, `cp312`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_prefix_that_matches_no_member() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = ["cp31*", "pp*"], skip = "no")])
"#;
    let expected = r#"error: this `when` matches no member: the matrix has no python `pp*`
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = ["cp31*", "pp*"], skip = "no")])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: values of `python`: `cp311`, `cp312`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_change_that_changes_nothing() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312")])
"#;
    let expected = r#"error: this `when` changes nothing
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312")])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_skip_without_reason() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", skip = True)])
"#;
    let expected = r#"error: `skip` needs a reason
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", skip = True)])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: write why, as in `skip = "needs OpenSSL"`: it is shown to whoever asks for this member
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_list_changed_by_something_else() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", patches = "x.patch")])
"#;
    let expected = r#"error: `patches` in `when` must be a list, which is appended, not a string
   --> BUILD.star:10:85
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", patches = "x.patch")])
    |                                                                                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_function_of_the_member_that_fails() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", env = lambda cell: {"X": cell.os})])
"#;
    let expected = r#"error: object of type `struct` has no attribute `os`
   --> BUILD.star:10:133
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [when(python = "cp312", env = lambda cell: {"X": cell.os})])
    |                                                                                                                                     ^^^^^^^
    = called: `wheel` at BUILD.star:10:1
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn overrides_that_are_none() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [{"env": {}}])
"#;
    let expected = r#"error: `overrides[0]` must be made by `when(...)`, not a dict
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, overrides = [{"env": {}}])
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_matrix_that_is_none() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = ["linux-arm64"])
"#;
    let expected = r#"error: `over` must be made by `matrix(...)`, not a list
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = ["linux-arm64"])
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_matrix_without_pythons() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = matrix(platform = ["linux-arm64"]))
"#;
    let expected = r#"error: the matrix of a wheel has no axis `python`
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = matrix(platform = ["linux-arm64"]))
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: write: matrix(platform = [...], python = [...])
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn an_argument_wheel_does_not_have() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, enviroment = {})
"#;
    let expected = r#"error: `wheel` has no argument `enviroment`
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, enviroment = {})
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: did you mean `env`? arguments: `build_requires`, `config_settings`, `env`, `expect`, `name`, `over`, `overrides`, `patches`, `skip_test`, `src`, `target`, `test_requires`, `toolchains`, `version`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_variable_the_rule_sets() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, env = {"src": "x"})
"#;
    let expected = r#"error: `env` of a wheel cannot hold `src`: the rule sets it
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, env = {"src": "x"})
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_platform_without_toolchain() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = {"linux-x86_64": TOOLCHAINS["linux-x86_64"]}, over = BOTH)
"#;
    let expected = r#"error: there is no toolchain for platform `linux-arm64`
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = {"linux-x86_64": TOOLCHAINS["linux-x86_64"]}, over = BOTH)
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: `toolchains` has: linux-x86_64
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn native_code_for_any_platform() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = matrix(platform = ["any"], python = ["cp311"]), expect = expect(native = True))
"#;
    let expected = r#"error: a wheel for platform `any` cannot hold native code
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = matrix(platform = ["any"], python = ["cp311"]), expect = expect(native = True))
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: write `native = False`, or name the platforms
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn an_expectation_that_does_not_exist() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, expect = {"module": ["x"]})
"#;
    let expected = r#"error: `expect` has no argument `module`
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, expect = {"module": ["x"]})
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: did you mean `modules`? arguments: `modules`, `native`, `tag`
"#;
    check(Mode::Lock, recipe, expected);
}

#[test]
fn a_source_that_is_not_locked() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, build_requires = [])
"#;
    let expected = r#"error: the sdist of w 1 is not in the lock (`pypi:w==1:sdist`)
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, build_requires = [])
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: run: ampoule sources lock
"#;
    check(Mode::Build, recipe, expected);
}

#[test]
fn a_requirement_that_is_no_string() {
    let recipe = r#"wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, build_requires = {1: 2})
"#;
    let expected = r#"error: value `{1: 2}` of type `dict` does not match the type annotation `list` for argument `build_requires`
   --> BUILD.star:10:1
    |
 10 | wheel(name = "w", version = "1", toolchains = TOOLCHAINS, over = BOTH, build_requires = {1: 2})
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"#;
    check(Mode::Lock, recipe, expected);
}
