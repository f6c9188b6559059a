//! The wall clock as a build sees it, where that is not the host's.

use super::super::spec::Clock;
use super::system;

pub(super) const SECOND: i128 = 1_000_000_000;
/// How far a steady clock goes each time it is looked at: a loop that waits for it ends.
const STEP: i128 = 1000;
/// A steady clock starts so far into its second that new files, which are dated before, stay in the same second.
const START: i128 = SECOND / 2;

/// A wall clock. Times are nanoseconds after 1970.
#[derive(Debug)]
pub(super) enum WallClock {
    /// The host's time and this.
    Offset(i128),
    /// One that only goes on by what is asked of it.
    Steady {
        now: i128,
        /// Sleeps that are not over: when they are, by the host's clock, and what the clock shows then.
        sleeps: Vec<(i128, i128)>,
        /// What to add to this process's monotonic clock to get the build's.
        monotonic_offset: i128,
    },
}

impl WallClock {
    /// The clock that was asked for, if it is not the host's. `uptime` is what the build's monotonic clock shows now.
    pub(super) fn new(wanted: Clock, uptime_seconds: u64) -> Option<Self> {
        match wanted {
            Clock::Host => None,
            Clock::StartAt(start) => Some(Self::Offset(i128::from(start) * SECOND - host_time())),
            Clock::Steady(start) => Some(Self::Steady {
                now: i128::from(start) * SECOND + START,
                sleeps: Vec::new(),
                monotonic_offset: i128::from(uptime_seconds) * SECOND - clock(libc::CLOCK_MONOTONIC),
            }),
        }
    }

    /// What it shows to somebody who looks.
    pub(super) fn look(&mut self) -> i128 {
        let host = host_time();
        match self {
            Self::Offset(offset) => host + *offset,
            Self::Steady { now, sleeps, .. } => {
                sleeps.retain(|(end, shown)| {
                    let over = *end <= host;
                    if over {
                        *now = (*now).max(*shown);
                    }
                    !over
                });
                *now += STEP;
                *now
            }
        }
    }

    /// What to add to the host's time to get this clock's, now.
    fn offset(&self) -> i128 {
        match self {
            Self::Offset(offset) => *offset,
            Self::Steady { now, .. } => *now - host_time(),
        }
    }

    /// A wait until a time of this clock becomes one until the same time of the host's, which the kernel knows. What the
    /// program waits on has been corrected already if it is nearer to the host's time.
    pub(super) fn correct_deadline(&mut self, process: i32, address: u64) {
        let Some(deadline) = read_time(process, address) else { return };
        let (host, offset) = (host_time(), self.offset());
        let corrected = if (deadline - host - offset).abs() < (deadline - host).abs() {
            let corrected = (deadline - offset).max(0);
            let _ = system::write_memory(process, address, &in_parts(corrected, SECOND));
            corrected
        } else {
            deadline
        };
        self.sleeps_until(corrected, corrected + offset);
    }

    /// A program sleeps for a while, or until a time of the monotonic clock.
    pub(super) fn sleep(&mut self, process: i32, address: u64, until: bool) {
        let Some(time) = read_time(process, address) else { return };
        let host = host_time();
        if let Self::Steady { now, monotonic_offset, .. } = self {
            let duration = if until { time - clock(libc::CLOCK_MONOTONIC) - *monotonic_offset } else { time };
            // Whatever a program asks for, sums stay far from overflow.
            let duration = duration.clamp(0, SECOND << 32);
            let shown = *now + duration;
            self.sleeps_until(host + duration, shown);
        }
    }

    fn sleeps_until(&mut self, end: i128, shown: i128) {
        if let Self::Steady { sleeps, .. } = self
            && sleeps.len() < 10_000
        {
            sleeps.push((end, shown));
        }
    }
}

/// A time as seconds and parts of a second, in the kernel's layout.
pub(super) fn in_parts(time: i128, parts: i128) -> Vec<u8> {
    let seconds = time.div_euclid(SECOND) as i64;
    let rest = (time.rem_euclid(SECOND) / (SECOND / parts)) as i64;
    [seconds.to_le_bytes(), rest.to_le_bytes()].concat()
}

fn read_time(process: i32, address: u64) -> Option<i128> {
    let mut time = [0; 16];
    if address == 0 || system::read_memory(process, address, &mut time).is_err() {
        return None;
    }
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
    Some(i128::from(word(&time[..8])) * SECOND + i128::from(word(&time[8..])))
}

/// The host's wall clock, in nanoseconds.
pub(super) fn host_time() -> i128 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(clock: libc::clockid_t) -> i128 {
    let (seconds, nanoseconds) = system::read_clock(clock);
    i128::from(seconds) * SECOND + i128::from(nanoseconds)
}

/// Maps the times of files that were made since the start into one second, in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileTimes {
    second: i64,
    start: i128,
}

/// How much longer before the start a file may be from, such as the directories the sandbox made.
const BEFORE: i128 = 120 * SECOND;
/// The host's seconds are so much longer than those between two new files.
const SLOWER: i128 = 1_000_000;

impl FileTimes {
    pub(super) fn new(second: i64) -> Self {
        Self { second, start: host_time() }
    }

    /// The time to show in place of this one; `None`: it is not from here.
    pub(super) fn shown(self, seconds: i64, nanoseconds: u32) -> Option<(i64, u32)> {
        let since = i128::from(seconds) * SECOND + i128::from(nanoseconds) - self.start + BEFORE;
        // No later than now, because a program may have set a time that lies ahead.
        let now = host_time() - self.start + BEFORE + SECOND;
        let shown = || u32::try_from((since / SLOWER).min(START - 1)).unwrap_or(0);
        (0..now).contains(&since).then(|| (self.second, shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_clock_goes_on_by_sleeping_and_looking_only() {
        let mut clock = WallClock::new(Clock::Steady(1000), 0).unwrap();
        let first = clock.look();
        assert_eq!(clock.look() - first, STEP);
        let host = host_time();
        clock.sleeps_until(host - 1, first + 5 * SECOND);
        clock.sleeps_until(host + 1000 * SECOND, first + 900 * SECOND);
        let later = clock.look();
        assert!((5 * SECOND..6 * SECOND).contains(&(later - first)), "{later}");
    }

    #[test]
    fn times_since_the_start_fall_into_one_second_in_order() {
        let times = FileTimes::new(5000);
        let (seconds, rest) = system::read_clock(libc::CLOCK_REALTIME);
        let rest = u32::try_from(rest).unwrap();
        let earlier = times.shown(seconds - 1, rest).unwrap();
        let later = times.shown(seconds, rest).unwrap();
        assert!(earlier < later && earlier.0 == 5000 && later.0 == 5000, "{earlier:?} {later:?}");
        assert_eq!(times.shown(1, 0), None);
        assert_eq!(times.shown(seconds + 10_000, 0), None);
    }

    #[test]
    fn times_are_split_as_the_kernel_does() {
        assert_eq!(in_parts(3 * SECOND + 7000, SECOND / 1000)[..], [3_i64.to_le_bytes(), 7_i64.to_le_bytes()].concat());
    }
}
