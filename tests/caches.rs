//! Binary caches: copied to and from, served, substituted from, hostile; and what stock Nix makes of them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Ran, Workspace, ampoule, installed, remove_tree};
use crate::store::{dump, write_tree};

/// A workspace whose store has a tree, and that tree's path.
fn with_tree() -> (Workspace, String) {
    let workspace = Workspace::new();
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let path = workspace.ok(&["store", "add", tree.to_str().unwrap()]).text().to_owned();
    (workspace, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a key, and gives its file and its public half.
fn key(workspace: &Workspace) -> (String, String) {
    let file = workspace.path().join("key").to_str().unwrap().to_owned();
    let public = workspace.ok(&["key", "generate", "test-1", &file]).text().to_owned();
    (file, public)
}

/// A running `ampoule serve`, stopped at the end.
pub struct Served {
    child: Child,
    pub address: String,
}

impl Served {
    pub fn start(workspace: &Workspace, arguments: &[&str]) -> Self {
        let mut child = workspace.start(&[&["serve"], arguments].concat());
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn objects_go_through_directories_servers_and_homes() {
    let (one, path) = with_tree();
    let archive = dump(&one, &path);
    let directory = one.path().join("cache");
    assert_eq!(one.ok(&["copy", "--to", text(&directory), &path]).text(), path);
    assert_eq!(one.ok(&["copy", "--to", text(&directory), &path]).text(), "", "it is there already");
    let served = Served::start(&one, &[]);
    for place in [text(&directory), &format!("file://{}", directory.display()), &served.address, text(&one.home())] {
        let two = Workspace::new();
        let copied = two.ok(&["copy", "--from", place, &path, "--json"]).json();
        assert_eq!(copied["paths"], serde_json::json!([path]), "{place}");
        assert_eq!(dump(&two, &path), archive);
        two.verify_store();
    }
    let two = Workspace::new();
    two.ok(&["store", "verify"]);
    one.ok(&["copy", "--to", text(&two.home()), "--all"]);
    assert_eq!(dump(&two, &path), archive);
    let three = Workspace::new();
    three.fails(1, &["copy", "--from", text(three.path()), &path]).says(&["no binary cache"]);
    three.fails(1, &["copy", "--from", text(&directory), "/nix/store/00000000000000000000000000000000-x"]);
}

#[test]
fn keys_sign_and_signatures_are_verified() {
    let (workspace, path) = with_tree();
    let (file, public) = key(&workspace);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(workspace.ok(&["key", "show", &file]).text(), public);
    workspace.fails(1, &["key", "generate", "test-1", &file]).says(&["never overwritten"]);
    workspace.fails(2, &["key", "generate", "a:b", text(&workspace.path().join("other"))]);
    workspace.ok(&["store", "sign", "--key", &file, &path]);
    workspace.ok(&["store", "verify-signatures", "--trusted-key", &public]);
    let directory = workspace.path().join("cache");
    workspace.ok(&["copy", "--to", text(&directory), &path]);
    let narinfo = directory.join(format!("{}.narinfo", &path["/nix/store/".len()..][..32]));
    assert!(fs::read_to_string(narinfo).unwrap().contains("\nSig: test-1:"));
}

/// A stream of one object whose path proves nothing.
fn unproved() -> Vec<u8> {
    let token = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let number = |number: u64| number.to_le_bytes().to_vec();
    let words = ["nix-archive-1", "(", "type", "regular", "contents", "content", ")"];
    let path = token("/nix/store/00000000000000000000000000000000-x");
    let archive: Vec<u8> = words.into_iter().flat_map(token).collect();
    [number(1), archive, number(0x4558_494e), path, number(0), token(""), number(0), number(0)].concat()
}

#[test]
fn streams_are_imported_if_they_prove_themselves() {
    let (one, path) = with_tree();
    let stream = one.command().args(["store", "export", &path]).output().unwrap().stdout;
    let import = |workspace: &Workspace, arguments: &[&str], stream: &[u8]| {
        let mut command = workspace.command();
        command.args(["store", "import"]).args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(stream);
        Ran::from(child.wait_with_output().unwrap())
    };
    let two = Workspace::new();
    let mut tampered = stream.clone();
    let place = tampered.windows(8).position(|window| window == b"content\n").unwrap();
    tampered[place] = b'C';
    let refused = import(&two, &[], &tampered);
    assert_eq!(refused.code, 1);
    refused.says(&["does not follow from its content"]);
    two.fails(1, &["store", "info", &path]);
    assert_eq!(import(&two, &["--strict"], &stream).text(), path);
    assert_eq!(dump(&two, &path), dump(&one, &path));
    assert_eq!(import(&two, &[], &unproved()).code, 1);
    assert_eq!(import(&two, &["--trust"], &unproved()).code, 0);
    two.verify_store();
}

const RECIPE: &str = r#"
source = text("source.txt", "text of the source\n")
sh(name = "inner", script = "echo inner > $out")
sh(name = "outer", script = "cat " + source + " > $out; echo outer >> $out")
"#;

#[test]
fn outputs_come_from_a_cache_whose_key_is_trusted() {
    let (Some(one), Some(two)) = (Workspace::with_tools(RECIPE), Workspace::with_tools(RECIPE)) else { return };
    let (file, public) = key(&one);
    one.ok(&["build", "//:outer"]);
    let directory = one.path().join("cache");
    one.ok(&["copy", "--to", text(&directory), "--key", &file, "//:outer"]);
    let build = |more: &[&str]| two.run(&[&["build", "//:outer", "--substituter", text(&directory)], more].concat());
    // Nobody vouches for it, or somebody does.
    assert_eq!(build(&["--dry-run"]).stdout, "build outer\n");
    let foreseen = build(&["--dry-run", "--trusted-key", &public]);
    assert_eq!(foreseen.stdout.lines().filter(|line| line.starts_with("substitute /nix/store/")).count(), 1);
    foreseen.says(&["1 objects from caches", "to download"]);
    let record = build(&["--dry-run", "--json", "--trusted-key", &public]).json();
    assert_eq!((&record["build"], &record["fetch"]), (&serde_json::json!([]), &serde_json::json!([])));
    let object = record["substitute"][0].clone();
    assert!(
        record["unpackedBytes"] == object["narSize"] && record["downloadBytes"] == object["downloadSize"],
        "{record}"
    );
    two.fails(1, &["store", "info", object["path"].as_str().unwrap()]);
    let ran = build(&["--trusted-key", &public]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.says(&["from a cache"]).is_silent_about(&["built"]);
    assert_eq!(fs::read_to_string(ran.path()).unwrap(), "text of the source\nouter\n");
    two.verify_store();

    let Some(three) = Workspace::with_tools(RECIPE) else { return };
    let place = format!("file://{}", directory.display());
    three.ok(&["build", "//:outer", "--substituter", &place]).says(&["built"]).is_silent_about(&["from a cache"]);
    three.ok(&["build", "//:inner", "--substituter", "http://127.0.0.1:1/"]).says(&["is not asked", "built"]);
}

#[test]
fn a_bundle_carries_what_a_rebuild_needs() {
    let Some(one) = Workspace::with_tools(RECIPE) else { return };
    one.ok(&["build", "//:outer"]);
    let bundle = one.path().join("bundle");
    one.ok(&["copy", "--to", text(&bundle), "--with-sources", "//:outer"]);
    // Another machine: the same recipes, nothing but the bundle, and no network.
    let home = one.path().join("other");
    let run = |arguments: &[&str]| Ran::from(ampoule(&home, &one.root()).args(arguments).output().unwrap());
    let copied = run(&["copy", "--from", text(&bundle), "--all"]);
    assert_eq!(copied.code, 0, "{}", copied.stderr);
    copied.says(&["will be built again"]);
    let built = run(&["build", "--offline", "//:outer"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    built.says(&["outer: built"]).is_silent_about(&["fetch"]);
    let verified = run(&["store", "verify"]);
    assert_eq!((verified.code, verified.stdout.as_str()), (0, ""));
    remove_tree(&home);
}

/// Answers every request by what `answer` writes.
fn hostile(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut request, mut line) = (String::new(), String::new());
            let _ = reader.read_line(&mut request);
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            answer(request.split(' ').nth(1).unwrap_or_default(), &mut stream);
        }
    });
    address
}

fn send(stream: &mut TcpStream, body: &[u8]) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(body);
}

/// Sends without an announced length until the client has had enough.
fn send_endlessly(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    while stream.write_all(&[b'a'; 1 << 16]).is_ok() {}
}

#[test]
fn hostile_servers_are_refused_and_nothing_is_registered() {
    let (one, path) = with_tree();
    let directory = one.path().join("cache");
    one.ok(&["copy", "--to", text(&directory), "--compression", "none", &path]);
    let check = |part: &'static str, attack: fn(&str, &mut TcpStream), expected: &str| {
        let files = directory.clone();
        let address = hostile(move |name, stream| match fs::read(files.join(name.trim_start_matches('/'))) {
            _ if name.contains(part) => attack(name, stream),
            Ok(bytes) => send(stream, &bytes),
            Err(_) => {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let two = Workspace::new();
        two.fails(1, &["copy", "--from", &address, &path]).says(&[expected]);
        two.fails(1, &["store", "info", &path]);
        two.verify_store();
    };
    let round = |name: &str, stream: &mut TcpStream| {
        let _ =
            write!(stream, "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {name}\r\n\r\n");
    };
    let away = |_: &str, stream: &mut TcpStream| {
        let location = "file:///etc/passwd";
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
        );
    };
    check("nix-cache-info", round, "redirects more than");
    check(".narinfo", round, "redirects more than");
    check("/nar/", away, "which is not followed");
    check(".narinfo", |_, stream| send_endlessly(stream), "and not more");
    check("/nar/", |_, stream| send_endlessly(stream), "no cache has");
    check("/nar/", |_, stream| send(stream, b"short"), "no cache has");
    check(".narinfo", |_, stream| send(stream, b"nonsense"), "not a line of text");
}

/// Stock Nix with a private store.
struct Nix<'a>(&'a Path);

impl Nix<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let home = self.0;
        command.env("HOME", home).env("NIX_STORE_DIR", "/nix/store").current_dir(home);
        for (variable, directory) in [("NIX_CONF_DIR", "etc"), ("NIX_STATE_DIR", "var"), ("NIX_LOG_DIR", "log")] {
            command.env(variable, home.join(directory));
        }
        command.env("NIX_REMOTE", format!("local?root={}", home.join("root").display()));
        command.env("no_proxy", "127.0.0.1");
        command
    }

    fn run(&self, program: &str, arguments: &[&str], input: Stdio) -> Vec<u8> {
        let output = self.command(program).args(arguments).stdin(input).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn nix(&self, arguments: &[&str]) -> String {
        let arguments = [&["--extra-experimental-features", "nix-command"], arguments].concat();
        String::from_utf8(self.run("nix", &arguments, Stdio::null())).unwrap()
    }
}

#[test]
fn stock_nix_reads_what_we_write_and_we_what_it_writes() {
    if !installed("nix") || !installed("nix-store") {
        return;
    }
    let (one, path) = with_tree();
    let scratch = one.path().join("nix");
    fs::create_dir(&scratch).unwrap();
    let nix = Nix(&scratch);
    let (file, public) = key(&one);
    for compression in ["none", "zstd", "xz", "gzip"] {
        let directory = one.path().join(format!("cache-{compression}"));
        one.ok(&["copy", "--to", text(&directory), "--key", &file, "--compression", compression, &path]);
        let place = format!("file://{}", directory.display());
        let info: serde_json::Value =
            serde_json::from_str(&nix.nix(&["path-info", "--store", &place, "--json", &path])).unwrap();
        assert_eq!(info[0]["path"], path.as_str());
        assert!(info[0]["signatures"][0].as_str().unwrap().starts_with("test-1:"), "{info}");
        let verify =
            ["store", "verify", "--store", &place, "--sigs-needed", "1", "--trusted-public-keys", &public, &path];
        nix.nix(&verify);
        let root = one.path().join(format!("root-{compression}"));
        let theirs = format!("local?root={}", root.display());
        nix.nix(&["copy", "--from", &place, "--to", &theirs, "--option", "trusted-public-keys", &public, &path]);
        let there = root.join(path.trim_start_matches('/'));
        assert_eq!(dump(&one, there.to_str().unwrap()), dump(&one, &path));
    }

    // Theirs.
    let note = scratch.join("note");
    fs::write(&note, "a note\n").unwrap();
    let theirs = nix.run("nix-store", &["--add", text(&note)], Stdio::null());
    let theirs = String::from_utf8(theirs).unwrap().trim().to_owned();
    let secret = format!("secret-key={file}");
    for compression in ["none", "zstd", "xz", "gzip"] {
        let directory = one.path().join(format!("theirs-{compression}"));
        let place = format!("file://{}?compression={compression}&{secret}", directory.display());
        nix.nix(&["copy", "--to", &place, &theirs]);
        let two = Workspace::new();
        two.ok(&["copy", "--from", text(&directory), "--trusted-key", &public, &theirs]);
        two.ok(&["store", "verify-signatures"]);
        assert_eq!(dump(&two, &theirs), dump(&one, text(&note)));
    }

    // Streams, both ways.
    let stream = scratch.join("stream");
    fs::write(&stream, nix.run("nix-store", &["--export", &theirs], Stdio::null())).unwrap();
    let mut command = one.command();
    command.args(["store", "import", "--strict"]).stdin(fs::File::open(&stream).unwrap());
    assert_eq!(Ran::from(command.output().unwrap()).text(), theirs);
    fs::write(&stream, one.command().args(["store", "export", &path]).output().unwrap().stdout).unwrap();
    let imported = nix.run("nix-store", &["--import"], fs::File::open(&stream).unwrap().into());
    assert_eq!(String::from_utf8(imported).unwrap().trim(), path);
    nix.run("nix-store", &["--verify-path", &path], Stdio::null());
    make_writable(one.path());
}

#[test]
fn stock_nix_substitutes_from_our_server() {
    if !installed("nix-store") {
        return;
    }
    let (one, path) = with_tree();
    // One that does not prove itself: only our key makes it acceptable.
    let stream = one.path().join("stream");
    fs::write(&stream, unproved()).unwrap();
    let mut command = one.command();
    command.args(["store", "import", "--trust"]).stdin(fs::File::open(&stream).unwrap());
    let unproved = Ran::from(command.output().unwrap()).text().to_owned();
    let (file, public) = key(&one);
    let served = Served::start(&one, &["--key", &file]);
    let scratch = one.path().join("nix");
    fs::create_dir(&scratch).unwrap();
    let nix = Nix(&scratch);
    let options = ["--option", "substituters", &served.address, "--option", "trusted-public-keys"];
    let refused = nix.command("nix-store").args(["--realise", &unproved]).args(options).arg("").output().unwrap();
    assert!(!refused.status.success());
    for wanted in [&path, &unproved] {
        nix.run("nix-store", &[&["--realise", wanted], &options[..], &[&public]].concat(), Stdio::null());
        let there = scratch.join("root").join(wanted.trim_start_matches('/'));
        assert_eq!(dump(&one, there.to_str().unwrap()), dump(&one, wanted));
    }
    make_writable(one.path());
}

/// Nix's stores are read-only too.
fn make_writable(directory: &Path) {
    let _ = Command::new("chmod").arg("-R").arg("u+w").arg(directory).status();
}

/// Writes this to a server, and gives all that it answers until it hangs up.
fn talk(address: &str, bytes: &[u8]) -> String {
    use std::io::Read;
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || {
        let _ = writer.write_all(&bytes);
        let _ = writer.shutdown(std::net::Shutdown::Write);
    });
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    writing.join().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn hostile_clients_get_nothing_and_hinder_nobody() {
    let (one, path) = with_tree();
    fs::write(one.home().join("secret"), "secret").unwrap();
    let served = Served::start(&one, &["--connections", "6"]);
    let hash_part = &path["/nix/store/".len()..][..32];
    let status = |request: &str| {
        let answer = talk(&served.address, format!("{request}\r\n\r\n").as_bytes());
        assert!(!answer.contains("secret"), "{request}: {answer}");
        answer.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    for target in [
        "/../secret",
        "/nar/../../secret",
        "/nar/%2e%2e/secret",
        "/log/../../secret",
        "/log//etc/passwd",
        "/build-trace-v2/../../secret.doi",
        "/.narinfo",
        "/../db/store.sqlite",
        "/%00.narinfo",
        "//etc/passwd",
        "/zstd/../secret",
        "/zstd/zstd/nix-cache-info",
        "/",
    ] {
        assert_eq!(status(&format!("GET {target} HTTP/1.1")), "404", "{target}");
    }
    let narinfo = format!("/{hash_part}.narinfo");
    assert_eq!(status(&format!("GET {narinfo} HTTP/1.1")), "200");
    assert_eq!(status(&format!("GET /{} HTTP/1.1", "a".repeat(100_000))), "431");
    assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(1_000))), "400");
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(1 << 20))), "431");
    assert_eq!(status("DELETE / HTTP/1.1"), "405");
    assert_eq!(status("PUT /x HTTP/1.1\r\nContent-Length: 5"), "405");
    assert_eq!(status("GET / HTTP/1.1\r\nContent-Length: 99999999999"), "413");
    assert_eq!(status("GET / HTTP/1.1\r\nTransfer-Encoding: chunked"), "413");
    for nonsense in ["\0\0\0\0", "GET", "GET / SMTP/1.0", "\u{16}\u{3}\u{1}"] {
        assert!(["400", "none"].contains(&&*status(nonsense)), "{nonsense:?}");
    }
    // One after the other without waiting, up to the first that is wrong.
    let get = format!("GET {narinfo} HTTP/1.1\r\n\r\n");
    let answers = talk(&served.address, format!("{}nonsense\r\n\r\n{get}", get.repeat(50)).as_bytes());
    assert_eq!((answers.matches("HTTP/1.1 200").count(), answers.matches("HTTP/1.1 400").count()), (50, 1));
    // The rest of an archive, and what is none.
    let url = answers.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
    let archive = dump(&one, &path);
    let part = |range: &str| talk(&served.address, format!("GET /{url} HTTP/1.0\r\nRange: {range}\r\n\r\n").as_bytes());
    let rest = part("bytes=100-");
    assert!(rest.contains(" 206 ") && rest.contains(&format!("bytes 100-{0}/{1}", archive.len() - 1, archive.len())));
    assert!(part(&format!("bytes={}-", archive.len())).contains(" 416 "));
    assert!(part("bytes=5-2").contains(" 200 ") && part("nonsense").contains(" 200 "));
    let other = format!("GET /{url} HTTP/1.0\r\nRange: bytes=100-\r\nIf-Range: \"other\"\r\n\r\n");
    assert!(talk(&served.address, other.as_bytes()).contains(" 200 "));
    // Those who say nothing, or little by little, are left alone after a while, and meanwhile others are served.
    let idle: Vec<TcpStream> =
        (0..5).map(|_| TcpStream::connect(served.address.strip_prefix("http://").unwrap()).unwrap()).collect();
    for mut stream in &idle {
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(status(&format!("GET {narinfo} HTTP/1.1")), "200");
    std::thread::scope(|scope| {
        for stream in &idle {
            scope.spawn(move || {
                use std::io::Read;
                // Drips on, until the server has had enough.
                while (&mut &*stream).write_all(b"x").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(500));
                    stream.set_nonblocking(true).unwrap();
                    if (&mut &*stream).read(&mut [0; 64]).is_ok() {
                        break;
                    }
                    stream.set_nonblocking(false).unwrap();
                }
            });
        }
    });
    assert_eq!(status(&format!("GET {narinfo} HTTP/1.1")), "200");
}

#[test]
fn many_clients_are_served_at_once() {
    let (one, path) = with_tree();
    let served = Served::start(&one, &["--connections", "4"]);
    let archive = dump(&one, &path);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (served, path, archive) = (&served, &path, &archive);
            scope.spawn(move || {
                let place = if number % 2 == 0 { served.address.clone() } else { format!("{}/zstd", served.address) };
                let two = Workspace::new();
                two.ok(&["copy", "--from", &place, path]);
                assert!(dump(&two, path) == *archive);
            });
        }
    });
}
