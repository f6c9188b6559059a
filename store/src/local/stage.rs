//! Making objects beside the store: copied into a private directory, in canonical form, hashed and scanned on the way.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::LocalStore;
use super::copy::{Access, Kind, Manner, StageError, copy_tree, set_times};
use super::failure::FileError;
use super::layout::Session;
use super::look::Look;
use super::remove::remove_tree;
use super::rewrite::Rewriter;
use crate::hash::{Sha256Digest, Sha256Hasher};
use crate::nar::{DIRECTORY, NarHash};
use crate::path::StorePath;
use crate::reference_scan::{ReferenceScanner, Tee};

/// An object that is ready to be registered: in the store's staging directory, canonical, hashed. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) nar_hash: Sha256Digest,
    pub(super) nar_size: u64,
    pub(super) references: BTreeSet<StorePath>,
    pub(super) self_reference: bool,
}

impl Staged {
    fn file(place: Place, executable: bool, nar: NarHash) -> Self {
        Self {
            place,
            kind: Kind::Regular { executable },
            nar_hash: nar.sha256,
            nar_size: nar.size,
            references: BTreeSet::new(),
            self_reference: false,
        }
    }

    /// The SHA-256 of its NAR.
    #[must_use]
    pub const fn nar_hash(&self) -> Sha256Digest {
        self.nar_hash
    }

    /// The size of its NAR in bytes.
    #[must_use]
    pub const fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// What its root is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Those of the candidates whose hash part was found in it; never its own path.
    #[must_use]
    pub const fn references(&self) -> &BTreeSet<StorePath> {
        &self.references
    }

    /// Whether the hash part of its own path, if one was given, was found in it.
    #[must_use]
    pub const fn self_reference(&self) -> bool {
        self.self_reference
    }

    /// The same object with its references to others forgotten, for those who know that they do not matter.
    #[must_use]
    pub fn discard_references(mut self) -> Self {
        self.references.clear();
        self
    }

    /// Where it lies until it is registered; for reading only.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// Says that it was moved to where it belongs.
    pub(super) fn moved(&self) {
        self.place.moved();
    }

    /// The directory it lies in and its name there.
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &OsStr) {
        self.place.get()
    }
}

/// A name in the staging directory, and whatever has it. Dropping it removes that.
#[derive(Debug)]
pub(super) struct Place {
    session: Arc<Session>,
    name: OsString,
    /// Whether what had the name was moved to the store.
    is_moved: AtomicBool,
}

impl Place {
    pub(super) fn get(&self) -> (BorrowedFd<'_>, &OsStr) {
        (self.session.fd(), &self.name)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.session.path().join(&self.name)
    }

    /// Says that nothing has the name any more.
    pub(super) fn moved(&self) {
        self.is_moved.store(true, Ordering::Relaxed);
    }
}

/// A directory that is removed with all it holds when this is dropped, or when the store is opened after a crash.
#[derive(Debug)]
pub struct Workplace(Place);

impl Workplace {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_moved.load(Ordering::Relaxed) {
            // What cannot be removed now goes with the staging directory.
            let _ = remove_tree(self.session.fd(), &self.name);
        }
    }
}

impl LocalStore {
    /// Copies what `entry` names in the directory `parent`, and finds which of `candidates` it refers to.
    ///
    /// `own` is the path under which the object was made, if its maker could know it. The tree must be the caller's to
    /// change: files that their owner may not read are made readable. All its files together may have `limit` bytes, as
    /// they are copied: a file of holes, or one with a thousand names, takes no room where it is, but much in the store.
    ///
    /// # Errors
    /// When the tree holds a socket, pipe or device, is too large, changes meanwhile, or cannot be read or written; a full
    /// disk is a [`StageError::File`]. Nothing is left behind.
    pub fn stage_from_fd(
        &self,
        parent: BorrowedFd<'_>,
        entry: &OsStr,
        candidates: &BTreeSet<StorePath>,
        own: Option<&StorePath>,
        limit: u64,
    ) -> Result<Staged, StageError> {
        let place = self.new_place()?;
        let manner = Manner {
            access: Access::MayBeGranted,
            rewriter: &Rewriter::default(),
            modes_are_kept: place.session.modes_are_kept,
            limit,
        };
        copy_to(place, (parent, entry), manner, candidates, own, None)
    }

    /// Copies the tree at `path`, which is left as it is; a link at `path` itself is copied as a link. Nothing is scanned for.
    ///
    /// # Errors
    /// As for [`LocalStore::stage_from_fd`].
    pub fn stage_from_path(&self, path: &Path) -> Result<Staged, StageError> {
        let (parent, name) = split(path);
        let directory = open_parent(parent)?;
        self.stage_from((directory.as_fd(), name), None)
    }

