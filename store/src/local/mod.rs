//! The local store: objects as files under one directory, and what is known about them in SQLite.
//!
//! - **Valid means registered and there.** An object is copied into a private directory, made canonical and hashed
//!   ([`LocalStore::stage_from_fd`]), then moved to its name, written to disk and registered, a batch at a time
//!   ([`LocalStore::register`]). Whatever stops a program in between leaves nothing that counts.
//! - **Many processes** use one store without a daemon. Each has a staging directory that lives as long as its lock does;
//!   [`LocalStore::open`] removes those of the dead.
//! - **What is reachable stays**: from [roots](LocalStore::add_root), or from what a living process
//!   [protects](LocalStore::protect). [`LocalStore::collect_garbage`] deletes the rest, at any time.
//! - Nothing here runs builds or knows what a derivation says.

mod add;
mod barrier;
mod checks;
mod collect;
mod copy;
mod database;
mod delete;
mod deposit;
mod derivations;
mod descent;
mod failure;
#[cfg(test)]
mod fixture;
mod foreign;
mod layout;
mod lock;
mod logs;
mod look;
mod make_address;
mod metadata;
mod optimise;
#[cfg(test)]
mod processes;
mod query;
mod realisations;
mod register;
mod relations;
mod remove;
mod remove_many;
mod repair;
mod reserve;
mod rewrite;
mod roots;
mod seen;
mod share;
mod signatures;
mod stage;
mod stage_archive;
mod temporary_roots;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use self::database::Database;
use self::layout::{Layout, Session};
use self::lock::Patience;
use self::temporary_roots::Protection;
use crate::path::{StoreDir, StorePath};

pub use self::add::{Added, Source};
pub use self::checks::{CheckRecord, Evidence, Standing};
pub use self::collect::{
    CollectError, Collected, DeadObject, DeleteDeadError, DeleteOptions, Garbage, OutputsOf, Policy,
};
pub use self::copy::{Kind, StageError};
pub use self::database::OpenDatabaseError;
pub use self::delete::DeleteError;
pub use self::derivations::{AddDerivationsError, DerivationRow, MaterialiseError};
pub use self::failure::{DatabaseError, FileError};
pub use self::foreign::RegisterForeignError;
pub use self::lock::{LockError, PathLock};
pub use self::logs::{LogError, LogReader, LogWriter};
pub use self::make_address::{AddFixedError, AddressError, Addressed, HashMismatch};
pub use self::metadata::{Irregularity, Metadata};
pub use self::optimise::{Intent, OptimiseError, Optimised};
pub use self::query::QueryError;
pub use self::realisations::{RealisationRecord, RecordError, Verdict};
pub use self::register::{RegisterError, Registration};
pub use self::relations::Direction;
pub use self::repair::RepairError;
pub use self::roots::{Root, RootError, RootKind};
pub use self::stage::{Staged, Workplace};
pub use self::stage_archive::StageArchiveError;
pub use self::verify::{Finding, Verified, VerifyError, VerifyOptions};

/// A store under one directory of this machine.
#[derive(Debug)]
pub struct LocalStore {
    store_dir: StoreDir,
    layout: Arc<Layout>,
    database: Database,
    durability: Durability,
    session: Mutex<Option<Arc<Session>>>,
    protection: Mutex<Option<Protection>>,
}

/// What survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Everything that was reported done.
    #[default]
    Full,
    /// Nothing is promised, not even that valid objects are whole: for stores that can be thrown away. A process
    /// that is killed still does no harm.
    Relaxed,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directories cannot be made or opened.
    #[error("cannot open the store in `{}`", home.display())]
    File {
        /// The store's home.
        home: PathBuf,
        /// What went wrong.
        #[source]
        source: FileError,
    },
    /// Its database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenDatabaseError),
}

impl LocalStore {
    /// Opens the store in `home`, creating it if there is none, and removes what dead processes left in it.
    ///
    /// # Errors
    /// When the directories or the database cannot be made or opened, the database is newer than this program, or the
    /// store was created for another store directory.
    pub fn open(home: &Path, store_dir: StoreDir) -> Result<Self, OpenError> {
        Self::open_with(home, store_dir, Durability::Full)
    }

