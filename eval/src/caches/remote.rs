//! A cache's files behind an HTTP server.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use ampoule_store::cache::{Files, FilesError, NewFile};
use url::Url;

use crate::sources::http::{Client, HttpError, Stream, display};

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
            Ok(stream) => Ok(Some(Box::new(Body(stream)))),
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

struct Body(Stream);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
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
