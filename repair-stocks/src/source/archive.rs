//! The source `stocks.archive`: a folder of rows that is kept elsewhere, such as a vendor's files of last year.
//!
//! It vouches for whole days. An archive is filled day by day, and a stock rarely trades in the first or last minute of a day, so the days of
//! its rows show what the archive covers better than their exact times. For a stock, the archive vouches from the beginning of the first UTC
//! day with a row to the end of the last. For a day that is not over yet, it vouches up to the last row, because the rest may still arrive.
//! For a stock without any row, it vouches for nothing.
//!
//! An archive with rows that cannot be read, and are left out as `on_bad_row` of the table says, vouches for nothing: any missing row may be one of them.
//! Nor are rows used that lie in the folder of a time far from theirs. Where these could be rows, it does not vouch either.
//!
//! A day within that span that the archive lost looks like a day on which the stock did not trade. If all stocks miss the day, the
//! `quiet_spell` of the repair step keeps such a silence from being believed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Lake, Layer, ScanRequest, rollup, shape};
use repair_core::model::{Csv, Format, Interval, Key, Partition, PartitionUnit, Rows, SlotGrid, Table, TimeReading};
use repair_core::model::{day_start, utc_date};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext, strays};
use repair_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::astray::{self, Astray};

/// How many keys an archive may have. The span of each is kept in memory, at about 200 bytes, and more is surely not an archive of series.
const MOST_KEYS: usize = 1_000_000;

/// How many rows one request may return unless the configuration says otherwise: about 40 MB of bars.
const ROWS_PER_REQUEST: u64 = 500_000;

/// The configuration of `stocks.archive`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ArchiveConfig {
    /// The folder (or one file) of the archive, absolute or within the lake. Its rows have the columns of the repaired table.
    #[serde(default)]
    pub location: Option<String>,
    /// In place of `location`: a table of the workflow that is the archive, and says all by itself how its files lie and are written. Its key and its time have the names that
    /// they have in the repaired table.
    #[serde(default)]
    #[schemars(extend("x-names" = "table"))]
    pub table: Option<String>,
    /// The format of its files; default parquet.
    #[serde(default)]
    pub format: Option<Format>,
    /// How its folders are partitioned by time, written as for a table: `[{ date: day }]`.
    #[serde(default)]
    pub partition_by: Option<Vec<BTreeMap<String, PartitionUnit>>>,
    /// Files below it that hold no rows, as globs; default none.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The most rows that one request may return; default 500,000. A request reads each file of its stretch once, however many keys it names.
    /// One bad row spoils the whole answer, and an answer is held in memory.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// The most keys that one request may name; any number by default.
    #[serde(default)]
    pub keys_per_request: Option<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.source("stocks.archive", "a folder of bars", |config: ArchiveConfig| Archive::new(&config));
}

/// The source `stocks.archive`.
struct Archive {
    place: Place,
    limits: Limits,
    /// What is known of the archive, by the table it was requested for. It is looked up once, and kept for the life of the source.
    known: Mutex<HashMap<Table, Arc<Known>>>,
    /// The columns to read for a table that was repaired, looked up once.
    columns: Mutex<HashMap<Table, Vec<String>>>,
}

/// Where an archive is, and what is said of its files.
enum Place {
    /// In a folder.
    Folder { location: String, format: Option<Format>, partition_by: Vec<Partition>, ignore: Vec<String> },
    /// It is a table of the workflow, of this name.
    Table(String),
}

/// The first and the last slot of each key of an archive.
type Spans = BTreeMap<Key, (i64, i64)>;

/// What was found of an archive before anything was requested from it.
struct Known {
    /// The archive as a table, read in the way that fits its files.
    archive: Table,
    spans: Spans,
    /// Why it does not vouch for everything, in words; `None` if all of its rows are used.
    doubt: Option<String>,
    /// Where it does not, if that is not everywhere.
    astray: Option<Astray>,
}

impl Known {
    /// The parts of an interval for which it vouches.
    fn vouched(&self, key: &Key, interval: Interval) -> Vec<Interval> {
        match (&self.doubt, &self.astray) {
            (None, _) => vec![interval],
            (Some(_), Some(astray)) => astray.without(key, interval),
            (Some(_), None) => Vec::new(),
        }
    }
}

