//! System calls as safe functions. Each is only as safe as its caller is single-threaded, which all of this module's
//! callers are: see the zygote.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::super::filter::Instruction;

/// Numbers that the libc crate lacks.
const PR_CAP_LAST: c_long = 63;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const SECCOMP_SET_MODE_FILTER: c_long = 1;
const SECCOMP_NEW_LISTENER: c_long = 1 << 3;
const SECCOMP_WAIT_KILLABLE: c_long = 1 << 5;
const CLONE_NEWTIME: c_int = 0x80;

/// What C libraries disagree about: the type of a resource's number.
#[cfg(target_env = "gnu")]
pub(super) type Limited = libc::__rlimit_resource_t;
/// What C libraries disagree about: the type of a resource's number.
#[cfg(not(target_env = "gnu"))]
pub(super) type Limited = c_int;

fn check(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The new one's number.
        child: i32,
    },
}

/// Forks. The caller must have one thread only, so that the child may go on as an ordinary program.
pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: no memory is shared with the child; the caller is single-threaded, so no lock is held by a lost thread.
    match check_int(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

/// Forks into new user, pid, mount, ipc, uts and cgroup namespaces, and a new network namespace unless this process's own
/// is the child's to have; also gives the child's descriptor.
pub(super) fn fork_into_namespaces(keep_network: bool) -> io::Result<(Fork, Option<OwnedFd>)> {
    let network = if keep_network { 0 } else { libc::CLONE_NEWNET };
    let flags = network
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_PIDFD;
    let mut descriptor: RawFd = -1;
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.cast_unsigned());
    arguments[1] = ptr::from_mut(&mut descriptor) as u64;
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM this is a fork; `arguments` is a `struct clone_args` (version 0, 64 bytes) whose pidfd
    // pointer is valid; the caller is single-threaded.
    let result = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    match check(result)? {
        0 => Ok((Fork::Child, None)),
        child => {
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else knows.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            let child = i32::try_from(child).map_err(io::Error::other)?;
            Ok((Fork::Parent { child }, Some(descriptor)))
        }
    }
}

/// Ends this process at once, without the exit handlers that belong to the process it was forked from.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: has no preconditions.
    unsafe { libc::_exit(code) }
}

fn prctl(option: c_int, argument: c_long) -> io::Result<()> {
    // SAFETY: the options used in this module take integers only; unused arguments have to be zero.
    check_int(unsafe { libc::prctl(option, argument, 0 as c_long, 0 as c_long, 0 as c_long) }).map(drop)
}

/// Lets the kernel kill this process when the thread that forked it ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, c_long::from(libc::SIGKILL))
}

/// Whether processes of the same user may look into this one.
pub(super) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, c_long::from(dumpable))
}

/// The number of the parent process; 0 if it lives in another pid namespace.
pub(super) fn parent() -> i32 {
    // SAFETY: has no preconditions.
    unsafe { libc::getppid() }
}

/// This process's own number.
pub(super) fn own_number() -> i32 {
    // SAFETY: has no preconditions.
    unsafe { libc::getpid() }
}

/// Starts a session of its own.
pub(super) fn start_session() -> io::Result<()> {
    // SAFETY: has no preconditions.
    check_int(unsafe { libc::setsid() }).map(drop)
}

