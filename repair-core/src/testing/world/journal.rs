//! A journal in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::engine::{Event, Fold, Journal, Recorded, RunHead, Signal};
use crate::error::{Error, ErrorKind, Result};

/// A journal in memory. A clone is the same journal. It keeps every promise of [`Journal`], except that it ends with the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    histories: BTreeMap<String, Vec<Recorded>>,
    /// In order of their first event.
    runs: Vec<String>,
    leases: BTreeMap<String, Lease>,
    signals: BTreeMap<String, Signal>,
    folds: BTreeMap<String, Fold>,
}

#[derive(Debug)]
struct Lease {
    driver: String,
    until: Timestamp,
}

impl MemoryJournal {
    /// Frees all leases, like a journal that can see that their holders are dead.
    pub fn all_drivers_died(&self) {
        self.state().leases.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, run: &str, expected: u64, at: Timestamp, events: &[Event]) -> Result<()> {
        let mut state = self.state();
        let next = state.histories.get(run).map_or(0, Vec::len) as u64;
        if next != expected {
            let message = format!("the next event of run {run} is number {next}, not {expected}: another process has appended");
            return Err(Error::new(ErrorKind::Conflict, message).on("run", run));
        }
        if events.is_empty() {
            return Ok(());
        }
        if next == 0 {
            state.runs.push(run.to_owned());
        }
        let recorded = (next..).zip(events).map(|(sequence, event)| Recorded { sequence, at, event: event.clone() });
        state.histories.entry(run.to_owned()).or_default().extend(recorded);
        Ok(())
    }

    async fn read(&self, run: &str, from: u64, limit: usize) -> Result<Vec<Recorded>> {
        let state = self.state();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(state.histories.get(run).into_iter().flatten().skip(from).take(limit).cloned().collect())
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        let state = self.state();
        let head = |run: &String| {
            let history = state.histories.get(run)?;
            Some(RunHead { run: run.clone(), first: history.first()?.clone(), last: history.last()?.clone() })
        };
        let mut heads: Vec<RunHead> = state.runs.iter().filter_map(head).collect();
        heads.sort_by_key(|head| head.first.at);
        Ok(heads)
    }

    async fn keep(&self, run: &str, fold: Fold) -> Result<()> {
        self.state().folds.insert(run.to_owned(), fold);
        Ok(())
    }

    async fn kept(&self, run: &str) -> Result<Option<Fold>> {
        let state = self.state();
        let events = state.histories.get(run).map_or(0, Vec::len) as u64;
        Ok(state.folds.get(run).filter(|fold| fold.events <= events).cloned())
    }

    async fn acquire(&self, run: &str, driver: &str, now: Timestamp, ttl: Duration) -> Result<()> {
        let mut state = self.state();
        if let Some(lease) = state.leases.get(run)
            && lease.driver != driver
            && lease.until > now
        {
            let message = format!("run {run} is driven by {} until {}; stop it, or wait until then", lease.driver, lease.until);
            let left = Duration::try_from(lease.until.duration_since(now)).unwrap_or_default();
            return Err(Error::new(ErrorKind::Conflict, message).on("run", run).retry_after(left));
        }
        let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        state.leases.insert(run.to_owned(), Lease { driver: driver.to_owned(), until });
        Ok(())
    }

    async fn release(&self, run: &str, driver: &str) -> Result<()> {
        let mut state = self.state();
        if state.leases.get(run).is_some_and(|lease| lease.driver == driver) {
            state.leases.remove(run);
        }
        Ok(())
    }

    async fn driver(&self, run: &str, now: Timestamp) -> Result<Option<String>> {
        let state = self.state();
        Ok(state.leases.get(run).filter(|lease| lease.until > now).map(|lease| lease.driver.clone()))
    }

    async fn signal(&self, run: &str, signal: Option<Signal>) -> Result<()> {
        let mut state = self.state();
        if !state.histories.contains_key(run) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no run {run}")).on("run", run));
        }
        match signal {
            Some(signal) => state.signals.insert(run.to_owned(), signal),
            None => state.signals.remove(run),
        };
        Ok(())
    }

    async fn signaled(&self, run: &str) -> Result<Option<Signal>> {
        Ok(self.state().signals.get(run).copied())
    }
}
