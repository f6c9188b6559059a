//! Keeps the repository as `CONTRIBUTING.md` promises: the edges between the rooms, file sizes, left-over marks,
//! unlisted test files, and no host of a package registry anywhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rooms, left to right: each may use only rooms before it.
const ROOMS: [&str; 4] = ["store", "derivations", "sysroots", "eval"];
/// A Rust file longer than this must be split.
const MAX_LINES: usize = 1000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Files of the repository: what git tracks or would track, else (in an exported tree) all files outside `target`.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    match listed {
        Some(output) => output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()))
            .filter(|path| root().join(path).is_file())
            .collect(),
        None => walk(&root()),
    }
}

fn walk(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the checkout can be read").flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" && entry.file_name() != ".git" {
                pending.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(top).expect("below the top").to_owned());
            }
        }
    }
    found
}

fn texts(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| {
            extensions.is_empty()
                || path.extension().and_then(|e| e.to_str()).is_some_and(|extension| extensions.contains(&extension))
        })
        .filter_map(|path| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text)))
        .collect()
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn there_is_something_to_check() {
    assert!(files().len() > 50, "only {} files found: the other tidy tests would pass on nothing", files().len());
}

#[test]
fn rooms_use_only_rooms_to_their_left() {
    let mut complaints = Vec::new();
    for (position, room) in ROOMS.iter().enumerate() {
        let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).expect("each room has a manifest");
        for right in &ROOMS[position + 1..] {
            if manifest.contains(&format!("ampoule-{right}")) {
                complaints.push(format!("{room}/Cargo.toml: `{room}` must not use `{right}`, which lies to its right"));
            }
        }
    }
    report(&complaints);
}

#[test]
fn rust_files_stay_readable() {
    let complaints: Vec<String> = texts(&["rs"])
        .iter()
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .map(|(path, text)| format!("{}: {} lines; split it (limit {MAX_LINES})", path.display(), text.lines().count()))
        .collect();
    report(&complaints);
}

#[test]
fn front_doors_stay_short() {
    let complaints: Vec<String> = ROOMS
        .iter()
        .map(|room| PathBuf::from(room).join("src/lib.rs"))
        .filter(|path| std::fs::read_to_string(root().join(path)).expect("each room has a lib.rs").lines().count() > 80)
        .map(|path| format!("{}: longer than 80 lines", path.display()))
        .collect();
    report(&complaints);
}

#[test]
fn no_left_over_marks() {
    // Spelt in halves, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|halves| halves.concat());
    let mut complaints = Vec::new();
    for (path, text) in texts(&["rs", "star", "py", "sh", "toml"]) {
        for (number, line) in text.lines().enumerate() {
            let words: BTreeSet<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            if let Some(mark) = marks.iter().find(|mark| words.contains(mark.as_str())) {
                complaints.push(format!("{}:{}: left-over mark `{mark}`", path.display(), number + 1));
            }
        }
    }
    report(&complaints);
}

#[test]
fn unsafe_code_lives_in_the_sandbox_alone() {
    let complaints: Vec<String> = texts(&["rs"])
        .iter()
        .filter(|(path, _)| !path.starts_with("eval/src/sandbox") && !path.starts_with("tests/sandbox"))
        .filter(|(path, _)| path != Path::new("tests/tidy.rs") && path != Path::new("tests/sandbox.rs"))
        // Nothing else can stop a program at each of its system calls.
        .filter(|(path, _)| path != Path::new("store/tests/durability/tracer.rs"))
        // Nothing else says what one process took that ended.
        .filter(|(path, _)| path != Path::new("eval/benches/store/measure.rs"))
        // The derives of the language's values implement an unsafe marker trait of the interpreter.
        .filter(|(path, _)| path != Path::new("eval/src/lang/values.rs"))
        .filter(|(_, text)| text.contains("allow(unsafe_code") || text.contains("expect(unsafe_code"))
        .map(|(path, _)| format!("{}: unsafe code outside the sandbox", path.display()))
        .collect();
    report(&complaints);
}

