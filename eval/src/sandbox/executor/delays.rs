//! Makes some processes wait for a moment when they start, so that others come first.

use std::time::{Duration, Instant};

use super::supervisor::next_random;

/// The longest wait.
const LONGEST: Duration = Duration::from_millis(20);
/// All waits together are no longer than this, and a small share of the time that has passed.
const ALLOWANCE: Duration = Duration::from_millis(1500);
const SHARE: u32 = 20;

/// Answers that have to wait.
#[derive(Debug)]
pub(super) struct Delays {
    state: u64,
    started: Instant,
    spent: Duration,
    /// Whether the next one waits.
    turn: bool,
    /// When to answer which question, and how.
    waiting: Vec<(Instant, u64, Option<i64>)>,
}

impl Delays {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        let turn = next_random(&mut state) & 1 == 0;
        Self { state, started: Instant::now(), spent: Duration::ZERO, turn, waiting: Vec::new() }
    }

    /// Takes an answer, if it has to wait.
    pub(super) fn keep(&mut self, id: u64, result: Option<i64>) -> bool {
        self.turn = !self.turn;
        let random = next_random(&mut self.state);
        if !self.turn || self.spent > ALLOWANCE + self.started.elapsed() / SHARE {
            return false;
        }
        // From half of the longest on: a shorter wait changes no order.
        let wait = LONGEST / 2 + LONGEST / 2 * u32::from(random as u8) / 256;
        self.spent += wait;
        self.waiting.push((Instant::now() + wait, id, result));
        true
    }

    /// How long until the next answer is due.
    pub(super) fn next(&self) -> Option<Duration> {
        let first = self.waiting.iter().map(|(due, ..)| *due).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// The answers that are due.
    pub(super) fn due(&mut self) -> Vec<(u64, Option<i64>)> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.waiting.retain(|(at, id, result)| {
            let is_due = *at <= now;
            if is_due {
                due.push((*id, *result));
            }
            !is_due
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_one_waits_until_the_allowance_is_spent() {
        let mut delays = Delays::new(1);
        let kept = (0..2000).filter(|id| delays.keep(*id, None)).count();
        assert!((50..=200).contains(&kept), "{kept}");
        assert!(delays.next().is_some());
        std::thread::sleep(LONGEST);
        assert_eq!(delays.due().len(), kept);
        assert_eq!(delays.next(), None);
        let first: Vec<bool> = [1, 2].iter().map(|seed| Delays::new(*seed).keep(0, None)).collect();
        let second: Vec<bool> = [1, 2].iter().map(|seed| Delays::new(*seed).keep(0, None)).collect();
        assert_eq!(first, second);
    }
}
