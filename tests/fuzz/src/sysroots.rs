//! The decoders of archives, packages, patches and programs.

use std::io::{self, Cursor, Read, Write as _};
use std::path::Path;

use ampoule_sysroots::elf::Elf;
use ampoule_sysroots::glob::Glob;
use ampoule_sysroots::limits::Limits;
use ampoule_sysroots::patch::Patch;
use ampoule_sysroots::platform::{Platform, PythonVersion};
use ampoule_sysroots::python_name::Version;
use ampoule_sysroots::spool::{File, Spool};
use ampoule_sysroots::tree::{Bounds, Item, Origin, Tree};
use ampoule_sysroots::tree_path::TreePath;
use ampoule_sysroots::unpack::{Options, unpack};
use ampoule_sysroots::wheel::{Expectation, Wheel};
use ampoule_sysroots::wheel_tag::{WheelName, WheelTag};
use ampoule_sysroots::zip_reader::Archive;
use ampoule_sysroots::zip_writer::ZipWriter;
use ampoule_sysroots::{ar, compression, deb, python_path, tar_reader};
use sha2::{Digest, Sha256};

use super::Target;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "tar", run: tar, cost: 1 },
    Target { name: "zip", run: zip, cost: 1 },
    Target { name: "ar", run: ar, cost: 1 },
    Target { name: "deb", run: deb, cost: 10 },
    Target { name: "unpack", run: unpack_archive, cost: 20 },
    Target { name: "source_compression", run: source_compression, cost: 20 },
    Target { name: "wheel", run: wheel, cost: 2 },
    Target { name: "wheel_metadata", run: wheel_metadata, cost: 3 },
    Target { name: "python_path", run: python_programs, cost: 20 },
    Target { name: "names", run: names, cost: 1 },
    Target { name: "patch", run: patch, cost: 10 },
    Target { name: "elf", run: elf, cost: 1 },
];

/// The most that a decompressor or a body is asked for.
const PLAIN_LIMIT: u64 = 1 << 20;
const LIMITS: Limits = Limits { entries: 1000, bytes: PLAIN_LIMIT, free_bytes: PLAIN_LIMIT, ratio: 300 };

/// Headers and bodies of a plain tar archive.
pub(super) fn tar(bytes: &[u8]) {
    let mut reader = tar_reader::Reader::new(bytes);
    while let Ok(Some(entry)) = reader.next_entry() {
        let _ = TreePath::parse(&entry.path);
        let read = io::copy(&mut (&mut reader).take(PLAIN_LIMIT), &mut io::sink());
        if let Ok(count) = read {
            assert_eq!(count, entry.size.min(PLAIN_LIMIT));
        }
    }
}

/// Entries and bodies of a zip archive.
pub(super) fn zip(bytes: &[u8]) {
    let Ok(archive) = Archive::parse(bytes) else { return };
    for entry in archive.entries() {
        let _ = TreePath::parse(&entry.path);
        if let Ok(body) = archive.read(entry, PLAIN_LIMIT) {
            assert_eq!(body.len() as u64, entry.size);
        }
    }
}

/// Members of an `ar` archive.
pub(super) fn ar(bytes: &[u8]) {
    let Ok(mut reader) = ar::Reader::new(bytes) else { return };
    while let Ok(Some(member)) = reader.next_member() {
        let mut body = Vec::new();
        if (&mut reader).take(PLAIN_LIMIT).read_to_end(&mut body).is_ok() {
            assert!(body.len() as u64 <= member.size);
        }
    }
}

/// Debian packages.
pub(super) fn deb(bytes: &[u8]) {
    let directory = super::scratch();
    let spool = Spool::create(&directory.path().join("new")).expect("a directory can be made");
    let _ = deb::read(bytes, &spool, &LIMITS);
    drop(spool);
    clean(directory.path());
}

/// Source archives of every kind, on disk.
pub(super) fn unpack_archive(bytes: &[u8]) {
    let directory = super::scratch();
    for strip in [0, 1] {
        let options = Options { strip, limits: LIMITS };
        let _ = unpack(Cursor::new(bytes), &directory.path().join("new"), &options, &[]);
        clean(directory.path());
    }
}

/// Insists that nothing lies beside the new directory, and removes that.
fn clean(directory: &Path) {
    super::make_removable(directory);
    for entry in std::fs::read_dir(directory).expect("it is a directory").flatten() {
        assert_eq!(entry.file_name(), "new", "something was written beside the new directory");
        std::fs::remove_dir_all(entry.path()).expect("it can be removed");
    }
}