/// Makes a new terminal of the file system of terminals that this multiplexer belongs to: the side of its programs, and the
/// side of whoever types.
pub(super) fn open_terminal(multiplexer: &CStr) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the path ends with a NUL.
    let theirs = check_int(unsafe { libc::open(multiplexer.as_ptr(), flags) })?;
    // SAFETY: the descriptor was just made and is nobody else's.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one integer, which outlives the call.
    check_int(unsafe { libc::ioctl(theirs.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: the request takes flags by value and makes a descriptor.
    let ours = check_int(unsafe { libc::ioctl(theirs.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: as above.
    Ok((unsafe { OwnedFd::from_raw_fd(ours) }, theirs))
}

/// Makes this the terminal of the calling process's session.
pub(super) fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes an integer.
    check_int(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Takes a user and a group, and drops all other groups where the user namespace permits it.
pub(super) fn set_identity(user: u32, group: u32, drop_groups: bool) -> io::Result<()> {
    if drop_groups {
        // SAFETY: an empty list has no elements to point to.
        check_int(unsafe { libc::setgroups(0, ptr::null()) })?;
    }
    // SAFETY: integers only.
    check_int(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: integers only.
    check_int(unsafe { libc::setresuid(user, user, user) }).map(drop)
}

/// Changes a mount and those below it: no set-id programs, no devices (unless kept), read-only if wanted, private.
pub(super) fn restrict_mount(mount: BorrowedFd<'_>, read_only: bool, keep_devices: bool) -> io::Result<()> {
    let devices = if keep_devices { 0 } else { MOUNT_ATTR_NODEV };
    let set = MOUNT_ATTR_NOSUID | devices | if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    set_attributes(mount, set, libc::MS_PRIVATE, libc::AT_RECURSIVE)
}

/// Makes one mount read-only, not those below it.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, MOUNT_ATTR_RDONLY, 0, 0)
}

fn set_attributes(mount: BorrowedFd<'_>, set: u64, propagation: u64, flags: c_int) -> io::Result<()> {
    // A `struct mount_attr`: attributes to set, to clear, propagation, user namespace.
    let attributes = [set, 0, propagation, 0];
    let flags = flags | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a C string and the attributes have the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// Mounts a file or directory in another place too, with the restrictions it has.
pub(super) fn bind(source: &CStr, at: &CStr) -> io::Result<()> {
    // SAFETY: the paths are C strings; a bind takes neither kind nor data.
    check_int(unsafe { libc::mount(source.as_ptr(), at.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) }).map(drop)
}

/// Makes the current directory the root and lets go of the old one.
pub(super) fn enter_root() -> io::Result<()> {
    // SAFETY: both paths are C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    detach(c".")?;
    // SAFETY: the path is a C string.
    check_int(unsafe { libc::chdir(c"/".as_ptr()) }).map(drop)
}

/// Detaches the topmost mount at a path.
pub(super) fn detach(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a C string.
    check_int(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Names the host.
pub(super) fn set_names(host: &str, domain: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe a live string.
    check_int(unsafe { libc::sethostname(host.as_ptr().cast(), host.len()) })?;
    // SAFETY: as above.
    check_int(unsafe { libc::setdomainname(domain.as_ptr().cast(), domain.len()) }).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub(super) fn raise_loopback() -> io::Result<()> {
    // SAFETY: integers only.
    let raw = check_int(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `raw` is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("two low bits");
    // SAFETY: this request takes a pointer to an `ifreq`.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }).map(drop)
}

/// Gives later children a time namespace of their own.
pub(super) fn unshare_time() -> io::Result<()> {
    unshare(CLONE_NEWTIME)
}

/// Gives this process a user namespace and mounts of its own.
pub(super) fn unshare_users_and_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
}

/// Gives this process a network of its own, with nothing in it but a loopback interface that is up.
pub(super) fn unshare_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)?;
    raise_loopback()
}

/// Makes the groups this process is in the topmost ones that it sees.
pub(super) fn unshare_groups() -> io::Result<()> {
    unshare(libc::CLONE_NEWCGROUP)
}

fn unshare(namespaces: c_int) -> io::Result<()> {
    // SAFETY: integers only; the process is single-threaded.
    check_int(unsafe { libc::unshare(namespaces) }).map(drop)
}

/// Makes a descriptor one of the standard streams.
pub(super) fn set_stream(descriptor: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: the standard streams are owned by nobody; the copy stays open without an owner, as they do.
    check_int(unsafe { libc::dup2(descriptor.as_raw_fd(), number) }).map(drop)
}

/// Closes every descriptor from this number on.
pub(super) fn close_from(first: RawFd) {
    close_range(first, RawFd::MAX, 0);
}

/// Lets every descriptor from this number on be closed by the next program.
pub(super) fn close_from_on_exec(first: RawFd) {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
}

/// Closes every descriptor above the standard ones except these.
pub(super) fn close_all_but(kept: &[RawFd]) {
    let mut sorted = kept.to_vec();
    sorted.sort_unstable();
    let mut next = 3;
    for descriptor in sorted {
        if descriptor > next {
            close_range(next, descriptor - 1, 0);
        }
        next = next.max(descriptor + 1);
    }
    close_from(next);
}

fn close_range(first: RawFd, last: RawFd, flags: c_int) {
    // SAFETY: integers only. Owners of the closed descriptors are never dropped: they belong to the other side of a
    // fork. A failure (kernels before 5.9) cannot come: `clone3` and what else the zygote needs is as new.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Sets a resource limit, no higher than the hard one that is there.
pub(super) fn set_limit(resource: Limited, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    let mut current = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `current` is valid for writing.
    check_int(unsafe { libc::getrlimit(resource, &raw mut current) })?;
    let value = |wanted: Option<u64>| wanted.unwrap_or(libc::RLIM_INFINITY).min(current.rlim_max);
    let wanted = libc::rlimit { rlim_cur: value(soft), rlim_max: value(hard) };
    // SAFETY: `wanted` is a valid limit.
    check_int(unsafe { libc::setrlimit(resource, &raw const wanted) }).map(drop)
}

/// Raises the limit of open files as far as it goes.
pub(super) fn raise_files_limit() {
    let mut current = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `current` is valid for reading and writing.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut current) == 0 {
            current.rlim_cur = current.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const current);
        }
    }
}

/// Chooses whether addresses of later programs are randomised.
pub(super) fn randomise_addresses(randomise: bool) -> io::Result<()> {
    let wanted = if randomise { 0 } else { libc::ADDR_NO_RANDOMIZE };
    // SAFETY: integers only.
    check_int(unsafe { libc::personality(std::ffi::c_ulong::from(wanted.cast_unsigned())) }).map(drop)
}

/// Sets the mask of new files' modes.
pub(super) fn set_umask(mask: u32) {
    // SAFETY: integers only.
    unsafe { libc::umask(mask) };
}

/// Gives up every capability, the way to get them back, and set-id programs.
pub(super) fn drop_privileges() -> io::Result<()> {
    for capability in 0..=PR_CAP_LAST {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // Numbers the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            result => result?,
        }
    }
    // `struct __user_cap_header_struct` of version 3 for this process, and two halves of three empty sets.
    let header = [0x2008_0522_u32, 0];
    let empty = [0_u32; 6];
    // SAFETY: header and data have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), empty.as_ptr()) })?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Confines signals and abstract sockets to this process and its children, where the kernel can.
pub(super) fn confine() -> io::Result<()> {
    // A `struct landlock_ruleset_attr`: no file or network rules, scopes for abstract sockets and signals.
    let ruleset = [0_u64, 0, 3];
    // SAFETY: pointer and size describe the attribute.
    let raw = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ruleset.as_ptr(), size_of_val(&ruleset), 0 as c_long)
    };
    // Older kernels, and those without Landlock: pid and network namespaces are the first fence anyway.
    let Ok(raw) = check(raw) else { return Ok(()) };
    // SAFETY: the descriptor is new and nobody else's.
    let ruleset = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0 as c_long) }).map(drop)
}

/// Installs a system-call filter for good, whose questions can be answered through the descriptor returned.
pub(super) fn install_listener(program: &[Instruction]) -> io::Result<OwnedFd> {
    // Waiting killably (Linux 5.19) keeps signals from interrupting a call that is being answered.
    let raw = seccomp(program, SECCOMP_NEW_LISTENER | SECCOMP_WAIT_KILLABLE)
        .or_else(|_| seccomp(program, SECCOMP_NEW_LISTENER))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

fn seccomp(program: &[Instruction], flags: c_long) -> io::Result<c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel copies the program and does not write to it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
}

/// Kills every other process of this pid namespace.
pub(super) fn kill_all() {
    // SAFETY: integers only. Fails only if there is none.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// A child that ended.
pub(super) enum Waited {
    /// This one did, with this status.
    Ended(i32, c_int),
    /// None has, yet.
    NotYet,
    /// There are none.
    NoChildren,
}

/// Looks for, or waits for, a child that ended.
pub(super) fn wait_child(flags: c_int) -> io::Result<Waited> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writing.
        match check_int(unsafe { libc::waitpid(-1, &raw mut status, flags) }) {
            Ok(0) => return Ok(Waited::NotYet),
            Ok(child) => return Ok(Waited::Ended(child, status)),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Waited::NoChildren),
            Err(error) => return Err(error),
        }
    }
}

