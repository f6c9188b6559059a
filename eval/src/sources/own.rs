//! Our own configuration of sources: `ampoule/config.toml` in the user's configuration directory, or the file that
//! `AMPOULE_CONFIG` names. What it sets wins over the clients' configuration.
//!
//! ```toml
//! [sources]
//! pypi = ["https://index.example/simple/"]       # package indexes
//! debian = ["https://mirror.example/debian"]     # bases of archives
//! debian-keyrings = ["/usr/share/keyrings/archive.gpg"]
//! mirrors = ["https://mirror.example", "/srv/sources"]   # `<base>/sha256/<hex>`, or a directory of files
//! certificates = ["/etc/ssl/corp.pem"]
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::machine::{Machine, ReadError};

/// The variable that lists archive bases, separated by blanks or commas. It wins over the file.
pub const DEBIAN_MIRRORS: &str = "AMPOULE_DEBIAN_MIRRORS";

/// What the user set for this program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct OwnConfiguration {
    /// Package indexes, in order of preference.
    pub pypi: Vec<String>,
    /// Bases of Debian archives, in order of preference.
    pub debian: Vec<String>,
    /// Keyrings that may sign those archives; without any, the machine's.
    pub debian_keyrings: Vec<PathBuf>,
    /// Where any source may be found by its hash, and directories of files.
    pub mirrors: Vec<String>,
    /// PEM files to trust beside the platform's certificates.
    pub certificates: Vec<PathBuf>,
}

/// Why our own configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum OwnConfigurationError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// `AMPOULE_CONFIG` names a file that is not there.
    #[error("{}, which AMPOULE_CONFIG names, does not exist or may not be read", .0.display())]
    Absent(PathBuf),
    /// The file is not TOML of the expected shape.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    sources: OwnConfiguration,
}

impl OwnConfiguration {
    /// Reads the machine's file, if any, and its variables.
    pub fn load(machine: &Machine) -> Result<Self, OwnConfigurationError> {
        let named = machine.variable("AMPOULE_CONFIG").map(PathBuf::from);
        let path = named.clone().or_else(|| Self::default_path(machine));
        let text = path.as_deref().map(|path| machine.read(path)).transpose()?.flatten();
        let mut configuration = match (path, text) {
            (Some(path), Some(text)) => Self::parse(&path, &text)?,
            _ => match named {
                Some(path) => return Err(OwnConfigurationError::Absent(path)),
                None => Self::default(),
            },
        };
        if let Some(bases) = machine.variable(DEBIAN_MIRRORS) {
            let bases = bases.split(|c: char| c == ',' || c.is_whitespace()).filter(|base| !base.is_empty());
            configuration.debian = bases.map(str::to_owned).collect();
        }
        Ok(configuration)
    }

    /// Where the file is looked for when nothing names it.
    pub fn default_path(machine: &Machine) -> Option<PathBuf> {
        Some(machine.user_configuration()?.join("ampoule/config.toml"))
    }

    fn parse(path: &Path, text: &str) -> Result<Self, OwnConfigurationError> {
        // Other sections belong to other parts of the program; only ours is read strictly.
        let file: File = toml::from_str(text)
            .map_err(|source| OwnConfigurationError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        Ok(file.sources)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<OwnConfiguration, OwnConfigurationError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ampoule/config.toml");
        #[expect(clippy::disallowed_methods, reason = "the test's own files")]
        {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let mut environment: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        environment.insert("XDG_CONFIG_HOME".into(), directory.path().to_str().unwrap().into());
        OwnConfiguration::load(&Machine::new(directory.path(), environment))
    }

    #[test]
    fn file_and_variable() {
        let text = "[other]\nx = 1\n[sources]\npypi = ['https://i.example/']\ndebian = ['https://d.example']\n";
        let configuration = load(text, &[]).unwrap();
        assert_eq!(configuration.pypi, ["https://i.example/"]);
        assert_eq!(configuration.debian, ["https://d.example"]);
        let configuration = load(text, &[(DEBIAN_MIRRORS, "https://e.example, https://f.example")]).unwrap();
        assert_eq!(configuration.debian, ["https://e.example", "https://f.example"]);
        assert_eq!(load("", &[]).unwrap(), OwnConfiguration::default());
    }

    #[test]
    fn mistakes_are_named() {
        let message = load("[sources]\npipy = []\n", &[]).unwrap_err().to_string();
        assert!(message.contains("config.toml") && message.contains("pipy"), "{message}");
        let message = load("", &[("AMPOULE_CONFIG", "/nonexistent/c.toml")]).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/c.toml"), "{message}");
    }
}
