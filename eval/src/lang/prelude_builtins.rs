//! The functions only the prelude's files can call. Their names start with `_`, so recipes cannot even load them.

use std::collections::BTreeMap;

use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::list::AllocList;
use starlark::values::none::{NoneOr, NoneType};
use starlark::values::structs::{AllocStruct, StructRef};
use starlark::values::{Value, ValueLike};

use super::arguments::{entries, expected, refuse_unknown, strings};
use super::coerce::{items, to_json};
use super::error::RecipeError;
use super::label::MemberKey;
use super::session::{Session, call_site};
use super::target::{Axis, Derived, Member};
use super::values::{DerivationValue, MatrixValue, ObjectValue};
use super::{define, matrix, objects, requests};

/// Adds the functions.
#[starlark_module]
pub(super) fn functions(builder: &mut GlobalsBuilder) {
    /// Refuses arguments that `function` does not have.
    fn _refuse_unknown<'v>(function: &str, unknown: Value<'v>, known: Value<'v>) -> starlark::Result<NoneType> {
        let known = strings(known, "`known`")?;
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        refuse_unknown(function, unknown, &known)?;
        Ok(NoneType)
    }

    /// Fails with a message and what to do about it.
    fn _refuse<'v>(
        message: &str,
        hint: Option<&str>,
        place: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let place = Session::of(eval).place(place.and_then(|place| place.unpack_i32()));
        let error = RecipeError::new(message).at(place);
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
        .into())
    }

    /// A number for the place from which the user's own code reached the prelude.
    fn _place<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<i32> {
        let place = call_site(eval);
        Ok(place.map_or(-1, |place| Session::of(eval).remember_place(place)))
    }

    /// A source that is a file of a Python package.
    fn _pypi<'v>(
        name: &str,
        version: &str,
        wheel: NoneOr<&'v str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<DerivationValue> {
        Ok(requests::pypi(Session::of(eval), name, version, wheel.into_option())?)
    }

    /// A source that is a file by address.
    fn _url<'v>(
        name: &str,
        urls: Value<'v>,
        sha256: NoneOr<&'v str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<DerivationValue> {
        Ok(requests::url(Session::of(eval), name, strings(urls, "`urls`")?, sha256.into_option())?)
    }

    /// Sources that are Debian packages with all they depend on: a list.
    fn _debian<'v>(
        suite: &str,
        architectures: Value<'v>,
        packages: Value<'v>,
        drop: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let architectures = strings(architectures, "`architectures`")?;
        let packages = strings(packages, "`packages`")?;
        let sources = requests::debian(Session::of(eval), suite, architectures, packages, strings(drop, "`drop`")?)?;
        Ok(eval.heap().alloc(AllocList(sources)))
    }

    /// A store object with the content of a file of the prelude.
    fn _prelude_file<'v>(name: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<ObjectValue> {
        Ok(objects::prelude_file(Session::of(eval), name)?)
    }

    /// JSON with sorted keys.
    fn _json<'v>(value: Value<'v>, what: &str) -> starlark::Result<String> {
        Ok(to_json(value, &|| format!("`{what}`"))?)
    }

    /// A matrix of these axes, a dict of lists.
    fn _matrix<'v>(axes: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<MatrixValue> {
        Ok(matrix::matrix(Session::of(eval).tables, axes)?)
    }

    /// The cells of a matrix with the settings of each.
    fn _cells<'v>(
        over: Value<'v>,
        settings: Value<'v>,
        overrides: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let over =
            over.downcast_ref::<MatrixValue>().ok_or_else(|| expected("`over`", "made by `matrix(...)`", over))?;
        let cells = matrix::cells(over, settings, overrides, eval)?;
        Ok(eval.heap().alloc(AllocList(cells)))
    }

    /// What the host knows about a platform.
    fn _platform<'v>(name: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
        let platform = Session::of(eval).tables.platform(name);
        let platform = platform.ok_or_else(|| RecipeError::new(format!("unknown platform `{name}`")))?;
        let fields = [("name", &platform.name), ("emulator", &platform.emulator)];
        Ok(eval.heap().alloc(AllocStruct(fields.map(|(name, value)| (name, value.as_str())))))
    }

    /// Whether a value is a derivation.
    fn _is_derivation<'v>(value: Value<'v>) -> starlark::Result<bool> {
        Ok(value.downcast_ref::<DerivationValue>().is_some())
    }

    /// Defines a target with one member.
    fn _define<'v>(
        name: &'v str,
        kind: &str,
        derivation: Value<'v>,
        target: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        if let Some(target) = define::target_name(name, Some(target))? {
            define::single(target, kind, derivation_of(derivation)?, eval)?;
        }
        Ok(NoneType)
    }

    /// Defines a target with a matrix. `members` maps keys to structs of `derivation` and `tests`, or to the reason why
    /// the member is left out.
    fn _define_matrix<'v>(
        name: &'v str,
        kind: &str,
        over: Value<'v>,
        members: Value<'v>,
        target: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let over =
            over.downcast_ref::<MatrixValue>().ok_or_else(|| expected("`over`", "made by `matrix(...)`", over))?;
        let axis = |(name, values): &(String, Vec<String>)| Axis { name: name.clone(), values: values.clone() };
        let axes = over.axes().iter().map(axis).collect();
        let dict = DictRef::from_value(members).ok_or_else(|| expected("`members`", "a dict", members))?;
        let members = dict.iter().map(|(key, value)| Ok((MemberKey(strings(key, "a key")?), member(value)?)));
        let members: BTreeMap<_, _> = members.collect::<Result<_, RecipeError>>()?;
        if let Some(target) = define::target_name(name, Some(target))? {
            define::matrix(target, kind, axes, members, eval)?;
        }
        Ok(NoneType)
    }

    /// The keys of a dict that are among `reserved`.
    fn _first_reserved<'v>(dict: Value<'v>, reserved: Value<'v>) -> starlark::Result<NoneOr<String>> {
        let reserved = strings(reserved, "`reserved`")?;
        let found = entries(dict, "`env`")?.into_iter().find(|(name, _)| reserved.iter().any(|taken| taken == name));
        Ok(found.map_or(NoneOr::None, |(name, _)| NoneOr::Other(name.to_owned())))
    }
}

fn derivation_of(value: Value<'_>) -> Result<&DerivationValue, RecipeError> {
    value.downcast_ref::<DerivationValue>().ok_or_else(|| expected("the target", "a derivation", value))
}

fn member(value: Value<'_>) -> Result<Member, RecipeError> {
    if let Some(reason) = value.unpack_str() {
        return Ok(Member::Skipped(reason.to_owned()));
    }
    let fields = StructRef::from_value(value).ok_or_else(|| expected("a member", "a struct", value))?;
    let field = |wanted: &str| fields.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, value)| value);
    let derivation = field("derivation").ok_or_else(|| expected("a member", "made by a derivation", value))?;
    let tests = field("tests").and_then(items).unwrap_or_default();
    let tests = tests.iter().map(|test| derivation_of(*test).map(DerivationValue::path)).collect::<Result<_, _>>()?;
    Ok(Member::Derived(Derived { tests, ..Derived::of(derivation_of(derivation)?) }))
}