/// Waits for one child that will end, or has ended.
pub(super) fn bury(child: i32) {
    // SAFETY: integers and a null pointer, which means that the status is not wanted.
    while unsafe { libc::waitpid(child, ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
}

/// Takes a session keyring of its own, in place of the one inherited from the caller's session.
pub(super) fn forget_keys() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: a null pointer stands for a keyring without a name. Kernels without keyrings have nothing to forget.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
}

/// Ignores the end of children, so that the kernel buries them.
pub(super) fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Blocks the signal that a child ended and makes it readable instead.
pub(super) fn children_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero set is valid for `sigemptyset`, which initialises it; the other calls take initialised sets.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check_int(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()))?;
        let raw = check_int(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// Gives every signal its default meaning and blocks none.
pub(super) fn reset_signals() {
    // SAFETY: as above; signals that cannot be changed are refused by the kernel.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Runs a program in place of this one. Returns only if it cannot.
pub(super) fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: C strings in arrays that end in a null pointer, all alive until the call returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the environment, and wipes the text of the old one, which may hold secrets of the caller.
pub(super) fn wipe_environment() {
    // SAFETY: the process is single-threaded, so nobody reads the environment meanwhile; its strings are writable
    // memory that ends in NUL.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text: *mut c_char = *entry;
            ptr::write_bytes(text, 0, libc::strlen(text));
            entry = entry.add(1);
        }
        libc::clearenv();
    }
}