/// Streams end or fail, in bounded memory.
pub(super) fn source_compression(bytes: &[u8]) {
    let Ok(compression) = compression::Compression::detect(bytes) else { return };
    let Ok(plain) = compression.decode(bytes) else { return };
    let _ = io::copy(&mut plain.take(PLAIN_LIMIT), &mut io::sink());
}

const WHEEL: &str = "demo-1.0-py3-none-any.whl";

fn expectation() -> Expectation {
    Expectation {
        name: "demo".to_owned(),
        version: "1.0".to_owned(),
        platform: Platform::LinuxX86_64,
        python: "cp311".parse::<PythonVersion>().expect("a version that is known"),
        native: false,
        modules: Vec::new(),
        tag: None,
    }
}

/// Whole wheels: what is written of them is canonical, and is accepted again.
pub(super) fn wheel(bytes: &[u8]) {
    let Ok(wheel) = Wheel::read(WHEEL, bytes, &expectation()) else { return };
    let Ok(written) = wheel.write(Vec::new()) else { return };
    let again = Wheel::read(&wheel.file_name(), &written, &expectation()).expect("a canonical wheel is accepted");
    assert_eq!(again.write(Vec::new()).expect("memory takes everything"), written);
}

/// One file of a wheel's metadata among sound ones. The first byte says which.
pub(super) fn wheel_metadata(bytes: &[u8]) {
    let (which, text) = bytes.split_first().map_or((0, bytes), |(which, text)| (which % 4, text));
    let sound: [(&str, &[u8]); 3] = [
        ("METADATA", b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"),
        ("WHEEL", b"Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("entry_points.txt", b"[console_scripts]\ndemo = demo:main\n"),
    ];
    let mut record = String::new();
    let mut zip = ZipWriter::new(Vec::new());
    for (number, (name, body)) in sound.into_iter().enumerate() {
        let body = if number == usize::from(which) { text } else { body };
        let path = format!("demo-1.0.dist-info/{name}");
        let digest = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(body));
        record += &format!("{path},sha256={digest},{}\n", body.len());
        zip.add(&path, body, false).expect("it fits");
    }
    record += "demo-1.0.dist-info/RECORD,,\n";
    let record = if which == 3 { text } else { record.as_bytes() };
    zip.add("demo-1.0.dist-info/RECORD", record, false).expect("it fits");
    wheel(&zip.finish().expect("memory takes everything"));
}

/// Wheels laid out for use.
pub(super) fn python_programs(bytes: &[u8]) {
    let directory = super::scratch();
    let file = directory.path().join(WHEEL);
    let mut made = std::fs::File::create(&file).expect("a file can be made");
    made.write_all(bytes).expect("a file can be written");
    let _ = python_path::build(std::slice::from_ref(&file), &directory.path().join("new"));
    std::fs::remove_file(&file).expect("it is there");
    clean(directory.path());
}

/// Names, tags, versions and patterns, one in each line.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Ok(name) = WheelName::parse(line) {
            let written = name.to_string();
            let again = WheelName::parse(&written).expect("what was written can be read");
            assert_eq!((again.to_string(), again.tags()), (written, name.tags()));
        }
        if let Ok(version) = Version::parse(line) {
            assert_eq!(Version::parse(&version.to_string()).as_ref(), Ok(&version), "{version}");
        }
        let _ = WheelTag::parse(line);
        let _ = (line.parse::<Platform>().is_ok(), line.parse::<PythonVersion>().is_ok());
        if let (Ok(glob), Ok(path)) = (Glob::parse(line), TreePath::parse(b"usr/share/doc/x")) {
            let _ = glob.matches(path.names());
        }
        if let Ok(path) = TreePath::parse(line.as_bytes()) {
            assert_eq!(TreePath::parse(&path.to_bytes()).ok(), Some(path));
        }
    }
}

/// Unified diffs, applied to a small tree.
pub(super) fn patch(bytes: &[u8]) {
    let Ok(patch) = Patch::parse("test", bytes) else { return };
    let directory = super::scratch();
    let spool = Spool::create(&directory.path().join("new")).expect("a directory can be made");
    let mut tree = Tree::new(Bounds::Contained);
    let origin = Origin::from("the test");
    for (path, body) in [("a", "one\ntwo\nthree\n"), ("src/b.c", "int main(void)\n{\n\treturn 0;\n}\n")] {
        let path = TreePath::parse(path.as_bytes()).expect("it is a path");
        let file = File::from_bytes(body.as_bytes(), false);
        tree.insert(&path, Item::File(file), &origin).expect("it fits");
    }
    let _ = patch.apply(&mut tree, &spool);
    drop(spool);
    clean(directory.path());
}

/// Programs and libraries.
pub(super) fn elf(bytes: &[u8]) {
    let _ = Elf::parse(bytes);
}
