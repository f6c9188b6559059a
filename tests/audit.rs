//! In what builds differ, and what is known of a closure: `ampoule store diff` and `ampoule audit`.

use std::fs;

use crate::browser::Browser;
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

#[test]
fn an_audit_tells_what_is_proved_and_what_is_not() {
    let Some(workspace) = refuted() else { return };
    let ran = workspace.fails(104, &["audit", "//:all"]);
    let row = |verdict: &str, name: &str| {
        let rows = ran.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.into_iter().find(|row| row.starts_with(&[verdict, name])).unwrap_or_else(|| panic!("{}", ran.stdout))
    };
    assert_eq!(row("refuted", "dirty")[2..5], ["1", "0", "embedded"]);
    assert_eq!(row("proved", "clean")[2..5], ["2", "1", "embedded"]);
    assert_eq!(row("proved", "busybox")[2..5], ["2", "1", "embedded"]);
    assert!(ran.stdout.contains("\npinned   busybox-static_"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  | lib/tree.tar » notes.txt: lines differ\n"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("\n1 of 3 outputs is not reproducible\n"), "{}", ran.stdout);
    let record = workspace.fails(104, &["audit", "--json", "//:all"]).json();
    assert_eq!(record["summary"]["refuted"], 1);
    assert_eq!(record["summary"]["proved"], 2);
    assert_eq!(record["summary"]["pinned"], 1);
    let names: Vec<&str> =
        record["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"dirty"), "{names:?}");
    let clean = workspace.ok(&["audit", "//:clean"]);
    assert!(clean.stdout.ends_with("\nall 2 outputs are proved reproducible\n"), "{}", clean.stdout);
}

#[test]
fn a_rebuild_that_fails_refutes() {
    let recipe = r#"sh(name = "fickle", script = "test $NIX_BUILD_CORES = 7; echo > $out")"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.fails(100, &["build", "--check", "--cores", "7", "//:fickle"]);
    let ran = workspace.fails(104, &["audit", "//:fickle"]);
    assert!(ran.stdout.contains("the rebuild failed, though the first build did not"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("\n1 of 2 outputs is not reproducible\n"), "{}", ran.stdout);
}

#[test]
fn an_audit_of_what_was_never_built_says_so() {
    let Some(workspace) = Workspace::with_tools(RECIPE) else { return };
    let ran = workspace.ok(&["audit", "//:clean"]);
    assert!(ran.stdout.contains("unproved  clean") && ran.stdout.contains("none"), "{}", ran.stdout);
    workspace.fails(1, &["audit", "--runtime", "//:clean"]).says(&["`//:clean` has not been built in this store"]);
}

#[test]
fn a_run_time_audit_walks_references() {
    let recipe = r#"
lower = sh(name = "lower", script = "echo lower > $out")
middle = sh(name = "middle", script = "mkdir $out; ln -s %s $out/lower" % lower)
tool = sh(name = "tool", script = "echo tool > $out")
sh(name = "upper", script = "cat %s > /dev/null; echo %s > $out" % (tool, middle))
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    workspace.ok(&["build", "--check", "//:upper"]);
    let record = workspace.ok(&["audit", "--runtime", "--json", "//:upper"]).json();
    let nodes = record["nodes"].as_array().unwrap();
    let names: Vec<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["lower", "middle", "upper"]);
    assert!(nodes.iter().all(|node| node["standing"] == "proved"), "{record:#}");
    assert_eq!(nodes[1]["inputs"][0], nodes[0]["path"]);
    assert_eq!(record["scope"], "run-time");
}

/// What a log may say without becoming part of the page.
const HOSTILE: &str = "</pre></details><script>document.title = 1</script><img src=x onerror=alert(1)>";

#[test]
fn the_page_works_in_a_browser() {
    let recipe = format!("{RECIPE}\nsh(name = \"loud\", script = \"\"\"echo '{HOSTILE}'; echo > $out\"\"\")");
    let Some(workspace) = Workspace::with_tools(&recipe) else { return };
    let Some(mut browser) = Browser::start() else { return };
    workspace.fails(104, &["build", "--check", "--keep-going", "--cores", "5", "//:all"]);
    let page = workspace.path().join("audit.html");
    let html = page.to_str().unwrap();
    workspace.fails(104, &["audit", "--html", html, "//:all"]).says(&["wrote "]);
    browser.open(&page, 1280, 900);
    let count = |browser: &mut Browser, selector: &str| {
        browser.eval(&format!("document.querySelectorAll('{selector}').length")).as_u64().unwrap()
    };
    let visible = "#outputs tbody tr:not([hidden])";
    assert_eq!(count(&mut browser, visible), 5);
    assert_eq!(count(&mut browser, ".box"), 5);
    assert_eq!(count(&mut browser, ".lines path"), 4);
    assert_eq!(count(&mut browser, "img"), 0);
    assert_eq!(browser.eval("document.querySelector('h1').textContent"), "1 of 4 outputs is not reproducible.");
    assert!(browser.eval("document.querySelector('#attention').textContent").to_string().contains("notes.txt"));
    let logs = browser.eval("Array.from(document.querySelectorAll('.log pre')).map((log) => log.textContent).join()");
    assert!(logs.as_str().unwrap().contains(HOSTILE), "{logs}");
    // Search.
    browser.eval("search.value = 'DIRTY'; search.dispatchEvent(new Event('input'))");
    assert_eq!(count(&mut browser, visible), 1);
    assert_eq!(count(&mut browser, ".box:not(.dim)"), 1);
    assert_eq!(browser.eval("shown.textContent"), "1 of 5 outputs");
    browser.eval("search.value = ''; search.dispatchEvent(new Event('input'))");
    // Verdicts.
    browser.eval("document.querySelector('.chip[data-standing=proved]').click()");
    assert_eq!(count(&mut browser, visible), 2);
    browser.eval("document.querySelector('.chip[data-standing=proved]').click()");
    // Order.
    let first = "document.querySelector('#outputs tbody tr td:nth-child(2) a').textContent";
    browser.eval("document.querySelectorAll('#outputs th button')[1].click()");
    assert_eq!(browser.eval(first), "busybox");
    browser.eval("document.querySelectorAll('#outputs th button')[1].click()");
    assert_eq!(browser.eval(first), "loud");
    // A box leads to its details and shows its surroundings.
    browser.eval("document.querySelector('.box[data-name=dirty]').focus()");
    assert_eq!(count(&mut browser, ".lines path.on"), 2);
    assert!(browser.eval("pointed.textContent").as_str().unwrap().starts_with("refuted: dirty. Needs 2"));
    browser.eval("location.hash = document.querySelector('.box[data-name=dirty]').getAttribute('href')");
    assert_eq!(browser.eval("new Promise(requestAnimationFrame) && 1"), 1);
    let before = browser.eval("picture.getAttribute('viewBox')");
    browser.eval("closer.click()");
    assert_ne!(browser.eval("picture.getAttribute('viewBox')"), before);
    // Light and dark.
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.eval(ground);
    browser.eval("theme.click()");
    assert_ne!(browser.eval(ground), light);
    browser.is_quiet();
    // On a phone nothing is wider than the screen.
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.open(&page, 1280, 900);
        browser.picture(&format!("small-{scheme}"));
        browser.open(&page, 390, 844);
        browser.picture(&format!("small-phone-{scheme}"));
        assert_eq!(browser.eval("document.documentElement.scrollWidth"), 390);
    }
    browser.is_quiet();
}

#[test]
fn a_large_closure_can_be_read() {
    let mut recipe = String::from("nodes = []\n");
    recipe.push_str(
        r#"
def make(number):
    needs = [nodes[at] for at in [number // 2, number - 1 - number % 7, number * 5 // 6] if at < number and number % 40]
    env = {"need%d" % at: need for at, need in enumerate(needs)}
    nodes.append(derivation(name = "step-%d" % number, builder = "/bin/sh", system = "x86_64-linux", env = env))

[make(number) for number in range(300)]
"#,
    );
    let workspace = Workspace::with(&recipe);
    let page = workspace.path().join("audit.html");
    let ran = workspace.ok(&["audit", "--quiet", "--html", page.to_str().unwrap(), "//:all"]);
    assert_eq!(ran.stdout, "");
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&page, 1280, 900);
    browser.picture("large");
    assert_eq!(browser.eval("document.querySelectorAll('.box').length"), 300);
    assert_eq!(browser.eval("document.querySelectorAll('#outputs tbody tr').length"), 300);
    // No box lies on another one.
    let overlaps = "(() => {
        const places = Array.from(document.querySelectorAll('.box > rect')).map((box) => box.getBoundingClientRect());
        return places.filter((a, at) => places.slice(at + 1).some((b) =>
            a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length;
    })()";
    assert_eq!(browser.eval(overlaps), 0);
    browser.eval("search.value = 'step-299'; search.dispatchEvent(new Event('input'))");
    assert_eq!(browser.eval("document.querySelectorAll('.box:not(.dim)').length"), 1);
    browser.is_quiet();
}
