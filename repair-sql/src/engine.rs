//! Plans and runs a query with DataFusion, over the scans of the lake.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, ScalarValue, SchemaError, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::{DataFusionError, Result as SqlResult};
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Word};
use futures::StreamExt;
use repair_core::lake::partition::{SECOND_US, TimeBounds};
use repair_core::lake::query::{Bound, Relation, Seen};
use repair_core::lake::shape::{self, EmptyColumn};
use repair_core::lake::veil::{Over, Veil};
use repair_core::lake::{BatchStream, Layer, ReadLake, ScanRequest, overlay};
use repair_core::model::{SlotRange, Table};
use repair_core::{Error, ErrorKind, Result};
use repair_local::LocalLake;
use repair_local::query::TableRows;
use repair_local::threads::{self, blocking};

use crate::{Asked, UnknownColumn};

/// Memory for sorts and joins; beyond this they use the disk.
const MEMORY_BYTES: usize = 1 << 30;

/// A value, as the engine writes it.
pub(super) fn literal(value: &Bound) -> String {
    match value {
        // In the type of time columns, so that their files are chosen by it.
        Bound::Instant(_) => format!("arrow_cast({value}, 'Timestamp(Microsecond, Some(\"UTC\"))')"),
        other => other.to_string(),
    }
}

/// A value in a query that is only planned, and whose case does not matter.
pub(super) fn plain_literal(value: &Bound) -> String {
    match value {
        Bound::Instant(_) => format!("TIMESTAMP {value}"),
        other => other.to_string(),
    }
}

/// The name of a relation in the engine.
pub(super) fn shown_name(relation: &str) -> String {
    format!("${relation}")
}

/// The same in quotes.
pub(super) fn name(relation: &str) -> String {
    format!("\"{}\"", shown_name(relation))
}

