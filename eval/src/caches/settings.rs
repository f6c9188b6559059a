//! Which caches this machine's user trusts and asks: the `[caches]` section of our own configuration file.
//!
//! ```toml
//! [caches]
//! substituters = ["https://cache.example"]     # asked before anything is built, best priority first
//! trusted_keys = ["cache.example-1:base64"]    # whose signatures count
//! absent_seconds = 600                         # how long to remember what a server does not have; 0 to ask each time
//! ```

use std::path::PathBuf;

use ampoule_store::signature::{KeyError, PublicKey};
use serde::Deserialize;

use crate::sources::Machine;
use crate::sources::machine::ReadError;
use crate::sources::own::OwnConfiguration;

/// The `[caches]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Addresses of caches to ask before building.
    pub substituters: Vec<String>,
    /// Whose signatures count.
    pub trusted_keys: Vec<PublicKey>,
    /// How long it is remembered that a server does not have something.
    pub absent_seconds: u64,
}

/// Long enough for a second try, short enough for what others build meanwhile.
const ABSENT_SECONDS: u64 = 600;

impl Default for CacheSettings {
    fn default() -> Self {
        Self { substituters: Vec::new(), trusted_keys: Vec::new(), absent_seconds: ABSENT_SECONDS }
    }
}

/// Why the section is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CacheSettingsError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The section is not of the expected shape.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A trusted key is none.
    #[error("{}: `trusted_keys`: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    caches: Section,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    substituters: Vec<String>,
    #[serde(alias = "trusted-keys")]
    trusted_keys: Vec<String>,
    #[serde(alias = "absent-seconds")]
    absent_seconds: Option<u64>,
}

impl CacheSettings {
    /// Reads the machine's file, if there is one.
    pub fn load(machine: &Machine) -> Result<Self, CacheSettingsError> {
        let named = machine.variable("AMPOULE_CONFIG").map(PathBuf::from);
        let Some(path) = named.or_else(|| OwnConfiguration::default_path(machine)) else { return Ok(Self::default()) };
        let Some(text) = machine.read(&path)? else { return Ok(Self::default()) };
        let file: File = toml::from_str(&text)
            .map_err(|source| CacheSettingsError::Parse { path: path.clone(), source: Box::new(source) })?;
        let keys = file.caches.trusted_keys.iter().map(|key| key.parse()).collect::<Result<_, _>>();
        let trusted_keys = keys.map_err(|source| CacheSettingsError::Key { path, source })?;
        let absent_seconds = file.caches.absent_seconds.unwrap_or(ABSENT_SECONDS);
        Ok(Self { substituters: file.caches.substituters, trusted_keys, absent_seconds })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write configuration files")]

    use super::*;

    fn load(text: &str) -> Result<CacheSettings, CacheSettingsError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let environment = [("AMPOULE_CONFIG".to_owned(), file.to_str().unwrap().to_owned())].into();
        CacheSettings::load(&Machine::new(directory.path(), environment))
    }

    #[test]
    fn the_section_is_read_and_others_are_left_alone() {
        let key = "test-key-1:WUcFdVrQTVgehSwpb3FXMsRiDOVNj1+L8oITEkL/xRE=";
        let text =
            format!("[sources]\npypi = []\n[caches]\nsubstituters = [\"file:///c\"]\ntrusted_keys = [\"{key}\"]\n");
        let settings = load(&text).unwrap();
        assert_eq!(settings.substituters, ["file:///c"]);
        assert_eq!(settings.trusted_keys[0].to_string(), key);
        assert_eq!(load("").unwrap(), CacheSettings::default());
        assert_eq!(load("[caches]\nabsent_seconds = 0").unwrap().absent_seconds, 0);
        assert!(matches!(load("[caches]\nx = 1"), Err(CacheSettingsError::Parse { .. })));
        assert!(matches!(load("[caches]\ntrusted_keys = [\"x\"]"), Err(CacheSettingsError::Key { .. })));
    }
}
