//! Names of packages and targets, and the patterns that choose among them.
//!
//! `//wheels:markupsafe` is a target, `//wheels:markupsafe[linux-arm64,cp311]` one member of its matrix,
//! `//wheels:all` every target of a package, `//wheels/...` every target of a package and those below it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A directory of the catalog that holds a `BUILD.star`; the empty name is the catalog's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PackageName(String);

/// A target: a package and a name in it. Displays as `//wheels:markupsafe`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    package: PackageName,
    name: String,
}

/// Values of a matrix's axes, in the order of the axes; empty for a target without a matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MemberKey(pub Vec<String>);

/// What a pattern ranges over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// One target.
    Target(Label),
    /// Every target of one package: `//wheels:all`.
    Package(PackageName),
    /// Every target of a package and of those below it: `//wheels/...`.
    Below(PackageName),
}

/// Chooses targets and members of their matrices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// Which targets.
    pub scope: Scope,
    /// Axis values that a member must have, in any order; empty chooses all members.
    pub members: Vec<String>,
}

/// Why a text is not a label or a pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelError {
    /// It does not start with `//`.
    #[error("`{0}` is not a label: labels start with `//`, as in `//wheels:markupsafe`")]
    NoRoot(String),
    /// It names a package but no target.
    #[error(
        "`{0}` names a package, not a target: write `{0}:all` for its targets or `{below}` for those below it too",
        below = if .0 == "//" { "//...".to_owned() } else { format!("{}/...", .0) },
    )]
    NoTarget(String),
    /// A part of the package's name is empty, hidden, or holds characters that names may not have.
    #[error("`{0}` is not a package name (parts of letters, digits and `-_.+~=@`, separated by `/`)")]
    Package(String),
    /// The target's name is empty or holds characters that names may not have.
    #[error("`{0}` is not a target name (letters, digits and `-_.+~=@`, not starting with `.`)")]
    Target(String),
    /// The part in square brackets is not a list of axis values.
    #[error("`{0}` does not end in a list of axis values, as in `[linux-arm64,cp311]`")]
    Members(String),
    /// The name chooses every target of a package and so cannot be a target's own.
    #[error("no target can be named `all`: `:all` chooses every target of a package")]
    Reserved,
}

impl PackageName {
    /// The root of the catalog.
    pub fn root() -> Self {
        Self::default()
    }

    /// The name, parts separated by `/`, without the leading `//`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The catalog path of a file of this package.
    pub fn file(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}/{name}", self.0) }
    }

    /// Whether this package is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.0.is_empty()
            || self.0.strip_prefix(other.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for PackageName {
    type Err = LabelError;

    /// Reads a package name without its leading `//`.
    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() || text.split('/').all(is_name) {
            Ok(Self(text.to_owned()))
        } else {
            Err(LabelError::Package(text.to_owned()))
        }
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "//{}", self.0)
    }
}

impl Label {
    /// The label of target `name` in `package`.
    pub fn new(package: PackageName, name: &str) -> Result<Self, LabelError> {
        match name {
            "all" => Err(LabelError::Reserved),
            name if is_name(name) => Ok(Self { package, name: name.to_owned() }),
            name => Err(LabelError::Target(name.to_owned())),
        }
    }

    /// The package.
    pub fn package(&self) -> &PackageName {
        &self.package
    }

    /// The target's name in its package.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The label of one member, as `//wheels:markupsafe[linux-arm64,cp311]`; without a matrix, the label itself.
    pub fn member(&self, key: &MemberKey) -> String {
        if key.0.is_empty() { self.to_string() } else { format!("{self}[{key}]") }
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let rest = text.strip_prefix("//").ok_or_else(|| LabelError::NoRoot(text.to_owned()))?;
        let (package, name) = rest.split_once(':').ok_or_else(|| LabelError::NoTarget(text.to_owned()))?;
        Self::new(package.parse()?, name)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.package, self.name)
    }
}

impl Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Pattern {
    /// Whether targets of this package can match.
    pub fn may_choose_from(&self, package: &PackageName) -> bool {
        match &self.scope {
            Scope::Target(label) => label.package() == package,
            Scope::Package(one) => one == package,
            Scope::Below(top) => package.is_within(top),
        }
    }

    /// Whether the target is in this pattern's scope; its members are another question.
    pub fn matches(&self, label: &Label) -> bool {
        match &self.scope {
            Scope::Target(one) => one == label,
            _ => self.may_choose_from(label.package()),
        }
    }
}

