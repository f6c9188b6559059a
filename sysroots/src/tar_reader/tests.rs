use super::*;

/// One entry's blocks, with nothing checked and nothing normalised.
pub(crate) fn entry(path: &[u8], kind: u8, target: &[u8], mode: u32, body: &[u8]) -> Vec<u8> {
    let mut block = [0u8; BLOCK];
    block[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
    block[156] = kind;
    block[157..157 + target.len().min(100)].copy_from_slice(&target[..target.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    let mut bytes = block.to_vec();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

pub(crate) fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(crate) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 2 * BLOCK]].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..6).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
        body.extend(format!("{} {key}=", length.unwrap()).bytes());
        body.extend(*value);
        body.push(b'\n');
    }
    entry(b"pax", b'x', b"", 0o644, &body)
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut body = Vec::new();
        if entry.kind == EntryKind::File {
            (&mut reader).take(1 << 20).read_to_end(&mut body).map_err(TarError::Read)?;
        }
        found.push((entry, body));
    }
    Ok(found)
}

#[test]
fn files_directories_and_links() {
    let bytes = archive(&[
        entry(b"d/", b'5', b"", 0o755, b""),
        entry(b"d/f", b'0', b"", 0o755, b"body"),
        entry(b"d/old", 0, b"", 0o600, b""),
        entry(b"old-directory/", 0, b"", 0o755, b""),
        entry(b"s", b'2', b"d/f", 0o777, b""),
        entry(b"h", b'1', b"d/f", 0o644, b""),
        entry(b"n", b'3', b"", 0o644, b""),
    ]);
    let found = read(&bytes).unwrap();
    let kinds: Vec<_> = found.iter().map(|(entry, _)| entry.kind.clone()).collect();
    let directory = EntryKind::Directory;
    let links = [EntryKind::Symlink(b"d/f".to_vec()), EntryKind::HardLink(b"d/f".to_vec())];
    assert_eq!(kinds[..4], [directory.clone(), EntryKind::File, EntryKind::File, directory]);
    assert_eq!(kinds[4..6], links);
    assert_eq!(kinds[6], EntryKind::Special("a device"));
    assert_eq!((found[1].1.as_slice(), found[1].0.executable), (&b"body"[..], true));
    assert!(!found[2].0.executable);
}

#[test]
fn long_names_in_both_forms() {
    let long = vec![b'n'; 300];
    let gnu = |kind| entry(b"././@LongLink", kind, b"", 0o644, &[&long[..], b"\0"].concat());
    let named = archive(&[
        gnu(b'L'),
        entry(b"short", b'0', b"", 0o644, b"one"),
        gnu(b'K'),
        entry(b"link", b'2', b"short", 0o644, b""),
        pax(&[("path", &long), ("mtime", b"1.5")]),
        entry(b"short", b'0', b"", 0o644, b"two"),
        pax(&[("linkpath", &long)]),
        entry(b"link", b'2', b"short", 0o644, b""),
    ]);
    let found = read(&named).unwrap();
    assert_eq!((&found[0].0.path, &found[2].0.path), (&long, &long));
    assert_eq!(found[1].0.kind, EntryKind::Symlink(long.clone()));
    assert_eq!(found[3].0.kind, EntryKind::Symlink(long));
}

#[test]
fn the_size_of_a_pax_header_counts() {
    let mut second = entry(b"f", b'0', b"", 0o644, b"12345");
    second[124..136].copy_from_slice(b"00000000000\0");
    seal(&mut second);
    let bytes = archive(&[pax(&[("size", b"5")]), second]);
    assert_eq!(read(&bytes).unwrap()[0].1, b"12345");
}

#[test]
fn a_prefix_is_posix_and_not_gnu() {
    let mut posix = entry(b"name", b'0', b"", 0o644, b"");
    posix[345..351].copy_from_slice(b"prefix");
    seal(&mut posix);
    let mut gnu = posix.clone();
    gnu[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut gnu);
    let found = read(&archive(&[posix, gnu])).unwrap();
    assert_eq!((&found[0].0.path[..], &found[1].0.path[..]), (&b"prefix/name"[..], &b"name"[..]));
}

