//! Builds that leak what they should not, one for each class of leak, and builds that do not. Each offender is made
//! identical by the builder contract, or `ampoule check` catches it and blames the right knob; nobody else is blamed.

mod host;
mod shell;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::harness::Workspace;

/// What has to become of a build that is checked.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// The contract makes it come out the same.
    Same,
    /// One of these is the whole culprit: a knob's name, names joined by `+`, or `itself`.
    Blamed(&'static [&'static str]),
    /// It is caught, whoever is blamed: on a machine that does other things besides, a race may take any for a culprit.
    Caught,
}

use Expected::{Blamed, Caught, Same};

/// A class of leaks, and the smallest build that has it.
pub struct Offender {
    /// The class, which is the derivation's name.
    pub class: &'static str,
    /// A program it needs besides a shell; where it is absent, the class is skipped.
    pub needs: &'static str,
    /// What it does.
    pub script: &'static str,
    pub expected: Expected,
}

/// Checks all of them in one run and compares each verdict. `header` defines `build(name, script)`.
fn try_all(workspace: &Workspace, header: &str, offenders: &[&Offender], arguments: &[&str]) {
    let mut recipe = format!("{header}\n");
    for offender in offenders {
        assert!(!offender.script.contains("'''"), "{}", offender.class);
        let script = offender.script.trim().replace('\\', "\\\\");
        let _ = writeln!(recipe, "build(name = \"{}\", script = '''\n{script}\n''')", offender.class);
    }
    workspace.write("BUILD.star", &recipe);
    let mut command = vec!["check", "--keep-going", "--json", "//:all"];
    command.extend(arguments);
    let ran = workspace.run(&command);
    let record = if ran.stdout.is_empty() { Value::Null } else { ran.json() };
    assert!(record["targets"].is_array(), "{}\n{}", ran.stdout, ran.stderr);
    let mut blamed: BTreeMap<&str, (String, &Value)> = BTreeMap::new();
    for failure in record["failures"].as_array().unwrap() {
        blamed.insert(failure["name"].as_str().unwrap(), (culprit(failure), failure));
    }
    let mut wrong = Vec::new();
    for offender in offenders {
        let found = blamed.get(offender.class);
        let (is_right, expected) = match offender.expected {
            Same => (found.is_none(), "nobody".to_owned()),
            Caught => (found.is_some(), "anybody".to_owned()),
            Blamed(culprits) => {
                (found.is_some_and(|(found, _)| culprits.contains(&found.as_str())), culprits.join(" or "))
            }
        };
        if !is_right {
            let found =
                found.map_or_else(|| "nobody".into(), |(found, failure)| format!("{found}: {}", failure["message"]));
            wrong.push(format!("{}: blamed {found}, not {expected}", offender.class));
        }
        if let Some((_, failure)) = found.filter(|_| is_right && !matches!(offender.expected, Caught)) {
            check_record(failure);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), offenders.len(), wrong.join("\n"));
}

/// Who was blamed, in one word.
fn culprit(failure: &Value) -> String {
    let culprit = &failure["finding"]["culprit"];
    match culprit["kind"].as_str() {
        Some("knobs") => {
            let knobs = culprit["knobs"].as_array().unwrap().iter().map(|knob| knob.as_str().unwrap());
            knobs.collect::<Vec<_>>().join("+")
        }
        Some(other) => other.to_owned(),
        None => format!("{} ({})", failure["kind"], failure["message"]),
    }
}

/// A finding comes with advice, in few rebuilds, and both outputs are kept.
fn check_record(failure: &Value) {
    let finding = &failure["finding"];
    let single = finding["culprit"]["knobs"].as_array().is_none_or(|knobs| knobs.len() == 1);
    let rebuilds = finding["rebuilds"].as_u64().unwrap();
    // Sixteen knobs; telling a variable that is merely written from one that matters takes two more.
    let most = if finding["culprit"]["knobs"][0] == "processor-features" { 8 } else { 6 };
    assert!(!single || rebuilds <= most, "{failure}");
    assert!(!finding["advice"].as_array().unwrap().is_empty(), "{failure}");
    if finding["failure"].is_null() {
        for which in ["first", "second"] {
            let path = failure["builds"][which].as_str().unwrap();
            assert!(Path::new(path).symlink_metadata().is_ok(), "{path}");
        }
    }
}
