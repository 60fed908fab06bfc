//! Performs one unit of a repair: calls its repairer, checks the result, and stages it. Runs and comparisons share this code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use tokio::sync::OnceCell;

use crate::engine::aside;
use crate::engine::cells;
use crate::engine::rate::RateLimiter;
use crate::error::{Error, Result};
use crate::lake::overlay::Op;
use crate::lake::overlay::aside::Asides;
use crate::lake::overlay::base::BaseRows;
use crate::lake::overlay::fingerprint::of_hashes;
use crate::lake::rollup::{column, key_columns};
use crate::lake::shape::KeyTime;
use crate::lake::{StageRequest, StageScope, Staged};
use crate::model::{Absence, DefectKind, Findings, Fingerprints, Fix, Key, SlotRange, Table, Unit, Wanted};
use crate::plugin::{Repairer, StepContext};
use crate::workflow::Rate;

/// How many units are published at once at most, which bounds memory and the size of the staging area.
pub const PUBLISH_UNITS: usize = 4_096;

/// Once units with so many rows and absent slots are staged, they are published, however few they are.
pub const PUBLISH_ROWS: u64 = 1 << 18;

/// The source of a unit for which nothing was asked, because all of its slots are set aside.
const SET_ASIDE: &str = "set aside";

/// Performs the units of one strategy. Cheap to clone.
#[derive(Clone)]
pub struct UnitWork {
    /// The context that the repairer gets.
    pub context: StepContext,
    /// The repairer.
    pub repairer: Arc<dyn Repairer>,
    /// The findings to repair.
    pub findings: Arc<Findings>,
    /// Whether its rows fill slots or replace rows.
    op: Op,
    /// The table being repaired.
    pub table: Arc<Table>,
    /// The strategy's name.
    pub strategy: Arc<str>,
    limiter: Option<Arc<RateLimiter>>,
    /// The rows whose cells are repaired, read once.
    base: Arc<OnceCell<BaseRows>>,
    /// What people have set aside, read once.
    asides: Arc<OnceCell<Asides>>,
}

impl UnitWork {
    /// Prepares to repair findings with a strategy.
    ///
    /// # Errors
    /// `invalid` if rows cannot repair this kind of defect, or if the workflow does not have the table.
    pub fn new(
        context: StepContext,
        repairer: Arc<dyn Repairer>,
        findings: Arc<Findings>,
        strategy: Arc<str>,
        rate_limit: Option<Rate>,
    ) -> Result<Self> {
        let op = Op::repairing(findings.kind).ok_or_else(|| {
            let kind = findings.kind.as_str();
            Error::invalid(format!("a repair step cannot repair {kind} slots; use an aggregate step, which computes them again"))
        })?;
        let table = Arc::new(context.table(&findings.scope.table)?.clone());
        if op == Op::Replace {
            table.check_replaceable("a repair that replaces the rows of a slot by one")?;
        }
        let limiter = rate_limit.map(|rate| Arc::new(RateLimiter::new(rate, context.clock.clone())));
        Ok(Self { context, repairer, findings, op, table, strategy, limiter, base: Arc::default(), asides: Arc::default() })
    }

