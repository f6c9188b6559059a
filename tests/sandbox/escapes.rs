//! Ways out of the sandbox that were found in real builders and containers, one by one. Each tries, and fails if it worked.
//!
//! What needs a partner on the host is a case of its own: see `cases`.

use std::ffi::{CStr, c_int, c_long};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::attacks::{Tried, call, text};

/// An attack: its name, as in "an attack by …", and what it does.
pub(crate) type Attack = (&'static str, fn(&mut Tried));

const PERM: &[i32] = &[libc::EPERM];
const NOSYS: &[i32] = &[libc::ENOSYS];
const NONE: [c_long; 5] = [0; 5];
const HERE: c_long = libc::AT_FDCWD as c_long;
/// Modes that no file of a build may have.
const SET_ID: [c_long; 3] = [0o4755, 0o2755, 0o6711];

pub(crate) const ATTACKS: &[Attack] = &[
    ("set-id by chmod", |tried| set_id(tried, |mode| call(libc::SYS_chmod, [file(), mode, 0, 0, 0]))),
    ("set-id by fchmod", |tried| {
        let opened = fs::File::open("/build/set-id").unwrap_or_else(|_| fs::File::create("/build/set-id").unwrap());
        set_id(tried, |mode| call(libc::SYS_fchmod, [c_long::from(opened.as_raw_fd()), mode, 0, 0, 0]));
    }),
    ("set-id by fchmodat", |tried| set_id(tried, |mode| call(libc::SYS_fchmodat, [HERE, file(), mode, 0, 0]))),
    ("set-id by fchmodat2", |tried| set_id(tried, |mode| call(452, [HERE, file(), mode, 0, 0]))),
    ("set-id by creat", |tried| set_id(tried, |mode| call(libc::SYS_creat, [text(c"/build/1"), mode, 0, 0, 0]))),
    ("set-id by open", |tried| set_id(tried, |mode| call(libc::SYS_open, [text(c"/build/2"), 0o101, mode, 0, 0]))),
    ("set-id by openat", |tried| {
        set_id(tried, |mode| call(libc::SYS_openat, [HERE, text(c"/build/3"), 0o101, mode, 0]));
    }),
    ("set-id by a file without a name", |tried| {
        let flags = c_long::from(libc::O_TMPFILE | libc::O_WRONLY);
        set_id(tried, |mode| call(libc::SYS_openat, [HERE, text(c"/build"), flags, mode, 0]));
    }),
    ("set-id by mknod", |tried| {
        set_id(tried, |mode| call(libc::SYS_mknod, [text(c"/build/4"), 0o100_000 | mode, 0, 0, 0]));
    }),
    ("set-id by mknodat", |tried| {
        set_id(tried, |mode| call(libc::SYS_mknodat, [HERE, text(c"/build/5"), 0o100_000 | mode, 0, 0]));
    }),
    ("set-id by openat2, whose flags no filter sees", |tried| {
        let how = [0o101_u64, 0o4755, 0];
        let result = call(libc::SYS_openat2, [HERE, text(c"/build/6"), how.as_ptr() as c_long, 24, 0]);
        tried.refused("openat2", result, NOSYS);
        no_set_id(tried);
    }),
    ("set-id by mkdir", |tried| {
        let _ = call(libc::SYS_mkdir, [text(c"/build/7"), 0o6777, 0, 0, 0]);
        let _ = call(libc::SYS_mkdirat, [HERE, text(c"/build/8"), 0o6777, 0, 0]);
        no_set_id(tried);
    }),
    ("io_uring, which works outside filters", |tried| {
        let mut parameters = [0_u8; 120];
        let result = call(libc::SYS_io_uring_setup, [8, parameters.as_mut_ptr() as c_long, 0, 0, 0]);
        tried.refused("io_uring_setup", result, NOSYS);
        tried.refused("io_uring_enter", call(libc::SYS_io_uring_enter, NONE), NOSYS);
        tried.refused("io_uring_register", call(libc::SYS_io_uring_register, NONE), NOSYS);
    }),
    ("calls of the x32 machine", |tried| {
        for number in [0, 1, 39, 56, 59, 90, 101, 165, 257, 272] {
            tried.refused("an x32 call", call(0x4000_0000 + number, NONE), NOSYS);
        }
    }),
    ("calls of the i386 machine", old_machine),
    ("calls newer than the filter", |tried| {
        for number in [470, 471, 480, 512, 547, 1000, 0x3fff_ffff] {
            tried.refused("an unknown call", call(number, NONE), NOSYS);
        }
    }),
    ("vsock, which reaches the machine's host", |tried| {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            socket(tried, libc::AF_VSOCK, kind);
        }
        let pair =
            call(libc::SYS_socketpair, [c_long::from(libc::AF_VSOCK), 1, 0, [0_i32; 2].as_mut_ptr() as c_long, 0]);
        tried.refused("a pair of vsock", pair, &[libc::EAFNOSUPPORT]);
    }),
    ("rare socket families", |tried| {
        for family in (3..64).filter(|family| ![libc::AF_INET6, libc::AF_NETLINK].contains(family)) {
            socket(tried, family, libc::SOCK_DGRAM);
        }
    }),
    ("raw sockets", |tried| {
        for (family, protocol) in [(libc::AF_INET, 1), (libc::AF_INET, 255), (libc::AF_INET6, 58)] {
            let result = call(libc::SYS_socket, [c_long::from(family), c_long::from(libc::SOCK_RAW), protocol, 0, 0]);
            tried.refused("a raw socket", result, PERM);
        }
    }),
    ("changing the network", change_network),
    ("a user namespace", |tried| namespace(tried, libc::CLONE_NEWUSER)),
    ("a mount namespace", |tried| namespace(tried, libc::CLONE_NEWNS)),
    ("a process namespace", |tried| namespace(tried, libc::CLONE_NEWPID)),
    ("a network namespace", |tried| namespace(tried, libc::CLONE_NEWNET)),
    ("the other namespaces", |tried| {
        for kind in [libc::CLONE_NEWIPC, libc::CLONE_NEWUTS, libc::CLONE_NEWCGROUP] {
            namespace(tried, kind);
        }
        tried.refused("unshare time", call(libc::SYS_unshare, [0x80, 0, 0, 0, 0]), PERM);
    }),
    ("clone3, whose flags no filter sees", |tried| {
        let arguments = [0x1000_0000_u64, 0, 0, 0, 17, 0, 0, 0];
        tried.refused("clone3", call(libc::SYS_clone3, [arguments.as_ptr() as c_long, 64, 0, 0, 0]), NOSYS);
    }),
    ("entering init's namespaces", |tried| {
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
            let denied = [libc::EACCES, libc::EPERM, libc::ENOENT];
            tried.refused(kind, fs::File::open(format!("/proc/1/ns/{kind}")), &denied);
            let Ok(own) = fs::File::open(format!("/proc/self/ns/{kind}")) else { continue };
            let result = call(libc::SYS_setns, [c_long::from(own.as_raw_fd()), 0, 0, 0, 0]);
            tried.refused(kind, result, PERM);
        }
    }),
    ("mounting the old way", |tried| {
        for (kind, at) in [(c"tmpfs", c"/tmp"), (c"proc", c"/proc"), (c"overlay", c"/build"), (c"binfmt_misc", c"/tmp")]
        {
            let result = call(libc::SYS_mount, [text(c"x"), text(at), text(kind), 0, 0]);
            tried.refused("mount", result, PERM);
        }
        let bind = call(libc::SYS_mount, [text(c"/build"), text(c"/nix"), 0, 4096, 0]);
        tried.refused("a bind", bind, PERM);
        let writable = call(libc::SYS_mount, [0, text(c"/"), 0, 32, 0]);
        tried.refused("a remount", writable, PERM);
    }),
    ("mounting the new way", |tried| {
        let calls = [
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            467,
        ];
        for number in calls {
            tried.refused("a mount call", call(number, NONE), PERM);
        }
    }),
    ("uncovering what is masked", |tried| {
        for path in [c"/proc/cpuinfo", c"/proc/sys", c"/proc/kallsyms", c"/proc", c"/nix/store", c"/dev/null"] {
            tried.refused("umount", call(libc::SYS_umount2, [text(path), 2, 0, 0, 0]), PERM);
        }
    }),
    ("another root", |tried| {
        tried.refused("chroot", call(libc::SYS_chroot, [text(c"/tmp"), 0, 0, 0, 0]), PERM);
        tried.refused("pivot_root", call(libc::SYS_pivot_root, [text(c"/tmp"), text(c"/tmp"), 0, 0, 0]), PERM);
    }),
    ("walking out of the root", |tried| {
        let root = fs::metadata("/").unwrap();
        for path in ["/..", "/../../..", "/proc/self/root/..", "/proc/self/cwd/../..", "/dev/fd/../../.."] {
            let Ok(found) = fs::metadata(path) else { continue };
            tried.holds(path, found.dev() == root.dev() && (found.ino() == root.ino() || path.contains("fd")));
        }
    }),
    ("walking through init", |tried| {
        for path in ["/proc/1/root/etc", "/proc/1/cwd/etc", "/proc/1/exe", "/proc/1/fd/0"] {
            tried.refused(path, fs::metadata(path), &[libc::EACCES, libc::EPERM, libc::ENOENT]);
        }
        for path in ["/proc/1/fd", "/proc/1/fdinfo", "/proc/1/map_files"] {
            tried.refused(path, fs::read_dir(path), &[libc::EACCES, libc::EPERM, libc::ENOENT]);
        }
    }),
    ("lists of mounts, which tell paths of the host", |tried| {
        let processes = ["self", "thread-self", "1", "self/task/1"];
        for process in
            processes.iter().map(|process| format!("/proc/{process}")).chain([format!("/proc/{}", std::process::id())])
        {
            for file in ["mountinfo", "mounts", "mountstats"] {
                let content = fs::read_to_string(format!("{process}/{file}")).unwrap_or_default();
                tried.holds(&format!("{process}/{file} is empty: {content}"), content.is_empty());
            }
        }
        tried.holds("/proc/mounts", fs::read("/proc/mounts").unwrap_or_default().is_empty());
        tried.refused("statmount", call(457, NONE), NOSYS);
        tried.refused("listmount", call(458, NONE), NOSYS);
    }),
    ("facts about the host in /proc", facts),
    ("facts about the host by calls", |tried| {
        // SAFETY: all-zero bytes are valid for both, and the calls fill them.
        let (names, resources) = unsafe {
            let (mut names, mut resources): (libc::utsname, libc::sysinfo) = std::mem::zeroed();
            tried.holds("uname", libc::uname(&raw mut names) == 0);
            tried.holds("sysinfo", libc::sysinfo(&raw mut resources) == 0);
            (names, resources)
        };
        // SAFETY: the kernel's strings end in NUL.
        let string = |field: &[libc::c_char]| unsafe { CStr::from_ptr(field.as_ptr()) }.to_str().unwrap().to_owned();
        tried.holds("the release", string(&names.release) == "6.1.0");
        tried.holds("the name", string(&names.nodename) == "localhost");
        tried.holds("the domain", string(&names.domainname) == "(none)");
        tried.holds("the memory", resources.totalram == 8 << 30 && resources.mem_unit == 1 && resources.uptime < 60);
        tried.refused("sysfs", call(libc::SYS_sysfs, [3, 0, 0, 0, 0]), NOSYS);
        tried.refused("syslog", call(libc::SYS_syslog, [3, 0, 0, 0, 0]), PERM);
        tried.refused("adjtimex", call(libc::SYS_adjtimex, NONE), PERM);
    }),
    ("writing kernel settings", |tried| {
        for path in
            ["kernel/core_pattern", "kernel/hostname", "kernel/ns_last_pid", "vm/overcommit_memory", "fs/file-max"]
        {
            write_denied(tried, &format!("/proc/sys/{path}"));
        }
        for path in ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr"] {
            write_denied(tried, path);
        }
    }),
    ("writing process settings", |tried| {
        for file in
            ["uid_map", "gid_map", "setgroups", "oom_score_adj", "attr/current", "attr/exec", "timens_offsets", "comm"]
        {
            write_denied(tried, &format!("/proc/self/{file}"));
            write_denied(tried, &format!("/proc/1/{file}"));
        }
    }),
    ("init's memory", |tried| {
        for file in ["mem", "environ", "maps", "auxv", "syscall", "stack", "pagemap"] {
            let denied = [libc::EACCES, libc::EPERM, libc::ENOENT];
            let result = fs::File::open(format!("/proc/1/{file}")).and_then(|mut file| file.read(&mut [0; 8]));
            tried.refused(file, result, &denied);
        }
        tried.refused("process_vm_readv", call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]), PERM);
        tried.refused("process_vm_writev", call(libc::SYS_process_vm_writev, [1, 0, 0, 0, 0]), PERM);
    }),
    ("ptrace", |tried| {
        for (request, process) in [(0, 0), (16, 1), (0x4206, 1), (16, c_long::from(std::process::id()))] {
            tried.refused("ptrace", call(libc::SYS_ptrace, [request, process, 0, 0, 0]), PERM);
        }
    }),
    ("init's descriptors", |tried| {
        let init = call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0]).unwrap_or(-1);
        for number in 0..10 {
            tried.refused("pidfd_getfd", call(libc::SYS_pidfd_getfd, [init, number, 0, 0, 0]), PERM);
        }
        tried.refused("kcmp", call(libc::SYS_kcmp, [1, 1, 0, 0, 0]), PERM);
    }),
    ("signals to init and the host", signals),
    ("init's limits and priorities", |tried| {
        let limits = [1_u64, 1];
        let result = call(libc::SYS_prlimit64, [1, 7, limits.as_ptr() as c_long, 0, 0]);
        tried.refused("prlimit of init", result, PERM);
        let parent = c_long::from(std::os::unix::process::parent_id());
        tried.refused(
            "prlimit of the parent",
            call(libc::SYS_prlimit64, [parent, 0, limits.as_ptr() as c_long, 0, 0]),
            PERM,
        );
        // SAFETY: integers only.
        tried.holds("a better priority", unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -5) } == -1);
    }),
    ("raising its own limits", |tried| {
        for resource in
            [libc::RLIMIT_NOFILE, libc::RLIMIT_NPROC, libc::RLIMIT_MEMLOCK, libc::RLIMIT_CORE, libc::RLIMIT_NICE]
        {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the pointer is valid.
            unsafe { libc::getrlimit(resource, &raw mut limit) };
            limit.rlim_max += 1;
            // SAFETY: as above.
            tried.holds("a hard limit", unsafe { libc::setrlimit(resource, &raw const limit) } == -1);
        }
    }),
    ("a crash that the host's crash handler would read", |tried| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is valid.
        unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
        // A handler behind a pipe is run at 0, but not at 1.
        tried.holds("one byte of core", limit.rlim_cur == 1 && limit.rlim_max == 1);
    }),
    ("keyrings", |tried| {
        let payload = c"secret";
        let add = call(libc::SYS_add_key, [text(c"user"), text(c"sandbox"), text(payload), 6, -4]);
        tried.refused("add_key", add, PERM);
        tried.refused("request_key", call(libc::SYS_request_key, [text(c"user"), text(c"a"), 0, -4, 0]), PERM);
        for operation in [0, 1, 6, 10, 11, 22] {
            tried.refused("keyctl", call(libc::SYS_keyctl, [operation, -3, 0, 0, 0]), PERM);
        }
        for file in ["/proc/keys", "/proc/key-users"] {
            tried.holds(file, fs::read(file).unwrap_or_default().is_empty());
        }
    }),
    ("bpf, perf and page faults", |tried| {
        for number in [libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_memfd_secret] {
            tried.refused("a call", call(number, NONE), PERM);
        }
    }),
    ("names that go past every view", |tried| {
        let mut handle = [128_u32, 0, 0, 0, 0, 0, 0, 0];
        let at = handle.as_mut_ptr() as c_long;
        tried.refused("name_to_handle_at", call(libc::SYS_name_to_handle_at, [HERE, text(c"/"), at, at, 0]), PERM);
        tried.refused("open_by_handle_at", call(libc::SYS_open_by_handle_at, [HERE, at, 0, 0, 0]), PERM);
    }),
    ("the machine's administration", |tried| {
        let calls = [
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_acct,
            libc::SYS_vhangup,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_modify_ldt,
            libc::SYS_fanotify_init,
        ];
        for number in calls {
            tried.refused("a call", call(number, NONE), PERM);
        }
    }),
    ("the machine's clock and name", |tried| {
        let calls = [libc::SYS_clock_settime, libc::SYS_settimeofday, libc::SYS_clock_adjtime];
        for number in calls {
            tried.refused("a clock call", call(number, NONE), PERM);
        }
        for number in [libc::SYS_sethostname, libc::SYS_setdomainname] {
            tried.refused("a name call", call(number, [text(c"x"), 1, 0, 0, 0]), PERM);
        }
    }),
    ("another personality", |tried| {
        for persona in [0x0008, 0x0002_0000, 0x0040_0000, 0x0010_0000] {
            tried.refused("personality", call(libc::SYS_personality, [persona, 0, 0, 0, 0]), PERM);
        }
        tried.holds("asking for it", call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]).is_ok());
    }),
    ("another identity", |tried| {
        for identity in [0, 1, 100, 65_534, 880_803_840] {
            let denied = [libc::EPERM, libc::EINVAL];
            tried.refused("setuid", call(libc::SYS_setuid, [identity, 0, 0, 0, 0]), &denied);
            tried.refused("setresuid", call(libc::SYS_setresuid, [identity, identity, identity, 0, 0]), &denied);
            if identity != 100 {
                tried.refused("setgid", call(libc::SYS_setgid, [identity, 0, 0, 0, 0]), &denied);
                tried.refused("chown", call(libc::SYS_chown, [text(c"/build"), identity, -1, 0, 0]), &denied);
            }
        }
        tried.refused("setgroups", call(libc::SYS_setgroups, NONE), PERM);
    }),
    ("capabilities", |tried| {
        let header = [0x2008_0522_u32, 0];
        let all = [u32::MAX; 6];
        let result = call(libc::SYS_capset, [header.as_ptr() as c_long, all.as_ptr() as c_long, 0, 0, 0]);
        tried.refused("capset", result, PERM);
        let ambient = call(libc::SYS_prctl, [c_long::from(libc::PR_CAP_AMBIENT), 2, 21, 0, 0]);
        tried.refused("ambient capabilities", ambient, PERM);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        for line in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            tried.holds(line, status.contains(&format!("{line}\t0000000000000000\n")));
        }
        tried.holds("no new privileges", status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"));
    }),
    ("device nodes", |tried| {
        for (kind, device) in
            [(libc::S_IFCHR, 0x101), (libc::S_IFCHR, 0x10b), (libc::S_IFBLK, 0xfe00), (libc::S_IFCHR, 0x103)]
        {
            let mode = c_long::from(kind | 0o666);
            tried.refused("mknod", call(libc::SYS_mknod, [text(c"/build/device"), mode, device, 0, 0]), PERM);
            tried.refused("mknodat", call(libc::SYS_mknodat, [HERE, text(c"/build/device"), mode, device, 0]), PERM);
        }
    }),
    ("devices of the host", |tried| {
        let mut found: Vec<String> =
            fs::read_dir("/dev").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
        found.sort();
        let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
        tried.holds(&format!("/dev has {found:?}"), found.join(" ") == expected);
        for name in ["mem", "kmsg", "kvm", "fuse", "vsock", "net/tun", "loop-control", "mapper/control"] {
            tried.refused(name, fs::File::open(format!("/dev/{name}")), &[libc::ENOENT]);
        }
    }),
    ("whiteouts", |tried| {
        tried.refused("by mknod", call(libc::SYS_mknod, [text(c"/build/w"), 0o020_000, 0, 0, 0]), PERM);
        fs::write("/build/from", "").unwrap();
        let rename = call(libc::SYS_renameat2, [HERE, text(c"/build/from"), HERE, text(c"/build/to"), 4]);
        tried.refused("by rename", rename, &[libc::EINVAL]);
    }),
    ("extended attributes", |tried| {
        for name in
            [c"user.overlay.opaque", c"user.x", c"security.capability", c"trusted.x", c"system.posix_acl_access"]
        {
            let result = call(libc::SYS_setxattr, [text(c"/build"), text(name), text(c"y"), 1, 0]);
            tried.refused("setxattr", result, &[libc::ENOTSUP]);
        }
        tried.refused("setxattrat", call(463, NONE), &[libc::ENOTSUP]);
        tried.refused("file_setattr", call(469, NONE), &[libc::ENOTSUP]);
    }),
    ("the terminal", |tried| {
        tried.refused("the caller's terminal", fs::File::open("/dev/tty"), &[libc::ENXIO]);
        for (what, request) in [("typing", 0x5412), ("the console", 0x541c), ("a line discipline", 0x5423)] {
            tried.refused(what, call(libc::SYS_ioctl, [0, request, text(c"x"), 0, 0]), PERM);
            // The upper half of a register is no way round.
            tried.refused(what, call(libc::SYS_ioctl, [0, request | 1 << 32, text(c"x"), 0, 0]), PERM);
        }
    }),
    ("the root and its files", |tried| {
        let denied = [libc::EROFS, libc::EACCES, libc::EPERM];
        for path in ["/new", "/etc/new", "/dev/new", "/nix/new", "/etc/passwd", "/etc/hosts", "/etc/group"] {
            tried.refused(path, fs::write(path, "x"), &denied);
        }
        for path in ["/etc/passwd", "/dev/null", "/build", "/tmp", "/nix/store"] {
            tried.refused(
                path,
                fs::remove_file(path).or_else(|_| fs::remove_dir(path)),
                &[libc::EROFS, libc::EACCES, libc::EPERM, libc::EBUSY, libc::ENOTDIR],
            );
        }
        tried.refused(
            "replacing /tmp",
            fs::rename("/tmp", "/tmp2"),
            &[libc::EROFS, libc::EBUSY, libc::EXDEV, libc::EACCES],
        );
        for path in ["/.scratch", "/.views", "/.facts", "/sys"] {
            tried.holds(path, !Path::new(path).exists());
        }
    }),
    ("what the caller left open", |tried| {
        for number in 3..1024 {
            // SAFETY: asks only.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            tried.holds(&format!("descriptor {number}"), flags == -1);
        }
        tried.holds(
            "the environment of the caller",
            fs::read("/proc/self/environ").unwrap_or_default().iter().all(|byte| *byte == 0),
        );
    }),
    ("message queues and shared memory of the host", |tried| {
        for file in ["/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"] {
            let lines = fs::read_to_string(file).unwrap_or_default().lines().count();
            tried.holds(file, lines <= 1);
        }
    }),
    ("a program for another machine", |tried| {
        // The head of a program for aarch64; a host with qemu in its binfmt_misc would run it.
        let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xb7, 0, 1, 0, 0, 0];
        program.resize(4096, 0);
        fs::write("/build/foreign", program).unwrap();
        fs::set_permissions("/build/foreign", PermissionsExt::from_mode(0o755)).unwrap();
        tried.refused("a foreign program", std::process::Command::new("/build/foreign").status(), &[libc::ENOEXEC]);
        tried.holds("/proc/sys/fs/binfmt_misc", !Path::new("/proc/sys/fs/binfmt_misc").exists());
    }),
    ("too many descriptors", |tried| {
        let mut held = Vec::new();
        let error = loop {
            match fs::File::open("/dev/null") {
                Ok(file) => held.push(file),
                Err(error) => break error,
            }
        };
        tried.holds("their number", held.len() < 4096 && error.raw_os_error() == Some(libc::EMFILE));
    }),
    ("too many threads", |tried| {
        tried.holds("the limit of processes", {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the pointer is valid.
            unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) };
            limit.rlim_max <= 8192
        });
    }),
    ("locked memory", |tried| {
        let memory = vec![0_u8; 1 << 20];
        // SAFETY: the range is alive.
        tried.holds("mlock", unsafe { libc::mlock(memory.as_ptr().cast(), memory.len()) } == -1);
    }),
];

