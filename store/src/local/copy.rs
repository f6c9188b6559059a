//! Copying a tree by file descriptor, in canonical form, while its NAR is written: one pass over the bytes.
//!
//! No name is looked up twice and no link followed, so that whoever still holds the source can spoil the copy's content
//! but not lead it elsewhere. Sockets, pipes and devices are refused; set-uid bits, owners, times and extended
//! attributes are left behind.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::descent::{Descent, entries, open_directory, permit_owner};
use super::failure::{FileError, on_one_line};
use super::rewrite::Rewriter;
use crate::nar::{EncodeError, Encoder};
use crate::path::HASH_PART_LENGTH;

/// The bytes of file content handled at once.
const CHUNK: usize = 256 * 1024;

/// Why something could not be made into a store object.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The tree holds something that is neither a regular file, a directory, nor a symbolic link.
    #[error("`{}` is a {kind}, which a store object cannot hold", on_one_line(path))]
    Unsupported {
        /// Where it is, from the tree's root.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Its files together hold more bytes than was allowed: holes and further names of a file count in full.
    #[error("`{}` takes the tree past {limit} bytes", on_one_line(path))]
    TooLarge {
        /// The file that was too much, from the tree's root.
        path: PathBuf,
        /// What was allowed.
        limit: u64,
    },
    /// Something changed the tree while it was being copied.
    #[error("`{}` changed while it was being copied", on_one_line(path))]
    Changed {
        /// Where, from the tree's root.
        path: PathBuf,
    },
    /// It has no archive: its names cannot be, or its size was not what it said.
    #[error("`{}` has no archive", on_one_line(path))]
    Archive {
        /// Where, from the tree's root.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: EncodeError,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What may be done to files that cannot be read as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: they are somebody's.
    AsTheyAre,
    /// Their owner may be given permission: they are the leavings of a build.
    MayBeGranted,
}

/// What kind of file system object the root of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    pub(super) access: Access,
    /// Hash parts to replace in contents, names and link targets.
    pub(super) rewriter: &'a Rewriter,
    /// Whether new files get the mode that is asked for.
    pub(super) modes_are_kept: bool,
    /// The most bytes that all files together may have.
    pub(super) limit: u64,
}