pub(super) async fn query(lake: &LocalLake, asked: &Asked) -> Result<BatchStream> {
    let Asked { tables, sql, relations, seen } = asked;
    let text = sql.to_owned();
    blocking(move || super::depth::check(&text)).await?;
    let mut known: Vec<LakeTable> = Vec::with_capacity(2 * tables.len());
    for table in tables {
        for layer in [Layer::Raw, Layer::Repaired] {
            match LakeTable::new(lake.clone(), table.clone(), layer, seen.get(&table.name)).await {
                Ok(table) => known.push(table),
                // Its columns and ours would collide, so it cannot be repaired and has no such view.
                Err(_) if layer == Layer::Repaired && reserved(lake, table).await? => {}
                Err(error) => return Err(error),
            }
        }
    }
    let mut names = HashSet::new();
    if let Some(twice) = known.iter().find(|table| !names.insert(table.shown_name.as_str())) {
        return Err(Error::invalid(format!("two tables of the query are named `{}`; rename one", twice.shown_name)));
    }
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES, 1.0).build_arc().map_err(error)?;
    // What has no value is null of whatever type the query takes it for.
    let mut refused = None;
    if known.iter().any(|table| !table.empty.is_empty()) {
        for kind in KINDS_OF_EMPTY {
            let taken: Vec<LakeTable> = known.iter().map(|table| table.with_empty(&kind)).collect();
            match run(&runtime, &taken, relations, sql, true).await {
                Ok(rows) => return rows,
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    let refused_as_text = match run(&runtime, &known, relations, sql, false).await {
        Ok(rows) => return rows,
        Err(refused) => refused,
    };
    // The first one says what is wrong with the query, rather than with text.
    let refused = refused.unwrap_or(refused_as_text);
    // Some engines keep all names in lower case. What they run is to run here too, so a query that names no column or table exactly is
    // tried once more with all of them in lower case.
    if let Some(names) = Names::of(&known, sql) {
        let lower: Vec<LakeTable> = known.iter().map(|table| table.in_lower_case(&names)).collect();
        let mut then = None;
        let kinds = KINDS_OF_EMPTY.iter().filter(|_| known.iter().any(|table| !table.empty.is_empty())).map(Some).chain([None]);
        for kind in kinds {
            let taken = lower.iter().map(|table| kind.map_or_else(|| table.clone(), |kind| table.with_empty(kind))).collect::<Vec<_>>();
            match run(&runtime, &taken, relations, &names.in_lower_case(sql), kind.is_some()).await {
                Ok(rows) => return Ok(Box::pin(rows?.map(move |batch| names.restored(&batch?)))),
                Err(error) => then = then.or(Some(error)),
            }
        }
        // Without regard to case it got farther, so this is what is wrong.
        if let Some(then) = then.filter(|then| is_missing_table(&refused) && !is_missing_table(then)) {
            return Err(left_out(lake, tables, &then).await?.unwrap_or_else(|| refusal(then, &known, sql)));
        }
    }
    Err(left_out(lake, tables, &refused).await?.unwrap_or_else(|| refusal(refused, &known, sql)))
}

/// What columns without a value are taken for, one after the other, until the query can be planned and begins to answer.
const KINDS_OF_EMPTY: [DataType; 3] = [DataType::Null, DataType::Float64, DataType::Utf8];

/// The rows of a query, if it can be planned. Some functions refuse a type only when they run, so a trial also waits for the first rows.
async fn run(
    runtime: &Arc<RuntimeEnv>,
    tables: &[LakeTable],
    relations: &[(String, Relation)],
    sql: &str,
    is_trial: bool,
) -> SqlResult<Result<BatchStream>> {
    let planned = plan(runtime, tables, relations, sql).await?;
    let mut rows = match planned.execute_stream().await {
        Ok(rows) => rows,
        Err(refused) => return Ok(Err(error(refused))),
    };
    if is_trial {
        let first = match rows.next().await {
            Some(Err(refused)) if of_ours(&refused).is_none() => return Err(refused),
            first => futures::stream::iter(first),
        };
        return Ok(Ok(Box::pin(first.chain(rows).map(|batch| batch.map_err(error)))));
    }
    Ok(Ok(Box::pin(rows.map(|batch| batch.map_err(error)))))
}

/// Why a query cannot be planned. If it names columns of which nothing is known, that is probably why.
fn refusal(refused: DataFusionError, tables: &[LakeTable], sql: &str) -> Error {
    let names: HashSet<String> = words(sql).map(|(word, _)| word.value.to_lowercase()).collect();
    let is_about_types = ["Utf8", "String", "Null", "coerc", "type"].iter().any(|word| refused.to_string().contains(word));
    let mut unknown: Vec<String> = Vec::new();
    for table in tables.iter().filter(|_| is_about_types) {
        let named = table.without_value.iter().filter(|empty| names.contains(&empty.column.to_lowercase()));
        unknown.extend(named.map(|empty| empty.why(&table.table.name)));
    }
    unknown.sort();
    unknown.dedup();
    let refused = error(refused);
    if unknown.is_empty() { refused } else { Error::new(refused.kind(), format!("{}; {}", refused.message(), unknown.join("; "))) }
}

async fn plan(runtime: &Arc<RuntimeEnv>, tables: &[LakeTable], relations: &[(String, Relation)], sql: &str) -> SqlResult<DataFrame> {
    let config = SessionConfig::new().with_target_partitions(threads::workers());
    let context = SessionContext::new_with_config_rt(config, runtime.clone());
    for table in tables {
        context.register_table(TableReference::bare(table.shown_name.as_str()), Arc::new(table.clone()))?;
    }
    for (name, Relation { schema, rows }) in relations {
        context.register_table(TableReference::bare(shown_name(name)), Arc::new(MemTable::try_new(schema.clone(), vec![rows.clone()])?))?;
    }
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    context.sql_with_options(sql, only_reads).await
}

/// As [`super::unknown_column`], of a query in lower case.
pub(super) async fn unknown_column(tables: &[(String, SchemaRef)], sql: &str) -> Result<Option<UnknownColumn>> {
    let Err(refused) = planned(tables, sql).await? else { return Ok(None) };
    let DataFusionError::SchemaError(of_schema, _) = refused.find_root() else { return Ok(None) };
    let SchemaError::FieldNotFound { field, valid_fields } = of_schema.as_ref() else { return Ok(None) };
    let named = |column: &Column| column.name.clone();
    let mut columns: Vec<String> = valid_fields.iter().map(named).collect();
    columns.sort();
    columns.dedup();
    Ok(Some(UnknownColumn { column: field.name.clone(), columns }))
}

/// As [`super::selected_columns`], of a query in lower case.
pub(super) async fn selected_columns(tables: &[(String, SchemaRef)], sql: &str) -> Result<Option<SchemaRef>> {
    Ok(planned(tables, sql).await?.ok().map(|planned| Arc::new(planned.schema().as_arrow().clone())))
}

/// A query in lower case, planned over tables without rows.
async fn planned(tables: &[(String, SchemaRef)], sql: &str) -> Result<SqlResult<DataFrame>> {
    let context = SessionContext::new();
    for (name, schema) in tables {
        let mut names = HashSet::new();
        let lower = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_name(field.name().to_lowercase()));
        let fields: Vec<Arc<Field>> = schema.fields().iter().map(lower).filter(|field| names.insert(field.name().clone())).collect();
        let empty = EmptyTable::new(Arc::new(Schema::new(fields)));
        context.register_table(TableReference::bare(name.to_lowercase()), Arc::new(empty)).map_err(error)?;
    }
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    Ok(context.sql_with_options(sql, only_reads).await)
}

/// Whether a query was refused because a table was not found under its name.
fn is_missing_table(refused: &DataFusionError) -> bool {
    let message = refused.find_root().to_string();
    message.contains("table '") && message.contains("not found")
}

/// The error for a query that names a column about which the files of its table disagree.
async fn left_out(lake: &LocalLake, tables: &[Table], refused: &DataFusionError) -> Result<Option<Error>> {
    let DataFusionError::SchemaError(of_schema, _) = refused.find_root() else { return Ok(None) };
    let SchemaError::FieldNotFound { field, .. } = of_schema.as_ref() else { return Ok(None) };
    for table in tables {
        let Ok(schema) = lake.describe(table).await else { continue };
        if let Some(left_out) = shape::left_out(&schema).into_iter().find(|left_out| is_same(&left_out.column, &field.name)) {
            return Ok(Some(left_out.refusal().on("table", &table.name)));
        }
    }
    Ok(None)
}

fn is_same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// The names of a query's tables and columns, for an engine in which case does not matter. Columns of a table that differ only in case
/// are not among them: they must be written exactly.
struct Names {
    /// The names in lower case.
    lower: HashSet<String>,
    /// How the tables that the query names write them; `None` where they write one differently.
    written: HashMap<String, Option<String>>,
    /// The columns that must be written exactly.
    exact: HashSet<String>,
    /// The columns that the query itself names, in lower case, and as it writes them.
    aliases: HashMap<String, String>,
}

impl Names {
    /// `None` if everything is in lower case already.
    fn of(tables: &[LakeTable], sql: &str) -> Option<Self> {
        let mut names = Self { lower: HashSet::new(), written: HashMap::new(), exact: HashSet::new(), aliases: aliases(sql) };
        let words: HashSet<String> = words(sql).map(|(word, _)| word.value.to_lowercase()).collect();
        let mut is_changed = false;
        for table in tables {
            let is_named = words.contains(&table.shown_name.to_lowercase());
            let mut columns: HashMap<String, Vec<&str>> = HashMap::new();
            for field in table.schema.fields() {
                columns.entry(field.name().to_lowercase()).or_default().push(field.name());
            }
            for (lower, written) in columns {
                match written.as_slice() {
                    [one] => {
                        is_changed |= *one != lower;
                        names.add(lower, one, is_named);
                    }
                    several => names.exact.extend(several.iter().map(|name| (*name).to_owned())),
                }
            }
            let lower = table.shown_name.to_lowercase();
            is_changed |= lower != table.shown_name;
            names.lower.insert(lower);
        }
        is_changed.then_some(names)
    }

    fn add(&mut self, lower: String, written: &str, is_named: bool) {
        if is_named {
            let known = self.written.entry(lower.clone()).or_insert_with(|| Some(written.to_owned()));
            if known.as_deref() != Some(written) {
                *known = None;
            }
        }
        self.lower.insert(lower);
    }

    /// A name of a table or column as the query finds it.
    fn shown(&self, name: &str) -> String {
        let lower = name.to_lowercase();
        if !self.exact.contains(name) && self.lower.contains(&lower) { lower } else { name.to_owned() }
    }

    /// The query with the quoted names of tables and columns in lower case. The engine itself converts names without quotes.
    fn in_lower_case(&self, sql: &str) -> String {
        let is_shown = |word: &Word| word.quote_style.is_some() && self.shown(&word.value) != word.value;
        let changed: HashSet<(u64, u64)> = words(sql).filter(|(word, _)| is_shown(word)).map(|(_, at)| at).collect();
        let mut out = String::with_capacity(sql.len());
        let (mut line, mut column, mut until) = (1, 1, None);
        let mut chars = sql.chars().peekable();
        while let Some(char) = chars.next() {
            let at = (line, column);
            (line, column) = if char == '\n' { (line + 1, 1) } else { (line, column + 1) };
            match until {
                None => {
                    until = changed.contains(&at).then_some(char);
                    out.push(char);
                }
                Some(quote) if char == quote => {
                    out.push(char);
                    // A quote within the name is doubled.
                    match chars.next_if_eq(&quote) {
                        Some(again) => {
                            out.push(again);
                            column += 1;
                        }
                        None => until = None,
                    }
                }
                Some(_) => out.extend(char.to_lowercase()),
            }
        }
        out
    }

    /// A batch of the result, with the names that the query or the tables have for its columns.
    fn restored(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let written = |field: &Arc<Field>| {
            let name = field.name();
            let known = || self.written.get(name).and_then(Option::as_ref);
            match self.aliases.get(&name.to_lowercase()).or_else(known) {
                Some(written) if written != name => Arc::new(field.as_ref().clone().with_name(written)),
                _ => field.clone(),
            }
        };
        let schema = Arc::new(Schema::new(batch.schema_ref().fields().iter().map(written).collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
    }
}

/// The words of a query, quoted or not, each with its line and column; none of a query that cannot be read.
fn words(sql: &str) -> impl Iterator<Item = (Word, (u64, u64))> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap_or_default();
    tokens.into_iter().filter_map(|token| match token.token {
        Token::Word(word) => Some((word, (token.span.start.line, token.span.start.column))),
        _ => None,
    })
}

/// The names that the outermost SELECT gives to columns: in lower case, and as they are without this lake's help.
fn aliases(sql: &str) -> HashMap<String, String> {
    let mut aliases = HashMap::new();
    let Ok(statements) = Parser::parse_sql(&GenericDialect {}, sql) else { return aliases };
    let Some(Statement::Query(query)) = statements.first() else { return aliases };
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(inner) => body = inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return aliases,
        }
    };
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            let lower = alias.value.to_lowercase();
            let written = if alias.quote_style.is_some() { alias.value.clone() } else { lower.clone() };
            aliases.insert(lower, written);
        }
    }
    aliases
}

