//! Lists directories in a chosen order.
//!
//! The directory is read through the caller's own descriptor, so that its position is where the caller left it and the
//! caller finds itself at the end afterwards. Calls are answered from what was read, piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::spec::Order;
use super::files::Files;
use super::inspect;
use super::supervisor::process_of;
use super::system::{self, Question};

/// Open directories whose rest is remembered.
const MOST: usize = 4096;

/// Directories that are being listed.
#[derive(Debug)]
pub(super) struct Listing {
    order: Order,
    /// By process and descriptor: what has not been told yet, and the position that goes with it.
    open: BTreeMap<(u32, i32), Rest>,
}

#[derive(Debug)]
struct Rest {
    entries: VecDeque<Vec<u8>>,
    end: i64,
}

impl Listing {
    pub(super) fn new(order: Order) -> Self {
        Self { order, open: BTreeMap::new() }
    }

    /// The result of a call; `None` lets the kernel perform it.
    pub(super) fn answer(&mut self, question: &Question, files: Option<&mut Files>) -> Option<i64> {
        let [descriptor, address, size, ..] = question.arguments;
        let descriptor = descriptor as u32 as i32;
        let process = process_of(question.thread);
        let key = (process, descriptor);
        let directory = inspect::take_descriptor(process.cast_signed(), descriptor).ok()?;
        let position = inspect::position(directory.as_fd()).ok()?;
        if position == 0 {
            if self.open.len() > MOST {
                self.open.clear();
            }
            let rest = self.read(&directory, files).ok().flatten()?;
            self.open.insert(key, rest);
        }
        let rest = self.open.get_mut(&key).filter(|rest| rest.end == position || position == 0)?;
        let bytes = match rest.take(usize::try_from(size).ok()?) {
            Some(bytes) => bytes,
            None => return Some(-i64::from(libc::EINVAL)),
        };
        if bytes.is_empty() {
            self.open.remove(&key);
            return Some(0);
        }
        match system::write_memory(question.thread.cast_signed(), address, &bytes) {
            Ok(()) => i64::try_from(bytes.len()).ok(),
            Err(_) => Some(-i64::from(libc::EFAULT)),
        }
    }

    /// All entries of a directory in the chosen order; `None` for those of `/proc`, which change while they are read.
    fn read(&self, directory: &OwnedFd, files: Option<&mut Files>) -> io::Result<Option<Rest>> {
        if inspect::is_about_processes(directory.as_fd())? {
            return Ok(None);
        }
        let mut entries = read_all(directory.as_fd())?;
        let places: Vec<[u8; 8]> = entries.iter().map(|entry| place(entry)).collect();
        entries.sort_by(|a, b| is_link(b).cmp(&is_link(a)).then_with(|| name(a).cmp(name(b))));
        if self.order == Order::Reversed {
            // `.` and `..` stay in front, where programs expect them that skip two entries.
            let named = entries.iter().position(|entry| !is_link(entry)).unwrap_or(entries.len());
            entries[named..].reverse();
        }
        let device = rustix::fs::fstat(directory)?.st_dev;
        let mut files = files;
        for (entry, place) in entries.iter_mut().zip(places) {
            entry[8..16].copy_from_slice(&place);
            if let Some(files) = &mut files {
                let inode = u64::from_le_bytes(entry[..8].try_into().map_err(io::Error::other)?);
                entry[..8].copy_from_slice(&files.entry_number(device, inode).to_le_bytes());
            }
        }
        Ok(Some(Rest { entries: entries.into(), end: inspect::position(directory.as_fd())? }))
    }
}

impl Rest {
    /// As many entries as fit; `None` if there are some and not one does.
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(entry) = self.entries.front() {
            if bytes.len() + entry.len() > size {
                return (!bytes.is_empty()).then_some(bytes);
            }
            bytes.extend(self.entries.pop_front().unwrap_or_default());
        }
        Some(bytes)
    }
}

/// The entries as the kernel has them: inode, position, length, kind, name.
fn read_all(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let filled = inspect::read_entries(directory, &mut buffer)?;
        if filled == 0 {
            return Ok(entries);
        }
        let mut left = &buffer[..filled];
        while let Some(length) = left.get(16..18) {
            let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
            let entry = left.get(..length).filter(|entry| entry.len() > 19).ok_or(io::ErrorKind::InvalidData)?;
            entries.push(entry.to_vec());
            left = &left[length..];
        }
    }
}

fn place(entry: &[u8]) -> [u8; 8] {
    entry[8..16].try_into().unwrap_or_default()
}

fn name(entry: &[u8]) -> &[u8] {
    entry[19..].split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether an entry is the directory itself or its parent.
fn is_link(entry: &[u8]) -> bool {
    matches!(name(entry), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(order: Order) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", "d", "c"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let opened: OwnedFd = std::fs::File::open(directory.path()).unwrap().into();
        let mut rest = Listing::new(order).read(&opened, None).unwrap().unwrap();
        let all = rest.entries.clone();
        assert_eq!(rest.take(1), None);
        let first = rest.take(all[0].len() + 1).unwrap();
        assert_eq!(first, all[0]);
        assert_eq!(rest.take(1 << 16).unwrap(), all.iter().skip(1).flatten().copied().collect::<Vec<u8>>());
        assert_eq!(rest.take(1), Some(Vec::new()));
        all.iter().map(|entry| String::from_utf8_lossy(name(entry)).into_owned()).collect()
    }

    #[test]
    fn entries_come_in_the_chosen_order() {
        assert_eq!(names(Order::Sorted), [".", "..", "a", "b", "c", "d"]);
        assert_eq!(names(Order::Reversed), [".", "..", "d", "c", "b", "a"]);
    }
}
