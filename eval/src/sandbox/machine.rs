//! What a build is told about the machine it runs on: the same everywhere, whatever the machine. Pure.
//!
//! `/proc`, `uname` and `sysinfo` tell these things only. What is not named here, `/proc` does not tell: a file is
//! empty, a directory has no entries.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The machine a build believes to run on. The default is part of what every build may rely on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The kernel's release: `uname -r`.
    pub kernel_release: String,
    /// The kernel's version: `uname -v`.
    pub kernel_version: String,
    /// The processors' name in `/proc/cpuinfo`. How many there are is a condition of its own.
    pub processor_model: String,
    /// The memory in `/proc/meminfo` and `sysinfo`. How much a build may use is a limit, and another number.
    pub memory_bytes: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            kernel_release: "6.1.0".into(),
            kernel_version: "#1 SMP PREEMPT_DYNAMIC Thu Jan  1 00:00:01 UTC 1970".into(),
            processor_model: "Ampoule virtual processor".into(),
            memory_bytes: 8 << 30,
        }
    }
}

/// The longest string that `uname` has room for.
const NAME_BYTES: usize = 64;

impl Machine {
    /// Whether the kernel's interfaces have room for it.
    pub(super) fn is_possible(&self) -> bool {
        let names = [&self.kernel_release, &self.kernel_version, &self.processor_model];
        names.iter().all(|name| name.len() <= NAME_BYTES && !name.contains(['\0', '\n']))
            && (1 << 20..1 << 50).contains(&self.memory_bytes)
    }

    /// Files of `/proc` and what they say.
    pub(super) fn facts(&self, processors: u32, uptime_seconds: u64) -> Vec<(&'static str, String)> {
        let Self { kernel_release, kernel_version, .. } = self;
        vec![
            ("cmdline", "\n".into()),
            ("cpuinfo", self.processors(processors)),
            ("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n".into()),
            ("filesystems", "nodev\ttmpfs\nnodev\tproc\nnodev\tdevpts\n".into()),
            ("loadavg", "0.00 0.00 0.00 1/1 1\n".into()),
            ("meminfo", self.memory()),
            ("stat", statistics(processors)),
            ("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into()),
            ("uptime", format!("{uptime_seconds}.00 {uptime_seconds}.00\n")),
            ("version", format!("Linux version {kernel_release} (ampoule@localhost) {kernel_version}\n")),
        ]
    }

    /// Files of `/proc/sys` and what they say; there are no others.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let own = [
            ("kernel/osrelease", &*self.kernel_release),
            ("kernel/version", &*self.kernel_version),
            ("kernel/hostname", HOST),
            ("kernel/domainname", DOMAIN),
        ];
        own.into_iter().chain(SETTINGS).map(|(name, value)| (name, format!("{value}\n"))).collect()
    }

    fn processors(&self, count: u32) -> String {
        let mut text = String::new();
        for number in 0..count {
            let _ = write!(
                text,
                "processor\t: {number}\nvendor_id\t: Ampoule\ncpu family\t: 6\nmodel\t\t: 1\nmodel name\t: {}\n\
                 stepping\t: 1\ncpu MHz\t\t: 2000.000\ncache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: {count}\n\
                 core id\t\t: {number}\ncpu cores\t: {count}\napicid\t\t: {number}\nfpu\t\t: yes\ncpuid level\t: 13\n\
                 wp\t\t: yes\nflags\t\t: {FLAGS}\nbogomips\t: 4000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
                 address sizes\t: 46 bits physical, 48 bits virtual\npower management:\n\n",
                self.processor_model
            );
        }
        text
    }

    fn memory(&self) -> String {
        let total = self.memory_bytes / 1024;
        // Every field some program asks for; a quarter is taken, as on a machine that does something.
        let fields = [
            ("MemTotal", total),
            ("MemFree", total / 2),
            ("MemAvailable", total / 4 * 3),
            ("Buffers", total / 64),
            ("Cached", total / 4),
            ("SwapCached", 0),
            ("Active", total / 8),
            ("Inactive", total / 8),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Shmem", total / 64),
            ("Slab", total / 64),
            ("SReclaimable", total / 128),
        ];
        let mut text = String::new();
        for (name, kilobytes) in fields {
            let _ = writeln!(text, "{:<15} {kilobytes:>8} kB", format!("{name}:"));
        }
        text + "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"
    }
}

