//! The parts of an ELF file by name: sections and symbols, to say what lies where.

use object::read::elf::{ElfFile32, ElfFile64, FileHeader, SectionHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

use super::{ElfError, MAX_ENTRIES};
use crate::tree_path::printable;

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name.
    pub name: String,
    /// Its type, `sh_type`.
    pub kind: u32,
    /// Its flags, `sh_flags`.
    pub flags: u64,
    /// Where it is in memory.
    pub address: u64,
    /// Where it is in the file.
    pub offset: u64,
    /// Its length, which is no length of bytes if it has none in the file.
    pub size: u64,
    /// Its bytes in the file, as they are.
    pub data: &'a [u8],
}

/// A symbol that names bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// The position of its section among the sections.
    pub section: usize,
    /// Where it starts: an address, or an offset into its section where the section has no address.
    pub address: u64,
    /// How many bytes it names.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// The parts of an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Facts of the header: names and values.
    pub header: Vec<(&'static str, u64)>,
    /// Its sections, in their order, without the null one.
    pub sections: Vec<Section<'a>>,
    /// Symbols with a size, by section and address.
    pub symbols: Vec<Symbol>,
}

impl<'a> Parts<'a> {
    /// Finds the parts of a file of any machine, word size and byte order.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        match bytes.get(4) {
            Some(1) => {
                let file = ElfFile32::<Endianness>::parse(bytes)?;
                Ok(read(&file, file.elf_header(), file.endian(), bytes))
            }
            Some(2) => {
                let file = ElfFile64::<Endianness>::parse(bytes)?;
                Ok(read(&file, file.elf_header(), file.endian(), bytes))
            }
            _ => Err(ElfError("unknown word size".to_owned())),
        }
    }

    /// The symbol that a byte of a section belongs to, with the byte's offset into it.
    pub fn symbol_at(&self, section: usize, offset: u64) -> Option<(&str, u64)> {
        let address = self.sections.get(section)?.address.checked_add(offset)?;
        let end = self.symbols.partition_point(|symbol| (symbol.section, symbol.address) <= (section, address));
        // Symbols may nest; a few steps back find the one around.
        let around = self.symbols[..end]
            .iter()
            .rev()
            .take(8)
            .find(|symbol| symbol.section == section && address - symbol.address < symbol.size)?;
        Some((&around.name, address - around.address))
    }
}

fn read<'a, Header: FileHeader<Endian = Endianness>>(
    file: &object::read::elf::ElfFile<'a, Header>,
    header: &Header,
    endian: Endianness,
    bytes: &'a [u8],
) -> Parts<'a> {
    let facts = vec![
        ("machine", u64::from(header.e_machine(endian).0)),
        ("file type", u64::from(header.e_type(endian).0)),
        ("flags", u64::from(header.e_flags(endian).0)),
        ("entry point", header.e_entry(endian).into()),
    ];
    let mut sections = Vec::new();
    // Section indices count the null section, which is not listed.
    let mut positions = std::collections::BTreeMap::new();
    for section in file.sections().take(MAX_ENTRIES) {
        positions.insert(section.index().0, sections.len());
        let raw = section.elf_section_header();
        let range = section.file_range();
        let data = range.and_then(|(start, size)| {
            let start = usize::try_from(start).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        });
        sections.push(Section {
            name: printable(section.name_bytes().unwrap_or_default()),
            kind: raw.sh_type(endian).0,
            flags: raw.sh_flags(endian).0,
            address: section.address(),
            offset: range.map_or(0, |range| range.0),
            size: section.size(),
            data: data.unwrap_or_default(),
        });
    }
    let mut symbols: Vec<Symbol> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .take(MAX_ENTRIES)
        .filter(|symbol| symbol.size() > 0)
        .filter_map(|symbol| {
            Some(Symbol {
                section: *positions.get(&symbol.section_index()?.0)?,
                address: symbol.address(),
                size: symbol.size(),
                name: printable(symbol.name_bytes().ok()?),
            })
        })
        .collect();
    symbols.sort_unstable();
    symbols.dedup();
    Parts { header: facts, sections, symbols }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_symbols_of_this_program_are_found() {
        let program = std::env::current_exe().unwrap();
        #[expect(clippy::disallowed_methods, reason = "reads this test program")]
        let bytes = std::fs::read(program).unwrap();
        let parts = Parts::parse(&bytes).unwrap();
        let text = parts.sections.iter().position(|section| section.name == ".text").unwrap();
        assert!(parts.sections[text].data.len() as u64 == parts.sections[text].size);
        let symbol = parts.symbols.iter().find(|symbol| symbol.section == text && symbol.size > 4).unwrap();
        let offset = symbol.address - parts.sections[text].address + 2;
        assert!(parts.symbol_at(text, offset).is_some_and(|(_, inside)| inside <= 2));
        assert_eq!(parts.symbol_at(999, 0), None);
    }

    #[test]
    fn broken_files_never_panic() {
        let good = super::super::tests::library(62, &["libc.so.6"], &[("libc.so.6", "GLIBC_2.17")]);
        for length in 0..good.len().min(400) {
            drop(Parts::parse(&good[..length]).map(|parts| parts.symbol_at(0, 0).is_some()));
        }
        for index in 0..good.len() {
            let mut broken = good.clone();
            broken[index] ^= 0xff;
            if let Ok(parts) = Parts::parse(&broken) {
                for section in 0..parts.sections.len() {
                    let _ = parts.symbol_at(section, u64::MAX);
                }
            }
        }
    }
}
