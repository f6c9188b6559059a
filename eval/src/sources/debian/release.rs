//! The signed index of a suite (`InRelease`), once its signature was checked.

use std::collections::BTreeMap;

use ampoule_store::hash::Sha256Digest;

use super::deb822;

/// What a suite says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// `bookworm`.
    pub(crate) codename: String,
    /// `stable`.
    pub(crate) suite: String,
    /// Whether indexes can be fetched by their hash, which no update of the mirror disturbs.
    pub(crate) by_hash: bool,
    /// Whether packages of architecture `all` are only listed apart from the others.
    pub(crate) lists_all_apart: bool,
    /// Size and hash of each index by its path below the suite.
    pub(crate) files: BTreeMap<String, IndexFile>,
}

/// Size and hash of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexFile {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Hash of its bytes.
    pub(crate) sha256: Sha256Digest,
}

/// Why a release is not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReleaseError {
    /// It is not a stanza.
    #[error("its release file is not well-formed: {0}")]
    Malformed(#[from] deb822::MalformedLine),
    /// It lists no index with a sha256.
    #[error("its release file lists no sha256 of any index")]
    NoHashes,
}

impl Release {
    /// Reads the text that was signed.
    pub(crate) fn parse(text: &str) -> Result<Self, ReleaseError> {
        let stanza = deb822::stanzas(text).next().transpose()?.unwrap_or_default();
        let yes = |key: &str| stanza.get(key).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let all_is_listed = stanza.words("Architectures").iter().any(|architecture| architecture == "all");
        let not_for_packages = stanza.words("No-Support-for-Architecture-all").iter().any(|kind| kind == "Packages");
        let files: BTreeMap<_, _> = stanza.get("SHA256").unwrap_or_default().lines().filter_map(parse_file).collect();
        if files.is_empty() {
            return Err(ReleaseError::NoHashes);
        }
        Ok(Self {
            codename: stanza.get("Codename").unwrap_or_default().to_owned(),
            suite: stanza.get("Suite").unwrap_or_default().to_owned(),
            by_hash: yes("Acquire-By-Hash"),
            lists_all_apart: all_is_listed && !not_for_packages,
            files,
        })
    }

    /// Whether this is the suite of that name: a mirror must not pass off another one.
    pub(crate) fn is_suite(&self, name: &str) -> bool {
        [&self.codename, &self.suite].into_iter().any(|own| own == name)
    }
}

fn parse_file(line: &str) -> Option<(String, IndexFile)> {
    let mut words = line.split_whitespace();
    let (sha256, size, path) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    Some((path.to_owned(), IndexFile { size, sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_release_says() {
        let hash = "0123456789abcdef".repeat(4);
        let text = format!(
            "Suite: oldstable\nCodename: bookworm\nAcquire-By-Hash: yes\nArchitectures: all amd64\n\
             No-Support-for-Architecture-all: Packages\nMD5Sum:\n 00 1 x\nSHA256:\n {hash} 10 main/binary-amd64/Packages.xz\n\
             \x20junk\n {hash} -1 y\n"
        );
        let release = Release::parse(&text).unwrap();
        assert!(release.is_suite("bookworm") && release.is_suite("oldstable") && !release.is_suite("trixie"));
        assert!(release.by_hash && !release.lists_all_apart);
        assert_eq!(release.files.len(), 1);
        assert_eq!(release.files["main/binary-amd64/Packages.xz"].size, 10);
        assert_eq!(Release::parse("").unwrap_err(), ReleaseError::NoHashes);
        assert!(Release::parse("nonsense").is_err());
    }
}
