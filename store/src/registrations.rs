//! What a store knows of its objects, as text: what `nix-store --dump-db` writes and `--load-db` reads.
//!
//! For each object these lines: its path, the SHA-256 of its NAR in base 16, the size of its NAR, its deriver or an empty line,
//! how many references it has, and each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use crate::content_address::References;
use crate::hash::{HashError, Sha256Digest};
use crate::local::{AddressError, LocalStore, QueryError, RegisterForeignError, Registration, StageError, Staged};
use crate::path::{PathError, StoreDir, StorePath};
use crate::path_info::PathInfo;

/// The longest line that is read, in bytes.
const LINE_LIMIT: u64 = 4096;
/// The most references one object may have.
const REFERENCES_LIMIT: usize = 1 << 20;
/// How many objects are registered together, and how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 256 << 20;

/// The lines of an object.
#[must_use]
pub fn write(store_dir: &StoreDir, info: &PathInfo) -> String {
    let deriver = info.deriver.as_ref().map(|path| store_dir.display(path)).unwrap_or_default();
    let (path, hash, size) = (store_dir.display(&info.path), info.nar_hash.to_hex(), info.nar_size);
    let mut text = format!("{path}\n{hash}\n{size}\n{deriver}\n{}\n", info.references.len());
    for reference in &info.references {
        text.push_str(&format!("{}\n", store_dir.display(reference)));
    }
    text
}

