//! The aggregator `sql`: writes the result of a query over the workflow's tables as a table.

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

use crate::builtin::target;
use crate::builtin::target::target;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{BatchStream, overlay, rollup};
use crate::model::Usage;
use crate::model::{Interval, Table};
use crate::plugin::{AggregateRequest, Aggregated, Aggregator, Registry, StepContext};

/// Rows of a result: it is held in memory before it is written, because each partition is replaced as a whole.
const MOST_ROWS: usize = 5_000_000;

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlConfig {
    /// The query, in the lake's own dialect. Every table is there under its name, its repaired view under its name with `_repaired`.
    pub query: String,
    /// The table to write: one of `tables`, or a name for a new one, whose folder bears the name.
    #[serde(deserialize_with = "target::into_name")]
    pub into: String,
    /// Of a partitioned table, from when on partitions are replaced; from that of the first row unless given. A date or an instant.
    #[serde(default)]
    pub from: Option<String>,
    /// Of a partitioned table, until when partitions are replaced; to that of the last row unless given. A date (the whole of it) or an
    /// instant (not included).
    #[serde(default)]
    pub to: Option<String>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.aggregator("sql", "writes the result of a query as a table", |config: SqlConfig| {
        let interval = match (&config.from, &config.to) {
            (Some(from), Some(to)) => Some(Interval::parse(from, to)?),
            (None, None) => None,
            _ => return Err(Error::invalid("`from` and `to` belong together; give both or neither")),
        };
        Ok(Sql { config, interval })
    });
}

/// The aggregator `sql`.
struct Sql {
    config: SqlConfig,
    interval: Option<Interval>,
}

#[async_trait]
impl Aggregator for Sql {
    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated> {
        let read = request.findings.map(|findings| findings.scope.table.as_str());
        // Before the query, which may take long; which column tells the time of a new table is only known after it.
        let mut into = target(context, &self.config.into, read, || Table::implicit(&self.config.into, "time"))?;
        let mut result = query(context, &self.config.query).await?;
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut rows = 0;
        while let Some(batch) = result.try_next().await? {
            context.check_cancelled()?;
            rows += batch.num_rows();
            if rows > MOST_ROWS {
                return Err(Error::invalid(format!(
                    "the query has more than {MOST_ROWS} rows; sum up further, or write it in several steps"
                )));
            }
            batches.push(batch);
        }
        if let Some(batch) = batches.first() {
            let is_new = !context.tables.contains_key(&self.config.into);
            into.time = time_of(&into, is_new, batch.schema_ref())?;
        }
        let batches = batches.iter().map(|batch| in_shape(&into, batch)).collect::<Result<Vec<_>>>()?;
        let interval = match self.interval {
            Some(interval) => Some(interval),
            None => hull(&into, &batches)?,
        };
        let usage = match interval {
            Some(interval) => context.lake.replace(&into, &interval, batches).await?,
            // Without a row there is no telling which partitions it would have been about; a table without them is now empty.
            None if into.partition_by.is_empty() => context.lake.replace(&into, &everything()?, batches).await?,
            None => Usage::default(),
        };
        Ok(Aggregated { output: json!({ "rows": rows, "table": into.name, "location": into.location }), usage })
    }
}

/// Runs a query over the tables that are there: one that is only about to be written, by this step or a later one, is left out.
async fn query(context: &StepContext, sql: &str) -> Result<BatchStream> {
    let (mut tables, mut not_there): (Vec<Table>, Vec<&str>) = Default::default();
    for table in context.tables.values() {
        match context.lake.describe(table).await {
            Ok(_) => tables.push(table.clone()),
            Err(error) if error.kind() == ErrorKind::NotFound => not_there.push(&table.name),
            Err(error) => return Err(error.on("table", &table.name)),
        }
    }
    context.lake.query(&tables, sql).await.map_err(|error| match not_there.as_slice() {
        [] => error,
        names => error.on("tables that hold nothing yet", names.join(", ")),
    })
}

/// Which column of a result tells the time of the table that it becomes.
fn time_of(into: &Table, is_new: bool, result: &SchemaRef) -> Result<String> {
    const HOW: &str = "e.g. `date_trunc('day', ts) AS day`";
    let columns = || result.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
    if is_new {
        return first_time(result).ok_or_else(|| {
            Error::invalid(format!(
                "the query selects {}, none of which is an instant or a date, so nothing tells the time of the rows of `{}`; select one, {HOW}",
                columns(),
                into.name
            ))
        });
    }
    match result.field_with_name(&into.time) {
        Ok(_) => Ok(into.time.clone()),
        Err(_) => Err(Error::invalid(format!(
            "the query selects {}, but not `{}`, the time of table `{}`; select it, {}",
            columns(),
            into.time,
            into.name,
            HOW.replace("AS day", &format!("AS {}", into.time))
        ))),
    }
}

/// The first column that holds instants or dates.
fn first_time(schema: &SchemaRef) -> Option<String> {
    let is_time = |field: &&Arc<Field>| matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    schema.fields().iter().find(is_time).map(|field| field.name().clone())
}

/// A result in the lake's shape: key columns as text, the time column as instants.
fn in_shape(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let kind = if *field.name() == table.time && first_time(&Arc::new(Schema::new(vec![field.clone()]))).is_some() {
            overlay::instant_type()
        } else if table.key.contains(field.name()) {
            DataType::Utf8
        } else {
            field.data_type().clone()
        };
        columns.push(cast_with_options(column, &kind, &strict).map_err(|error| {
            Error::invalid(format!("column `{}` of the query is {}, and cannot be written as {kind}", field.name(), field.data_type()))
                .because(error)
        })?);
        fields.push(Arc::new(field.as_ref().clone().with_data_type(kind)));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// From the first row's time to the last's.
fn hull(table: &Table, batches: &[RecordBatch]) -> Result<Option<Interval>> {
    let mut hull: Option<(i64, i64)> = None;
    for batch in batches {
        let Ok(column) = rollup::column(batch, &table.time) else { continue };
        let Some(times) = column.as_any().downcast_ref::<TimestampMicrosecondArray>() else { continue };
        if let (Some(first), Some(last)) = (min(times), max(times)) {
            hull = Some(hull.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
        }
    }
    let Some((first, last)) = hull else { return Ok(None) };
    let out_of_range =
        |error| Error::invalid(format!("column `{}` of the query is out of the range of instants", table.time)).because(error);
    let from = Timestamp::from_microsecond(first).map_err(out_of_range)?;
    let to = Timestamp::from_microsecond(last).map_err(out_of_range)?.checked_add(SignedDuration::from_micros(1)).map_err(out_of_range)?;
    // A row that marks the end of its slot belongs to the slot before.
    let from = match table.cadence {
        Some(cadence) => {
            from.checked_sub(SignedDuration::from_secs(i64::from(cadence.seconds()))).map_err(out_of_range)?.max(Timestamp::MIN)
        }
        None => from,
    };
    Ok(Some(Interval::new(
        if table.time_marks == crate::model::TimeMark::End { from } else { Timestamp::from_microsecond(first).map_err(out_of_range)? },
        to,
    )?))
}

fn everything() -> Result<Interval> {
    Interval::new(Timestamp::UNIX_EPOCH, Timestamp::MAX)
}
