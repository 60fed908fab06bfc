//! The file: its tables, how it is opened, and how we know that it is ours.

use std::path::Path;
use std::time::{Duration, Instant};

use repair_core::{Error, Result};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::sql_error;

/// "rpjl", so that a file of another program is not taken for a journal.
const APPLICATION_ID: i64 = 0x7270_6A6C;

/// The version of the tables.
const VERSION: i64 = 1;

/// How long to wait for another process that writes: appends take milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// `PRAGMA synchronous` reads back as this for `FULL`.
const FULL: i64 = 2;

const TABLES: &str = "
CREATE TABLE runs (
    run TEXT NOT NULL PRIMARY KEY,
    created_us INTEGER NOT NULL,
    events INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    run TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at TEXT NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;
";

/// Opens the file to write, and makes it if there is none.
pub(super) fn open_to_write(path: &Path) -> Result<Connection> {
    let failed = |error| sql_error(path, "open", error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check(path, &connection)?;
    write_ahead(path, &connection)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(failed)?;
    if synchronous != FULL {
        return Err(
            Error::internal(format!("SQLite does not flush at every commit: synchronous is {synchronous}")).on("journal", path.display())
        );
    }
    // Checkpoints are ours, when nothing waits; SQLite's own come only if that never happens.
    connection.pragma_update(None, "wal_autocheckpoint", 16_384).map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have made the tables meanwhile.
    if is_empty(&transaction).map_err(failed)? {
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    check(path, &connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Opens the file to read.
pub(super) fn open_to_read(path: &Path) -> Result<Connection> {
    let failed = |error| sql_error(path, "open", error);
    // Not read-only: the first reader after a crash must be able to recover the log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check(path, &connection)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Checks that the file is a journal of a version that we know, or empty.
fn check(path: &Path, connection: &Connection) -> Result<()> {
    let failed = |error| sql_error(path, "open", error);
    // One snapshot: another process may be making the tables right now.
    let _snapshot = if connection.is_autocommit() { Some(connection.unchecked_transaction().map_err(failed)?) } else { None };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, VERSION) => Ok(()),
        (APPLICATION_ID, version) => Err(Error::invalid(format!(
            "the journal {} is of version {version}, and this program knows version {VERSION}; use the program that wrote it, \
             or a newer one",
            path.display()
        ))),
        (0, 0) if is_empty(connection).map_err(failed)? => Ok(()),
        _ => Err(Error::invalid(format!("{} is a database of another program, not a journal; name another file", path.display()))),
    }
}

/// Switches to the write-ahead log. SQLite does not wait for a lock here, so we do.
fn write_ahead(path: &Path, connection: &Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(Error::invalid(format!(
                    "the journal {} cannot have a write-ahead log (its mode is {mode}); put it on a local disk",
                    path.display()
                )));
            }
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(sql_error(path, "open", error)),
        }
    }
}
