//! Near names for misspelled ones.

/// The candidate that differs least from `wrong`, if it differs little enough to be what was meant.
pub(super) fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = (wrong.chars().count() / 3).clamp(1, 4);
    let near = candidates.into_iter().map(|candidate| (distance(wrong, candidate), candidate));
    let is_near = |(distance, candidate): &(usize, &str)| *distance <= tolerated || is_shortened(wrong, candidate);
    near.filter(is_near).min().map(|(_, candidate)| candidate)
}

/// A hint for a misspelled name: the nearest candidate if there is one, then all of them if they are few.
pub(super) fn hint<'a>(what: &str, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    const FEW: usize = 24;
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    candidates.sort_unstable();
    candidates.dedup();
    let near = nearest(wrong, candidates.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    let list = match candidates.len() {
        0 => format!("there are no {what}"),
        count if count > FEW => format!("there are {count} {what}"),
        _ => format!("{what}: {}", quoted(&candidates)),
    };
    near.into_iter().chain([list]).collect::<Vec<_>>().join(" ")
}

/// Whether one is a longer form of the other: `environment` for `env`.
fn is_shortened(wrong: &str, candidate: &str) -> bool {
    wrong.len().min(candidate.len()) >= 3 && (wrong.starts_with(candidate) || candidate.starts_with(wrong))
}

/// Names in back-ticks, separated by commas.
pub(super) fn quoted(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours cost one each.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before_last = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_slips_are_near_and_other_words_are_not() {
        let names = ["env", "patches", "expect", "linux-arm64", "linux-x86_64"];
        let near = |wrong| nearest(wrong, names);
        assert_eq!(near("evn"), Some("env"));
        assert_eq!(near("patch"), Some("patches"));
        assert_eq!(near("environment"), Some("env"));
        assert_eq!(near("patchs"), Some("patches"));
        assert_eq!(near("linux-arm9"), Some("linux-arm64"));
        assert_eq!(near("windows"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn hints_list_what_there_is() {
        assert_eq!(hint("settings", "evn", ["patches", "env"]), "did you mean `env`? settings: `env`, `patches`");
        assert_eq!(hint("targets", "x", []), "there are no targets");
    }
}
