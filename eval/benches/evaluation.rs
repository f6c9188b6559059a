//! How long recipes take to become derivations: 10,000 members of wheel matrices, 30,000 derivations, in CPU time.
//!
//! `cargo bench -p ampoule-eval --bench evaluation [-- <members>]`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and says what it measured")]

use ampoule_derivations::lock::Lock;
use ampoule_eval::lang::{Inputs, MemoryLoader, Mode, Tables};
use ampoule_store::path::StoreDir;

const WHEELS_PER_PACKAGE: usize = 50;
const MEMBERS_PER_WHEEL: usize = 4;
const RUNS: usize = 5;

fn main() {
    let members = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let loader = catalog(members);
    let (lock, store_dir, tables) = (Lock::default(), StoreDir::default(), Tables::default());
    let inputs = Inputs { loader: &loader, lock: &lock, store_dir: &store_dir, mode: Mode::Lock, tables: &tables };
    let everything = ["//...".parse().expect("it is a pattern")];
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let before = cpu_seconds();
        let evaluation = inputs.evaluate(&everything).unwrap_or_else(|error| panic!("{}", error.render()));
        times.push(cpu_seconds() - before);
        let made: usize = evaluation
            .targets
            .values()
            .filter(|target| target.kind == "wheel")
            .map(|target| target.members.len())
            .sum();
        assert_eq!(made, members, "every member is evaluated");
        if times.len() == RUNS {
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[RUNS / 2]);
            println!(
                "evaluation: {members} members, {} derivations: {best:.3} s CPU at best, {median:.3} s in the middle",
                evaluation.derivations.len()
            );
        }
    }
}

/// CPU time of this process, its ended threads included, in steps of a hundredth.
fn cpu_seconds() -> f64 {
    let statistics = std::fs::read_to_string("/proc/self/stat").expect("Linux tells it");
    let behind_name = statistics.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split(' ').skip(12).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// A catalog shaped like a real one: toolchains, shared definitions, many packages of recipes with a few overrides.
fn catalog(members: usize) -> MemoryLoader {
    let mut loader = MemoryLoader::default();
    loader.insert("toolchains/BUILD.star", TOOLCHAINS);
    loader.insert("wheels/defs.star", DEFINITIONS);
    let wheels = members / MEMBERS_PER_WHEEL;
    for (package, first) in (0..wheels).step_by(WHEELS_PER_PACKAGE).enumerate() {
        let recipes = (first..wheels.min(first + WHEELS_PER_PACKAGE)).map(recipe).collect::<String>();
        let load = "load(\"//wheels:defs.star\", \"cython\", \"setuptools\", \"wheel\", \"when\")\n";
        loader.insert(format!("wheels/p{package}/BUILD.star"), format!("{load}{recipes}"));
        loader.insert(format!("wheels/p{package}/fix.patch"), "--- a/x\n+++ b/x\n");
    }
    loader
}

fn recipe(number: usize) -> String {
    let extra = match number % 5 {
        0 => "    overrides = [when(platform = \"linux-arm64\", env = {\"CFLAGS\": \"-O1\"})],\n",
        1 => "    patches = [file(\"fix.patch\")],\n",
        2 => {
            "    build_requires = [cython, setuptools],\n    overrides = [when(python = \"cp31*\", env = {\"X\": \"1\"})],\n"
        }
        _ => "",
    };
    format!(
        "wheel(\n    name = \"package-{number}\",\n    version = \"1.{number}\",\n    env = {{\"FORCE_EXTENSION\": \"1\", \
         \"LDFLAGS\": \"-Wl,--exclude-libs,ALL\"}},\n    expect = {{\"native\": True, \"modules\": [\"package_{number}\", \
         \"package_{number}._speedups\"]}},\n{extra})\n\n"
    )
}

const TOOLCHAINS: &str = r#"
load("@prelude//:debian.star", "debian")
load("@prelude//:sysroot.star", "sysroot")

def make(name, architectures):
    return sysroot(name = name, packages = debian("bookworm", architectures, ["gcc", "make"]), links = {"usr/bin/cc": "gcc"})

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
