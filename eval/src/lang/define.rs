//! Defines targets: what a package offers under a name.

use std::collections::BTreeMap;

use starlark::eval::Evaluator;
use starlark::values::Value;

use super::arguments::expected;
use super::error::RecipeError;
use super::label::MemberKey;
use super::session::{Session, outermost_place};
use super::target::{Axis, Derived, Member, Target};
use super::values::DerivationValue;

/// The name a rule's target gets from its argument `target`: by default that of the thing made, none for `False`.
pub(super) fn target_name<'n>(name: &'n str, target: Option<Value<'n>>) -> Result<Option<&'n str>, RecipeError> {
    let Some(target) = target else { return Ok(Some(name)) };
    match (target.unpack_bool(), target.unpack_str()) {
        (Some(true), _) => Ok(Some(name)),
        (Some(false), _) => Ok(None),
        (None, Some(other)) => Ok(Some(other)),
        (None, None) => Err(expected("`target`", "a name, `True` or `False`", target)),
    }
}

/// Defines a target without a matrix.
pub(super) fn single(
    name: &str,
    kind: &str,
    derivation: &DerivationValue,
    eval: &Evaluator<'_, '_, '_>,
) -> Result<(), RecipeError> {
    let member = Member::Derived(Derived::of(derivation));
    matrix(name, kind, Vec::new(), BTreeMap::from([(MemberKey::default(), member)]), eval)
}

/// Defines a target with a matrix.
pub(super) fn matrix(
    name: &str,
    kind: &str,
    axes: Vec<Axis>,
    members: BTreeMap<MemberKey, Member>,
    eval: &Evaluator<'_, '_, '_>,
) -> Result<(), RecipeError> {
    let make = |label| Target { label, kind: kind.to_owned(), axes, members };
    Session::of(eval).state().define(name, || outermost_place(eval), make)
}

impl Derived {
    /// A member made by this derivation's chosen output, with no tests.
    pub(super) fn of(derivation: &DerivationValue) -> Self {
        Self { derivation: derivation.path(), output: derivation.output().to_owned(), tests: Vec::new() }
    }
}
