//! Where two trees first differ: the file, and in it the byte.

#![expect(clippy::disallowed_methods, reason = "reads the two trees it compares")]

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The first difference between two trees, in the order of their paths' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path inside the trees; empty for the trees' roots themselves.
    pub path: PathBuf,
    /// What differs there.
    pub kind: DifferenceKind,
}

/// What differs at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the first tree has it.
    OnlyInFirst,
    /// Only the second tree has it.
    OnlyInSecond,
    /// One is a file, the other a directory, or the like: the two kinds' names.
    Type(&'static str, &'static str),
    /// One file is executable and the other is not: whether the first one is.
    Executable(bool),
    /// The targets of the symbolic links.
    Target(PathBuf, PathBuf),
    /// The files' contents: the offset of the first differing byte, and what is there (`None`: the file has ended).
    Content {
        /// Counted from zero.
        offset: u64,
        /// The byte in the first file.
        first: Option<u8>,
        /// The byte in the second file.
        second: Option<u8>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        write!(f, "`{}`: ", path.display())?;
        match &self.kind {
            DifferenceKind::OnlyInFirst => write!(f, "only the first build made it"),
            DifferenceKind::OnlyInSecond => write!(f, "only the second build made it"),
            DifferenceKind::Type(first, second) => write!(f, "a {first} first, then a {second}"),
            DifferenceKind::Executable(true) => write!(f, "executable first, then not"),
            DifferenceKind::Executable(false) => write!(f, "not executable first, then executable"),
            DifferenceKind::Target(first, second) => {
                write!(f, "the link points to `{}` first, then to `{}`", first.display(), second.display())
            }
            DifferenceKind::Content { offset, first, second } => {
                write!(f, "byte {offset} is {} first, then {}", byte(*first), byte(*second))
            }
        }
    }
}

fn byte(value: Option<u8>) -> String {
    match value {
        None => "the end of the file".to_owned(),
        Some(value) if value.is_ascii_graphic() => format!("0x{value:02x} (`{}`)", char::from(value)),
        Some(value) => format!("0x{value:02x}"),
    }
}

/// The first difference between the trees at `first` and `second`; `None` if they are the same archive.
pub fn first_difference(first: &Path, second: &Path) -> io::Result<Option<Difference>> {
    // Deepest path last, so that popping visits paths in order without recursion.
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let (left, right) = (join(first, &path), join(second, &path));
        let (left_meta, right_meta) = (fs::symlink_metadata(&left)?, fs::symlink_metadata(&right)?);
        let (left_kind, right_kind) = (kind_name(&left_meta), kind_name(&right_meta));
        if left_kind != right_kind {
            return Ok(Some(Difference { path, kind: DifferenceKind::Type(left_kind, right_kind) }));
        }
        let found = match left_kind {
            "directory" => match compare_names(&left, &right)? {
                Names::Same(names) => {
                    pending.extend(names.into_iter().rev().map(|name| path.join(name)));
                    None
                }
                Names::Differ(name, kind) => return Ok(Some(Difference { path: path.join(name), kind })),
            },
            "symbolic link" => compare_links(&left, &right)?,
            "file" => {
                let executable = left_meta.permissions().mode() & 0o100 != 0;
                if executable != (right_meta.permissions().mode() & 0o100 != 0) {
                    Some(DifferenceKind::Executable(executable))
                } else {
                    compare_contents(&left, &right)?
                }
            }
            _ => None,
        };
        if let Some(kind) = found {
            return Ok(Some(Difference { path, kind }));
        }
    }
    Ok(None)
}

pub(super) fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

pub(super) fn kind_name(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_file() {
        "file"
    } else {
        "special file"
    }
}

enum Names {
    Same(Vec<OsString>),
    Differ(OsString, DifferenceKind),
}

