//! Faults at the n-th system call of a kind.

use crate::record::CLONE_FILE;
use crate::tracer::{Call, Fate, Watcher};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The program is killed before the call.
    Kill,
    /// A call that changes the file system finds the disk full, once.
    FullOnce,
    /// The disk is full, and stays so.
    FullFromNow,
    /// A call that changes the file system fails.
    WriteError,
    /// A call that reads fails.
    ReadError,
    /// A write writes half of what it was given.
    ShortWrite,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Kill, Self::FullOnce, Self::FullFromNow, Self::WriteError, Self::ReadError, Self::ShortWrite];

    /// What it is called.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 at a system call",
            Self::FullOnce => "disk full at one call (ENOSPC)",
            Self::FullFromNow => "disk full from a call on (ENOSPC)",
            Self::WriteError => "write, sync or change fails (EIO)",
            Self::ReadError => "read fails (EIO)",
            Self::ShortWrite => "write is cut short",
        }
    }

    fn concerns(self, call: &Call) -> bool {
        match self {
            Self::Kill => true,
            Self::FullOnce | Self::WriteError => needs_room(call) || changes(call),
            Self::FullFromNow => needs_room(call),
            Self::ReadError => reads(call),
            Self::ShortWrite => is_write(call) && call.arguments[2] > 1,
        }
    }
}

fn is_write(call: &Call) -> bool {
    // What the program says to its user is not the file system's business.
    matches!(call.number, libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev)
        && call.arguments[0] > 2
}

fn needs_room(call: &Call) -> bool {
    match call.number {
        libc::SYS_open => call.arguments[1] as i32 & libc::O_CREAT != 0,
        libc::SYS_openat => call.arguments[2] as i32 & libc::O_CREAT != 0,
        libc::SYS_ioctl => call.arguments[1] == CLONE_FILE,
        libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_copy_file_range
        | libc::SYS_sendfile
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_syncfs => true,
        _ => is_write(call),
    }
}

fn changes(call: &Call) -> bool {
    matches!(
        call.number,
        libc::SYS_unlink
            | libc::SYS_unlinkat
            | libc::SYS_rmdir
            | libc::SYS_chmod
            | libc::SYS_fchmod
            | libc::SYS_fchmodat
            | libc::SYS_utimensat
    )
}

fn reads(call: &Call) -> bool {
    let is_plain_open = matches!(call.number, libc::SYS_open | libc::SYS_openat) && !needs_room(call);
    is_plain_open
        || matches!(
            call.number,
            libc::SYS_read
                | libc::SYS_pread64
                | libc::SYS_getdents64
                | libc::SYS_newfstatat
                | libc::SYS_fstat
                | libc::SYS_statx
                | libc::SYS_readlinkat
                | libc::SYS_flock
        )
}

/// Counts the calls that each fault concerns.
#[derive(Debug, Default)]
pub(crate) struct Count(pub(crate) [usize; Fault::ALL.len()]);

impl Watcher for Count {
    fn enter(&mut self, call: &Call) -> Fate {
        for (count, fault) in self.0.iter_mut().zip(Fault::ALL) {
            *count += usize::from(fault.concerns(call));
        }
        Fate::Happens
    }
}

/// Makes a fault happen at the call with this number among those it concerns.
pub(crate) struct Saboteur {
    pub(crate) fault: Fault,
    pub(crate) number: usize,
    seen: usize,
}

impl Saboteur {
    pub(crate) const fn new(fault: Fault, number: usize) -> Self {
        Self { fault, number, seen: 0 }
    }

    /// Whether the call came.
    pub(crate) const fn has_struck(&self) -> bool {
        self.seen > self.number
    }
}

impl Watcher for Saboteur {
    fn enter(&mut self, call: &Call) -> Fate {
        if !self.fault.concerns(call) {
            return Fate::Happens;
        }
        self.seen += 1;
        match self.fault {
            Fault::FullFromNow if self.seen > self.number => Fate::Fails(libc::ENOSPC),
            _ if self.seen != self.number + 1 => Fate::Happens,
            Fault::Kill => Fate::Killed,
            Fault::FullOnce | Fault::FullFromNow => Fate::Fails(libc::ENOSPC),
            Fault::WriteError | Fault::ReadError => Fate::Fails(libc::EIO),
            Fault::ShortWrite => Fate::Shortened(call.arguments[2] / 2),
        }
    }
}
