//! Recipes in Starlark, evaluated into derivations.
