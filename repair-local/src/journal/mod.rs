//! The journal in one SQLite file: an append is on disk when it returns, and damage is reported, never skipped.
//!
//! One thread writes, and commits together whatever is waiting, so that many runs share the cost of one flush. Readers have connections of
//! their own and never wait for it (write-ahead log). SQLite does not detect flipped bits in pages, so each event is stored with a hash of
//! its content and place, and each run with the number of its events: an event that was changed, moved, removed or cut off is found when it
//! is read.

mod brief;
mod folds;
mod lease;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::engine::{Event, Fold, Journal, ListedRun, Recorded, RunHead, Signal};
use repair_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::files;
use crate::threads::blocking;
use brief::Brief;
use writer::Writer;

/// Idle connections to keep for later readers.
const MAX_IDLE_READERS: usize = 4;

/// The journal in one SQLite file. Several processes may open the same file; if two append the same number to a run, one gets `conflict`.
#[derive(Debug)]
pub struct SqliteJournal {
    /// `None` if it was opened for reading.
    writer: Option<Writer>,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    /// A copy that is read in its place, where SQLite may not write beside it; removed at the end.
    copy: Option<schema::Copied>,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteJournal {
    /// Opens the journal, and creates it if there is none. Its folder must exist.
    ///
    /// # Errors
    /// `not-found` without the folder, `denied` if it may not be written, `invalid` if the file is not a journal, is damaged, or was
    /// written by a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        if let Some(folder) = path.parent()
            && !files::is_folder(folder)?
        {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no folder {} for the journal; create it, or name another", folder.display()),
            ));
        }
        let connection = schema::open_to_write(&path)?;
        let writer = Writer::start(path.clone(), connection)?;
        Ok(Self { writer: Some(writer), readers: Arc::new(Readers { path, copy: None, idle: Mutex::default() }) })
    }

    /// As [`SqliteJournal::open`], and creates the folder too.
    ///
    /// # Errors
    /// As [`SqliteJournal::open`], and `denied` or `transient` if the folder cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        if let Some(folder) = path.parent()
            && !files::is_folder(folder)?
        {
            files::create_folder(folder)?;
        }
        Self::open(path)
    }

    /// Opens the journal for reading, and creates nothing. Appending to it is then an error. Where nothing may be written, as on a read-only
    /// mount, a copy of it as it is now is read.
    ///
    /// # Errors
    /// `not-found` if there is no journal; otherwise as [`SqliteJournal::open`].
    pub fn open_to_read(path: impl AsRef<Path>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        let (connection, copy) = match schema::open_to_read(&path) {
            Ok(connection) => (connection, None),
            // Even a reader of a write-ahead log writes beside it.
            Err(denied) if denied.kind() == ErrorKind::Denied => {
                let copy = schema::Copied::of(&path).map_err(|error| denied.because(error))?;
                (schema::open_to_read(&copy.path())?, Some(copy))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { writer: None, readers: Arc::new(Readers { path, copy, idle: Mutex::new(vec![connection]) }) })
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| {
            Error::internal(format!("the journal {} was opened for reading, so it cannot be written to", self.path().display()))
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.readers.path
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let bodies = events
            .iter()
            .map(|event| serde_json::to_string(event).map_err(|error| Error::internal("an event is not JSON").because(error)))
            .collect::<Result<Vec<String>>>()?;
        let brief = Brief::of(expected, at, events)?;
        self.writer()?.append(run.to_owned(), expected, at, bodies, brief).await
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        let (readers, run) = (self.readers.clone(), run.to_owned());
        blocking(move || readers.with(|connection| read(&readers.path, connection, &run, from, limit))).await
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        let readers = self.readers.clone();
        blocking(move || readers.with(|connection| runs(&readers.path, connection))).await
    }

    async fn listed(&self, now: Timestamp) -> Result<Vec<ListedRun>> {
        let (readers, others) = (self.readers.clone(), self.readers.clone());
        // Each takes about half of the time, and needs nothing of the other.
        let (listed, all_listed) = futures::future::join(
            blocking(move || readers.with(|connection| brief::listed(&readers.path, connection, now))),
            blocking(move || others.with(|connection| refuse_unlisted(&others.path, connection))),
        )
        .await;
        let listed = listed?;
        all_listed.map(|()| listed)
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.writer()?.keep(run.to_owned(), fold).await
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        let (readers, run) = (self.readers.clone(), run.to_owned());
        blocking(move || readers.with(|connection| folds::kept(&readers.path, connection, &run))).await
    }

    async fn forget(&self, run: &str) -> Result<u64> {
        let Some(fold) = self.kept(run).await? else { return Ok(0) };
        self.writer()?.forget(run.to_owned()).await?;
        Ok(fold.state.len() as u64)
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        self.writer()?.acquire(run.to_owned(), driver.to_owned(), now, ttl).await
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        self.writer()?.release(run.to_owned(), driver.to_owned()).await
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        let (readers, run) = (self.readers.clone(), run.to_owned());
        blocking(move || readers.with(|connection| lease::holder(&readers.path, connection, &run, now))).await
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        self.writer()?.signal(run.to_owned(), signal).await
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        let (readers, run) = (self.readers.clone(), run.to_owned());
        blocking(move || readers.with(|connection| signaled(&readers.path, connection, &run))).await
    }
}

impl Readers {
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_to_read(&self.copy.as_ref().map_or_else(|| self.path.clone(), schema::Copied::path))?,
        };
        let result = {
            // One snapshot for all reads. Nothing is written, so there is nothing to commit.
            let _snapshot = connection.unchecked_transaction().map_err(|error| sql_error(&self.path, "read", error))?;
            work(&connection)
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.is_ok() && idle.len() < MAX_IDLE_READERS {
            idle.push(connection);
        }
        result
    }
}

