//! Builtin builders of the tests: each tries what must not work, says what happened, and fails if it worked.

use std::ffi::{CString, c_long};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ampoule_eval::sandbox::BuiltinCall;

use crate::conditions;
use crate::escapes::ATTACKS;

/// The function given to the engine.
pub(crate) fn run(call: &BuiltinCall) -> i32 {
    let mut tried = Tried::default();
    match call.name.as_str() {
        "nothing" => {}
        "panic" => panic!("a builtin panics"),
        "output" => output(call),
        "inputs" => inputs(call, &mut tried),
        "root" => root(&mut tried),
        "host" => host(call, &mut tried),
        "network" => network(call, &mut tried),
        "hand over" => hand_over(call, &mut tried),
        "socket input" => {
            let denied = [libc::ENOENT, libc::ECONNREFUSED, libc::EACCES];
            tried.refused("a socket among the inputs", UnixStream::connect(&call.env["socket"]), &denied);
        }
        "link inputs" => link_inputs(call, &mut tried),
        "set-id" => set_id(&mut tried),
        "privileges" => privileges(&mut tried),
        "settings" => settings(&mut tried),
        "processes" => return processes(),
        "flood" => flood(),
        "fill" => fill(call),
        "files" => many_files(call),
        "memory" => memory(&mut tried),
        "descriptors" => descriptors(&mut tried),
        "init" => init(&mut tried),
        "clock" => conditions::print_clock(),
        "monotonic" => conditions::print_monotonic(),
        "wait" => conditions::wait_until(),
        "random" => conditions::print_random(),
        "threads" => threads(),
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        other => match ATTACKS.iter().find(|(name, _)| *name == other) {
            Some((_, attack)) => attack(&mut tried),
            None => panic!("no builtin {other}"),
        },
    }
    i32::from(tried.escaped)
}

/// Whether anything worked that must not.
#[derive(Default)]
pub(crate) struct Tried {
    escaped: bool,
}

impl Tried {
    /// Notes an attempt that has to fail with one of these errors.
    pub(crate) fn refused<T>(&mut self, what: &str, result: io::Result<T>, expected: &[i32]) {
        match result {
            Err(error) if error.raw_os_error().is_some_and(|errno| expected.contains(&errno)) => {}
            Err(error) => {
                println!("{what}: failed, but not as expected: {error}");
                self.escaped = true;
            }
            Ok(_) => {
                println!("{what}: WORKED");
                self.escaped = true;
            }
        }
    }

    pub(crate) fn holds(&mut self, what: &str, holds: bool) {
        if !holds {
            println!("{what}: does not hold");
            self.escaped = true;
        }
    }
}

