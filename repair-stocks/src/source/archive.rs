//! The source `stocks.archive`: a folder of rows, kept elsewhere, such as a vendor's files of last year.
//!
//! It vouches for whole days. An archive is filled by the day, and a stock rarely trades in the first or last minute of one, so where its
//! rows begin and end says nothing about what the archive knows; the days do. Of a stock, it vouches from the beginning of the first UTC
//! day that holds a row of it to the end of the last; and of a day that is not over yet, up to its last row, because the rest may still
//! be on its way. Of a stock without any row it knows nothing, and vouches for nothing.
//!
//! A day within that span that the archive lost looks like a day on which the stock did not trade. If all stocks miss it, `quiet_spell`
//! of the repair step says that such a silence proves nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use repair_core::lake::{Lake, Layer, ScanRequest, rollup};
use repair_core::model::{Format, Interval, Key, Partition, PartitionUnit, SlotGrid, Table};
use repair_core::model::{day_start, utc_date};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

/// Keys whose spans are remembered, about 200 bytes each; more is surely not an archive of series.
const MOST_KEYS: usize = 1_000_000;

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// The folder (or one file) of the archive, absolute or within the lake. Its rows have the columns of the table that is repaired.
    pub location: String,
    /// How its files are written; parquet unless given.
    #[serde(default)]
    pub format: Option<Format>,
    /// How its folders are partitioned by time, as of a table: `[{ date: day }]`.
    #[serde(default)]
    pub partition_by: Option<Vec<BTreeMap<String, PartitionUnit>>>,
    /// Rows that one request may bring; 10,000 unless given. What is wrong in an answer spoils all of it, so larger is not better.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// Keys that one request may name; 1 unless given.
    #[serde(default)]
    pub keys_per_request: Option<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.source("stocks.archive", "a folder of bars", |config: ArchiveConfig| Archive::new(&config));
}

/// The source `stocks.archive`.
struct Archive {
    location: String,
    format: Format,
    partition_by: Vec<Partition>,
    limits: Limits,
    /// Which rows there are of each key, by the table they were asked for: looked up once, and held for the life of the source.
    spans: Mutex<HashMap<Table, Arc<Spans>>>,
}

/// The first and the last slot of each key of an archive.
type Spans = BTreeMap<Key, (i64, i64)>;

impl Archive {
    fn new(config: &ArchiveConfig) -> Result<Self> {
        if config.location.trim().is_empty() {
            return Err(Error::invalid("`location` is empty; name the folder of the archive"));
        }
        Ok(Self {
            location: config.location.clone(),
            format: config.format.unwrap_or(Format::Parquet),
            partition_by: partitions(config.partition_by.as_deref().unwrap_or_default())?,
            limits: super::limits(config.rows_per_request, config.keys_per_request)?,
            spans: Mutex::default(),
        })
    }

    /// The archive as a table like the one that is repaired.
    fn table(&self, like: &Table) -> Table {
        Table {
            name: format!("{}_archive", like.name),
            location: self.location.clone(),
            format: self.format,
            partition_by: self.partition_by.clone(),
            ..like.clone()
        }
    }

    /// What it holds of each key. Requests that come while it looks wait for the one look.
    async fn spans(&self, lake: &dyn Lake, archive: &Table) -> Result<Arc<Spans>> {
        let mut known = self.spans.lock().await;
        if let Some(spans) = known.get(archive) {
            return Ok(spans.clone());
        }
        let spans = Arc::new(look(lake, archive).await.map_err(|error| of_the_archive(archive, error))?);
        known.insert(archive.clone(), spans.clone());
        Ok(spans)
    }

    /// What it can say of itself as evidence.
    fn said(&self, keys: usize, known: &[(&Key, Interval)]) -> String {
        let hull = known.iter().map(|(_, span)| *span).reduce(|all, span| all.hull(&span));
        match (known, hull) {
            ([(key, span)], _) if keys == 1 => format!("the archive {}, which holds {key} from {span}", self.location),
            (_, Some(hull)) => format!("the archive {}, which holds {} of {keys} keys asked for from {hull}", self.location, known.len()),
            (_, None) => format!("the archive {}, which holds nothing of what was asked for", self.location),
        }
    }
}

/// Reads `partition_by` as a workflow's tables have it.
fn partitions(entries: &[BTreeMap<String, PartitionUnit>]) -> Result<Vec<Partition>> {
    let columns: Vec<Partition> = entries.iter().flatten().map(|(column, &unit)| Partition { column: column.clone(), unit }).collect();
    match columns.len() {
        0 | 1 => Ok(columns),
        _ => Err(Error::invalid("`partition_by` has one column at most; keep the one of the finest unit, e.g. `[{ date: day }]`")),
    }
}

/// An error of the lake, which knows the archive as a table, in words that the workflow has: it is a source, with a `location`.
fn of_the_archive(archive: &Table, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error.on("archive", &archive.location);
    }
    let endings: Vec<String> = archive.format.endings().iter().map(|ending| format!(".{ending}")).collect();
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no archive at the source's `location`, `{}` (within the lake, unless it is absolute), or it holds no {} files; put it \
             there, or mend `location` or `format` of the source",
            archive.location,
            endings.join(", ")
        ),
    )
}

