//! What a sandbox gives, and what it must not let through.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::time::{Duration, Instant};

use ampoule_eval::sandbox::{Bytes, Engine, EngineError, Exit, Input, Root, Spec};
use rustix::fs::{Dir, FileType, Mode, OFlags, openat};

use crate::Case;
use crate::workshop::{OUT, Workshop, processes_with};

pub(crate) const CASES: &[Case] = &[
    ("a script makes an output and a log", script),
    ("a builtin makes an output and a log", builtin),
    ("a builtin may have threads", |workshop| {
        assert_eq!(workshop.succeed(&workshop.builtin("threads")).log, "28 true\n")
    }),
    ("a builtin that panics fails", panicking),
    ("exit codes and signals are told apart", exits),
    ("the environment is exactly the spec's", environment),
    ("the build sees the promised identity", identity),
    ("files are there from the start", build_files),
    ("a tree needs no mount points", tree),
    ("inputs are read-only", inputs),
    ("an input may be a file or a link", odd_inputs),
    ("the root is read-only", |workshop| drop(workshop.succeed(&workshop.builtin("root")))),
    ("files of the host are out of reach", host),
    ("there is no network", network),
    ("no descriptor can be handed to the host", handing_over),
    ("a socket among the inputs leads nowhere", socket_input),
    ("two builds share nothing", nothing_shared),
    ("a link in place of a directory deletes nothing outside", swapped_directory),
    ("inputs look the same whatever holds them", same_inputs),
    ("inputs cannot be linked into outputs", linked_inputs),
    ("no set-id files can be made", |workshop| drop(workshop.succeed(&workshop.builtin("set-id")))),
    ("no privileges can be gained", |workshop| drop(workshop.succeed(&workshop.builtin("privileges")))),
    ("kernel settings are out of reach", |workshop| drop(workshop.succeed(&workshop.builtin("settings")))),
    ("init is out of reach", |workshop| drop(workshop.succeed(&workshop.builtin("init")))),
    ("nothing but the streams is inherited", descriptors),
    ("daemons die with the builder", daemons),
    ("processes are limited", processes),
    ("a fork bomb is stopped", bomb),
    ("a flood of log is stopped", flood),
    ("an endless build is stopped", endless),
    ("a silent build is stopped", silent),
    ("disk space is limited", disk),
    ("numbers of files are limited", files),
    ("memory is limited", memory),
    ("memory is limited for all processes together, if root runs them", memory_together),
    ("groups of a killed run are removed by the next", abandoned_groups),
    ("a missing builder is told", missing),
    ("an output may be a link, and is not followed", link),
    ("outputs can be read whatever their modes", modes),
    ("a killed caller leaves no process", killed),
    ("a killed helper is told and leaves no process", killed_helper),
    ("closing the streams is no reason to hurry", closed_streams),
    ("a log that cannot be written stops the build", broken_log),
    ("an impossible spec is refused", impossible),
    ("a missing input is told", missing_input),
    ("many builds run at once", at_once),
    ("running builds share no user of the host, if root runs them", users),
];

fn script(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script("echo hello; echo world >&2; mkdir $out; echo made > $out/file"));
    assert_eq!(finished.log, "hello\nworld\n");
    assert_eq!(finished.output("file"), "made\n");
}

fn builtin(workshop: &Workshop) {
    let mut spec = workshop.builtin("output");
    spec.env.insert("key".into(), "value".into());
    let finished = workshop.succeed(&spec);
    assert_eq!(finished.log, "on standard output\non standard error\n");
    assert_eq!(finished.output("file"), "Ok(\"value\")");
    assert!(finished.output("env").contains("\"key\": \"value\""));
}

fn panicking(workshop: &Workshop) {
    let finished = workshop.end(&workshop.builtin("panic"), Exit::Code(101));
    assert!(finished.log.contains("a builtin panics"), "{}", finished.log);
}

fn exits(workshop: &Workshop) {
    workshop.end(&workshop.script("exit 7"), Exit::Code(7));
    workshop.end(&workshop.script("kill -9 $$"), Exit::Signal(9));
    workshop.end(&workshop.script("kill -TERM $$"), Exit::Signal(15));
}

