//! Answers system calls in the kernel's place: what the machine is, and the wall clock and random numbers where a run
//! asks for other ones.
//!
//! Nothing here is a fence. A build that wants the real time can find it; one that just asks gets the chosen one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::machine::{DOMAIN, HOST, Machine};
use super::super::operations::Supervision;
use super::system::{self, Question};
use super::vdso::Patches;
use super::wire;

const SECOND: i128 = 1_000_000_000;
/// The most random bytes given in one answer; a longer request gets a short answer, as from a kernel under signals.
const RANDOM_BYTES: u64 = 256 << 10;
/// When so many threads have asked for random numbers, what is known of them is forgotten.
const THREADS: usize = 1 << 16;

/// The supervisor of one build.
pub(super) struct Supervisor {
    listener: OwnedFd,
    /// What programs need so that they ask for what is chosen.
    patches: Option<Patches>,
    /// What `uname` tells.
    names: Vec<u8>,
    /// What `sysinfo` tells.
    resources: Vec<u8>,
    /// What to add to the host's clock, in nanoseconds.
    clock_offset: Option<i128>,
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
        let clock_offset = wanted.clock.map(|start| i128::from(start) * SECOND - host_time());
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
            clock_offset,
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
            system::answer(self.listener.as_fd(), question.id, result);
        }
        Ok(())
    }

    /// The result of a call; `None` lets the kernel perform it.
    fn result(&mut self, question: &Question) -> Option<i64> {
        let process = question.thread.cast_signed();
        let [first, second, third, fourth, ..] = question.arguments;
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
                Some(if stored < 0 { stored } else { (self.now() / SECOND) as i64 })
            }
            libc::SYS_uname => Some(store(process, first, &self.names)),
            libc::SYS_sysinfo => Some(store(process, first, &self.resources)),
            libc::SYS_getrandom => Some(self.give_random(question, first, second)),
            libc::SYS_futex => self.correct_deadline(process, fourth),
            // TIMER_ABSTIME is 1.
            libc::SYS_clock_nanosleep if second & 1 == 1 => self.correct_deadline(process, third),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_arch_prctl => self.greet(question),
            _ => None,
        }
    }

    fn now(&self) -> i128 {
        host_time() + self.clock_offset.unwrap_or(0)
    }

    /// The time as seconds and parts of a second, in the kernel's layout.
    fn now_in(&self, parts: i128) -> Vec<u8> {
        let now = self.now();
        let seconds = (now.div_euclid(SECOND)) as i64;
        let rest = (now.rem_euclid(SECOND) / (SECOND / parts)) as i64;
        [seconds.to_le_bytes(), rest.to_le_bytes()].concat()
    }

    /// A program has just started.
    fn greet(&mut self, question: &Question) -> Option<i64> {
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
        None
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

    /// A wait until a time of the chosen clock becomes one until the same time of the host's, which the kernel knows.
    /// What the program waits on has been corrected already if it is nearer to the host's time.
    fn correct_deadline(&self, process: i32, address: u64) -> Option<i64> {
        let offset = self.clock_offset?;
        let mut time = [0; 16];
        if address == 0 || system::read_memory(process, address, &mut time).is_err() {
            return None;
        }
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
        let (seconds, rest) = (i128::from(word(&time[..8])), i128::from(word(&time[8..])));
        let (deadline, host) = (seconds * SECOND + rest, host_time());
        if (deadline - host - offset).abs() < (deadline - host).abs() {
            let corrected = (deadline - offset).max(0);
            let (seconds, rest) = ((corrected / SECOND) as i64, (corrected % SECOND) as i64);
            let _ = system::write_memory(process, address, &[seconds.to_le_bytes(), rest.to_le_bytes()].concat());
        }
        None
    }
}

/// The kernel's `struct new_utsname`: six strings in 65 bytes each.
fn names(wanted: &Supervision) -> Vec<u8> {
    let Machine { kernel_release, kernel_version, .. } = &wanted.machine;
    let strings = ["Linux", HOST, kernel_release, kernel_version, std::env::consts::ARCH, DOMAIN];
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

/// The host's wall clock, in nanoseconds.
fn host_time() -> i128 {
    let (seconds, nanoseconds) = system::read_clock(libc::CLOCK_REALTIME);
    i128::from(seconds) * SECOND + i128::from(nanoseconds)
}

/// The process that a thread belongs to; itself if that cannot be found out.
fn process_of(thread: u32) -> u32 {
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