/// What an error of SQLite means to a workflow.
fn sql_error(path: &Path, doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    let file = path;
    let path = path.display();
    let (kind, message) = match error.sqlite_error_code() {
        Some(Code::CannotOpen | Code::ReadOnly) => return not_opened(file, doing).because(error),
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            (ErrorKind::Transient, format!("could not {doing} the journal {path}: another process held it for too long; try again"))
        }
        Some(Code::DiskFull) => (ErrorKind::Transient, format!("could not {doing} the journal {path}: the disk is full; free some space")),
        Some(Code::SystemIoFailure) => {
            (ErrorKind::Transient, format!("could not {doing} the journal {path}: the disk failed, or is full; check it, and try again"))
        }
        Some(Code::PermissionDenied) => (ErrorKind::Denied, not_allowed(file, doing)),
        // SQLite says the same where the disk fails to read (it makes `SQLITE_CORRUPT` of an `EIO`).
        Some(Code::DatabaseCorrupt) => (
            ErrorKind::Invalid,
            format!(
                "the journal {path} is damaged, or its disk cannot be read; check the disk and try again, and only if that does not help, restore \
                 the journal from a backup"
            ),
        ),
        Some(Code::NotADatabase) => (ErrorKind::Invalid, format!("{path} is not a journal, nor any other SQLite database")),
        Some(_) => (ErrorKind::Transient, format!("could not {doing} the journal {path}")),
        // The stored value is not one that we write.
        None => (ErrorKind::Invalid, format!("the journal {path} is damaged; restore it from a backup")),
    };
    Error::new(kind, message).because(error)
}

fn not_allowed(path: &Path, doing: &str) -> String {
    format!("not allowed to {doing} the journal {}; give that permission to the user that runs this", path.display())
}

