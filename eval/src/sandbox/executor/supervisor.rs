//! Answers system calls in the kernel's place: what the machine is; and the wall clock, random numbers, what is told of
//! files and directories, and who comes first, where a run asks for other ones.
//!
//! Nothing here is a fence. A build that wants the real time can find it; one that just asks gets the chosen one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::super::machine::Machine;
use super::super::operations::Supervision;
use super::super::spec::Order;
use super::clock::{SECOND, WallClock, host_time, in_parts};
use super::delays::Delays;
use super::files::Files;
use super::listing::Listing;
use super::system::{self, Question};
use super::vdso::Patches;
use super::wire;

/// The most random bytes given in one answer; a longer request gets a short answer, as from a kernel under signals.
const RANDOM_BYTES: u64 = 256 << 10;
/// When so many threads have asked for random numbers, what is known of them is forgotten.
const THREADS: usize = 1 << 16;

/// Clocks that show the time of day.
const WALL_CLOCKS: [i32; 3] = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI];
/// The call that every program makes when it starts.
#[cfg(target_arch = "x86_64")]
const ARCH_PRCTL: libc::c_long = libc::SYS_arch_prctl;
/// The call that every program makes when it starts.
#[cfg(not(target_arch = "x86_64"))]
const ARCH_PRCTL: libc::c_long = libc::SYS_set_robust_list;

/// The supervisor of one build.
pub(super) struct Supervisor {
    listener: OwnedFd,
    /// What programs need so that they ask for what is chosen.
    patches: Option<Patches>,
    /// What `uname` tells.
    names: Vec<u8>,
    /// What `sysinfo` tells.
    resources: Vec<u8>,
    clock: Option<WallClock>,
    files: Option<Files>,
    listing: Option<Listing>,
    delays: Option<Delays>,
    /// The processors that are seen, if they are more than there are.
    processors: Option<u32>,
    seed: Option<u64>,
    /// How far the random numbers of each thread have come.
    random: BTreeMap<u32, u64>,
}

impl Supervisor {
    /// Takes the listener from the builder's process and lets it go on. `None` if it died before.
    pub(super) fn take_over(
        channel: &OwnedFd,
        builder: i32,
        patches: Option<Patches>,
        wanted: &Supervision,
    ) -> io::Result<Option<Self>> {
        let Some((_, descriptors)) = wire::receive(channel)? else { return Ok(None) };
        let listener = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
        system::prefer_same_processor(listener.as_fd());
        if let Some(patches) = &patches {
            // A builtin builder never starts a program, so its memory is changed here.
            patches.apply(builder, None)?;
            wire::send(channel, b"go on", &[])?;
        }
        Ok(Some(Self {
            listener,
            patches,
            names: names(wanted),
            resources: resources(wanted),
            clock: WallClock::new(wanted.clock, wanted.uptime_seconds),
            files: wanted.has_files().then(|| Files::new(wanted.file_times, wanted.inode_numbers)),
            listing: (wanted.order != Order::AsIs).then(|| Listing::new(wanted.order)),
            delays: wanted.delays.map(Delays::new),
            processors: wanted.processors,
            seed: wanted.random,
            random: BTreeMap::new(),
        }))
    }

    /// Readable when a call waits for its answer.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call.
    pub(super) fn answer_one(&mut self) -> io::Result<()> {
        if let Some(question) = system::receive_question(self.listener.as_fd())? {
            let result = self.result(&question);
            let starts = matches!(libc::c_long::from(question.call), libc::SYS_set_robust_list | ARCH_PRCTL);
            let waits = starts && self.delays.as_mut().is_some_and(|delays| delays.keep(question.id, result));
            if !waits {
                system::answer(self.listener.as_fd(), question.id, result);
            }
        }
        Ok(())
    }

    /// How long until somebody has waited long enough.
    pub(super) fn next_release(&self) -> Option<Duration> {
        self.delays.as_ref().and_then(Delays::next)
    }

    /// Lets go on who has waited long enough.
    pub(super) fn release(&mut self) {
        for (id, result) in self.delays.as_mut().map(Delays::due).unwrap_or_default() {
            system::answer(self.listener.as_fd(), id, result);
        }
    }

