//! What repairers share that estimate the holes of whole series: their units, the series in which holes are estimated, and rows from estimates.
//!
//! A unit is all gaps that begin within one window of time, so that its series are read once for all of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use futures::TryStreamExt;

use crate::builtin::period::Period;
use crate::builtin::repair::estimate::{self, Estimate, Profile, Settings, shifts};
use crate::builtin::repair::judge::times;
use crate::builtin::repair::shifted::Take;
use crate::builtin::repair::{by_day, line};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest, rollup};
use crate::model::{Findings, Fix, Key, SlotGrid, SlotRange, Table, Unit, Usage, Wanted, Zone};
use crate::plugin::{PlannedUnits, StepContext};

const DAY_S: i64 = 86_400;

/// By default, the known values on each side of a hole from which it is estimated are those of four weeks, within these limits in slots: enough
/// of each hour of a week, and no more than can be computed with at once.
const WINDOW_S: i64 = 28 * DAY_S;
const WINDOW_SLOTS: (i64, i64) = (200, 3_000);

/// The longest window and the longest gap, in slots: a month and a half of minutes.
pub(super) const MOST_SLOTS: i64 = 1 << 16;

/// The maximum number of values that are held at once, at 8 bytes each.
const MOST_VALUES: u64 = 1 << 24;

/// The periods that are looked for by default, in seconds.
const PERIODS_S: [i64; 2] = [DAY_S, 7 * DAY_S];

/// The maximum number of periods.
const MOST_PERIODS: usize = 4;

/// How holes are estimated.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The repairer's name.
    pub(super) name: &'static str,
    /// The columns whose holes are filled; all that hold numbers if there are none.
    pub(super) columns: Option<Vec<String>>,
    /// What repeats; a day and a week if there are none.
    pub(super) periods: Option<Vec<Period>>,
    /// The clock that it follows; that of the table if there is none.
    pub(super) zone: Option<Zone>,
    /// How much time on each side of a hole is looked at.
    pub(super) window: Option<Period>,
    /// The longest gap.
    pub(super) max_gap: Option<Period>,
    /// What else is looked at.
    pub(super) on: On,
    /// From what a value follows.
    pub(super) model: Model,
}

/// From what a value follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Model {
    /// A regression, and what is left at the edges.
    Regression {
        /// What is added to the squares of each column.
        ridge: f64,
        /// The share of the known slots that another series must have.
        overlap: f64,
    },
    /// The medians of what repeats, and the level at the edges.
    Medians,
    /// The values some time before or after.
    Shifted {
        /// How far away, in seconds, negative if before.
        shifts_s: Vec<i64>,
        /// What is taken of them.
        take: Take,
        /// Whether they are scaled to the values next to a gap.
        to_edges: bool,
    },
}

/// What else is looked at, at the time of a hole.
#[derive(Debug, Clone, Default)]
pub(super) struct On {
    /// Whether other series of the table are.
    pub(super) others: bool,
    /// The keys that are; all that the detector expects if there are none.
    pub(super) keys: Option<Vec<Key>>,
    /// Columns of other tables.
    pub(super) tables: Vec<OtherTable>,
}