/// Looks through the keys and times of an archive.
async fn look(lake: &dyn Lake, archive: &Table) -> Result<Spans> {
    let grid = archive.grid()?;
    let request = ScanRequest { layer: Layer::Raw, interval: None, keys: None, columns: Some(Vec::new()) };
    let mut rows = lake.scan(archive, &request).await?;
    let mut spans = Spans::new();
    while let Some(batch) = rows.try_next().await? {
        add(&mut spans, archive, grid, &batch)?;
        if spans.len() > MOST_KEYS {
            return Err(Error::invalid(format!("the archive {} holds more than {MOST_KEYS} keys; name a smaller one", archive.location)));
        }
    }
    Ok(spans)
}

fn add(spans: &mut Spans, archive: &Table, grid: SlotGrid, batch: &RecordBatch) -> Result<()> {
    let keys = rollup::key_columns(archive, batch)?;
    let times = times(archive, batch)?;
    let mut row = 0;
    while row < batch.num_rows() {
        // Rows of one key mostly follow each other: one look-up for each run of them.
        let same_key = |other: usize| keys.iter().all(|column| column.value(other) == column.value(row));
        let end = (row + 1..batch.num_rows()).find(|&other| !same_key(other)).unwrap_or(batch.num_rows());
        let slots = (row..end).filter(|&row| times.is_valid(row)).map(|row| grid.slot_of_seconds(times.value(row).div_euclid(1_000_000)));
        let run = slots.fold(None, |run: Option<(i64, i64)>, slot| Some(run.map_or((slot, slot), |(a, b)| (a.min(slot), b.max(slot)))));
        if let Some((first, last)) = run {
            let key = Key::new(keys.iter().map(|column| column.value(row)));
            let span = spans.entry(key).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
        row = end;
    }
    Ok(())
}

fn times<'a>(table: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    let column = rollup::column(batch, &table.time)?;
    column.as_any().downcast_ref().ok_or_else(|| Error::invalid(format!("the time column `{}` is not microseconds", table.time)))
}

/// The days from a first slot to a last, whole; but of a day that is not over, only what lies before the end of the last slot.
fn whole_days(grid: SlotGrid, (first, last): (i64, i64), now: Timestamp) -> Result<Interval> {
    let day_after = day_start(utc_date(grid.start_of(last)).tomorrow().map_err(out_of_range)?)?;
    let to = if day_after > now { grid.start_of(last.saturating_add(1)) } else { day_after };
    Interval::new(day_start(utc_date(grid.start_of(first)))?, to)
}

fn out_of_range(error: jiff::Error) -> Error {
    Error::invalid("the last row of the archive is out of the range of dates").because(error)
}

#[async_trait]
impl Source for Archive {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let archive = self.table(&request.table);
        let grid = archive.grid()?;
        let spans = self.spans(context.lake.as_ref(), &archive).await?;
        let now = context.clock.now();
        let mut known = Vec::new();
        for key in &request.keys {
            if let Some(&span) = spans.get(key) {
                known.push((key, whole_days(grid, span, now)?));
            }
        }
        let covered: Vec<Covered> = known
            .iter()
            .filter_map(|(key, span)| Some(Covered { key: (*key).clone(), interval: span.intersection(&request.interval)? }))
            .collect();
        let said = self.said(request.keys.len(), &known);
        // Also where it does not vouch: rows that came to the archive since it was looked through are as good as others.
        let rows = read(context.lake.as_ref(), &archive, request).await?;
        Ok(Answer { rows, covered, requests: 1, said })
    }
}

/// The rows that a request is about, each key's in order of time.
async fn read(lake: &dyn Lake, archive: &Table, request: &Request) -> Result<Vec<RecordBatch>> {
    let columns = columns(lake, archive, &request.table).await?;
    let scan = ScanRequest { layer: Layer::Raw, interval: Some(request.interval), keys: Some(request.keys.clone()), columns };
    let batches: Vec<RecordBatch> =
        async { lake.scan(archive, &scan).await?.try_collect().await }.await.map_err(|error| of_the_archive(archive, error))?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let rows = concat_batches(first.schema_ref(), &batches)?;
    let mut order = Vec::with_capacity(archive.key.len() + 1);
    for name in archive.key.iter().chain([&archive.time]) {
        order.push(SortColumn { values: rollup::column(&rows, name)?.clone(), options: None });
    }
    Ok(vec![take_record_batch(&rows, &lexsort_to_indices(&order, None)?)?])
}

/// The columns of the archive that the table has too, besides key and time; all of them if the table has no file yet that could tell.
async fn columns(lake: &dyn Lake, archive: &Table, table: &Table) -> Result<Option<Vec<String>>> {
    let wanted = match lake.describe(table).await {
        Ok(schema) => schema,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let there = lake.describe(archive).await.map_err(|error| of_the_archive(archive, error))?;
    let is_value = |name: &String| *name != table.time && !table.key.contains(name);
    let names = there.fields().iter().map(|field| field.name().clone());
    Ok(Some(names.filter(|name| is_value(name) && wanted.field_with_name(name).is_ok()).collect()))
}
