//! Glue between the builtin builders' contracts and the functions that do their work.
//!
//! [`run`] is called inside the sandbox, where the logical paths of the inputs are really there.

#![expect(clippy::disallowed_methods, reason = "opens the inputs that the sandbox shows, and counts its cores")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use ampoule_derivations::builtin::{self, DebianTree, PythonPath, Request, RequestError, Unpack};
use ampoule_sysroots::debian_tree::{self, Additions};
use ampoule_sysroots::limits::Limits;
use ampoule_sysroots::patch::Patch;
use ampoule_sysroots::platform::{UnknownPlatform, UnknownPython};
use ampoule_sysroots::wheel::{Expectation, Wheel, WheelError};
use ampoule_sysroots::{python_path, unpack};

/// Why a builtin builder failed.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The derivation's environment is no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The builder is known, but not one that runs here.
    #[error("`{0}` does not run in the sandbox")]
    Elsewhere(String),
    /// An input cannot be read.
    #[error("cannot read the input `{}`", path.display())]
    Input {
        /// The input.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output `{}`", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The work failed.
    #[error("cannot use `{what}`")]
    Work {
        /// What it was about.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error>,
    },
    /// The build left no wheel, or several.
    #[error("the build must leave exactly one wheel, and it left {found}")]
    Wheels {
        /// What it left.
        found: String,
    },
    /// The wheel is not what it should be.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// The platform is not known.
    #[error(transparent)]
    Platform(#[from] UnknownPlatform),
    /// The interpreter is not known.
    #[error(transparent)]
    Python(#[from] UnknownPython),
}

/// Runs a builtin builder with a derivation's environment; makes the output at `out`. Notes about what was decided go
/// to standard error, which is the build's log.
///
/// # Errors
/// When the request makes no sense, an input is not what it should be, or the output cannot be written.
pub fn run(builder: &str, env: &BTreeMap<String, String>, out: &Path) -> Result<(), BuiltinError> {
    match Request::parse(builder, env)? {
        Request::Unpack(request) => run_unpack(&request, out),
        Request::DebianTree(request) => run_debian_tree(request, out),
        Request::Wheel(request) => run_wheel(request, out),
        Request::PythonPath(request) => run_python_path(request, out),
        Request::Fetch(_) => Err(BuiltinError::Elsewhere(builder.to_owned())),
    }
}

fn work<E: std::error::Error + 'static>(what: &str) -> impl FnOnce(E) -> BuiltinError {
    let what = what.to_owned();
    move |source| BuiltinError::Work { what, source: Box::new(source) }
}

fn input(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BuiltinError {
    let path = path.into();
    move |source| BuiltinError::Input { path, source }
}

fn output(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BuiltinError {
    let path = path.into();
    move |source| BuiltinError::Output { path, source }
}

fn run_unpack(request: &Unpack, out: &Path) -> Result<(), BuiltinError> {
    let mut patches = Vec::new();
    for path in &request.patches {
        let text = fs::read(path).map_err(input(path))?;
        patches.push(Patch::parse(path, &text).map_err(work(path))?);
    }
    let archive = File::open(&request.src).map_err(input(&request.src))?;
    let options = unpack::Options { strip: request.strip.into(), limits: Limits::DEFAULT };
    unpack::unpack(archive, out, &options, &patches).map_err(work(&request.src))
}

fn run_debian_tree(request: DebianTree, out: &Path) -> Result<(), BuiltinError> {
    let packages: Vec<PathBuf> = request.packages.into_iter().map(PathBuf::from).collect();
    let additions = Additions { links: request.links, files: request.files, drop: request.drop };
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    debian_tree::build(&packages, &additions, out, threads, &Limits::DEFAULT).map_err(work("packages"))
}

fn run_wheel(request: builtin::Wheel, out: &Path) -> Result<(), BuiltinError> {
    let expected = Expectation {
        name: request.name,
        version: request.version,
        platform: request.platform.parse()?,
        python: request.python.parse()?,
        native: request.expect.native,
        modules: request.expect.modules,
        tag: request.expect.tag,
    };
    let path = only_wheel(Path::new(&request.raw))?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = fs::read(&path).map_err(input(&path))?;
    let wheel = Wheel::read(&file_name, &bytes, &expected)?;
    note(&format!("{}: it becomes {}", file_name, wheel.file_name()));
    for line in wheel.notes() {
        note(line);
    }
    fs::create_dir(out).map_err(output(out))?;
    let made = out.join(wheel.file_name());
    let file = File::create_new(&made).map_err(output(&made))?;
    let mut written = wheel.write(io::BufWriter::new(file))?;
    written.flush().map_err(output(&made))
}

/// The one wheel of a directory that holds nothing else.
fn only_wheel(raw: &Path) -> Result<PathBuf, BuiltinError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(raw).map_err(input(raw))? {
        names.push(entry.map_err(input(raw))?.file_name());
    }
    names.sort();
    match &names[..] {
        [only] if only.as_encoded_bytes().ends_with(b".whl") => Ok(raw.join(only)),
        [] => Err(BuiltinError::Wheels { found: "nothing".to_owned() }),
        names => {
            let names: Vec<_> = names.iter().map(|name| format!("`{}`", name.to_string_lossy())).collect();
            Err(BuiltinError::Wheels { found: names.join(", ") })
        }
    }
}

fn run_python_path(request: PythonPath, out: &Path) -> Result<(), BuiltinError> {
    let wheels: Vec<PathBuf> = request.wheels.into_iter().map(PathBuf::from).collect();
    python_path::build(&wheels, out).map_err(work("wheels"))
}

/// A log that can no longer be written is the sandbox's business, not this one's.
fn note(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests;