/// Copies what `source` names to `target`, which must not exist, and writes its NAR to `sink`.
///
/// Everything gets its final mode and time but the root, if it is a directory: that one stays writable, because moving
/// a directory elsewhere takes the right to write it.
pub(super) fn copy_tree<W: Write>(
    (source, source_name): (BorrowedFd<'_>, &OsStr),
    (target, target_name): (BorrowedFd<'_>, &OsStr),
    sink: W,
    manner: Manner<'_>,
) -> Result<(Kind, W), StageError> {
    let mut copier = Copier { manner, nar: Encoder::new(sink), chunk: vec![0; CHUNK], left: manner.limit };
    let mut walk = Walk::default();
    let root = Node { from: source_name.to_owned(), to: target_name.to_owned(), kind: FileType::Unknown };
    let copied = copier.copy_node(source, target, &root).map_err(|trouble| trouble.at(source_name.into()))?;
    let kind = walk.enter_directory(&root, copied)?;
    while let Some(children) = walk.levels.last_mut() {
        match children.next() {
            Some(child) => copier.copy_child(&mut walk, &child)?,
            None => copier.leave_directory(&mut walk)?,
        }
    }
    let (sink, _) = copier.nar.finish().map_err(|source| Trouble::Unhashed(source).at(source_name.into()))?;
    Ok((kind, sink))
}

/// Something to be copied, and what it is called in the copy.
#[derive(Debug)]
struct Node {
    from: OsString,
    to: OsString,
    kind: FileType,
}

/// What copying one node came to.
enum Copied {
    Leaf(Kind),
    /// A directory, made and empty: where it is copied from and to, and what it is to hold.
    Directory(OwnedFd, OwnedFd, Vec<Node>),
}

/// Where one is in both trees.
#[derive(Default)]
struct Walk {
    source: Descent,
    target: Descent,
    /// What is still to be copied in each of the directories that are entered.
    levels: Vec<std::vec::IntoIter<Node>>,
}

impl Walk {
    fn enter_directory(&mut self, node: &Node, copied: Copied) -> Result<Kind, StageError> {
        match copied {
            Copied::Leaf(kind) => Ok(kind),
            Copied::Directory(source, target, children) => {
                // The path is put together for an error only: for every level of a deep tree it would take for ever.
                if let Err(error) =
                    self.source.push(&node.from, source).and_then(|()| self.target.push(&node.to, target))
                {
                    return Err(FileError::new("enter", self.source.path(), error).into());
                }
                self.levels.push(children.into_iter());
                Ok(Kind::Directory)
            }
        }
    }
}

struct Copier<'a, W: Write> {
    manner: Manner<'a>,
    nar: Encoder<W>,
    chunk: Vec<u8>,
    /// Bytes that files may still have.
    left: u64,
}

impl<W: Write> Copier<'_, W> {
    fn copy_child(&mut self, walk: &mut Walk, child: &Node) -> Result<(), StageError> {
        let (source, target) = (walk.source.fd(), walk.target.fd());
        let (source, target) = source.zip(target).expect("children belong to an entered directory");
        let copied = self
            .nar
            .entry(child.to.as_bytes())
            .map_err(Trouble::Unhashed)
            .and_then(|()| self.copy_node(source, target, child))
            .map_err(|trouble| trouble.at(walk.source.path_of(&child.from)))?;
        walk.enter_directory(child, copied)?;
        Ok(())
    }

    /// Gives a directory whose entries are all copied its final form, and goes back to the one above.
    fn leave_directory(&mut self, walk: &mut Walk) -> Result<(), StageError> {
        walk.levels.pop();
        let is_root = walk.levels.is_empty();
        let fd = walk.target.fd().expect("a directory is left that was entered");
        let mode = if is_root { 0o755 } else { 0o555 };
        let finish = rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).and_then(|()| set_times(fd));
        finish
            .map_err(Trouble::failed("finish the copy of"))
            .and_then(|()| self.nar.end_directory().map_err(Trouble::Unhashed))
            .map_err(|trouble| trouble.at(walk.source.path()))?;
        let left = walk.source.pop().and_then(|()| walk.target.pop());
        Ok(left.map_err(|source| FileError::new("return to", walk.source.path(), source))?)
    }

    fn copy_node(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, node: &Node) -> Result<Copied, Trouble> {
        let kind = match node.kind {
            FileType::Unknown => {
                let stat = rustix::fs::statat(source, &node.from, AtFlags::SYMLINK_NOFOLLOW);
                FileType::from_raw_mode(stat.map_err(Trouble::failed("look at"))?.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::RegularFile => self.copy_file(source, target, node).map(Copied::Leaf),
            FileType::Symlink => self.copy_symlink(source, target, node).map(Copied::Leaf),
            FileType::Directory => self.start_directory(source, target, node),
            other => Err(Trouble::Unsupported(describe(other))),
        }
    }

    fn copy_file(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, node: &Node) -> Result<Kind, Trouble> {
        // Non-blocking, in case a pipe took the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(source, &node.from, flags, Mode::empty());
        let input = match open() {
            Err(Errno::ACCESS) if self.manner.access == Access::MayBeGranted => {
                permit_owner(source, &node.from, Mode::RUSR).and_then(|()| open())
            }
            other => other,
        }
        .map_err(Trouble::failed("open"))?;
        let stat = rustix::fs::fstat(&input).map_err(Trouble::failed("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Trouble::Changed);
        }
        let size = u64::try_from(stat.st_size).map_err(|_| Trouble::Changed)?;
        // Known before a byte is written: a file with holes may claim far more than any disk has.
        self.left = self.left.checked_sub(size).ok_or(Trouble::TooLarge(self.manner.limit))?;
        let executable = stat.st_mode & 0o100 != 0;
        let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let output =
            rustix::fs::openat(target, &node.to, flags, mode).map_err(Trouble::failed("create the copy of"))?;
        self.nar.regular(executable, size).map_err(Trouble::Unhashed)?;
        self.copy_content(&input, &output, size)?;
        if !self.manner.modes_are_kept {
            rustix::fs::fchmod(&output, mode).map_err(Trouble::failed("finish the copy of"))?;
        }
        set_times(output.as_fd()).map_err(Trouble::failed("finish the copy of"))?;
        Ok(Kind::Regular { executable })
    }

    /// Copies exactly `size` bytes. The last bytes of each chunk wait for the next one while a hash part may go on there.
    fn copy_content(&mut self, input: &OwnedFd, output: &OwnedFd, size: u64) -> Result<(), Trouble> {
        let withheld = if self.manner.rewriter.is_empty() { 0 } else { HASH_PART_LENGTH - 1 };
        let (mut held, mut unread) = (0, size);
        loop {
            let wanted = self.chunk.len() - held;
            let read = read_some(input, &mut self.chunk[held..]).map_err(Trouble::failed("read"))?;
            unread = unread.checked_sub(read as u64).ok_or(Trouble::Changed)?;
            let is_end = read == 0 || (read < wanted && unread == 0);
            let filled = held + read;
            self.manner.rewriter.rewrite(&mut self.chunk[..filled]);
            held = if is_end { 0 } else { withheld.min(filled) };
            let ready = &self.chunk[..filled - held];
            write_all(output, ready).map_err(Trouble::failed("write the copy of"))?;
            self.nar.contents(ready).map_err(Trouble::Unhashed)?;
            if is_end {
                return if unread == 0 { Ok(()) } else { Err(Trouble::Changed) };
            }
            self.chunk.copy_within(filled - held..filled, 0);
        }
    }

    fn copy_symlink(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, node: &Node) -> Result<Kind, Trouble> {
        let link = rustix::fs::readlinkat(source, &node.from, Vec::new()).map_err(Trouble::failed("read the link"))?;
        let mut link = link.into_bytes();
        self.manner.rewriter.rewrite(&mut link);
        self.nar.symlink(&link).map_err(Trouble::Unhashed)?;
        rustix::fs::symlinkat(OsStr::from_bytes(&link), target, &node.to)
            .and_then(|()| rustix::fs::utimensat(target, &node.to, &EPOCH, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(Trouble::failed("create the copy of"))?;
        Ok(Kind::Symlink)
    }

    fn start_directory(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        node: &Node,
    ) -> Result<Copied, Trouble> {
        let input = match open_directory(source, &node.from) {
            Err(Errno::ACCESS) if self.manner.access == Access::MayBeGranted => {
                permit_owner(source, &node.from, Mode::RUSR | Mode::XUSR)
                    .and_then(|()| open_directory(source, &node.from))
            }
            other => other,
        }
        .map_err(Trouble::failed("open"))?;
        let found = entries(input.as_fd()).map_err(Trouble::failed("list"))?;
        let mut children: Vec<Node> = found
            .into_iter()
            .map(|entry| Node { to: self.rewritten(entry.name()), from: entry.name().to_owned(), kind: entry.kind })
            .collect();
        if !self.manner.rewriter.is_empty() {
            // The order is that of the new names.
            children.sort_unstable_by(|a, b| a.to.cmp(&b.to));
        }
        let output = rustix::fs::mkdirat(target, &node.to, Mode::RWXU)
            .and_then(|()| open_directory(target, &node.to))
            .map_err(Trouble::failed("create the copy of"))?;
        self.nar.directory().map_err(Trouble::Unhashed)?;
        Ok(Copied::Directory(input, output, children))
    }

    fn rewritten(&self, name: &OsStr) -> OsString {
        let mut name = name.as_bytes().to_vec();
        self.manner.rewriter.rewrite(&mut name);
        OsString::from_vec(name)
    }
}

/// What went wrong with a node, by one that does not know its path.
enum Trouble {
    Unsupported(&'static str),
    TooLarge(u64),
    Changed,
    Failed(&'static str, Errno),
    Unhashed(EncodeError),
}

impl Trouble {
    fn failed(action: &'static str) -> impl Fn(Errno) -> Self {
        move |source| match source {
            // What was a file, or a directory, a moment ago is something else now.
            Errno::LOOP | Errno::NOTDIR => Self::Changed,
            other => Self::Failed(action, other),
        }
    }

    fn at(self, path: PathBuf) -> StageError {
        match self {
            Self::Unsupported(kind) => StageError::Unsupported { path, kind },
            Self::TooLarge(limit) => StageError::TooLarge { path, limit },
            Self::Changed => StageError::Changed { path },
            Self::Failed(action, source) => FileError::new(action, path, source).into(),
            Self::Unhashed(source) => StageError::Archive { path, source },
        }
    }
}

const fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "file of unknown type",
    }
}

/// The modification time of everything in the store: one second after the epoch.
pub(super) const EPOCH: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// Gives an open file the store's modification time.
pub(super) fn set_times(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::futimens(file, &EPOCH)
}

fn read_some(input: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::read(input, &mut *buffer))
}

/// Writes all bytes to a file.
pub(super) fn write_all(output: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(output, bytes))? {
            0 => return Err(Errno::NOSPC),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}
