//! The data catalog: databases, tables, views and partitions, as Glue keeps them.
//!
//! One catalog serves both Athena's DDL and the Glue calls, as in AWS. Its types are the JSON structures of the Glue API, so what a Glue
//! client writes comes back unchanged. It knows neither SQL nor HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The largest number of partitions of one table here; Glue's own quota is far above what tests need.
const MAX_PARTITIONS: usize = 1_000_000;

/// String properties of a table, a SerDe or a database.
pub type Parameters = BTreeMap<String, String>;

/// A database (Athena: schema).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Database {
    /// The name, in lower case.
    pub name: String,
    /// A comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its managed tables would lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location_uri: Option<String>,
    /// Properties.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub parameters: Parameters,
    /// When it was created, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<f64>,
}

/// A column of a table or a partition key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Column {
    /// The name, in lower case.
    pub name: String,
    /// The type as Hive writes it, such as `array<string>`.
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Properties.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub parameters: Parameters,
}

impl Column {
    /// A column without a comment.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Some(kind.into()), ..Self::default() }
    }

    /// The type as Hive writes it; Glue treats a column without one as a string.
    #[must_use]
    pub fn hive_type(&self) -> &str {
        self.kind.as_deref().unwrap_or("string")
    }
}

/// How rows are written in an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SerdeInfo {
    /// A name, rarely given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The Java class that reads the rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serialization_library: Option<String>,
    /// Its settings, such as `field.delim`.
    #[serde(deserialize_with = "null_as_default")]
    pub parameters: Parameters,
}

/// Where the rows of a table or a partition lie, and in which format.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StorageDescriptor {
    /// The columns that are in the objects.
    #[serde(deserialize_with = "null_as_default")]
    pub columns: Vec<Column>,
    /// The prefix of the objects, `s3://bucket/prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The Java class that reads files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_format: Option<String>,
    /// The Java class that writes files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
    /// Whether objects are compressed.
    pub compressed: bool,
    /// Number of buckets of a bucketed table.
    pub number_of_buckets: i64,
    /// How rows are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serde_info: Option<SerdeInfo>,
    /// Properties.
    #[serde(deserialize_with = "null_as_default")]
    pub parameters: Parameters,
    /// Whether the table is stored in subfolders.
    pub stored_as_sub_directories: bool,
    /// Other members that a client wrote (bucket and sort columns, skew), kept unchanged.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A table or a view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Table {
    /// The name, in lower case.
    pub name: String,
    /// The database it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_name: Option<String>,
    /// A comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was created, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<f64>,
    /// When it was last changed, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_time: Option<f64>,
    /// Days of retention.
    pub retention: i64,
    /// Columns, location and form; views have columns only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_descriptor: Option<StorageDescriptor>,
    /// The columns that are in the objects' names.
    #[serde(deserialize_with = "null_as_default")]
    pub partition_keys: Vec<Column>,
    /// A view's text: for Athena `/* Presto View: <base64> */`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view_original_text: Option<String>,
    /// For Athena `/* Presto View */`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view_expanded_text: Option<String>,
    /// `EXTERNAL_TABLE` or `VIRTUAL_VIEW`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_type: Option<String>,
    /// Properties, partition projection among them.
    #[serde(deserialize_with = "null_as_default")]
    pub parameters: Parameters,
    /// Counted up with each change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

impl Table {
    /// Whether it is a view.
    #[must_use]
    pub fn is_view(&self) -> bool {
        self.table_type.as_deref() == Some("VIRTUAL_VIEW")
    }

    /// The columns that are in the objects.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        self.storage_descriptor.as_ref().map_or(&[], |descriptor| descriptor.columns.as_slice())
    }

    /// Where its objects lie.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.storage_descriptor.as_ref()?.location.as_deref()
    }

    /// Whether partitions follow from the table's properties instead of being registered.
    #[must_use]
    pub fn is_projected(&self) -> bool {
        self.parameters.get("projection.enabled").is_some_and(|enabled| enabled.eq_ignore_ascii_case("true"))
    }
}

/// A registered partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Partition {
    /// One value for each partition key, as text.
    pub values: Vec<String>,
    /// The database of its table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_name: Option<String>,
    /// Its table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_name: Option<String>,
    /// When it was created, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<f64>,
    /// Where its objects lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_descriptor: Option<StorageDescriptor>,
    /// Properties.
    #[serde(deserialize_with = "null_as_default")]
    pub parameters: Parameters,
}

/// Why the catalog refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogError {
    /// There is no such database.
    NoDatabase(String),
    /// There is no such table or view: database and name.
    NoTable(String, String),
    /// There is no such partition.
    NoPartition(Vec<String>),
    /// It exists already; the text says what.
    Exists(String),
    /// The request is not valid; the text says why.
    Invalid(String),
}

