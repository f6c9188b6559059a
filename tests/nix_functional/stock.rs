//! Stock Nix with a store of its own, below a directory of the test. The machine's store is never touched.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Ran, Workspace, installed};

/// What Nix reads before its command line. Builds see the programs of this machine.
const SETTINGS: &str = "\
experimental-features = nix-command ca-derivations
substituters =
build-users-group =
sandbox = true
sandbox-paths = /bin /usr /lib /lib64
cores = 2
max-jobs = 2
narinfo-cache-negative-ttl = 0
narinfo-cache-positive-ttl = 0
";

/// Stock Nix beside a workspace.
pub struct Stock {
    home: PathBuf,
}

impl Stock {
    /// One with an empty store; `None`, and said on standard error, if Nix is not installed.
    pub fn beside(workspace: &Workspace) -> Option<Self> {
        Self::at(&workspace.path().join("stock"))
    }

    /// One with an empty store below this directory.
    pub fn at(home: &Path) -> Option<Self> {
        if !installed("nix") || !installed("nix-store") {
            return None;
        }
        fs::create_dir_all(home.join("etc")).unwrap();
        fs::write(home.join("etc/nix.conf"), SETTINGS).unwrap();
        Some(Self { home: home.to_owned() })
    }

    /// Adds a line to its settings.
    pub fn set(&self, line: &str) {
        let file = self.home.join("etc/nix.conf");
        fs::write(&file, format!("{}{line}\n", fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// Makes a key that signs all it builds; the public half.
    pub fn sign_with(&self, name: &str) -> String {
        let (secret, public) = (self.home.join(format!("{name}.secret")), self.home.join(format!("{name}.public")));
        let files = [secret.to_str().unwrap(), public.to_str().unwrap()];
        self.store(&["--generate-binary-cache-key", name, files[0], files[1]]);
        self.set(&format!("secret-key-files = {}", files[0]));
        fs::read_to_string(public).unwrap().trim().to_owned()
    }

    /// Builds what an expression says, and gives the outputs' paths.
    pub fn build(&self, expression: &str) -> Vec<String> {
        let file = self.home.join("expression.nix");
        fs::write(&file, expression).unwrap();
        let built = self.ok("nix-build", &["--no-out-link", file.to_str().unwrap()]);
        built.lines().map(str::to_owned).collect()
    }

    /// Whether an object is valid in its store.
    pub fn has(&self, path: &str) -> bool {
        self.run("nix-store", &["--check-validity", path]).code == 0
    }

    /// Where an object lies on the disk.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.home.join("root").join(path.trim_start_matches('/'))
    }

    /// One of Nix's programs.
    pub fn command(&self, program: &str) -> Command {
        // It has been seen to wait for ever, for example on half of a Brotli stream.
        let mut command = Command::new("timeout");
        command.args(["120", program]);
        command.env("HOME", &self.home).current_dir(&self.home).stdin(Stdio::null());
        for (variable, directory) in [("NIX_CONF_DIR", "etc"), ("NIX_STATE_DIR", "var"), ("NIX_LOG_DIR", "log")] {
            command.env(variable, self.home.join(directory));
        }
        command.env("NIX_STORE_DIR", "/nix/store").env("no_proxy", "127.0.0.1");
        command.env("NIX_REMOTE", format!("local?root={}", self.home.join("root").display()));
        command
    }

    /// Runs one, and gives whatever comes of it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.command(program).args(arguments).output().unwrap())
    }

    /// Runs one, insists on success, and gives the bytes that it writes.
    pub fn bytes(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Runs one, insists on success, and gives what it says, without the last line end.
    pub fn ok(&self, program: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.bytes(program, arguments)).unwrap().trim_end_matches('\n').to_owned()
    }

    /// Runs `nix-store`, insists on success, and gives what it says.
    pub fn store(&self, arguments: &[&str]) -> String {
        self.ok("nix-store", arguments)
    }

    /// The archive of one of its objects.
    pub fn dump(&self, path: &str) -> Vec<u8> {
        self.bytes("nix-store", &["--dump", self.on_disk(path).to_str().unwrap()])
    }

    /// Runs one with these bytes as its input.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &[u8]) -> Ran {
        feed(self.command(program).args(arguments), input)
    }

    /// Puts objects of ours, with all they refer to, into its store.
    pub fn take(&self, workspace: &Workspace, paths: &[&str]) {
        let stream = self.home.join("stream");
        let exported = workspace.command().args(["store", "export", "--closure"]).args(paths).output().unwrap();
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        fs::write(&stream, exported.stdout).unwrap();
        let input = File::open(&stream).unwrap();
        let imported = Ran::from(self.command("nix-store").arg("--import").stdin(input).output().unwrap());
        assert_eq!(imported.code, 0, "{}", imported.stderr);
    }
}

/// Runs with these bytes on standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Ran {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may stop reading early, which is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    Ran::from(child.wait_with_output().unwrap())
}
