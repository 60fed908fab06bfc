//! The repairer `carry-forward`: repeats the last row before a gap, for a while. Crates for one kind of row use [`CarryForward`] with a
//! rule that defines what a repeated row looks like.
//!
//! A value that is repeated for ever is a constant that nobody measured, so there is always a limit, and every row names the strategy that
//! made it.

use std::fmt;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::error::Result;
use crate::model::Usage;
use crate::model::{Findings, Fix, Key, SlotGrid, SlotRange, Unit};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

/// By default, how long the last row is repeated.
pub(super) const MAX_AGE: Period = Period::minutes(10);

/// The configuration, `with`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CarryForwardConfig {
    /// How long the last row is repeated; 10m by default. Later slots stay missing.
    #[serde(default)]
    pub max_age: Option<Period>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer("carry-forward", "repeats the last row before a gap, for a while", |config: CarryForwardConfig| {
        Ok(CarryForward::new(&config, "carry-forward", Box::new(AsItIs)))
    });
    registry.needs_one_row(PluginKind::Repairer, "carry-forward");
}

/// Defines what a repeated row looks like.
pub trait CarryRule: Send + Sync {
    /// For each row, whether it can be repeated.
    ///
    /// # Errors
    /// `invalid` if a column is missing.
    fn usable(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        Ok(BooleanArray::from(vec![true; rows.num_rows()]))
    }

    /// Adjusts repeated rows, which are copies of the last row with another time.
    ///
    /// # Errors
    /// `invalid` if a column is missing.
    fn repeated(&self, rows: RecordBatch) -> Result<RecordBatch>;
}

/// Repeats all values unchanged.
struct AsItIs;

impl CarryRule for AsItIs {
    fn repeated(&self, rows: RecordBatch) -> Result<RecordBatch> {
        Ok(rows)
    }
}

/// Repeats the table's last own row before a gap, for at most `max_age`. It never repeats a repair (which could go on for ever), a row that
/// was found to be wrong or is replaced, or any row into the future. Where only cells are wrong, it repeats the last row that has all of
/// them right.
pub struct CarryForward {
    max_age: Period,
    name: &'static str,
    rule: Box<dyn CarryRule>,
}

impl fmt::Debug for CarryForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarryForward").field("name", &self.name).field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

impl CarryForward {
    /// Creates the repairer from its configuration. `name` becomes the source of its rows.
    pub fn new(config: &CarryForwardConfig, name: &'static str, rule: Box<dyn CarryRule>) -> Self {
        Self { max_age: config.max_age.unwrap_or(MAX_AGE), name, rule }
    }

    /// How many slots after a row repeat it.
    fn reach_slots(&self, grid: SlotGrid, near: i64) -> i64 {
        grid.slots_of(self.max_age.seconds(), near)
    }
}

#[async_trait]
impl Repairer for CarryForward {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    /// A unit is a day of all keys, up to a limit.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        context.table(&findings.scope.table)?.check_one_row(&format!("`{}`", self.name))?;
        let grid = findings.scope.grid;
        let over = by_day::slots_over(grid, context.clock.now());
        let within_reach = findings.gaps.iter().map(|(key, gap)| {
            // Only the start of a gap is within reach, because the last row can be no later than the slot before it. Where only cells are
            // wrong, those of different columns may make a long gap together.
            let reach = if findings.cells.is_empty() { self.reach_slots(grid, gap.first) } else { i64::MAX };
            let reached = gap.first.saturating_add(reach);
            (key, SlotRange::new(gap.first, gap.end.min(over).min(reached)))
        });
        Ok(by_day::units(grid, within_reach))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let asked = grid.slots_in(&unit.interval);
        let before = SlotRange::new(asked.first.saturating_sub(self.reach_slots(grid, asked.first)), asked.end);
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let mut fix = Fix { source: self.name.to_owned(), ..Fix::default() };
        let Some(rows) = by_day::raw_rows(context.lake.as_ref(), table, grid, before, keys).await? else { return Ok(fix) };
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let usable = self.rule.usable(&rows)?;
        let by_slot = by_day::by_slot(table, grid, &rows, |_, _, row| usable.is_valid(row) && usable.value(row))?;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for wanted in &unit.wanted {
            let Some(known) = by_slot.get(&wanted.key) else { continue };
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let reach = slot.saturating_sub(self.reach_slots(grid, slot));
                let serves = |&(&last, &row): &(&i64, &u32)| by_day::serves(findings, (&wanted.key, slot), (last, row as usize), &rows);
                if let Some((_, &row)) = known.range(reach..slot).rev().find(serves) {
                    from.push(row);
                    to.push(by_day::time_us(grid, slot));
                }
            }
        }
        if !from.is_empty() {
            let repeated = take_record_batch(&rows, &UInt32Array::from(from))?;
            fix.rows.push(self.rule.repeated(by_day::with_times(table, &repeated, to)?)?);
        }
        Ok(fix)
    }
}
