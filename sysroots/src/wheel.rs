//! Turns the wheel that a build backend left into the canonical one, or says what is wrong with it.
//!
//! A build that succeeds can still leave the wrong wheel: without its native part, of another version, for another
//! machine. So nothing is taken on trust: every file is verified against `RECORD`, name, version and contents against what was
//! expected, and the platform tag is computed from the ELF files. What is written then depends on contents alone.

mod check;
mod contents;
mod metadata;
mod record;

use std::collections::BTreeMap;
use std::io::{self, Write};

use thiserror::Error;

use crate::elf::{ElfError, Machine};
use crate::manylinux::{Verdict, judge};
use crate::platform::{Platform, PythonVersion};
use crate::python_name::{Version, VersionError, normalised_name};
use crate::wheel_tag::{WheelName, WheelNameError};
use crate::zip_reader::{Archive, Entry, ZipError};
use crate::zip_writer::{ZipWriteError, ZipWriter};

use contents::{Contents, Digest};
use metadata::WheelFile;

pub use metadata::MetadataError;
pub use record::RecordError;

/// Most bytes of all files of a wheel.
const MAX_TOTAL: u64 = 8 << 30;

/// What a wheel must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The distribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The platform it is for.
    pub platform: Platform,
    /// The interpreter it is for.
    pub python: PythonVersion,
    /// Whether it must hold native code, or must not.
    pub native: bool,
    /// Modules it must hold, by dotted name.
    pub modules: Vec<String>,
    /// The last three parts of its canonical file name, where `*` stands for anything.
    pub tag: Option<String>,
}

