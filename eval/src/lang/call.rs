//! What a recipe says to `derivation`, and the environment Nix would make of it.

use std::collections::BTreeMap;

use ampoule_store::content_address::{ContentAddress, Method};
use ampoule_store::hash::{Algorithm, Hash};
use starlark::values::Value;

use super::arguments::{entries, strings};
use super::coerce::{append_quoted, items, to_json, to_text};
use super::derive::{Addressing, Recipe, Variables};
use super::error::RecipeError;
use super::options::{self, Options};

/// The arguments of `derivation`.
pub(super) struct Call<'v> {
    pub(super) name: &'v str,
    pub(super) system: &'v str,
    pub(super) builder: Value<'v>,
    pub(super) args: Option<Value<'v>>,
    pub(super) env: Option<Value<'v>>,
    pub(super) outputs: Option<Value<'v>>,
    pub(super) rootfs: Option<Value<'v>>,
    pub(super) content_addressed: bool,
    pub(super) fixed: Fixed<'v>,
    pub(super) structured_attrs: Option<Value<'v>>,
    pub(super) pass_as_file: Option<Value<'v>>,
    pub(super) required_system_features: Option<Value<'v>>,
    pub(super) options: Options<'v>,
}

/// What the output's content must hash to, as written.
pub(super) struct Fixed<'v> {
    pub(super) hash: Option<&'v str>,
    pub(super) algorithm: Option<&'v str>,
    pub(super) mode: Option<&'v str>,
}

/// The feature that derivations with a root file system ask of the machine that builds them.
const ROOTFS_FEATURE: &str = "rootfs";

impl Call<'_> {
    /// The same call with everything spelled out as derivations hold it.
    pub(super) fn recipe(&self) -> Result<Recipe, RecipeError> {
        let builder = to_text(self.builder, &|| "`builder`".to_owned())?;
        let outputs = self.outputs.map(|outputs| strings(outputs, "`outputs`")).transpose()?;
        let addressing = self.addressing()?;
        let env = match self.structured_attrs {
            None => self.plain_env(&builder, outputs.as_deref())?,
            Some(attributes) => self.structured_env(attributes, &builder, outputs.as_deref())?,
        };
        Ok(Recipe {
            name: self.name.to_owned(),
            system: self.system.to_owned(),
            builder,
            args: self.args()?,
            env,
            outputs: outputs.unwrap_or_else(|| vec!["out".to_owned()]),
            addressing,
        })
    }

    fn args(&self) -> Result<Vec<Vec<u8>>, RecipeError> {
        let Some(args) = self.args else { return Ok(Vec::new()) };
        let list = items(args).ok_or_else(|| super::arguments::expected("`args`", "a list", args))?;
        let argument = |(index, value): (usize, &Value<'_>)| {
            to_text(*value, &|| format!("`args[{index}]`")).map(String::into_bytes)
        };
        list.iter().enumerate().map(argument).collect()
    }

    /// Environment of an ordinary derivation: every attribute is a variable.
    fn plain_env(&self, builder: &str, outputs: Option<&[String]>) -> Result<Variables, RecipeError> {
        let mut env = BTreeMap::new();
        for (name, value) in self.env.map(|env| entries(env, "`env`")).transpose()?.unwrap_or_default() {
            check_variable(name)?;
            refuse_impure(name, value)?;
            env.insert(name.as_bytes().to_vec(), to_text(value, &|| format!("`env[\"{name}\"]`"))?.into_bytes());
        }
        let mut own: Vec<(&str, String)> =
            vec![("builder", builder.to_owned()), ("name", self.name.to_owned()), ("system", self.system.to_owned())];
        own.extend(outputs.map(|outputs| ("outputs", outputs.join(" "))));
        own.extend(self.fixed.attributes().map(|(name, value)| (name, value.to_owned())));
        own.extend(
            self.pass_as_file
                .map(|names| strings(names, "`pass_as_file`"))
                .transpose()?
                .map(|names| ("passAsFile", names.join(" "))),
        );
        own.extend(self.rootfs_text()?.map(|path| ("rootfs", path)));
        let features = self.features()?;
        own.extend((!features.is_empty()).then(|| ("requiredSystemFeatures", features.join(" "))));
        refuse_twice(&self.options.variables()?, |name| env.contains_key(name.as_bytes()))?;
        own.extend(self.options.variables()?);
        check_as_file(&own, &env)?;
        env.extend(own.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_bytes())));
        Ok(env)
    }

    /// Environment of a derivation with structured attributes: all of them as JSON in one variable.
    fn structured_env(
        &self,
        attributes: Value<'_>,
        builder: &str,
        outputs: Option<&[String]>,
    ) -> Result<Variables, RecipeError> {
        if self.env.is_some() || self.pass_as_file.is_some() {
            let message = "`structured_attrs` excludes `env` and `pass_as_file`";
            return Err(RecipeError::new(message).with_hint("put the variables into `structured_attrs`"));
        }
        let quoted = |text: &str| {
            let mut json = String::new();
            append_quoted(&mut json, text);
            json
        };
        let list =
            |texts: &[String]| format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(","));
        let mut fields = BTreeMap::new();
        for (name, value) in entries(attributes, "`structured_attrs`")? {
            if argument_for(name).is_some() {
                return Err(set_by_argument(name));
            }
            refuse_impure(name, value)?;
            fields.insert(name.to_owned(), to_json(value, &|| format!("`structured_attrs[\"{name}\"]`"))?);
        }
        let mut own = vec![("builder", quoted(builder)), ("name", quoted(self.name)), ("system", quoted(self.system))];
        own.extend(outputs.map(|outputs| ("outputs", list(outputs))));
        own.extend(self.fixed.attributes().map(|(name, value)| (name, quoted(value))));
        let features = self.features()?;
        own.extend((!features.is_empty()).then(|| ("requiredSystemFeatures", list(&features))));
        let options = self.options.fields()?;
        refuse_twice(&options, |name| fields.contains_key(name))?;
        own.extend(options);
        fields.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let fields = fields.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect::<Vec<_>>();
        let json = (b"__json".to_vec(), format!("{{{}}}", fields.join(",")).into_bytes());
        // Engines look for the root in the environment, whatever form the other attributes have.
        let rootfs = self.rootfs_text()?.map(|path| (b"rootfs".to_vec(), path.into_bytes()));
        Ok([json].into_iter().chain(rootfs).collect())
    }

    fn rootfs_text(&self) -> Result<Option<String>, RecipeError> {
        self.rootfs.map(|rootfs| to_text(rootfs, &|| "`rootfs`".to_owned())).transpose()
    }

    fn features(&self) -> Result<Vec<String>, RecipeError> {
        let own = self.required_system_features.map(|list| strings(list, "`required_system_features`")).transpose()?;
        let mut features = own.unwrap_or_default();
        if self.rootfs.is_some() && !features.iter().any(|feature| feature == ROOTFS_FEATURE) {
            features.push(ROOTFS_FEATURE.to_owned());
        }
        Ok(features)
    }

    fn addressing(&self) -> Result<Addressing, RecipeError> {
        match self.fixed.address()? {
            Some(address) => Ok(Addressing::Fixed(address)),
            None if self.content_addressed => Ok(Addressing::Floating),
            None => Ok(Addressing::Input),
        }
    }
}