impl Archive {
    fn new(config: &ArchiveConfig) -> Result<Self> {
        let of_folder = config.format.is_some() || config.partition_by.is_some() || !config.ignore.is_empty();
        let place = match (&config.location, &config.table) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("`location` and `table` are both given, and each says where the archive is; keep one of them"));
            }
            (None, None) => {
                return Err(Error::invalid(
                    "nothing says where the archive is; give `location`, its folder, or `table`, a table of the workflow",
                ));
            }
            (None, Some(table)) if of_folder => {
                return Err(Error::invalid(format!(
                    "table `{table}` says itself what its files are; remove `format`, `partition_by` and `ignore` from the source"
                )));
            }
            (None, Some(table)) => Place::Table(table.clone()),
            (Some(location), None) if location.trim().is_empty() => {
                return Err(Error::invalid("`location` is empty; name the folder of the archive"));
            }
            (Some(location), None) => Place::Folder {
                location: location.clone(),
                format: config.format,
                partition_by: partitions(config.partition_by.as_deref().unwrap_or_default())?,
                ignore: config.ignore.clone(),
            },
        };
        Ok(Self {
            place,
            limits: super::limits(config.rows_per_request.or(Some(ROWS_PER_REQUEST)), config.keys_per_request.or(Some(usize::MAX)))?,
            known: Mutex::default(),
            columns: Mutex::default(),
        })
    }

    /// The archive as a table like the repaired one. How its files are written is what the archive says itself and, where it says nothing, what the repaired table says, or else
    /// what is usual: the first of these that fits.
    fn tables(&self, context: &StepContext, like: &Table) -> Result<Vec<Table>> {
        let (location, format, partition_by, ignore) = match &self.place {
            Place::Folder { location, format, partition_by, ignore } => (location, format.unwrap_or(Format::Parquet), partition_by, ignore),
            Place::Table(name) => return Ok(vec![of_workflow(context.table(name)?, like)?]),
        };
        let as_table = Table {
            name: format!("{}_archive", like.name),
            location: location.clone(),
            format,
            partition_by: partition_by.clone(),
            // What is no row of the table may be one of the archive.
            ignore: ignore.clone(),
            csv: if format == Format::Csv { like.csv.clone() } else { Csv::default() },
            layout: like.layout.clone().filter(|_| partition_by.is_empty()),
            ..like.clone()
        };
        let plain_time = |table: &Table| {
            let reading = TimeReading::default();
            let reading = table.reading.zone.clone().map_or(reading.clone(), |zone| reading.with_zone(zone));
            Table { reading, ..table.clone() }
        };
        let plain_folders = |table: &Table| Table { layout: None, ..table.clone() };
        let mut all = vec![as_table.clone(), plain_time(&as_table), plain_folders(&as_table), plain_folders(&plain_time(&as_table))];
        let mut seen: Vec<Table> = Vec::new();
        all.retain(|table| {
            let is_new = !seen.contains(table);
            seen.push(table.clone());
            is_new
        });
        Ok(all)
    }

    /// The span of each key, and which rows are not used. Requests that arrive during the look-up wait for it.
    async fn known(&self, context: &StepContext, like: &Table) -> Result<Arc<Known>> {
        let mut known = self.known.lock().await;
        if let Some(of_archive) = known.get(like) {
            return Ok(of_archive.clone());
        }
        let mut first: Option<Error> = None;
        let mut fitting = None;
        for archive in self.tables(context, like)? {
            match look(context.lake.as_ref(), &archive).await.map_err(|error| of_the_archive(&archive, error)) {
                Ok(spans) => {
                    fitting = Some((archive, spans));
                    break;
                }
                // Files that are written in another way, or of which more rows cannot be read than may be.
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Blind) => first = first.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let Some((archive, spans)) = fitting else {
            return Err(first.unwrap_or_else(|| Error::internal("there is no way to read an archive")));
        };
        let of = format!("the archive {}", archive.location);
        let (doubt, _) = context.doubt(&archive, &of).await.map_err(|error| of_the_archive(&archive, error))?;
        let astray = match &doubt {
            Some(_) => astray(context, &archive).await.map_err(|error| of_the_archive(&archive, error))?,
            None => None,
        };
        let nothing = match &astray {
            Some(_) => "anything is absent at their times or in those of their folders",
            None => "anything is absent",
        };
        let doubt = doubt.map(|doubt| format!("{doubt}, so it does not say that {nothing}"));
        let of_archive = Arc::new(Known { archive, spans, doubt, astray });
        known.insert(like.clone(), of_archive.clone());
        Ok(of_archive)
    }

    /// The columns to read for a table, see [`columns`].
    async fn columns(&self, lake: &dyn Lake, archive: &Table, table: &Table) -> Result<Option<Vec<String>>> {
        let mut known = self.columns.lock().await;
        if let Some(columns) = known.get(table) {
            return Ok(Some(columns.clone()));
        }
        let columns = columns(lake, archive, table).await?;
        // A table without files gets its columns by the first repair.
        known.extend(columns.clone().map(|columns| (table.clone(), columns)));
        Ok(columns)
    }

    /// The answer in words, which is kept as evidence.
    fn said(archive: &Table, keys: usize, known: &[(&Key, Interval)]) -> String {
        let location = &archive.location;
        let hull = known.iter().map(|(_, span)| *span).reduce(|all, span| all.hull(&span));
        match (known, hull) {
            ([(key, span)], _) if keys == 1 => format!("the archive {location}, which holds {key} from {span}"),
            (_, Some(hull)) => {
                format!("the archive {location}, which holds {} of the {keys} requested keys from {hull}", known.len())
            }
            (_, None) => format!("the archive {location}, which holds none of the requested keys"),
        }
    }
}

