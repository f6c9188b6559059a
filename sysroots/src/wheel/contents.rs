//! Everything in a wheel: paths that are safe, bodies that are whole, their digests, and the ELF files among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

use super::{MAX_TOTAL, WheelError};
use crate::elf::{Elf, is_elf};
use crate::tree_path::{TreePath, printable};
use crate::zip_reader::{Archive, Entry, EntryKind};

/// Largest text file of the metadata.
const MAX_TEXT: u64 = 64 << 20;

/// SHA-256 and length of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    sha256: [u8; 32],
    pub(super) size: u64,
}

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Digest { sha256: Sha256::digest(bytes).into(), size: bytes.len() as u64 }
    }
}

impl fmt::Display for Digest {
    /// As in `RECORD`: `sha256=` and URL-safe base64 without padding.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256={}", BASE64URL_NOPAD.encode(&self.sha256))
    }
}

pub(super) struct Contents {
    pub(super) dist_info: String,
    pub(super) files: BTreeMap<String, (Entry, Digest)>,
    pub(super) elf: BTreeMap<String, Elf>,
    pub(super) metadata: String,
    pub(super) wheel: String,
    pub(super) record: String,
}

impl Contents {
    pub(super) fn read(archive: &Archive<'_>) -> Result<Self, WheelError> {
        let mut files = BTreeMap::new();
        let mut elf = BTreeMap::new();
        let mut total = 0u64;
        for entry in archive.entries() {
            let path = safe_path(entry)?;
            if entry.kind == EntryKind::Directory {
                continue;
            }
            total = total.saturating_add(entry.size);
            if total > MAX_TOTAL {
                return Err(WheelError::TooLarge);
            }
            let failed = |source| WheelError::Body { path: path.clone(), source };
            let body = archive.read(entry, MAX_TOTAL).map_err(failed)?;
            if is_elf(&body) {
                let parsed = Elf::parse(&body).map_err(|source| WheelError::Elf { path: path.clone(), source })?;
                elf.insert(path.clone(), parsed);
            }
            files.insert(path, (entry.clone(), Digest::of(&body)));
        }
        check_nesting(&files)?;
        let dist_info = find_dist_info(&files)?;
        let text = |name: &str| read_text(archive, &files, &format!("{dist_info}/{name}"));
        let (metadata, wheel, record) = (text("METADATA")?, text("WHEEL")?, text("RECORD")?);
        for signature in ["RECORD.jws", "RECORD.p7s"] {
            let path = format!("{dist_info}/{signature}");
            if files.contains_key(&path) {
                let what = "is a signature, which would not be valid any more".to_owned();
                return Err(WheelError::Entry { path, what });
            }
        }
        Ok(Contents { dist_info, files, elf, metadata, wheel, record })
    }

    /// Leaves out caches of compiled Python, which hold times. One that stands in for its source cannot be left out.
    pub(super) fn drop_compiled(&mut self) -> Result<usize, WheelError> {
        let compiled = |path: &&String| path.ends_with(".pyc") || path.ends_with(".pyo");
        let compiled: Vec<String> = self.files.keys().filter(compiled).cloned().collect();
        for path in &compiled {
            if !path.split('/').any(|name| name == "__pycache__") {
                let what = "is compiled Python outside of a cache, which differs from build to build".to_owned();
                return Err(WheelError::Entry { path: path.clone(), what });
            }
            self.files.remove(path);
        }
        Ok(compiled.len())
    }

    /// Names by which ELF files of the wheel may be needed by others of them.
    pub(super) fn libraries(&self) -> BTreeSet<String> {
        let base_name = |path: &String| path.rsplit('/').next().unwrap_or(path).to_owned();
        let sonames = self.elf.values().filter_map(|elf| elf.soname.clone());
        self.elf.keys().map(base_name).chain(sonames).collect()
    }

    /// Directories in the wheel that become part of Python's path.
    pub(super) fn roots(&self) -> [String; 3] {
        let stem = self.dist_info.strip_suffix(".dist-info").unwrap_or(&self.dist_info);
        [String::new(), format!("{stem}.data/platlib/"), format!("{stem}.data/purelib/")]
    }
}

/// A path that is the same for every reader: relative, without steps that do nothing, in UTF-8.
fn safe_path(entry: &Entry) -> Result<String, WheelError> {
    let refuse = |what: String| WheelError::Entry { path: printable(&entry.path), what };
    let bytes = entry.path.strip_suffix(b"/").filter(|_| entry.kind == EntryKind::Directory).unwrap_or(&entry.path);
    let path = TreePath::parse(bytes).map_err(|error| refuse(format!("is refused: {error}")))?;
    if path.to_bytes() != bytes || path.is_root() {
        return Err(refuse("has a path with steps that do nothing".to_owned()));
    }
    match entry.kind {
        EntryKind::Directory | EntryKind::File => {}
        EntryKind::Symlink => return Err(refuse("is a symbolic link".to_owned())),
        EntryKind::Special => return Err(refuse("is neither file nor directory".to_owned())),
    }
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| refuse("has a path that is not UTF-8".to_owned()))?;
    if text.chars().any(char::is_control) {
        return Err(refuse("has a control character in its path".to_owned()));
    }
    Ok(text)
}

/// No file may be where another has a directory.
fn check_nesting(files: &BTreeMap<String, (Entry, Digest)>) -> Result<(), WheelError> {
    for path in files.keys() {
        for (at, _) in path.match_indices('/') {
            if files.contains_key(&path[..at]) {
                let what = "lies below another file".to_owned();
                return Err(WheelError::Entry { path: path.clone(), what });
            }
        }
    }
    Ok(())
}

fn find_dist_info(files: &BTreeMap<String, (Entry, Digest)>) -> Result<String, WheelError> {
    let tops: BTreeSet<&str> = files.keys().filter_map(|path| path.split_once('/')).map(|(top, _)| top).collect();
    let found: Vec<&str> = tops.into_iter().filter(|top| top.ends_with(".dist-info")).collect();
    match found[..] {
        [only] => Ok(only.to_owned()),
        [] => Err(WheelError::DistInfo("none".to_owned())),
        _ => Err(WheelError::DistInfo(found.join(" and "))),
    }
}

fn read_text(
    archive: &Archive<'_>,
    files: &BTreeMap<String, (Entry, Digest)>,
    path: &str,
) -> Result<String, WheelError> {
    let refuse = |what: &str| WheelError::Entry { path: path.to_owned(), what: what.to_owned() };
    let (entry, _) = files.get(path).ok_or_else(|| refuse("is missing"))?;
    let bytes = archive.read(entry, MAX_TEXT).map_err(|source| WheelError::Body { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8"))
}
