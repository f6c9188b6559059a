//! One trivial derivation in a sandbox, against running its builder without any.
//!
//! The builder is a program of this file's own: it makes a directory and ends. So nothing is measured but what is around it.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ampoule_eval::sandbox::{Builder, Bytes, Conditions, Embedded, Engine, Input, Limits, Root, Spec};

use crate::measure::{Figure, run};
use crate::repository::Repository;

const RUNS: usize = 20;
/// Fresh derivations in one run.
const BATCH: usize = 50;
const STORE: &str = "/nix/store";
const TOOLS: &str = "/nix/store/00000000000000000000000000000000-tools";
const OUT: &str = "/nix/store/00000000000000000000000000000001-out";

pub(crate) fn measure(engine: &Embedded) {
    println!("a trivial derivation: its builder makes one directory");
    let repository = Repository::new();
    let program = repository.path().join("plain/make-directory");
    std::fs::create_dir_all(program.parent().expect("it is in a directory")).expect("directories can be made");
    std::fs::write(&program, make_directory()).expect("files can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("modes can be set");

    let (mut plain, mut sandboxed) = (Figure::default(), Figure::default());
    for number in 0..RUNS * 5 {
        let directory = repository.path().join(format!("plain/{number}"));
        plain.add(run(Command::new(&program).arg(directory)).wall);
        sandboxed.add(run_in_sandbox(engine, &program));
    }
    let (mut batch, mut nothing, mut one, mut extra) = Default::default();
    let recipe = Recipe::new(&repository);
    for round in 0..RUNS {
        recipe.write(&repository, round * 2, BATCH);
        let all = run(&mut build(&repository)).wall;
        Figure::add(&mut batch, all / u32::try_from(BATCH).expect("it is small"));
        let found = run(&mut build(&repository)).wall;
        Figure::add(&mut nothing, found);
        recipe.write(&repository, round * 2 + 1, 1);
        let single = run(&mut build(&repository)).wall;
        Figure::add(&mut one, single);
        Figure::add(&mut extra, (all.saturating_sub(found)) / u32::try_from(BATCH).expect("it is small"));
    }
    plain.print("baseline: fork, exec and wait, without a sandbox");
    sandboxed.print_against("in a sandbox, by the engine alone", &plain);
    batch.print_against(&format!("built, registered: `ampoule build` of {BATCH} fresh, each"), &plain);
    extra.print_against("  the same less the run that finds them", &plain);
    one.print_against("`ampoule build` of a single fresh one, whole process", &plain);
    nothing.print_against(&format!("`ampoule build` that finds all {BATCH}, whole process"), &plain);
}

fn build(repository: &Repository) -> Command {
    let archives = repository.archives();
    repository.command(&["build", "--quiet", "--jobs", "1", "--from", archives.to_str().unwrap_or_default(), "//:all"])
}

/// Recipes whose derivations share one input, the program.
struct Recipe {
    tools: String,
}

impl Recipe {
    fn new(repository: &Repository) -> Self {
        let source = repository.add_archive("tools.tar", &[("make-directory", &make_directory())]);
        let tools = format!(
            "load(\"@prelude//:fetch.star\", \"fetch\")\n\
             tools = derivation(name = \"tools\", system = \"x86_64-linux\", builder = \"builtin:unpack-v1\", \
             env = {{\"src\": {source}}}, target = False)\n"
        );
        Self { tools }
    }

    /// Writes recipes that no round before had: outputs of other names are other objects.
    fn write(&self, repository: &Repository, round: usize, count: usize) {
        let mut recipe = self.tools.clone();
        for number in 0..count {
            let _ = writeln!(
                recipe,
                "derivation(name = \"unit-{round}-{number}\", system = \"x86_64-linux\", builder = tools + \"/make-directory\", \
                 args = [placeholder(\"out\")])"
            );
        }
        repository.write("BUILD.star", &recipe);
    }
}

fn run_in_sandbox(engine: &Embedded, program: &Path) -> std::time::Duration {
    let started = Instant::now();
    let spec = Spec {
        root: Root::Empty,
        inputs: vec![Input {
            source: program.parent().map(PathBuf::from).unwrap_or_default(),
            target: TOOLS.to_owned(),
        }],
        store_dir: STORE.to_owned(),
        builder: Builder::Exec { program: format!("{TOOLS}/make-directory"), args: vec![Bytes::from(OUT)] },
        env: Default::default(),
        build_files: Default::default(),
        limits: Limits::default(),
        conditions: Conditions::default(),
        disk: None,
    };
    let mut log = Vec::new();
    let outcome = engine.run(&spec, &mut log).expect("the sandbox works");
    assert!(outcome.exit.success(), "{:?}: {}", outcome.exit, String::from_utf8_lossy(&log));
    started.elapsed()
}

/// The smallest static program that makes the directory its first argument names.
pub(crate) fn make_directory() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code: [&[u8]; 7] = [
        &[0x48, 0x8b, 0x7c, 0x24, 0x10], // mov rdi, [rsp + 16]: argv[1]
        &[0xbe, 0xed, 0x01, 0x00, 0x00], // mov esi, 0755
        &[0xb8, 0x53, 0x00, 0x00, 0x00], // mov eax, mkdir
        &[0x0f, 0x05],                   // syscall
        &[0x89, 0xc7, 0xf7, 0xdf],       // mov edi, eax; neg edi: the error is the exit code
        &[0xb8, 0x3c, 0x00, 0x00, 0x00], // mov eax, exit
        &[0x0f, 0x05],                   // syscall
    ];
    let code = code.concat();
    let size = HEADERS + code.len() as u64;
    let half = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let word = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let long = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    [
        vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        half(&[2, 62]), // an executable for x86-64
        word(&[1]),
        long(&[BASE + HEADERS, 64, 0]), // where it starts; where the program header lies
        word(&[0]),
        half(&[64, 56, 1, 0, 0, 0]),
        word(&[1, 5]), // one segment, to be read and executed: the whole file
        long(&[0, BASE, BASE, size, size, 4096]),
        code,
    ]
    .concat()
}
