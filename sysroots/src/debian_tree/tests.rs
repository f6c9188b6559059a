use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::deb::tests::package;
use crate::tar_reader::tests::entry;

fn file(path: &str, body: &str) -> Vec<u8> {
    entry(path.as_bytes(), b'0', b"", 0o644, body.as_bytes())
}

fn link(path: &str, target: &str) -> Vec<u8> {
    entry(path.as_bytes(), b'2', target.as_bytes(), 0o777, b"")
}

struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    fn has(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.directory.path().join("out").join(path)).is_ok()
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.directory.path().join("out").join(path)).unwrap()
    }

    fn target(&self, path: &str) -> String {
        std::fs::read_link(self.directory.path().join("out").join(path)).unwrap().display().to_string()
    }
}

fn merge(packages: &[(&str, Vec<Vec<u8>>)], additions: &Additions) -> Result<Root, String> {
    let directory = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, entries) in packages {
        let path = directory.path().join(format!("{name}.deb"));
        std::fs::write(&path, package(name, entries)).unwrap();
        paths.push(path);
    }
    let into = directory.path().join("out");
    build(&paths, additions, &into, 3, &Limits::DEFAULT).map_err(|error| error.to_string())?;
    Ok(Root { directory })
}

fn additions(links: &[(&str, &str)], files: &[(&str, &str)], drop: &[&str]) -> Additions {
    let owned =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    Additions { links: owned(links), files: owned(files), drop: drop.iter().map(|glob| glob.to_string()).collect() }
}

#[test]
fn top_directories_are_merged_into_usr() {
    let packages = [
        ("one", vec![file("./lib/x/a.so", "a"), link("./lib64/ld.so", "/lib/x/a.so"), file("./bin/sh", "sh")]),
        ("two", vec![entry(b"./lib/", b'5', b"", 0o755, b""), file("./usr/lib/x/b.so", "b"), link("bin", "usr/bin")]),
    ];
    let root = merge(&packages, &Additions::default()).unwrap();
    assert_eq!((root.text("usr/lib/x/a.so"), root.text("usr/lib/x/b.so")), ("a".into(), "b".into()));
    assert_eq!((root.target("lib"), root.target("bin")), ("usr/lib".into(), "usr/bin".into()));
    assert_eq!(root.target("usr/lib64/ld.so"), "/lib/x/a.so");
    for directory in ["proc", "dev", "tmp", "build", "nix/store", "etc", "root", "usr/sbin"] {
        assert!(root.has(directory), "{directory}");
    }
    assert!(!root.has("lib32") && !root.has(".ampoule-spool"));
}

#[test]
fn rare_top_directories_are_merged_when_used() {
    let root =
        merge(&[("one", vec![file("./libx32/a", "a"), file("./usr/lib32/b", "b")])], &Additions::default()).unwrap();
    assert_eq!((root.target("libx32"), root.target("lib32")), ("usr/libx32".into(), "usr/lib32".into()));
    assert_eq!(root.text("usr/libx32/a"), "a");
}

#[test]
fn equal_files_agree_and_different_ones_name_both_packages() {
    let one = |body: &str| vec![file("./usr/share/x", body)];
    merge(&[("one", one("same")), ("two", one("same"))], &Additions::default()).unwrap();
    let error = merge(&[("one", one("this")), ("two", one("that"))], &Additions::default()).err().unwrap();
    assert_eq!(
        error,
        "`usr/share/x` is in the package `one:amd64` and, with other contents, in the package `two:amd64`"
    );
    let merged = [("one", vec![file("./bin/x", "this")]), ("two", vec![file("./usr/bin/x", "that")])];
    assert!(merge(&merged, &Additions::default()).err().unwrap().contains("`usr/bin/x`"));
    let kinds = [("one", vec![link("./usr/x", "y")]), ("two", vec![file("./usr/x", "that")])];
    let error = merge(&kinds, &Additions::default()).err().unwrap();
    assert!(error.contains("`one:amd64`") && error.contains("`two:amd64`"), "{error}");
}

#[test]
fn a_directory_agrees_with_a_link_to_one() {
    let one = vec![file("./usr/new/a", "a"), link("./usr/old", "new")];
    let two = vec![entry(b"./usr/old/", b'5', b"", 0o755, b""), file("./usr/old/b", "b")];
    let root = merge(&[("one", one), ("two", two)], &Additions::default()).unwrap();
    assert_eq!(root.text("usr/new/b"), "b");
}

#[test]
fn additions_take_the_place_of_files() {
    let packages =
        [("gcc", vec![file("./usr/bin/gcc", "gcc"), file("./etc/hosts", "old"), file("./usr/share/doc/gcc/x", "")])];
    let wanted = additions(
        &[("usr/bin/cc", "gcc"), ("/bin/c99", "/usr/bin/gcc"), ("etc/mtab", "/proc/mounts")],
        &[("etc/hosts", "127.0.0.1 localhost\n"), ("usr/bin/run", "#!/bin/sh\n")],
        &["usr/share/doc/**"],
    );
    let root = merge(&packages, &wanted).unwrap();
    assert_eq!(root.text("etc/hosts"), "127.0.0.1 localhost\n");
    assert_eq!((root.target("usr/bin/cc"), root.target("usr/bin/c99")), ("gcc".into(), "/usr/bin/gcc".into()));
    assert!(!root.has("usr/share/doc"));
    let mode = |path: &str| {
        let metadata = std::fs::metadata(root.directory.path().join("out").join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("usr/bin/run"), mode("etc/hosts")), (0o755, 0o644));
}