/// A table of the workflow as the archive of another one: its files are as it says, and its rows are those of the other.
///
/// # Errors
/// `invalid` if its key or its time has another name.
fn of_workflow(own: &Table, like: &Table) -> Result<Table> {
    let named = |what: &str, own: String, other: String| {
        Error::invalid(format!(
            "the archive has {what} `{own}`, and table `{}` has `{other}`; give it the same name, by `path` under `columns` or by `name` under `time`",
            like.name
        ))
    };
    if own.time != like.time {
        return Err(named("the time", own.time.clone(), like.time.clone()).on("table", &own.name));
    }
    let (mut of_own, mut of_like) = (own.key.clone(), like.key.clone());
    of_own.sort_unstable();
    of_like.sort_unstable();
    if of_own != of_like {
        return Err(named("the key", own.key.join(", "), like.key.join(", ")).on("table", &own.name));
    }
    Ok(Table {
        name: own.name.clone(),
        location: own.location.clone(),
        format: own.format,
        ignore: own.ignore.clone(),
        csv: own.csv.clone(),
        nulls: own.nulls.clone(),
        columns: own.columns.clone(),
        on_bad_row: own.on_bad_row,
        partition_by: own.partition_by.clone(),
        layout: own.layout.clone(),
        slack: own.slack,
        reading: own.reading.clone(),
        // What a day is, is said of the rows.
        zone: Some(like.day_zone()),
        ..like.clone()
    })
}

/// Reads `partition_by`, written as for a table of a workflow.
fn partitions(entries: &[BTreeMap<String, PartitionUnit>]) -> Result<Vec<Partition>> {
    let columns: Vec<Partition> = entries.iter().flatten().map(|(column, &unit)| Partition { column: column.clone(), unit }).collect();
    match columns.len() {
        0 | 1 => Ok(columns),
        _ => Err(Error::invalid("`partition_by` can have one column only; keep the one with the finest unit, e.g. `[{ date: day }]`")),
    }
}

/// Rewords an error of the lake, which sees the archive as a table, for the author of the workflow, who sees a source with a `location`.
fn of_the_archive(archive: &Table, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error.on("archive", &archive.location);
    }
    let endings: Vec<String> = archive.format.endings().iter().map(|ending| format!(".{ending}")).collect();
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no archive at the source's `location`, `{}` (within the lake, unless it is absolute), or it holds no {} files; put it \
             there, or correct `location` or `format` of the source",
            archive.location,
            endings.join(", ")
        ),
    )
}