pub(crate) fn call(number: c_long, arguments: [c_long; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the arguments are integers, null, or point to C strings that outlive the call.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

pub(crate) fn text(text: &std::ffi::CStr) -> c_long {
    text.as_ptr() as c_long
}

fn output(call: &BuiltinCall) {
    println!("on standard output");
    eprintln!("on standard error");
    fs::create_dir(&call.out).unwrap();
    fs::write(call.out.join("file"), format!("{:?}", std::env::var("key"))).unwrap();
    fs::write(call.out.join("env"), format!("{:?}", call.env)).unwrap();
}

fn inputs(call: &BuiltinCall, tried: &mut Tried) {
    let input = Path::new(&call.env["input"]);
    let denied = [libc::EROFS, libc::EACCES, libc::EPERM];
    tried.holds("reading an input", fs::read_to_string(input.join("file")).is_ok_and(|content| content == "content"));
    tried.refused("writing to an input", fs::write(input.join("file"), "x"), &denied);
    tried.refused("adding to an input", fs::write(input.join("new"), "x"), &denied);
    tried.refused("removing from an input", fs::remove_file(input.join("file")), &denied);
    let mode = fs::Permissions::from_mode(0o777);
    tried.refused("changing the mode of an input", fs::set_permissions(input.join("file"), mode), &denied);
    let busy = [libc::EBUSY, libc::EROFS, libc::EACCES, libc::EPERM];
    tried.refused("removing an input", fs::remove_dir(input), &busy);
    tried.refused("moving an input", fs::rename(input, input.with_file_name("moved")), &busy);
    tried.refused("linking into the output", fs::hard_link(input.join("file"), &call.out), &[libc::EXDEV, libc::EPERM]);
    // The store directory itself takes outputs.
    fs::write(&call.out, "mine").unwrap();
}

fn root(tried: &mut Tried) {
    for path in ["/new", "/etc/new", "/dev/new", "/nix/new", "/proc/new"] {
        let denied = [libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOENT];
        tried.refused(path, fs::write(path, "x"), &denied);
    }
    tried.refused("/etc/passwd", fs::write("/etc/passwd", "x"), &[libc::EROFS]);
    tried.holds("no /sys", !Path::new("/sys").exists());
    for path in ["/build/new", "/tmp/new", "/dev/shm/new", "/dev/null", "/dev/full"] {
        let result = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
        tried.holds(&format!("opening {path} for writing: {:?}", result.as_ref().err()), result.is_ok());
    }
    tried.refused("/dev/full", fs::write("/dev/full", "x"), &[libc::ENOSPC]);
    let mut bytes = [0; 8];
    tried.holds("/dev/urandom", fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).is_ok());
    let terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx");
    tried.holds(&format!("a pseudo-terminal: {:?}", terminal.as_ref().err()), terminal.is_ok());
}

fn host(call: &BuiltinCall, tried: &mut Tried) {
    let marker = &call.env["marker"];
    tried.refused("a file of the host", fs::read(marker), &[libc::ENOENT]);
    for root in ["/proc/1/root", "/proc/1/cwd", "/proc/self/root/.."] {
        tried.refused(root, fs::read(format!("{root}{marker}")), &[libc::ENOENT, libc::EACCES, libc::EPERM]);
    }
    let own: Vec<_> = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name()).collect();
    let processes = own.iter().filter(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())).count();
    tried.holds("only init and the builder are seen", processes == 2);
    tried.holds("the host's command line", fs::read_to_string("/proc/cmdline").unwrap().trim().is_empty());
    tried.holds("the caller's environment is wiped", std::env::var_os("HOME").is_none());
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    tried.holds("also in memory", environment.iter().all(|byte| *byte == 0));
    let arguments = fs::read("/proc/1/cmdline").unwrap_or_default();
    tried.holds("init's command line does not tell the caller's", arguments.iter().all(|byte| *byte == 0));
    for name in ["/.scratch", "/.views"] {
        tried.holds(name, !Path::new(name).exists());
    }
}

fn network(call: &BuiltinCall, tried: &mut Tried) {
    let port: u16 = call.env["port"].parse().unwrap();
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    tried.refused("the host's loopback", TcpStream::connect(loopback), &[libc::ECONNREFUSED]);
    let far = SocketAddr::from(([192, 0, 2, 1], 80));
    let far = TcpStream::connect_timeout(&far, Duration::from_secs(2));
    tried.refused("another machine", far, &[libc::ENETUNREACH]);
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&call.env["abstract"]).unwrap();
    tried.refused("an abstract socket of the host", UnixStream::connect_addr(&name), &[libc::ECONNREFUSED]);
    let path = UnixStream::connect(&call.env["socket"]);
    tried.refused("a socket file of the host", path, &[libc::ENOENT]);
    for (family, name) in [(40, "vsock"), (17, "packet"), (16 + 22, "alg"), (31, "bluetooth"), (29, "can"), (44, "xdp")]
    {
        let socket = call_socket(family);
        tried.refused(name, socket, &[libc::EAFNOSUPPORT]);
    }
    // The build's own loopback works.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    tried.holds("its own loopback", TcpStream::connect(listener.local_addr().unwrap()).is_ok());
}

