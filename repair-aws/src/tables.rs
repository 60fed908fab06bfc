//! Our tables and views in Athena's catalog: created when they are first needed. Nothing else there is ever changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use repair_core::lake::overlay::retraction;
use repair_core::lake::{overlay, partition};
use repair_core::model::{OnBadRow, Rows, Slack, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::athena::{Athena, Behalf};
use crate::catalog::{Column, Kind, Relation, declare, kind_of};
use crate::error;
use crate::objects::Location;
use crate::place::{self, Place};
use crate::sql::{self, MAX_STATEMENT_BYTES, PARTITIONS_A_STATEMENT, Source};

/// How long the catalog's answer about a table is reused. Otherwise, staging thousands of units would ask it thousands of times.
const FRESH: Duration = Duration::from_secs(5);

/// What a view was made from: its table, the table of retractions, the columns of which cells are repaired, and whether rows are removed.
type ViewOf = (Table, Relation, Option<Relation>, Vec<String>, bool);

/// What is known about the catalog.
#[derive(Default)]
pub(crate) struct Known {
    relations: Mutex<HashMap<String, (Instant, Relation)>>,
    partitions: Mutex<HashSet<(String, String)>>,
    views: Mutex<HashMap<String, ViewOf>>,
    /// Tables whose views are short enough, by name: each with its table of repairs.
    fitting: Mutex<HashMap<String, (Table, Relation, Relation)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table's name in Athena.
///
/// # Errors
/// `invalid` if a table in Athena cannot have that name.
pub(crate) fn name_of(table: &Table) -> Result<String> {
    let name = table.name.to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Err(Error::invalid(format!(
            "table `{}` cannot have that name in Athena; name it with letters, digits and `_` only",
            table.name
        )));
    }
    Ok(name)
}

/// The catalog, as one caller uses it.
pub(crate) struct Tables<'a> {
    pub(crate) athena: &'a Athena,
    pub(crate) known: &'a Known,
    pub(crate) lake: &'a Location,
    pub(crate) behalf: Option<&'a Behalf>,
}

