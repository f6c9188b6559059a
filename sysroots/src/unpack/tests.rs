#![allow(clippy::disallowed_methods)]

use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::compression::tests::{gzip, xz, zstd};
use crate::tar_reader::tests::{archive, entry, seal};

/// Unpacks into a fresh directory and lists what came out; a failure must leave nothing beside it.
fn check(bytes: &[u8], options: &Options) -> Result<Vec<String>, String> {
    let parent = tempfile::tempdir().unwrap();
    let into = parent.path().join("out");
    let result = unpack(Cursor::new(bytes), &into, options, &[]).map_err(|error| error.to_string());
    let beside: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["out"], "something was written outside");
    result.map(|()| list(&into))
}

fn list(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_symlink() {
                found.push(format!("{name} -> {}", std::fs::read_link(&path).unwrap().display()));
            } else if metadata.is_dir() {
                assert_eq!(mode, 0o755, "{name}");
                found.push(format!("{name}/"));
                pending.push(path);
            } else {
                assert!(mode == 0o644 || mode == 0o755, "{name} has mode {mode:o}");
                let mark = if mode == 0o755 { "*" } else { "" };
                found.push(format!("{name}{mark} {}", std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn strip(count: u32) -> Options {
    Options { strip: count, ..Options::default() }
}

fn sample() -> Vec<u8> {
    archive(&[
        entry(b"top/", b'5', b"", 0o700, b""),
        entry(b"top/f", b'0', b"", 0o666, b"one"),
        entry(b"top/x", b'0', b"", 0o4755, b"two"),
        entry(b"top/d/l", b'2', b"../f", 0o777, b""),
        entry(b"top/h", b'1', b"top/f", 0o644, b""),
    ])
}

#[test]
fn every_compression_gives_the_same_tree() {
    let expected = ["d/", "d/l -> ../f", "f one", "h one", "x* two"];
    for bytes in [sample(), gzip(&sample()), xz(&sample()), zstd(&sample())] {
        assert_eq!(check(&bytes, &strip(1)).unwrap(), expected);
    }
    assert_eq!(check(&sample(), &strip(0)).unwrap()[0], "top/");
}

#[test]
fn zip_archives_become_trees_too() {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.start_file("top/run", options.unix_permissions(0o700)).unwrap();
    writer.write_all(b"go").unwrap();
    writer.add_symlink("top/l", "run", options).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert_eq!(check(&bytes, &strip(1)).unwrap(), ["l -> run", "run* go"]);
}

#[test]
fn stripping_needs_one_directory() {
    let two = archive(&[entry(b"a/", b'5', b"", 0o755, b""), entry(b"b", b'0', b"", 0o644, b"")]);
    assert!(check(&two, &strip(1)).unwrap_err().contains("`a` and `b`"));
    let file = archive(&[entry(b"b", b'0', b"", 0o644, b"")]);
    assert!(check(&file, &strip(1)).unwrap_err().contains("only the file `b`"));
    assert!(check(&archive(&[]), &strip(1)).unwrap_err().contains("no entries"));
    assert_eq!(check(&archive(&[]), &strip(0)).unwrap(), [""; 0]);
}

#[test]
fn hostile_entries_are_refused() {
    let file = |path: &[u8]| entry(path, b'0', b"", 0o644, b"body");
    let link = |path: &[u8], target: &[u8]| entry(path, b'2', target, 0o777, b"");
    let hard = |path: &[u8], target: &[u8]| entry(path, b'1', target, 0o644, b"");
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("an absolute path", vec![file(b"/tmp/x")]),
        ("a `..` step", vec![file(b"../x")]),
        ("a `..` step", vec![file(b"a/../../x")]),
        ("leads out", vec![link(b"l", b"/etc/passwd")]),
        ("leads out", vec![link(b"l", b"../x")]),
        ("leads out", vec![link(b"a", b"b/.."), link(b"b", b"..")]),
        ("leads out", vec![link(b"l", b".."), file(b"l/x")]),
        ("leads out", vec![link(b"l", b"/tmp"), file(b"l/x")]),
        ("leads out", vec![link(b"l", b"."), link(b"l/m", b".."), file(b"l/m/x")]),
        ("is a symbolic link", vec![link(b"l", b"target"), file(b"l")]),
        ("is a directory", vec![file(b"d/x"), file(b"d")]),
        ("not a directory", vec![file(b"f"), file(b"f/x")]),
        ("twice", vec![file(b"f"), entry(b"./f", b'0', b"", 0o644, b"other")]),
        ("not an earlier file", vec![hard(b"h", b"later"), file(b"later")]),
        ("not an earlier file", vec![file(b"d/x"), hard(b"h", b"d")]),
        ("absolute path", vec![hard(b"h", b"/etc/passwd")]),
        ("a `..` step", vec![hard(b"h", b"../../etc/passwd")]),
        ("leads out", vec![link(b"l", b"../../etc/passwd"), hard(b"h", b"l")]),
        ("a device", vec![entry(b"n", b'4', b"", 0o644, b"")]),
        ("a named pipe", vec![entry(b"p", b'6', b"", 0o644, b"")]),
        ("symbolic links", vec![link(b"a", b"b"), link(b"b", b"a"), file(b"a/x")]),
        ("reserved", vec![file(b".ampoule-spool")]),
    ];
    for (reason, entries) in cases {
        let error = check(&archive(&entries), &strip(0)).unwrap_err();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn the_same_file_twice_is_one_file() {
    let file = entry(b"f", b'0', b"", 0o644, b"body");
    assert_eq!(check(&archive(&[file.clone(), file]), &strip(0)).unwrap(), ["f body"]);
}

#[test]
fn bombs_are_refused() {
    let big = entry(b"zeros", b'0', b"", 0o644, &vec![0; 4 << 20]);
    let limits = Limits { free_bytes: 1 << 20, ratio: 100, ..Limits::DEFAULT };
    let options = Options { strip: 0, limits };
    for bytes in [gzip(&archive(std::slice::from_ref(&big))), xz(&archive(&[big]))] {
        assert!(check(&bytes, &options).unwrap_err().contains("out of proportion"));
    }
    let many: Vec<_> = (0..20).map(|index| entry(format!("f{index}").as_bytes(), b'0', b"", 0o644, b"")).collect();
    let options = Options { strip: 0, limits: Limits { entries: 10, ..Limits::DEFAULT } };
    assert!(check(&archive(&many), &options).unwrap_err().contains("more than 10 entries"));
}

#[test]
fn holes_count_as_bytes() {
    let mut sparse = entry(b"f", b'S', b"", 0o644, b"");
    sparse[483..495].copy_from_slice(&[&[0x80][..], &[0; 3], &(1_u64 << 60).to_be_bytes()].concat());
    seal(&mut sparse);
    let refused = check(&archive(&[sparse]), &tight(10_000)).unwrap_err();
    assert!(refused.contains("unpacks to more than 10000 bytes"), "{refused}");
    let files = [b"a", b"b"].map(|name| entry(name, b'0', b"", 0o644, &[0; 600]));
    assert!(check(&archive(&files), &tight(10_000)).is_ok());
}

fn tight(bytes: u64) -> Options {
    let limits = Limits { bytes, ..Limits::DEFAULT };
    Options { limits, ..Options::default() }
}

#[test]
fn broken_bytes_never_panic_and_never_leave_the_directory() {
    let whole = gzip(&sample());
    for index in (0..whole.len()).step_by(3) {
        let mut broken = whole.clone();
        broken[index] ^= 0xa5;
        drop(check(&broken, &strip(1)));
        drop(check(&whole[..index], &strip(1)).unwrap_err());
    }
    let whole = sample();
    for index in (0..whole.len()).step_by(7) {
        let mut broken = whole.clone();
        broken[index] = b'.';
        drop(check(&broken, &strip(1)));
    }
}

#[test]
fn gnu_tar_agrees() {
    let parent = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program)
            .args(arguments)
            .current_dir(parent.path())
            .output()
            .ok()
            .filter(|output| output.status.success())
    };
    if run("tar", &["--version"]).is_none() {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: there is no `tar` here\n"));
        return;
    }
    let source = parent.path().join("source");
    let long = "n".repeat(120);
    std::fs::create_dir_all(source.join(&long).join(&long)).unwrap();
    std::fs::write(source.join(&long).join(&long).join("f"), "deep").unwrap();
    std::fs::write(source.join("hole"), "start").unwrap();
    std::fs::OpenOptions::new().write(true).open(source.join("hole")).unwrap().set_len(100_000).unwrap();
    std::fs::hard_link(source.join("hole"), source.join("second")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), source.join("link")).unwrap();
    for format in ["gnu", "posix", "--sparse"] {
        let format_option = if format == "--sparse" { "--format=gnu".to_owned() } else { format!("--format={format}") };
        let sparse = if format == "--sparse" { "--sparse" } else { "--no-seek" };
        run("tar", &["-c", "-f", "a.tar", &format_option, sparse, "source"]).unwrap();
        let bytes = std::fs::read(parent.path().join("a.tar")).unwrap();
        assert_eq!(check(&bytes, &strip(1)).unwrap(), list(&source), "{format}");
    }
}
