//! The repairer `interpolate`: a straight line, in time, from the last row before a gap to the first row after it.
//!
//! It estimates values that change slowly, without a source. Bars stay valid: if `low ≤ open` holds at both ends, it holds on the line
//! between them, and so does every such pair of columns ([`line`] explains how this survives rounding). An interpolated volume assumes that
//! trading continued as around the gap; if you believe nothing traded, use `stocks.carry-forward`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{filter_record_batch, nullif, take, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::builtin::repair::line;
use crate::builtin::repair::line::Weight;
use crate::error::{Error, Result};
use crate::lake::rollup;
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
/// - Both ends are values of the table itself, never repairs, and never values that were found to be wrong.
/// - Each column has ends of its own: the nearest finite numbers on both sides. A column stays as it is if the gap between them is longer than
///   `max_gap`, or has no number on one side. A slot stays as it is if that is so for all columns, or if it has not ended.
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
        line::chosen_columns(table, schema, self.config.columns.as_deref(), "interpolate")
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
        // Wrong cells of different columns may make a long gap together.
        let gaps = findings.gaps.iter().filter(|(_, gap)| !findings.cells.is_empty() || gap.len() <= longest(gap));
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
        let Some(own) = by_day::raw_rows(context.lake.as_ref(), table, grid, slots, keys).await? else { return Ok(fix) };
        let rows = &own.rows;
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let columns = self.columns(table, rows.schema_ref())?;
        let numbers = columns.iter().map(|name| line::finite(rollup::column(rows, name)?)).collect::<Result<Vec<_>>>()?;
        let others: Vec<&String> = texts(table, rows.schema_ref()).collect();
        let known = by_day::by_slot(table, grid, rows, |key, slot, _| !findings.is_of_wrong_whole_rows(key, slot))?;
        // Slots may differ in length.
        let time_s = |slot: i64| grid.time_of_seconds(slot);
        let mut drawn = Drawn::new(columns.len(), others.len());
        for wanted in &unit.wanted {
            let Some(known) = known.get(&wanted.key) else { continue };
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let (before, after) = (slot.saturating_sub(longest)..slot, slot + 1..slot.saturating_add(longest).saturating_add(1));
                // The rows beside the gap, whether or not they have a number.
                let (Some((first, &from)), Some((last, &to))) =
                    (known.range(before.clone()).next_back(), known.range(after.clone()).next())
                else {
                    continue;
                };
                let lines = columns.iter().zip(&numbers).map(|(name, numbers)| {
                    let usable =
                        |&(&at, &row): &(&i64, &u32)| numbers.value(row as usize) && !findings.is_of_wrong_values(&wanted.key, at, name);
                    let (from, before) = known.range(before.clone()).rev().find(usable)?;
                    let (to, after) = known.range(after.clone()).find(usable)?;
                    let weight = Weight { part: time_s(slot) - time_s(*from), whole: time_s(*to) - time_s(*from) };
                    (to - from - 1 <= longest).then_some((*before, *after, weight))
                });
                let is_right = |name: &&String| ![first, last].into_iter().any(|&at| findings.is_of_wrong_values(&wanted.key, at, name));
                let right = others.iter().map(is_right).collect();
                drawn.push((from, to), by_day::time_us(grid, slot), lines.collect(), right);
            }
        }
        if !drawn.times_us.is_empty() {
            fix.rows.push(drawn.rows(table, rows, &columns)?);
        }
        Ok(fix)
    }
}

/// The columns that are neither key nor time, and hold no numbers.
fn texts<'a>(table: &'a Table, schema: &'a Schema) -> impl Iterator<Item = &'a String> {
    let is_text =
        |field: &&Arc<Field>| *field.name() != table.time && !table.key.contains(field.name()) && !line::is_number(field.data_type());
    schema.fields().iter().filter(is_text).map(|field| field.name())
}

/// Whether the values of two columns differ. Lists and records are the same if all within them is.
fn differ(one: &ArrayRef, other: &ArrayRef) -> Result<BooleanArray> {
    if !one.data_type().is_nested() {
        return Ok(distinct(one, other)?);
    }
    let converter = RowConverter::new(vec![SortField::new(one.data_type().clone())])?;
    let [one, other] = [one, other].map(|column| converter.convert_columns(std::slice::from_ref(column)));
    Ok(one?.iter().zip(other?.iter()).map(|(one, other)| Some(one != other)).collect())
}

/// A line: the rows of its ends, and where on it a point is.
type Line = (u32, u32, Weight);

/// Points on lines between rows.
struct Drawn {
    /// The nearest rows on both sides.
    before: Vec<u32>,
    after: Vec<u32>,
    times_us: Vec<i64>,
    /// For each column, the line of each point.
    lines: Vec<Vec<Option<Line>>>,
    /// For each column that is not numeric, whether the rows on both sides have a value there that was not found wrong.
    right: Vec<Vec<bool>>,
}

impl Drawn {
    fn new(columns: usize, others: usize) -> Self {
        let (lines, right) = (vec![Vec::new(); columns], vec![Vec::new(); others]);
        Self { before: Vec::new(), after: Vec::new(), times_us: Vec::new(), lines, right }
    }

    /// Adds a point, unless no column has a line there.
    fn push(&mut self, (before, after): (u32, u32), time_us: i64, lines: Vec<Option<Line>>, right: Vec<bool>) {
        if lines.iter().all(Option::is_none) {
            return;
        }
        self.before.push(before);
        self.after.push(after);
        self.times_us.push(time_us);
        self.lines.iter_mut().zip(lines).for_each(|(of_column, line)| of_column.push(line));
        self.right.iter_mut().zip(right).for_each(|(of_column, right)| of_column.push(right));
    }

    fn rows(self, table: &Table, rows: &RecordBatch, columns: &[String]) -> Result<RecordBatch> {
        let before = take_record_batch(rows, &UInt32Array::from(self.before))?;
        let after = take_record_batch(rows, &UInt32Array::from(self.after))?;
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(rows.num_columns());
        let mut values: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
        let mut known = vec![false; self.times_us.len()];
        let mut right: BTreeMap<&String, &Vec<bool>> = texts(table, rows.schema_ref()).zip(&self.right).collect();
        for (field, (before, after)) in rows.schema_ref().fields().iter().zip(before.columns().iter().zip(after.columns())) {
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
            values.push(if let Some(at) = columns.iter().position(|column| column == name) {
                let lines = self.lines.get(at).map(Vec::as_slice).unwrap_or_default();
                let column = rollup::column(rows, name)?;
                let end =
                    |of: fn(&Line) -> u32| take(column, &lines.iter().map(|line| line.as_ref().map(of)).collect::<UInt32Array>(), None);
                let weights: Vec<Weight> = lines.iter().map(|line| line.map_or(Weight { part: 1, whole: 2 }, |line| line.2)).collect();
                let points = line::between(&end(|line| line.0)?, &end(|line| line.1)?, &weights)?;
                let finite = line::finite(&points)?;
                known.iter_mut().zip(finite.values()).for_each(|(known, finite)| *known |= finite);
                points
            } else if line::is_number(field.data_type()) {
                new_null_array(field.data_type(), before.len())
            } else {
                let wrong: BooleanArray = right.remove(name).into_iter().flatten().map(|right| Some(!right)).collect();
                nullif(&nullif(before, &differ(before, after)?)?, &wrong)?
            });
        }
        let drawn = RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?;
        Ok(filter_record_batch(&drawn, &BooleanArray::from(known))?)
    }
}
