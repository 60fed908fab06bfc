//! Runs a statement: DDL on the catalog, queries on DataFusion (or on a real Trino, if one is given).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName, ObjectNamePart, Query, TableAlias, TableFactor, VisitMut as _, VisitorMut};

use crate::catalog::{Catalog, CatalogError, Column};
use crate::store::Store;

use super::ddl::{self, Ddl};
use super::dialect::{self, OWN_QUERY, Prepared, UNNAMED, ViewStatement};
use super::error::QueryError;
use super::scanned::Scanned;
use super::table::{LakeTable, PATH};
use super::types::{hive_of_trino, trino_name};
use super::view::View;
use super::{check, define, functions, pushdown, text, trino};

/// The one data catalog, under Athena's name.
pub(crate) const CATALOG: &str = "awsdatacatalog";
/// Views nested deeper than this are circular.
const MAX_VIEW_DEPTH: usize = 16;

/// The kind of a statement, as in Athena's `StatementType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It defines something.
    Ddl,
    /// It queries.
    Dml,
    /// It shows definitions.
    Utility,
}

impl Kind {
    /// Athena's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddl => "DDL",
            Self::Dml => "DML",
            Self::Utility => "UTILITY",
        }
    }
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name as the statement writes it.
    pub name: String,
    /// Its type as Trino writes it.
    pub kind: String,
}

/// The result of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The kind of statement.
    pub kind: Kind,
    /// Athena's `SubstatementType`.
    pub sub_kind: &'static str,
    /// The columns; none for most DDL.
    pub columns: Vec<ResultColumn>,
    /// The rows, as Athena writes values; none is null.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A statement that has been read but not run.
#[derive(Debug, Clone)]
pub struct Statement(Parsed);

#[derive(Debug, Clone)]
enum Parsed {
    Query { text: String },
    Explain { text: String },
    CreateView(ViewStatement),
    Ddl(Box<Ddl>),
}

impl Statement {
    /// Parses a statement as far as possible without a catalog. Athena refuses at once what cannot be parsed.
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        let words: Vec<String> = words(sql).take(4).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = sql.trim().trim_end_matches(';').to_owned();
        Ok(Self(match words.as_slice() {
            ["select" | "with" | "values" | "table" | "(", ..] => {
                dialect::prepare(&text)?;
                Parsed::Query { text }
            }
            ["explain", ..] => {
                let at = text.to_lowercase().find("explain").map_or(0, |at| at + "explain".len());
                let text = text[at..].to_owned();
                dialect::prepare(&text)?;
                Parsed::Explain { text }
            }
            ["create", "view", ..] | ["create", "or", "replace", "view"] => {
                let view = dialect::create_view(sql)?;
                dialect::prepare(&view.query)?;
                Parsed::CreateView(view)
            }
            ["insert" | "unload" | "delete" | "update" | "merge" | "optimize" | "vacuum" | "prepare" | "execute", ..] => {
                return Err(QueryError::user("NOT_SUPPORTED", "Queries of this type are not supported by the sandbox"));
            }
            _ => Parsed::Ddl(Box::new(ddl::parse(sql)?)),
        }))
    }

    /// The kind of statement.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Parsed::Query { .. } => Kind::Dml,
            Parsed::Explain { .. } => Kind::Utility,
            Parsed::CreateView(_) => Kind::Ddl,
            Parsed::Ddl(ddl) => match ddl.as_ref() {
                Ddl::ShowDatabases { .. }
                | Ddl::ShowTables { .. }
                | Ddl::ShowPartitions { .. }
                | Ddl::ShowColumns { .. }
                | Ddl::ShowCreateView { .. }
                | Ddl::ShowCreateTable { .. }
                | Ddl::Describe { .. } => Kind::Utility,
                _ => Kind::Ddl,
            },
        }
    }
}

impl Statement {
    /// Athena's `SubstatementType`, as far as it is known before the statement has run.
    #[must_use]
    pub fn sub_kind(&self) -> &'static str {
        match &self.0 {
            Parsed::Query { .. } => "SELECT",
            Parsed::Explain { .. } => "EXPLAIN",
            Parsed::CreateView(_) => "CREATE_VIEW",
            Parsed::Ddl(ddl) => match ddl.as_ref() {
                Ddl::CreateTable { .. } => "CREATE_TABLE",
                Ddl::CreateDatabase { .. } => "CREATE_DATABASE",
                Ddl::DropTable { .. } => "DROP_TABLE",
                Ddl::DropView { .. } => "DROP_VIEW",
                Ddl::Repair { .. } => "MSCK_REPAIR_TABLE",
                _ => "OTHER",
            },
        }
    }
}

