//! What things are built for: platforms with all the names the world gives them, and Python versions.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A platform that wheels and sysroots are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// 64-bit x86 with the GNU C library.
    LinuxX86_64,
    /// 64-bit ARM with the GNU C library.
    LinuxArm64,
}

/// What one platform is called by each of the tools that must agree about it.
struct Names {
    canonical: &'static str,
    aliases: &'static [&'static str],
    machine: &'static str,
    debian: &'static str,
    triplet: &'static str,
    elf_machine: u16,
}

const X86_64: Names = Names {
    canonical: "linux-x86_64",
    aliases: &["linux-amd64", "linux_x86_64", "x86_64", "amd64"],
    machine: "x86_64",
    debian: "amd64",
    triplet: "x86_64-linux-gnu",
    elf_machine: 62,
};

const ARM64: Names = Names {
    canonical: "linux-arm64",
    aliases: &["linux-aarch64", "linux_aarch64", "linux_arm64", "aarch64", "arm64"],
    machine: "aarch64",
    debian: "arm64",
    triplet: "aarch64-linux-gnu",
    elf_machine: 183,
};

impl Platform {
    /// Every platform, in order.
    pub const ALL: [Platform; 2] = [Platform::LinuxX86_64, Platform::LinuxArm64];

    const fn names(self) -> &'static Names {
        match self {
            Platform::LinuxX86_64 => &X86_64,
            Platform::LinuxArm64 => &ARM64,
        }
    }

    /// Our own name: `linux-x86_64`, `linux-arm64`.
    pub fn name(self) -> &'static str {
        self.names().canonical
    }

    /// Other spellings that [`FromStr`] accepts.
    pub fn aliases(self) -> &'static [&'static str] {
        self.names().aliases
    }

    /// The kernel's name of the machine (`uname -m`), which is also the last part of a wheel's platform tag.
    pub fn machine(self) -> &'static str {
        self.names().machine
    }

    /// Debian's architecture: `amd64`, `arm64`.
    pub fn debian_architecture(self) -> &'static str {
        self.names().debian
    }

    /// The GNU triplet, which is also Debian's multi-arch directory name.
    pub fn gnu_triplet(self) -> &'static str {
        self.names().triplet
    }

    /// `e_machine` of this platform's ELF files. All of them are 64-bit and little-endian.
    pub fn elf_machine(self) -> u16 {
        self.names().elf_machine
    }

    /// The plain platform tag of a wheel: `linux_x86_64`.
    pub fn wheel_platform(self) -> String {
        format!("linux_{}", self.machine())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that names no platform.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown platform `{name}`; known are {}", known_platforms())]
pub struct UnknownPlatform {
    /// The word.
    pub name: String,
}

fn known_platforms() -> String {
    let describe = |platform: Platform| format!("`{}` (also {})", platform.name(), platform.aliases().join(", "));
    Platform::ALL.map(describe).join(" and ")
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |platform: &Platform| platform.name() == text || platform.aliases().contains(&text);
        Platform::ALL.into_iter().find(named).ok_or_else(|| UnknownPlatform { name: text.to_owned() })
    }
}

/// A version of CPython 3, as wheels name it: `cp311`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PythonVersion {
    minor: u8,
}

impl PythonVersion {
    /// CPython 3.`minor`.
    pub const fn new(minor: u8) -> Self {
        PythonVersion { minor }
    }

    /// The number after `3.`.
    pub fn minor(self) -> u8 {
        self.minor
    }

    /// The name of its interpreter: `python3.11`.
    pub fn interpreter(self) -> String {
        format!("python3.{}", self.minor)
    }
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cp3{}", self.minor)
    }
}

/// A word that names no version of Python.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown Python version `{name}`; versions are written like `cp311`")]
pub struct UnknownPython {
    /// The word.
    pub name: String,
}

impl FromStr for PythonVersion {
    type Err = UnknownPython;

    /// Accepts `cp311` and `3.11`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPython { name: text.to_owned() };
        let digits = text.strip_prefix("cp3").or_else(|| text.strip_prefix("3.")).ok_or_else(unknown)?;
        let plain = !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        if !plain {
            return Err(unknown());
        }
        digits.parse().map(PythonVersion::new).map_err(|_| unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_its_platform() {
        for platform in Platform::ALL {
            assert_eq!(platform.name().parse(), Ok(platform));
            for alias in platform.aliases() {
                assert_eq!(alias.parse(), Ok(platform));
            }
        }
    }

    #[test]
    fn an_unknown_platform_lists_the_known_ones() {
        let message = "linux-mips".parse::<Platform>().unwrap_err().to_string();
        assert!(message.contains("`linux-x86_64`") && message.contains("aarch64"), "{message}");
    }

    #[test]
    fn python_versions_read_and_print() {
        assert_eq!("cp311".parse(), Ok(PythonVersion::new(11)));
        assert_eq!("3.9".parse(), Ok(PythonVersion::new(9)));
        assert_eq!(PythonVersion::new(13).to_string(), "cp313");
        for wrong in ["cp27", "cp3", "3.", "cp3011", "cp3x", "cp3999", "", "py3"] {
            assert!(wrong.parse::<PythonVersion>().is_err(), "{wrong}");
        }
    }
}
