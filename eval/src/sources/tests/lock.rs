//! Requests resolved against indexes and archives.

use std::path::PathBuf;

use ampoule_derivations::lock::{Lock, LockEntry};
use ampoule_derivations::source::{FileChoice, LockedSource, SourceRequest};
use ampoule_store::hash::Sha256Digest;

use super::server::{Reply, Request, Server};
use super::{registries, write};
use crate::reporter::{Event, Recorder};
use crate::sources::download::Downloads;
use crate::sources::lock::{LockError, LockOptions, Update, update};

const PACKAGES: &str = include_str!("signed/Packages");
const PACKAGES_XZ: &[u8] = include_bytes!("signed/Packages.xz");
const IN_RELEASE: &str = include_str!("signed/InRelease");
const KEY: &str = include_str!("signed/key.asc");
const OTHER_KEY: &str = include_str!("signed/other-key.asc");

struct Place {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    options: LockOptions,
    recorder: Recorder,
}

impl Place {
    fn new(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let directory = tempfile::tempdir().unwrap();
        Self { directory, variables, options: LockOptions::default(), recorder: Recorder::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn update(&self, requests: &[SourceRequest], old: &Lock) -> Result<Update, LockError> {
        let variables: Vec<_> = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let registries = registries(self.directory.path(), &variables);
        let downloads = Downloads::open(&self.path("downloads")).unwrap();
        update(requests, old, &registries, &downloads, &self.options, &self.recorder)
    }

    fn one(&self, request: &SourceRequest) -> LockedSource {
        let update = self.update(std::slice::from_ref(request), &Lock::default()).unwrap();
        match &update.lock.sources[&request.key()] {
            LockEntry::One(source) => source.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn message(&self, request: &SourceRequest) -> String {
        self.update(std::slice::from_ref(request), &Lock::default()).unwrap_err().to_string()
    }

    fn warnings(&self) -> usize {
        self.recorder.events().iter().filter(|event| matches!(event, Event::Warning(_))).count()
    }
}

fn pypi(version: &str, file: FileChoice) -> SourceRequest {
    SourceRequest::pypi("foo", version, file).unwrap()
}

fn sdist(version: &str) -> SourceRequest {
    pypi(version, FileChoice::Sdist)
}

/// An index in HTML: one version with a hash, one without, one withdrawn.
fn index(request: &Request) -> Reply {
    let hash = "01".repeat(32);
    match request.path.as_str() {
        "/simple/foo/" => Reply::ok(format!(
            "<a href='/f/foo-1.0.tar.gz#sha256={hash}'>x</a><a href='/f/foo-1.0-py3-none-any.whl#sha256={hash}'>x</a>\
             <a href='/f/foo-2.0.zip'>x</a><a href='/f/foo-3.0.tar.gz#sha256={hash}' data-yanked='bad metadata'>x</a>\
             <a href='/f/..%2ffoo-4.0.tar.gz'>x</a>"
        ))
        .header("Content-Type", "text/html"),
        "/f/foo-2.0.zip" => Reply::ok("zip"),
        _ => Reply::status(404),
    }
}

#[test]
fn an_index_in_html() {
    let server = Server::start(index);
    let place = Place::new(&[("PIP_INDEX_URL", &server.url("/simple/"))]);
    let source = place.one(&sdist("1.0.0"));
    assert_eq!((source.file.as_str(), source.size), ("foo-1.0.tar.gz", None));
    assert_eq!(source.sha256.to_hex(), "01".repeat(32));
    assert_eq!(server.paths(), ["/simple/foo/"]);
    assert!(server.requests()[0].header("accept").unwrap().starts_with("application/vnd.pypi.simple.v1+json"));
    assert_eq!(place.one(&pypi("1.0", FileChoice::Wheel("py3-none-any".into()))).file, "foo-1.0-py3-none-any.whl");
    // Without a hash the file itself must come.
    let source = place.one(&sdist("2.0"));
    assert_eq!((source.size, source.sha256), (Some(3), Sha256Digest::of(b"zip")));
    assert_eq!(place.warnings(), 0);
    assert_eq!(place.one(&sdist("3.0")).file, "foo-3.0.tar.gz");
    assert_eq!(place.warnings(), 1);
}

#[test]
fn what_an_index_lacks() {
    let server = Server::start(index);
    let place =
        Place::new(&[("PIP_INDEX_URL", &server.url("/simple/")), ("PIP_EXTRA_INDEX_URL", &server.url("/none/"))]);
    let message = place.message(&sdist("4.0"));
    for part in ["pypi:foo==4.0:sdist", "version 1.0", "version 2.0", "404", &server.url("/simple/foo/")] {
        assert!(message.contains(part), "{message}");
    }
    let message = place.message(&pypi("1.0", FileChoice::Wheel("cp311-cp311-linux_x86_64".into())));
    assert!(
        message.contains("`foo-1.0-py3-none-any.whl`, `foo-1.0.tar.gz`"),
        "the version's own files are more use: {message}"
    );
    // All failures are told at once.
    let other = SourceRequest::pypi("bar", "1", FileChoice::Sdist).unwrap();
    let message = place.update(&[sdist("9"), other, sdist("1.0")], &Lock::default()).unwrap_err().to_string();
    assert!(message.contains("2 of the requests") && message.contains("bar==1"), "{message}");
}

#[test]
fn an_index_in_json() {
    let body = format!(
        r#"{{"meta":{{"api-version":"1.3"}},"name":"foo","versions":["1.0"],"files":[{{"filename":"foo-1.0.tar.gz",
        "url":"https://files.example/foo-1.0.tar.gz","hashes":{{"sha256":"{}"}},"size":1234,"yanked":false,"x":[1]}}]}}"#,
        "02".repeat(32)
    );
    let server =
        Server::start(move |_| Reply::ok(body.clone()).header("Content-Type", "application/vnd.pypi.simple.v1+json"));
    let source = Place::new(&[("PIP_INDEX_URL", &server.url("/"))]).one(&sdist("1.0"));
    assert_eq!((source.size, source.sha256.to_hex()), (Some(1234), "02".repeat(32)));
}

