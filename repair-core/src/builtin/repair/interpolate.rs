//! The repairer `interpolate`: a straight line, in time, from the last row before a gap to the first row after it.
//!
//! It estimates values that change slowly, without a source. Bars stay valid: if `low ≤ open` holds at both ends, it holds on the line
//! between them, and so does every such pair of columns ([`line`] explains how this survives rounding). An interpolated volume assumes that
//! trading continued as around the gap; if you believe nothing traded, use `stocks.carry-forward`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{filter_record_batch, nullif, take_record_batch};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::builtin::repair::line;
use crate::builtin::repair::line::Weight;
use crate::error::{Error, Result};
use crate::lake::{rollup, shape};
use crate::model::Usage;
use crate::model::{Findings, Fix, Key, SlotGrid, SlotRange, Table, Unit};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

const NAME: &str = "interpolate";

/// By default, the longest gap that a line bridges, in slots.
pub(super) const MAX_GAP_SLOTS: i64 = 10;

/// The configuration, `with`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterpolateConfig {
    /// The longest gap that a line bridges; 10 slots by default. A longer gap stays missing as a whole.
    #[serde(default)]
    pub max_gap: Option<Period>,
    /// The columns to interpolate; all numeric columns by default. Other numeric columns are null.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "draws a straight line between the rows before and after a gap", Interpolate::new);
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// Draws a straight line, in time, between the table's own rows before and after a gap.
///
/// - Both ends are rows of the table itself, never repairs, and never rows of slots that were found to be wrong.
/// - A gap is everything between two such rows. It stays missing if it is longer than `max_gap`, or has no row on one side. So does a slot
///   that has not ended.
/// - Where a column is null (or not a finite number) at one end, its line is null. A row in which all of them are null is not used as an
///   end.
/// - Integers and decimals are rounded half up from the exact value. Columns of other types keep their value if both ends have the same,
///   and are null otherwise.
#[derive(Debug)]
pub struct Interpolate {
    config: InterpolateConfig,
}

impl Interpolate {
    /// Creates the repairer from its configuration.
    ///
    /// # Errors
    /// `invalid` if `columns` is empty.
    pub fn new(config: InterpolateConfig) -> Result<Self> {
        if config.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(
                "`columns` is empty, so nothing would be interpolated; list columns, or leave it out for all numeric columns",
            ));
        }
        Ok(Self { config })
    }

    /// The longest gap, in slots.
    fn max_gap_slots(&self, grid: SlotGrid, near: i64) -> i64 {
        self.config.max_gap.map_or(MAX_GAP_SLOTS, |gap| grid.slots_of(gap.seconds(), near))
    }

    /// The columns to interpolate.
    fn columns(&self, table: &Table, schema: &Schema) -> Result<Vec<String>> {
        let own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
        let numbers: Vec<&Field> =
            schema.fields().iter().map(AsRef::as_ref).filter(|field| !own(field.name()) && line::is_number(field.data_type())).collect();
        let Some(columns) = &self.config.columns else {
            return if numbers.is_empty() {
                Err(Error::invalid(format!("table `{}` has no numeric column to interpolate; {}", table.name, shape::names(schema))))
            } else {
                Ok(numbers.iter().map(|field| field.name().clone()).collect())
            };
        };
        let find = |name: &String| {
            let field = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?;
            let number = field.and_then(|field| numbers.iter().find(|number| number.name() == field.name()));
            number.map(|number| number.name().clone()).ok_or_else(|| {
                Error::invalid(format!(
                    "`columns` lists `{name}`, which is not a numeric column of table `{}`; its numeric columns are {}",
                    table.name,
                    numbers.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
                ))
            })
        };
        columns.iter().map(find).collect()
    }
}

