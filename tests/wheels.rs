//! The catalog of this repository, with real sources, as a new user builds it.
//!
//! What is downloaded is kept in the target directory, so that only the first run waits for the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Ran, Workspace, ampoule, installed};

const LABEL: &str = "//wheels:markupsafe";
const ARM64: &str = "markupsafe-2.1.5-cp311-cp311-manylinux_2_17_aarch64.whl";
const X86_64: &str = "markupsafe-2.1.5-cp311-cp311-manylinux_2_17_x86_64.whl";
/// Machines of ELF files.
const MACHINES: [(&str, u64, &str); 2] = [("aarch64", 183, ARM64), ("x86_64", 62, X86_64)];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs in this repository, with the store of the workspace.
fn run(workspace: &Workspace, arguments: &[&str]) -> Ran {
    Ran::from(ampoule(&workspace.home(), &repository()).args(arguments).output().unwrap())
}

fn ok(workspace: &Workspace, arguments: &[&str]) -> Ran {
    let ran = run(workspace, arguments);
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    ran
}

/// Copies the sources that the store has to where the next run looks for them.
fn keep_sources(workspace: &Workspace, kept: &Path) {
    let list = ok(workspace, &["sources", "list", "--json"]).json();
    for source in list["sources"].as_array().unwrap().iter().filter(|source| source["stored"] == true) {
        let copy = kept.join(source["file"].as_str().unwrap());
        if !copy.exists() {
            let base_name = source["path"].as_str().unwrap().strip_prefix("/nix/store/").unwrap();
            fs::copy(workspace.home().join("store").join(base_name), copy).unwrap();
        }
    }
}

#[test]
fn a_wheel_for_both_platforms_from_its_sdist() {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sources");
    fs::create_dir_all(&kept).unwrap();
    let workspace = Workspace::new();
    let first = run(&workspace, &["build", "--check", "--from", kept.to_str().unwrap(), LABEL]);
    if first.code == 1 && first.stderr.contains("could not be fetched") {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: the sources cannot be had: {}\n", first.stderr),
        );
        return;
    }
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    keep_sources(&workspace, &kept);
    for platform in ["linux-arm64", "linux-x86_64"] {
        first.says(&[&format!("{LABEL}[{platform},cp311]: built, identical when built again")]);
    }
    let wheels: Vec<PathBuf> = first.stdout.lines().map(PathBuf::from).collect();
    let names: Vec<&str> = wheels.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, [ARM64, X86_64]);

    let second = ok(&workspace, &["build", "--check", LABEL]);
    assert_eq!(second.stdout, first.stdout);
    second.says(&["in the store, identical when built again"]).is_silent_about(&["build ", "check ", "fetch "]);

    facts(&wheels);
    install(&workspace, &wheels[1]);
    again_without_network(&workspace, &first.stdout);
    workspace.verify_store();
}

/// What is inside must be what the names say.
fn facts(wheels: &[PathBuf]) {
    if !installed("python3") {
        return;
    }
    let script = repository().join("tests/fixtures/wheel_facts.py");
    for (wheel, (_, machine, name)) in wheels.iter().zip(MACHINES) {
        let output = Command::new("python3").arg(&script).arg(wheel).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tag = name.strip_prefix("markupsafe-2.1.5-").unwrap().strip_suffix(".whl").unwrap();
        assert_eq!(facts["tags"], serde_json::json!([tag]));
        let machines: Vec<u64> = facts["machines"].as_object().unwrap().values().flat_map(Value::as_u64).collect();
        assert_eq!(machines, [machine], "{facts}");
        let nothing = serde_json::json!([]);
        assert_eq!((&facts["unrecorded"], &facts["recorded_but_absent"]), (&nothing, &nothing));
        assert_eq!(facts["times"], 1, "all members have one date");
    }
}

/// The wheel of this machine can be installed and works, where there is a Python for it.
fn install(workspace: &Workspace, wheel: &Path) {
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3.11");
        command.args(arguments).env("PYTHONPATH", workspace.path().join("installed")).output()
    };
    if cfg!(not(target_arch = "x86_64")) || !python(&["-m", "pip", "--version"]).is_ok_and(|ran| ran.status.success()) {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: there is no Python 3.11 with pip for x86_64\n"),
        );
        return;
    }
    let target = workspace.path().join("installed");
    let (target, wheel) = (target.to_str().unwrap(), wheel.to_str().unwrap());
    let installed = Ran::from(python(&["-m", "pip", "install", "--no-index", "--target", target, wheel]).unwrap());
    assert_eq!(installed.code, 0, "{}", installed.stderr);
    let program = "import markupsafe, markupsafe._speedups as fast; print(markupsafe.__file__, fast.escape('<'))";
    let imported = Ran::from(python(&["-c", program]).unwrap());
    assert!(imported.stdout.starts_with(target) && imported.stdout.ends_with(" &lt;\n"), "{}", imported.stderr);
}

/// Deletes all that was made from the sdist, and builds it again from what the store has.
fn again_without_network(workspace: &Workspace, expected: &str) {
    let objects = fs::read_dir(workspace.home().join("store")).unwrap().flatten();
    let names = objects.map(|object| object.file_name().to_str().unwrap().to_owned());
    let made: Vec<String> = names.filter(|name| name.contains("-markupsafe-2.1.5-")).collect();
    assert!(made.len() >= 7, "a source tree, and for each platform a raw wheel, a wheel and a test: {made:?}");
    let mut arguments = vec!["store", "delete"];
    arguments.extend(made.iter().map(String::as_str));
    ok(workspace, &arguments);
    let again = ok(workspace, &["build", "--offline", "--jobs", "1", "--cores", "1", LABEL]);
    assert_eq!(again.stdout, expected);
    again.says(&["build markupsafe-2.1.5-linux-arm64-cp311-raw: built"]).is_silent_about(&["fetch "]);
}
