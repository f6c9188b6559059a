//! In what builds differ, and what is known of a closure: `ampoule store diff` and `ampoule audit`.

use std::fs;

use crate::harness::{Workspace, installed};

/// A recipe with one target that comes out differently and one that does not.
const RECIPE: &str = r#"
sh(name = "clean", script = "echo clean > $out")
sh(
    name = "dirty",
    script = """
mkdir -p $out/lib tree
echo "built with $NIX_BUILD_CORES jobs" > tree/notes.txt
echo same > tree/same.txt
tar -cf $out/lib/tree.tar -C tree notes.txt same.txt
echo $NIX_BUILD_CORES > $out/cores
""",
)
"#;

/// A workspace where `//:dirty` has been found different, with five cores first and one then.
fn refuted() -> Option<Workspace> {
    let workspace = Workspace::with_tools(RECIPE)?;
    let ran = workspace.fails(104, &["build", "--check", "--keep-going", "--cores", "5", "//:all"]);
    ran.says(&[
        "  | lib/tree.tar » notes.txt: lines differ\n",
        "  |   - built with 5 jobs\n",
        "  |   + built with ",
        "  | likely causes:\n",
        "a number: counts of processors",
    ]);
    Some(workspace)
}

#[test]
fn a_check_says_what_differs_inside_of_archives() {
    let Some(workspace) = refuted() else { return };
    let ran = workspace.run(&["build", "--check", "--json", "--cores", "5", "//:dirty"]);
    let record = ran.json();
    let changes = &record["failures"][0]["builds"]["difference"]["changes"];
    assert_eq!(changes[0]["place"][0], "cores", "{record}");
    assert!(changes.to_string().contains(r#"["lib/tree.tar","notes.txt"]"#), "{record}");
}

#[test]
fn two_builds_of_an_output_are_compared_afterwards() {
    let Some(workspace) = refuted() else { return };
    let ran = workspace.fails(1, &["store", "diff", "//:dirty"]);
    assert!(
        ran.stdout.starts_with("cores: lines differ\n  @@ line 1 first, then line 1 @@\n  - 5\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("lib/tree.tar » notes.txt: lines differ"), "{}", ran.stdout);
    let record = workspace.fails(1, &["store", "diff", "--json", "--most", "1", "//:dirty"]).json();
    assert_eq!(record["difference"]["changes"].as_array().map(Vec::len), Some(1));
    let (first, second) = (record["first"].as_str().unwrap(), record["second"].as_str().unwrap());
    assert_eq!(workspace.fails(1, &["store", "diff", first, second]).stdout, ran.stdout);
    assert_eq!(workspace.ok(&["store", "diff", "//:dirty", first]).stdout, "");
    let whole = workspace.fails(1, &["store", "diff", "//:clean", "//:dirty"]).stdout;
    assert_eq!(whole, ".: type is `file` first, then `directory`\n");
    let nothing = workspace.fails(1, &["store", "diff", "//:clean"]);
    nothing.says(&["nothing that `//:clean` is made of has two builds that differ"]);
}

#[test]
fn files_outside_of_the_store_are_compared_too() {
    let workspace = Workspace::new();
    let (first, second) = (workspace.path().join("a"), workspace.path().join("b"));
    fs::write(&first, "one\n").unwrap();
    fs::write(&second, "two\n").unwrap();
    let arguments = ["store", "diff", first.to_str().unwrap(), second.to_str().unwrap()];
    let expected = ".: lines differ\n  @@ line 1 first, then line 1 @@\n  - one\n  + two\n";
    assert_eq!(workspace.fails(1, &arguments).stdout, expected);
    if installed("diffoscope") {
        let ran = workspace.fails(1, &[&arguments[..], &["--diffoscope"]].concat());
        assert!(ran.stdout.starts_with(expected) && ran.stdout.contains("@@ -1 +1 @@"), "{}", ran.stdout);
    }
}
