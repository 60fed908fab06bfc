//! What DDL statements do to the catalog, and what they return about it.

use std::collections::BTreeSet;

use crate::catalog::{Catalog, CatalogError, Partition, Table};
use crate::store::Store;

use super::ddl::{Ddl, Name, PartitionSpec};
use super::engine::{Answer, Kind, ResultColumn};
use super::error::QueryError;
use super::partitions::{bucket_and_prefix, hive_location, unescape};
use super::view::View;

fn metastore(error: CatalogError) -> QueryError {
    match error {
        CatalogError::NoDatabase(name) => QueryError::ddl(format!("SemanticException [Error 10072]: Database does not exist: {name}")),
        CatalogError::NoTable(database, name) => {
            QueryError::ddl(format!("SemanticException [Error 10001]: Table not found {database}.{name}"))
        }
        CatalogError::Exists(what) => {
            QueryError::ddl(format!("Execution Error, return code 1. AlreadyExistsException({what} already exists)"))
        }
        other => QueryError::ddl(format!("Execution Error, return code 1. {other}")),
    }
}

fn done(kind: Kind, sub_kind: &'static str) -> Answer {
    Answer { kind, sub_kind, columns: Vec::new(), rows: Vec::new() }
}

fn shown(sub_kind: &'static str, column: &str, rows: Vec<String>) -> Answer {
    Answer {
        kind: Kind::Utility,
        sub_kind,
        columns: vec![ResultColumn { name: column.to_owned(), kind: "string".to_owned() }],
        rows: rows.into_iter().map(|row| vec![Some(row)]).collect(),
    }
}

/// Hive's patterns: `*` is any text, `|` separates alternatives.
fn like(pattern: Option<&str>, name: &str) -> bool {
    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*' | b'%', rest)) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
            Some((first, rest)) => name.split_first().is_some_and(|(next, name)| next == first && matches(rest, name)),
        }
    }
    pattern.is_none_or(|pattern| pattern.to_lowercase().split('|').any(|one| matches(one.as_bytes(), name.as_bytes())))
}

/// Values in the order of the table's keys.
fn values_of(table: &Table, spec: &PartitionSpec) -> Result<Vec<String>, QueryError> {
    let value = |key: &str| spec.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let values: Option<Vec<String>> = table.partition_keys.iter().map(|key| value(&key.name)).collect();
    values.filter(|values| values.len() == spec.len()).ok_or_else(|| {
        let keys: Vec<_> = table.partition_keys.iter().map(|key| key.name.as_str()).collect();
        QueryError::ddl(format!("SemanticException table {} is partitioned by {keys:?}, but the partition spec is {spec:?}", table.name))
    })
}