/// The words of a statement in lower case, without comments; an opening parenthesis counts as one.
fn words(sql: &str) -> impl Iterator<Item = String> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if let Some(comment) = rest.strip_prefix("--") {
                rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        if let Some(after) = rest.strip_prefix('(') {
            rest = after;
            return Some("(".to_owned());
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = rest[..end].to_lowercase();
        rest = &rest[end..];
        (!word.is_empty()).then_some(word)
    })
}

/// Runs statements over a catalog and a store. Clones share both.
#[derive(Debug, Clone)]
pub struct Engine {
    catalog: Catalog,
    store: Store,
    trino: Option<trino::Trino>,
}

impl Engine {
    /// An engine that runs queries on DataFusion, or on the Trino at this URL.
    #[must_use]
    pub fn new(catalog: &Catalog, store: &Store, trino_url: Option<&str>) -> Self {
        Self { catalog: catalog.clone(), store: store.clone(), trino: trino_url.map(trino::Trino::new) }
    }

    /// If there is a Trino, makes it read the catalog and the objects at this endpoint.
    pub async fn attach(&self, endpoint: &str) -> Result<(), QueryError> {
        match &self.trino {
            Some(trino) => trino.attach(endpoint).await,
            None => Ok(()),
        }
    }

    /// Runs a statement; names without a database are looked up in this one.
    pub async fn run(&self, statement: &Statement, database: Option<&str>, scanned: &Scanned) -> Result<Answer, QueryError> {
        let database = database.unwrap_or("default").to_lowercase();
        match (&statement.0, &self.trino) {
            (Parsed::Ddl(ddl), _) => define::run(ddl.as_ref().clone(), &database, &self.catalog, &self.store),
            (Parsed::Query { text }, Some(trino)) => trino.query(text, &database, scanned).await,
            (Parsed::Explain { text }, Some(trino)) => {
                let answer = trino.query(&format!("EXPLAIN {text}"), &database, scanned).await?;
                Ok(Answer { kind: Kind::Utility, sub_kind: "EXPLAIN", ..answer })
            }
            (Parsed::CreateView(view), Some(trino)) => {
                let or_replace = if view.or_replace { "OR REPLACE " } else { "" };
                let name: Vec<String> = view.name.iter().rev().take(2).rev().map(|part| format!("\"{part}\"")).collect();
                let sql = format!("CREATE {or_replace}VIEW {} SECURITY INVOKER AS {}", name.join("."), view.query);
                trino.query(&sql, &database, scanned).await?;
                self.describe_view(&view.name, &database)?;
                Ok(view_created())
            }
            (Parsed::Query { text }, None) => self.query(text, &database, scanned).await,
            (Parsed::Explain { text }, None) => self.explain(text, &database, scanned).await,
            (Parsed::CreateView(view), None) => self.create_view(view, &database, scanned).await,
        }
    }

