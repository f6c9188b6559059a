//! The functions every recipe can call: `derivation`, `text`, `file`, `placeholder`, `print`.
#![expect(clippy::too_many_arguments, reason = "recipes pass them by name")]

use ampoule_derivations::placeholder as placeholders;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::none::{NoneOr, NoneType};
use starlark::values::tuple::UnpackTuple;

use super::call::{Call, Fixed};
use super::derive::derive;
use super::options::Options;
use super::session::{Session, called_by_prelude};
use super::values::{DerivationValue, ObjectValue};
use super::{define, objects};

/// Parameters of `derivation` besides its [`Options`], for the error about one it does not have.
const PARAMETERS: [&str; 15] = [
    "args",
    "builder",
    "content_addressed",
    "env",
    "name",
    "output_hash",
    "output_hash_algo",
    "output_hash_mode",
    "outputs",
    "pass_as_file",
    "required_system_features",
    "rootfs",
    "structured_attrs",
    "system",
    "target",
];

/// Adds the functions.
#[starlark_module]
pub(super) fn functions(builder: &mut GlobalsBuilder) {
    /// A build step: a program, its arguments and its environment.
    fn derivation<'v>(
        #[starlark(require = named)] name: &'v str,
        #[starlark(require = named)] system: &'v str,
        #[starlark(require = named)] builder: Value<'v>,
        #[starlark(require = named)] args: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] outputs: NoneOr<Value<'v>>,
        #[starlark(require = named, default = true)] content_addressed: bool,
        #[starlark(require = named, default = NoneOr::None)] rootfs: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] output_hash: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] output_hash_algo: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] output_hash_mode: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] structured_attrs: NoneOr<Value<'v>>,
        #[starlark(require = named)] pass_as_file: Option<Value<'v>>,
        #[starlark(require = named)] required_system_features: Option<Value<'v>>,
        #[starlark(require = named)] target: Option<Value<'v>>,
        #[starlark(kwargs)] rest: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<DerivationValue> {
        let options = Options::from_rest(rest, &PARAMETERS)?;
        let session = Session::of(eval);
        let fixed = Fixed {
            hash: output_hash.into_option(),
            algorithm: output_hash_algo.into_option(),
            mode: output_hash_mode.into_option(),
        };
        let call = Call {
            name,
            system,
            builder,
            args,
            env,
            outputs: outputs.into_option(),
            rootfs: rootfs.into_option(),
            content_addressed,
            fixed,
            structured_attrs: structured_attrs.into_option(),
            pass_as_file,
            required_system_features,
            options,
        };
        let derivation = derive(session, call.recipe()?)?;
        if !called_by_prelude(eval)
            && let Some(target) = define::target_name(name, target)?
        {
            define::single(target, "derivation", &derivation, eval)?;
        }
        Ok(derivation)
    }

    /// A store object with this content.
    fn text<'v>(name: &str, content: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<ObjectValue> {
        Ok(objects::text(Session::of(eval), name, content)?)
    }

    /// A store object with the content of a file of the catalog; the path is relative to the file that calls.
    fn file<'v>(path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<ObjectValue> {
        let caller = eval.call_stack_top_location().map(|span| span.filename().to_owned()).unwrap_or_default();
        Ok(objects::file(Session::of(eval), &caller, path)?)
    }

    /// Notes values for whoever reads the evaluation, with the place of the call.
    fn print<'v>(
        #[starlark(args)] values: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let text = values.items.iter().map(|value| value.to_str()).collect::<Vec<_>>().join(" ");
        Session::of(eval).print(eval.call_stack_top_location().as_ref(), &text);
        Ok(NoneType)
    }

    /// What stands for the path of a derivation's own output in its arguments and environment.
    fn placeholder(output: &str) -> starlark::Result<String> {
        Ok(placeholders::output(output))
    }
}
