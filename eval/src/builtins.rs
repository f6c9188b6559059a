//! Glue between the builtin builders' contracts and the functions that do their work.
//!
//! [`run`] is called inside the sandbox, where the logical paths of the inputs are really there.

#![expect(clippy::disallowed_methods, reason = "opens the inputs that the sandbox shows")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use ampoule_derivations::builtin::{DebianTree, Request, RequestError, Unpack};
use ampoule_sysroots::debian_tree::{self, Additions};
use ampoule_sysroots::limits::Limits;
use ampoule_sysroots::patch::Patch;
use ampoule_sysroots::unpack;

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
        source: std::io::Error,
    },
    /// The work failed.
    #[error("`{what}`")]
    Work {
        /// What it was about.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error>,
    },
}

/// Runs a builtin builder with a derivation's environment; makes the output at `out`.
///
/// # Errors
/// When the request makes no sense, an input is not what it should be, or the output cannot be written.
pub fn run(builder: &str, env: &BTreeMap<String, String>, out: &Path) -> Result<(), BuiltinError> {
    match Request::parse(builder, env)? {
        Request::Unpack(request) => run_unpack(&request, out),
        Request::DebianTree(request) => run_debian_tree(request, out),
        _ => Err(BuiltinError::Elsewhere(builder.to_owned())),
    }
}

fn work<E: std::error::Error + 'static>(what: &str) -> impl FnOnce(E) -> BuiltinError {
    let what = what.to_owned();
    move |source| BuiltinError::Work { what, source: Box::new(source) }
}

fn run_unpack(request: &Unpack, out: &Path) -> Result<(), BuiltinError> {
    let input = |path: &str| {
        let path = PathBuf::from(path);
        move |source| BuiltinError::Input { path, source }
    };
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
