//! What `stat` and its kin tell of files, where times or numbers are chosen.
//!
//! The call is performed here, on the caller's behalf, and its result changed on the way. Whatever cannot be performed
//! the same way is left to the kernel.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::clock::FileTimes;
use super::inspect;
use super::system::{self, Question};

/// Size of the kernel's `struct stat`, large enough for every architecture.
const STAT: usize = 144;
/// Size of `struct statx`.
const STATX: usize = 256;
/// More files than this share numbers with others.
const MOST: usize = 4_000_000;

/// Changes what is told of files.
#[derive(Debug)]
pub(super) struct Files {
    times: Option<FileTimes>,
    numbers: Option<Numbers>,
}

/// Inode and device numbers, given out as files are first seen: the same steps see the same numbers.
#[derive(Debug)]
struct Numbers {
    first: u64,
    inodes: BTreeMap<(u64, u64), u64>,
    devices: BTreeMap<u64, u64>,
}

/// A call to look at a file.
struct Look {
    directory: i32,
    /// Where the path is; 0: none.
    path: u64,
    flags: i32,
    /// Where the result goes.
    result: u64,
    /// The fields that are asked for, of a `statx`.
    extended: Option<u32>,
}

impl Files {
    pub(super) fn new(file_times: Option<i64>, first_number: Option<u64>) -> Self {
        let numbers = first_number.map(|first| Numbers { first, inodes: BTreeMap::new(), devices: BTreeMap::new() });
        Self { times: file_times.map(FileTimes::new), numbers }
    }

    /// The result of a call; `None` lets the kernel perform it.
    pub(super) fn answer(&mut self, question: &Question) -> Option<i64> {
        let look = Look::of(question)?;
        let process = question.thread.cast_signed();
        let mut bytes = look.perform(process).ok()?;
        if look.extended.is_some() {
            self.change_extended(&mut bytes);
        } else {
            self.change(&mut bytes);
        }
        system::write_memory(process, look.result, &bytes[..look.size()]).is_ok().then_some(0)
    }

    /// The inode number to show for a directory's entry.
    pub(super) fn entry_number(&mut self, device: u64, inode: u64) -> u64 {
        self.numbers.as_mut().map_or(inode, |numbers| numbers.inode(device, inode))
    }

    fn change(&mut self, stat: &mut [u8]) {
        let (device, inode) = (get(stat, 0), get(stat, 8));
        if let Some(numbers) = &mut self.numbers {
            set(stat, 8, numbers.inode(device, inode));
            let device = numbers.device(device);
            set(stat, 0, device);
        }
        for at in [72, 88, 104] {
            self.change_time(stat, at);
        }
    }

    fn change_extended(&mut self, statx: &mut [u8]) {
        let (device, inode) = (get(statx, 136), get(statx, 32));
        if let Some(numbers) = &mut self.numbers {
            set(statx, 32, numbers.inode(device, inode));
            // Major and minor number are words of their own here.
            let device = numbers.device(device) << 32;
            set(statx, 136, device);
        }
        for at in [64, 80, 96, 112] {
            self.change_time(statx, at);
        }
    }

    /// Seconds come first, then nanoseconds, whose upper half is zero or padding.
    fn change_time(&self, bytes: &mut [u8], at: usize) {
        let (seconds, rest) = (get(bytes, at).cast_signed(), get(bytes, at + 8) as u32);
        if let Some((seconds, rest)) = self.times.and_then(|times| times.shown(seconds, rest)) {
            set(bytes, at, seconds.cast_unsigned());
            set(bytes, at + 8, u64::from(rest));
        }
    }
}

impl Numbers {
    fn inode(&mut self, device: u64, inode: u64) -> u64 {
        let next = self.first + self.inodes.len() as u64;
        if self.inodes.len() > MOST {
            return next;
        }
        *self.inodes.entry((device, inode)).or_insert(next)
    }

