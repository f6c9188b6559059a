//! What this machine says about itself: its environment and its configuration files.

#![expect(clippy::disallowed_methods, reason = "configuration is files and environment variables")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest configuration file that is read, in bytes.
const MAX_CONFIGURATION: u64 = 4 << 20;

/// A machine's configuration as a value: tests make their own.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    environment: BTreeMap<String, String>,
}

/// Why a configuration file is not usable.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What reading said.
    pub source: std::io::Error,
}

impl Machine {
    /// The machine this process runs on.
    pub fn current() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { root: PathBuf::from("/"), environment: std::env::vars_os().filter_map(text).collect() }
    }

    /// A machine whose `/` is `root` and whose environment is this.
    pub fn new(root: &Path, environment: BTreeMap<String, String>) -> Self {
        Self { root: root.to_owned(), environment }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Where an absolute path lies in this machine.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The user's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    /// Where the user's configuration lies: `$XDG_CONFIG_HOME`, else `~/.config`.
    pub fn user_configuration(&self) -> Option<PathBuf> {
        let own = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        own.or_else(|| Some(self.home()?.join(".config")))
    }

    /// A configuration file's text; none if there is no such file or this user may not read it.
    pub fn read(&self, path: &Path) -> Result<Option<String>, ReadError> {
        use std::io::{ErrorKind, Read};
        let error = |source| ReadError { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(source) => match source.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory => return Ok(None),
                _ => return Err(error(source)),
            },
        };
        if !file.metadata().map_err(error)?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_CONFIGURATION).read_to_end(&mut bytes).map_err(error)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The files of a directory whose names end so, sorted; none if there is no such directory.
    pub fn files_in(&self, directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let wanted = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| extensions.contains(&extension))
        };
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(wanted).collect();
        files.sort();
        files
    }

    /// The files of a directory whose names have no extension, sorted.
    pub fn plain_files_in(&self, directory: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<_> = paths.filter(|path| path.extension().is_none()).collect();
        files.sort();
        files
    }

    /// The program of this name in the machine's `PATH`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let directories = self.variable("PATH")?.split(':').filter(|directory| directory.starts_with('/'));
        directories.map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
    }

    /// Proxies by scheme, and the hosts reached without one.
    pub fn proxies(&self) -> (BTreeMap<String, String>, Vec<String>) {
        let either = |lower: &str| self.variable(lower).or_else(|| self.variable(&lower.to_ascii_uppercase()));
        let all = either("all_proxy");
        // An upper-case HTTP_PROXY can come from a request's header where programs run as CGI; curl and others skip
        // it for that reason, but nothing here ever runs so, and people do set it.
        let pairs = [("http", either("http_proxy").or(all)), ("https", either("https_proxy").or(all))];
        let proxies = pairs.into_iter().filter_map(|(scheme, proxy)| Some((scheme.to_owned(), proxy?.to_owned())));
        let without = either("no_proxy").unwrap_or_default();
        let hosts = without.split([',', ' ']).map(str::trim).filter(|host| !host.is_empty());
        (proxies.collect(), hosts.map(str::to_owned).collect())
    }

    /// Certificate bundles that the environment names for programs at large.
    pub fn certificate_bundles(&self) -> Vec<PathBuf> {
        ["SSL_CERT_FILE", "NIX_SSL_CERT_FILE"]
            .iter()
            .filter_map(|name| self.variable(name))
            .map(PathBuf::from)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_from_either_case() {
        let environment = [("HTTPS_PROXY", "http://p.example:1"), ("all_proxy", "http://q.example:2")];
        let environment = environment.into_iter().chain([("no_proxy", "localhost, .corp.example")]);
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (proxies, without) = Machine::new(Path::new("/nonexistent"), environment).proxies();
        assert_eq!(proxies["https"], "http://p.example:1");
        assert_eq!(proxies["http"], "http://q.example:2");
        assert_eq!(without, ["localhost", ".corp.example"]);
    }
}
