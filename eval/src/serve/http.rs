//! As much of HTTP/1.1 as a file server needs.

use std::io::{self, BufRead, BufWriter, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The longest request head, in bytes, and the most headers.
const HEAD_LIMIT: usize = 16 << 10;
const HEADERS_LIMIT: usize = 64;
const BUFFER_LENGTH: usize = 128 << 10;
/// Longest wait for a client that does not read on, and the slowest that one may read on average, in bytes per second.
pub(super) const STALL: Duration = Duration::from_secs(60);
const LEAST_RATE: u64 = 1024;

/// A connection that is read until a deadline, however slowly the bytes drip.
#[derive(Debug)]
pub(super) struct Patient<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Patient<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Self { stream, deadline: Instant::now() }
    }

    /// From now on, reading may take this long in all.
    pub(super) fn wait(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }
}

impl io::Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// A request without a body.
#[derive(Debug)]
pub(super) struct Request {
    /// What is asked for: starts with a slash; no query.
    pub(super) path: String,
    /// What stands after a question mark.
    pub(super) query: String,
    /// The first byte that is wanted, and the tag of the version of which the ones before are there.
    range: Option<(u64, Option<String>)>,
    /// Whether only the head of the answer is wanted.
    head_only: bool,
    /// Whether chunks are understood.
    chunks: bool,
    /// Whether more requests follow on the connection.
    pub(super) keep_alive: bool,
}

/// What came over a connection.
#[derive(Debug)]
pub(super) enum Read {
    Request(Request),
    /// The client has no more to ask.
    End,
    /// Nothing that is served; the status says why.
    Bad(u16),
}

/// Writes a body.
pub(super) type Body<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// What is answered.
pub(super) enum Answer<'a> {
    /// There is no such thing.
    Absent,
    /// The store cannot be read.
    Failed,
    /// A small document: its type and bytes.
    Document(&'static str, Vec<u8>),
    /// Something large: its type, its length if that is known, and what writes it.
    Stream(&'static str, Option<u64>, Body<'a>),
    /// As that, of known length and with a tag for its version: can be had from some byte on.
    Ranged(&'static str, u64, String, Body<'a>),
}

/// Reads a request's head.
pub(super) fn read_request(reader: &mut impl BufRead) -> io::Result<Read> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let limit = (HEAD_LIMIT - before) as u64;
        let count = match io::Read::take(&mut *reader, limit).read_until(b'\n', &mut head) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(Read::End),
            other => other?,
        };
        match &head[before..] {
            _ if count == 0 && head.len() >= HEAD_LIMIT => return Ok(Read::Bad(431)),
            _ if count == 0 => return Ok(Read::End),
            // Empty lines before a request are allowed.
            b"\r\n" | b"\n" if before == 0 => head.clear(),
            b"\r\n" | b"\n" => break,
            _ => {}
        }
    }
    Ok(parse(&head).map_or_else(Read::Bad, Read::Request))
}

fn parse(head: &[u8]) -> Result<Request, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(head).is_ok_and(|status| status.is_complete()) {
        return Err(400);
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(405),
    };
    if header("transfer-encoding").is_some() || header("content-length").is_some_and(|length| length.trim() != "0") {
        return Err(413);
    }
    let modern = request.version == Some(1);
    let keep_alive = match header("connection") {
        Some(wish) => !wish.contains("close") && (modern || wish.contains("keep-alive")),
        None => modern,
    };
    let target = request.path.unwrap_or_default();
    // Proxies may send the whole address.
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if !path.starts_with('/') {
        return Err(400);
    }
    let range = header("range").and_then(|range| parse_range(&range)).map(|first| (first, header("if-range")));
    Ok(Request {
        path: path.replace("%21", "!"),
        query: query.to_owned(),
        range,
        head_only,
        chunks: modern,
        keep_alive,
    })
}

/// The first byte of `bytes=N-`, up to the end. Other ranges need not be served.
fn parse_range(text: &str) -> Option<u64> {
    let first = text.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
    first.bytes().all(|byte| byte.is_ascii_digit()).then(|| first.parse().ok())?
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        _ => "Bad Request",
    }
}