impl Tables<'_> {
    fn database(&self) -> &str {
        &self.athena.settings().database
    }

    /// The catalog's entry for a name, if there is one. Tables change, so an answer is reused only briefly.
    pub(crate) async fn relation(&self, name: &str) -> Result<Option<Relation>> {
        if let Some((at, relation)) = lock(&self.known.relations).get(name)
            && at.elapsed() < FRESH
        {
            return Ok(Some(relation.clone()));
        }
        let settings = self.athena.settings();
        let request =
            self.athena.client().get_table_metadata().catalog_name(&settings.catalog).database_name(&settings.database).table_name(name);
        let resource = format!("table {}.{name}", settings.database);
        let found = self
            .athena
            .patience()
            .retried(|| {
                let request = request.clone();
                async {
                    match request.send().await {
                        Ok(answer) => Ok(Some(answer)),
                        Err(error) => match error::of_sdk("athena:GetTableMetadata", &resource, error) {
                            error if is_unknown(&error) => Ok(None),
                            error => Err(error),
                        },
                    }
                }
            })
            .await?;
        let Some(metadata) = found.and_then(|answer| answer.table_metadata) else { return Ok(None) };
        let columns = |columns: Option<Vec<aws_sdk_athena::types::Column>>| {
            let columns = columns.unwrap_or_default().into_iter();
            columns.map(|column| Column { name: column.name, declared: column.r#type.unwrap_or_else(|| "string".to_owned()) }).collect()
        };
        let relation = Relation {
            database: settings.database.clone(),
            name: name.to_owned(),
            columns: columns(metadata.columns),
            partitions: columns(metadata.partition_keys),
            location: metadata
                .parameters
                .as_ref()
                .and_then(|parameters| parameters.get("location").cloned())
                .filter(|location| !location.is_empty()),
            parameters: metadata.parameters.unwrap_or_default().into_iter().filter(|(name, _)| !name.starts_with("transient")).collect(),
            kept_dates: Vec::new(),
            is_view: metadata.table_type.is_some_and(|kind| kind.eq_ignore_ascii_case("VIRTUAL_VIEW")),
        };
        let relation = Box::pin(self.with_kept_dates(relation)).await?;
        let mut relations = lock(&self.known.relations);
        relations.retain(|_, (at, _)| at.elapsed() < FRESH);
        relations.insert(name.to_owned(), (Instant::now(), relation.clone()));
        Ok(Some(relation))
    }

    /// A table of repairs, with those of its columns that are dates in the table itself; any other as it is.
    async fn with_kept_dates(&self, mut relation: Relation) -> Result<Relation> {
        let of = relation.name.strip_suffix(&overlay::repairs("")).map(str::to_owned);
        let (Some(of), true) = (of, relation.kind(overlay::columns::OP).is_some()) else { return Ok(relation) };
        let Some(base) = self.relation(&of).await? else { return Ok(relation) };
        let dates = base.columns.iter().map(|column| &column.name).filter(|name| base.kind(name) == Some(Kind::Date));
        relation.kept_dates = dates.filter(|name| relation.kind(name) == Some(Kind::Instant)).cloned().collect();
        Ok(relation)
    }

    /// Forgets the catalog's answer about a name.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.known.relations).remove(name);
    }

    /// The catalog's entry for a workflow's table.
    ///
    /// # Errors
    /// `not-found` with advice if there is no such table or database.
    pub(crate) async fn table(&self, table: &Table) -> Result<Relation> {
        let name = name_of(table)?;
        if let Some(relation) = self.relation(&name).await? {
            return Ok(relation);
        }
        let settings = self.athena.settings();
        let resource = format!("database {}", settings.database);
        let database = self.athena.client().get_database().catalog_name(&settings.catalog).database_name(&settings.database).send().await;
        if let Err(error) = database.map_err(|error| error::of_sdk("athena:GetDatabase", &resource, error))
            && is_unknown(&error)
        {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "no database `{}` in Athena; create it with `CREATE DATABASE {}`, or correct `database` of the profile",
                    settings.database, settings.database
                ),
            ));
        }
        let place = Place::of(self.lake, table)?;
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "no table `{name}` in database `{}` of Athena; correct `tables`, or declare it with its columns: {}",
                settings.database,
                sql::suggested_table(&settings.database, table, &format!("{}/", place.data))
            ),
        ))
    }

    /// The repairs of a table, if there are any yet.
    pub(crate) async fn repairs(&self, raw: &Relation) -> Result<Option<Relation>> {
        self.ours(&overlay::repairs(&raw.name), overlay::columns::OP).await
    }

    /// The exceptions of a table, if there are any yet.
    pub(crate) async fn exceptions(&self, raw: &Relation) -> Result<Option<Relation>> {
        self.ours(&overlay::exceptions(&raw.name), overlay::columns::RECHECK_AFTER).await
    }

    /// A table of ours, recognised by a column that only we use.
    async fn ours(&self, name: &str, mark: &str) -> Result<Option<Relation>> {
        let Some(relation) = self.relation(name).await? else { return Ok(None) };
        if relation.kind(mark).is_none() {
            return Err(not_ours(&relation));
        }
        Ok(Some(relation))
    }

    /// The missing tables and views of a table's overlay, each in a few words.
    pub(crate) async fn missing(&self, table: &Table) -> Result<Vec<String>> {
        let raw = self.table(table).await?;
        let place = Place::of(self.lake, table)?;
        let mut missing = Vec::new();
        let repairs = self.repairs(&raw).await?;
        let as_repaired = self.repairs_with(table, &raw, repairs.as_ref(), raw.shape(table)?.as_ref(), &Schema::empty())?;
        self.check_view(table, &raw, &as_repaired)?;
        if repairs.is_none() {
            missing.push(format!("table {}.{} at {}", raw.database, overlay::repairs(&raw.name), self.uri(&place.repairs)));
        }
        if self.exceptions(&raw).await?.is_none() {
            missing.push(format!("table {}.{} at {}", raw.database, overlay::exceptions(&raw.name), self.uri(&place.exceptions)));
        }
        if self.ours(&overlay::repaired_view(&raw.name), overlay::REPAIRED_BY).await?.is_none() {
            missing.push(format!("view {}.{}", raw.database, overlay::repaired_view(&raw.name)));
        }
        Ok(missing)
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}/", self.lake.bucket)
    }

    /// Checks that Athena accepts the view of a table with these repairs, whatever becomes retracted. Changes nothing.
    ///
    /// # Errors
    /// `invalid` if its statement is too long.
    pub(crate) fn check_view(&self, table: &Table, raw: &Relation, repairs: &Relation) -> Result<()> {
        let of = (table.clone(), raw.clone(), repairs.clone());
        if lock(&self.known.fitting).get(&raw.name) == Some(&of) {
            return Ok(());
        }
        let retracted = self.retractions_of(table, raw)?;
        let source = Source { table, raw, repairs: Some(repairs), exceptions: None, retracted: Some(&retracted) };
        let bytes = source.create_view(self.database(), repairs)?.len();
        if bytes > MAX_STATEMENT_BYTES {
            return Err(Error::invalid(format!(
                "the repaired view of table `{}` needs a statement of {bytes} bytes, and Athena accepts {MAX_STATEMENT_BYTES}; nothing was written. \
                 Make a view with fewer columns of the table, declare fewer rules under `columns`, and name the view in the workflow",
                table.name
            )));
        }
        lock(&self.known.fitting).insert(raw.name.clone(), of);
        Ok(())
    }

    /// The table of repairs as it is, or will be, once repairs with these columns are written.
    pub(crate) fn repairs_with(
        &self,
        table: &Table,
        raw: &Relation,
        known: Option<&Relation>,
        columns: &Schema,
        written: &Schema,
    ) -> Result<Relation> {
        let mut all = known.cloned().unwrap_or_else(|| Relation {
            database: raw.database.clone(),
            name: overlay::repairs(&raw.name),
            ..Relation::default()
        });
        for (name, declared) in repairs_columns(table, raw, columns, written)? {
            if all.kind(&name).is_none() {
                all.columns.push(Column { name: name.to_lowercase(), declared });
            }
        }
        Ok(all)
    }

    /// Creates the table of repairs, or adds columns that its table has gained, and those of repaired cells that are to be written.
    pub(crate) async fn ensure_repairs(&self, table: &Table, raw: &Relation, columns: &Schema, written: &Schema) -> Result<Relation> {
        let place = Place::of(self.lake, table)?;
        let wanted = repairs_columns(table, raw, columns, written)?;
        self.ensure(&overlay::repairs(&raw.name), overlay::columns::OP, table, raw, &wanted, &place.repairs).await
    }

    /// Creates the table of exceptions.
    pub(crate) async fn ensure_exceptions(&self, table: &Table, raw: &Relation) -> Result<Relation> {
        let place = Place::of(self.lake, table)?;
        let schema = overlay::exceptions_schema(table);
        let wanted = schema.fields().iter().map(|field| Ok((field.name().clone(), declare(field)?.0))).collect::<Result<Vec<_>>>()?;
        self.ensure(&overlay::exceptions(&raw.name), overlay::columns::RECHECK_AFTER, table, raw, &wanted, &place.exceptions).await
    }

    /// Creates the table of retractions.
    pub(crate) async fn ensure_retractions(&self, table: &Table, raw: &Relation) -> Result<Relation> {
        let place = Place::of(self.lake, table)?;
        let wanted: Vec<(String, String)> =
            self.retractions_of(table, raw)?.columns.into_iter().map(|column| (column.name, column.declared)).collect();
        self.make(&overlay::retractions(&raw.name), Some(retraction::names::ID), &wanted, &[], &place.retractions).await
    }

    /// The table of retractions as it is declared.
    fn retractions_of(&self, table: &Table, raw: &Relation) -> Result<Relation> {
        let schema = retraction::schema(table);
        let columns = schema.fields().iter().map(|field| Ok(Column { name: field.name().to_lowercase(), declared: declare(field)?.0 }));
        let name = overlay::retractions(&raw.name);
        Ok(Relation { database: raw.database.clone(), name, columns: columns.collect::<Result<_>>()?, ..Relation::default() })
    }

    async fn ensure(
        &self,
        name: &str,
        mark: &str,
        table: &Table,
        raw: &Relation,
        columns: &[(String, String)],
        folder: &str,
    ) -> Result<Relation> {
        let by = partition::time_partition(table)?;
        let partitions: Vec<(String, String)> =
            by.map(|by| (by.column.clone(), raw.declared(&by.column).unwrap_or("string").to_owned())).into_iter().collect();
        self.make(name, Some(mark), columns, &partitions, folder).await
    }

    /// Creates a table of ours, or adds columns that it lacks.
    ///
    /// # Errors
    /// `conflict` if something that is not ours has the name; `invalid` if a column has another type there.
    pub(crate) async fn make(
        &self,
        name: &str,
        mark: Option<&str>,
        columns: &[(String, String)],
        partitions: &[(String, String)],
        folder: &str,
    ) -> Result<Relation> {
        let location = self.uri(folder);
        let known = self.relation(name).await?;
        let statement = match &known {
            None => Some(sql::create_table(self.database(), name, columns, partitions, &location)),
            Some(relation) => {
                let elsewhere = relation.location.as_deref().is_some_and(|at| at.trim_end_matches('/') != location.trim_end_matches('/'));
                if relation.is_view || elsewhere || mark.is_some_and(|mark| relation.kind(mark).is_none()) {
                    return Err(not_ours(relation));
                }
                let mut more = Vec::new();
                // Repairs keep a date that came later as a timestamp.
                let keeps_dates = mark == Some(overlay::columns::OP);
                for (column, declared) in columns {
                    let is_date = keeps_dates && kind_of(declared) == Kind::Date;
                    match relation.declared(column) {
                        None if is_date => more.push((column.clone(), "timestamp".to_owned())),
                        None => more.push((column.clone(), declared.clone())),
                        Some(has) if has.eq_ignore_ascii_case(declared) => {}
                        Some(has) if is_date && kind_of(has) == Kind::Instant => {}
                        Some(has) => {
                            return Err(Error::invalid(format!(
                                "column `{column}` of table `{}.{name}` is `{has}` in Athena, and {declared} is to be written to it; drop that table (its \
                                 objects stay) and it is made anew, or write to another",
                                self.database()
                            )));
                        }
                    }
                }
                if let Some((column, _)) = more.iter().find(|(_, declared)| declared.eq_ignore_ascii_case("date")) {
                    return Err(Error::invalid(format!(
                        "table `{database}.{name}` lacks column `{column}`, and Athena adds no column of type `date` to an existing table; drop that \
                         table (its objects stay) and it is made anew{partitions}",
                        database = self.database(),
                        partitions = if partitions.is_empty() {
                            String::new()
                        } else {
                            format!("; then run `MSCK REPAIR TABLE {}.{name}`, so that its partitions are known again", self.database())
                        }
                    )));
                }
                (!more.is_empty()).then(|| sql::add_columns(self.database(), name, &more))
            }
        };
        if let Some(statement) = statement {
            tracing::info!(table = name, "creating a table of ours in Athena, or adding columns");
            self.define(&statement).await?;
            self.forget(name);
        }
        self.relation(name).await?.ok_or_else(|| Error::internal(format!("Athena created table `{name}`, but does not list it")))
    }

    /// Runs a statement that defines something: free of charge, and with the same effect if it is run twice.
    async fn define(&self, statement: &str) -> Result<()> {
        self.athena.run(self.behalf, statement).await.map(|_| ())
    }

    /// Drops a table of ours; its objects stay.
    pub(crate) async fn drop(&self, name: &str) -> Result<()> {
        self.define(&sql::drop_table(self.database(), name)).await?;
        self.forget(name);
        Ok(())
    }

    /// Adds partitions to a table of ours.
    pub(crate) async fn ensure_partitions(&self, name: &str, column: &str, folder: &str, values: &[String]) -> Result<()> {
        let new: Vec<(String, String)> = {
            let known = lock(&self.known.partitions);
            let new = values.iter().filter(|value| !known.contains(&(name.to_owned(), (*value).clone())));
            new.map(|value| (value.clone(), format!("s3://{}/{}/", self.lake.bucket, place::partition(folder, Some((column, value))))))
                .collect()
        };
        for some in new.chunks(PARTITIONS_A_STATEMENT) {
            self.define(&sql::add_partitions(self.database(), name, column, some)).await?;
            lock(&self.known.partitions).extend(some.iter().map(|(value, _)| (name.to_owned(), value.clone())));
        }
        Ok(())
    }

    /// Creates the repaired view, or replaces it if the table's columns, the retractions or the columns of repaired cells have changed, or the first row is removed.
    ///
    /// # Errors
    /// `conflict` if something that is not ours has the name.
    pub(crate) async fn ensure_view(&self, source: &Source<'_>, repairs: &Relation) -> Result<()> {
        let name = overlay::repaired_view(&source.raw.name);
        let patched = source.patched_columns(repairs);
        // The view of an overlay without repaired cells and removals depends on neither.
        let has_more = !patched.is_empty() || sql::has_removals(repairs);
        let of = (source.table.clone(), source.raw.clone(), source.retracted.cloned(), patched, sql::has_removals(repairs));
        if lock(&self.known.views).get(&name) == Some(&of) {
            return Ok(());
        }
        let found = self.relation(&name).await?;
        if let Some(relation) = &found
            && (!relation.is_view || relation.kind(overlay::REPAIRED_BY).is_none())
        {
            return Err(not_ours(relation));
        }
        let (columns, computes_time) = (source.view_columns()?, source.computes_time()?);
        let is_current = found.is_some_and(|view| {
            // The catalog does not return the view's text, which depends on retractions, repaired cells, removals, how the table is read, and
            // what makes its rows the same.
            source.retracted.is_none()
                && !has_more
                && is_plain(source.table)
                && !computes_time
                && columns.iter().all(|column| view.kind(column).is_some())
                && view.columns.len() == columns.len()
        });
        if !is_current {
            self.define(&source.create_view(self.database(), repairs)?).await?;
            self.forget(&name);
        }
        lock(&self.known.views).insert(name, of);
        Ok(())
    }
}