    /// The staging area of its units.
    pub fn scope(&self) -> StageScope<'_> {
        StageScope { run: &self.context.run, step: &self.context.step, visit: self.context.visit, table: &self.table }
    }

    /// The id of a unit, which follows from its content and not from its index.
    pub fn id(&self, unit: &Unit) -> String {
        unit.id(&self.table.name, &self.strategy)
    }

    /// Performs a unit within the rate limit, and stages the result. Sets `asked` before anything may have been requested.
    ///
    /// Slots that people have set aside by the time the first unit starts are left out, and no row for them reaches the lake.
    ///
    /// # Errors
    /// Those of the repairer and the lake; `invalid` if the repairer returned something that was not requested.
    pub async fn perform(&self, unit: &Unit, asked: &AtomicBool) -> Result<Staged> {
        let context = &self.context;
        // The id is that of the work as it was planned.
        let id = self.id(unit);
        let asides = self.asides.get_or_try_init(|| Asides::read(context.lake.as_ref(), &self.table)).await?;
        let (narrowed, decided) = aside::narrowed(unit, &asides.on(self.table.identity().grid()));
        if let Some(decided) = decided {
            let (slots, why) = (unit.slots() - narrowed.slots(), decided.in_words());
            tracing::warn!(step = &*context.step, table = self.table.name, slots, why, "slots are set aside, so they are not repaired");
        }
        let unit = &narrowed;
        if unit.wanted.is_empty() {
            let fix = Fix { source: SET_ASIDE.to_owned(), ..Fix::default() };
            return context.lake.stage(&self.scope(), &StageRequest::new(&id, &self.strategy, context.clock.now(), &fix)).await;
        }
        if let Some(limiter) = &self.limiter {
            limiter.acquire().await;
        }
        context.check_cancelled()?;
        asked.store(true, Ordering::Relaxed);
        let mut fix = self.repairer.repair(context, &self.findings, unit).await?;
        check_fix(&self.table, unit, &fix)?;
        aside::check(&self.table, &fix, asides)?;
        leave_deleted(&self.table, &self.findings, &mut fix)?;
        let patches = cells::taken_out((context.lake.as_ref(), &self.table), &self.findings, &self.base, unit, &mut fix).await?;
        let replaces = (self.op == Op::Replace).then(|| judged_of(&self.table, &self.findings, unit));
        let removed = if replaces.is_some() { removed(&self.table, &self.findings, &mut fix) } else { Vec::new() };
        let request = StageRequest::new(&id, &self.strategy, context.clock.now(), &fix);
        let request = request.replacing(replaces.as_ref()).patching(&patches).removing(&removed);
        context.lake.stage(&self.scope(), &request).await
    }
}

/// The fingerprints of the rows that were judged in the slots of a unit. Where the key alone identifies a row, a row that differs from a source may be
/// one that the table does not have: it fills, so a version that the table gets later counts.
fn judged_of(table: &Table, findings: &Findings, unit: &Unit) -> Fingerprints {
    let mut judged = Fingerprints::default();
    let fills = table.identity().lookback_us().is_some() && findings.kind == DefectKind::Different;
    let nothing = of_hashes(&mut []);
    for Wanted { key, slots } in &unit.wanted {
        for &slots in slots {
            judged.extend_from(&findings.judged, key, slots);
            let is_nothing = |slot: &i64| fills && findings.judged.get(key, *slot) == Some(nothing);
            (slots.first..slots.end).filter(is_nothing).for_each(|slot| judged.insert_nothing(key, slot));
        }
    }
    judged
}

/// A slot whose row is to be removed can only be removed: a row for it contradicts what was found, and is reported as a conflict.
fn leave_deleted(table: &Table, findings: &Findings, fix: &mut Fix) -> Result<()> {
    if findings.deleted.is_empty() {
        return Ok(());
    }
    let identity = table.identity();
    for batch in &mut fix.rows {
        let rows = KeyTime::of(table, batch)?;
        let mut keep = vec![true; batch.num_rows()];
        for (row, keep) in keep.iter_mut().enumerate() {
            let (key, slot) = (rows.key(row), identity.slot(rows.times.value(row)));
            *keep = !findings.deleted.contains(&key, slot);
            if !*keep {
                let (time, source) = (identity.grid().time_of(slot), &fix.source);
                fix.conflicts.add(format!("{key} at {time}: the row was found to be deleted at its source, but `{source}` has one"));
            }
        }
        if keep.contains(&false) {
            *batch = filter_record_batch(batch, &BooleanArray::from(keep))?;
        }
    }
    fix.rows.retain(|batch| batch.num_rows() > 0);
    Ok(())
}

