//! Package indexes of Python: which files a version has (PEP 503, PEP 691), and which of them is meant.

use ampoule_derivations::source::{FileChoice, check_file_name, normalise_package_name};
use ampoule_store::hash::Sha256Digest;
use serde::Deserialize;
use url::Url;

use super::http::{Client, Page, display};
use super::{html, percent, version};

/// What is asked for: the JSON form, else HTML.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Longest index page, in bytes. The longest in the wild are some tens of megabytes.
const MAX_PAGE: u64 = 256 << 20;

/// One file that an index offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexedFile {
    /// Its name, a plain one.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) url: Url,
    /// Its hash, if the index says it.
    pub(crate) sha256: Option<Sha256Digest>,
    /// Its length, if the index says it.
    pub(crate) size: Option<u64>,
    /// Why it was withdrawn, if it was; the reason may be empty.
    pub(crate) yanked: Option<String>,
}

/// Why an index page cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// The JSON is not of the expected shape.
    #[error("the index page is not well-formed: {0}")]
    Json(#[from] serde_json::Error),
    /// The page has a later major version.
    #[error("the index page has version {0}; versions 1.x are known")]
    Version(String),
    /// The server sent something else than an index page.
    #[error("the server sent `{0}` instead of an index page")]
    MediaType(String),
}

/// The address of a project's page in an index.
pub(crate) fn project_url(index: &Url, project: &str) -> Option<Url> {
    let mut base = index.clone();
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base.join(&format!("{}/", normalise_package_name(project))).ok()
}

/// Asks for a project's page; the error is what the index answered instead.
pub(crate) fn fetch_page(client: &Client, url: &Url) -> Result<Vec<IndexedFile>, String> {
    let page = client.page(url, ACCEPT, MAX_PAGE).map_err(|error| error.to_string())?;
    parse_page(&page).map_err(|error| format!("{}: {error}", display(url)))
}

/// The files of a project's page. Entries with hostile names or addresses are left out.
pub(crate) fn parse_page(page: &Page) -> Result<Vec<IndexedFile>, IndexError> {
    match page.media_type.as_str() {
        "application/vnd.pypi.simple.v1+json" | "application/json" => parse_json(&page.url, &page.body),
        "application/vnd.pypi.simple.v1+html" | "text/html" | "application/xhtml+xml" | "" => {
            Ok(parse_html(&page.url, &String::from_utf8_lossy(&page.body)))
        }
        other => Err(IndexError::MediaType(other.to_owned())),
    }
}

#[derive(Deserialize)]
struct JsonPage {
    meta: JsonMeta,
    files: Vec<JsonFile>,
}

#[derive(Deserialize)]
struct JsonMeta {
    #[serde(rename = "api-version")]
    version: String,
}

#[derive(Deserialize)]
struct JsonFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    yanked: Yanked,
}

/// `false`, `true`, or the reason.
#[derive(Deserialize)]
#[serde(untagged)]
enum Yanked {
    Flag(bool),
    Reason(String),
}

impl Default for Yanked {
    fn default() -> Self {
        Self::Flag(false)
    }
}

fn parse_json(base: &Url, body: &[u8]) -> Result<Vec<IndexedFile>, IndexError> {
    let page: JsonPage = serde_json::from_slice(body)?;
    if page.meta.version.split('.').next() != Some("1") {
        return Err(IndexError::Version(page.meta.version));
    }
    let file = |file: JsonFile| {
        let yanked = match file.yanked {
            Yanked::Flag(false) => None,
            Yanked::Flag(true) => Some(String::new()),
            Yanked::Reason(reason) => Some(reason),
        };
        let sha256 = file.hashes.get("sha256").and_then(|hash| hash.parse().ok());
        let url = join_file(base, &file.url)?;
        check_file_name(&file.filename).ok()?;
        Some(IndexedFile { name: file.filename, url, sha256, size: file.size, yanked })
    };
    Ok(page.files.into_iter().filter_map(file).collect())
}

fn parse_html(page: &Url, text: &str) -> Vec<IndexedFile> {
    let mut base = page.clone();
    let mut files = Vec::new();
    for tag in html::tags(text) {
        let Some(href) = tag.get("href") else { continue };
        if tag.name == "base" {
            base = base.join(href).unwrap_or(base);
            continue;
        }
        files.extend(html_file(&base, href, tag.get("data-yanked")));
    }
    files
}

fn html_file(base: &Url, href: &str, yanked: Option<&str>) -> Option<IndexedFile> {
    let url = join_file(base, href)?;
    let name = String::from_utf8(percent::decode(url.path_segments()?.next_back()?)).ok()?;
    check_file_name(&name).ok()?;
    let fragment = url.fragment().unwrap_or_default();
    let sha256 = fragment.split('&').find_map(|part| part.strip_prefix("sha256=")?.parse().ok());
    Some(IndexedFile { name, sha256, size: None, yanked: yanked.map(str::to_owned), url })
}

