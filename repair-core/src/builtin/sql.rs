//! What plug-ins that run a user's SQL share: the values that a query may name, and the places of the rows that it gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::builtin::{aggregate, repair};
use crate::engine::prepare::RowsOf;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::{Bound, Named, NamedKind, Relation, named};
use crate::lake::{BatchStream, Query, ReadLake, overlay, shape};
use crate::model::{Interval, Key, SlotGrid, SlotRange, Table};
use crate::plugin::{self, StepContext, named_in};

/// The relation of the slots that are to be repaired.
pub(super) const MISSING: &str = "missing";
/// The relation of the keys that a source is asked for.
pub(super) const KEYS: &str = "keys";

/// The values that a query of a step may name: `:now`, `:from` and `:to`, the parameters of the run, and those of `values`.
pub(super) fn values(context: &StepContext, interval: Option<&Interval>, own: &BTreeMap<String, Value>) -> BTreeMap<String, Bound> {
    let params = context.params.iter().chain(own).filter_map(|(name, value)| Some((name.clone(), Bound::of_json(value)?)));
    let mut all: BTreeMap<String, Bound> = params.collect();
    all.insert("now".to_owned(), Bound::Instant(context.now));
    if let Some(interval) = interval {
        all.insert("from".to_owned(), Bound::Instant(interval.from()));
        all.insert("to".to_owned(), Bound::Instant(interval.to()));
    }
    all
}

/// Checks the names of a query before anything is known: relations that a step does not give, and values that nobody does.
///
/// # Errors
/// `invalid` for a relation that is not among these, and for a value of `values` that no query could be given.
pub(super) fn check(query: &str, relations: &[&str], own: &BTreeMap<String, Value>) -> Result<()> {
    if query.trim().is_empty() {
        return Err(Error::invalid("`query` is empty; write a SELECT"));
    }
    if let Some((name, value)) = own.iter().find(|(_, value)| Bound::of_json(value).is_none()) {
        return Err(Error::invalid(format!("`{name}` under `values` is {value}, and must be a number, text, or true or false")));
    }
    let is_unknown = |named: &&Named<'_>| named.kind == NamedKind::Relation && !relations.contains(&named.name);
    match named(query).iter().find(is_unknown) {
        None => Ok(()),
        Some(Named { name, line, column, .. }) => {
            let there: Vec<String> = relations.iter().map(|name| format!("`${name}`")).collect();
            let there = if there.is_empty() { "there is none here".to_owned() } else { format!("there is {}", there.join(" and ")) };
            Err(Error::invalid(format!("line {line}, column {column} of the query names the relation `${name}`, and {there}")))
        }
    }
}

/// Runs a query over the tables that it can name and that exist. Tables that this step or a later one is yet to write are left out.
///
/// # Errors
/// Those of the lake.
pub(super) async fn ask(
    context: &StepContext,
    sql: &str,
    values: BTreeMap<String, Bound>,
    relations: BTreeMap<String, Relation>,
) -> Result<BatchStream> {
    ask_of(context.lake.as_ref(), &context.tables, sql, values, relations).await
}

/// The same, of a lake and its tables.
///
/// # Errors
/// Those of the lake.
pub(super) async fn ask_of(
    lake: &dyn ReadLake,
    all: &BTreeMap<String, Table>,
    sql: &str,
    values: BTreeMap<String, Bound>,
    relations: BTreeMap<String, Relation>,
) -> Result<BatchStream> {
    let (mut tables, mut not_there): (Vec<Table>, Vec<&str>) = Default::default();
    let text = sql.to_lowercase();
    for table in all.values().filter(|table| text.contains(&table.name.to_lowercase())) {
        match lake.describe(table).await {
            Ok(_) => tables.push(table.clone()),
            Err(error) if error.kind() == ErrorKind::NotFound => not_there.push(&table.name),
            Err(error) => return Err(error.on("table", &table.name)),
        }
    }
    let query = Query { values, relations, ..Query::new(&tables, sql) };
    lake.query(&query).await.map_err(|error| match not_there.as_slice() {
        [] => error,
        names => error.on("tables that do not exist yet", names.join(", ")),
    })
}

