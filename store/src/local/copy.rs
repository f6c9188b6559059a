//! Copying a tree by file descriptor, in canonical form, while its NAR is written: one pass over the bytes.
//!
//! No name is looked up twice and no link followed, so that whoever still holds the source can spoil the copy's content
//! but not lead it elsewhere. Sockets, pipes and devices are refused; set-uid bits, owners, times and extended
//! attributes are left behind.

use std::ffi::{CStr, CString, OsStr};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::deposit::{CHUNK, Deposit, Folder, Stream, create, finish_directory, read_some};
use super::descent::{Descent, open_directory, permit_owner};
use super::failure::{FileError, on_one_line};
use super::look::Look;
use super::rewrite::Rewriter;
use crate::nar::{EncodeError, Encoder, LISTING_LENGTH, Listed, Listing};

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
    source: (BorrowedFd<'_>, &OsStr),
    target: (BorrowedFd<'_>, &OsStr),
    sink: W,
    manner: Manner<'_>,
    look: Option<&mut Look>,
) -> Result<(Kind, W), StageError> {
    let nar = Encoder::new(sink);
    let (source, source_name) = source;
    let (target, target_name) = target;
    let (copied, faults) = std::thread::scope(|scope| {
        let deposit = Deposit::new(scope, manner.modes_are_kept);
        let faults = Arc::clone(deposit.faults());
        let listing_buffer = Vec::new();
        let mut copier = Copier { manner, nar, deposit, left: manner.limit, listing_buffer, look };
        let kind = copier.copy_all((source, &c_string(source_name)), (target, &c_string(target_name)));
        copier.deposit.finish();
        (kind.map(|kind| (kind, copier.nar)), faults)
    });
    // What went wrong elsewhere came first, and may be why this thread stopped.
    if let Some((trouble, place)) = faults.take() {
        return Err(trouble.at(source_name_of(source_name, place.as_deref(), target_name)));
    }
    let (kind, nar) = copied?;
    let (sink, _) = nar.finish().map_err(|source| Trouble::Unhashed(source).at(source_name.into()))?;
    Ok((kind, sink))
}

fn c_string(name: &OsStr) -> CString {
    // A name with a NUL is of nothing; so is the empty one.
    CString::new(name.as_bytes()).unwrap_or_default()
}

/// Where in the tree that is copied a file of the copy belongs.
fn source_name_of(source_name: &OsStr, place: Option<&Path>, target_name: &OsStr) -> PathBuf {
    let inside = place.and_then(|place| {
        let mut components = place.components();
        components.by_ref().find(|component| component.as_os_str() == target_name)?;
        Some(components.as_path().to_owned())
    });
    Path::new(source_name).join(inside.unwrap_or_default())
}

/// What copying one node came to.
enum Copied {
    Leaf(Kind),
    /// A directory, made and empty: where it is copied from and to, and what it is to hold.
    Directory(OwnedFd, OwnedFd, Listing),
}

/// Where one is in both trees.
#[derive(Default)]
struct Walk {
    source: Descent,
    target: Descent,
    levels: Vec<Level>,
}

/// A directory that is entered.
struct Level {
    /// What is still to be copied.
    children: Listing,
    /// The directory of the copy, while files that were put there may still be missing.
    folder: Weak<Folder>,
}

impl Walk {
    fn enter(&mut self, name: &OsStr, renamed: &OsStr, copied: Copied) -> Result<Kind, StageError> {
        match copied {
            Copied::Leaf(kind) => Ok(kind),
            Copied::Directory(source, target, children) => {
                // The path is put together for an error only: for every level of a deep tree it would take for ever.
                if let Err(error) = self.source.push(name, source).and_then(|()| self.target.push(renamed, target)) {
                    return Err(FileError::new("enter", self.source.path(), error).into());
                }
                self.levels.push(Level { children, folder: Weak::new() });
                Ok(Kind::Directory)
            }
        }
    }
}

/// What is copied, and what it is called in the copy.
#[derive(Clone, Copy)]
struct Node<'a> {
    source: BorrowedFd<'a>,
    from: &'a CStr,
    target: BorrowedFd<'a>,
    to: &'a CStr,
}

struct Copier<'scope, 'env, 'look, W: Write> {
    manner: Manner<'env>,
    nar: Encoder<W>,
    deposit: Deposit<'scope, 'env>,
    /// Bytes that files may still have.
    left: u64,
    listing_buffer: Vec<MaybeUninit<u8>>,
    look: Option<&'look mut Look>,
}

