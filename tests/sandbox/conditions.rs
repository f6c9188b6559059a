//! What a check may vary, seen from inside.

use std::time::{SystemTime, UNIX_EPOCH};

use ampoule_eval::sandbox::{Clock, Contract, Features, FileSystem, Order, Spec};

use crate::Case;
use crate::workshop::Workshop;

pub(crate) const CASES: &[Case] = &[
    ("a program sees the chosen clock", clock),
    ("a builtin sees the chosen clock", builtin_clock),
    ("waits until a time end under a chosen clock", waits),
    ("random numbers follow the seed", random),
    ("a builtin's random numbers follow the seed", builtin_random),
    ("directories list the other way round", order),
    ("the top of the root lists the other way round", top_order),
    ("processors are limited", processors),
    ("process numbers start later", process_numbers),
    ("addresses are fixed, or not", addresses),
    ("the monotonic clock starts anew", monotonic),
    ("a steady clock goes on by sleeping", steady_clock),
    ("waits until a time end under a steady clock", steady_waits),
    ("new files seem to be from the chosen second", file_times),
    ("what the build makes lists in the chosen order", own_order),
    ("a large directory lists in the chosen order", large_order),
    ("inode numbers are given out in order", inode_numbers),
    ("more processors than there are can be seen", more_processors),
    ("the build can work on disk", disk),
    ("a processor's features can be masked", features),
    ("the second of two processes can come first", delays),
    ("the contract can be another one", contract),
    ("everything at once", everything),
];

/// 2037-06-01.
const LATER: i64 = 2_127_513_600;

fn seconds(text: &str) -> i64 {
    text.trim().parse().unwrap()
}

fn clock(workshop: &Workshop) {
    let mut spec = workshop.script("date +%s; sleep 1.1; date +%s; date -u +%Y");
    spec.conditions.clock = Clock::StartAt(LATER);
    let log = workshop.succeed(&spec).log;
    let lines: Vec<&str> = log.lines().collect();
    let (first, second) = (seconds(lines[0]), seconds(lines[1]));
    assert!((LATER..LATER + 30).contains(&first), "{log}");
    assert!(second > first && second < first + 30, "{log}");
    assert_eq!(lines[2], "2037");
    spec.conditions.clock = Clock::Host;
    let now = workshop.succeed(&spec).log;
    assert!(seconds(now.lines().next().unwrap()) < LATER - 1000, "{now}");
}

fn builtin_clock(workshop: &Workshop) {
    let mut spec = workshop.builtin("clock");
    spec.conditions.clock = Clock::StartAt(LATER);
    let log = workshop.succeed(&spec).log;
    assert!(log.lines().all(|line| (LATER..LATER + 30).contains(&seconds(line))), "{log}");
    assert_eq!(log.lines().count(), 5, "{log}");
}

/// The wall clock, in all the ways there are to ask.
pub(crate) fn print_clock() {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut coarse = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut raw = coarse;
    // SAFETY: the pointers are valid.
    unsafe {
        libc::gettimeofday(&raw mut value, std::ptr::null_mut());
        libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut coarse);
        libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut raw);
        println!("{}", libc::time(std::ptr::null_mut()));
    }
    println!("{}\n{}\n{}", value.tv_sec, coarse.tv_sec, raw.tv_sec);
    println!("{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
}

fn waits(workshop: &Workshop) {
    let mut spec = workshop.builtin("wait");
    spec.conditions.clock = Clock::StartAt(LATER);
    assert_eq!(workshop.succeed(&spec).log, format!("{} 0\n", libc::ETIMEDOUT));
}

/// The seconds of the monotonic clock.
pub(crate) fn print_monotonic() {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    println!("{}", time.tv_sec);
}

/// Waits on a condition variable, and then sleeps, until a time of the wall clock.
pub(crate) fn wait_until() {
    let mut deadline = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    let mut condition = libc::PTHREAD_COND_INITIALIZER;
    // SAFETY: all pointers are valid, the mutex is held by this thread.
    unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut deadline);
        deadline.tv_sec += 1;
        libc::pthread_mutex_lock(&raw mut mutex);
        let waited = libc::pthread_cond_timedwait(&raw mut condition, &raw mut mutex, &raw const deadline);
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut deadline);
        deadline.tv_sec += 1;
        let slept =
            libc::clock_nanosleep(libc::CLOCK_REALTIME, libc::TIMER_ABSTIME, &raw const deadline, std::ptr::null_mut());
        println!("{waited} {slept}");
    }
}