impl FromStr for Pattern {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (scope, members) = split_members(text)?;
        let rest = scope.strip_prefix("//").ok_or_else(|| LabelError::NoRoot(text.to_owned()))?;
        let scope = match rest.split_once(':') {
            Some((package, "all")) => Scope::Package(package.parse()?),
            Some(_) => Scope::Target(scope.parse()?),
            None if rest == "..." => Scope::Below(PackageName::root()),
            None => match rest.strip_suffix("/...") {
                Some(package) if !package.is_empty() => Scope::Below(package.parse()?),
                _ => return Err(LabelError::NoTarget(format!("//{}", rest.trim_end_matches('/')))),
            },
        };
        Ok(Self { scope, members })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Target(label) => write!(f, "{label}")?,
            Scope::Package(package) => write!(f, "{package}:all")?,
            Scope::Below(package) if package.0.is_empty() => f.write_str("//...")?,
            Scope::Below(package) => write!(f, "{package}/...")?,
        }
        if self.members.is_empty() { Ok(()) } else { write!(f, "[{}]", self.members.join(",")) }
    }
}

impl From<Label> for Pattern {
    fn from(label: Label) -> Self {
        Self { scope: Scope::Target(label), members: Vec::new() }
    }
}

fn split_members(text: &str) -> Result<(&str, Vec<String>), LabelError> {
    let Some((scope, rest)) = text.split_once('[') else { return Ok((text, Vec::new())) };
    let invalid = || LabelError::Members(text.to_owned());
    let values = rest.strip_suffix(']').ok_or_else(invalid)?;
    let values: Vec<_> = values.split(',').map(str::trim).map(ToOwned::to_owned).collect();
    if values.iter().all(|value| is_name(value)) { Ok((scope, values)) } else { Err(invalid()) }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+~=@".contains(c);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> PackageName {
        name.parse().unwrap()
    }

    #[test]
    fn labels_and_patterns_round_trip() {
        for text in [
            "//wheels:markupsafe",
            "//:root-target",
            "//a/b_c:d.e+f",
            "//wheels:markupsafe[linux-arm64]",
            "//wheels:markupsafe[cp311,linux-arm64]",
            "//wheels:all",
            "//wheels/...",
            "//wheels/...[linux-arm64]",
            "//...",
            "//:all",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        let pattern: Pattern = "//wheels:x[ cp311 , linux-arm64 ]".parse().unwrap();
        assert_eq!(pattern.members, ["cp311", "linux-arm64"]);
    }

    #[test]
    fn what_is_not_a_pattern_is_explained() {
        let explain = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(
            explain("wheels:x"),
            "`wheels:x` is not a label: labels start with `//`, as in `//wheels:markupsafe`"
        );
        let root =
            "`//` names a package, not a target: write `//:all` for its targets or `//...` for those below it too";
        assert_eq!((explain("//").as_str(), explain("///").as_str()), (root, root));
        assert_eq!(
            explain("//wheels"),
            "`//wheels` names a package, not a target: write `//wheels:all` for its targets or `//wheels/...` for \
             those below it too"
        );
        for text in ["//a/../b:c", "//a//b:c", "///a:b", "//a/:b", "//../...", "//.git:x", "//a b:c"] {
            assert!(matches!(text.parse::<Pattern>(), Err(LabelError::Package(_))), "{text}");
        }
        for text in ["//a:", "//a:b:c", "//a:.b", "//a:b/c", "//a:ü"] {
            assert!(matches!(text.parse::<Pattern>(), Err(LabelError::Target(_))), "{text}");
        }
        for text in ["//a:b[", "//a:b[]", "//a:b[x", "//a:b[x]y", "//a:b[x,,y]"] {
            assert!(matches!(text.parse::<Pattern>(), Err(LabelError::Members(_))), "{text}");
        }
        assert_eq!("//a:all".parse::<Label>(), Err(LabelError::Reserved));
    }

    #[test]
    fn scopes_match_whole_parts_of_names() {
        let pattern: Pattern = "//a/...".parse().unwrap();
        assert!(pattern.may_choose_from(&package("a")) && pattern.may_choose_from(&package("a/b")));
        assert!(!pattern.may_choose_from(&package("ab")) && !pattern.may_choose_from(&package("")));
        let everything: Pattern = "//...".parse().unwrap();
        assert!(everything.may_choose_from(&package("")) && everything.may_choose_from(&package("x/y")));
        let one: Pattern = "//a:b".parse().unwrap();
        assert!(one.matches(&"//a:b".parse().unwrap()) && !one.matches(&"//a:c".parse().unwrap()));
    }

    #[test]
    fn labels_sort_by_package_then_name() {
        let mut labels: Vec<Label> = ["//b:a", "//a:z", "//:z", "//a:b"].map(|text| text.parse().unwrap()).into();
        labels.sort();
        let sorted: Vec<_> = labels.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, ["//:z", "//a:b", "//a:z", "//b:a"]);
    }

    #[test]
    fn member_labels_name_the_cell() {
        let label: Label = "//wheels:x".parse().unwrap();
        assert_eq!(
            label.member(&MemberKey(vec!["linux-arm64".into(), "cp311".into()])),
            "//wheels:x[linux-arm64,cp311]"
        );
        assert_eq!(label.member(&MemberKey::default()), "//wheels:x");
    }
}
