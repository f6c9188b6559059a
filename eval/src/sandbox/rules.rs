//! What a build may not ask the kernel for, and why: a table.
//!
//! Namespaces and missing capabilities already stop much of it. The rules are a second fence there, and the only one
//! where neither reaches: set-id files, devices made of nothing, sockets of the machine's host, work that the kernel
//! does for a process outside these rules.

use libc::c_long;

/// One row of the table.
pub(super) struct Rule {
    /// The calls it is about.
    pub(super) calls: &'static [c_long],
    /// When it applies.
    pub(super) when: When,
    /// The error a build gets.
    pub(super) errno: i32,
    /// Why.
    #[cfg_attr(not(test), expect(dead_code, reason = "for people, and for the test of the documentation"))]
    pub(super) why: &'static str,
}

/// When a rule applies. Arguments are named by their index; their lower 32 bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// The argument has any of these bits.
    AnyBit(u32, u32),
    /// Two arguments each have any of their bits.
    BothBits((u32, u32), (u32, u32)),
    /// The argument is one of these.
    OneOf(u32, &'static [u32]),
    /// The argument is none of these.
    NoneOf(u32, &'static [u32]),
}

const fn always(calls: &'static [c_long], errno: i32, why: &'static str) -> Rule {
    Rule { calls, when: When::Always, errno, why }
}

/// The first number that no rule has been thought about. Numbers are the same on all architectures from 424 on.
pub(super) const FIRST_UNKNOWN: u32 = 470;

// Calls newer than the libc crate.
const CACHESTAT: c_long = 451;
const FCHMODAT2: c_long = 452;
const STATMOUNT: c_long = 457;
const LISTMOUNT: c_long = 458;
const LSM_GET_SELF_ATTR: c_long = 459;
const LSM_SET_SELF_ATTR: c_long = 460;
const LSM_LIST_MODULES: c_long = 461;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_GETATTR: c_long = 468;
const FILE_SETATTR: c_long = 469;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
/// A bit that the kinds of both devices have, and no kind that may be made.
const DEVICE: u32 = libc::S_IFCHR;
const CREATES: u32 = (libc::O_CREAT | libc::O_TMPFILE) as u32 & !(libc::O_DIRECTORY as u32);
/// `CLONE_NEW*`, but for time, whose bit `clone` uses for the signal.
const NAMESPACES: u32 = 0x7e02_0000;
const TIME_NAMESPACE: u32 = 0x80;
const FAMILIES: &[u32] = &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];
const RENAME_WHITEOUT: u32 = 4;
const ADDR_NO_RANDOMIZE: u32 = 0x4_0000;
const TELL_PERSONALITY: u32 = 0xffff_ffff;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCSETD: u32 = 0x5423;

