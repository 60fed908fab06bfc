//! Whether queries of steps and sources name values, relations and columns that there are: as the workflow declares them, or as the lake has them. Nothing is run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use repair_core::builtin;
use repair_core::engine::prepare::{self, KnownQuery, Lakes, RowsOf};
use repair_core::lake::overlay;
use repair_core::lake::query::Relation;
use repair_core::lake::{Lake, Query, shape};
use repair_core::model::{ColumnType, Table};
use repair_core::plugin::Registry;
use repair_core::workflow::{Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};

/// The queries that name a column which none of their tables has, each as an error of its step. A query is left alone if it names a table whose
/// columns are not known: without a lake, those that the workflow does not list; with one, those that do not exist yet or that a step writes.
pub(crate) async fn unknown(
    registry: &Registry,
    workflow: &Workflow,
    variables: &Variables,
    lakes: Option<(&dyn Lake, &Lakes)>,
) -> Result<Vec<Error>> {
    let (queries, all_written) = prepare::queries(registry, workflow, variables);
    let (mut refused, nothing) = (Vec::new(), BTreeSet::new());
    for KnownQuery { of: (what, name), lake: elsewhere, sql, values, relations, rows } in queries {
        let (declared, written, lake) = match &elsewhere {
            None => (&workflow.tables, &all_written, lakes.map(|(own, _)| own)),
            Some(profile) => {
                // That no table is there was said where the workflow was read.
                let Some(tables) = workflow.elsewhere.get(profile) else { continue };
                (tables, &nothing, lakes.and_then(|(_, others)| others.get(profile)).map(AsRef::as_ref))
            }
        };
        let (here, lake) = (lake, lake.filter(|lake| !lake.is_queried()));
        let mut query = Query::new(&[], &sql);
        query.values = values;
        let columns_are_known = relations.values().all(Option::is_some);
        let empty = || Arc::new(Schema::empty());
        query.relations = relations
            .into_iter()
            .map(|(name, schema)| (name, Relation { schema: schema.unwrap_or_else(empty), rows: Vec::new() }))
            .collect();
        let of = (what, name);
        // That a name is none of those that there are needs no table.
        if let Err(error) = query.text(|value| value.to_string(), str::to_owned) {
            refused.push(placed(error, workflow, of, None));
            continue;
        }
        if !columns_are_known && !query.named_relations().is_empty() {
            continue;
        }
        // A lake that is queried elsewhere has another dialect, in which there may be more columns than it describes. A query in that dialect that can be
        // planned here, too, selects the same.
        if let Some(here) = here.filter(|here| here.is_queried()) {
            let Some(tables) = tables_of(declared, &sql, written, Some(here)).await else { continue };
            if let Some(error) = not_selected(&tables, &query, &rows, None).await? {
                refused.push(placed(error, workflow, of, None));
            }
            continue;
        }
        let Some(tables) = tables_of(declared, &sql, written, lake).await else { continue };
        if let Some((message, column)) = unknown_in(&tables, &query).await? {
            // It may be there, and left out because its files disagree about it.
            let is_it = |of: &shape::LeftOut| of.column.to_lowercase() == column.to_lowercase();
            let left_out = tables.iter().flat_map(|(_, schema)| shape::left_out(schema)).find(is_it);
            let message = left_out.map_or(message, |of| of.refusal().message().to_owned());
            let at = place_of_word(&sql, &column);
            refused.push(placed(Error::invalid(message), workflow, of, at));
            continue;
        }
        if let Some(error) = not_selected(&tables, &query, &rows, lake).await? {
            refused.push(placed(error, workflow, of, None));
            continue;
        }
        // Everything else that the engine refuses, it says when it plans the query.
        if let Some(lake) = lake {
            let named: Vec<Table> = declared.values().filter(|table| tables.iter().any(|(name, _)| *name == table.name)).cloned().collect();
            let explained = format!("EXPLAIN\n{sql}");
            let mut explain = Query::new(&named, &explained);
            (explain.values, explain.relations) = (query.values.clone(), query.relations.clone());
            if let Err(error) = lake.query(&explain).await
                && error.kind() == ErrorKind::Invalid
            {
                let (message, at) = without_first_line(error.message());
                refused.push(placed(Error::invalid(message), workflow, of, at));
            }
        }
    }
    Ok(refused)
}

/// Why a query does not select what it must, if that is known.
async fn not_selected(tables: &[(String, SchemaRef)], query: &Query<'_>, rows: &RowsOf, lake: Option<&dyn Lake>) -> Result<Option<Error>> {
    // Which of the columns of a new table is a time depends on their types, which are known of no lake but one of files.
    if *rows == RowsOf::Any || (matches!(rows, RowsOf::IntoNew(_)) && lake.is_none()) {
        return Ok(None);
    }
    let Some(selected) = selected_of(tables, query).await? else { return Ok(None) };
    let schema = match (rows, lake) {
        (RowsOf::Rows(table), Some(lake)) => lake.describe(table).await.ok(),
        (RowsOf::Rows(table), None) => columns_of(table),
        _ => None,
    };
    Ok(builtin::check_selected(rows, schema.as_deref(), &selected).err())
}

/// An error of a query, with its place in the workflow's file if that is known: a line and column of the query, or what its message says.
fn placed(error: Error, workflow: &Workflow, (what, name): (&'static str, &str), at: Option<(usize, usize)>) -> Error {
    let at = at.or_else(|| numbers_of(error.message(), "line ", ", column ")).unwrap_or((1, 1));
    let under = if what == "source" { "sources" } else { "steps" };
    let error = error.on(what, name);
    match workflow.place_in(under, name, "query", at) {
        Some((line, column)) => error.on("at", format!("{}:{line}:{column}", workflow.file)),
        None => error,
    }
}

/// The first line and column of a message that writes them so.
fn numbers_of(message: &str, line: &str, column: &str) -> Option<(usize, usize)> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<usize>().ok());
    let (_, rest) = message.split_once(line)?;
    Some((number(rest)?, number(rest.split_once(column)?.1)?))
}

