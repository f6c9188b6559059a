//! What apt's configuration says: which archives to ask, and whose signatures to believe (sources.list(5)).

use std::path::{Path, PathBuf};

use super::deb822::{self, MalformedLine};
use crate::sources::machine::{Machine, ReadError};

/// One archive of the machine's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Base address: suites lie under `dists/`, packages under `pool/`.
    pub base: String,
    /// Suites taken from it; empty if the configuration does not say.
    pub suites: Vec<String>,
    /// Components taken from it.
    pub components: Vec<String>,
    /// Architectures taken from it; empty for all.
    pub architectures: Vec<String>,
    /// Whose signatures count.
    pub signed_by: SignedBy,
    /// Whether the user declared that this archive needs no signature.
    pub trusted: bool,
}

/// Whose signatures an archive needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// Any key of the machine's keyrings.
    Machine,
    /// A key of these files.
    Files(Vec<PathBuf>),
    /// A key of this armoured text.
    Inline(String),
    /// One of these keys of the machine's keyrings.
    Fingerprints(Vec<String>),
}

/// Why apt's configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file is not well-formed.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line.
        source: MalformedLine,
    },
}

/// The machine's archives, in apt's order. Kinds of address that are not `http` or `https` are passed over.
pub fn archives(machine: &Machine) -> Result<Vec<Archive>, AptError> {
    let mut lists = vec![machine.path("/etc/apt/sources.list")];
    lists.extend(machine.files_in(&machine.path("/etc/apt/sources.list.d"), &["list", "sources"]));
    let mut archives = Vec::new();
    for path in lists {
        let Some(text) = machine.read(&path)? else { continue };
        if path.extension().is_some_and(|extension| extension == "sources") {
            let found = parse_sources(&text, machine).map_err(|source| AptError::Malformed { path, source })?;
            archives.extend(found);
        } else {
            archives.extend(text.lines().filter_map(|line| parse_line(line, machine)));
        }
    }
    archives.retain(|archive| archive.base.starts_with("http://") || archive.base.starts_with("https://"));
    Ok(archives)
}

/// The machine's own keyrings: apt's, and those that distributions install.
pub fn machine_keyrings(machine: &Machine) -> Vec<PathBuf> {
    let mut keyrings = vec![machine.path("/etc/apt/trusted.gpg")];
    keyrings.extend(machine.files_in(&machine.path("/etc/apt/trusted.gpg.d"), &["gpg", "asc", "pgp"]));
    let shared = machine.files_in(&machine.path("/usr/share/keyrings"), &["gpg", "pgp"]);
    let named =
        |path: &PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("-archive-keyring"));
    keyrings.extend(shared.into_iter().filter(named));
    keyrings.retain(|path| path.is_file());
    keyrings
}

/// Proxies that apt's own configuration names, by scheme.
pub fn proxies(machine: &Machine) -> Result<Vec<(String, String)>, ReadError> {
    let mut files = machine.files_in(&machine.path("/etc/apt/apt.conf.d"), &["conf"]);
    // apt also reads files without an extension, which is how most are named.
    files.extend(machine.plain_files_in(&machine.path("/etc/apt/apt.conf.d")));
    files.sort();
    files.push(machine.path("/etc/apt/apt.conf"));
    let mut proxies = Vec::new();
    for path in files {
        for line in machine.read(&path)?.unwrap_or_default().lines() {
            proxies.extend(parse_proxy(line));
        }
    }
    Ok(proxies)
}

/// Reads `Acquire::http::Proxy "http://proxy:3128";`.
fn parse_proxy(line: &str) -> Option<(String, String)> {
    let (key, value) = line.trim().split_once(char::is_whitespace)?;
    let key = key.to_ascii_lowercase();
    let scheme = key.strip_prefix("acquire::")?.strip_suffix("::proxy")?;
    let value = value.trim().strip_suffix(';')?.trim().trim_matches('"');
    let usable = matches!(scheme, "http" | "https") && value.contains("://");
    usable.then(|| (scheme.to_owned(), value.to_owned()))
}

/// Reads one line: `deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian suite main`.
fn parse_line(line: &str, machine: &Machine) -> Option<Archive> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (base, suite) = (words.next()?, words.next()?);
    let mut archive = Archive {
        base: base.to_owned(),
        suites: vec![suite.to_owned()],
        components: words.map(str::to_owned).collect(),
        architectures: Vec::new(),
        signed_by: SignedBy::Machine,
        trusted: false,
    };
    for option in options.split_whitespace() {
        let (key, value) = option.split_once('=')?;
        match key.trim_end_matches(['+', '-']).to_ascii_lowercase().as_str() {
            "arch" if key.ends_with('-') => {}
            "arch" => archive.architectures = value.split(',').map(str::to_owned).collect(),
            "signed-by" => archive.signed_by = parse_signed_by(&value.replace(',', " "), machine),
            "trusted" => archive.trusted = is_yes(value),
            _ => {}
        }
    }
    Some(archive)
}

/// Reads a file of stanzas; each may name several addresses.
fn parse_sources(text: &str, machine: &Machine) -> Result<Vec<Archive>, MalformedLine> {
    let lines = text.lines().map(|line| if line.starts_with('#') { "\0" } else { line });
    let without_comments: String = lines.filter(|line| *line != "\0").flat_map(|line| [line, "\n"]).collect();
    let mut archives = Vec::new();
    for stanza in deb822::stanzas(&without_comments) {
        let stanza = stanza?;
        let enabled = stanza.get("Enabled").is_none_or(is_yes);
        if !enabled || !stanza.words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let signed_by = stanza.get("Signed-By").map_or(SignedBy::Machine, |text| parse_signed_by(text, machine));
        for base in stanza.words("URIs") {
            archives.push(Archive {
                base,
                suites: stanza.words("Suites"),
                components: stanza.words("Components"),
                architectures: stanza.words("Architectures"),
                signed_by: signed_by.clone(),
                trusted: stanza.get("Trusted").is_some_and(is_yes),
            });
        }
    }
    Ok(archives)
}

