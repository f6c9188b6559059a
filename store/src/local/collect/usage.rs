//! How much room objects take on disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat, fstatvfs, statat};
use rustix::io::Errno;

use super::super::LocalStore;
use super::super::descent::{Descent, entries, open_directory};
use super::super::failure::FileError;
use crate::path::StorePath;

/// What `st_blocks` counts, in bytes, whatever blocks the file system has.
const BLOCK_BYTES: u64 = 512;

/// What was counted so far.
#[derive(Default)]
struct Usage {
    bytes: u64,
    /// Files with several names, of which not all were seen yet: how many are left, and the file's size on disk.
    shared: BTreeMap<(u64, u64), (u64, u64)>,
}

impl Usage {
    fn add(&mut self, stat: &Stat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        #[allow(clippy::useless_conversion, reason = "it has half as many bits on other processors")]
        let links = u64::from(stat.st_nlink);
        if links <= 1 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.bytes += bytes;
            return;
        }
        let key = (stat.st_dev, stat.st_ino);
        let left = self.shared.entry(key).or_insert((links, bytes));
        left.0 -= 1;
        if left.0 == 0 {
            self.bytes += bytes;
            self.shared.remove(&key);
        }
    }
}

impl LocalStore {
    /// How many bytes of disk would be free without these objects: a file that others share takes nothing.
    ///
    /// # Errors
    /// When an object cannot be looked at.
    pub fn disk_usage<'a>(&self, objects: impl IntoIterator<Item = &'a StorePath>) -> Result<u64, FileError> {
        let mut usage = Usage::default();
        for object in objects {
            self.add_usage(&mut usage, OsStr::new(object.base_name()))?;
        }
        Ok(usage.bytes)
    }

    fn add_usage(&self, usage: &mut Usage, name: &OsStr) -> Result<(), FileError> {
        let store = self.layout.store.as_fd();
        let fail = |source: Errno| FileError::new("look at", self.layout.home.join("store").join(name), source);
        let stat = match statat(store, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Deleted meanwhile, or never there.
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(fail)?,
        };
        usage.add(&stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let mut walk = Descent::default();
        let directory = open_directory(store, name).map_err(fail)?;
        let mut pending = vec![entries(directory.as_fd()).map_err(fail)?];
        let enter = |walk: &mut Descent, name: &OsStr, directory| {
            walk.push(name, directory).map_err(|source| FileError::new("open", name, source))
        };
        enter(&mut walk, name, directory)?;
        while let Some(children) = pending.last_mut() {
            let Some(child) = children.pop() else {
                pending.pop();
                walk.pop().map_err(|source| FileError::new("leave", name, source))?;
                continue;
            };
            let here = walk.fd().expect("one directory is entered for each list of children");
            let fail = |source: Errno| FileError::new("look at", walk.path_of(child.name()), source);
            let stat = statat(here, child.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            usage.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let directory = open_directory(here, child.name()).map_err(fail)?;
                pending.push(entries(directory.as_fd()).map_err(fail)?);
                enter(&mut walk, child.name(), directory)?;
            }
        }
        Ok(())
    }

    /// How much room the store's file system has.
    pub(super) fn free_bytes(&self) -> u64 {
        fstatvfs(&self.layout.store).map_or(0, |stat| stat.f_bfree.saturating_mul(stat.f_frsize))
    }
}