fn environment(workshop: &Workshop) {
    let mut spec = workshop.exec("/bin/env", &[]);
    spec.env = [("B", &b"2"[..]), ("A", b"1"), ("C", b"\xff\n")]
        .map(|(key, value)| (Bytes::from(key), Bytes::from(value)))
        .into();
    assert_eq!(workshop.succeed(&spec).log, "A=1\nB=2\nC=\u{fffd}\n\n");
}

fn identity(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script(
        "id -u; id -g; uname -n; cat /proc/sys/kernel/domainname; umask; pwd; ulimit -c; cat /proc/self/oom_score_adj",
    ));
    assert_eq!(finished.log, "1000\n100\nlocalhost\n(none)\n0022\n/build\n0\n500\n");
    let finished = workshop.succeed(&workshop.script("cat /etc/passwd; echo $0"));
    assert!(finished.log.contains("nixbld:x:1000:100:"), "{}", finished.log);
    assert!(finished.log.ends_with("\nsh\n"), "{}", finished.log);
}

fn build_files(workshop: &Workshop) {
    let mut spec = workshop.script("cat attrs; echo more >> attrs");
    spec.build_files.insert("attrs".into(), "text\n".into());
    assert_eq!(workshop.succeed(&spec).log, "text\n");
}

fn tree(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script("ls /; cat /etc/marker; echo; ls /nix; readlink /bin"));
    let expected = "bin\nbuild\ndev\netc\nlib\nlib64\nnix\nproc\ntmp\nusr\nof the tree\nstore\nusr/bin\n";
    assert_eq!(finished.log, expected);
    let denied = workshop.run(&workshop.script("echo x > /usr/new")).unwrap();
    assert!(denied.log.contains("Read-only file system"), "{}", denied.log);
}

fn inputs(workshop: &Workshop) {
    let input = workshop.input("input", &[("file", "content")]);
    let mut spec = workshop.builtin("inputs");
    spec.env.insert("input".into(), input.target.as_str().into());
    spec.inputs.push(input);
    workshop.succeed(&spec);
}

fn odd_inputs(workshop: &Workshop) {
    let file = workshop.path("plain");
    fs::write(&file, "plain\n").unwrap();
    let dangling = workshop.path("dangling");
    std::os::unix::fs::symlink("/nowhere", &dangling).unwrap();
    let mut spec = workshop.script("cat /nix/store/a-file; readlink /nix/store/a-link");
    spec.inputs = vec![
        Input { source: file, target: "/nix/store/a-file".into() },
        Input { source: dangling, target: "/nix/store/a-link".into() },
    ];
    assert_eq!(workshop.succeed(&spec).log, "plain\n/nowhere\n");
}

fn host(workshop: &Workshop) {
    let marker = workshop.path("marker");
    fs::write(&marker, "secret").unwrap();
    let mut spec = workshop.builtin("host");
    spec.env.insert("marker".into(), marker.to_str().unwrap().into());
    workshop.succeed(&spec);
}

fn network(workshop: &Workshop) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("sandbox-case-{}", std::process::id());
    let _unnamed = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let path = workshop.path("socket");
    let _named = UnixListener::bind(&path).unwrap();
    let mut spec = workshop.builtin("network");
    let port = tcp.local_addr().unwrap().port().to_string();
    for (key, value) in [("port", port.as_str()), ("abstract", &name), ("socket", path.to_str().unwrap())] {
        spec.env.insert(key.into(), value.into());
    }
    workshop.succeed(&spec);
}

