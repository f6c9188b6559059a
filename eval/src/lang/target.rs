//! What evaluation yields under a label, and how patterns choose from it.

use std::collections::BTreeMap;

use ampoule_store::path::StorePath;
use serde::Serialize;

use super::error::EvalError;
use super::label::{Label, MemberKey, Pattern, Scope};
use super::{Evaluation, suggest};

/// Something a recipe makes under a name.
///
/// As JSON it is `label`, `kind`, `axes` and a list of `members`, each with its own `label` and either `derivation`,
/// `output` and `tests`, or the reason why it is `skipped`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Summary")]
pub struct Target {
    /// Its name.
    pub label: Label,
    /// The rule that made it: `derivation`, `sysroot`, `wheel`.
    pub kind: String,
    /// The axes of its matrix; empty if it has a single member.
    pub axes: Vec<Axis>,
    /// Its members; a target without a matrix has one under the empty key.
    pub members: BTreeMap<MemberKey, Member>,
}

/// An axis of a matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// Its name: `platform`.
    pub name: String,
    /// Its values in the recipe's order.
    pub values: Vec<String>,
}

/// One cell of a target's matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// It is made by a derivation.
    Derived(Derived),
    /// The recipe leaves it out, for this reason.
    Skipped(String),
}

/// What makes a member and what tests it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Path of the derivation.
    pub derivation: StorePath,
    /// The output that is the member.
    pub output: String,
    /// Derivations that only succeed if the member works.
    pub tests: Vec<StorePath>,
}

/// A member that a pattern chose.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    /// Its target.
    pub target: &'a Target,
    /// Its place in the matrix.
    pub key: &'a MemberKey,
    /// The member.
    pub member: &'a Member,
}

impl Selected<'_> {
    /// The member's full label: `//wheels:markupsafe[linux-arm64,cp311]`.
    pub fn label(&self) -> String {
        self.target.label.member(self.key)
    }
}

impl Target {
    /// The members that have every one of these axis values.
    ///
    /// # Errors
    /// When a value belongs to no axis, or no member has all of them.
    pub fn select(&self, values: &[String]) -> Result<Vec<Selected<'_>>, EvalError> {
        if let Some(unknown) = values.iter().find(|value| self.axis_of(value).is_none()) {
            return Err(self.unknown_value(unknown));
        }
        let chosen: Vec<_> = self
            .members
            .iter()
            .filter(|(key, _)| values.iter().all(|value| key.0.contains(value)))
            .map(|(key, member)| Selected { target: self, key, member })
            .collect();
        if chosen.is_empty() {
            let message = format!("`{}` has no member `[{}]`", self.label, values.join(","));
            return Err(EvalError::new(message).with_hint("two values of one axis exclude each other"));
        }
        Ok(chosen)
    }

    fn axis_of(&self, value: &str) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.values.iter().any(|known| known == value))
    }

    fn unknown_value(&self, value: &str) -> EvalError {
        let error = EvalError::new(format!("`{}` has no member for `{value}`", self.label));
        if self.axes.is_empty() {
            return error.with_hint("it has no matrix: write it without square brackets");
        }
        let values = self.axes.iter().flat_map(|axis| axis.values.iter().map(String::as_str));
        let near = suggest::nearest(value, values).map(|near| format!("did you mean `{near}`?"));
        let axes = self.axes.iter().map(|axis| format!("{}: {}", axis.name, suggest::quoted(&axis.values)));
        error.with_hint(near.into_iter().chain(axes).collect::<Vec<_>>().join("\n"))
    }
}

impl Evaluation {
    /// The members that a pattern chooses, in order of label and place in the matrix.
    ///
    /// # Errors
    /// When nothing matches: the error names what is near.
    pub fn select(&self, pattern: &Pattern) -> Result<Vec<Selected<'_>>, EvalError> {
        if let Scope::Target(label) = &pattern.scope {
            return match self.targets.get(label) {
                Some(target) => target.select(&pattern.members),
                None => Err(self.unknown_target(label)),
            };
        }
        let in_scope: Vec<_> = self.targets.values().filter(|target| pattern.matches(&target.label)).collect();
        if in_scope.is_empty() {
            return Err(EvalError::new(format!("`{pattern}` matches no target")));
        }
        self.select_among(&in_scope, pattern)
    }

    /// A wide pattern passes over targets that do not have its values, as long as some target has them.
    fn select_among<'a>(&self, targets: &[&'a Target], pattern: &Pattern) -> Result<Vec<Selected<'a>>, EvalError> {
        let mut chosen = Vec::new();
        let mut first_error = None;
        for target in targets {
            match target.select(&pattern.members) {
                Ok(members) => chosen.extend(members),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) if chosen.is_empty() => {
                let message = format!("no target in `{pattern}` has such a member");
                Err(EvalError { message, ..error })
            }
            _ => Ok(chosen),
        }
    }

    fn unknown_target(&self, label: &Label) -> EvalError {
        let names: Vec<_> =
            self.targets.keys().filter(|known| known.package() == label.package()).map(Label::name).collect();
        let what = format!("targets in `{}`", label.package());
        EvalError::new(format!("no target `{label}`")).with_hint(suggest::hint(&what, label.name(), names))
    }
}

