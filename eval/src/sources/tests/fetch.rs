//! Locked files from registries, mirrors and directories.

use std::path::PathBuf;

use ampoule_derivations::source::{LockedSource, SourceId};
use ampoule_store::hash::Sha256Digest;

use super::server::{Reply, Server};
use super::{registries, write};
use crate::reporter::{Event, Recorder, Silent};
use crate::sources::fetch::{EXIT_HASH_MISMATCH, FetchError, FetchOptions, Fetcher, fetch};

const CONTENT: &[u8] = b"the right bytes";

fn pypi() -> LockedSource {
    LockedSource {
        id: SourceId::Pypi { name: "foo".into(), version: "1.0".into() },
        file: "Foo-1.0.tar.gz".into(),
        size: None,
        sha256: Sha256Digest::of(CONTENT),
    }
}

fn debian() -> LockedSource {
    let id = SourceId::Debian {
        architecture: "amd64".into(),
        name: "libstdc++6".into(),
        path: "pool/main/g/libstdc++6_1~rc_amd64.deb".into(),
        suite: "bookworm".into(),
        version: "1~rc".into(),
    };
    LockedSource { id, file: "libstdc++6_1~rc_amd64.deb".into(), ..pypi() }
}

fn by_address(urls: &[String]) -> LockedSource {
    LockedSource { id: SourceId::Url { name: "f".into(), urls: urls.to_vec() }, file: "f".into(), ..pypi() }
}

struct Place {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    options: FetchOptions,
}

impl Place {
    fn new(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self { directory: tempfile::tempdir().unwrap(), variables, options: FetchOptions::default() }
    }

    fn configured(self, sources: &str) -> Self {
        write(&self.path("home/.config/ampoule/config.toml"), format!("[sources]\n{sources}\n"));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fetch(&self, source: &LockedSource) -> Result<String, FetchError> {
        let variables: Vec<_> = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let registries = registries(self.directory.path(), &variables);
        let fetched = fetch(source, &self.path("downloads"), &registries, &self.options, &Silent)?;
        assert_eq!(std::fs::read(&fetched.path).unwrap(), CONTENT);
        Ok(fetched.origin)
    }
}

fn index_page(hash: &Sha256Digest) -> String {
    format!("<a href='../../files/Foo-1.0.tar.gz#sha256={}'>x</a>", hash.to_hex())
}

#[test]
fn from_an_index() {
    let server = Server::start(|request| match request.path.as_str() {
        "/simple/foo/" => {
            Reply::ok(index_page(&Sha256Digest::of(CONTENT))).header("Content-Type", "text/html; charset=x")
        }
        "/files/Foo-1.0.tar.gz" => Reply::ok(CONTENT),
        _ => Reply::status(404),
    });
    let place = Place::new(&[("PIP_INDEX_URL", &server.url("/simple"))]);
    assert_eq!(place.fetch(&pypi()).unwrap(), server.url("/files/Foo-1.0.tar.gz"));
    assert_eq!(server.paths(), ["/simple/foo/", "/files/Foo-1.0.tar.gz"]);
    assert!(place.fetch(&pypi()).unwrap().contains("downloads"), "the second time it is here");
    assert_eq!(server.paths().len(), 2);
}

#[test]
fn an_index_that_lists_other_bytes_is_a_mismatch_unless_another_has_the_right_ones() {
    let wrong =
        Server::start(|_| Reply::ok(index_page(&Sha256Digest::of(b"other"))).header("Content-Type", "text/html"));
    let index = wrong.url("/simple");
    let error = Place::new(&[("PIP_INDEX_URL", &index)]).fetch(&pypi()).unwrap_err();
    assert_eq!(error.exit_code(), EXIT_HASH_MISMATCH);
    let message = error.to_string();
    for part in ["Foo-1.0.tar.gz", "foo 1.0", &pypi().sha256.to_hex(), &Sha256Digest::of(b"other").to_hex()] {
        assert!(message.contains(part), "{message}");
    }
    let right = Server::start(|request| match request.path.as_str() {
        "/simple/foo/" => Reply::ok(index_page(&Sha256Digest::of(CONTENT))).header("Content-Type", "text/html"),
        _ => Reply::ok(CONTENT),
    });
    let place = Place::new(&[("PIP_INDEX_URL", &index), ("PIP_EXTRA_INDEX_URL", &right.url("/simple"))]);
    assert_eq!(place.fetch(&pypi()).unwrap(), right.url("/files/Foo-1.0.tar.gz"));
}

#[test]
fn from_the_second_archive_with_encoded_paths() {
    let empty = Server::start(|_| Reply::status(404));
    let full = Server::start(|_| Reply::ok(CONTENT));
    let bases = format!("{} {}", empty.url("/debian"), full.url("/mirror/"));
    let place = Place::new(&[("AMPOULE_DEBIAN_MIRRORS", &bases)]);
    let encoded = "pool/main/g/libstdc%2B%2B6_1%7Erc_amd64.deb";
    assert_eq!(place.fetch(&debian()).unwrap(), full.url(&format!("/mirror/{encoded}")));
    assert_eq!(empty.paths(), [format!("/debian/{encoded}")]);
}

#[test]
fn what_nobody_has_is_told_in_full() {
    let empty = Server::start(|_| Reply::status(404));
    let mirror = Server::start(|_| Reply::status(410));
    let place = Place::new(&[("AMPOULE_DEBIAN_MIRRORS", &empty.url("/debian"))])
        .configured(&format!("mirrors = ['{}']", mirror.url("")));
    let error = place.fetch(&debian()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    let hex = debian().sha256.to_hex();
    for part in ["libstdc++6_1~rc_amd64.deb", "libstdc++6:amd64 1~rc", &hex, "404", "410", &empty.url("/debian/pool")] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(mirror.paths(), [format!("/sha256/{hex}")]);
    let hint = error.hint().unwrap();
    for part in ["--from", "mirrors", "lock --refresh"] {
        assert!(hint.contains(part), "{hint}");
    }
}

#[test]
fn from_a_mirror_by_hash() {
    let mirror = Server::start(|_| Reply::ok(CONTENT));
    let place = Place::new(&[("PIP_NO_INDEX", "1")]).configured(&format!("mirrors = ['{}']", mirror.url("/m")));
    let path = format!("/m/sha256/{}", pypi().sha256.to_hex());
    assert_eq!(place.fetch(&pypi()).unwrap(), mirror.url(&path));
}

#[test]
fn from_directories_by_name_or_by_hash() {
    for name in ["Foo-1.0.tar.gz", "renamed"] {
        let mut place = Place::new(&[]);
        let path = place.path("files/deep").join(name);
        write(&path, CONTENT);
        write(&place.path("files/other/Foo-1.0.tar.gz"), b"wrong bytes");
        place.options = FetchOptions { offline: true, from: vec![place.path("files")] };
        assert_eq!(place.fetch(&pypi()).unwrap(), path.display().to_string());
    }
    let place = Place::new(&[]);
    let place = {
        let mirror = format!("mirrors = ['{}']", place.path("files").display());
        place.configured(&mirror)
    };
    write(&place.path("files/x"), CONTENT);
    assert!(place.fetch(&by_address(&[])).is_ok());
}

#[test]
fn offline_asks_nobody_and_names_what_is_missing() {
    let server = Server::start(|_| Reply::ok(CONTENT));
    let place = Place::new(&[("PIP_INDEX_URL", &server.url("/")), ("AMPOULE_DEBIAN_MIRRORS", &server.url("/"))]);
    let registries = registries(place.directory.path(), &[]);
    let options = FetchOptions { offline: true, ..FetchOptions::default() };
    let fetcher = Fetcher::new(&place.path("downloads"), &registries, &options, &Silent).unwrap();
    let (pypi, debian, url) = (pypi(), debian(), by_address(&[server.url("/f")]));
    let error = fetcher.fetch_all(&[&pypi, &debian, &url]).unwrap_err();
    assert!(error.failures.iter().all(|failure| matches!(failure, FetchError::Offline { .. })));
    let message = error.to_string();
    for part in ["3 of 3", "Foo-1.0.tar.gz", "libstdc++6_1~rc_amd64.deb", "\n  f (by address"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(server.paths(), [] as [String; 0]);
}

#[test]
fn several_at_once_with_progress_and_one_failure() {
    let server =
        Server::start(
            |request| if request.path == "/gone" { Reply::status(404) } else { Reply::ok(request.path.clone()) },
        );
    let file =
        |path: &str| LockedSource { sha256: Sha256Digest::of(path.as_bytes()), ..by_address(&[server.url(path)]) };
    let sources: Vec<_> = ["/a", "/b", "/gone", "/c", "/d", "/e", "/f", "/g"].map(file).into();
    let place = Place::new(&[]);
    let registries = registries(place.directory.path(), &[]);
    let recorder = Recorder::default();
    let fetcher = Fetcher::new(&place.path("downloads"), &registries, &FetchOptions::default(), &recorder).unwrap();
    let all: Vec<_> = sources.iter().collect();
    let error = fetcher.fetch_all(&all).unwrap_err();
    assert_eq!((error.failures.len(), error.total), (1, 8));
    let rest: Vec<_> = all.iter().copied().filter(|source| source.sha256 != sources[2].sha256).collect();
    let fetched = fetcher.fetch_all(&rest).unwrap();
    let names: Vec<_> = fetched.iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect();
    assert_eq!(names, ["/a", "/b", "/c", "/d", "/e", "/f", "/g"], "in the order asked for");
    let events = recorder.events();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Finished { success: true, .. })).count(), 7);
    assert!(events.iter().any(|event| matches!(event, Event::Progress { done: 2, total: Some(2), .. })));
}

