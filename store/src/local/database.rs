//! The SQLite database: opening it cheaply, creating it once, and running statements whatever other processes do.
//!
//! The database is in WAL mode with `synchronous = FULL`: what a committed transaction says survives a power cut, unless
//! it was written [lazily](Database::write_lazily).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Durability;
use super::failure::{DatabaseError, FileError};
use super::lock::{Patience, lock_file};
use crate::nar::DIRECTORY;

/// Version one. It stays as it is: every change is one more of the statements below.
const SCHEMA: &str = include_str!("schema.sql");
/// What leads from each version to the next.
const MIGRATIONS: &[&str] = &[
    // Who vouches for an object, in Nix's form.
    "CREATE TABLE signatures (
        object    INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
        signature TEXT NOT NULL,
        PRIMARY KEY (object, signature)
    ) STRICT, WITHOUT ROWID;",
    // For each content of a file, where one file with it is; the objects whose files are all among them; and those whose
    // directories may have another mode or time, since files in them were being replaced.
    "CREATE TABLE files (
        sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
        executable INTEGER NOT NULL,
        object     INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
        place      BLOB NOT NULL,
        PRIMARY KEY (sha256, executable)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_by_object ON files (object);
    CREATE TABLE optimised (
        object        INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
        registered_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE unsettled (
        object INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE
    ) STRICT;",
    // A rebuild may fail and leave no hash; who rebuilt, with which version, in which round, and what was found out.
    "CREATE TABLE new_checks (
        id              INTEGER PRIMARY KEY,
        derivation      TEXT NOT NULL,
        output          TEXT NOT NULL,
        first_nar_hash  BLOB NOT NULL CHECK (length(first_nar_hash) = 32),
        second_nar_hash BLOB CHECK (length(second_nar_hash) = 32),
        identical       INTEGER NOT NULL,
        round           INTEGER NOT NULL,
        knobs           TEXT NOT NULL,
        finding         TEXT,
        engine          TEXT NOT NULL,
        tool_version    TEXT NOT NULL,
        checked_at      INTEGER NOT NULL
    ) STRICT;
    INSERT INTO new_checks SELECT id, derivation, output, first_nar_hash, second_nar_hash, identical, 1, knobs, NULL,
        'embedded', '', checked_at FROM checks;
    DROP TABLE checks;
    ALTER TABLE new_checks RENAME TO checks;
    CREATE INDEX checks_by_output ON checks (derivation, output);",
];
/// The schema this program writes.
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// How long SQLite waits for another process before it answers "busy".
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it waits where not getting through is no failure.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);
/// How often something is tried again after "busy"; some of those answers come without any wait.
const BUSY_ATTEMPTS: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Why a store's database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDatabaseError {
    /// The file or its lock cannot be handled.
    #[error(transparent)]
    File(#[from] FileError),
    /// SQLite cannot open or create it.
    #[error("cannot open the database `{}`", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite answered.
        #[source]
        source: DatabaseError,
    },
    /// A newer program made it.
    #[error("the database `{}` has schema version {found}, and this program knows versions up to {known}", path.display())]
    NewerSchema {
        /// The database's file.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// The database is of a store with another store directory.
    #[error("the store of `{}` was created for the store directory `{found}`, not for `{wanted}`", path.display())]
    OtherStoreDirectory {
        /// The database's file.
        path: PathBuf,
        /// The store directory it was created for.
        found: String,
        /// The one that was asked for.
        wanted: String,
    },
}

/// The connection to a store's database.
#[derive(Debug)]
pub(super) struct Database {
    connection: Mutex<Connection>,
    durability: Durability,
}

impl Database {
    /// Opens the database in `directory`, creating it if there is none; many processes may do so at once.
    pub(super) fn open(
        directory: &Path,
        store_directory: &str,
        durability: Durability,
    ) -> Result<Self, OpenDatabaseError> {
        let path = directory.join("store.sqlite");
        let fail = |source| OpenDatabaseError::Database { path: path.clone(), source };
        let mut connection = retry("open", || connect(&path, durability)).map_err(fail)?;
        let mut version = retry("read the schema version", || schema_version(&connection)).map_err(fail)?;
        if version < SCHEMA_VERSION {
            let _creating = lock_creation(directory)?;
            make_names_durable(directory, durability)?;
            retry("create the schema", || bring_up_to_date(&mut connection, store_directory)).map_err(fail)?;
            version = retry("read the schema version", || schema_version(&connection)).map_err(fail)?;
        }
        if version != SCHEMA_VERSION {
            return Err(OpenDatabaseError::NewerSchema { path, found: version, known: SCHEMA_VERSION });
        }
        let found = retry("read the store directory", || stored_directory(&connection)).map_err(fail)?;
        if found != store_directory {
            return Err(OpenDatabaseError::OtherStoreDirectory { path, found, wanted: store_directory.to_owned() });
        }
        Ok(Self { connection: Mutex::new(connection), durability })
    }

