//! Reads Debian binary packages (`deb(5)`): an `ar` archive of two tar archives, control and data.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use thiserror::Error;

use crate::ar::{self, ArError};
use crate::compression::{Compression, Unsupported};
use crate::limits::{LimitError, Limited, Limits};
use crate::spool::{File, Spool};
use crate::tar_reader::{self, EntryKind, TarError};
use crate::tree_path::{PathError, TreePath, printable};

/// Longest control file, in bytes.
const MAX_CONTROL: u64 = 1 << 20;

/// What a package says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
}

/// One path of a package.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file; hard links to it share its body.
    File(File),
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// A package, its bodies in a spool.
#[derive(Debug)]
pub struct Deb {
    /// What it says it is.
    pub control: Control,
    /// What it installs, in its own order.
    pub entries: Vec<(TreePath, Entry)>,
}

/// Why a package could not be read.
#[derive(Debug, Error)]
pub enum DebError {
    /// It is not a sound `ar` archive.
    #[error(transparent)]
    Ar(#[from] ArError),
    /// A member is missing or out of place.
    #[error("not a Debian package: {0}")]
    Layout(&'static str),
    /// A member's compression is not supported.
    #[error(transparent)]
    Compression(#[from] Unsupported),
    /// A member is not a sound tar archive.
    #[error("{member}: {source}")]
    Tar {
        /// `control.tar` or `data.tar`.
        member: &'static str,
        /// What is wrong.
        source: TarError,
    },
    /// It becomes too much.
    #[error("data.tar: {0}")]
    Limit(#[from] LimitError),
    /// A path in it is refused.
    #[error("data.tar: {0}")]
    Path(#[from] PathError),
    /// An entry is neither file, directory nor link.
    #[error("data.tar: `{path}` is {what}")]
    Special {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A path is there twice as different things, or a hard link names what is not there.
    #[error("data.tar: `{path}` {what}")]
    Entry {
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The control file does not name the package.
    #[error("control.tar: the control file has no usable `{0}`")]
    Control(&'static str),
    /// A body could not be read or stored.
    #[error("cannot unpack `{path}`")]
    Body {
        /// Its path.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// Reads a package, storing the bodies of its files.
pub fn read(package: impl Read, spool: &Spool, limits: &Limits) -> Result<Deb, DebError> {
    let mut members = ar::Reader::new(package)?;
    let expect = |members: &mut ar::Reader<_>, stem: &'static str| loop {
        let member = members.next_member()?.ok_or(DebError::Layout("a member is missing"))?;
        let suffix = member.name.strip_prefix(stem);
        if suffix.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.')) {
            return Ok(member);
        }
        // Names that start with an underscore are for additions that older readers may ignore.
        if !member.name.starts_with('_') {
            return Err(DebError::Layout("a member is unknown or out of place"));
        }
    };
    let version = expect(&mut members, "debian-binary")?;
    let mut text = Vec::new();
    (&mut members).take(version.size.min(64)).read_to_end(&mut text).map_err(ArError::Read)?;
    if !text.starts_with(b"2.") {
        return Err(DebError::Layout("its format version is not 2"));
    }
    let member = expect(&mut members, "control.tar")?;
    let control = read_control(&mut members, limits.bytes_for(member.size))?;
    let member = expect(&mut members, "data.tar")?;
    let entries = read_data(&mut members, spool, limits, member.size)?;
    match members.next_member()? {
        None => Ok(Deb { control, entries }),
        Some(_) => Err(DebError::Layout("there is a member after the data")),
    }
}

fn decode<'a>(member: impl Read + 'a, limit: u64) -> Result<Limited<Box<dyn Read + 'a>>, DebError> {
    let mut buffered = BufReader::with_capacity(128 * 1024, member);
    let start = io::BufRead::fill_buf(&mut buffered).map_err(ArError::Read)?;
    let compression = Compression::detect(start)?;
    Ok(Limited::new(compression.decode(buffered).map_err(ArError::Read)?, limit))
}

fn read_control(member: impl Read, limit: u64) -> Result<Control, DebError> {
    let failed = |source| DebError::Tar { member: "control.tar", source };
    let mut reader = tar_reader::Reader::new(decode(member, limit)?);
    let mut text = None;
    while let Some(entry) = reader.next_entry().map_err(failed)? {
        let path = TreePath::parse(&entry.path)?;
        if path.to_bytes() != b"control" || entry.kind != EntryKind::File {
            continue;
        }
        if entry.size > MAX_CONTROL || text.is_some() {
            return Err(DebError::Control("control"));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|source| failed(TarError::Read(source)))?;
        text = Some(bytes);
    }
    let text = text.ok_or(DebError::Control("control"))?;
    parse_control(&String::from_utf8_lossy(&text))
}

/// The fields of the first stanza that name a package. (Debian policy, chapter 5.)
fn parse_control(text: &str) -> Result<Control, DebError> {
    let mut fields = BTreeMap::new();
    for line in
        text.lines().take_while(|line| !line.trim().is_empty()).filter(|line| !line.starts_with([' ', '\t', '#']))
    {
        if let Some((name, value)) = line.split_once(':') {
            fields.entry(name.to_ascii_lowercase()).or_insert_with(|| value.trim().to_owned());
        }
    }
    let mut field = |key: &'static str, name: &'static str| {
        let sound = |character: char| character.is_ascii_alphanumeric() || "+-.~:_".contains(character);
        let value = fields.remove(key).filter(|value| !value.is_empty() && value.len() < 200);
        value.filter(|value| value.chars().all(sound)).ok_or(DebError::Control(name))
    };
    Ok(Control {
        package: field("package", "Package")?,
        version: field("version", "Version")?,
        architecture: field("architecture", "Architecture")?,
    })
}

fn read_data(member: impl Read, spool: &Spool, limits: &Limits, size: u64) -> Result<Vec<(TreePath, Entry)>, DebError> {
    let limit = limits.bytes_for(size);
    // Most bytes of all bodies together. Holes are not in the archive, but they are bytes.
    let mut left = limit;
    let mut reader = tar_reader::Reader::new(decode(member, limit)?);
    let mut entries: Vec<(TreePath, Entry)> = Vec::new();
    let mut places: BTreeMap<TreePath, usize> = BTreeMap::new();
    while let Some(entry) = reader.next_entry().map_err(lift)? {
        if entries.len() as u64 >= limits.entries {
            return Err(LimitError::Entries(limits.entries).into());
        }
        let path = TreePath::parse(&entry.path)?;
        let found = match entry.kind {
            EntryKind::Directory => Entry::Directory,
            EntryKind::Symlink(target) => Entry::Symlink(target),
            EntryKind::HardLink(target) => {
                let target = TreePath::parse(&target)?;
                let linked = places.get(&target).map(|place| entries[*place].1.clone());
                linked.filter(|linked| !matches!(linked, Entry::Directory)).ok_or_else(|| DebError::Entry {
                    path: path.to_string(),
                    what: "is a hard link to something that is not an earlier file",
                })?
            }
            EntryKind::File => {
                let mut body = Limited::with_left(&mut reader, limit, left);
                let stored = spool.store(&mut body, entry.executable);
                left = body.left();
                Entry::File(stored.map_err(|source| lift_io(source, &entry.path))?)
            }
            EntryKind::Special(what) => return Err(DebError::Special { path: path.to_string(), what }),
        };
        let twice = places.insert(path.clone(), entries.len()).map(|place| &entries[place].1);
        if twice.is_some_and(|earlier| !matches!((earlier, &found), (Entry::Directory, Entry::Directory))) {
            return Err(DebError::Entry { path: path.to_string(), what: "is there twice" });
        }
        entries.push((path, found));
    }
    Ok(entries)
}

fn lift(error: TarError) -> DebError {
    match error {
        TarError::Read(source) => match source.downcast::<LimitError>() {
            Ok(limit) => limit.into(),
            Err(source) => DebError::Tar { member: "data.tar", source: TarError::Read(source) },
        },
        source => DebError::Tar { member: "data.tar", source },
    }
}

fn lift_io(error: io::Error, path: &[u8]) -> DebError {
    match error.downcast::<LimitError>() {
        Ok(limit) => limit.into(),
        Err(source) => DebError::Body { path: printable(path), source },
    }
}

#[cfg(test)]
pub(crate) mod tests;
