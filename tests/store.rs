//! `ampoule store`: objects in, out, gone, and whole.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Ran, Workspace, remove_tree};

/// A tree with everything that an archive can hold.
pub fn write_tree(path: &Path) {
    fs::create_dir_all(path.join("empty")).unwrap();
    fs::create_dir_all(path.join("b/c")).unwrap();
    fs::write(path.join("b/file"), "content\n").unwrap();
    fs::write(path.join("b.txt"), [0, 159, 146, 150]).unwrap();
    fs::write(path.join("program"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../nowhere", path.join("b/c/link")).unwrap();
}

/// Runs with this on standard input.
fn feed(workspace: &Workspace, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = workspace.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may stop reading early, which is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    Ran::from(child.wait_with_output().unwrap())
}

/// The archive of a store path or of a path of the file system.
pub fn dump(workspace: &Workspace, what: &str) -> Vec<u8> {
    let output = workspace.command().args(["store", "dump", what]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_tree_goes_in_and_comes_out_the_same() {
    let workspace = Workspace::new();
    let tree = workspace.path().join("tree");
    write_tree(&tree);
    let tree = tree.to_str().unwrap();
    let added = workspace.ok(&["store", "add", tree]).text().to_owned();
    assert!(added.starts_with("/nix/store/") && added.ends_with("-tree"), "{added}");
    assert_eq!(workspace.ok(&["store", "add", tree]).text(), added, "adding is idempotent");

    let archive = dump(&workspace, tree);
    assert_eq!(dump(&workspace, &added), archive);
    let copy = workspace.path().join("copy");
    let restored = feed(&workspace, &["store", "restore", copy.to_str().unwrap()], &archive);
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(dump(&workspace, copy.to_str().unwrap()), archive);
    assert_eq!(fs::read_link(copy.join("b/c/link")).unwrap(), Path::new("../nowhere"));
    assert!(fs::metadata(copy.join("program")).unwrap().permissions().mode() & 0o100 != 0);

    let again = feed(&workspace, &["store", "restore", copy.to_str().unwrap()], &archive);
    assert_eq!(again.code, 1, "what exists is not overwritten");
    workspace.verify_store();
}

#[test]
fn info_says_what_the_store_knows() {
    let workspace = Workspace::new();
    let file = workspace.path().join("note");
    fs::write(&file, "hello\n").unwrap();
    let file = file.to_str().unwrap();
    let added = workspace.ok(&["store", "add", "--flat", "--name", "other.txt", file]).text().to_owned();
    let info = workspace.ok(&["store", "info", "--json", &added]).json()[&added].clone();
    assert_eq!(info["path"], added.as_str());
    assert_eq!(info["references"], serde_json::json!([]));
    assert_eq!(info["deriver"], serde_json::Value::Null);
    assert!(info["ca"].as_str().unwrap().starts_with("fixed:sha256:"), "{info}");
    assert_eq!(info["narHash"], workspace.ok(&["store", "hash", file]).text());
    assert_eq!(info["narSize"].as_u64().unwrap(), dump(&workspace, file).len() as u64);
    let on_disk = Path::new(info["onDisk"].as_str().unwrap());
    assert_eq!(fs::read_to_string(on_disk).unwrap(), "hello\n");
    assert_eq!(fs::metadata(on_disk).unwrap().permissions().mode() & 0o7777, 0o444);

    let text = workspace.ok(&["store", "info", &added]).stdout;
    assert!(text.starts_with(&added) && text.contains("nar hash    sha256-"), "{text}");
    // The base name and the place on disk name the same object.
    let base_name = added.strip_prefix("/nix/store/").unwrap();
    assert_eq!(workspace.ok(&["store", "info", base_name]).stdout, text);
    assert_eq!(workspace.ok(&["store", "info", on_disk.to_str().unwrap()]).stdout, text);
    let record = workspace.ok(&["store", "add", "--json", file]).json();
    assert!(record[0]["path"].as_str().unwrap().ends_with("-note"), "{record}");
}

#[test]
fn hashes_in_every_notation() {
    let workspace = Workspace::new();
    let file = workspace.path().join("empty");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (format, expected) in [
        ("sri", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ("base16", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("nix32", "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"),
        ("base64", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ] {
        assert_eq!(workspace.ok(&["store", "hash", "--flat", "--format", format, file]).text(), expected);
    }
    let md5 = workspace.ok(&["store", "hash", "--flat", "--algorithm", "md5", "--format", "base16", file]);
    assert_eq!(md5.text(), "d41d8cd98f00b204e9800998ecf8427e");
}

#[test]
fn what_others_refer_to_is_not_deleted() {
    let recipe = r#"
lower = sh(name = "lower", script = "echo > $out")
sh(name = "upper", script = "echo %s > $out" % lower)
"#;
    let Some(workspace) = Workspace::with_tools(recipe) else { return };
    let upper = workspace.ok(&["build", "//:upper"]).text().to_owned();
    let lower = workspace.ok(&["build", "//:lower"]).text().to_owned();
    workspace.fails(1, &["store", "delete", &lower]).says(&["-lower", "-upper"]);
    assert!(Path::new(&lower).exists());
    workspace.ok(&["store", "delete", &upper]);
    assert!(!Path::new(&upper).exists());
    workspace.ok(&["store", "delete", &lower]);
    assert!(!Path::new(&lower).exists());
    workspace.fails(1, &["store", "info", &lower]).says(&["is not valid in the store"]);
    workspace.verify_store();
    // Both at once, whatever the order; then they are built again.
    assert_eq!(workspace.ok(&["build", "//:upper"]).text(), upper);
    workspace.ok(&["store", "delete", &lower, &upper]);
    assert_eq!(workspace.ok(&["build", "//:upper"]).text(), upper);
}

#[test]
fn damage_is_found() {
    let workspace = Workspace::new();
    let add = |name: &str| {
        let file = workspace.path().join(name);
        fs::write(&file, name).unwrap();
        let path = workspace.ok(&["store", "add", file.to_str().unwrap()]).text().to_owned();
        let base_name = path.strip_prefix("/nix/store/").unwrap().to_owned();
        (workspace.home().join("store").join(&base_name), base_name)
    };
    let (changed, changed_name) = add("changed");
    let (gone, gone_name) = add("gone");
    let (_, kept_name) = add("kept");
    workspace.verify_store();
    fs::set_permissions(&changed, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&changed, "changeD").unwrap();
    remove_tree(&gone);
    let ran = workspace.fails(1, &["store", "verify"]);
    ran.says(&["2 things are wrong", "hint: "]);
    let found = |name: &str| ran.stdout.contains(name);
    assert!(found(&changed_name) && found(&gone_name) && !found(&kept_name), "{}", ran.stdout);
    assert!(workspace.fails(1, &["store", "verify", "--json"]).stdout.contains("\"findings\""));
    // What is deleted and added again is whole.
    workspace.ok(&["store", "delete", &changed_name, &gone_name]);
    let _ = (add("changed"), add("gone"));
    workspace.verify_store();
}

/// An archive's framing of one text.
fn append(archive: &mut Vec<u8>, text: &[u8]) {
    archive.extend((text.len() as u64).to_le_bytes());
    archive.extend(text);
    archive.resize(archive.len().next_multiple_of(8), 0);
}

fn archive(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| append(&mut bytes, part));
    bytes
}

/// The archive of a directory with these entries, in this order.
fn directory(entries: &[(&[u8], &[&[u8]])]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for (name, node) in entries {
        parts.extend([&b"entry"[..], b"(", b"name", name, b"node"]);
        parts.extend(*node);
        parts.push(b")");
    }
    parts.push(b")");
    archive(&parts)
}

#[test]
fn hostile_archives_are_refused() {
    let file: &[&[u8]] = &[b"(", b"type", b"regular", b"contents", b"x", b")"];
    let link: &[&[u8]] = &[b"(", b"type", b"symlink", b"target", b"/tmp", b")"];
    let whole = directory(&[(b"a", file)]);
    let mut endless = archive(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
    endless.extend(u64::MAX.to_le_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no archive", b"PK\x03\x04 something else".to_vec()),
        ("truncated", whole[..whole.len() - 20].to_vec()),
        ("followed by more", [&whole[..], b"12345678"].concat()),
        ("up and away", directory(&[(b"..", file)])),
        ("itself", directory(&[(b".", file)])),
        ("a slash", directory(&[(b"../was-here", file)])),
        ("absolute", directory(&[(b"/tmp/ampoule-was-here", file)])),
        ("a nul", directory(&[(b"a\0b", file)])),
        ("no name", directory(&[(b"", file)])),
        ("not in order", directory(&[(b"b", file), (b"a", file)])),
        ("twice", directory(&[(b"a", link), (b"a", file)])),
        ("endless", endless),
    ];
    let workspace = Workspace::new();
    let target = workspace.path().join("target");
    let arguments = ["store", "restore", target.to_str().unwrap()];
    for (name, bytes) in cases {
        let ran = feed(&workspace, &arguments, &bytes);
        assert_eq!(ran.code, 1, "{name}: {}", ran.stderr);
        ran.says(&["error: `", "target`: "]);
        assert!(!workspace.path().join("was-here").exists() && !Path::new("/tmp/ampoule-was-here").exists(), "{name}");
        let _ = fs::remove_dir_all(&target).or_else(|_| fs::remove_file(&target));
    }
    assert_eq!(feed(&workspace, &arguments, &whole).code, 0);
}

#[test]
fn what_no_store_can_hold_is_refused() {
    let workspace = Workspace::new();
    let socket = workspace.path().join("socket");
    let _server = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    workspace.fails(1, &["store", "add", socket.to_str().unwrap()]).says(&["error: `", "socket`: "]);
    workspace.fails(1, &["store", "add", "/nonexistent/file"]).says(&["`/nonexistent/file`", "No such file"]);
    let file = workspace.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    workspace.fails(1, &["store", "add", "--name", "a b", file]).says(&["`a b`"]);
    workspace.fails(2, &["store", "add", "--name", "x", file, file]).says(&["several were given"]);
    workspace.fails(2, &["store", "info", "nonsense"]).says(&["`nonsense` is not a store path", "hint: "]);
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    workspace.fails(1, &["store", "info", absent]).says(&[absent, "is not valid in the store"]);
    workspace.verify_store();
}
