//! Bodies that break off, change, never end, or are something else.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ampoule_store::hash::Sha256Digest;
use url::Url;

use super::server::{Reply, Request, Server};
use crate::sources::download::{DownloadError, Downloads, Wanted};
use crate::sources::http::{Client, HttpError, Settings};
use crate::sources::registries::impatient;

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

struct Fixture {
    directory: tempfile::TempDir,
    server: Server,
    wanted: Wanted,
}

impl Fixture {
    fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let wanted = Wanted { sha256: Sha256Digest::of(CONTENT), size: Some(CONTENT.len() as u64) };
        Self { directory: tempfile::tempdir().unwrap(), server: Server::start(handler), wanted }
    }

    fn without_size(mut self) -> Self {
        self.wanted.size = None;
        self
    }

    /// Leaves a part behind, as an interrupted process does.
    fn with_part(self, part: &[u8], validator: &str) -> Self {
        let hex = self.wanted.sha256.to_hex();
        let origin = serde_json::json!({"url": self.server.url("/f"), "validator": validator}).to_string();
        std::fs::write(self.path(&format!("{hex}.part")), part).unwrap();
        std::fs::write(self.path(&format!("{hex}.from")), origin).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fetch_with(&self, settings: Settings) -> Result<PathBuf, DownloadError> {
        let downloads = Downloads::open(self.directory.path()).unwrap();
        let url = Url::parse(&self.server.url("/f")).unwrap();
        downloads.fetch(&Client::new(settings), &url, &self.wanted, &|_, _| {})
    }

    fn fetch(&self) -> Result<PathBuf, DownloadError> {
        self.fetch_with(impatient())
    }

    /// Fetches, and expects the content, nothing else in the directory, and so many requests.
    fn check(&self, requests: usize) {
        let path = self.fetch().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
        assert_eq!(self.names(), [self.wanted.sha256.to_hex()]);
        assert_eq!(self.server.requests().len(), requests);
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

fn counted(
    reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Reply + Send + Sync {
    let count = AtomicUsize::new(0);
    move |request| reply(count.fetch_add(1, Ordering::SeqCst), request)
}

#[test]
fn a_whole_file() {
    Fixture::new(|_| Reply::ok(CONTENT)).check(1);
    Fixture::new(|_| Reply::ok(CONTENT)).without_size().check(1);
}

#[test]
fn a_complete_file_is_not_asked_for_again_and_a_damaged_one_is() {
    let fixture = Fixture::new(|_| Reply::ok(CONTENT));
    fixture.check(1);
    fixture.check(1);
    std::fs::write(fixture.path(&fixture.wanted.sha256.to_hex()), b"damaged").unwrap();
    fixture.check(2);
}

#[test]
fn a_truncated_body_goes_on_where_it_stopped() {
    let fixture = Fixture::new(counted(|count, request| {
        let reply = Reply::file(request, CONTENT, "\"v1\"");
        if count < 2 { reply.cut(10) } else { reply }
    }));
    fixture.check(3);
    assert_eq!(fixture.ranges(), [None, Some("bytes=10-".to_owned()), Some("bytes=20-".to_owned())]);
}

#[test]
fn without_a_validator_a_truncated_body_starts_over() {
    let fixture =
        Fixture::new(counted(|count, _| if count == 0 { Reply::ok(CONTENT).cut(10) } else { Reply::ok(CONTENT) }));
    fixture.check(2);
    assert_eq!(fixture.ranges(), [None, None]);
}

#[test]
fn a_part_of_an_earlier_process_is_used_while_it_is_the_same_version() {
    let fixture = Fixture::new(|request| Reply::file(request, CONTENT, "\"v1\"")).with_part(&CONTENT[..7], "\"v1\"");
    fixture.check(1);
    assert_eq!(fixture.ranges(), [Some("bytes=7-".to_owned())]);
    let fixture = Fixture::new(|request| Reply::file(request, CONTENT, "\"v2\"")).with_part(b"garbage", "\"v1\"");
    fixture.check(1);
}

#[test]
fn a_part_that_was_wrong_all_along_is_dropped() {
    let fixture = Fixture::new(|request| Reply::file(request, CONTENT, "\"v1\"")).with_part(b"garbage", "\"v1\"");
    fixture.check(2);
    assert_eq!(fixture.ranges(), [Some("bytes=7-".to_owned()), None]);
    let longer = vec![b'x'; CONTENT.len() + 1];
    let fixture = Fixture::new(|request| Reply::file(request, CONTENT, "\"v1\"")).with_part(&longer, "\"v1\"");
    fixture.check(1);
}

#[test]
fn a_server_that_resumes_elsewhere_starts_over() {
    let fixture = Fixture::new(|request| match request.header("range") {
        Some(_) => Reply::status_with(206, &CONTENT[3..]).header("Content-Range", "bytes 3-35/36"),
        None => Reply::ok(CONTENT),
    })
    .with_part(&CONTENT[..7], "\"v1\"");
    fixture.check(2);
    // A total that is not the locked one means that it is another file.
    let fixture = Fixture::new(|request| match request.header("range") {
        Some(_) => Reply::status_with(206, b"xyz").header("Content-Range", "bytes 7-9/10"),
        None => Reply::ok(CONTENT),
    })
    .with_part(&CONTENT[..7], "\"v1\"");
    fixture.check(2);
}

#[test]
fn wrong_bytes_are_refused_with_both_hashes() {
    let other: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let sent = other.clone();
    let fixture = Fixture::new(move |_| Reply::ok(sent.clone()));
    let message = fixture.fetch().unwrap_err().to_string();
    for hash in [Sha256Digest::of(CONTENT), Sha256Digest::of(&other)] {
        assert!(message.contains(&hash.to_hex()), "{message}");
    }
    assert!(message.contains(&fixture.server.url("/f")), "{message}");
    assert_eq!(fixture.names(), [] as [&str; 0]);
    assert_eq!(fixture.server.requests().len(), 1, "the same bytes would come again");
}

#[test]
fn wrong_lengths_are_refused_before_and_while_reading() {
    let fixture = Fixture::new(|_| Reply::ok([CONTENT, b"!"].concat()));
    assert!(matches!(fixture.fetch().unwrap_err(), DownloadError::Size { expected: 36, got: 37, .. }));
    let fixture = Fixture::new(|_| Reply::endless());
    assert!(matches!(fixture.fetch().unwrap_err(), DownloadError::Size { expected: 36, .. }));
    assert_eq!(fixture.names(), [] as [&str; 0]);
}

#[test]
fn transient_failures_are_tried_again_and_others_are_not() {
    Fixture::new(counted(|count, _| if count < 2 { Reply::status(503) } else { Reply::ok(CONTENT) })).check(3);
    for (status, requests) in [(503, 3), (429, 3), (404, 1), (403, 1), (416, 1)] {
        let fixture = Fixture::new(move |_| Reply::status(status));
        let error = fixture.fetch().unwrap_err();
        assert!(
            matches!(&error, DownloadError::Http(HttpError::Status { status: got, .. }) if *got == status),
            "{error}"
        );
        assert_eq!(fixture.server.requests().len(), requests, "{status}");
    }
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    Fixture::new(|request| if request.path == "/f" { Reply::redirect("/g") } else { Reply::ok(CONTENT) }).check(2);
    let fixture = Fixture::new(|_| Reply::redirect("/f"));
    let error = fixture.fetch().unwrap_err();
    assert!(matches!(error, DownloadError::Http(HttpError::TooManyRedirects { limit: 4, .. })), "{error}");
    for target in ["file:///etc/passwd", "ftp://x.example/", "http://"] {
        let fixture = Fixture::new(move |_| Reply::redirect(target));
        let error = fixture.fetch().unwrap_err();
        assert!(matches!(error, DownloadError::Http(HttpError::BadRedirect { .. })), "{error}");
    }
}

#[test]
fn silence_ends_in_an_error() {
    let fixture = Fixture::new(|_| Reply::stalled());
    let settings = Settings { stall_timeout: Duration::from_millis(50), attempts: 2, ..impatient() };
    let fixture = fixture.without_size();
    let error = fixture.fetch_with(settings).unwrap_err();
    assert!(matches!(error, DownloadError::Http(HttpError::Broken { .. })), "{error}");
    assert_eq!(fixture.server.requests().len(), 2);
}

#[test]
fn pages_have_a_bound() {
    let page = |reply: Reply| {
        let server = Server::start(move |_| reply.clone());
        let url = Url::parse(&server.url("/")).unwrap();
        Client::new(impatient()).page(&url, "*/*", 100)
    };
    assert_eq!(page(Reply::ok([b'x'; 100])).unwrap().body.len(), 100);
    assert!(matches!(page(Reply::ok([b'x'; 101])), Err(HttpError::TooLong { limit: 100, .. })));
    assert!(matches!(page(Reply::endless()), Err(HttpError::TooLong { limit: 100, .. })));
    let wide = Reply::ok("x").header("X", &"y".repeat(1 << 20));
    assert!(matches!(page(wide), Err(HttpError::Unreachable { .. })));
}

#[test]
fn credentials_go_to_their_own_host_only() {
    let other = Server::start(|_| Reply::ok(CONTENT));
    let elsewhere = other.url("/g");
    let fixture = Fixture::new(move |_| Reply::redirect(&elsewhere));
    let url = Url::parse(&fixture.server.url("/f").replace("http://", "http://u:p@")).unwrap();
    let downloads = Downloads::open(fixture.directory.path()).unwrap();
    downloads.fetch(&Client::new(impatient()), &url, &fixture.wanted, &|_, _| {}).unwrap();
    assert_eq!(fixture.server.requests()[0].header("authorization"), Some("Basic dTpw"));
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[test]
fn passwords_are_not_written_down() {
    let fixture = Fixture::new(|_| Reply::ok(CONTENT).cut(5));
    let url = Url::parse(&fixture.server.url("/f").replace("http://", "http://u:p@")).unwrap();
    let downloads = Downloads::open(fixture.directory.path()).unwrap();
    downloads.fetch(&Client::new(impatient()), &url, &fixture.wanted, &|_, _| {}).unwrap_err();
    let left = std::fs::read_to_string(fixture.path(&format!("{}.from", fixture.wanted.sha256.to_hex()))).unwrap();
    assert!(left.contains("/f") && !left.contains("u:p"), "{left}");
}

#[test]
fn several_processes_want_one_file() {
    let fixture = Fixture::new(|request| Reply::file(request, CONTENT, "\"v1\""));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(std::fs::read(fixture.fetch().unwrap()).unwrap(), CONTENT));
        }
    });
    assert_eq!(fixture.server.requests().len(), 1);
    assert_eq!(fixture.names(), [fixture.wanted.sha256.to_hex()]);
}

