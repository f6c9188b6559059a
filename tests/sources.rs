//! Sources: what registries, mirrors and locks get wrong, and archives that would break out.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use sha2::{Digest, Sha256};

use crate::harness::Workspace;

/// A server of this machine that answers every request with these bytes, of which it promises `length`.
fn serve(body: Vec<u8>, length: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    format!("http://{address}/files")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A recipe that unpacks an archive from there.
fn unpacking(file: &str, address: &str, sha256: Option<&str>, strip: u32) -> String {
    let sha256 = sha256.map(|sha256| format!(", sha256 = \"{sha256}\"")).unwrap_or_default();
    format!(
        r#"
load("@prelude//:fetch.star", "fetch")
derivation(
    name = "unpacked",
    system = "x86_64-linux",
    builder = "builtin:unpack-v1",
    env = {{"src": fetch(name = "{file}", urls = ["{address}/{file}"]{sha256}), "strip": "{strip}", "patches": "[]"}},
)
"#
    )
}

/// An uncompressed tar of these members: name, type (`0` a file, `2` a link), target of the link, content.
fn tar(members: &[(&str, u8, &str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, target, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = *kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(content.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn locked_fetched_unpacked_and_then_offline() {
    let archive = tar(&[("top/a", b'0', "", "content\n"), ("top/b/link", b'2', "../a", "")]);
    let address = serve(archive.clone(), archive.len());
    let workspace = Workspace::with(&unpacking("good.tar", &address, None, 1));
    workspace.fails(1, &["build", "//:unpacked"]).says(&["`good.tar` is not in the lock", "run: ampoule sources lock"]);
    assert_eq!(workspace.ok(&["sources", "lock"]).text(), "+ url:good.tar");
    assert_eq!(workspace.ok(&["sources", "lock", "--offline"]).text(), "", "nothing is new");
    let lock = fs::read_to_string(workspace.root().join("ampoule.lock")).unwrap();
    assert!(lock.contains(&sha256(&archive)), "{lock}");

    let unpacked = workspace.ok(&["build", "--check", "//:unpacked"]).path();
    assert_eq!(fs::read_to_string(unpacked.join("a")).unwrap(), "content\n");
    assert_eq!(fs::read_to_string(unpacked.join("b/link")).unwrap(), "content\n");
    let list = workspace.ok(&["sources", "list", "--json"]).json();
    assert_eq!((&list["sources"][0]["file"], &list["sources"][0]["stored"]), (&"good.tar".into(), &true.into()));
    assert_eq!(workspace.ok(&["sources", "verify"]).text(), "1 good, 0 not in the store, 0 broken");

    workspace.ok(&["store", "delete", unpacked.to_str().unwrap()]);
    workspace.ok(&["build", "--offline", "//:unpacked"]).says(&["build unpacked: built"]);
    let source = list["sources"][0]["path"].as_str().unwrap();
    workspace.ok(&["store", "delete", unpacked.to_str().unwrap(), source]);
    let ran = workspace.fails(1, &["build", "--offline", "//:unpacked"]);
    ran.says(&["good.tar", "is not here, and nothing may be fetched offline", "hint: ", "--from DIR"]);
    // A directory of this machine is no network.
    let directory = workspace.path().join("files");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("good.tar"), archive).unwrap();
    workspace.ok(&["build", "--offline", "--from", directory.to_str().unwrap(), "//:unpacked"]);
    workspace.verify_store();
}

#[test]
fn a_file_that_is_not_the_locked_one() {
    let archive = tar(&[("a", b'0', "", "what a stranger put there\n")]);
    let wrong = sha256(b"what was locked");
    let workspace = Workspace::with(&unpacking("wrong.tar", "http://127.0.0.1:9", Some(&wrong), 0));
    let directory = workspace.path().join("files");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("wrong.tar"), &archive).unwrap();
    let from = directory.to_str().unwrap();
    let ran = workspace.fails(102, &["build", "--offline", "--from", from, "//:unpacked"]);
    ran.says(&["error: wrong.tar: ", "is not the file that was locked", &wrong, &sha256(&archive), "hint: "]);
    // The same from a server.
    let address = serve(archive.clone(), archive.len());
    workspace.write("BUILD.star", &unpacking("wrong.tar", &address, Some(&wrong), 0));
    let ran = workspace.fails(102, &["build", "//:unpacked"]);
    ran.says(&["is not the file that was locked", &wrong, &sha256(&archive), &address]);
    workspace.verify_store();
}

#[test]
fn a_lock_that_somebody_changed() {
    let archive = tar(&[("a", b'0', "", "content\n")]);
    let address = serve(archive.clone(), archive.len());
    let workspace = Workspace::with(&unpacking("a.tar", &address, None, 0));
    workspace.ok(&["sources", "lock"]);
    let lock = fs::read_to_string(workspace.root().join("ampoule.lock")).unwrap();
    let other = sha256(b"something else");
    workspace.write("ampoule.lock", &lock.replace(&sha256(&archive), &other));
    for command in [&["build", "//:unpacked"][..], &["sources", "fetch"]] {
        workspace.fails(102, command).says(&["is not the file that was locked", &other, &sha256(&archive)]);
    }
    let record = workspace.fails(102, &["build", "--json", "//:unpacked"]).json();
    assert_eq!(record["failures"][0]["kind"], "hash mismatch");
    workspace.write("ampoule.lock", &lock);
    workspace.ok(&["build", "//:unpacked"]);
    workspace.verify_store();
}

#[test]
fn a_download_that_stops_early() {
    let archive = tar(&[("a", b'0', "", "content\n")]);
    let hash = sha256(&archive);
    let address = serve(archive[..100].to_vec(), archive.len());
    let workspace = Workspace::with(&unpacking("short.tar", &address, Some(&hash), 0));
    let ran = workspace.fails(1, &["build", "//:unpacked"]);
    ran.says(&["error: short.tar: ", "could not be fetched", &address, "hint: "]);
    assert_eq!(ran.stdout, "");
    workspace.verify_store();
}

#[test]
fn archives_that_would_break_out() {
    let cases: [(&str, Vec<u8>); 5] = [
        ("up.tar", tar(&[("top/a", b'0', "", "x"), ("top/../../was-here", b'0', "", "x")])),
        ("absolute.tar", tar(&[("top/a", b'0', "", "x"), ("/build/was-here", b'0', "", "x")])),
        ("through.tar", tar(&[("top/out", b'2', "/build", ""), ("top/out/was-here", b'0', "", "x")])),
        ("device.tar", tar(&[("top/device", b'3', "", "")])),
        ("cut.tar", tar(&[("top/a", b'0', "", &"x".repeat(5000))])[..2000].to_vec()),
    ];
    for (file, archive) in cases {
        let workspace = Workspace::with(&unpacking(file, "http://127.0.0.1:9", Some(&sha256(&archive)), 1));
        let directory = workspace.path().join("files");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(file), &archive).unwrap();
        let ran = workspace.fails(100, &["build", "--from", directory.to_str().unwrap(), "//:unpacked"]);
        ran.says(&["error: unpacked: the builder exited with code 1", "| error: "]);
        if file != "cut.tar" {
            let name = if file == "device.tar" { "device" } else { "was-here" };
            ran.says(&[name]);
        }
        workspace.verify_store();
    }
}
