//! The table that is printed, a row as soon as it is measured.

use crate::measure::{Pair, Sample, median};

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Wall,
    Cpu,
    Memory,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// Theirs is at least so many times ours.
    Less(f64),
    /// Ours is at most so many times theirs.
    Within(f64),
    /// Ours is at most this, whatever theirs is.
    AtMost(f64),
}

/// Prints rows, and the head before the first one.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: usize,
}

impl Table {
    /// Adds one figure of what was measured.
    pub(crate) fn row(&mut self, case: &str, figure: Figure, pair: &Pair, aim: Aim) {
        if self.rows == 0 {
            println!("| case | figure | ampoule | nix | ratio | aim | |\n|---|---|---:|---:|---:|---:|---|");
        }
        self.rows += 1;
        let of = |samples: &[Sample]| median(samples, |sample| figure.of(sample));
        let (ours, theirs) = (of(&pair.ours).expect("ours was run"), of(&pair.theirs));
        let name = format!("{figure:?}").to_lowercase();
        let unit = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| figure.show(value));
        let (ratio, aim_text, met) = aim.judge(figure, ours, theirs);
        println!("| {case} | {name} | {} | {} | {ratio} | {aim_text} | {met} |", unit(Some(ours)), unit(theirs));
    }

    /// The memory that any of these took, against what is allowed.
    pub(crate) fn memory(&mut self, case: &str, pair: &Pair) {
        self.row(case, Figure::Memory, pair, Aim::AtMost(64.0));
    }
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Wall => sample.wall,
            Self::Cpu => sample.cpu,
            Self::Memory => sample.memory,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Wall | Self::Cpu => format!("{value:.3} s"),
            Self::Memory => format!("{value:.1} MiB"),
        }
    }
}

impl Aim {
    /// The ratio, the aim, and whether it is met.
    fn judge(self, figure: Figure, ours: f64, theirs: Option<f64>) -> (String, String, &'static str) {
        let verdict = |met| if met { "met" } else { "NOT MET" };
        let times = |value: f64| format!("{value:.2}x");
        match (self, theirs) {
            (Self::AtMost(most), theirs) => {
                let ratio = theirs.map_or_else(|| "-".to_owned(), |theirs| times(theirs / ours));
                (ratio, format!("at most {}", figure.show(most)), verdict(ours <= most))
            }
            (Self::Less(aim), None) => ("-".to_owned(), format!("{aim}x less"), "not compared"),
            (Self::Within(aim), None) => ("-".to_owned(), format!("at most {aim}x"), "not compared"),
            (Self::Less(aim), Some(theirs)) => {
                (format!("{} less", times(theirs / ours)), format!("{aim}x less"), verdict(theirs / ours >= aim))
            }
            (Self::Within(aim), Some(theirs)) => {
                (times(ours / theirs), format!("at most {aim}x"), verdict(ours / theirs <= aim))
            }
        }
    }
}
