//! A catalog in a directory.
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::loader::{Entry, LoadError, Loader};

/// Largest file a recipe may read: recipes, patches and small data.
const MAX_FILE: u64 = 64 << 20;

/// The files below one directory, whose descriptor is held: nothing outside it is ever opened, whatever `..` or
/// symbolic links say. Links that stay inside are followed.
#[derive(Debug)]
pub struct DirectoryLoader {
    root: OwnedFd,
    shown: PathBuf,
}

impl DirectoryLoader {
    /// The catalog at `root`; errors show its files as `shown` joined with their path.
    pub fn open(root: &Path, shown: &Path) -> Result<Self, std::io::Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::openat(CWD, root, flags, Mode::empty())?, shown: shown.to_owned() })
    }

    fn descend(&self, path: &str, flags: OFlags) -> Result<OwnedFd, LoadError> {
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        loop {
            let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // A rename elsewhere raced with the look-up; the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::XDEV) => return Err(LoadError::Escapes),
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(LoadError::Missing),
                Err(error) => return Err(LoadError::System(error.into())),
                Ok(file) => return Ok(file),
            }
        }
    }
}

impl Loader for DirectoryLoader {
    fn read(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        let file = self.descend(path, OFlags::RDONLY)?;
        let status = rustix::fs::fstat(&file).map_err(std::io::Error::from)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(LoadError::NotAFile);
        }
        let mut bytes = Vec::new();
        File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE { Err(LoadError::TooLarge { limit: MAX_FILE }) } else { Ok(bytes) }
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, LoadError> {
        let directory = self.descend(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(std::io::Error::from)? {
            let entry = entry.map_err(std::io::Error::from)?;
            // A name that is not UTF-8 can be named by no label.
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&directory, name),
                known => Some(known),
            };
            match kind {
                _ if name == "." || name == ".." => {}
                Some(FileType::Directory) => entries.push(Entry { name: name.to_owned(), is_directory: true }),
                Some(FileType::RegularFile | FileType::Symlink) => {
                    entries.push(Entry { name: name.to_owned(), is_directory: false });
                }
                _ => {}
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn display(&self, path: &str) -> String {
        self.shown.join(path).to_string_lossy().into_owned()
    }
}

fn kind_of(directory: &OwnedFd, name: &str) -> Option<FileType> {
    let status = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(status.st_mode))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn catalog() -> (tempfile::TempDir, DirectoryLoader) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("catalog");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/BUILD.star"), "x = 1\n").unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        symlink("BUILD.star", root.join("a/inside")).unwrap();
        symlink("../../secret", root.join("a/out")).unwrap();
        symlink(outer.path().join("secret"), root.join("a/absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let loader = DirectoryLoader::open(&root, Path::new("shown")).unwrap();
        (outer, loader)
    }

    #[test]
    fn only_what_lies_below_the_root_is_read() {
        let (_outer, loader) = catalog();
        assert_eq!(loader.read("a/BUILD.star").unwrap(), b"x = 1\n");
        assert_eq!(loader.read("a/inside").unwrap(), b"x = 1\n");
        for path in ["a/out", "a/absolute", "up/secret", "../secret", "a/../../secret"] {
            assert!(matches!(loader.read(path), Err(LoadError::Escapes)), "{path}");
        }
        assert!(matches!(loader.read("none"), Err(LoadError::Missing)));
        assert!(matches!(loader.read("a"), Err(LoadError::NotAFile)));
        assert!(matches!(loader.list("up"), Err(LoadError::Escapes)));
    }

    #[test]
    fn listings_are_sorted_and_shown_paths_can_be_opened() {
        let (_outer, loader) = catalog();
        let names: Vec<_> = loader.list("a").unwrap().into_iter().map(|e| (e.name, e.is_directory)).collect();
        let files = ["BUILD.star", "absolute", "inside", "out"].map(|name| (name.to_owned(), false));
        assert_eq!(names[..2], [files[0].clone(), files[1].clone()]);
        assert!(names.contains(&("b".to_owned(), true)) && names.len() == 5);
        assert_eq!(loader.list("").unwrap().len(), 2);
        assert_eq!(loader.display("a/BUILD.star"), "shown/a/BUILD.star");
    }
}
