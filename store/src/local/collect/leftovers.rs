//! What lies about without being registered: the leavings of registrations and deletions that were cut short, and logs.
#![expect(clippy::disallowed_methods, reason = "logs are files")]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::super::LocalStore;
use super::super::descent::entries;
use super::super::failure::FileError;
use super::super::lock::acquire_objects;
use super::super::logs::LogError;
use super::super::remove::remove_tree;
use super::super::remove_many::remove_trees;
use super::CollectError;
use crate::path::StorePath;

impl LocalStore {
    /// Removes what lies in the store's directory without being registered, and tells how many things that were. Names
    /// with a dot in front are other people's business.
    pub(super) fn remove_unregistered(&self) -> Result<u64, CollectError> {
        let known = self.registered_names()?;
        let fail = |source| FileError::new("list", self.layout.home.join("store"), source);
        let found = entries(self.layout.store.as_fd()).map_err(fail)?;
        let strays = found.iter().map(|entry| entry.name());
        let strays = strays.filter(|name| !name.as_bytes().starts_with(b"."));
        let strays: Vec<&OsStr> =
            strays.filter(|name| name.to_str().is_none_or(|name| !known.contains(name))).collect();
        if strays.is_empty() {
            return Ok(0);
        }
        let paths: Vec<StorePath> =
            strays.iter().filter_map(|name| StorePath::parse_base_name(name.to_str()?).ok()).collect();
        let session = self.session()?;
        let mut moved: Vec<OsString> = Vec::new();
        {
            // Whoever puts an object in place holds its lock until the row is written.
            let _locks = acquire_objects(&self.layout.object_locks, paths.iter())?;
            let known = self.registered_names()?;
            for path in paths.iter().filter(|path| !known.contains(path.base_name())) {
                let name = session.new_name();
                if self.move_out(path, (session.fd(), &name))? {
                    moved.push(name);
                }
            }
        }
        // No registration ever uses a name that is no store path's.
        let others =
            strays.iter().filter(|name| name.to_str().is_none_or(|name| StorePath::parse_base_name(name).is_err()));
        let mut removed = moved.len() as u64;
        for name in others {
            remove_tree(self.layout.store.as_fd(), name)?;
            removed += 1;
        }
        remove_trees(session.fd(), &moved)?;
        Ok(removed)
    }

    /// The base names of all rows, valid or not.
    fn registered_names(&self) -> Result<BTreeSet<String>, CollectError> {
        Ok(self.database.read("list objects", |connection| {
            let mut statement = connection.prepare_cached("SELECT path FROM objects")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?)
    }

    /// Deletes the logs of these derivations, and tells how many there were.
    pub(super) fn delete_logs(&self, derivations: &[StorePath]) -> Result<u64, CollectError> {
        let mut deleted = 0;
        for derivation in derivations {
            for name in self.logs(derivation).map_err(|LogError(error)| error)? {
                let path = self.log_directory(derivation).join(name);
                match fs::remove_file(&path) {
                    Ok(()) => deleted += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(FileError::new("remove", path, source).into()),
                }
            }
        }
        Ok(deleted)
    }
}
