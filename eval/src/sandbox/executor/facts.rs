//! Lets `/proc` tell about the machine of the contract, and nothing about the real one.
//!
//! What is shown lies in a file system of its own, and is mounted over what the kernel says. A kernel newer than this
//! program may say more: whatever is not known to speak of processes only is covered by something empty.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, OpenTreeFlags, fsconfig_create, fsopen, open_tree};

use super::super::machine::Machine;
use super::super::operations::{Operation, Plan};
use super::prepare::{attach, c_string, clone_mount, make_directory, mount, write_file};
use super::supervisor::next_random;
use super::system;

/// What speaks of processes, or of namespaces that are the build's own.
const OWN: [&str; 7] = ["self", "thread-self", "net", "mounts", "sysvipc", "sys", "kmsg"];
const UUID: &str = "kernel/random/uuid";

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Telling<'a> {
    pub(super) machine: &'a Machine,
    pub(super) processors: Option<u32>,
    pub(super) uptime_seconds: u64,
    pub(super) random_seed: Option<u64>,
}

impl<'a> Telling<'a> {
    /// What a plan wants told.
    pub(super) fn of(plan: &'a Plan) -> Option<Self> {
        plan.prepare.iter().find_map(|operation| match operation {
            Operation::ShowMachine { machine, processors, uptime_seconds, random_seed } => Some(Self {
                machine,
                processors: *processors,
                uptime_seconds: *uptime_seconds,
                random_seed: *random_seed,
            }),
            _ => None,
        })
    }
}

/// Makes a file system, mounted nowhere yet, of what is to be told.
pub(super) fn make(telling: &Telling<'_>) -> io::Result<OwnedFd> {
    let facts = mount("tmpfs", &[("mode", "0755".to_owned()), ("size", (1_u64 << 20).to_string())])?;
    write_facts(facts.as_fd(), telling)?;
    write_settings(facts.as_fd(), telling)?;
    // What is mounted from here inherits this.
    system::make_read_only(facts.as_fd())?;
    Ok(facts)
}

/// Covers the host's facts in the `/proc` of `root`, which is the working directory, by those in the directory `facts`.
pub(super) fn show(root: BorrowedFd<'_>, facts: &str, telling: &Telling<'_>) -> io::Result<()> {
    // A fresh identifier for everybody who asks, unless random numbers are chosen.
    let uuid = match telling.random_seed {
        Some(_) => None,
        None => open_path(root, &format!("proc/sys/{UUID}")).ok(),
    };
    let uuid = uuid.map(|file| clone_mount(file.as_fd(), true, false)).transpose()?;
    cover(&format!("{facts}/sys"), "proc/sys")?;
    if let Some(uuid) = uuid {
        attach(&uuid, root, &format!("proc/sys/{UUID}"))?;
    }
    cover_rest(root, facts, telling)
}

fn open_path(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    Ok(openat(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes the files of `/proc`.
fn write_facts(place: BorrowedFd<'_>, telling: &Telling<'_>) -> io::Result<()> {
    let processors = match telling.processors {
        Some(count) => count,
        None => usable_processors()?,
    };
    write_file(place, "nothing", b"")?;
    make_directory(place, "none", 0o555)?;
    let facts = telling.machine.facts(processors, telling.uptime_seconds);
    facts.iter().try_for_each(|(name, content)| write_file(place, name, content.as_bytes()))
}

fn usable_processors() -> io::Result<u32> {
    let count = rustix::thread::sched_getaffinity(None)?.count();
    Ok(count.max(1))
}

/// Writes the files of `/proc/sys`.
fn write_settings(place: BorrowedFd<'_>, telling: &Telling<'_>) -> io::Result<()> {
    make_directory(place, "sys", 0o555)?;
    let mut made = BTreeSet::new();
    let mut write = |name: &str, content: &str| {
        for (end, _) in name.match_indices('/') {
            if made.insert(name[..end].to_owned()) {
                make_directory(place, &format!("sys/{}", &name[..end]), 0o555)?;
            }
        }
        write_file(place, &format!("sys/{name}"), content.as_bytes())
    };
    for (name, content) in telling.machine.settings() {
        write(name, &content)?;
    }
    write(UUID, &chosen_uuid(telling.random_seed.unwrap_or(0)))
}

/// A random identifier, version 4, as a function of the seed.
fn chosen_uuid(seed: u64) -> String {
    let mut state = seed ^ 0x7575_6964;
    let (high, low) = (next_random(&mut state), next_random(&mut state));
    let version = high & 0xffff_ffff_ffff_0fff | 0x4000;
    let variant = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\n",
        version >> 32,
        (version >> 16) & 0xffff,
        version & 0xffff,
        variant >> 48,
        variant & 0xffff_ffff_ffff
    )
}

/// Covers everything at the top of `/proc` that is not about processes.
fn cover_rest(root: BorrowedFd<'_>, facts: &str, telling: &Telling<'_>) -> io::Result<()> {
    let known: BTreeSet<&str> = telling.machine.facts(0, 0).into_iter().map(|(name, _)| name).collect();
    let processes = openat(root, "proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&processes)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") || OWN.contains(&name) || name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let source = match entry.file_type() {
            _ if known.contains(name) => name,
            FileType::Directory => "none",
            // What only the host's root may read needs no cover.
            FileType::RegularFile if is_readable(&processes, name)? => "nothing",
            _ => continue,
        };
        cover(&format!("{facts}/{source}"), &format!("proc/{name}"))?;
    }
    Ok(())
}

fn is_readable(processes: impl AsFd, name: &str) -> io::Result<bool> {
    Ok(statat(processes, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o004 != 0)
}

fn cover(source: &str, at: &str) -> io::Result<()> {
    system::bind(&c_string(source.as_bytes())?, &c_string(at.as_bytes())?)
}

/// Gives the build's user namespace a list of interpreters of its own, which is empty: a host's `qemu` is no input.
///
/// Before Linux 6.7 there is only the host's list; then programs of foreign machines may start as they do outside.
pub(super) fn forget_interpreters() -> io::Result<()> {
    // The list exists as soon as its file system does; it need not be mounted.
    let make = || {
        let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)
    };
    match make() {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::NODEV | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Leaves the tree of mounts that this mount namespace has for a copy that no namespace has: what `/proc` tells of a
/// process's mounts are those of its namespace below its root, and there are none. They would tell paths of the host,
/// and numbers that no two builds share. Besides, a mount of no namespace cannot be changed by anybody.
pub(super) fn leave_mount_namespace() -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, c"/", flags)?;
    rustix::process::fchdir(&tree)?;
    rustix::process::chroot(c".")?;
    // The copy lasts as long as this descriptor, and that has to last as long as process 1.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(tree);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_of_version_4() {
        assert_eq!(chosen_uuid(1), chosen_uuid(1));
        assert_ne!(chosen_uuid(1), chosen_uuid(2));
        for seed in 0..50 {
            let uuid = chosen_uuid(seed);
            assert_eq!((uuid.len(), &uuid[14..15]), (37, "4"), "{uuid}");
            assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        }
    }
}