    async fn query(&self, sql: &str, database: &str, scanned: &Scanned) -> Result<Answer, QueryError> {
        let context = context();
        let (plan, labels) = self.plan(&context, sql, database, scanned, 0).await?;
        let explain = |error| QueryError::of_datafusion(&error, sql);
        let frame = context.execute_logical_plan(plan).await.map_err(explain)?;
        let schema = frame.schema().as_arrow().clone();
        let batches = frame.collect().await.map_err(explain)?;
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                rows.push(row_text(batch, row).map_err(explain)?);
            }
        }
        Ok(Answer { kind: Kind::Dml, sub_kind: "SELECT", columns: columns(&schema, labels.as_deref()), rows })
    }

    async fn explain(&self, sql: &str, database: &str, scanned: &Scanned) -> Result<Answer, QueryError> {
        let context = context();
        let (plan, _) = self.plan(&context, sql, database, scanned, 0).await?;
        let optimized = context.state().optimize(&plan).map_err(|error| QueryError::of_datafusion(&error, sql))?;
        let rows = optimized.display_indent().to_string().lines().map(|line| vec![Some(line.to_owned())]).collect();
        let columns = vec![ResultColumn { name: "Query Plan".to_owned(), kind: "varchar".to_owned() }];
        Ok(Answer { kind: Kind::Utility, sub_kind: "EXPLAIN", columns, rows })
    }

    async fn create_view(&self, view: &ViewStatement, database: &str, scanned: &Scanned) -> Result<Answer, QueryError> {
        let (of, name) = match view.name.as_slice() {
            [.., of, name] => (of.clone(), name.clone()),
            [name] => (database.to_owned(), name.clone()),
            [] => return Err(QueryError::user("SYNTAX_ERROR", "line 1:1: the view has no name")),
        };
        if self.catalog.database(&of).is_err() {
            return Err(QueryError::user("SCHEMA_NOT_FOUND", format!("line 1:1: Schema '{of}' does not exist")));
        }
        let (plan, _) = self.plan(&context(), &view.query, database, scanned, 0).await?;
        let schema = plan.schema().as_arrow().clone();
        let mut seen = HashSet::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if field.name().starts_with(UNNAMED) {
                let message = format!("line 1:1: Column name not specified at position {}", index + 1);
                return Err(QueryError::user("MISSING_COLUMN_NAME", message));
            }
            if !seen.insert(field.name().to_lowercase()) {
                let message = format!("line 1:1: Column name '{}' specified more than once", field.name());
                return Err(QueryError::user("DUPLICATE_COLUMN_NAME", message));
            }
        }
        let table = View::new(view.query.clone(), database, &schema).to_table(&name, &schema)?;
        let exists =
            |name: &str| QueryError::user("TABLE_ALREADY_EXISTS", format!("line 1:1: View already exists: '{CATALOG}.{of}.{name}'"));
        match self.catalog.table(&of, &name) {
            Ok(old) if !old.is_view() => {
                Err(QueryError::user("TABLE_ALREADY_EXISTS", format!("line 1:1: Table already exists: '{CATALOG}.{of}.{name}'")))
            }
            Ok(_) if !view.or_replace => Err(exists(&name)),
            Ok(_) => self.catalog.update_table(&of, table).map(|()| view_created()).map_err(|error| metastore(&error)),
            Err(_) => match self.catalog.create_table(&of, table) {
                Ok(()) => Ok(view_created()),
                Err(CatalogError::Exists(_)) => Err(exists(&name)),
                Err(error) => Err(metastore(&error)),
            },
        }
    }

    // Trino stores no columns beside the text of a view; Athena does, and shows them.
    fn describe_view(&self, name: &[String], database: &str) -> Result<(), QueryError> {
        let (of, name) = match name {
            [.., of, name] => (of.as_str(), name),
            [name] => (database, name),
            [] => return Ok(()),
        };
        let mut table = self.catalog.table(of, name).map_err(|error| metastore(&error))?;
        let columns = View::of(&table)?.columns.into_iter().map(|column| Column::new(column.name, hive_of_trino(&column.kind))).collect();
        table.storage_descriptor.get_or_insert_default().columns = columns;
        self.catalog.update_table(of, table).map_err(|error| metastore(&error))
    }

    /// The plan of a query, with its tables in the session, and the names of its result as written.
    async fn plan(
        &self,
        context: &SessionContext,
        sql: &str,
        database: &str,
        scanned: &Scanned,
        depth: usize,
    ) -> Result<(LogicalPlan, Option<Vec<String>>), QueryError> {
        let Prepared { mut query, labels } = dialect::prepare(sql)?;
        // A hidden column is there only if it is named, so tables of such a statement are apart from the others of a session.
        let with_path = sql.to_lowercase().contains(&format!("\"{PATH}\""));
        let mut names = Names { database: database.to_owned(), own: Vec::new(), found: Vec::new(), with_path };
        names.resolve(&mut query);
        for found in names.found {
            self.register(context, &found, scanned, depth).await?;
        }
        let statement = SqlStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let plan = context.state().statement_to_plan(statement).await.map_err(|error| QueryError::of_datafusion(&error, sql))?;
        check::check(&plan, sql)?;
        Ok((plan, labels))
    }

    /// Adds a table or view to a session.
    async fn register(&self, context: &SessionContext, found: &Found, scanned: &Scanned, depth: usize) -> Result<(), QueryError> {
        let Found { database, name, place, with_path } = found;
        let shown = if *with_path { format!("{name}{PATH}") } else { name.clone() };
        let reference = TableReference::full(CATALOG, database.as_str(), shown.as_str());
        if context.table_exist(reference.clone()).unwrap_or(false) {
            return Ok(());
        }
        let table = self.catalog.table(database, name).map_err(|error| match error {
            CatalogError::NoDatabase(_) => QueryError::user("SCHEMA_NOT_FOUND", format!("{place}: Schema '{database}' does not exist")),
            CatalogError::NoTable(..) => {
                QueryError::user("TABLE_NOT_FOUND", format!("{place}: Table '{CATALOG}.{database}.{name}' does not exist"))
            }
            other => metastore(&other),
        })?;
        let provider: Arc<dyn TableProvider> = if table.is_view() {
            let invalid = |why: &str| {
                QueryError::user("INVALID_VIEW", format!("{place}: Failed analyzing stored view '{CATALOG}.{database}.{name}': {why}"))
            };
            if depth >= MAX_VIEW_DEPTH {
                return Err(QueryError::user("VIEW_IS_RECURSIVE", format!("{place}: View is recursive")));
            }
            let view = View::of(&table)?;
            let of = view.schema.as_deref().unwrap_or(database);
            let planned = Box::pin(self.plan(context, &view.original_sql, of, scanned, depth + 1)).await;
            let (plan, _) = planned.map_err(|error| if error.name == "VIEW_IS_RECURSIVE" { error } else { invalid(&error.message) })?;
            let now = View::new(view.original_sql.clone(), of, plan.schema().as_arrow());
            if now.columns.len() != view.columns.len() || now.columns.iter().zip(&view.columns).any(|(now, then)| now.name != then.name) {
                let message = format!(
                    "{place}: View '{CATALOG}.{database}.{name}' is stale or in invalid state: its columns are not those it was made with"
                );
                return Err(QueryError::user("VIEW_IS_STALE", message));
            }
            Arc::new(ViewTable::new(plan, None))
        } else {
            Arc::new(LakeTable::try_new(table, self.catalog.clone(), self.store.clone(), scanned.clone(), *with_path)?)
        };
        let internal = |error: datafusion::error::DataFusionError| QueryError::system("GENERIC_INTERNAL_ERROR", error.to_string());
        if let Some(catalog) = context.catalog(CATALOG)
            && catalog.schema(database).is_none()
        {
            catalog.register_schema(database, Arc::new(MemorySchemaProvider::new())).map_err(internal)?;
        }
        context.register_table(reference, provider).map_err(internal)?;
        Ok(())
    }
}