#[test]
fn a_stand_in_cannot_be_fetched() {
    let error = Place::new(&[]).fetch(&LockedSource { sha256: Sha256Digest::ZERO, ..pypi() }).unwrap_err();
    assert!(error.to_string().contains("sources lock"), "{error}");
}

#[test]
fn a_wrong_body_behind_an_address_is_fatal() {
    let server =
        Server::start(|request| if request.path == "/bad" { Reply::ok("captive portal") } else { Reply::ok(CONTENT) });
    let error = Place::new(&[]).fetch(&by_address(&[server.url("/bad"), server.url("/good")])).unwrap_err();
    assert_eq!(error.exit_code(), EXIT_HASH_MISMATCH, "{error}");
    assert_eq!(server.paths(), ["/bad"]);
    let gone = server.url("/good");
    assert!(Place::new(&[]).fetch(&by_address(&["http://127.0.0.1:1/".into(), gone])).is_ok());
}

#[test]
fn passwords_of_pips_users() {
    let server = Server::start(|request| match (request.header("authorization"), request.path.as_str()) {
        (Some("Basic dTpw"), "/simple/foo/") => {
            Reply::ok(index_page(&Sha256Digest::of(CONTENT))).header("Content-Type", "text/html")
        }
        (Some("Basic dTpw"), _) => Reply::ok(CONTENT),
        _ => Reply::status(401),
    });
    let place = Place::new(&[("PIP_INDEX_URL", &server.url("/simple"))]);
    let message = place.fetch(&pypi()).unwrap_err().to_string();
    assert!(message.contains("answered 401"), "{message}");
    write(&place.path("home/.netrc"), "machine 127.0.0.1 login u password p");
    assert!(place.fetch(&pypi()).is_ok());
}