impl<'v> Fixed<'v> {
    fn attributes(&self) -> impl Iterator<Item = (&'static str, &'v str)> {
        [("outputHash", self.hash), ("outputHashAlgo", self.algorithm), ("outputHashMode", self.mode)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
    }

    fn address(&self) -> Result<Option<ContentAddress>, RecipeError> {
        let Some(hash) = self.hash else {
            return match self.attributes().next() {
                Some(_) => Err(RecipeError::new("`output_hash_algo` and `output_hash_mode` need `output_hash`")),
                None => Ok(None),
            };
        };
        let method = match self.mode {
            None | Some("flat") => Method::Flat,
            Some("recursive" | "nar") => Method::Nar,
            Some(other) => {
                let message = format!("`output_hash_mode` must be `flat` or `recursive`, not `{other}`");
                return Err(RecipeError::new(message));
            }
        };
        let algorithm = match self.algorithm {
            None | Some("") => None,
            Some(name) => Some(
                name.parse::<Algorithm>().map_err(|error| RecipeError::new(format!("`output_hash_algo`: {error}")))?,
            ),
        };
        let hash = Hash::parse(hash, algorithm).map_err(|error| RecipeError::new(format!("`output_hash`: {error}")))?;
        Ok(Some(ContentAddress { method, hash }))
    }
}

/// Refuses an attribute that an argument sets and the environment too.
fn refuse_twice(options: &[(&str, String)], is_set: impl Fn(&str) -> bool) -> Result<(), RecipeError> {
    match options.iter().find(|(attribute, _)| is_set(attribute)) {
        Some((attribute, _)) => {
            let argument = options::argument_for(attribute).unwrap_or(attribute);
            Err(RecipeError::new(format!("`{attribute}` is there twice: it is also set by the argument `{argument}`")))
        }
        None => Ok(()),
    }
}

/// Refuses to pass a variable as a file that is not there.
fn check_as_file(own: &[(&str, String)], env: &Variables) -> Result<(), RecipeError> {
    let names = own.iter().find(|(name, _)| *name == "passAsFile").map_or("", |(_, names)| names);
    let is_set = |name: &str| env.contains_key(name.as_bytes()) || own.iter().any(|(own, _)| *own == name);
    match names.split(' ').find(|name| !name.is_empty() && !is_set(name)) {
        Some(name) => Err(RecipeError::new(format!("`pass_as_file` names `{name}`, which is no variable of `env`"))),
        None => Ok(()),
    }
}

fn check_variable(name: &str) -> Result<(), RecipeError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(RecipeError::new(format!("`{}` cannot be the name of a variable in `env`", name.escape_default())));
    }
    match argument_for(name) {
        Some(_) => Err(set_by_argument(name)),
        None => Ok(()),
    }
}

/// What Nix would make another kind of derivation of.
fn refuse_impure(name: &str, value: Value<'_>) -> Result<(), RecipeError> {
    if name != "__impure" || !value.to_bool() {
        return Ok(());
    }
    let message = "`__impure` makes a derivation whose result changes, and there are none here";
    Err(RecipeError::new(message).with_hint("pin what it fetches with `output_hash`, or use a rule that fetches"))
}

/// The argument of `derivation` that sets what Nix, or an engine, reads from this variable.
fn argument_for(variable: &str) -> Option<&str> {
    match variable {
        "builder" | "name" | "outputs" | "rootfs" | "system" => Some(variable),
        "__contentAddressed" => Some("content_addressed"),
        "__json" | "__structuredAttrs" => Some("structured_attrs"),
        "outputHash" => Some("output_hash"),
        "outputHashAlgo" => Some("output_hash_algo"),
        "outputHashMode" => Some("output_hash_mode"),
        "passAsFile" => Some("pass_as_file"),
        "requiredSystemFeatures" => Some("required_system_features"),
        _ => None,
    }
}

fn set_by_argument(variable: &str) -> RecipeError {
    let argument = argument_for(variable).unwrap_or(variable);
    RecipeError::new(format!("`{variable}` is set by the argument `{argument}`"))
}
