//! The source `sql`: a user's query over the lake answers for rows that a table lacks.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::builtin::sql::{self, KEYS, Places};
use crate::error::{Error, Result};
use crate::model::{Key, Table};
use crate::plugin::{Answer, Covered, Limits, QueryRows, Registry, Request, Source, StepContext, UserQuery};

/// Rows that one query may bring, unless the source says.
const ROWS: u64 = 500_000;
/// Keys that one query may be asked for, unless the source says.
const KEYS_PER_QUERY: usize = 10_000;
/// The same of another lake, where they may have to be part of the statement.
const KEYS_ELSEWHERE: usize = 1_000;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlConfig {
    /// The query, in the lake's own dialect. It selects rows of the table that is to be repaired: its key columns, its time column, and its other columns.
    /// It is asked for the keys of the relation `$keys`, which has the key columns, and for times from `:from` on and before `:to`. Rows of other keys
    /// and times are left out.
    query: String,
    /// The profile of another lake that answers, in its own dialect; the query then sees the tables that say the same `lake`, and no others. By
    /// default, the lake that the workflow works on answers.
    #[serde(default)]
    #[schemars(extend("x-names" = "lake"))]
    lake: Option<String>,
    /// Values that the query may name, as `:name`, beside `:from`, `:to`, `:now` and the parameters of the run.
    #[serde(default)]
    values: BTreeMap<String, Value>,
    /// Whether what the query does not give did not happen. Otherwise it is only unknown, as it is while rows of its tables cannot be read, or lie too far from the folder of
    /// their time to be used; default false.
    #[serde(default)]
    complete: bool,
    /// Rows that one query may bring; default 500,000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    rows_per_query: Option<u64>,
    /// Keys that one query is asked for; default 10,000, or 1,000 of another lake.
    #[serde(default)]
    #[schemars(range(min = 1))]
    keys_per_query: Option<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.source("sql", "a query over tables of the lake", |config: SqlConfig| {
        sql::check(&config.query, &[KEYS], &config.values)?;
        if config.rows_per_query == Some(0) || config.keys_per_query == Some(0) {
            return Err(Error::invalid("`rows_per_query` and `keys_per_query` must be at least 1"));
        }
        Ok(Sql { config, doubt: OnceCell::new() })
    });
}

/// The source `sql`.
struct Sql {
    config: SqlConfig,
    doubt: OnceCell<Option<String>>,
}

impl Sql {
    /// Why what the query does not give may yet be in its tables, in words; `None` if it may not, or if nothing is concluded from that anyway. It is looked up once, and kept
    /// for the life of the source.
    async fn known_doubt(&self, context: &StepContext) -> Result<Option<String>> {
        let SqlConfig { query, lake, complete, .. } = &self.config;
        let look = async {
            match lake {
                _ if !complete => Ok(None),
                None => sql::doubt(context.lake.as_ref(), &context.tables, query).await,
                Some(profile) => {
                    let elsewhere = context.elsewhere(profile)?;
                    sql::doubt(elsewhere.lake().as_ref(), &elsewhere.tables, query).await
                }
            }
        };
        self.doubt.get_or_try_init(|| look).await.cloned()
    }
}

#[async_trait]
impl Source for Sql {
    fn limits(&self) -> Limits {
        let keys = if self.config.lake.is_some() { KEYS_ELSEWHERE } else { KEYS_PER_QUERY };
        Limits::new(self.config.rows_per_query.unwrap_or(ROWS), self.config.keys_per_query.unwrap_or(keys))
    }

    fn query(&self) -> Option<UserQuery<'_>> {
        let SqlConfig { query, values, lake, .. } = &self.config;
        Some(UserQuery { sql: query, lake: lake.as_deref(), values, has_interval: true, relations: &[KEYS], rows: QueryRows::Slots })
    }

    async fn doubt(&self, context: &StepContext, _: &Table) -> Result<Option<String>> {
        self.known_doubt(context).await
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        context.check_cancelled()?;
        let table = &request.table;
        let keys = sql::relation_of_keys(table, &request.keys)?;
        let values = sql::values(context, Some(&request.interval), &self.config.values);
        let relations = BTreeMap::from([(KEYS.to_owned(), keys)]);
        let mut batches = match &self.config.lake {
            None => sql::ask(context, &self.config.query, values, relations).await?,
            Some(profile) => {
                let elsewhere = context.elsewhere(profile)?;
                let asked = sql::ask_of(elsewhere.lake().as_ref(), &elsewhere.tables, &self.config.query, values, relations).await;
                asked.map_err(|error| error.on("lake", profile))?
            }
        };
        let grid = table.grid()?;
        let (asked, slots): (BTreeSet<&Key>, _) = (request.keys.iter().collect(), grid.slots_in(&request.interval));
        let (mut rows, mut count) = (Vec::new(), 0);
        let most = self.limits().rows_per_request;
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            count += batch.num_rows() as u64;
            if count > most {
                return Err(Error::invalid(format!(
                    "the query of the source gives more than {most} rows for {}; let it select rows of `$keys` from `:from` on and before `:to` only",
                    request.interval
                )));
            }
            let Places { rows: of_batch, places } = Places::of(table, grid, &batch)?;
            let is_asked: BooleanArray = places.iter().map(|(key, slot)| Some(asked.contains(key) && slots.contains(*slot))).collect();
            rows.push(filter_record_batch(&of_batch, &is_asked)?);
        }
        rows.retain(|rows| rows.num_rows() > 0);
        // A query gives its rows in any order, and a source answers in order of key and time.
        let rows = match rows.first().map(RecordBatch::schema) {
            Some(schema) => {
                let all = concat_batches(&schema, &rows)?;
                let column = |name: &String| all.column_by_name(name).map(|values| SortColumn { values: values.clone(), options: None });
                let order: Vec<SortColumn> = table.key.iter().chain([&table.time]).filter_map(column).collect();
                vec![take_record_batch(&all, &lexsort_to_indices(&order, None)?)?]
            }
            None => Vec::new(),
        };
        let doubt = self.known_doubt(context).await?;
        let covered = request
            .keys
            .iter()
            .filter(|_| self.config.complete && doubt.is_none())
            .map(|key| Covered { key: key.clone(), interval: request.interval });
        let said = match &doubt {
            Some(doubt) => format!("{count} rows of a query; {doubt}"),
            None => format!("{count} rows of a query"),
        };
        Ok(Answer::new(rows).with_covered(covered.collect()).with_said(said))
    }
}