/// Runs one statement.
pub(crate) fn run(ddl: Ddl, database: &str, catalog: &Catalog, store: &Store) -> Result<Answer, QueryError> {
    let full = |name: &Name| (name.database.clone().unwrap_or_else(|| database.to_owned()), name.name.clone());
    let find = |name: &Name| {
        let (database, name) = full(name);
        catalog.table(&database, &name).map_err(metastore)
    };
    match ddl {
        Ddl::CreateDatabase { database, if_not_exists } => match catalog.create_database(*database) {
            Err(CatalogError::Exists(_)) if if_not_exists => Ok(done(Kind::Ddl, "CREATE_DATABASE")),
            other => other.map(|()| done(Kind::Ddl, "CREATE_DATABASE")).map_err(metastore),
        },
        Ddl::DropDatabase { name, if_exists, cascade } => {
            match catalog.tables(&name) {
                Err(CatalogError::NoDatabase(_)) if if_exists => return Ok(done(Kind::Ddl, "DROP_DATABASE")),
                Err(error) => return Err(metastore(error)),
                Ok(tables) if !tables.is_empty() && !cascade => {
                    return Err(QueryError::ddl(format!(
                        "Execution Error, return code 1. InvalidOperationException(Database {name} is not empty. One or more tables exist.)"
                    )));
                }
                Ok(_) => {}
            }
            catalog.delete_database(&name).map(|()| done(Kind::Ddl, "DROP_DATABASE")).map_err(metastore)
        }
        Ddl::CreateTable { name, table, if_not_exists } => {
            let (database, _) = full(&name);
            match catalog.create_table(&database, *table) {
                Err(CatalogError::Exists(_)) if if_not_exists => Ok(done(Kind::Ddl, "CREATE_TABLE")),
                other => other.map(|()| done(Kind::Ddl, "CREATE_TABLE")).map_err(metastore),
            }
        }
        Ddl::AddPartitions { name, if_not_exists, partitions } => {
            let table = find(&name)?;
            let (database, name) = full(&name);
            for (spec, location) in partitions {
                let values = values_of(&table, &spec)?;
                let partition = partition(&table, values, location);
                match catalog.create_partition(&database, &name, partition) {
                    Err(CatalogError::Exists(_)) if if_not_exists => {}
                    other => other.map_err(metastore)?,
                }
            }
            Ok(done(Kind::Ddl, "ALTER_TABLE_ADD_PARTITION"))
        }
        Ddl::DropPartitions { name, if_exists, partitions } => {
            let table = find(&name)?;
            let (database, name) = full(&name);
            for spec in partitions {
                match catalog.delete_partition(&database, &name, &values_of(&table, &spec)?) {
                    Err(CatalogError::NoPartition(_)) if if_exists => {}
                    other => other.map_err(metastore)?,
                }
            }
            Ok(done(Kind::Ddl, "ALTER_TABLE_DROP_PARTITION"))
        }
        Ddl::AddColumns { name, columns } => {
            let mut table = find(&name)?;
            let (database, _) = full(&name);
            let taken: BTreeSet<&str> = table.columns().iter().chain(&table.partition_keys).map(|column| column.name.as_str()).collect();
            if let Some(twice) = columns.iter().find(|column| taken.contains(column.name.as_str())) {
                return Err(QueryError::ddl(format!("SemanticException [Error 10036]: Duplicate column name: {}", twice.name)));
            }
            // As Athena's manual says of this statement.
            if let Some(date) = columns.iter().find(|column| column.hive_type().eq_ignore_ascii_case("date")) {
                return Err(QueryError::ddl(format!(
                    "ALTER TABLE ADD COLUMNS does not work for columns with the date datatype: {}",
                    date.name
                )));
            }
            if let Some(descriptor) = &mut table.storage_descriptor {
                descriptor.columns.extend(columns);
            }
            catalog.update_table(&database, table).map_err(metastore)?;
            Ok(done(Kind::Ddl, "ALTER_TABLE_ADD_COLUMN"))
        }
        Ddl::SetProperties { name, properties } => {
            let mut table = find(&name)?;
            let (database, _) = full(&name);
            table.parameters.extend(properties);
            catalog.update_table(&database, table).map_err(metastore)?;
            Ok(done(Kind::Ddl, "ALTER_TABLE_SET_PROPERTIES"))
        }
        Ddl::SetLocation { name, location } => {
            let mut table = find(&name)?;
            let (database, _) = full(&name);
            if let Some(descriptor) = &mut table.storage_descriptor {
                descriptor.location = Some(location);
            }
            catalog.update_table(&database, table).map_err(metastore)?;
            Ok(done(Kind::Ddl, "ALTER_TABLE_SET_LOCATION"))
        }
        Ddl::Repair { name } => {
            let table = find(&name)?;
            let (database, name) = full(&name);
            let added = repair(&table, &database, &name, catalog, store)?;
            let mut lines = Vec::new();
            if !added.is_empty() {
                lines.push(format!(
                    "Partitions not in metastore:\t{}",
                    added.iter().map(|at| format!("{name}:{at}")).collect::<Vec<_>>().join("\t")
                ));
                lines.extend(added.iter().map(|at| format!("Repair: Added partition to metastore {name}:{at}")));
            }
            Ok(Answer { kind: Kind::Ddl, ..shown("MSCK_REPAIR_TABLE", "result", lines) })
        }
        Ddl::DropTable { name, if_exists } | Ddl::DropView { name, if_exists } => {
            let (database, name) = full(&name);
            match catalog.delete_table(&database, &name) {
                Err(CatalogError::NoTable(..) | CatalogError::NoDatabase(_)) if if_exists => {}
                other => other.map_err(metastore)?,
            }
            Ok(done(Kind::Ddl, "DROP_TABLE"))
        }
        Ddl::ShowDatabases { pattern } => {
            let names = catalog.databases().into_iter().map(|database| database.name);
            Ok(shown("SHOW_DATABASES", "database_name", names.filter(|name| like(pattern.as_deref(), name)).collect()))
        }
        Ddl::ShowTables { database: of, pattern, views } => {
            let tables = catalog.tables(of.as_deref().unwrap_or(database)).map_err(metastore)?;
            let names = tables.into_iter().filter(|table| !views || table.is_view()).map(|table| table.name);
            Ok(shown("SHOW_TABLES", "tab_name", names.filter(|name| like(pattern.as_deref(), name)).collect()))
        }
        Ddl::ShowPartitions { name } => {
            let table = find(&name)?;
            if table.partition_keys.is_empty() {
                return Err(QueryError::ddl(format!("Execution Error, return code 1. Table {} is not a partitioned table", table.name)));
            }
            let (database, name) = full(&name);
            let partitions = catalog.partitions(&database, &name).map_err(metastore)?;
            let path = |partition: &Partition| {
                let parts = table.partition_keys.iter().zip(&partition.values).map(|(key, value)| format!("{}={value}", key.name));
                parts.collect::<Vec<_>>().join("/")
            };
            Ok(shown("SHOW_PARTITIONS", "partition", partitions.iter().map(path).collect()))
        }
        Ddl::ShowColumns { name } => {
            let table = find(&name)?;
            let names = table.columns().iter().chain(&table.partition_keys).map(|column| column.name.clone());
            Ok(shown("SHOW_COLUMNS", "field", names.collect()))
        }
        Ddl::Describe { name } => {
            let table = find(&name)?;
            let line = |column: &crate::catalog::Column| {
                format!("{}\t{}\t{}", column.name, column.hive_type(), column.comment.as_deref().unwrap_or_default())
            };
            Ok(shown("DESCRIBE_TABLE", "col_name", table.columns().iter().chain(&table.partition_keys).map(line).collect()))
        }
        Ddl::ShowCreateView { name } => {
            let table = find(&name)?;
            if !table.is_view() {
                return Err(QueryError::ddl(format!("SemanticException {} is not a view", table.name)));
            }
            let (database, name) = full(&name);
            let view = View::of(&table)?;
            let text = format!("CREATE VIEW \"{database}\".\"{name}\" AS\n{}", view.original_sql);
            Ok(shown("SHOW_CREATE_VIEW", "Create View", text.lines().map(str::to_owned).collect()))
        }
        Ddl::ShowCreateTable { name } => {
            let table = find(&name)?;
            Ok(shown("SHOW_CREATE_TABLE", "createtab_stmt", create_table_text(&table).lines().map(str::to_owned).collect()))
        }
    }
}

