//! What pip's configuration says: which indexes to ask, and how.
//!
//! Files and variables are those of pip's user guide ("Configuration"). Where none of them names an index, pip itself
//! is asked for its built-in default; nothing of it is written down here.

#![expect(clippy::disallowed_methods, reason = "pip is a program")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::machine::{Machine, ReadError};

/// How long pip may take to say what it uses.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The sections that matter, later ones win: those of all commands, and of the two that download.
const SECTIONS: [&str; 3] = ["global", "install", "download"];

/// What pip would use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PipConfiguration {
    /// The main index.
    pub index: Option<String>,
    /// Further indexes.
    pub extra_indexes: Vec<String>,
    /// Whether indexes are not to be used at all.
    pub no_index: bool,
    /// Directories, and addresses of pages, that hold files.
    pub find_links: Vec<String>,
    /// Hosts whose certificates are not checked.
    pub trusted_hosts: Vec<String>,
    /// A PEM file of certificates.
    pub certificates: Option<PathBuf>,
    /// The proxy for all schemes.
    pub proxy: Option<String>,
}

impl PipConfiguration {
    /// Reads pip's files and variables.
    pub fn load(machine: &Machine) -> Result<Self, ReadError> {
        let mut values = BTreeMap::new();
        for path in configuration_files(machine) {
            if let Some(text) = machine.read(&path)? {
                merge_file(&mut values, &text);
            }
        }
        for (name, value) in machine.environment() {
            if let Some(key) = name.strip_prefix("PIP_").filter(|_| !value.is_empty()) {
                values.insert(key.to_ascii_lowercase().replace('_', "-"), value.clone());
            }
        }
        Ok(Self::from_values(&values))
    }

    fn from_values(values: &BTreeMap<String, String>) -> Self {
        let one = |key: &str| values.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let many = |key: &str| -> Vec<String> {
            values.get(key).map(|value| value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
        };
        let truthy =
            |text: &String| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y" | "t");
        Self {
            index: one("index-url"),
            extra_indexes: many("extra-index-url"),
            no_index: one("no-index").is_some_and(|text| truthy(&text)),
            find_links: many("find-links"),
            trusted_hosts: many("trusted-host"),
            certificates: one("cert").map(PathBuf::from),
            proxy: one("proxy"),
        }
    }

    /// All indexes in the order in which they are asked.
    pub fn indexes(&self) -> Vec<String> {
        if self.no_index {
            return Vec::new();
        }
        self.index.iter().chain(&self.extra_indexes).cloned().collect()
    }
}

/// The files in pip's order: later ones win.
fn configuration_files(machine: &Machine) -> Vec<PathBuf> {
    let named = machine.variable("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_deref() == Some(std::path::Path::new("/dev/null")) {
        return Vec::new();
    }
    let mut files: Vec<PathBuf> = match machine.variable("XDG_CONFIG_DIRS") {
        Some(directories) => directories.split(':').filter(|d| d.starts_with('/')).map(|d| machine.path(d)).collect(),
        None => vec![machine.path("/etc/xdg")],
    };
    files.reverse();
    files.iter_mut().for_each(|directory| directory.push("pip/pip.conf"));
    files.push(machine.path("/etc/pip.conf"));
    // pip leaves the user's own files alone when a file is named.
    if named.as_deref().is_none_or(|path| !path.exists()) {
        files.extend(machine.home().map(|home| home.join(".pip/pip.conf")));
        files.extend(machine.user_configuration().map(|directory| directory.join("pip/pip.conf")));
    }
    files.extend(machine.variable("VIRTUAL_ENV").map(|environment| PathBuf::from(environment).join("pip.conf")));
    files.extend(named);
    files
}

/// Adds a file's settings to those of files before it. A section's rank counts for more than a file's place.
fn merge_file(values: &mut BTreeMap<String, String>, text: &str) {
    let sections = parse_ini(text);
    for section in SECTIONS {
        for (key, value) in sections.get(section).into_iter().flatten() {
            values.insert(key.clone(), value.clone());
        }
    }
}

/// Reads the sections of an INI file as Python's `configparser` does: `=` or `:` between key and value, lines that
/// start with blanks continue a value, `#` and `;` start comment lines. Lines of no meaning are passed over.
fn parse_ini(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    let mut key: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let Some(key) = &key
        {
            let value = sections.entry(section.clone()).or_default().entry(key.clone()).or_default();
            value.push('\n');
            value.push_str(trimmed);
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_owned();
            key = None;
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            let name = name.trim().to_ascii_lowercase().replace('_', "-");
            sections.entry(section.clone()).or_default().insert(name.clone(), value.trim().to_owned());
            key = Some(name);
        }
    }
    sections
}

