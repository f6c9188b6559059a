//! What is refused by stock Nix and by us, and what by neither.

use std::fs;

use super::portable::{Both, Portable};

/// Builds each with both; `expected` says whether it succeeds, and a word of ours if not.
fn agree(recipe: &str, expected: &[(&str, &str)]) {
    let Some(portable) = Portable::with(recipe) else { return };
    for (target, word) in expected {
        let label = format!("//:{target}");
        let Both { ours, theirs } = portable.build(&label, &[], &[]);
        let (is_fine, said) = (word.is_empty(), format!("{target}: {}\nstock Nix: {}", ours.stderr, theirs.stderr));
        assert_eq!((ours.code == 0, theirs.code == 0), (is_fine, is_fine), "{said}");
        assert!(ours.stderr.contains(word), "{said}");
        if !is_fine {
            assert!(matches!(ours.code, 1 | 100 | 102), "{said}");
        }
    }
    portable.workspace.verify_store();
}

const PARTS: &str = r#"
leaf = sh(name = "leaf", script = "echo leaf > $out", target = False)
middle = sh(name = "middle", script = "echo %s > $out" % leaf, target = False)
"#;

#[test]
fn references_that_are_not_allowed() {
    let recipe = r#"
sh(name = "none", script = "echo %s > $out" % leaf, allowed_references = [])
sh(name = "one", script = "echo %s > $out" % leaf, allowed_references = [leaf])
sh(name = "other", script = "echo %s > $out # %s" % (leaf, middle), allowed_references = [middle])
sh(name = "self", script = "echo $out > $out", allowed_references = [])
sh(name = "own-name", script = "echo $out > $out", allowed_references = ["out"])
sh(name = "sibling", script = "echo $dev > $out; echo > $dev", outputs = ["out", "dev"], allowed_references = ["dev"])
sh(name = "siblings", script = "echo $dev > $out; echo > $dev", outputs = ["out", "dev"], allowed_references = ["out"])
sh(name = "strange", script = "echo > $out", allowed_references = ["nobody"])
sh(name = "forbidden", script = "echo %s > $out" % leaf, disallowed_references = [leaf])
sh(name = "indirect", script = "echo %s > $out # %s" % (middle, leaf), disallowed_references = [leaf])
sh(name = "forbidden-self", script = "echo $out > $out", disallowed_references = ["out"])
sh(name = "floating", script = "echo %s $out > $out" % leaf, allowed_references = ["out", leaf], content_addressed = True)
sh(name = "floating-self", script = "echo %s $out > $out" % leaf, allowed_references = [leaf], content_addressed = True)
"#;
    agree(
        &format!("{PARTS}{recipe}"),
        &[
            ("none", "is not allowed to refer to the following paths:\n  /nix/store/"),
            ("one", ""),
            ("other", "is not allowed to refer"),
            ("self", "is not allowed to refer"),
            ("own-name", ""),
            ("sibling", ""),
            ("siblings", "is not allowed to refer"),
            ("strange", "`nobody` is neither a store path nor the name of an output"),
            ("forbidden", "is not allowed to refer"),
            ("indirect", ""),
            ("forbidden-self", "is not allowed to refer"),
            ("floating", ""),
            ("floating-self", "is not allowed to refer"),
        ],
    );
}

#[test]
fn requisites_that_are_not_allowed() {
    let recipe = r#"
sh(name = "whole", script = "echo %s $out > $out # %s" % (middle, leaf), allowed_requisites = [middle, leaf])
sh(name = "direct", script = "echo %s > $out" % middle, allowed_requisites = [middle])
sh(name = "forbidden", script = "echo %s > $out # %s" % (middle, leaf), disallowed_requisites = [leaf])
sh(name = "self", script = "echo $out > $out", disallowed_requisites = ["out"])
sh(name = "unused", script = "echo > $out # %s" % leaf, disallowed_requisites = [leaf])
"#;
    agree(
        &format!("{PARTS}{recipe}"),
        &[
            ("whole", ""),
            ("direct", "is not allowed to refer"),
            ("forbidden", "is not allowed to refer"),
            ("self", ""),
            ("unused", ""),
        ],
    );
}

