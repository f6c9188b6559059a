//! Compares bytes by what they are, and what they hold in turn, without recursion.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{self, Format, Member};
use super::cause::Cause;
use super::change::{Change, Kind, Place, Side, StructuralDifference};
use super::{Limits, compressed, elf, text, windows};
use crate::terminal::utc;

/// Names shown of an order.
const ORDER: usize = 8;
/// Bytes of one archive's members that are compared in their own right.
const BODIES: u64 = 256 << 20;
/// Bytes of the header of compiled Python (PEP 552).
const PYC_HEADER: usize = 16;

/// Two runs of bytes at a place.
struct Pair {
    place: Place,
    first: Vec<u8>,
    second: Vec<u8>,
    depth: usize,
}

/// A comparison under way.
pub(super) struct Comparison {
    limits: Limits,
    report: StructuralDifference,
    pending: Vec<Pair>,
    /// Bytes that may still be unpacked.
    left: u64,
}

impl Comparison {
    pub(super) fn new(limits: &Limits) -> Self {
        let report = StructuralDifference::default();
        Self { limits: *limits, report, pending: Vec::new(), left: limits.total_bytes }
    }

    /// A larger file is compared byte by byte only.
    pub(super) fn file_limit(&self) -> u64 {
        self.limits.file_bytes
    }

    pub(super) fn finish(self) -> StructuralDifference {
        self.report
    }

    pub(super) fn add(&mut self, place: Place, kind: Kind, causes: Vec<Cause>) {
        if self.report.changes.len() < self.limits.changes {
            self.report.changes.push(Change { place, kind, causes });
        } else {
            self.report.omitted += 1;
        }
    }

    fn property(&mut self, place: Place, name: &'static str, sides: (String, String), cause: Option<Cause>) {
        let kind = Kind::Property { name, first: sides.0, second: sides.1, others: 0 };
        self.add(place, kind, cause.into_iter().collect());
    }

    /// Compares two files' bytes, and whatever is in them.
    pub(super) fn compare(&mut self, place: Place, first: Vec<u8>, second: Vec<u8>) {
        self.pending.push(Pair { place, first, second, depth: 0 });
        while let Some(pair) = self.pending.pop() {
            if pair.first == pair.second {
                continue;
            }
            let before = (self.report.changes.len(), self.report.omitted, self.pending.len());
            self.look_inside(&pair);
            if before == (self.report.changes.len(), self.report.omitted, self.pending.len()) {
                self.compare_bytes(&pair);
            }
        }
    }

    fn look_inside(&mut self, pair: &Pair) {
        let (first, second) = (&pair.first[..], &pair.second[..]);
        let format = |bytes| Format::detect(bytes);
        if pair.depth < self.limits.depth {
            if let (Some(one), Some(other)) = (format(first), format(second))
                && one == other
            {
                return self.compare_archives(pair, one);
            }
            if compressed::detect(first).is_some() && compressed::detect(first) == compressed::detect(second) {
                return self.compare_streams(pair);
            }
        }
        if first.starts_with(b"\x7fELF") && second.starts_with(b"\x7fELF") {
            for finding in elf::compare(first, second).unwrap_or_default() {
                let place = finding.section.map_or_else(|| pair.place.clone(), |section| pair.place.inside(section));
                self.add(place, finding.kind, finding.causes);
            }
        } else if pair.place.last().ends_with(".pyc") && first.len().min(second.len()) >= PYC_HEADER {
            self.compare_compiled_python(pair);
        } else if (text::is_text(first) || first.is_empty()) && (text::is_text(second) || second.is_empty()) {
            let Some((kind, mut causes)) = text::compare(first, second) else { return };
            // The list of a wheel's files with their hashes.
            if pair.place.last().ends_with(".dist-info/RECORD") {
                causes = vec![Cause::Consequence];
            }
            self.add(pair.place.clone(), kind, causes);
        }
    }

    fn compare_bytes(&mut self, pair: &Pair) {
        let within = |offset| png_chunk(&pair.first, offset);
        if let Some((kind, causes)) = windows::compare(&pair.first, &pair.second, within) {
            self.add(pair.place.clone(), kind, causes);
        }
    }

