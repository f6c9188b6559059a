//! Compressed streams: their headers and what they hold.

use std::io::Read;

use ampoule_sysroots::compression::Compression;
use ampoule_sysroots::tree_path::printable;

use super::cause::Cause;
use crate::terminal::utc;

/// The compression of a stream, if it has one that can be undone.
pub(super) fn detect(bytes: &[u8]) -> Option<Compression> {
    Compression::detect(bytes).ok().filter(|compression| *compression != Compression::None)
}

/// The plain bytes, if there are no more than so many.
pub(super) fn decode(compression: Compression, bytes: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let reader = compression.decode(bytes).ok()?;
    reader.take(most.saturating_add(1)).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= most).then_some(plain)
}

/// What the header of a gzip stream says (RFC 1952): names and values. Nothing for other streams.
pub(super) fn header(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let [0x1f, 0x8b, _, flags, a, b, c, d, extra_flags, system, rest @ ..] = bytes else { return Vec::new() };
    let seconds = u32::from_le_bytes([*a, *b, *c, *d]);
    let time = if seconds == 0 { "none".to_owned() } else { utc(seconds.into()) };
    let mut facts = vec![("time", time), ("level", extra_flags.to_string()), ("system", system.to_string())];
    // The name follows the extra field; one with an extra field is rare and left alone.
    let name = if flags & 0b1100 == 0b1000 { rest.split(|byte| *byte == 0).next() } else { None };
    facts.push(("name", printable(name.unwrap_or_default())));
    facts
}

/// What a property of the header that differs comes from.
pub(super) fn cause(property: &str) -> Option<Cause> {
    match property {
        "time" => Some(Cause::GzipTime),
        "level" => Some(Cause::Compression),
        _ => None,
    }
}

/// The name of what a compressed file holds: `x.txt` for `x.txt.gz`.
pub(super) fn inner_name(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = [".gz", ".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end));
    stem.filter(|stem| !stem.is_empty()).unwrap_or("content").to_owned()
}
