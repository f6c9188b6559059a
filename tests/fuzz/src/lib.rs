//! What is done with bytes that come from elsewhere, one function for each decoder.
//!
//! Each takes any bytes, and panics if a decoder does what it must not: what is accepted must be written as it was read
//! (or mean the same), and nothing may appear outside of where it belongs. That decoders neither panic nor take too much
//! time and memory is for those to see who call these functions: the fuzzers of `fuzz_targets`, and the test
//! `tests/fuzz.rs`.

mod derivations;
mod eval;
mod store;
mod sysroots;

use std::path::Path;

/// A decoder, ready to be tried.
#[derive(Clone, Copy)]
pub struct Target {
    /// What its fuzz target and its corpus are called.
    pub name: &'static str,
    /// Tries it.
    pub run: fn(&[u8]),
    /// How long a try takes, compared with the quickest.
    pub cost: usize,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    [store::TARGETS, derivations::TARGETS, sysroots::TARGETS, eval::TARGETS].concat()
}

/// Tries the decoder of this name.
///
/// # Panics
/// When there is none, or it does what it must not.
#[allow(dead_code, reason = "fuzz targets call it; the test does not")]
pub fn run(name: &str, bytes: &[u8]) {
    let target = targets().into_iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no decoder `{name}`")).run)(bytes);
}

/// A directory of its own, in memory where the machine allows.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory can be made")
}

/// Lets directories that were made read-only be removed by those who are not root.
fn make_removable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let _ = std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700));
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
}
