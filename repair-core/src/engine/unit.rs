//! Performs one unit of a repair: asks its repairer, checks what came back, and stages it. Runs and comparisons do it in the same way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use crate::engine::rate::RateLimiter;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::overlay::Op;
use crate::lake::rollup::{column, key_columns};
use crate::lake::{StageRequest, StageScope, Staged};
use crate::model::{Findings, Fingerprints, Fix, Key, SlotRange, Table, Unit};
use crate::plugin::{Repairer, StepContext};
use crate::workflow::Rate;

/// At most so many units are merged into one publication, which bounds the memory that takes, and how much is staged.
pub const PUBLISH_UNITS: usize = 4_096;

/// What the units of one strategy are performed with. Cheap to clone.
#[derive(Clone)]
pub struct UnitWork {
    /// What the repairer is called with.
    pub context: StepContext,
    /// The repairer.
    pub repairer: Arc<dyn Repairer>,
    /// What was found.
    pub findings: Arc<Findings>,
    /// What the rows do.
    op: Op,
    /// The table that is repaired.
    pub table: Arc<Table>,
    /// The strategy's name.
    pub strategy: Arc<str>,
    limiter: Option<Arc<RateLimiter>>,
}

impl UnitWork {
    /// Gets ready to repair what was found.
    ///
    /// # Errors
    /// `invalid` if it is of a kind that no rows repair, or of a table that the workflow does not have.
    pub fn new(
        context: StepContext,
        repairer: Arc<dyn Repairer>,
        findings: Arc<Findings>,
        strategy: Arc<str>,
        rate_limit: Option<Rate>,
    ) -> Result<Self> {
        let op = Op::repairing(findings.kind).ok_or_else(|| {
            let kind = findings.kind.as_str();
            Error::invalid(format!("no rows repair what is {kind}: an aggregate step computes that again"))
        })?;
        let table = Arc::new(context.table(&findings.scope.table)?.clone());
        let limiter = rate_limit.map(|rate| Arc::new(RateLimiter::new(rate, context.clock.clone())));
        Ok(Self { context, repairer, findings, op, table, strategy, limiter })
    }

    /// Where its units are staged.
    pub fn scope(&self) -> StageScope<'_> {
        StageScope { run: &self.context.run, step: &self.context.step, visit: self.context.visit, table: &self.table }
    }

    /// The id of a unit: what it is, not where it stands.
    pub fn id(&self, unit: &Unit) -> String {
        unit.id(&self.table.name, &self.strategy)
    }

    /// Performs a unit, within the rate, and stages what came of it. `asked` is set once anything may have been asked for.
    ///
    /// # Errors
    /// Those of the repairer and the lake; `invalid` if the repairer brought what was not asked for.
    pub async fn perform(&self, unit: &Unit, asked: &AtomicBool) -> Result<Staged> {
        let context = &self.context;
        if let Some(limiter) = &self.limiter {
            limiter.acquire().await;
        }
        context.check_cancelled()?;
        asked.store(true, Ordering::Relaxed);
        let mut fix = self.repairer.repair(context, &self.findings, unit).await?;
        check_fix(&self.table, unit, &fix)?;
        let replaces = (self.op == Op::Replace).then(|| judged_of(&self.findings, unit));
        if replaces.is_some() {
            refuse_absences(&self.table, &mut fix)?;
        }
        let id = self.id(unit);
        let request =
            StageRequest { unit: &id, strategy: &self.strategy, repaired_at: context.clock.now(), fix: &fix, replaces: replaces.as_ref() };
        context.lake.stage(&self.scope(), &request).await
    }
}

/// Which rows were judged of the slots that a unit is to repair.
fn judged_of(findings: &Findings, unit: &Unit) -> Fingerprints {
    let mut judged = Fingerprints::default();
    for wanted in &unit.wanted {
        wanted.slots.iter().for_each(|&slots| judged.extend_from(&findings.judged, &wanted.key, slots));
    }
    judged
}

/// That a source knows no row where the table has a wrong one does not make the slot absent: the table's row would still be seen. It is told
/// as a conflict, and the slot stays as it is.
fn refuse_absences(table: &Table, fix: &mut Fix) -> Result<()> {
    let grid = table.grid()?;
    for absence in std::mem::take(&mut fix.absent) {
        for slot in absence.slots.first..absence.slots.end {
            let (key, time) = (&absence.key, grid.time_of(slot));
            fix.conflicts.add(format!("{key} at {time}: the table has a row, and `{}` says: {}", absence.source, absence.answer));
        }
    }
    Ok(())
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
