use super::*;

/// Runs a builder on paths below a fresh directory; `@` in a value stands for that directory.
fn check(builder: &str, files: &[(&str, &[u8])], env: &[(&str, &str)]) -> (tempfile::TempDir, Result<(), String>) {
    let directory = tempfile::tempdir().unwrap();
    for (path, body) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }
    let shown = directory.path().display().to_string();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.replace('@', &shown))).collect();
    let result = run(builder, &env, &directory.path().join("out")).map_err(|error| {
        let mut text = error.to_string();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    });
    (directory, result)
}

fn refused(builder: &str, files: &[(&str, &[u8])], env: &[(&str, &str)], reason: &str) {
    let error = check(builder, files, env).1.unwrap_err();
    assert!(error.contains(reason), "`{error}` does not say `{reason}`");
}

#[test]
fn unpacking_strips_and_patches() {
    // `top/f` with the text `one\n`, as `tar --format=v7` writes it.
    let mut archive = vec![0u8; 2048];
    archive[..5].copy_from_slice(b"top/f");
    archive[100..108].copy_from_slice(b"0000644\0");
    archive[124..136].copy_from_slice(b"00000000004\0");
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive[512..516].copy_from_slice(b"one\n");
    let patch = b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-one\n+two\n";
    let files: [(&str, &[u8]); 2] = [("a.tar", &archive), ("f.patch", patch)];
    let env = [("src", "@/a.tar"), ("strip", "1"), ("patches", "[\"@/f.patch\"]")];
    let (directory, result) = check(builtin::UNPACK, &files, &env);
    result.unwrap();
    assert_eq!(fs::read(directory.path().join("out/f")).unwrap(), b"two\n");
    let again = [("src", "@/a.tar"), ("strip", "1"), ("patches", "[\"@/f.patch\", \"@/f.patch\"]")];
    refused(builtin::UNPACK, &files, &again, "hunk 1 of `f`");
    refused(builtin::UNPACK, &[], &[("src", "@/gone"), ("strip", "1"), ("patches", "[]")], "cannot read the input");
}

#[test]
fn a_build_must_leave_one_wheel() {
    let env = [
        ("raw", "@/raw"),
        ("project", "x"),
        ("version", "1"),
        ("platform", "linux-x86_64"),
        ("python", "cp311"),
        ("expect", "{\"native\": true, \"modules\": []}"),
    ];
    refused(builtin::WHEEL, &[("raw/a.whl", b""), ("raw/b.whl", b"")], &env, "it left `a.whl`, `b.whl`");
    refused(builtin::WHEEL, &[("raw/a.txt", b"")], &env, "it left `a.txt`");
    refused(builtin::WHEEL, &[], &env, "cannot read the input");
    refused(builtin::WHEEL, &[("raw/x-1-py3-none-any.whl", b"no zip")], &env, "not a zip archive");
    let mut other = env;
    other[3].1 = "linux-mips";
    refused(builtin::WHEEL, &[("raw/a.whl", b"")], &other, "unknown platform `linux-mips`");
}

#[test]
fn nothing_makes_empty_trees() {
    let (directory, result) = check(builtin::PYTHON_PATH, &[], &[("wheels", "[]")]);
    result.unwrap();
    assert!(directory.path().join("out/lib").is_dir() && directory.path().join("out/bin").is_dir());
    let env = [("packages", "[]"), ("links", "{}"), ("files", "{\"etc/x\": \"y\"}"), ("drop", "[]")];
    let (directory, result) = check(builtin::DEBIAN_TREE, &[], &env);
    result.unwrap();
    assert_eq!(fs::read(directory.path().join("out/etc/x")).unwrap(), b"y");
}

#[test]
fn what_runs_elsewhere_or_nowhere_is_refused() {
    let fetch = [("source", "{}"), ("file", "x")];
    refused(builtin::FETCH, &[], &fetch, "does not run in the sandbox");
    refused("builtin:nothing-v1", &[], &[], "no builtin builder is named");
    refused(builtin::WHEEL, &[], &[], "needs the variable");
}