    fn compare_streams(&mut self, pair: &Pair) {
        let facts = compressed::header(&pair.first).into_iter().zip(compressed::header(&pair.second));
        for ((name, first), (_, second)) in facts {
            if first != second {
                self.property(pair.place.clone(), name, (first, second), compressed::cause(name));
            }
        }
        let Some(compression) = compressed::detect(&pair.first) else { return };
        let Some(first) = self.unpack(|most| compressed::decode(compression, &pair.first, most)) else { return };
        let Some(second) = self.unpack(|most| compressed::decode(compression, &pair.second, most)) else { return };
        if first == second {
            let sizes = [&pair.first, &pair.second].map(|bytes| format!("{} bytes", bytes.len()));
            if sizes[0] != sizes[1] {
                let [first, second] = sizes;
                self.property(pair.place.clone(), "compressed size", (first, second), Some(Cause::Compression));
            }
            return;
        }
        // The step from `x.tar.gz` to `x.tar` says nothing.
        let is_archive = Format::detect(&first).is_some() && Format::detect(&second).is_some();
        let place = match is_archive {
            true => pair.place.clone(),
            false => pair.place.inside(compressed::inner_name(pair.place.last())),
        };
        self.pending.push(Pair { place, first, second, depth: pair.depth + 1 });
    }

    fn unpack(&mut self, decode: impl FnOnce(u64) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let plain = decode(self.left.min(self.limits.file_bytes))?;
        self.left -= plain.len() as u64;
        Some(plain)
    }

    fn compare_archives(&mut self, pair: &Pair, format: Format) {
        let Some(first) = archive::members(format, &pair.first, self.left) else { return };
        let Some(second) = archive::members(format, &pair.second, self.left) else { return };
        let total = |members: &[Member]| members.iter().map(|member| member.size).sum::<u64>();
        self.left = self.left.saturating_sub(total(&first).max(total(&second)));
        let (first_keys, second_keys) = (keys(&first), keys(&second));
        let positions: BTreeMap<&String, usize> = second_keys.iter().enumerate().map(|(at, key)| (key, at)).collect();
        let mut matched = Vec::new();
        for (at, key) in first_keys.iter().enumerate() {
            match positions.get(key) {
                Some(other) => matched.push((at, *other)),
                None => self.add(pair.place.inside(key), Kind::OnlyIn { side: Side::First }, Vec::new()),
            }
        }
        let known: BTreeSet<&String> = first_keys.iter().collect();
        for key in second_keys.iter().filter(|key| !known.contains(key)) {
            self.add(pair.place.inside(key), Kind::OnlyIn { side: Side::Second }, Vec::new());
        }
        self.compare_order(pair, &matched, &first_keys, &second_keys);
        self.compare_properties(pair, format, &matched, (&first, &second), &first_keys);
        self.compare_bodies(pair, format, &matched, (&first, &second), &first_keys);
    }

    fn compare_order(&mut self, pair: &Pair, matched: &[(usize, usize)], first: &[String], second: &[String]) {
        let mut others: Vec<usize> = matched.iter().map(|pair| pair.1).collect();
        if others.is_sorted() {
            return;
        }
        others.sort_unstable();
        let start = matched.iter().zip(&others).position(|(pair, sorted)| pair.1 != *sorted).unwrap_or(0);
        let left = matched.iter().skip(start).take(ORDER).map(|pair| first[pair.0].clone()).collect();
        let right = others.iter().skip(start).take(ORDER).map(|at| second[*at].clone()).collect();
        let causes = vec![Cause::MemberOrder];
        self.add(pair.place.clone(), Kind::Order { first: left, second: right }, causes);
    }

    /// A property that differs in many members is one change.
    fn compare_properties(
        &mut self,
        pair: &Pair,
        format: Format,
        matched: &[(usize, usize)],
        (first, second): (&[Member], &[Member]),
        keys: &[String],
    ) {
        let mut changes: BTreeMap<&'static str, (usize, String, String, usize)> = BTreeMap::new();
        for (at, other) in matched {
            let (left, right) = (&first[*at], &second[*other]);
            for ((name, one), (_, two)) in left.properties.iter().zip(&right.properties) {
                // Other content has another size; only with the same content does it mean something.
                if one == two || *name == "stored size" && left.digest != right.digest {
                    continue;
                }
                let change = changes.entry(name).or_insert_with(|| (*at, one.clone(), two.clone(), 0));
                change.3 += 1;
            }
        }
        for (name, (at, first, second, count)) in changes {
            let kind = Kind::Property { name, first, second, others: count - 1 };
            self.add(pair.place.inside(&keys[at]), kind, format.cause(name).into_iter().collect());
        }
    }

