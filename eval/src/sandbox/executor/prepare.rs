//! Performs the operations that init does: file systems, mounts, names, clocks.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, mkdirat, open, openat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use super::super::operations::{Operation, SCRATCH_BUILD, SCRATCH_STORE};
use super::facts::{self, Telling};
use super::views::Prepared;
use super::{system, tree, views};

/// What the operations done so far have made.
#[derive(Default)]
pub(super) struct Stage {
    /// Opened sources, in order.
    sources: Vec<OwnedFd>,
    root: Option<OwnedFd>,
    scratch: Option<OwnedFd>,
    /// `/proc`, writable, also when the build sees it read-only.
    processes: Option<OwnedFd>,
    /// What the zygote has prepared.
    prepared: Prepared,
    /// Whether this process may drop all its groups.
    may_drop_groups: bool,
    /// Whether the network is up already.
    has_network: bool,
}

impl Stage {
    /// Starts with what was prepared.
    pub(super) fn new(prepared: Prepared, may_drop_groups: bool, has_network: bool) -> Self {
        Self { prepared, may_drop_groups, has_network, ..Self::default() }
    }

    /// Performs one operation.
    pub(super) fn perform(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::Open(source) => {
                // Links in the path of a source are the host's own business; the last one is not followed.
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                self.sources.push(open(source, flags, Mode::empty())?);
            }
            Operation::Become { user, group } => {
                system::set_identity(*user, *group, self.may_drop_groups)?;
                // A change of user hides `/proc/self` from ourselves.
                system::set_dumpable(true)?;
                system::die_with_parent()?;
            }
            Operation::MountScratch { bytes, inodes } => self.mount_scratch(*bytes, *inodes)?,
            Operation::MountRoot { bytes } => self.mount_root(*bytes)?,
            Operation::UseScratch { source } => self.use_scratch(*source)?,
            Operation::ScratchDirectory { name, mode } => make_directory(self.scratch()?, name, *mode)?,
            Operation::ScratchFile { directory, name, content } => {
                write_file(self.scratch()?, &format!("{directory}/{name}"), content)?;
            }
            Operation::Directory { path, mode } => make_directory(self.root()?, path, *mode)?,
            Operation::File { path, content } => write_file(self.root()?, path, content)?,
            Operation::Symlink { path, target } => symlinkat(target, self.root()?, path)?,
            Operation::ShowScratch { name, at } => self.show_scratch(name, at)?,
            Operation::Arrange { source } => self.arrange(*source)?,
            Operation::ShowTree { source, open, hidden } => {
                let shape = tree::Shape { open, hidden };
                tree::show(self.source(*source)?, self.root()?, &shape)?;
            }
            // The zygote has seen to it.
            Operation::LimitTogether { .. } => {}
            Operation::ShowInput { source, at } => self.show(*source, at)?,
            Operation::ShowDevice { source, at } => self.show_device(*source, at)?,
            other => self.perform_late(other)?,
        }
        Ok(())
    }

    fn perform_late(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::MountProcesses { at } => {
                let processes = mount("proc", &[])?;
                attach(&processes, self.root()?, at)?;
                self.processes = Some(clone_mount(processes.as_fd(), false, false)?);
                Ok(())
            }
            Operation::MountTerminals { at } => {
                let options = [("ptmxmode", "0666".to_owned()), ("mode", "620".to_owned())];
                attach(&mount("devpts", &options)?, self.root()?, at)
            }
            Operation::MakeReadOnly { path } => {
                let mount = openat(self.root()?, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                system::make_read_only(mount.as_fd())
            }
            Operation::ShowMachine { machine, processors, uptime_seconds, random_seed } => {
                let (processors, uptime_seconds, random_seed) = (*processors, *uptime_seconds, *random_seed);
                self.show_machine(&Telling { machine, processors, uptime_seconds, random_seed })
            }
            Operation::ForgetInterpreters => facts::forget_interpreters(),
            Operation::ShowRandomBytes { seed } => self.show_random_bytes(*seed),
            Operation::Name { host, domain } => system::set_names(host, domain),
            Operation::RaiseLoopback if self.has_network => Ok(()),
            Operation::RaiseLoopback => system::raise_loopback(),
            Operation::LastProcess(number) => {
                write_existing(self.root()?, "proc/sys/kernel/ns_last_pid", number.to_string().as_bytes())
            }
            Operation::StartClocks { seconds } => self.start_clocks(*seconds),
            Operation::Seal => self.seal(),
            other => Err(io::Error::other(format!("operation out of place: {other}"))),
        }
    }

    /// The store directory and `/build`, free of the mounts that the build sees there.
    pub(super) fn results(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let store = openat(self.scratch()?, SCRATCH_STORE, flags, Mode::empty())?;
        Ok((store, openat(self.scratch()?, SCRATCH_BUILD, flags, Mode::empty())?))
    }

    /// `/proc`, as init may use it.
    pub(super) fn processes(&mut self) -> io::Result<OwnedFd> {
        self.processes.take().ok_or_else(|| io::Error::other("there is no `/proc` yet"))
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("there is no root yet"))
    }

    fn scratch(&self) -> io::Result<BorrowedFd<'_>> {
        self.scratch.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("there is no scratch file system yet"))
    }

    fn source(&self, number: usize) -> io::Result<BorrowedFd<'_>> {
        self.sources.get(number).map(AsFd::as_fd).ok_or_else(|| io::Error::other("there is no such source"))
    }

    fn mount_root(&mut self, bytes: u64) -> io::Result<()> {
        let root = mount("tmpfs", &tmpfs_options(bytes, 0))?;
        move_mount(&root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::process::fchdir(&root)?;
        self.root = Some(root);
        Ok(())
    }

    /// The scratch file system has a place in the root until the root is sealed: older kernels clone attached mounts only.
    fn mount_scratch(&mut self, bytes: u64, inodes: u64) -> io::Result<()> {
        let scratch = mount("tmpfs", &tmpfs_options(bytes, inodes))?;
        self.let_wait(&scratch, SCRATCH)?;
        self.scratch = Some(scratch);
        Ok(())
    }

    fn use_scratch(&mut self, source: usize) -> io::Result<()> {
        let scratch = clone_mount(self.source(source)?, false, false)?;
        self.let_wait(&scratch, SCRATCH)?;
        self.scratch = Some(scratch);
        Ok(())
    }

    /// Gives a mount a place that the build will not see. Taking one away takes long, so that it had better be left behind
    /// with everything else.
    fn let_wait(&self, mount: &OwnedFd, name: &str) -> io::Result<()> {
        match &self.prepared.waiting {
            Some(waiting) => Ok(move_mount(
                mount,
                c"",
                waiting,
                c"",
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
            )?),
            None => {
                make_directory(self.root()?, name, 0o700)?;
                attach(mount, self.root()?, name)
            }
        }
    }

    /// What was let wait in the root, because there was no better place, is taken away.
    fn take_away(&self, name: &str) -> io::Result<()> {
        let root = self.root()?;
        if rustix::fs::accessat(root, name, rustix::fs::Access::EXISTS, AtFlags::empty()).is_err() {
            return Ok(());
        }
        system::detach(&c_string(name.as_bytes())?)?;
        Ok(rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR)?)
    }

    fn show_machine(&mut self, telling: &Telling<'_>) -> io::Result<()> {
        if let Some(facts) = &self.prepared.facts {
            return facts::show(self.root()?, facts, telling);
        }
        let facts = facts::make(telling)?;
        make_directory(self.root()?, FACTS, 0o700)?;
        attach(&facts, self.root()?, FACTS)?;
        facts::show(self.root()?, FACTS, telling)
    }

    fn show_scratch(&self, name: &str, at: &str) -> io::Result<()> {
        let directory = openat(self.scratch()?, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(&clone_mount(directory.as_fd(), false, false)?, self.root()?, at)
    }

    /// Without names, and where the kernel refuses, the source is shown as it is.
    fn arrange(&mut self, source: usize) -> io::Result<()> {
        let Some(names) = self.prepared.names.remove(&source) else { return Ok(()) };
        if let Ok(view) = views::view(self.source(source)?, names.as_fd()) {
            self.sources[source] = view;
        }
        Ok(())
    }

    fn show(&self, source: usize, at: &str) -> io::Result<()> {
        show(self.source(source)?, self.root()?, at)
    }

    fn show_device(&self, source: usize, at: &str) -> io::Result<()> {
        write_file(self.root()?, at, b"")?;
        attach(&clone_mount(self.source(source)?, false, true)?, self.root()?, at)
    }

    fn show_random_bytes(&self, seed: u64) -> io::Result<()> {
        let mut state = seed ^ 0x7572_616e_646f_6d00;
        let bytes: Vec<u8> =
            (0..RANDOM_BYTES / 8).flat_map(|_| super::supervisor::next_random(&mut state).to_le_bytes()).collect();
        write_file(self.root()?, "dev/random", &bytes)?;
        write_file(self.root()?, "dev/urandom", &bytes)
    }

    fn start_clocks(&self, seconds: u64) -> io::Result<()> {
        system::unshare_time()?;
        let wanted = i64::try_from(seconds).map_err(io::Error::other)?;
        let clocks = BTreeMap::from([("monotonic", libc::CLOCK_MONOTONIC), ("boottime", libc::CLOCK_BOOTTIME)]);
        let line = |(name, clock): (&&str, &libc::clockid_t)| {
            let (now, nanoseconds) = system::read_clock(*clock);
            // An offset is seconds plus nanoseconds; rounding up to whole seconds keeps the clock above zero.
            format!("{name} {} {}\n", wanted - now - 1, 1_000_000_000 - nanoseconds.max(1))
        };
        let lines: String = clocks.iter().map(line).collect();
        write_existing(self.root()?, "proc/self/timens_offsets", lines.as_bytes())
    }

    fn seal(&mut self) -> io::Result<()> {
        let root = self.root()?;
        self.take_away(SCRATCH)?;
        self.take_away(FACTS)?;
        system::make_read_only(root)?;
        system::enter_root()?;
        self.sources.clear();
        facts::leave_mount_namespace()
    }
}