/// Columns of another table.
#[derive(Debug, Clone)]
pub(super) struct OtherTable {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// A series of values, one for each slot of a window; those that are unknown are not numbers.
type Series = Vec<f64>;

/// The series of a window of slots.
struct Window {
    slots: SlotRange,
    columns: Vec<String>,
    /// By key, each column of the table.
    own: BTreeMap<Key, Vec<Series>>,
    /// Of other tables.
    others: Vec<Series>,
    /// In the shape that rows must have.
    schema: Arc<Schema>,
    rows_read: u64,
}

impl Plan {
    /// Checks what was configured.
    ///
    /// # Errors
    /// `invalid` if a list is empty that must not be.
    pub(super) fn check(&self) -> Result<()> {
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(
                "`columns` is empty, so nothing would be estimated; list columns, or leave it out for all numeric columns",
            ));
        }
        if self.periods.as_ref().is_some_and(|periods| periods.len() > MOST_PERIODS) {
            return Err(Error::invalid(format!("more than {MOST_PERIODS} periods are listed; list fewer")));
        }
        Ok(())
    }

    fn window_slots(&self, grid: SlotGrid, near: i64) -> i64 {
        if let Model::Shifted { shifts_s, .. } = &self.model {
            let furthest = shifts_s.iter().map(|shift_s| grid.slots_of(shift_s.saturating_abs(), near)).max().unwrap_or(0);
            return furthest.saturating_add(1).clamp(1, MOST_SLOTS);
        }
        match self.window {
            Some(window) => grid.slots_of(window.seconds(), near).clamp(1, MOST_SLOTS),
            None => grid.slots_of(WINDOW_S, near).clamp(WINDOW_SLOTS.0, WINDOW_SLOTS.1),
        }
    }

    fn longest(&self, grid: SlotGrid, near: i64) -> i64 {
        self.max_gap.map_or(MOST_SLOTS, |gap| grid.slots_of(gap.seconds(), near).min(MOST_SLOTS))
    }

    /// The columns whose holes are filled.
    fn columns(&self, table: &Table, schema: &Schema) -> Result<Vec<String>> {
        line::chosen_columns(table, schema, self.columns.as_deref(), "estimate")
    }

    /// The units: all gaps that begin in the same window.
    pub(super) async fn units(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let table = context.table(&findings.scope.table)?;
        table.check_one_row(&format!("`{}`", self.name))?;
        self.columns(table, context.lake.describe(table).await?.as_ref())?;
        for other in &self.on.tables {
            let other_table = context.table(&other.table)?;
            let schema = context.lake.describe(other_table).await?;
            line::chosen_columns(other_table, &schema, Some(&other.columns), "use")?;
        }
        let grid = findings.scope.grid;
        let over = by_day::slots_over(grid, context.clock.now());
        let mut windows: BTreeMap<i64, Vec<Wanted>> = BTreeMap::new();
        for (key, gap) in findings.gaps.iter() {
            let gap = SlotRange::new(gap.first, gap.end.min(over));
            // Wrong cells of different columns may make a long gap together.
            let is_long = findings.cells.is_empty() && i64::try_from(gap.len()).unwrap_or(i64::MAX) > self.longest(grid, gap.first);
            if gap.is_empty() || is_long {
                continue;
            }
            let window = windows.entry(gap.first.div_euclid(self.window_slots(grid, gap.first))).or_default();
            match window.last_mut() {
                Some(last) if last.key == *key => last.slots.push(gap),
                _ => window.push(Wanted { key: key.clone(), slots: vec![gap] }),
            }
        }
        Ok(Box::new(windows.into_values().map(move |wanted| {
            let slots = || wanted.iter().flat_map(|wanted| &wanted.slots);
            let hull = slots().map(|slots| slots.first).min().zip(slots().map(|slots| slots.end).max());
            let interval = hull.and_then(|(first, end)| grid.interval_of(SlotRange::new(first, end)));
            Ok(Unit { interval: interval.ok_or_else(|| Error::invalid("the time of a gap is out of range"))?, wanted })
        })))
    }

    /// Estimates the holes of a unit.
    pub(super) async fn fix(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        context.check_cancelled()?;
        let table = context.table(&findings.scope.table)?;
        let mut fix = Fix { source: self.name.to_owned(), ..Fix::default() };
        let Some(window) = self.read(context, table, findings, unit).await? else { return Ok(fix) };
        fix.usage = Usage { rows_read: window.rows_read, ..Usage::default() };
        let mut estimated: BTreeMap<(&Key, i64), Vec<Option<Estimate>>> = BTreeMap::new();
        for wanted in &unit.wanted {
            for (index, column) in window.columns.iter().enumerate() {
                for hole in holes(findings, wanted, column, &window) {
                    context.check_cancelled()?;
                    // A hole takes up to some tenths of a second, and other work must not wait for all of them.
                    tokio::task::yield_now().await;
                    let Some(estimates) = self.estimates(findings.scope.grid, &window, (&wanted.key, index), &hole) else { continue };
                    for (slot, estimate) in (hole.first..hole.end).zip(estimates).filter(|(_, estimate)| estimate.is_some()) {
                        if let Some(Estimate { value, deviation: Some(deviation) }) = estimate {
                            fix.estimates.insert(&wanted.key, slot, column, value, deviation);
                        }
                        let of_slot = estimated.entry((&wanted.key, slot)).or_insert_with(|| vec![None; window.columns.len()]);
                        if let Some(place) = of_slot.get_mut(index) {
                            *place = estimate;
                        }
                    }
                }
            }
        }
        if !estimated.is_empty() {
            fix.rows.push(rows(table, findings.scope.grid, &window, &estimated)?);
        }
        Ok(fix)
    }

    /// Estimates one hole, from the part of the window that is around it.
    fn estimates(&self, grid: SlotGrid, window: &Window, (key, column): (&Key, usize), hole: &SlotRange) -> Option<Vec<Option<Estimate>>> {
        let reach = self.window_slots(grid, hole.first).saturating_add(i64::try_from(hole.len()).ok()?);
        let around = SlotRange::new(hole.first.saturating_sub(reach), hole.end.saturating_add(reach)).intersection(&window.slots);
        let place = |slot: i64| usize::try_from(slot - window.slots.first).ok();
        let part = place(around.first)?..place(around.end)?;
        let target = window.own.get(key)?.get(column)?.get(part.clone())?;
        let mut others: Vec<&[f64]> = Vec::new();
        if self.on.others {
            for (other, of_key) in &window.own {
                let is_wanted = other == key || self.on.keys.as_ref().is_none_or(|keys| keys.contains(other));
                let own = of_key.iter().enumerate().filter(|(index, _)| is_wanted && (other != key || *index != column));
                others.extend(own.filter_map(|(_, series)| series.get(part.clone())));
            }
        }
        others.extend(window.others.iter().filter_map(|series| series.get(part.clone())));
        let step_s = i64::from(grid.cadence_at(hole.first).seconds()).max(1);
        let periods: Vec<i64> = match &self.periods {
            Some(periods) => periods.iter().map(|period| period.seconds()).collect(),
            None => PERIODS_S.to_vec(),
        };
        let zone = self.zone.clone().unwrap_or_else(|| grid.zone());
        let local_s = |slot: i64| {
            let start = grid.start_of(slot);
            start.as_second() + i64::from(zone.time_zone().to_offset(start).seconds())
        };
        let profile = Profile::new(step_s, &periods, (around.first..around.end).map(local_s).collect());
        let hole: Range<usize> = place(hole.first)? - part.start..place(hole.end)? - part.start;
        match &self.model {
            Model::Regression { ridge, overlap } => {
                let settings = Settings { ridge: *ridge, overlap: *overlap, step_s };
                estimate::estimate(target, &hole, &others, &profile, settings).map(all)
            }
            Model::Medians => estimate::medians(target, &hole, &profile).map(all),
            Model::Shifted { shifts_s, take, to_edges } => {
                let shifts: Vec<isize> = shifts_s.iter().filter_map(|shift_s| isize::try_from(shift_s / step_s).ok()).collect();
                Some(shifts::estimate(target, &hole, &shifts, *take, *to_edges))
            }
        }
    }

    /// Reads the series that a unit needs; none if the table has no rows there.
    async fn read(&self, context: &StepContext, table: &Table, findings: &Findings, unit: &Unit) -> Result<Option<Window>> {
        let grid = findings.scope.grid;
        let hull = grid.slots_in(&unit.interval);
        let longest = unit.wanted.iter().flat_map(|wanted| &wanted.slots).map(SlotRange::len).max().unwrap_or(0);
        let reach = self.window_slots(grid, hull.first).saturating_add(i64::try_from(longest).unwrap_or(MOST_SLOTS));
        let slots = SlotRange::new(hull.first.saturating_sub(reach), hull.end.saturating_add(reach));
        let mut keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        if self.on.others {
            keys.extend(self.on.keys.as_ref().unwrap_or(&findings.scope.keys).iter().cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        let columns = self.columns(table, context.lake.describe(table).await?.as_ref())?;
        let values = slots.len().saturating_mul(keys.len() as u64).saturating_mul(columns.len() as u64);
        if values > MOST_VALUES {
            return Err(Error::invalid(format!(
                "`{}` would hold {values} values at once, and may hold {MOST_VALUES}; choose a shorter `window`, or fewer keys or columns",
                self.name
            )));
        }
        let Some(own_rows) = by_day::raw_rows(context.lake.as_ref(), table, grid, slots, keys.clone()).await? else { return Ok(None) };
        let batch = own_rows.rows;
        let own = own_series(table, findings, &batch, slots, &columns, keys)?;
        let mut window = Window { slots, columns, own, others: Vec::new(), schema: batch.schema(), rows_read: batch.num_rows() as u64 };
        for other in &self.on.tables {
            let (series, rows) = other_series(context, other, grid, slots).await?;
            window.rows_read += rows;
            window.others.extend(series);
            let values = (window.others.len() as u64).saturating_mul(slots.len());
            if values > MOST_VALUES {
                return Err(Error::invalid(format!(
                    "table `{}` has too many series to regress on: {values} values, of {MOST_VALUES} at most; use a table with fewer keys",
                    other.table
                )));
            }
        }
        Ok(Some(window))
    }
}

fn all(estimates: Vec<Estimate>) -> Vec<Option<Estimate>> {
    estimates.into_iter().map(Some).collect()
}

/// The stretches of a key's wanted slots in which a column is to be estimated.
fn holes(findings: &Findings, wanted: &Wanted, column: &str, window: &Window) -> Vec<SlotRange> {
    let is_to_do = |slot: i64| match findings.cells.get(&wanted.key, slot) {
        None => true,
        Some(cells) => cells.columns.iter().any(|name| name == column),
    };
    let mut holes: Vec<SlotRange> = Vec::new();
    let slots = wanted.slots.iter().flat_map(|slots| slots.first..slots.end);
    for slot in slots.filter(|&slot| window.slots.contains(slot) && is_to_do(slot)) {
        match holes.last_mut() {
            Some(last) if last.end == slot => last.end = slot + 1,
            _ => holes.push(SlotRange::new(slot, slot + 1)),
        }
    }
    holes
}

/// The table's own values that were not found wrong, without absurd ones.
fn own_series(
    table: &Table,
    findings: &Findings,
    batch: &RecordBatch,
    slots: SlotRange,
    columns: &[String],
    keys: Vec<Key>,
) -> Result<BTreeMap<Key, Vec<Series>>> {
    let grid = findings.scope.grid;
    let length = usize::try_from(slots.len()).unwrap_or(0);
    let mut own: BTreeMap<Key, Vec<Series>> = keys.into_iter().map(|key| (key, vec![vec![f64::NAN; length]; columns.len()])).collect();
    let numbers = columns.iter().map(|name| Ok(cast(rollup::column(batch, name)?, &DataType::Float64)?)).collect::<Result<Vec<_>>>()?;
    // A gap of missing rows has none; whole rows that were found wrong do not count.
    let by_slot = by_day::by_slot(table, grid, batch, |key, slot, _| !findings.is_of_wrong_whole_rows(key, slot))?;
    for (key, of_slot) in &by_slot {
        let Some(of_key) = own.get_mut(key) else { continue };
        for ((name, numbers), series) in columns.iter().zip(&numbers).zip(of_key) {
            let numbers = numbers.as_primitive::<Float64Type>();
            for (&slot, &row) in of_slot {
                let row = row as usize;
                let is_usable = numbers.is_valid(row) && numbers.value(row).is_finite() && !findings.is_of_wrong_values(key, slot, name);
                if let Some(place) = usize::try_from(slot - slots.first).ok().and_then(|at| series.get_mut(at)).filter(|_| is_usable) {
                    *place = numbers.value(row);
                }
            }
        }
    }
    own.values_mut().flatten().for_each(|series| estimate::leave_out_absurd(series));
    Ok(own)
}

/// The series of another table: for each key and column, the mean of the values in each slot.
async fn other_series(context: &StepContext, other: &OtherTable, grid: SlotGrid, slots: SlotRange) -> Result<(Vec<Series>, u64)> {
    let table = context.table(&other.table)?;
    let interval = grid.interval_of(slots).ok_or_else(|| Error::invalid("the time of a gap is out of range"))?;
    let schema = context.lake.describe(table).await?;
    let columns = line::chosen_columns(table, &schema, Some(&other.columns), "use")?;
    let of_other = table.grid().ok();
    let request = ScanRequest::new(Layer::Repaired).in_interval(interval).with_columns(columns.clone());
    let mut batches = match context.lake.scan(table, &request).await {
        Ok(batches) => batches,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(slots.len()).unwrap_or(0);
    let mut sums: BTreeMap<(Key, usize), Vec<(f64, f64)>> = BTreeMap::new();
    let mut rows_read = 0;
    while let Some(batch) = batches.try_next().await? {
        context.check_cancelled()?;
        rows_read += batch.num_rows() as u64;
        let rows = KeyTime { keys: rollup::key_columns(table, &batch)?, times: times(table, &batch)? };
        for (index, name) in columns.iter().enumerate() {
            let numbers = cast(rollup::column(&batch, name)?, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            for run in rows.runs() {
                let of_key = sums.entry((rows.key(run.start), index)).or_insert_with(|| vec![(0.0, 0.0); length]);
                for row in run.filter(|&row| rows.times.is_valid(row) && numbers.is_valid(row) && numbers.value(row).is_finite()) {
                    let time_us = rows.times.value(row);
                    // What a row of a series is about begins where its slot does; any other row is about its time.
                    let about = match of_other.and_then(|grid| Some((grid, grid.slot_of_row(time_us)?))) {
                        Some((other, slot)) => other.start_of(slot),
                        None => match jiff::Timestamp::from_microsecond(time_us) {
                            Ok(time) => time,
                            Err(_) => continue,
                        },
                    };
                    let at = usize::try_from(grid.slot_at(about) - slots.first).ok();
                    if let Some((sum, count)) = at.and_then(|at| of_key.get_mut(at)) {
                        *sum += numbers.value(row);
                        *count += 1.0;
                    }
                }
            }
        }
        let values = (sums.len() as u64).saturating_mul(slots.len());
        if values > MOST_VALUES {
            return Err(Error::invalid(format!(
                "table `{}` has too many series to regress on: {values} values, of {MOST_VALUES} at most; use a table with fewer keys",
                other.table
            )));
        }
    }
    let series = sums.into_values().map(|of_key| {
        let mut series: Series = of_key.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { f64::NAN }).collect();
        estimate::leave_out_absurd(&mut series);
        series
    });
    Ok((series.collect(), rows_read))
}

/// The rows of what was estimated, in the table's shape. Columns that were not estimated are null.
fn rows(table: &Table, grid: SlotGrid, window: &Window, estimated: &BTreeMap<(&Key, i64), Vec<Option<Estimate>>>) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(window.schema.fields().len());
    let mut values: Vec<ArrayRef> = Vec::with_capacity(window.schema.fields().len());
    for field in window.schema.fields() {
        let name = field.name();
        if *name == table.time {
            fields.push(field.clone());
            values.push(by_day::time_column(estimated.keys().map(|(_, slot)| by_day::time_us(grid, *slot)).collect()));
        } else if let Some(at) = table.key.iter().position(|key| key == name) {
            fields.push(field.clone());
            let key: StringArray = estimated.keys().map(|(key, _)| key.values().nth(at)).collect();
            values.push(Arc::new(key));
        } else {
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            values.push(match window.columns.iter().position(|column| column == name) {
                Some(at) => {
                    let numbers = estimated.values().map(|of_slot| of_slot.get(at).copied().flatten().map(|estimate| estimate.value));
                    of_type(&numbers.collect(), field.data_type())?
                }
                None => new_null_array(field.data_type(), estimated.len()),
            });
        }
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?;
    // An estimate that its column cannot hold is null, and a row without any value repairs nothing.
    let estimated: Vec<&ArrayRef> = window.columns.iter().map(|name| rollup::column(&rows, name)).collect::<Result<_>>()?;
    let is_estimated: BooleanArray = (0..rows.num_rows()).map(|row| Some(estimated.iter().any(|column| column.is_valid(row)))).collect();
    Ok(filter_record_batch(&rows, &is_estimated)?)
}

/// Numbers as a column of a type: the nearest whole ones if it holds those, and null where one does not fit.
fn of_type(numbers: &Float64Array, kind: &DataType) -> Result<ArrayRef> {
    let numbers: Float64Array =
        if kind.is_integer() { numbers.iter().map(|number| number.map(f64::round)).collect() } else { numbers.clone() };
    Ok(cast_with_options(&(Arc::new(numbers) as ArrayRef), kind, &CastOptions { safe: true, ..CastOptions::default() })?)
}