#[test]
fn files_of_unknown_hash_and_copies() {
    let fixture = Fixture::new(|_| Reply::ok(CONTENT));
    let downloads = Downloads::open(fixture.directory.path()).unwrap();
    let url = Url::parse(&fixture.server.url("/f")).unwrap();
    let found = downloads.fetch_unknown(&Client::new(impatient()), &url, &|_, _| {}).unwrap();
    assert_eq!(found, (fixture.wanted.sha256, 36));
    assert_eq!(fixture.names(), [fixture.wanted.sha256.to_hex()]);
    let complete = fixture.path(&fixture.wanted.sha256.to_hex());
    let other = Wanted { sha256: Sha256Digest::of(b"other"), size: None };
    assert!(downloads.copy(&complete, &other).unwrap_err().is_mismatch());
    assert!(downloads.copy(Path::new("/nonexistent"), &other).is_err());
}

#[test]
fn plain_requests_are_forwarded_by_a_proxy_and_encrypted_ones_tunnelled() {
    let proxy =
        Server::start(
            |request| if request.path.starts_with("http://") { Reply::ok(CONTENT) } else { Reply::status(403) },
        );
    let address = proxy.url("").replace("http://", "http://user:secret@");
    let bare = ("http".to_owned(), proxy.url("").replace("http://", ""));
    let bare = Client::new(Settings { proxies: [bare].into(), attempts: 1, ..impatient() });
    assert_eq!(bare.page(&Url::parse("http://archive.example/z").unwrap(), "*/*", 100).unwrap().body, CONTENT);
    let proxies = ["http", "https"].map(|scheme| (scheme.to_owned(), address.clone())).into();
    let no_proxy = vec!["direct.example".to_owned()];
    let client = Client::new(Settings { proxies, no_proxy, attempts: 1, ..impatient() });
    let page = |url: &str| client.page(&Url::parse(url).unwrap(), "*/*", 100);
    for path in ["/a?q=1", "/b"] {
        assert_eq!(page(&format!("http://archive.example:81{path}")).unwrap().body, CONTENT);
    }
    assert!(page("https://archive.example/c").is_err());
    assert_eq!(
        proxy.paths(),
        [
            "http://archive.example/z",
            "http://archive.example:81/a?q=1",
            "http://archive.example:81/b",
            "archive.example:443"
        ]
    );
    let requests = &proxy.requests()[1..];
    assert_eq!(requests[0].header("host"), Some("archive.example:81"));
    assert_eq!(requests[0].header("proxy-authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(requests[2].header("proxy-authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    let outcome = page("http://direct.example.invalid/").map(drop);
    assert!(outcome.is_ok(), "only names that match go around the proxy: {outcome:?}");
}
