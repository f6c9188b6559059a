//! Finds which knob decides: group testing by halves. Pure: the rebuilds are a function that is called.
//!
//! The reference is a rebuild in which every knob has its other value. Flipping a set of knobs back either keeps its
//! result or not. Along a list of knobs, the first whose flip (after those before it) changes the result is found by
//! halving; one more rebuild tells whether it decides alone.

use std::collections::BTreeSet;

use super::finding::Culprit;
use super::knobs::Knob;

/// Knobs are added to what decides until it does, but no more than this.
const MOST: usize = 3;

/// Finds the culprit, and counts the rebuilds it took: at most `log2(knobs) + 2` for a single one.
///
/// `same` rebuilds with these knobs flipped back, and says whether the result is still that of the reference, in which
/// none is.
///
/// # Errors
/// Those of `same`.
pub fn find_culprit<E>(
    knobs: &[Knob],
    mut same: impl FnMut(&BTreeSet<Knob>) -> Result<bool, E>,
) -> Result<(Culprit, u32), E> {
    let mut rebuilds = 0;
    let mut same = |flipped: &BTreeSet<Knob>| {
        rebuilds += 1;
        same(flipped)
    };
    if !same(&BTreeSet::new())? {
        return Ok((Culprit::Itself, rebuilds));
    }
    let mut found: Vec<Knob> = Vec::new();
    while found.len() < MOST {
        // Those found stay as they are in the reference; the rest is flipped, as far as it takes to change the result.
        let rest: Vec<Knob> = knobs.iter().copied().filter(|knob| !found.contains(knob)).collect();
        let Some(position) = first_change(&rest, &mut same)? else { break };
        found.push(rest[position]);
        // The last prefix that changed nothing held all others already: what was found decides.
        if position + 1 == rest.len() {
            break;
        }
        let others: BTreeSet<Knob> = rest.iter().copied().filter(|knob| *knob != rest[position]).collect();
        if same(&others)? {
            break;
        }
    }
    found.sort_unstable();
    let culprit = if found.is_empty() { Culprit::Unknown } else { Culprit::Knobs { knobs: found } };
    Ok((culprit, rebuilds))
}

/// The position of the first knob whose flip, after those before it, changes the result; `None`: no flip does.
fn first_change<E>(
    knobs: &[Knob],
    same: &mut impl FnMut(&BTreeSet<Knob>) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    // Invariant: flipping the first `low` keeps the result; flipping the first `high` is believed to change it.
    let (mut low, mut high) = (0, knobs.len());
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if same(&knobs[..middle].iter().copied().collect())? {
            low = middle;
        } else {
            high = middle;
        }
    }
    // Nobody has seen all of them flipped yet.
    if high == knobs.len() && same(&knobs.iter().copied().collect())? {
        return Ok(None);
    }
    Ok((high > 0).then(|| high - 1))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Searches where the output is a function of the set of flipped knobs.
    fn check(output: impl Fn(&BTreeSet<Knob>) -> u32, expected: &[Knob], most: u32) {
        let reference = output(&BTreeSet::new());
        let Ok::<_, Infallible>((culprit, rebuilds)) =
            find_culprit(&Knob::OPEN, |flipped| Ok(output(flipped) == reference));
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let expected = if expected.is_empty() { Culprit::Unknown } else { Culprit::Knobs { knobs: expected } };
        assert_eq!(culprit, expected);
        assert!(rebuilds <= most, "{rebuilds} rebuilds for {culprit:?}");
    }

    #[test]
    fn every_single_culprit_is_found_in_few_rebuilds() {
        let most = Knob::OPEN.len().ilog2() + 2;
        for knob in Knob::OPEN {
            check(|flipped| u32::from(flipped.contains(&knob)), &[knob], most);
        }
    }

    #[test]
    fn pairs_are_found() {
        for first in Knob::OPEN {
            for second in Knob::OPEN.into_iter().filter(|second| *second != first) {
                // It takes both to make the second build's output: flipping either loses it.
                let both = [first, second];
                check(|flipped| u32::from(both.iter().any(|knob| flipped.contains(knob))), &both, 11);
                // Two culprits, each with a mark of its own.
                let mark = |flipped: &BTreeSet<Knob>, knob: &Knob| u32::from(flipped.contains(knob)) << (*knob as u32);
                check(|flipped| both.iter().map(|knob| mark(flipped, knob)).sum(), &both, 11);
            }
        }
    }

    #[test]
    fn where_either_of_two_suffices_one_is_named() {
        let (first, second) = (Knob::Date, Knob::Kernel);
        check(|flipped| u32::from(flipped.contains(&first) && flipped.contains(&second)), &[second], 6);
    }

    #[test]
    fn what_no_knob_decides_is_unknown() {
        check(|_| 1, &[], 6);
    }

    #[test]
    fn a_build_that_differs_from_itself_needs_one_rebuild() {
        let found = find_culprit(&Knob::OPEN, |_| Ok::<_, Infallible>(false));
        assert_eq!(found.unwrap(), (Culprit::Itself, 1));
    }
}