/// What is wrong with a wheel.
#[derive(Debug, Error)]
pub enum WheelError {
    /// Its file name.
    #[error(transparent)]
    FileName(#[from] WheelNameError),
    /// Its archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// One of its entries.
    #[error("`{path}` in the wheel {what}")]
    Entry {
        /// The path.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// It is far too large.
    #[error("the files of the wheel have more than {MAX_TOTAL} bytes")]
    TooLarge,
    /// The body of an entry.
    #[error("cannot read `{path}` in the wheel")]
    Body {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory of its metadata.
    #[error("the wheel must have exactly one `.dist-info` directory, and it has {0}")]
    DistInfo(String),
    /// Its `RECORD`.
    #[error("the wheel's RECORD: {0}")]
    Record(#[from] RecordError),
    /// Its `METADATA` or `WHEEL`.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Name or version are not the expected ones.
    #[error("the wheel's {place} says {field} `{found}`, expected `{expected}`")]
    Identity {
        /// Where it says so.
        place: &'static str,
        /// `name` or `version`.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The expected version is none.
    #[error("the expected version: {0}")]
    Version(#[from] VersionError),
    /// File name and `WHEEL` name different tags.
    #[error("the wheel's file name says `{file_name}`, its WHEEL file `{wheel}`")]
    TagsDisagree {
        /// The tags of the file name.
        file_name: String,
        /// The tags of the `WHEEL` file.
        wheel: String,
    },
    /// It is for something else.
    #[error("the wheel is for `{found}`, not for {python} on {platform}")]
    Unsuitable {
        /// Its tags.
        found: String,
        /// The interpreter it should be for.
        python: PythonVersion,
        /// The platform it should be for.
        platform: Platform,
    },
    /// It has no native part.
    #[error(
        "the wheel is pure (`{tag}`) although native code is expected: its native part was not built; \
         the build log above says why"
    )]
    Pure {
        /// Its tags.
        tag: String,
    },
    /// It has a native part, unexpectedly.
    #[error("the wheel holds native code (`{path}`) although none is expected")]
    Native {
        /// The first native file.
        path: String,
    },
    /// It claims to run anywhere and cannot.
    #[error("the wheel is tagged `{tag}`, for any platform, but holds native code (`{path}`)")]
    TaggedAny {
        /// Its tags.
        tag: String,
        /// The first native file.
        path: String,
    },
    /// An ELF file is broken.
    #[error("`{path}` in the wheel: {source}")]
    Elf {
        /// The file.
        path: String,
        /// Why.
        source: ElfError,
    },
    /// An ELF file is for another machine.
    #[error("`{path}` in the wheel is for {found}, expected {expected}")]
    Machine {
        /// The file.
        path: String,
        /// What it is for.
        found: Machine,
        /// What it should be for.
        expected: Machine,
    },
    /// An extension module is for another interpreter.
    #[error("`{path}` in the wheel is an extension module of `{found}`, expected {expected}")]
    Extension {
        /// The file.
        path: String,
        /// The interpreter in its name.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A module is missing.
    #[error("the wheel has no module `{module}`: none of {candidates} is in it")]
    Module {
        /// The module.
        module: String,
        /// Where it could be.
        candidates: String,
    },
    /// The tag is not the expected one.
    #[error("the wheel gets the tag `{found}`, expected `{expected}`{reason}")]
    Tag {
        /// The computed tag.
        found: String,
        /// The expected tag.
        expected: String,
        /// What decided the platform.
        reason: String,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] ZipWriteError),
}

/// A wheel that is what it should be, ready to be written.
#[derive(Debug)]
pub struct Wheel<'a> {
    archive: Archive<'a>,
    name: WheelName,
    dist_info: String,
    wheel_file: WheelFile,
    /// The entries to write, by path.
    files: BTreeMap<String, (Entry, Digest)>,
    notes: Vec<String>,
}

impl<'a> Wheel<'a> {
    /// Reads and verifies a wheel.
    pub fn read(file_name: &str, bytes: &'a [u8], expected: &Expectation) -> Result<Self, WheelError> {
        let mut name = WheelName::parse(file_name)?;
        let archive = Archive::parse(bytes)?;
        let mut contents = Contents::read(&archive)?;
        record::verify(&contents)?;
        let metadata = metadata::parse_metadata(&contents.metadata)?;
        let wheel_file = WheelFile::parse(&contents.wheel)?;
        let version = check_identity(&name, &metadata, &contents.dist_info, expected)?;
        (name.name, name.version) = (normalised_name(&expected.name), version);

        let mut notes = Vec::new();
        let dropped = contents.drop_compiled()?;
        if dropped > 0 {
            notes.push(format!("left out {dropped} compiled Python files"));
        }
        check::tags(&name, &wheel_file, expected)?;
        check::native(&name, &contents, expected)?;
        check::modules(&contents, expected)?;
        let mut reason = String::new();
        if !contents.elf.is_empty() {
            let files = contents.elf.iter().map(|(path, elf)| (path.as_str(), elf));
            let verdict = judge(expected.platform, files, &contents.libraries());
            name.platforms = vec![verdict.platform_tag(expected.platform)];
            if let Verdict::None(need) | Verdict::Policy { because: Some(need), .. } = &verdict {
                reason = format!(": {need}");
            }
            notes.push(format!("platform tag `{}`{reason}", name.platforms[0]));
        }
        check::expected_tag(&name, expected, &reason)?;
        let Contents { dist_info, files, .. } = contents;
        Ok(Wheel { archive, name, dist_info, wheel_file, files, notes })
    }

    /// The canonical file name.
    pub fn file_name(&self) -> String {
        self.name.to_string()
    }

    /// What was decided or changed, for the build log.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Writes the canonical wheel: files sorted by name, metadata after them, `RECORD` last.
    pub fn write<W: Write>(&self, output: W) -> Result<W, WheelError> {
        let mut zip = ZipWriter::new(output);
        let mut record = String::new();
        let in_metadata = |path: &&String| path.starts_with(&format!("{}/", self.dist_info));
        let (record_path, wheel_path) = (format!("{}/RECORD", self.dist_info), format!("{}/WHEEL", self.dist_info));
        let mut paths: Vec<&String> = self.files.keys().filter(|path| **path != record_path).collect();
        paths.sort_by_key(|path| (in_metadata(path), *path));
        for path in paths {
            let (entry, digest) = &self.files[path];
            if *path == wheel_path {
                let text = self.wheel_file.render(&self.name);
                record.push_str(&record::line(path, &Digest::of(text.as_bytes())));
                zip.add(path, text.as_bytes(), false)?;
                continue;
            }
            let body = self.archive.read(entry, MAX_TOTAL);
            let body = body.map_err(|source| WheelError::Body { path: path.clone(), source })?;
            record.push_str(&record::line(path, digest));
            zip.add(path, &body, entry.executable)?;
        }
        record.push_str(&record::own_line(&record_path));
        zip.add(&record_path, record.as_bytes(), false)?;
        Ok(zip.finish()?)
    }
}

/// Compares name and version wherever a wheel has them. Returns the version in the form that `METADATA` has it.
fn check_identity(
    file_name: &WheelName,
    metadata: &metadata::Metadata,
    dist_info: &str,
    expected: &Expectation,
) -> Result<Version, WheelError> {
    let version = Version::parse(&expected.version)?;
    let stem = dist_info.strip_suffix(".dist-info").unwrap_or(dist_info);
    let (directory_name, directory_version) = stem.split_once('-').unwrap_or((stem, ""));
    let places = [
        ("METADATA", metadata.name.as_str(), metadata.version.as_str()),
        ("file name", &file_name.name, &file_name.version.to_string()),
        ("`.dist-info` directory", directory_name, &directory_version.replace('_', "-")),
    ];
    for (place, found_name, found_version) in places {
        if normalised_name(found_name) != normalised_name(&expected.name) {
            let (found, expected) = (found_name.to_owned(), expected.name.clone());
            return Err(WheelError::Identity { place, field: "name", found, expected });
        }
        if !Version::parse(found_version).is_ok_and(|found| found.same(&version)) {
            let (found, expected) = (found_version.to_owned(), expected.version.clone());
            return Err(WheelError::Identity { place, field: "version", found, expected });
        }
    }
    Ok(Version::parse(&metadata.version)?)
}

#[cfg(test)]
mod tests;