/// A target as JSON.
#[derive(Serialize)]
struct Summary {
    label: Label,
    kind: String,
    axes: Vec<Axis>,
    members: Vec<MemberSummary>,
}

/// A member as JSON.
#[derive(Serialize)]
struct MemberSummary {
    label: String,
    #[serde(flatten)]
    member: HowMade,
}

#[derive(Serialize)]
#[serde(untagged)]
enum HowMade {
    Derived { derivation: String, output: String, tests: Vec<String> },
    Skipped { skipped: String },
}

impl From<Target> for Summary {
    fn from(target: Target) -> Self {
        let summary = |(key, member): (&MemberKey, &Member)| MemberSummary {
            label: target.label.member(key),
            member: match member {
                Member::Skipped(reason) => HowMade::Skipped { skipped: reason.clone() },
                Member::Derived(derived) => HowMade::Derived {
                    derivation: derived.derivation.to_string(),
                    output: derived.output.clone(),
                    tests: derived.tests.iter().map(ToString::to_string).collect(),
                },
            },
        };
        let members = target.members.iter().map(summary).collect();
        Self { label: target.label, kind: target.kind, axes: target.axes, members }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> Evaluation {
        let strings = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let matrix = |name: &str, platforms: &[&str]| {
            let axes = vec![
                Axis { name: "platform".into(), values: strings(platforms) },
                Axis { name: "python".into(), values: strings(&["cp311", "cp312"]) },
            ];
            let keys =
                platforms.iter().flat_map(|platform| ["cp311", "cp312"].map(|python| strings(&[platform, python])));
            let members = keys.map(|key| (MemberKey(key), Member::Skipped("test".into()))).collect();
            Target { label: format!("//w:{name}").parse().unwrap(), kind: "wheel".into(), axes, members }
        };
        let single = Target {
            label: "//t:gcc".parse().unwrap(),
            kind: "sysroot".into(),
            axes: Vec::new(),
            members: BTreeMap::from([(MemberKey::default(), Member::Skipped("test".into()))]),
        };
        let targets = [matrix("markupsafe", &["linux-arm64", "linux-x86_64"]), matrix("pure", &["any"]), single];
        Evaluation { targets: targets.map(|target| (target.label.clone(), target)).into(), ..Evaluation::default() }
    }

    #[test]
    fn patterns_choose_members() {
        let evaluation = evaluation();
        let labels = |pattern: &str| {
            let chosen = evaluation.select(&pattern.parse().unwrap()).unwrap();
            chosen.iter().map(Selected::label).collect::<Vec<_>>()
        };
        assert_eq!(
            labels("//w:markupsafe[linux-arm64]"),
            ["//w:markupsafe[linux-arm64,cp311]", "//w:markupsafe[linux-arm64,cp312]"]
        );
        assert_eq!(labels("//w:markupsafe[cp311,linux-arm64]"), ["//w:markupsafe[linux-arm64,cp311]"]);
        assert_eq!(labels("//w:markupsafe").len(), 4);
        assert_eq!(labels("//w:all").len(), 6);
        assert_eq!(labels("//..."), labels("//...[]".trim_end_matches("[]")));
        assert_eq!(labels("//...[any]"), ["//w:pure[any,cp311]", "//w:pure[any,cp312]"]);
        assert_eq!(labels("//t:gcc"), ["//t:gcc"]);
    }

    #[test]
    fn what_is_not_there_is_explained() {
        let evaluation = evaluation();
        let explain = |pattern: &str| evaluation.select(&pattern.parse().unwrap()).unwrap_err().render();
        assert_eq!(
            explain("//w:markupsaf"),
            "error: no target `//w:markupsaf`\n = hint: did you mean `markupsafe`? targets in `//w`: `markupsafe`, `pure`\n"
        );
        assert_eq!(
            explain("//w:markupsafe[linux-arm9]"),
            "\
error: `//w:markupsafe` has no member for `linux-arm9`
 = hint: did you mean `linux-arm64`?
   platform: `linux-arm64`, `linux-x86_64`
   python: `cp311`, `cp312`
"
        );
        assert_eq!(
            explain("//t:gcc[cp311]"),
            "error: `//t:gcc` has no member for `cp311`\n = hint: it has no matrix: write it without square brackets\n"
        );
        assert_eq!(
            explain("//w:pure[cp311,cp312]"),
            "error: `//w:pure` has no member `[cp311,cp312]`\n = hint: two values of one axis exclude each other\n"
        );
        assert_eq!(explain("//x/..."), "error: `//x/...` matches no target\n");
        assert!(explain("//...[windows]").starts_with("error: no target in `//...[windows]` has such a member\n"));
    }

    #[test]
    fn a_target_as_json_lists_its_members() {
        let evaluation = evaluation();
        let json = serde_json::to_string(&evaluation.targets[&"//t:gcc".parse().unwrap()]).unwrap();
        assert_eq!(
            json,
            r#"{"label":"//t:gcc","kind":"sysroot","axes":[],"members":[{"label":"//t:gcc","skipped":"test"}]}"#
        );
    }
}