impl std::fmt::Display for CatalogError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDatabase(name) => write!(out, "Database {name} not found."),
            Self::NoTable(_, name) => write!(out, "Table {name} not found."),
            Self::NoPartition(values) => write!(out, "Cannot find partition. Values: {values:?}"),
            Self::Exists(what) => write!(out, "{what} already exists."),
            Self::Invalid(why) => out.write_str(why),
        }
    }
}

impl std::error::Error for CatalogError {}

#[derive(Debug)]
struct TableEntry {
    table: Table,
    partitions: BTreeMap<Vec<String>, Partition>,
}

#[derive(Debug)]
struct DatabaseEntry {
    database: Database,
    tables: BTreeMap<String, TableEntry>,
}

/// The catalog. Clones share one store; every method is atomic.
#[derive(Debug, Clone)]
pub struct Catalog {
    databases: Arc<Mutex<BTreeMap<String, DatabaseEntry>>>,
}

impl Default for Catalog {
    fn default() -> Self {
        let catalog = Self { databases: Arc::default() };
        // Every account has this database from the start.
        catalog.lock().insert(
            "default".to_owned(),
            DatabaseEntry {
                database: Database { name: "default".to_owned(), create_time: Some(now_seconds()), ..Database::default() },
                tables: BTreeMap::new(),
            },
        );
        catalog
    }
}

impl Catalog {
    /// A catalog with the one database `default`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // A panic elsewhere while the lock was held leaves no half-made change: every change below is one insertion or removal.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, DatabaseEntry>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All databases, by name.
    #[must_use]
    pub fn databases(&self) -> Vec<Database> {
        self.lock().values().map(|entry| entry.database.clone()).collect()
    }

    /// One database.
    pub fn database(&self, name: &str) -> Result<Database, CatalogError> {
        let name = name.to_lowercase();
        self.lock().get(&name).map(|entry| entry.database.clone()).ok_or(CatalogError::NoDatabase(name))
    }

    /// Adds a database.
    pub fn create_database(&self, mut database: Database) -> Result<(), CatalogError> {
        database.name = database.name.to_lowercase();
        database.create_time = Some(now_seconds());
        let mut databases = self.lock();
        if databases.contains_key(&database.name) {
            return Err(CatalogError::Exists(format!("Database {}", database.name)));
        }
        databases.insert(database.name.clone(), DatabaseEntry { database, tables: BTreeMap::new() });
        Ok(())
    }

    /// Changes a database's description and properties.
    pub fn update_database(&self, name: &str, mut database: Database) -> Result<(), CatalogError> {
        let name = name.to_lowercase();
        let mut databases = self.lock();
        let entry = databases.get_mut(&name).ok_or_else(|| CatalogError::NoDatabase(name.clone()))?;
        database.name = name;
        database.create_time = entry.database.create_time;
        entry.database = database;
        Ok(())
    }

    /// Removes a database with everything in it, as Glue does.
    pub fn delete_database(&self, name: &str) -> Result<(), CatalogError> {
        let name = name.to_lowercase();
        self.lock().remove(&name).map(drop).ok_or(CatalogError::NoDatabase(name))
    }

    /// All tables and views of a database, by name.
    pub fn tables(&self, database: &str) -> Result<Vec<Table>, CatalogError> {
        let database = database.to_lowercase();
        let databases = self.lock();
        let entry = databases.get(&database).ok_or(CatalogError::NoDatabase(database))?;
        Ok(entry.tables.values().map(|entry| entry.table.clone()).collect())
    }

    /// One table or view.
    pub fn table(&self, database: &str, name: &str) -> Result<Table, CatalogError> {
        self.with_table(database, name, |entry| Ok(entry.table.clone()))
    }

    /// Adds a table or view.
    pub fn create_table(&self, database: &str, table: Table) -> Result<(), CatalogError> {
        let database = database.to_lowercase();
        let table = Table { create_time: Some(now_seconds()), version_id: Some("0".to_owned()), ..normal(&database, table) };
        let mut databases = self.lock();
        let entry = databases.get_mut(&database).ok_or(CatalogError::NoDatabase(database))?;
        if entry.tables.contains_key(&table.name) {
            return Err(CatalogError::Exists(format!("Table {}", table.name)));
        }
        entry.tables.insert(table.name.clone(), TableEntry { table, partitions: BTreeMap::new() });
        Ok(())
    }

