//! What goes over the wire between us and a cache's server: uploads, downloads that break off, and what is asked for once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Ran, Workspace};
use crate::store::dump;

/// A request as a server sees it.
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A server on this machine, and the requests it got.
struct Loopback {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Loopback {
    fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().unwrap().push(format!("{} {}", request.method, request.path));
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, requests }
    }

    /// How many requests start with this.
    fn count(&self, start: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(start)).count()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
    let _ = stream.write_all(body);
}

fn absent(stream: &mut TcpStream) {
    reply(stream, "404 Not Found", "", 0, b"");
}

/// Answers with the files of a directory.
fn files(directory: &Path) -> impl Fn(&Request, &mut TcpStream) + use<> {
    let directory = directory.to_owned();
    move |request, stream| match fs::read(directory.join(request.path.trim_start_matches('/'))) {
        Ok(bytes) => reply(stream, "200 OK", "", bytes.len(), if request.method == "HEAD" { b"" } else { &bytes }),
        Err(_) => absent(stream),
    }
}

/// A workspace with a file of so many bytes that do not compress, and its store path.
fn with_file(length: u64) -> (Workspace, String) {
    let workspace = Workspace::new();
    let file = workspace.path().join("file");
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(length).read_to_end(&mut bytes).unwrap();
    fs::write(&file, bytes).unwrap();
    let path = workspace.ok(&["store", "add", file.to_str().unwrap()]).text().to_owned();
    (workspace, path)
}

/// A directory cache of that workspace.
fn cache_of(workspace: &Workspace, path: &str) -> std::path::PathBuf {
    let directory = workspace.path().join("cache");
    workspace.ok(&["copy", "--to", directory.to_str().unwrap(), "--compression", "none", path]);
    directory
}

#[test]
fn uploads_arrive_whole_and_the_narinfo_last() {
    let (one, path) = with_file(300_000);
    let uploaded: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let known = Arc::clone(&uploaded);
    let server = Loopback::start(move |request, stream| {
        let mut known = known.lock().unwrap();
        match (request.method.as_str(), known.get(&request.path)) {
            ("PUT", _) => {
                known.insert(request.path.clone(), request.body.clone());
                reply(stream, "201 Created", "", 0, b"");
            }
            ("HEAD", Some(bytes)) => reply(stream, "200 OK", "", bytes.len(), b""),
            ("GET", Some(bytes)) => reply(stream, "200 OK", "", bytes.len(), bytes),
            _ => absent(stream),
        }
    });
    assert_eq!(one.ok(&["copy", "--to", &server.address, &path]).text(), path);
    let order: Vec<String> = server.requests.lock().unwrap().clone();
    let position = |what: &str| order.iter().position(|one| one.starts_with("PUT") && one.contains(what)).unwrap();
    assert!(position("/nix-cache-info") < position("/nar/") && position("/nar/") < position(".narinfo"), "{order:?}");
    assert_eq!(one.ok(&["copy", "--to", &server.address, &path]).text(), "", "it is there already");
    assert_eq!(server.count("PUT /nar/"), 1);
    let two = Workspace::new();
    two.ok(&["copy", "--from", &server.address, &path]);
    assert!(dump(&two, &path) == dump(&one, &path));
    // One that takes nothing, and one that is full after the archive.
    let server = Loopback::start(|request, stream| match request.method.as_str() {
        "PUT" => reply(stream, "403 Forbidden", "", 0, b""),
        _ => absent(stream),
    });
    one.fails(1, &["copy", "--to", &server.address, &path]).says(&["403"]);
    let server = Loopback::start(|request, stream| match request.method.as_str() {
        "PUT" if request.path.ends_with(".narinfo") => reply(stream, "507 Insufficient Storage", "", 0, b""),
        "PUT" => reply(stream, "200 OK", "", 0, b""),
        _ => absent(stream),
    });
    one.fails(1, &["copy", "--to", &server.address, &path]).says(&["507"]);
}