impl<W: Write> Copier<'_, '_, '_, W> {
    fn copy_all(
        &mut self,
        (source, from): (BorrowedFd<'_>, &CStr),
        (target, to): (BorrowedFd<'_>, &CStr),
    ) -> Result<Kind, StageError> {
        let mut walk = Walk::default();
        let root = Node { source, from, target, to };
        let name = OsStr::from_bytes(from.to_bytes());
        let copied = self.copy_node(root, FileType::Unknown, None).map_err(|trouble| trouble.at(name.into()))?;
        let kind = walk.enter(name, OsStr::from_bytes(to.to_bytes()), copied)?;
        while !walk.levels.is_empty() {
            self.copy_next(&mut walk)?;
        }
        Ok(kind)
    }

    /// Copies the next child of the present directory, or leaves it.
    fn copy_next(&mut self, walk: &mut Walk) -> Result<(), StageError> {
        let is_root = walk.levels.len() == 1;
        let Walk { source: above, target, levels } = &mut *walk;
        let level = levels.last_mut().expect("one directory is entered at least");
        let Some(Listed { name, renamed, kind }) = level.children.next() else {
            return self.leave_directory(walk);
        };
        let (source, target) = above.fd().zip(target.fd()).expect("children belong to an entered directory");
        let node = Node { source, from: name, target, to: renamed };
        let copied = self
            .nar
            .entry(renamed.to_bytes())
            .map_err(Trouble::Unhashed)
            .and_then(|()| self.copy_node(node, kind, Some((&mut level.folder, is_root))))
            .map_err(|trouble| trouble.at(above.path_of(OsStr::from_bytes(name.to_bytes()))))?;
        if let Copied::Directory(..) = copied {
            let [name, renamed] = [name, renamed].map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            walk.enter(&name, &renamed, copied)?;
        }
        Ok(())
    }

    /// Gives a directory whose entries are all copied its final form, and goes back to the one above.
    fn leave_directory(&mut self, walk: &mut Walk) -> Result<(), StageError> {
        let level = walk.levels.pop().expect("a directory is left that was entered");
        let fd = walk.target.fd().expect("a directory is left that was entered");
        let finished = match level.folder.upgrade() {
            // Its last files are on their way; whoever makes them finishes it.
            Some(folder) => {
                folder.leave();
                Ok(())
            }
            None => finish_directory(fd, walk.levels.is_empty()),
        };
        if let Some(look) = &mut self.look {
            look.leave();
        }
        finished
            .map_err(Trouble::failed("finish the copy of"))
            .and_then(|()| self.nar.end_directory().map_err(Trouble::Unhashed))
            .map_err(|trouble| trouble.at(walk.source.path()))?;
        let left = walk.source.pop().and_then(|()| walk.target.pop());
        Ok(left.map_err(|source| FileError::new("return to", walk.source.path(), source))?)
    }

    fn copy_node(
        &mut self,
        node: Node<'_>,
        kind: FileType,
        folder: Option<(&mut Weak<Folder>, bool)>,
    ) -> Result<Copied, Trouble> {
        let kind = match kind {
            FileType::Unknown => {
                let stat = rustix::fs::statat(node.source, node.from, AtFlags::SYMLINK_NOFOLLOW);
                FileType::from_raw_mode(stat.map_err(Trouble::failed("look at"))?.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::RegularFile => self.copy_file(node, folder).map(Copied::Leaf),
            FileType::Symlink => self.copy_symlink(node).map(Copied::Leaf),
            FileType::Directory => self.start_directory(node),
            other => Err(Trouble::Unsupported(describe(other))),
        }
    }

    fn copy_file(&mut self, node: Node<'_>, folder: Option<(&mut Weak<Folder>, bool)>) -> Result<Kind, Trouble> {
        let input = self.open_file(node)?;
        let stat = rustix::fs::fstat(&input).map_err(Trouble::failed("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Trouble::Changed);
        }
        // Before the first byte is read, so that what changes from now on looks different.
        if let Some(look) = &mut self.look {
            look.leaf(node.from, &stat);
        }
        let size = u64::try_from(stat.st_size).map_err(|_| Trouble::Changed)?;
        // Known before a byte is written: a file with holes may claim far more than any disk has.
        self.left = self.left.checked_sub(size).ok_or(Trouble::TooLarge(self.manner.limit))?;
        let executable = stat.st_mode & 0o100 != 0;
        self.nar.regular(executable, size).map_err(Trouble::Unhashed)?;
        match (usize::try_from(size), folder) {
            (Ok(size), Some(folder)) if size < CHUNK / 2 => self.copy_small(node, &input, size, executable, folder)?,
            _ => self.copy_large(node, input, size, executable)?,
        }
        Ok(Kind::Regular { executable })
    }

    fn open_file(&self, node: Node<'_>) -> Result<OwnedFd, Trouble> {
        // Non-blocking, in case a pipe took the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(node.source, node.from, flags, Mode::empty());
        match open() {
            Err(Errno::ACCESS) if self.manner.access == Access::MayBeGranted => {
                permit_owner(node.source, node.from, Mode::RUSR).and_then(|()| open())
            }
            other => other,
        }
        .map_err(Trouble::failed("open"))
    }

    /// Reads a file whole, and leaves it to be written with others.
    fn copy_small(
        &mut self,
        node: Node<'_>,
        input: &OwnedFd,
        size: usize,
        executable: bool,
        (folder, is_root): (&mut Weak<Folder>, bool),
    ) -> Result<(), Trouble> {
        let room = self.deposit.room(size)?;
        let mut filled = 0;
        // One byte more than there should be, so that one call tells that there are no more.
        while filled < room.len() {
            match read_some(input, &mut room[filled..]).map_err(Trouble::failed("read"))? {
                0 => break,
                count if count + filled == size => {
                    filled = size;
                    break;
                }
                count => filled += count,
            }
        }
        if filled != size {
            return Err(Trouble::Changed);
        }
        self.manner.rewriter.rewrite(&mut room[..size]);
        self.nar.contents(&room[..size]).map_err(Trouble::Unhashed)?;
        let folder = match folder.upgrade() {
            Some(folder) => folder,
            None => {
                let new = Folder::new(node.target, is_root, self.deposit.faults());
                let new = Arc::new(new.map_err(Trouble::failed("create the copy of"))?);
                *folder = Arc::downgrade(&new);
                new
            }
        };
        self.deposit.put(folder, node.to, executable, size);
        Ok(())
    }

    fn copy_large(&mut self, node: Node<'_>, input: OwnedFd, size: u64, executable: bool) -> Result<(), Trouble> {
        let output = create(node.target, node.to, executable)?;
        let stream = Stream { input, output, rewriter: self.manner.rewriter, unread: size, held: Vec::new() };
        let nar = &mut self.nar;
        self.deposit.stream(stream, executable, |piece| nar.contents(piece).map_err(Trouble::Unhashed))
    }

    fn copy_symlink(&mut self, node: Node<'_>) -> Result<Kind, Trouble> {
        if let Some(look) = &mut self.look {
            let stat = rustix::fs::statat(node.source, node.from, AtFlags::SYMLINK_NOFOLLOW);
            look.leaf(node.from, &stat.map_err(Trouble::failed("look at"))?);
        }
        let link =
            rustix::fs::readlinkat(node.source, node.from, Vec::new()).map_err(Trouble::failed("read the link"))?;
        let mut link = link.into_bytes();
        self.manner.rewriter.rewrite(&mut link);
        self.nar.symlink(&link).map_err(Trouble::Unhashed)?;
        rustix::fs::symlinkat(OsStr::from_bytes(&link), node.target, node.to)
            .and_then(|()| rustix::fs::utimensat(node.target, node.to, &EPOCH, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(Trouble::failed("create the copy of"))?;
        Ok(Kind::Symlink)
    }

    fn start_directory(&mut self, node: Node<'_>) -> Result<Copied, Trouble> {
        let open = || open_directory(node.source, node.from);
        let input = match open() {
            Err(Errno::ACCESS) if self.manner.access == Access::MayBeGranted => {
                permit_owner(node.source, node.from, Mode::RUSR | Mode::XUSR).and_then(|()| open())
            }
            other => other,
        }
        .map_err(Trouble::failed("open"))?;
        // Before it is listed, so that what changes from now on looks different.
        if let Some(look) = &mut self.look {
            look.enter(node.from, &rustix::fs::fstat(&input).map_err(Trouble::failed("look at"))?);
        }
        self.listing_buffer.resize(LISTING_LENGTH, MaybeUninit::uninit());
        let mut children = Listing::read(input.as_fd(), &mut self.listing_buffer).map_err(Trouble::failed("list"))?;
        if !self.manner.rewriter.is_empty() {
            children.rename(|name| self.manner.rewriter.rewrite(name));
        }
        let output = rustix::fs::mkdirat(node.target, node.to, Mode::RWXU)
            .and_then(|()| open_directory(node.target, node.to))
            .map_err(Trouble::failed("create the copy of"))?;
        self.nar.directory().map_err(Trouble::Unhashed)?;
        Ok(Copied::Directory(input, output, children))
    }
}

/// What went wrong with a node, by one that does not know its path.
#[derive(Debug)]
pub(super) enum Trouble {
    Unsupported(&'static str),
    TooLarge(u64),
    Changed,
    Failed(&'static str, Errno),
    Unhashed(EncodeError),
}

impl Trouble {
    pub(super) fn failed(action: &'static str) -> impl Fn(Errno) -> Self {
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
