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
/// So many results are looked at once more, if they look like those of a race.
const MORE: usize = 2;
/// Knobs whose other value is another one each time: two rebuilds alike need not see the same.
const RESTLESS: [Knob; 3] = [Knob::Addresses, Knob::Scheduling, Knob::FileSystem];

/// Finds the culprit, and counts the rebuilds it took: at most `log2(knobs) + 2` for a single one.
///
/// `rebuild` builds with these knobs flipped back and gives what came of it; `reference` is what came of it with none.
///
/// # Errors
/// Those of `rebuild`.
pub fn find_culprit<T: PartialEq, E>(
    knobs: &[Knob],
    reference: &T,
    mut rebuild: impl FnMut(&BTreeSet<Knob>) -> Result<T, E>,
) -> Result<(Culprit, u32), E> {
    let mut seen: Vec<(BTreeSet<Knob>, T)> = Vec::new();
    let mut rebuilds = 0;
    let mut rebuild = |flipped: &BTreeSet<Knob>| {
        rebuilds += 1;
        rebuild(flipped)
    };
    if rebuild(&BTreeSet::new())? != *reference {
        let restless: Vec<Knob> = RESTLESS.into_iter().filter(|knob| knobs.contains(knob)).collect();
        let culprit = find_restless(&restless, &mut rebuild)?;
        return Ok((culprit, rebuilds));
    }
    let found = find_among(knobs, &mut |flipped| {
        let result = rebuild(flipped)?;
        let same = result == *reference;
        if !same {
            seen.push((flipped.clone(), result));
        }
        Ok(same)
    })?;
    // A single culprit makes two results, whatever else is flipped. More of them look like several culprits, and like a
    // race, whose results come as they will: what was seen must be seen again.
    let is_plain = found.len() < 2 && seen.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if !is_plain && !is_repeated(reference, &seen, &mut rebuild)? {
        return Ok((Culprit::Itself, rebuilds));
    }
    let culprit = if found.is_empty() { Culprit::Unknown } else { Culprit::Knobs { knobs: found } };
    Ok((culprit, rebuilds))
}

/// Whether rebuilds alike give what they gave before.
fn is_repeated<T: PartialEq, E>(
    reference: &T,
    seen: &[(BTreeSet<Knob>, T)],
    rebuild: &mut impl FnMut(&BTreeSet<Knob>) -> Result<T, E>,
) -> Result<bool, E> {
    for (flipped, result) in seen.iter().rev().take(MORE) {
        if rebuild(flipped)? != *result || rebuild(&BTreeSet::new())? != *reference {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Two rebuilds alike differed. Without the restless knobs they are alike, if it is one of those.
fn find_restless<T: PartialEq, E>(
    restless: &[Knob],
    rebuild: &mut impl FnMut(&BTreeSet<Knob>) -> Result<T, E>,
) -> Result<Culprit, E> {
    let all: BTreeSet<Knob> = restless.iter().copied().collect();
    if all.is_empty() {
        return Ok(Culprit::Itself);
    }
    let still = rebuild(&all)?;
    if rebuild(&all)? != still {
        return Ok(Culprit::Itself);
    }
    for knob in restless {
        if rebuild(&[*knob].into())? == still {
            return Ok(Culprit::Knobs { knobs: vec![*knob] });
        }
    }
    Ok(Culprit::Itself)
}

/// The knobs that decide, in order; none if nothing that is flipped changes anything.
fn find_among<E>(knobs: &[Knob], same: &mut impl FnMut(&BTreeSet<Knob>) -> Result<bool, E>) -> Result<Vec<Knob>, E> {
    let mut found: Vec<Knob> = Vec::new();
    while found.len() < MOST {
        // Those found stay as they are in the reference; the rest is flipped, as far as it takes to change the result.
        let rest: Vec<Knob> = knobs.iter().copied().filter(|knob| !found.contains(knob)).collect();
        let Some(position) = first_change(&rest, same)? else { break };
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
    Ok(found)
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
            find_culprit(&Knob::OPEN, &reference, |flipped| Ok(output(flipped)));
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
                check(|flipped| u32::from(both.iter().any(|knob| flipped.contains(knob))), &both, 15);
                // Two culprits, each with a mark of its own.
                let mark = |flipped: &BTreeSet<Knob>, knob: &Knob| u32::from(flipped.contains(knob)) << (*knob as u32);
                check(|flipped| both.iter().map(|knob| mark(flipped, knob)).sum(), &both, 15);
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
    fn a_build_that_differs_from_itself_is_told_from_a_restless_knob() {
        let mut count = 0;
        let found = find_culprit(&Knob::OPEN, &0, |_| {
            count += 1;
            Ok::<_, Infallible>(count)
        });
        assert_eq!(found.unwrap(), (Culprit::Itself, 3));
        for restless in RESTLESS {
            let mut count = 0;
            let found = find_culprit(&Knob::OPEN, &0, |flipped| {
                count += 1;
                Ok::<_, Infallible>(if flipped.contains(&restless) { 1000 } else { count })
            });
            let (culprit, rebuilds) = found.unwrap();
            assert_eq!(culprit, Culprit::Knobs { knobs: vec![restless] });
            assert!(rebuilds <= 6, "{rebuilds}");
        }
    }
}
