//! How old a system may be that ELF files still run on: the `manylinux` policies (PEP 600).
//!
//! A policy `manylinux_2_N` allows a set of system libraries and, for each family of versioned symbols, all versions up
//! to a highest one. The numbers are those of the policy table of `auditwheel` 6.8.

use std::collections::BTreeSet;
use std::fmt;

use crate::elf::Elf;
use crate::platform::Platform;

/// The families of versioned symbols that policies speak of.
const FAMILIES: [&str; 6] = ["GLIBC", "GLIBCXX", "CXXABI", "GCC", "ZLIB", "LIBATOMIC"];

/// One policy: the minor version of the GNU C library, and the highest version of each of [`FAMILIES`].
struct Policy {
    minor: u32,
    highest: [&'static str; 6],
}

const fn policy(minor: u32, highest: [&'static str; 6]) -> Policy {
    Policy { minor, highest }
}

/// Highest first would hide what a policy adds; these go from the oldest system to the newest.
const X86_64: [Policy; 16] = [
    policy(5, ["2.5", "3.4.8", "1.3.1", "4.2.0", "", ""]),
    policy(12, ["2.12", "3.4.13", "1.3.3", "4.3.0", "1.2.2.4", ""]),
    policy(17, ["2.17", "3.4.19", "1.3.7", "4.8.0", "1.2.5.2", ""]),
    policy(24, ["2.24", "3.4.22", "1.3.10", "4.8.0", "1.2.5.2", "1.2"]),
    policy(26, ["2.26", "3.4.22", "1.3.10", "4.8.0", "1.2.5.2", "1.2"]),
    policy(27, ["2.27", "3.4.24", "1.3.11", "7.0.0", "1.2.9", "1.2"]),
    policy(28, ["2.28", "3.4.24", "1.3.11", "7.0.0", "1.2.9", "1.2"]),
    policy(31, ["2.31", "3.4.28", "1.3.12", "7.0.0", "1.2.9", "1.2"]),
    policy(34, ["2.34", "3.4.29", "1.3.13", "7.0.0", "1.2.9", "1.2"]),
    policy(35, ["2.35", "3.4.30", "1.3.13", "12.0.0", "1.2.9", "1.2"]),
    policy(36, ["2.36", "3.4.30", "1.3.13", "12.0.0", "1.2.9", "1.2"]),
    policy(37, ["2.37", "3.4.30", "1.3.13", "12.0.0", "1.2.12", "1.2"]),
    policy(38, ["2.38", "3.4.30", "1.3.13", "12.0.0", "1.2.12", "1.2"]),
    policy(39, ["2.39", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
    policy(40, ["2.40", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
    policy(41, ["2.41", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
];

const ARM64: [Policy; 14] = [
    policy(17, ["2.17", "3.4.19", "1.3.7", "4.7.0", "1.2.5.2", "1.0"]),
    policy(24, ["2.24", "3.4.22", "1.3.10", "4.7.0", "1.2.5.2", "1.2"]),
    policy(26, ["2.26", "3.4.24", "1.3.11", "7.0.0", "1.2.5.2", "1.2"]),
    policy(27, ["2.27", "3.4.24", "1.3.11", "7.0.0", "1.2.9", "1.2"]),
    policy(28, ["2.28", "3.4.24", "1.3.11", "7.0.0", "1.2.9", "1.2"]),
    policy(31, ["2.31", "3.4.28", "1.3.12", "7.0.0", "1.2.9", "1.2"]),
    policy(34, ["2.34", "3.4.29", "1.3.13", "11.0", "1.2.9", "1.2"]),
    policy(35, ["2.35", "3.4.30", "1.3.13", "11.0", "1.2.9", "1.2"]),
    policy(36, ["2.36", "3.4.30", "1.3.13", "11.0", "1.2.9", "1.2"]),
    policy(37, ["2.37", "3.4.30", "1.3.13", "11.0", "1.2.12", "1.2"]),
    policy(38, ["2.38", "3.4.30", "1.3.13", "11.0", "1.2.12", "1.2"]),
    policy(39, ["2.39", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
    policy(40, ["2.40", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
    policy(41, ["2.41", "3.4.33", "1.3.15", "14.0.0", "1.2.12", "1.2"]),
];

/// Libraries that every policy expects of a system.
const LIBRARIES: [&str; 22] = [
    "libGL.so.1",
    "libICE.so.6",
    "libSM.so.6",
    "libX11.so.6",
    "libXext.so.6",
    "libXrender.so.1",
    "libanl.so.1",
    "libatomic.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libglib-2.0.so.0",
    "libgobject-2.0.so.0",
    "libgthread-2.0.so.0",
    "libm.so.6",
    "libnsl.so.1",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
    "libz.so.1",
];

/// Libraries that policies expect from this minor version on.
const LATER_LIBRARIES: [(&str, u32); 2] = [("libexpat.so.1", 12), ("libmvec.so.1", 24)];

/// Versions that are not numbers, and the policy that first has them: for x86-64 and for ARM.
const NAMED_VERSIONS: [(&str, Option<u32>, Option<u32>); 3] = [
    ("CXXABI_TM_1", Some(17), Some(17)),
    ("CXXABI_FLOAT128", Some(24), None),
    ("GLIBC_ABI_DT_RELR", Some(36), Some(36)),
];

/// What decides about a platform tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The oldest policy that allows everything, and what rules out the one before it.
    Policy {
        /// The number after `manylinux_2_`.
        minor: u32,
        /// The need that no older policy meets, if there is an older one.
        because: Option<Need>,
    },
    /// No policy allows this need.
    None(Need),
}

/// One thing a file needs of the system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The file.
    pub file: String,
    /// A library's soname, or a symbol version with its library.
    pub what: String,
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` needs {}", self.file, self.what)
    }
}

impl Verdict {
    /// The last part of the tag of a wheel: `manylinux_2_17_x86_64`, or `linux_x86_64`.
    pub fn platform_tag(&self, platform: Platform) -> String {
        match self {
            Verdict::Policy { minor, .. } => format!("manylinux_2_{minor}_{}", platform.machine()),
            Verdict::None(_) => platform.wheel_platform(),
        }
    }
}

/// Finds the oldest policy for files of a platform. `provided` are names of libraries that come along with them.
pub fn judge<'a>(
    platform: Platform,
    files: impl IntoIterator<Item = (&'a str, &'a Elf)>,
    provided: &BTreeSet<String>,
) -> Verdict {
    let policies: &[Policy] = match platform {
        Platform::LinuxX86_64 => &X86_64,
        Platform::LinuxArm64 => &ARM64,
    };
    let mut minor = policies[0].minor;
    let mut because = None;
    for (file, elf) in files {
        for (what, allowed) in needs(platform, policies, elf, provided) {
            let need = Need { file: file.to_owned(), what };
            match allowed {
                None => return Verdict::None(need),
                Some(needed) if needed > minor => (minor, because) = (needed, Some(need)),
                Some(_) => {}
            }
        }
    }
    Verdict::Policy { minor, because }
}

/// Everything a file needs of the system and the oldest policy that has it.
fn needs(
    platform: Platform,
    policies: &[Policy],
    elf: &Elf,
    provided: &BTreeSet<String>,
) -> Vec<(String, Option<u32>)> {
    let mut found = Vec::new();
    for library in elf.needed.iter().filter(|library| !provided.contains(*library)) {
        let allowed = first_with_library(policies, library);
        found.push((format!("`{library}`, which is not part of every Linux system"), allowed));
    }
    for (library, versions) in elf.versions.iter().filter(|(library, _)| !provided.contains(*library)) {
        for version in versions {
            if let Some(allowed) = first_with_version(platform, policies, version) {
                found.push((format!("`{version}` of `{library}`"), allowed));
            }
        }
    }
    found
}

fn first_with_library(policies: &[Policy], library: &str) -> Option<u32> {
    if LIBRARIES.contains(&library) || library.starts_with("ld-linux-") {
        return Some(policies[0].minor);
    }
    LATER_LIBRARIES.iter().find(|(name, _)| *name == library).map(|(_, minor)| (*minor).max(policies[0].minor))
}

/// The oldest policy with a symbol version: `None` if policies do not speak of it, `Some(None)` if no policy has it.
fn first_with_version(platform: Platform, policies: &[Policy], version: &str) -> Option<Option<u32>> {
    let (family, number) = version.split_once('_')?;
    let family = FAMILIES.iter().position(|name| *name == family)?;
    if let Some((_, x86_64, arm64)) = NAMED_VERSIONS.iter().find(|(name, ..)| *name == version) {
        return Some(match platform {
            Platform::LinuxX86_64 => *x86_64,
            Platform::LinuxArm64 => *arm64,
        });
    }
    let Some(wanted) = numbers(number) else { return Some(None) };
    let has = |policy: &&Policy| numbers(policy.highest[family]).is_some_and(|highest| wanted <= highest);
    Some(policies.iter().find(has).map(|policy| policy.minor))
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Machine;

    fn elf(platform: Platform, needed: &[&str], versions: &[&str]) -> Elf {
        let versions = versions.iter().map(|version| version.to_string()).collect();
        Elf {
            machine: Machine::of(platform),
            needed: needed.iter().map(|name| name.to_string()).collect(),
            soname: None,
            versions: [("libx.so".to_owned(), versions)].into(),
            exported: BTreeSet::new(),
            undefined: BTreeSet::new(),
        }
    }

    fn check(platform: Platform, needed: &[&str], versions: &[&str], expected: &str) {
        let elf = elf(platform, needed, versions);
        let provided = ["libmine-1234.so".to_owned()].into();
        let verdict = judge(platform, [("pkg/x.so", &elf)], &provided);
        assert_eq!(verdict.platform_tag(platform), expected, "{needed:?} {versions:?} {verdict:?}");
    }

    #[test]
    fn the_oldest_policy_that_has_everything_wins() {
        let x86_64 = Platform::LinuxX86_64;
        check(x86_64, &[], &[], "manylinux_2_5_x86_64");
        check(x86_64, &["libc.so.6"], &["GLIBC_2.2.5"], "manylinux_2_5_x86_64");
        check(x86_64, &["libc.so.6"], &["GLIBC_2.14", "GLIBC_2.4"], "manylinux_2_17_x86_64");
        check(x86_64, &["libexpat.so.1"], &[], "manylinux_2_12_x86_64");
        check(x86_64, &["libc.so.6"], &["GLIBC_2.34"], "manylinux_2_34_x86_64");
        check(x86_64, &["libc.so.6"], &["GLIBC_2.29"], "manylinux_2_31_x86_64");
        check(x86_64, &["libstdc++.so.6"], &["GLIBC_2.14", "CXXABI_1.3.9"], "manylinux_2_24_x86_64");
        check(x86_64, &["libstdc++.so.6"], &["GLIBCXX_3.4.29"], "manylinux_2_34_x86_64");
        check(x86_64, &["libgcc_s.so.1"], &["GCC_12.0.0"], "manylinux_2_35_x86_64");
        check(x86_64, &["libc.so.6"], &["GLIBC_ABI_DT_RELR"], "manylinux_2_36_x86_64");
        check(Platform::LinuxArm64, &["libc.so.6"], &["GLIBC_2.17"], "manylinux_2_17_aarch64");
        check(Platform::LinuxArm64, &["libc.so.6", "ld-linux-aarch64.so.1"], &[], "manylinux_2_17_aarch64");
    }

    #[test]
    fn what_no_policy_has_leaves_the_plain_tag() {
        check(Platform::LinuxX86_64, &["libyaml-0.so.2"], &[], "linux_x86_64");
        check(Platform::LinuxX86_64, &["libpython3.11.so.1.0"], &[], "linux_x86_64");
        check(Platform::LinuxX86_64, &["libc.so.6"], &["GLIBC_2.99"], "linux_x86_64");
        check(Platform::LinuxX86_64, &["libc.so.6"], &["GLIBC_PRIVATE"], "linux_x86_64");
        check(Platform::LinuxArm64, &[], &["CXXABI_FLOAT128"], "linux_aarch64");
    }

    #[test]
    fn libraries_that_come_along_are_fine() {
        check(Platform::LinuxX86_64, &["libmine-1234.so"], &["MINE_1.0"], "manylinux_2_5_x86_64");
    }

    #[test]
    fn the_reason_names_file_and_need() {
        let elf = elf(Platform::LinuxX86_64, &["libyaml-0.so.2"], &[]);
        let verdict = judge(Platform::LinuxX86_64, [("yaml/_yaml.so", &elf)], &BTreeSet::new());
        let Verdict::None(need) = verdict else { panic!("{verdict:?}") };
        assert_eq!(need.to_string(), "`yaml/_yaml.so` needs `libyaml-0.so.2`, which is not part of every Linux system");
    }

    #[test]
    fn policies_only_ever_allow_more() {
        for policies in [&X86_64[..], &ARM64[..]] {
            for pair in policies.windows(2) {
                assert!(pair[0].minor < pair[1].minor);
                for family in 0..FAMILIES.len() {
                    assert!(numbers(pair[0].highest[family]) <= numbers(pair[1].highest[family]), "{}", pair[1].minor);
                }
            }
        }
    }
}