fn partition(table: &Table, values: Vec<String>, location: Option<String>) -> Partition {
    let location = location.unwrap_or_else(|| hive_location(table, &values));
    let descriptor =
        table.storage_descriptor.clone().map(|descriptor| crate::catalog::StorageDescriptor { location: Some(location), ..descriptor });
    Partition { values, storage_descriptor: descriptor, ..Partition::default() }
}

/// Registers the `key=value` folders below the table that are not registered yet; returns their paths.
fn repair(table: &Table, database: &str, name: &str, catalog: &Catalog, store: &Store) -> Result<Vec<String>, QueryError> {
    let Some((bucket, prefix)) = table.location().and_then(bucket_and_prefix) else {
        return Err(QueryError::ddl("Execution Error, return code 1. The table has no location in S3"));
    };
    let mut found = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page =
            store.list(bucket, &prefix, after.as_deref(), 1_000).map_err(|error| QueryError::ddl(format!("Execution Error: {error:?}")))?;
        let last = page.last().map(|head| head.key.clone());
        for head in &page {
            let folders: Vec<&str> = head.key[prefix.len()..].split('/').collect();
            let keys = table.partition_keys.len();
            if folders.len() > keys {
                found.insert(folders[..keys].join("/"));
            }
        }
        if page.len() < 1_000 {
            break;
        }
        after = last;
    }
    let mut added = Vec::new();
    for path in found {
        let pairs: Option<Vec<(&str, &str)>> = path.split('/').map(|folder| folder.split_once('=')).collect();
        let Some(pairs) = pairs else { continue };
        if !pairs.iter().zip(&table.partition_keys).all(|((key, _), wanted)| key.eq_ignore_ascii_case(&wanted.name)) {
            continue;
        }
        let values = pairs.iter().map(|(_, value)| unescape(value)).collect();
        let location = format!("s3://{bucket}/{prefix}{path}");
        match catalog.create_partition(database, name, partition(table, values, Some(location))) {
            Ok(()) => added.push(path),
            Err(CatalogError::Exists(_)) => {}
            Err(error) => return Err(metastore(error)),
        }
    }
    Ok(added)
}

