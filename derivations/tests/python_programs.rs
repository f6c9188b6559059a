//! Runs the prelude's Python programs as a sandbox would, where the machine has a Python of version 3.11 or later.
#![expect(clippy::disallowed_methods, reason = "tests run real programs on real files")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says when it is skipped")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Whether there is a Python to test with; says why not.
fn has_python() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let check = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"];
        let found = Command::new("python3").args(check).output().is_ok_and(|output| output.status.success());
        if !found {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: there is no `python3` of version 3.11 or later\n"),
            );
        }
        found
    })
}

fn prelude() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("prelude")
}

/// A build with its source tree, its build requirements and its output.
struct Build {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl Build {
    /// A source tree with these files.
    fn of(files: &[(&str, &str)]) -> Self {
        let build = Build { directory: TempDir::new().unwrap(), environment: Vec::new() };
        for directory in ["build", "src", "path/lib", "path/bin"] {
            fs::create_dir_all(build.at(directory)).unwrap();
        }
        for (name, content) in files {
            build.write(&format!("src/{name}"), content);
        }
        build
    }

    /// A project whose backend is its own `backend.py`.
    fn with_backend(requires: &str, backend: &str) -> Self {
        let project =
            format!("[build-system]\nrequires = {requires}\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n");
        Self::of(&[("pyproject.toml", &project), ("backend.py", backend)])
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), content).unwrap();
    }

    /// Adds a distribution to the build requirements.
    fn given(self, name: &str, version: &str, requires: &[&str]) -> Self {
        let needs: String = requires.iter().map(|need| format!("Requires-Dist: {need}\n")).collect();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}");
        self.write(&format!("path/lib/{name}-{version}.dist-info/METADATA"), &metadata);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn run(&self) -> Ran {
        let output = Command::new("python3")
            .arg(prelude().join("build_wheel.py"))
            .current_dir(self.at("build"))
            .env("src", self.at("src"))
            .env("out", self.at("out"))
            .env("python_path", self.at("path"))
            .env_remove("PYTHONPATH")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        Ran::new(&output)
    }
}

struct Ran {
    code: Option<i32>,
    log: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ran { code: output.status.code(), log: out + &err }
    }

    #[track_caller]
    fn expect(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.log);
        for words in said {
            assert!(self.log.contains(words), "`{words}` is missing in:\n{}", self.log);
        }
    }
}

