//! The packages of a suite (`Packages`), and what they need.

use ampoule_store::hash::Sha256Digest;

use super::deb822::{self, MalformedLine};

/// One package of one architecture in one version. Borrows from the index's text.
#[derive(Clone, Debug)]
pub(crate) struct Package<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) architecture: &'a str,
    pub(crate) multi_arch: MultiArch,
    pub(crate) pre_depends: &'a str,
    pub(crate) depends: &'a str,
    pub(crate) provides: &'a str,
    /// Path below the archive's base: relative, without `..`.
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: Sha256Digest,
    /// The suite that has it.
    pub(crate) suite: &'a str,
}

/// How a package behaves towards packages of other architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MultiArch {
    /// Serves only its own architecture.
    No,
    /// Can be installed for several architectures at once.
    Same,
    /// Serves all architectures.
    Foreign,
    /// Serves all architectures to those who ask with `:any`.
    Allowed,
}

/// One of the ways to meet a dependency: `libc6:any (>= 2.36)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alternative<'a> {
    pub(crate) name: &'a str,
    pub(crate) architecture: Option<&'a str>,
    pub(crate) relation: Option<Relation<'a>>,
}

/// A bound on a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    operator: Operator,
    version: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Relation<'_> {
    /// Whether a version keeps within the bound.
    pub(crate) fn holds_for(&self, version: &str) -> bool {
        let order = super::version::compare(version, self.version);
        match self.operator {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Greater => order.is_gt(),
        }
    }
}

/// Reads an index. Packages that could not be locked (without sha256, or with a path that leads elsewhere) are left
/// out, as if the suite did not have them.
pub(crate) fn parse<'a>(text: &'a str, suite: &'a str) -> Result<Vec<Package<'a>>, MalformedLine> {
    let mut packages = Vec::new();
    for stanza in deb822::stanzas(text) {
        packages.extend(from_stanza(&stanza?, suite));
    }
    Ok(packages)
}

fn from_stanza<'a>(stanza: &deb822::Stanza<'a>, suite: &'a str) -> Option<Package<'a>> {
    Some(Package {
        name: stanza.get("Package").filter(|name| is_word(name))?,
        version: stanza.get("Version").filter(|version| is_word(version))?,
        architecture: stanza.get("Architecture").filter(|architecture| is_word(architecture))?,
        multi_arch: match stanza.get("Multi-Arch") {
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            _ => MultiArch::No,
        },
        pre_depends: stanza.get("Pre-Depends").unwrap_or_default(),
        depends: stanza.get("Depends").unwrap_or_default(),
        provides: stanza.get("Provides").unwrap_or_default(),
        path: stanza.get("Filename").map(|path| path.trim_start_matches("./")).filter(|path| is_inner_path(path))?,
        size: stanza.get("Size")?.parse().ok()?,
        sha256: stanza.get("SHA256")?.parse().ok()?,
        suite,
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() < 256 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

/// Whether a path stays below its base: relative, plain components only.
fn is_inner_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() < 1024 && path.split('/').all(plain) && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

/// The groups of a dependency field; each is met by any one of its alternatives. Parts that are not understood are
/// alternatives that nothing meets.
pub(crate) fn dependencies(field: &str) -> impl Iterator<Item = Vec<Alternative<'_>>> {
    let groups = field.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').filter_map(parse_alternative).collect())
}

/// What a package provides: names, each perhaps with an exact version.
pub(crate) fn provisions(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let parts = field.split(',').filter_map(parse_alternative);
    parts.map(|provided| (provided.name, provided.relation.map(|relation| relation.version)))
}

/// Reads `name[:architecture] [(operator version)]`.
fn parse_alternative(text: &str) -> Option<Alternative<'_>> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let rest = rest.trim();
    let relation = match rest.strip_prefix('(') {
        Some(inner) => Some(parse_relation(inner.split_once(')')?.0)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    is_word(name).then_some(Alternative { name, architecture, relation })
}

fn parse_relation(text: &str) -> Option<Relation<'_>> {
    let text = text.trim();
    let (operator, version) = text.split_at(text.find(|c: char| !"<=>".contains(c))?);
    let operator = match operator {
        "<<" => Operator::Less,
        // The single forms are obsolete spellings of "or equal".
        "<=" | "<" => Operator::LessOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::GreaterOrEqual,
        ">>" => Operator::Greater,
        _ => return None,
    };
    let version = version.trim();
    is_word(version).then_some(Relation { operator, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, path: &str) -> String {
        let sha256 = "ab".repeat(32);
        format!("Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: {path}\nSize: 1\nSHA256: {sha256}\n\n")
    }

    #[test]
    fn paths_that_lead_elsewhere_are_left_out() {
        let paths = ["pool/a.deb", "./pool/a.deb", "../a.deb", "/a.deb", "pool/../../a.deb", "pool//a.deb", ""];
        let text: String = paths.iter().map(|path| stanza("a", path)).collect();
        let packages = parse(&text, "s").unwrap();
        assert_eq!(packages.len(), 2);
        assert!(packages.iter().all(|package| package.path == "pool/a.deb"));
    }

    #[test]
    fn incomplete_packages_are_left_out_and_other_lines_refused() {
        assert!(parse("Package: a\nVersion: 1\n", "s").unwrap().is_empty());
        assert!(parse(&stanza("a/../b", "x"), "s").unwrap().is_empty());
        assert!(parse(&stanza("a", "x").replace("Size: 1", "Size: -1"), "s").unwrap().is_empty());
        assert!(parse("nonsense", "s").is_err());
    }

    /// Every prefix of a text, and the text with each byte changed, is parsed without harm.
    #[test]
    fn hostile_text_does_no_harm() {
        let text =
            stanza("libc6", "pool/a.deb").replace("Size", "Depends: a (>= 1) | b:any, c\nProvides: d (= 2)\nSize");
        for end in 0..text.len() {
            let _ = parse(&text[..end], "s");
        }
        for index in 0..text.len() {
            for byte in [b'\n', b' ', b':', b'(', b'|', 0] {
                let mut bytes = text.clone().into_bytes();
                bytes[index] = byte;
                let changed = String::from_utf8(bytes).unwrap();
                for package in parse(&changed, "s").unwrap_or_default() {
                    let _ = (dependencies(package.depends).count(), provisions(package.provides).count());
                }
            }
        }
    }

    #[test]
    fn dependency_fields() {
        let field = "libc6 (>= 2.36), a:any | b (<< 2~) , debconf(= 1) |  c, , d (bad), e [amd64]";
        let groups: Vec<_> = dependencies(field).collect();
        assert_eq!(groups.len(), 5);
        assert!(groups[0][0].relation.unwrap().holds_for("2.36-9"));
        assert!(!groups[0][0].relation.unwrap().holds_for("2.35"));
        assert_eq!(groups[1][0], Alternative { name: "a", architecture: Some("any"), relation: None });
        assert!(!groups[1][1].relation.unwrap().holds_for("2"));
        assert_eq!(groups[2].len(), 2);
        assert!(groups[3].is_empty() && groups[4].is_empty());
        let provided: Vec<_> = provisions("a, b (= 1:2)").collect();
        assert_eq!(provided, [("a", None), ("b", Some("1:2"))]);
    }
}
