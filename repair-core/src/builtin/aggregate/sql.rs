//! The aggregator `sql`: writes the result of a query over the workflow's tables as a table.

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{max, min};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::builtin::aggregate::unseen::Unseen;
use crate::builtin::sql;
use crate::builtin::target;
use crate::builtin::target::target;
use crate::error::{Error, Result};
use crate::lake::{rollup, shape};
use crate::model::Usage;
use crate::model::{Interval, Moment, Table};
use crate::plugin::{AggregateRequest, Aggregated, Aggregator, LEFT_OUT, PluginKind, QueryRows, Registry, StepContext, UserQuery};

/// The maximum number of rows of a result, which is held in memory because each partition is replaced as a whole.
const MOST_ROWS: usize = 5_000_000;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlConfig {
    /// The query, in the lake's own dialect. Every table has its own name, and its repaired view has that name with `_repaired`.
    pub query: String,
    /// Values that the query may name, as `:name`, beside `:now`, the parameters of the run, and `:from` and `:to` if they are given here.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// The table to write: one of `tables`, or a new one, which gets a folder of that name.
    #[serde(deserialize_with = "target::into_name")]
    pub into: String,
    /// For a partitioned table, where to start replacing partitions: a date (of its folders, UTC), an instant, or relative to the run's now,
    /// such as `yesterday`. By default, the partition of the first row.
    #[serde(default)]
    pub from: Option<String>,
    /// For a partitioned table, where to stop replacing partitions: a date (included), an instant (not included), or relative to the run's now.
    /// By default, the partition of the last row.
    #[serde(default)]
    pub to: Option<String>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.aggregator("sql", "writes the result of a query as a table", |config: SqlConfig| {
        match (&config.from, &config.to) {
            (Some(from), Some(to)) => Interval::check(from, to)?,
            (None, None) => {}
            _ => return Err(Error::invalid("only one of `from` and `to` is given; give both or neither")),
        }
        sql::check(&config.query, &[], &config.values)?;
        Ok(Sql { config })
    });
    registry.takes_unique_rows(PluginKind::Aggregator, "sql");
}

/// The aggregator `sql`.
struct Sql {
    config: SqlConfig,
}

#[async_trait]
impl Aggregator for Sql {
    fn check(&self, tables: &BTreeMap<String, Table>, read: Option<&str>) -> Result<()> {
        target(tables, &self.config.into, read, || Table::implicit(&self.config.into, "time")).map(drop)
    }

    fn query(&self) -> Option<UserQuery<'_>> {
        Some(UserQuery {
            sql: &self.config.query,
            lake: None,
            values: &self.config.values,
            has_interval: self.config.from.is_some(),
            relations: &[],
            rows: QueryRows::Into(&self.config.into),
        })
    }

    fn needs_gaps(&self) -> bool {
        false
    }

    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated> {
        let read = request.findings.map(|findings| findings.scope.table.as_str());
        // Checked before the query, which may take long. The time column of a new table is only known after it.
        let mut into = target(&context.tables, &self.config.into, read, || Table::implicit(&self.config.into, "time"))?;
        let asked = match (&self.config.from, &self.config.to) {
            (Some(from), Some(to)) => Some(folders(from, to, &into, context.now)?),
            _ => None,
        };
        let unseen = Unseen::look(context, &self.config.query, request.findings, asked).await?;
        let values = sql::values(context, asked.as_ref(), &self.config.values);
        let mut result = sql::ask(context, &self.config.query, values, BTreeMap::new()).await?;
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut rows = 0;
        while let Some(batch) = result.try_next().await? {
            context.check_cancelled()?;
            rows += batch.num_rows();
            if rows > MOST_ROWS {
                return Err(Error::invalid(format!(
                    "the query returned more than {MOST_ROWS} rows; aggregate further, or write them in several steps"
                )));
            }
            batches.push(batch);
        }
        let mut implied_time = None;
        if let Some(batch) = batches.first() {
            let is_new = !context.tables.contains_key(&self.config.into);
            check_selected(&into, is_new, batch.schema_ref())?;
            into.time = time_of(&into, is_new, batch.schema_ref())?;
            implied_time = is_new.then(|| into.time.clone());
        }
        let batches = batches.iter().map(|batch| sql::in_shape(&into, batch)).collect::<Result<Vec<_>>>()?;
        let interval = match asked {
            Some(interval) => Some(interval),
            None => hull(&into, &batches)?,
        };
        let usage = match interval {
            Some(interval) => context.lake.replace(&into, &interval, batches).await?,
            // Without rows, the partitions to replace are unknown. A table without partitions becomes empty.
            None if into.partition_by.is_empty() => context.lake.replace(&into, &everything()?, batches).await?,
            None => Usage::default(),
        };
        let mut output = json!({ "rows": rows, "table": into.name, "location": into.location });
        // Nothing else says so later.
        if let Some(time) = implied_time {
            output["time"] = json!(time);
        }
        if !unseen.tables.is_empty() {
            output[LEFT_OUT] = json!(unseen.tables);
        }
        Ok(Aggregated { output, usage: [usage, unseen.usage].into_iter().sum() })
    }
}

