//! Store paths: `<store directory>/<32 base-32 digits>-<name>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base32;
use crate::hash::Sha256Digest;

/// The number of bytes a store path keeps of a hash.
pub const HASH_LENGTH: usize = 20;
/// The number of base-32 digits of the hash part.
pub const HASH_PART_LENGTH: usize = 32;
/// The longest name: a file name's 255 bytes less the hash part, the dash, and room for suffixes such as `.lock`.
pub const NAME_LENGTH_LIMIT: usize = 211;

/// Why a text is no store path, name or directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The name is empty.
    #[error("store path `{text}` has an empty name")]
    EmptyName {
        /// The text given.
        text: String,
    },
    /// The name is longer than [`NAME_LENGTH_LIMIT`].
    #[error("name `{text}` is longer than {NAME_LENGTH_LIMIT} characters")]
    LongName {
        /// The name.
        text: String,
    },
    /// The name holds a character that names may not hold.
    #[error("name `{text}` holds the illegal character `{}`", character.escape_debug())]
    IllegalCharacter {
        /// The name.
        text: String,
        /// The first such character.
        character: char,
    },
    /// The name is `.` or `..`, or starts with `.-` or `..-`.
    #[error("name `{text}` is not allowed: it would read as a relative path")]
    RelativeName {
        /// The name.
        text: String,
    },
    /// The text does not start with 32 base-32 digits and a dash.
    #[error("`{text}` does not start with {HASH_PART_LENGTH} base-32 digits and a dash")]
    HashPart {
        /// The text given.
        text: String,
    },
    /// The path does not lie directly in the store directory.
    #[error("`{text}` is not in the store directory `{store_dir}`")]
    OutsideStore {
        /// The path given.
        text: String,
        /// The store directory.
        store_dir: String,
    },
    /// The store directory is not an absolute, plain path.
    #[error("store directory `{text}` is not an absolute path in its shortest form")]
    StoreDir {
        /// The directory given.
        text: String,
    },
}

/// Checks a name by the rules of current Nix.
///
/// 1 to 211 of `0-9 A-Z a-z + - . _ ? =`; neither `.` nor `..`, nor one of these before a dash.
/// (Nix 2.8 had no rule about dots.)
///
/// # Errors
/// When the name breaks a rule; the error says which.
pub fn check_name(name: &str) -> Result<(), PathError> {
    let text = || name.to_owned();
    if name.is_empty() {
        return Err(PathError::EmptyName { text: text() });
    }
    if name.len() > NAME_LENGTH_LIMIT {
        return Err(PathError::LongName { text: text() });
    }
    if let Some(character) = name.chars().find(|c| !is_name_character(*c)) {
        return Err(PathError::IllegalCharacter { text: text(), character });
    }
    match name.split('-').next() {
        Some("." | "..") => Err(PathError::RelativeName { text: text() }),
        _ => Ok(()),
    }
}

const fn is_name_character(character: char) -> bool {
    matches!(character, '0'..='9' | 'a'..='z' | 'A'..='Z' | '+' | '-' | '.' | '_' | '?' | '=')
}

/// The nearest valid store name for a file name: what is not allowed becomes `-`, and what is too long is cut.
///
/// A valid name is returned unchanged. Different file names may give one store name.
#[must_use]
pub fn name_from_file_name(file_name: &str) -> String {
    let allowed = file_name.chars().map(|c| if is_name_character(c) { c } else { '-' });
    let name: String = allowed.take(NAME_LENGTH_LIMIT).collect();
    match check_name(&name) {
        Ok(()) => name,
        Err(_) => format!("_{}", &name[..name.len().min(NAME_LENGTH_LIMIT - 1)]),
    }
}

/// A store path without its directory: 32 base-32 digits, a dash, and a name. Displayed as that base name.
///
/// Cheap to clone. The order is that of the base names, which is Nix's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    base_name: Arc<str>,
}