/// Reaches for a partner outside, by its name and by its descriptor's.
fn hand_over(call: &BuiltinCall, tried: &mut Tried) {
    let output = fs::File::create(&call.out).unwrap();
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&call.env["abstract"]).unwrap();
    tried.refused("a stream to the partner", UnixStream::connect_addr(&name), &[libc::ECONNREFUSED, libc::EPERM]);
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let refused = [libc::ECONNREFUSED, libc::EPERM, libc::EPROTOTYPE];
    tried.refused("a datagram to the partner", datagram.connect_addr(&name), &refused);
    drop(output);
}

/// An input with a second name in an output could be changed through it, if anything could.
fn link_inputs(call: &BuiltinCall, tried: &mut Tried) {
    let file = CString::new(format!("{}/file", call.env["input"])).unwrap();
    let opened = fs::File::open(Path::new(&call.env["input"]).join("file")).unwrap();
    let own = CString::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened))).unwrap();
    let out = CString::new(call.out.to_str().unwrap()).unwrap();
    let denied = [libc::EXDEV, libc::EPERM, libc::ENOENT, libc::EINVAL];
    for (from, flags) in [(&file, 0), (&file, 0x400), (&own, 0x400)] {
        let link = self::call(libc::SYS_linkat, [-100, text(from), -100, text(&out), flags]);
        tried.refused("a link to an input", link, &denied);
    }
    let descriptor = c_long::from(std::os::fd::AsRawFd::as_raw_fd(&opened));
    let link = self::call(libc::SYS_linkat, [descriptor, text(c""), -100, text(&out), 0x1000]);
    tried.refused("a link to an input's descriptor", link, &denied);
    let rename = fs::rename(Path::new(&call.env["input"]).join("file"), &call.out);
    tried.refused("an input's file moved", rename, &[libc::EXDEV, libc::EROFS, libc::EACCES]);
    fs::write(&call.out, "mine").unwrap();
}

fn call_socket(family: c_long) -> io::Result<c_long> {
    call(libc::SYS_socket, [family, c_long::from(libc::SOCK_STREAM), 0, 0, 0])
}

fn set_id(tried: &mut Tried) {
    let path = c"/build/program";
    fs::write("/build/program", "x").unwrap();
    let at = c_long::from(libc::AT_FDCWD);
    let create = c_long::from(libc::O_CREAT | libc::O_WRONLY);
    let file = fs::File::open("/build/program").unwrap();
    let descriptor = c_long::from(std::os::fd::AsRawFd::as_raw_fd(&file));
    for mode in [0o4755, 0o2755, 0o6711] {
        let attempts = [
            ("chmod", call(libc::SYS_chmod, [text(path), mode, 0, 0, 0])),
            ("fchmod", call(libc::SYS_fchmod, [descriptor, mode, 0, 0, 0])),
            ("fchmodat", call(libc::SYS_fchmodat, [at, text(path), mode, 0, 0])),
            ("fchmodat2", call(452, [at, text(path), mode, 0, 0])),
            ("creat", call(libc::SYS_creat, [text(c"/build/a"), mode, 0, 0, 0])),
            ("open", call(libc::SYS_open, [text(c"/build/b"), create, mode, 0, 0])),
            ("openat", call(libc::SYS_openat, [at, text(c"/build/c"), create, mode, 0])),
            ("mknod", call(libc::SYS_mknod, [text(c"/build/d"), mode | 0o100_000, 0, 0, 0])),
            ("mknodat", call(libc::SYS_mknodat, [at, text(c"/build/e"), mode | 0o100_000, 0, 0])),
        ];
        for (name, result) in attempts {
            tried.refused(name, result, &[libc::EPERM]);
        }
        tried.refused("openat2", call(libc::SYS_openat2, [at, text(c"/build/f"), 0, 0, 0]), &[libc::ENOSYS]);
    }
    for entry in fs::read_dir("/build").unwrap().flatten() {
        tried.holds("no set-id file exists", entry.metadata().unwrap().permissions().mode() & 0o6000 == 0);
    }
    let device = call(libc::SYS_mknod, [text(c"/build/device"), 0o020_666, 0x103, 0, 0]);
    tried.refused("a device", device, &[libc::EPERM]);
}

