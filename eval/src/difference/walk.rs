//! Two trees on disk, compared entry by entry.

#![expect(clippy::disallowed_methods, reason = "reads the two trees it compares")]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ampoule_sysroots::tree_path::printable;

use super::cause::Cause;
use super::change::{Bytes, Kind, Place, Side, StructuralDifference};
use super::content::Comparison;
use super::first::{compare_contents, join, kind_name, sorted_names};
use super::{DifferenceKind, Limits, windows};

/// In what the trees at `first` and `second` differ; no changes if they are the same archive.
///
/// # Errors
/// When one of them cannot be read.
pub fn structural_difference(first: &Path, second: &Path, limits: &Limits) -> io::Result<StructuralDifference> {
    let mut comparison = Comparison::new(limits);
    // Deepest path last, so that popping visits paths in order without recursion.
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let (left, right) = (join(first, &path), join(second, &path));
        let (left_meta, right_meta) = (fs::symlink_metadata(&left)?, fs::symlink_metadata(&right)?);
        let (left_kind, right_kind) = (kind_name(&left_meta), kind_name(&right_meta));
        if left_kind != right_kind {
            property(&mut comparison, &path, "type", (left_kind.to_owned(), right_kind.to_owned()), None);
            continue;
        }
        match left_kind {
            "directory" => {
                for (name, side) in merged(sorted_names(&left)?, sorted_names(&right)?).into_iter().rev() {
                    let inside = path.join(name);
                    match side {
                        None => pending.push(inside),
                        Some(side) => comparison.add(place(&inside), Kind::OnlyIn { side }, Vec::new()),
                    }
                }
            }
            "symbolic link" => {
                let [one, two] = [fs::read_link(&left)?, fs::read_link(&right)?].map(|target| shown(&target));
                if one != two {
                    let cause = Cause::of_texts(&one, &two);
                    property(&mut comparison, &path, "target", (one, two), cause);
                }
            }
            "file" => {
                let [one, two] = [&left_meta, &right_meta].map(executable);
                if one != two {
                    property(&mut comparison, &path, "executable", (one, two), Some(Cause::Mode));
                }
                compare_files(&mut comparison, &path, (&left, left_meta.len()), (&right, right_meta.len()))?;
            }
            _ => {}
        }
    }
    let mut report = comparison.finish();
    // Entries that only one has were found with their directory, before what lies inside of its neighbours.
    report.changes.sort_by(|a, b| a.place.0.first().cmp(&b.place.0.first()));
    Ok(report)
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

fn place(path: &Path) -> Place {
    Place(if path.as_os_str().is_empty() { Vec::new() } else { vec![shown(path)] })
}

fn property(
    comparison: &mut Comparison,
    path: &Path,
    name: &'static str,
    sides: (String, String),
    cause: Option<Cause>,
) {
    let kind = Kind::Property { name, first: sides.0, second: sides.1, others: 0 };
    comparison.add(place(path), kind, cause.into_iter().collect());
}

fn executable(metadata: &Metadata) -> String {
    if metadata.permissions().mode() & 0o100 == 0 { "no" } else { "yes" }.to_owned()
}

/// The names of two directories in order, and the side that has one alone.
fn merged(left: Vec<OsString>, right: Vec<OsString>) -> Vec<(OsString, Option<Side>)> {
    let alone = |names: &[OsString], others: &[OsString], side| {
        let only = names.iter().filter(|name| others.binary_search(name).is_err());
        only.map(|name| (name.clone(), Some(side))).collect::<Vec<_>>()
    };
    let (only_left, only_right) = (alone(&left, &right, Side::First), alone(&right, &left, Side::Second));
    let both = left.into_iter().filter(|name| right.binary_search(name).is_ok()).map(|name| (name, None));
    let mut all: Vec<_> = both.chain(only_left).chain(only_right).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn compare_files(
    comparison: &mut Comparison,
    path: &Path,
    (first, first_size): (&Path, u64),
    (second, second_size): (&Path, u64),
) -> io::Result<()> {
    let Some(DifferenceKind::Content { offset, .. }) = compare_contents(first, second)? else { return Ok(()) };
    if first_size.max(second_size) <= comparison.file_limit() {
        comparison.compare(place(path), fs::read(first)?, fs::read(second)?);
        return Ok(());
    }
    let window = windows::window_start(usize::try_from(offset).unwrap_or(usize::MAX)) as u64;
    let bytes = Bytes {
        offset,
        first_size,
        second_size,
        differing: None,
        within: None,
        window,
        first: window_of(first, window)?,
        second: window_of(second, window)?,
        first_text: None,
        second_text: None,
    };
    comparison.add(place(path), Kind::Bytes(bytes), Vec::new());
    Ok(())
}

fn window_of(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(windows::window_length() as u64).read_to_end(&mut bytes)?;
    Ok(windows::hexadecimal(&bytes))
}