/// Where the scratch file system is until the root is sealed.
const SCRATCH: &str = ".scratch";
/// Where the facts are until the root is sealed.
const FACTS: &str = ".facts";
/// Bytes of a random device whose content is chosen. Reading it again gives the same ones.
const RANDOM_BYTES: u64 = 1 << 20;

fn tmpfs_options(bytes: u64, inodes: u64) -> [(&'static str, String); 3] {
    [("size", bytes.to_string()), ("nr_inodes", inodes.to_string()), ("mode", "0755".to_owned())]
}

/// Mounts a new file system, without a place yet.
pub(super) fn mount(kind: &str, options: &[(&str, String)]) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, value.as_str())?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    if kind != "devpts" {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if matches!(kind, "proc" | "devpts") {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes another mount of what a descriptor names, without a place yet.
pub(super) fn clone_mount(source: BorrowedFd<'_>, read_only: bool, is_device: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(source, c"", flags | OpenTreeFlags::AT_RECURSIVE)?;
    system::restrict_mount(mount.as_fd(), read_only, is_device)?;
    Ok(mount)
}

/// Gives a mount its place.
pub(super) fn attach(mount: &OwnedFd, root: BorrowedFd<'_>, at: &str) -> io::Result<()> {
    Ok(move_mount(mount, c"", root, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Shows a file, directory or link of the host, read-only.
pub(super) fn show(source: BorrowedFd<'_>, root: BorrowedFd<'_>, at: &str) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(source)?.st_mode) {
        FileType::Directory => make_directory(root, at, 0o755)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(source, c"", Vec::new())?;
            return Ok(symlinkat(target, root, at)?);
        }
        _ => write_file(root, at, b"")?,
    }
    attach(&clone_mount(source, true, false)?, root, at)
}

/// Makes a directory. Init's umask is zero, so it gets exactly this mode.
pub(super) fn make_directory(base: BorrowedFd<'_>, path: &str, mode: u32) -> io::Result<()> {
    Ok(mkdirat(base, path, Mode::from_raw_mode(mode))?)
}

/// Writes a new file, readable by all and writable by its owner.
pub(super) fn write_file(base: BorrowedFd<'_>, path: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(base, path, flags, Mode::from_raw_mode(0o644))?;
    write_all(file, content)
}

fn write_existing(base: BorrowedFd<'_>, path: &str, content: &[u8]) -> io::Result<()> {
    write_all(openat(base, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, content)
}

fn write_all(file: OwnedFd, content: &[u8]) -> io::Result<()> {
    use io::Write as _;
    fs::File::from(file).write_all(content)
}

/// A path as a C string. Paths of plans have been checked for NULs; one that slips through is refused here.
pub(super) fn c_string(text: &[u8]) -> io::Result<CString> {
    Ok(CString::new(text)?)
}