/// An address of a file: `http` or `https`, and never less protected than the page that names it.
fn join_file(base: &Url, href: &str) -> Option<Url> {
    let url = base.join(href).ok()?;
    let safe = url.scheme() == "https" || (url.scheme() == "http" && base.scheme() == "http");
    safe.then_some(url)
}

/// The file that a request means. Files that were withdrawn are taken only if there is no other.
pub(crate) fn choose<'a>(
    files: &'a [IndexedFile],
    project: &str,
    wanted: &str,
    choice: &FileChoice,
) -> Option<&'a IndexedFile> {
    let mut fitting: Vec<_> = files.iter().filter(|file| fits(&file.name, project, wanted, choice)).collect();
    // Of sdists the `.tar.gz` is preferred, of wheels the one with the highest build number.
    fitting.sort_by_key(|file| {
        let build = std::cmp::Reverse(build_number(&file.name));
        (file.yanked.is_some(), !file.name.ends_with(".tar.gz"), build, file.name.clone())
    });
    fitting.first().copied()
}

/// The leading digits of a wheel's build tag, which most wheels lack.
fn build_number(file: &str) -> Option<u64> {
    let parts: Vec<_> = file.strip_suffix(".whl")?.split('-').collect();
    let build = (parts.len() == 6).then(|| parts[2])?;
    build[..build.find(|c: char| !c.is_ascii_digit()).unwrap_or(build.len())].parse().ok()
}

/// Whether a file name is that of the wanted file of the wanted version.
pub(crate) fn fits(file: &str, project: &str, wanted: &str, choice: &FileChoice) -> bool {
    match choice {
        FileChoice::Wheel(name) if name.ends_with(".whl") => file == name,
        FileChoice::Wheel(tags) => {
            let Some(stem) = file.strip_suffix(".whl") else { return false };
            let Some(head) = stem.strip_suffix(tags.as_str()).and_then(|head| head.strip_suffix('-')) else {
                return false;
            };
            // name-version or name-version-build
            let mut parts = head.split('-');
            let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            is_release(name, version, project, wanted) && parts.count() <= 1
        }
        FileChoice::Sdist => {
            let Some(stem) = file.strip_suffix(".tar.gz").or_else(|| file.strip_suffix(".zip")) else { return false };
            // Old names have dashes of their own, so every dash may be the one before the version.
            stem.match_indices('-').any(|(at, _)| is_release(&stem[..at], &stem[at + 1..], project, wanted))
        }
    }
}

fn is_release(name: &str, version: &str, project: &str, wanted: &str) -> bool {
    normalise_package_name(name) == normalise_package_name(project)
        && version::canonical(version) == version::canonical(wanted)
}