fn file() -> c_long {
    text(c"/build/set-id")
}

fn set_id(tried: &mut Tried, attempt: impl Fn(c_long) -> io::Result<c_long>) {
    let _ = fs::write("/build/set-id", "x");
    SET_ID.iter().for_each(|mode| tried.refused("a set-id mode", attempt(*mode), PERM));
    // The upper half of a register is no way round.
    let _ = attempt(0o4755 | 1 << 32);
    no_set_id(tried);
}

fn no_set_id(tried: &mut Tried) {
    for entry in fs::read_dir("/build").unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        tried.holds(&format!("{:?} has mode {mode:o}", entry.path()), mode & 0o6000 == 0);
    }
}

fn socket(tried: &mut Tried, family: c_int, kind: c_int) {
    let result = call(libc::SYS_socket, [c_long::from(family), c_long::from(kind), 0, 0, 0]);
    tried.refused(&format!("a socket of family {family}"), result, &[libc::EAFNOSUPPORT]);
}

fn namespace(tried: &mut Tried, kind: c_int) {
    tried.refused("unshare", call(libc::SYS_unshare, [c_long::from(kind), 0, 0, 0, 0]), PERM);
    tried.refused("clone", call(libc::SYS_clone, [c_long::from(kind) | 17, 0, 0, 0, 0]), PERM);
    let with_upper_half = c_long::from(kind) | 17 | 1 << 40;
    tried.refused("clone", call(libc::SYS_clone, [with_upper_half, 0, 0, 0, 0]), PERM);
}