    /// Replaces a table's definition; its partitions stay.
    pub fn update_table(&self, database: &str, table: Table) -> Result<(), CatalogError> {
        let table = normal(&database.to_lowercase(), table);
        self.with_table(database, &table.name.clone(), |entry| {
            let version = entry.table.version_id.as_deref().and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
            let create_time = entry.table.create_time;
            entry.table = Table { create_time, version_id: Some((version + 1).to_string()), ..table };
            Ok(())
        })
    }

    /// Removes a table or view and its partitions; objects stay.
    pub fn delete_table(&self, database: &str, name: &str) -> Result<(), CatalogError> {
        let (database, name) = (database.to_lowercase(), name.to_lowercase());
        let mut databases = self.lock();
        let entry = databases.get_mut(&database).ok_or_else(|| CatalogError::NoDatabase(database.clone()))?;
        entry.tables.remove(&name).map(drop).ok_or(CatalogError::NoTable(database, name))
    }

    /// All registered partitions, by their values.
    pub fn partitions(&self, database: &str, table: &str) -> Result<Vec<Partition>, CatalogError> {
        self.with_table(database, table, |entry| Ok(entry.partitions.values().cloned().collect()))
    }

    /// One registered partition.
    pub fn partition(&self, database: &str, table: &str, values: &[String]) -> Result<Partition, CatalogError> {
        self.with_table(database, table, |entry| {
            entry.partitions.get(values).cloned().ok_or_else(|| CatalogError::NoPartition(values.to_vec()))
        })
    }

    /// Registers a partition.
    pub fn create_partition(&self, database: &str, table: &str, partition: Partition) -> Result<(), CatalogError> {
        self.with_table(database, table, |entry| {
            check_values(&entry.table, &partition.values)?;
            if entry.partitions.contains_key(&partition.values) {
                return Err(CatalogError::Exists(format!("Partition {:?}", partition.values)));
            }
            if entry.partitions.len() >= MAX_PARTITIONS {
                return Err(CatalogError::Invalid(format!("table has {MAX_PARTITIONS} partitions, which is the most it may have")));
            }
            let partition = Partition {
                database_name: entry.table.database_name.clone(),
                table_name: Some(entry.table.name.clone()),
                creation_time: Some(now_seconds()),
                ..partition
            };
            entry.partitions.insert(partition.values.clone(), partition);
            Ok(())
        })
    }

    /// Replaces a partition's definition, including its values if they differ.
    pub fn update_partition(&self, database: &str, table: &str, values: &[String], partition: Partition) -> Result<(), CatalogError> {
        self.with_table(database, table, |entry| {
            check_values(&entry.table, &partition.values)?;
            let old = entry.partitions.remove(values).ok_or_else(|| CatalogError::NoPartition(values.to_vec()))?;
            let partition =
                Partition { database_name: old.database_name, table_name: old.table_name, creation_time: old.creation_time, ..partition };
            entry.partitions.insert(partition.values.clone(), partition);
            Ok(())
        })
    }

    /// Removes a partition; objects stay.
    pub fn delete_partition(&self, database: &str, table: &str, values: &[String]) -> Result<(), CatalogError> {
        self.with_table(database, table, |entry| {
            entry.partitions.remove(values).map(drop).ok_or_else(|| CatalogError::NoPartition(values.to_vec()))
        })
    }

    fn with_table<T>(
        &self,
        database: &str,
        name: &str,
        then: impl FnOnce(&mut TableEntry) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let (database, name) = (database.to_lowercase(), name.to_lowercase());
        let mut databases = self.lock();
        let entry = databases.get_mut(&database).ok_or_else(|| CatalogError::NoDatabase(database.clone()))?;
        then(entry.tables.get_mut(&name).ok_or(CatalogError::NoTable(database, name))?)
    }
}

fn check_values(table: &Table, values: &[String]) -> Result<(), CatalogError> {
    if values.len() == table.partition_keys.len() {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "The number of partition keys do not match the number of partition values: {} keys, {} values",
        table.partition_keys.len(),
        values.len()
    )))
}

/// Names in lower case, as Glue converts them for Athena.
fn normal(database: &str, mut table: Table) -> Table {
    table.name = table.name.to_lowercase();
    table.database_name = Some(database.to_owned());
    table.update_time = Some(now_seconds());
    for column in table.storage_descriptor.iter_mut().flat_map(|descriptor| &mut descriptor.columns) {
        column.name = column.name.to_lowercase();
    }
    for column in &mut table.partition_keys {
        column.name = column.name.to_lowercase();
    }
    table
}

/// Clients of Glue write `null` where a list or a map is empty.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The instant as AWS's JSON writes it: seconds since 1970, with milliseconds as the fraction.
pub(crate) fn now_seconds() -> f64 {
    seconds(jiff::Timestamp::now())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits for 285,000 years")]
pub(crate) fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
