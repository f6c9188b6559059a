//! `derivation` against Nix's own, and the other builtin functions.

use super::*;

/// Evaluates `derivation(...)` with these arguments and gives its text.
fn text_of(arguments: &str) -> String {
    let recipe = format!("derivation({arguments}, target = \"t\")");
    match evaluate(&[("BUILD.star", &recipe)]) {
        Ok(evaluation) => aterm(&evaluation, "//:t"),
        Err(error) => panic!("{}", error.render()),
    }
}

#[test]
fn a_derivation_has_the_bytes_nix_gives_it() {
    // Each as `nix-instantiate` of Nix 2.8 writes it, but for `outputHashAlgo` and `outputHashMode`, which current Nix
    // fills in by itself for floating outputs.
    for (arguments, expected) in [
        (
            r#"name = "fod-nix32", system = "x86_64-linux", builder = "/bin/sh", args = ["-c", "printf abc > $out"], output_hash_mode = "flat", output_hash_algo = "sha256", output_hash = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s""#,
            r#"Derive([("out","/nix/store/92757nbm0ngi4qq1kxs91vi8i6wgl654-fod-nix32","sha256","ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")],[],[],"x86_64-linux","/bin/sh",["-c","printf abc > $out"],[("builder","/bin/sh"),("name","fod-nix32"),("out","/nix/store/92757nbm0ngi4qq1kxs91vi8i6wgl654-fod-nix32"),("outputHash","1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"),("outputHashAlgo","sha256"),("outputHashMode","flat"),("system","x86_64-linux")])"#,
        ),
        (
            r#"name = "paf", system = "x86_64-linux", builder = "/bin/sh", content_addressed = False, pass_as_file = ["big"], env = {"big": "contents of big"}, args = ["-c", "/bin/busybox cat $bigPath > $out"]"#,
            r#"Derive([("out","/nix/store/5mi8q0cdkq7vd4fnljvhn3crhy1a1khr-paf","","")],[],[],"x86_64-linux","/bin/sh",["-c","/bin/busybox cat $bigPath > $out"],[("big","contents of big"),("builder","/bin/sh"),("name","paf"),("out","/nix/store/5mi8q0cdkq7vd4fnljvhn3crhy1a1khr-paf"),("passAsFile","big"),("system","x86_64-linux")])"#,
        ),
        (
            r#"name = "ca-multi", system = "x86_64-linux", builder = "/bin/sh", outputs = ["out", "dev"], args = ["-c", "echo $dev > $out; echo dev > $dev"]"#,
            r#"Derive([("dev","","r:sha256",""),("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",["-c","echo $dev > $out; echo dev > $dev"],[("builder","/bin/sh"),("dev","/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz"),("name","ca-multi"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("outputs","out dev"),("system","x86_64-linux")])"#,
        ),
    ] {
        assert_eq!(text_of(arguments), expected);
    }
}