/// Whether a table has columns with names that we add.
async fn reserved(lake: &LocalLake, table: &Table) -> Result<bool> {
    let raw = LakeTable::new(lake.clone(), table.clone(), Layer::Raw, None).await?;
    Ok(shape::refuse_reserved(table, &raw.schema).is_err())
}

/// The error of ours that passed through the engine, if it is one.
fn of_ours(error: &DataFusionError) -> Option<&Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(next) = cause {
        if let Some(ours) = next.downcast_ref::<Error>() {
            return Some(ours);
        }
        cause = next.source();
    }
    None
}

/// Maps an error of the engine; one of ours that passed through it stays as it was.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn error(error: DataFusionError) -> Error {
    if let Some(ours) = of_ours(&error) {
        return Error::new(ours.kind(), ours.full());
    }
    Error::invalid(format!("the SQL could not be run: {}", tidy(&error.to_string())))
}

/// What the engine says about a mistake in a query, without what it says about itself.
fn tidy(message: &str) -> String {
    // The engine takes some mistakes of a query for its own, and lists what else it could do.
    let ends = ["\nThis issue was likely caused by a bug", "\nThis was likely caused by a bug", "\n\tCandidate functions:"];
    let end = ends.iter().filter_map(|text| message.find(text)).min().unwrap_or(message.len());
    let mut said = message[..end].replace("Error during planning: ", "").replace("Internal error: ", "").replace('\n', " ");
    // Each way to call a function has an error of its own; all say what it was given.
    if let Some((function, errors)) = said.split_once(" failed to match any signature, errors: ")
        && let Some((received, _)) = errors.split_once("but received ").and_then(|(_, rest)| rest.split_once(')'))
    {
        said = format!("{function} does not take {received}); write a CAST, or declare the type of the column");
    }
    said.trim_end_matches(['.', ' ']).to_owned()
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A table, or its repaired view, as the engine sees it.
#[derive(Clone)]
struct LakeTable {
    lake: LocalLake,
    table: Table,
    layer: Layer,
    /// Its columns.
    schema: SchemaRef,
    /// Its columns with the names that the engine sees.
    shown: SchemaRef,
    /// The name that the engine sees.
    shown_name: String,
    /// What it shows instead of what the lake has.
    seen: Option<Seen>,
    /// Its columns that have no value, as far as that has been read.
    without_value: Vec<EmptyColumn>,
    /// Those of them that have none in any row.
    empty: HashSet<String>,
}

impl LakeTable {
    async fn new(lake: LocalLake, table: Table, layer: Layer, seen: Option<&Seen>) -> Result<Self> {
        let schema = match seen {
            Some(Seen::Instead(rows)) if layer == Layer::Repaired => overlay::view_schema(&rows.schema),
            Some(Seen::Instead(rows)) => rows.schema.clone(),
            Some(Seen::Behind(_)) | None => lake.columns_of(&table, layer).await?,
        };
        // A hidden cell looks like a null, and a repair may lack values.
        let schema = match seen {
            Some(Seen::Behind(_)) => {
                let is_place = |field: &Arc<Field>| *field.name() == table.time || table.key.contains(field.name());
                let nullable = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_nullable(!is_place(field) || field.is_nullable()));
                Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>()))
            }
            _ => schema,
        };
        let shown_name = match layer {
            Layer::Raw => table.name.clone(),
            Layer::Repaired => overlay::repaired_view(&table.name),
        };
        let without_value = match (seen, layer) {
            // Rows that are not the lake's may have any values.
            (Some(Seen::Instead(_)), _) | (Some(Seen::Behind(_)), Layer::Repaired) => Vec::new(),
            _ => lake.empty_columns(&table, layer).await?,
        };
        let empty = without_value.iter().filter(|empty| empty.is_whole).map(|empty| empty.column.clone()).collect();
        Ok(Self { lake, table, layer, shown: schema.clone(), schema, shown_name, seen: seen.cloned(), without_value, empty })
    }

    /// The table with its columns without a value as columns of another type.
    fn with_empty(&self, kind: &DataType) -> Self {
        let field = |(own, shown): (&Arc<Field>, &Arc<Field>)| match self.empty.contains(own.name()) {
            true => Arc::new(shown.as_ref().clone().with_data_type(kind.clone())),
            false => shown.clone(),
        };
        let fields: Vec<Arc<Field>> = self.schema.fields().iter().zip(self.shown.fields()).map(field).collect();
        Self { shown: Arc::new(Schema::new(fields)), ..self.clone() }
    }

    /// The table with the names that a query finds in any case.
    fn in_lower_case(&self, names: &Names) -> Self {
        let field = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_name(names.shown(field.name())));
        let shown = Arc::new(Schema::new(self.schema.fields().iter().map(field).collect::<Vec<_>>()));
        Self { shown, shown_name: names.shown(&self.shown_name), ..self.clone() }
    }

    /// The shown name of a column.
    fn shown_column(&self, name: &str) -> SqlResult<&Arc<Field>> {
        Ok(&self.shown.fields()[self.schema.index_of(name)?])
    }

    /// The bounds that filters set on the time; other filters do not change it.
    fn bounds(&self, filters: &[Expr]) -> TimeBounds {
        let mut bounds = TimeBounds::ALL;
        for (operator, time_us) in filters.iter().filter_map(|filter| self.comparison(filter)) {
            let after = time_us.saturating_add(1);
            match operator {
                Operator::Eq => {
                    bounds.from_us = bounds.from_us.max(time_us);
                    bounds.to_us = bounds.to_us.min(after);
                }
                Operator::Gt => bounds.from_us = bounds.from_us.max(after),
                Operator::GtEq => bounds.from_us = bounds.from_us.max(time_us),
                Operator::Lt => bounds.to_us = bounds.to_us.min(time_us),
                Operator::LtEq => bounds.to_us = bounds.to_us.min(after),
                _ => {}
            }
        }
        // A slot of the view is decided as a whole; otherwise a raw row outside the bounds would not hide its repair.
        if self.layer == Layer::Repaired { whole_slots(&self.table, &bounds) } else { bounds }
    }

    fn is_time(&self, column: &str) -> bool {
        self.shown_column(&self.table.time).is_ok_and(|time| time.name() == column)
    }

    /// The bounds set by a filter that compares the time column with an instant.
    fn comparison(&self, filter: &Expr) -> Option<(Operator, i64)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
        let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
            (Expr::Literal(literal, _), Expr::Column(column)) => (column, op.swap()?, literal),
            _ => return None,
        };
        match literal {
            ScalarValue::TimestampMicrosecond(Some(time_us), Some(_)) if self.is_time(&column.name) => Some((op, *time_us)),
            _ => None,
        }
    }
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeTable").field("table", &self.table.name).field("layer", &self.layer).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.shown.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> SqlResult<Vec<TableProviderFilterPushDown>> {
        // Rows outside may come too, since the engine filters again.
        Ok(filters
            .iter()
            .map(|filter| match self.comparison(filter) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted: Vec<String> = projection.unwrap_or(&all).iter().map(|&at| self.schema.field(at).name().clone()).collect();
        let rows = match &self.seen {
            Some(Seen::Instead(given)) => self.given(given, &wanted)?,
            seen => {
                let veil = seen.as_ref().and_then(|seen| match seen {
                    Seen::Behind(veil) => Some(veil),
                    Seen::Instead(_) => None,
                });
                self.read(&wanted, filters, veil).await.map_err(external)?
            }
        };
        // The key and time columns always come, wanted or not.
        let projection = wanted.iter().map(|name| Ok(rows.names.index_of(name)?)).collect::<SqlResult<Vec<usize>>>()?;
        let shown = rows.names.fields().iter().map(|field| self.shown_column(field.name()).cloned());
        let schema = Arc::new(Schema::new(shown.collect::<SqlResult<Vec<_>>>()?));
        let rows: Arc<dyn PartitionStream> = Arc::new(LakeRows { schema: schema.clone(), ..rows });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], Some(&projection), None, false, limit)?))
    }
}

