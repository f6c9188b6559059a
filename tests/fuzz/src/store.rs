//! The decoders of the store's formats.

use std::cell::RefCell;
use std::io::Read;
use std::os::fd::AsFd;

use ampoule_store::base32;
use ampoule_store::cache::{CacheInfo, Compression, Realisation};
use ampoule_store::content_address::ContentAddress;
use ampoule_store::hash::{Algorithm, Hash, Sha256Digest};
use ampoule_store::import::{Credulity, import};
use ampoule_store::local::{Durability, LocalStore, VerifyOptions};
use ampoule_store::nar::{self, DecodeError, Decoder, Encoder, Event};
use ampoule_store::narinfo::NarInfo;
use ampoule_store::path::{StoreDir, StorePath};
use ampoule_store::reference_scan::ReferenceScanner;
use ampoule_store::registrations;
use ampoule_store::signature::{PublicKey, SecretKey, Signature};

use super::Target;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "nar", run: nar, cost: 1 },
    Target { name: "restore", run: restore, cost: 10 },
    Target { name: "narinfo", run: narinfo, cost: 1 },
    Target { name: "cache_info", run: cache_info, cost: 1 },
    Target { name: "realisation", run: realisation, cost: 1 },
    Target { name: "import", run: import_stream, cost: 40 },
    Target { name: "registrations", run: load_registrations, cost: 20 },
    Target { name: "signature", run: signature, cost: 2 },
    Target { name: "hash", run: hash, cost: 1 },
    Target { name: "store_path", run: store_path, cost: 1 },
    Target { name: "compression", run: compression, cost: 20 },
    Target { name: "reference_scan", run: reference_scan, cost: 1 },
];

/// The most that a decompressor is asked for.
const PLAIN_LIMIT: u64 = 1 << 20;

/// Archives that are accepted are the ones that are written.
pub(super) fn nar(bytes: &[u8]) {
    if let Ok(again) = copy_archive(bytes) {
        assert_eq!(again, bytes, "the archive is not canonical");
    }
    let _ = Decoder::new(bytes).finish();
}

fn copy_archive(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let mut encoder = Encoder::new(Vec::new());
    let fits = "what was decoded can be encoded";
    while let Some(event) = decoder.next_event()? {
        match event {
            Event::Regular { executable, size } => {
                // What is claimed may be more than there is.
                encoder.regular(executable, size).expect(fits);
                loop {
                    let piece = decoder.contents()?;
                    if piece.is_empty() {
                        break;
                    }
                    encoder.contents(piece).expect(fits);
                    let count = piece.len();
                    decoder.consume_contents(count);
                }
            }
            Event::Symlink { target } => encoder.symlink(target).expect(fits),
            Event::Directory => encoder.directory().expect(fits),
            Event::Entry { name } => encoder.entry(name).expect(fits),
            Event::EndDirectory => encoder.end_directory().expect(fits),
        }
    }
    decoder.finish()?;
    Ok(encoder.finish().expect(fits).0)
}

/// What is restored is what was in the archive, and lies nowhere else.
pub(super) fn restore(bytes: &[u8]) {
    let directory = super::scratch();
    let top = rustix::fs::open(directory.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty());
    let top = top.expect("it was just made");
    let result = nar::restore(bytes, top.as_fd(), "object".as_ref());
    let mut entries =
        std::fs::read_dir(directory.path()).expect("it is a directory").map(|entry| entry.expect("it can be read"));
    assert!(entries.all(|entry| entry.file_name() == "object"), "something was written beside the object");
    if result.is_ok() {
        let mut again = Vec::new();
        nar::dump(&directory.path().join("object"), &mut again).expect("what was restored can be read");
        assert_eq!(again, bytes);
    }
    super::make_removable(directory.path());
}

/// What is accepted means the same when it is written and read again.
pub(super) fn narinfo(bytes: &[u8]) {
    let store_dir = StoreDir::default();
    let Ok(info) = NarInfo::parse(bytes, &store_dir) else { return };
    let text = info.write(&store_dir);
    assert_eq!(NarInfo::parse(text.as_bytes(), &store_dir).as_ref(), Ok(&info), "{text}");
    let _ = (info.fingerprint(&store_dir), info.address_fits(&store_dir), info.split_references());
    assert!(!info.url.starts_with('/') && !info.url.split('/').any(|part| part == ".."), "{}", info.url);
}

/// As for [`narinfo`].
pub(super) fn cache_info(bytes: &[u8]) {
    let Ok(info) = CacheInfo::parse(bytes) else { return };
    let text = info.write();
    assert_eq!(CacheInfo::parse(text.as_bytes()).as_ref(), Ok(&info), "{text}");
}

/// As for [`narinfo`].
pub(super) fn realisation(bytes: &[u8]) {
    let derivation = StorePath::new(&[1; 20], "x.drv").expect("it is valid");
    let Ok(realisation) = Realisation::parse(&derivation, "out", bytes) else { return };
    let text = realisation.write();
    let again = Realisation::parse(&derivation, "out", text.as_bytes()).expect("what was written can be read");
    assert_eq!(again, realisation, "{text}");
    let _ = realisation.fingerprint();
}

thread_local! {
    static STORE: RefCell<Option<(tempfile::TempDir, LocalStore, u32)>> = const { RefCell::new(None) };
}

/// What a stream brings is valid and whole; what it does not may be anything.
pub(super) fn import_stream(bytes: &[u8]) {
    with_store(|store| import(store, bytes, Credulity::Nothing).ok());
}

