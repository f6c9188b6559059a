#![allow(clippy::disallowed_methods, reason = "tests make files")]

use std::fs;
use std::io::Write;
use std::path::Path;

use super::*;

type Maker<'m> = &'m dyn Fn(&Path);

fn compare_with(first: Maker<'_>, second: Maker<'_>, limits: &Limits) -> StructuralDifference {
    let directory = tempfile::tempdir().unwrap();
    let (left, right) = (directory.path().join("first"), directory.path().join("second"));
    first(&left);
    second(&right);
    let report = structural_difference(&left, &right, limits).unwrap();
    let different = first_difference(&left, &right).unwrap().is_some();
    assert_eq!(different, !report.changes.is_empty(), "{report}");
    report
}

fn compare(first: &[u8], second: &[u8], name: &str) -> StructuralDifference {
    let write = |root: &Path, bytes: &[u8]| {
        fs::create_dir(root).unwrap();
        fs::write(root.join(name), bytes).unwrap();
    };
    compare_with(&|root| write(root, first), &|root| write(root, second), &Limits::default())
}

/// Compares, and insists on what the first lines and the causes say.
fn check(first: &[u8], second: &[u8], name: &str, expected: &[&str], causes: &[Cause]) {
    let report = compare(first, second, name);
    let text = report.to_string();
    for line in expected {
        assert!(text.lines().any(|found| found.starts_with(line)), "`{line}` is missing in:\n{text}");
    }
    assert_eq!(report.causes(), causes, "{text}");
}

fn gzip(bytes: &[u8], time: u32, level: u32) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(members: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, body, time) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mtime(*time);
        header.set_mode(0o644);
        header.set_uid(1000);
        builder.append_data(&mut header, name, *body).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A zip archive of stored members, each with its date of MS-DOS.
fn zip(members: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, body, time) in members {
        let mut crc = flate2::Crc::new();
        crc.update(body);
        let offset = archive.len() as u32;
        let size = (body.len() as u32).to_le_bytes();
        let shared = [
            &[0, 0, 0, 0][..],
            &time.to_le_bytes(),
            &crc.sum().to_le_bytes(),
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        archive.extend([&b"PK\x03\x04\x14\0"[..], &shared, name.as_bytes(), body].concat());
        directory.extend([&b"PK\x01\x02\x14\x03\x14\0"[..], &shared, &[0; 6]].concat());
        directory.extend([0, 0, 0xa4, 0x81]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (start, size) = (archive.len() as u32, directory.len() as u32);
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend((members.len() as u16).to_le_bytes().repeat(2));
    archive.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    archive.extend([0, 0]);
    archive
}

fn ar(members: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, body, time) in members {
        archive.extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 100_644, body.len()).bytes());
        archive.extend(*body);
        archive.extend(vec![b'\n'; body.len() % 2]);
    }
    archive
}

#[test]
fn trees_are_compared_entry_by_entry() {
    let base = |root: &Path| {
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("a"), "same").unwrap();
        fs::write(root.join("b/c/d"), "one\ntwo\nthree\n").unwrap();
        std::os::unix::fs::symlink("a", root.join("l")).unwrap();
    };
    let other = |root: &Path| {
        fs::create_dir_all(root.join("b/c/new")).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("b/c/d"), "one\n2\nthree\n").unwrap();
        fs::set_permissions(root.join("b/c/d"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("b", root.join("l")).unwrap();
    };
    let expected = "\
a: type is `file` first, then `directory`
b/c/d: executable is `no` first, then `yes`
b/c/d: lines differ
  @@ line 1 first, then line 1 @@
    one
  - two
  + 2
    three
b/c/new: only the second has it
l: target is `a` first, then `b`
likely causes:
  permission bits: set them explicitly
";
    assert_eq!(compare_with(&base, &other, &Limits::default()).to_string(), expected);
    assert_eq!(compare_with(&base, &base, &Limits::default()), StructuralDifference::default());
    let only = compare_with(&other, &base, &Limits { changes: 2, ..Limits::default() });
    assert_eq!((only.changes.len(), only.omitted), (2, 3));
}