impl LakeTable {
    /// The rows of the lake, behind a veil if there is one.
    async fn read(&self, wanted: &[String], filters: &[Expr], veil: Option<&Veil>) -> Result<LakeRows> {
        let of_view = [overlay::REPAIRED_BY, overlay::REPAIRED_CELLS];
        let mut columns: Vec<String> =
            wanted.iter().filter(|name| self.layer == Layer::Raw || !of_view.contains(&name.as_str())).cloned().collect();
        if let Some(veil) = veil.filter(|_| self.layer == Layer::Repaired) {
            // What the view says about a row's cells does not depend on the columns that are asked for.
            let more: Vec<String> =
                veil.columns().into_iter().filter(|name| !columns.iter().any(|known| known == name)).map(str::to_owned).collect();
            columns.extend(more);
        }
        let repairs = match veil {
            Some(veil) if self.layer == Layer::Repaired => {
                let own = self.schema.fields().iter().filter(|field| !of_view.contains(&field.name().as_str())).cloned();
                let request = ScanRequest::new(self.layer).with_columns(columns.clone());
                veil.repaired_rows(&Arc::new(Schema::new(own.collect::<Vec<_>>())), &request)?
            }
            _ => Vec::new(),
        };
        let over = veil.map(|veil| veil.over(self.layer)).transpose()?.map(Arc::new);
        let rows = self.lake.rows_of(&self.table, self.layer, self.bounds(filters), columns).await?;
        let (names, schema) = (rows.schema().clone(), rows.schema().clone());
        Ok(LakeRows { table: self.table.name.clone(), rows: Some((rows, over)), more: repairs, names, schema })
    }