/// Converts a result to the lake's shape: key columns as text, the time column as instants. All other columns stay as they are.
///
/// # Errors
/// `invalid` if a column does not fit.
pub(super) fn in_shape(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let batch = &shape::in_workflow_names(table, batch)?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if *field.name() == table.time && *field.data_type() == DataType::Date32 {
            // A date begins in the zone of the table, which a cast does not know.
            columns.push(Arc::new(shape::instants(table, column)?));
            fields.push(Arc::new(field.as_ref().clone().with_data_type(overlay::instant_type())));
            continue;
        }
        let kind = if *field.name() == table.time && first_time(&Arc::new(Schema::new(vec![field.clone()]))).is_some() {
            overlay::instant_type()
        } else if table.key.contains(field.name()) {
            DataType::Utf8
        } else {
            shape::plain_type(field.data_type())
        };
        columns.push(cast_with_options(column, &kind, &strict).map_err(|error| {
            Error::invalid(format!("column `{}` of the query is {}, and cannot be written as {kind}", field.name(), field.data_type()))
                .because(error)
        })?);
        fields.push(Arc::new(field.as_ref().clone().with_data_type(kind)));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The first column that holds instants or dates.
pub(super) fn first_time(schema: &SchemaRef) -> Option<String> {
    let is_time = |field: &&Arc<Field>| matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    schema.fields().iter().find(is_time).map(|field| field.name().clone())
}

/// Says that a query does not select a column of a table that it must.
pub(super) fn not_selected(table: &Table, selected: &Schema, name: &str) -> Error {
    let what = if *name == table.time { "the time" } else { "a key" };
    let selected: Vec<String> = selected.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    Error::invalid(format!(
        "the query selects {}, but not `{name}`, {what} column of table `{}`; select it",
        selected.join(", "),
        table.name
    ))
}

/// Checks that a query selects what it must. `schema` has the columns of the table whose rows they are, if these are known.
///
/// # Errors
/// `invalid` if it lacks a column of its table that it must have, or has one that the table does not have.
pub fn check_selected(rows: &RowsOf, schema: Option<&Schema>, selected: &SchemaRef) -> Result<()> {
    match rows {
        RowsOf::Any => Ok(()),
        RowsOf::Slots(table) => check_slots(table, selected),
        RowsOf::Rows(table) => repair::sql::check_selected(table, schema, selected),
        RowsOf::Into(table) => aggregate::sql::check_selected(table, false, selected),
        RowsOf::IntoNew(name) => aggregate::sql::check_selected(&Table::implicit(name, "time"), true, selected),
    }
}

/// Checks that a result says of which slots of a table its rows are.
///
/// # Errors
/// `invalid` if it lacks the time or a key of the table.
pub(crate) fn check_slots(table: &Table, selected: &Schema) -> Result<()> {
    for name in table.key.iter().chain([&table.time]) {
        if shape::find(selected, name)?.is_none() {
            return Err(not_selected(table, selected, name));
        }
    }
    Ok(())
}

/// The rows of a result that are about slots of a table.
pub(super) struct Places {
    /// The rows, in shape.
    pub(super) rows: RecordBatch,
    /// The key and the slot of each.
    pub(super) places: Vec<(Key, i64)>,
}

impl Places {
    /// # Errors
    /// `invalid` if the query does not select the key and the time, or if one of them is null or off the grid.
    pub(super) fn of(table: &Table, grid: SlotGrid, batch: &RecordBatch) -> Result<Self> {
        let rows = in_shape(table, batch)?;
        check_slots(table, rows.schema_ref())?;
        let key_columns: Vec<&StringArray> =
            table.key.iter().filter_map(|name| rows.column_by_name(name)?.as_any().downcast_ref::<StringArray>()).collect();
        let times = rows.column_by_name(&table.time).and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>());
        let Some(times) = times.filter(|_| key_columns.len() == table.key.len()) else {
            return Err(Error::invalid(format!(
                "column `{}` of the query holds no instants; select the time column of table `{}` as it is",
                table.time, table.name
            )));
        };
        let mut places = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if times.is_null(row) || key_columns.iter().any(|column| column.is_null(row)) {
                return Err(Error::invalid(format!(
                    "row {} of the query has no value in its key or time, so it is about no slot of table `{}`",
                    row + 1,
                    table.name
                )));
            }
            let key = Key::new(key_columns.iter().map(|column| column.value(row)));
            let slot = grid.slot_of_row(times.value(row)).ok_or_else(|| {
                let time = jiff::Timestamp::from_microsecond(times.value(row)).unwrap_or(jiff::Timestamp::MAX);
                Error::invalid(format!("the query gives {time} for {key}, at which no slot of table `{}` lies", table.name))
            })?;
            places.push((key, slot));
        }
        Ok(Self { rows, places })
    }
}

/// Slots as a relation: the key columns, and the time.
pub(super) fn relation_of<'a>(table: &Table, grid: SlotGrid, slots: impl Iterator<Item = (&'a Key, SlotRange)>) -> Result<Relation> {
    let (mut keys, mut times): (Vec<&Key>, Vec<i64>) = Default::default();
    for (key, range) in slots {
        for slot in range.first..range.end {
            keys.push(key);
            times.push(grid.time_of(slot).as_microsecond());
        }
    }
    let mut fields: Vec<Field> = table.key.iter().map(|name| shape::key_field(name)).collect();
    fields.push(shape::time_field(table));
    let schema = Arc::new(Schema::new(fields));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(table.key.len() + 1);
    for at in 0..table.key.len() {
        columns.push(Arc::new(keys.iter().map(|key| key.values().nth(at)).collect::<StringArray>()));
    }
    columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
    Ok(Relation { rows: vec![RecordBatch::try_new(schema.clone(), columns)?], schema })
}

/// Keys as a relation.
pub(super) fn relation_of_keys(table: &Table, keys: &[Key]) -> Result<Relation> {
    let schema = Arc::new(Schema::new(table.key.iter().map(|name| shape::key_field(name)).collect::<Vec<_>>()));
    let column = |at: usize| Arc::new(keys.iter().map(|key| key.values().nth(at)).collect::<StringArray>()) as ArrayRef;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(keys.len()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), (0..table.key.len()).map(column).collect(), &options)?;
    Ok(Relation { schema, rows: vec![rows] })
}

/// Why what a query does not give may yet be there, in words: rows of the tables that it names are not used.
pub(super) async fn doubt(lake: &dyn ReadLake, tables: &BTreeMap<String, Table>, sql: &str) -> Result<Option<String>> {
    for table in named_in(tables, sql) {
        if let (Some(doubt), _) = plugin::doubt(lake, table, &format!("table `{}`", table.name)).await? {
            return Ok(Some(format!("{doubt}, so the query does not say that anything is absent")));
        }
    }
    Ok(None)
}
