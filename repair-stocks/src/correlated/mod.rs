//! The repairer `stocks.correlated`: estimates missing prices from another series that moves with them.
//!
//! Over a window before the gap, the log returns of the closes are regressed on those of the other series. In the gap, the price follows the
//! other series with that slope, and is bridged to both ends: it starts at the last close before the gap, and arrives at the first price
//! after it (`bridge` explains the method and names its source).
//!
//! **Bars.** A bar opens where the one before closes, and its high and low are these two prices. The movement within a minute is unknown, so
//! ranges are too narrow, and hours made of such bars may lack their true high and low. The volume is that of the other series in the same
//! minute, scaled by the ratio of both volumes over the window; it is 0 where the other series did not trade. Other numbers are null.
//!
//! **What stays missing**: a gap that is longer than `max_gap` or open on one side, a gap with too few pairs of returns before it or before
//! which the other series did not move, and a gap in which the other series has no bar at all. In a single minute without a bar, the other
//! price counts as unchanged.

mod bridge;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use async_trait::async_trait;
use repair_core::builtin::Period;
use repair_core::builtin::repair::by_day;
use repair_core::lake::rollup;
use repair_core::model::Usage;
use repair_core::model::{Findings, Fix, Key, SlotGrid, SlotRange, Table, Unit};
use repair_core::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bar::{CLOSE, COLUMNS, HIGH, LOW, OPEN, VOLUME, column_of};
use crate::numbers::is_number;

const NAME: &str = "stocks.correlated";

/// The default of `max_gap`.
const MAX_GAP: Period = Period::minutes(60);
/// The default of `window`.
const WINDOW: Period = Period::days(1);

/// The configuration of `stocks.correlated`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CorrelatedConfig {
    /// The key of the other series, in the same table. This series itself is not repaired.
    pub reference: Key,
    /// The longest gap that is bridged; default 1h.
    #[serde(default)]
    pub max_gap: Option<Period>,
    /// The time before a gap over which the relation of the two series is estimated; default 1d.
    #[serde(default)]
    pub window: Option<Period>,
}

pub(crate) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "estimates prices from another series, and meets both ends of the gap", |config: CorrelatedConfig| {
        Ok(Correlated { reference: config.reference, max_gap: config.max_gap.unwrap_or(MAX_GAP), window: config.window.unwrap_or(WINDOW) })
    });
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// The repairer `stocks.correlated`.
#[derive(Debug)]
struct Correlated {
    reference: Key,
    max_gap: Period,
    window: Period,
}

/// The prices, the volume and the row of a usable bar.
#[derive(Debug, Clone, Copy)]
struct Known {
    open: f64,
    close: f64,
    volume: f64,
    row: u32,
}

/// The bars of a series, by slot.
type Series = BTreeMap<i64, Known>;

impl Correlated {
    fn slots(period: Period, grid: SlotGrid, near: i64) -> i64 {
        grid.slots_of(period.seconds(), near)
    }
}

#[async_trait]
impl Repairer for Correlated {
    /// Usage is zero, because no source is asked.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    /// A unit is one day of all keys, up to a limit.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let table = context.table(&findings.scope.table)?;
        table.check_one_row("`stocks.correlated`")?;
        if self.reference.values().len() != table.key.len() {
            return Err(Error::invalid(format!(
                "`reference: {}` is not a key of table `{}`; give a value for each key column, {}",
                self.reference,
                table.name,
                table.key.join(", ")
            )));
        }
        let grid = findings.scope.grid;
        let over = by_day::slots_over(grid, context.clock.now());
        let within = |gap: &SlotRange| gap.len() <= u64::try_from(Self::slots(self.max_gap, grid, gap.first)).unwrap_or(0);
        let gaps = findings.gaps.iter().filter(|(key, gap)| **key != self.reference && within(gap));
        Ok(by_day::units(grid, gaps.map(|(key, gap)| (key, SlotRange::new(gap.first, gap.end.min(over))))))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        context.check_cancelled()?;
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let asked = grid.slots_in(&unit.interval);
        let (longest, window) = (Self::slots(self.max_gap, grid, asked.first), Self::slots(self.window, grid, asked.first));
        let slots = SlotRange::new(asked.first.saturating_sub(longest).saturating_sub(window), asked.end.saturating_add(longest));
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).chain([self.reference.clone()]).collect();
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let Some(own) = by_day::raw_rows(context.lake.as_ref(), table, grid, slots, keys).await? else { return Ok(fix) };
        let rows = own.rows;
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let mut series = series(table, grid, &rows, findings)?;
        let Some(other) = series.remove(&self.reference) else { return Ok(fix) };
        let mut guessed = Guessed::default();
        for wanted in &unit.wanted {
            let Some(own) = series.get(&wanted.key) else { continue };
            // The last gap: the slot before it, and its bridge if there is one.
            let mut bridged: Option<(i64, Option<Bridged>)> = None;
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let (Some((&before, from)), Some((&after, to))) = (own.range(..slot).next_back(), own.range(slot + 1..).next()) else {
                    continue;
                };
                if after - before - 1 > longest {
                    continue;
                }
                if bridged.as_ref().is_none_or(|(first, _)| *first != before) {
                    bridged = Some((before, Bridged::new(own, &other, (before, from), (after, to), window)));
                }
                if let Some((_, Some(bridge))) = &bridged {
                    guessed.push(bridge, from.row, slot, by_day::time_us(grid, slot));
                }
            }
        }
        if !guessed.from.is_empty() {
            fix.rows.push(guessed.rows(table, &rows)?);
        }
        Ok(fix)
    }
}