fn create_table_text(table: &Table) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let columns = |columns: &[crate::catalog::Column]| {
        let lines = columns.iter().map(|column| {
            let comment = column.comment.as_ref().map(|comment| format!(" COMMENT {}", quoted(comment))).unwrap_or_default();
            format!("  `{}` {}{comment}", column.name, column.hive_type())
        });
        lines.collect::<Vec<_>>().join(", \n")
    };
    let database = table.database_name.as_deref().unwrap_or_default();
    let mut text = format!("CREATE EXTERNAL TABLE `{database}.{}`(\n{})\n", table.name, columns(table.columns()));
    if !table.partition_keys.is_empty() {
        text.push_str(&format!("PARTITIONED BY ( \n{})\n", columns(&table.partition_keys)));
    }
    if let Some(descriptor) = &table.storage_descriptor {
        let serde = descriptor.serde_info.clone().unwrap_or_default();
        let properties = |pairs: &crate::catalog::Parameters| {
            pairs.iter().map(|(key, value)| format!("  {}={}", quoted(key), quoted(value))).collect::<Vec<_>>().join(", \n")
        };
        text.push_str(&format!("ROW FORMAT SERDE \n  {}\n", quoted(serde.serialization_library.as_deref().unwrap_or_default())));
        if !serde.parameters.is_empty() {
            text.push_str(&format!("WITH SERDEPROPERTIES ( \n{}) \n", properties(&serde.parameters)));
        }
        text.push_str(&format!(
            "STORED AS INPUTFORMAT \n  {} \nOUTPUTFORMAT \n  {}\nLOCATION\n  {}\nTBLPROPERTIES (\n{})",
            quoted(descriptor.input_format.as_deref().unwrap_or_default()),
            quoted(descriptor.output_format.as_deref().unwrap_or_default()),
            quoted(descriptor.location.as_deref().unwrap_or_default()),
            properties(&table.parameters)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_know_stars_and_alternatives() {
        assert!(like(None, "bars"));
        assert!(like(Some("b*|x"), "bars"));
        assert!(like(Some("*ar*"), "bars"));
        assert!(!like(Some("bar"), "bars"));
    }

    #[test]
    fn a_table_that_is_shown_can_be_created_again() {
        let (catalog, store) = (Catalog::new(), Store::new());
        let sql = "CREATE EXTERNAL TABLE t (`a` string COMMENT 'it''s', b struct<x:int>) PARTITIONED BY (day string) ROW FORMAT SERDE \
                   'org.openx.data.jsonserde.JsonSerDe' LOCATION 's3://lake/t/'";
        run(super::super::ddl::parse(sql).unwrap(), "default", &catalog, &store).unwrap();
        let before = catalog.table("default", "t").unwrap();
        let text = create_table_text(&before).replace("`default.t`", "`t`");
        catalog.delete_table("default", "t").unwrap();
        run(super::super::ddl::parse(&text).unwrap(), "default", &catalog, &store).unwrap();
        let after = catalog.table("default", "t").unwrap();
        assert_eq!(after.storage_descriptor, before.storage_descriptor);
        assert_eq!(after.partition_keys, before.partition_keys);
    }
}
