//! Tests of collections beside other processes, and on a disk that is full. Each runs this test binary again.
#![expect(
    clippy::disallowed_methods,
    reason = "tests make files and processes and look at the environment and the clock"
)]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::fixture::{Home, file, path, register};
use super::super::register::Registration;
use super::super::stage::Staged;
use super::super::verify::VerifyOptions;
use super::*;

const ROLE: &str = "AMPOULE_COLLECT_TEST_ROLE";
const HOME: &str = "AMPOULE_COLLECT_TEST_HOME";
const USERS: usize = 6;
const COLLECTORS: usize = 2;
const TIME: Duration = Duration::from_secs(5);

/// What this process is to do, if it was started by one of the tests below.
#[test]
fn role() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let home = std::env::var_os(HOME).unwrap();
    match role.to_str().unwrap() {
        "use" => use_objects(Path::new(&home)),
        "collect" => collect_again_and_again(Path::new(&home)),
        "collect-full" => collect_on_a_full_disk(Path::new(&home)),
        "verify-full" => verify_on_a_full_disk(Path::new(&home)),
        "delete-full" => delete_on_a_full_disk(Path::new(&home)),
        other => panic!("unknown role {other}"),
    }
}

fn arguments() -> [&'static str; 4] {
    ["local::collect::beside::role", "--exact", "--nocapture", "--test-threads=1"]
}

fn start(role: &str, home: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments()).env(ROLE, role).env(HOME, home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn open(home: &Path) -> LocalStore {
    LocalStore::open(home, StoreDir::new("/nix/store").unwrap()).unwrap()
}

/// Numbers that differ from process to process.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn processes_that_use_and_collect_at_random_lose_nothing() {
    let home = Home::new();
    drop(home.open());
    let roles = std::iter::repeat_n("use", USERS).chain(std::iter::repeat_n("collect", COLLECTORS));
    let children: Vec<_> = roles.map(|role| start(role, &home.path()).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("rounds: "), "{text}");
    }
    let store = home.open();
    assert!(store.verify().unwrap().is_empty());
    for root in store.roots().unwrap() {
        let paths: Vec<StorePath> = root.paths.into_iter().collect();
        assert_eq!(store.valid_paths(&paths).unwrap().len(), paths.len(), "what is rooted is there");
    }
    for root in store.roots().unwrap() {
        store.remove_root(&root.name).unwrap();
    }
    store.collect_garbage(&Policy::default(), &mut |_, _| {}).unwrap();
    assert!(store.all_paths().unwrap().is_empty());
    assert_eq!(fs::read_dir(home.path().join("store")).unwrap().count(), 0);
}

