use super::*;
use crate::elf::tests::library;

const X86_64: u16 = 62;

/// Files of a wheel to be, and how it is to be packed.
struct Draft {
    file_name: String,
    files: Vec<(String, Vec<u8>)>,
    /// Replaces `RECORD`.
    record: Option<String>,
}

fn draft(tag: &str, files: &[(&str, &[u8])]) -> Draft {
    let metadata = "Metadata-Version: 2.1\nName: Some.Name\nVersion: 1.0\nSummary: x\n\nVersion: 9\n";
    let wheel = format!("Wheel-Version: 1.0\nGenerator: backend (1)\nRoot-Is-Purelib: false\nTag: {tag}\n");
    let mut all: Vec<(String, Vec<u8>)> = files.iter().map(|(path, body)| (path.to_string(), body.to_vec())).collect();
    all.push(("Some_Name-1.0.dist-info/METADATA".to_owned(), metadata.as_bytes().to_vec()));
    all.push(("Some_Name-1.0.dist-info/WHEEL".to_owned(), wheel.into_bytes()));
    Draft { file_name: format!("Some_Name-1.0-{tag}.whl"), files: all, record: None }
}

fn native(files: &[(&str, &[u8])]) -> Draft {
    let so = library(X86_64, &["libc.so.6"], &[("libc.so.6", "GLIBC_2.14")]);
    let so: (&str, &[u8]) = ("pkg/_x.cpython-311-x86_64-linux-gnu.so", &so);
    draft("cp311-cp311-linux_x86_64", &[&[("pkg/__init__.py", &b"x = 1\n"[..]), so], files].concat())
}

impl Draft {
    fn pack(&self) -> Vec<u8> {
        let mut zip = ZipWriter::new(Vec::new());
        let mut record = String::new();
        for (path, body) in &self.files {
            zip.add(path, body, path.ends_with(".so")).unwrap();
            record += &record::line(path, &Digest::of(body));
        }
        let path = "Some_Name-1.0.dist-info/RECORD";
        record += &record::own_line(path);
        if !self.files.iter().any(|(existing, _)| existing == path) {
            zip.add(path, self.record.as_ref().unwrap_or(&record).as_bytes(), false).unwrap();
        }
        zip.finish().unwrap()
    }

    fn body(&mut self, path: &str) -> &mut Vec<u8> {
        let found = self.files.iter_mut().find(|(existing, _)| existing.ends_with(path));
        &mut found.unwrap().1
    }
}

fn expectation(native: bool) -> Expectation {
    Expectation {
        name: "some-name".to_owned(),
        version: "1.0".to_owned(),
        platform: Platform::LinuxX86_64,
        python: PythonVersion::new(11),
        native,
        modules: vec!["pkg".to_owned()],
        tag: None,
    }
}

fn canonical(draft: &Draft, expected: &Expectation) -> Result<(String, Vec<u8>), String> {
    let bytes = draft.pack();
    let wheel = Wheel::read(&draft.file_name, &bytes, expected).map_err(|error| error.to_string())?;
    Ok((wheel.file_name(), wheel.write(Vec::new()).unwrap()))
}

fn refused(draft: &Draft, expected: &Expectation, reason: &str) {
    let error = canonical(draft, expected).unwrap_err();
    assert!(error.contains(reason), "`{error}` does not say `{reason}`");
}

