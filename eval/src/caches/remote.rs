//! A cache's files behind an HTTP server.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use ampoule_store::cache::{Files, FilesError, NewFile};
use url::Url;

use crate::sources::http::{Client, HttpError, Resume, Stream, display};

/// Files below an address.
pub struct Remote {
    client: Arc<Client>,
    base: Url,
    address: String,
}

impl Remote {
    /// The files below this address.
    pub fn new(client: Arc<Client>, mut base: Url) -> Self {
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let address = display(&base).trim_end_matches('/').to_owned();
        Self { client, base, address }
    }

    /// Where a file lies; never outside the base.
    fn url(&self, action: &'static str, name: &str) -> Result<Url, FilesError> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "it would lie outside the cache");
        let url = self.base.join(name).ok().filter(|url| url.as_str().starts_with(self.base.as_str()));
        url.ok_or_else(|| FilesError::new(self, action, name, outside()))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Files for Remote {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(&self, name: &str, expected: Option<u64>) -> Result<Option<Box<dyn Read + Send>>, FilesError> {
        let url = self.url("fetch", name)?;
        match self.client.retrying(|| self.client.open(&url, None, expected)) {
            Ok(stream) => Ok(Some(Box::new(Body {
                client: Arc::clone(&self.client),
                url,
                expected,
                stream,
                position: 0,
                troubles: 0,
            }))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(FilesError::new(self, "fetch", name, error)),
        }
    }

    fn contains(&self, name: &str) -> Result<bool, FilesError> {
        let url = self.url("look for", name)?;
        self.client.exists(&url).map_err(|error: HttpError| FilesError::new(self, "look for", name, error))
    }

    fn create(&self) -> Result<Box<dyn NewFile + '_>, FilesError> {
        let file = tempfile::tempfile().map_err(|error| FilesError::new(self, "create", "a new file", error))?;
        Ok(Box::new(Upload { remote: self, file }))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, FilesError> {
        let unable = io::Error::new(io::ErrorKind::Unsupported, "servers do not list their files");
        Err(FilesError::new(self, "list", directory, unable))
    }
}

/// How often a file's transfer may break off before it is given up, at every so many bytes.
const TROUBLES: u32 = 5;
const PATIENCE_BYTES: u64 = 16 << 20;

/// A file that is on its way. Where it breaks off, the rest is asked for; whoever reads it knows its hash, and so would notice
/// a rest that belongs to another file.
struct Body {
    client: Arc<Client>,
    url: Url,
    expected: Option<u64>,
    stream: Stream,
    /// How many bytes were given on.
    position: u64,
    /// How often it broke off since the last milestone.
    troubles: u32,
}

impl Body {
    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        let count = self.stream.read(buffer)?;
        match self.stream.total {
            Some(total) if count == 0 && !buffer.is_empty() && self.position < total => {
                Err(HttpError::Broken { url: display(&self.url), source: io::ErrorKind::UnexpectedEof.into() })
            }
            _ => Ok(count),
        }
    }

    /// Asks for the rest, and passes over what a server that cannot resume sends again.
    fn resume(&mut self) -> Result<(), HttpError> {
        let resume = Resume { from: self.position, validator: self.stream.validator.clone() };
        let resume = Some(&resume).filter(|resume| resume.from > 0);
        let mut stream = self.client.retrying(|| self.client.open(&self.url, resume, self.expected))?;
        let mut offset = stream.offset;
        let mut buffer = [0; 16 << 10];
        while offset < self.position {
            let length = usize::try_from(self.position - offset).unwrap_or(usize::MAX).min(buffer.len());
            match stream.read(&mut buffer[..length])? {
                0 => break,
                count => offset += count as u64,
            }
        }
        if offset != self.position {
            let source = io::Error::new(io::ErrorKind::InvalidData, "the server resumed at another place");
            return Err(HttpError::Broken { url: display(&self.url), source });
        }
        self.stream = stream;
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_on(buffer) {
                Ok(count) => {
                    let before = self.position;
                    self.position += count as u64;
                    if before / PATIENCE_BYTES < self.position / PATIENCE_BYTES {
                        self.troubles = 0;
                    }
                    return Ok(count);
                }
                Err(error) => {
                    self.troubles += 1;
                    if self.troubles > TROUBLES {
                        return Err(io::Error::other(error));
                    }
                    self.resume().map_err(io::Error::other)?;
                }
            }
        }
    }
}

struct Upload<'a> {
    remote: &'a Remote,
    file: File,
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for Upload<'_> {
    fn publish(mut self: Box<Self>, name: &str) -> Result<(), FilesError> {
        let url = self.remote.url("upload", name)?;
        let fail =
            |error: Box<dyn std::error::Error + Send + Sync>| FilesError::new(self.remote, "upload", name, error);
        let length = self.file.seek(SeekFrom::End(0)).map_err(|error| fail(error.into()))?;
        self.file.rewind().map_err(|error| fail(error.into()))?;
        self.remote.client.put(&url, &mut self.file, length).map_err(|error| fail(error.into()))
    }
}