    /// As [`LocalStore::open`], with a choice of what survives a power cut.
    ///
    /// # Errors
    /// As for [`LocalStore::open`].
    pub fn open_with(home: &Path, store_dir: StoreDir, durability: Durability) -> Result<Self, OpenError> {
        let fail = |source| OpenError::File { home: home.to_owned(), source };
        let layout = Layout::open(home).map_err(fail)?;
        let is_new = rustix::fs::stat(layout.home.join("db/store.sqlite")).is_err();
        let database = Database::open(&layout.home.join("db"), store_dir.as_str(), durability)?;
        // A leftover that cannot be removed, or that somebody else is removing too, is no reason to refuse.
        let _ = layout.remove_leftovers();
        if is_new {
            reserve::make(&layout.home);
        }
        Ok(Self {
            store_dir,
            layout: Arc::new(layout),
            database,
            durability,
            session: Mutex::new(None),
            protection: Mutex::new(None),
        })
    }

    /// The logical store directory.
    #[must_use]
    pub const fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// The directory everything is under.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.layout.home
    }

    /// Where an object's bytes lie, or would lie.
    #[must_use]
    pub fn physical_path(&self, path: &StorePath) -> PathBuf {
        self.layout.home.join("store").join(path.base_name())
    }

    /// Where downloads that are under way may be kept, to be resumed.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.layout.home.join("downloads")
    }

    /// Takes the lock of a path, waiting for other threads and processes: who builds a derivation locks its path.
    ///
    /// The store's own operations do not take these locks, so they may be called while one is held. Who takes several
    /// does so in the order of the paths.
    ///
    /// # Errors
    /// When the lock's file cannot be handled.
    pub fn lock(&self, path: &StorePath) -> Result<PathLock, LockError> {
        Ok(self.acquire(path, Patience::Wait)?.expect("waiting ends with the lock"))
    }

    /// As [`LocalStore::lock`], but gives `None` instead of waiting.
    ///
    /// # Errors
    /// When the lock's file cannot be handled.
    pub fn try_lock(&self, path: &StorePath) -> Result<Option<PathLock>, LockError> {
        self.acquire(path, Patience::Try)
    }

    /// As [`LocalStore::lock`], for who brings an object from elsewhere. These locks are others than those of builds, whose holders
    /// may bring objects.
    ///
    /// # Errors
    /// When the lock's file cannot be handled.
    pub fn lock_fetch(&self, path: &StorePath) -> Result<PathLock, LockError> {
        let name = format!("fetch-{}", path.hash_part());
        let lock = lock::acquire(&self.layout.locks, &name, Patience::Wait);
        let lock = lock.map_err(|source| LockError { path: path.to_string(), source })?;
        Ok(lock.expect("waiting ends with the lock"))
    }

    fn acquire(&self, path: &StorePath, patience: Patience) -> Result<Option<PathLock>, LockError> {
        lock::acquire(&self.layout.locks, path.base_name(), patience)
            .map_err(|source| LockError { path: path.to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{Home, file, path, register};
    use super::*;

    #[test]
    fn a_store_is_shared_by_threads() {
        fn check<T: Send + Sync>() {}
        check::<LocalStore>();
        check::<Staged>();
        check::<PathLock>();
    }

    #[test]
    fn builders_exclude_each_other_and_may_use_the_store_meanwhile() {
        let home = Home::new();
        let (here, there) = (home.open(), home.open());
        let object = path(1, "a");
        let held = here.lock(&object).unwrap();
        assert!(there.try_lock(&object).unwrap().is_none());
        assert!(there.try_lock(&path(2, "b")).unwrap().is_some());
        register(&here, file(&here, &object, "", &[]));
        here.delete(std::slice::from_ref(&object)).unwrap();
        drop(held);
        assert!(there.try_lock(&object).unwrap().is_some());
    }

    #[test]
    fn a_store_is_for_one_store_directory() {
        let home = Home::new();
        home.open();
        let other = StoreDir::new("/gnu/store").unwrap();
        let error = LocalStore::open_with(&home.path(), other, Durability::Relaxed).unwrap_err();
        let database = home.path().join("db/store.sqlite");
        let expected = format!(
            "the store of `{}` was created for the store directory `/nix/store`, not for `/gnu/store`",
            database.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_relaxed_store_keeps_what_it_is_given() {
        let home = Home::new();
        let store_dir = StoreDir::new("/nix/store").unwrap();
        let store = LocalStore::open_with(&home.path(), store_dir, Durability::Relaxed).unwrap();
        register(&store, file(&store, &path(1, "a"), "", &[]));
        assert!(home.open().is_valid(&path(1, "a")).unwrap());
    }
}