/// What Nix and Guix fell to: a partner outside takes a descriptor of the output, and changes it after it was hashed.
fn handing_over(workshop: &Workshop) {
    let name = format!("sandbox-hand-{}", std::process::id());
    let taker = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    taker.set_nonblocking(true).unwrap();
    let mut spec = workshop.builtin("hand over");
    spec.env.insert("abstract".into(), name.as_str().into());
    workshop.succeed(&spec);
    assert_eq!(taker.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// A network namespace does not separate sockets that have a file, and a read-only mount does not either.
fn socket_input(workshop: &Workshop) {
    let input = workshop.input("with-socket", &[("file", "content")]);
    let _listener = UnixListener::bind(input.source.join("socket")).unwrap();
    let mut spec = workshop.builtin("socket input");
    spec.env.insert("socket".into(), format!("{}/socket", input.target).as_str().into());
    spec.inputs.push(input);
    workshop.succeed(&spec);
}

fn nothing_shared(workshop: &Workshop) {
    // Each writes everywhere it can, waits, and then lists what there is.
    let script = "for d in /build /tmp /dev/shm /nix/store; do echo $name > $d/of-$name; done; sleep 1; \
                  cd /; for d in /build /tmp /dev/shm /nix/store; do ls $d; done; ls -d /proc/[0-9]* | while read p; do echo process; done";
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(move || {
                let mut spec = workshop.script(script);
                spec.env.insert("name".into(), name.into());
                let log = workshop.succeed(&spec).log;
                let other = if name == "one" { "of-two" } else { "of-one" };
                assert_eq!(log.matches(&format!("of-{name}")).count(), 4, "{log}");
                assert!(!log.contains(other), "{log}");
                assert!(log.matches("process").count() <= 5, "{log}");
            });
        }
    });
}

/// What deletes a build's directory by its path follows what the build put there meanwhile.
fn swapped_directory(workshop: &Workshop) {
    let victim = workshop.path("victim-of-a-link");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("precious"), "").unwrap();
    let script = format!(
        "mkdir /build/d /tmp/d $out; (while :; do rm -rf /build/d /tmp/d; ln -s {0} /build/d; ln -s {0} /tmp/d; \
         rm /build/d /tmp/d; mkdir /build/d /tmp/d; done) & sleep 0.2; ln -s {0} $out/link",
        victim.display()
    );
    let finished = workshop.run(&workshop.exec("/bin/sh", &["-c", &script])).unwrap();
    drop(finished);
    assert!(fs::exists(victim.join("precious")).unwrap());
}

fn same_inputs(workshop: &Workshop) {
    let names: Vec<String> = (0..50).map(|number| format!("d{}/f{}", number % 3, (number * 37) % 101)).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let mut look = |name: &str| {
        let input = workshop.input(name, &files);
        files.reverse();
        let mut spec =
            workshop.script("cd $input; for d in . d0 d1 d2; do ls -Uain --time-style=+%s $d; done; cat d0/*");
        spec.env.insert("input".into(), input.target.as_str().into());
        spec.inputs.push(input);
        workshop.succeed(&spec).log
    };
    // Made in opposite orders, at other times, with other files' numbers: nothing of it is seen.
    let [first, second] = ["same-1", "same-2"].map(&mut look);
    // The parent of the topmost directory is the store, and is written to.
    let without_parent = |log: &str| log.lines().filter(|line| !line.ends_with(" ..")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_parent(&first), without_parent(&second));
    assert!(first.lines().any(|line| line.contains(" 1 f")), "{first}");
}

fn linked_inputs(workshop: &Workshop) {
    let input = workshop.input("linked", &[("file", "content")]);
    let mut spec = workshop.builtin("link inputs");
    spec.env.insert("input".into(), input.target.as_str().into());
    spec.inputs.push(input);
    workshop.succeed(&spec);
}

fn descriptors(workshop: &Workshop) {
    assert_eq!(workshop.succeed(&workshop.builtin("descriptors")).log, "again\n");
    let listed = workshop.succeed(&workshop.script("ls /proc/self/fd")).log;
    assert_eq!(listed, "0\n1\n2\n3\n");
}

/// A number that no other process's command line has in it.
fn marker(purpose: u32) -> String {
    format!("{}{purpose:03}987", std::process::id())
}

fn daemons(workshop: &Workshop) {
    let marker = marker(1);
    // One keeps the log open; one has left its session and holds nothing.
    let script = format!(
        "sleep {marker} & (setsid sleep {marker} </dev/null >/dev/null 2>&1 &); (setsid sleep {marker} &); \
         mkdir $out; echo done"
    );
    let started = Instant::now();
    let finished = workshop.succeed(&workshop.script(&script));
    assert_eq!(finished.log, "done\n");
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert!(started.elapsed() < Duration::from_secs(600), "the daemons were waited for");
}