#[test]
fn addresses_and_directories() {
    let server = Server::start(|request| if request.path == "/b" { Reply::ok("bytes") } else { Reply::status(404) });
    let request = SourceRequest::url("f.tar", vec![server.url("/a"), server.url("/b")]).unwrap();
    let place = Place::new(&[]);
    let source = place.one(&request);
    assert_eq!((source.size, source.sha256), (Some(5), Sha256Digest::of(b"bytes")));
    let absent = SourceRequest::url("f.tar", vec![server.url("/a")]).unwrap();
    assert!(place.message(&absent).contains("404"));

    let mut place = Place::new(&[]);
    write(&place.path("files/f.tar"), "other");
    write(&place.path("files/Foo-1.0.tar.gz"), "sdist");
    place.options = LockOptions { from: vec![place.path("files")], offline: true, ..LockOptions::default() };
    let asked = server.paths().len();
    assert_eq!(place.one(&request).sha256, Sha256Digest::of(b"other"));
    assert_eq!(place.one(&sdist("1")).file, "Foo-1.0.tar.gz");
    assert!(place.message(&sdist("2")).contains("offline"));
    assert_eq!(server.paths().len(), asked);
}

#[test]
fn a_lock_only_changes_where_it_must() {
    let server = Server::start(index);
    let mut place = Place::new(&[("PIP_INDEX_URL", &server.url("/simple/"))]);
    let first = place.update(&[sdist("1.0"), sdist("2.0")], &Lock::default()).unwrap();
    assert_eq!(first.added, ["pypi:foo==1.0:sdist", "pypi:foo==2.0:sdist"]);
    let mut old = first.lock.clone();
    let Some(LockEntry::One(source)) = old.sources.get_mut("pypi:foo==1.0:sdist") else { panic!() };
    source.sha256 = Sha256Digest::of(b"pinned before");
    let asked = server.paths().len();
    let kept = place.update(&[sdist("1.0")], &old).unwrap();
    assert_eq!((kept.removed.as_slice(), server.paths().len()), (&["pypi:foo==2.0:sdist".to_owned()][..], asked));
    assert_eq!(kept.lock.sources["pypi:foo==1.0:sdist"], old.sources["pypi:foo==1.0:sdist"]);
    place.options.refresh = true;
    let refreshed = place.update(&[sdist("1.0"), sdist("2.0")], &old).unwrap();
    assert_eq!(refreshed.changed, ["pypi:foo==1.0:sdist"]);
    assert_eq!(refreshed.lock, first.lock);
    assert_eq!(place.warnings(), 1, "other bytes for the same version deserve a word");
}

#[test]
fn one_name_with_two_meanings() {
    let url = |address: &str| SourceRequest::url("f", vec![address.into()]).unwrap();
    let error = Place::new(&[]).update(&[url("http://a.example/f"), url("http://b.example/f")], &Lock::default());
    assert!(matches!(error, Err(LockError::Conflict { .. })));
}

/// An archive whose files are these, by path below its base.
fn archive(files: &[(&str, &[u8])]) -> Server {
    let files: Vec<_> = files.iter().map(|(path, bytes)| (format!("/debian/{path}"), bytes.to_vec())).collect();
    Server::start(move |request| match files.iter().find(|(path, _)| *path == request.path) {
        Some((_, bytes)) => Reply::ok(bytes.clone()),
        None => Reply::status(404),
    })
}

