//! What a rebuild can vary, one thing at a time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that a rebuild varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// The wall clock, years apart.
    Date,
    /// The times of files that the build makes, years apart.
    FileTimes,
    /// Random bytes, from wherever they are taken.
    Random,
    /// Where programs, libraries, heap and stack lie in memory.
    Addresses,
    /// The order in which directories are listed: of inputs, and of what the build makes.
    DirectoryOrder,
    /// Inode and device numbers.
    InodeNumbers,
    /// The number that the first process gets.
    ProcessNumbers,
    /// How many cores the build is told to use.
    Jobs,
    /// How many processors it sees and may use.
    Processors,
    /// What the processors are called.
    ProcessorModel,
    /// Which instructions the C library's fast functions may use.
    ProcessorFeatures,
    /// The kernel's release and version.
    Kernel,
    /// How much memory the machine has.
    Memory,
    /// Which file system `/build`, `/tmp` and the outputs are on.
    FileSystem,
    /// Which of several processes comes first.
    Scheduling,
    /// How long the machine has been up.
    Uptime,
    /// Where the build directory is. Fixed by the contract.
    BuildPath,
    /// User and group of the build. Fixed by the contract.
    User,
    /// The mask of new files' modes. Fixed by the contract.
    Umask,
    /// The locale. Fixed by the contract.
    Locale,
    /// The time zone. Fixed by the contract.
    TimeZone,
    /// Host and domain name. Fixed by the contract.
    HostName,
    /// A variable more in the environment. Fixed by the contract.
    Environment,
}

impl Knob {
    /// What the contract leaves open, the likeliest culprits first.
    pub const OPEN: [Self; 16] = [
        Self::Date,
        Self::FileTimes,
        Self::Random,
        Self::DirectoryOrder,
        Self::Jobs,
        Self::Processors,
        Self::Addresses,
        Self::ProcessNumbers,
        Self::InodeNumbers,
        Self::Kernel,
        Self::ProcessorModel,
        Self::Memory,
        Self::FileSystem,
        Self::Uptime,
        Self::ProcessorFeatures,
        Self::Scheduling,
    ];

    /// What the contract fixes, so that a build may depend on it.
    pub const FIXED: [Self; 7] =
        [Self::BuildPath, Self::User, Self::Umask, Self::Locale, Self::TimeZone, Self::HostName, Self::Environment];

