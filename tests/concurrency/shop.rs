//! What all processes share: the store, what may be in it, a cache, and somebody who looks whether anybody hangs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::{Ran, Workspace, tools_files};

/// How many things there are to add.
pub const OBJECTS: usize = 6;
/// How many things there are to build.
pub const TARGETS: usize = 6;
/// A command that takes longer hangs, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(180);
/// What no user should read, whatever else happens.
const UNSPEAKABLE: [&str; 6] = ["database", "is locked", "panicked", "SQLite", "os error", "BUSY"];

/// Something to add.
pub struct Object {
    pub source: PathBuf,
    pub path: String,
    pub archive: Vec<u8>,
    published: AtomicBool,
}

impl Object {
    /// Whether the cache has it.
    pub fn is_published(&self) -> bool {
        self.published.load(Ordering::SeqCst)
    }

    pub fn publish(&self) {
        self.published.store(true, Ordering::SeqCst);
    }
}

pub struct Shop {
    pub workspace: Workspace,
    pub objects: Vec<Object>,
    /// Whether this machine can build.
    pub has_tools: bool,
    pub done: Mutex<BTreeMap<&'static str, usize>>,
    cache: String,
    running: Mutex<BTreeMap<u32, (Instant, String)>>,
    over: AtomicBool,
}

fn recipe() -> String {
    let mut recipe = "base = text(\"base.txt\", \"base\\n\")\n".to_owned();
    for number in 0..TARGETS {
        // In pairs: of each, the second is made from the first.
        let input = if number % 2 == 0 { "base".to_owned() } else { format!("t{}", number - 1) };
        recipe += &format!(
            "t{number} = sh(name = \"t{number}\", script = \"cat %s > $out; sleep 0.0{number}; echo t{number} >> $out\" % {input})\n"
        );
    }
    recipe
}

/// What a target holds.
pub fn expected(target: usize) -> String {
    match target % 2 {
        0 => format!("base\nt{target}\n"),
        _ => format!("base\nt{}\nt{target}\n", target - 1),
    }
}

/// An object's archive.
pub fn dump(workspace: &Workspace, path: &str) -> (i32, Vec<u8>) {
    let output = workspace.command().args(["store", "dump", path]).output().unwrap();
    (output.status.code().unwrap_or(-1), output.stdout)
}

impl Shop {
    pub fn new() -> Self {
        let (workspace, has_tools) = match Workspace::with_tools(&recipe()) {
            Some(workspace) => (workspace, true),
            None => (Workspace::new(), false),
        };
        let sources = workspace.path().join("sources");
        fs::create_dir(&sources).unwrap();
        fs::create_dir(workspace.path().join("links")).unwrap();
        if has_tools {
            let link = workspace.path().join("tools-link");
            let from = tools_files().to_str().unwrap();
            workspace.ok(&["build", "--offline", "--from", from, "-o", link.to_str().unwrap(), "//tools:busybox"]);
        }
        // Their paths and archives, from a store of their own.
        let other = Workspace::new();
        let objects = (0..OBJECTS).map(|number| {
            let source = sources.join(format!("object-{number}"));
            fs::create_dir_all(source.join("directory")).unwrap();
            // Some files are the same in all objects, and may be shared.
            fs::write(source.join("directory/same"), "same\n".repeat(2000)).unwrap();
            fs::write(source.join("directory/other"), format!("{number}\n").repeat(500 * number)).unwrap();
            fs::write(source.join("number"), number.to_string()).unwrap();
            let path = other.ok(&["store", "add", source.to_str().unwrap()]).text().to_owned();
            let archive = dump(&other, &path).1;
            Object { source, path, archive, published: AtomicBool::new(false) }
        });
        let objects = objects.collect();
        let cache = workspace.path().join("cache").to_str().unwrap().to_owned();
        fs::create_dir(&cache).unwrap();
        let (done, running) = (Mutex::default(), Mutex::default());
        Self { workspace, objects, has_tools, done, cache, running, over: AtomicBool::new(false) }
    }

    pub fn cache(&self) -> &str {
        &self.cache
    }

    pub fn links(&self) -> PathBuf {
        self.workspace.path().join("links")
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Runs a command, and insists that it says nothing that no user should read.
    pub fn run(&self, what: &'static str, arguments: &[&str], input: Stdio) -> (Ran, Vec<u8>) {
        let mut command = self.workspace.command();
        command.args(arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let id = child.id();
        self.running().insert(id, (Instant::now(), arguments.join(" ")));
        let output = child.wait_with_output().unwrap();
        self.running().remove(&id);
        *self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
        let bytes = output.stdout.clone();
        let ran = Ran::from(output);
        let unspeakable = UNSPEAKABLE.iter().find(|text| ran.stderr.contains(**text));
        if ran.code < 0 || unspeakable.is_some() {
            self.fail(arguments, &ran);
        }
        (ran, bytes)
    }

    /// Ends everything because of this.
    pub fn fail(&self, arguments: &[&str], ran: &Ran) -> ! {
        self.close();
        let stdout: String = ran.stdout.chars().take(2000).collect();
        panic!("`ampoule {}` ended with {}\n{}\n{}", arguments.join(" "), ran.code, stdout, ran.stderr);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, (Instant, String)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after the commands until the shop closes; when one hangs, says what all of them wait for, and ends them.
    pub fn watch(&self) {
        while !self.is_over() || !self.running().is_empty() {
            std::thread::sleep(Duration::from_millis(50));
            let running = self.running().clone();
            if running.values().all(|(start, _)| start.elapsed() < PATIENCE) {
                continue;
            }
            for (id, (start, arguments)) in &running {
                let look = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
                let seconds = start.elapsed().as_secs();
                eprintln!("{id} `{arguments}` for {seconds} s, in {}: {}", look("wchan"), look("syscall"));
            }
            eprintln!("{}", fs::read_to_string("/proc/locks").unwrap_or_default());
            self.close();
            for id in running.keys() {
                let process = rustix::process::Pid::from_raw((*id).try_into().unwrap()).unwrap();
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
    }
}