/// A message about a query with one more line before it, as one about the query: its lines are one less.
fn without_first_line(message: &str) -> (String, Option<(usize, usize)>) {
    let Some((line, column)) = numbers_of(message, "Line: ", "Column: ").filter(|(line, _)| *line > 1) else {
        return (message.to_owned(), None);
    };
    (message.replace(&format!("Line: {line},"), &format!("Line: {},", line - 1)), Some((line - 1, column)))
}

/// The line and column at which a query first has a word, in any case.
fn place_of_word(sql: &str, word: &str) -> Option<(usize, usize)> {
    let (text, word) = (sql.to_lowercase(), word.to_lowercase());
    let is_apart = |at: &usize| {
        let before = text.get(..*at).and_then(|before| before.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
    };
    let at = text.match_indices(&word).map(|(at, _)| at).find(is_apart)?;
    let before = text.get(..at)?;
    Some((before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1))
}

/// Checks the queries of a workflow before it begins: as it declares its tables, and, if the lake runs SQL of this kind, as they are.
///
/// # Errors
/// `invalid` for the first query that names a column which none of its tables has.
pub(crate) async fn check(registry: &Registry, workflow: &Workflow, variables: &Variables, lakes: (&dyn Lake, &Lakes)) -> Result<()> {
    for lakes in [None, Some(lakes)] {
        if let Some(first) = unknown(registry, workflow, variables, lakes).await?.into_iter().next() {
            return Err(first);
        }
    }
    Ok(())
}

/// The tables and repaired views that a query may name, with their columns; none if those of one are not known.
async fn tables_of(
    declared: &BTreeMap<String, Table>,
    query: &str,
    written: &BTreeSet<String>,
    lake: Option<&dyn Lake>,
) -> Option<Vec<(String, SchemaRef)>> {
    let text = query.to_lowercase();
    let words: BTreeSet<&str> = text.split(|c: char| !is_of_word(c)).collect();
    // A name of other characters is written in quotes.
    let has = |name: &str| if name.chars().all(is_of_word) { words.contains(name) } else { text.contains(name) };
    let names = |name: &str| has(&name.to_lowercase()) || has(&overlay::repaired_view(name).to_lowercase());
    if written.iter().any(|name| names(name)) {
        return None;
    }
    let mut tables = Vec::new();
    for table in declared.values().filter(|table| names(&table.name)) {
        let schema = match lake {
            Some(lake) => lake.describe(table).await.ok()?,
            None => columns_of(table)?,
        };
        let added = [overlay::REPAIRED_BY, overlay::REPAIRED_CELLS].map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
        let view = schema.fields().iter().cloned().chain(added).collect::<Vec<_>>();
        tables.push((table.name.clone(), schema));
        tables.push((overlay::repaired_view(&table.name), Arc::new(Schema::new(view))));
    }
    Some(tables)
}

/// Whether a character may be part of a name without quotes.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The columns that a workflow declares of a table, if it declares all of them.
fn columns_of(table: &Table) -> Option<SchemaRef> {
    // Most columns are numbers, and only the names are checked.
    let kind = |name: &str| kind_of(table, name).unwrap_or(DataType::Float64);
    let fields: Vec<Field> = table.declared_columns()?.into_iter().map(|name| Field::new(name, kind(name), true)).collect();
    Some(Arc::new(Schema::new(fields)))
}

/// The columns of a table in shape, if a workflow declares all of them with their types.
pub(super) fn typed_columns(table: &Table) -> Option<SchemaRef> {
    let field = |name: &str| {
        let is_place = name == table.time || table.key.iter().any(|key| key == name);
        Some(Field::new(name, kind_of(table, name)?, !is_place))
    };
    let fields = table.declared_columns()?.into_iter().map(field).collect::<Option<Vec<Field>>>()?;
    Some(Arc::new(Schema::new(fields)))
}

/// The type in which values of a column come, as far as it is declared.
fn kind_of(table: &Table, name: &str) -> Option<DataType> {
    match name {
        name if name == table.time => Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        name if table.key.iter().any(|key| key == name) => Some(DataType::Utf8),
        name => Some(match table.type_of(name)? {
            ColumnType::Text => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
            _ => return None,
        }),
    }
}

#[cfg(feature = "sql")]
async fn unknown_in(tables: &[(String, SchemaRef)], query: &Query<'_>) -> Result<Option<(String, String)>> {
    let unknown = repair_sql::unknown_column(tables, query).await?;
    Ok(unknown.map(|unknown| {
        let columns: Vec<String> = unknown.columns.iter().map(|name| format!("`{name}`")).collect();
        let there = if columns.is_empty() { String::new() } else { format!("; its columns are {}", columns.join(", ")) };
        (format!("the query names column `{}`, which what it reads does not have{there}", unknown.column), unknown.column)
    }))
}

/// The columns that a query over these tables selects, in lower case; `None` if it cannot be planned over them.
#[cfg(feature = "sql")]
async fn selected_of(tables: &[(String, SchemaRef)], query: &Query<'_>) -> Result<Option<SchemaRef>> {
    repair_sql::selected_columns(tables, query).await
}

#[cfg(not(feature = "sql"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
async fn selected_of(_: &[(String, SchemaRef)], _: &Query<'_>) -> Result<Option<SchemaRef>> {
    Ok(None)
}

#[cfg(not(feature = "sql"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
async fn unknown_in(_: &[(String, SchemaRef)], _: &Query<'_>) -> Result<Option<(String, String)>> {
    Ok(None)
}