fn privileges(tried: &mut Tried) {
    let eperm = [libc::EPERM];
    let zero = [0; 5];
    let user = c_long::from(libc::CLONE_NEWUSER);
    let attempts = [
        ("mount", call(libc::SYS_mount, [text(c"x"), text(c"/tmp"), text(c"tmpfs"), 0, 0])),
        ("umount", call(libc::SYS_umount2, [text(c"/proc"), 2, 0, 0, 0])),
        ("open_tree", call(libc::SYS_open_tree, [-100, text(c"/"), 1, 0, 0])),
        ("fsopen", call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0])),
        ("pivot_root", call(libc::SYS_pivot_root, [text(c"/tmp"), text(c"/tmp"), 0, 0, 0])),
        ("chroot", call(libc::SYS_chroot, [text(c"/tmp"), 0, 0, 0, 0])),
        ("unshare user", call(libc::SYS_unshare, [user, 0, 0, 0, 0])),
        ("unshare net", call(libc::SYS_unshare, [c_long::from(libc::CLONE_NEWNET), 0, 0, 0, 0])),
        ("clone user", call(libc::SYS_clone, [user | 17, 0, 0, 0, 0])),
        ("clone mount", call(libc::SYS_clone, [c_long::from(libc::CLONE_NEWNS) | 17, 0, 0, 0, 0])),
        ("setns", call(libc::SYS_setns, zero)),
        ("keyctl", call(libc::SYS_keyctl, zero)),
        ("add_key", call(libc::SYS_add_key, [text(c"user"), text(c"a"), text(c"b"), 1, -4])),
        ("ptrace", call(libc::SYS_ptrace, zero)),
        ("ptrace init", call(libc::SYS_ptrace, [16, 1, 0, 0, 0])),
        ("process_vm_readv", call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0])),
        ("bpf", call(libc::SYS_bpf, zero)),
        ("perf_event_open", call(libc::SYS_perf_event_open, zero)),
        ("userfaultfd", call(libc::SYS_userfaultfd, zero)),
        ("open_by_handle_at", call(libc::SYS_open_by_handle_at, zero)),
        ("sethostname", call(libc::SYS_sethostname, [text(c"x"), 1, 0, 0, 0])),
        ("clock_settime", call(libc::SYS_clock_settime, zero)),
        ("reboot", call(libc::SYS_reboot, zero)),
        ("init_module", call(libc::SYS_init_module, zero)),
        ("syslog", call(libc::SYS_syslog, [3, 0, 0, 0, 0])),
        ("typing into a terminal", call(libc::SYS_ioctl, [0, 0x5412, text(c"x"), 0, 0])),
    ];
    for (name, result) in attempts {
        tried.refused(name, result, &eperm);
    }
    for (name, number) in [
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("clone3", libc::SYS_clone3),
        ("x32 getpid", 0x4000_0000 + libc::SYS_getpid),
    ] {
        tried.refused(name, call(number, zero), &[libc::ENOSYS]);
    }
    let attribute = call(libc::SYS_setxattr, [text(c"/build"), text(c"user.a"), text(c"b"), 1, 0]);
    tried.refused("setxattr", attribute, &[libc::ENOTSUP]);
    for identity in [0, 1, 65_534] {
        tried.refused("setuid", call(libc::SYS_setuid, [identity, 0, 0, 0, 0]), &[libc::EPERM, libc::EINVAL]);
        tried.refused("setgid", call(libc::SYS_setgid, [identity, 0, 0, 0, 0]), &[libc::EPERM, libc::EINVAL]);
    }
    tried.refused("setgroups", call(libc::SYS_setgroups, zero), &eperm);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        tried.holds(line, status.contains(&format!("{line}\t0000000000000000\n")));
    }
    tried.holds("no new privileges", status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"));
}

