//! The values of the language that stand for store objects.
#![expect(unsafe_code, reason = "derives of starlark implement its unsafe marker trait; none is written here")]

use std::fmt;

use allocative::Allocative;
use ampoule_store::path::StorePath;
use starlark::starlark_simple_value;
use starlark::values::{
    Heap, NoSerialize, ProvidesStaticType, StarlarkPagable, StarlarkValue, Value, ValueLike, starlark_value,
};

use super::session::Session;

/// Carries the session to builtin functions.
#[derive(ProvidesStaticType)]
pub(super) struct Host<'a>(pub(super) &'a Session<'a>);

/// A derivation with one of its outputs chosen. As text it is the store path of that output, or the placeholder that
/// becomes it once the content is known.
#[derive(Clone, Debug, ProvidesStaticType, StarlarkPagable, Allocative)]
pub(super) struct DerivationValue {
    name: String,
    /// Base name of the derivation's own path.
    path: String,
    /// All outputs in the recipe's order, each with the text that stands for it.
    outputs: Vec<(String, String)>,
    chosen: u32,
}

impl DerivationValue {
    /// A value for a derivation; its first output is chosen.
    pub(super) fn new(name: String, path: &StorePath, outputs: Vec<(String, String)>) -> Self {
        Self { name, path: path.base_name().to_owned(), outputs, chosen: 0 }
    }

    /// Path of the derivation.
    pub(super) fn path(&self) -> StorePath {
        StorePath::parse_base_name(&self.path).expect("it was made from a store path")
    }

    /// Name of the chosen output.
    pub(super) fn output(&self) -> &str {
        &self.outputs[self.chosen as usize].0
    }

    /// The text that stands for the chosen output.
    pub(super) fn text(&self) -> &str {
        &self.outputs[self.chosen as usize].1
    }
}

impl fmt::Display for DerivationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl serde::Serialize for DerivationValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

starlark_simple_value!(DerivationValue);

#[starlark_value(type = "derivation")]
impl<'v> StarlarkValue<'v> for DerivationValue {
    fn get_attr(&self, attribute: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        match attribute {
            "name" => Some(heap.alloc(self.name.as_str())),
            "outputs" => Some(heap.alloc(self.outputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())),
            output => {
                let chosen = self.outputs.iter().position(|(name, _)| name == output)?;
                Some(heap.alloc(Self { chosen: u32::try_from(chosen).ok()?, ..self.clone() }))
            }
        }
    }

    fn dir_attr(&self) -> Vec<String> {
        let outputs = self.outputs.iter().map(|(name, _)| name.clone());
        ["name", "outputs"].map(ToOwned::to_owned).into_iter().chain(outputs).collect()
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(other.downcast_ref::<Self>().is_some_and(|other| self.path == other.path && self.output() == other.output()))
    }

    fn write_hash(&self, hasher: &mut starlark::collections::StarlarkHasher) -> starlark::Result<()> {
        std::hash::Hash::hash(self.text(), hasher);
        Ok(())
    }

    fn add(&self, rhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let rhs = rhs.unpack_str()?;
        Some(Ok(heap.alloc(format!("{self}{rhs}"))))
    }

    fn radd(&self, lhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let lhs = lhs.unpack_str()?;
        Some(Ok(heap.alloc(format!("{lhs}{self}"))))
    }
}

/// A store object whose bytes evaluation knows: a text, or a file of the catalog. As text it is its store path.
#[derive(Clone, Debug, ProvidesStaticType, StarlarkPagable, Allocative)]
pub(super) struct ObjectValue {
    name: String,
    path: String,
}

impl ObjectValue {
    /// A value for the object at `path`, a full path.
    pub(super) fn new(name: &str, path: String) -> Self {
        Self { name: name.to_owned(), path }
    }

    /// Its full store path.
    pub(super) fn text(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ObjectValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl serde::Serialize for ObjectValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.path)
    }
}

starlark_simple_value!(ObjectValue);

#[starlark_value(type = "store_object")]
impl<'v> StarlarkValue<'v> for ObjectValue {
    fn get_attr(&self, attribute: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        (attribute == "name").then(|| heap.alloc(self.name.as_str()))
    }

    fn dir_attr(&self) -> Vec<String> {
        vec!["name".to_owned()]
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(other.downcast_ref::<Self>().is_some_and(|other| self.path == other.path))
    }

    fn write_hash(&self, hasher: &mut starlark::collections::StarlarkHasher) -> starlark::Result<()> {
        std::hash::Hash::hash(&self.path, hasher);
        Ok(())
    }

    fn add(&self, rhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let rhs = rhs.unpack_str()?;
        Some(Ok(heap.alloc(format!("{self}{rhs}"))))
    }

    fn radd(&self, lhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let lhs = lhs.unpack_str()?;
        Some(Ok(heap.alloc(format!("{lhs}{self}"))))
    }
}

/// The text that stands for a value which is a store object, if it is one.
pub(super) fn store_text<'v>(value: Value<'v>) -> Option<&'v str> {
    if let Some(derivation) = value.downcast_ref::<DerivationValue>() {
        return Some(derivation.text());
    }
    value.downcast_ref::<ObjectValue>().map(ObjectValue::text)
}

/// The axes of a matrix. Its members are the combinations of their values, the last axis running fastest.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagable, Allocative)]
pub(super) struct MatrixValue {
    axes: Vec<(String, Vec<String>)>,
}

impl MatrixValue {
    /// A matrix of these axes, whose values have been checked.
    pub(super) fn new(axes: Vec<(String, Vec<String>)>) -> Self {
        Self { axes }
    }

    /// Names of the axes, each with its values.
    pub(super) fn axes(&self) -> &[(String, Vec<String>)] {
        &self.axes
    }

    /// All cells, as values in the order of the axes.
    pub(super) fn cells(&self) -> Vec<Vec<&str>> {
        let mut cells = vec![Vec::new()];
        for (_, values) in &self.axes {
            let extended = |cell: &Vec<_>| {
                let cell = cell.clone();
                values.iter().map(move |value| cell.iter().copied().chain([value.as_str()]).collect::<Vec<_>>())
            };
            cells = cells.iter().flat_map(extended).collect();
        }
        cells
    }
}

impl fmt::Display for MatrixValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<_> = self.axes.iter().map(|(name, values)| format!("{name} = {values:?}")).collect();
        write!(f, "matrix({})", axes.join(", "))
    }
}

starlark_simple_value!(MatrixValue);

#[starlark_value(type = "matrix")]
impl<'v> StarlarkValue<'v> for MatrixValue {
    fn get_attr(&self, attribute: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let (_, values) = self.axes.iter().find(|(name, _)| name == attribute)?;
        Some(heap.alloc(values.clone()))
    }

    fn dir_attr(&self) -> Vec<String> {
        self.axes.iter().map(|(name, _)| name.clone()).collect()
    }
}