/// A server that sends so many bytes of an archive and hangs up; what it sent in all.
fn breaking(directory: &Path, piece: usize, resumes: bool) -> (Loopback, Arc<Mutex<usize>>) {
    let files = files(directory);
    let root = directory.to_owned();
    let sent = Arc::new(Mutex::new(0));
    let total = Arc::clone(&sent);
    let server = Loopback::start(move |request, stream| {
        if !request.path.starts_with("/nar/") {
            return files(request, stream);
        }
        let bytes = fs::read(root.join(&request.path[1..])).unwrap();
        let first = request.headers.get("range").filter(|_| resumes).map_or(0, |range| {
            let first = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
            first.unwrap().parse().unwrap()
        });
        let end = bytes.len().min(if resumes { first + piece } else { piece + *total.lock().unwrap() });
        *total.lock().unwrap() += end - first;
        let range = format!("Content-Range: bytes {first}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        let (status, range) = if first > 0 { ("206 Partial Content", range.as_str()) } else { ("200 OK", "") };
        reply(stream, status, range, bytes.len() - first, &bytes[first..end]);
    });
    (server, sent)
}

#[test]
fn downloads_that_break_off_go_on_where_they_were() {
    let (one, path) = with_file(1_000_000);
    let directory = cache_of(&one, &path);
    for resumes in [true, false] {
        let (server, sent) = breaking(&directory, 300_000, resumes);
        let two = Workspace::new();
        two.ok(&["copy", "--from", &server.address, &path]);
        assert!(dump(&two, &path) == dump(&one, &path));
        two.verify_store();
        let archive = dump(&one, &path).len();
        let sent = *sent.lock().unwrap();
        assert!(if resumes { sent == archive } else { sent > archive }, "{sent} bytes of {archive}");
    }
    // One that never gets further is given up, and nothing is registered.
    let (server, _) = breaking(&directory, 0, true);
    let two = Workspace::new();
    two.fails(1, &["copy", "--from", &server.address, &path]);
    two.fails(1, &["store", "info", &path]);
    two.verify_store();
}

#[test]
fn processes_that_want_the_same_fetch_it_once() {
    let (one, path) = with_file(2_000_000);
    let directory = cache_of(&one, &path);
    let files = files(&directory);
    let server = Loopback::start(move |request, stream| {
        if request.path.starts_with("/nar/") {
            std::thread::sleep(Duration::from_millis(300));
        }
        files(request, stream);
    });
    let two = Workspace::new();
    two.verify_store();
    let copies: Vec<_> = (0..6)
        .map(|_| {
            let mut command = two.command();
            command.args(["copy", "--from", &server.address, &path]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for copy in copies {
        let ran = Ran::from(copy.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    assert_eq!(server.count("GET /nar/"), 1);
    assert!(dump(&two, &path) == dump(&one, &path));
    two.verify_store();
}

#[test]
fn caches_are_asked_in_the_order_of_their_priorities() {
    let (one, path) = with_file(1_000);
    let mut servers = Vec::new();
    for priority in [60, 10, 30] {
        let directory = one.path().join(format!("cache-{priority}"));
        one.ok(&["copy", "--to", directory.to_str().unwrap(), &path]);
        let info = format!("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: {priority}\n");
        fs::write(directory.join("nix-cache-info"), info).unwrap();
        servers.push(Loopback::start(files(&directory)));
    }
    let hash = one.ok(&["store", "hash", &path.replace("/nix/store", one.home().join("store").to_str().unwrap())]);
    let two = Workspace::with(&format!(
        "derivation(name = \"file\", system = \"x86_64-linux\", builder = \"/bin/sh\", output_hash_mode = \"recursive\", \
         output_hash = \"{}\")",
        hash.text()
    ));
    let arguments: Vec<&str> = servers.iter().flat_map(|server| ["--substituter", &server.address]).collect();
    let built = two.ok(&[&["build", "//:file"], &arguments[..]].concat());
    built.says(&["from a cache"]);
    assert!(built.text().ends_with(&path["/nix/store".len()..]));
    for (what, expected) in [("GET /nix-cache-info", [1, 1, 1]), ("GET /nar/", [0, 1, 0])] {
        let asked: Vec<usize> = servers.iter().map(|server| server.count(what)).collect();
        assert_eq!(asked, expected, "{what}");
    }
    assert_eq!(servers[0].requests.lock().unwrap().len(), 1, "nobody asks another when the best one has it");
}

/// Cannot be built here: there is no `/bin/sh` in the sandbox.
const NOWHERE: &str = r#"
derivation(name = "nowhere", system = "x86_64-linux", builder = "/bin/sh", args = ["-c", "echo > $out"], content_addressed = False)
"#;

#[test]
fn what_a_server_does_not_have_is_not_asked_for_again() {
    let (one, path) = with_file(1_000);
    let directory = cache_of(&one, &path);
    let server = Loopback::start(files(&directory));
    let two = Workspace::with(NOWHERE);
    let build = || two.run(&["build", "//:nowhere", "--substituter", &server.address]).code;
    let asked = || server.requests.lock().unwrap().iter().filter(|one| one.ends_with(".narinfo")).count();
    assert_eq!((build(), asked()), (100, 1));
    assert_eq!((build(), asked()), (100, 1), "the answer is remembered");
    // Who does not want that says so.
    let file = two.path().join("config.toml");
    fs::write(&file, "[caches]\nabsent_seconds = 0\n").unwrap();
    let mut command = two.command();
    command.args(["build", "//:nowhere", "--substituter", &server.address]).env("AMPOULE_CONFIG", &file);
    command.output().unwrap();
    assert_eq!(asked(), 2);
}
