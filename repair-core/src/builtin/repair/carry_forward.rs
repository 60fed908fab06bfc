//! The repairers `carry-forward` and `carry-backward`: repeat the last row before a gap, or the first after it, for a while. Crates for one kind of row use [`CarryForward`] with a
//! rule that defines what a repeated row looks like.
//!
//! A value that is repeated for ever is a constant that nobody measured, so there is always a limit, and every row names the strategy that
//! made it.

use std::fmt;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Field;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::error::Result;
use crate::model::Usage;
use crate::model::{Findings, Fix, Key, SlotGrid, SlotRange, Unit};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

/// By default, for how many slots a row is repeated.
pub(super) const MAX_AGE_SLOTS: i64 = 10;

/// Which row is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The last one before a gap.
    Before,
    /// The first one after it.
    After,
}

/// The configuration, `with`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CarryForwardConfig {
    /// How long a row is repeated; 10 slots by default. Slots further away stay missing.
    #[serde(default)]
    pub max_age: Option<Period>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer("carry-forward", "repeats the last row before a gap, for a while", |config: CarryForwardConfig| {
        Ok(CarryForward::new(&config, "carry-forward", Box::new(AsItIs)))
    });
    registry.needs_one_row(PluginKind::Repairer, "carry-forward");
    registry.repairer("carry-backward", "repeats the first row after a gap, for a while before it", |config: CarryForwardConfig| {
        Ok(CarryForward { side: Side::After, ..CarryForward::new(&config, "carry-backward", Box::new(AsItIs)) })
    });
    registry.needs_one_row(PluginKind::Repairer, "carry-backward");
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

    /// Whether the values of a column are repeated. If a repair changes such a value of a row, the table's own is known to be wrong, and the row is not
    /// repeated.
    fn copies(&self, _column: &Field) -> bool {
        true
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
/// was found to be wrong or is replaced, one of which a repair changes cells, one without any value, or any row into the future: then it looks for
/// one further away. Where only cells are wrong, it repeats the last row that has all of
/// them right. `carry-backward` does the same with the first row after a gap.
pub struct CarryForward {
    max_age: Option<Period>,
    side: Side,
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
        Self { max_age: config.max_age, side: Side::Before, name, rule }
    }

    /// How many slots after a row repeat it.
    fn reach_slots(&self, grid: SlotGrid, near: i64) -> i64 {
        self.max_age.map_or(MAX_AGE_SLOTS, |age| grid.slots_of(age.seconds(), near))
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
            // Only one end of a gap is within reach, because the row is outside of it. Where only cells are wrong, those of different columns may make
            // a long gap together.
            let reach = if findings.cells.is_empty() { self.reach_slots(grid, gap.first) } else { i64::MAX };
            let reached = match self.side {
                Side::Before => SlotRange::new(gap.first, gap.end.min(gap.first.saturating_add(reach))),
                Side::After => SlotRange::new(gap.first.max(gap.end.saturating_sub(reach)), gap.end),
            };
            (key, SlotRange::new(reached.first, reached.end.min(over)))
        });
        Ok(by_day::units(grid, within_reach))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let asked = grid.slots_in(&unit.interval);
        let reach = self.reach_slots(grid, asked.first);
        let around = match self.side {
            Side::Before => SlotRange::new(asked.first.saturating_sub(reach), asked.end),
            Side::After => SlotRange::new(asked.first, asked.end.saturating_add(reach)),
        };
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let mut fix = Fix { source: self.name.to_owned(), ..Fix::default() };
        let Some(own) = by_day::raw_rows(context.lake.as_ref(), table, grid, around, keys).await? else { return Ok(fix) };
        let rows = &own.rows;
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let usable = self.rule.usable(rows)?;
        let copyable = own.copyable(table, |column| self.rule.copies(column))?;
        let by_slot = by_day::by_slot(table, grid, rows, |_, _, row| usable.is_valid(row) && usable.value(row))?;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for wanted in &unit.wanted {
            let Some(known) = by_slot.get(&wanted.key) else { continue };
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let reach = self.reach_slots(grid, slot);
                let serves =
                    |&(&last, &row): &(&i64, &u32)| by_day::serves(findings, (&wanted.key, slot), (last, row as usize), (&own, &copyable));
                let nearest = match self.side {
                    Side::Before => known.range(slot.saturating_sub(reach)..slot).rev().find(serves),
                    Side::After => known.range(slot + 1..slot.saturating_add(reach).saturating_add(1)).find(serves),
                };
                if let Some((_, &row)) = nearest {
                    from.push(row);
                    to.push(by_day::time_us(grid, slot));
                }
            }
        }
        if !from.is_empty() {
            let repeated = take_record_batch(rows, &UInt32Array::from(from))?;
            fix.rows.push(self.rule.repeated(by_day::with_times(table, &repeated, to)?)?);
        }
        Ok(fix)
    }
}