/// The usable bars of each key.
fn series(table: &Table, grid: SlotGrid, rows: &RecordBatch, findings: &Findings) -> Result<BTreeMap<Key, Series>> {
    let mut numbers: Vec<Float64Array> = Vec::with_capacity(3);
    for name in [OPEN, CLOSE, VOLUME] {
        let column = rollup::column(rows, name)?;
        if !is_number(column.data_type()) {
            return Err(Error::invalid(format!("column `{name}` of bars must hold numbers, but is {}", column.data_type())));
        }
        let column = cast(column, &DataType::Float64)?;
        numbers.push(arrow::array::AsArray::as_primitive::<Float64Type>(&column).clone());
    }
    let value =
        |which: usize, row: usize| numbers.get(which).filter(|column| column.is_valid(row)).map_or(f64::NAN, |column| column.value(row));
    let price = |which: usize, row: usize| Some(value(which, row)).filter(|price| price.is_finite() && *price > 0.0);
    let is_left_out = |key: &Key, slot: i64| findings.gaps.contains(key, slot) || findings.is_of_wrong_rows(key, slot);
    let usable = |key: &Key, slot: i64, row: usize| price(0, row).and(price(1, row)).is_some() && !is_left_out(key, slot);
    let mut all = BTreeMap::new();
    for (key, slots) in by_day::by_slot(table, grid, rows, usable)? {
        let known = |(slot, number): (i64, u32)| {
            let row = number as usize;
            let volume = Some(value(2, row)).filter(|volume| volume.is_finite() && *volume >= 0.0).unwrap_or_default();
            (slot, Known { open: value(0, row), close: value(1, row), volume, row: number })
        };
        all.insert(key, slots.into_iter().map(known).collect());
    }
    Ok(all)
}

/// A gap whose prices were estimated.
struct Bridged {
    /// The first slot of the gap.
    first: i64,
    /// The prices at which the slots begin and end, one more than there are slots.
    prices: Vec<f64>,
    /// The volume of each slot.
    volumes: Vec<f64>,
}

impl Bridged {
    /// Estimates the bars of a gap; `None` if there is not enough to estimate them from.
    fn new(own: &Series, other: &Series, (before, from): (i64, &Known), (after, to): (i64, &Known), window: i64) -> Option<Self> {
        let learnt = before.saturating_sub(window)..=before;
        let (mut pairs, mut own_volume, mut other_volume) = (Vec::new(), 0.0, 0.0);
        for (slot, mine) in own.range(learnt) {
            let Some(theirs) = other.get(slot) else { continue };
            own_volume += mine.volume;
            other_volume += theirs.volume;
            if let (Some(mine_before), Some(theirs_before)) = (own.get(&(slot - 1)), other.get(&(slot - 1))) {
                pairs.push(((mine.close / mine_before.close).ln(), (theirs.close / theirs_before.close).ln()));
            }
        }
        let slope = bridge::slope(&pairs)?;
        // In a minute without a bar, the other price is unchanged; with no bar in the whole gap, nothing is known.
        other.range(before + 1..after).next()?;
        let (_, start) = other.range(..=before).next_back()?;
        let mut prices = vec![start.close];
        let mut volumes = Vec::new();
        for slot in before + 1..after {
            let bar = other.get(&slot);
            prices.push(bar.map_or_else(|| prices.last().copied().unwrap_or(start.close), |bar| bar.close));
            let share = if other_volume > 0.0 { own_volume / other_volume } else { 0.0 };
            volumes.push(bar.map_or(0.0, |bar| bar.volume * share));
        }
        Some(Self { first: before + 1, prices: bridge::path(from.close, to.open, slope, &prices), volumes })
    }
}

/// Estimated bars, as columns.
#[derive(Default)]
struct Guessed {
    /// The row before the gap, whose values are used for columns that are not numeric.
    from: Vec<u32>,
    times_us: Vec<i64>,
    /// The columns open, high, low, close and volume.
    bars: [Vec<f64>; 5],
}

impl Guessed {
    fn push(&mut self, bridge: &Bridged, from: u32, slot: i64, time_us: i64) {
        let Ok(at) = usize::try_from(slot - bridge.first) else { return };
        let (Some(&open), Some(&close), Some(&volume)) = (bridge.prices.get(at), bridge.prices.get(at + 1), bridge.volumes.get(at)) else {
            return;
        };
        self.from.push(from);
        self.times_us.push(time_us);
        for (column, value) in self.bars.iter_mut().zip([open, open.max(close), open.min(close), close, volume]) {
            column.push(value);
        }
    }

    fn rows(self, table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
        for name in [HIGH, LOW] {
            rollup::column(rows, name)?;
        }
        let before = by_day::with_times(table, &take_record_batch(rows, &UInt32Array::from(self.from))?, self.times_us)?;
        let bars = COLUMNS.into_iter().zip(self.bars).collect::<BTreeMap<_, _>>();
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(before.num_columns());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(before.num_columns());
        for (field, column) in before.schema_ref().fields().iter().zip(before.columns()) {
            let kind = field.data_type();
            let own = *field.name() == table.time || table.key.contains(field.name());
            let values = column_of(before.schema_ref(), field.name())?.and_then(|column| bars.get(column));
            match values {
                _ if own => {
                    fields.push(field.clone());
                    columns.push(column.clone());
                }
                Some(values) => {
                    let numbers: ArrayRef = Arc::new(rounded(values, kind));
                    fields.push(field.clone());
                    columns.push(cast(&numbers, kind)?);
                }
                None if is_number(kind) => {
                    fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                    columns.push(new_null_array(kind, column.len()));
                }
                None => {
                    fields.push(field.clone());
                    columns.push(column.clone());
                }
            }
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// The numbers for a column, rounded if it holds integers. Rounding keeps their order.
fn rounded(values: &[f64], kind: &DataType) -> Float64Array {
    values.iter().map(|value| if kind.is_integer() { value.round() } else { *value }).collect()
}