    /// Runs something that only reads, however many statements that takes, on one state of the database.
    pub(super) fn read<T>(
        &self,
        action: &'static str,
        mut run: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let connection = self.lock();
        retry(action, || {
            // Without it every statement would lock and unlock the write-ahead log's index for itself.
            let transaction = connection.unchecked_transaction()?;
            let value = run(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Runs something in one transaction that locks out other writers from its start. It may run several times.
    pub(super) fn write<T, E: From<DatabaseError>>(
        &self,
        action: &'static str,
        run: impl FnMut(&Transaction<'_>) -> Result<T, Refused<E>>,
    ) -> Result<T, E> {
        self.commit(action, synchronous(self.durability), run)
    }

    /// As [`Database::write`], for what can be made again: it does not wait for the disk, so a power cut may take the
    /// transaction back. What is written afterwards never survives without it.
    pub(super) fn write_lazily<T, E: From<DatabaseError>>(
        &self,
        action: &'static str,
        run: impl FnMut(&Transaction<'_>) -> Result<T, Refused<E>>,
    ) -> Result<T, E> {
        let synchronous = match self.durability {
            Durability::Full => "PRAGMA synchronous = NORMAL",
            Durability::Relaxed => synchronous(self.durability),
        };
        self.commit(action, synchronous, run)
    }

    fn commit<T, E: From<DatabaseError>>(
        &self,
        action: &'static str,
        synchronous: &str,
        mut run: impl FnMut(&Transaction<'_>) -> Result<T, Refused<E>>,
    ) -> Result<T, E> {
        let mut connection = self.lock();
        for attempt in 1.. {
            // Every transaction says anew how it is committed, so that none depends on how another one ended.
            let result = connection.execute_batch(synchronous).map_err(Refused::Sqlite);
            let source = match result.and_then(|()| transact(&mut connection, &mut run)) {
                Ok(value) => return Ok(value),
                Err(Refused::Because(error)) => return Err(error),
                Err(Refused::Sqlite(source)) => DatabaseError::Sqlite { action, source },
                Err(Refused::AtCommit(source)) => DatabaseError::Commit { action, source },
            };
            if !source.is_busy() || attempt >= BUSY_ATTEMPTS {
                return Err(source.into());
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        unreachable!("the attempts end with a return")
    }

    /// Runs something that may be left undone when another process is in the way: it is not waited for.
    pub(super) fn attempt<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let connection = self.lock();
        connection.busy_timeout(SHORT_TIMEOUT)?;
        let result = run(&connection);
        connection.busy_timeout(BUSY_TIMEOUT)?;
        result
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction has rolled it back: the connection is as good as before.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a transaction that this durability asks for is committed.
const fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "PRAGMA synchronous = FULL",
        Durability::Relaxed => "PRAGMA synchronous = OFF",
    }
}

/// Why a transaction was given up.
#[derive(Debug)]
pub(super) enum Refused<E> {
    /// SQLite refused a statement; "busy" is tried again.
    Sqlite(rusqlite::Error),
    /// SQLite refused the commit, and may have written some or all of it.
    AtCommit(rusqlite::Error),
    /// The operation itself found a reason.
    Because(E),
}

impl<E> From<rusqlite::Error> for Refused<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn transact<T, E>(
    connection: &mut Connection,
    run: &mut impl FnMut(&Transaction<'_>) -> Result<T, Refused<E>>,
) -> Result<T, Refused<E>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = run(&transaction)?;
    transaction.commit().map_err(Refused::AtCommit)?;
    Ok(value)
}

/// Runs something that can be repeated as long as SQLite says that another process is in the way.
fn retry<T>(action: &'static str, mut run: impl FnMut() -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
    for attempt in 1.. {
        let source = match run() {
            Ok(value) => return Ok(value),
            Err(source) => DatabaseError::Sqlite { action, source },
        };
        if !source.is_busy() || attempt >= BUSY_ATTEMPTS {
            return Err(source);
        }
        std::thread::sleep(BUSY_PAUSE);
    }
    unreachable!("the attempts end with a return")
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    if connection.is_readonly("main")? {
        // SQLite's answer to any error, even one that is over by now. Should it be for good, reading is still possible.
        connection = Connection::open_with_flags(path, flags)?;
    }
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A prepared statement keeps its plan: otherwise some are prepared anew whenever a parameter changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY")?;
    connection.execute_batch(synchronous(durability))?;
    Ok(connection)
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn stored_directory(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT value FROM settings WHERE name = 'store directory'", [], |row| row.get(0))
}

/// Creates the schema, or adds what an older one lacks, unless somebody else did since the version was read.
fn bring_up_to_date(connection: &mut Connection, store_directory: &str) -> rusqlite::Result<()> {
    // Kept in the file; cannot be changed inside a transaction. The first lets a collector shorten the file piece by piece,
    // and does nothing to a database that has tables.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut version = schema_version(&transaction)?;
    if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO settings VALUES ('store directory', ?1)", [store_directory])?;
        version = 1;
    }
    for (migration, leads_from) in MIGRATIONS.iter().zip(1..) {
        if version == leads_from {
            transaction.execute_batch(migration)?;
            version += 1;
        }
    }
    if version == SCHEMA_VERSION {
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()
}

/// Writes the directories that lead to the database, and its name, to disk. Done before there is a schema, so that
/// whoever finds one may rely on it: a commit makes durable what is in the database, not where it is.
fn make_names_durable(directory: &Path, durability: Durability) -> Result<(), FileError> {
    if durability == Durability::Relaxed {
        return Ok(());
    }
    let fail = |source| FileError::new("write to disk", directory, source);
    let opened = rustix::fs::open(directory, DIRECTORY, Mode::empty()).map_err(fail)?;
    match rustix::fs::syncfs(&opened) {
        Err(Errno::NOSYS) => rustix::fs::sync(),
        other => other.map_err(fail)?,
    }
    Ok(())
}

/// Lets one process at a time create the schema: SQLite does not wait while the journal mode changes.
fn lock_creation(directory: &Path) -> Result<OwnedFd, FileError> {
    let path = directory.join("creation.lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fail = |source| FileError::new("lock", &path, source);
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
    lock_file(&file, Patience::Wait).map_err(fail)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_created_once_by_many_threads() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Database::open(home.path(), "/nix/store", Durability::Full).unwrap());
            }
        });
        let database = Database::open(home.path(), "/nix/store", Durability::Full).unwrap();
        let mode: String = database.read("x", |c| c.query_row("PRAGMA journal_mode", [], |row| row.get(0))).unwrap();
        assert_eq!(mode, "wal");
    }

    #[test]
    fn a_newer_schema_and_another_store_directory_are_refused() {
        let home = tempfile::tempdir().unwrap();
        drop(Database::open(home.path(), "/nix/store", Durability::Full).unwrap());
        let other = Database::open(home.path(), "/gnu/store", Durability::Full).unwrap_err();
        assert!(matches!(other, OpenDatabaseError::OtherStoreDirectory { .. }), "{other}");
        let connection = Connection::open(home.path().join("store.sqlite")).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        let newer = Database::open(home.path(), "/nix/store", Durability::Full).unwrap_err();
        assert!(matches!(newer, OpenDatabaseError::NewerSchema { found, known, .. } if found == known + 1), "{newer}");
    }

    #[test]
    fn a_store_of_the_first_version_is_brought_up_to_date() {
        let home = tempfile::tempdir().unwrap();
        let connection = Connection::open(home.path().join("store.sqlite")).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection.execute("INSERT INTO settings VALUES ('store directory', '/nix/store')", []).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        drop(connection);
        let database = Database::open(home.path(), "/nix/store", Durability::Full).unwrap();
        assert_eq!(database.read("x", schema_version).unwrap(), SCHEMA_VERSION);
        database.read("x", |c| c.query_row("SELECT count(*) FROM signatures", [], |row| row.get::<_, i64>(0))).unwrap();
    }

    #[test]
    fn what_is_no_database_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        rustix::fs::open(home.path().join("store.sqlite"), OFlags::CREATE | OFlags::WRONLY, Mode::RWXU)
            .and_then(|file| rustix::io::write(&file, &[b'x'; 4096]))
            .unwrap();
        Database::open(home.path(), "/nix/store", Durability::Full).unwrap_err();
    }

    #[test]
    fn a_refused_transaction_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let database = Database::open(home.path(), "/nix/store", Durability::Full).unwrap();
        let insert = "INSERT INTO settings VALUES ('a', 'b')";
        let refused = database.write("x", |t| {
            t.execute(insert, [])?;
            Err::<(), _>(Refused::Because(DatabaseError::InvalidValue { column: "x", value: String::new() }))
        });
        refused.unwrap_err();
        let written = database.write::<_, DatabaseError>("x", |t| Ok(t.execute(insert, [])?));
        assert_eq!(written.unwrap(), 1);
    }
}
