//! Sources: what recipes ask of registries, and the fetching derivations the lock makes of it.

use ampoule_derivations::lock::{FindError, LockEntry};
use ampoule_derivations::source::{FileChoice, LockedSource, RequestError, SourceId, SourceRequest, fetch_derivation};
use ampoule_store::hash::Sha256Digest;

use super::Mode;
use super::derive::keep;
use super::error::RecipeError;
use super::session::Session;
use super::values::DerivationValue;

/// A file of a Python package: its sdist, or the wheel with these tags or this name.
pub(super) fn pypi(
    session: &Session<'_>,
    name: &str,
    version: &str,
    wheel: Option<&str>,
) -> Result<DerivationValue, RecipeError> {
    let file = wheel.map_or(FileChoice::Sdist, |tags| FileChoice::Wheel(tags.to_owned()));
    one(session, SourceRequest::pypi(name, version, file).map_err(invalid)?)
}

/// A file by address. Its hash can stand in the recipe instead of the lock; if it stands in both, they must agree.
pub(super) fn url(
    session: &Session<'_>,
    name: &str,
    urls: Vec<String>,
    sha256: Option<&str>,
) -> Result<DerivationValue, RecipeError> {
    let request = SourceRequest::url(name, urls.clone()).map_err(invalid)?;
    let Some(sha256) = sha256 else { return one(session, request) };
    let sha256: Sha256Digest =
        sha256.parse().map_err(|error| RecipeError::new(format!("`sha256` of `{name}`: {error}")))?;
    // While the lock is being written, an entry that is out of date must not stand in the way.
    if let Ok(LockEntry::One(locked)) = session.lock.find(&request)
        && locked.sha256 != sha256
        && session.mode == Mode::Build
    {
        let message =
            format!("the lock has another sha256 for `{name}`: {} (here: {})", locked.sha256.to_sri(), sha256.to_sri());
        return Err(RecipeError::new(message).with_hint("run: ampoule sources lock"));
    }
    let source = match session.lock.find(&request) {
        Ok(LockEntry::One(locked)) if locked.sha256 == sha256 => locked.clone(),
        _ => {
            let id = SourceId::Url { name: name.to_owned(), urls };
            LockedSource { id, file: name.to_owned(), size: None, sha256 }
        }
    };
    session.state().requests.insert(request.key(), request);
    Ok(fetch(session, &source))
}

/// Debian packages with all they depend on.
pub(super) fn debian(
    session: &Session<'_>,
    suite: &str,
    architectures: Vec<String>,
    packages: Vec<String>,
    drop: Vec<String>,
) -> Result<Vec<DerivationValue>, RecipeError> {
    let request = SourceRequest::debian(suite, architectures, packages, drop).map_err(invalid)?;
    let entry = find(session, &request)?;
    session.state().requests.insert(request.key(), request);
    Ok(entry.files().iter().map(|source| fetch(session, source)).collect())
}

fn one(session: &Session<'_>, request: SourceRequest) -> Result<DerivationValue, RecipeError> {
    let entry = find(session, &request)?;
    let LockEntry::One(source) = &entry else {
        return Err(RecipeError::new(format!("the lock has several files for `{}`", request.key())).with_hint(LOCK));
    };
    session.state().requests.insert(request.key(), request);
    Ok(fetch(session, source))
}

const LOCK: &str = "run: ampoule sources lock";

fn find(session: &Session<'_>, request: &SourceRequest) -> Result<LockEntry, RecipeError> {
    match session.lock.find(request) {
        Ok(entry) => Ok(entry.clone()),
        Err(_) if session.mode == Mode::Lock => Ok(request.placeholder()),
        Err(FindError::Missing { key }) => {
            Err(RecipeError::new(format!("{} is not in the lock (`{key}`)", described(request))).with_hint(LOCK))
        }
        Err(FindError::UrlsChanged { name, locked, wanted }) => {
            let message = format!("the addresses of `{name}` changed since its sha256 was locked");
            let hint = format!("locked: {}\nhere: {}\n{LOCK}", locked.join(", "), wanted.join(", "));
            Err(RecipeError::new(message).with_hint(hint))
        }
    }
}

fn described(request: &SourceRequest) -> String {
    match request {
        SourceRequest::Pypi { name, version, file: FileChoice::Sdist } => format!("the sdist of {name} {version}"),
        SourceRequest::Pypi { name, version, file: FileChoice::Wheel(tags) } => {
            format!("the wheel `{tags}` of {name} {version}")
        }
        SourceRequest::Url { name, .. } => format!("`{name}`"),
        SourceRequest::DebianClosure { suite, packages, .. } => {
            format!("the closure of {suite}'s packages {}", packages.join(" "))
        }
    }
}

fn invalid(error: RequestError) -> RecipeError {
    RecipeError::new(error.to_string())
}

fn fetch(session: &Session<'_>, source: &LockedSource) -> DerivationValue {
    let derivation = fetch_derivation(source, session.store_dir);
    keep(session, derivation, &["out".to_owned()])
}