/// What the rows that are not used could be; `None` if they could be anything, as those that cannot be read.
async fn astray(context: &StepContext, archive: &Table) -> Result<Option<Astray>> {
    let (left_out, _) = context.left_out(archive).await?;
    if left_out.rows() > 0 {
        return Ok(None);
    }
    let (strays, _) = strays(context.lake.as_ref(), archive).await?;
    astray::of(context.lake.as_ref(), archive, &strays).await
}

/// Reads the keys and times of an archive.
async fn look(lake: &dyn Lake, archive: &Table) -> Result<Spans> {
    let grid = grid(archive)?;
    let request = ScanRequest::new(Layer::Raw).with_columns(Vec::new());
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

/// What the rows of an archive are numbered by.
fn grid(archive: &Table) -> Result<SlotGrid> {
    if archive.rows == Rows::Unique { Ok(archive.identity().grid()) } else { archive.grid() }
}

fn add(spans: &mut Spans, archive: &Table, grid: SlotGrid, batch: &RecordBatch) -> Result<()> {
    let rows = KeyTime { keys: rollup::key_columns(archive, batch)?, times: times(archive, batch)? };
    for run in rows.runs() {
        let slots = run.clone().filter(|&row| rows.times.is_valid(row)).filter_map(|row| grid.slot_of_row(rows.times.value(row)));
        let hull = slots.fold(None, |hull: Option<(i64, i64)>, slot| Some(hull.map_or((slot, slot), |(a, b)| (a.min(slot), b.max(slot)))));
        let Some((first, last)) = hull else { continue };
        let key = if archive.rows == Rows::Unique { Key::default() } else { rows.key(run.start) };
        let span = spans.entry(key).or_insert((first, last));
        *span = (span.0.min(first), span.1.max(last));
    }
    Ok(())
}

pub(super) fn times<'a>(table: &Table, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    let column = rollup::column(batch, &table.time)?;
    column.as_any().downcast_ref().ok_or_else(|| Error::invalid(format!("the time column `{}` does not hold microseconds", table.time)))
}

/// The whole days from a first slot to a last one. A day that is not over ends with the last slot.
fn whole_days(grid: SlotGrid, (first, last): (i64, i64), now: Timestamp) -> Result<Interval> {
    let day_after = day_start(utc_date(grid.start_of(last)).tomorrow().map_err(out_of_range)?)?;
    let to = if day_after > now { grid.start_of(last.saturating_add(1)) } else { day_after };
    Interval::new(day_start(utc_date(grid.start_of(first)))?, to)
}

fn out_of_range(error: jiff::Error) -> Error {
    Error::invalid("the last row of the archive lies beyond the range of dates").because(error)
}

#[async_trait]
impl Source for Archive {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn doubt(&self, context: &StepContext, table: &Table) -> Result<Option<String>> {
        Ok(self.known(context, table).await?.doubt.clone())
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let of_archive = self.known(context, &request.table).await?;
        let archive = &of_archive.archive;
        let grid = grid(archive)?;
        let now = context.clock.now();
        let mut known = Vec::new();
        // Where the key alone identifies a row, the days of the archive are those of all keys.
        let all = [Key::default()];
        let keys = if archive.rows == Rows::Unique { &all[..] } else { &request.keys };
        for key in keys {
            if let Some(&span) = of_archive.spans.get(key) {
                known.push((key, whole_days(grid, span, now)?));
            }
        }
        let covered: Vec<Covered> = known
            .iter()
            .filter_map(|(key, span)| Some((*key, span.intersection(&request.interval)?)))
            .flat_map(|(key, interval)| {
                let vouched = of_archive.vouched(key, interval).into_iter();
                vouched.map(|interval| Covered { key: key.clone(), interval })
            })
            .collect();
        let said = match known.first() {
            Some((_, span)) if archive.rows == Rows::Unique => format!("the archive {}, which holds rows from {span}", archive.location),
            _ => Self::said(archive, request.keys.len(), &known),
        };
        let said = match &of_archive.doubt {
            Some(doubt) => format!("{said}; {doubt}"),
            None => said,
        };
        // Rows are read even where the archive does not vouch: those that arrived since the look-up are as good as others.
        let columns = self.columns(context.lake.as_ref(), archive, &request.table).await?;
        let rows = read(context.lake.as_ref(), archive, request, columns).await?;
        Ok(Answer::new(rows).with_covered(covered).with_said(said))
    }
}