fn good_archive() -> Server {
    archive(&[
        ("dists/bookworm/InRelease", IN_RELEASE.as_bytes()),
        ("dists/bookworm/main/binary-amd64/Packages.xz", PACKAGES_XZ),
    ])
}

fn debian(packages: &[&str], suite: &str) -> SourceRequest {
    let packages = packages.iter().map(ToString::to_string).collect();
    SourceRequest::debian(suite, vec!["amd64".into()], packages, Vec::new()).unwrap()
}

/// A machine with one archive that apt is configured to use.
fn with_apt(server: &Server, suites: &str, options: &str) -> Place {
    let place = Place::new(&[]);
    let stanza =
        format!("Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\n{options}\n", server.url("/debian"));
    write(&place.path("etc/apt/sources.list.d/x.sources"), stanza);
    write(&place.path("usr/share/keyrings/example.asc"), KEY);
    write(&place.path("usr/share/keyrings/other.asc"), OTHER_KEY);
    place
}

fn has_gpgv() -> bool {
    let present = Place::new(&[]).variables.is_empty()
        && registries(&PathBuf::from("/"), &[]).machine().program("gpgv").is_some();
    if !present {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: there is no gpgv in PATH\n"));
    }
    present
}

#[test]
fn a_signed_suite() {
    if !has_gpgv() {
        return;
    }
    let server = good_archive();
    let place = with_apt(&server, "bookworm", "Signed-By: /usr/share/keyrings/example.asc");
    let request = debian(&["gcc"], "bookworm");
    let update = place.update(std::slice::from_ref(&request), &Lock::default()).unwrap();
    let LockEntry::Closure { packages, .. } = &update.lock.sources[&request.key()] else { panic!() };
    let files: Vec<_> = packages.iter().map(|package| (package.file.as_str(), package.id.to_string())).collect();
    assert_eq!(
        files,
        [
            ("cpp_12-1_amd64.deb", "cpp:amd64 4:12-1".to_owned()),
            ("gcc_12-1_amd64.deb", "gcc:amd64 4:12-1".to_owned()),
            ("libc6_2.36-9+deb12u1_amd64.deb", "libc6:amd64 2.36-9+deb12u1".to_owned()),
        ]
    );
    // First by hash, as the release allows; then by name.
    assert!(server.paths()[1].contains("by-hash/SHA256/"), "{:?}", server.paths());
    assert_eq!(Lock::parse(&update.lock.render()).unwrap(), update.lock);
    // A name that nothing has is told with its neighbours and with what was searched.
    let message = place.message(&debian(&["gc"], "bookworm"));
    for part in ["`gc`", "`gcc`", "bookworm", "amd64"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn keys_of_all_kinds() {
    if !has_gpgv() {
        return;
    }
    let inline: String = KEY.lines().map(|line| format!(" {}\n", if line.is_empty() { "." } else { line })).collect();
    let server = good_archive();
    let both = "Signed-By: /usr/share/keyrings/other.asc /usr/share/keyrings/example.asc";
    for options in [both.to_owned(), format!("Signed-By:\n{inline}")] {
        let place = with_apt(&server, "bookworm", options.trim_end());
        assert!(place.update(&[debian(&["gcc"], "bookworm")], &Lock::default()).is_ok(), "{options}");
    }
    let fingerprint = "3F56368A84322D5B21A657B9716E0E5B73DC252E";
    for (options, trusted, good) in
        [("", true, true), ("", false, false), (fingerprint, true, true), ("0000", true, false)]
    {
        let options = if options.is_empty() { String::new() } else { format!("Signed-By: {options}") };
        let place = with_apt(&server, "bookworm", &options);
        if trusted {
            write(&place.path("etc/apt/trusted.gpg.d/example.asc"), KEY);
        }
        let outcome = place.update(&[debian(&["gcc"], "bookworm")], &Lock::default());
        assert_eq!(outcome.is_ok(), good, "{options} {trusted} {outcome:?}");
    }
}

#[test]
fn wrong_signatures_are_refused() {
    if !has_gpgv() {
        return;
    }
    let request = debian(&["gcc"], "bookworm");
    let refusal = |release: &str, key: &str| {
        let server = archive(&[("dists/bookworm/InRelease", release.as_bytes())]);
        with_apt(&server, "bookworm", &format!("Signed-By: {key}")).message(&request)
    };
    let message = refusal(IN_RELEASE, "/usr/share/keyrings/other.asc");
    assert!(message.contains("signature") && message.contains("InRelease"), "{message}");
    let tampered = IN_RELEASE.replacen("565", "566", 1);
    assert!(refusal(&tampered, "/usr/share/keyrings/example.asc").contains("changed after it was signed"));
    assert!(refusal("Suite: x\n", "/usr/share/keyrings/example.asc").contains("signature"));
    assert!(refusal(IN_RELEASE, "/usr/share/keyrings/absent.gpg").contains("absent.gpg"));
    // Text outside the signature is never read.
    let around =
        format!("Codename: bookworm\nSHA256:\n {} 1 main/binary-amd64/Packages\n\n{IN_RELEASE}", "00".repeat(32));
    let server = archive(&[
        ("dists/bookworm/InRelease", around.as_bytes()),
        ("dists/bookworm/main/binary-amd64/Packages.xz", PACKAGES_XZ),
    ]);
    let place = with_apt(&server, "bookworm", "Signed-By: /usr/share/keyrings/example.asc");
    if let Ok(update) = place.update(std::slice::from_ref(&request), &Lock::default()) {
        assert_eq!(update.lock.sources[&request.key()].files().len(), 3);
    }
}

/// Unsigned archives can be used if somebody says so: apt's configuration or the caller.
#[test]
fn unsigned_archives_need_a_word() {
    let server = good_archive();
    let request = debian(&["gcc"], "bookworm");
    let place = with_apt(&server, "bookworm", "Trusted: yes");
    assert!(place.update(std::slice::from_ref(&request), &Lock::default()).is_ok());
    let mut place = with_apt(&server, "bookworm", "Signed-By: /nonexistent.gpg");
    assert!(place.update(std::slice::from_ref(&request), &Lock::default()).is_err());
    place.options.allow_unsigned = true;
    assert!(place.update(std::slice::from_ref(&request), &Lock::default()).is_ok());
}

fn unsigned(files: &[(&str, &[u8])], suite: &str) -> String {
    let server = archive(files);
    let mut place = with_apt(&server, suite, "Trusted: yes");
    place.options.allow_unsigned = true;
    match place.update(&[debian(&["gcc"], "bookworm")], &Lock::default()) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn suites_are_found_under_other_names_but_not_confused() {
    let index: (&str, &[u8]) = ("dists/bookworm/main/binary-amd64/Packages.xz", PACKAGES_XZ);
    let release: (&str, &[u8]) = ("dists/bookworm/InRelease", IN_RELEASE.as_bytes());
    // The machine is configured for the suite by its role; the archive serves the code name too.
    assert_eq!(unsigned(&[release, index], "oldstable"), "ok");
    let other = IN_RELEASE.replace("Codename: bookworm", "Codename: trixie");
    let message = unsigned(&[("dists/bookworm/InRelease", other.as_bytes()), index], "bookworm");
    assert!(message.contains("trixie"), "{message}");
    let message = unsigned(&[], "bookworm");
    assert!(
        message.contains("no configured Debian archive has the suite `bookworm`") && message.contains("404"),
        "{message}"
    );
}

#[test]
fn indexes_that_are_not_those_signed() {
    let release: (&str, &[u8]) = ("dists/bookworm/InRelease", IN_RELEASE.as_bytes());
    let mut other = PACKAGES_XZ.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let path = "dists/bookworm/main/binary-amd64/Packages.xz";
    let message = unsigned(&[release, (path, &other)], "bookworm");
    assert!(message.contains("other bytes") && message.contains("update"), "{message}");
    let message = unsigned(&[release, (path, &PACKAGES_XZ[1..])], "bookworm");
    assert!(message.contains("another length"), "{message}");
    // The right hash of something that is no index.
    let junk = b"junk";
    let hash = Sha256Digest::of(junk).to_hex();
    let text = format!("Codename: bookworm\nSHA256:\n {hash} 4 main/binary-amd64/Packages.xz\n");
    let message = unsigned(&[("dists/bookworm/InRelease", text.as_bytes()), (path, junk)], "bookworm");
    assert!(message.contains("cannot be unpacked"), "{message}");
    // An index that unpacks to more than was signed.
    let (hash, size) = (Sha256Digest::of(PACKAGES_XZ).to_hex(), PACKAGES_XZ.len());
    let (zero, short) = ("00".repeat(32), PACKAGES.len() - 1);
    let text = format!(
        "Codename: bookworm\nSHA256:\n {hash} {size} main/binary-amd64/Packages.xz\n {zero} {short} main/binary-amd64/Packages\n"
    );
    let message = unsigned(&[("dists/bookworm/InRelease", text.as_bytes()), (path, PACKAGES_XZ)], "bookworm");
    assert!(message.contains("longer than"), "{message}");
    let text = text.replace(&short.to_string(), &PACKAGES.len().to_string());
    let message = unsigned(&[("dists/bookworm/InRelease", text.as_bytes()), (path, PACKAGES_XZ)], "bookworm");
    assert!(message.contains("not the one that was signed"), "{message}");
    let text = "Codename: bookworm\nSHA256:\n 00 0 x\n".replace("00 0", &format!("{zero} 0"));
    let message = unsigned(&[("dists/bookworm/InRelease", text.as_bytes())], "bookworm");
    assert!(message.contains("no packages for the architecture `amd64`"), "{message}");
}