#[test]
fn environment_values_are_coerced_as_nix_does() {
    let text = text_of(
        r#"name = "t", system = "s", builder = "b", env = {
            "list": ["a", 1, True, False, None, ["x", "y"], [], "z"], "int": -5, "big": 1 << 70, "yes": True, "no": False,
            "none": None, "empty": [], "tuple": ("a", "b"),
        }"#,
    );
    for expected in [
        r#"("list","a 1 1   x y z")"#,
        r#"("int","-5")"#,
        r#"("big","1180591620717411303424")"#,
        r#"("yes","1")"#,
        r#"("no","")"#,
        r#"("none","")"#,
        r#"("empty","")"#,
        r#"("tuple","a b")"#,
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn structured_attributes_are_one_variable_of_sorted_json() {
    let text = text_of(
        r#"name = "t", system = "s", builder = "b", structured_attrs = {"z": {"b": [1, True, None], "a": "\n\"ü"}, "e": {}}, rootfs = "/root", outputs = ["out", "dev"]"#,
    );
    let json = r#"{\"builder\":\"b\",\"e\":{},\"name\":\"t\",\"outputs\":[\"out\",\"dev\"],\"requiredSystemFeatures\":[\"rootfs\"],\"system\":\"s\",\"z\":{\"a\":\"\\n\\\"ü\",\"b\":[1,true,null]}}"#;
    assert!(text.contains(&format!("(\"__json\",\"{json}\")")), "{text}");
    assert!(text.contains(r#"("rootfs","/root")"#) && !text.contains(r#"("name","#), "{text}");
}

#[test]
fn a_root_asks_for_a_machine_that_can_show_it() {
    let text =
        text_of(r#"name = "t", system = "s", builder = "b", rootfs = "/root", required_system_features = ["kvm"]"#);
    assert!(text.contains(r#"("requiredSystemFeatures","kvm rootfs"),("rootfs","/root")"#), "{text}");
}

#[test]
fn only_what_is_referred_to_becomes_an_input() {
    let recipe = r#"
used = derivation(name = "used", system = "s", builder = "b", outputs = ["out", "dev"])
unused = derivation(name = "unused", system = "s", builder = "b")
fixed = derivation(name = "fixed", system = "s", builder = "b", output_hash = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=")
script = text("script", "echo hi")
patch = file("patches/a.patch")
derivation(
    name = "t", system = "s", builder = f"{used}/bin/sh", args = [script, "-I" + used.dev, "%s" % patch],
    env = {"a": "{}".format(fixed), "b": [used.dev, unused.name], "self": placeholder("out"), "json": json.encode([used])},
)
"#;
    let evaluation = evaluate(&[("BUILD.star", recipe), ("patches/a.patch", "--- a\n")]).unwrap();
    let derivation = derivation(&evaluation, "//:t");
    let inputs: Vec<_> =
        derivation.input_derivations.iter().map(|(path, outputs)| (path.name(), outputs.len())).collect();
    assert_eq!(inputs.len(), 2);
    assert!(inputs.contains(&("used.drv", 2)) && inputs.contains(&("fixed.drv", 1)));
    let mut sources: Vec<_> = derivation.input_sources.iter().map(StorePath::name).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["a.patch", "script"]);
    let (path, patch) = evaluation.objects.iter().find(|(path, _)| path.name() == "a.patch").unwrap();
    assert_eq!(patch.content.as_ref(), b"--- a\n");
    assert!(derivation.args[2].ends_with(path.base_name().as_bytes()));
}

#[test]
fn input_addressed_derivations_wait_for_inputs_that_are_not() {
    let recipe = r#"
floating = derivation(name = "floating", system = "s", builder = "b")
plain = derivation(name = "plain", system = "s", builder = "b", content_addressed = False)
derivation(name = "known", system = "s", builder = plain, content_addressed = False)
derivation(name = "deferred", system = "s", builder = floating, content_addressed = False)
"#;
    let evaluation = evaluate(&[("BUILD.star", recipe)]).unwrap();
    assert!(aterm(&evaluation, "//:known").starts_with("Derive([(\"out\",\"/nix/store/"));
    assert!(aterm(&evaluation, "//:deferred").starts_with("Derive([(\"out\",\"\",\"\",\"\")]"));
}

#[test]
fn the_same_files_give_the_same_derivations_whatever_else_is_evaluated() {
    let package = r#"
load("//lib:defs.star", "make")
make("first")
make("second")
"#;
    let library = r#"
base = derivation(name = "base", system = "s", builder = "b", target = False)
def make(name):
    derivation(name = name, system = "s", builder = f"{base}/bin/x", args = [text("t", name)])
"#;
    let files = [("a/BUILD.star", package), ("b/BUILD.star", package), ("lib/defs.star", library)];
    let all = evaluate(&files).unwrap();
    let one = evaluate_patterns(&files, &["//b:first"], &Lock::default(), Mode::Build).unwrap();
    assert_eq!(aterm(&all, "//b:first"), aterm(&one, "//b:first"));
    assert_eq!(aterm(&all, "//a:second"), aterm(&all, "//b:second"));
    assert_eq!(one.targets.len(), 2);
    assert_eq!(all.derivations.len(), 3);
}

#[test]
fn derivations_are_values_with_outputs() {
    let recipe = r#"
d = derivation(name = "d", system = "s", builder = "b", outputs = ["lib", "dev"], target = False)
def check(actual, expected):
    if actual != expected:
        fail("%s is not %s" % (actual, expected))
check(d.name, "d")
check(d.outputs, ["lib", "dev"])
check(str(d), str(d.lib))
check(d == d.lib, True)
check(d == d.dev, False)
check({d: 1}[d.lib], 1)
check(dir(d), ["dev", "lib", "name", "outputs"])
check(type(d), "derivation")
check(json.encode({"d": d}), '{"d":"' + d + '"}')
check(type(text("a", "b")), "store_object")
check(text("a", "b") == text("a", "b"), True)
"#;
    evaluate(&[("BUILD.star", recipe)]).map(drop).unwrap_or_else(|error| panic!("{}", error.render()));
}

#[test]
fn a_text_may_refer_to_what_exists_but_not_to_what_is_built() {
    let recipe = r#"
inner = text("inner", "x")
outer = text("outer", "see %s" % inner)
derivation(name = "t", system = "s", builder = outer)
"#;
    let evaluation = evaluate(&[("BUILD.star", recipe)]).unwrap();
    let outer = evaluation.objects.iter().find(|(path, _)| path.name() == "outer").unwrap().1;
    assert_eq!(outer.references.iter().map(StorePath::name).collect::<Vec<_>>(), ["inner"]);
}

#[test]
fn patterns_name_packages_that_exist() {
    let files = [("wheels/BUILD.star", ""), ("toolchains/BUILD.star", "")];
    let explain =
        |pattern: &str| evaluate_patterns(&files, &[pattern], &Lock::default(), Mode::Build).unwrap_err().render();
    assert_eq!(
        explain("//whels:x"),
        "error: there is no package `//whels`\n = hint: did you mean `//wheels`? packages: `//toolchains`, `//wheels`\n"
    );
    assert_eq!(explain("//none/..."), "error: there is no package in `//none/...`\n");
}

#[test]
fn long_and_nested_files_are_no_danger() {
    let recipes = [
        format!("x = {}1{}", "[".repeat(199), "]".repeat(199)),
        format!("x = 1{}", " + 1".repeat(10_000)),
        format!("x = {}1", "-".repeat(10_000)),
        format!("x = {}1", "not ".repeat(10_000)),
        format!("x = [1]{}", "[0:]".repeat(10_000)),
        format!("x = {}1", "1 if 1 else ".repeat(5_000)),
        format!("f = {}1", "lambda: ".repeat(2_000)),
    ];
    for recipe in recipes {
        evaluate(&[("BUILD.star", &recipe)]).map(drop).unwrap_or_else(|error| panic!("{}", error.render()));
    }
}