    fn compare_bodies(
        &mut self,
        pair: &Pair,
        format: Format,
        matched: &[(usize, usize)],
        (first, second): (&[Member], &[Member]),
        keys: &[String],
    ) {
        let different = matched.iter().filter(|(at, other)| first[*at].digest != second[*other].digest);
        let mut room = BODIES;
        let (mut taken, mut beyond) = (Vec::new(), Vec::new());
        for (at, other) in different {
            let size = first[*at].size.saturating_add(second[*other].size);
            match room.checked_sub(size).filter(|_| taken.len() < self.limits.changes) {
                Some(rest) => {
                    room = rest;
                    taken.push((*at, *other));
                }
                None => beyond.push((*at, *other)),
            }
        }
        let mut left = archive::bodies(format, &pair.first, &taken.iter().map(|pair| pair.0).collect());
        let mut right = archive::bodies(format, &pair.second, &taken.iter().map(|pair| pair.1).collect());
        // The last one pushed is the first one looked at.
        for (at, other) in taken.into_iter().rev() {
            let (Some(first), Some(second)) = (left.remove(&at), right.remove(&other)) else { continue };
            self.pending.push(Pair { place: pair.place.inside(&keys[at]), first, second, depth: pair.depth + 1 });
        }
        for (at, other) in beyond {
            let hash = |member: &Member| format!("sha256 {}, {} bytes", member.digest.to_hex(), member.size);
            self.property(pair.place.inside(&keys[at]), "content", (hash(&first[at]), hash(&second[other])), None);
        }
    }

    fn compare_compiled_python(&mut self, pair: &Pair) {
        let facts = [&pair.first, &pair.second].map(|bytes| python_header(bytes));
        let [first, second] = facts;
        for ((name, one, cause), (other_name, two, _)) in first.into_iter().zip(second) {
            if one != two || name != other_name {
                self.property(pair.place.clone(), name, (one, two), cause);
            }
        }
        let mut code = pair.first.clone();
        code[..PYC_HEADER].copy_from_slice(&pair.second[..PYC_HEADER]);
        if let Some((kind, causes)) = windows::compare(&code, &pair.second, |_| None) {
            self.add(pair.place.clone(), kind, causes);
        }
    }
}

/// Members by name; those that share one by name and number.
fn keys(members: &[Member]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys = Vec::new();
    for member in members {
        let count = seen.entry(&member.name).or_default();
        *count += 1;
        keys.push(if *count == 1 { member.name.clone() } else { format!("{} ({count})", member.name) });
    }
    keys
}

/// The header of compiled Python (PEP 552): version, flags, and what tells whether the source has changed.
fn python_header(bytes: &[u8]) -> Vec<(&'static str, String, Option<Cause>)> {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let kind = match number(4) {
        0 => "checked by time",
        1 => "unchecked hash",
        3 => "checked hash",
        _ => "unknown",
    };
    let mut facts = vec![
        ("version", format!("{:#010x}", number(0)), None),
        ("validation", format!("{kind} ({:#x})", number(4)), Some(Cause::PycTime)),
    ];
    if number(4) == 0 {
        facts.push(("source time", utc(number(8).into()), Some(Cause::PycTime)));
        facts.push(("source size", number(12).to_string(), None));
    } else {
        facts.push(("source hash", windows::hexadecimal(&bytes[8..16]), Some(Cause::Consequence)));
    }
    facts
}

/// The chunk of a PNG image that holds a byte.
fn png_chunk(bytes: &[u8], offset: u64) -> Option<String> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let mut end = 8u64;
    loop {
        let (length, kind) = (rest.first_chunk::<4>()?, rest.get(4..8)?);
        let whole = u64::from(u32::from_be_bytes(*length)) + 12;
        end += whole;
        if offset < end {
            return Some(format!("PNG chunk {}", ampoule_sysroots::tree_path::printable(kind)));
        }
        rest = rest.get(usize::try_from(whole).ok()?..)?;
    }
}
