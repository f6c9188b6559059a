//! Bytes that are almost what they were.

/// Pseudo-random numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit.max(1) as u64) as usize
    }

    /// A part of something of this length, mostly short.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 { length - start } else { (length - start).min(16) };
        start..start + self.below(most + 1)
    }
}

/// The longest that a seed may grow.
const LIMIT: usize = 1 << 16;
/// Numbers at which counting goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fff8,
    u64::MAX,
];

/// A seed with one to four changes; the same number gives the same ones.
pub(crate) fn mutate(seed: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut numbers = Numbers((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        change(&mut bytes, other, &mut numbers);
        bytes.truncate(LIMIT);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    let place = numbers.below(bytes.len());
    match numbers.below(12) {
        0..=1 if !bytes.is_empty() => bytes[place] ^= 1 << numbers.below(8),
        2 if !bytes.is_empty() => bytes[place] = [0, b'/', b'.', b'\n', b' ', b'9', 0x7f, 0xff][numbers.below(8)],
        3 => bytes.truncate(place),
        4 => drop(bytes.drain(numbers.part(bytes.len()))),
        5 => {
            let part = bytes[numbers.part(bytes.len())].to_vec();
            bytes.splice(place..place, part);
        }
        6 => {
            let part = other[numbers.part(other.len())].to_vec();
            bytes.splice(place..place, part);
        }
        7..=8 => number(bytes, place, numbers),
        9 => digits(bytes, place, numbers),
        10 => lines(bytes, numbers),
        _ => {
            let byte = numbers.below(256) as u8;
            bytes.insert(place.min(bytes.len()), byte);
        }
    }
}

/// Puts a number where one may be: of any width and order, mostly aligned.
fn number(bytes: &mut [u8], place: usize, numbers: &mut Numbers) {
    let width = [1, 2, 4, 8][numbers.below(4)];
    let place = if numbers.below(4) == 0 { place } else { place / width * width };
    let mut value = EDGES[numbers.below(EDGES.len())].to_le_bytes();
    if numbers.below(4) == 0 {
        value[..width].reverse();
    }
    if let Some(slot) = bytes.get_mut(place..place + width) {
        slot.copy_from_slice(&value[..width]);
    }
}

/// Puts another number where one stands in digits.
fn digits(bytes: &mut Vec<u8>, place: usize, numbers: &mut Numbers) {
    let Some(start) = bytes[place.min(bytes.len())..].iter().position(u8::is_ascii_digit) else { return };
    let start = place + start;
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = EDGES[numbers.below(EDGES.len())].to_string();
    bytes.splice(start..start + length, value.into_bytes());
}

/// Repeats, leaves out or moves a line.
fn lines(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let mut all: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if all.is_empty() {
        return;
    }
    let line = all.remove(numbers.below(all.len()));
    for _ in 0..numbers.below(3) {
        all.insert(numbers.below(all.len() + 1), line.clone());
    }
    *bytes = all.concat();
}
