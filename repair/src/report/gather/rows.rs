//! The few rows that a report draws as they are: a part of one series, and candles of a few keys.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use futures::TryStreamExt;

use super::completeness::Examined;
use super::listings::Part;
use crate::report::model::{Candle, CandleChart, KeyCandles, KeyCells, Point, Series, TableReport};
use repair_core::lake::overlay::REPAIRED_BY;
use repair_core::lake::rollup::column;
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Lake, Layer, PresenceRequest, ScanRequest};
use repair_core::model::{ExpectedSlots, Interval, Key, SlotRange, Table};
use repair_core::plugin::Drawing;
use repair_core::{Error, Result};

/// How many slots of a series are drawn on each side of the stretch with most repairs.
const AROUND: i64 = 400;
/// How many keys have candles, and how many stretches of time.
const MOST_KEYS: usize = 12;
const MOST_CANDLES: usize = 60;
/// A table that is drawn has no more rows than this for the chosen keys and times: not more than one per key and minute.
const MOST_SCANNED: usize = MOST_KEYS * MOST_CANDLES * 60;

/// The column that is drawn of a table: the one that its detector names, or the first number.
async fn drawn_column(of: &Examined<'_>, named: Option<&Drawing>) -> Result<Option<String>> {
    let schema = of.lake.describe(of.table).await?;
    if let Some(Drawing::Line { value }) = named
        && schema.field_with_name(value).is_ok_and(|field| field.data_type().is_numeric())
    {
        return Ok(Some(value.clone()));
    }
    let is_own = |name: &String| *name != of.table.time && !of.table.key.contains(name) && !of.table.version.contains(name);
    let numbers = schema.fields().iter().filter(|field| field.data_type().is_numeric() && is_own(field.name()));
    let floats = |field: &&std::sync::Arc<arrow::datatypes::Field>| !field.data_type().is_floating();
    Ok(numbers.min_by_key(floats).map(|field| field.name().clone()))
}

/// The key with most repairs, around the stretch with most of them. Nothing, if nothing was repaired.
pub(super) async fn series(of: &Examined<'_>, report: &TableReport, named: Option<&Drawing>) -> Result<Option<Series>> {
    let repaired = |row: &KeyCells| row.cells.iter().map(|cell| u64::from(cell.repaired)).sum::<u64>();
    let Some(row) = report.keys.iter().rev().max_by_key(|row| repaired(row)).filter(|row| repaired(row) > 0) else { return Ok(None) };
    let Some(column) = drawn_column(of, named).await? else { return Ok(None) };
    let best = row.cells.iter().enumerate().rev().max_by_key(|(_, cell)| cell.repaired).map_or(0, |(index, _)| index);
    let Some(start) = report.starts.get(best) else { return Ok(None) };
    let (grid, key) = (of.scope.grid, row.key.clone());
    let whole = of.scope.slots();
    let first = grid.slots_in(&Interval::new(*start, of.scope.interval.to())?).first;
    let slots = SlotRange::new(first - AROUND, first + AROUND).intersection(&whole);
    let Some(interval) = grid.interval_of(slots) else { return Ok(None) };
    let expected = ExpectedSlots::of(of.scope, slots, of.last, |name| {
        of.calendars.get(name).ok_or_else(|| Error::invalid(format!("this program has no calendar `{name}`")))
    })?
    .of_key(&key);
    let presence = of.lake.presence(of.table, &PresenceRequest::new(slots, vec![key.clone()], of.as_of)).await?;
    let absent = presence.absent.get(&key);
    let mut points: BTreeMap<i64, Point> = expected
        .iter()
        .map(|slot| {
            let absent = absent.is_some_and(|absent| absent.contains(slot));
            (slot, Point { at: grid.start_of(slot), value: None, repaired_by: None, estimated: None, absent })
        })
        .collect();
    let request = ScanRequest::new(Layer::Repaired).in_interval(interval).of_keys(vec![key.clone()]).with_columns(vec![column.clone()]);
    let mut batches = of.lake.scan(of.table, &request).await?;
    while let Some(batch) = batches.try_next().await? {
        let (times, values) = (KeyTime::of(of.table, &batch)?.times, floats(&batch, &column)?);
        let by = batch.column_by_name(REPAIRED_BY).and_then(|by| by.as_string_opt::<i32>().cloned());
        for row in 0..batch.num_rows() {
            let Some(point) = grid.slot_of_row(times.value(row)).and_then(|slot| points.get_mut(&slot)) else { continue };
            point.value = values.is_valid(row).then(|| values.value(row));
            point.absent = false;
            point.repaired_by = by.as_ref().filter(|by| by.is_valid(row)).map(|by| by.value(row).to_owned());
        }
    }
    if points.values().any(|point| point.repaired_by.is_some()) {
        let part = Part { lake: of.lake, table: of.table, interval, run: None, beside: &BTreeSet::new() };
        for (slot, (strategy, interval)) in part.estimates(&key, &column).await? {
            if let Some(point) = points.get_mut(&slot)
                && point.repaired_by.as_ref() == Some(&strategy)
            {
                point.estimated = Some(interval);
            }
        }
    }
    Ok(Some(Series { key, column, points: points.into_values().collect() }))
}