    /// A device number with no major part, as file systems without a device have.
    fn device(&mut self, device: u64) -> u64 {
        let next = self.first % 97 + 30 + self.devices.len() as u64;
        *self.devices.entry(device).or_insert(next) & 0xff
    }
}

impl Look {
    fn of(question: &Question) -> Option<Self> {
        let [first, second, third, fourth, fifth, _] = question.arguments;
        let descriptor = first as u32 as i32;
        let flags = |flags: u64| flags as u32 as i32;
        let classic = |directory, path, flags, result| Some(Self { directory, path, flags, result, extended: None });
        match libc::c_long::from(question.call) {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => classic(libc::AT_FDCWD, first, 0, second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => classic(libc::AT_FDCWD, first, libc::AT_SYMLINK_NOFOLLOW, second),
            libc::SYS_fstat => classic(descriptor, 0, libc::AT_EMPTY_PATH, second),
            libc::SYS_newfstatat => classic(descriptor, second, flags(fourth), third),
            libc::SYS_statx => Some(Self {
                directory: descriptor,
                path: second,
                flags: flags(third),
                result: fifth,
                extended: Some(fourth as u32),
            }),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        if self.extended.is_some() { STATX } else { inspect::STAT_SIZE }
    }

    /// Does what the caller would do.
    fn perform(&self, process: i32) -> io::Result<Vec<u8>> {
        let path = if self.path == 0 { CString::default() } else { inspect::read_text(process, self.path)? };
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            if self.flags & libc::AT_EMPTY_PATH == 0 {
                return Err(io::ErrorKind::NotFound.into());
            }
            // What the descriptor is of, without opening it: a link of the kernel's.
            let place = self.base(process);
            return self.status(CWD.as_raw_fd(), &super::prepare::c_string(place.as_bytes())?, 0);
        }
        // These are about whoever asks.
        if bytes.starts_with(b"/proc/") || bytes.starts_with(b"/dev/") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if bytes.starts_with(b"/") {
            return self.status(CWD.as_raw_fd(), &path, self.flags);
        }
        let base: OwnedFd =
            openat(CWD, self.base(process), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if inspect::is_about_processes(base.as_fd())? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.status(base.as_raw_fd(), &path, self.flags)
    }

    fn base(&self, process: i32) -> String {
        match self.directory {
            libc::AT_FDCWD => format!("/proc/{process}/cwd"),
            descriptor => format!("/proc/{process}/fd/{descriptor}"),
        }
    }

    fn status(&self, base: i32, path: &CStr, flags: i32) -> io::Result<Vec<u8>> {
        match self.extended {
            None => Ok(inspect::status::<STAT>(base, path, flags)?.to_vec()),
            Some(mask) => Ok(inspect::extended_status::<STATX>(base, path, flags, mask)?.to_vec()),
        }
    }
}

fn get(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn set(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        let (path, flags) = (c"/proc/self/exe", 0);
        let stat = inspect::status::<STAT>(libc::AT_FDCWD, path, flags).unwrap();
        let statx = inspect::extended_status::<STATX>(libc::AT_FDCWD, path, flags, 0xfff).unwrap();
        let known = rustix::fs::stat(path).unwrap();
        assert_eq!((get(&stat, 0), get(&stat, 8)), (known.st_dev, known.st_ino));
        assert_eq!(get(&stat, 88), known.st_mtime.cast_unsigned());
        assert_eq!((get(&statx, 32), get(&statx, 112)), (known.st_ino, known.st_mtime.cast_unsigned()));
        assert_eq!(get(&statx, 136) as u32, rustix::fs::major(known.st_dev));
    }

    #[test]
    fn numbers_are_given_out_in_order() {
        let mut files = Files::new(None, Some(700));
        assert_eq!(files.entry_number(1, 9), 700);
        assert_eq!(files.entry_number(2, 9), 701);
        assert_eq!(files.entry_number(1, 9), 700);
        assert_eq!(Files::new(None, None).entry_number(1, 9), 9);
    }
}