/// Why pip does not say which index it uses.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None of pip's names is in `PATH`.
    #[error("there is no pip in PATH")]
    NoPip,
    /// pip ran but its answer could not be understood.
    #[error("pip did not say which index it uses (tried {})", .0.join(", "))]
    NoAnswer(Vec<String>),
}

/// Asks pip to read its own configuration and defaults; this is how its site-wide file is found too.
const SCRIPT: &str = "\
import json
from pip._internal.commands import create_command
options, _ = create_command('download').parse_args([])
print(json.dumps({'index': options.index_url, 'extra_indexes': options.extra_index_urls or [],
    'no_index': bool(options.no_index), 'find_links': options.find_links or [],
    'trusted_hosts': options.trusted_hosts or [], 'certificates': options.cert, 'proxy': options.proxy or None}))";

/// What pip itself says it uses, built-in default included. No network is touched.
pub fn ask(machine: &Machine) -> Result<PipConfiguration, AskError> {
    let mut tried = Vec::new();
    for python in ["python3", "python"] {
        let Some(program) = machine.program(python) else { continue };
        let mut command = Command::new(program);
        command.args(["-c", SCRIPT]);
        tried.push(python.to_owned());
        let answer = output(command, machine).and_then(|text| {
            let line = text.lines().rev().find(|line| line.starts_with('{'))?.to_owned();
            serde_json::from_str::<PipConfiguration>(&line).ok()
        });
        if let Some(answer) = answer.filter(|answer| answer.index.is_some()) {
            return Ok(answer);
        }
    }
    for pip in ["pip3", "pip"] {
        let Some(program) = machine.program(pip) else { continue };
        let mut command = Command::new(program);
        command.args(["download", "--help"]);
        tried.push(pip.to_owned());
        if let Some(index) = output(command, machine).and_then(|text| index_in_help(&text)) {
            return Ok(PipConfiguration { index: Some(index), ..PipConfiguration::default() });
        }
    }
    if tried.is_empty() { Err(AskError::NoPip) } else { Err(AskError::NoAnswer(tried)) }
}

/// The default that pip's help names for `--index-url`. The help is wrapped to the terminal's width.
fn index_in_help(help: &str) -> Option<String> {
    let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = unwrapped.split_once("--index-url")?;
    let (_, rest) = rest.split_once("(default")?;
    let (url, _) = rest.split_once(')')?;
    let url: String = url.chars().filter(|c| !c.is_whitespace()).collect();
    url.starts_with("http").then_some(url)
}