/// A backend that makes a wheel with one file, which says what the backend saw.
const GOOD: &str = r#"
import os, subprocess, sys, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    open("generated", "w").close()
    listing = "import os; print(os.listdir(), [e.name for e in os.scandir('.')], next(os.walk('.')))"
    os.mkdir("d")
    for name in sorted("zaxbyc", reverse=True):
        open("d/" + name, "w").close()
    print(subprocess.check_output([sys.executable, "-c", listing], text=True, cwd="d"))
    print("settings", config_settings, "cwd", os.path.basename(os.getcwd()), "umask", oct(os.umask(0o022)))
    print("mode", oct(os.stat("backend.py").st_mode & 0o777), sorted(os.listdir("d")) == os.listdir("d"))
    print("times", {int(os.stat(name).st_mtime) for name in ("backend.py", "pyproject.toml")})
    print("importable", [entry for entry in sys.path if entry.endswith("prelude")])
    with zipfile.ZipFile(os.path.join(directory, "x-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("x.py", "")
    open(os.path.join(directory, "stray"), "w").close()
    return "x-1-py3-none-any.whl"
"#;

#[test]
fn one_wheel_comes_out() {
    if !has_python() {
        return;
    }
    let build = Build::with_backend("[]", GOOD).env("config_settings", r#"{"a": ["b"]}"#);
    let read_only = fs::Permissions::from_mode(0o444);
    fs::set_permissions(build.at("src/backend.py"), read_only).unwrap();
    let ran = build.run();
    let settings = "settings {'a': ['b']} cwd src umask 0o22";
    let names = "['a', 'b', 'c', 'x', 'y', 'z']";
    ran.expect(0, &[&format!("{names} {names} ('.', [], {names})\n")]);
    ran.expect(0, &[settings, "mode 0o644 True", "times {315532800}", "importable []", "built x-1-py3-none-any.whl"]);
    let names: Vec<_> = fs::read_dir(build.at("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["x-1-py3-none-any.whl"]);
    assert!(!build.at("src/generated").exists(), "the source was written to");
}

#[test]
fn a_foreign_target_needs_its_python() {
    if !has_python() {
        return;
    }
    let target = r#"{"platform": "a", "machine": "b", "multiarch": "c-d", "python_platform": "e-f", "bits": 64}"#;
    let ran = Build::with_backend("[]", GOOD).env("target", target).run();
    ran.expect(2, &["the toolchain's Python cannot build for a", "its sysroot needs the target's `libpython3."]);
}

#[test]
fn a_call_that_makes_no_sense_is_refused() {
    if !has_python() {
        return;
    }
    let run = |name: &str, value: &str| Build::with_backend("[]", GOOD).env(name, value).run();
    run("target", r#"{"platform": "linux-x86_64", "python": "cp27"}"#).expect(2, &["the build is for `cp27`"]);
    run("target", r#"{"platform": "linux-vax"}"#).expect(2, &["the target `linux-vax` is unknown", "known platforms"]);
    run("config_settings", "{").expect(2, &["`config_settings` is not JSON"]);
    run("config_settings", "[1]").expect(2, &["`config_settings` is not a JSON object"]);
    run("src", "").expect(2, &["`src` is missing"]);
}

#[test]
fn requirements_are_enforced() {
    if !has_python() {
        return;
    }
    let requires = r#"["Absent_Tool >= 2", "old!=1.5", "fine>=1,<2", "never>=1; python_version < '3'", "near[more]"]"#;
    let ran = Build::with_backend(requires, GOOD)
        .given("old", "1.5", &[])
        .given("fine", "1.5.post1", &["beneath>=3", "optional; extra == 'unasked'"])
        .given("beneath", "2.9", &[])
        .given("near", "1", &["far; extra == 'more'"])
        .run();
    ran.expect(
        12,
        &[
            "pyproject.toml requires `Absent_Tool >= 2`; it is not among this build's inputs",
            "pyproject.toml requires `old!=1.5`; the input is 1.5",
            "fine 1.5.post1 requires `beneath>=3`; the input is 2.9",
            "near 1 requires `far; extra == 'more'`; it is not among this build's inputs",
            "hint: change `build_requires`; the inputs are: beneath 2.9, fine 1.5.post1, near 1, old 1.5",
        ],
    );
    assert!(!ran.log.contains("unasked") && !ran.log.contains("never"), "{}", ran.log);
}

#[test]
fn what_a_hook_asks_for_is_enforced_too() {
    if !has_python() {
        return;
    }
    let backend = format!("{GOOD}\ndef get_requires_for_build_wheel(config_settings=None):\n    return ['late>=2']\n");
    let message = "get_requires_for_build_wheel of backend requires `late>=2`; ";
    Build::with_backend("[]", &backend).run().expect(12, &[message]);
    Build::with_backend("[]", &backend).given("late", "1", &[]).run().expect(12, &[message, "the input is 1"]);
    Build::with_backend("[]", &backend).given("late", "2", &[]).run().expect(0, &["built"]);
}

#[test]
fn a_project_without_a_build_system_needs_setuptools() {
    if !has_python() {
        return;
    }
    let ran = Build::of(&[("setup.py", "")]).run();
    ran.expect(12, &["a project without `[build-system]` requires `setuptools>=40.8.0`; it is not among"]);
}

#[test]
fn failures_can_be_told_apart() {
    if !has_python() {
        return;
    }
    let backend = |text: &str| Build::with_backend("[]", text).run();
    Build::of(&[]).run().expect(10, &["neither `pyproject.toml` nor `setup.py`"]);
    Build::of(&[("pyproject.toml", "[build-system")]).run().expect(10, &["`pyproject.toml` cannot be parsed"]);
    Build::with_backend(r#"["a b"]"#, GOOD).run().expect(10, &["requires `a b`, which is not a requirement"]);
    let outside = "[build-system]\nrequires = []\nbuild-backend = \"b\"\nbackend-path = [\"..\"]\n";
    Build::of(&[("pyproject.toml", outside)]).run().expect(10, &["`backend-path` entry `..` leads out"]);
    let unknown = "[build-system]\nrequires = []\nbuild-backend = \"nowhere.at:all\"\n";
    Build::of(&[("pyproject.toml", unknown)])
        .run()
        .expect(11, &["build backend `nowhere.at:all` cannot be imported", "Traceback"]);
    backend("").expect(11, &["no `build_wheel` hook"]);
    let raises = "def build_wheel(*rest):\n    raise SystemExit('the compiler is out of order')";
    let failed = "hook `build_wheel` failed: SystemExit: the compiler is out of order";
    backend(raises).expect(13, &["Traceback", failed]);
    let starts = "import subprocess\ndef build_wheel(*rest):\n    subprocess.check_call(['false', 'a b'])";
    backend(starts).expect(13, &["hint: it ran `false 'a b'`"]);
    backend("def build_wheel(*rest):\n    return 'x.whl'").expect(14, &["said `x.whl`, but made []"]);
}

/// Each row: a version, then specifiers that allow it, then ones that do not.
const VERSIONS: &str = r#"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from build_wheel import Requirement, Version
order = "1.dev1 1a1.dev1 1a1 1b1 1rc1 1 1+local 1+2 1.post1.dev2 1.post1 1.0.1 1.1 10 1!0".split()
keys = [Version(text).key() for text in order]
assert keys == sorted(keys) and len(set(keys)) == len(keys)
for same in ("1", "1.0", "v1.0.0"), ("1rc2", "1.0-c.2", "1PRE2"), ("1.post3", "1-3", "1.r3"):
    assert len({Version(text).key() for text in same}) == 1, same
rows = [
    ("75.8.2", ">=40.8.0 ~=75.8 ==75.* !=75.1.0 <76,>=69.5.1", "<75 ~=74.1 ==75.8 >75.8.2 !=75.*"),
    ("3.0.11", "~=3.0.11 ===3.0.11 ==3.0.11.0 >3", "~=3.0.12 ===3.0.11.0 ~=3.1 <3.0.11"),
    ("2.0rc1", "<2.0.1 >=2.0rc1 >1.9", "<2.0 >=2.0 ==2.0"),
    ("2.0.post1", ">=2.0 >1.9 ==2.0.*", ">2.0 ==2.0 <=2.0 >2.0rc1"),
    ("2.0+deb1", "==2.0 >=2.0 ==2.0+deb1 <=2.0", "==2.0+deb1.0 >2.0 !=2.0"),
]
for version, yes, no in rows:
    for text in yes.split():
        assert Requirement("name" + text).allows(version), (version, text)
    for text in no.split():
        assert not Requirement("name" + text).allows(version), (version, text)
for text in "", "a b", "a>", "a>>1", "a==", "a; os_name", "a; nothing == '1'", "a; (os_name == 'x'", "a ~= 1":
    try:
        Requirement(text).applies({"os_name": "posix"})
    except ValueError:
        continue
    raise AssertionError(text)
"#;

#[test]
fn versions_and_specifiers_follow_pep_440() {
    if !has_python() {
        return;
    }
    let output = Command::new("python3").args(["-c", VERSIONS]).arg(prelude()).output().unwrap();
    Ran::new(&output).expect(0, &[]);
}

/// Makes a wheel of these files with Python's own `zipfile`, and runs the import test on it.
fn import_test(files: &[(&str, &str)], expect: &str, modules: &[&str]) -> Ran {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["build", "wheel", "tree"] {
        fs::create_dir(at(name)).unwrap();
    }
    for (name, content) in files {
        fs::create_dir_all(at("tree").join(name).parent().unwrap()).unwrap();
        fs::write(at("tree").join(name), content).unwrap();
    }
    let zip = "import os, shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[2]); \
               os.rename(sys.argv[1] + '.zip', sys.argv[1])";
    let wheel = at("wheel/x-1-py3-none-any.whl");
    assert!(Command::new("python3").args(["-c", zip]).arg(&wheel).arg(at("tree")).status().unwrap().success());
    let output = Command::new("python3")
        .arg(prelude().join("import_test.py"))
        .args(modules)
        .current_dir(at("build"))
        .env("wheel", at("wheel"))
        .env("out", at("out"))
        .env("expect", expect)
        .env_remove("PYTHONPATH")
        .output()
        .unwrap();
    let mut ran = Ran::new(&output);
    ran.log += &fs::read_to_string(at("out")).map(|report| format!("report: {report}")).unwrap_or_default();
    ran
}

#[test]
fn an_import_test_reports_what_it_imported() {
    if !has_python() {
        return;
    }
    let files = [("x/__init__.py", "__version__ = '7'"), ("x-1.data/purelib/y.py", ""), ("x-1.data/scripts/z.py", "")];
    let said = ["x-1-py3-none-any.whl on linux-", "report: x 7 x/__init__.py\ny y.py\n"];
    import_test(&files, "{}", &[]).expect(0, &said);
    import_test(&files, "{}", &["x", "y"]).expect(0, &said);
    import_test(&files, r#"{"modules": ["x", "y"]}"#, &[]).expect(0, &said);
}

#[test]
fn an_import_test_fails_for_a_reason() {
    if !has_python() {
        return;
    }
    let run = |expect: &str, modules: &[&str]| import_test(&[("x.py", "import absent")], expect, modules);
    run("{}", &["x"]).expect(1, &["`x` cannot be imported: ModuleNotFoundError: No module named 'absent'"]);
    run("{}", &["json"]).expect(1, &["`json` was imported from `", "not from the wheel"]);
    run("{}", &["sys"]).expect(1, &["`sys` was imported from `the interpreter`"]);
    let pure = import_test(&[("x.py", "")], r#"{"native": true}"#, &["x"]);
    pure.expect(1, &["should be native, but no extension module was loaded"]);
    import_test(&[("data.txt", "")], "{}", &[]).expect(1, &["nothing to import"]);
}
