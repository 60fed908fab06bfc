//! The first and the last event of each run in brief, kept in the list of runs in the same commit as the events, so that a listing need not read
//! any. Where they are missing, or are not of the run as it is, the events are read.

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use repair_core::engine::{Begun, Event, Latest, ListedRun, Recorded};
use repair_core::{Error, Result};
use rusqlite::{Connection, OptionalExtension};

use super::lease::{self, Lease, Leases};
use super::{EVENT, Stored, damaged, schema, sql_error, unsigned};

/// What an append changes of it.
#[derive(Debug)]
pub(super) struct Brief {
    /// Of the first event of the run, if it is among those that are appended.
    pub(super) begun: Option<String>,
    /// Of the last event.
    pub(super) latest: String,
}

impl Brief {
    pub(super) fn of(expected: u64, at: Timestamp, events: &[Event]) -> Result<Self> {
        let first = if expected == 0 { events.first() } else { None };
        let begun = first.map(|first| serde_json::to_string(&Begun::of(at, first))).transpose();
        let latest = events.last().map(|last| serde_json::to_string(&Latest::of(at, last))).transpose();
        let not_json = |error| Error::internal("an event in brief is not JSON").because(error);
        Ok(Self { begun: begun.map_err(not_json)?, latest: latest.map_err(not_json)?.unwrap_or_default() })
    }
}

/// A hash of what is kept of a run that has so many events.
pub(super) fn hash(run: &str, events: u64, begun: &str, latest: &str) -> [u8; 16] {
    super::checksum(run, events, begun, latest)
}

/// The first event of a run in brief; `None` if it cannot be read, which is reported when it is.
pub(super) fn of_first(path: &Path, connection: &Connection, run: &str) -> Option<String> {
    let first = event(path, connection, run, 0).ok()?;
    serde_json::to_string(&Begun::of(first.at, &first.event)).ok()
}

fn event(path: &Path, connection: &Connection, run: &str, sequence: u64) -> Result<Recorded> {
    let failed = |error| sql_error(path, "read", error);
    let mut statement = connection.prepare_cached(EVENT).map_err(failed)?;
    let stored = statement.query_row((run, super::stored(sequence)), Stored::of).optional().map_err(failed)?;
    stored.ok_or_else(|| damaged(path, run, format!("event {sequence} is missing")))?.recorded(path, run, sequence)
}

/// A row of the list of runs.
struct Listed {
    run: String,
    events: u64,
    begun: Option<String>,
    latest: Option<String>,
    hash: Option<Vec<u8>>,
}

impl Listed {
    /// What is kept, if it is of the run as it is now.
    fn brief(&self) -> Option<(Begun, Latest)> {
        let (begun, latest) = (self.begun.as_ref()?, self.latest.as_ref()?);
        let is_ours = self.hash.as_deref()? == hash(&self.run, self.events, begun, latest);
        is_ours.then(|| Some((serde_json::from_str(begun).ok()?, serde_json::from_str(latest).ok()?)))?
    }

    /// The same, from the events.
    fn read(&self, path: &Path, connection: &Connection) -> Result<(Begun, Latest)> {
        let last = self.events.checked_sub(1).ok_or_else(|| damaged(path, &self.run, "it has no events"))?;
        let (first, last) = (event(path, connection, &self.run, 0)?, event(path, connection, &self.run, last)?);
        Ok((Begun::of(first.at, &first.event), Latest::of(last.at, &last.event)))
    }
}

/// All runs of the list, oldest first, as a listing shows them. Whether it is cut, is not asked.
pub(super) fn listed(path: &Path, connection: &Connection, now: Timestamp) -> Result<Vec<ListedRun>> {
    let failed = |error| sql_error(path, "read", error);
    let columns = if schema::has_briefs(connection).map_err(failed)? { "begun, latest, brief_hash" } else { "NULL, NULL, NULL" };
    let select = format!("SELECT run, events, {columns} FROM runs ORDER BY created_us, rowid");
    let mut statement = connection.prepare_cached(&select).map_err(failed)?;
    let row = |row: &rusqlite::Row<'_>| {
        let events = unsigned(row.get(1)?);
        Ok(Listed { run: row.get(0)?, events, begun: row.get(2)?, latest: row.get(3)?, hash: row.get(4)? })
    };
    let rows: Vec<Listed> = statement.query_map([], row).and_then(Iterator::collect).map_err(failed)?;
    let leases: HashMap<String, Lease> = lease::all(path, connection)?;
    let alive = Leases::of(path);
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        let (begun, latest) = match row.brief() {
            Some(brief) => brief,
            None => row.read(path, connection)?,
        };
        let lease = leases.get(&row.run).filter(|_| !latest.is_at_rest());
        let driver = lease.and_then(|lease| alive.driver(lease, now));
        listed.push(ListedRun { run: row.run, begun, latest, driver });
    }
    Ok(listed)
}
