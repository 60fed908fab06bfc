//! The repairer `sql`: the rows of a user's query are the fixes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::builtin::repair::by_day;
use crate::builtin::sql::{self, MISSING, Places};
use crate::error::{Error, Result};
use crate::lake::shape;
use crate::model::{Findings, Fix, Key, Table, Unit, Usage, Wanted};
use crate::plugin::{PlannedUnits, QueryRows, Reads, Registry, Repairer, StepContext, UserQuery};

const NAME: &str = "sql";

/// How many slots one query repairs, unless the step says. They are held in memory, and so are their rows.
const SLOTS_PER_QUERY: u64 = 500_000;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlConfig {
    /// The query, in the lake's own dialect. Each of its rows is a repaired row: the table's key columns, its time column, and any of its other columns.
    /// `$missing` is a relation of the slots to repair, with the key columns and the time column. A row that is not about one of them is an error.
    query: String,
    /// Values that the query may name, as `:name`, beside `:from`, `:to` (from the first slot to repair to the end of the last), `:now` and the parameters
    /// of the run.
    #[serde(default)]
    values: BTreeMap<String, Value>,
    /// How many slots one query repairs at most, but at least a day of one thousand keys; default 500,000.
    #[serde(default = "slots_per_query")]
    #[schemars(range(min = 1, max = 5_000_000))]
    slots_per_query: u64,
    /// What the repaired rows are said to come from; default `sql`.
    #[serde(default = "name")]
    source: String,
}

fn slots_per_query() -> u64 {
    SLOTS_PER_QUERY
}

fn name() -> String {
    NAME.to_owned()
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "takes the repaired rows from a query", |config: SqlConfig| {
        sql::check(&config.query, &[MISSING], &config.values)?;
        if !(1..=5_000_000).contains(&config.slots_per_query) {
            return Err(Error::invalid(format!("`slots_per_query` is {}, and must be between 1 and 5,000,000", config.slots_per_query)));
        }
        if config.source.trim().is_empty() {
            return Err(Error::invalid("`source` is empty; say what the rows come from, or leave it out"));
        }
        Ok(Sql { config })
    });
    registry.needs_one_row(crate::plugin::PluginKind::Repairer, NAME);
}

/// The repairer `sql`.
struct Sql {
    config: SqlConfig,
}

#[async_trait]
impl Repairer for Sql {
    fn query(&self) -> Option<UserQuery<'_>> {
        Some(UserQuery {
            sql: &self.config.query,
            lake: None,
            values: &self.config.values,
            has_interval: true,
            relations: &[MISSING],
            rows: QueryRows::Rows,
        })
    }

    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    fn reads(&self) -> Reads {
        Reads::EachUnit
    }

    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let days = by_day::units(findings.scope.grid, findings.gaps.iter());
        Ok(Box::new(Merged { days: days.peekable(), most: self.config.slots_per_query }))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        context.check_cancelled()?;
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let wanted: BTreeMap<&Key, &Wanted> = unit.wanted.iter().map(|wanted| (&wanted.key, wanted)).collect();
        let is_wanted = |key: &Key, slot: i64| {
            wanted.get(key).is_some_and(|wanted| wanted.slots.iter().any(|slots| slots.first <= slot && slot < slots.end))
        };
        let slots = unit.wanted.iter().flat_map(|wanted| wanted.slots.iter().map(|slots| (&wanted.key, *slots)));
        let missing = sql::relation_of(table, grid, slots)?;
        let values = sql::values(context, Some(&unit.interval), &self.config.values);
        let relations = BTreeMap::from([(MISSING.to_owned(), missing)]);
        let mut rows = sql::ask(context, &self.config.query, values, relations).await?;
        let schema = context.lake.describe(table).await?;
        let most: u64 = unit.wanted.iter().flat_map(|wanted| &wanted.slots).map(|slots| slots.len()).sum();
        let mut fix = Fix { source: self.config.source.clone(), ..Fix::default() };
        let mut seen: BTreeSet<(Key, i64)> = BTreeSet::new();
        while let Some(batch) = rows.try_next().await? {
            context.check_cancelled()?;
            let Places { rows, places } = Places::of(table, grid, &batch)?;
            let unusable = unusable(table, &schema, &rows)?;
            for (row, (key, slot)) in places.into_iter().enumerate() {
                let time = grid.time_of(slot);
                if !is_wanted(&key, slot) {
                    return Err(Error::invalid(format!(
                        "the query gives a row of {key} at {time}, which is not to be repaired; join it with `$missing`, so that it gives rows of these \
                         slots only"
                    )));
                }
                if let Some((_, why)) = unusable.as_ref().filter(|(at, _)| *at == row) {
                    return Err(Error::invalid(format!("the query gives {why} for {key} at {time}; leave such rows out, e.g. by `WHERE`")));
                }
                if !seen.insert((key.clone(), slot)) {
                    return Err(Error::invalid(format!("the query gives two rows of {key} at {time}; select one of them")));
                }
            }
            if seen.len() as u64 > most {
                return Err(Error::internal("a query gave more rows than there are slots"));
            }
            fix.rows.push(of_table(table, &schema, &rows)?);
        }
        fix.rows.retain(|rows| rows.num_rows() > 0);
        Ok(fix)
    }
}