fn processes(workshop: &Workshop) {
    let mut spec = workshop.builtin("processes");
    spec.limits.processes = 40;
    // Init and the builder count too; all belong to one user of one user namespace.
    let Exit::Code(count) = workshop.run(&spec).unwrap().outcome.exit else { panic!("it has an exit code") };
    assert!((30..=40).contains(&count), "{count} processes");
}

fn bomb(workshop: &Workshop) {
    let marker = marker(2);
    let script = format!("bomb() {{ bomb | bomb & }}; bomb 2>/dev/null; bomb 2>/dev/null; sleep {marker}");
    let mut spec = workshop.exec("/bin/sh", &["-c", &script]);
    spec.limits.processes = 100;
    spec.limits.timeout_seconds = 2;
    let finished = workshop.run(&spec).unwrap();
    // The shell gives up when it cannot fork, if it was not stopped before.
    assert!(!finished.outcome.exit.success(), "{:?}", finished.outcome.exit);
    assert_eq!(processes_with(&marker), Vec::<String>::new());
}

fn flood(workshop: &Workshop) {
    let mut spec = workshop.builtin("flood");
    spec.limits.log_bytes = 1 << 20;
    assert_eq!(workshop.end(&spec, Exit::LogLimit).log.len(), 1 << 20);
}

fn endless(workshop: &Workshop) {
    let mut spec = workshop.exec("/bin/sh", &["-c", "while :; do :; done"]);
    spec.limits.timeout_seconds = 1;
    workshop.end(&spec, Exit::TimedOut);
}

fn silent(workshop: &Workshop) {
    let marker = marker(3);
    let mut spec = workshop.script(&format!("echo once; mkdir $out; sleep {marker}"));
    spec.limits.silence_seconds = 1;
    assert_eq!(workshop.end(&spec, Exit::Silent).log, "once\n");
    assert_eq!(processes_with(&marker), Vec::<String>::new());
}

fn disk(workshop: &Workshop) {
    let mut spec = workshop.builtin("fill");
    spec.limits.output_bytes = 8 << 20;
    let written: u64 = workshop.succeed(&spec).log.trim().parse().unwrap();
    assert!((7 << 20..=8 << 20).contains(&written), "{written} bytes");
}

fn files(workshop: &Workshop) {
    let mut spec = workshop.builtin("files");
    spec.limits.output_bytes = 1 << 20;
    let made: u64 = workshop.succeed(&spec).log.trim().parse().unwrap();
    assert!((1..5000).contains(&made), "{made} files");
}

fn memory(workshop: &Workshop) {
    let mut spec = workshop.builtin("memory");
    spec.limits.memory_bytes = Some(128 << 20);
    workshop.succeed(&spec);
}

/// The directories of control groups that have memory, as this process sees them.
fn memory_groups() -> Vec<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path.to_owned());
    own.map(|path| format!("/sys/fs/cgroup/memory{}", path.trim_end_matches('/'))).into_iter().collect()
}

fn can_make_groups() -> bool {
    let can = rustix::process::geteuid().is_root() && memory_groups().iter().any(|group| fs::metadata(group).is_ok());
    if !can {
        println!("skipped: no control groups can be made here");
    }
    can
}

fn memory_together(workshop: &Workshop) {
    if !can_make_groups() {
        return;
    }
    // Each process stays below the limit; together, with what they write, they do not.
    let mut spec = workshop.script(
        "cat /proc/self/cgroup; i=0; while [ $i -lt 12 ]; do head -c 8000000 /dev/zero > /tmp/$i; i=$((i+1)); done",
    );
    spec.limits.memory_bytes = Some(32 << 20);
    spec.limits.output_bytes = 1 << 30;
    let finished = workshop.run(&spec).unwrap();
    assert!(!finished.outcome.exit.success(), "{}", finished.log);
    // The names of the groups, which have the number of a process in them, are not seen.
    assert!(finished.log.contains(":memory:/\n") && !finished.log.contains("ampoule"), "{}", finished.log);
    spec.limits.memory_bytes = Some(512 << 20);
    workshop.succeed(&spec);
}

