//! The stream of `nix-store --export`, which `nix-store --import` reads: archives with their references, dependencies first.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::path::{StoreDir, StorePath};

/// `NIXE`, as a little-endian number.
const MAGIC: u64 = 0x4558_494e;

/// What the stream says of one object, beside its archive.
#[derive(Debug, Clone, Copy)]
pub struct ExportedObject<'a> {
    /// Its path.
    pub path: &'a StorePath,
    /// The paths it refers to, its own included if it does.
    pub references: &'a BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<&'a StorePath>,
}

/// Writes an export stream. The caller gives the objects in an order in which none comes before what it refers to.
#[derive(Debug)]
pub struct Exporter<W> {
    sink: W,
    store_dir: StoreDir,
}

impl<W: Write> Exporter<W> {
    /// An exporter for paths of this store directory.
    pub const fn new(sink: W, store_dir: StoreDir) -> Self {
        Self { sink, store_dir }
    }

    /// Writes an object; `archive` writes its NAR.
    ///
    /// # Errors
    /// When the sink fails or `archive` does.
    pub fn object<E: From<io::Error>>(
        &mut self,
        object: ExportedObject<'_>,
        archive: impl FnOnce(&mut W) -> Result<(), E>,
    ) -> Result<(), E> {
        self.number(1)?;
        archive(&mut self.sink)?;
        self.number(MAGIC)?;
        self.path(Some(object.path))?;
        self.number(object.references.len() as u64)?;
        object.references.iter().try_for_each(|reference| self.path(Some(reference)))?;
        self.path(object.deriver)?;
        // No signature in the form of Nix 1.
        Ok(self.number(0)?)
    }

    /// Ends the stream and returns the sink.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.number(0)?;
        Ok(self.sink)
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.sink.write_all(&number.to_le_bytes())
    }

    /// Writes the full path, or an empty token.
    fn path(&mut self, path: Option<&StorePath>) -> io::Result<()> {
        let text = path.map(|path| self.store_dir.display(path)).unwrap_or_default();
        self.number(text.len() as u64)?;
        self.sink.write_all(text.as_bytes())?;
        self.sink.write_all(&[0; 8][..text.len().wrapping_neg() % 8])
    }
}
