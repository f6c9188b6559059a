//! The decoders of what servers send, by themselves: for tests that feed them anything.

use super::debian::deb822::MalformedLine;
use super::debian::release::{Release, ReleaseError};
use super::debian::{packages, version};
use super::http::Page;
use super::pypi;

/// How many packages an index of a Debian suite has, after looking at all that their fields say.
///
/// # Errors
/// When the index is not well-formed.
pub fn packages(text: &str) -> Result<usize, MalformedLine> {
    let found = packages::parse(text, "suite")?;
    for package in &found {
        for field in [package.pre_depends, package.depends] {
            for alternative in packages::dependencies(field).flatten() {
                let _ = alternative.relation.is_some_and(|relation| relation.holds_for(package.version));
            }
        }
        let _ = packages::provisions(package.provides).count();
        let _ = version::compare(package.version, package.version).is_eq();
    }
    Ok(found.len())
}

/// How many indexes a suite's release file lists.
///
/// # Errors
/// When it is not usable.
pub fn release(text: &str) -> Result<usize, ReleaseError> {
    Ok(Release::parse(text)?.files.len())
}

/// The names of the files that a package index lists.
///
/// # Errors
/// When the page cannot be read.
pub fn index_page(media_type: &str, body: &[u8]) -> Result<Vec<String>, String> {
    let url = "https://index.example/simple/demo/".parse().map_err(|error: url::ParseError| error.to_string())?;
    let page = Page { url, media_type: media_type.to_owned(), body: body.to_vec() };
    let files = pypi::parse_page(&page).map_err(|error| error.to_string())?;
    let _ = pypi::versions(&files, "demo", 10);
    Ok(files.into_iter().map(|file| file.name).collect())
}
