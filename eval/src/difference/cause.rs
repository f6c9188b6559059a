//! What differences usually come from, told by their patterns.

use serde::{Serialize, Serializer};

/// What a change usually comes from. The most telling come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A date or a count of seconds.
    Date,
    /// The time in the header of a gzip stream.
    GzipTime,
    /// The times of a zip archive's members.
    ZipTime,
    /// The times of a tar archive's members.
    TarTime,
    /// The times of a static library's members.
    ArTime,
    /// The source's time in compiled Python.
    PycTime,
    /// Members of an archive in another order.
    MemberOrder,
    /// The same lines in another order.
    LineOrder,
    /// The same words of a line in another order.
    WordOrder,
    /// Owner and group in an archive.
    Owner,
    /// Permission bits.
    Mode,
    /// An address in memory.
    Pointer,
    /// A random identifier.
    Uuid,
    /// The name of a temporary file.
    TemporaryName,
    /// The release of the kernel.
    Kernel,
    /// Long hexadecimal digits: a hash of something, or random.
    Hexadecimal,
    /// A small number.
    Number,
    /// Compressed in another way.
    Compression,
    /// A sum over other things that differ.
    Consequence,
}

impl Cause {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::GzipTime => "gzip-time",
            Self::ZipTime => "zip-time",
            Self::TarTime => "tar-time",
            Self::ArTime => "ar-time",
            Self::PycTime => "pyc-time",
            Self::MemberOrder => "member-order",
            Self::LineOrder => "line-order",
            Self::WordOrder => "word-order",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Pointer => "pointer",
            Self::Uuid => "uuid",
            Self::TemporaryName => "temporary-name",
            Self::Kernel => "kernel",
            Self::Hexadecimal => "hexadecimal",
            Self::Number => "number",
            Self::Compression => "compression",
            Self::Consequence => "consequence",
        }
    }

    /// What it is and what helps.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Date => "a date: let the builder write the time of `SOURCE_DATE_EPOCH`, or none",
            Self::GzipTime => "the time in a gzip header: use `gzip -n`, or `mtime=0` in Python",
            Self::ZipTime => {
                "times of zip members: set them from `SOURCE_DATE_EPOCH`, or touch the files first and use `zip -X`"
            }
            Self::TarTime => "times of tar members: use `tar --mtime=@$SOURCE_DATE_EPOCH`",
            Self::ArTime => "times in a static library: use `ar D` (deterministic mode) or `ranlib -D`",
            Self::PycTime => "the source's time in compiled Python: use `--invalidation-mode unchecked-hash`",
            Self::MemberOrder => {
                "an unsorted list of files: use `tar --sort=name`, or sort the names before they are packed"
            }
            Self::LineOrder => {
                "the same lines in another order: sort what comes from a directory, a hash table or parallel jobs"
            }
            Self::WordOrder => {
                "the same words in another order: sort what comes from a hash table or a directory, or fix the hash's seed"
            }
            Self::Owner => "owners in an archive: use `tar --owner=0 --group=0 --numeric-owner`",
            Self::Mode => "permission bits: set them explicitly",
            Self::Pointer => "an address in memory: do not print or hash pointers",
            Self::Uuid => "a random identifier: derive it from the inputs (UUID version 5), or leave it out",
            Self::TemporaryName => {
                "the name of a temporary file: give it a fixed name, or map it with `-ffile-prefix-map`"
            }
            Self::Kernel => "the kernel's release: do not write `uname` into outputs",
            Self::Hexadecimal => "a hash or random digits: look for what it is computed from",
            Self::Number => {
                "a number: counts of processors, process numbers and sizes of memory belong to the machine, not to the output"
            }
            Self::Compression => {
                "the same content compressed differently: fix level and number of threads of the compressor"
            }
            Self::Consequence => "this follows from other differences: it is a sum over bytes that differ",
        }
    }

    /// What a text on both sides speaks for; `first` and `second` are one line each.
    #[must_use]
    pub fn of_texts(first: &str, second: &str) -> Option<Self> {
        let (left, right) = differing_words(first, second)?;
        let both = |test: fn(&str) -> bool| test(&left) && test(&right);
        if both(is_uuid) {
            return Some(Self::Uuid);
        }
        if both(is_date) {
            return Some(Self::Date);
        }
        if both(is_temporary) {
            return Some(Self::TemporaryName);
        }
        if both(is_pointer) {
            return Some(Self::Pointer);
        }
        if both(is_kernel) {
            return Some(Self::Kernel);
        }
        if same_words(first, second) {
            return Some(Self::WordOrder);
        }
        if both(is_long_hexadecimal) {
            return Some(Self::Hexadecimal);
        }
        both(|word| digits(word).is_some()).then_some(Self::Number)
    }

    /// What the bytes at the first difference speak for, if they are a known kind of number.
    #[must_use]
    pub fn of_bytes(first: &[u8], second: &[u8], offset: usize) -> Option<Self> {
        let word = |bytes: &[u8], size: usize| {
            let start = offset / size * size;
            bytes.get(start..start + size).map(<[u8]>::to_vec)
        };
        if let (Some(left), Some(right)) = (word(first, 8), word(second, 8)) {
            let is_address = |bytes: &[u8]| {
                matches!(bytes, [.., 0x55 | 0x56 | 0x7f, 0, 0]) && bytes.iter().filter(|byte| **byte != 0).count() > 3
            };
            if is_address(&left) && is_address(&right) {
                return Some(Self::Pointer);
            }
        }
        let (left, right) = (word(first, 4)?, word(second, 4)?);
        let (left, right): ([u8; 4], [u8; 4]) = (left.try_into().ok()?, right.try_into().ok()?);
        let times = |read: fn([u8; 4]) -> u32| is_time(u64::from(read(left))) && is_time(u64::from(read(right)));
        (times(u32::from_le_bytes) || times(u32::from_be_bytes)).then_some(Self::Date)
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Unix seconds that a clock of these years could show: 2017 to 2065. Other numbers are rarely times.
fn is_time(seconds: u64) -> bool {
    (1_483_000_000..3_000_000_000).contains(&seconds)
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '=' | '`')
}

