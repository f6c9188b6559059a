use std::io::{Cursor as Memory, Write};

use zip::write::SimpleFileOptions;

use super::*;

/// Writes an archive with an independent library; a name that ends with a slash is a directory.
fn encode(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Memory::new(Vec::new()));
    for (index, (name, body)) in entries.iter().enumerate() {
        let method = if index % 2 == 0 { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        let options = SimpleFileOptions::default().compression_method(method).unix_permissions(0o755);
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(body).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let archive = Archive::parse(bytes).map_err(|error| error.to_string())?;
    let body = |entry: &Entry| archive.read(entry, 1 << 20).map_err(|error| error.to_string());
    archive.entries().iter().map(|entry| Ok((printable(&entry.path), body(entry)?))).collect()
}

#[test]
fn another_writers_archives_are_understood() {
    let long = vec![b'x'; 10_000];
    let bytes = encode(&[("a/", b""), ("a/b", b"body"), ("long", &long), ("empty", b"")]);
    let found = read(&bytes).unwrap();
    assert_eq!(found[1], ("a/b".to_owned(), b"body".to_vec()));
    assert_eq!(found[2].1, long);
    let archive = Archive::parse(&bytes).unwrap();
    assert_eq!(archive.entries()[0].kind, EntryKind::Directory);
    assert!(archive.entries()[1].executable);
}

#[test]
fn streamed_archives_with_descriptors_are_understood() {
    let mut writer = zip::ZipWriter::new_stream(Vec::new());
    for name in ["one", "two"] {
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(name.repeat(50).as_bytes()).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    assert_eq!(read(&bytes).unwrap()[1].1, "two".repeat(50).as_bytes());
}

#[test]
fn an_empty_archive_has_no_entries() {
    assert_eq!(read(&encode(&[])).unwrap(), []);
}

#[test]
fn ambiguous_archives_are_refused() {
    let bytes = encode(&[("aa", b"one"), ("bb", b"two")]);
    let rename = |bytes: &[u8], from: &[u8], to: &[u8], which: &[usize]| {
        let mut changed = bytes.to_vec();
        let found: Vec<_> = (0..bytes.len() - 1).filter(|at| bytes[*at..].starts_with(from)).collect();
        for index in which {
            changed[found[*index]..found[*index] + to.len()].copy_from_slice(to);
        }
        changed
    };
    assert!(read(&rename(&bytes, b"bb", b"aa", &[0, 1])).unwrap_err().contains("two entries"));
    assert!(read(&rename(&bytes, b"bb", b"cc", &[0])).unwrap_err().contains("disagree"));
    assert!(read(&rename(&bytes, b"bb", b"\\b", &[0, 1])).unwrap_err().contains("backslash"));
    assert!(read(&[b"prefix".to_vec(), bytes.clone()].concat()).is_err());
    assert!(read(&[bytes.clone(), b"suffix".to_vec()].concat()).is_err());
    assert!(read(&[bytes.clone(), bytes].concat()).is_err());
}

#[test]
fn lengths_are_verified() {
    let bytes = encode(&[("z", &[b'z'; 1000])]);
    for wrong in [999u32, 1001, 0] {
        let mut changed = bytes.clone();
        let central = changed.windows(4).position(|part| part == CENTRAL.to_le_bytes()).unwrap();
        changed[22..26].copy_from_slice(&wrong.to_le_bytes());
        changed[central + 24..central + 28].copy_from_slice(&wrong.to_le_bytes());
        assert!(read(&changed).is_err(), "{wrong}");
    }
}

#[test]
fn truncated_and_broken_archives_are_errors_or_harmless() {
    let whole = encode(&[("a/", b""), ("name", b"some body, some body"), ("s", b"stored")]);
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    for index in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[index] = value;
            drop(read(&broken));
        }
    }
}