    /// As [`LocalStore::stage_from_path`], from a directory that is open; all of it is looked at before it is read.
    pub(super) fn stage_from(
        &self,
        source: (BorrowedFd<'_>, &OsStr),
        look: Option<&mut Look>,
    ) -> Result<Staged, StageError> {
        let place = self.new_place()?;
        let rewriter = Rewriter::default();
        let modes_are_kept = place.session.modes_are_kept;
        let manner = Manner { access: Access::AsTheyAre, rewriter: &rewriter, modes_are_kept, limit: u64::MAX };
        copy_to(place, source, manner, &BTreeSet::new(), None, look)
    }

    /// Makes a regular file of what `content` yields.
    ///
    /// # Errors
    /// When `content` cannot be read or the file not written.
    pub fn stage_file(&self, content: &mut dyn Read, executable: bool) -> Result<Staged, StageError> {
        let place = self.place_file(content, executable)?;
        let (directory, name) = place.get();
        let nar = crate::nar::nar_hash_at(directory, name)
            .map_err(|source| FileError::new("hash", place.path(), io::Error::other(source)))?;
        Ok(Staged::file(place, executable, nar))
    }

    /// As [`LocalStore::stage_file`], from bytes, not executable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn stage_bytes(&self, content: &[u8]) -> Result<Staged, StageError> {
        let place = self.place_file(&mut &*content, false)?;
        let archive = crate::nar::regular_file(false, content);
        let nar = NarHash { sha256: Sha256Digest::of(&archive), size: archive.len() as u64 };
        Ok(Staged::file(place, false, nar))
    }

    fn place_file(&self, content: &mut dyn Read, executable: bool) -> Result<Place, StageError> {
        let place = self.new_place()?;
        match write_file(&place, content, executable) {
            Ok(()) => Ok(place),
            Err(source) => Err(FileError { action: "write", path: place.path(), source }.into()),
        }
    }

    /// Copies a tree with hash parts replaced.
    pub(super) fn stage_copy(
        &self,
        source: (BorrowedFd<'_>, &OsStr),
        access: Access,
        rewriter: &Rewriter,
        candidates: &BTreeSet<StorePath>,
        own: Option<&StorePath>,
    ) -> Result<Staged, StageError> {
        let place = self.new_place()?;
        let manner = Manner { access, rewriter, modes_are_kept: place.session.modes_are_kept, limit: u64::MAX };
        copy_to(place, source, manner, candidates, own, None)
    }

    /// A new directory on the store's file system for work of others: everybody may write there who can reach it, and
    /// only its owner can from outside.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn workplace(&self) -> Result<Workplace, FileError> {
        let place = self.new_place()?;
        let (parent, name) = place.get();
        let fail = |source| FileError::new("create", place.path(), source);
        rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(fail)?;
        let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).map_err(fail)?;
        // Whatever this process's mask says.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o777)).map_err(fail)?;
        Ok(Workplace(place))
    }

    /// An unused name in the staging directory.
    pub(super) fn new_place(&self) -> Result<Place, FileError> {
        let session = self.session()?;
        Ok(Place { name: session.new_name(), session, is_moved: AtomicBool::new(false) })
    }

    /// The staging directory of this process, made when it is first needed.
    pub(super) fn session(&self) -> Result<Arc<Session>, FileError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let started = Arc::new(self.layout.start_session()?);
        *session = Some(Arc::clone(&started));
        Ok(started)
    }
}

/// The directory something is in, and its name there.
pub(super) fn split(path: &Path) -> (&Path, &OsStr) {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (Path::new("."), name),
        (Some(parent), Some(name)) => (parent, name),
        // `/` or a path that ends in `..`.
        _ => (path, OsStr::new(".")),
    }
}

/// Opens a directory that something is copied from; a link to one will do.
pub(super) fn open_parent(parent: &Path) -> Result<OwnedFd, FileError> {
    rustix::fs::open(parent, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())
        .map_err(|source| FileError::new("open", parent, source))
}