/// The parts of two lines from the first word that differs to the last one.
fn differing_words(first: &str, second: &str) -> Option<(String, String)> {
    if first == second {
        return None;
    }
    let same = first.chars().zip(second.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum::<usize>();
    let start = first[..same].char_indices().rfind(|(_, c)| is_separator(*c)).map_or(0, |(at, c)| at + c.len_utf8());
    let (left, right) = (&first[start..], &second[start..]);
    let tail = left.chars().rev().zip(right.chars().rev()).take_while(|(a, b)| a == b);
    let tail: usize = tail.map(|(a, _)| a.len_utf8()).sum();
    let common = &left[left.len() - tail..];
    let kept = common.char_indices().find(|(_, c)| is_separator(*c)).map_or(0, |(at, _)| common.len() - at);
    Some((left[..left.len() - kept].trim().to_owned(), right[..right.len() - kept].trim().to_owned()))
}

fn digits(word: &str) -> Option<u64> {
    let plain = !word.is_empty() && word.len() <= 20 && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| plain)
}

fn is_hexadecimal(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The runs of digits in a text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty())
}

fn is_date(text: &str) -> bool {
    const NAMES: [&str; 19] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Mon", "Tue", "Wed", "Thu",
        "Fri", "Sat", "Sun",
    ];
    if let Some(number) = digits(text) {
        let is_year = text.len() == 4 && (1970..2107).contains(&number);
        let is_day = text.len() == 8 && (1970..2107).contains(&(number / 10_000)) && number / 100 % 100 <= 12;
        return is_year || is_day || is_time(number) || is_time(number / 1000) && text.len() == 13;
    }
    let has_year = numbers(text).any(|run| run.len() == 4 && (run.starts_with("19") || run.starts_with("20")));
    let has_name = NAMES.iter().any(|name| text.contains(name));
    let has_separated = text.contains(['-', '/', ':']) && numbers(text).count() >= 3 && !is_uuid(text);
    let has_clock = text.split(':').count() == 3 && numbers(text).filter(|run| run.len() == 2).count() >= 3;
    let has_seconds = text.len() < 40 && numbers(text).any(|run| run.len() == 10 && run.parse().is_ok_and(is_time));
    has_year && (has_name || has_separated) || has_clock || has_name && numbers(text).count() >= 1 || has_seconds
}

fn is_uuid(text: &str) -> bool {
    let start = text.find('-').and_then(|dash| dash.checked_sub(8)).unwrap_or(0);
    let Some(core) = text.get(start..start + 36) else { return false };
    let parts: Vec<&str> = core.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hexadecimal(part))
}