/// Wipes the text of the command line, which tells the build paths and choices of the caller: everybody may read that
/// of process 1.
pub(super) fn wipe_arguments() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold anything; the numbers after it begin with the third field.
    let numbers = stat.rsplit_once(')').map_or("", |(_, numbers)| numbers);
    let field = |number: usize| numbers.split_whitespace().nth(number - 3).and_then(|text| text.parse::<usize>().ok());
    let (Some(start), Some(end)) = (field(48), field(49)) else { return Err(io::ErrorKind::InvalidData.into()) };
    // SAFETY: between these addresses the kernel put the arguments' text, in writable memory of this process; it is
    // single-threaded, and nothing holds references to that text: the standard library copies what it is asked for.
    unsafe { ptr::write_bytes(start as *mut u8, 0, end.saturating_sub(start)) };
    Ok(())
}

unsafe extern "C" {
    static environ: *mut *mut c_char;
}

/// Sets a variable of this process's own environment.
pub(super) fn set_variable(name: &str, value: &str) {
    // SAFETY: the process is single-threaded.
    unsafe { std::env::set_var(name, value) };
}

/// Writes into the memory of another process; all or nothing.
pub(super) fn write_memory(process: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
    // SAFETY: the local range is alive and only read; the remote one is checked by the kernel.
    let written = unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
    transferred(written, bytes.len())
}

/// Reads from the memory of another process; all or nothing.
pub(super) fn read_memory(process: i32, address: u64, bytes: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
    // SAFETY: the local range is alive and ours alone; the remote one is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    transferred(read, bytes.len())
}

fn transferred(count: isize, wanted: usize) -> io::Result<()> {
    match count {
        -1 => Err(io::Error::last_os_error()),
        count if count.unsigned_abs() == wanted => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A call that a filter asks about, in the layout of the kernel's `struct seccomp_notif`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Question {
    pub(super) id: u64,
    /// Number of the asking thread, as this process sees it.
    pub(super) thread: u32,
    flags: u32,
    pub(super) call: i32,
    architecture: u32,
    instruction_pointer: u64,
    pub(super) arguments: [u64; 6],
}

/// An answer, in the layout of the kernel's `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIFY_RECEIVE: u64 = 0xc050_2100;
const NOTIFY_SEND: u64 = 0xc018_2101;
const NOTIFY_VALID: u64 = 0x4008_2102;
const NOTIFY_SET_FLAGS: u64 = 0x4008_2104;

/// Lets questions wake the supervisor on the asker's processor, which is much faster (Linux 6.6; else no matter).
pub(super) fn prefer_same_processor(listener: BorrowedFd<'_>) {
    // SAFETY: this request takes an integer.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_SET_FLAGS, 1 as c_long) };
}

/// Receives a question; `None` if the asker died meanwhile.
pub(super) fn receive_question(listener: BorrowedFd<'_>) -> io::Result<Option<Question>> {
    let mut question = Question::default();
    // SAFETY: this request writes a `struct seccomp_notif`, which has to be zero before.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_RECEIVE, &raw mut question) };
    match check_int(result) {
        Ok(_) => Ok(Some(question)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the asker still waits, so that what was read about its process was about that process.
pub(super) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: this request reads an integer.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_VALID, &raw const id) == 0 }
}

/// Answers with a result, or lets the kernel perform the call (`None`).
pub(super) fn answer(listener: BorrowedFd<'_>, id: u64, result: Option<i64>) {
    let (value, error) = match result {
        Some(value) if value < 0 => (0, i32::try_from(value).unwrap_or(-libc::EINVAL)),
        other => (other.unwrap_or(0), 0),
    };
    let mut answer = Answer { id, value, error, flags: u32::from(result.is_none()) };
    // SAFETY: this request reads a `struct seccomp_notif_resp`. It fails only if the asker died.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_SEND, &raw mut answer) };
}

/// Seconds and nanoseconds that a clock shows.
pub(super) fn read_clock(clock: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing. The clocks used here exist on every kernel.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}
