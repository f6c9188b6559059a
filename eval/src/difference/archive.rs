//! Archives: which members they have, in which order, with which properties, and their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use ampoule_store::hash::{Sha256Digest, Sha256Hasher};
use ampoule_sysroots::tree_path::printable;
use ampoule_sysroots::{ar, tar_reader, zip_reader};

use super::cause::Cause;
use super::windows::hexadecimal;
use crate::terminal::utc;

/// Most members of one archive that are looked at.
const MOST_MEMBERS: usize = 200_000;

/// An archive's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Zip,
    Tar,
    Ar,
}

impl Format {
    pub(super) fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(Self::Zip),
            _ if bytes.starts_with(b"!<arch>\n") => Some(Self::Ar),
            _ if bytes.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }

    /// What a property that differs comes from.
    pub(super) fn cause(self, property: &str) -> Option<Cause> {
        match (property, self) {
            ("time", Self::Zip) => Some(Cause::ZipTime),
            ("time", Self::Tar) => Some(Cause::TarTime),
            ("time", Self::Ar) => Some(Cause::ArTime),
            ("owner", _) => Some(Cause::Owner),
            ("mode", _) => Some(Cause::Mode),
            ("stored size", _) => Some(Cause::Compression),
            _ => None,
        }
    }
}

/// One member of an archive.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) properties: Vec<(&'static str, String)>,
    pub(super) size: u64,
    pub(super) digest: Sha256Digest,
}

/// The members of an archive, if it can be read and has no more than so many bytes.
pub(super) fn members(format: Format, bytes: &[u8], most: u64) -> Option<Vec<Member>> {
    let mut found = Vec::new();
    let mut left = most;
    visit(format, bytes, &mut |name, properties, body| {
        let mut hasher = Sha256Hasher::new();
        let size = std::io::copy(&mut body.take(left.saturating_add(1)), &mut hasher).ok()?;
        left = left.checked_sub(size)?;
        if found.len() == MOST_MEMBERS {
            return None;
        }
        found.push(Member { name, properties, size, digest: hasher.finish() });
        Some(())
    })?;
    Some(found)
}

/// The bytes of some members, by position.
pub(super) fn bodies(format: Format, bytes: &[u8], wanted: &BTreeSet<usize>) -> BTreeMap<usize, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut position = 0;
    let _ = visit(format, bytes, &mut |_, _, body| {
        if wanted.contains(&position) {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).ok()?;
            found.insert(position, bytes);
        }
        position += 1;
        // What follows the last one is not of interest.
        (found.len() < wanted.len()).then_some(())
    });
    found
}

type Visit<'v> = dyn FnMut(String, Vec<(&'static str, String)>, &mut dyn Read) -> Option<()> + 'v;

fn visit(format: Format, bytes: &[u8], visit: &mut Visit<'_>) -> Option<()> {
    match format {
        Format::Zip => visit_zip(bytes, visit),
        Format::Tar => visit_tar(bytes, visit),
        Format::Ar => visit_ar(bytes, visit),
    }
}

fn visit_zip(bytes: &[u8], visit: &mut Visit<'_>) -> Option<()> {
    let archive = zip_reader::Archive::parse(bytes).ok()?;
    for entry in archive.entries() {
        let facts = &entry.metadata;
        let properties = vec![
            ("time", dos_time(facts.modified)),
            ("mode", format!("{:o}", facts.attributes >> 16)),
            ("attributes", format!("{:#06x}", facts.attributes & 0xffff)),
            ("made by", format!("{:#06x}", facts.made_by)),
            ("flags", format!("{:#06x}", facts.flags)),
            ("compression", if facts.method == 0 { "stored" } else { "deflated" }.to_owned()),
            ("stored size", facts.stored_size.to_string()),
            ("extra field", hexadecimal(&facts.extra)),
            ("comment", printable(&facts.comment)),
        ];
        visit(printable(&entry.path), properties, &mut archive.body(entry))?;
    }
    Some(())
}

fn visit_tar(bytes: &[u8], visit: &mut Visit<'_>) -> Option<()> {
    use tar_reader::EntryKind;
    let mut reader = tar_reader::Reader::new(bytes);
    while let Some(entry) = reader.next_entry().ok()? {
        let facts = entry.metadata;
        let number = |value: Option<u64>| value.map_or("unreadable".to_owned(), |value| value.to_string());
        let (kind, target) = match &entry.kind {
            EntryKind::File => ("file", String::new()),
            EntryKind::Directory => ("directory", String::new()),
            EntryKind::Symlink(target) => ("symbolic link", printable(target)),
            EntryKind::HardLink(target) => ("hard link", printable(target)),
            EntryKind::Special(what) => (*what, String::new()),
        };
        let (user, group) = (printable(&facts.user), printable(&facts.group));
        let is_time = |key: &[u8]| matches!(key, b"mtime" | b"atime" | b"ctime");
        let record = |(key, value): &(Vec<u8>, Vec<u8>)| format!(" {}={}", printable(key), printable(value));
        let (times, others): (Vec<_>, Vec<_>) = facts.extended.iter().partition(|(key, _)| is_time(key));
        let properties = vec![
            ("type", kind.to_owned()),
            ("target", target),
            ("mode", facts.mode.map_or("unreadable".to_owned(), |mode| format!("{mode:o}"))),
            ("owner", format!("{} ({user}), group {} ({group})", number(facts.user_id), number(facts.group_id))),
            ("time", time(facts.modified) + &times.into_iter().map(record).collect::<String>()),
            ("extended header", others.into_iter().map(record).collect()),
        ];
        visit(printable(&entry.path), properties, &mut reader)?;
    }
    Some(())
}

fn time(seconds: Option<u64>) -> String {
    seconds.and_then(|seconds| i64::try_from(seconds).ok()).map_or("unreadable".to_owned(), utc)
}

/// A date and time of MS-DOS, as written.
fn dos_time(value: u32) -> String {
    let (date, time) = (value >> 16, value & 0xffff);
    let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time >> 11, time >> 5 & 63, time % 32 * 2)
}

fn visit_ar(bytes: &[u8], visit: &mut Visit<'_>) -> Option<()> {
    let mut reader = ar::Reader::new(bytes).ok()?;
    let mut long_names = Vec::new();
    while let Some(member) = reader.next_member().ok()? {
        let [modified, owner, group, mode] = &member.metadata;
        let properties = vec![
            ("mode", mode.clone()),
            ("owner", format!("{owner}, group {group}")),
            ("time", time(modified.parse().ok())),
        ];
        if member.name == "//" {
            // Kept for the names of those that follow.
            let size = usize::try_from(member.size).ok()?.min(bytes.len());
            (&mut reader).take(size as u64).read_to_end(&mut long_names).ok()?;
            visit("long names".to_owned(), properties, &mut long_names.as_slice())?;
            continue;
        }
        let name = match member.name.as_str() {
            "/" => "symbols".to_owned(),
            name => long_name(name, &long_names).unwrap_or_else(|| name.to_owned()),
        };
        visit(name, properties, &mut (&mut reader).take(member.size))?;
    }
    Some(())
}

fn long_name(name: &str, table: &[u8]) -> Option<String> {
    let at: usize = name.strip_prefix('/')?.parse().ok()?;
    let rest = table.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    Some(printable(rest[..end].strip_suffix(b"/").unwrap_or(&rest[..end])))
}
