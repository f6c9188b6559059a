//! A comparison as plain text.

use std::fmt::{self, Write as _};

use super::change::{Bytes, Change, Hunk, Kind, Side, StructuralDifference};

/// Longest value of a property that is shown.
const VALUE: usize = 200;

impl fmt::Display for StructuralDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            write!(f, "{change}")?;
        }
        if self.omitted > 0 {
            writeln!(f, "… and {} more differences", self.omitted)?;
        }
        let causes = self.causes();
        if !causes.is_empty() {
            writeln!(f, "likely causes:")?;
        }
        for cause in causes {
            writeln!(f, "  {}", cause.advice())?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.place, self.kind.summary())?;
        match &self.kind {
            Kind::Order { first, second } => {
                writeln!(f, "  - {}", first.join(", "))?;
                writeln!(f, "  + {}", second.join(", "))
            }
            Kind::Text { hunks, omitted } => {
                hunks.iter().try_for_each(|hunk| write!(f, "{hunk}"))?;
                if *omitted > 0 { writeln!(f, "  … and {omitted} more places") } else { Ok(()) }
            }
            Kind::Bytes(bytes) => write!(f, "{}", bytes.windows()),
            Kind::OnlyIn { .. } | Kind::Property { .. } => Ok(()),
        }
    }
}

impl Kind {
    /// What differs, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::OnlyIn { side: Side::First } => "only the first has it".to_owned(),
            Self::OnlyIn { side: Side::Second } => "only the second has it".to_owned(),
            Self::Property { name, first, second, others } => {
                let more = match others {
                    0 => String::new(),
                    1 => ", and in one more member".to_owned(),
                    more => format!(", and in {more} more members"),
                };
                format!("{name} is {} first, then {}{more}", value(first), value(second))
            }
            Self::Order { .. } => "the same in another order".to_owned(),
            Self::Text { .. } => "lines differ".to_owned(),
            Self::Bytes(bytes) => bytes.summary(),
        }
    }
}

fn value(text: &str) -> String {
    if text.is_empty() {
        return "empty".to_owned();
    }
    let shown: String = text.chars().take(VALUE).collect();
    if shown.len() < text.len() { format!("`{shown}…`") } else { format!("`{shown}`") }
}

impl Bytes {
    fn summary(&self) -> String {
        let mut text = format!("byte {}", self.offset);
        if let Some(within) = &self.within {
            let _ = write!(text, " ({within})");
        }
        match self.differing {
            Some(1) => text.push_str(", the only one that differs"),
            Some(count) => {
                let _ = write!(text, " and {} more of {}", count - 1, self.first_size);
            }
            None if self.first_size != self.second_size => {
                let _ = write!(text, "; {} bytes first, then {}", self.first_size, self.second_size);
            }
            None => {}
        }
        text
    }

    /// The windows, and the texts if there are any, as lines.
    pub(crate) fn windows(&self) -> String {
        let mut text = String::new();
        let sides = [('-', &self.first, &self.first_text), ('+', &self.second, &self.second_text)];
        for (mark, _, words) in &sides {
            if let Some(words) = words {
                let _ = writeln!(text, "  {mark} `{words}`");
            }
        }
        for (mark, digits, _) in &sides {
            for (row, digits) in digits.as_bytes().chunks(32).enumerate() {
                let _ = writeln!(text, "  {mark} {:08x}  {}", self.window + 16 * row as u64, hex_row(digits));
            }
        }
        text
    }
}

/// One row of a hexadecimal dump: digits in pairs, then what is printable.
fn hex_row(digits: &[u8]) -> String {
    let (mut pairs, mut letters) = (String::new(), String::new());
    for pair in digits.chunks(2) {
        let pair = String::from_utf8_lossy(pair);
        let byte = u8::from_str_radix(&pair, 16).unwrap_or_default();
        let _ = write!(pairs, "{pair} ");
        letters.push(if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' });
    }
    format!("{pairs:<48} {letters}")
}

impl fmt::Display for Hunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  @@ line {} first, then line {} @@", self.first_line, self.second_line)?;
        for line in &self.lines {
            let mark = match line.only_in {
                None => ' ',
                Some(Side::First) => '-',
                Some(Side::Second) => '+',
            };
            writeln!(f, "  {mark} {}", line.text)?;
        }
        Ok(())
    }
}
