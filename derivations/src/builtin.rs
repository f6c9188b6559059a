//! The contracts of the builtin builders: their names, and what they read from a derivation's environment.
//!
//! A name carries its version, since it is hashed: whoever changes what a builder does gives it a new name. Every builder but
//! [`FETCH`] runs in the sandbox, where the paths it is given really exist, and makes the tree or file `out`.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Interns a locked source: the only builder with a network, and the only one that runs outside the sandbox.
pub const FETCH: &str = "builtin:fetch-v1";
/// Unpacks a source archive and applies patches.
pub const UNPACK: &str = "builtin:unpack-v1";
/// Merges Debian packages into one root tree.
pub const DEBIAN_TREE: &str = "builtin:debian-tree-v1";
/// Makes a built wheel canonical and checks it.
pub const WHEEL: &str = "builtin:wheel-v1";
/// Installs wheels of build dependencies into one tree.
pub const PYTHON_PATH: &str = "builtin:python-path-v1";

/// Every builtin builder.
pub const ALL: [&str; 5] = [FETCH, UNPACK, DEBIAN_TREE, WHEEL, PYTHON_PATH];

/// The system of [`FETCH`] derivations, which any machine can build.
pub const FETCH_SYSTEM: &str = "builtin";
/// The system of all other derivations of builtin builders.
pub const SYSTEM: &str = "x86_64-linux";

/// Whether this builder is a builtin one, known or not.
#[must_use]
pub fn is_builtin(builder: &str) -> bool {
    builder.starts_with("builtin:")
}

/// What a builtin builder is asked to do. All paths are full logical store paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// [`FETCH`].
    Fetch(Fetch),
    /// [`UNPACK`].
    Unpack(Unpack),
    /// [`DEBIAN_TREE`].
    DebianTree(DebianTree),
    /// [`WHEEL`].
    Wheel(Wheel),
    /// [`PYTHON_PATH`].
    PythonPath(PythonPath),
}

/// [`FETCH`]: the bytes of a locked source. Their hash is the derivation's fixed output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// What the source is, as canonical JSON of a [`SourceId`](crate::source::SourceId): `source`.
    pub source: String,
    /// Its file name: `file`.
    pub file: String,
    /// Its length in bytes, where it is known: `size`.
    pub size: Option<u64>,
}

/// [`UNPACK`]: the tree in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpack {
    /// The archive: `src`.
    pub src: String,
    /// How many leading directories of each member are dropped, 0 or 1: `strip`. 1 demands one common top directory.
    pub strip: u8,
    /// Unified diffs, applied in order with one leading component dropped: `patches`, a JSON list.
    pub patches: Vec<String>,
}

/// [`DEBIAN_TREE`]: a root tree of unpacked packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianTree {
    /// The package files, in order: `packages`, a JSON list.
    pub packages: Vec<String>,
    /// Further symbolic links, path to target: `links`, a JSON object.
    pub links: BTreeMap<String, String>,
    /// Further files, path to content: `files`, a JSON object.
    pub files: BTreeMap<String, String>,
    /// Patterns of paths that are left out: `drop`, a JSON list.
    pub drop: Vec<String>,
}

/// [`WHEEL`]: a canonical wheel, and nothing else, in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    /// The directory that holds exactly one wheel as the backend left it: `raw`.
    pub raw: String,
    /// The project's name: `project`. (`name` is the derivation's own.)
    pub name: String,
    /// The project's version: `version`.
    pub version: String,
    /// The platform it is for, such as `linux-arm64`: `platform`.
    pub platform: String,
    /// The Python it is for, such as `cp311`: `python`.
    pub python: String,
    /// What it must contain: `expect`, a JSON object.
    pub expect: Expect,
}

/// What a wheel must contain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Whether it must hold native code (true) or may not (false).
    #[serde(default)]
    pub native: bool,
    /// Modules it must hold, dotted.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The wheel tag it must get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// [`PYTHON_PATH`]: a tree of installed wheels, `lib` and `bin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonPath {
    /// The wheels: `wheels`, a JSON list.
    pub wheels: Vec<String>,
}