#[test]
fn every_end_to_end_test_file_is_listed() {
    let main = std::fs::read_to_string(root().join("tests/main.rs")).expect("tests/main.rs exists");
    let manifest = std::fs::read_to_string(root().join("eval/Cargo.toml")).expect("eval has a manifest");
    let complaints: Vec<String> = files()
        .into_iter()
        .filter(|path| path.parent() == Some(Path::new("tests")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            !main.contains(&format!("mod {stem};")) && !manifest.contains(&format!("../{}", path.display()))
        })
        .map(|path| format!("{}: neither a module of tests/main.rs nor a test of eval/Cargo.toml", path.display()))
        .collect();
    report(&complaints);
}

/// Domains of package registries, each spelt in halves, so that this file names none of them.
fn registry_hosts() -> Vec<String> {
    [
        ["pyp", "i.org"],
        ["pyp", "i.python.org"],
        ["python", "hosted.org"],
        ["deb.deb", "ian.org"],
        ["ftp.deb", "ian.org"],
        ["security.deb", "ian.org"],
        ["snapshot.deb", "ian.org"],
        ["archive.ub", "untu.com"],
        ["crates", ".io/"],
        ["static.crates", ".io"],
        ["index.crates", ".io"],
        ["registry.np", "mjs.org"],
        ["registry.ya", "rnpkg.com"],
        ["proxy.go", "lang.org"],
        ["sum.go", "lang.org"],
        ["repo.ma", "ven.apache.org"],
        ["repo1.ma", "ven.org"],
        ["registry-1.do", "cker.io"],
        ["index.do", "cker.io"],
        ["chrome-infra-pack", "ages.appspot.com"],
        ["cache.nix", "os.org"],
    ]
    .map(|halves| halves.concat())
    .to_vec()
}

#[test]
fn no_registry_host_is_named() {
    let hosts = registry_hosts();
    let mut complaints = Vec::new();
    for (path, text) in texts(&[]) {
        for (number, line) in text.lines().enumerate() {
            if let Some(host) = hosts.iter().find(|host| line.contains(host.as_str())) {
                complaints.push(format!("{}:{}: names the registry host `{host}`", path.display(), number + 1));
            }
        }
    }
    report(&complaints);
}

#[test]
fn no_path_of_a_developers_machine() {
    let homes =
        [["/ro", "ot/.cargo"], ["/ro", "ot/.pyenv"], ["/work", "/main"], ["/work", "/wt"], ["/work", "/shared"]]
            .map(|halves| halves.concat());
    let mut complaints = Vec::new();
    for (path, text) in texts(&[]) {
        for (number, line) in text.lines().enumerate() {
            if let Some(home) = homes.iter().find(|home| line.contains(home.as_str())) {
                complaints.push(format!("{}:{}: names `{home}`", path.display(), number + 1));
            }
        }
    }
    report(&complaints);
}

/// Licences that leave users free, alone or in a choice; `deny.toml` has the same list.
const LICENCES: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

#[test]
fn every_dependency_has_a_permissive_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    if !output.status.success() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: cargo metadata: {}\n", String::from_utf8_lossy(&output.stderr).trim()),
        );
        return;
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 100, "only {} packages found", packages.len());
    let complaints: Vec<String> = packages
        .iter()
        .filter(|package| !is_permissive(package["license"].as_str().unwrap_or_default()))
        .map(|package| format!("{} {}: licence `{}`", package["name"], package["version"], package["license"]))
        .collect();
    report(&complaints);
}

/// Whether an SPDX expression, which has no nested parentheses in practice, can be satisfied with the list.
fn is_permissive(expression: &str) -> bool {
    let all = expression.replace('/', " OR ");
    let all = all.replace(['(', ')'], "");
    all.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn the_list_of_licences_is_that_of_cargo_deny() {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml exists");
    let deny: toml::Table = text.parse().expect("deny.toml is TOML");
    let allowed = deny["licenses"]["allow"].as_array().expect("a list");
    let allowed: Vec<&str> = allowed.iter().filter_map(|licence| licence.as_str()).collect();
    assert_eq!(allowed, LICENCES);
}
