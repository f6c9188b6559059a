//! Patterns of paths: `*` and `?` within one name, `**` for any number of whole names.

use thiserror::Error;

/// A pattern that paths of a tree are matched with. It also matches all that lies below what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    names: Vec<Vec<u8>>,
}

/// A pattern that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a pattern of paths: it must be relative, without empty names, `.`, `..`, or `**` inside a name")]
pub struct GlobError(String);

impl Glob {
    /// Reads a pattern such as `usr/share/doc/**`.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let names: Vec<&str> = text.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        let sound = |name: &&str| !matches!(*name, "" | "." | "..") && (*name == "**" || !name.contains("**"));
        if names.len() > 64 || !names.iter().all(sound) {
            return Err(GlobError(text.to_owned()));
        }
        Ok(Glob { names: names.into_iter().map(|name| name.as_bytes().to_vec()).collect() })
    }

    /// Whether a path, given by its names, matches or lies below one that does. `a/**` matches what is below `a`, not
    /// `a` itself.
    pub fn matches(&self, path: &[Vec<u8>]) -> bool {
        // `reached[i]`: the names so far match the first `i` parts of the pattern.
        let mut reached = vec![false; self.names.len() + 1];
        reached[0] = true;
        for name in path {
            self.skip_empty(&mut reached);
            let mut next = vec![false; reached.len()];
            for (index, part) in self.names.iter().enumerate().filter(|(index, _)| reached[*index]) {
                let deep = part == b"**";
                next[index] |= deep;
                next[index + 1] |= if deep { index + 1 == self.names.len() } else { name_matches(part, name) };
            }
            if next[self.names.len()] {
                return true;
            }
            reached = next;
        }
        false
    }

    /// A `**` before other parts may stand for no name at all.
    fn skip_empty(&self, reached: &mut [bool]) {
        for (index, part) in self.names.iter().enumerate().take(self.names.len() - 1) {
            reached[index + 1] |= reached[index] && part == b"**";
        }
    }
}

/// Matches one name, where `*` is any run of bytes and `?` one byte.
pub(crate) fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                position = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str, expected: bool) {
        let names: Vec<_> = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(Glob::parse(pattern).unwrap().matches(&names), expected, "{pattern} {path}");
    }

    #[test]
    fn patterns_match_as_people_expect() {
        check("usr/share/doc/**", "usr/share/doc/a", true);
        check("usr/share/doc/**", "usr/share/doc/a/b", true);
        check("usr/share/doc/**", "usr/share/doc", false);
        check("usr/share/doc", "usr/share/doc", true);
        check("usr/share/doc", "usr/share/doc/a", true);
        check("usr/share/doc", "usr/share/doc2", false);
        check("/usr/share/doc/", "usr/share/doc/a", true);
        check("usr/*/doc", "usr/share/doc", true);
        check("usr/*/doc", "usr/share/x/doc", false);
        check("usr/**/doc", "usr/doc", true);
        check("usr/**/doc", "usr/a/b/doc", true);
        check("usr/**/doc", "usr/a/b/docs", false);
        check("**/*.pyc", "a.pyc", true);
        check("**/*.pyc", "a/b/c.pyc", true);
        check("**/*.pyc", "a/b/c.py", false);
        check("**/**/x", "x", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*lib*.so.?", "xlib1.so.6", true);
        check("**", "anything/at/all", true);
    }

    #[test]
    fn broken_patterns_are_refused() {
        for wrong in ["", "a//b", "../a", "a/./b", "a**/b"] {
            assert!(Glob::parse(wrong).is_err(), "{wrong}");
        }
    }
}