/// Why an environment is no request to a builtin builder.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No builder has this name.
    #[error("no builtin builder is named `{builder}`; this version knows {}", ALL.join(", "))]
    Builder {
        /// The name.
        builder: String,
    },
    /// A variable is missing.
    #[error("`{builder}` needs the variable `{variable}`")]
    Missing {
        /// The builder.
        builder: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// A variable's JSON is malformed.
    #[error("`{builder}`: the variable `{variable}` is not the JSON it should be")]
    Json {
        /// The builder.
        builder: &'static str,
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A variable's number is malformed or out of range.
    #[error("`{builder}`: the variable `{variable}` cannot be `{value}`")]
    Number {
        /// The builder.
        builder: &'static str,
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
}

impl Request {
    /// Reads the request to `builder` from a derivation's environment. Variables that are not named above are of no concern.
    ///
    /// # Errors
    /// When no such builder exists, or a variable is missing or malformed.
    pub fn parse(builder: &str, env: &BTreeMap<String, String>) -> Result<Self, RequestError> {
        match builder {
            FETCH => Variables { builder: FETCH, env }.fetch().map(Self::Fetch),
            UNPACK => Variables { builder: UNPACK, env }.unpack().map(Self::Unpack),
            DEBIAN_TREE => Variables { builder: DEBIAN_TREE, env }.debian_tree().map(Self::DebianTree),
            WHEEL => Variables { builder: WHEEL, env }.wheel().map(Self::Wheel),
            PYTHON_PATH => {
                let wheels = Variables { builder: PYTHON_PATH, env }.json("wheels")?;
                Ok(Self::PythonPath(PythonPath { wheels }))
            }
            _ => Err(RequestError::Builder { builder: builder.to_owned() }),
        }
    }
}

struct Variables<'a> {
    builder: &'static str,
    env: &'a BTreeMap<String, String>,
}

impl Variables<'_> {
    fn fetch(&self) -> Result<Fetch, RequestError> {
        let size = self.env.get("size").map(|size| size.parse().map_err(|_| self.number("size", size))).transpose()?;
        Ok(Fetch { source: self.text("source")?, file: self.text("file")?, size })
    }

    fn unpack(&self) -> Result<Unpack, RequestError> {
        let strip = match self.env.get("strip").map(String::as_str) {
            None | Some("0") => 0,
            Some("1") => 1,
            Some(value) => return Err(self.number("strip", value)),
        };
        Ok(Unpack { src: self.text("src")?, strip, patches: self.json_or_default("patches")? })
    }

    fn debian_tree(&self) -> Result<DebianTree, RequestError> {
        Ok(DebianTree {
            packages: self.json("packages")?,
            links: self.json_or_default("links")?,
            files: self.json_or_default("files")?,
            drop: self.json_or_default("drop")?,
        })
    }

    fn wheel(&self) -> Result<Wheel, RequestError> {
        Ok(Wheel {
            raw: self.text("raw")?,
            name: self.text("project")?,
            version: self.text("version")?,
            platform: self.text("platform")?,
            python: self.text("python")?,
            expect: self.json_or_default("expect")?,
        })
    }

    fn text(&self, variable: &'static str) -> Result<String, RequestError> {
        self.env.get(variable).cloned().ok_or(RequestError::Missing { builder: self.builder, variable })
    }

    fn json<T: DeserializeOwned>(&self, variable: &'static str) -> Result<T, RequestError> {
        let text = self.text(variable)?;
        serde_json::from_str(&text).map_err(|source| RequestError::Json { builder: self.builder, variable, source })
    }

    fn json_or_default<T: DeserializeOwned + Default>(&self, variable: &'static str) -> Result<T, RequestError> {
        if self.env.contains_key(variable) { self.json(variable) } else { Ok(T::default()) }
    }

    fn number(&self, variable: &'static str, value: &str) -> RequestError {
        RequestError::Number { builder: self.builder, variable, value: value.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(builder: &str, env: &[(&str, &str)]) -> Result<Request, RequestError> {
        Request::parse(builder, &env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn every_builder_reads_its_variables() {
        let fetch = parse(FETCH, &[("source", "{}"), ("file", "a.tar"), ("size", "12"), ("out", "/x")]).unwrap();
        assert_eq!(fetch, Request::Fetch(Fetch { source: "{}".into(), file: "a.tar".into(), size: Some(12) }));
        let unpack = parse(UNPACK, &[("src", "/s"), ("strip", "1"), ("patches", r#"["/p"]"#)]).unwrap();
        assert_eq!(unpack, Request::Unpack(Unpack { src: "/s".into(), strip: 1, patches: vec!["/p".into()] }));
        let tree = parse(DEBIAN_TREE, &[("packages", r#"["/d"]"#), ("links", r#"{"a":"b"}"#)]).unwrap();
        let expected = DebianTree {
            packages: vec!["/d".into()],
            links: BTreeMap::from([("a".into(), "b".into())]),
            files: BTreeMap::new(),
            drop: Vec::new(),
        };
        assert_eq!(tree, Request::DebianTree(expected));
        let wheel = [("raw", "/r"), ("project", "n"), ("version", "1"), ("platform", "p"), ("python", "cp311")];
        let expect = [("expect", r#"{"native":true,"modules":["a.b"]}"#)];
        let Request::Wheel(wheel) = parse(WHEEL, &[&wheel[..], &expect].concat()).unwrap() else { panic!() };
        assert_eq!(wheel.expect, Expect { native: true, modules: vec!["a.b".into()], tag: None });
        assert_eq!(
            parse(PYTHON_PATH, &[("wheels", "[]")]).unwrap(),
            Request::PythonPath(PythonPath { wheels: Vec::new() })
        );
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for (builder, env, message) in [
            ("builtin:unpack-v9", &[][..], "no builtin builder is named `builtin:unpack-v9`"),
            (FETCH, &[("file", "a")], "`builtin:fetch-v1` needs the variable `source`"),
            (FETCH, &[("size", "many")], "`builtin:fetch-v1`: the variable `size` cannot be `many`"),
            (UNPACK, &[("src", "/s"), ("strip", "2")], "`builtin:unpack-v1`: the variable `strip` cannot be `2`"),
            (WHEEL, &[("raw", "/r")], "`builtin:wheel-v1` needs the variable `project`"),
            (PYTHON_PATH, &[("wheels", "/w")], "`builtin:python-path-v1`: the variable `wheels` is not the JSON"),
        ] {
            let error = parse(builder, env).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_prefix_tells_builtin_builders() {
        assert!(ALL.into_iter().all(is_builtin) && is_builtin("builtin:later-v7"));
        assert!(!is_builtin("/bin/sh"));
    }
}
