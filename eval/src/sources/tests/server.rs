//! A small HTTP server whose answers each test decides.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Path with query.
    pub(super) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// How a body goes over the wire.
#[derive(Clone, Debug)]
enum Body {
    Whole,
    /// Only so many bytes of what was announced, then the connection is closed.
    Cut(usize),
    /// Bytes without end, without an announced length.
    Endless,
    /// The head, then silence.
    Stalled,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    bytes: Vec<u8>,
    body: Body,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), bytes: Vec::new(), body: Body::Whole }
    }

    pub(super) fn ok(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::status(200) }
    }

    pub(super) fn status_with(status: u16, bytes: &[u8]) -> Self {
        Self { status, ..Self::ok(bytes) }
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn cut(self, after: usize) -> Self {
        Self { body: Body::Cut(after), ..self }
    }

    pub(super) fn endless() -> Self {
        Self { body: Body::Endless, ..Self::ok([]) }
    }

    pub(super) fn stalled() -> Self {
        Self { body: Body::Stalled, ..Self::ok([]) }
    }

    /// A file as careful servers send it: with an entity tag, and from where the client asks.
    pub(super) fn file(request: &Request, bytes: &[u8], tag: &str) -> Self {
        let start =
            request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let fresh = request.header("if-range").is_none_or(|wanted| wanted == tag);
        match start {
            Some(start) if fresh && start < bytes.len() => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Self::status_with(206, &bytes[start..]).header("Content-Range", &range)
            }
            _ => Self::ok(bytes),
        }
        .header("ETag", tag)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a port that the kernel chose; it ends with the value.
pub(super) struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let (kept, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (handler, kept, stopped) = (Arc::clone(&handler), Arc::clone(&kept), Arc::clone(&stopped));
                std::thread::spawn(move || serve(&stream, &*handler, &kept, &stopped));
            }
        });
        Self { address, requests, stop }
    }

    /// An address on this server.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The paths asked for so far.
    pub(super) fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect()
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees that it is to stop.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
    }
}

/// One connection, one exchange.
fn serve(stream: &TcpStream, handler: &Handler, kept: &Mutex<Vec<Request>>, stopped: &AtomicBool) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let headers = headers
        .filter_map(|line| Some((line.split_once(':')?.0.to_owned(), line.split_once(':')?.1.trim().to_owned())));
    let request = Request { path: first.split(' ').nth(1)?.to_owned(), headers: headers.collect() };
    kept.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !matches!(reply.body, Body::Endless) {
        let length = if matches!(reply.body, Body::Stalled) { 1000 } else { reply.bytes.len() };
        head += &format!("Content-Length: {length}\r\n");
    }
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    match reply.body {
        Body::Whole => stream.write_all(&reply.bytes).ok(),
        Body::Cut(after) => stream.write_all(&reply.bytes[..after]).ok(),
        Body::Endless => loop {
            stream.write_all(&[b'x'; 65536]).ok()?;
        },
        Body::Stalled => {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        }
    }
}
