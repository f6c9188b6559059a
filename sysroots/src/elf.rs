//! What an ELF file says about where it can run: machine, libraries and symbol versions it needs.

mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Sym};
use thiserror::Error;

pub use parts::{Parts, Section, Symbol};

use crate::platform::Platform;
use crate::tree_path::printable;

/// Most entries of one table that are read. Real files stay far below.
const MAX_ENTRIES: usize = 5_000_000;

/// The machine and word size an ELF file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// `e_machine`.
    pub machine: u16,
    /// 64 or 32.
    pub bits: u8,
    /// Whether numbers are stored with the low byte first.
    pub little_endian: bool,
}

impl Machine {
    /// What a platform's files are for.
    pub fn of(platform: Platform) -> Self {
        Machine { machine: platform.elf_machine(), bits: 64, little_endian: true }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.machine, self.bits) {
            (3, _) => "i386",
            (8, _) => "mips",
            (20, _) => "powerpc",
            (21, _) => "powerpc64",
            (22, _) => "s390x",
            (40, _) => "arm",
            (62, 64) => "x86_64",
            (62, _) => "x32",
            (183, 64) => "aarch64",
            (243, _) => "riscv",
            (258, _) => "loongarch",
            _ => return write!(formatter, "machine {} ({}-bit)", self.machine, self.bits),
        };
        let order = if self.little_endian { "" } else { ", big-endian" };
        write!(formatter, "{name} ({}-bit{order})", self.bits)
    }
}

/// What one ELF file needs and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// What it runs on.
    pub machine: Machine,
    /// Libraries it needs (`DT_NEEDED`), by soname.
    pub needed: BTreeSet<String>,
    /// The name it goes by as a library (`DT_SONAME`).
    pub soname: Option<String>,
    /// Versions of symbols it needs, by library, for example `libc.so.6` to `GLIBC_2.17`.
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// Dynamic symbols it defines.
    pub exported: BTreeSet<String>,
    /// Dynamic symbols it expects of others.
    pub undefined: BTreeSet<String>,
}

/// Bytes that start like an ELF file and are none.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("broken ELF file: {0}")]
pub struct ElfError(String);

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> Self {
        ElfError(error.to_string())
    }
}

/// Whether bytes start like an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

impl Elf {
    /// Reads an ELF file of any machine, word size and byte order.
    pub fn parse(bytes: &[u8]) -> Result<Self, ElfError> {
        match bytes.get(4) {
            Some(1) => read::<elf::FileHeader32<Endianness>>(bytes),
            Some(2) => read::<elf::FileHeader64<Endianness>>(bytes),
            _ => Err(ElfError("unknown word size".to_owned())),
        }
    }
}

fn read<Header: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> Result<Elf, ElfError> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    let machine = Machine {
        machine: header.e_machine(endian).0,
        bits: if header.is_class_64() { 64 } else { 32 },
        little_endian: header.is_little_endian(),
    };
    let mut found = Elf {
        machine,
        needed: BTreeSet::new(),
        soname: None,
        versions: BTreeMap::new(),
        exported: BTreeSet::new(),
        undefined: BTreeSet::new(),
    };
    let sections = header.sections(endian, bytes)?;
    let dynamic = sections.dynamic(endian, bytes)?;
    // The loader would find what it needs through the segment; here that would pass for needing nothing.
    if dynamic.is_none()
        && header.program_headers(endian, bytes)?.iter().any(|segment| segment.p_type(endian) == elf::PT_DYNAMIC)
    {
        return Err(ElfError("it is dynamic but has no section headers".to_owned()));
    }
    if let Some((entries, link)) = dynamic {
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries.iter().take(MAX_ENTRIES) {
            match entry.tag(endian) {
                elf::DT_NEEDED => drop(found.needed.insert(printable(entry.string(endian, strings)?))),
                elf::DT_SONAME => found.soname = Some(printable(entry.string(endian, strings)?)),
                elf::DT_NULL => break,
                _ => {}
            }
        }
    }
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        let mut left = MAX_ENTRIES;
        while let Some((library, mut versions)) = libraries.next()? {
            let needed = found.versions.entry(printable(library.file(endian, strings)?)).or_default();
            while let Some(version) = versions.next()? {
                needed.insert(printable(version.name(endian, strings)?));
                left = left.checked_sub(1).ok_or_else(|| ElfError("too many symbol versions".to_owned()))?;
            }
            left = left.checked_sub(1).ok_or_else(|| ElfError("too many symbol versions".to_owned()))?;
        }
    }
    let symbols = sections.symbols(endian, bytes, elf::SHT_DYNSYM)?;
    for symbol in symbols.iter().take(MAX_ENTRIES) {
        let name = printable(symbol.name(endian, symbols.strings())?);
        if name.is_empty() || symbol.st_bind() == elf::STB_LOCAL {
            continue;
        }
        let side = if symbol.is_undefined(endian) { &mut found.undefined } else { &mut found.exported };
        side.insert(name);
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