#[test]
fn checks_of_single_outputs() {
    let recipe = r#"
OUTPUTS = "for o in out dev; do eval $o=$(sed \"s/.*\\\"$o\\\":\\\"//; s/\\\".*//\" /build/.attrs.json); done\n"
def checked(name, checks, **attributes):
    return sh(name = name, script = OUTPUTS + "echo %s > $out; echo $dev > $dev # %s" % (middle, leaf),
        outputs = ["out", "dev"], structured_attrs = attributes, output_checks = checks)
checked("fine", {"out": {"allowedReferences": [middle], "maxSize": 1000, "maxClosureSize": 10000}, "dev": {"maxSize": 400}})
checked("references", {"out": {"allowedReferences": ["dev"]}})
checked("requisites", {"out": {"disallowedRequisites": [leaf]}})
checked("of-another", {"dev": {"disallowedRequisites": [leaf], "allowedReferences": ["dev"]}})
checked("large", {"dev": {"maxSize": 20}})
checked("large-closure", {"out": {"maxClosureSize": 300}})
checked("self", {"dev": {"allowedRequisites": []}})
checked("plain-attribute", {}, allowedReferences = [])
"#;
    agree(
        &format!("{PARTS}{recipe}"),
        &[
            ("fine", ""),
            ("references", "is not allowed to refer"),
            ("requisites", "is not allowed to refer"),
            ("of-another", ""),
            ("large", "`maxSize` is 20"),
            ("large-closure", "`maxClosureSize` is 300"),
            ("self", "is not allowed to refer"),
            ("plain-attribute", ""),
        ],
    );
}

#[test]
fn outputs_that_are_not_what_they_should_be() {
    let recipe = r#"
EMPTY = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
sh(name = "missing", script = "true")
sh(name = "half", script = "echo > $out", outputs = ["out", "dev"])
sh(name = "circle", script = "echo $dev > $out; echo $out > $dev", outputs = ["out", "dev"])
sh(name = "circle-floating", script = "echo $dev > $out; echo $out > $dev", outputs = ["out", "dev"], content_addressed = True)
sh(name = "world-writable", script = "echo > $out; chmod 666 $out")
sh(name = "mismatch", script = "echo > $out", output_hash = EMPTY)
sh(name = "executable", script = "> $out; chmod 755 $out", output_hash = EMPTY)
sh(name = "directory", script = "mkdir $out", output_hash = EMPTY)
sh(name = "referring", script = "echo %s > $out" % leaf, output_hash = EMPTY, output_hash_mode = "recursive")
sh(name = "features", script = "echo > $out", required_system_features = ["kvm-of-no-machine"])
sh(name = "graph-of-no-input", script = "echo > $out", env = {"exportReferencesGraph": "odd"})
derivation(name = "other-system", system = "aarch64-linux", builder = "/bin/sh")
sh(name = "no-chroot", script = "echo > $out", env = {"__noChroot": True})
"#;
    agree(
        &format!("{PARTS}{recipe}"),
        &[
            ("missing", "did not make its output `out`"),
            ("half", "did not make its output `dev`"),
            ("circle", "outputs refer to each other in a circle"),
            ("circle-floating", "outputs refer to each other in a circle"),
            ("world-writable", "suspicious permissions"),
            ("mismatch", "hash mismatch"),
            ("executable", "must be a regular file that is not executable"),
            ("directory", "must be a regular file"),
            ("referring", "hash mismatch"),
            ("features", "requires the system features `kvm-of-no-machine`"),
            ("graph-of-no-input", "odd number of words"),
            ("other-system", "it is to be built on `aarch64-linux`"),
            ("no-chroot", "`__noChroot`"),
        ],
    );
}