/// Why objects were not registered. What was registered before is whole.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The text cannot be read.
    #[error("cannot read the registrations")]
    Read(#[source] io::Error),
    /// The text ends within an object.
    #[error("the text ends where {expected} is expected")]
    End {
        /// What is missing.
        expected: &'static str,
    },
    /// A line is too long or no text.
    #[error("{expected} expected where a line is too long or no text")]
    Line {
        /// What should be there.
        expected: &'static str,
    },
    /// A path is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A hash is none.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A number is none, or too large.
    #[error("`{}` is no {expected}", text.escape_debug())]
    Number {
        /// What is there.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
    /// An object is there twice.
    #[error("`{0}` is registered twice")]
    Twice(StorePath),
    /// Objects refer to one another in a circle.
    #[error("objects refer to one another in a circle, among them `{0}`")]
    Cycle(StorePath),
    /// An object cannot be read where it should lie.
    #[error("cannot read `{path}` where it should lie")]
    Object {
        /// The object.
        path: StorePath,
        /// Why not.
        #[source]
        source: Box<StageError>,
    },
    /// An object is not what was registered.
    #[error("`{path}` has {found} and not the registered {expected}")]
    Changed {
        /// The object.
        path: StorePath,
        /// Hash and size of what lies there.
        found: String,
        /// Hash and size that were registered.
        expected: String,
    },
    /// An object cannot be hashed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The objects cannot be registered, for example because they refer to something that is not there.
    #[error(transparent)]
    Register(#[from] RegisterForeignError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Registers objects that lie in the store without being valid, if they are what the text says; returns their paths. What is
/// valid already stays as it is.
///
/// Each object is copied beside the store and hashed, so that only what was seen whole becomes valid.
///
/// # Errors
/// When the text is malformed, or an object is missing, changed, or refers to one that is not there.
pub fn load(store: &LocalStore, text: impl BufRead) -> Result<Vec<StorePath>, LoadError> {
    let mut infos = parse(store.store_dir(), text)?;
    let names: Vec<StorePath> = infos.keys().cloned().collect();
    for valid in store.keep_valid_paths(&names)? {
        infos.remove(&valid);
    }
    let mut loaded = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for info in references_first(infos)? {
        loaded.push(info.path.clone());
        bytes += info.nar_size;
        batch.push(adopt(store, info)?);
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            store.register_foreign(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    store.register_foreign(batch)?;
    Ok(loaded)
}

fn adopt(store: &LocalStore, info: PathInfo) -> Result<Registration, LoadError> {
    let staged = store.stage_from_path(&store.physical_path(&info.path));
    let fail = |source| LoadError::Object { path: info.path.clone(), source: Box::new(source) };
    let staged: Staged = staged.map_err(fail)?;
    if (staged.nar_hash(), staged.nar_size()) != (info.nar_hash, info.nar_size) {
        let describe = |hash: Sha256Digest, size: u64| format!("the hash {} and {size} bytes", hash.to_sri());
        let found = describe(staged.nar_hash(), staged.nar_size());
        return Err(LoadError::Changed { found, expected: describe(info.nar_hash, info.nar_size), path: info.path });
    }
    let mut others = info.references.clone();
    let self_reference = others.remove(&info.path);
    let content_address = store.find_address(&staged, &info.path, &References { others, self_reference })?;
    let PathInfo { path, references, deriver, .. } = info;
    Ok(Registration { staged, path, references, deriver, content_address })
}

fn parse(store_dir: &StoreDir, mut text: impl BufRead) -> Result<BTreeMap<StorePath, PathInfo>, LoadError> {
    let mut infos = BTreeMap::new();
    while let Some(path) = line(&mut text, "a path")? {
        let mut next = |expected| line(&mut text, expected)?.ok_or(LoadError::End { expected });
        let path = store_dir.parse(&path)?;
        let nar_hash = next("a hash")?.parse()?;
        let nar_size = number(next("a size")?, "size")?;
        let deriver = Some(next("a deriver or an empty line")?).filter(|deriver| !deriver.is_empty());
        let deriver = deriver.map(|deriver| store_dir.parse(&deriver)).transpose()?;
        let count = usize::try_from(number(next("a number of references")?, "number of references")?);
        let count = count.ok().filter(|count| *count <= REFERENCES_LIMIT);
        let count = count.ok_or(LoadError::Line { expected: "a smaller number of references" })?;
        let mut references = BTreeSet::new();
        for _ in 0..count {
            references.insert(store_dir.parse(&next("a reference")?)?);
        }
        let info = PathInfo {
            path: path.clone(),
            nar_hash,
            nar_size,
            references,
            deriver,
            content_address: None,
            registered_at: 0,
        };
        if infos.insert(path.clone(), info).is_some() {
            return Err(LoadError::Twice(path));
        }
    }
    Ok(infos)
}

fn line(text: &mut impl BufRead, expected: &'static str) -> Result<Option<String>, LoadError> {
    let mut bytes = Vec::new();
    let count = io::Read::take(text, LINE_LIMIT).read_until(b'\n', &mut bytes).map_err(LoadError::Read)?;
    if count == 0 {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(LoadError::Line { expected });
    }
    String::from_utf8(bytes).map(Some).map_err(|_| LoadError::Line { expected })
}

fn number(text: String, expected: &'static str) -> Result<u64, LoadError> {
    match text.parse() {
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(LoadError::Number { text, expected }),
    }
}

/// The objects, each after those it refers to.
fn references_first(mut infos: BTreeMap<StorePath, PathInfo>) -> Result<Vec<PathInfo>, LoadError> {
    let mut ordered = Vec::with_capacity(infos.len());
    let mut entered = BTreeSet::new();
    while let Some(start) = infos.keys().next().cloned() {
        let mut pending = vec![start];
        while let Some(path) = pending.last().cloned() {
            let Some(info) = infos.get(&path) else {
                pending.pop();
                continue;
            };
            let waiting = info.references.iter().filter(|other| **other != path && infos.contains_key(*other));
            let waiting: Vec<StorePath> = waiting.cloned().collect();
            if waiting.is_empty() {
                ordered.extend(infos.remove(&path));
                pending.pop();
            } else if entered.insert(path.clone()) {
                pending.extend(waiting);
            } else {
                return Err(LoadError::Cycle(path));
            }
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(digit: u8) -> StorePath {
        StorePath::new(&[digit; 20], "x").unwrap()
    }

    fn info(digit: u8, references: &[u8]) -> PathInfo {
        PathInfo {
            path: path(digit),
            nar_hash: Sha256Digest::of(&[digit]),
            nar_size: u64::from(digit),
            references: references.iter().map(|digit| path(*digit)).collect(),
            deriver: (digit == 1).then(|| StorePath::new(&[9; 20], "x.drv").unwrap()),
            content_address: None,
            registered_at: 0,
        }
    }

    #[test]
    fn what_is_written_is_read_in_any_order() {
        let store_dir = StoreDir::default();
        let infos = [info(3, &[1, 2, 3]), info(1, &[]), info(2, &[1])];
        let text: String = infos.iter().map(|info| write(&store_dir, info)).collect();
        let read = parse(&store_dir, text.as_bytes()).unwrap();
        assert_eq!(read.len(), 3);
        assert!(infos.iter().all(|info| read[&info.path] == *info));
        let ordered = references_first(read).unwrap();
        let order: Vec<&StorePath> = ordered.iter().map(|info| &info.path).collect();
        assert_eq!(order, [&path(1), &path(2), &path(3)]);
    }

    #[test]
    fn what_is_no_registration_is_refused() {
        let store_dir = StoreDir::default();
        let text = write(&store_dir, &info(3, &[1]));
        for length in 1..text.len() {
            assert!(parse(&store_dir, &text.as_bytes()[..length]).is_err(), "{length} bytes");
        }
        let count = text.replace("\n1\n", "\n99999999999\n");
        let size = text.replace("\n3\n", "\n+3\n");
        for bad in [format!("{text}{text}"), "x".repeat(10_000), count, size, text.replace("/nix/", "/gnu/")] {
            parse(&store_dir, bad.as_bytes()).unwrap_err();
        }
        let circle = [info(1, &[2]), info(2, &[1])].map(|info| (info.path.clone(), info)).into();
        assert!(matches!(references_first(circle), Err(LoadError::Cycle(_))));
    }
}
