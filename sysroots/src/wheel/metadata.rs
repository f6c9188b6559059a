//! The two descriptions inside a wheel: `METADATA`, of the distribution, and `WHEEL`, of the wheel itself.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::wheel_tag::{WheelName, WheelTag};

/// What is wrong with a description.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// A header is missing, there twice, or makes no sense.
    #[error("the wheel's {file} has no usable `{header}`")]
    Header {
        /// `METADATA` or `WHEEL`.
        file: &'static str,
        /// The header.
        header: &'static str,
    },
    /// It follows a newer specification.
    #[error("the wheel is of format version `{0}`, known is 1.x")]
    WheelVersion(String),
}

/// What is needed of `METADATA`.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) version: String,
}

pub(super) fn parse_metadata(text: &str) -> Result<Metadata, MetadataError> {
    let headers = headers(text);
    let one = |name| one(&headers, "METADATA", name);
    Ok(Metadata { name: one("Name")?, version: one("Version")? })
}

/// What a `WHEEL` file says.
#[derive(Debug)]
pub(super) struct WheelFile {
    generator: Option<String>,
    pure_library: bool,
    pub(super) tags: BTreeSet<WheelTag>,
}

impl WheelFile {
    pub(super) fn parse(text: &str) -> Result<Self, MetadataError> {
        let headers = headers(text);
        let version = one(&headers, "WHEEL", "Wheel-Version")?;
        if version.split('.').next() != Some("1") {
            return Err(MetadataError::WheelVersion(version));
        }
        let wrong = |header| MetadataError::Header { file: "WHEEL", header };
        let pure_library = match one(&headers, "WHEEL", "Root-Is-Purelib")?.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(wrong("Root-Is-Purelib")),
        };
        let tags: Option<BTreeSet<_>> = values(&headers, "Tag").map(WheelTag::parse).collect();
        let tags = tags.filter(|tags| !tags.is_empty()).ok_or_else(|| wrong("Tag"))?;
        let generator = values(&headers, "Generator").next().map(str::to_owned);
        Ok(WheelFile { generator, pure_library, tags })
    }

    /// The file for a wheel of this name. Who built it and where its files go stays as it was.
    pub(super) fn render(&self, name: &WheelName) -> String {
        let mut text = "Wheel-Version: 1.0\n".to_owned();
        if let Some(generator) = &self.generator {
            text += &format!("Generator: {generator}\n");
        }
        text += &format!("Root-Is-Purelib: {}\n", self.pure_library);
        for tag in name.tags() {
            text += &format!("Tag: {tag}\n");
        }
        if let Some(build) = &name.build {
            text += &format!("Build: {build}\n");
        }
        text + "\n"
    }
}

/// Headers up to the first empty line; lines that continue one are passed over.
fn headers(text: &str) -> Vec<(&str, &str)> {
    let header = |line: &'_ str| !line.starts_with([' ', '\t']);
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).filter(|line| header(line));
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect()
}

fn values<'a>(headers: &'a [(&str, &'a str)], name: &'static str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn one(headers: &[(&str, &str)], file: &'static str, name: &'static str) -> Result<String, MetadataError> {
    let found: Vec<_> = values(headers, name).collect();
    match found[..] {
        [value] if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(MetadataError::Header { file, header: name }),
    }
}
