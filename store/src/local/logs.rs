//! Build logs: compressed, one file for each build, of failed and interrupted builds too.
#![expect(clippy::disallowed_methods, reason = "logs are files")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;

use super::LocalStore;
use super::failure::FileError;
use crate::path::StorePath;

/// What log files end with, after the derivation's base name and a number.
const EXTENSION: &str = ".zst";
/// Logs are written while a build runs, so speed counts; most are small and repeat themselves.
const COMPRESSION_LEVEL: i32 = 3;

/// Why a log cannot be written, found or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot handle the build log")]
pub struct LogError(#[from] pub(super) FileError);

/// Writes the log of one build. What was written and flushed can be read even if the program is killed.
pub struct LogWriter {
    name: String,
    path: PathBuf,
    encoder: Option<zstd::Encoder<'static, File>>,
}

/// Reads a log. One that breaks off, because its build was killed or is still running, ends where it does.
pub struct LogReader {
    decoder: zstd::Decoder<'static, BufReader<File>>,
}

impl LocalStore {
    /// Starts the log of a build of this derivation; earlier logs stay.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn log_writer(&self, derivation: &StorePath) -> Result<LogWriter, LogError> {
        let directory = self.log_directory(derivation);
        fs::create_dir_all(&directory).map_err(|source| FileError::new("create", &directory, source))?;
        let mut number = self.log_numbers(derivation)?.last().map_or(1, |last| last + 1);
        loop {
            let name = format!("{derivation}.{number}{EXTENSION}");
            let path = directory.join(&name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let encoder = zstd::Encoder::new(file, COMPRESSION_LEVEL)
                        .map_err(|source| FileError::new("write", &path, source))?;
                    return Ok(LogWriter { name, path, encoder: Some(encoder) });
                }
                // Somebody else started a build meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(FileError::new("create", path, source).into()),
            }
        }
    }

    /// The newest log of a derivation, if there is any.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_log(&self, derivation: &StorePath) -> Result<Option<LogReader>, LogError> {
        match self.log_numbers(derivation)?.last() {
            Some(number) => self.open_log_file(derivation, *number),
            None => Ok(None),
        }
    }

    /// The log with this name, as [`LogWriter::finish`] returned it, if it is still there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_log_named(&self, name: &str) -> Result<Option<LogReader>, LogError> {
        match parse_name(name) {
            Some((derivation, number)) => self.open_log_file(&derivation, number),
            None => Ok(None),
        }
    }

    /// The names of a derivation's logs, oldest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn logs(&self, derivation: &StorePath) -> Result<Vec<String>, LogError> {
        let numbers = self.log_numbers(derivation)?;
        Ok(numbers.into_iter().map(|number| format!("{derivation}.{number}{EXTENSION}")).collect())
    }

    fn open_log_file(&self, derivation: &StorePath, number: u64) -> Result<Option<LogReader>, LogError> {
        let path = self.log_directory(derivation).join(format!("{derivation}.{number}{EXTENSION}"));
        match File::open(&path).and_then(zstd::Decoder::new) {
            Ok(decoder) => Ok(Some(LogReader { decoder })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("open", path, source).into()),
        }
    }

    pub(super) fn log_directory(&self, derivation: &StorePath) -> PathBuf {
        self.layout.home.join("log").join(&derivation.hash_part()[..2])
    }

    fn log_numbers(&self, derivation: &StorePath) -> Result<Vec<u64>, LogError> {
        let directory = self.log_directory(derivation);
        let listing = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| FileError::new("list", &directory, source))?,
        };
        let mut numbers = Vec::new();
        for entry in listing {
            let name = entry.map_err(|source| FileError::new("list", &directory, source))?.file_name();
            match name.to_str().and_then(parse_name) {
                Some((path, number)) if path == *derivation => numbers.push(number),
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Splits `<base name>.<number>.zst`.
/// The derivation that the log with this name is of.
pub(super) fn derivation_of_log(name: &str) -> Option<StorePath> {
    parse_name(name).map(|(derivation, _)| derivation)
}

fn parse_name(name: &str) -> Option<(StorePath, u64)> {
    let (base_name, number) = name.strip_suffix(EXTENSION)?.rsplit_once('.')?;
    Some((StorePath::parse_base_name(base_name).ok()?, number.parse().ok()?))
}

impl LogWriter {
    /// The log's name, for a record and for [`LocalStore::open_log_named`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the log and returns its name. Dropping the writer ends it too, but tells no errors.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(mut self) -> Result<String, LogError> {
        self.end().map_err(|source| FileError::new("write", &self.path, source))?;
        Ok(std::mem::take(&mut self.name))
    }

    fn end(&mut self) -> io::Result<()> {
        match self.encoder.take() {
            Some(encoder) => encoder.finish().map(drop),
            None => Ok(()),
        }
    }

    fn encoder(&mut self) -> &mut zstd::Encoder<'static, File> {
        self.encoder.as_mut().expect("the encoder is there until the writer ends")
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder().flush()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Home, path};
    use super::*;

    fn text(reader: Option<LogReader>) -> String {
        let mut text = String::new();
        reader.unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn every_build_has_its_log_and_the_newest_is_found() {
        let home = Home::new();
        let store = home.open();
        let drv = path(1, "a.drv");
        assert!(store.open_log(&drv).unwrap().is_none());
        let mut names = Vec::new();
        for number in 0..12 {
            let mut log = store.log_writer(&drv).unwrap();
            writeln!(log, "build {number}").unwrap();
            names.push(log.finish().unwrap());
        }
        store.log_writer(&path(1, "a.drv.1.zst")).unwrap();
        assert_eq!(store.logs(&drv).unwrap(), names);
        assert_eq!(text(store.open_log(&drv).unwrap()), "build 11\n");
        assert_eq!(text(store.open_log_named(&names[3]).unwrap()), "build 3\n");
        assert!(store.open_log_named("../../etc/passwd").unwrap().is_none());
    }

    #[test]
    fn a_log_that_breaks_off_is_read_as_far_as_it_goes() {
        let home = Home::new();
        let store = home.open();
        let drv = path(1, "a.drv");
        let mut log = store.log_writer(&drv).unwrap();
        assert_eq!(text(store.open_log(&drv).unwrap()), "");
        log.write_all(b"before").unwrap();
        log.flush().unwrap();
        log.write_all(b"after").unwrap();
        assert_eq!(text(store.open_log(&drv).unwrap()), "before");
        drop(log);
        assert_eq!(text(store.open_log(&drv).unwrap()), "beforeafter");
    }
}
