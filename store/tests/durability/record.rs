//! Writes down what a program does to a tree, in the order in which it does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{Change, Content, Disk, Inode, Node};
use crate::tracer::{Call, Fate, Watcher};

/// `FICLONE`: the file becomes a copy of another that shares its blocks.
pub(crate) const CLONE_FILE: u64 = 0x4004_9409;

/// Something a program did.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Change(Change),
    /// `fsync`, or `fdatasync`, which leaves out modes and times.
    Sync {
        inode: Inode,
        is_data_only: bool,
    },
    /// `syncfs` or `sync`.
    SyncAll,
    /// It told somebody something: what it said must be so from now on.
    Said(String),
}

/// A watcher that lets everything happen.
pub(crate) struct Recorder {
    top: PathBuf,
    disk: Disk,
    pending: BTreeMap<i32, Vec<Event>>,
    /// Files whose bytes the kernel is about to change by itself.
    copied: BTreeMap<i32, PathBuf>,
    next: Inode,
    pub(crate) events: Vec<Event>,
}

impl Recorder {
    pub(crate) fn new(top: &Path, disk: &Disk) -> Self {
        let next = disk.nodes.len();
        let (pending, copied) = (BTreeMap::new(), BTreeMap::new());
        Self { top: top.to_owned(), disk: disk.clone(), pending, copied, next, events: Vec::new() }
    }

    fn inode(&self, path: Option<PathBuf>) -> Option<Inode> {
        self.disk.find(path?.strip_prefix(&self.top).ok()?)
    }

    /// The directory and name that a path stands for.
    fn place(&self, path: Option<PathBuf>) -> Option<(Inode, OsString)> {
        let path = path?;
        let path = path.strip_prefix(&self.top).ok()?;
        Some((self.disk.find(path.parent()?)?, path.file_name()?.to_owned()))
    }

    fn new_entry(&mut self, path: Option<PathBuf>, content: Content, mode: u64) -> Option<Vec<Event>> {
        let (directory, name) = self.place(path)?;
        if self.disk.entry(directory, &name).is_some() {
            return None;
        }
        self.next += 1;
        let node = Node { content, mode: mode as u32 & 0o777 & !0o022, is_dated: false };
        Some(change(Change::Enter { directory, name, inode: self.next, node }))
    }

    fn open(&mut self, path: Option<PathBuf>, flags: u64, mode: u64) -> Option<Vec<Event>> {
        let flags = flags as i32;
        let existing = self.inode(path.clone());
        match existing {
            Some(inode) if flags & libc::O_TRUNC != 0 => Some(change(Change::Truncate { inode, length: 0 })),
            None if flags & libc::O_CREAT != 0 => self.new_entry(path, Content::File(Vec::new()), mode),
            _ => None,
        }
    }

    fn leave_name(&self, path: Option<PathBuf>) -> Option<Vec<Event>> {
        let (directory, name) = self.place(path)?;
        Some(change(Change::Leave { directory, name }))
    }

