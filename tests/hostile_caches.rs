//! Caches that lie: about sizes, hashes, names and places, in their files and on the wire. All are refused with the reason,
//! and nothing of theirs stays.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::harness::Workspace;
use crate::store::write_tree;

/// An honest cache with one object in it, whose path follows from its content.
struct Honest {
    workspace: Workspace,
    path: String,
}

impl Honest {
    fn new() -> Self {
        let workspace = Workspace::new();
        let tree = workspace.path().join("tree");
        write_tree(&tree);
        let path = workspace.ok(&["store", "add", tree.to_str().unwrap()]).text().to_owned();
        let honest = Self { workspace, path };
        let cache = honest.cache();
        honest.workspace.ok(&["copy", "--to", cache.to_str().unwrap(), "--compression", "none", &honest.path]);
        honest
    }

    fn cache(&self) -> PathBuf {
        self.workspace.path().join("cache")
    }

    fn narinfo(&self) -> String {
        format!("{}.narinfo", &self.path["/nix/store/".len()..][..32])
    }

    fn text(&self) -> String {
        fs::read_to_string(self.cache().join(self.narinfo())).unwrap()
    }

    /// The archive, and its name in the cache.
    fn archive(&self) -> (Vec<u8>, String) {
        let text = self.text();
        let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap().to_owned();
        (fs::read(self.cache().join(&url)).unwrap(), url)
    }