/// Copies a tree to a place of the staging directory.
fn copy_to(
    place: Place,
    source: (BorrowedFd<'_>, &OsStr),
    manner: Manner<'_>,
    candidates: &BTreeSet<StorePath>,
    own: Option<&StorePath>,
    look: Option<&mut Look>,
) -> Result<Staged, StageError> {
    let sink = Tee(Sha256Hasher::new(), ReferenceScanner::new(candidates, own));
    let (kind, Tee(hasher, scanner)) = copy_tree(source, place.get(), sink, manner, look)?;
    let scan = scanner.finish();
    Ok(Staged {
        place,
        kind,
        nar_size: hasher.length(),
        nar_hash: hasher.finish(),
        references: scan.found,
        self_reference: !scan.own_offsets.is_empty(),
    })
}

/// Writes a regular file in its final form.
fn write_file(place: &Place, content: &mut dyn Read, executable: bool) -> io::Result<()> {
    let (directory, name) = place.get();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
    io::copy(content, &mut file)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(if executable { 0o555 } else { 0o444 }))?;
    set_times(file.as_fd())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make and look at files")]

    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{FileType, makedev, mkfifoat, mknodat};

    use super::super::fixture::{Home, path, stage};
    use super::*;

    #[test]
    fn special_files_are_refused_by_name() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir_all(tree.join("dev")).unwrap();
        let directory = File::open(tree.join("dev")).unwrap();
        let check = |name: &str, expected: &str| {
            let error = stage(&store, &tree).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`tree/dev/{name}` is a {expected}, which a store object cannot hold")
            );
            fs::remove_file(tree.join("dev").join(name)).unwrap();
        };
        mkfifoat(&directory, "pipe", Mode::RWXU).unwrap();
        check("pipe", "named pipe");
        mkfifoat(&directory, "\u{1b}[2J\nerror: forged", Mode::RWXU).unwrap();
        assert!(stage(&store, &tree).unwrap_err().to_string().contains("/dev/\u{fffd}[2J\u{fffd}error: forged`"));
        fs::remove_file(tree.join("dev/\u{1b}[2J\nerror: forged")).unwrap();
        // A socket's address may not be longer than 107 bytes.
        let socket = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&directory));
        let _listener = UnixListener::bind(socket).unwrap();
        check("socket", "socket");
        if mknodat(&directory, "null", FileType::CharacterDevice, Mode::RWXU, makedev(1, 3)).is_ok() {
            check("null", "character device");
        }
        if mknodat(&directory, "loop", FileType::BlockDevice, Mode::RWXU, makedev(7, 0)).is_ok() {
            check("loop", "block device");
        }
        assert!(home.staged_names().is_empty(), "a refused tree leaves nothing");
    }

    #[test]
    fn holes_and_further_names_count_in_full() {
        let home = Home::new();
        let store = home.open();
        let sources = home.sources();
        fs::create_dir(sources.join("holes")).unwrap();
        File::create(sources.join("holes/big")).unwrap().set_len(1 << 40).unwrap();
        fs::create_dir(sources.join("names")).unwrap();
        fs::write(sources.join("names/0"), [0; 1000]).unwrap();
        for number in 1..10 {
            fs::hard_link(sources.join("names/0"), sources.join(format!("names/{number}"))).unwrap();
        }
        let parent = File::open(&sources).unwrap();
        let stage = |name: &str, limit| {
            let staged = store.stage_from_fd(parent.as_fd(), OsStr::new(name), &BTreeSet::new(), None, limit);
            staged.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(stage("holes", 1 << 30), Err(format!("`holes/big` takes the tree past {} bytes", 1 << 30)));
        assert_eq!(stage("names", 9_999), Err("`names/9` takes the tree past 9999 bytes".to_owned()));
        assert_eq!(stage("names", 10_000), Ok(()));
        assert!(home.staged_names().is_empty(), "what was too much is gone again");
    }

    #[test]
    fn links_are_copied_as_links_even_at_the_root() {
        let home = Home::new();
        let store = home.open();
        let sources = home.sources();
        fs::create_dir(sources.join("directory")).unwrap();
        symlink("directory", sources.join("link")).unwrap();
        symlink("/etc/passwd", sources.join("directory/absolute")).unwrap();
        assert_eq!(stage(&store, &sources.join("link")).unwrap().kind(), Kind::Symlink);
        assert_eq!(store.stage_from_path(&sources.join("link")).unwrap().kind(), Kind::Symlink);
        let staged = stage(&store, &sources.join("directory")).unwrap();
        assert_eq!(fs::read_link(staged.path().join("absolute")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn any_name_and_any_mode_are_copied() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir(&tree).unwrap();
        for name in [&b"\xff\xfe"[..], b"line\nbreak", b"-rf", b"...", b"quote\"", &[b'n'; 255]] {
            fs::write(tree.join(OsStr::from_bytes(name)), name).unwrap();
        }
        let expected = crate::nar::nar_hash(&tree).unwrap();
        for mode in [0o000, 0o6700, 0o2055, 0o1777, 0o444] {
            fs::set_permissions(tree.join("-rf"), fs::Permissions::from_mode(mode)).unwrap();
            let staged = stage(&store, &tree).unwrap();
            let copy = fs::symlink_metadata(staged.path().join("-rf")).unwrap().mode();
            assert_eq!(copy & 0o7777, if mode & 0o100 == 0 { 0o444 } else { 0o555 });
            assert_eq!(staged.nar_hash() == expected.sha256, mode & 0o100 == 0);
        }
    }

    #[test]
    fn hard_links_become_files_of_their_own() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), "shared").unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        let staged = stage(&store, &tree).unwrap();
        for name in ["a", "b"] {
            assert_eq!(fs::metadata(staged.path().join(name)).unwrap().nlink(), 1);
        }
    }

    #[test]
    fn a_deep_tree_is_copied_and_removed() {
        let home = Home::new();
        let store = home.open();
        let mut here = rustix::fs::open(home.sources(), DIRECTORY, Mode::empty()).unwrap();
        for name in std::iter::once("tree").chain(std::iter::repeat_n("d", 1500)) {
            rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, name, DIRECTORY, Mode::empty()).unwrap();
        }
        let staged = stage(&store, &home.sources().join("tree")).unwrap();
        let (directory, name) = staged.place();
        assert_eq!(crate::nar::nar_hash_at(directory, name).unwrap().sha256, staged.nar_hash());
        drop(staged);
        assert!(home.staged_names().is_empty());
    }

    #[test]
    fn files_of_all_sizes_around_the_chunk_are_copied() {
        let home = Home::new();
        let store = home.open();
        let tree = home.sources().join("tree");
        fs::create_dir(&tree).unwrap();
        for size in [0, 1, 7, 8, 9, 262_143, 262_144, 262_145, 1_000_000] {
            fs::write(tree.join(size.to_string()), vec![b'x'; size]).unwrap();
        }
        let expected = crate::nar::nar_hash(&tree).unwrap();
        let staged = stage(&store, &tree).unwrap();
        assert_eq!((staged.nar_hash(), staged.nar_size()), (expected.sha256, expected.size));
        assert_eq!(crate::nar::nar_hash(&staged.path()).unwrap(), expected);
    }

    #[test]
    fn references_are_found_in_contents_names_and_links() {
        let home = Home::new();
        let store = home.open();
        let [content, name, link, absent, own] = [1, 2, 3, 4, 5].map(|digit| path(digit, "p"));
        let tree = home.sources().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join(name.hash_part()), format!("..{content}..")).unwrap();
        symlink(format!("/nix/store/{link}"), tree.join("link")).unwrap();
        let candidates = [&content, &name, &link, &absent].map(Clone::clone).into();
        let parent = File::open(home.sources()).unwrap();
        let stage =
            || store.stage_from_fd(parent.as_fd(), OsStr::new("tree"), &candidates, Some(&own), u64::MAX).unwrap();
        assert_eq!(*stage().references(), [content, name, link].into());
        assert!(!stage().self_reference());
        fs::write(tree.join("self"), own.hash_part()).unwrap();
        assert!(stage().self_reference() && !stage().references().contains(&own));
    }

    /// Directories and links change places while the tree is copied: the copy fails or is of one or the other, and
    /// nothing outside the tree is ever read.
    #[test]
    fn swapping_a_directory_for_a_link_leads_nowhere() {
        let home = Home::new();
        let store = home.open();
        let sources = home.sources();
        fs::create_dir_all(sources.join("secret")).unwrap();
        fs::write(sources.join("secret/file"), "secret").unwrap();
        let tree = sources.join("tree");
        fs::create_dir_all(tree.join("d")).unwrap();
        fs::write(tree.join("d/file"), "public").unwrap();
        symlink("../secret", tree.join("l")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let directory = File::open(&tree).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&directory, "d", &directory, "l", flags).unwrap();
                }
            });
            for _ in 0..500 {
                let Ok(staged) = stage(&store, &tree) else { continue };
                for name in ["d", "l"] {
                    let copy = staged.path().join(name);
                    if fs::symlink_metadata(&copy).unwrap().is_dir() {
                        assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "public");
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        let home = Home::new();
        let store = home.open();
        let error = store.stage_from_path(&home.sources().join("nothing")).unwrap_err();
        assert_eq!(error.to_string(), "cannot look at `nothing`");
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("no more"))
            }
        }
        store.stage_file(&mut Failing, false).unwrap_err();
        assert!(home.staged_names().is_empty());
    }
}