#[test]
fn links_to_nothing_and_paths_that_escape_are_refused() {
    let packages = [("gcc", vec![file("./usr/bin/gcc-12", "gcc")])];
    let error = |wanted: &Additions| merge(&packages, wanted).err().unwrap();
    assert!(error(&additions(&[("usr/bin/cc", "gcc")], &[], &[])).contains("points to nothing"));
    assert!(error(&additions(&[("../cc", "gcc-12")], &[], &[])).contains("`..`"));
    assert!(error(&additions(&[], &[("usr", "x")], &[])).contains("a directory"));
    assert!(error(&additions(&[], &[], &["a/../b"])).contains("not a pattern"));
}

#[test]
fn patterns_fit_both_names_of_a_merged_path() {
    for pattern in ["lib/udev/**", "usr/lib/udev/**", "**/*.rules"] {
        let packages = [("one", vec![file("./lib/udev/a.rules", "a"), file("./usr/lib/udev.conf", "b")])];
        let root = merge(&packages, &additions(&[], &[], &[pattern])).unwrap();
        assert!(!root.has("usr/lib/udev/a.rules") && root.has("usr/lib/udev.conf"), "{pattern}");
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let mut packages = Vec::new();
    for index in 0..12 {
        let path = directory.path().join(format!("{index}.deb"));
        let body = format!("{index}").repeat(index * 1000);
        std::fs::write(&path, package(&format!("p{index}"), &[file(&format!("./usr/{index}"), &body)])).unwrap();
        packages.push(path);
    }
    // One that is broken, so that all runs must also agree on the error.
    let broken =
        [packages.clone(), vec![directory.path().join("gone.deb"), directory.path().join("gone2.deb")]].concat();
    for threads in [0, 1, 2, 5, 100] {
        let into = directory.path().join(format!("out{threads}"));
        build(&packages, &Additions::default(), &into, threads, &Limits::DEFAULT).unwrap();
        for index in 0..12 {
            let body = std::fs::read_to_string(into.join(format!("usr/{index}"))).unwrap();
            assert_eq!(body, format!("{index}").repeat(index * 1000));
        }
        let into = directory.path().join(format!("broken{threads}"));
        let error = build(&broken, &Additions::default(), &into, threads, &Limits::DEFAULT).unwrap_err();
        assert!(error.to_string().contains("gone.deb"), "{error}");
    }
}

#[test]
fn a_broken_package_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.deb");
    std::fs::write(&path, b"!<arch>\nnot really").unwrap();
    let into = directory.path().join("out");
    let error = build(&[path], &Additions::default(), &into, 1, &Limits::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("bad.deb"), "{error}");
    let missing = directory.path().join("missing.deb");
    let error =
        build(&[missing], &Additions::default(), &directory.path().join("out2"), 1, &Limits::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("missing.deb"), "{error}");
}

#[test]
fn dpkg_deb_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).current_dir(directory.path()).output();
        output.ok().filter(|output| output.status.success())
    };
    if run("dpkg-deb", &["--version"]).is_none() || run("diff", &["--version"]).is_none() {
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: there is no `dpkg-deb` here\n"));
        return;
    }
    let tree = directory.path().join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/share/a/long").join("n".repeat(150))).unwrap();
    std::fs::write(
        tree.join("DEBIAN/control"),
        "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n",
    )
    .unwrap();
    std::fs::write(tree.join("usr/share/a/long").join("n".repeat(150)).join("f"), "text").unwrap();
    std::fs::write(tree.join("usr/share/a/g"), "text").unwrap();
    std::fs::hard_link(tree.join("usr/share/a/g"), tree.join("usr/share/a/h")).unwrap();
    std::os::unix::fs::symlink("g", tree.join("usr/share/a/l")).unwrap();
    for compression in ["-Zxz", "-Zzstd", "-Zgzip", "-Znone"] {
        if run("dpkg-deb", &["--root-owner-group", compression, "-b", "tree", "sample.deb"]).is_none() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: this `dpkg-deb` has no {compression}\n"),
            );
            continue;
        }
        run("dpkg-deb", &["-x", "sample.deb", &format!("theirs{compression}")]).unwrap();
        let ours = directory.path().join(format!("ours{compression}"));
        let packages = [directory.path().join("sample.deb")];
        build(&packages, &Additions::default(), &ours, 1, &Limits::DEFAULT).unwrap();
        let theirs = format!("theirs{compression}/usr/share");
        run("diff", &["-r", "--no-dereference", &theirs, &format!("ours{compression}/usr/share")]).unwrap();
    }
}