fn is_yes(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "yes" | "true" | "with" | "on" | "enable" | "1")
}

/// A key block, paths, or fingerprints.
fn parse_signed_by(text: &str, machine: &Machine) -> SignedBy {
    if text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        // In a stanza a lone dot stands for an empty line.
        let lines = text.lines().map(str::trim).map(|line| if line == "." { "" } else { line });
        return SignedBy::Inline(lines.flat_map(|line| [line, "\n"]).collect());
    }
    let words: Vec<_> = text.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| word.starts_with('/')) {
        let paths = words.iter().filter(|word| word.starts_with('/')).map(|word| machine.path(word));
        return SignedBy::Files(paths.collect());
    }
    // A trailing `!` means that subkeys do not count; a fingerprint of a primary key is then enough all the same.
    SignedBy::Fingerprints(words.iter().map(|word| word.trim_end_matches('!').to_ascii_uppercase()).collect())
}

/// An archive that our own configuration names by its base only.
pub fn bare_archive(base: &str, keyrings: &[PathBuf]) -> Archive {
    let files: Vec<_> = keyrings.iter().map(|path| Path::to_owned(path)).collect();
    Archive {
        base: base.to_owned(),
        suites: Vec::new(),
        components: Vec::new(),
        architectures: Vec::new(),
        signed_by: if files.is_empty() { SignedBy::Machine } else { SignedBy::Files(files) },
        trusted: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the test's own files")]
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Machine::new(directory.path(), BTreeMap::new());
        (directory, machine)
    }

    #[test]
    fn one_line_style() {
        let text = "# comment\ndeb http://a.example/debian bookworm main contrib # tail\n\
            deb [ arch=amd64,arm64 signed-by=/k/a.gpg trusted=yes ] https://b.example/d bookworm-updates main\n\
            deb-src http://a.example/debian bookworm main\ndeb cdrom:[x]/ bookworm main\ndeb\ndeb x\n\
            deb [arch-=i386] http://c.example/ ./\n";
        let (directory, machine) = machine(&[("etc/apt/sources.list", text)]);
        let found = archives(&machine).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0].base, "http://a.example/debian");
        assert_eq!(found[0].components, ["main", "contrib"]);
        assert_eq!(found[0].signed_by, SignedBy::Machine);
        assert_eq!(found[1].architectures, ["amd64", "arm64"]);
        assert_eq!(found[1].signed_by, SignedBy::Files(vec![directory.path().join("k/a.gpg")]));
        assert!(found[1].trusted && !found[0].trusted);
        assert!(found[2].architectures.is_empty());
    }

    #[test]
    fn stanza_style() {
        let text = "# comment\nTypes: deb deb-src\n# inside\nURIs: http://a.example/debian https://b.example/debian\n\
            Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: ABCD!\n\n\
            Types: deb\nURIs: http://off.example\nSuites: x\nEnabled: no\n\n\
            Types: deb-src\nURIs: http://src.example\nSuites: x\n\n\
            Types: deb\nURIs: http://key.example\nSuites: x\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let (_directory, machine) = machine(&[("etc/apt/sources.list.d/x.sources", text)]);
        let found = archives(&machine).unwrap();
        let bases: Vec<_> = found.iter().map(|archive| archive.base.as_str()).collect();
        assert_eq!(bases, ["http://a.example/debian", "https://b.example/debian", "http://key.example"]);
        assert_eq!(found[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(found[0].signed_by, SignedBy::Fingerprints(vec!["ABCD".into()]));
        let SignedBy::Inline(key) = &found[2].signed_by else { panic!("{:?}", found[2]) };
        assert!(key.contains("BLOCK-----\n\nAAAA\n"), "{key:?}");
    }

    #[test]
    fn malformed_stanzas_are_named() {
        let (_directory, machine) = machine(&[("etc/apt/sources.list.d/x.sources", "Types: deb\nnonsense\n")]);
        let message = archives(&machine).unwrap_err().to_string();
        assert!(message.contains("x.sources") && message.contains("line 2"), "{message}");
    }

    #[test]
    fn proxies_of_apt() {
        let (_directory, machine) = machine(&[
            ("etc/apt/apt.conf.d/01proxy", "Acquire::http::Proxy \"http://p.example:3128/\";\n// x\n"),
            ("etc/apt/apt.conf", "acquire::https::proxy \"DIRECT\";\nfoo bar;\n"),
        ]);
        assert_eq!(proxies(&machine).unwrap(), [("http".to_owned(), "http://p.example:3128/".to_owned())]);
    }

    #[test]
    fn keyrings() {
        let (directory, machine) = machine(&[
            ("etc/apt/trusted.gpg.d/a.asc", ""),
            ("usr/share/keyrings/debian-archive-keyring.gpg", ""),
            ("usr/share/keyrings/debian-archive-removed-keys.gpg", ""),
        ]);
        let root = directory.path();
        let expected = ["etc/apt/trusted.gpg.d/a.asc", "usr/share/keyrings/debian-archive-keyring.gpg"]
            .map(|path| root.join(path));
        assert_eq!(machine_keyrings(&machine), expected);
    }
}
