//! A hundred trivial derivations, each of which needs the one before, and a hundred that need nothing of each other, beside
//! stock Nix in its sandbox on the same disk.

use std::fmt::Write as _;
use std::process::Command;

use crate::measure::{Figure, run};
use crate::repository::Repository;
use crate::sandbox::make_directory;

const COUNT: usize = 100;
const RUNS: usize = 5;

pub(crate) fn measure() {
    println!("{COUNT} trivial derivations, whole processes, two at a time");
    let repository = Repository::new();
    let archive = repository.add_archive("tools.tar", &[("make-directory", &make_directory())]);
    let has_nix = Command::new("nix-build").arg("--version").output().is_ok_and(|output| output.status.success());
    if has_nix {
        repository.write("tools/make-directory", "");
        let program = repository.path().join("recipes/tools/make-directory");
        std::fs::write(&program, make_directory()).expect("files can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("modes can be set");
    }
    for (what, is_chain) in [("a chain", true), ("independent", false)] {
        let (mut ours, mut theirs) = (Figure::default(), Figure::default());
        for round in 0..RUNS {
            repository.write("BUILD.star", &recipe(&archive, is_chain, round));
            ours.add(run(&mut build(&repository)).wall);
            if has_nix {
                repository.write("expression.nix", &expression(is_chain, round));
                theirs.add(run(&mut nix_build(&repository)).wall);
            }
        }
        if has_nix {
            theirs.print(&format!("baseline: {what}: `nix-build`, sandboxed"));
            ours.print_against(&format!("{what}: `ampoule build`"), &theirs);
        } else {
            ours.print(&format!("{what}: `ampoule build` (there is no `nix-build` here)"));
        }
    }
}

fn build(repository: &Repository) -> Command {
    let archives = repository.archives();
    repository.command(&["build", "--quiet", "--jobs", "2", "--from", archives.to_str().unwrap_or_default(), "//:all"])
}

/// Names that no run before had, so that nothing is found.
fn recipe(archive: &str, is_chain: bool, round: usize) -> String {
    let mut recipe = format!(
        "load(\"@prelude//:fetch.star\", \"fetch\")\n\
         tools = derivation(name = \"tools\", system = \"x86_64-linux\", builder = \"builtin:unpack-v1\", \
         env = {{\"src\": {archive}}}, target = False)\n"
    );
    for number in 0..COUNT {
        let before = if is_chain && number > 0 { format!("d{}", number - 1) } else { "None".to_owned() };
        let _ = writeln!(
            recipe,
            "d{number} = derivation(name = \"{is_chain}-{round}-{number}\", system = \"x86_64-linux\", \
             builder = tools + \"/make-directory\", args = [placeholder(\"out\")], env = {{\"before\": {before}}})"
        );
    }
    recipe
}

fn expression(is_chain: bool, round: usize) -> String {
    let before = if is_chain { "if i == 0 then \"\" else f (i - 1)" } else { "\"\"" };
    let all = if is_chain { format!("f {}", COUNT - 1) } else { format!("builtins.genList f {COUNT}") };
    format!(
        "let tools = builtins.path {{ path = ./tools; name = \"tools\"; }};\n\
         f = i: derivation {{ name = \"{is_chain}-{round}-${{toString i}}\"; system = \"x86_64-linux\";\n\
         builder = \"${{tools}}/make-directory\"; args = [ (placeholder \"out\") ]; before = {before}; }};\nin {all}\n"
    )
}

/// With a store of its own on the same disk, and no users for builds, which not every machine has.
fn nix_build(repository: &Repository) -> Command {
    let mut command = Command::new("nix-build");
    command.arg("--no-out-link").arg("--store").arg(repository.path().join("nix"));
    for (name, value) in [("substituters", ""), ("build-users-group", ""), ("sandbox", "true"), ("max-jobs", "2")] {
        command.args(["--option", name, value]);
    }
    command.arg(repository.path().join("recipes/expression.nix")).env_remove("NIX_REMOTE");
    command
}
