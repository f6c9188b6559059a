//! Tags and file names of wheels (PEP 425, PEP 427).

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use crate::platform::{Platform, PythonVersion};
use crate::python_name::{Version, VersionError, file_name_part, normalised_name};

/// What one installer needs to match: `cp311-cp311-linux_x86_64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WheelTag {
    /// The interpreter: `cp311`, `py3`.
    pub python: String,
    /// The binary interface: `cp311`, `abi3`, `none`.
    pub abi: String,
    /// The platform: `any`, `manylinux_2_17_x86_64`.
    pub platform: String,
}

impl fmt::Display for WheelTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.python, self.abi, self.platform)
    }
}

impl WheelTag {
    /// Reads a tag as it stands in a `WHEEL` file.
    pub fn parse(text: &str) -> Option<Self> {
        let [python, abi, platform] = text.split('-').collect::<Vec<_>>()[..] else { return None };
        let sound = [python, abi, platform].iter().all(|part| is_word(part));
        sound.then(|| WheelTag { python: python.to_owned(), abi: abi.to_owned(), platform: platform.to_owned() })
    }

    /// Whether an interpreter of this version on this platform could take a wheel with this tag, as far as the
    /// platform's machine tells.
    pub fn suits(&self, python: PythonVersion, platform: Platform) -> bool {
        let machine = self.platform.strip_suffix(platform.machine());
        let platform = self.platform == "any"
            || machine
                .is_some_and(|system| system == "linux_" || system.starts_with("manylinux") && system.ends_with('_'));
        let own = python.to_string();
        let minor = |text: &str| text.parse::<u8>().ok().filter(|minor| *minor <= python.minor());
        let interpreter = match &self.abi[..] {
            "abi3" => self.python.strip_prefix("cp3").and_then(minor).is_some_and(|minor| minor >= 2),
            "none" => {
                self.python == "py3"
                    || self.python == own
                    || self.python.strip_prefix("py3").and_then(minor).is_some()
                    || self.python.strip_prefix("cp3").and_then(minor).is_some()
            }
            abi => self.python == own && abi == own,
        };
        platform && interpreter
    }
}

/// The file name of a wheel: `<name>-<version>[-<build>]-<python>-<abi>-<platform>.whl`, where each of the last three
/// may be several joined by dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelName {
    /// The distribution's normalised name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The build number that breaks ties between wheels of one version.
    pub build: Option<String>,
    /// Interpreters, in the order of the file name.
    pub pythons: Vec<String>,
    /// Binary interfaces.
    pub abis: Vec<String>,
    /// Platforms.
    pub platforms: Vec<String>,
}

/// Why a file name is not one of a wheel.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WheelNameError {
    /// It does not have five or six parts and the ending `.whl`.
    #[error("`{0}` is not the file name of a wheel: it must be `name-version-python-abi-platform.whl`")]
    Shape(String),
    /// One part has characters that it must not have.
    #[error("`{file_name}` is not the file name of a wheel: `{part}` makes no sense there")]
    Part {
        /// The file name.
        file_name: String,
        /// The part.
        part: String,
    },
    /// The version is none.
    #[error("`{file_name}` is not the file name of a wheel: {source}")]
    Version {
        /// The file name.
        file_name: String,
        /// Why.
        source: VersionError,
    },
}

impl WheelName {
    /// Reads a file name.
    pub fn parse(file_name: &str) -> Result<Self, WheelNameError> {
        let shape = || WheelNameError::Shape(file_name.to_owned());
        let stem = file_name.strip_suffix(".whl").filter(|stem| stem.len() < 1000).ok_or_else(shape)?;
        let parts: Vec<&str> = stem.split('-').collect();
        let (name, version, build, tags) = match parts[..] {
            [name, version, python, abi, platform] => (name, version, None, [python, abi, platform]),
            [name, version, build, python, abi, platform] => (name, version, Some(build), [python, abi, platform]),
            _ => return Err(shape()),
        };
        let refuse = |part: &str| WheelNameError::Part { file_name: file_name.to_owned(), part: part.to_owned() };
        if !is_distribution(name) {
            return Err(refuse(name));
        }
        if let Some(build) = build
            && !(build.starts_with(|character: char| character.is_ascii_digit()) && is_word(build))
        {
            return Err(refuse(build));
        }
        let set = |text: &str| -> Result<Vec<String>, WheelNameError> {
            let words: Vec<String> = text.split('.').map(str::to_owned).collect();
            if words.len() <= 20 && words.iter().all(|word| is_word(word)) { Ok(words) } else { Err(refuse(text)) }
        };
        let version = Version::parse(&version.replace('_', "-"))
            .map_err(|source| WheelNameError::Version { file_name: file_name.to_owned(), source })?;
        let [pythons, abis, platforms] = tags;
        Ok(WheelName {
            name: normalised_name(name),
            version,
            build: build.map(str::to_owned),
            pythons: set(pythons)?,
            abis: set(abis)?,
            platforms: set(platforms)?,
        })
    }

