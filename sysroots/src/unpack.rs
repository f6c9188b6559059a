//! Source archives as trees: tar in its compressions, and zip.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use thiserror::Error;

use crate::compression::{Compression, Unsupported};
use crate::limits::{LimitError, Limited, Limits};
use crate::patch::{Patch, PatchError};
use crate::spool::{File, Spool, SpoolError};
use crate::tar_reader::{self, TarError};
use crate::tree::{Bounds, Inserted, Item, Node, NodeId, Origin, Tree, TreeError};
use crate::tree_path::{PathError, TreePath, printable};
use crate::write::{WriteError, write};
use crate::zip_reader::{self, ZipError};

/// Largest zip archive, which is held in memory.
const MAX_ZIP: u64 = 2 << 30;
/// Longest target of a symbolic link in a zip archive.
const MAX_LINK: u64 = 4095;

/// How an archive becomes a tree.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many leading directories of each path to leave out. Each must be the only entry of what is above it.
    pub strip: u32,
    /// Bounds on what comes out.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options { strip: 0, limits: Limits::DEFAULT }
    }
}

/// Why an archive could not be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The archive could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// Its compression is not supported.
    #[error(transparent)]
    Compression(#[from] Unsupported),
    /// It is a broken tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It is a broken zip archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// It becomes too much.
    #[error("the archive is refused: {0}")]
    Limit(#[from] LimitError),
    /// An entry's path is refused.
    #[error("the archive is refused: {0}")]
    Path(#[from] PathError),
    /// An entry cannot be placed.
    #[error("the archive is refused: {0}")]
    Tree(#[from] TreeError),
    /// An entry is neither file, directory nor link.
    #[error("the archive is refused: `{path}` is {what}")]
    Special {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Two entries give one file different contents.
    #[error("the archive is refused: `{0}` is there twice, with different contents")]
    Duplicate(String),
    /// A hard link names what is not there.
    #[error("the archive is refused: the hard link `{path}` names `{target}`, which is not an earlier file")]
    HardLink {
        /// Its path.
        path: String,
        /// What it names.
        target: String,
    },
    /// The body of an entry could not be read or stored.
    #[error("cannot unpack `{path}`")]
    Body {
        /// Its path.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// There is not exactly one directory at the top.
    #[error("the archive has no single top directory to leave out: it has {0}")]
    Top(String),
    /// A patch does not apply.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The directory could not be made.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The tree could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Unpacks an archive into the new directory `into`, applying patches in order.
pub fn unpack(archive: impl Read + Seek, into: &Path, options: &Options, patches: &[Patch]) -> Result<(), UnpackError> {
    let spool = Spool::create(into)?;
    let mut tree = read(archive, &spool, options)?;
    for patch in patches {
        patch.apply(&mut tree, &spool)?;
    }
    Ok(write(&tree, spool)?)
}

/// Reads an archive into a tree whose bodies lie in the spool.
pub fn read(mut archive: impl Read + Seek, spool: &Spool, options: &Options) -> Result<Tree, UnpackError> {
    let size = archive.seek(SeekFrom::End(0)).map_err(UnpackError::Read)?;
    archive.seek(SeekFrom::Start(0)).map_err(UnpackError::Read)?;
    let mut archive = BufReader::with_capacity(256 * 1024, archive);
    let start = archive.fill_buf().map_err(UnpackError::Read)?;
    let limit = options.limits.bytes_for(size);
    let reading = Reading {
        tree: Tree::new(Bounds::Contained),
        spool,
        origin: Origin::from("the archive"),
        entries_left: options.limits.entries,
        bytes: limit,
        bytes_left: limit,
        limits: options.limits,
    };
    let mut tree = if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        let mut bytes = Vec::new();
        if size > MAX_ZIP {
            return Err(LimitError::Bytes(MAX_ZIP).into());
        }
        archive.take(size).read_to_end(&mut bytes).map_err(UnpackError::Read)?;
        reading.zip(&bytes, limit)?
    } else {
        let compression = Compression::detect(start)?;
        let plain = compression.decode(archive).map_err(UnpackError::Read)?;
        reading.tar(Limited::new(plain, limit))?
    };
    for _ in 0..options.strip {
        strip(&mut tree)?;
    }
    tree.check_links()?;
    Ok(tree)
}

fn strip(tree: &mut Tree) -> Result<(), UnpackError> {
    if tree.descend().is_some() {
        return Ok(());
    }
    let names: Vec<_> = tree
        .entries()
        .iter()
        .filter(|(path, _)| !path.contains(&b'/'))
        .map(|(path, _)| format!("`{}`", printable(path)))
        .collect();
    Err(UnpackError::Top(match &names[..] {
        [] => "no entries".to_owned(),
        [only] => format!("only the file {only}"),
        [first, second] => format!("{first} and {second}"),
        [first, second, ..] => format!("{first}, {second} and more"),
    }))
}

struct Reading<'a> {
    tree: Tree,
    spool: &'a Spool,
    origin: Origin,
    entries_left: u64,
    /// Most bytes of all bodies together. Holes are not in the archive, but they are bytes.
    bytes: u64,
    bytes_left: u64,
    limits: Limits,
}

impl Reading<'_> {
    fn tar(mut self, plain: impl Read) -> Result<Tree, UnpackError> {
        let mut reader = tar_reader::Reader::new(plain);
        while let Some(entry) = reader.next_entry().map_err(lift)? {
            self.count()?;
            let path = TreePath::parse(&entry.path)?;
            match entry.kind {
                tar_reader::EntryKind::Directory => self.place(&path, Item::Directory)?,
                tar_reader::EntryKind::Symlink(target) => self.place(&path, Item::Symlink(target))?,
                tar_reader::EntryKind::HardLink(target) => self.hard_link(&path, &target)?,
                tar_reader::EntryKind::File => self.file(&path, &mut reader, entry.executable)?,
                tar_reader::EntryKind::Special(what) => {
                    return Err(UnpackError::Special { path: path.to_string(), what });
                }
            }
        }
        Ok(self.tree)
    }

    fn zip(mut self, bytes: &[u8], limit: u64) -> Result<Tree, UnpackError> {
        let archive = zip_reader::Archive::parse(bytes)?;
        let total = archive.entries().iter().try_fold(0u64, |total, entry| total.checked_add(entry.size));
        if total.is_none_or(|total| total > limit) {
            return Err(LimitError::Bytes(limit).into());
        }
        for entry in archive.entries() {
            self.count()?;
            let path = TreePath::parse(&entry.path)?;
            match entry.kind {
                zip_reader::EntryKind::Directory => self.place(&path, Item::Directory)?,
                zip_reader::EntryKind::File => self.file(&path, &mut archive.body(entry), entry.executable)?,
                zip_reader::EntryKind::Symlink => {
                    let target = archive.read(entry, MAX_LINK);
                    let target = target.map_err(|source| UnpackError::Body { path: path.to_string(), source })?;
                    self.place(&path, Item::Symlink(target))?;
                }
                zip_reader::EntryKind::Special => {
                    return Err(UnpackError::Special { path: path.to_string(), what: "a device or named pipe" });
                }
            }
        }
        Ok(self.tree)
    }

    fn count(&mut self) -> Result<(), UnpackError> {
        let left = self.entries_left.checked_sub(1).ok_or(LimitError::Entries(self.limits.entries))?;
        self.entries_left = left;
        Ok(())
    }

    fn place(&mut self, path: &TreePath, item: Item) -> Result<(), UnpackError> {
        self.tree.insert(path, item, &self.origin)?;
        Ok(())
    }

    fn file(&mut self, path: &TreePath, body: &mut dyn Read, executable: bool) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Body { path: path.to_string(), source };
        let mut body = Limited::with_left(body, self.bytes, self.bytes_left);
        let file = self.spool.store(&mut body, executable).map_err(|source| lift_io(source, failed))?;
        self.bytes_left = body.left();
        self.add_file(path, file)
    }

    fn add_file(&mut self, path: &TreePath, file: File) -> Result<(), UnpackError> {
        if let Inserted::Existing(id) = self.tree.insert(path, Item::File(file.clone()), &self.origin)?
            && !self.same(id, &file).map_err(|source| UnpackError::Body { path: path.to_string(), source })?
        {
            return Err(UnpackError::Duplicate(path.to_string()));
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &TreePath, target: &[u8]) -> Result<(), UnpackError> {
        let refused = || UnpackError::HardLink { path: path.to_string(), target: printable(target) };
        let found = self.tree.find(&TreePath::parse(target)?, &self.origin)?;
        match found.map(|id| self.tree.node(id)) {
            Some(Node::File(file)) => self.add_file(path, file.clone()),
            Some(Node::Symlink(target)) => self.place(path, Item::Symlink(target.clone())),
            Some(Node::Directory(_)) | None => Err(refused()),
        }
    }

    fn same(&self, id: NodeId, file: &File) -> io::Result<bool> {
        match self.tree.node(id) {
            Node::File(existing) => self.spool.same(existing, file),
            _ => Ok(false),
        }
    }
}

/// A limit that was met inside a reader comes out as what it is.
fn lift(error: TarError) -> UnpackError {
    match error {
        TarError::Read(source) => lift_io(source, |source| TarError::Read(source).into()),
        error => error.into(),
    }
}

fn lift_io(error: io::Error, otherwise: impl FnOnce(io::Error) -> UnpackError) -> UnpackError {
    match error.downcast::<LimitError>() {
        Ok(limit) => limit.into(),
        Err(error) => otherwise(error),
    }
}

#[cfg(test)]
mod tests;
