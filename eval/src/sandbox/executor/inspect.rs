//! System calls that look at other processes and their files, as safe functions: additions to `system`.

use std::ffi::{CStr, CString, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::system;

/// Size of the kernel's `struct stat`.
#[cfg(target_arch = "x86_64")]
pub(super) const STAT_SIZE: usize = 144;
/// Size of the kernel's `struct stat`.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const STAT_SIZE: usize = 128;
/// The longest path the kernel takes, with its end.
const PATH: usize = 4096;
const PAGE: u64 = 4096;

fn check(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Reads a path from the memory of another process.
pub(super) fn read_text(process: i32, address: u64) -> io::Result<CString> {
    let mut text: Vec<u8> = Vec::new();
    while text.len() < PATH {
        let at = address.wrapping_add(text.len() as u64);
        // Never past the end of a page, because the next one may not be there.
        let length = usize::try_from(PAGE - at % PAGE).unwrap_or(1).min(256);
        let mut part = vec![0; length];
        system::read_memory(process, at, &mut part)?;
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            text.extend(&part[..end]);
            return Ok(CString::new(text)?);
        }
        text.extend(part);
    }
    Err(io::ErrorKind::InvalidFilename.into())
}

/// What `newfstatat` tells, as the kernel writes it. `SIZE` must have room for a `struct stat`.
pub(super) fn status<const SIZE: usize>(base: RawFd, path: &CStr, flags: i32) -> io::Result<[u8; SIZE]> {
    const { assert!(SIZE >= STAT_SIZE) };
    let mut bytes = [0; SIZE];
    // SAFETY: the path is a C string; the kernel writes `STAT_SIZE` bytes, for which there is room.
    check(unsafe { libc::syscall(libc::SYS_newfstatat, base, path.as_ptr(), bytes.as_mut_ptr(), flags) })?;
    Ok(bytes)
}

/// What `statx` tells, as the kernel writes it.
pub(super) fn extended_status<const SIZE: usize>(
    base: RawFd,
    path: &CStr,
    flags: i32,
    mask: u32,
) -> io::Result<[u8; SIZE]> {
    const { assert!(SIZE >= 256) };
    let mut bytes = [0; SIZE];
    // SAFETY: the path is a C string; a `struct statx` has 256 bytes, for which there is room.
    check(unsafe { libc::syscall(libc::SYS_statx, base, path.as_ptr(), flags, mask, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// A descriptor of another process, for the same open file with the same position.
pub(super) fn take_descriptor(process: i32, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let handle = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
    // SAFETY: integers only.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), descriptor, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Where the next read begins.
pub(super) fn position(file: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_lseek, file.as_raw_fd(), 0_i64, libc::SEEK_CUR) })
}

/// Reads entries of a directory, as the kernel writes them; the number of bytes, 0 at the end.
pub(super) fn read_entries(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe the buffer.
    let filled = check(unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    })?;
    usize::try_from(filled).map_err(io::Error::other)
}

/// Whether a file is one of `/proc`, which tells different things to different processes.
pub(super) fn is_about_processes(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == 0x9fa0)
}