    /// The result of a call; `None` lets the kernel perform it.
    fn result(&mut self, question: &Question) -> Option<i64> {
        let process = question.thread.cast_signed();
        let [first, second, third, ..] = question.arguments;
        match libc::c_long::from(question.call) {
            libc::SYS_clock_gettime => Some(store(process, second, &self.now_in(SECOND))),
            libc::SYS_gettimeofday => {
                let zone = if second == 0 { 0 } else { store(process, second, &[0; 8]) };
                Some(if first == 0 { zone } else { zone.min(store(process, first, &self.now_in(SECOND / 1000))) })
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_time => {
                let seconds = self.now_in(SECOND);
                let stored = if first == 0 { 0 } else { store(process, first, &seconds[..8]) };
                let value = seconds[..8].try_into().map_or(0, i64::from_le_bytes);
                Some(if stored < 0 { stored } else { value })
            }
            libc::SYS_uname => Some(store(process, first, &self.names)),
            libc::SYS_sysinfo => Some(store(process, first, &self.resources)),
            libc::SYS_getrandom => Some(self.give_random(question, first, second)),
            libc::SYS_getdents64 => self.listing.as_mut()?.answer(question, self.files.as_mut()),
            libc::SYS_sched_getaffinity => Some(self.processors(process, second, third)),
            _ => self.result_of_others(question),
        }
    }

    /// The rest: sleeps, files, starts.
    fn result_of_others(&mut self, question: &Question) -> Option<i64> {
        let process = question.thread.cast_signed();
        let [first, second, third, fourth, ..] = question.arguments;
        match libc::c_long::from(question.call) {
            libc::SYS_futex => self.clock.as_mut()?.correct_deadline(process, fourth),
            libc::SYS_nanosleep => self.clock.as_mut()?.sleep(process, first, false),
            // TIMER_ABSTIME is 1.
            libc::SYS_clock_nanosleep if second & 1 == 0 => self.clock.as_mut()?.sleep(process, third, false),
            libc::SYS_clock_nanosleep if WALL_CLOCKS.contains(&(first as i32)) => {
                self.clock.as_mut()?.correct_deadline(process, third);
            }
            libc::SYS_clock_nanosleep => self.clock.as_mut()?.sleep(process, third, true),
            libc::SYS_set_robust_list => {}
            #[cfg(target_arch = "x86_64")]
            libc::SYS_arch_prctl => self.greet(question),
            _ => return self.files.as_mut()?.answer(question),
        }
        None
    }

    /// The time as seconds and parts of a second, in the kernel's layout.
    fn now_in(&mut self, parts: i128) -> Vec<u8> {
        let now = self.clock.as_mut().map_or_else(host_time, WallClock::look);
        in_parts(now, parts)
    }

    /// The first so many processors, in the kernel's layout.
    fn processors(&self, process: i32, size: u64, address: u64) -> i64 {
        let count = self.processors.unwrap_or(1).clamp(1, 64);
        if size < 8 || !size.is_multiple_of(8) {
            return -i64::from(libc::EINVAL);
        }
        match store(process, address, &(u64::MAX >> (64 - count)).to_le_bytes()) {
            0 => 8,
            error => error,
        }
    }

    /// A program has just started.
    fn greet(&mut self, question: &Question) {
        self.random.remove(&question.thread);
        let bytes = self.seed.map(|seed| {
            let mut state = seed ^ 0x6175_7876;
            let (low, high) = (next_random(&mut state), next_random(&mut state));
            (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
        });
        if system::is_waiting(self.listener.as_fd(), question.id) {
            // It may have died; if not, it merely sees the host's clock.
            let _ = self.patches.as_ref().map(|patches| patches.apply(question.thread.cast_signed(), bytes));
        }
    }

    /// Every process gets the same numbers, however processes race; threads of a process get different ones.
    fn give_random(&mut self, question: &Question, address: u64, length: u64) -> i64 {
        let thread = question.thread;
        if self.random.len() > THREADS {
            self.random.clear();
        }
        let seed = self.seed.unwrap_or(0);
        let start = || seed ^ u64::from(thread.wrapping_sub(process_of(thread))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let state = self.random.entry(thread).or_insert_with(start);
        let length = length.min(RANDOM_BYTES);
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next_random(state).to_le_bytes()).collect();
        bytes.truncate(usize::try_from(length).unwrap_or(0));
        match store(thread.cast_signed(), address, &bytes) {
            0 => i64::try_from(length).unwrap_or(i64::MAX),
            error => error,
        }
    }
}

/// The kernel's `struct new_utsname`: six strings in 65 bytes each.
fn names(wanted: &Supervision) -> Vec<u8> {
    let Machine { kernel_release, kernel_version, .. } = &wanted.machine;
    let (host, domain) = &wanted.names;
    let strings = ["Linux", host, kernel_release, kernel_version, std::env::consts::ARCH, domain];
    let padded = |text: &str| text.bytes().chain(std::iter::repeat(0)).take(64).chain([0]).collect::<Vec<u8>>();
    strings.into_iter().flat_map(padded).collect()
}

/// The kernel's `struct sysinfo` on a 64-bit machine.
fn resources(wanted: &Supervision) -> Vec<u8> {
    let memory = wanted.machine.memory_bytes;
    // Up time, three loads; memory: all, free, shared, in buffers; swap: all, free.
    let words = [wanted.uptime_seconds, 0, 0, 0, memory, memory / 2, memory / 64, memory / 64, 0, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // Processes; high memory: all, free; the unit of the above.
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(1_u64.to_le_bytes());
    bytes
}

/// Writes a result into the caller's memory: 0, or the negative error of a bad address.
fn store(process: i32, address: u64, bytes: &[u8]) -> i64 {
    match system::write_memory(process, address, bytes) {
        Ok(()) => 0,
        Err(_) if bytes.is_empty() => 0,
        Err(_) => -i64::from(libc::EFAULT),
    }
}

/// The process that a thread belongs to; itself if that cannot be found out.
pub(super) fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(thread)
}

/// The next number of the sequence known as SplitMix64.
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
