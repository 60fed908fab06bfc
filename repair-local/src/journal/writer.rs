//! The one thread that writes: it commits together whatever is waiting.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use repair_core::engine::{Fold, Signal};
use repair_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tokio::sync::oneshot;

use super::brief::{self, Brief};
use super::folds;
use super::lease::Leases;
use super::{checksum, sql_error};

/// Appends in one commit: enough to make the cost of the flush small, few enough that the first of them does not wait long.
const MAX_GROUP: usize = 256;

/// After this long without writes, the log is copied into the file; earlier, commits would have to wait for the copy.
const IDLE: Duration = Duration::from_millis(250);

/// The thread, and the channel to it.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while it is being dropped.
    sender: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// A request to the thread, with the channel for its answer.
enum Command {
    Append(Append),
    Acquire { run: String, driver: String, now: Timestamp, ttl: Duration, reply: Reply },
    Release { run: String, driver: String, reply: Reply },
    Signal { run: String, signal: Option<Signal>, reply: Reply },
    Keep { run: String, fold: Fold, reply: Reply },
    Forget { run: String, reply: Reply },
}

type Reply = oneshot::Sender<Result<()>>;

struct Append {
    run: String,
    expected: u64,
    at: Timestamp,
    bodies: Vec<String>,
    brief: Brief,
    reply: Reply,
}