/// The name of a build's host.
pub(super) const HOST: &str = "localhost";
/// The domain of a build's host: none.
pub(super) const DOMAIN: &str = "(none)";

/// What every x86-64 processor has. A build that looks for more finds that it must not rely on it.
const FLAGS: &str = "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 ht syscall \
                     nx lm nopl cpuid";

/// Settings that programs ask for, with the kernel's own defaults.
const SETTINGS: [(&str, &str); 28] = [
    ("fs/file-max", "1048576"),
    ("fs/nr_open", "1048576"),
    ("fs/pipe-max-size", "1048576"),
    ("kernel/cap_last_cap", "40"),
    ("kernel/core_pattern", "core"),
    ("kernel/msgmax", "8192"),
    ("kernel/ngroups_max", "65536"),
    ("kernel/ostype", "Linux"),
    ("kernel/overflowgid", "65534"),
    ("kernel/overflowuid", "65534"),
    ("kernel/pid_max", "4194304"),
    ("kernel/random/boot_id", "00000000-0000-4000-8000-000000000000"),
    ("kernel/random/entropy_avail", "256"),
    ("kernel/random/poolsize", "256"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/sem", "32000\t1024000000\t500\t32000"),
    ("kernel/shmall", "18446744073692774399"),
    ("kernel/shmmax", "18446744073692774399"),
    ("kernel/shmmni", "4096"),
    ("kernel/threads-max", "65536"),
    ("net/core/rmem_max", "212992"),
    ("net/core/somaxconn", "4096"),
    ("net/core/wmem_max", "212992"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("vm/max_map_count", "65530"),
    ("vm/mmap_min_addr", "65536"),
    ("vm/overcommit_memory", "0"),
    ("vm/swappiness", "60"),
];

/// `/proc/stat` of a machine that has done nothing yet.
fn statistics(processors: u32) -> String {
    let idle = |name: &str| format!("{name} 0 0 0 100 0 0 0 0 0 0\n");
    let each: String = (0..processors).map(|number| idle(&format!("cpu{number}"))).collect();
    format!(
        "cpu  0 0 0 {} 0 0 0 0 0 0\n{each}intr 0\nctxt 0\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        u64::from(processors) * 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str) -> String {
        let facts = Machine { memory_bytes: 2 << 30, ..Machine::default() }.facts(3, 7);
        facts.into_iter().find(|(fact, _)| *fact == name).unwrap().1
    }

    #[test]
    fn programs_count_processors() {
        assert_eq!(fact("cpuinfo").matches("processor\t: ").count(), 3);
        assert_eq!(fact("stat").lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count(), 3);
    }

    #[test]
    fn programs_find_memory() {
        assert_eq!(fact("meminfo").lines().next().unwrap(), "MemTotal:        2097152 kB");
        assert!(fact("meminfo").contains("\nMemAvailable:    1572864 kB\n"));
    }

    #[test]
    fn settings_are_sorted_and_single() {
        let names: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted());
        let mut all: Vec<&str> = Machine::default().settings().iter().map(|(name, _)| *name).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn impossible_machines_are_told() {
        assert!(Machine::default().is_possible());
        assert!(!Machine { kernel_release: "a\nb".into(), ..Machine::default() }.is_possible());
        assert!(!Machine { kernel_version: "x".repeat(65), ..Machine::default() }.is_possible());
        assert!(!Machine { memory_bytes: 0, ..Machine::default() }.is_possible());
    }
}
