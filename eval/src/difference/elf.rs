//! ELF files, section by section.

use std::collections::BTreeMap;

use ampoule_sysroots::elf::{Parts, Section};

use super::cause::Cause;
use super::change::{Kind, Side};
use super::{text, windows};

/// The flag of sections that hold strings, `SHF_STRINGS`.
const STRINGS: u64 = 0x20;
/// The flag of sections that hold code, `SHF_EXECINSTR`.
const CODE: u64 = 0x4;

/// Something that differs: the section it lies in, or nothing for the header.
pub(super) struct Finding {
    pub(super) section: Option<String>,
    pub(super) kind: Kind,
    pub(super) causes: Vec<Cause>,
}

/// How two ELF files differ, if both can be read and a header's fact or a section does.
pub(super) fn compare(first: &[u8], second: &[u8]) -> Option<Vec<Finding>> {
    let (left, right) = (Parts::parse(first).ok()?, Parts::parse(second).ok()?);
    let mut findings = Vec::new();
    for ((name, one), (_, other)) in left.header.iter().zip(&right.header) {
        if one != other {
            let (first, second) = (format!("{one:#x}"), format!("{other:#x}"));
            let kind = Kind::Property { name, first, second, others: 0 };
            findings.push(Finding { section: None, kind, causes: Vec::new() });
        }
    }
    let (names, other_names) = (names(&left.sections), names(&right.sections));
    let positions: BTreeMap<&String, usize> = other_names.iter().enumerate().map(|(at, name)| (name, at)).collect();
    let only =
        |name: &String, side| Finding { section: Some(name.clone()), kind: Kind::OnlyIn { side }, causes: Vec::new() };
    let mut shared = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match positions.get(name) {
            Some(other) => {
                shared.push(*other);
                findings.extend(compare_sections(&left, at, &right, *other, name));
            }
            None => findings.push(only(name, Side::First)),
        }
    }
    let known: std::collections::BTreeSet<&String> = names.iter().collect();
    findings.extend(other_names.iter().filter(|name| !known.contains(name)).map(|name| only(name, Side::Second)));
    if !shared.is_sorted() && names.len() == other_names.len() {
        let kind = Kind::Order { first: names.clone(), second: other_names };
        findings.push(Finding { section: None, kind, causes: Vec::new() });
    }
    // Sums come last: they say nothing of their own.
    findings.sort_by_key(|finding| finding.causes.contains(&Cause::Consequence));
    (!findings.is_empty()).then_some(findings)
}

/// The sections' names, with numbers where several share one.
fn names(sections: &[Section<'_>]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut names = Vec::new();
    for section in sections {
        let count = seen.entry(&section.name).or_default();
        *count += 1;
        names.push(if *count == 1 { section.name.clone() } else { format!("{} ({count})", section.name) });
    }
    names
}

fn compare_sections(left: &Parts<'_>, at: usize, right: &Parts<'_>, other: usize, name: &str) -> Vec<Finding> {
    let (first, second) = (&left.sections[at], &right.sections[other]);
    let mut found = Vec::new();
    let mut add = |kind, causes| found.push(Finding { section: Some(name.to_owned()), kind, causes });
    let mut property = |name, first: String, second: String| {
        if first != second {
            add(Kind::Property { name, first, second, others: 0 }, Vec::new());
        }
    };
    property("type", first.kind.to_string(), second.kind.to_string());
    property("flags", format!("{:#x}", first.flags), format!("{:#x}", second.flags));
    if first.data == second.data {
        // Without bytes in the file there is only the size.
        property("size", first.size.to_string(), second.size.to_string());
        return found;
    }
    if name == ".note.gnu.build-id" && first.data.len() > 16 && second.data.len() > 16 {
        let id = |data: &[u8]| windows::hexadecimal(&data[16..]);
        let kind = Kind::Property { name: "build ID", first: id(first.data), second: id(second.data), others: 0 };
        add(kind, vec![Cause::Consequence]);
        return found;
    }
    if (first.flags & second.flags & STRINGS != 0 || name.ends_with("strtab") || name == ".dynstr")
        && let Some((kind, causes)) = text::compare_lines(&strings(first.data), &strings(second.data))
    {
        add(kind, causes);
        return found;
    }
    let within = |offset| {
        let symbol = left.symbol_at(at, offset).or_else(|| right.symbol_at(other, offset));
        let address = first.address.saturating_add(offset);
        Some(match symbol {
            Some((symbol, 0)) => format!("{symbol}, at {address:#x}"),
            Some((symbol, inside)) => format!("{symbol} + {inside:#x}, at {address:#x}"),
            None => format!("at {address:#x}"),
        })
    };
    if let Some((kind, mut causes)) = windows::compare(first.data, second.data, within) {
        if name == ".gnu_debuglink" {
            causes = vec![Cause::Consequence];
        }
        // What looks like a date there is an instruction.
        if first.flags & CODE != 0 {
            causes.clear();
        }
        add(kind, causes);
    }
    found
}

fn strings(data: &[u8]) -> Vec<&[u8]> {
    data.split(|byte| *byte == 0).collect()
}