    /// Rows that are not the lake's.
    fn given(&self, given: &Relation, wanted: &[String]) -> SqlResult<LakeRows> {
        let fields = wanted.iter().map(|name| Ok(self.schema.field_with_name(name)?.clone())).collect::<SqlResult<Vec<Field>>>()?;
        let names = Arc::new(Schema::new(fields));
        let mut more = Vec::with_capacity(given.rows.len());
        for batch in &given.rows {
            let columns = names.fields().iter().map(|field| match batch.column_by_name(field.name()) {
                Some(column) => column.clone(),
                // The columns of the view, since none of these rows is a repair.
                None => new_null_array(field.data_type(), batch.num_rows()),
            });
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            more.push(RecordBatch::try_new_with_options(names.clone(), columns.collect(), &options)?);
        }
        Ok(LakeRows { table: self.table.name.clone(), rows: None, more, schema: names.clone(), names })
    }
}

struct LakeRows {
    /// The table's name.
    table: String,
    /// The rows of the lake, and what they are seen through.
    rows: Option<(TableRows, Option<Arc<Over>>)>,
    /// Rows that follow them, in the same columns or in more, in any order.
    more: Vec<RecordBatch>,
    /// The columns, with the table's own names.
    names: SchemaRef,
    /// The columns, with the names that the engine sees.
    schema: SchemaRef,
}