/// Why SQLite cannot open the journal, or a file beside it, or write to it. It does not say: a failing disk looks like a missing permission, or
/// like a file that was moved. The journal must not be opened here to see, since closing it would drop the locks that SQLite has on it.
fn not_opened(path: &Path, doing: &str) -> Error {
    let could_not = |error| crate::files::io_error(error, &format!("{doing} the journal"), path);
    let may_be_written = match std::fs::metadata(path) {
        Ok(metadata) => !metadata.permissions().readonly(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return could_not(error),
    };
    match path.parent().map(crate::files::check_writable) {
        Some(Err(error)) => Error::new(error.kind(), format!("could not {doing} the journal {}: {}", path.display(), error.message())),
        _ if !may_be_written => Error::new(ErrorKind::Denied, not_allowed(path, doing)),
        _ => {
            let message = format!("could not {doing} the journal {}; check its permissions and its disk, and try again", path.display());
            Error::new(ErrorKind::Transient, message)
        }
    }
}

fn damaged(path: &Path, run: &str, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the history of run {run} in {} is damaged: {what}; restore the journal from a backup", path.display()))
        .on("run", run)
}

/// A hash of an event and its place, to notice an event that was changed or moved.
fn checksum(run: &str, sequence: u64, at: &str, body: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [run, at, body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&sequence.to_le_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// A number as SQLite's signed integer.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// SQLite's signed integer as a number.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

struct Stored {
    sequence: i64,
    at: String,
    body: String,
    hash: Vec<u8>,
}

impl Stored {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { sequence: row.get(0)?, at: row.get(1)?, body: row.get(2)?, hash: row.get(3)? })
    }

    fn recorded(&self, path: &Path, run: &str, sequence: u64) -> Result<Recorded> {
        recorded(path, run, sequence, (self.sequence, &self.at, &self.body, &self.hash), &mut None)
    }
}

/// An event, if its number, time, body and hash are what was written. `last` is the last time that was read, since events that were appended
/// together have the same.
fn recorded(
    path: &Path,
    run: &str,
    sequence: u64,
    (numbered, at, body, hash): (i64, &str, &str, &[u8]),
    last: &mut Option<(String, Timestamp)>,
) -> Result<Recorded> {
    if unsigned(numbered) != sequence {
        return Err(damaged(path, run, format!("event {sequence} is missing")));
    }
    if checksum(run, sequence, at, body) != hash {
        return Err(damaged(path, run, format!("event {sequence} is not what was written")));
    }
    let at = match last {
        Some((text, parsed)) if text == at => *parsed,
        _ => {
            let parsed = at.parse().map_err(|error| damaged(path, run, format!("the time of event {sequence} cannot be read: {error}")))?;
            last.insert((at.to_owned(), parsed)).1
        }
    };
    let event = serde_json::from_str(body).map_err(|error| {
        damaged(path, run, format!("event {sequence} cannot be read: {error}; if a newer version wrote it, use that version"))
    })?;
    Ok(Recorded { sequence, at, event })
}

/// The columns of an event, where SQLite has them.
fn columns_of<'a>(row: &'a Row<'_>) -> rusqlite::Result<(i64, &'a str, &'a str, &'a [u8])> {
    Ok((row.get(0)?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_blob()?))
}

const EVENTS: &str = "SELECT sequence, at, body, hash FROM events WHERE run = ?1 AND sequence >= ?2 ORDER BY sequence LIMIT ?3";
const EVENT: &str = "SELECT sequence, at, body, hash FROM events WHERE run = ?1 AND sequence = ?2";
const EVENT_COUNT: &str = "SELECT events FROM runs WHERE run = ?1";