fn floats(batch: &RecordBatch, name: &str) -> Result<Float64Array> {
    let cast = arrow::compute::cast(column(batch, name)?, &DataType::Float64)?;
    Ok(cast.as_primitive_opt::<Float64Type>().cloned().unwrap_or_else(|| Float64Array::from(vec![None; batch.num_rows()])))
}

/// The candles that a step wrote, of the keys that lacked most, over the last stretches of time.
pub(super) async fn candles(lake: &dyn Lake, into: &Table, step: &str, drawing: &Drawing, of: &TableReport) -> Result<Option<CandleChart>> {
    let Drawing::Candles { open, high, low, close, complete, repaired, .. } = drawing else { return Ok(None) };
    let lacking = |row: &KeyCells| row.cells.iter().map(|cell| u64::from(cell.expected.saturating_sub(cell.own))).sum::<u64>();
    let mut keys: Vec<&KeyCells> = of.keys.iter().collect();
    keys.sort_by_key(|row| std::cmp::Reverse(lacking(row)));
    let mut keys: Vec<Key> = keys.into_iter().take(MOST_KEYS).map(|row| row.key.clone()).collect();
    keys.sort();
    let last = of.starts.len().saturating_sub(if of.bucket == crate::report::model::Bucket::Hour { MOST_CANDLES } else { 3 });
    let Some(from) = of.starts.get(last) else { return Ok(None) };
    let interval = Interval::new(*from, of.interval.to())?;
    let names = [open, high, low, close, complete, repaired].map(Clone::clone).to_vec();
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys.clone()).with_columns(names);
    let mut batches = lake.scan(into, &request).await?;
    let mut found: BTreeMap<Key, Vec<Candle>> = BTreeMap::new();
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        let places = KeyTime::of(into, &batch)?;
        let prices = [floats(&batch, open)?, floats(&batch, high)?, floats(&batch, low)?, floats(&batch, close)?];
        let is_complete = column(&batch, complete)?.as_boolean_opt().cloned();
        let repairs = floats(&batch, repaired)?;
        for row in 0..batch.num_rows() {
            let at = jiff::Timestamp::from_microsecond(places.times.value(row));
            let at = at.map_err(|error| Error::invalid("a time is out of range").because(error))?;
            let numbers: Vec<f64> = prices.iter().filter(|prices| prices.is_valid(row)).map(|prices| prices.value(row)).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, which is clamped")]
            let repaired = if repairs.is_valid(row) { repairs.value(row).clamp(0.0, 1e15) as u64 } else { 0 };
            found.entry(places.key(row)).or_default().push(Candle {
                at,
                prices: <[f64; 4]>::try_from(numbers).ok(),
                complete: is_complete.as_ref().is_some_and(|complete| complete.is_valid(row) && complete.value(row)),
                repaired,
            });
            rows += 1;
        }
        if rows > MOST_SCANNED {
            return Err(Error::invalid(format!(
                "table `{}` has more than {MOST_SCANNED} rows there, too many to draw as candles",
                into.name
            )));
        }
    }
    let keys = found.into_iter().map(|(key, mut candles)| {
        candles.sort_by_key(|candle| candle.at);
        KeyCandles { key, candles }
    });
    let keys: Vec<KeyCandles> = keys.collect();
    let zone = into.day_zone().name().to_owned();
    Ok((!keys.is_empty()).then(|| CandleChart { step: step.to_owned(), table: into.name.clone(), zone, keys, all_keys: of.all_keys }))
}
