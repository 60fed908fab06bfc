//! The database file: its tables, how it is opened, and how it is recognised.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use repair_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::sql_error;
use crate::files;

/// "rpjl" marks the file as a journal, so that another program's file is not taken for one.
const APPLICATION_ID: i64 = 0x7270_6A6C;

/// The version of the tables.
pub(super) const VERSION: i64 = 2;

/// The version without leases and signals.
const WITHOUT_LEASES: i64 = 1;

/// How long to wait while another process writes; appends take milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// With so many pages, the log is copied into the file, also while others wait to write. After that it begins anew, over what it was: a disk flushes
/// what lies in the room that a file has in about half of the time that it takes if the file grows. Debug builds use so few that runs of tests do that.
const LOG_PAGES: i64 = if cfg!(debug_assertions) { 24 } else { 1_024 };

/// `PRAGMA synchronous` reads back as this for `FULL`.
const FULL: i64 = 2;

const TABLES: &str = "
CREATE TABLE runs (
    run TEXT NOT NULL PRIMARY KEY,
    created_us INTEGER NOT NULL,
    events INTEGER NOT NULL,
    begun TEXT,
    latest TEXT,
    brief_hash BLOB
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

/// What version 2 added.
pub(super) const LEASES: &str = "
CREATE TABLE leases (
    run TEXT NOT NULL PRIMARY KEY,
    driver TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    until TEXT NOT NULL,
    lock TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE signals (
    run TEXT NOT NULL PRIMARY KEY,
    signal TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What is kept beside the events, so that fewer need to be read. A file without it is as good, and a program that does not know it may write to it:
/// the version is the same.
///
/// - `begun`, `latest`: the first and the last event of a run in brief, of the run when it had `events`; `brief_hash` is a hash of all three.
/// - `folds`: what the first `events` of a run add up to; `last` is the hash of the last of these, `hash` one of the whole row.
const HELPS: &str = "
CREATE TABLE IF NOT EXISTS folds (
    run TEXT NOT NULL PRIMARY KEY,
    events INTEGER NOT NULL,
    last BLOB NOT NULL,
    state TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
";

/// The columns that were added to the list of runs.
const BRIEF_COLUMNS: &str = "
ALTER TABLE runs ADD COLUMN begun TEXT;
ALTER TABLE runs ADD COLUMN latest TEXT;
ALTER TABLE runs ADD COLUMN brief_hash BLOB;
";

/// Whether the list of runs has the columns for their first and last event in brief.
pub(super) fn has_briefs(connection: &Connection) -> rusqlite::Result<bool> {
    has(connection, "SELECT count(*) FROM pragma_table_info('runs') WHERE name IN ('begun', 'latest', 'brief_hash')", 3)
}

/// Whether there is a table for what events add up to.
pub(super) fn has_folds(connection: &Connection) -> rusqlite::Result<bool> {
    has(connection, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'folds'", 1)
}

fn has(connection: &Connection, count: &str, wanted: i64) -> rusqlite::Result<bool> {
    let found: i64 = connection.prepare_cached(count)?.query_row([], |row| row.get(0))?;
    Ok(found == wanted)
}

/// Whether the file is of a version without leases and signals. It was opened for reading, and no later version has written to it yet.
pub(super) fn is_older(connection: &Connection) -> rusqlite::Result<bool> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version < VERSION)
}

/// Opens the file for writing, and creates it if there is none.
pub(super) fn open_to_write(path: &Path) -> Result<Connection> {
    let failed = |error| sql_error(path, "open", error);
    if !is_there(path)? {
        create(path)?;
    }
    keep_name(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let version = check(path, &connection)?;
    write_ahead(path, &connection)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // Where a flush reaches only the disk's own cache (macOS), this makes it reach the disk; elsewhere it has no effect.
    connection.pragma_update(None, "fullfsync", true).map_err(failed)?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(failed)?;
    if synchronous != FULL {
        return Err(
            Error::internal(format!("SQLite does not flush at every commit: synchronous is {synchronous}")).on("journal", path.display())
        );
    }
    let helps = has_briefs(&connection).and_then(|briefs| Ok(briefs && has_folds(&connection)?)).map_err(failed)?;
    if version != VERSION || !helps {
        migrate(path, &mut connection)?;
    }
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Whether there is a journal, intact or not.
///
/// # Errors
/// `invalid` if only its log exists: SQLite would apply it to any new file of that name.
pub(super) fn is_there(path: &Path) -> Result<bool> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // Look for the log first, since another process creates it only after the file.
    let has_log = match std::fs::metadata(&log) {
        Ok(metadata) => metadata.len() > 0,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(files::io_error(error, "look at the log of the journal", path)),
    };
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_log => Err(Error::invalid(format!(
            "the journal {} is gone, but its log {} is there; restore both from a backup, or move the log away to start a new journal",
            path.display(),
            Path::new(&log).display()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(files::io_error(error, "look at the journal", path)),
    }
}

/// Makes the name of the file survive a loss of power, and its folder's too: who created them may have been killed before they were kept.
fn keep_name(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    files::create_folder(folder)?;
    match files::sync_folder(folder) {
        // A folder that may be entered, and not listed.
        Err(error) if error.kind() == ErrorKind::Denied => Ok(()),
        synced => synced,
    }
}

/// Creates the file with its tables, whole or not at all. A file without tables must therefore be damaged, and is not initialised again.
fn create(path: &Path) -> Result<()> {
    let failed = |error| sql_error(path, "create", error);
    let folder = path.parent().ok_or_else(|| Error::invalid(format!("{} is not the name of a file", path.display())))?;
    let temporary = files::temporary_in(folder)?;
    let connection = Connection::open(temporary.path()).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    for tables in [TABLES, LEASES, HELPS] {
        connection.execute_batch(tables).map_err(failed)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    connection.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    temporary.as_file().sync_all().map_err(|error| files::io_error(error, "write", path))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another process was faster, and created the same.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(files::io_error(error.error, "write", path)),
    }
}

/// Opens the file for reading, and creates none.
pub(super) fn open_to_read(path: &Path) -> Result<Connection> {
    let failed = |error| sql_error(path, "open", error);
    if !is_there(path)? {
        return Err(Error::new(ErrorKind::NotFound, format!("no journal at {}: nothing has been run here", path.display())));
    }
    // Not read-only, since the first reader after a crash must be able to recover the log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check(path, &connection)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}

/// A copy of a journal in a folder of its own.
#[derive(Debug)]
pub(super) struct Copied {
    folder: tempfile::TempDir,
}

impl Copied {
    /// The name of the file in the folder.
    const NAME: &'static str = "journal.db";

    /// Copies a journal and its log. If it is being written to meanwhile, the copy may be damaged, which is found when it is read.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let failed = |error| files::io_error(error, "copy the journal", path);
        let copied = Self { folder: tempfile::tempdir().map_err(failed)? };
        // The log first: what is moved from it into the file meanwhile is then in both.
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        match std::fs::read(&log) {
            Ok(log) => std::fs::write(copied.folder.path().join(format!("{}-wal", Self::NAME)), log).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        std::fs::write(copied.path(), bytes).map_err(failed)?;
        Ok(copied)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(Self::NAME)
    }
}

/// Adds what an older file, or one of an earlier program, lacks, all or nothing. If several processes try at once, one does it. Events are not touched.
fn migrate(path: &Path, connection: &mut Connection) -> Result<()> {
    let failed = |error| sql_error(path, "upgrade", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if check(path, &transaction)? == WITHOUT_LEASES {
        transaction.execute_batch(LEASES).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    if !has_briefs(&transaction).map_err(failed)? {
        transaction.execute_batch(BRIEF_COLUMNS).map_err(failed)?;
    }
    transaction.execute_batch(HELPS).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Checks that the file is a journal of a known version, and returns the version.
fn check(path: &Path, connection: &Connection) -> Result<i64> {
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| sql_error(path, "open", error));
    let tables = |connection: &Connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, version @ (WITHOUT_LEASES | VERSION)) => Ok(version),
        (APPLICATION_ID, version) => Err(Error::invalid(format!(
            "the journal {} is of version {version}, and this program knows version {VERSION}; use the program that wrote it, \
             or a newer one",
            path.display()
        ))),
        (0, 0) if tables(connection).map_err(|error| sql_error(path, "open", error))? == 0 => Err(Error::invalid(format!(
            "the journal {} is empty, so it is damaged; restore it from a backup, or remove it if nothing has been run",
            path.display()
        ))),
        _ => Err(Error::invalid(format!("{} is a database of another program, not a journal", path.display()))),
    }
}

/// Switches to the write-ahead log. SQLite does not wait for a lock here, so this does.
fn write_ahead(path: &Path, connection: &Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(Error::invalid(format!(
                    "the journal {} cannot use a write-ahead log (its mode is {mode}); put it on a local disk",
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