fn read(path: &Path, connection: &Connection, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
    let failed = |error| sql_error(path, "read", error).on("run", run);
    let count: i64 = connection
        .prepare_cached(EVENT_COUNT)
        .and_then(|mut statement| statement.query_row([run], |row| row.get(0)).optional())
        .map_err(failed)?
        .unwrap_or(0);
    let count = unsigned(count);
    let mut statement = connection.prepare_cached(EVENTS).map_err(failed)?;
    let mut page: Vec<Recorded> = Vec::new();
    let bounds = (i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let mut rows = statement.query((run, bounds.0, bounds.1)).map_err(failed)?;
    let mut last = None;
    while let Some(row) = rows.next().map_err(failed)? {
        let columns = columns_of(row).map_err(failed)?;
        page.push(recorded(path, run, from.saturating_add(page.len() as u64), columns, &mut last)?);
    }
    // The page must end where the history ends, or be full and end earlier.
    let end = from.saturating_add(page.len() as u64);
    let is_whole = if page.len() < limit { end == count || (page.is_empty() && from > count) } else { end <= count || page.is_empty() };
    if is_whole { Ok(page) } else { Err(damaged(path, run, format!("{count} events were written, {end} are there"))) }
}

fn signaled(path: &Path, connection: &Connection, run: &str) -> Result<Option<Signal>> {
    let failed = |error| sql_error(path, "read", error).on("run", run);
    if schema::is_older(connection).map_err(failed)? {
        return Ok(None);
    }
    let word: Option<String> = connection
        .prepare_cached("SELECT signal FROM signals WHERE run = ?1")
        .and_then(|mut statement| statement.query_row([run], |row| row.get(0)).optional())
        .map_err(failed)?;
    let Some(word) = word else { return Ok(None) };
    let known = [Signal::Cancel, Signal::Pause].into_iter().find(|signal| signal.as_str() == word);
    known.map(Some).ok_or_else(|| damaged(path, run, format!("its signal is `{word}`; if a newer version sent it, use that version")))
}

fn runs(path: &Path, connection: &Connection) -> Result<Vec<RunHead>> {
    let failed = |error| sql_error(path, "read", error);
    let mut names: Vec<(String, i64)> = Vec::new();
    let mut statement = connection.prepare_cached("SELECT run, events FROM runs ORDER BY created_us, rowid").map_err(failed)?;
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)? {
        names.push(row.map_err(failed)?);
    }
    refuse_unlisted(path, connection)?;
    let mut count = connection.prepare_cached("SELECT count(*) FROM events WHERE run = ?1").map_err(failed)?;
    let mut event = connection.prepare_cached(EVENT).map_err(failed)?;
    let mut heads = Vec::with_capacity(names.len());
    for (run, events) in names {
        let there: i64 = count.query_row([&run], |row| row.get(0)).map_err(failed)?;
        if there != events || events == 0 {
            return Err(damaged(path, &run, format!("{events} events were written, {there} are there")));
        }
        let mut at = |sequence: i64| {
            let stored = event.query_row((&run, sequence), Stored::of).optional().map_err(failed)?;
            let stored = stored.ok_or_else(|| damaged(path, &run, format!("event {sequence} is missing")))?;
            stored.recorded(path, &run, unsigned(sequence))
        };
        let (first, last) = (at(0)?, at(events - 1)?);
        heads.push(RunHead { run, first, last });
    }
    Ok(heads)
}

/// Rejects events of runs that are not listed, since the list was then cut. It jumps from run to run, so it reads one event for each, and it is one
/// statement, so a run that begins meanwhile is in both or in neither.
fn refuse_unlisted(path: &Path, connection: &Connection) -> Result<()> {
    const UNLISTED: &str = "WITH RECURSIVE found(run) AS (
        SELECT min(run) FROM events
        UNION ALL
        SELECT (SELECT min(run) FROM events WHERE run > found.run) FROM found WHERE found.run IS NOT NULL
    ) SELECT run FROM found WHERE run IS NOT NULL AND run NOT IN (SELECT run FROM runs) LIMIT 1";
    let failed = |error| sql_error(path, "read", error);
    let mut statement = connection.prepare_cached(UNLISTED).map_err(failed)?;
    match statement.query_row([], |row| row.get::<_, String>(0)).optional().map_err(failed)? {
        Some(run) => Err(damaged(path, &run, "it has events, but is not in the list of runs")),
        None => Ok(()),
    }
}
