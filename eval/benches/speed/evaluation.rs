//! Evaluating ten thousand members of wheels, in CPU time.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use ampoule_derivations::lock::{Lock, LockEntry};
use ampoule_derivations::source::{FileChoice, LockedSource, SourceId, SourceRequest};
use ampoule_store::hash::Sha256Digest;

use crate::measure::{Figure, run};
use crate::repository::{AMPOULE, Repository};

const PACKAGES: usize = 50;
const WHEELS_PER_PACKAGE: usize = 50;
/// Two platforms, two Pythons.
const MEMBERS_PER_WHEEL: usize = 4;
const RUNS: usize = 10;

pub(crate) fn measure() {
    let members = PACKAGES * WHEELS_PER_PACKAGE * MEMBERS_PER_WHEEL;
    println!("{members} members of wheels: CPU time, user and system, of the whole process");
    let repository = synthetic();
    // One member of each package is shown: its whole package has to be evaluated for that.
    let labels: Vec<String> =
        (0..PACKAGES).map(|package| format!("//wheels/p{package}:w{package}x0[linux-arm64,cp311]")).collect();
    let show: Vec<&str> = ["show", "--json"].into_iter().chain(labels.iter().map(String::as_str)).collect();
    let (mut start, mut evaluate, mut plan) = (Figure::default(), Figure::default(), Figure::default());
    for _ in 0..RUNS {
        start.add(cpu_of_many(|| run(Command::new(AMPOULE).arg("--version")).cpu));
        evaluate.add(run(&mut repository.command(&show)).cpu);
        plan.add(run(&mut repository.command(&["build", "--quiet", "--dry-run", "--json", "//..."])).cpu);
    }
    start.print("baseline: `ampoule --version`");
    evaluate.print_against("evaluated: `ampoule show` of one member per package", &start);
    plan.print_against("evaluated and planned: `ampoule build --dry-run //...`", &start);
}

/// The mean of so many that the kernel's ticks tell it.
fn cpu_of_many(mut once: impl FnMut() -> Duration) -> Duration {
    const MANY: u32 = 20;
    (0..MANY).map(|_| once()).sum::<Duration>() / MANY
}

/// A repository shaped like a real one: toolchains, shared definitions, a lock, packages of recipes with overrides.
fn synthetic() -> Repository {
    let repository = Repository::new();
    let mut requests = vec![
        SourceRequest::pypi("cython", "3.0.11", FileChoice::Wheel("py2.py3-none-any".to_owned())),
        SourceRequest::pypi("setuptools", "75.8.2", FileChoice::Wheel("py3-none-any".to_owned())),
    ];
    repository.write("toolchains/BUILD.star", TOOLCHAINS);
    repository.write("wheels/defs.star", DEFINITIONS);
    for package in 0..PACKAGES {
        let mut recipes = "load(\"//wheels:defs.star\", \"cython\", \"setuptools\", \"wheel\", \"when\")\n".to_owned();
        for number in 0..WHEELS_PER_PACKAGE {
            let name = format!("w{package}x{number}");
            requests.push(SourceRequest::pypi(&name, "1.0", FileChoice::Sdist));
            recipes.push_str(&recipe(&name, number));
        }
        repository.write(&format!("wheels/p{package}/BUILD.star"), &recipes);
        repository.write(&format!("wheels/p{package}/fix.patch"), "--- a/x\n+++ b/x\n");
    }
    let requests = requests.into_iter().map(|request| request.expect("a valid request"));
    let mut lock = Lock { sources: requests.map(|request| (request.key(), locked(&request))).collect() };
    for architectures in [&["amd64"][..], &["amd64", "arm64"], &["arm64"]] {
        let (key, closure) = debian(architectures);
        lock.sources.insert(key, closure);
    }
    repository.write("ampoule.lock", &lock.render());
    repository
}

fn recipe(name: &str, number: usize) -> String {
    let extra = match number % 5 {
        0 => "    overrides = [when(platform = \"linux-arm64\", env = {\"CFLAGS\": \"-O1\"})],\n",
        1 => "    patches = [file(\"fix.patch\")],\n",
        2 => "    build_requires = [cython, setuptools],\n",
        _ => "",
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "wheel(\n    name = \"{name}\",\n    version = \"1.0\",\n    env = {{\"LDFLAGS\": \"-Wl,--exclude-libs,ALL\"}},\n    \
         expect = {{\"native\": True, \"modules\": [\"{name}\", \"{name}._speedups\"]}},\n{extra})\n"
    );
    text
}

/// An entry with made-up bytes: evaluation needs none.
fn locked(request: &SourceRequest) -> LockEntry {
    let SourceRequest::Pypi { name, version, .. } = request else { unreachable!("only these are made here") };
    let id = SourceId::Pypi { name: name.clone(), version: version.clone() };
    let file = format!("{name}-{version}.tar.gz");
    LockEntry::One(LockedSource { id, sha256: Sha256Digest::of(file.as_bytes()), file, size: Some(100_000) })
}

/// A closure about as large as a real toolchain's.
fn debian(architectures: &[&str]) -> (String, LockEntry) {
    let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let request = SourceRequest::debian("bookworm", own(architectures), own(&["gcc", "make"]), Vec::new());
    let request = request.expect("a valid request").canonical();
    let package = |number: usize| {
        let (name, architecture, version) = (format!("library{number:02}"), "amd64".to_owned(), "1.0-1".to_owned());
        let file = format!("{name}_{version}_{architecture}.deb");
        let path = format!("pool/main/l/{name}/{file}");
        let id = SourceId::Debian { name, version, architecture, suite: "bookworm".to_owned(), path };
        LockedSource { id, sha256: Sha256Digest::of(file.as_bytes()), file, size: Some(1_000_000) }
    };
    (request.key(), LockEntry::Closure { packages: (0..60).map(package).collect(), request })
}

const TOOLCHAINS: &str = r#"
load("@prelude//:debian.star", "debian")
load("@prelude//:sysroot.star", "sysroot")

def make(name, architectures):
    packages = debian(suite = "bookworm", architectures = architectures, packages = ["gcc", "make"])
    return sysroot(name = name, packages = packages, links = {"usr/bin/cc": "gcc"})

build_x86_64 = make("gcc-linux-x86_64", ["amd64"])
build_arm64 = make("gcc-linux-arm64", ["amd64", "arm64"])
run_x86_64 = make("run-linux-x86_64", ["amd64"])
run_arm64 = make("run-linux-arm64", ["arm64"])
"#;

const DEFINITIONS: &str = r#"
load("@prelude//:pypi.star", "pypi")
load("@prelude//:wheel.star", "matrix", prelude_wheel = "wheel", prelude_when = "when")
load("//toolchains:BUILD.star", "build_arm64", "build_x86_64", "run_arm64", "run_x86_64")

TOOLCHAINS = {
    "linux-arm64": struct(build = build_arm64, run = run_arm64),
    "linux-x86_64": struct(build = build_x86_64, run = run_x86_64),
}

cython = pypi("cython", "3.0.11", wheel = "py2.py3-none-any")
setuptools = pypi("setuptools", "75.8.2", wheel = "py3-none-any")
when = prelude_when

def wheel(name, build_requires = [setuptools], **kwargs):
    return prelude_wheel(
        name = name,
        over = matrix(platform = ["linux-x86_64", "linux-arm64"], python = ["cp311", "cp312"]),
        toolchains = TOOLCHAINS,
        build_requires = build_requires,
        **kwargs
    )
"#;