    fn rename(&self, from: Option<PathBuf>, to: Option<PathBuf>, flags: u64) -> Option<Vec<Event>> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        if flags & u64::from(libc::RENAME_EXCHANGE) != 0 {
            return Some(change(Change::Exchange { from, to }));
        }
        Some(change(Change::Rename { inode: self.disk.entry(from.0, &from.1)?, from, to }))
    }

    fn write(&self, call: &Call, offset: Option<usize>) -> Option<Vec<Event>> {
        let [descriptor, address, length, ..] = call.arguments;
        if descriptor == 1 {
            let text = call.bytes(address, length as usize);
            return Some(vec![Event::Said(String::from_utf8_lossy(&text).into_owned())]);
        }
        let inode = self.inode(call.file(descriptor))?;
        let bytes = call.bytes(address, length as usize);
        Some(change(Change::Write { inode, offset: offset.unwrap_or_else(|| position(call, descriptor)), bytes }))
    }

    fn mode(&self, path: Option<PathBuf>, mode: u64) -> Option<Vec<Event>> {
        Some(change(Change::Mode { inode: self.inode(path)?, mode: mode as u32 & 0o7777 }))
    }

    fn sync(&self, call: &Call, is_data_only: bool) -> Option<Vec<Event>> {
        Some(vec![Event::Sync { inode: self.inode(call.file(call.arguments[0]))?, is_data_only }])
    }

    /// What the call will have done if it succeeds.
    fn effect(&mut self, call: &Call) -> Option<Vec<Event>> {
        let a = call.arguments;
        match call.number {
            libc::SYS_open => self.open(call.plain_path(0), a[1], a[2]),
            libc::SYS_openat => self.open(call.path(0, 1), a[2], a[3]),
            libc::SYS_mkdir => self.new_entry(call.plain_path(0), Content::Directory(BTreeMap::new()), a[1]),
            libc::SYS_mkdirat => self.new_entry(call.path(0, 1), Content::Directory(BTreeMap::new()), a[2]),
            libc::SYS_symlink => self.new_entry(call.plain_path(1), Content::Link(call.text(a[0]).into()), 0o777),
            libc::SYS_symlinkat => self.new_entry(call.path(1, 2), Content::Link(call.text(a[0]).into()), 0o777),
            libc::SYS_link => self.link(call.plain_path(0), call.plain_path(1)),
            libc::SYS_linkat => self.link(call.path(0, 1), call.path(2, 3)),
            libc::SYS_unlink | libc::SYS_rmdir => self.leave_name(call.plain_path(0)),
            libc::SYS_unlinkat => self.leave_name(call.path(0, 1)),
            libc::SYS_rename => self.rename(call.plain_path(0), call.plain_path(1), 0),
            libc::SYS_renameat => self.rename(call.path(0, 1), call.path(2, 3), 0),
            libc::SYS_renameat2 => self.rename(call.path(0, 1), call.path(2, 3), a[4]),
            libc::SYS_write => self.write(call, None),
            libc::SYS_pwrite64 => self.write(call, Some(a[3] as usize)),
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                assert!(self.inode(call.file(a[0])).is_none(), "a call that is not understood");
                None
            }
            libc::SYS_ftruncate => {
                Some(change(Change::Truncate { inode: self.inode(call.file(a[0]))?, length: a[1] as usize }))
            }
            libc::SYS_copy_file_range => self.copied_by_kernel(call, a[2]),
            libc::SYS_sendfile | libc::SYS_fallocate => self.copied_by_kernel(call, a[0]),
            libc::SYS_ioctl if a[1] == CLONE_FILE => self.copied_by_kernel(call, a[0]),
            libc::SYS_chmod => self.mode(call.plain_path(0), a[1]),
            libc::SYS_fchmod => self.mode(call.file(a[0]), a[1]),
            libc::SYS_fchmodat => self.mode(call.path(0, 1), a[2]),
            libc::SYS_utimensat => {
                let path = if a[1] == 0 { call.file(a[0]) } else { call.path(0, 1) };
                Some(change(Change::Date { inode: self.inode(path)? }))
            }
            libc::SYS_fsync => self.sync(call, false),
            libc::SYS_fdatasync => self.sync(call, true),
            libc::SYS_syncfs | libc::SYS_sync => Some(vec![Event::SyncAll]),
            _ => None,
        }
    }

    fn link(&self, from: Option<PathBuf>, to: Option<PathBuf>) -> Option<Vec<Event>> {
        let inode = self.inode(from)?;
        let (directory, name) = self.place(to)?;
        Some(change(Change::Enter { directory, name, inode, node: self.disk.nodes[&inode].clone() }))
    }

    /// The bytes are looked up when the call is over.
    fn copied_by_kernel(&mut self, call: &Call, descriptor: u64) -> Option<Vec<Event>> {
        let path = call.file(descriptor)?;
        let inode = self.inode(Some(path.clone()))?;
        self.copied.insert(call.process, path);
        Some(change(Change::Write { inode, offset: 0, bytes: Vec::new() }))
    }
}

impl Watcher for Recorder {
    fn enter(&mut self, call: &Call) -> Fate {
        if let Some(events) = self.effect(call) {
            self.pending.insert(call.process, events);
        }
        Fate::Happens
    }

    fn leave(&mut self, call: &Call, result: i64) {
        let copied = self.copied.remove(&call.process);
        for mut event in self.pending.remove(&call.process).unwrap_or_default() {
            if result < 0 {
                continue;
            }
            if let Event::Change(change) = &mut event {
                if let Change::Write { bytes, .. } = change {
                    match &copied {
                        Some(path) => *bytes = fs::read(path).unwrap(),
                        None => bytes.truncate(result as usize),
                    }
                }
                self.disk.apply(change);
            }
            self.events.push(event);
        }
    }
}

fn change(change: Change) -> Vec<Event> {
    vec![Event::Change(change)]
}

/// Where in an open file the program is.
fn position(call: &Call, descriptor: u64) -> usize {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", call.process)).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("pos:")).unwrap();
    line.trim().parse().unwrap()
}