/// The versions that a list of files has, for messages; at most `most`, in the list's order.
pub(crate) fn versions(files: &[IndexedFile], project: &str, most: usize) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for file in files.iter().rev() {
        let sdist = file.name.strip_suffix(".tar.gz").or_else(|| file.name.strip_suffix(".zip"));
        let version = match (sdist, file.name.strip_suffix(".whl")) {
            (Some(stem), _) => stem.match_indices('-').find_map(|(at, _)| {
                (normalise_package_name(&stem[..at]) == normalise_package_name(project)).then(|| &stem[at + 1..])
            }),
            (None, Some(stem)) => stem.split('-').nth(1),
            _ => None,
        };
        if let Some(version) = version.filter(|version| !versions.iter().any(|known| known == version)) {
            versions.push(version.to_owned());
        }
        if versions.len() == most {
            break;
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(media_type: &str, body: &str) -> Page {
        let url = Url::parse("https://index.example/simple/x/").unwrap();
        Page { url, media_type: media_type.into(), body: body.into() }
    }

    #[test]
    fn both_forms_say_the_same() {
        let hash = "0123456789abcdef".repeat(4);
        let html = format!(
            "<a href='../../files/x-1.tar.gz#sha256={hash}'>x</a><a href='https://f.example/x-1-py3-none-any.whl' data-yanked='bad'>"
        );
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"x","files":[
                {{"filename":"x-1.tar.gz","url":"../../files/x-1.tar.gz","hashes":{{"sha256":"{hash}"}},"size":7}},
                {{"filename":"x-1-py3-none-any.whl","url":"https://f.example/x-1-py3-none-any.whl","hashes":{{}},"yanked":"bad"}}]}}"#
        );
        let html = parse_page(&page("text/html", &html)).unwrap();
        let json = parse_page(&page("application/vnd.pypi.simple.v1+json", &json)).unwrap();
        assert_eq!(html.len(), 2);
        for (html, json) in html.iter().zip(&json) {
            assert_eq!((&html.name, &html.sha256, &html.yanked), (&json.name, &json.sha256, &json.yanked));
            assert_eq!((html.url.host(), html.url.path()), (json.url.host(), json.url.path()));
        }
        assert_eq!(json[0].size, Some(7));
        assert_eq!(json[0].url.as_str(), "https://index.example/files/x-1.tar.gz");
    }

    #[test]
    fn hostile_entries_are_left_out() {
        for href in
            ["..%2f..%2fx.tar.gz", "https://f.example/", "file:///etc/x.tar.gz", "http://f.example/x", "..", "%2e%2e"]
        {
            let found = parse_page(&page("text/html", &format!("<a href='{href}'>"))).unwrap();
            assert_eq!(found, [], "{href}");
        }
        for name in ["../x", "", ".x", "a/b", "a\\b", "a\\u0000"] {
            let body = format!(
                r#"{{"meta":{{"api-version":"1.0"}},"files":[{{"filename":"{name}","url":"https://f.example/x"}}]}}"#
            );
            assert!(parse_page(&page("application/json", &body)).map_or(true, |files| files.is_empty()), "{name}");
        }
        assert!(parse_page(&page("application/json", r#"{"meta":{"api-version":"2.0"},"files":[]}"#)).is_err());
        assert!(parse_page(&page("application/json", &"[".repeat(100_000))).is_err());
        assert!(parse_page(&page("image/png", "")).is_err());
    }

    #[test]
    fn which_file_is_meant() {
        let sdist = FileChoice::Sdist;
        assert!(fits("MarkupSafe-2.1.5.tar.gz", "markupsafe", "2.1.5", &sdist));
        assert!(fits("zope.interface-1.0.zip", "zope-interface", "1", &sdist));
        assert!(fits("foo-bar-1.0.tar.gz", "foo-bar", "1.0", &sdist));
        assert!(!fits("foo-bar-1.0.tar.gz", "foo", "1.0", &sdist));
        assert!(!fits("x-1.0.tar.bz2", "x", "1.0", &sdist));
        assert!(!fits("x-1.0.1.tar.gz", "x", "1.0", &sdist));
        let pure = FileChoice::Wheel("py3-none-any".into());
        assert!(fits("setuptools-75.1.0-py3-none-any.whl", "setuptools", "75.1.0", &pure));
        assert!(fits("x-1-2build-py3-none-any.whl", "x", "1", &pure));
        assert!(!fits("x-1-py2.py3-none-any.whl", "x", "1", &pure));
        assert!(!fits("x-1-a-b-py3-none-any.whl", "x", "1", &pure));
        assert!(fits("x.whl", "y", "1", &FileChoice::Wheel("x.whl".into())));
    }

    #[test]
    fn choice_prefers_what_was_not_withdrawn() {
        let file = |name: &str, yanked: Option<&str>| IndexedFile {
            name: name.into(),
            url: Url::parse("https://f.example/x").unwrap(),
            sha256: None,
            size: None,
            yanked: yanked.map(str::to_owned),
        };
        let name = |files: &[IndexedFile]| choose(files, "x", "1", &FileChoice::Sdist).map(|file| file.name.clone());
        assert_eq!(name(&[file("x-1.zip", None), file("x-1.tar.gz", None)]).unwrap(), "x-1.tar.gz");
        assert_eq!(name(&[file("x-1.zip", None), file("x-1.tar.gz", Some(""))]).unwrap(), "x-1.zip");
        assert_eq!(name(&[file("x-1.tar.gz", Some("broken"))]).unwrap(), "x-1.tar.gz");
        assert_eq!(name(&[file("y-1.tar.gz", None)]), None);
        let wheels = ["x-1-py3-none-any.whl", "x-1-10b-py3-none-any.whl", "x-1-9-py3-none-any.whl"];
        let wheels = wheels.map(|name| file(name, None));
        let chosen = choose(&wheels, "x", "1", &FileChoice::Wheel("py3-none-any".into())).unwrap();
        assert_eq!(chosen.name, "x-1-10b-py3-none-any.whl");
    }

    #[test]
    fn addresses_of_projects() {
        let url = |index: &str| project_url(&Url::parse(index).unwrap(), "Foo_Bar").unwrap().to_string();
        assert_eq!(url("https://i.example/simple"), "https://i.example/simple/foo-bar/");
        assert_eq!(url("https://u:p@i.example/simple/"), "https://u:p@i.example/simple/foo-bar/");
    }
}