fn random(workshop: &Workshop) {
    let script = "od -An -tx1 -N16 /dev/urandom; od -An -tx1 -N16 /dev/random; mktemp -u";
    let draw = |seed| {
        let mut spec = workshop.script(script);
        spec.conditions.random_seed = seed;
        workshop.succeed(&spec).log
    };
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
}

fn builtin_random(workshop: &Workshop) {
    let draw = |seed| {
        let mut spec = workshop.builtin("random");
        spec.conditions.random_seed = seed;
        workshop.succeed(&spec).log
    };
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
    let drawn = draw(Some(3));
    let lines: Vec<&str> = drawn.lines().collect();
    assert_ne!(lines[0], lines[1], "two threads must not draw the same");
}

/// Random numbers of two threads, and a long draw.
pub(crate) fn print_random() {
    let draw = |size: usize| {
        let mut bytes = vec![0_u8; size];
        // SAFETY: pointer and length describe the buffer.
        let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), size, 0) };
        assert_eq!(usize::try_from(count).unwrap(), size);
        bytes
    };
    println!("{:x?}", draw(16));
    println!("{:x?}", std::thread::spawn(move || draw(16)).join().unwrap());
    println!("{:x?}", &draw(100_000)[99_990..]);
}

fn order(workshop: &Workshop) {
    let names: Vec<String> = (0..40).map(|number| format!("dir{}/file{number}", number % 3)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let input = workshop.input("ordered", &files);
    let list = |order| {
        let mut spec = workshop.script("cd $input; ls -U; ls -U dir0; cat dir1/file1; echo; ls -U /usr/bin");
        spec.env.insert("input".into(), input.target.as_str().into());
        spec.inputs.push(input.clone());
        spec.conditions.directory_order = order;
        workshop.succeed(&spec).log.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (sorted, reversed) = (list(Order::Sorted), list(Order::Reversed));
    let end = sorted.iter().position(|line| line == "dir1/file1").unwrap();
    assert_eq!(sorted[..3], ["dir0", "dir1", "dir2"]);
    assert_eq!(reversed[..3], ["dir2", "dir1", "dir0"]);
    assert!(sorted[3..end].is_sorted() && reversed[3..end].iter().rev().is_sorted(), "{sorted:?}");
    assert!(sorted[end + 1..].is_sorted() && reversed[end + 1..].iter().rev().is_sorted(), "{sorted:?}");
    assert_eq!(sorted.len(), reversed.len());
}

fn top_order(workshop: &Workshop) {
    let list = |order| {
        let mut spec = workshop.script("ls -U /; echo -; ls -U /usr/bin");
        spec.conditions.directory_order = order;
        workshop.succeed(&spec).log.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (sorted, reversed) = (list(Order::Sorted), list(Order::Reversed));
    for part in sorted.split(|line| line == "-") {
        assert!(part.is_sorted() && part.len() > 5, "{part:?}");
    }
    for part in reversed.split(|line| line == "-") {
        assert!(part.iter().rev().is_sorted() && part.len() > 5, "{part:?}");
    }
}

fn processors(workshop: &Workshop) {
    let mut spec = workshop
        .script("nproc; nproc --all; cat /proc/cpuinfo | while read a b; do case $a in processor) echo p;; esac; done");
    spec.conditions.cpus = Some(1);
    assert_eq!(workshop.succeed(&spec).log, "1\n1\np\n");
}

fn process_numbers(workshop: &Workshop) {
    let mut spec = workshop.script("echo $$");
    assert!(seconds(&workshop.succeed(&spec).log) < 20);
    spec.conditions.last_process = Some(20_000);
    assert_eq!(seconds(&workshop.succeed(&spec).log), 20_001);
}

fn addresses(workshop: &Workshop) {
    let mut spec = workshop.script("cat /proc/self/maps | { read range rest; echo $range; }");
    assert_eq!(workshop.succeed(&spec).log, workshop.succeed(&spec).log);
    spec.conditions.address_randomisation = true;
    let drawn: std::collections::BTreeSet<_> = (0..4).map(|_| workshop.succeed(&spec).log).collect();
    assert!(drawn.len() > 1, "{drawn:?}");
}

fn monotonic(workshop: &Workshop) {
    let mut spec = workshop.script("cat /proc/uptime | { read up idle; echo ${up%.*}; }");
    assert_eq!(workshop.succeed(&spec).log, "0\n");
    spec.conditions.monotonic_start_seconds = 500_000;
    assert_eq!(workshop.succeed(&spec).log, "500000\n");
    spec.builder = workshop.builtin("monotonic").builder;
    assert!((500_000..500_100).contains(&seconds(&workshop.succeed(&spec).log)));
    spec.conditions.monotonic_start_seconds = 0;
    assert!((0..100).contains(&seconds(&workshop.succeed(&spec).log)));
}

/// What a script says under these conditions.
fn says(workshop: &Workshop, script: &str, change: impl Fn(&mut Spec)) -> String {
    let mut spec = workshop.script(script);
    change(&mut spec);
    workshop.succeed(&spec).log
}

fn steady_clock(workshop: &Workshop) {
    let script = "date +%s; sleep 0.3; date +%s; sleep 1; date +%s; end=$(( $(date +%s) + 2 )); \
                  while [ $(date +%s) -lt $end ]; do sleep 0.5; done; echo ended";
    let log = says(workshop, script, |spec| spec.conditions.clock = Clock::Steady(LATER));
    assert_eq!(log, format!("{LATER}\n{LATER}\n{}\nended\n", LATER + 1));
    let log = workshop.succeed(&{
        let mut spec = workshop.builtin("clock");
        spec.conditions.clock = Clock::Steady(LATER);
        spec
    });
    assert!(log.log.lines().all(|line| line == LATER.to_string()), "{}", log.log);
}

fn steady_waits(workshop: &Workshop) {
    let mut spec = workshop.builtin("wait");
    spec.conditions.clock = Clock::Steady(LATER);
    assert_eq!(workshop.succeed(&spec).log, format!("{} 0\n", libc::ETIMEDOUT));
}

fn file_times(workshop: &Workshop) {
    let script = "mkdir new; echo > new/a; sleep 0.02; echo > new/b; ln -s a new/l; touch -d @77 new/old
        ls -l --time-style=+%s new/a new/b new/l new/old | while read mode links user group size time name; do echo $time; done
        ls -ld --time-style=+%s . new $out /tmp | while read mode links user group size time name; do echo $time; done
        ls -t new; test new/b -nt new/a; ls -l --time-style=+%s /bin/sh > /dev/null";
    let script = format!("echo > $out; {script}");
    let log = says(workshop, &script, |spec| spec.conditions.file_times = Some(LATER));
    let lines: Vec<&str> = log.lines().collect();
    let later = LATER.to_string();
    assert_eq!(lines[..4], [&*later, &later, &later, "77"], "{log}");
    assert_eq!(lines[4..8], [&*later; 4], "{log}");
    let place = |name| lines[8..].iter().position(|line| *line == name).unwrap();
    assert!(place("b") < place("a") && place("a") < place("old"), "{log}");
}

fn own_order(workshop: &Workshop) {
    let script = "mkdir -p sub $out; for name in b a d c; do echo > $out/$name; echo > sub/$name; done; cd $out; ls -U; ls -U /build/sub";
    for (order, expected) in [(Order::Sorted, "a\nb\nc\nd\n"), (Order::Reversed, "d\nc\nb\na\n")] {
        let log = says(workshop, script, |spec| spec.conditions.directory_order = order);
        assert_eq!(log, expected.repeat(2));
    }
}

fn large_order(workshop: &Workshop) {
    let script = "mkdir many; cd many; i=0; while [ $i -lt 3000 ]; do : > a-rather-long-name-$i; i=$((i + 1)); done
        ls -U > ../first; ls > ../second; ls -U | head -n 1 > ../third; cat ../first; cd ..; rm -r many; test ! -e many";
    let log = says(workshop, script, |spec| spec.conditions.directory_order = Order::Reversed);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3000);
    assert!(lines.iter().rev().is_sorted());
}

fn inode_numbers(workshop: &Workshop) {
    let script = "echo > b; echo > a; ls -i b a; ls -ai . | head -n 2 > /dev/null; ln a c; ls -i c; test a -ef c; ! test a -ef b";
    let draw = |first, file_system: FileSystem| {
        says(workshop, script, |spec| {
            spec.conditions.inode_numbers = Some(first);
            on(workshop, spec, file_system);
        })
    };
    let memory = draw(5000, FileSystem::Memory);
    assert_eq!(memory, draw(5000, FileSystem::Disk));
    assert_ne!(memory, draw(6000, FileSystem::Memory));
    assert!(memory.lines().all(|line| line.trim().starts_with("50")), "{memory}");
}

/// Lets a build work on this kind of file system.
fn on(workshop: &Workshop, spec: &mut Spec, file_system: FileSystem) {
    use std::os::unix::fs::PermissionsExt;
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    spec.conditions.file_system = file_system;
    if file_system == FileSystem::Disk {
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = workshop.path(&format!("disk-{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        spec.disk = Some(directory);
    }
}

fn more_processors(workshop: &Workshop) {
    let log = says(workshop, "nproc; :", |spec| spec.conditions.cpus = Some(7));
    assert_eq!(log.lines().next(), Some("7"), "{log}");
}

fn disk(workshop: &Workshop) {
    let mut spec = workshop
        .script("mkdir $out; echo made > $out/file; echo > /tmp/x; echo > /dev/shm/y; mkdir locked; chmod 0 locked");
    on(workshop, &mut spec, FileSystem::Disk);
    let finished = workshop.succeed(&spec);
    assert_eq!(finished.output("file"), "made\n");
    let directory = spec.disk.unwrap();
    assert!(directory.join("build/locked").symlink_metadata().is_ok());
    assert!(directory.join("tmp/x").exists() && directory.join("shm/y").exists());
}

fn features(workshop: &Workshop) {
    let show =
        |features| says(workshop, "echo ${GLIBC_TUNABLES-none}", |spec| spec.conditions.processor_features = features);
    assert_eq!(show(Features::All), "none\n");
    assert!(show(Features::Masked).contains("-AVX2,"));
    assert!(!show(Features::Pretended).contains("AVX"));
}

fn delays(workshop: &Workshop) {
    let script = "for round in 1 2 3 4 5 6; do (echo a >> log) & (echo b >> log) & wait; done; cat log";
    let drawn: std::collections::BTreeSet<String> =
        (1..4).map(|seed| says(workshop, script, |spec| spec.conditions.delays = Some(seed))).collect();
    assert!(drawn.iter().any(|log| log.contains("b\na\n")), "{drawn:?}");
}

fn contract(workshop: &Workshop) {
    let script = "pwd; id -u; id -g; umask; uname -n; echo > file; ls -n file | while read mode links user group rest; do echo $user $group; done";
    let log = says(workshop, script, |spec| {
        spec.conditions.contract = Contract {
            build_directory: "elsewhere".into(),
            user: 2222,
            group: 3333,
            umask: 0o027,
            host: "there".into(),
            domain: "example.org".into(),
        };
    });
    assert_eq!(log, "/elsewhere\n2222\n3333\n0027\nthere\n2222 3333\n");
}

fn everything(workshop: &Workshop) {
    let script = "date +%s; nproc; mkdir -p a/b/c; echo text > a/b/c/file; cat a/b/c/file; ls -l a/b > $out; mktemp > name
        (cd a && (cd b && ls -l c/file)) >> $out; chmod 600 $out; ln -s file a/b/c/link; rm -r a; ls /proc/self/fd > /dev/null; test -e /dev/stdout";
    let run = || {
        let mut spec = workshop.script(script);
        spec.conditions.clock = Clock::Steady(LATER);
        spec.conditions.file_times = Some(LATER);
        spec.conditions.cpus = Some(3);
        spec.conditions.directory_order = Order::Reversed;
        spec.conditions.inode_numbers = Some(9000);
        spec.conditions.random_seed = Some(1);
        spec.conditions.address_randomisation = true;
        spec.conditions.last_process = Some(700);
        spec.conditions.monotonic_start_seconds = 10_000;
        spec.conditions.processor_features = Features::Masked;
        spec.conditions.delays = Some(1);
        on(workshop, &mut spec, FileSystem::Disk);
        let finished = workshop.succeed(&spec);
        (finished.output(""), finished.log)
    };
    assert_eq!(run(), run());
}