/// As for [`import_stream`]: registrations bring nothing that is not there already.
pub(super) fn load_registrations(bytes: &[u8]) {
    with_store(|store| registrations::load(store, bytes).ok());
}

/// Tries something on a store, which returns what is valid then.
fn with_store(attempt: impl FnOnce(&LocalStore) -> Option<Vec<StorePath>>) {
    STORE.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(_, _, uses)| *uses > 500) {
            if let Some((directory, ..)) = slot.take() {
                super::make_removable(directory.path());
            }
            let directory = super::scratch();
            let store = LocalStore::open_with(&directory.path().join("home"), StoreDir::default(), Durability::Relaxed);
            *slot = Some((directory, store.expect("a store can be made"), 0));
        }
        let (directory, store, uses) = slot.as_mut().expect("it was just set");
        *uses += 1;
        if let Some(paths) = attempt(store) {
            let only = Some(paths.iter().cloned().collect());
            let verified = store.verify_some(&VerifyOptions { only, ..VerifyOptions::default() });
            let findings = verified.expect("the store can be verified").findings;
            assert!(findings.is_empty(), "{findings:?}");
        }
        let entries = std::fs::read_dir(directory.path()).expect("it is a directory");
        assert_eq!(entries.count(), 1, "something was written beside the store");
    });
}

/// Keys and signatures that are accepted are written as they were read; nobody's signature is anybody else's.
pub(super) fn signature(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Ok(signature) = line.parse::<Signature>() {
            assert_eq!(signature.to_string(), line.trim());
            let seed = SecretKey::from_seed("test", &[7; 32]).expect("the name is valid");
            assert!(!seed.public().verifies(b"a message that nobody signed", &signature));
        }
        if let Ok(key) = line.parse::<PublicKey>() {
            assert_eq!(key.to_string(), line.trim());
        }
        if let Ok(key) = line.parse::<SecretKey>() {
            assert!(key.public().verifies(b"message", &key.sign(b"message")));
            assert_eq!(key.reveal(), line.trim());
        }
    }
}

/// Digests come back from each of their forms.
pub(super) fn hash(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        for expected in
            [None, Some(Algorithm::Md5), Some(Algorithm::Sha1), Some(Algorithm::Sha256), Some(Algorithm::Sha512)]
        {
            let Ok(hash) = Hash::parse(line, expected) else { continue };
            for form in [
                format!("{}:{}", hash.algorithm(), hash.to_hex()),
                format!("{}:{}", hash.algorithm(), hash.to_nix32()),
                hash.to_sri(),
            ] {
                assert_eq!(form.parse::<Hash>(), Ok(hash.clone()), "{form}");
            }
        }
        if let Ok(digest) = line.parse::<Sha256Digest>() {
            assert_eq!(digest.to_sri().parse(), Ok(digest));
        }
        for length in [0, 1, 16, 20, 32, 64] {
            if let Ok(decoded) = base32::decode(line, length) {
                assert_eq!(base32::encode(&decoded), line);
            }
        }
    }
}

/// Paths and content addresses are written as they were read.
pub(super) fn store_path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let store_dir = StoreDir::default();
    for line in text.lines() {
        if let Ok(path) = StorePath::parse_base_name(line) {
            assert_eq!(path.base_name(), line);
            assert!(!line.contains('/') && !line.contains('\0') && line != "." && line != "..");
        }
        if let Ok(path) = store_dir.parse(line) {
            assert_eq!(store_dir.display(&path), line);
        }
        if let Ok((path, rest)) = store_dir.split(line) {
            assert_eq!(format!("{}{rest}", store_dir.display(&path)), line);
        }
        if let Ok(address) = line.parse::<ContentAddress>() {
            assert_eq!(address.to_string().parse::<ContentAddress>(), Ok(address));
        }
        let _ = StoreDir::new(line);
        let name = ampoule_store::path::name_from_file_name(line);
        assert!(name.is_empty() || ampoule_store::path::check_name(&name).is_ok(), "{name:?} of {line:?}");
    }
}

/// Streams end or fail, in bounded memory.
pub(super) fn compression(bytes: &[u8]) {
    use Compression::{Brotli, Bzip2, Gzip, Xz, Zstd};
    for compression in [Brotli, Bzip2, Gzip, Xz, Zstd] {
        let Ok(plain) = compression.decode(bytes) else { continue };
        let _ = std::io::copy(&mut plain.take(PLAIN_LIMIT), &mut std::io::sink());
    }
}

/// References are found wherever they are, however the stream is cut.
pub(super) fn reference_scan(bytes: &[u8]) {
    let candidates = [1, 2].map(|digit| StorePath::new(&[digit; 20], "x").expect("it is valid"));
    let scan = |piece: usize| {
        let mut scanner = ReferenceScanner::new(&candidates, Some(&candidates[0]));
        bytes.chunks(piece.max(1)).for_each(|part| scanner.update(part));
        scanner.finish()
    };
    let whole = scan(bytes.len());
    for piece in [1, 31] {
        let cut = scan(piece);
        assert_eq!((&cut.found, &cut.own_offsets), (&whole.found, &whole.own_offsets), "in pieces of {piece}");
    }
    for path in &candidates {
        let is_there = bytes.windows(32).any(|window| window == path.hash_part().as_bytes());
        if *path == candidates[0] {
            assert_eq!(!whole.own_offsets.is_empty(), is_there, "{path}");
            continue;
        }
        assert_eq!(whole.found.contains(path), is_there, "{path}");
    }
}
