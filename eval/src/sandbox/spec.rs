//! What a build may see, run and use: plain data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::machine::{DOMAIN, HOST, Machine};

/// A string of bytes that need not be UTF-8, such as the value of an environment variable.
///
/// Serialised as a string: the text itself when it is UTF-8, else `base64:` and its encoding.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Vec<u8>);

const ENCODED: &str = "base64:";

impl Bytes {
    /// The bytes themselves.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }

    fn to_text(&self) -> Cow<'_, str> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(ENCODED) => Cow::Borrowed(text),
            _ => Cow::Owned(format!("{ENCODED}{}", BASE64.encode(&self.0))),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(ENCODED) {
            Some(encoded) => BASE64.decode(encoded.as_bytes()).map(Self).map_err(serde::de::Error::custom),
            None => Ok(Self(text.into_bytes())),
        }
    }
}

/// Everything an engine needs to know about one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What the build sees as `/`.
    pub root: Root,
    /// Store objects shown to the build, read-only.
    pub inputs: Vec<Input>,
    /// The logical store directory, such as `/nix/store`. The build may create its outputs there and nothing else.
    pub store_dir: String,
    /// What runs.
    pub builder: Builder,
    /// The complete environment; the sandbox adds nothing.
    pub env: BTreeMap<Bytes, Bytes>,
    /// Files found in `/build` at the start, by name (no `/`).
    pub build_files: BTreeMap<String, Bytes>,
    /// How much the build may use.
    pub limits: Limits,
    /// What a reproducibility check varies.
    pub conditions: Conditions,
    /// An empty directory of the host that others may write to, for conditions that ask for a file system on disk.
    pub disk: Option<PathBuf>,
}

/// What the build sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// Nothing but what the sandbox itself provides.
    Empty,
    /// A directory tree of the host (a sysroot), read-only. `/dev`, `/proc`, `/build`, `/tmp`, the store directory and
    /// a few files of `/etc` are the sandbox's own; there is no `/sys`.
    Tree(PathBuf),
}

/// A store object shown to the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it is on the host.
    pub source: PathBuf,
    /// The full logical path: an entry of the store directory.
    pub target: String,
}

/// What runs as the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Builder {
    /// A program. Its `argv[0]` is its base name, as in Nix.
    Exec {
        /// The path of the program, as the build sees it.
        program: String,
        /// The arguments after `argv[0]`.
        args: Vec<Bytes>,
    },
    /// A shell in the place of a builder, for a person who wants to stand where a build stands.
    Shell {
        /// The path of the program, as the build sees it.
        program: String,
        /// The arguments after `argv[0]`.
        args: Vec<Bytes>,
        /// Whether it gets a terminal of the sandbox's own, whose other end goes to the caller; else it writes to the
        /// log as builders do.
        terminal: bool,
        /// An input whose content `/build` begins with.
        build: Option<String>,
    },
    /// A function of this program, run inside the same sandbox. It is given the environment of the spec.
    Builtin {
        /// Its name, such as `builtin:unpack-v1`.
        name: String,
        /// The logical path of the output it has to make.
        out: String,
    },
}

/// What a builtin builder is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinCall {
    /// The builder's name.
    pub name: String,
    /// The environment of the derivation.
    pub env: BTreeMap<String, String>,
    /// Where the output has to be made.
    pub out: PathBuf,
}

/// How much a build may use before it is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time of the whole build.
    pub timeout_seconds: u64,
    /// Wall time without a byte of log.
    pub silence_seconds: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Bytes of everything the build writes: outputs, `/build`, `/tmp` and `/dev/shm` together.
    pub output_bytes: u64,
    /// Processes and threads at one time.
    pub processes: u32,
    /// Memory of the whole build, with all it writes, where the caller may make control groups. Private writable memory of
    /// each process everywhere.
    pub memory_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_seconds: 4 * 3600,
            silence_seconds: 3600,
            log_bytes: 64 << 20,
            output_bytes: 16 << 30,
            processes: 8192,
            memory_bytes: None,
        }
    }
}