    /// The word for it in records and options, such as `file-times`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::FileTimes => "file-times",
            Self::Random => "random",
            Self::Addresses => "addresses",
            Self::DirectoryOrder => "directory-order",
            Self::InodeNumbers => "inode-numbers",
            Self::ProcessNumbers => "process-numbers",
            Self::Jobs => "jobs",
            Self::Processors => "processors",
            Self::ProcessorModel => "processor-model",
            Self::ProcessorFeatures => "processor-features",
            Self::Kernel => "kernel",
            Self::Memory => "memory",
            Self::FileSystem => "file-system",
            Self::Scheduling => "scheduling",
            Self::Uptime => "uptime",
            Self::BuildPath => "build-path",
            Self::User => "user",
            Self::Umask => "umask",
            Self::Locale => "locale",
            Self::TimeZone => "time-zone",
            Self::HostName => "host-name",
            Self::Environment => "environment",
        }
    }

    /// What usually helps.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Date => {
                "set `SOURCE_DATE_EPOCH` in the derivation's environment (compilers, archivers and documentation tools \
                 take the date from it), and replace `date`, `__DATE__` and `__TIME__` by it"
            }
            Self::FileTimes => {
                "archives hold the times of their files: `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH`, `gzip -n`, \
                 `zip -X` after `touch -d @$SOURCE_DATE_EPOCH`, `ar D` and `ranlib -D`; for `.pyc` files \
                 `python -m compileall --invalidation-mode checked-hash`"
            }
            Self::Random => {
                "fix the seed: `PYTHONHASHSEED=0`, `PERL_HASH_SEED=0`, `-frandom-seed=NAME` for C++ and LTO; sort what \
                 comes out of hash tables; no UUIDs and no temporary names in outputs"
            }
            Self::Addresses => {
                "addresses got into the output: pointers that are printed, hashed or compared; order by content instead"
            }
            Self::DirectoryOrder => {
                "sort what a directory lists: `sort` after `find`, `sorted()` round `os.listdir` and `glob`, \
                 `$(sort $(wildcard *))` in a makefile, `tar --sort=name`, `LC_ALL=C`"
            }
            Self::InodeNumbers => {
                "inode or device numbers got into the output: `cpio --reproducible`, and no `stat` or `ls -i` output"
            }
            Self::ProcessNumbers => "no `$$` or `getpid()` in outputs or in names that outputs keep",
            Self::Jobs => {
                "the output depends on `NIX_BUILD_CORES`: keep it out of what is installed; if files differ, a target of \
                 the makefile lacks a dependency (`make --shuffle` finds it)"
            }
            Self::Processors => "keep the number of processors (`nproc`, `os.cpu_count()`) out of outputs",
            Self::ProcessorModel => "no `/proc/cpuinfo` in outputs, and no tuning for the processor found there",
            Self::ProcessorFeatures => {
                "the result of a computation depends on the processor: build without `-march=native` and \
                 `-ffast-math`, and fix the kernel that numeric libraries choose (`OPENBLAS_CORETYPE=Haswell`)"
            }
            Self::Kernel => {
                "no `uname` in outputs: give the version to `configure` or write a constant into its cache file"
            }
            Self::Memory => {
                "no memory size in outputs; give tools a fixed buffer size instead of a share of the memory"
            }
            Self::FileSystem => {
                "no block counts, directory sizes or free space (`du`, `df`, `stat -f`) in outputs; sort what lists \
                 directories"
            }
            Self::Scheduling => {
                "a race: processes or threads write to the same file, or a target lacks a dependency; write to files \
                 of their own and join them in a fixed order, or build with one job"
            }
            Self::Uptime => "no `/proc/uptime` or monotonic clock in outputs",
            Self::BuildPath => {
                "the build's path got into the output: `-ffile-prefix-map=/build=.` (or `-fdebug-prefix-map`), \
                 `--remap-path-prefix` for Rust, `-trimpath` for Go"
            }
            Self::User => {
                "`tar --owner=0 --group=0 --numeric-owner`, `cpio --owner=0:0`; no `id` or `whoami` in outputs"
            }
            Self::Umask => "set the modes of installed files: `install -m 644`, `chmod`, `tar --mode=go=rX,u+rw`",
            Self::Locale => "`LC_ALL=C` for what sorts, or formats numbers and messages",
            Self::TimeZone => "`TZ=UTC` for what prints dates; `zip` keeps local times",
            Self::HostName => "no `hostname` in outputs: set `KBUILD_BUILD_HOST` and the like",
            Self::Environment => "do not write the whole environment into an output",
        }
    }
}

impl fmt::Display for Knob {
    /// What is varied, as it reads in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Date => "the date",
            Self::FileTimes => "the times of new files",
            Self::Random => "random bytes",
            Self::Addresses => "addresses in memory",
            Self::DirectoryOrder => "the order of directories",
            Self::InodeNumbers => "inode numbers",
            Self::ProcessNumbers => "process numbers",
            Self::Jobs => "the number of jobs",
            Self::Processors => "the number of processors",
            Self::ProcessorModel => "the processor's model",
            Self::ProcessorFeatures => "the processor's features",
            Self::Kernel => "the kernel's version",
            Self::Memory => "the size of the memory",
            Self::FileSystem => "the file system",
            Self::Scheduling => "the order in which processes run",
            Self::Uptime => "the time since the machine started",
            Self::BuildPath => "the path of the build directory",
            Self::User => "user and group",
            Self::Umask => "the umask",
            Self::Locale => "the locale",
            Self::TimeZone => "the time zone",
            Self::HostName => "the host's name",
            Self::Environment => "an additional environment variable",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_knob_is_listed_once_under_its_name() {
        let all: BTreeSet<Knob> = Knob::OPEN.into_iter().chain(Knob::FIXED).collect();
        assert_eq!(all.len(), Knob::OPEN.len() + Knob::FIXED.len());
        for knob in all {
            assert_eq!(serde_json::to_value(knob).unwrap(), knob.name());
            assert!(!knob.advice().is_empty());
        }
    }
}