fn write_denied(tried: &mut Tried, path: &str) {
    let denied = [libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOENT];
    let opened = fs::OpenOptions::new().write(true).open(path);
    tried.refused(path, opened.and_then(|mut file| file.write_all(b"1\n")), &denied);
}

/// `int 0x80` takes the numbers of another machine: 5 opens, 39 makes directories, 359 makes sockets.
#[cfg(target_arch = "x86_64")]
fn old_machine(tried: &mut Tried) {
    for number in [5_i64, 15, 20, 39, 120, 359] {
        let result: i64;
        // SAFETY: the arguments are zero, so that the call could do no harm if it were made; the registers it may change
        // are named.
        unsafe {
            std::arch::asm!(
                "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
                inlateout("rax") number => result, in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        tried.holds(&format!("call {number} gives {result}"), result as i32 == -libc::ENOSYS);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn old_machine(_: &mut Tried) {}

/// The network is the build's own, but it has no rights over it.
fn change_network(tried: &mut Tried) {
    let raw = call(libc::SYS_socket, [c_long::from(libc::AF_INET), c_long::from(libc::SOCK_DGRAM), 0, 0, 0]).unwrap();
    // SAFETY: the descriptor is new.
    let socket = unsafe { OwnedFd::from_raw_fd(i32::try_from(raw).unwrap()) };
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    // SAFETY: the request takes a pointer to it.
    let down = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    tried.holds("taking the loopback down", down == -1);
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap();
    tried.holds(&format!("interfaces: {interfaces}"), interfaces.lines().count() == 3);
}

fn facts(tried: &mut Tried) {
    let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    for name in [
        "kallsyms",
        "modules",
        "partitions",
        "diskstats",
        "vmstat",
        "zoneinfo",
        "buddyinfo",
        "interrupts",
        "softirqs",
        "slabinfo",
        "timer_list",
        "sched_debug",
        "config.gz",
        "keys",
        "key-users",
        "iomem",
        "ioports",
        "locks",
        "misc",
        "consoles",
        "crypto",
        "execdomains",
        "cgroups",
        "pagetypeinfo",
        "schedstat",
        "latency_stats",
    ] {
        tried.holds(&format!("/proc/{name} is empty"), read(name).is_empty());
    }
    for name in ["acpi", "bus", "driver", "fs", "irq", "pressure", "tty", "scsi", "asound", "sys/fs/binfmt_misc"] {
        let entries = fs::read_dir(format!("/proc/{name}")).map_or(0, Iterator::count);
        tried.holds(&format!("/proc/{name} is empty"), entries == 0);
    }
    for (name, expected) in [
        ("cmdline", "\n"),
        ("loadavg", "0.00 0.00 0.00 1/1 1\n"),
        ("uptime", "0.00 0.00\n"),
        ("sys/kernel/osrelease", "6.1.0\n"),
        ("sys/kernel/hostname", "localhost\n"),
        ("sys/kernel/domainname", "(none)\n"),
        ("sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n"),
    ] {
        tried.holds(&format!("/proc/{name}"), read(name) == expected);
    }
    tried.holds("version", read("version").starts_with("Linux version 6.1.0 "));
    tried.holds("memory", read("meminfo").starts_with("MemTotal:        8388608 kB\n"));
    tried.holds("model", read("cpuinfo").contains("model name\t: Ampoule virtual processor\n"));
    tried.holds("statistics", read("stat").contains("btime 1\n") && read("stat").contains("ctxt 0\n"));
    let uuids = [read("sys/kernel/random/uuid"), read("sys/kernel/random/uuid")];
    tried.holds("fresh identifiers", uuids[0] != uuids[1] && uuids[0].len() == 37);
}

fn signals(tried: &mut Tried) {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSTOP, libc::SIGSEGV] {
        // Init ignores what comes from below; a fence may refuse it too.
        let _ = call(libc::SYS_kill, [1, c_long::from(signal), 0, 0, 0]);
        let _ = call(libc::SYS_tgkill, [1, 1, c_long::from(signal), 0, 0]);
    }
    // Numbers of the host's processes name nobody here.
    for process in [100_000, 500_000, 2, 300] {
        if process != c_long::from(std::process::id()) {
            let result = call(libc::SYS_kill, [process, 0, 0, 0, 0]);
            tried.refused("a process of the host", result, &[libc::ESRCH]);
        }
    }
    tried.holds("init's number", std::os::unix::process::parent_id() == 1);
}
