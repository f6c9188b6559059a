//! Bounds on the shape of a recipe, checked before it is parsed.
//!
//! The parser and the compiler recurse on nested and on chained syntax. Far fewer levels than would harm them are
//! already nobody's intention.

/// Brackets inside each other.
const MAX_NESTING: usize = 200;
/// Words, operators and brackets without a comma, a semicolon or the end of the statement.
const MAX_CHAIN: usize = 25_000;
/// `elif` branches of one file: each lies inside the one before.
const MAX_BRANCHES: usize = 500;
/// Columns before the first word of a line: each level of blocks takes at least one.
const MAX_INDENTATION: usize = 400;

/// What a recipe has too much of, for people.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut scan = Scan { rest: text.as_bytes(), chains: vec![0], branches: 0 };
    while let Some(byte) = scan.peek() {
        match byte {
            b'#' => scan.skip_while(|byte| byte != b'\n'),
            b'"' | b'\'' => {
                scan.skip_string(byte);
                scan.count()?;
            }
            b'(' | b'[' | b'{' => {
                scan.count()?;
                scan.open()?;
            }
            b')' | b']' | b'}' => scan.close(),
            b',' | b';' => scan.end_chain(),
            b'\n' => scan.end_line()?,
            _ if is_word(byte) => scan.word()?,
            _ if byte.is_ascii_whitespace() => scan.rest = &scan.rest[1..],
            _ => {
                scan.rest = &scan.rest[1..];
                scan.count()?;
            }
        }
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

struct Scan<'a> {
    rest: &'a [u8],
    /// For each open bracket, and outside of all, the length of the chain so far.
    chains: Vec<usize>,
    branches: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip_while(&mut self, skip: impl Fn(u8) -> bool) {
        let length = self.rest.iter().position(|byte| !skip(*byte)).unwrap_or(self.rest.len());
        self.rest = &self.rest[length..];
    }

    fn count(&mut self) -> Result<(), String> {
        let chain = self.chains.last_mut().expect("the outermost chain is never closed");
        *chain += 1;
        match *chain > MAX_CHAIN {
            true => Err(format!("has an expression of more than {MAX_CHAIN} words and operators")),
            false => Ok(()),
        }
    }

    fn open(&mut self) -> Result<(), String> {
        self.rest = &self.rest[1..];
        self.chains.push(0);
        match self.chains.len() > MAX_NESTING + 1 {
            true => Err(format!("nests brackets more than {MAX_NESTING} deep")),
            false => Ok(()),
        }
    }

    fn close(&mut self) {
        self.rest = &self.rest[1..];
        if self.chains.len() > 1 {
            self.chains.pop();
        }
    }

    fn end_chain(&mut self) {
        self.rest = &self.rest[1..];
        if let Some(chain) = self.chains.last_mut() {
            *chain = 0;
        }
    }

    fn end_line(&mut self) -> Result<(), String> {
        self.rest = &self.rest[1..];
        if self.chains.len() > 1 {
            return Ok(());
        }
        self.chains[0] = 0;
        let before = self.rest.len();
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        match before - self.rest.len() > MAX_INDENTATION && !matches!(self.peek(), Some(b'\n' | b'#') | None) {
            true => Err(format!("indents blocks by more than {MAX_INDENTATION} columns")),
            false => Ok(()),
        }
    }

    fn word(&mut self) -> Result<(), String> {
        let start = self.rest;
        self.skip_while(is_word);
        if &start[..start.len() - self.rest.len()] == b"elif" {
            self.branches += 1;
            if self.branches > MAX_BRANCHES {
                return Err(format!("has more than {MAX_BRANCHES} `elif` branches"));
            }
        }
        self.count()
    }

    /// Passes over a string literal. One that does not end is the parser's to complain about.
    fn skip_string(&mut self, quote: u8) {
        let triple = self.rest.starts_with(&[quote; 3]);
        let end: &[u8] = if triple { &[quote; 3] } else { &[quote] };
        self.rest = &self.rest[end.len()..];
        while let Some(byte) = self.peek() {
            if self.rest.starts_with(end) {
                self.rest = &self.rest[end.len()..];
                return;
            }
            if byte == b'\n' && !triple {
                return;
            }
            let length = if byte == b'\\' { 2 } else { 1 };
            self.rest = self.rest.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_nests_that_would_overflow_a_stack_are_refused() {
        let cases = [
            ("x = 1".to_owned() + &"+1".repeat(200_000), "words and operators"),
            ("x = ".to_owned() + &"-".repeat(400_000) + "1", "words and operators"),
            ("x = ".to_owned() + &"not ".repeat(200_000) + "1", "words and operators"),
            ("x = a".to_owned() + &".b".repeat(100_000), "words and operators"),
            ("x = a".to_owned() + &"()".repeat(100_000), "words and operators"),
            ("x = ".to_owned() + &"lambda: ".repeat(50_000) + "1", "words and operators"),
            ("if a:\n  b()\n".to_owned() + &"elif a:\n  b()\n".repeat(50_000), "`elif` branches"),
            ((0..1000).map(|n| format!("{}if a:\n", " ".repeat(n))).collect(), "indents blocks"),
            ("[".repeat(201), "nests brackets"),
        ];
        for (recipe, expected) in cases {
            let error = check(&recipe).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn long_lists_and_texts_are_fine() {
        let brackets = format!("x = \"\"\"{}\n{}\"\"\"", "(".repeat(1000), " ".repeat(1000));
        let list = format!("x = [{}]", "\"a\" + b(c),\n".repeat(50_000));
        let comment = format!("# {}\n", "[".repeat(1000));
        for recipe in [brackets, list, comment, "x = 'it\\'s' # (".to_owned(), "x = 'open".to_owned(), String::new()] {
            assert_eq!(check(&recipe), Ok(()));
        }
    }
}
