//! Where recipe files come from: the only input and output that evaluation has.

use std::collections::{BTreeMap, BTreeSet};

/// Gives evaluation the files of a catalog.
///
/// Paths are relative to the catalog's root, `/`-separated, without `.`, `..` or empty parts: [`is_catalog_path`]
/// holds for every path a loader is asked for.
pub trait Loader: Sync {
    /// The bytes of a file.
    fn read(&self, path: &str) -> Result<Vec<u8>, LoadError>;

    /// What a directory holds, sorted by name; the empty path is the root. Entries that are neither files nor
    /// directories are left out.
    fn list(&self, directory: &str) -> Result<Vec<Entry>, LoadError>;

    /// The path as a person at a terminal can open it.
    fn display(&self, path: &str) -> String {
        path.to_owned()
    }
}

/// An entry of a directory of a catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name in the directory.
    pub name: String,
    /// Whether it is a directory; else it is a file.
    pub is_directory: bool,
}

/// Why a loader cannot give a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file or directory.
    #[error("no such file")]
    Missing,
    /// It is a directory, a device or something else that has no bytes to read.
    #[error("not a regular file")]
    NotAFile,
    /// A symbolic link leads out of the catalog.
    #[error("leads out of the catalog")]
    Escapes,
    /// It is larger than any recipe file may be.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The system refused.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Whether the text is a path inside a catalog: no empty, hidden-parent or absolute parts.
pub fn is_catalog_path(path: &str) -> bool {
    path.len() <= 1024 && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A catalog in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryLoader(BTreeMap<String, Vec<u8>>);

impl MemoryLoader {
    /// A catalog of these files, given as path and text.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).collect())
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), bytes.into());
    }
}

impl Loader for MemoryLoader {
    fn read(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        self.0.get(path).cloned().ok_or(LoadError::Missing)
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, LoadError> {
        let below = |path: &String| match directory {
            "" => Some(path.clone()),
            directory => path.strip_prefix(directory)?.strip_prefix('/').map(ToOwned::to_owned),
        };
        let entries: BTreeSet<Entry> = self
            .0
            .keys()
            .filter_map(below)
            .map(|rest| match rest.split_once('/') {
                Some((name, _)) => Entry { name: name.to_owned(), is_directory: true },
                None => Entry { name: rest, is_directory: false },
            })
            .collect();
        if entries.is_empty() && !directory.is_empty() {
            return Err(LoadError::Missing);
        }
        Ok(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for path in ["BUILD.star", "a/b/c.star", "a/...", "a/.hidden"] {
            assert!(is_catalog_path(path), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0"] {
            assert!(!is_catalog_path(path), "{path}");
        }
    }

    #[test]
    fn memory_lists_like_a_directory() {
        let loader = MemoryLoader::new([("BUILD.star", ""), ("a/BUILD.star", ""), ("a/b/x", ""), ("ab", "")]);
        let names = |directory: &str| {
            let entries = loader.list(directory).unwrap();
            entries
                .into_iter()
                .map(|e| if e.is_directory { format!("{}/", e.name) } else { e.name })
                .collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["BUILD.star", "a/", "ab"]);
        assert_eq!(names("a"), ["BUILD.star", "b/"]);
        assert!(loader.list("b").is_err());
    }
}
