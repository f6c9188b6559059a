//! What the host knows about the values of matrix axes: platforms and Python versions.

use std::ops::RangeInclusive;

use ampoule_sysroots::platform::{Platform as KnownPlatform, PythonVersion};

use super::suggest;

/// Minor versions of Python 3 that recipes may name.
const OLDEST_PYTHON_TO_NEWEST: RangeInclusive<u8> = 8..=14;

/// A platform recipes may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The one name recipes use: `linux-arm64`.
    pub name: String,
    /// Other names the world has for it; recipes may not use them, but the error for one says what to write.
    pub aliases: Vec<String>,
    /// The program in a run-time sysroot that runs foreign programs: empty for the builder's own platform.
    pub emulator: String,
}

/// The values that axes may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// All platforms, the builder's own first.
    pub platforms: Vec<Platform>,
    /// All Python versions: `cp311`.
    pub pythons: Vec<String>,
}

/// The value of axis `platform` for what runs everywhere; such members are made with the builder's own toolchain.
pub const ANY_PLATFORM: &str = "any";

impl Default for Tables {
    /// The platforms and Python versions this program can build for.
    fn default() -> Self {
        let [builder, ..] = KnownPlatform::ALL;
        let platform = |known: KnownPlatform| Platform {
            name: known.name().to_owned(),
            aliases: known.aliases().iter().map(ToString::to_string).collect(),
            emulator: if known == builder {
                String::new()
            } else {
                format!("/usr/bin/qemu-{}-static", known.machine())
            },
        };
        Self {
            platforms: KnownPlatform::ALL.map(platform).into(),
            pythons: OLDEST_PYTHON_TO_NEWEST.map(|minor| PythonVersion::new(minor).to_string()).collect(),
        }
    }
}

impl Tables {
    /// The platform with this name. `any` is the builder's own.
    pub fn platform(&self, name: &str) -> Option<&Platform> {
        match name {
            ANY_PLATFORM => self.platforms.first(),
            name => self.platforms.iter().find(|platform| platform.name == name),
        }
    }

    /// What is wrong with a value of an axis, and a hint; axes other than `platform` and `python` have free values.
    pub(super) fn check(&self, axis: &str, value: &str) -> Result<(), (String, String)> {
        match axis {
            "platform" => self.check_platform(value),
            "python" if !self.pythons.iter().any(|known| known == value) => {
                Err((format!("unknown Python `{value}`"), python_hint(&self.pythons, value)))
            }
            _ => Ok(()),
        }
    }

    fn check_platform(&self, value: &str) -> Result<(), (String, String)> {
        if self.platform(value).is_some() {
            return Ok(());
        }
        let names = || self.platforms.iter().map(|platform| platform.name.as_str());
        let alias_of = self.platforms.iter().find(|platform| platform.aliases.iter().any(|alias| alias == value));
        let hint = match alias_of {
            Some(platform) => format!("it is called `{}` here", platform.name),
            None => suggest::hint("platforms", value, names().chain([ANY_PLATFORM])),
        };
        Err((format!("unknown platform `{value}`"), hint))
    }
}

fn python_hint(pythons: &[String], value: &str) -> String {
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    match pythons.iter().find(|known| known[2..] == digits) {
        Some(known) => format!("it is called `{known}` here"),
        None => suggest::hint("Pythons", value, pythons.iter().map(String::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_explained() {
        let tables = Tables::default();
        let explain = |axis, value| tables.check(axis, value).unwrap_err();
        assert_eq!(tables.check("platform", "linux-arm64"), Ok(()));
        assert_eq!(tables.check("platform", "any"), Ok(()));
        assert_eq!(tables.check("color", "green"), Ok(()));
        assert_eq!(
            explain("platform", "linux-arm9"),
            (
                "unknown platform `linux-arm9`".to_owned(),
                "did you mean `linux-arm64`? platforms: `any`, `linux-arm64`, `linux-x86_64`".to_owned()
            )
        );
        assert_eq!(explain("platform", "aarch64").1, "it is called `linux-arm64` here");
        assert_eq!(explain("python", "3.11").1, "it is called `cp311` here");
        assert!(explain("python", "cp27").1.contains("Pythons: `cp310`, `cp311`"));
    }
}