/// The table.
pub(super) const RULES: &[Rule] = &[
    Rule {
        calls: &[libc::SYS_openat],
        when: When::BothBits((2, CREATES), (3, SET_ID)),
        errno: libc::EPERM,
        why: "A new file keeps the set-id bits of its mode: no chmod is needed.",
    },
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_open],
        when: When::BothBits((1, CREATES), (2, SET_ID)),
        errno: libc::EPERM,
        why: "As for openat.",
    },
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_creat, libc::SYS_chmod],
        when: When::AnyBit(1, SET_ID),
        errno: libc::EPERM,
        why: "Programs with the rights of the build's user must not outlive the build.",
    },
    Rule { calls: &[libc::SYS_fchmod], when: When::AnyBit(1, SET_ID), errno: libc::EPERM, why: "As for chmod." },
    Rule {
        calls: &[libc::SYS_fchmodat, FCHMODAT2],
        when: When::AnyBit(2, SET_ID),
        errno: libc::EPERM,
        why: "As for chmod.",
    },
    Rule {
        calls: &[libc::SYS_mknodat],
        when: When::AnyBit(2, SET_ID | DEVICE),
        errno: libc::EPERM,
        why: "Makes set-id files too, and the device 0:0, which overlay file systems take for a deleted file, needs no \
              capability.",
    },
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_mknod],
        when: When::AnyBit(1, SET_ID | DEVICE),
        errno: libc::EPERM,
        why: "As for mknodat.",
    },
    Rule {
        calls: &[libc::SYS_renameat2],
        when: When::AnyBit(4, RENAME_WHITEOUT),
        errno: libc::EINVAL,
        why: "Leaves the device 0:0 behind.",
    },
    Rule {
        calls: &[libc::SYS_clone],
        when: When::AnyBit(0, NAMESPACES),
        errno: libc::EPERM,
        why: "A new namespace gives capabilities over its own kind, and much kernel surface with them.",
    },
    Rule {
        calls: &[libc::SYS_unshare],
        when: When::AnyBit(0, NAMESPACES | TIME_NAMESPACE),
        errno: libc::EPERM,
        why: "As for clone.",
    },
    Rule {
        calls: &[libc::SYS_socket, libc::SYS_socketpair],
        when: When::NoneOf(0, FAMILIES),
        errno: libc::EAFNOSUPPORT,
        why: "A network namespace stops neither vsock, which reaches the machine's host, nor some of the rarer families.",
    },
    Rule {
        calls: &[libc::SYS_ioctl],
        when: When::OneOf(1, &[TIOCSTI, TIOCLINUX, TIOCSETD]),
        errno: libc::EPERM,
        why: "Typing into a terminal that somebody else reads; line disciplines are kernel surface no build needs.",
    },
    Rule {
        calls: &[libc::SYS_prlimit64],
        when: When::NoneOf(0, &[0]),
        errno: libc::EPERM,
        why: "Init has the build's user: a build could take files or time from it. 0 is the caller itself.",
    },
    Rule {
        calls: &[libc::SYS_personality],
        when: When::NoneOf(0, &[0, ADDR_NO_RANDOMIZE, TELL_PERSONALITY]),
        errno: libc::EPERM,
        why: "Other machines and memory layouts are not part of what a build may rely on, and weaken its own defences.",
    },
    always(
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            OPEN_TREE_ATTR,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
        ],
        libc::EPERM,
        "What a build sees is fixed.",
    ),
    always(&[libc::SYS_setns], libc::EPERM, "Other namespaces are somebody else's."),
    always(
        &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key],
        libc::EPERM,
        "No namespace separates keyrings; they outlive processes and are shared by all of a user.",
    ),
    always(
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_process_mrelease,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
        ],
        libc::EPERM,
        "Other processes' memory and descriptors, init's among them.",
    ),
    always(
        &[libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_memfd_secret],
        libc::EPERM,
        "Kernel surface with a long list of holes; counters tell about the host.",
    ),
    always(
        &[libc::SYS_fanotify_init, libc::SYS_fanotify_mark, libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at],
        libc::EPERM,
        "Handles name files past every view; watches tell of others.",
    ),
    always(
        &[
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_acct,
            libc::SYS_syslog,
            libc::SYS_vhangup,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_lookup_dcookie,
            libc::SYS_nfsservctl,
        ],
        libc::EPERM,
        "Administration of the machine.",
    ),
    always(
        &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime],
        libc::EPERM,
        "The clock is the machine's; reading its corrections tells the time past the one that is shown.",
    ),
    #[cfg(target_arch = "x86_64")]
    always(
        &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib],
        libc::EPERM,
        "Hardware and segments, for programs of another age.",
    ),
    #[cfg(target_arch = "x86_64")]
    always(
        &[libc::SYS_sysfs, libc::SYS_ustat, libc::SYS__sysctl],
        libc::ENOSYS,
        "They tell about the kernel and its file systems; new kernels lack them too.",
    ),
    always(
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
        libc::ENOSYS,
        "Does its work outside system-call filters: it would open sockets and set-id files for a build.",
    ),
    always(
        &[libc::SYS_clone3, libc::SYS_openat2],
        libc::ENOSYS,
        "Their flags lie behind pointers, which a filter cannot follow; libraries fall back to clone and openat.",
    ),
    always(
        &[STATMOUNT, LISTMOUNT, LSM_GET_SELF_ATTR, LSM_SET_SELF_ATTR, LSM_LIST_MODULES, CACHESTAT],
        libc::ENOSYS,
        "They tell about the host's mounts, guards and memory.",
    ),
    always(
        &[
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            libc::SYS_fremovexattr,
            SETXATTRAT,
            REMOVEXATTRAT,
            FILE_GETATTR,
            FILE_SETATTR,
        ],
        libc::ENOTSUP,
        "Extended attributes and flags are not part of a store object.",
    ),
];
