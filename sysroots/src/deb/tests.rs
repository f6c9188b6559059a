use super::*;
use crate::compression::tests::{gzip, xz, zstd};
use crate::tar_reader::tests::{archive, entry};

/// A package whose data holds the given entries.
pub(crate) fn package(name: &str, entries: &[Vec<u8>]) -> Vec<u8> {
    let control = format!("Package: {name}\nVersion: 1.0-1\nArchitecture: amd64\nDescription: x\n y: z\n");
    let control = archive(&[entry(b"./control", b'0', b"", 0o644, control.as_bytes())]);
    ar::encode(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &gzip(&control)),
        ("data.tar.xz", &xz(&archive(entries))),
    ])
}

fn check(bytes: &[u8]) -> Result<Deb, DebError> {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::create(&directory.path().join("out")).unwrap();
    read(bytes, &spool, &Limits::DEFAULT)
}

type Member<'a> = (&'a str, &'a [u8]);

fn sample() -> Vec<Vec<u8>> {
    vec![
        entry(b"./", b'5', b"", 0o755, b""),
        entry(b"./usr/bin/x", b'0', b"", 0o755, b"program"),
        entry(b"./usr/bin/y", b'1', b"./usr/bin/x", 0o755, b""),
        entry(b"./usr/bin/z", b'2', b"x", 0o777, b""),
    ]
}

#[test]
fn packages_say_what_they_are_and_hold() {
    let deb = check(&package("tool", &sample())).unwrap();
    assert_eq!((&*deb.control.package, &*deb.control.version, &*deb.control.architecture), ("tool", "1.0-1", "amd64"));
    assert_eq!(deb.entries.len(), 4);
    assert!(matches!(&deb.entries[2].1, Entry::File(file) if file.executable() && file.size() == 7));
}

#[test]
fn every_compression_of_data_is_read() {
    let control =
        gzip(&archive(&[entry(b"control", b'0', b"", 0o644, b"Package: a\nVersion: 1\nArchitecture: all\n")]));
    let data = archive(&sample());
    for (name, body) in [("data.tar", data.clone()), ("data.tar.gz", gzip(&data)), ("data.tar.zst", zstd(&data))] {
        let members = [("debian-binary", &b"2.0\n"[..]), ("_extra", b"x"), ("control.tar.gz", &control), (name, &body)];
        assert_eq!(check(&ar::encode(&members)).unwrap().entries.len(), 4, "{name}");
    }
}

#[test]
fn unsound_packages_are_refused() {
    let control =
        gzip(&archive(&[entry(b"control", b'0', b"", 0o644, b"Package: a\nVersion: 1\nArchitecture: all\n")]));
    let nameless = gzip(&archive(&[entry(b"control", b'0', b"", 0o644, b"Version: 1\nArchitecture: all\n")]));
    let data = archive(&[]);
    let version: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let cases: [(&str, Vec<Member<'_>>); 7] = [
        ("a member is missing", vec![version]),
        ("out of place", vec![version, ("data.tar", &data), ("control.tar.gz", &control)]),
        ("format version", vec![("debian-binary", b"3.0\n"), ("control.tar.gz", &control), ("data.tar", &data)]),
        ("after the data", vec![version, ("control.tar.gz", &control), ("data.tar", &data), ("more", b"")]),
        ("`Package`", vec![version, ("control.tar.gz", &nameless), ("data.tar", &data)]),
        ("`control`", vec![version, ("control.tar", &data), ("data.tar", &data)]),
        ("bzip2", vec![version, ("control.tar.gz", &control), ("data.tar.bz2", b"BZh91AY&SY")]),
    ];
    for (reason, members) in cases {
        let error = check(&ar::encode(&members)).unwrap_err().to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
    for (reason, hostile) in [
        ("`..`", entry(b"../x", b'0', b"", 0o644, b"")),
        ("a device", entry(b"dev/null", b'3', b"", 0o644, b"")),
        ("not an earlier file", entry(b"h", b'1', b"gone", 0o644, b"")),
        ("twice", entry(b"usr/bin/x", b'0', b"", 0o644, b"")),
    ] {
        let entries = [sample(), vec![hostile]].concat();
        let error = check(&package("tool", &entries)).unwrap_err().to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn no_cut_or_changed_byte_panics() {
    let whole = package("tool", &sample());
    for index in 0..whole.len() {
        assert!(check(&whole[..index]).is_err() || index + 1 == whole.len(), "{index} of {}", whole.len());
        let mut broken = whole.clone();
        broken[index] ^= 0x99;
        drop(check(&broken));
    }
}
