//! What has come of the units of one visit of a repair step: the fold of its events. Pure. The driver's work on them keeps one of these
//! in step with the run's own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::event::{ErrorRecord, Event};
use crate::cost::Usage;
use crate::error::ErrorKind;
use crate::model::{Conflicts, Suspects};

/// Errors of units that are kept word for word; of further ones, the kind is known.
const KEPT_ERRORS: usize = 100;

/// Where a unit is. Every unit is always in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitState {
    /// To do.
    Pending,
    /// Done and kept, not yet seen by readers.
    Staged,
    /// Seen by readers.
    Published,
    /// Its last attempt failed with an error of this kind.
    Failed(ErrorKind),
}

/// Units that are published together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which; none once readers see them.
    pub units: Vec<u32>,
    /// Whether readers see them.
    pub ended: bool,
}

/// The work of one visit of a repair step.
#[derive(Debug, Clone, PartialEq)]
pub struct Units {
    /// The detect step whose findings they are to repair.
    pub of: String,
    /// The table repaired.
    pub table: String,
    /// The repair idea.
    pub strategy: String,
    /// The artifact that lists the units.
    pub artifact: String,
    /// How many slots are to be repaired.
    pub slots: u64,
    /// By index.
    states: Vec<UnitState>,
    pending: u64,
    staged: u64,
    published: u64,
    failed: BTreeMap<ErrorKind, u64>,
    /// Of failed units, the last error, as far as kept.
    pub errors: BTreeMap<u32, ErrorRecord>,
    /// Batches whose publication was begun.
    pub batches: Vec<Batch>,
    /// Rows published.
    pub rows: u64,
    /// Slots recorded as absent.
    pub absent: u64,
    /// Where sources said otherwise than the table.
    pub conflicts: Conflicts,
    /// Where sources had nothing, and that proves nothing.
    pub suspects: Suspects,
    /// What its units took.
    pub usage: Usage,
}

impl Units {
    pub(super) fn planned(of: &str, table: &str, strategy: &str, artifact: &str, units: u32, slots: u64) -> Self {
        Self {
            of: of.to_owned(),
            table: table.to_owned(),
            strategy: strategy.to_owned(),
            artifact: artifact.to_owned(),
            slots,
            states: vec![UnitState::Pending; units as usize],
            pending: u64::from(units),
            staged: 0,
            published: 0,
            failed: BTreeMap::new(),
            errors: BTreeMap::new(),
            batches: Vec::new(),
            rows: 0,
            absent: 0,
            conflicts: Conflicts::default(),
            suspects: Suspects::default(),
            usage: Usage::default(),
        }
    }

    /// How many units there are.
    pub fn len(&self) -> u64 {
        self.states.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// How many are to do.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// How many are done, but not seen by readers.
    pub fn staged(&self) -> u64 {
        self.staged
    }

    /// How many are seen by readers.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many failed, by kind of error.
    pub fn failed_by_kind(&self) -> impl Iterator<Item = (ErrorKind, u64)> + '_ {
        self.failed.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Where a unit is.
    pub fn state(&self, unit: u32) -> Option<UnitState> {
        self.states.get(unit as usize).copied()
    }

    /// The indexes of units in a state.
    pub fn indexes(&self, wanted: impl Fn(UnitState) -> bool) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.states).filter(move |(_, state)| wanted(**state)).map(|(index, _)| index)
    }

    /// An error that stands for those that failed; none if none did.
    pub fn an_error(&self) -> Option<ErrorRecord> {
        let kept = self.errors.iter().find(|(unit, _)| matches!(self.state(**unit), Some(UnitState::Failed(_))));
        kept.map(|(_, error)| error.clone()).or_else(|| {
            let (kind, count) = self.failed.iter().next()?;
            Some(ErrorRecord { kind: *kind, message: format!("{count} units failed"), retry_after_ms: None })
        })
    }

    /// What conditions see as the repair step's `$output`.
    pub fn output(&self) -> Value {
        json!({
            "strategy": self.strategy,
            "units": self.len(),
            "succeeded": self.staged + self.published,
            "failed": self.failed(),
            "pending": self.pending,
            "slots": self.slots,
            "repaired": self.rows,
            "absent": self.absent,
            "unresolved": self.slots.saturating_sub(self.rows + self.absent),
            "suspect": self.suspects.slots,
            "conflicts": self.conflicts.slots,
            "requests": self.usage.source_requests,
        })
    }

    fn count(&mut self, state: UnitState) -> &mut u64 {
        match state {
            UnitState::Pending => &mut self.pending,
            UnitState::Staged => &mut self.staged,
            UnitState::Published => &mut self.published,
            UnitState::Failed(kind) => self.failed.entry(kind).or_default(),
        }
    }

    fn put(&mut self, unit: u32, to: UnitState) -> Option<UnitState> {
        let state = self.states.get_mut(unit as usize)?;
        let from = std::mem::replace(state, to);
        *self.count(from) -= 1;
        *self.count(to) += 1;
        if let UnitState::Failed(kind) = from
            && self.failed.get(&kind) == Some(&0)
        {
            self.failed.remove(&kind);
        }
        Some(from)
    }

    /// Failed units of some kinds (of any, if none are given) are to do again.
    pub(super) fn retry(&mut self, kinds: Option<&[ErrorKind]>) {
        let again = |state| matches!(state, UnitState::Failed(kind) if kinds.is_none_or(|kinds| kinds.contains(&kind)));
        for unit in self.indexes(again).collect::<Vec<_>>() {
            self.put(unit, UnitState::Pending);
        }
    }

    /// Folds an event about these units; others leave it as it is.
    ///
    /// # Errors
    /// Why the event makes no sense here.
    pub(super) fn apply(&mut self, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::UnitsEnded { staged, usage, conflicts, suspects, failed, .. } => {
                for &unit in staged {
                    self.end(unit, UnitState::Staged)?;
                    self.errors.remove(&unit);
                }
                self.usage += *usage;
                self.conflicts += conflicts.clone();
                self.suspects += suspects.clone();
                for failed in failed {
                    self.end(failed.unit, UnitState::Failed(failed.error.kind))?;
                    if self.errors.len() < KEPT_ERRORS || self.errors.contains_key(&failed.unit) {
                        self.errors.insert(failed.unit, failed.error.clone());
                    }
                }
            }
            Event::PublishStarted { batch, units, .. } => {
                if *batch as usize != self.batches.len() {
                    return Err("a batch out of order");
                }
                if units.iter().any(|unit| self.state(*unit) != Some(UnitState::Staged)) {
                    return Err("a batch of units that are not staged");
                }
                self.batches.push(Batch { units: units.clone(), ended: false });
            }
            Event::PublishEnded { batch, rows, absent, usage, .. } => {
                let batch = self.batches.get_mut(*batch as usize).filter(|batch| !batch.ended).ok_or("a batch that was not begun")?;
                batch.ended = true;
                for unit in std::mem::take(&mut batch.units) {
                    self.put(unit, UnitState::Published);
                }
                self.rows += rows;
                self.absent += absent;
                self.usage += *usage;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, unit: u32, to: UnitState) -> Result<(), &'static str> {
        match self.put(unit, to) {
            Some(UnitState::Pending) => Ok(()),
            Some(_) => Err("a unit ended twice"),
            None => Err("a unit that was not planned"),
        }
    }
}