/// What a build cannot choose and must not depend on. The default is what an ordinary build gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// The wall clock.
    pub clock: Clock,
    /// The second, after 1970, that files and directories made or changed since the start seem to be from; `None`: as the
    /// kernel says. Among themselves they keep their order.
    pub file_times: Option<i64>,
    /// How many processors the build may use and see; `None`: as many as the caller. More than there are can be seen.
    pub cpus: Option<u32>,
    /// The order in which directories are listed.
    pub directory_order: Order,
    /// Where inode and device numbers seem to start, counted as they are first seen; `None`: as the kernel says.
    pub inode_numbers: Option<u64>,
    /// Makes `getrandom`, `AT_RANDOM` and `/dev/urandom` a function of this number.
    pub random_seed: Option<u64>,
    /// Whether addresses are randomised.
    pub address_randomisation: bool,
    /// The process number after which the build's numbers start; `None`: right after init.
    pub last_process: Option<u32>,
    /// What the monotonic and boot clocks show at the start, in seconds.
    pub monotonic_start_seconds: u64,
    /// What the build is told about the machine.
    pub machine: Machine,
    /// What kind of file system the build writes to.
    pub file_system: FileSystem,
    /// What the C library may use of the processor.
    pub processor_features: Features,
    /// Makes every second new process or program wait for a moment, as this number decides.
    pub delays: Option<u64>,
    /// What the contract fixes: another value makes another contract.
    pub contract: Contract,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            clock: Clock::Host,
            file_times: None,
            cpus: None,
            directory_order: Order::AsIs,
            inode_numbers: None,
            random_seed: None,
            address_randomisation: false,
            last_process: None,
            monotonic_start_seconds: 0,
            machine: Machine::default(),
            file_system: FileSystem::Memory,
            processor_features: Features::All,
            delays: None,
            contract: Contract::default(),
        }
    }
}

/// The wall clock as the build sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// The host's.
    #[default]
    Host,
    /// Starts at this many seconds after 1970 and runs on.
    StartAt(i64),
    /// Starts in the middle of this second after 1970, and goes on only by what programs sleep, and by a microsecond
    /// each time it is looked at: the same steps see the same time, however long they take.
    Steady(i64),
}

/// The order in which a directory is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// As the file system has it.
    #[default]
    AsIs,
    /// By the bytes of the names, in every directory but those of `/proc`.
    Sorted,
    /// The other way round.
    Reversed,
}

/// What the outputs, `/build`, `/tmp` and `/dev/shm` are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSystem {
    /// A tmpfs of their own.
    #[default]
    Memory,
    /// The directory of the host that the spec names. There is no limit of its own.
    Disk,
}

/// What the C library's fast functions may use of the processor: `GLIBC_TUNABLES`, unless the derivation has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Features {
    /// Everything.
    #[default]
    All,
    /// What every processor has.
    Masked,
    /// Everything, but the variable is there: it must not matter whether it is.
    Pretended,
}

impl Features {
    /// The value of the variable, of the same length whatever it says.
    pub fn tunables(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Masked => Some(
                "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-FMA,-FMA4,-BMI1,-BMI2,-LZCNT,-MOVBE,-ERMS,-FSRM,-SSE4_2,\
                 -SSE4_1,-SSSE3,-POPCNT,-AVX_Fast_Unaligned_Load,-Fast_Unaligned_Copy",
            ),
            Self::Pretended => Some(
                "glibc.cpu.hwcaps=-ZZZ512Z,-ZZZ512ZZ,-ZZZ2,-ZZZ,-ZZZ,-ZZZ4,-ZZZ1,-ZZZ2,-ZZZZZ,-ZZZZZ,-ZZZZ,-ZZZZ,-ZZZ4_2,\
                 -ZZZ4_1,-ZZZZ3,-ZZZZZZ,-ZZZ_Zzzz_Zzzzzzzzz_Zzzz,-Zzzz_Zzzzzzzzz_Zzzz",
            ),
        }
    }
}

/// What every build may rely on. Only a check that looks for hidden dependences on it changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contract {
    /// The build directory: a name at the top of the root.
    pub build_directory: String,
    /// User number of the build.
    pub user: u32,
    /// Group number of the build.
    pub group: u32,
    /// The mask of new files' modes.
    pub umask: u32,
    /// The host's name, also in the machine's settings.
    pub host: String,
    /// The domain's name.
    pub domain: String,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            build_directory: "build".into(),
            user: 1000,
            group: 100,
            umask: 0o022,
            host: HOST.into(),
            domain: DOMAIN.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json() {
        for bytes in [&b""[..], b"text", b"base64:looks encoded", b"\xff\x00\xfe", b"a\nb\0c"] {
            let json = serde_json::to_string(&Bytes::from(bytes)).unwrap();
            assert_eq!(&*serde_json::from_str::<Bytes>(&json).unwrap(), bytes, "{json}");
        }
        assert!(serde_json::from_str::<Bytes>("\"base64:*\"").is_err());
    }

    #[test]
    fn pretended_features_look_like_masked_ones() {
        let [masked, pretended] = [Features::Masked, Features::Pretended].map(|features| features.tunables().unwrap());
        assert_eq!(masked.len(), pretended.len());
        assert_ne!(masked, pretended);
        assert!(!masked.contains(' '));
    }

    #[test]
    fn conditions_default_when_absent() {
        assert_eq!(serde_json::from_str::<Conditions>("{}").unwrap(), Conditions::default());
    }
}
