use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::zip_writer::ZipWriter;

/// A wheel on disk; a `*` at the end of a name means that it may be executed.
fn wheel(directory: &Path, file_name: &str, files: &[(&str, &str)]) -> PathBuf {
    let mut zip = ZipWriter::new(Vec::new());
    for (path, body) in files {
        zip.add(path.trim_end_matches('*'), body.as_bytes(), path.ends_with('*')).unwrap();
    }
    let path = directory.join(file_name);
    std::fs::write(&path, zip.finish().unwrap()).unwrap();
    path
}

fn check(wheels: &[(&str, &[(&str, &str)])]) -> Result<BTreeMap<String, String>, String> {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = wheels.iter().map(|(name, files)| wheel(directory.path(), name, files)).collect();
    let into = directory.path().join("out");
    build(&paths, &into).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    let mut pending = vec![into.clone()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let executable = std::fs::metadata(&path).unwrap().permissions().mode() & 0o111 != 0;
            let name = format!("{}{}", path.strip_prefix(&into).unwrap().display(), if executable { "*" } else { "" });
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    Ok(found)
}

#[test]
fn each_part_of_a_wheel_has_its_place() {
    let files = [
        ("pkg/__init__.py", "x = 1"),
        ("pkg/tool.so*", "elf"),
        ("pkg/__pycache__/x.pyc", "time"),
        ("a-1.0.data/purelib/pure.py", "pure"),
        ("a-1.0.data/platlib/plat.py", "plat"),
        ("a-1.0.data/scripts/run", "#!python -x\nprint()\n"),
        ("a-1.0.data/scripts/other", "#!/bin/sh\n"),
        ("a-1.0.data/scripts/program", "\u{7f}ELF"),
        ("a-1.0.data/headers/a.h", "int x;"),
        ("a-1.0.data/data/share/doc/x", "text"),
        ("a-1.0.dist-info/METADATA", "Name: a\n"),
        ("a-1.0.dist-info/entry_points.txt", "[console_scripts]\na-tool = pkg:main\n"),
    ];
    let found = check(&[("0123456789abcdfghijklmnpqrsvwxyz-a-1.0-py3-none-any.whl", &files)]).unwrap();
    for (path, body) in [
        ("lib/pkg/__init__.py", "x = 1"),
        ("lib/pkg/tool.so*", "elf"),
        ("lib/pure.py", "pure"),
        ("lib/plat.py", "plat"),
        ("lib/a-1.0.dist-info/METADATA", "Name: a\n"),
        ("bin/run*", "#!/usr/bin/python3 -x\nprint()\n"),
        ("bin/other*", "#!/bin/sh\n"),
        ("bin/program*", "\u{7f}ELF"),
        ("include/a/a.h", "int x;"),
        ("share/doc/x", "text"),
    ] {
        assert_eq!(found.get(path).map(String::as_str), Some(body), "{path} in {:?}", found.keys());
    }
    assert!(found["bin/a-tool*"].starts_with("#!/usr/bin/python3\nimport sys\nfrom pkg import main\n"));
    assert_eq!(found.len(), 12);
}

#[test]
fn wheels_share_directories_and_equal_files() {
    let one: [(&str, &str); 2] = [("ns/__init__.py", ""), ("ns/one.py", "1")];
    let two: [(&str, &str); 2] = [("ns/__init__.py", ""), ("ns/two.py", "2")];
    let found = check(&[("one-1-py3-none-any.whl", &one), ("two-1-py3-none-any.whl", &two)]).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["lib/ns/__init__.py", "lib/ns/one.py", "lib/ns/two.py"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let name = "a-1.0-py3-none-any.whl";
    for (reason, path, body) in [
        ("`..`", "../x.py", ""),
        ("`..`", "a-1.0.data/data/../../x", ""),
        ("absolute", "/x.py", ""),
        ("no one knows", "a-1.0.data/elsewhere/x", ""),
        ("not `name = module:function`", "a-1.0.dist-info/entry_points.txt", "[console_scripts]\n../x = a:b\n"),
    ] {
        let error = check(&[(name, &[(path, body)])]).unwrap_err();
        assert!(error.contains(reason) && error.contains(name), "`{error}` does not say `{reason}`");
    }
    let error = check(&[("x.whl", &[])]).unwrap_err();
    assert!(error.contains("`x.whl` is not the file name of a wheel"), "{error}");
}

#[test]
fn conflicts_name_both_wheels() {
    let error = check(&[("one-1-py3-none-any.whl", &[("x.py", "1")]), ("two-1-py3-none-any.whl", &[("x.py", "2")])])
        .unwrap_err();
    assert_eq!(
        error,
        "`lib/x.py` is in the wheel `one-1-py3-none-any.whl` and, with other contents, in the wheel `two-1-py3-none-any.whl`"
    );
    let error = check(&[("one-1-py3-none-any.whl", &[]), ("One-2-py3-none-any.whl", &[])]).unwrap_err();
    assert!(error.contains("same distribution"), "{error}");
    let error =
        check(&[("one-1-py3-none-any.whl", &[("x", "1")]), ("two-1-py3-none-any.whl", &[("x/y", "2")])]).unwrap_err();
    assert!(error.contains("not a directory"), "{error}");
    let script = ("one-1.data/scripts/tool", "#!python\n");
    let error = check(&[(
        "one-1-py3-none-any.whl",
        &[script, ("one-1.dist-info/entry_points.txt", "[console_scripts]\ntool = a:b\n")],
    )]);
    assert!(error.unwrap_err().contains("`bin/tool`"));
}

#[test]
fn only_the_store_hash_is_taken_away() {
    assert_eq!(without_store_hash("0123456789abcdfghijklmnpqrsvwxyz-a-1.whl"), "a-1.whl");
    assert_eq!(without_store_hash("a-1.whl"), "a-1.whl");
}