    /// Every single tag of the wheel.
    pub fn tags(&self) -> BTreeSet<WheelTag> {
        let mut tags = BTreeSet::new();
        for python in &self.pythons {
            for abi in &self.abis {
                for platform in &self.platforms {
                    tags.insert(WheelTag { python: python.clone(), abi: abi.clone(), platform: platform.clone() });
                }
            }
        }
        tags
    }

    /// The last three parts: `py2.py3-none-any`.
    pub fn tag_part(&self) -> String {
        format!("{}-{}-{}", self.pythons.join("."), self.abis.join("."), self.platforms.join("."))
    }
}

impl fmt::Display for WheelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-", file_name_part(&self.name), self.version.file_name_part())?;
        if let Some(build) = &self.build {
            write!(formatter, "{build}-")?;
        }
        write!(formatter, "{}.whl", self.tag_part())
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_distribution(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_read_and_print() {
        for (file_name, printed) in [
            ("MarkupSafe-2.1.5-cp311-cp311-linux_x86_64.whl", "markupsafe-2.1.5-cp311-cp311-linux_x86_64.whl"),
            ("six-1.17.0-py2.py3-none-any.whl", "six-1.17.0-py2.py3-none-any.whl"),
            ("a.b_c-1.0.0-1x-py3-none-any.whl", "a_b_c-1.0.0-1x-py3-none-any.whl"),
            ("x-1.0_1-py3-none-any.whl", "x-1.0.post1-py3-none-any.whl"),
            ("x-1.0+local.1-py3-none-any.whl", "x-1.0+local.1-py3-none-any.whl"),
        ] {
            assert_eq!(WheelName::parse(file_name).unwrap().to_string(), printed);
        }
        let both = WheelName::parse("six-1.17.0-py2.py3-none-any.whl").unwrap();
        let tags: Vec<_> = both.tags().iter().map(WheelTag::to_string).collect();
        assert_eq!(tags, ["py2-none-any", "py3-none-any"]);
    }

    #[test]
    fn other_file_names_are_refused() {
        for wrong in [
            "x-1.0-py3-none-any.zip",
            "x-1.0-py3-none.whl",
            "x-1.0-a-b-c-d-e.whl",
            "x-1.0-build-py3-none-any.whl",
            "../x-1.0-py3-none-any.whl",
            "x-one-py3-none-any.whl",
            "x-1.0-py3-none-any/.whl",
            "-1.0-py3-none-any.whl",
            "x-1.0-py3..py2-none-any.whl",
            ".whl",
        ] {
            assert!(WheelName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_suit_interpreters() {
        let check = |tag: &str, expected: bool| {
            let suits = WheelTag::parse(tag).unwrap().suits(PythonVersion::new(11), Platform::LinuxArm64);
            assert_eq!(suits, expected, "{tag}");
        };
        for tag in
            ["py3-none-any", "cp311-cp311-linux_aarch64", "cp37-abi3-manylinux_2_17_aarch64", "py3-none-linux_aarch64"]
        {
            check(tag, true);
        }
        check("cp311-none-any", true);
        for tag in ["cp311-cp311-linux_x86_64", "cp310-cp310-linux_aarch64", "cp312-abi3-linux_aarch64", "py2-none-any"]
        {
            check(tag, false);
        }
        check("cp311-cp311-musllinux_1_1_aarch64", false);
        check("cp311-cp311d-linux_aarch64", false);
    }
}