fn settings(tried: &mut Tried) {
    let denied = [libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOENT];
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/self/uid_map",
        "/proc/1/oom_score_adj",
        "/proc/self/oom_score_adj",
        "/proc/self/comm",
        "/proc/1/mem",
        "/proc/1/comm",
    ] {
        let opened = fs::OpenOptions::new().write(true).open(path);
        tried.refused(path, opened.and_then(|mut file| file.write_all(b"1\n")), &denied);
    }
    let offsets = fs::OpenOptions::new().write(true).open("/proc/self/timens_offsets");
    let offsets = offsets.and_then(|mut file| file.write_all(b"monotonic 1 0\n"));
    tried.refused("the time namespace", offsets, &denied);
}

/// Starts as many processes as it can; the number is its exit code.
fn processes() -> i32 {
    let mut count = 0;
    while count < 250 {
        // SAFETY: the child only sleeps.
        match unsafe { libc::fork() } {
            0 => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            -1 => return count,
            _ => count += 1,
        }
    }
    count
}

fn flood() {
    let line = [b'x'; 4096];
    while io::stdout().write_all(&line).is_ok() {}
}

/// Writes until there is no room; prints how many bytes there were.
fn fill(call: &BuiltinCall) {
    let mut total = 0_usize;
    for place in [call.out.as_path(), Path::new("/build/x"), Path::new("/tmp/x"), Path::new("/dev/shm/x")] {
        let Ok(mut file) = fs::File::create(place) else { continue };
        while let Ok(count) = file.write(&[1; 65536]) {
            total += count;
        }
    }
    println!("{total}");
}

/// Makes files until there is no room; prints how many there were.
fn many_files(call: &BuiltinCall) {
    fs::create_dir(&call.out).unwrap();
    let made = (0..1_000_000).take_while(|number| fs::write(call.out.join(number.to_string()), "").is_ok()).count();
    println!("{made}");
}

fn memory(tried: &mut Tried) {
    let mut too_much: Vec<u8> = Vec::new();
    tried.holds("no more memory than allowed", too_much.try_reserve_exact(256 << 20).is_err());
    let mut enough: Vec<u8> = Vec::new();
    tried.holds("the memory allowed", enough.try_reserve_exact(16 << 20).is_ok());
}

fn descriptors(tried: &mut Tried) {
    let open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .map(|entry| format!("{} {:?}", entry.file_name().to_string_lossy(), fs::read_link(entry.path())))
        .collect();
    // Three streams, and the directory that is being read.
    tried.holds(&format!("only the standard streams are open: {open:?}"), open.len() == 4);
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).unwrap();
    tried.holds("an empty standard input", input.is_empty());
    let reopened =
        fs::OpenOptions::new().write(true).open("/dev/stderr").and_then(|mut file| file.write_all(b"again\n"));
    tried.holds(&format!("standard error by name: {reopened:?}"), reopened.is_ok());
}

/// Attacks on process 1.
fn init(tried: &mut Tried) {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSTOP, libc::SIGSEGV] {
        // Init ignores what comes from below; a fence may refuse it too.
        let _ = call(libc::SYS_kill, [1, c_long::from(signal), 0, 0, 0]);
    }
    let denied = [libc::EACCES, libc::EPERM, libc::ENOENT];
    for file in ["mem", "environ", "maps", "auxv"] {
        tried.refused(file, fs::read(format!("/proc/1/{file}")), &denied);
    }
    tried.refused("descriptors", fs::read_dir("/proc/1/fd").map(drop), &denied);
    tried.refused("an executable", fs::read_link("/proc/1/exe"), &denied);
    let path = CString::new("/proc/1/ns/user").unwrap();
    tried.refused("a namespace", call(libc::SYS_openat, [-100, text(&path), 0, 0, 0]), &denied);
}

fn threads() {
    let sum: u64 = (0..8_u64).map(|number| std::thread::spawn(move || number)).map(|t| t.join().unwrap()).sum();
    println!("{sum} {}", SystemTime::now().elapsed().is_ok());
}