fn abandoned_groups(workshop: &Workshop) {
    if !can_make_groups() {
        return;
    }
    // A run whose zygote has not looked for groups yet.
    let group = format!("{}/ampoule-{}-1-0", memory_groups()[0], std::process::id());
    fs::create_dir(&group).unwrap();
    let base = workshop.path("groups");
    fs::create_dir(&base).unwrap();
    let program = std::env::current_exe().unwrap();
    assert!(Command::new(program).args(["--limited", "x"]).arg(base).status().unwrap().success());
    assert!(!fs::exists(&group).unwrap());
    let left: Vec<_> = fs::read_dir(&memory_groups()[0]).unwrap().flatten().map(|entry| entry.file_name()).collect();
    let own = format!("ampoule-{}", std::process::id());
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&own)), "{left:?}");
}

/// The other process of [`abandoned_groups`]: runs a limited build.
pub(crate) fn be_limited(workshop: &Workshop) {
    let mut spec = workshop.builtin("nothing");
    spec.limits.memory_bytes = Some(512 << 20);
    workshop.succeed(&spec);
}

fn missing(workshop: &Workshop) {
    for (program, expected) in [("/bin/nothing", "not in the sandbox"), ("/etc", "denied"), ("/etc/marker", "denied")] {
        let finished = workshop.run(&workshop.exec(program, &[])).unwrap();
        let Exit::NotStarted(reason) = finished.outcome.exit else { panic!("{:?}", finished.outcome.exit) };
        assert!(reason.contains(program) && reason.contains(expected), "{reason}");
    }
}

fn link(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script("ln -s /etc/passwd $out; ln -s / $out-2"));
    let mode = finished.mode(OUT.rsplit('/').next().unwrap()).unwrap();
    assert_eq!(FileType::from_raw_mode(mode), FileType::Symlink);
}

fn modes(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script(
        "mkdir -p $out/a/b; echo x > $out/a/b/f; ln -s / $out/a/link; chmod 0 $out/a/b/f $out/a/b $out/a; \
         mkdir $out/deep; cd $out/deep; for i in 1 2 3 4 5; do mkdir d; chmod 0300 .; cd d; done; chmod 0 ../../d $out",
    ));
    assert_eq!(finished.output("a/b/f"), "x\n");
    assert_ne!(finished.output("a/b/f"), "");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = OUT.rsplit('/').next().unwrap();
    let deep = openat(&finished.outcome.store, format!("{name}/deep/d/d/d"), flags, Mode::empty()).unwrap();
    assert!(Dir::new(deep).unwrap().count() >= 3);
}

/// The other process of [`killed`]: runs a build that does not end.
pub(crate) fn be_victim(workshop: &Workshop, marker: &str) {
    let script = format!("setsid sleep {marker} & sleep {marker}");
    let _ = workshop.run(&workshop.script(&script));
}

fn killed(workshop: &Workshop) {
    let base = workshop.path("victim");
    fs::create_dir(&base).unwrap();
    let marker = marker(4);
    let program = std::env::current_exe().unwrap();
    let mut victim = Command::new(program).args(["--victim", &marker]).arg(base).spawn().unwrap();
    // The victim itself, its zygote, init, the shell and two sleeps.
    wait_until(|| processes_with(&marker).len() >= 5);
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until(|| processes_with(&marker).is_empty());
}

/// The other process of [`killed_helper`]: its build ends in an error, and so does the next.
pub(crate) fn be_helpless(workshop: &Workshop, marker: &str) {
    let script = format!("sleep {marker}");
    let error = workshop.run(&workshop.script(&script)).unwrap_err();
    assert!(matches!(error, EngineError::Died), "{error}");
    let error = workshop.run(&workshop.script(&script)).unwrap_err();
    assert!(matches!(error, EngineError::Lost { .. }), "{error}");
}

fn killed_helper(workshop: &Workshop) {
    let base = workshop.path("helpless");
    fs::create_dir(&base).unwrap();
    let marker = marker(6);
    let program = std::env::current_exe().unwrap();
    let mut caller = Command::new(program).args(["--helpless", &marker]).arg(base).spawn().unwrap();
    wait_until(|| processes_with(&format!("sleep\0{marker}")).len() == 1);
    let is_child = |process: &String| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent == Some(&caller.id().to_string())
    };
    let zygote = processes_with(&marker).into_iter().find(is_child).unwrap();
    Command::new("kill").args(["-9", &zygote]).status().unwrap();
    assert!(caller.wait().unwrap().success());
    wait_until(|| processes_with(&marker).is_empty());
}

