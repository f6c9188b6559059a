//! What may be left on a disk when the power goes: everything that a barrier made durable, and any part of the rest.

use crate::disk::{Change, Disk, Inode};
use crate::record::Event;

/// The unit in which a disk writes or does not write.
const SECTOR: usize = 512;

/// How much of what was not durable is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Everything: the program's death alone.
    Nothing,
    /// None of it.
    All,
    /// Names and modes, but no bytes: files are empty.
    Data,
    /// Names, modes and lengths: files are full of zeros.
    DataButLengths,
    /// Bytes, but neither names nor modes.
    Metadata,
    /// Whatever these numbers say, changes in their order up to some point.
    Tail(u64),
    /// Whatever these numbers say, for each change alone; writes may be torn.
    Random(u64),
}

/// Pseudo-random numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}

/// The changes among the first `point` events, each with whether a barrier made it durable.
pub(crate) fn changes(events: &[Event], point: usize) -> Vec<(&Change, bool)> {
    let mut changes: Vec<(&Change, bool)> = Vec::new();
    for event in &events[..point] {
        match event {
            Event::Change(change) => changes.push((change, false)),
            Event::Sync { inode, is_data_only } => {
                let covered = |change: &Change| covers(*inode, *is_data_only, change);
                changes.iter_mut().filter(|(change, _)| covered(change)).for_each(|(_, durable)| *durable = true);
            }
            Event::SyncAll => changes.iter_mut().for_each(|(_, durable)| *durable = true),
            Event::Said(_) => {}
        }
    }
    changes
}

fn covers(inode: Inode, is_data_only: bool, change: &Change) -> bool {
    change.belongs_to(inode) && (!is_data_only || change.is_data())
}

/// What the disk holds after the power went.
pub(crate) fn after_loss(before: &Disk, changes: &[(&Change, bool)], loss: Loss) -> Disk {
    let mut disk = before.clone();
    let seed = match loss {
        Loss::Tail(seed) | Loss::Random(seed) => seed,
        _ => 0,
    };
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    numbers.below(2);
    let pending = changes.iter().filter(|(_, durable)| !durable).count() as u64;
    let mut left = numbers.below(pending + 1);
    for (change, durable) in changes {
        let is_kept = *durable
            || match loss {
                Loss::Nothing => true,
                Loss::All => false,
                Loss::Data | Loss::DataButLengths => !change.is_data(),
                Loss::Metadata => change.is_data(),
                Loss::Tail(_) => left > 0,
                Loss::Random(_) => numbers.below(2) == 0,
            };
        left = left.saturating_sub(u64::from(!durable));
        match (change, loss) {
            _ if is_kept => disk.apply(change),
            (Change::Write { inode, offset, bytes }, Loss::DataButLengths) => {
                let bytes = vec![0; bytes.len()];
                disk.apply(&Change::Write { inode: *inode, offset: *offset, bytes });
            }
            (Change::Write { inode, offset, bytes }, Loss::Random(_)) => {
                disk.apply(&Change::Write {
                    inode: *inode,
                    offset: *offset,
                    bytes: torn(&disk, change, bytes, &mut numbers),
                });
            }
            _ => disk.lose(change),
        }
    }
    disk
}

/// Some sectors of a write, and of the others what was there before.
fn torn(disk: &Disk, change: &Change, bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let Change::Write { inode, offset, .. } = change else { return Vec::new() };
    let there = match disk.nodes.get(inode).map(|node| &node.content) {
        Some(crate::disk::Content::File(content)) => content.get(*offset..).unwrap_or_default(),
        _ => &[],
    };
    let mut torn = vec![0; bytes.len()];
    let known = there.len().min(torn.len());
    torn[..known].copy_from_slice(&there[..known]);
    for (sector, new) in torn.chunks_mut(SECTOR).zip(bytes.chunks(SECTOR)) {
        if numbers.below(2) == 0 {
            sector.copy_from_slice(new);
        }
    }
    // Lengths are metadata, and may be lost for themselves.
    if numbers.below(3) == 0 {
        torn.truncate(known);
    }
    torn
}