/// Lives many short lives: relies on shared objects, adds to them, roots some, and looks whether all stay meanwhile.
fn use_objects(home: &Path) {
    let started = Instant::now();
    let process = u64::from(std::process::id());
    let mut random = Random(process.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut rounds = 0;
    while started.elapsed() < TIME {
        rounds += 1;
        let store = open(home);
        let shared = path(u8::try_from(random.below(12)).unwrap(), "shared");
        let upper =
            path(u8::try_from(100 + random.below(12)).unwrap(), &format!("upper-of-{}", &shared.hash_part()[..4]));
        if !store.keep_valid(&shared).unwrap() {
            register(&store, file(&store, &shared, shared.base_name(), &[]));
        }
        if !store.keep_valid(&upper).unwrap() {
            register(&store, file(&store, &upper, upper.base_name(), &[&shared]));
        }
        let own = path(200, &format!("own-{process}-{rounds}"));
        register(&store, file(&store, &own, "own", &[&upper, &own]));
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        for object in [&shared, &upper, &own] {
            assert!(store.is_valid(object).unwrap(), "`{object}` was collected while it was in use");
        }
        assert_eq!(fs::read_to_string(store.physical_path(&shared)).unwrap(), shared.base_name());
        match random.below(3) {
            0 => store.add_root(&format!("root-{process}"), &[own]).unwrap(),
            1 => drop(store.remove_root(&format!("root-{process}")).unwrap()),
            _ => {}
        }
    }
    println!("rounds: {rounds}");
}

fn collect_again_and_again(home: &Path) {
    let started = Instant::now();
    let mut random = Random(u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut rounds, mut deleted) = (0, 0);
    while started.elapsed() < TIME {
        rounds += 1;
        let enough_bytes = (random.below(2) == 0).then(|| random.below(3000));
        let store = open(home);
        let policy = Policy { enough_bytes, ..Policy::default() };
        deleted += store.collect_garbage(&policy, &mut |_, _| {}).unwrap().objects.len();
    }
    assert!(deleted > 0);
    println!("rounds: {rounds}");
}

/// Fills the disk to the last byte, and opens the store on it; returns what is rooted.
fn fill_and_open(home: &Path) -> (LocalStore, StorePath) {
    let store = open(home);
    assert!(home.join("reserve").exists());
    let kept = path(0, "kept");
    register(&store, file(&store, &kept, "kept", &[]));
    store.add_root("kept", std::slice::from_ref(&kept)).unwrap();
    // Many small rows, and files of some size.
    let mut number = 0_u32;
    let mut add = |size: usize| {
        number += 1;
        let object = StorePath::new(&[(number % 251) as u8 + 1; 20], &format!("p{number}")).unwrap();
        let staged: Result<Staged, _> = store.stage_bytes(&vec![b'x'; size]);
        let references = [kept.clone()].into();
        staged.map(|staged| Registration { staged, path: object, references, deriver: None, content_address: None })
    };
    let small: Vec<Registration> = (0..3000).map(|_| add(0).unwrap()).collect();
    store.register(small).unwrap();
    while let Ok(object) = add(4 << 20) {
        if store.register(vec![object]).is_err() {
            break;
        }
    }
    drop(store);
    let filler = home.with_file_name("filler");
    let _ = fs::write(&filler, vec![b'x'; 8 << 20]);
    while std::io::Write::write(&mut fs::OpenOptions::new().append(true).open(&filler).unwrap(), b"x").is_ok() {}
    assert!(fs::write(home.with_file_name("more"), vec![b'x'; 4096]).is_err(), "the disk is full");
    assert!(LocalStore::open(home, StoreDir::default()).is_err(), "opening it takes room");
    (LocalStore::open_to_collect(home, StoreDir::default()).unwrap(), kept)
}

fn verify_on_a_full_disk(home: &Path) {
    let (store, _) = fill_and_open(home);
    let verified = store.verify_some(&VerifyOptions::default()).unwrap();
    assert!(verified.findings.is_empty());
    assert!(verified.objects > 3000);
    println!("succeeded");
}

fn delete_on_a_full_disk(home: &Path) {
    let (store, kept) = fill_and_open(home);
    let others: Vec<StorePath> = store.all_paths().unwrap().into_iter().filter(|path| *path != kept).collect();
    store.delete_dead(&others).unwrap();
    store.renew_reserve();
    assert_eq!(store.all_paths().unwrap(), [kept].into());
    assert!(home.join("reserve").exists());
    println!("succeeded");
}

fn collect_on_a_full_disk(home: &Path) {
    let (store, kept) = fill_and_open(home);
    let collected = store.collect_garbage(&Policy::default(), &mut |_, _| {}).unwrap();
    assert!(collected.objects.len() > 3000, "{}", collected.objects.len());
    assert_eq!(store.all_paths().unwrap(), [kept].into());
    assert!(store.verify().unwrap().is_empty());
    println!("succeeded");
}

#[test]
fn garbage_is_collected_from_a_full_disk() {
    check_full_disk("collect-full");
}

#[test]
fn objects_are_verified_on_a_full_disk() {
    check_full_disk("verify-full");
}

#[test]
fn objects_are_deleted_from_a_full_disk() {
    check_full_disk("delete-full");
}

fn check_full_disk(role: &str) {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    let script = "mount -t tmpfs -o size=80m none \"$0\" || { echo cannot mount; exit 0; }; exec \"$@\"";
    let user: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let mut command = Command::new("unshare");
    command.args(user).args(["sh", "-c", script]).arg(home.path()).arg(std::env::current_exe().unwrap());
    command.args(arguments()).env(ROLE, role).env(HOME, OsString::from(home.path().join("home")));
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if text.contains("succeeded") && output.status.success() {
        return;
    }
    // Shows what went wrong, unless namespaces are what is missing.
    let possible = Command::new("unshare").args(user).arg("true").status().is_ok_and(|status| status.success());
    assert!(!possible || text.contains("cannot mount"), "{text}");
    println!("skipped: this machine lets nobody mount a small disk");
}