impl StorePath {
    /// A store path from a hash's 20 bytes and a name.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn new(hash: &[u8; HASH_LENGTH], name: &str) -> Result<Self, PathError> {
        check_name(name)?;
        Ok(Self { base_name: [base32::encode(hash).as_str(), "-", name].concat().into() })
    }

    /// Reads `<hash part>-<name>`.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse_base_name(text: &str) -> Result<Self, PathError> {
        let malformed = || PathError::HashPart { text: text.to_owned() };
        let (hash_part, name) = text.split_at_checked(HASH_PART_LENGTH).ok_or_else(malformed)?;
        if !hash_part.bytes().all(base32::is_digit) {
            return Err(malformed());
        }
        let name = name.strip_prefix('-').ok_or_else(malformed)?;
        check_name(name)?;
        Ok(Self { base_name: text.into() })
    }

    /// The whole base name.
    #[must_use]
    pub fn base_name(&self) -> &str {
        &self.base_name
    }

    /// The 32 base-32 digits.
    #[must_use]
    pub fn hash_part(&self) -> &str {
        &self.base_name[..HASH_PART_LENGTH]
    }

    /// The bytes of the hash part.
    #[must_use]
    pub fn hash(&self) -> [u8; HASH_LENGTH] {
        let mut bytes = [0; HASH_LENGTH];
        base32::decode_into(self.hash_part(), &mut bytes).expect("the hash part was checked on construction");
        bytes
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.base_name[HASH_PART_LENGTH + 1..]
    }

    /// Whether the name says that this is a derivation.
    #[must_use]
    pub fn is_derivation(&self) -> bool {
        self.derivation_name().is_some()
    }

    /// The name without `.drv`, when it ends so.
    #[must_use]
    pub fn derivation_name(&self) -> Option<&str> {
        self.name().strip_suffix(".drv")
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_name)
    }
}

/// Reads the base name, as [`StorePath::parse_base_name`].
impl FromStr for StorePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse_base_name(text)
    }
}

/// The logical store directory. It is part of what every store path hashes; where the bytes lie on disk is another matter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreDir {
    path: Arc<str>,
}

impl StoreDir {
    /// A store directory: an absolute path without empty, `.` or `..` components and without a slash at its end.
    ///
    /// # Errors
    /// When the path is anything else.
    pub fn new(path: &str) -> Result<Self, PathError> {
        let plain = |rest: &str| rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
        match path.strip_prefix('/') {
            Some(rest) if plain(rest) && !path.contains('\0') => Ok(Self { path: path.into() }),
            _ => Err(PathError::StoreDir { text: path.to_owned() }),
        }
    }

    /// The directory.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The full logical path of a store path.
    #[must_use]
    pub fn display(&self, path: &StorePath) -> String {
        [&*self.path, "/", path.base_name()].concat()
    }

    /// Reads the full logical path of a store path.
    ///
    /// # Errors
    /// When the path lies elsewhere, or deeper, or its base name is malformed.
    pub fn parse(&self, text: &str) -> Result<StorePath, PathError> {
        match self.split(text)? {
            (path, "") => Ok(path),
            _ => Err(self.outside(text)),
        }
    }

    /// Splits a path in or below a store object: the store path, and what follows its base name (empty, or with a leading slash).
    ///
    /// # Errors
    /// When the path lies elsewhere or the base name is malformed.
    pub fn split<'a>(&self, text: &'a str) -> Result<(StorePath, &'a str), PathError> {
        let inside = text.strip_prefix(&*self.path).and_then(|rest| rest.strip_prefix('/'));
        let inside = inside.ok_or_else(|| self.outside(text))?;
        let end = inside.find('/').unwrap_or(inside.len());
        Ok((StorePath::parse_base_name(&inside[..end])?, &inside[end..]))
    }

    fn outside(&self, text: &str) -> PathError {
        PathError::OutsideStore { text: text.to_owned(), store_dir: self.path.to_string() }
    }

    /// The store path of what `kind`, `digest` and `name` identify: Nix's `makeStorePath`.
    ///
    /// The kind is `text:...`, `source:...` or `output:<output>`; the rules that choose it are in
    /// [`content_address`](crate::content_address) and in the derivation model.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn fingerprinted_path(&self, kind: &str, digest: &Sha256Digest, name: &str) -> Result<StorePath, PathError> {
        check_name(name)?;
        let fingerprint = [kind, ":sha256:", &digest.to_hex(), ":", &self.path, ":", name].concat();
        StorePath::new(&compress(&Sha256Digest::of(fingerprint.as_bytes())), name)
    }
}