/// The requested rows, in order of key, then time.
async fn read(lake: &dyn Lake, archive: &Table, request: &Request, columns: Option<Vec<String>>) -> Result<Vec<RecordBatch>> {
    let keys = (archive.rows != Rows::Unique).then(|| request.keys.clone());
    let scan = ScanRequest::new(Layer::Raw).in_interval(request.interval).of_keys(keys).with_columns(columns);
    let batches: Vec<RecordBatch> =
        async { lake.scan(archive, &scan).await?.try_collect().await }.await.map_err(|error| of_the_archive(archive, error))?;
    in_order(archive, &batches)
}

/// Rows in order of key, then time. Files mostly hold the rows of a key together and in order of time, so such runs are moved as a whole.
fn in_order(archive: &Table, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let schema = first.schema();
    let Some(runs) = runs(archive, batches)? else {
        let rows = concat_batches(&schema, batches)?;
        let mut order = Vec::with_capacity(archive.key.len() + 1);
        for name in archive.key.iter().chain([&archive.time]) {
            order.push(SortColumn { values: rollup::column(&rows, name)?.clone(), options: None });
        }
        return Ok(vec![take_record_batch(&rows, &lexsort_to_indices(&order, None)?)?]);
    };
    let slices: Vec<RecordBatch> =
        runs.into_iter().filter_map(|run| Some(batches.get(run.batch)?.slice(run.rows.start, run.rows.len()))).collect();
    Ok(vec![concat_batches(&schema, &slices)?])
}

/// Rows of one key that follow each other, in order of time.
struct Run {
    key: Key,
    first_us: i64,
    last_us: i64,
    batch: usize,
    rows: Range<usize>,
}

/// The runs of batches, in order of key, then time; `None` if the rows of a key are not in order, or its runs overlap.
fn runs(archive: &Table, batches: &[RecordBatch]) -> Result<Option<Vec<Run>>> {
    let mut runs = Vec::new();
    for (batch, rows) in batches.iter().enumerate() {
        let rows = KeyTime { keys: rollup::key_columns(archive, rows)?, times: times(archive, rows)? };
        if rows.times.null_count() > 0 {
            return Ok(None);
        }
        for run in rows.runs() {
            let Some(times) = rows.times.values().get(run.clone()).filter(|times| times.is_sorted()) else { return Ok(None) };
            let (Some(&first_us), Some(&last_us)) = (times.first(), times.last()) else { continue };
            runs.push(Run { key: rows.key(run.start), first_us, last_us, batch, rows: run });
        }
    }
    runs.sort_by(|one, other| one.key.cmp(&other.key).then(one.first_us.cmp(&other.first_us)));
    let are_apart = |pair: &[Run]| matches!(pair, [one, next] if one.key != next.key || one.last_us <= next.first_us);
    Ok(runs.windows(2).all(are_apart).then_some(runs))
}

/// The columns of the archive that the table also has, without key and time; `None`, for all columns, if the table has no file yet.
async fn columns(lake: &dyn Lake, archive: &Table, table: &Table) -> Result<Option<Vec<String>>> {
    let wanted = match lake.describe(table).await {
        Ok(schema) => schema,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let there = lake.describe(archive).await.map_err(|error| of_the_archive(archive, error))?;
    let is_value = |name: &String| *name != table.time && !table.key.contains(name);
    let mut names = Vec::new();
    // By the table's own names, which may differ in case.
    for name in wanted.fields().iter().map(|field| field.name()).filter(|name| is_value(name)) {
        if shape::find(&there, name).map_err(|error| of_the_archive(archive, error))?.is_some() {
            names.push(name.clone());
        }
    }
    Ok(Some(names))
}