/// What a program prints within the time it is given; none if it fails.
fn output(mut command: Command, machine: &Machine) -> Option<String> {
    // In `/` no file of the user's shadows a Python module.
    command.current_dir("/").env_clear().envs(machine.environment()).env("COLUMNS", "1000");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.by_ref().take(1 << 20).read_to_string(&mut text).map(|_| text)
    });
    let end = Instant::now() + ASK_TIMEOUT;
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let text = reader.join().ok()?.ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        environment: BTreeMap<String, String>,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let home = directory.path().join("home/u").to_str().unwrap().to_owned();
            Self { directory, environment: BTreeMap::from([("HOME".into(), home)]) }
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            self
        }

        fn program(self, name: &str, script: &str) -> Self {
            let fixture = self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
            let path = fixture.directory.path().join("bin").join(name);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let bin = fixture.directory.path().join("bin");
            fixture.variable("PATH", bin.to_str().unwrap())
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.environment.insert(name.into(), value.replace("$ROOT", self.directory.path().to_str().unwrap()));
            self
        }

        fn machine(&self) -> Machine {
            Machine::new(self.directory.path(), self.environment.clone())
        }

        fn indexes(&self) -> Vec<String> {
            PipConfiguration::load(&self.machine()).unwrap().indexes()
        }
    }

    fn index(name: &str) -> String {
        format!("[global]\nindex-url = https://{name}.example/simple\n")
    }

    #[test]
    fn files_in_pips_order() {
        let fixture = Fixture::new();
        assert!(fixture.indexes().is_empty());
        let fixture = fixture.file("etc/xdg/pip/pip.conf", &index("xdg"));
        assert_eq!(fixture.indexes(), ["https://xdg.example/simple"]);
        let fixture = fixture.file("etc/pip.conf", &index("etc"));
        assert_eq!(fixture.indexes(), ["https://etc.example/simple"]);
        let fixture = fixture.file("home/u/.pip/pip.conf", &index("legacy"));
        assert_eq!(fixture.indexes(), ["https://legacy.example/simple"]);
        let fixture = fixture.file("home/u/.config/pip/pip.conf", &index("user"));
        assert_eq!(fixture.indexes(), ["https://user.example/simple"]);
        let fixture = fixture.file("venv/pip.conf", &index("venv")).variable("VIRTUAL_ENV", "$ROOT/venv");
        assert_eq!(fixture.indexes(), ["https://venv.example/simple"]);
        let fixture = fixture.file("named.conf", &index("named")).variable("PIP_CONFIG_FILE", "$ROOT/named.conf");
        assert_eq!(fixture.indexes(), ["https://named.example/simple"]);
        let fixture = fixture.variable("PIP_INDEX_URL", "https://variable.example/simple");
        let fixture = fixture.variable("PIP_EXTRA_INDEX_URL", "https://a.example https://b.example");
        assert_eq!(fixture.indexes(), ["https://variable.example/simple", "https://a.example", "https://b.example"]);
        assert!(fixture.variable("PIP_NO_INDEX", "1").indexes().is_empty());
    }

    #[test]
    fn a_named_file_hides_the_users_own_and_dev_null_hides_all() {
        let fixture = Fixture::new()
            .file("home/u/.config/pip/pip.conf", "[global]\nproxy = http://p.example\n")
            .file("named.conf", &index("named"))
            .variable("PIP_CONFIG_FILE", "$ROOT/named.conf");
        assert_eq!(PipConfiguration::load(&fixture.machine()).unwrap().proxy, None);
        let fixture = fixture.file("etc/pip.conf", &index("etc")).variable("PIP_CONFIG_FILE", "/dev/null");
        assert!(fixture.indexes().is_empty());
    }

    #[test]
    fn everything_a_file_can_say() {
        let text = "# comment\n[global]\nindex_url: https://i.example\nextra-index-url =\n    https://a.example\n\n  \
            https://b.example\ncert = /etc/corp.pem\ntrusted-host = h.example\n  k.example:8443\nfind-links = /srv/wheels\n\
            [install]\nindex-url = https://install.example\n[wheel]\nindex-url = https://other.example\nnonsense\n";
        let fixture = Fixture::new().file("etc/pip.conf", text);
        let configuration = PipConfiguration::load(&fixture.machine()).unwrap();
        assert_eq!(configuration.index.as_deref(), Some("https://install.example"));
        assert_eq!(configuration.extra_indexes, ["https://a.example", "https://b.example"]);
        assert_eq!(configuration.certificates.as_deref(), Some(Path::new("/etc/corp.pem")));
        assert_eq!(configuration.trusted_hosts, ["h.example", "k.example:8443"]);
        assert_eq!(configuration.find_links, ["/srv/wheels"]);
    }

    #[test]
    fn pip_is_asked_in_two_ways() {
        assert!(matches!(ask(&Fixture::new().machine()), Err(AskError::NoPip)));
        let answer = r#"echo noise; echo '{"index": "https://built.example/simple", "extra_indexes": [], "no_index": false, "find_links": [], "trusted_hosts": [], "certificates": null, "proxy": null}'"#;
        let fixture = Fixture::new().program("python3", answer);
        assert_eq!(ask(&fixture.machine()).unwrap().indexes(), ["https://built.example/simple"]);
        let help =
            "echo '  -i, --index-url <url>   Base URL (default'\necho '     https://help.example/simple). More (x)'";
        let fixture = Fixture::new().program("python3", "exit 1").program("pip", help);
        assert_eq!(ask(&fixture.machine()).unwrap().indexes(), ["https://help.example/simple"]);
        let fixture = Fixture::new().program("pip", "echo hello");
        assert!(matches!(ask(&fixture.machine()), Err(AskError::NoAnswer(tried)) if tried == ["pip"]));
    }
}