#[async_trait]
impl Repairer for Interpolate {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    /// A unit is a day of all keys, up to a limit. Gaps that are too long by themselves are left out.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let table = context.table(&findings.scope.table)?;
        table.check_one_row("`interpolate`")?;
        self.columns(table, context.lake.describe(table).await?.as_ref())?;
        let grid = findings.scope.grid;
        let over = by_day::slots_over(grid, context.clock.now());
        let longest = |gap: &SlotRange| u64::try_from(self.max_gap_slots(grid, gap.first)).unwrap_or(0);
        let gaps = findings.gaps.iter().filter(|(_, gap)| gap.len() <= longest(gap));
        Ok(by_day::units(grid, gaps.map(|(key, gap)| (key, SlotRange::new(gap.first, gap.end.min(over))))))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        context.check_cancelled()?;
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let asked = grid.slots_in(&unit.interval);
        let longest = self.max_gap_slots(grid, asked.first);
        let slots = SlotRange::new(asked.first.saturating_sub(longest), asked.end.saturating_add(longest));
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let Some(rows) = by_day::raw_rows(context.lake.as_ref(), table, grid, slots, keys).await? else { return Ok(fix) };
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let columns = self.columns(table, rows.schema_ref())?;
        let ends = finite(&rows, &columns)?;
        let known = by_day::by_slot(table, grid, &rows, |key, slot, row| ends.value(row) && !findings.gaps.contains(key, slot))?;
        // Slots may differ in length.
        let time_s = |slot: i64| grid.time_of_seconds(slot);
        let mut drawn = Drawn::default();
        for wanted in &unit.wanted {
            let Some(known) = known.get(&wanted.key) else { continue };
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let (before, after) = (known.range(..slot).next_back(), known.range(slot + 1..).next());
                if let (Some((&from, &before)), Some((&to, &after))) = (before, after)
                    && to - from - 1 <= longest
                {
                    drawn.push(
                        before,
                        after,
                        Weight { part: time_s(slot) - time_s(from), whole: time_s(to) - time_s(from) },
                        by_day::time_us(grid, slot),
                    );
                }
            }
        }
        if !drawn.before.is_empty() {
            fix.rows.push(drawn.rows(table, &rows, &columns)?);
        }
        Ok(fix)
    }
}

/// The rows in which at least one of the columns holds a finite number.
fn finite(rows: &RecordBatch, columns: &[String]) -> Result<BooleanArray> {
    let mut finite = vec![false; rows.num_rows()];
    for name in columns {
        let there = line::finite(rollup::column(rows, name)?)?;
        finite.iter_mut().zip(there.iter()).for_each(|(finite, there)| *finite |= there == Some(true));
    }
    Ok(finite.into())
}

/// Points on lines between rows.
#[derive(Default)]
struct Drawn {
    before: Vec<u32>,
    after: Vec<u32>,
    weights: Vec<Weight>,
    times_us: Vec<i64>,
}

impl Drawn {
    fn push(&mut self, before: u32, after: u32, weight: Weight, time_us: i64) {
        self.before.push(before);
        self.after.push(after);
        self.weights.push(weight);
        self.times_us.push(time_us);
    }

    fn rows(self, table: &Table, rows: &RecordBatch, columns: &[String]) -> Result<RecordBatch> {
        let before = take_record_batch(rows, &UInt32Array::from(self.before))?;
        let after = take_record_batch(rows, &UInt32Array::from(self.after))?;
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(rows.num_columns());
        let mut values: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
        for ((field, before), after) in rows.schema_ref().fields().iter().zip(before.columns()).zip(after.columns()) {
            let name = field.name();
            if *name == table.time {
                fields.push(field.clone());
                values.push(by_day::time_column(self.times_us.clone()));
                continue;
            }
            if table.key.contains(name) {
                fields.push(field.clone());
                values.push(before.clone());
                continue;
            }
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            values.push(if columns.contains(name) {
                line::between(before, after, &self.weights)?
            } else if line::is_number(field.data_type()) {
                new_null_array(field.data_type(), before.len())
            } else {
                // Values that cannot be compared count as different.
                match distinct(before, after) {
                    Ok(differ) => nullif(before, &differ)?,
                    Err(_) => new_null_array(field.data_type(), before.len()),
                }
            });
        }
        let drawn = RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?;
        let known = finite(&drawn, columns)?;
        Ok(filter_record_batch(&drawn, &known)?)
    }
}
