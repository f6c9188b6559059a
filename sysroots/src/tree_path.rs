//! Names of entries in a tree: relative, bounded, and without any step that could lead out of it.

use std::fmt;

use thiserror::Error;

/// Longest name of one directory entry, in bytes, as on Linux file systems.
pub const MAX_NAME: usize = 255;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 4095;
/// Deepest nesting of directories. A writer holds one open directory per level.
pub const MAX_DEPTH: usize = 128;

/// A path inside a tree: a list of names, none of which is empty, `.` or `..`. No names at all mean the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath {
    names: Vec<Vec<u8>>,
}

/// Why a path was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// It starts at the root of the file system.
    #[error("`{0}` is an absolute path")]
    Absolute(String),
    /// It has a `..` step.
    #[error("`{0}` has a `..` step")]
    Upwards(String),
    /// It has a NUL byte.
    #[error("`{0}` has a NUL byte")]
    Nul(String),
    /// It or a name in it is longer, or it is nested deeper, than any file system takes.
    #[error("a path that starts with `{0}` is too long or nested too deep")]
    TooLong(String),
}

impl TreePath {
    /// The root of the tree.
    pub const ROOT: TreePath = TreePath { names: Vec::new() };

    /// Reads a path as archives write them: `./a//b/` is `a/b`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let too_long = || PathError::TooLong(printable(&bytes[..bytes.len().min(60)]));
        if bytes.len() > MAX_PATH {
            return Err(too_long());
        }
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute(printable(bytes)));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul(printable(bytes)));
        }
        let mut names = Vec::new();
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(PathError::Upwards(printable(bytes))),
                _ if name.len() > MAX_NAME || names.len() == MAX_DEPTH => return Err(too_long()),
                _ => names.push(name.to_vec()),
            }
        }
        Ok(TreePath { names })
    }

    /// Reads a path as people write them in recipes, where a leading slash means the root of the tree.
    pub fn parse_rooted(text: &str) -> Result<Self, PathError> {
        TreePath::parse(text.trim_start_matches('/').as_bytes())
    }

    /// The names from the root down.
    pub fn names(&self) -> &[Vec<u8>] {
        &self.names
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// The last name and the path of the directory that holds it, unless this is the root.
    pub fn split_last(&self) -> Option<(TreePath, &[u8])> {
        let (last, parents) = self.names.split_last()?;
        Some((TreePath { names: parents.to_vec() }, last))
    }

    /// This path without its first `count` names, or `None` if it has fewer.
    pub fn without_leading(&self, count: usize) -> Option<TreePath> {
        self.names.get(count..).map(|names| TreePath { names: names.to_vec() })
    }

    /// The path of `other` below this one.
    pub fn join(&self, other: &TreePath) -> Result<TreePath, PathError> {
        let mut bytes = self.to_bytes();
        bytes.push(b'/');
        bytes.extend(other.to_bytes());
        if self.is_root() { Ok(other.clone()) } else { TreePath::parse(&bytes) }
    }

    /// The names with slashes between them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&printable(&self.to_bytes()))
    }
}

/// Bytes as text for a message: control characters and bytes that are not UTF-8 are escaped.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_spellings_are_one_path() {
        let plain = TreePath::parse(b"a/b").unwrap();
        for spelling in ["./a/b", "a//b", "a/./b/", "././a/b/."] {
            assert_eq!(TreePath::parse(spelling.as_bytes()).unwrap(), plain, "{spelling}");
        }
        assert!(TreePath::parse(b"./").unwrap().is_root());
    }

    #[test]
    fn dangerous_paths_are_refused() {
        assert!(matches!(TreePath::parse(b"/etc/passwd"), Err(PathError::Absolute(_))));
        for upwards in ["..", "../a", "a/../../b", "a/..", "./../a"] {
            assert!(matches!(TreePath::parse(upwards.as_bytes()), Err(PathError::Upwards(_))), "{upwards}");
        }
        assert!(matches!(TreePath::parse(b"a\0b"), Err(PathError::Nul(_))));
        assert!(TreePath::parse(&[b'a'; 256]).is_err());
        assert!(TreePath::parse("a/".repeat(129).as_bytes()).is_err());
        assert!(TreePath::parse(&vec![b'/'; 5000][1..]).is_err());
    }

    #[test]
    fn names_with_odd_bytes_print_readably() {
        assert_eq!(TreePath::parse(b"a\n\xff...").unwrap().to_string(), "a\\n\\xff...");
    }
}
