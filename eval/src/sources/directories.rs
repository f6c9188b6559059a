//! Files that somebody put into a directory of this machine (`--from DIR`, local mirrors, pip's find-links).

#![expect(clippy::disallowed_methods, reason = "they are files")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ampoule_store::hash::{Sha256Digest, Sha256Hasher};

/// How deep directories are searched, and how many files are looked at: enough for a copy of a mirror's pool.
const MAX_DEPTH: usize = 8;
const MAX_FILES: usize = 500_000;

/// An unreadable directory.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct DirectoryError {
    /// The directory.
    pub path: PathBuf,
    /// What went wrong.
    pub source: io::Error,
}

/// The files below some directories, found by name or by hash.
#[derive(Debug, Default)]
pub struct Directories {
    /// In order of directory, then path.
    files: Vec<Listed>,
    by_name: BTreeMap<String, Vec<usize>>,
    hashes: Mutex<BTreeMap<usize, Option<Sha256Digest>>>,
}

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    name: String,
    size: u64,
}

impl Directories {
    /// Lists the files of these directories and of those below them. Symbolic links to directories are not followed.
    pub fn list(directories: &[PathBuf]) -> Result<Self, DirectoryError> {
        let mut listed = Self::default();
        for directory in directories {
            listed.add(directory)?;
        }
        for (index, file) in listed.files.iter().enumerate() {
            listed.by_name.entry(file.name.clone()).or_default().push(index);
        }
        Ok(listed)
    }

    fn add(&mut self, root: &Path) -> Result<(), DirectoryError> {
        let mut waiting = vec![(root.to_owned(), 0)];
        while let Some((directory, depth)) = waiting.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(source) if depth == 0 => return Err(DirectoryError { path: directory, source }),
                Err(_) => continue,
            };
            let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            for path in paths {
                let Ok(kind) = std::fs::symlink_metadata(&path) else { continue };
                if kind.is_dir() && depth < MAX_DEPTH {
                    waiting.push((path, depth + 1));
                } else if self.files.len() < MAX_FILES {
                    self.add_file(path);
                }
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf) {
        let Ok(metadata) = std::fs::metadata(&path) else { return };
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { return };
        if metadata.is_file() {
            self.files.push(Listed { path, name, size: metadata.len() });
        }
    }

    /// Whether there is no file at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The first file of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Path> {
        let index = self.by_name.get(name)?.first()?;
        Some(&self.files[*index].path)
    }

    /// The first file of this name that can be read, with its hash.
    pub(crate) fn named_with_hash(&self, name: &str) -> Option<(&Path, Sha256Digest)> {
        let mut named = self.by_name.get(name)?.iter();
        named.find_map(|index| Some((self.files[*index].path.as_path(), self.hash(*index)?)))
    }

    /// The file with this hash: one of this name if there is one, else one named by the hash, else any.
    pub(crate) fn find(&self, name: &str, size: Option<u64>, sha256: &Sha256Digest) -> Option<&Path> {
        let hex = sha256.to_hex();
        let likely = [name, &hex].into_iter().filter_map(|name| self.by_name.get(name)).flatten().copied();
        let all = (0..self.files.len()).filter(|index| size.is_none_or(|size| size == self.files[*index].size));
        let found = likely.chain(all).find(|index| self.hash(*index) == Some(*sha256))?;
        Some(&self.files[found].path)
    }

    fn hash(&self, index: usize) -> Option<Sha256Digest> {
        let known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(&index).copied();
        known.unwrap_or_else(|| {
            let hash = hash_file(&self.files[index].path).ok();
            self.hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, hash);
            hash
        })
    }
}

fn hash_file(path: &Path) -> io::Result<Sha256Digest> {
    let mut hasher = Sha256Hasher::new();
    io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_then_by_hash() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pool")).unwrap();
        std::fs::write(directory.path().join("a.whl"), "wrong").unwrap();
        std::fs::write(directory.path().join("pool/other-name"), "right").unwrap();
        let directories = Directories::list(&[directory.path().to_owned()]).unwrap();
        let right = Sha256Digest::of(b"right");
        let found = |size| directories.find("a.whl", size, &right).and_then(Path::file_name);
        assert_eq!(found(Some(5)).unwrap(), "other-name");
        assert_eq!(found(None).unwrap(), "other-name");
        assert_eq!(found(Some(6)), None);
        assert_eq!(directories.named("a.whl").unwrap(), directory.path().join("a.whl"));
        assert!(Directories::list(&[directory.path().join("absent")]).is_err());
    }
}