/// The interval from one bound to another. What is relative to now is a day or an instant of the table's zone; a day then means the folder of
/// that date, which is a day in UTC: replacing a part of a folder would remove the rest of it.
fn folders(from: &str, to: &str, into: &Table, now: Timestamp) -> Result<Interval> {
    let zone = into.day_zone();
    let fixed = |text: &str| -> Result<String> { Ok(text.parse::<Moment>()?.fixed(&zone, now)?.to_string()) };
    Interval::parse(&fixed(from)?, &fixed(to)?)
}

/// Which column of a result becomes the time column of the table.
fn time_of(into: &Table, is_new: bool, result: &SchemaRef) -> Result<String> {
    const HOW: &str = "e.g. `date_trunc('day', ts) AS day`";
    let columns = || result.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
    if is_new {
        return sql::first_time(result).ok_or_else(|| {
            Error::invalid(format!(
                "the query selects {}, none of which is an instant or a date, so the rows of `{}` would have no time; select one, {HOW}",
                columns(),
                into.name
            ))
        });
    }
    match shape::find(result, &into.time)? {
        Some(_) => Ok(into.time.clone()),
        None => Err(Error::invalid(format!(
            "the query selects {}, but not `{}`, the time column of table `{}`; select it, {}",
            columns(),
            into.time,
            into.name,
            HOW.replace("AS day", &format!("AS {}", into.time))
        ))),
    }
}

/// Checks that a result can be written to a table.
///
/// # Errors
/// `invalid` if it lacks the time or a key of the table; or, if the table is a new one, if it has no time.
pub(crate) fn check_selected(into: &Table, is_new: bool, result: &SchemaRef) -> Result<()> {
    time_of(into, is_new, result)?;
    match into.key.iter().find_map(|key| shape::find(result, key).map(|found| found.is_none().then_some(key)).transpose()) {
        Some(key) => Err(sql::not_selected(into, result, key?)),
        None => Ok(()),
    }
}

/// The interval from the time of the first row to that of the last.
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
        |error| Error::invalid(format!("column `{}` of the query holds a time that is out of range", table.time)).because(error);
    let from = Timestamp::from_microsecond(first).map_err(out_of_range)?;
    let to = Timestamp::from_microsecond(last).map_err(out_of_range)?.checked_add(SignedDuration::from_micros(1)).map_err(out_of_range)?;
    // A row that marks the end of its slot belongs to the slot before.
    let from = table.grid().map_or(from, |grid| from.min(grid.start_of(grid.slot_of(from))));
    Ok(Some(Interval::new(from, to)?))
}

fn everything() -> Result<Interval> {
    Interval::new(Timestamp::UNIX_EPOCH, Timestamp::MAX)
}
