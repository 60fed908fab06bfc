//! Does the units of a repair step: several at once, within a rate, each checked and staged, their ends journaled in groups.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use tokio::task::JoinSet;

use super::event::{ErrorRecord, UnitEnded, UnitResult};
use super::rate::RateLimiter;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::rollup::{column, key_columns};
use crate::lake::{StageRequest, StageScope};
use crate::model::{Findings, Fix, Key, SlotRange, Table, Unit};
use crate::plugin::{Repairer, StepContext};

/// At most so many units' ends are journaled in one commit.
const GROUP: usize = 128;
/// At most so long is the journal behind: what a crash could make us ask the lake about again.
const GROUP_TIME: Duration = Duration::from_millis(50);

/// What doing units needs.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) context: StepContext,
    pub(crate) repairer: Arc<dyn Repairer>,
    pub(crate) findings: Arc<Findings>,
    pub(crate) table: Arc<Table>,
    pub(crate) strategy: Arc<str>,
    pub(crate) limiter: Option<Arc<RateLimiter>>,
}

/// Units under way.
pub(crate) struct Fanout {
    work: Work,
    units: Arc<Vec<Unit>>,
    waiting: std::vec::IntoIter<u32>,
    concurrency: usize,
    running: JoinSet<UnitEnded>,
    /// Which unit each task does, for one that dies without saying so.
    tasks: HashMap<tokio::task::Id, u32>,
}

impl Fanout {
    pub(crate) fn new(work: Work, units: Arc<Vec<Unit>>, pending: Vec<u32>, concurrency: u32) -> Self {
        let concurrency = concurrency.max(1) as usize;
        Self { work, units, waiting: pending.into_iter(), concurrency, running: JoinSet::new(), tasks: HashMap::new() }
    }

    /// Takes no more units; those under way are still awaited.
    pub(crate) fn stop(&mut self) {
        self.waiting = Vec::new().into_iter();
    }

    /// The next group of units that ended; none when all have.
    pub(crate) async fn next_group(&mut self) -> Vec<UnitEnded> {
        let mut group = Vec::new();
        let mut deadline = None;
        loop {
            self.fill();
            let next = match deadline {
                None => self.running.join_next_with_id().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, self.running.join_next_with_id()).await {
                    Ok(next) => next,
                    Err(_) => return group,
                },
            };
            let Some(joined) = next else { return group };
            group.push(self.ended(joined));
            deadline.get_or_insert_with(|| tokio::time::Instant::now() + GROUP_TIME);
            if group.len() >= GROUP {
                return group;
            }
        }
    }

    fn fill(&mut self) {
        while self.running.len() < self.concurrency && !self.work.context.cancel.is_cancelled() {
            let Some(index) = self.waiting.next() else { return };
            let (work, units) = (self.work.clone(), self.units.clone());
            let handle = self.running.spawn(async move { do_unit(&work, &units, index).await });
            self.tasks.insert(handle.id(), index);
        }
    }

    fn ended(&mut self, joined: Result<(tokio::task::Id, UnitEnded), tokio::task::JoinError>) -> UnitEnded {
        match joined {
            Ok((id, ended)) => {
                self.tasks.remove(&id);
                ended
            }
            Err(error) => {
                let unit = self.tasks.remove(&error.id()).unwrap_or(u32::MAX);
                let error = Error::internal("a repairer panicked; this is a bug in the plug-in").because(error);
                UnitEnded { unit, result: UnitResult::Failed { error: ErrorRecord::from(&error) } }
            }
        }
    }
}

async fn do_unit(work: &Work, units: &[Unit], index: u32) -> UnitEnded {
    let result = match units.get(index as usize) {
        Some(unit) => repair_and_stage(work, unit).await,
        None => Err(Error::internal("a unit that was not planned")),
    };
    let result = result.unwrap_or_else(|error| UnitResult::Failed { error: ErrorRecord::from(&error) });
    UnitEnded { unit: index, result }
}

async fn repair_and_stage(work: &Work, unit: &Unit) -> Result<UnitResult> {
    let context = &work.context;
    if let Some(limiter) = &work.limiter {
        limiter.acquire().await;
    }
    context.check_cancelled()?;
    let fix = work.repairer.repair(context, &work.findings, unit).await?;
    check_fix(&work.table, unit, &fix)?;
    let id = unit.id(&work.table.name, &work.strategy);
    let scope = StageScope { run: &context.run, step: &context.step, visit: context.visit, table: &work.table };
    let request = StageRequest { unit: &id, strategy: &work.strategy, repaired_at: context.clock.now(), fix: &fix };
    let staged = context.lake.stage(&scope, &request).await?;
    Ok(UnitResult::Staged { rows: staged.rows, absent: staged.absent, usage: staged.usage })
}

/// Checks that a fix is of wanted slots only, each once: whatever a plug-in does, nothing else reaches the lake.
fn check_fix(table: &Table, unit: &Unit, fix: &Fix) -> Result<()> {
    let grid = table.grid()?;
    let wanted: BTreeMap<&Key, &[SlotRange]> = unit.wanted.iter().map(|wanted| (&wanted.key, wanted.slots.as_slice())).collect();
    let mut seen: HashSet<(Key, i64)> = HashSet::new();
    let mut check = |key: Key, slot: i64, what: &str| {
        let asked = wanted.get(&key).is_some_and(|ranges| ranges.iter().any(|range| range.contains(slot)));
        let time = grid.time_of(slot);
        if !asked {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the repair brought {what} for {key} at {time}, which was not asked for; nothing of it was kept"),
            ));
        }
        if !seen.insert((key.clone(), slot)) {
            return Err(Error::new(ErrorKind::Invalid, format!("the repair brought {key} at {time} twice; nothing of it was kept")));
        }
        Ok(())
    };
    for batch in &fix.rows {
        let keys = key_columns(table, batch)?;
        let times = column(batch, &table.time)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::invalid(format!("the repair's column `{}` is not an instant in microseconds", table.time)))?;
        for row in 0..batch.num_rows() {
            if times.is_null(row) {
                return Err(Error::invalid("the repair brought a row without a time"));
            }
            let key = Key::new(keys.iter().map(|column| column.value(row)));
            check(key, grid.slot_of_seconds(times.value(row).div_euclid(1_000_000)), "a row")?;
        }
    }
    for absence in &fix.absent {
        for slot in absence.slots.first..absence.slots.end {
            check(absence.key.clone(), slot, "an absence")?;
        }
    }
    Ok(())
}
