//! `ampoule show`: what a target or a derivation is made of.

use std::fmt::Write as _;
use std::sync::Arc;

use ampoule_derivations::derivation::Derivation;
use ampoule_derivations::{aterm, json};
use ampoule_store::path::StoreDir;
use serde_json::{Map, Value};

use super::context::open_store;
use super::subject::{Subject, Subjects};
use super::{Common, Failure, output};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ampoule show //wheels:markupsafe                       every member of the matrix
  ampoule show '//wheels:markupsafe[linux-arm64]'        one member
  ampoule show --json '//wheels:markupsafe[linux-arm64]' as `nix derivation show` prints it, by path
  ampoule show --aterm //toolchains:hello > hello.drv    the derivation's own bytes
  ampoule show --write //toolchains:hello                put the `.drv` files into the store, print their paths")]
pub(super) struct Arguments {
    /// Labels, patterns, or paths of derivations
    #[arg(required = true, value_name = "LABEL")]
    labels: Vec<String>,
    /// Print JSON: derivations by path, in the form of `nix derivation show`
    #[arg(long, conflicts_with_all = ["aterm", "write"])]
    pub(super) json: bool,
    /// With --json: the derivations they need too
    #[arg(long, requires = "json")]
    recursive: bool,
    /// Print the canonical bytes of one derivation
    #[arg(long, conflicts_with = "write")]
    aterm: bool,
    /// Write the derivations and all they need as `.drv` files into the store, and print where they lie
    #[arg(long)]
    write: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    let subjects = Subjects::find(common, &arguments.labels, || open_store(common).map(Arc::new))?;
    let store_dir = StoreDir::default();
    if arguments.json {
        return output::json(&as_json(subjects, arguments.recursive, &store_dir));
    }
    if arguments.aterm {
        return print_aterm(subjects, &store_dir);
    }
    if arguments.write {
        return write(common, subjects);
    }
    let mut text = String::new();
    for (label, reason) in &subjects.skipped {
        let _ = writeln!(text, "{label}\n  skipped     {reason}\n");
    }
    for subject in &subjects.chosen {
        describe(&mut text, subject, &subjects.derivations[&subject.derivation], &store_dir);
    }
    output::data(text.trim_end().as_bytes())?;
    output::line("")
}

fn as_json(subjects: &Subjects, recursive: bool, store_dir: &StoreDir) -> Value {
    let mut shown = Map::new();
    let mut pending: Vec<_> = subjects.chosen.iter().map(|subject| &subject.derivation).collect();
    while let Some(path) = pending.pop() {
        let key = store_dir.display(path);
        if shown.contains_key(&key) {
            continue;
        }
        let Some(derivation) = subjects.derivations.get(path) else { continue };
        shown.insert(key, json::to_json(derivation, store_dir));
        if recursive {
            pending.extend(derivation.input_derivations.keys());
        }
    }
    Value::Object(shown)
}

fn print_aterm(subjects: &Subjects, store_dir: &StoreDir) -> Result<(), Failure> {
    match subjects.chosen.as_slice() {
        [one] => output::data(&aterm::write(&subjects.derivations[&one.derivation], store_dir)),
        many => {
            let labels: Vec<&str> = many.iter().map(|subject| subject.label.as_str()).collect();
            Err(Failure::new(format!("`--aterm` prints one derivation, and {} were named", many.len()))
                .hint(format!("choose one of:\n{}", labels.join("\n")))
                .code(2))
        }
    }
}

fn write(common: &Common, subjects: &Subjects) -> Result<(), Failure> {
    let store = open_store(common)?;
    subjects.record(&store)?;
    for subject in &subjects.chosen {
        let info = store.materialise_derivation(&subject.derivation)?;
        output::line(&store.physical_path(&info.path).display().to_string())?;
    }
    Ok(())
}

/// A description for people: the label, then one indented line a fact.
fn describe(text: &mut String, subject: &Subject, derivation: &Derivation, store_dir: &StoreDir) {
    let _ = writeln!(text, "{}", subject.label);
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    describe_function(&mut fact, subject, derivation, store_dir);
    for (position, (path, outputs)) in derivation.input_derivations.iter().enumerate() {
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let outputs = if outputs == ["out"] { String::new() } else { format!(" ({})", outputs.join(", ")) };
        fact(if position == 0 { "needs" } else { "" }, &format!("{}{outputs}", store_dir.display(path)));
    }
    for (position, path) in derivation.input_sources.iter().enumerate() {
        fact(if position == 0 { "sources" } else { "" }, &store_dir.display(path));
    }
    for (position, (name, value)) in derivation.env.iter().enumerate() {
        let value = shorten(&String::from_utf8_lossy(value));
        fact(if position == 0 { "environment" } else { "" }, &format!("{}={value}", String::from_utf8_lossy(name)));
    }
    for (position, test) in subject.tests.iter().enumerate() {
        fact(if position == 0 { "tests" } else { "" }, &store_dir.display(test));
    }
    text.push('\n');
}

fn describe_function(
    fact: &mut impl FnMut(&str, &str),
    subject: &Subject,
    derivation: &Derivation,
    store_dir: &StoreDir,
) {
    if let Some(kind) = &subject.kind {
        fact("rule", kind);
    }
    fact("derivation", &store_dir.display(&subject.derivation));
    fact("system", &derivation.system);
    fact("builder", &derivation.builder);
    for argument in &derivation.args {
        fact("argument", &shorten(&String::from_utf8_lossy(argument)));
    }
    for name in derivation.outputs.keys() {
        let path = match derivation.output_path(store_dir, name) {
            Ok(Some(path)) => store_dir.display(&path),
            _ => "known when it is built".to_owned(),
        };
        fact("output", &format!("{name}: {path}"));
    }
}

/// One line of at most 200 characters.
fn shorten(text: &str) -> String {
    let line: String = text.chars().map(|c| if c == '\n' { '⏎' } else { c }).take(200).collect();
    if text.chars().count() > 200 { format!("{line}…") } else { crate::terminal::printable(&line) }
}