/// The columns of a table's repairs: the table's own, those of provenance, and those of repaired cells that are to be written.
fn repairs_columns(table: &Table, raw: &Relation, columns: &Schema, written: &Schema) -> Result<Vec<(String, String)>> {
    let own = columns.fields().iter().filter(|field| *field.name() != table.time && !table.key.contains(field.name()));
    let mut wanted: Vec<(String, String)> = Vec::new();
    for field in overlay::repairs_schema(columns).fields() {
        // Each column has exactly the table's own type, so that both halves of the view have the same types.
        let declared = match (own.clone().any(|own| own.name() == field.name()), sql::values::declared(table, raw, field.name())) {
            (true, Some(declared)) => declared,
            _ => declare(field)?.0,
        };
        wanted.push((field.name().clone(), declared));
    }
    for field in written.fields() {
        let name = field.name();
        if [overlay::columns::CELLS, overlay::columns::ANSWER, overlay::columns::ESTIMATED].contains(&name.as_str()) {
            wanted.push((name.clone(), declare(field)?.0));
        } else if let Some(changed) = name.strip_prefix(overlay::columns::WAS)
            && own.clone().any(|own| own.name() == changed)
            && let Some(declared) = sql::values::declared(table, raw, changed)
        {
            // A cell of a column that the table no longer has is of no use to anybody.
            wanted.push((name.clone(), sql::cells::declared_was(&declared)));
        }
    }
    Ok(wanted)
}

/// Whether a table is read as the catalog alone says, and its rows are those of slots or instants.
fn is_plain(table: &Table) -> bool {
    table.rows != Rows::Unique
        && table.layout.is_none()
        && table.reading.is_plain()
        && table.date_zone().is_utc()
        && table.columns.is_empty()
        && table.nulls.is_empty()
        && table.ignore.is_empty()
        && table.slack == Slack::OneFolder
        && table.on_bad_row == OnBadRow::Refuse
}

fn not_ours(relation: &Relation) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "`{}.{}` in Athena was not created by us, so it is not ours to write to; rename it, or give the workflow's table another name",
            relation.database, relation.name
        ),
    )
}

/// Whether Athena says that there is no such table or database. Its message is that of the catalog behind it.
fn is_unknown(error: &Error) -> bool {
    let said = error.full();
    ["EntityNotFoundException", "Entity Not Found", "not found", "does not exist"].iter().any(|words| said.contains(words))
        && !matches!(error.kind(), ErrorKind::Denied | ErrorKind::Throttled)
}
