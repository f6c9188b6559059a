//! The two values that each knob has, and the conditions that come of them. Pure.
//!
//! In a rebuild nothing is left to chance: a knob that is not varied is held still, at a value near that of an ordinary
//! build. So two rebuilds with the same knobs varied see the same, and a difference between them is the build's own.

use std::collections::{BTreeMap, BTreeSet};

use super::knobs::Knob;
use crate::sandbox::{Clock, Conditions, Contract, Features, FileSystem, Machine, Order};

/// How far ahead the other clock is: years, months, days, hours and minutes all differ.
const CLOCK_AHEAD_SECONDS: i64 = ((3 * 365 + 5 * 31 + 11) * 24 + 7) * 3600 + 13 * 60 + 17;
/// The last second of a 32-bit clock, which some builders still have.
const LAST_32_BIT_SECOND: i64 = i32::MAX as i64;

/// What a check varies around: the machine it runs on, and which round it is.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The time, in seconds after 1970.
    pub now: i64,
    /// Cores that ordinary builds are told to use.
    pub cores: u32,
    /// Processors that a build may use here.
    pub processors: u32,
    /// Which rebuild of the check it is, from one: each has other values.
    pub round: u32,
}

/// What a build happens under.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Circumstances {
    /// The names of what has its other value.
    pub varied: Vec<&'static str>,
    /// Cores that the build is told to use.
    pub cores: u32,
    /// Variables that the environment has besides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<&'static str, &'static str>,
    /// Everything else.
    pub conditions: Conditions,
}

impl Setting {
    /// The circumstances of a rebuild in which these knobs have their other value.
    #[must_use]
    pub fn vary(&self, varied: &BTreeSet<Knob>) -> Circumstances {
        let mut circumstances = Circumstances {
            varied: varied.iter().map(|knob| knob.name()).collect(),
            cores: self.cores,
            variables: BTreeMap::new(),
            conditions: self.still(),
        };
        for knob in varied {
            self.turn(*knob, &mut circumstances);
        }
        circumstances
    }

    /// Conditions near those of an ordinary build, with nothing left to chance.
    fn still(&self) -> Conditions {
        Conditions {
            clock: Clock::Steady(self.now),
            file_times: Some(self.now),
            cpus: Some(self.processors),
            directory_order: Order::Sorted,
            inode_numbers: Some(1000),
            random_seed: Some(0x5eed),
            ..Conditions::default()
        }
    }

    /// Gives one knob its other value.
    fn turn(&self, knob: Knob, circumstances: &mut Circumstances) {
        let round = self.round;
        let conditions = &mut circumstances.conditions;
        match knob {
            Knob::Date => conditions.clock = Clock::Steady(self.other_date()),
            Knob::FileTimes => conditions.file_times = Some(self.other_date()),
            Knob::Random => conditions.random_seed = Some(0x5eed_0000 + u64::from(round)),
            Knob::Addresses => conditions.address_randomisation = true,
            Knob::DirectoryOrder => conditions.directory_order = Order::Reversed,
            Knob::InodeNumbers => conditions.inode_numbers = Some(600_000 + 1000 * u64::from(round)),
            Knob::ProcessNumbers => conditions.last_process = Some(4000 + 777 * (round % 1000)),
            Knob::Jobs => circumstances.cores = other_count(self.cores, round),
            Knob::Processors => conditions.cpus = Some(other_count(self.processors, round)),
            Knob::ProcessorModel => "Other virtual processor".clone_into(&mut conditions.machine.processor_model),
            Knob::ProcessorFeatures => conditions.processor_features = Features::Masked,
            Knob::Kernel => {
                "5.10.0-28-amd64".clone_into(&mut conditions.machine.kernel_release);
                "#1 SMP Debian 5.10.209-2 (2024-01-31)".clone_into(&mut conditions.machine.kernel_version);
            }
            Knob::Memory => conditions.machine.memory_bytes = (3 << 30) + (123 << 20) * u64::from(round % 8),
            Knob::FileSystem => conditions.file_system = FileSystem::Disk,
            Knob::Scheduling => conditions.delays = Some(u64::from(round)),
            Knob::Uptime => conditions.monotonic_start_seconds = 86_400 * 40 + 4321 * u64::from(round % 1000),
            Knob::BuildPath => "construction".clone_into(&mut conditions.contract.build_directory),
            Knob::User => (conditions.contract.user, conditions.contract.group) = (2222, 3333),
            Knob::Umask => conditions.contract.umask = 0o002,
            Knob::Locale => {
                circumstances.variables.extend([
                    ("LC_ALL", "et_EE.UTF-8"),
                    ("LANG", "et_EE.UTF-8"),
                    ("LANGUAGE", "et_EE"),
                ]);
            }
            Knob::TimeZone => drop(circumstances.variables.insert("TZ", "NPT-5:45")),
            Knob::HostName => {
                let Contract { host, domain, .. } = &mut conditions.contract;
                "elsewhere".clone_into(host);
                "example.org".clone_into(domain);
            }
            Knob::Environment => drop(circumstances.variables.insert("AMPOULE_LINT", "an additional variable")),
        }
    }