fn view_created() -> Answer {
    Answer { kind: Kind::Ddl, sub_kind: "CREATE_VIEW", columns: Vec::new(), rows: Vec::new() }
}

fn metastore(error: &CatalogError) -> QueryError {
    QueryError::system("HIVE_METASTORE_ERROR", error.to_string())
}

/// A session close to Trino. It has one partition, so that the order of rows and sums is fixed.
fn context() -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_default_catalog_and_schema(CATALOG, "default")
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.default_null_ordering = "nulls_last".to_owned();
    options.execution.time_zone = Some("UTC".to_owned());
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(pushdown::rules())
        .with_physical_optimizer_rules(pushdown::physical_rules())
        .build();
    let context = SessionContext::new_with_state(state);
    let catalog = MemoryCatalogProvider::new();
    context.register_catalog(CATALOG, Arc::new(catalog));
    functions::register(&context);
    context
}

fn columns(schema: &Schema, labels: Option<&[String]>) -> Vec<ResultColumn> {
    let name = |index: usize, field: &str| match labels.and_then(|labels| labels.get(index)) {
        Some(label) => label.clone(),
        None if field.starts_with(UNNAMED) => format!("_col{index}"),
        None => field.to_owned(),
    };
    let column = |(index, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| ResultColumn {
        name: name(index, field.name()),
        kind: trino_name(field.data_type()),
    };
    schema.fields().iter().enumerate().map(column).collect()
}

fn row_text(batch: &RecordBatch, row: usize) -> datafusion::error::Result<Vec<Option<String>>> {
    batch.columns().iter().map(|column| text::text(column.as_ref(), row)).collect()
}

/// A table that a query names.
struct Found {
    database: String,
    name: String,
    /// `line 1:15`.
    place: String,
    /// Whether the statement names the hidden column of objects' places.
    with_path: bool,
}

/// Finds the tables that a query names and qualifies their names, except those of the query's own `WITH`.
struct Names {
    database: String,
    /// Names of the query's own, innermost last.
    own: Vec<String>,
    found: Vec<Found>,
    with_path: bool,
}

impl Names {
    fn resolve(&mut self, query: &mut Query) {
        let outer = self.own.len();
        if let Some(with) = &mut query.with {
            let recursive = with.recursive;
            for cte in &mut with.cte_tables {
                let name = cte.alias.name.value.to_lowercase();
                // A plain WITH is visible only to those after it.
                if recursive {
                    self.own.push(name.clone());
                }
                self.resolve(&mut cte.query);
                if !recursive {
                    self.own.push(name);
                }
            }
        }
        // Names that were just resolved are visited again, and then left alone.
        let _ = query.visit(self);
        self.own.truncate(outer);
    }
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // An inner query has names of its own, so it is resolved before the walk reaches its tables.
        let known = self.own.len();
        if let Some(with) = query.with.as_ref()
            && !with.cte_tables.iter().all(|cte| self.own.contains(&cte.alias.name.value.to_lowercase()))
        {
            self.resolve(query);
        }
        self.own.truncate(known);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        // Under another name in the session, a table keeps its own in the statement.
        if let TableFactor::Table { name, alias: alias @ None, .. } = factor
            && self.with_path
            && let Some(last) = name.0.last().and_then(ObjectNamePart::as_ident)
            && !(name.0.len() == 1 && self.own.contains(&last.value.to_lowercase()))
            && last.quote_style != Some(OWN_QUERY)
        {
            let shown = Ident { value: last.value.to_lowercase(), quote_style: Some('"'), span: last.span };
            *alias = Some(TableAlias { explicit: true, name: shown, columns: Vec::new(), at: None });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        let parts: Vec<Ident> = relation.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        // Already resolved.
        if parts.first().is_some_and(|first| first.quote_style == Some(OWN_QUERY)) {
            return ControlFlow::Continue(());
        }
        let Some(last) = parts.last() else { return ControlFlow::Continue(()) };
        let marked =
            |value: String, ident: &Ident| ObjectNamePart::Identifier(Ident { value, quote_style: Some(OWN_QUERY), span: ident.span });
        let name = last.value.to_lowercase();
        if parts.len() == 1 && self.own.contains(&name) {
            *relation = ObjectName(vec![marked(name, last)]);
            return ControlFlow::Continue(());
        }
        let database = match parts.len() {
            1 => self.database.clone(),
            length => parts[length - 2].value.to_lowercase(),
        };
        let start = parts[0].span.start;
        let place = format!("line {}:{}", start.line, start.column);
        self.found.push(Found { database: database.clone(), name: name.clone(), place, with_path: self.with_path });
        let shown = if self.with_path { format!("{name}{PATH}") } else { name };
        *relation = ObjectName(vec![marked(CATALOG.to_owned(), last), marked(database, last), marked(shown, last)]);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Vec<String> {
        let mut query = dialect::prepare(sql).unwrap().query;
        let mut names = Names { database: "d".to_owned(), own: Vec::new(), found: Vec::new(), with_path: false };
        names.resolve(&mut query);
        names.found.iter().map(|found| format!("{}.{}", found.database, found.name)).collect()
    }

    #[test]
    fn queries_of_the_statement_itself_are_not_tables() {
        assert_eq!(found("WITH bars AS (SELECT * FROM bars) SELECT * FROM bars"), ["d.bars"]);
        assert_eq!(found("WITH a AS (SELECT * FROM x.t), b AS (SELECT * FROM a) SELECT * FROM b, \"A\" q, c"), ["x.t", "d.c"]);
        assert_eq!(found("SELECT * FROM (WITH a AS (SELECT 1 x) SELECT * FROM a) q CROSS JOIN a"), ["d.a"]);
        let mut all = found("SELECT (SELECT max(x) FROM m) FROM t WHERE k IN (SELECT k FROM awsdatacatalog.e.s)");
        all.sort();
        assert_eq!(all, ["d.m", "d.t", "e.s"]);
    }

    #[test]
    fn statements_are_told_apart_behind_comments() {
        let kind = |sql: &str| Statement::parse(sql).unwrap().kind();
        assert_eq!(kind("-- note\n/* more */ SELECT 1"), Kind::Dml);
        assert_eq!(kind("CREATE OR REPLACE VIEW v AS SELECT 1 x"), Kind::Ddl);
        assert_eq!(kind("SHOW TABLES"), Kind::Utility);
        assert_eq!(Statement::parse("INSERT INTO t VALUES (1)").unwrap_err().name, "NOT_SUPPORTED");
        assert_eq!(Statement::parse("SELEC 1").unwrap_err().name, "SYNTAX_ERROR");
    }
}