#[test]
fn members_of_archives_are_named_with_their_archive() {
    let wheel = |line: &str| zip(&[("pkg/a.py", b"same", 0x5c21_0000), ("pkg/b.py", line.as_bytes(), 0x5c21_0000)]);
    let expected = ["x.whl » pkg/b.py: lines differ", "  - built 2026-11-21", "  + built 2030-04-02"];
    check(&wheel("built 2026-11-21\n"), &wheel("built 2030-04-02\n"), "x.whl", &expected, &[Cause::Date]);
    let packed = |time: u32, line: &str| gzip(&tar(&[("x/a", line.as_bytes(), 1), ("x/b", b"", 1)]), time, 6);
    let expected = [
        "x.tar.gz: time is `2026-11-21 00:57:14 UTC` first, then `2030-11-26 08:30:34 UTC`",
        "x.tar.gz » x/a: lines differ",
    ];
    let causes = [Cause::GzipTime, Cause::Number];
    check(&packed(1_795_222_634, "cores 4"), &packed(1_921_912_234, "cores 1"), "x.tar.gz", &expected, &causes);
    let nested = |line: &str| zip(&[("inner.tar.gz", &packed(0, line), 0), ("plain.gz", &gzip(b"x", 0, 6), 0)]);
    check(
        &nested("a 0x7ffe2b3c4d50"),
        &nested("a 0x7ffd11112222"),
        "o.zip",
        &["o.zip » inner.tar.gz » x/a: lines differ"],
        &[Cause::Pointer],
    );
    check(
        &gzip(b"one\n", 0, 6),
        &gzip(b"two\n", 0, 6),
        "d/x.txt.gz".rsplit('/').next().unwrap(),
        &["x.txt.gz » x.txt: lines differ"],
        &[],
    );
}

#[test]
fn properties_of_members_are_summed_up() {
    let archive = |time| zip(&[("a", b"same", time), ("b", b"same", time), ("c", b"same", time)]);
    let expected =
        ["x.zip » a: time is `2026-01-01 00:00:00` first, then `2030-01-01 00:00:00`, and in 2 more members"];
    check(&archive(0x5c21_0000), &archive(0x6421_0000), "x.zip", &expected, &[Cause::ZipTime]);
    let library = |time| ar(&[("/", b"index", time), ("//", b"a_very_long_name.o/\n", 0), ("/0", b"code", time)]);
    let expected =
        ["lib.a » symbols: time is `2017-07-14 02:40:00 UTC` first, then `2020-09-13 12:26:40 UTC`, and in one"];
    check(&library(1_500_000_000), &library(1_600_000_000), "lib.a", &expected, &[Cause::ArTime]);
    let tarball = |time, reversed| {
        let mut members = [("a", &b"1"[..], time), ("b", b"2", time), ("c", b"3", time)];
        if reversed {
            members.reverse();
        }
        tar(&members)
    };
    check(
        &tarball(7, false),
        &tarball(7, true),
        "x.tar",
        &["x.tar: the same in another order", "  - a, b, c"],
        &[Cause::MemberOrder],
    );
    check(&tarball(7, false), &tarball(8, false), "x.tar", &["x.tar » a: time is"], &[Cause::TarTime]);
    check(
        &tar(&[("a", b"1", 0)]),
        &tar(&[("b", b"1", 0)]),
        "x.tar",
        &["x.tar » a: only the first has it", "x.tar » b: only the second has it"],
        &[],
    );
}

#[test]
fn the_same_content_in_other_clothes_is_told() {
    let text: Vec<u8> = (0..20_000u32).flat_map(|number| (number * number).to_string().into_bytes()).collect();
    let report = compare(&gzip(&text, 0, 1), &gzip(&text, 0, 9), "x.gz");
    assert!(report.causes().contains(&Cause::Compression), "{report}");
    let xz = |preset| {
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(preset)).unwrap();
        writer.write_all(&text).unwrap();
        writer.finish().unwrap()
    };
    check(&xz(0), &xz(6), "x.xz", &["x.xz: compressed size is"], &[Cause::Compression]);
}

#[test]
fn elf_files_are_compared_by_section() {
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let parts = ampoule_sysroots::elf::Parts::parse(&program).unwrap();
    let of = |name: &str| parts.sections.iter().find(|section| section.name == name).unwrap().offset as usize;
    let mut other = program.clone();
    other[of(".note.gnu.build-id") + 20] ^= 0xff;
    let symbol = parts.symbols.iter().find(|symbol| symbol.size > 8 && parts.sections[symbol.section].name == ".text");
    let symbol = symbol.unwrap();
    let text = &parts.sections[symbol.section];
    other[(text.offset + symbol.address - text.address) as usize + 3] ^= 0xff;
    let report = compare(&program, &other, "p");
    let places: Vec<String> = report.changes.iter().map(|change| change.place.to_string()).collect();
    assert_eq!(places, ["p » .text", "p » .note.gnu.build-id"]);
    let Kind::Bytes(bytes) = &report.changes[0].kind else { panic!("{report}") };
    assert!(bytes.within.as_ref().unwrap().contains(" + 0x3, at 0x"), "{report}");
    assert_eq!(report.causes(), [Cause::Consequence]);
    let mut comment = program.clone();
    let at = of(".comment");
    comment[at] ^= 1;
    let report = compare(&program, &comment, "p");
    assert!(matches!(report.changes[0].kind, Kind::Text { .. }), "{report}");
}

