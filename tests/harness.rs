//! A recipe repository and a store of a test's own, and the binary to try on them.
//!
//! Builds that need a shell run in a root file system made of one Debian package, see `tests/fixtures/tools`. It is locked
//! and downloaded once; each workspace then takes it from a directory of this machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A recipe repository with a store of its own, removed at the end.
pub struct Workspace {
    directory: TempDir,
}

/// What a run of `ampoule` gave.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    /// An empty recipe repository and no store yet.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("ampoule-test-").tempdir().expect("a temporary directory");
        let workspace = Self { directory };
        workspace.write("ampoule.toml", "");
        workspace
    }

    /// One whose package `//` has this `BUILD.star`.
    pub fn with(recipe: &str) -> Self {
        let workspace = Self::new();
        workspace.write("BUILD.star", recipe);
        workspace
    }

    /// One whose recipe can call `sh(name, script, ...)`, in a root file system with a shell that is already built.
    ///
    /// Says on standard error that the test is skipped, and gives `None`, when this machine cannot get the tools.
    pub fn with_tools(recipe: &str) -> Option<Self> {
        let tools = match tools() {
            Ok(tools) => tools,
            Err(reason) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {reason}\n"));
                return None;
            }
        };
        let workspace = Self::with(&format!("load(\"//tools:defs.star\", \"sh\")\n{recipe}"));
        write_tools(&workspace.root());
        fs::copy(tools.root.join("ampoule.lock"), workspace.root().join("ampoule.lock")).expect("the lock is readable");
        let from = tools.files.to_str().expect("the target directory's name is text").to_owned();
        workspace.ok(&["build", "--quiet", "--offline", "--from", &from, "//tools:busybox"]);
        Some(workspace)
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("recipes")
    }

    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file of the recipe repository.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directories can be made");
        fs::write(path, content).expect("files can be written");
    }

    /// Writes the recipe of the package `//` again, for a workspace with tools.
    pub fn rewrite(&self, recipe: &str) {
        self.write("BUILD.star", &format!("load(\"//tools:defs.star\", \"sh\")\n{recipe}"));
    }

    /// The command with its store and its repository set.
    pub fn command(&self) -> Command {
        ampoule(&self.home(), &self.root())
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        Ran::from(self.command().args(arguments).output().expect("the binary starts"))
    }

    /// Runs, and insists on success.
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        self.fails(0, arguments)
    }

    /// Runs, and insists on this exit code.
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, arguments: &[A]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// Builds one target that is a file, and gives what it says.
    pub fn built(&self, label: &str) -> String {
        let path = self.ok(&["build", label]).text().to_owned();
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Starts a command and lets it run.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Child {
        self.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Insists that nothing is wrong with the store.
    pub fn verify_store(&self) {
        assert_eq!(self.ok(&["store", "verify"]).stdout, "");
    }
}

impl Drop for Workspace {
    /// Store objects are read-only; only root can remove those without more.
    fn drop(&mut self) {
        make_writable(self.directory.path());
    }
}

/// Removes a store object, as somebody might who knows no better.
pub fn remove_tree(path: &Path) {
    make_writable(path);
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn make_writable(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output without its last line end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    /// Standard output as one path.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.text())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Insists that standard error says all of these.
    pub fn says(&self, expected: &[&str]) -> &Self {
        for text in expected {
            assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        }
        self
    }

    /// Insists that standard error says none of these.
    pub fn is_silent_about(&self, unexpected: &[&str]) -> &Self {
        for text in unexpected {
            assert!(!self.stderr.contains(text), "`{text}` is in:\n{}", self.stderr);
        }
        self
    }
}

/// The command with this store and this working directory.
pub fn ampoule(home: &Path, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
    command.env("AMPOULE_HOME", home).current_dir(directory).stdin(Stdio::null());
    command
}

/// Whether a program is installed; says on standard error that the test is skipped when it is not.
pub fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: `{program}` is not installed\n"));
    }
    found
}

/// Waits until this holds; gives up after a minute.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command that takes a day and that no other run of these tests has.
pub fn long_sleep(number: u32) -> String {
    format!("sleep {}", 100_000_000 + u64::from(std::process::id()) * 10 + u64::from(number))
}

/// Processes whose command line holds this text.
pub fn processes_with(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let lines = processes.filter_map(|process| {
        process.file_name().to_str()?.parse::<u32>().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(text)).collect()
}

/// The tools' recipe repository with its lock, and the directory with what it locks.
struct Tools {
    root: PathBuf,
    files: PathBuf,
}

/// The tools, locked and downloaded once; `Err` says why this machine cannot have them.
fn tools() -> Result<&'static Tools, &'static str> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    TOOLS.get_or_init(get_tools).as_ref().map_err(String::as_str)
}

/// The directory with the tools' packages, for tests that have them already.
pub fn tools_files() -> &'static PathBuf {
    &tools().expect("this test has built with them").files
}

fn get_tools() -> Result<Tools, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
    let tools = Tools { root: directory.join("recipes"), files: directory.join("files") };
    let home = directory.join("home");
    fs::create_dir_all(&tools.files).map_err(|error| error.to_string())?;
    write_tools(&tools.root);
    fs::write(tools.root.join("ampoule.toml"), "").map_err(|error| error.to_string())?;
    let sources = |arguments: &[&str]| {
        let ran = Ran::from(ampoule(&home, &tools.root).arg("sources").args(arguments).output().expect("it starts"));
        if ran.code == 0 { Ok(ran) } else { Err(format!("no tools from a Debian archive: {}", ran.stderr.trim())) }
    };
    sources(&["lock"])?;
    if sources(&["fetch"]).is_err() {
        // The lock is from an earlier run, and the archive has replaced the package since.
        sources(&["lock", "--refresh"])?;
        sources(&["fetch"])?;
    }
    let list = sources(&["list", "--json"])?.json();
    for source in list["sources"].as_array().into_iter().flatten() {
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        let stored = text("path").replace("/nix/store", &home.join("store").display().to_string());
        let copy = tools.files.join(text("file"));
        if !copy.exists() {
            fs::copy(stored, copy).map_err(|error| error.to_string())?;
        }
    }
    Ok(tools)
}

fn write_tools(root: &Path) {
    let package = root.join("tools");
    fs::create_dir_all(&package).expect("directories can be made");
    for (name, content) in [
        ("BUILD.star", include_str!("fixtures/tools/BUILD.star")),
        ("defs.star", include_str!("fixtures/tools/defs.star")),
    ] {
        fs::write(package.join(name), content).expect("files can be written");
    }
}
