//! Those functional tests of Nix that say what a store and a builder must do: forty, each a case of ours.
//!
//! They run through our binary and, where both can answer, through stock Nix too ([`stock::Stock`]): the same paths, hashes
//! and exit codes. Each file here has the rows of its cases, [`Case`], next to the tests; `docs/conformance.md` is made of them
//! and shows all forty. A row may name tests that live elsewhere.

mod building;
mod caches;
mod collecting;
mod contract;
mod exchange;
mod keeping;
mod portable;
mod refusals;
mod relations;
mod stock;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One of the functional tests of Nix.
pub struct Case {
    /// Its number in our list, from one.
    pub number: u8,
    /// What Nix calls it.
    pub name: &'static str,
    /// What of it is tried, in one line.
    pub covers: &'static str,
    /// The tests that try it, as `file::function`, the file seen from the root of the repository.
    pub tests: &'static [&'static str],
    /// What of it is not tried, and why; empty if nothing.
    pub left_out: &'static str,
}

const LAST: u8 = 40;

fn cases() -> Vec<&'static Case> {
    let all = [building::CASES, caches::CASES, collecting::CASES, exchange::CASES];
    let all = all.into_iter().chain([keeping::CASES, relations::CASES, values::CASES]);
    let mut cases: Vec<&Case> = all.flatten().collect();
    cases.sort_by_key(|case| case.number);
    cases
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

#[test]
fn every_number_has_its_case() {
    let numbers: Vec<u8> = cases().iter().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=LAST).collect::<Vec<u8>>());
    for case in cases() {
        assert!(!case.tests.is_empty() || !case.left_out.is_empty(), "{} {} says nothing", case.number, case.name);
        assert_eq!(case.covers.is_empty(), case.tests.is_empty(), "{} {}", case.number, case.name);
    }
}

#[test]
fn every_test_that_a_case_names_is_there_and_none_here_is_unnamed() {
    let mut named = BTreeSet::new();
    for case in cases() {
        for test in case.tests {
            let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("{test}: no `file::function`"));
            let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(functions(&text).contains(&function), "{}: {file} has no test `{function}`", case.number);
            named.insert((file.to_owned(), function.to_owned()));
        }
    }
    for entry in fs::read_dir(root().join("tests/nix_functional")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "mod.rs" {
            continue;
        }
        let file = format!("tests/nix_functional/{name}");
        for function in functions(&fs::read_to_string(root().join(&file)).unwrap()) {
            assert!(named.contains(&(file.clone(), function.to_owned())), "{file}: no case names `{function}`");
        }
    }
}

/// The tests of a file; in the sandbox's runner, which has no marks, every function.
fn functions(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let marked = text.contains("#[test]");
    let is_test = |position: usize| {
        let before = lines[..position].iter().rev().take_while(|line| line.starts_with("#["));
        !marked || before.clone().any(|line| *line == "#[test]")
    };
    let heads = lines.iter().enumerate().filter(|(position, line)| line.starts_with("fn ") && is_test(*position));
    heads.filter_map(|(_, line)| line.strip_prefix("fn ")?.split('(').next()).collect()
}

/// The page that shows the cases.
fn page() -> String {
    let cases = cases();
    let whole = cases.iter().filter(|case| case.left_out.is_empty()).count();
    let none = cases.iter().filter(|case| case.tests.is_empty()).count();
    let mut page = format!(
        "# Conformance with Nix\n\n\
         Formats have golden vectors made with Nix ([formats](formats/)). What a store and a builder *do* is told by Nix's functional\n\
         tests; those of them that concern us are cases of ours, run through our binary and, where both can answer, through stock Nix 2.8\n\
         beside it. This page is made by `tests/nix_functional`: {whole} of {LAST} cases whole, {} in part, {none} not tried.\n\n\
         | | Nix's test | what is tried | where | left out |\n|---|---|---|---|---|\n",
        cases.len() - whole - none
    );
    for case in cases {
        let mut files: Vec<&str> = case.tests.iter().filter_map(|test| test.split("::").next()).collect();
        files.dedup();
        let files: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
        let (number, name, covers) = (case.number, case.name, case.covers);
        page.push_str(&format!("| {number} | {name} | {covers} | {} | {} |\n", files.join(", "), case.left_out));
    }
    page
}

#[test]
fn the_page_is_up_to_date() {
    let file = root().join("docs/conformance.md");
    if std::env::var_os("AMPOULE_ACCEPT").is_some() {
        fs::write(&file, page()).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == page(), "docs/conformance.md is not up to date; run this test with AMPOULE_ACCEPT=1");
}