fn closed_streams(workshop: &Workshop) {
    let finished = workshop.succeed(&workshop.script("exec >/dev/null 2>&1; sleep 0.3; echo unheard; mkdir $out"));
    assert_eq!(finished.log, "");
    assert!(finished.outcome.duration >= Duration::from_millis(300));
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not come about");
}

fn broken_log(workshop: &Workshop) {
    struct Broken;
    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let marker = marker(5);
    let spec = workshop.script(&format!("echo x; sleep {marker}"));
    let error = workshop.engine.run(&spec, &mut Broken).unwrap_err();
    assert!(matches!(error, EngineError::Log(_)), "{error}");
    assert_eq!(processes_with(&marker), Vec::<String>::new());
}

fn impossible(workshop: &Workshop) {
    let change = |change: fn(&mut Spec)| {
        let mut spec = workshop.builtin("nothing");
        change(&mut spec);
        assert!(matches!(workshop.run(&spec).unwrap_err(), EngineError::Spec(_)));
    };
    change(|spec| spec.store_dir = "/etc/store".into());
    change(|spec| spec.store_dir = "/nix/../store".into());
    change(|spec| spec.inputs.push(Input { source: "/".into(), target: "/nix/store/a/b".into() }));
    change(|spec| spec.inputs.push(Input { source: "/".into(), target: "/nix/store/..".into() }));
    change(|spec| drop(spec.build_files.insert("../x".into(), Bytes::default())));
    change(|spec| drop(spec.env.insert("a=b".into(), Bytes::default())));
}

fn missing_input(workshop: &Workshop) {
    let mut spec = workshop.builtin("nothing");
    spec.inputs.push(Input { source: "/nonexistent/x".into(), target: "/nix/store/x".into() });
    let error = workshop.run(&spec).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot set up the sandbox: cannot open `/nonexistent/x`: No such file or directory (os error 2)"
    );
    spec.inputs.clear();
    spec.root = Root::Tree("/nonexistent/tree".into());
    assert!(workshop.run(&spec).is_err());
    assert_eq!(workshop.run(&workshop.builtin("nothing")).unwrap().outcome.exit, Exit::Code(0));
}

fn at_once(workshop: &Workshop) {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for round in 0..5 {
                    let mut spec = workshop.script("echo $text > $out; id -u; cat $out");
                    let text = format!("{number} {round}");
                    spec.env.insert("text".into(), text.as_str().into());
                    let finished = workshop.succeed(&spec);
                    assert_eq!(finished.log, format!("1000\n{text}\n"));
                    assert_eq!(finished.output(""), format!("{text}\n"));
                }
            });
        }
    });
}

fn users(workshop: &Workshop) {
    let markers = [marker(7), marker(8)];
    let user_of = |marker: &String| {
        let process = processes_with(&format!("sleep\0{marker}")).pop().unwrap();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap().to_owned();
        line.split('\t').map(|user| user.parse().unwrap()).collect::<Vec<u32>>()
    };
    std::thread::scope(|scope| {
        for marker in &markers {
            let mut spec = workshop.script(&format!("sleep {marker}"));
            spec.limits.timeout_seconds = 10;
            scope.spawn(move || workshop.end(&spec, Exit::TimedOut));
        }
        wait_until(|| markers.iter().all(|marker| !processes_with(&format!("sleep\0{marker}")).is_empty()));
        let [first, second] = [&markers[0], &markers[1]].map(user_of);
        let own = rustix::process::geteuid();
        if own.is_root() {
            assert!(first.iter().chain(&second).all(|user| *user > 65_536), "{first:?} {second:?}");
            assert!(first.iter().all(|user| !second.contains(user)), "{first:?} {second:?}");
        } else {
            assert!(first.iter().chain(&second).all(|user| *user == own.as_raw()), "{first:?} {second:?}");
        }
    });
}