/// The first row that would repair nothing, or would have to be repaired itself, and what it holds.
///
/// # Errors
/// `invalid` if the rows have no columns but those that say where they are.
fn unusable(table: &Table, schema: &Schema, rows: &RecordBatch) -> Result<Option<(usize, String)>> {
    let is_place = |name: &str| is_place(table, name);
    let values: Vec<(&str, &ArrayRef)> = rows
        .schema_ref()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().as_str(), column))
        .filter(|(name, _)| !is_place(name))
        .collect();
    // A table may hold nothing but what happened when.
    if schema.fields().iter().all(|field| is_place(field.name())) {
        return Ok(None);
    }
    if values.is_empty() {
        return Err(no_values(table));
    }
    let mut first: Option<(usize, String)> = None;
    let nulls: Vec<_> = values.iter().map(|(_, column)| column.logical_nulls()).collect();
    let is_empty = |row: usize| nulls.iter().all(|nulls| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)));
    if let Some(row) = (0..rows.num_rows()).find(|row| is_empty(*row)) {
        first = Some((row, "nothing but nulls".to_owned()));
    }
    for (name, column) in values.iter().filter(|(_, column)| column.data_type().is_floating()) {
        let floats = shape::cast_strict(column, &DataType::Float64)?;
        let floats = floats.as_primitive::<Float64Type>();
        let odd = (0..floats.len()).find(|&row| floats.is_valid(row) && !floats.value(row).is_finite());
        if let Some(row) = odd.filter(|row| first.as_ref().is_none_or(|(before, _)| row < before)) {
            first = Some((row, format!("{} as `{name}`", floats.value(row))));
        }
    }
    Ok(first)
}

/// The column of a table that a query selects.
fn column_of<'a>(table: &Table, schema: &'a Schema, selected: &str) -> Result<&'a Arc<Field>> {
    shape::find(schema, selected).map_err(|error| error.on("table", &table.name))?.ok_or_else(|| {
        Error::invalid(format!("the query selects `{selected}`, and table `{}` has no such column; {}", table.name, shape::names(schema)))
    })
}

fn is_place(table: &Table, name: &str) -> bool {
    name.eq_ignore_ascii_case(&table.time) || table.key.iter().any(|key| key.eq_ignore_ascii_case(name))
}

fn no_values(table: &Table) -> Error {
    Error::invalid(format!(
        "the query selects no columns but key and time, so its rows would repair nothing; select the values of table `{}`, too",
        table.name
    ))
}

/// Checks that the rows of a result are rows of a table. `schema` has the columns of the table, if these are known.
///
/// # Errors
/// `invalid` if it lacks a key or the time of the table, or has other columns than these, or none but these.
pub(crate) fn check_selected(table: &Table, schema: Option<&Schema>, result: &SchemaRef) -> Result<()> {
    sql::check_slots(table, result)?;
    let Some(schema) = schema else { return Ok(()) };
    result.fields().iter().try_for_each(|field| column_of(table, schema, field.name()).map(drop))?;
    let only_places = |schema: &Schema| schema.fields().iter().all(|field| is_place(table, field.name()));
    if only_places(result) && !only_places(schema) { Err(no_values(table)) } else { Ok(()) }
}

/// The columns of a result in the types of the table.
fn of_table(table: &Table, schema: &Schema, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(rows.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let own = column_of(table, schema, field.name())?;
        let typed = shape::cast_exact(column, own.data_type()).map_err(|error| {
            Error::invalid(format!(
                "column `{}` of the query is {}, and table `{}` holds {}; convert it, e.g. by `CAST`",
                field.name(),
                field.data_type(),
                table.name,
                own.data_type()
            ))
            .because(error)
        })?;
        columns.push(typed);
        let is_place = *own.name() == table.time || table.key.contains(own.name());
        fields.push(Arc::new(Field::new(own.name(), own.data_type().clone(), !is_place || own.is_nullable())));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Units of a day each, made into units of several days with as many slots as one query may repair.
struct Merged<I: Iterator> {
    days: std::iter::Peekable<I>,
    most: u64,
}

fn slots_of(unit: &Unit) -> u64 {
    unit.wanted.iter().flat_map(|wanted| &wanted.slots).map(|slots| slots.len()).sum()
}

impl<I: Iterator<Item = Result<Unit>>> Iterator for Merged<I> {
    type Item = Result<Unit>;

    fn next(&mut self) -> Option<Result<Unit>> {
        let mut unit = match self.days.next()? {
            Ok(unit) => unit,
            Err(error) => return Some(Err(error)),
        };
        let mut count = slots_of(&unit);
        let mut wanted: BTreeMap<Key, Vec<_>> =
            std::mem::take(&mut unit.wanted).into_iter().map(|wanted| (wanted.key, wanted.slots)).collect();
        while let Some(Ok(more)) = self.days.next_if(|next| next.as_ref().is_ok_and(|next| count + slots_of(next) <= self.most)) {
            count += slots_of(&more);
            unit.interval = unit.interval.hull(&more.interval);
            for more in more.wanted {
                wanted.entry(more.key).or_default().extend(more.slots);
            }
        }
        unit.wanted = wanted.into_iter().map(|(key, slots)| Wanted { key, slots }).collect();
        Some(Ok(unit))
    }
}