/// Takes the absences out of a fix, and returns those of slots whose rows are to be removed. If the source has no row where the table has a
/// wrong one, the slot is not absent, since readers would still see the table's row. So any other absence is recorded as a conflict, and the
/// slot stays as it is.
fn removed(table: &Table, findings: &Findings, fix: &mut Fix) -> Vec<Absence> {
    let grid = table.identity().grid();
    let mut removed: Vec<Absence> = Vec::new();
    for absence in std::mem::take(&mut fix.absent) {
        for slot in absence.slots.first..absence.slots.end {
            let (key, time) = (&absence.key, grid.time_of(slot));
            if findings.deleted.contains(key, slot) {
                match removed.last_mut() {
                    Some(last) if last.key == *key && last.slots.end == slot && last.answer == absence.answer => last.slots.end = slot + 1,
                    _ => removed.push(Absence { slots: SlotRange::new(slot, slot + 1), ..absence.clone() }),
                }
                continue;
            }
            fix.conflicts.add(format!("{key} at {time}: the table has a row, but `{}` answers: {}", absence.source, absence.answer));
        }
    }
    removed
}

/// Checks that a fix covers only wanted slots, each once, so that a faulty plug-in writes nothing else to the lake.
fn check_fix(table: &Table, unit: &Unit, fix: &Fix) -> Result<()> {
    let identity = table.identity();
    let grid = identity.grid();
    let wanted: BTreeMap<&Key, Vec<SlotRange>> = unit.wanted.iter().map(|wanted| (&wanted.key, in_order(&wanted.slots))).collect();
    let mut seen: BTreeMap<Key, Vec<i64>> = BTreeMap::new();
    let mut check = |key: Key, slots: &mut dyn Iterator<Item = i64>, what: &str| {
        let ranges = wanted.get(&key).map(Vec::as_slice).unwrap_or_default();
        let mut all = Vec::new();
        for slot in slots {
            let asked = match identity.lookback_us() {
                None => {
                    let at = ranges.partition_point(|range| range.end <= slot);
                    ranges.get(at).filter(|range| range.contains(slot)).map(|_| slot)
                }
                // The row that stands for all versions may have another time than the one that was found.
                Some(_) => identity.same_as(slot, ranges.iter().flat_map(|range| range.first..range.end)),
            };
            let Some(asked) = asked else {
                let time = grid.time_of(slot);
                return Err(Error::invalid(format!(
                    "the repairer returned {what} for {key} at {time}, which was not requested; the unit was discarded"
                )));
            };
            all.push(asked);
        }
        seen.entry(key).or_default().append(&mut all);
        Ok(())
    };
    for batch in &fix.rows {
        let keys = key_columns(table, batch)?;
        let times = column(batch, &table.time)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| {
            Error::invalid(format!("the repairer returned a column `{}` that is not a timestamp in microseconds", table.time))
        })?;
        if times.null_count() > 0 {
            return Err(Error::invalid("the repairer returned a row without a time"));
        }
        let rows = KeyTime { keys, times };
        for run in rows.runs() {
            check(rows.key(run.start), &mut run.map(|row| identity.slot(times.value(row))), "a row")?;
        }
    }
    for absence in &fix.absent {
        check(absence.key.clone(), &mut (absence.slots.first..absence.slots.end), "an absence")?;
    }
    for (key, mut slots) in seen {
        slots.sort_unstable();
        if let Some(twice) = slots.windows(2).find(|pair| pair[0] == pair[1]) {
            let time = grid.time_of(twice[0]);
            return Err(Error::invalid(format!("the repairer returned {key} at {time} twice; the unit was discarded")));
        }
    }
    Ok(())
}

/// Ranges in order, none of which touches another.
fn in_order(ranges: &[SlotRange]) -> Vec<SlotRange> {
    let mut sorted: Vec<SlotRange> = ranges.iter().copied().filter(|range| !range.is_empty()).collect();
    sorted.sort_unstable_by_key(|range| range.first);
    let mut joined: Vec<SlotRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.first <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
