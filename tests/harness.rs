//! A recipe repository and a store of a test's own, and the binary to try on them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("directories can be made");
        std::fs::write(path, content).expect("files can be written");
    }

    /// The command with its store and its repository set, and nothing of this machine's configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
        command.env("AMPOULE_HOME", self.home()).current_dir(self.root()).stdin(Stdio::null());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        Ran::from(self.command().args(arguments).output().expect("the binary starts"))
    }

    /// Runs, and insists on success.
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs, and insists on this exit code.
    pub fn fails<A: AsRef<OsStr>>(&self, code: i32, arguments: &[A]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{}\n{}", ran.stdout, ran.stderr);
        ran
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
}

/// Whether a program is installed; says on standard error that the test is skipped when it is not.
pub fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        eprintln!("skipped: `{program}` is not installed");
    }
    found
}