#[test]
fn compiled_python_and_images_are_understood() {
    let compiled = |time: u32, code: &[u8]| {
        [&[0xa7, 13, 13, 10, 0, 0, 0, 0][..], &time.to_le_bytes(), &[9, 0, 0, 0], code].concat()
    };
    check(
        &compiled(1_600_000_000, b"\0code"),
        &compiled(1_700_000_000, b"\0code"),
        "m.pyc",
        &["m.pyc: source time is `2020-09-13 12:26:40 UTC` first"],
        &[Cause::PycTime],
    );
    check(&compiled(1, b"\0\x01"), &compiled(1, b"\0\x02"), "m.pyc", &["m.pyc: byte 17, the only one"], &[]);
    let image = |text: &[u8]| [b"\x89PNG\r\n\x1a\n\0\0\0\x04tEXt", text, b"\0\0\0\0\0\0\0\0IEND\0\0\0\0"].concat();
    check(&image(b"\0\0\0\x01"), &image(b"\0\0\0\x02"), "i.png", &["i.png: byte 19 (PNG chunk tEXt), the only"], &[]);
}

#[test]
fn hostile_archives_never_panic_and_always_differ() {
    let good = [
        zip(&[("a", b"one", 1), ("b", b"two", 2)]),
        tar(&[("a", b"one", 1), ("b", b"two", 2)]),
        ar(&[("a/", b"one", 1), ("//", b"x/\n", 1), ("/0", b"two", 2)]),
        gzip(b"some text", 7, 6),
        gzip(&tar(&[("a", b"one", 1)]), 7, 6),
    ];
    for bytes in &good {
        for index in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[index] ^= 0x55;
            let mut comparison = content::Comparison::new(&Limits::default());
            comparison.compare(Place::default(), bytes.clone(), broken);
            assert!(!comparison.finish().changes.is_empty(), "byte {index}");
        }
        for length in 0..bytes.len() {
            let mut comparison = content::Comparison::new(&Limits::default());
            comparison.compare(Place::default(), bytes.clone(), bytes[..length].to_vec());
            assert!(!comparison.finish().changes.is_empty(), "length {length}");
        }
    }
}

#[test]
fn what_unpacks_to_too_much_is_compared_as_it_is() {
    let bomb = |last: u8| gzip(&[vec![0; 100_000], vec![last]].concat(), 0, 6);
    let write = |bytes: Vec<u8>| move |root: &Path| fs::write(root, &bytes).unwrap();
    let limits = Limits { total_bytes: 150_000, ..Limits::default() };
    let report = compare_with(&write(bomb(1)), &write(bomb(2)), &limits);
    assert!(matches!(report.changes[..], [Change { kind: Kind::Bytes(_), .. }]), "{report}");
    let limits = Limits { file_bytes: 10, ..Limits::default() };
    let report = compare_with(&write(vec![b'x'; 100]), &write([vec![b'x'; 90], vec![b'y'; 20]].concat()), &limits);
    assert_eq!(report.changes.len(), 1);
    assert!(report.to_string().starts_with(".: byte 90; 100 bytes first, then 110\n"), "{report}");
    let mut deep = b"heart\n".to_vec();
    let mut other = b"stone\n".to_vec();
    for _ in 0..40 {
        (deep, other) = (tar(&[("x", &deep, 0)]), tar(&[("x", &other, 0)]));
    }
    let report = compare(&deep, &other, "deep");
    assert_eq!(report.changes[0].place.0.len(), 1 + Limits::default().depth, "{report}");
}

#[test]
fn names_cannot_drive_a_terminal() {
    let report = compare(&tar(&[("a\x1b[2J", b"1", 0)]), &tar(&[("a\x1b[2J", b"2", 0)]), "x.tar");
    assert!(!report.to_string().contains('\x1b'), "{report:?}");
}

#[test]
fn the_record_for_programs_has_all_of_it() {
    let report = compare(b"one\n", b"two\n", "f");
    let expected = serde_json::json!({
        "changes": [{
            "place": ["f"],
            "kind": "text",
            "hunks": [{
                "first_line": 1,
                "second_line": 1,
                "lines": [
                    { "only_in": "first", "text": "one" },
                    { "only_in": "second", "text": "two" },
                ],
            }],
            "omitted": 0,
            "causes": [],
        }],
        "omitted": 0,
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}