impl fmt::Debug for LakeRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeRows").field("table", &self.table).finish_non_exhaustive()
    }
}

impl PartitionStream for LakeRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, names, table) = (self.schema.clone(), self.names.clone(), self.table.clone());
        let shown = move |batch: RecordBatch| {
            let columns = names.fields().iter().zip(schema.fields()).map(|(field, shown)| {
                let column = batch.column(batch.schema_ref().index_of(field.name())?);
                // It was taken for null of another type.
                if column.data_type() == shown.data_type() {
                    Ok(column.clone())
                } else if column.logical_null_count() == column.len() {
                    Ok(new_null_array(shown.data_type(), column.len()))
                } else {
                    Err(external(has_value_now(&table, field.name())))
                }
            });
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<SqlResult<Vec<_>>>()?, &options)?)
        };
        let scanned = self.rows.clone().map(|(rows, over)| {
            rows.stream().map(move |batch| match &over {
                Some(over) => over.shown(&batch?),
                None => batch,
            })
        });
        let scanned = futures::stream::iter(scanned).flatten();
        let rows = scanned.chain(futures::stream::iter(self.more.clone().into_iter().map(Ok)));
        let rows = rows.map(move |batch| shown(batch.map_err(external)?));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

fn has_value_now(table: &str, column: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!(
            "column `{column}` of table `{table}` had no value when the query began, and has one now, so its type was not known; ask again"
        ),
    )
}

/// The bounds of all slots that bounds touch, since a slot of the repaired view is decided as a whole.
fn whole_slots(table: &Table, bounds: &TimeBounds) -> TimeBounds {
    let Ok(grid) = table.grid() else { return *bounds };
    let slot = |time_us: i64| grid.slot_of_seconds(time_us.div_euclid(SECOND_US));
    let mut wide = *bounds;
    if bounds.from_us > i64::MIN {
        let first = slot(bounds.from_us);
        wide.from_us = TimeBounds::of_slots(&grid, SlotRange::new(first, first + 1)).from_us;
    }
    if bounds.to_us < i64::MAX {
        let last = slot(bounds.to_us);
        wide.to_us = TimeBounds::of_slots(&grid, SlotRange::new(last, last + 1)).to_us;
    }
    wide
}
