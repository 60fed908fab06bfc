//! The hours of each stock, and how complete they are before and after the workflow.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use repair::arrow::array::{AsArray, RecordBatch};
use repair::arrow::compute::cast;
use repair::arrow::datatypes::{DataType, TimestampMicrosecondType, UInt64Type};
use repair::core::lake::{Lake, Layer, PresenceRequest, ScanRequest};
use repair::core::model::{Interval, Key, SlotRange, SlotSet, Table};
use repair::jiff::Timestamp;

/// The minutes of an hour.
const HOUR_MINUTES: i64 = 60;

/// One clock hour of one stock, as counts of minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StockHour {
    /// The stock.
    pub(crate) symbol: String,
    /// When the hour begins.
    pub(crate) hour: Timestamp,
    /// Minutes in which the market was open.
    pub(crate) expected: u64,
    /// Expected minutes with a bar that the pipeline captured.
    pub(crate) observed: u64,
    /// Expected minutes with a bar that was repaired.
    pub(crate) repaired: u64,
    /// Expected minutes confirmed to have no bar.
    pub(crate) absent: u64,
    /// Whether every expected minute is observed, repaired or absent.
    pub(crate) complete: bool,
}

/// The hours that the pipeline captured: the raw table without its repairs.
///
/// # Errors
/// Fails if the table cannot be read.
pub(crate) async fn captured(lake: &dyn Lake, bars: &Table, symbols: &[String], expected: &SlotSet) -> Result<Vec<StockHour>> {
    let keys: Vec<Key> = symbols.iter().map(|symbol| Key::from(symbol.as_str())).collect();
    let request = PresenceRequest::new(expected.range(), keys.clone(), Timestamp::now());
    let presence = lake.presence(bars, &request).await?;
    let grid = bars.grid()?;
    let mut hours = Vec::new();
    for (symbol, key) in symbols.iter().zip(&keys) {
        let held = presence.raw.keys.get(key).with_context(|| format!("the lake returned no presence of {symbol}"))?;
        let mut minute = expected.range().first.div_euclid(HOUR_MINUTES) * HOUR_MINUTES;
        while minute < expected.range().end {
            let hour = SlotRange::new(minute, minute + HOUR_MINUTES);
            let (wanted, observed) = (expected.count_in(hour), held.present.count_in(hour));
            if wanted > 0 {
                let complete = observed == wanted;
                let (symbol, hour) = (symbol.clone(), grid.start_of(minute));
                hours.push(StockHour { symbol, hour, expected: wanted, observed, repaired: 0, absent: 0, complete });
            }
            minute = hour.end;
        }
    }
    Ok(hours)
}

/// The hours that the workflow wrote, for the days of the demo.
///
/// # Errors
/// Fails if the table cannot be read, or is not as the workflow writes it.
pub(crate) async fn aggregated(lake: &dyn Lake, hourly: &Table, days: &Interval) -> Result<Vec<StockHour>> {
    let counts = ["expected", "observed", "repaired", "absent", "complete"].map(str::to_owned).to_vec();
    let request = ScanRequest::new(Layer::Raw).in_interval(*days).with_columns(counts);
    let mut rows = lake.scan(hourly, &request).await?;
    let mut hours = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        hours.extend(hours_of(&batch, hourly)?);
    }
    hours.sort_by(|a, b| (&a.symbol, a.hour).cmp(&(&b.symbol, b.hour)));
    Ok(hours)
}

fn hours_of(batch: &RecordBatch, hourly: &Table) -> Result<Vec<StockHour>> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the hourly table has no column `{name}`"));
    let symbols = column("symbol")?.as_string_opt::<i32>().context("`symbol` is not text")?;
    let times = column(&hourly.time)?.as_primitive_opt::<TimestampMicrosecondType>().context("`hour` is not an instant")?;
    let complete = column("complete")?.as_boolean_opt().context("`complete` is not true or false")?;
    let count = |name: &str| Ok::<_, anyhow::Error>(cast(column(name)?, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone());
    let (expected, observed, repaired, absent) = (count("expected")?, count("observed")?, count("repaired")?, count("absent")?);
    let rows = (0..batch.num_rows()).map(|row| {
        Ok(StockHour {
            symbol: symbols.value(row).to_owned(),
            hour: Timestamp::from_microsecond(times.value(row))?,
            expected: expected.value(row),
            observed: observed.value(row),
            repaired: repaired.value(row),
            absent: absent.value(row),
            complete: complete.value(row),
        })
    });
    rows.collect()
}