    /// Insists that the object is not taken from there, for a reason that says this, and that nothing stays of the attempt.
    fn refuses(&self, address: &str, what: &str, expected: &str) {
        let victim = Workspace::new();
        victim.ok(&["store", "verify"]);
        let ran = victim.fails(1, &["copy", "--from", address, &self.path]);
        assert!(ran.stderr.contains(expected), "{what}: `{expected}` is missing in:\n{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
        victim.fails(1, &["store", "info", &self.path]);
        victim.verify_store();
        for directory in ["store", "tmp"] {
            let left: Vec<_> = fs::read_dir(victim.home().join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{what}: {directory} has {left:?}");
        }
        assert!(!victim.path().join("outside").exists(), "{what}");
    }

    /// As [`Self::refuses`], for the cache with another narinfo.
    fn refuses_narinfo(&self, what: &str, text: &str, expected: &str) {
        let lying = self.workspace.path().join("lying");
        copy_directory(&self.cache(), &lying);
        fs::write(lying.join(self.narinfo()), text).unwrap();
        self.refuses(lying.to_str().unwrap(), what, expected);
        fs::remove_dir_all(&lying).unwrap();
    }

    /// As [`Self::refuses`], for the cache with another archive, whose size and hash its narinfo rightly says.
    fn refuses_archive(&self, what: &str, archive: &[u8], expected: &str) {
        let (_, url) = self.archive();
        let lying = self.workspace.path().join("lying");
        copy_directory(&self.cache(), &lying);
        fs::write(lying.join(&url), archive).unwrap();
        let hash: String = Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = ["FileHash", "NarHash"]
            .into_iter()
            .fold(self.text(), |text, key| set(&text, key, &format!("sha256:{hash}")));
        let size = archive.len().to_string();
        let text = ["FileSize", "NarSize"].into_iter().fold(text, |text, key| set(&text, key, &size));
        fs::write(lying.join(self.narinfo()), text).unwrap();
        self.refuses(lying.to_str().unwrap(), what, expected);
        fs::remove_dir_all(&lying).unwrap();
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A narinfo with another value in one field.
fn set(text: &str, key: &str, value: &str) -> String {
    let line = |line: &str| {
        if line.starts_with(&format!("{key}: ")) { format!("{key}: {value}\n") } else { format!("{line}\n") }
    };
    text.lines().map(line).collect()
}

#[test]
fn lies_about_objects_are_refused() {
    let honest = Honest::new();
    let text = honest.text();
    let other = "0".repeat(52);
    let check = |key: &str, value: &str, expected: &str| {
        honest.refuses_narinfo(&format!("{key}: {value}"), &set(&text, key, value), expected);
    };
    check("NarHash", &format!("sha256:{other}"), "no cache has");
    check("NarHash", "sha256:short", "is not valid");
    check("NarHash", "md5:00000000000000000000000000000000", "is not valid");
    check("FileHash", &format!("sha256:{other}"), "hash");
    for size in ["0", "1", "121", "18446744073709551615"] {
        check("NarSize", size, "no cache has");
        check("FileSize", size, "no cache has");
    }
    check("NarSize", "-1", "is not valid");
    check("NarSize", "18446744073709551616", "is not valid");
    check("StorePath", "/nix/store/00000000000000000000000000000000-other", "speaks of another object");
    check("StorePath", &format!("{}-more", honest.path), "has");
    check("StorePath", "/nix/store/../../etc/passwd", "is not valid");
    check("Compression", "zstd", "no cache has");
    check("Compression", "zip", "not");
    check("CA", &format!("fixed:r:sha256:{other}"), "does not follow");
    check("References", "00000000000000000000000000000000-missing", "no cache has");
    check("References", "../../etc", "is not valid");
    honest.refuses_narinfo("a deriver elsewhere", &format!("{text}Deriver: ../../etc\n"), "is not valid");
    let unsigned: String =
        text.lines().filter(|line| !line.starts_with("CA: ")).map(|line| format!("{line}\n")).collect();
    honest.refuses_narinfo("no content address", &unsigned, "no trusted key signed");
    honest.refuses_narinfo(
        "a forged signature",
        &format!("{unsigned}Sig: test-1:{}==\n", "A".repeat(86)),
        "no trusted key signed",
    );
    for line in text.lines().filter(|line| !line.starts_with("Sig: ")) {
        honest.refuses_narinfo(&format!("twice `{line}`"), &format!("{text}{line}\n"), "is not valid");
        let without: String = text.lines().filter(|other| *other != line).map(|line| format!("{line}\n")).collect();
        if ["StorePath", "URL", "NarHash", "NarSize"].iter().any(|key| line.starts_with(key)) {
            honest.refuses_narinfo(&format!("without `{line}`"), &without, "is not valid");
        }
    }
    honest.refuses_narinfo("too long", &format!("{text}X: {}\n", "x".repeat(4 << 20)), "is not valid");
    honest.refuses_narinfo("empty", "", "is not valid");
}

#[test]
fn archives_that_lie_elsewhere_are_refused() {
    let honest = Honest::new();
    let text = honest.text();
    fs::write(honest.workspace.path().join("outside"), honest.archive().0).unwrap();
    let outside = honest.workspace.path().join("outside");
    for url in [
        "../outside",
        "nar/../../outside",
        outside.to_str().unwrap(),
        "",
        ".",
        "..",
        "nar",
        "nar/none",
        "nar/\u{1b}[31m",
    ] {
        honest.refuses_narinfo(&format!("URL: {url}"), &set(&text, "URL", url), "no");
        if !honest.narinfo().contains(url) {
            let address = hostile(&honest, |name| name.ends_with(".narinfo"), {
                let text = set(&text, "URL", url);
                move |_, stream| send(stream, text.as_bytes())
            });
            honest.refuses(&address, &format!("URL: {url}"), "no");
        }
    }
    let address = hostile(&honest, |name| name.contains("outside"), |_, _| panic!("somebody asked for it"));
    honest.refuses_narinfo("an address", &set(&text, "URL", &format!("{address}/outside")), "no");
}

/// A string as archives have it.
fn token(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn tokens(words: &[&[u8]]) -> Vec<u8> {
    words.iter().flat_map(|word| token(word)).collect()
}

/// An archive of a directory with empty files of these names.
fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut archive = tokens(&[b"nix-archive-1", b"(", b"type", b"directory"]);
    for name in names {
        archive.extend(tokens(&[
            b"entry",
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
            b"regular",
            b"contents",
            b"",
            b")",
            b")",
        ]));
    }
    archive.extend(token(b")"));
    archive
}

#[test]
fn hostile_archives_are_refused() {
    let honest = Honest::new();
    let names: [&[&[u8]]; 8] =
        [&[b".."], &[b"."], &[b""], &[b"a/b"], &[b"../outside"], &[b"a\0b"], &[b"b", b"a"], &[b"a", b"a"]];
    for names in names {
        honest.refuses_archive(&format!("{names:?}"), &directory(names), "no cache has");
    }
    let good = honest.archive().0;
    honest.refuses_archive("cut off", &good[..good.len() - 8], "no cache has");
    honest.refuses_archive("something after it", &[&good[..], &[0; 8]].concat(), "no cache has");
    honest.refuses_archive("nothing", b"", "no cache has");
    let mut padded = tokens(&[b"nix-archive-1", b"(", b"type", b"symlink", b"target", b"x", b")"]);
    let last = padded.len() - 1;
    padded[last] = 1;
    honest.refuses_archive("padding that is not zero", &padded, "no cache has");
    let mut endless = tokens(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
    endless.extend(u64::MAX.to_le_bytes());
    honest.refuses_archive("a file of any length", &endless, "no cache has");
    let deep: Vec<u8> = (0..20_000)
        .flat_map(|_| tokens(&[b"(", b"type", b"directory", b"entry", b"(", b"name", b"d", b"node"]))
        .collect();
    honest.refuses_archive("too deep for it to end", &[token(b"nix-archive-1"), deep].concat(), "no cache has");
    // Content that is sound, of another object.
    honest.refuses_archive("other content", &directory(&[b"a"]), "no cache has");
}

#[test]
fn decompression_bombs_are_defused() {
    let honest = Honest::new();
    let (archive, _) = honest.archive();
    let mut bomb = tokens(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
    bomb.extend((1_u64 << 40).to_le_bytes());
    for (compression, packed) in [("zstd", zstd_zeros(&bomb)), ("gzip", gzip_zeros(&bomb))] {
        assert!(packed.len() < 2 << 20, "it is {} bytes long", packed.len());
        let lying = honest.workspace.path().join("lying");
        copy_directory(&honest.cache(), &lying);
        fs::write(lying.join("nar/bomb"), &packed).unwrap();
        let mut text = honest.text();
        for (key, value) in [
            ("URL", "nar/bomb".to_owned()),
            ("Compression", compression.to_owned()),
            ("FileSize", packed.len().to_string()),
            ("NarSize", archive.len().to_string()),
        ] {
            text = set(&text, key, &value);
        }
        let text: String =
            text.lines().filter(|line| !line.starts_with("FileHash")).map(|line| format!("{line}\n")).collect();
        fs::write(lying.join(honest.narinfo()), text).unwrap();
        honest.refuses(lying.to_str().unwrap(), compression, "no cache has");
        fs::remove_dir_all(&lying).unwrap();
    }
}

/// Much more than any disk of a test should have to hold, after these bytes.
const ZEROS: usize = 512 << 20;

fn zstd_zeros(start: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(start).unwrap();
    (0..ZEROS >> 20).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
    encoder.finish().unwrap()
}

fn gzip_zeros(start: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(start).unwrap();
    (0..ZEROS >> 20).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
    encoder.finish().unwrap()
}

/// A server with the honest cache's files, but for those that `part` chooses, which `attack` answers.
fn hostile(
    honest: &Honest,
    part: impl Fn(&str) -> bool + Send + 'static,
    attack: impl Fn(&str, &mut TcpStream) + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let files = honest.cache();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut request, mut line) = (String::new(), String::new());
            let _ = reader.read_line(&mut request);
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let name = request.split(' ').nth(1).unwrap_or_default().to_owned();
            match fs::read(files.join(name.trim_start_matches('/'))) {
                _ if part(&name) => attack(&name, &mut stream),
                Ok(bytes) => send(&mut stream, &bytes),
                Err(_) => status(&mut stream, "404 Not Found"),
            }
        }
    });
    address
}

fn send(stream: &mut TcpStream, body: &[u8]) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(body);
}

fn status(stream: &mut TcpStream, status: &str) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn servers_that_break_the_protocol_are_refused() {
    let honest = Honest::new();
    let check = |what: &str, part: &'static str, answer: Vec<u8>, expected: &str| {
        let address =
            hostile(&honest, move |name| name.contains(part), move |_, stream| drop(stream.write_all(&answer)));
        honest.refuses(&address, what, expected);
    };
    let (archive, _) = honest.archive();
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").into_bytes()
    };
    check("less than promised", "/nar/", [head(archive.len()), archive[..100].to_vec()].concat(), "no cache has");
    check("less promised than it is", "/nar/", [head(100), archive.clone()].concat(), "no cache has");
    check("much more than announced", "/nar/", [head(1 << 40), archive].concat(), "no cache has");
    check("no HTTP", ".narinfo", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "could not be reached");
    check("no answer", ".narinfo", Vec::new(), "could not be reached");
    let headers = [&b"HTTP/1.1 200 OK\r\n"[..], &b"X-Header: xxxxxxxxxxxxxxxxxxxxxxxx\r\n".repeat(50_000)].concat();
    check("headers without end", "nix-cache-info", headers, "could not be reached");
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx\r\n".to_vec();
    check("a chunk of any length", ".narinfo", chunks, "no");
    let page = b"<html>please log in</html>";
    check("a page for people", "nix-cache-info", [head(page.len()), page.to_vec()].concat(), "is not valid");
    let other = b"StoreDir: /other/store\n";
    check("another store", "nix-cache-info", [head(other.len()), other.to_vec()].concat(), "store directory");
}

#[test]
fn an_honest_cache_helps_where_another_one_lies() {
    let honest = Honest::new();
    let victim = &honest.workspace;
    let lying = victim.path().join("lying");
    copy_directory(&honest.cache(), &lying);
    let (archive, url) = honest.archive();
    let mut changed = archive;
    let place = changed.len() / 2;
    changed[place] ^= 1;
    fs::write(lying.join(url), changed).unwrap();
    let object = victim.home().join("store").join(&honest.path["/nix/store/".len()..]);
    crate::harness::remove_tree(&object);
    let (lying, good) = (lying.to_str().unwrap().to_owned(), honest.cache());
    victim.fails(1, &["store", "repair", &honest.path, "--substituter", &lying]).says(&["is still broken"]);
    assert!(!object.exists());
    let arguments = ["store", "repair", &honest.path, "--substituter", &lying, "--substituter", good.to_str().unwrap()];
    assert_eq!(victim.ok(&arguments).text(), honest.path);
    victim.verify_store();
}
