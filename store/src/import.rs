//! Reads the stream of `nix-store --export` into a local store.
//!
//! The stream says nothing of hashes and nobody signs it. An object whose path follows from its content proves itself; of any
//! other one has to take the sender's word that the derivation it names made it.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

use crate::content_address::References;
use crate::local::{
    AddressError, LocalStore, QueryError, RegisterError, RegisterForeignError, Registration, StageArchiveError,
};
use crate::path::{PathError, StorePath};

/// `NIXE`, as a little-endian number.
const MAGIC: u64 = 0x4558_494e;
/// The longest path or signature that is read.
const TOKEN_LENGTH_LIMIT: u64 = 4096;
/// The most references one object may have.
const REFERENCES_LIMIT: u64 = 1 << 20;
/// How many objects are registered together, and how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 256 << 20;

/// What is taken on the sender's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credulity {
    /// That a derivation made an object, if one is named. Anything else must prove itself by its path.
    NamedDerivers,
    /// Everything.
    Everything,
    /// Nothing: every object must prove itself by its path.
    Nothing,
}

/// Why an import ended early. What was registered before is whole; of the rest there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The stream cannot be read, or ends too early.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// The stream has something else where a number is expected.
    #[error("malformed stream: {expected} expected, not {found:#x}")]
    Number {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: u64,
    },
    /// A path or a list of them is too long.
    #[error("malformed stream: {what} of length {length}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length.
        length: u64,
    },
    /// Padding is not zero, or a path is no text.
    #[error("malformed stream: a path is not padded text")]
    Text,
    /// A path is none.
    #[error("malformed stream")]
    Path(#[from] PathError),
    /// Something follows the stream's end.
    #[error("bytes follow the end of the stream")]
    Trailing,
    /// An archive is none.
    #[error(transparent)]
    Archive(#[from] StageArchiveError),
    /// An object does not prove itself, and its word is not taken.
    #[error("the path of `{path}` does not follow from its content{}", deriver.as_ref().map_or(", and the stream names no derivation that made it".to_owned(), |deriver| format!(" (made by `{deriver}`, says the stream)")))]
    Unproved {
        /// The object.
        path: StorePath,
        /// The derivation that is said to have made it.
        deriver: Option<StorePath>,
    },
    /// An object cannot be hashed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An object cannot be registered, for example because it refers to one that is not there.
    #[error(transparent)]
    Register(#[from] RegisterForeignError),
    /// The store cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Adds the objects of an export stream, and returns their paths in its order. Those that are valid already stay as they are.
///
/// # Errors
/// When the stream is malformed, an object does not prove itself as far as it must, or refers to one that is missing.
pub fn import(
    store: &LocalStore,
    mut stream: impl BufRead,
    credulity: Credulity,
) -> Result<Vec<StorePath>, ImportError> {
    let mut imported = Vec::new();
    let mut batch: Vec<Registration> = Vec::new();
    let mut bytes = 0;
    while object_follows(&mut stream)? {
        let object = read_object(store, &mut stream, credulity)?;
        // An object cannot refer to a later one: a batch must not hide that.
        check_references(store, &batch, &object)?;
        imported.push(object.path.clone());
        bytes += object.staged.nar_size();
        batch.push(object);
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            store.register_foreign(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    store.register_foreign(batch)?;
    match stream.read(&mut [0]).map_err(ImportError::Read)? {
        0 => Ok(imported),
        _ => Err(ImportError::Trailing),
    }
}

fn object_follows(stream: &mut impl Read) -> Result<bool, ImportError> {
    match number(stream)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(ImportError::Number { expected: "an object or the end", found }),
    }
}

fn read_object(
    store: &LocalStore,
    stream: &mut impl BufRead,
    credulity: Credulity,
) -> Result<Registration, ImportError> {
    let staged = store.stage_archive(&mut *stream, u64::MAX)?;
    match number(stream)? {
        MAGIC => {}
        found => return Err(ImportError::Number { expected: "`NIXE`", found }),
    }
    let path = store.store_dir().parse(&token(stream, "a path")?)?;
    let count = number(stream)?;
    if count > REFERENCES_LIMIT {
        return Err(ImportError::Length { what: "a list of references", length: count });
    }
    let mut references = BTreeSet::new();
    for _ in 0..count {
        references.insert(store.store_dir().parse(&token(stream, "a reference")?)?);
    }
    let deriver = Some(token(stream, "a deriver")?).filter(|deriver| !deriver.is_empty());
    let deriver = deriver.map(|deriver| store.store_dir().parse(&deriver)).transpose()?;
    match number(stream)? {
        0 => {}
        // A signature as Nix 1 made them, which nobody can check any more.
        1 => drop(token(stream, "a signature")?),
        found => return Err(ImportError::Number { expected: "a signature or none", found }),
    }
    let mut others = references.clone();
    let self_reference = others.remove(&path);
    let content_address = store.find_address(&staged, &path, &References { others, self_reference })?;
    let believed = match credulity {
        Credulity::Everything => true,
        Credulity::NamedDerivers => deriver.is_some(),
        Credulity::Nothing => false,
    };
    if content_address.is_none() && !believed {
        return Err(ImportError::Unproved { path, deriver });
    }
    Ok(Registration { staged, path, references, deriver, content_address })
}

fn check_references(store: &LocalStore, batch: &[Registration], object: &Registration) -> Result<(), ImportError> {
    for reference in &object.references {
        let here = *reference == object.path || batch.iter().any(|earlier| earlier.path == *reference);
        if !here && !store.is_valid(reference)? {
            let (path, reference) = (object.path.clone(), reference.clone());
            return Err(RegisterForeignError::from(RegisterError::MissingReference { path, reference }).into());
        }
    }
    Ok(())
}

fn number(stream: &mut impl Read) -> Result<u64, ImportError> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).map_err(ImportError::Read)?;
    Ok(u64::from_le_bytes(bytes))
}

fn token(stream: &mut impl Read, what: &'static str) -> Result<String, ImportError> {
    let length = number(stream)?;
    if length > TOKEN_LENGTH_LIMIT {
        return Err(ImportError::Length { what, length });
    }
    let mut bytes = vec![0; usize::try_from(length.next_multiple_of(8)).expect("it is small")];
    stream.read_exact(&mut bytes).map_err(ImportError::Read)?;
    let padding = bytes.split_off(usize::try_from(length).expect("it is small"));
    match String::from_utf8(bytes) {
        Ok(text) if padding.iter().all(|byte| *byte == 0) => Ok(text),
        _ => Err(ImportError::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::StoreDir;

    #[expect(clippy::disallowed_methods, reason = "the vectors are a file")]
    fn vector() -> (Vec<u8>, Vec<String>) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/nix/nix-vectors.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let vector = vectors["vectors"].as_array().unwrap().iter().find(|vector| vector["kind"] == "export").unwrap();
        let stream = data_encoding::BASE64.decode(vector["expect"]["b64"].as_str().unwrap().as_bytes()).unwrap();
        let paths = vector["input"]["paths"].as_array().unwrap();
        (stream, paths.iter().map(|path| path.as_str().unwrap().to_owned()).collect())
    }

    fn open(home: &tempfile::TempDir) -> LocalStore {
        LocalStore::open(&home.path().join("home"), StoreDir::default()).unwrap()
    }

    fn home() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    #[test]
    fn nixs_own_stream_is_imported_and_exported_byte_for_byte() {
        let (stream, paths) = vector();
        let home = home();
        let store = open(&home);
        let imported = import(&store, &stream[..], Credulity::NamedDerivers).unwrap();
        let shown: Vec<String> = imported.iter().map(|path| store.store_dir().display(path)).collect();
        assert_eq!(shown, paths);
        let mut exporter = crate::export::Exporter::new(Vec::new(), StoreDir::default());
        for info in store.references_first(&imported.into_iter().collect()).unwrap() {
            let (references, deriver) = (&info.references, info.deriver.as_ref());
            let object = crate::export::ExportedObject { path: &info.path, references, deriver };
            let physical = store.physical_path(&info.path);
            exporter
                .object(object, |sink| crate::nar::dump(&physical, sink).map(drop).map_err(io::Error::other))
                .unwrap();
        }
        assert!(exporter.finish().unwrap() == stream);
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn tampered_streams_register_nothing_that_is_not_whole() {
        let (stream, _) = vector();
        let home = home();
        let store = open(&home);
        let check = |stream: &[u8], expected: &str| {
            let error = import(&store, stream, Credulity::NamedDerivers).unwrap_err();
            assert!(format!("{error}: {:?}", std::error::Error::source(&error)).contains(expected), "{error:?}");
            assert!(store.all_paths().unwrap().is_empty());
        };
        for length in (0..stream.len()).step_by(97) {
            import(&store, &stream[..length], Credulity::NamedDerivers).unwrap_err();
            assert!(store.all_paths().unwrap().is_empty());
        }
        check(b"\x02\0\0\0\0\0\0\0", "an object or the end expected");
        let at = |needle: &[u8]| stream.windows(needle.len()).position(|window| window == needle).unwrap();
        let mut broken = stream.clone();
        broken[at(b"NIXE")] = b'M';
        check(&broken, "`NIXE` expected");
        // The first object is passed over: the second refers to it.
        let second = at(b"NIXE") + 8 + 8 + 48 + 8 + 8 + 56 + 8;
        check(&stream[second..], "which is not in the store");
        import(&store, &stream[..], Credulity::Nothing).unwrap_err();
        let import_with = |more: &[u8]| import(&store, &[&stream[..], more].concat()[..], Credulity::NamedDerivers);
        assert!(matches!(import_with(b"x"), Err(ImportError::Trailing)));
    }

    #[test]
    fn an_object_that_nobody_made_must_prove_itself() {
        let home = home();
        let store = open(&home);
        let source = store.stage_bytes(b"content").unwrap();
        let (hash, name) = (source.nar_hash(), "a-source");
        let address = crate::content_address::ContentAddress::nar_sha256(hash);
        let path = store.store_dir().content_addressed_path(name, &address, &References::default()).unwrap();
        let stream = |content: &[u8]| {
            let mut exporter = crate::export::Exporter::new(Vec::new(), StoreDir::default());
            let references = BTreeSet::new();
            let object = crate::export::ExportedObject { path: &path, references: &references, deriver: None };
            let archive = crate::nar::regular_file(false, content);
            exporter.object(object, |sink| io::Write::write_all(sink, &archive)).unwrap();
            exporter.finish().unwrap()
        };
        let error = import(&store, &stream(b"other")[..], Credulity::NamedDerivers).unwrap_err();
        assert!(error.to_string().contains("does not follow from its content"), "{error}");
        assert!(store.all_paths().unwrap().is_empty());
        import(&store, &stream(b"content")[..], Credulity::Nothing).unwrap();
        assert_eq!(store.path_info(&path).unwrap().unwrap().content_address, Some(address));
    }
}
