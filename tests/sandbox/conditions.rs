//! What a check may vary, seen from inside.

use std::time::{SystemTime, UNIX_EPOCH};

use ampoule_eval::sandbox::{Clock, Order};

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
        let mut spec =
            workshop.script("cd $input; for d in . dir0 dir1; do ls -U $d; done; cat dir1/file1; ls -U /usr/bin");
        spec.env.insert("input".into(), input.target.as_str().into());
        spec.inputs.push(input.clone());
        spec.conditions.directory_order = order;
        workshop.succeed(&spec).log
    };
    let (as_is, reversed) = (list(Order::AsIs), list(Order::Reversed));
    let sections = |log: &str| {
        let (own, programs) = log.split_once("dir1/file1").unwrap();
        let own: Vec<String> = own.lines().map(str::to_owned).collect();
        let programs: Vec<String> = programs.lines().map(str::to_owned).collect();
        (own[..3].to_vec(), own[3..17].to_vec(), own[17..].to_vec(), programs)
    };
    let (mut a, r) = (sections(&as_is), sections(&reversed));
    a.0.reverse();
    a.1.reverse();
    a.2.reverse();
    a.3.reverse();
    assert_eq!(a, r);
}

fn top_order(workshop: &Workshop) {
    let list = |order| {
        let mut spec =
            workshop.script("ls -U / | while read name; do case $name in bin|lib|lib64|usr) echo $name; esac; done");
        spec.conditions.directory_order = order;
        workshop.succeed(&spec).log.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut as_is = list(Order::AsIs);
    as_is.reverse();
    assert_eq!(as_is, list(Order::Reversed));
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