    fn other_date(&self) -> i64 {
        let ahead = CLOCK_AHEAD_SECONDS + 86_400 * 33 * i64::from(self.round % 100);
        let date = self.now + ahead;
        // Past the end of 32 bits only the way back is left.
        if date < LAST_32_BIT_SECOND { date } else { self.now - ahead }
    }
}

/// One where there are several; more than one where there is one.
fn other_count(count: u32, round: u32) -> u32 {
    match (count, round) {
        (1, _) => 2 + round % 3,
        (_, 1) => 1,
        (_, 2) => count + 3,
        (_, round) if round % 2 == 1 => 1,
        (_, round) => count + 1 + round % 8,
    }
}

/// What a sealed build gets as constants, so that no rebuild can vary it.
pub const SEALED: [Knob; 10] = [
    Knob::Date,
    Knob::FileTimes,
    Knob::Random,
    Knob::Jobs,
    Knob::Processors,
    Knob::ProcessorModel,
    Knob::ProcessorFeatures,
    Knob::Kernel,
    Knob::Memory,
    Knob::Uptime,
];

/// How a sealed derivation is built: whatever it could learn from the machine is a constant.
#[must_use]
pub fn sealed(circumstances: Circumstances) -> Circumstances {
    /// The start of 1980, the earliest time that every archive format can tell.
    const TIME: i64 = 315_532_800;
    let conditions = Conditions {
        clock: Clock::Steady(TIME),
        file_times: Some(TIME),
        random_seed: Some(0x5ea1),
        cpus: Some(1),
        machine: Machine::default(),
        monotonic_start_seconds: 0,
        processor_features: Features::All,
        ..circumstances.conditions
    };
    Circumstances { cores: 1, conditions, ..circumstances }
}

impl Circumstances {
    /// An ordinary build, in which nothing is varied.
    #[must_use]
    pub fn ordinary(cores: u32) -> Self {
        Self { varied: Vec::new(), cores, variables: BTreeMap::new(), conditions: Conditions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { now: 1_800_000_000, cores: 2, processors: 2, round: 1 };

    #[test]
    fn every_knob_changes_something_and_nothing_else_does() {
        let still = SETTING.vary(&BTreeSet::new());
        for knob in Knob::OPEN.into_iter().chain(Knob::FIXED) {
            for round in 1..9 {
                for count in [1, 2, 3, 8] {
                    let setting = Setting { round, cores: count, processors: count, ..SETTING };
                    let (still, turned) = (setting.vary(&BTreeSet::new()), setting.vary(&[knob].into()));
                    let parts = |circumstances: &Circumstances| {
                        (circumstances.cores, circumstances.variables.clone(), circumstances.conditions.clone())
                    };
                    assert_ne!(parts(&still), parts(&turned), "{knob:?} {round} {count}");
                }
            }
        }
        assert_eq!(still.conditions.contract, Contract::default());
        let all = SETTING.vary(&Knob::OPEN.into());
        assert_eq!(all.conditions.contract, Contract::default());
        assert!(all.variables.is_empty());
    }

    #[test]
    fn dates_stay_within_32_bits() {
        for now in [1_500_000_000, 2_100_000_000, 2_147_000_000] {
            for round in 1..5 {
                let date = Setting { now, round, ..SETTING }.other_date();
                assert!((1..LAST_32_BIT_SECOND).contains(&date) && (date - now).abs() > 86_400 * 365 * 3, "{date}");
            }
        }
    }

    #[test]
    fn a_sealed_build_sees_the_same_whatever_sealed_knob_is_turned() {
        let still = sealed(SETTING.vary(&BTreeSet::new()));
        for knob in SEALED {
            let turned = sealed(SETTING.vary(&[knob].into()));
            assert_eq!((&still.conditions, still.cores), (&turned.conditions, turned.cores), "{knob:?}");
        }
    }
}
