//! Text to derivations.

use std::collections::{BTreeMap, BTreeSet};

use ampoule_store::content_address::{ContentAddress, Method};
use ampoule_store::hash::{Hash, HashError};
use ampoule_store::path::{PathError, StoreDir, StorePath};

use super::write;
use crate::derivation::{Derivation, InvalidDerivation, Output};

/// Why a text is no derivation. Offsets count bytes from its start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// The text goes on otherwise than the format.
    #[error("malformed derivation `{name}`: {expected} expected at byte {offset}")]
    Syntax {
        /// The derivation's name.
        name: String,
        /// Where.
        offset: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A text that must be UTF-8 is not.
    #[error("malformed derivation `{name}`: the string before byte {offset} is not UTF-8")]
    NotUtf8 {
        /// The derivation's name.
        name: String,
        /// Just after it.
        offset: usize,
    },
    /// A store path is malformed.
    #[error("malformed derivation `{name}`")]
    Path {
        /// The derivation's name.
        name: String,
        /// What is wrong.
        #[source]
        source: PathError,
    },
    /// An output's hash is malformed.
    #[error("malformed derivation `{name}`: output `{output}`")]
    Hash {
        /// The derivation's name.
        name: String,
        /// The output.
        output: String,
        /// What is wrong.
        #[source]
        source: HashError,
    },
    /// The fields of an output contradict each other.
    #[error("malformed derivation `{name}`: output `{output}` is of no known kind")]
    Output {
        /// The derivation's name.
        name: String,
        /// The output.
        output: String,
    },
    /// A rule for all derivations is broken.
    #[error(transparent)]
    Invalid(#[from] InvalidDerivation),
    /// The text is not the one that is written for this derivation: something is unsorted, given twice, escaped without need, or
    /// a fixed output's path is not the one of its content.
    #[error("derivation `{name}` is not written in its canonical form, at byte {offset}")]
    NotCanonical {
        /// The derivation's name.
        name: String,
        /// The first difference.
        offset: usize,
    },
}

/// Reads the text of the derivation with this name (which the text does not hold: it is that of the path, without `.drv`).
///
/// # Errors
/// When the text is not the canonical text of a derivation.
pub fn parse(text: &[u8], name: &str, store_dir: &StoreDir) -> Result<Derivation, ParseError> {
    let mut parser = Parser { text, at: 0, name, store_dir };
    let derivation = parser.derivation()?;
    if parser.at != text.len() {
        return Err(parser.syntax("the end"));
    }
    derivation.check()?;
    let canonical = write(&derivation, store_dir);
    if canonical != text {
        let offset = canonical.iter().zip(text).take_while(|(a, b)| a == b).count();
        return Err(ParseError::NotCanonical { name: name.to_owned(), offset });
    }
    Ok(derivation)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    name: &'a str,
    store_dir: &'a StoreDir,
}

impl Parser<'_> {
    fn derivation(&mut self) -> Result<Derivation, ParseError> {
        self.expect("Derive(")?;
        let mut outputs = BTreeMap::new();
        self.list(|parser| {
            let (name, output) = parser.output()?;
            outputs.insert(name, output);
            Ok(())
        })?;
        self.expect(",")?;
        let mut input_derivations = BTreeMap::new();
        self.list(|parser| {
            let (path, outputs) = parser.input_derivation()?;
            input_derivations.insert(path, outputs);
            Ok(())
        })?;
        self.expect(",")?;
        let mut input_sources = BTreeSet::new();
        self.list(|parser| {
            input_sources.insert(parser.path()?);
            Ok(())
        })?;
        self.expect(",")?;
        let system = self.utf8()?;
        self.expect(",")?;
        let builder = self.utf8()?;
        self.expect(",")?;
        let mut args = Vec::new();
        self.list(|parser| {
            args.push(parser.string()?);
            Ok(())
        })?;
        self.expect(",")?;
        let mut env = BTreeMap::new();
        self.list(|parser| {
            parser.expect("(")?;
            let name = parser.string()?;
            parser.expect(",")?;
            env.insert(name, parser.string()?);
            parser.expect(")")
        })?;
        self.expect(")")?;
        let name = self.name.to_owned();
        Ok(Derivation { name, outputs, input_derivations, input_sources, system, builder, args, env })
    }

    fn output(&mut self) -> Result<(String, Output), ParseError> {
        self.expect("(")?;
        let name = self.utf8()?;
        self.expect(",")?;
        let path = self.utf8()?;
        self.expect(",")?;
        let algorithm = self.utf8()?;
        self.expect(",")?;
        let hash = self.utf8()?;
        self.expect(")")?;
        let output = self.output_of(&name, &path, &algorithm, &hash)?;
        Ok((name, output))
    }

    /// The kind of output that the fields say. A fixed output's path is checked by writing it again.
    fn output_of(&self, output: &str, path: &str, algorithm: &str, hash: &str) -> Result<Output, ParseError> {
        let malformed = |source| ParseError::Hash { name: self.name.to_owned(), output: output.to_owned(), source };
        match (path, algorithm, hash) {
            ("", "", "") => Ok(Output::Deferred),
            (path, "", "") => Ok(Output::InputAddressed(self.store_path(path)?)),
            // Nix's impure derivations, an experiment; they have no place in a hermetic store.
            (_, "", _) | (_, _, "impure") => {
                Err(ParseError::Output { name: self.name.to_owned(), output: output.to_owned() })
            }
            (_, algorithm, hash) => {
                let (method, algorithm) = Method::parse_with_algorithm(algorithm).map_err(malformed)?;
                if hash.is_empty() {
                    return Ok(Output::Floating { method, algorithm });
                }
                let hash = Hash::parse(hash, Some(algorithm)).map_err(malformed)?;
                Ok(Output::Fixed(ContentAddress { method, hash }))
            }
        }
    }

    fn input_derivation(&mut self) -> Result<(StorePath, BTreeSet<String>), ParseError> {
        self.expect("(")?;
        let path = self.path()?;
        self.expect(",")?;
        let mut outputs = BTreeSet::new();
        self.list(|parser| {
            outputs.insert(parser.utf8()?);
            Ok(())
        })?;
        self.expect(")")?;
        Ok((path, outputs))
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), ParseError>) -> Result<(), ParseError> {
        self.expect("[")?;
        if self.text.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.text.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.syntax("`,` or `]`")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn path(&mut self) -> Result<StorePath, ParseError> {
        let text = self.utf8()?;
        self.store_path(&text)
    }

    fn store_path(&self, text: &str) -> Result<StorePath, ParseError> {
        self.store_dir.parse(text).map_err(|source| ParseError::Path { name: self.name.to_owned(), source })
    }

    fn utf8(&mut self) -> Result<String, ParseError> {
        let bytes = self.string()?;
        String::from_utf8(bytes).map_err(|_| ParseError::NotUtf8 { name: self.name.to_owned(), offset: self.at })
    }

    fn string(&mut self) -> Result<Vec<u8>, ParseError> {
        self.expect("\"")?;
        let mut bytes = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let plain = plain.ok_or_else(|| self.syntax("a closing quote"))?;
            bytes.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(bytes);
            }
            bytes.push(match rest.get(plain + 1) {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(quoted @ (b'"' | b'\\')) => *quoted,
                _ => return Err(self.syntax("one of `\" \\ n r t`")),
            });
            self.at += 1;
        }
    }

    fn expect(&mut self, expected: &'static str) -> Result<(), ParseError> {
        if !self.text[self.at..].starts_with(expected.as_bytes()) {
            return Err(self.syntax(expected));
        }
        self.at += expected.len();
        Ok(())
    }

    fn syntax(&self, expected: &'static str) -> ParseError {
        ParseError::Syntax { name: self.name.to_owned(), offset: self.at, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"Derive([("out","/nix/store/s5nvav9b8g8kczqzrn1n1npbvs31hgs4-minimal","","")],[],["/nix/store/9kg2g7da3wyvjkarcz60fyzf5ilri0b0-cfg"],"x86_64-linux","/bin/sh",["a\"b\\\n"],[("a",""),("b","c")])"#;

    fn read(text: &str) -> Result<Derivation, ParseError> {
        parse(text.as_bytes(), "minimal", &StoreDir::default())
    }

    #[test]
    fn a_canonical_text_is_read_and_written_back() {
        let derivation = read(TEXT).unwrap();
        assert_eq!(derivation.args, [b"a\"b\\\n"]);
        assert_eq!(write(&derivation, &StoreDir::default()), TEXT.as_bytes());
    }

    #[test]
    fn every_truncation_and_continuation_is_an_error() {
        for length in 0..TEXT.len() {
            assert!(read(&TEXT[..length]).is_err(), "{length}");
        }
        assert!(matches!(read(&format!("{TEXT}\n")), Err(ParseError::Syntax { expected: "the end", .. })));
    }

    #[test]
    fn a_changed_byte_is_an_error_or_another_derivation() {
        for index in 0..TEXT.len() {
            for flip in [1, 2, 0x20, 0x80] {
                let mut changed = TEXT.as_bytes().to_vec();
                changed[index] ^= flip;
                if let Ok(derivation) = parse(&changed, "minimal", &StoreDir::default()) {
                    assert_eq!(write(&derivation, &StoreDir::default()), changed);
                }
            }
        }
    }

    #[test]
    fn other_forms_of_the_same_derivation_are_refused() {
        for (from, to) in [
            (r#"("a",""),("b","c")"#, r#"("b","c"),("a","")"#),
            (r#"("a",""),("b","c")"#, r#"("a",""),("a",""),("b","c")"#),
            (r"\n", "\n"),
        ] {
            let text = TEXT.replace(from, to);
            assert_ne!(text, TEXT);
            assert!(matches!(read(&text), Err(ParseError::NotCanonical { .. })), "{text}");
        }
        assert!(matches!(read(&TEXT.replace("a\\\"b", "\\a\\\"b")), Err(ParseError::Syntax { .. })));
        assert!(matches!(read(&TEXT.replace("],[]", "], []")), Err(ParseError::Syntax { .. })));
    }

    #[test]
    fn a_fixed_output_must_have_the_path_of_its_content() {
        let text = r#"Derive([("out","/nix/store/92757nbm0ngi4qq1kxs91vi8i6wgl654-fod-nix32","sha256","ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")],[],[],"x86_64-linux","/bin/sh",[],[])"#;
        let read = |text: &str| parse(text.as_bytes(), "fod-nix32", &StoreDir::default());
        assert!(read(text).is_ok());
        assert!(matches!(read(&text.replace("9275", "9276")), Err(ParseError::NotCanonical { .. })));
        assert!(matches!(read(&text.replace("\"sha256\"", "\"\"")), Err(ParseError::Output { .. })));
        assert!(matches!(read(&text.replace("\"sha256\"", "\"sha1\"")), Err(ParseError::Hash { .. })));
        assert!(matches!(read(&text.replace("\"out\"", "\"drv\"")), Err(ParseError::Invalid(_))));
    }
}