#[test]
fn exit_codes_are_combined_alike() {
    let recipe = r#"
sh(name = "bad", script = "exit 3")
sh(name = "endless", script = "while :; do :; done")
sh(name = "mismatch", script = "echo > $out", output_hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
sh(name = "fine", script = "echo > $out")
"#;
    let Some(portable) = Portable::with(recipe) else { return };
    let derivations: Vec<(&str, String)> = ["bad", "endless", "mismatch", "fine"]
        .map(|target| (target, portable.derivation(&format!("//:{target}"))))
        .into();
    let paths: Vec<&str> = derivations.iter().map(|(_, path)| path.as_str()).collect();
    portable.stock.take(&portable.workspace, &paths);
    for (targets, code) in [
        (&["bad", "fine"][..], 100),
        (&["endless"], 101),
        (&["mismatch"], 102),
        (&["bad", "endless"], 101),
        (&["bad", "mismatch"], 102),
        (&["bad", "endless", "mismatch", "fine"], 103),
    ] {
        let labels: Vec<String> = targets.iter().map(|target| format!("//:{target}")).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let options = ["build", "--keep-going", "--timeout", "1", "--jobs", "1"];
        portable.workspace.fails(code, &[&options[..], &labels].concat());
        let chosen = derivations.iter().filter(|(target, _)| targets.contains(target));
        let chosen: Vec<&str> = chosen.map(|(_, path)| path.as_str()).collect();
        let options = ["--realise", "--keep-going", "--timeout", "1", "--option", "max-jobs", "1"];
        let theirs = portable.stock.run("nix-store", &[&options[..], &chosen].concat());
        assert_eq!(theirs.code, code, "{targets:?}: {}", theirs.stderr);
    }
}

#[test]
fn what_comes_out_differently_is_refused_alike() {
    let recipe = r#"
sh(name = "same", script = "echo same > $out")
sh(name = "random", script = "head -c 16 /dev/urandom > $out")
sh(name = "mismatch", script = "echo > $out", output_hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
"#;
    let Some(portable) = Portable::with(recipe) else { return };
    for (target, code) in [("same", 0), ("random", 104)] {
        let label = format!("//:{target}");
        let Both { ours, theirs } = portable.build(&label, &[], &[]);
        assert_eq!((ours.code, theirs.code), (0, 0), "{}\n{}", ours.stderr, theirs.stderr);
        portable.workspace.fails(code, &["build", "--check", &label]);
        let checked = portable.stock.run("nix-store", &["--realise", "--check", &portable.derivation(&label)]);
        assert_eq!(checked.code, code, "{target}: {}", checked.stderr);
    }
    portable.workspace.fails(110, &["build", "--check", "--keep-going", "//:random", "//:mismatch", "//:same"]);
}

#[test]
fn a_fixed_output_that_fails_leaves_its_sibling_alone() {
    let recipe = r#"
SAME = "HASH"
sh(name = "same", script = "sleep 1; echo same > $out", output_hash = SAME, target = "slow")
sh(name = "same", script = "echo other > $out", output_hash = SAME, target = "bad")
sh(name = "same", script = "echo same > $out; exit 1", output_hash = SAME, target = "worse")
"#;
    let Some(portable) = Portable::with("") else { return };
    let workspace = &portable.workspace;
    let file = workspace.path().join("same");
    fs::write(&file, "same\n").unwrap();
    let hash = workspace.ok(&["store", "hash", "--flat", file.to_str().unwrap()]).text().to_owned();
    let before = fs::read_to_string(workspace.root().join("BUILD.star")).unwrap();
    workspace.write("BUILD.star", &format!("{before}{}", recipe.replace("HASH", &hash)));
    let targets = ["//:slow", "//:bad", "//:worse"];
    let derivations = targets.map(|target| portable.derivation(target));
    let derivations: Vec<&str> = derivations.iter().map(String::as_str).collect();
    portable.stock.take(workspace, &derivations);
    let ours = workspace.run(&[&["build", "--keep-going", "--jobs", "3"][..], &targets].concat());
    let theirs = portable.stock.run("nix-store", &[&["--realise", "--keep-going", "-j3"][..], &derivations].concat());
    // Whoever comes late finds what the slow one made.
    assert!(ours.code != 0 && theirs.code != 0, "{}\n{}", ours.stderr, theirs.stderr);
    assert_eq!(workspace.built("//:slow"), "same\n");
    workspace.verify_store();
    let path = &portable.outputs("//:slow")["out"];
    assert_eq!(fs::read_to_string(portable.stock.on_disk(path)).unwrap(), "same\n");
}

#[test]
fn jobs_overlap_as_far_as_they_may() {
    let recipe = r#"
TIMES = "date +%s > $out; sleep 2; date +%s >> $out"
[sh(name = name, script = TIMES) for name in ["a-together", "b-together", "a-alone", "b-alone"]]
"#;
    let Some(portable) = Portable::with(recipe) else { return };
    let times = |jobs: &str, which: &str| {
        let labels = ["a", "b"].map(|name| format!("//:{name}-{which}"));
        let ran = portable.workspace.ok(&["build", "--jobs", jobs, &labels[0], &labels[1]]);
        let read = |path: &str| -> (u64, u64) {
            let text = fs::read_to_string(path).unwrap();
            let (begin, end) = text.trim_end().split_once('\n').unwrap();
            (begin.parse().unwrap(), end.parse().unwrap())
        };
        let spans: Vec<_> = ran.stdout.lines().map(read).collect();
        (spans[0], spans[1])
    };
    let (one, other) = times("2", "together");
    assert!(one.0 < other.1 && other.0 < one.1, "{one:?} {other:?}");
    let (one, other) = times("1", "alone");
    assert!(one.1 <= other.0 || other.1 <= one.0, "{one:?} {other:?}");
}
