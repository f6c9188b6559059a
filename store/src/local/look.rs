//! What a tree looks like without reading its files, so that one that was added before is known again by its looks.
//!
//! A look is the names of a tree, and a digest of what the system says of each of its files, directories and links:
//! device, inode, mode, size, and the times of modification and change, to the nanosecond. The time of change cannot be
//! set: whoever writes, replaces or renames anything, or sets a time back, leaves another one.
//!
//! A look is trusted under these conditions only, else the tree is read:
//! - nothing had changed in the last two seconds before it was taken: a file can change twice within one tick of a clock;
//! - it was taken before the files were read, each just before it was opened for reading or listed;
//! - all of the tree is in one file system, of a kind that keeps these times itself;
//! - the clock does not stand before the time when it was taken.
//!
//! A directory whose look is the same holds the same names, so it is not listed again. What was written through a mapping
//! that a program has kept open since before the look may go unseen until the system writes it back.

use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::hash::{Sha256Digest, Sha256Hasher};
use crate::nar::DirectoryStack;

/// How long something must have been left alone to be trusted.
const QUIET_SECONDS: i64 = 2;
/// Looks with longer names than this together are not kept.
const NAMES_LIMIT: usize = 24 << 20;
/// Smaller things are read as fast as they are recognised.
const WORTHWHILE_ENTRIES: usize = 16;
const WORTHWHILE_BYTES: u64 = 64 << 10;

/// The steps of a walk; the first two are followed by a name and a NUL.
const LEAF: u8 = b'f';
const ENTER: u8 = b'd';
const LEAVE: u8 = b'u';

/// A look while it is taken.
#[derive(Debug)]
pub(super) struct Look {
    steps: Vec<u8>,
    entries: usize,
    digest: Digest,
    /// Seconds since the epoch, when the walk began.
    pub(super) taken_at: i64,
    device: Option<u64>,
    is_trusted: bool,
}

/// What all entries of a tree looked like.
#[derive(Debug)]
struct Digest {
    hasher: Sha256Hasher,
    buffer: Vec<u8>,
}

impl Digest {
    fn new() -> Self {
        Self { hasher: Sha256Hasher::new(), buffer: Vec::with_capacity(1 << 12) }
    }

    fn add(&mut self, stat: &Stat) {
        let numbers = [
            stat.st_dev,
            stat.st_ino,
            u64::from(stat.st_mode),
            stat.st_size.cast_unsigned(),
            stat.st_mtime.cast_unsigned(),
            stat.st_mtime_nsec,
            stat.st_ctime.cast_unsigned(),
            stat.st_ctime_nsec,
        ];
        numbers.iter().for_each(|number| self.buffer.extend_from_slice(&number.to_le_bytes()));
        if self.buffer.len() >= 1 << 12 {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        self.hasher.write_all(&self.buffer).expect("a hasher takes all");
        self.buffer.clear();
    }

    fn finish(mut self) -> Sha256Digest {
        self.write_out();
        self.hasher.finish()
    }
}

impl Look {
    pub(super) fn new(now: i64) -> Self {
        let digest = Digest::new();
        Self { steps: Vec::new(), entries: 0, digest, taken_at: now, device: None, is_trusted: true }
    }

    /// A file or a link.
    pub(super) fn leaf(&mut self, name: &CStr, stat: &Stat) {
        self.step(LEAF, name, stat);
    }

    /// A directory, whose entries come next.
    pub(super) fn enter(&mut self, name: &CStr, stat: &Stat) {
        self.step(ENTER, name, stat);
    }

    /// Back to the directory above.
    pub(super) fn leave(&mut self) {
        self.steps.push(LEAVE);
    }

    fn step(&mut self, step: u8, name: &CStr, stat: &Stat) {
        self.is_trusted &= stat.st_ctime <= self.taken_at - QUIET_SECONDS
            && *self.device.get_or_insert(stat.st_dev) == stat.st_dev
            && self.steps.len() < NAMES_LIMIT;
        if !self.is_trusted {
            self.steps = Vec::new();
            return;
        }
        self.entries += 1;
        self.steps.push(step);
        // What the root is called does not matter, and is given by who looks again.
        if self.entries > 1 {
            self.steps.extend_from_slice(name.to_bytes());
        }
        self.steps.push(0);
        self.digest.add(stat);
    }

    /// The steps and the digest, if the look can be trusted and is worth to be kept for a tree whose archive is so long.
    pub(super) fn finish(self, nar_size: u64) -> Option<(Vec<u8>, Sha256Digest)> {
        let worthwhile = self.entries >= WORTHWHILE_ENTRIES || nar_size >= WORTHWHILE_BYTES;
        (self.is_trusted && worthwhile).then(|| (self.steps, self.digest.finish()))
    }
}

/// Walks a tree by the steps of an earlier look; `None` where it is not such a tree any more.
pub(super) fn look_again(parent: BorrowedFd<'_>, root: &CStr, steps: &[u8]) -> Option<Sha256Digest> {
    let mut digest = Digest::new();
    let mut directories = DirectoryStack::default();
    let mut rest = steps;
    while let Some((step, after)) = rest.split_first() {
        if *step == LEAVE {
            directories.pop().ok()?;
            rest = after;
            continue;
        }
        let name = CStr::from_bytes_until_nul(after).ok()?;
        rest = &after[name.count_bytes() + 1..];
        let name = if name.is_empty() { root } else { name };
        let above = directories.current().unwrap_or(parent);
        if *step == LEAF {
            digest.add(&rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW).ok()?);
        } else {
            let (directory, stat) = enter(above, name).ok()?;
            digest.add(&stat);
            directories.push(directory).ok()?;
        }
    }
    Some(digest.finish())
}

fn enter(above: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(above, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(directory.as_fd())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        Ok((directory, stat))
    } else {
        Err(Errno::NOTDIR)
    }
}

/// Which file system a directory is in, for as long as that is mounted and wherever it is mounted again; `None` if it is
/// of a kind that may get its times from elsewhere.
pub(super) fn file_system(directory: BorrowedFd<'_>) -> Option<u64> {
    const BTRFS: u64 = 0x9123_683e;
    const EXT: u64 = 0xef53;
    const F2FS: u64 = 0xf2f5_2010;
    const OVERLAY: u64 = 0x794c_7630;
    const TMPFS: u64 = 0x0102_1994;
    const XFS: u64 = 0x5846_5342;
    const ZFS: u64 = 0x2fc1_2fc1;
    let kind = rustix::fs::fstatfs(directory).ok()?.f_type as u64;
    let known = [BTRFS, EXT, F2FS, OVERLAY, TMPFS, XFS, ZFS].contains(&kind);
    known.then(|| rustix::fs::fstatvfs(directory).ok().map(|status| status.f_fsid)).flatten()
}