/// Folds a digest to the length of a hash part by exclusive or.
fn compress(digest: &Sha256Digest) -> [u8; HASH_LENGTH] {
    let mut folded = [0; HASH_LENGTH];
    for (index, byte) in digest.as_bytes().iter().enumerate() {
        folded[index % HASH_LENGTH] ^= byte;
    }
    folded
}

impl Default for StoreDir {
    fn default() -> Self {
        Self { path: "/nix/store".into() }
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE_NAME: &str = "fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello";

    #[test]
    fn a_path_is_read_and_shown() {
        let path = StorePath::parse_base_name(BASE_NAME).unwrap();
        assert_eq!(path.hash_part(), "fvchbymk0m4jvldpb9m5hy0bjy2lf30k");
        assert_eq!(path.name(), "hello");
        assert_eq!(StorePath::new(&path.hash(), "hello").unwrap(), path);
        let store_dir = StoreDir::default();
        let full = store_dir.display(&path);
        assert_eq!(full, format!("/nix/store/{BASE_NAME}"));
        assert_eq!(store_dir.parse(&full).unwrap(), path);
        assert_eq!(store_dir.split(&format!("{full}/bin/x")).unwrap(), (path, "/bin/x"));
    }

    #[test]
    fn what_is_no_path_in_the_store_is_refused() {
        let store_dir = StoreDir::default();
        for text in [
            BASE_NAME,
            "/nix/store",
            "/nix/store/",
            "/nix/storage/fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello",
            "/nix/store//fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello",
            "/nix/store/fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello/",
            "/nix/store/fvchbymk0m4jvldpb9m5hy0bjy2lf30k-",
            "/nix/store/fvchbymk0m4jvldpb9m5hy0bjy2lf30k",
            "/nix/store/fvchbymk0m4jvldpb9m5hy0bjy2lf30khello",
            "/nix/store/evchbymk0m4jvldpb9m5hy0bjy2lf30k-hello",
            "/nix/store/fvchbymk0m4jvldpb9m5hy0bjy2lf3é-hello",
            "/nix/store/../store/fvchbymk0m4jvldpb9m5hy0bjy2lf30k-hello",
        ] {
            assert!(store_dir.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_rules_for_names() {
        for name in ["a", "a.b", "...", "..a", ".a-b", "-", "?=_+", &"a".repeat(211)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", ".-", ".-a", "..-a", "a b", "a/b", "é", "a~", "a@1", &"a".repeat(212)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn any_file_name_gives_a_valid_name() {
        for name in
            ["a b", "", ".", "..", ".-x", "gcc_4:12.2.0-3_amd64.deb", "é", "x~y", &"é".repeat(300), &".-a".repeat(80)]
        {
            let valid = name_from_file_name(name);
            assert_eq!(check_name(&valid), Ok(()), "{name} -> {valid}");
        }
        assert_eq!(name_from_file_name("zlib-1.3.1.tar.gz"), "zlib-1.3.1.tar.gz");
        assert_eq!(name_from_file_name("gcc_12~a.deb"), "gcc_12-a.deb");
    }

    #[test]
    fn paths_sort_by_their_base_names() {
        let low = StorePath::new(&[0xff; 20].map(|byte: u8| byte >> 1), "a").unwrap();
        let high = StorePath::new(&[0xff; 20], "a").unwrap();
        assert!(low < high && low.base_name() < high.base_name());
    }

    #[test]
    fn a_store_directory_is_absolute_and_plain() {
        for path in ["/nix/store", "/s", "/tmp/my store", "/gnu/store"] {
            assert_eq!(StoreDir::new(path).unwrap().as_str(), path);
        }
        for path in ["", "/", "nix/store", "/nix/store/", "/nix//store", "/nix/./store", "/nix/../store", "/a\0"] {
            assert!(StoreDir::new(path).is_err(), "{path}");
        }
    }
}
