//! Wheels as a directory for Python's path and one for programs: what installing them would give, without running any.
#![expect(clippy::disallowed_methods, reason = "reads wheels")]

mod entry_points;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::spool::{File, Spool, SpoolError};
use crate::tree::{Bounds, Inserted, Item, Node, Origin, Tree, TreeError};
use crate::tree_path::{PathError, TreePath, printable};
use crate::wheel_tag::{WheelName, WheelNameError};
use crate::write::{WriteError, write};
use crate::zip_reader::{Archive, Entry, EntryKind, ZipError};

pub use entry_points::EntryPointError;

/// Largest wheel, which is held in memory.
const MAX_WHEEL: u64 = 2 << 30;
/// Most bytes of all files of one wheel.
const MAX_TOTAL: u64 = 8 << 30;
/// Largest script or list of entry points.
const MAX_TEXT: u64 = 16 << 20;
/// What `#!python` becomes: the interpreter of the sysroot that the tree is used in.
const INTERPRETER: &str = "/usr/bin/python3";

/// Why wheels could not be laid out.
#[derive(Debug, Error)]
pub enum PythonPathError {
    /// A wheel's file name.
    #[error(transparent)]
    FileName(#[from] WheelNameError),
    /// A wheel cannot be read.
    #[error("cannot read the wheel `{}`", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A wheel's archive is broken.
    #[error("{wheel}: {source}")]
    Zip {
        /// The wheel.
        wheel: Origin,
        /// Why.
        source: ZipError,
    },
    /// An entry of a wheel is refused.
    #[error("{wheel}: `{path}` {what}")]
    Entry {
        /// The wheel.
        wheel: Origin,
        /// The path in it.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A path in a wheel is refused.
    #[error("{wheel}: {source}")]
    Path {
        /// The wheel.
        wheel: Origin,
        /// Why.
        source: PathError,
    },
    /// An entry of a wheel cannot be read or stored.
    #[error("{wheel}: cannot unpack `{path}`")]
    Body {
        /// The wheel.
        wheel: Origin,
        /// The path in it.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list of programs of a wheel is broken.
    #[error("{wheel}: {source}")]
    EntryPoints {
        /// The wheel.
        wheel: Origin,
        /// Why.
        source: EntryPointError,
    },
    /// One distribution is there twice.
    #[error("{first} and {second} are of the same distribution")]
    Twice {
        /// The earlier wheel.
        first: Origin,
        /// The later wheel.
        second: Origin,
    },
    /// Two wheels install different files at one path.
    #[error("`{path}` is in {first} and, with other contents, in {second}")]
    Conflict {
        /// The path in the tree.
        path: String,
        /// The earlier wheel.
        first: Origin,
        /// The later wheel.
        second: Origin,
    },
    /// An entry cannot be placed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The directory could not be made.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The tree could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Lays out wheels in the new directory `into`: `lib` for Python's path, `bin` for programs. A wheel's file name may have
/// the store's hash in front of it.
pub fn build(wheels: &[PathBuf], into: &Path) -> Result<(), PythonPathError> {
    let spool = Spool::create(into)?;
    let mut layout = Layout { tree: Tree::new(Bounds::Contained), spool: &spool, names: BTreeMap::new() };
    layout.standard()?;
    for path in wheels {
        layout.wheel(path)?;
    }
    let tree = layout.tree;
    tree.check_links()?;
    Ok(write(&tree, spool)?)
}

struct Layout<'a> {
    tree: Tree,
    spool: &'a Spool,
    names: BTreeMap<String, Origin>,
}

/// Where a file of a wheel goes, and whether it is a script.
struct Place {
    path: TreePath,
    script: bool,
}

impl Layout<'_> {
    fn standard(&mut self) -> Result<(), PythonPathError> {
        for name in ["bin", "lib"] {
            let path = TreePath::parse_rooted(name).expect("a plain name is a path");
            self.tree.insert(&path, Item::Directory, &Origin::from("the tree"))?;
        }
        Ok(())
    }

    fn wheel(&mut self, path: &Path) -> Result<(), PythonPathError> {
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = WheelName::parse(without_store_hash(&file_name))?;
        let wheel = Origin::from(format!("the wheel `{name}`"));
        if let Some(first) = self.names.insert(name.name.clone(), wheel.clone()) {
            return Err(PythonPathError::Twice { first, second: wheel });
        }
        let bytes = read_file(path).map_err(|source| PythonPathError::Read { path: path.to_path_buf(), source })?;
        let archive = Archive::parse(&bytes).map_err(|source| PythonPathError::Zip { wheel: wheel.clone(), source })?;
        let refuse = |path: &str, what| PythonPathError::Entry { wheel: wheel.clone(), path: path.to_owned(), what };
        let total = archive.entries().iter().try_fold(0u64, |total, entry| total.checked_add(entry.size));
        if total.is_none_or(|total| total > MAX_TOTAL) {
            return Err(refuse("", "and the rest are too large"));
        }
        let mut programs = Vec::new();
        for entry in archive.entries() {
            match entry.kind {
                EntryKind::Directory => continue,
                EntryKind::File => {}
                _ => return Err(refuse(&printable(&entry.path), "is neither file nor directory")),
            }
            let path = TreePath::parse(&entry.path)
                .map_err(|source| PythonPathError::Path { wheel: wheel.clone(), source })?;
            if path.names().iter().any(|name| name == b"__pycache__") {
                continue;
            }
            if is_entry_points(&path) {
                programs = self.programs(&archive, entry, &wheel)?;
            }
            let place = place(&path, &name, &wheel)?;
            let file = self.file(&archive, entry, place.script, &wheel)?;
            self.add(&place.path, file, &wheel)?;
        }
        for (program, text) in programs {
            let path = TreePath::parse(format!("bin/{program}").as_bytes());
            let path = path.map_err(|source| PythonPathError::Path { wheel: wheel.clone(), source })?;
            self.add(&path, File::from_bytes(text.into_bytes(), true), &wheel)?;
        }
        Ok(())
    }

    fn programs(
        &self,
        archive: &Archive<'_>,
        entry: &Entry,
        wheel: &Origin,
    ) -> Result<Vec<(String, String)>, PythonPathError> {
        let bytes = self.body(archive, entry, wheel)?;
        let failed = |source| PythonPathError::EntryPoints { wheel: wheel.clone(), source };
        let text = String::from_utf8(bytes).map_err(|_| failed(EntryPointError::Encoding))?;
        entry_points::programs(&text, INTERPRETER).map_err(failed)
    }

    fn file(
        &self,
        archive: &Archive<'_>,
        entry: &Entry,
        script: bool,
        wheel: &Origin,
    ) -> Result<File, PythonPathError> {
        if script && entry.size <= MAX_TEXT {
            return Ok(File::from_bytes(with_interpreter(self.body(archive, entry, wheel)?), true));
        }
        let stored = self.spool.store(&mut archive.body(entry), script || entry.executable);
        stored.map_err(|source| body_error(wheel, entry, source))
    }

    fn body(&self, archive: &Archive<'_>, entry: &Entry, wheel: &Origin) -> Result<Vec<u8>, PythonPathError> {
        archive.read(entry, MAX_TEXT).map_err(|source| body_error(wheel, entry, source))
    }

    fn add(&mut self, path: &TreePath, file: File, wheel: &Origin) -> Result<(), PythonPathError> {
        let Inserted::Existing(id) = self.tree.insert(path, Item::File(file.clone()), wheel)? else { return Ok(()) };
        let Node::File(existing) = self.tree.node(id) else { return Ok(()) };
        let failed = |source| PythonPathError::Body { wheel: wheel.clone(), path: path.to_string(), source };
        if self.spool.same(existing, &file).map_err(failed)? {
            return Ok(());
        }
        let (first, second) = (self.tree.origin(id).clone(), wheel.clone());
        Err(PythonPathError::Conflict { path: path.to_string(), first, second })
    }
}

fn body_error(wheel: &Origin, entry: &Entry, source: io::Error) -> PythonPathError {
    PythonPathError::Body { wheel: wheel.clone(), path: printable(&entry.path), source }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > MAX_WHEEL {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read(path)
}

/// The file name of a store object without its hash: 32 characters and a hyphen.
fn without_store_hash(file_name: &str) -> &str {
    let hash =
        |text: &&str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match file_name.split_once('-') {
        Some((prefix, rest)) if hash(&prefix) => rest,
        _ => file_name,
    }
}

fn is_entry_points(path: &TreePath) -> bool {
    matches!(path.names(), [top, name] if top.ends_with(b".dist-info") && name == b"entry_points.txt")
}

/// Files lie beside one another in `lib`, except those below `*.data`, whose second name says where they go.
fn place(path: &TreePath, name: &WheelName, wheel: &Origin) -> Result<Place, PythonPathError> {
    let refused = |source| PythonPathError::Path { wheel: wheel.clone(), source };
    let below = |prefix: String, count: usize| {
        let rest = path.without_leading(count).unwrap_or(TreePath::ROOT);
        TreePath::parse(prefix.as_bytes()).and_then(|prefix| prefix.join(&rest)).map_err(refused)
    };
    let (scheme, rest) = match path.names() {
        [top, scheme, rest @ ..] if top.ends_with(b".data") && !rest.is_empty() => (&scheme[..], rest),
        _ => return Ok(Place { path: below("lib".to_owned(), 0)?, script: false }),
    };
    let (path, script) = match scheme {
        b"purelib" | b"platlib" => (below("lib".to_owned(), 2)?, false),
        b"scripts" => (below("bin".to_owned(), 2)?, rest.len() == 1),
        b"headers" => (below(format!("include/{}", name.name), 2)?, false),
        b"data" => (path.without_leading(2).unwrap_or(TreePath::ROOT), false),
        _ => {
            let what = "is for a place that no one knows";
            return Err(PythonPathError::Entry { wheel: wheel.clone(), path: path.to_string(), what });
        }
    };
    Ok(Place { path, script })
}

/// `#!python` and `#!pythonw` at the start of a script stand for the interpreter. (PEP 427.)
fn with_interpreter(script: Vec<u8>) -> Vec<u8> {
    let Some(rest) = script.strip_prefix(b"#!python") else { return script };
    let rest = rest.strip_prefix(b"w").unwrap_or(rest);
    match rest.first() {
        Some(b'\n' | b'\r' | b' ') | None => [b"#!", INTERPRETER.as_bytes(), rest].concat(),
        Some(_) => script,
    }
}

#[cfg(test)]
mod tests;