fn is_pointer(text: &str) -> bool {
    let at = text.find("0x").map_or(0, |at| at + 2);
    let digits: String = text[at..].chars().take_while(char::is_ascii_hexdigit).collect();
    let looks = ["7f", "55", "56"].iter().any(|start| digits.to_ascii_lowercase().starts_with(start));
    digits.len() == 12 && looks || at > 0 && (7..=16).contains(&digits.len())
}

fn is_temporary(text: &str) -> bool {
    ["/tmp/", "/var/tmp/", "tmp", "/build/"].iter().any(|start| text.contains(start)) && text.len() > 6
}

fn is_kernel(text: &str) -> bool {
    let mut parts = text.split(['.', '-']);
    let numeric = |part: Option<&str>| part.is_some_and(|part| digits(part).is_some_and(|number| number < 400));
    let major = text.split('.').next().and_then(digits).is_some_and(|major| (2..12).contains(&major));
    major && numeric(parts.next()) && numeric(parts.next()) && text.contains('-')
}

fn is_long_hexadecimal(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= 16)
}

fn same_words(first: &str, second: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> =
            text.split(is_separator).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    first.len() == second.len() && words(first).len() > 1 && words(first) == words(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_text_are_recognised() {
        let cases = [
            ("built on 2026-11-21", "built on 2030-04-02", Some(Cause::Date)),
            ("Sat Nov 21 00:43:54 UTC 2026", "Tue Apr  2 07:56:54 UTC 2030", Some(Cause::Date)),
            ("compiled Nov 21 2026", "compiled Apr  2 2030", Some(Cause::Date)),
            ("00:43:54", "07:56:54", Some(Cause::Date)),
            ("time=1790000000", "time=1890000000", Some(Cause::Date)),
            ("year 2026", "year 2030", Some(Cause::Date)),
            ("made in 0x7ffe2b3c4d50", "made in 0x7ffd00112230", Some(Cause::Pointer)),
            ("at 55d0c0ffee10", "at 564aabbccdd0", Some(Cause::Pointer)),
            ("id: 123e4567-e89b-12d3-a456-426614174000", "id: 00000000-1111-4222-8333-444455556666", Some(Cause::Uuid)),
            ("from /tmp/tmp.x8Zk2/a.c", "from /tmp/tmp.99aaQ/a.c", Some(Cause::TemporaryName)),
            ("{'a', 'b', 'c'}", "{'c', 'a', 'b'}", Some(Cause::WordOrder)),
            ("sha256:0123456789abcdef0123", "sha256:fedcba9876543210aaaa", Some(Cause::Hexadecimal)),
            ("6.12.0-21-amd64", "5.10.0-1-ampoule", Some(Cause::Kernel)),
            ("cores: 5", "cores: 1", Some(Cause::Number)),
            ("some words", "other words", None),
            ("same", "same", None),
            ("", "x", None),
            ("é2026", "ü2030", None),
        ];
        for (first, second, expected) in cases {
            assert_eq!(Cause::of_texts(first, second), expected, "{first} / {second}");
            assert_eq!(Cause::of_texts(second, first), expected, "{second} / {first}");
        }
    }

    #[test]
    fn patterns_of_bytes_are_recognised() {
        let number = |value: u64| [vec![9; 8], value.to_le_bytes().to_vec(), vec![9; 8]].concat();
        assert_eq!(Cause::of_bytes(&number(1_790_000_000), &number(1_890_000_000), 9), Some(Cause::Date));
        assert_eq!(Cause::of_bytes(&number(0x7ffe_1234_5678), &number(0x7ffd_9876_5432), 8), Some(Cause::Pointer));
        assert_eq!(Cause::of_bytes(&number(7), &number(8), 8), None);
        assert_eq!(Cause::of_bytes(b"ab", b"ac", 1), None);
        assert_eq!(Cause::of_bytes(b"", b"c", 0), None);
    }

    #[test]
    fn every_cause_has_its_own_name_and_advice() {
        let all = [
            Cause::Date,
            Cause::GzipTime,
            Cause::ZipTime,
            Cause::TarTime,
            Cause::ArTime,
            Cause::PycTime,
            Cause::MemberOrder,
            Cause::LineOrder,
            Cause::WordOrder,
            Cause::Owner,
            Cause::Mode,
            Cause::Pointer,
            Cause::Uuid,
            Cause::TemporaryName,
            Cause::Kernel,
            Cause::Hexadecimal,
            Cause::Number,
            Cause::Compression,
            Cause::Consequence,
        ];
        let names: std::collections::BTreeSet<_> = all.iter().map(|cause| (cause.name(), cause.advice())).collect();
        assert_eq!(names.len(), all.len());
    }
}
