//! Gives room in the database back to the file system, when that is worth the trouble.

use rusqlite::Connection;

use super::super::LocalStore;

/// Less free room than this is left for rows to come.
const WORTH_BYTES: i64 = 1 << 20;
/// A database with less than a quarter of free room is left as it is.
const WORTH_SHARE: i64 = 4;
/// Pages that are moved in one transaction.
const PAGES: i64 = 2048;
/// `PRAGMA auto_vacuum` of a database that can be shortened piece by piece.
const INCREMENTAL: i64 = 2;
/// A database that cannot be shortened piece by piece is written anew up to this size; it takes as much memory.
const REWRITABLE_BYTES: i64 = 32 << 20;

impl LocalStore {
    /// Shortens the database's files as far as nobody is in the way, and tells by how many bytes. That it cannot be done
    /// now is no failure.
    pub(super) fn compact_database(&self) -> u64 {
        let before = self.database.attempt(size).unwrap_or(0);
        let _ = self.database.attempt(shorten);
        // The log may be larger than the database after many deletions.
        let _ =
            self.database.attempt(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        let after = self.database.attempt(size).unwrap_or(before);
        u64::try_from(before - after).unwrap_or(0)
    }
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(pragma, [], |row| row.get(0))
}

fn size(connection: &Connection) -> rusqlite::Result<i64> {
    Ok(number(connection, "PRAGMA page_count")? * number(connection, "PRAGMA page_size")?)
}

fn shorten(connection: &Connection) -> rusqlite::Result<()> {
    let page = number(connection, "PRAGMA page_size")?;
    let free = number(connection, "PRAGMA freelist_count")?;
    let all = number(connection, "PRAGMA page_count")?;
    if free * page < WORTH_BYTES || free * WORTH_SHARE < all {
        return Ok(());
    }
    if number(connection, "PRAGMA auto_vacuum")? != INCREMENTAL {
        if (all - free) * page <= REWRITABLE_BYTES {
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")?;
        }
        return Ok(());
    }
    let mut left = free;
    while left > 0 {
        // Each row that is asked for frees one page.
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        left -= PAGES;
    }
    Ok(())
}