/// Says that a request is not served, and that the connection ends.
pub(super) fn refuse(mut stream: &TcpStream, status: u16) -> io::Result<()> {
    let reason = reason(status);
    write!(stream, "HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// An answer as it goes over the wire.
struct Reply<'a> {
    status: u16,
    kind: &'static str,
    /// Of the body, if it is known.
    length: Option<u64>,
    /// Further header lines.
    headers: String,
    body: Body<'a>,
}

impl<'a> Reply<'a> {
    fn empty(status: u16, headers: String) -> Self {
        Self { status, kind: "text/plain", length: Some(0), headers, body: Box::new(|_| Ok(())) }
    }

    fn new(request: &Request, answer: Answer<'a>) -> Self {
        match answer {
            Answer::Absent => Self::empty(404, String::new()),
            Answer::Failed => Self::empty(500, String::new()),
            Answer::Document(kind, bytes) => {
                let length = Some(bytes.len() as u64);
                Self {
                    status: 200,
                    kind,
                    length,
                    headers: String::new(),
                    body: Box::new(move |sink| sink.write_all(&bytes)),
                }
            }
            Answer::Stream(kind, length, body) => Self { status: 200, kind, length, headers: String::new(), body },
            Answer::Ranged(kind, length, tag, body) => Self::ranged(request, kind, length, &tag, body),
        }
    }

    fn ranged(request: &Request, kind: &'static str, length: u64, tag: &str, body: Body<'a>) -> Self {
        let mut headers = format!("Accept-Ranges: bytes\r\nETag: {tag}\r\n");
        match &request.range {
            // What the client has belongs to something else, so it gets everything.
            Some((first, has)) if *first > 0 && has.as_deref().is_none_or(|has| has == tag) => {
                if *first >= length {
                    return Self::empty(416, format!("Content-Range: bytes */{length}\r\n"));
                }
                headers.push_str(&format!("Content-Range: bytes {first}-{}/{length}\r\n", length - 1));
                let first = *first;
                let rest: Body<'a> = Box::new(move |sink| body(&mut Skipping { sink, left: first }));
                Self { status: 206, kind, length: Some(length - first), headers, body: rest }
            }
            _ => Self { status: 200, kind, length: Some(length), headers, body },
        }
    }
}

/// Writes an answer. An error means that the connection is of no more use.
pub(super) fn write_answer(stream: &TcpStream, request: &Request, answer: Answer<'_>) -> io::Result<()> {
    let Reply { status, kind, length, headers, body } = Reply::new(request, answer);
    let paced = Paced { sink: stream, begun: Instant::now(), written: 0 };
    let mut out = BufWriter::with_capacity(BUFFER_LENGTH, paced);
    write!(out, "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\n{headers}", reason(status))?;
    match length {
        Some(length) => write!(out, "Content-Length: {length}\r\n")?,
        None if request.chunks => write!(out, "Transfer-Encoding: chunked\r\n")?,
        None => {}
    }
    let ends = !request.keep_alive || (length.is_none() && !request.chunks);
    write!(out, "Connection: {}\r\n\r\n", if ends { "close" } else { "keep-alive" })?;
    if !request.head_only {
        match length {
            Some(length) => {
                let mut exact = Exact { sink: &mut out, left: length };
                body(&mut exact)?;
                if exact.left > 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            None if request.chunks => {
                let mut chunks = BufWriter::with_capacity(BUFFER_LENGTH, Chunks(&mut out));
                body(&mut chunks)?;
                chunks.flush()?;
                drop(chunks);
                out.write_all(b"0\r\n\r\n")?;
            }
            None => body(&mut out)?,
        }
    }
    out.flush()?;
    if ends { stream.shutdown(std::net::Shutdown::Write) } else { Ok(()) }
}

/// Ends an answer to a client that reads too slowly to be waited for.
struct Paced<'a> {
    sink: &'a TcpStream,
    begun: Instant,
    written: u64,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.elapsed() > STALL + Duration::from_secs(self.written / LEAST_RATE) {
            return Err(ErrorKind::TimedOut.into());
        }
        let count = self.sink.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Drops the first bytes.
struct Skipping<'a> {
    sink: &'a mut dyn Write,
    left: u64,
}

impl Write for Skipping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let dropped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if dropped > 0 {
            self.left -= dropped as u64;
            return Ok(dropped);
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Takes as many bytes as were announced, and no more.
struct Exact<'a, W> {
    sink: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.left = self.left.checked_sub(count as u64).ok_or(ErrorKind::InvalidData)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Writes each piece as a chunk.
struct Chunks<'a, W>(&'a mut W);

impl<W: Write> Write for Chunks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            write!(self.0, "{:x}\r\n", bytes.len())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_something_is_the_end_of_it() {
        let whole: Vec<u8> = (0..100).collect();
        for first in [1, 50, 99] {
            let mut rest = Vec::new();
            let mut sink = Skipping { sink: &mut rest, left: first };
            whole.chunks(7).for_each(|chunk| sink.write_all(chunk).unwrap());
            assert_eq!(rest, whole[usize::try_from(first).unwrap()..]);
        }
    }

    fn check(head: &str, expected: Result<(&str, bool, bool), u16>) {
        match (read_request(&mut head.as_bytes()).unwrap(), expected) {
            (Read::Request(request), Ok(expected)) => {
                assert_eq!((request.path.as_str(), request.head_only, request.keep_alive), expected, "{head}");
            }
            (Read::Bad(status), Err(expected)) => assert_eq!(status, expected, "{head}"),
            (other, expected) => panic!("{head:?}: {other:?}, not {expected:?}"),
        }
    }

    #[test]
    fn requests_are_read_and_others_refused() {
        check("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", Ok(("/a", false, true)));
        check("\r\nHEAD /a?b HTTP/1.1\r\nConnection: close\r\n\r\n", Ok(("/a", true, false)));
        check("GET http://x/a HTTP/1.0\r\n\r\n", Ok(("/a", false, false)));
        check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok(("/", false, true)));
        check("PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Err(405));
        check("GET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Err(413));
        check("nonsense\r\n\r\n", Err(400));
        for (range, expected) in [
            ("bytes=5-", Some(5)),
            ("bytes=0-", Some(0)),
            ("bytes=5-9", None),
            ("bytes=-5", None),
            ("bytes=5-,7-", None),
            ("bytes=99999999999999999999-", None),
            ("bytes=-", None),
            ("x", None),
        ] {
            assert_eq!(parse_range(range), expected, "{range}");
        }
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)), Err(431));
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)), Err(400));
        assert!(matches!(read_request(&mut &b""[..]).unwrap(), Read::End));
        assert!(matches!(read_request(&mut &b"GET / HT"[..]).unwrap(), Read::End));
    }
}
