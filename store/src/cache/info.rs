//! `nix-cache-info`: what a cache says of itself.

use crate::path::{PathError, StoreDir};

/// The file's name.
pub(super) const NAME: &str = "nix-cache-info";
/// The priority of a cache that names none.
const DEFAULT_PRIORITY: u64 = 50;

/// What a cache says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheInfo {
    /// The store directory whose paths it has.
    pub store_dir: Option<StoreDir>,
    /// Whether it is quick to say what it has.
    pub want_mass_query: bool,
    /// Lower ones are asked first.
    pub priority: u64,
}

/// Why a text is no `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheInfoError {
    /// A line is not `Name: value`.
    #[error("line {line}: `Name: value` expected")]
    Line {
        /// Where.
        line: usize,
    },
    /// The store directory is none.
    #[error(transparent)]
    StoreDir(#[from] PathError),
    /// The priority is no number.
    #[error("`{}` is no priority", .0.escape_debug())]
    Priority(String),
}

impl CacheInfo {
    /// What a new cache says.
    #[must_use]
    pub fn new(store_dir: &StoreDir) -> Self {
        Self { store_dir: Some(store_dir.clone()), want_mass_query: true, priority: DEFAULT_PRIORITY }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is not of the expected form.
    pub fn parse(text: &[u8]) -> Result<Self, CacheInfoError> {
        let mut info = Self { store_dir: None, want_mass_query: false, priority: DEFAULT_PRIORITY };
        let text = String::from_utf8_lossy(text);
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let (name, value) = line.split_once(':').ok_or(CacheInfoError::Line { line: number })?;
            let value = value.trim();
            match name {
                "StoreDir" => info.store_dir = Some(StoreDir::new(value)?),
                "WantMassQuery" => info.want_mass_query = value == "1",
                "Priority" => {
                    info.priority = value.parse().map_err(|_| CacheInfoError::Priority(value.to_owned()))?;
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// The file's text.
    #[must_use]
    pub fn write(&self) -> String {
        let directory = self.store_dir.as_ref().map(|one| format!("StoreDir: {one}\n")).unwrap_or_default();
        let mass = u8::from(self.want_mass_query);
        format!("{directory}WantMassQuery: {mass}\nPriority: {}\n", self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let info = CacheInfo { priority: 7, ..CacheInfo::new(&StoreDir::default()) };
        assert_eq!(info.write(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 7\n");
        assert_eq!(CacheInfo::parse(info.write().as_bytes()).unwrap(), info);
        let old = CacheInfo::parse(b"StoreDir: /nix/store\n").unwrap();
        assert_eq!((old.want_mass_query, old.priority), (false, 50));
        for bad in ["x", "Priority: -1", "Priority: x", "StoreDir: nix/store"] {
            assert!(CacheInfo::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
