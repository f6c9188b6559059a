use super::*;

/// A shared library with what [`Elf`] reads, built section by section.
pub(crate) fn library(machine: u16, needed: &[&str], versions: &[(&str, &str)]) -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut string = |text: &str| -> u32 {
        strings.extend(text.bytes());
        strings.push(0);
        (strings.len() - text.len() - 1) as u32
    };
    let mut dynamic = Vec::new();
    for name in needed {
        dynamic.extend(1u64.to_le_bytes());
        dynamic.extend(u64::from(string(name)).to_le_bytes());
    }
    dynamic.extend([0; 16]);
    let mut verneed = Vec::new();
    for (index, (library, version)) in versions.iter().enumerate() {
        let next: u32 = if index + 1 == versions.len() { 0 } else { 32 };
        verneed.extend([1, 0, 1, 0]);
        for field in [string(library), 16, next, 0] {
            verneed.extend(field.to_le_bytes());
        }
        verneed.extend([0, 0, 2, 0]);
        for field in [string(version), 0] {
            verneed.extend(field.to_le_bytes());
        }
    }
    let mut symbols = vec![0; 24];
    for (name, section) in [("PyInit_x", 1u16), ("malloc", 0)] {
        symbols.extend(string(name).to_le_bytes());
        symbols.extend([0x12, 0]);
        symbols.extend(section.to_le_bytes());
        symbols.extend([0; 16]);
    }
    // Kind, link and information of each section, and its bytes.
    let sections: [(u32, u32, u32, Vec<u8>); 5] = [
        (0, 0, 0, Vec::new()),
        (3, 0, 0, strings),
        (6, 1, 0, dynamic),
        (0x6fff_fffe, 1, versions.len() as u32, verneed),
        (11, 1, 1, symbols),
    ];
    let mut body = Vec::new();
    let mut headers = Vec::new();
    for (kind, link, information, bytes) in sections {
        let offset = 64 + body.len() as u64;
        let entry_size: u64 = if kind == 11 { 24 } else { 0 };
        headers.extend(0u32.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers.extend([0; 16]);
        headers.extend(offset.to_le_bytes());
        headers.extend((bytes.len() as u64).to_le_bytes());
        headers.extend(link.to_le_bytes());
        headers.extend(information.to_le_bytes());
        headers.extend(1u64.to_le_bytes());
        headers.extend(entry_size.to_le_bytes());
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for field in [3u16, machine] {
        file.extend(field.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    file.extend([0; 16]);
    file.extend((64 + body.len() as u64).to_le_bytes());
    file.extend([0; 4]);
    for field in [64u16, 56, 0, 64, 5, 1] {
        file.extend(field.to_le_bytes());
    }
    [file, body, headers].concat()
}

#[test]
fn needs_and_gifts_are_read() {
    let bytes = library(62, &["libc.so.6", "libm.so.6"], &[("libc.so.6", "GLIBC_2.14"), ("libm.so.6", "GLIBC_2.29")]);
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!(elf.machine, Machine::of(Platform::LinuxX86_64));
    assert_eq!(elf.needed, ["libc.so.6".to_owned(), "libm.so.6".to_owned()].into());
    assert_eq!(elf.versions["libm.so.6"], ["GLIBC_2.29".to_owned()].into());
    assert_eq!((elf.exported, elf.undefined), (["PyInit_x".to_owned()].into(), ["malloc".to_owned()].into()));
    assert_eq!(elf.machine.to_string(), "x86_64 (64-bit)");
    assert_eq!(Elf::parse(&library(183, &[], &[])).unwrap().machine, Machine::of(Platform::LinuxArm64));
}

#[test]
fn a_dynamic_file_without_sections_is_refused() {
    let mut bytes = library(62, &["libc.so.6"], &[]);
    // No sections, and one program header, of kind `PT_DYNAMIC`, right behind the file header.
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[40..48].fill(0);
    bytes[56..64].copy_from_slice(&[1, 0, 64, 0, 0, 0, 0, 0]);
    bytes.truncate(64);
    bytes.extend(2u32.to_le_bytes());
    bytes.extend([0; 52]);
    assert!(Elf::parse(&bytes).unwrap_err().to_string().contains("no section headers"));
}

#[test]
fn data_at_any_address_is_read() {
    let bytes = library(62, &["libc.so.6"], &[]);
    let shifted = [vec![0], bytes].concat();
    assert_eq!(Elf::parse(&shifted[1..]).unwrap().needed.len(), 1);
}

#[test]
fn a_real_program_is_read_if_there_is_one() {
    let Ok(bytes) = std::env::current_exe().map(|path| {
        #[allow(clippy::disallowed_methods)]
        std::fs::read(path).unwrap()
    }) else {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: this program has no path\n"));
        return;
    };
    if is_elf(&bytes) {
        assert!(Elf::parse(&bytes).unwrap().needed.contains("libc.so.6"));
    }
}

#[test]
fn truncated_and_broken_files_never_panic() {
    let whole = library(62, &["libc.so.6"], &[("libc.so.6", "GLIBC_2.14"), ("libm.so.6", "GLIBC_2.29")]);
    for length in 0..whole.len() {
        drop(Elf::parse(&whole[..length]));
    }
    for index in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[index] = value;
            drop(Elf::parse(&broken));
        }
    }
}