fn listing(bytes: &[u8]) -> Vec<String> {
    let archive = Archive::parse(bytes).unwrap();
    archive.entries().iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

#[test]
fn a_native_wheel_gets_its_tag_and_its_order() {
    let draft = native(&[("z.py", b""), ("a.py", b"")]);
    let (file_name, bytes) = canonical(&draft, &expectation(true)).unwrap();
    assert_eq!(file_name, "some_name-1.0-cp311-cp311-manylinux_2_17_x86_64.whl");
    assert_eq!(
        listing(&bytes),
        [
            "a.py",
            "pkg/__init__.py",
            "pkg/_x.cpython-311-x86_64-linux-gnu.so",
            "z.py",
            "Some_Name-1.0.dist-info/METADATA",
            "Some_Name-1.0.dist-info/WHEEL",
            "Some_Name-1.0.dist-info/RECORD",
        ]
    );
    let archive = Archive::parse(&bytes).unwrap();
    let wheel = archive.read(&archive.entries()[5], 1 << 20).unwrap();
    let expected = "Wheel-Version: 1.0\nGenerator: backend (1)\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_17_x86_64\n\n";
    assert_eq!(String::from_utf8(wheel).unwrap(), expected);
}

#[test]
fn canonical_wheels_stay_as_they_are_and_do_not_depend_on_order() {
    let mut draft = native(&[("z.py", b"z"), ("a.py", b"a")]);
    let (file_name, bytes) = canonical(&draft, &expectation(true)).unwrap();
    let again = Wheel::read(&file_name, &bytes, &expectation(true)).unwrap();
    assert_eq!((again.file_name(), again.write(Vec::new()).unwrap()), (file_name.clone(), bytes.clone()));
    draft.files.reverse();
    assert_eq!(canonical(&draft, &expectation(true)).unwrap(), (file_name, bytes));
}

#[test]
fn a_pure_wheel_keeps_its_tag() {
    let draft = draft("py3-none-any", &[("pkg/__init__.py", b"")]);
    assert_eq!(canonical(&draft, &expectation(false)).unwrap().0, "some_name-1.0-py3-none-any.whl");
    refused(&draft, &expectation(true), "is pure (`py3-none-any`) although native code is expected");
    let platform = self::draft("cp311-cp311-linux_x86_64", &[("pkg/__init__.py", b"")]);
    refused(&platform, &expectation(true), "although native code is expected");
}

#[test]
fn abi3_stays_and_forbids_bound_modules() {
    let so = library(X86_64, &["libc.so.6"], &[]);
    let stable = draft("cp37-abi3-linux_x86_64", &[("pkg/__init__.py", b""), ("pkg/_x.abi3.so", &so)]);
    let (file_name, _) = canonical(&stable, &expectation(true)).unwrap();
    assert_eq!(file_name, "some_name-1.0-cp37-abi3-manylinux_2_5_x86_64.whl");
    let bound = draft("cp37-abi3-linux_x86_64", &[("pkg/_x.cpython-311-x86_64-linux-gnu.so", &so)]);
    refused(&bound, &expectation(true), "expected `abi3`");
}

#[test]
fn foreign_libraries_leave_the_plain_tag_with_a_reason() {
    let so = library(X86_64, &["libyaml-0.so.2"], &[]);
    let mut expected = expectation(true);
    let draft = draft("cp311-cp311-linux_x86_64", &[("pkg/__init__.py", b""), ("pkg/_x.so", &so)]);
    assert_eq!(canonical(&draft, &expected).unwrap().0, "some_name-1.0-cp311-cp311-linux_x86_64.whl");
    expected.tag = Some("cp311-cp311-manylinux_*".to_owned());
    refused(&draft, &expected, "expected `cp311-cp311-manylinux_*`: `pkg/_x.so` needs `libyaml-0.so.2`");
}

#[test]
fn libraries_in_the_wheel_are_fine() {
    let so = library(X86_64, &["libyaml-1234.so"], &[]);
    let files: [(&str, &[u8]); 3] = [("pkg/__init__.py", b""), ("pkg/_x.so", &so), ("pkg.libs/libyaml-1234.so", &so)];
    let draft = draft("cp311-cp311-linux_x86_64", &files);
    assert_eq!(canonical(&draft, &expectation(true)).unwrap().0, "some_name-1.0-cp311-cp311-manylinux_2_5_x86_64.whl");
}

#[test]
fn other_machines_and_interpreters_are_named() {
    let arm = library(183, &[], &[]);
    let draft_of =
        |path: &str, body: &[u8]| draft("cp311-cp311-linux_x86_64", &[("pkg/__init__.py", b""), (path, body)]);
    refused(
        &draft_of("pkg/_x.so", &arm),
        &expectation(true),
        "`pkg/_x.so` in the wheel is for aarch64 (64-bit), expected x86_64",
    );
    let so = library(X86_64, &[], &[]);
    let other = draft_of("pkg/_x.cpython-311-aarch64-linux-gnu.so", &so);
    refused(&other, &expectation(true), "of `cpython-311-aarch64-linux-gnu`, expected `cpython-311-x86_64-linux-gnu`");
    refused(&draft_of("pkg/_x.so", &so[..40]), &expectation(true), "broken ELF file");
    refused(&draft_of("pkg/_x.so", &so), &expectation(false), "holds native code (`pkg/_x.so`)");
    let any = draft("py3-none-any", &[("pkg/_x.so", &so)]);
    refused(&any, &expectation(true), "for any platform");
    let mut arm64 = expectation(true);
    arm64.platform = Platform::LinuxArm64;
    refused(&native(&[]), &arm64, "not for cp311 on linux-arm64");
}

#[test]
fn name_version_and_modules_must_fit() {
    let mut expected = expectation(true);
    expected.version = "1.0.0".to_owned();
    canonical(&native(&[]), &expected).unwrap();
    expected.version = "1.1".to_owned();
    refused(&native(&[]), &expected, "METADATA says version `1.0`, expected `1.1`");
    let mut fallback = native(&[]);
    *fallback.body("METADATA") = b"Name: some-name\nVersion: 1.0+fallback\n".to_vec();
    refused(&fallback, &expectation(true), "version `1.0+fallback`, expected `1.0`");
    let mut expected = expectation(true);
    expected.name = "other".to_owned();
    refused(&native(&[]), &expected, "name `Some.Name`, expected `other`");
    let mut expected = expectation(true);
    expected.modules = vec!["pkg._x".to_owned(), "pkg._y".to_owned()];
    refused(
        &native(&[]),
        &expected,
        "no module `pkg._y`: none of `pkg/_y.cpython-311-x86_64-linux-gnu.so`, `pkg/_y.abi3.so`",
    );
    canonical(&native(&[("Some_Name-1.0.data/platlib/pkg/_y.py", b"")]), &expected).unwrap();
}

#[test]
fn the_record_is_verified_both_ways() {
    let whole = native(&[]);
    let lines: String = whole.files.iter().map(|(path, body)| record::line(path, &Digest::of(body))).collect();
    let lines = lines + "Some_Name-1.0.dist-info/RECORD,,\n";
    for (reason, record) in [
        ("listed but not in the wheel", lines.clone() + "gone.py,,\n"),
        ("in the wheel but not listed", lines.lines().skip(1).map(|line| format!("{line}\n")).collect()),
        ("listed twice", lines.clone() + lines.lines().next().unwrap()),
        ("has the digest", lines.replace("sha256=", "sha256=x")),
        ("has the digest", lines.replace("sha256=", "md5=")),
        ("bytes, listed are", lines.replace(",6\n", ",7\n")),
        ("line 1 is not", "one,two\n".to_owned()),
    ] {
        let mut draft = native(&[]);
        draft.record = Some(record);
        refused(&draft, &expectation(true), reason);
    }
}

#[test]
fn caches_are_left_out_and_other_compiled_files_refused() {
    let cached = native(&[("pkg/__pycache__/x.cpython-311.pyc", b"time")]);
    assert_eq!(canonical(&cached, &expectation(true)).unwrap(), canonical(&native(&[]), &expectation(true)).unwrap());
    refused(&native(&[("pkg/x.pyc", b"time")]), &expectation(true), "compiled Python");
}

#[test]
fn unsound_wheels_are_refused() {
    for (reason, path) in [
        ("`..`", "../evil.py"),
        ("absolute", "/etc/evil.py"),
        ("do nothing", "a//b.py"),
        ("do nothing", "./b.py"),
        ("control character", "a\nb.py"),
        ("below another file", "pkg/__init__.py/x"),
        ("exactly one `.dist-info`", "Other-1.0.dist-info/METADATA"),
        ("signature", "Some_Name-1.0.dist-info/RECORD.jws"),
    ] {
        refused(&native(&[(path, b"")]), &expectation(true), reason);
    }
    for (reason, wheel) in [
        ("`Tag`", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"),
        ("`Tag`", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: x\n"),
        ("`Root-Is-Purelib`", "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n"),
        ("format version `2.0`", "Wheel-Version: 2.0\nTag: cp311-cp311-linux_x86_64\n"),
        ("its WHEEL file `py3-none-any`", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ] {
        let mut draft = native(&[]);
        *draft.body("WHEEL") = wheel.as_bytes().to_vec();
        refused(&draft, &expectation(true), reason);
    }
    let mut nameless = native(&[]);
    *nameless.body("METADATA") = b"Version: 1.0\n".to_vec();
    refused(&nameless, &expectation(true), "METADATA has no usable `Name`");
    let mut elsewhere = native(&[]);
    elsewhere.file_name = "some_name-1.0.whl".to_owned();
    refused(&elsewhere, &expectation(true), "is not the file name of a wheel");
}

#[test]
fn truncated_and_broken_wheels_never_panic() {
    let draft = native(&[("x,\"y.py", b"odd name")]);
    let whole = draft.pack();
    for length in (0..whole.len()).step_by(3) {
        assert!(Wheel::read(&draft.file_name, &whole[..length], &expectation(true)).is_err());
    }
    for index in 0..whole.len() {
        let mut broken = whole.clone();
        broken[index] ^= 0x5a;
        if let Ok(wheel) = Wheel::read(&draft.file_name, &broken, &expectation(true)) {
            wheel.write(Vec::new()).unwrap();
        }
    }
}

#[test]
fn another_reader_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let (file_name, bytes) = canonical(&native(&[("x,\"y.py", b"odd name")]), &expectation(true)).unwrap();
    #[allow(clippy::disallowed_methods)]
    let listed = {
        std::fs::write(directory.path().join(&file_name), bytes).unwrap();
        let script = "import sys, zipfile, csv, io, hashlib, base64\n\
            z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None\n\
            record = z.namelist()[-1]\n\
            for path, digest, size in csv.reader(io.StringIO(z.read(record).decode())):\n\
            \x20   if path == record: continue\n\
            \x20   body = z.read(path)\n\
            \x20   found = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b'=').decode()\n\
            \x20   assert digest == 'sha256=' + found and size == str(len(body)), path\n\
            print(len(z.namelist()))\n";
        std::process::Command::new("python3").args(["-c", script, &file_name]).current_dir(directory.path()).output()
    };
    match listed {
        Ok(output) if output.status.success() => assert_eq!(output.stdout, b"6\n"),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => drop(std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skipped: there is no `python3` here\n"),
        )),
    }
}