impl Writer {
    pub(super) fn start(path: PathBuf, connection: Connection) -> Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write(&path, connection, &receiver))
            .map_err(|error| Error::new(ErrorKind::Transient, "could not start the journal's thread").because(error))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Appends; returns once it is on disk. If the caller is dropped meanwhile, all of it is appended or nothing.
    pub(super) async fn append(&self, run: String, expected: u64, at: Timestamp, bodies: Vec<String>, brief: Brief) -> Result<()> {
        self.ask(|reply| Command::Append(Append { run, expected, at, bodies, brief, reply })).await
    }

    /// Keeps what the first events of a run add up to.
    pub(super) async fn keep(&self, run: String, fold: Fold) -> Result<()> {
        self.ask(|reply| Command::Keep { run, fold, reply }).await
    }

    /// Forgets what was kept of a run.
    pub(super) async fn forget(&self, run: String) -> Result<()> {
        self.ask(|reply| Command::Forget { run, reply }).await
    }

    /// Takes or renews a lease.
    pub(super) async fn acquire(&self, run: String, driver: String, now: Timestamp, ttl: Duration) -> Result<()> {
        self.ask(|reply| Command::Acquire { run, driver, now, ttl, reply }).await
    }

    /// Releases a lease.
    pub(super) async fn release(&self, run: String, driver: String) -> Result<()> {
        self.ask(|reply| Command::Release { run, driver, reply }).await
    }

    /// Leaves a signal for a run's driver, or removes it.
    pub(super) async fn signal(&self, run: String, signal: Option<Signal>) -> Result<()> {
        self.ask(|reply| Command::Signal { run, signal, reply }).await
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<()> {
        let gone = || Error::internal("the journal's thread panicked");
        let (reply, answer) = oneshot::channel();
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        sender.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    /// Waits until all requests are written and the file is closed.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(path: &Path, mut connection: Connection, receiver: &Receiver<Command>) {
    let mut leases = Leases::of(path);
    let mut log_grew = false;
    loop {
        let first = if log_grew {
            match receiver.recv_timeout(IDLE) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => {
                    log_grew = false;
                    checkpoint(path, &connection);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match receiver.recv() {
                Ok(command) => command,
                Err(_) => break,
            }
        };
        let mut group = vec![first];
        group.extend(receiver.try_iter().take(MAX_GROUP - 1));
        let mut appends = Vec::new();
        for command in group {
            match command {
                Command::Append(append) => appends.push(append),
                // Rare, and each in its own commit, since a lease also changes files, which must follow the commit's outcome.
                other => {
                    commit_all(path, &mut connection, std::mem::take(&mut appends));
                    perform(path, &mut connection, &mut leases, other);
                }
            }
        }
        commit_all(path, &mut connection, appends);
        log_grew = true;
    }
}

/// Commits appends together, and answers each.
fn commit_all(path: &Path, connection: &mut Connection, appends: Vec<Append>) {
    if appends.is_empty() {
        return;
    }
    let results = commit(path, connection, &appends);
    for (append, result) in appends.into_iter().zip(results) {
        // The caller may be gone; what was written stays.
        let _ = append.reply.send(result);
    }
}

/// Handles a request that is not an append, and answers it.
fn perform(path: &Path, connection: &mut Connection, leases: &mut Leases, command: Command) {
    let (run, result, reply) = match command {
        Command::Append(append) => return commit_all(path, connection, vec![append]),
        Command::Acquire { run, driver, now, ttl, reply } => {
            let result = leases.acquire(connection, &run, &driver, now, ttl);
            (run, result, reply)
        }
        Command::Release { run, driver, reply } => {
            let result = leases.release(connection, &run, &driver);
            (run, result, reply)
        }
        Command::Signal { run, signal, reply } => {
            let result = set_signal(path, connection, &run, signal);
            (run, result, reply)
        }
        Command::Keep { run, fold, reply } => {
            let result = folds::keep(path, connection, &run, &fold);
            (run, result, reply)
        }
        Command::Forget { run, reply } => {
            let result = folds::forget(path, connection, &run);
            (run, result, reply)
        }
    };
    let _ = reply.send(result.map_err(|error| error.on("run", run)));
}

fn set_signal(path: &Path, connection: &mut Connection, run: &str, signal: Option<Signal>) -> Result<()> {
    let failed = |error| sql_error(path, "write to", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let known = transaction.query_row("SELECT 1 FROM runs WHERE run = ?1", [run], |_| Ok(())).optional().map_err(failed)?;
    if known.is_none() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no run {run} in the journal {}", path.display())));
    }
    match signal {
        Some(signal) => transaction.execute("INSERT OR REPLACE INTO signals (run, signal) VALUES (?1, ?2)", (run, signal.as_str())),
        None => transaction.execute("DELETE FROM signals WHERE run = ?1", [run]),
    }
    .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Copies the log into the file. A failure does no harm, since the log is as durable as the file.
fn checkpoint(path: &Path, connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::debug!(journal = %path.display(), %error, "could not copy the log into the journal; will try again later");
    }
}

/// Commits a group. Each append succeeds or fails on its own, unless the commit fails.
fn commit(path: &Path, connection: &mut Connection, group: &[Append]) -> Vec<Result<()>> {
    let all_failed = |error: rusqlite::Error| {
        // Errors cannot be cloned, so each caller gets its own, of the same kind and words.
        let error = sql_error(path, "write to", error);
        group.iter().map(|_| Err(Error::new(error.kind(), error.full()))).collect()
    };
    // Takes the lock before reading the next number, so that a process sees what another has written.
    let mut transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => return all_failed(error),
    };
    // One append is all of the transaction, so it needs no point to go back to.
    if let [append] = group {
        let inserted = insert(path, &transaction, append).map_err(|error| error.on("run", &append.run));
        return match inserted {
            Ok(()) => transaction.commit().map_or_else(all_failed, |()| vec![Ok(())]),
            Err(error) => vec![Err(error)],
        };
    }
    let mut results = Vec::with_capacity(group.len());
    for append in group {
        let failed = |error| sql_error(path, "write to", error);
        // Dropped before it is committed, it is rolled back.
        let result = transaction.savepoint().map_err(failed).and_then(|savepoint| {
            insert(path, &savepoint, append)?;
            savepoint.commit().map_err(failed)
        });
        results.push(result.map_err(|error| error.on("run", &append.run)));
        if transaction.is_autocommit() {
            // When the disk is full, SQLite undoes the whole transaction: earlier appends are gone, and later ones would have no base.
            return group.iter().map(|_| Err(undone(path, results.last()))).collect();
        }
    }
    match transaction.commit() {
        Ok(()) => results,
        Err(error) => all_failed(error),
    }
}

/// The error of every append in a group that was undone.
fn undone(path: &Path, last: Option<&Result<()>>) -> Error {
    match last {
        Some(Err(error)) => Error::new(error.kind(), error.full()),
        _ => Error::new(ErrorKind::Transient, format!("could not write to the journal {}: SQLite rolled it back", path.display())),
    }
}

/// Inserts the events of one append. If that fails, the caller goes back to where it began.
fn insert(path: &Path, connection: &Connection, append: &Append) -> Result<()> {
    let failed = |error| sql_error(path, "write to", error);
    let known: Option<(i64, Option<String>)> = connection
        .prepare_cached("SELECT events, begun FROM runs WHERE run = ?1")
        .and_then(|mut statement| statement.query_row([&append.run], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed)?;
    let (next, begun) = known.unwrap_or((0, None));
    let next = super::unsigned(next);
    if next != append.expected {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the run's next event is number {next}, not {}: another process has appended; let only one of them drive the run",
                append.expected
            ),
        ));
    }
    if append.bodies.is_empty() {
        return Ok(());
    }
    let at = append.at.to_string();
    let mut sequence = next;
    {
        let mut event =
            connection.prepare_cached("INSERT INTO events (run, sequence, at, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)").map_err(failed)?;
        for body in &append.bodies {
            let hash = checksum(&append.run, sequence, &at, body);
            event.execute((&append.run, stored(sequence)?, &at, body, hash)).map_err(|error| match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::ConstraintViolation) => {
                    super::damaged(path, &append.run, format!("event {sequence} is stored but not counted"))
                }
                _ => failed(error),
            })?;
            sequence += 1;
        }
        // Where an earlier program has begun the run, its first event is read once.
        let begun = match begun.or_else(|| append.brief.begun.clone()) {
            Some(begun) => Some(begun),
            None => brief::of_first(path, connection, &append.run),
        };
        let latest = &append.brief.latest;
        let hash = begun.as_ref().map(|begun| brief::hash(&append.run, sequence, begun, latest));
        let latest = begun.as_ref().map(|_| latest);
        connection
            .prepare_cached(
                "INSERT INTO runs (run, created_us, events, begun, latest, brief_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (run) DO UPDATE SET events = excluded.events, begun = excluded.begun, latest = excluded.latest, \
                 brief_hash = excluded.brief_hash",
            )
            .and_then(|mut statement| {
                statement.execute((
                    &append.run,
                    append.at.as_microsecond(),
                    i64::try_from(sequence).unwrap_or(i64::MAX),
                    begun,
                    latest,
                    hash,
                ))
            })
            .map_err(failed)?;
    }
    Ok(())
}

fn stored(sequence: u64) -> Result<i64> {
    i64::try_from(sequence).map_err(|_| Error::internal("a run has too many events"))
}
