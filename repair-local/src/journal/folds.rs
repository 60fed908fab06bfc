//! What the first events of a run add up to, kept beside them. It is only a help: whatever is wrong with it, the events are read instead.

use std::path::Path;

use repair_core::engine::Fold;
use repair_core::{Error, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{EVENT, Stored, schema, sql_error, stored, unsigned};

/// A fold as it is stored.
struct Row {
    events: i64,
    last: Vec<u8>,
    state: String,
    hash: Vec<u8>,
}

/// A hash of a fold, of its run, and of the last event in it, which has a hash itself.
fn hash(run: &str, events: u64, last: &[u8], state: &str) -> [u8; 16] {
    let last: String = last.iter().map(|byte| format!("{byte:02x}")).collect();
    super::checksum(run, events, &last, state)
}

/// Keeps a fold in place of the one before.
pub(super) fn keep(path: &Path, connection: &mut Connection, run: &str, fold: &Fold) -> Result<()> {
    let failed = |error| sql_error(path, "write to", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let last = fold.events.checked_sub(1).and_then(|last| i64::try_from(last).ok());
    let last: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT hash FROM events WHERE run = ?1 AND sequence = ?2")
        .and_then(|mut statement| statement.query_row((run, last), |row| row.get(0)).optional())
        .map_err(failed)?;
    let last = last.ok_or_else(|| Error::internal(format!("run {run} has not {} events to keep", fold.events)))?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO folds (run, events, last, state, hash) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut statement| {
            statement.execute((run, stored(fold.events), &last, &fold.state, hash(run, fold.events, &last, &fold.state)))
        })
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Forgets the fold of a run.
pub(super) fn forget(path: &Path, connection: &Connection, run: &str) -> Result<()> {
    let failed = |error| sql_error(path, "write to", error);
    if !schema::has_folds(connection).map_err(failed)? {
        return Ok(());
    }
    connection.execute("DELETE FROM folds WHERE run = ?1", [run]).map(drop).map_err(failed)
}

/// The fold of a run. One that is damaged is none, and so is one whose last event is not there, or is another one.
pub(super) fn kept(path: &Path, connection: &Connection, run: &str) -> Result<Option<Fold>> {
    let failed = |error| sql_error(path, "read", error).on("run", run);
    if !schema::has_folds(connection).map_err(failed)? {
        return Ok(None);
    }
    let row = connection.prepare_cached("SELECT events, last, state, hash FROM folds WHERE run = ?1").and_then(|mut statement| {
        let columns = |row: &rusqlite::Row<'_>| Ok(Row { events: row.get(0)?, last: row.get(1)?, state: row.get(2)?, hash: row.get(3)? });
        statement.query_row([run], columns).optional()
    });
    // Text that is none is damage, too.
    let row = match row {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(None),
        Err(error) if error.sqlite_error_code().is_none() => return Ok(ignored(run, "it cannot be read")),
        Err(error) => return Err(failed(error)),
    };
    let events = unsigned(row.events);
    if hash(run, events, &row.last, &row.state) != row.hash.as_slice() {
        return Ok(ignored(run, "it is not what was written"));
    }
    let Some(at) = row.events.checked_sub(1) else { return Ok(ignored(run, "it is of no events")) };
    let last = connection.prepare_cached(EVENT).and_then(|mut statement| statement.query_row((run, at), Stored::of).optional());
    let Some(last) = last.map_err(failed)? else { return Ok(ignored(run, "the last of its events is not there")) };
    if last.hash != row.last || last.recorded(path, run, unsigned(at)).is_err() {
        return Ok(ignored(run, "the last of its events is another one"));
    }
    Ok(Some(Fold { events, state: row.state }))
}

fn ignored(run: &str, why: &str) -> Option<Fold> {
    tracing::warn!(run, why, "what was kept of a run is not used, so all of its events are read");
    None
}