#[test]
fn sparse_files_get_their_holes_back() {
    let mut sparse = entry(b"f", b'S', b"", 0o644, b"abcdef");
    for (at, value) in [(386, 3u64), (398, 4), (410, 512), (422, 2), (483, 1000)] {
        sparse[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    }
    seal(&mut sparse);
    let bytes = archive(&[sparse.clone(), entry(b"g", b'0', b"", 0o644, b"next")]);
    let found = read(&bytes).unwrap();
    let mut expected = vec![0; 1000];
    expected[3..7].copy_from_slice(b"abcd");
    expected[512..514].copy_from_slice(b"ef");
    assert_eq!(found[0].1, expected);
    assert_eq!(found[1].1, b"next");
    // A part that overlaps the one before it.
    sparse[410..422].copy_from_slice(format!("{:011o}\0", 5).as_bytes());
    seal(&mut sparse);
    assert!(read(&archive(&[sparse])).is_err());
}

#[test]
fn a_real_writer_is_understood() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let deep = format!("{}/file", "directory".repeat(20));
    for (name, body) in [("plain", &b"one"[..]), (&deep, b"two")] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, body).unwrap();
    }
    let found = read(&builder.into_inner().unwrap()).unwrap();
    assert_eq!((found[0].1.as_slice(), found[1].1.as_slice()), (&b"one"[..], &b"two"[..]));
    assert_eq!(found[1].0.path, deep.as_bytes());
}

#[test]
fn what_tools_read_differently_is_refused() {
    let with_body = |kind| archive(&[entry(b"x", kind, b"target", 0o644, b"body")]);
    for kind in [b'1', b'2', b'5', b'D', b'M', b'V', b'Z'] {
        assert!(read(&with_body(kind)).is_err(), "{}", kind as char);
    }
    let mut global = pax(&[("path", b"elsewhere")]);
    global[156] = b'g';
    seal(&mut global);
    assert!(read(&archive(&[global])).is_err());
    let mut comment = pax(&[("comment", b"0123456789")]);
    comment[156] = b'g';
    seal(&mut comment);
    assert_eq!(read(&archive(&[comment])).unwrap().len(), 0);
    assert!(read(&archive(&[pax(&[("GNU.sparse.major", b"1")]), entry(b"f", b'0', b"", 0o644, b"")])).is_err());
    let after = [archive(&[]), entry(b"hidden", b'0', b"", 0o644, b"")].concat();
    assert!(matches!(read(&after), Err(TarError::Trailing)));
}

#[test]
fn broken_pax_records_are_refused() {
    for body in
        [&b"5 a=b"[..], b"99 path=x\n", b"0 =\n", b"x path=y\n", b"9 pathxy\n\n", b"+9 path=x\n", b"6 a=b\nrest"]
    {
        let bytes = archive(&[entry(b"pax", b'x', b"", 0o644, body), entry(b"f", b'0', b"", 0o644, b"")]);
        assert!(matches!(read(&bytes), Err(TarError::Field { .. })), "{}", printable(body));
    }
    for size in [&b"-1"[..], b"99999999999999999999999", b"1x", b""] {
        let bytes = archive(&[pax(&[("size", size)]), entry(b"f", b'0', b"", 0o644, b"")]);
        assert!(read(&bytes).is_err(), "{}", printable(size));
    }
    let huge = archive(&[pax(&[("size", b"18446744073709551615")]), entry(b"f", b'0', b"", 0o644, b"")]);
    assert!(read(&huge).is_err());
}

#[test]
fn truncated_archives_are_errors_and_broken_ones_never_panic() {
    let whole = archive(&[
        entry(b"f", b'0', b"", 0o644, b"body"),
        pax(&[("path", b"elsewhere"), ("size", b"4")]),
        entry(b"g", b'0', b"", 0o644, b"more"),
    ]);
    for length in 0..whole.len() - 2 * BLOCK + 1 {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    for index in 0..whole.len() {
        for value in [0, b'0', b'7', 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[index] = value;
            drop(read(&broken));
            // Past the check sum as well.
            let start = index / BLOCK * BLOCK;
            if start + BLOCK <= broken.len() {
                seal(&mut broken[start..start + BLOCK]);
                drop(read(&broken));
            }
        }
    }
}
