//! The feeds from which the pipeline's fetchers get bars: a simulated market, or a replay of real bars.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use repair::arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use repair::arrow::compute::cast;
use repair::arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use repair::core::lake::{Layer, ReadLake, ScanRequest};
use repair::core::model::utc_date;
use repair::core::model::{Format, Table};
use repair::jiff::Timestamp;
use repair::jiff::civil::Date;
use repair::local::LocalLake;
use repair::stocks::bar::Bar;
use repair::stocks::source::simulated::Market;

/// How many bars can be replayed: all are held in memory, at about 100 bytes each.
const MAX_REPLAYED: usize = 10_000_000;

/// Knows the bar of every stock in every minute.
pub(crate) trait Feed: Send + Sync {
    /// The bar of a minute (since the Unix epoch), or none if the stock did not trade in it.
    fn bar(&self, symbol: &str, minute: i64) -> Option<Bar>;
}

/// The simulated market, the same as that of the source `stocks.simulated`, so that repairs can be compared with what was lost.
impl Feed for Market {
    fn bar(&self, symbol: &str, minute: i64) -> Option<Bar> {
        Market::bar(self, symbol, minute)
    }
}

/// Real bars, from a folder of files.
#[derive(Debug)]
pub(crate) struct Replay {
    bars: BTreeMap<String, HashMap<i64, Bar>>,
    first: Date,
    last: Date,
}

impl Replay {
    /// Reads all CSV files of a folder, with the columns of `bars`.
    ///
    /// # Errors
    /// Fails if there are no files, or they do not hold bars.
    pub(crate) async fn read(folder: &Path, bars: &Table) -> Result<Self> {
        let location = folder.to_str().with_context(|| format!("the name of the folder {} is not UTF-8", folder.display()))?;
        let archive = Table { location: location.to_owned(), format: Format::Csv, partition_by: Vec::new(), ..bars.clone() };
        let everything = ScanRequest::new(Layer::Raw);
        let mut rows = LocalLake::open(folder)?.scan(&archive, &everything).await?;
        let mut read: BTreeMap<String, HashMap<i64, Bar>> = BTreeMap::new();
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows();
            if count > MAX_REPLAYED {
                bail!("{} holds more than {MAX_REPLAYED} bars; name a folder with fewer days", folder.display());
            }
            for (symbol, minute, bar) in bars_of(&batch, bars)? {
                read.entry(symbol).or_default().insert(minute, bar);
            }
        }
        let minutes = || read.values().flat_map(HashMap::keys).copied();
        let (Some(first), Some(last)) = (minutes().min(), minutes().max()) else {
            bail!(
                "there are no bars in {}; it must hold CSV files with the columns symbol, ts, open, high, low, close, volume",
                folder.display()
            );
        };
        let date = |minute: i64| Timestamp::from_second(minute * 60).map(utc_date);
        Ok(Self { first: date(first)?, last: date(last)?, bars: read })
    }

    /// The stocks that were found, in order.
    pub(crate) fn symbols(&self) -> Vec<String> {
        self.bars.keys().cloned().collect()
    }

    /// The UTC dates of the first and the last bar.
    pub(crate) fn days(&self) -> (Date, Date) {
        (self.first, self.last)
    }
}

impl Feed for Replay {
    fn bar(&self, symbol: &str, minute: i64) -> Option<Bar> {
        self.bars.get(symbol)?.get(&minute).copied()
    }
}

fn bars_of(batch: &RecordBatch, table: &Table) -> Result<Vec<(String, i64, Bar)>> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the bars have no column `{name}`"));
    let symbols = column("symbol")?.as_string_opt::<i32>().context("the column `symbol` is not text")?;
    let times = column("ts")?.as_primitive_opt::<TimestampMicrosecondType>().context("the column `ts` is not an instant")?;
    let (open, high, low) = (numbers(column("open")?)?, numbers(column("high")?)?, numbers(column("low")?)?);
    let (close, volume) = (numbers(column("close")?)?, numbers(column("volume")?)?);
    let grid = table.grid()?;
    let bars = (0..batch.num_rows()).map(|row| {
        let minute = grid.slot_of_seconds(times.value(row).div_euclid(1_000_000));
        let bar =
            Bar { open: open.value(row), high: high.value(row), low: low.value(row), close: close.value(row), volume: volume.value(row) };
        (symbols.value(row).to_owned(), minute, bar)
    });
    Ok(bars.collect())
}

/// A column as floats. The reader may have typed a column of whole numbers as integers.
fn numbers(column: &ArrayRef) -> Result<Float64Array> {
    if column.null_count() > 0 {
        bail!("a bar lacks a price or its volume");
    }
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}