fn compare_names(first: &Path, second: &Path) -> io::Result<Names> {
    let (left, right) = (sorted_names(first)?, sorted_names(second)?);
    for position in 0..left.len().max(right.len()) {
        match (left.get(position), right.get(position)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if a < b => return Ok(Names::Differ(a.clone(), DifferenceKind::OnlyInFirst)),
            (Some(a), None) => return Ok(Names::Differ(a.clone(), DifferenceKind::OnlyInFirst)),
            (_, Some(b)) => return Ok(Names::Differ(b.clone(), DifferenceKind::OnlyInSecond)),
            (None, None) => break,
        }
    }
    Ok(Names::Same(left))
}

pub(super) fn sorted_names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn compare_links(first: &Path, second: &Path) -> io::Result<Option<DifferenceKind>> {
    let (left, right) = (fs::read_link(first)?, fs::read_link(second)?);
    Ok((left != right).then_some(DifferenceKind::Target(left, right)))
}

pub(super) fn compare_contents(first: &Path, second: &Path) -> io::Result<Option<DifferenceKind>> {
    let (mut left, mut right) = (BufReader::new(File::open(first)?), BufReader::new(File::open(second)?));
    let mut buffers = ([0; 65536], [0; 65536]);
    let mut before = 0;
    loop {
        let (a, b) = (fill(&mut left, &mut buffers.0)?, fill(&mut right, &mut buffers.1)?);
        let (a, b) = (&buffers.0[..a], &buffers.1[..b]);
        if a != b {
            let at = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
            let offset = before + at as u64;
            return Ok(Some(DifferenceKind::Content { offset, first: a.get(at).copied(), second: b.get(at).copied() }));
        }
        if a.is_empty() {
            return Ok(None);
        }
        before += a.len() as u64;
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Maker = fn(&Path);

    fn check(first: Maker, second: Maker, expected: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        let (left, right) = (directory.path().join("first"), directory.path().join("second"));
        first(&left);
        second(&right);
        let found = first_difference(&left, &right).unwrap().map(|difference| difference.to_string());
        assert_eq!(found.as_deref(), expected);
    }

    fn tree(root: &Path) {
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("a"), "same").unwrap();
        fs::write(root.join("b/c/d"), vec![7; 70_000]).unwrap();
        std::os::unix::fs::symlink("a", root.join("l")).unwrap();
    }

    #[test]
    fn equal_trees_have_no_difference() {
        check(tree, tree, None);
    }

    #[test]
    fn the_first_differing_byte_is_named() {
        let changed: Maker = |root| {
            tree(root);
            let mut content = vec![7; 70_000];
            content[66_000] = b'x';
            fs::write(root.join("b/c/d"), content).unwrap();
        };
        check(tree, changed, Some("`b/c/d`: byte 66000 is 0x07 first, then 0x78 (`x`)"));
    }

    #[test]
    fn a_longer_file_differs_at_its_end() {
        let longer: Maker = |root| {
            tree(root);
            fs::write(root.join("a"), "same!").unwrap();
        };
        check(tree, longer, Some("`a`: byte 4 is the end of the file first, then 0x21 (`!`)"));
    }

    #[test]
    fn missing_and_additional_files_are_named() {
        let fewer: Maker = |root| {
            tree(root);
            fs::remove_file(root.join("a")).unwrap();
        };
        check(tree, fewer, Some("`a`: only the first build made it"));
        check(fewer, tree, Some("`a`: only the second build made it"));
    }

    #[test]
    fn modes_types_and_targets_count() {
        let executable: Maker = |root| {
            tree(root);
            fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        };
        check(tree, executable, Some("`a`: not executable first, then executable"));
        let other_target: Maker = |root| {
            tree(root);
            fs::remove_file(root.join("l")).unwrap();
            std::os::unix::fs::symlink("b", root.join("l")).unwrap();
        };
        check(tree, other_target, Some("`l`: the link points to `a` first, then to `b`"));
        check(tree, |root| fs::write(root, "x").unwrap(), Some("`.`: a directory first, then a file"));
    }
}
