//! Tables from folders: their files become objects, their columns are read from them, and their partitions from `key=value` folders.
//!
//! What is declared is what a person would write for such files: types of Parquet as they are, CSV as delimited text with a header, JSON
//! lines by Athena's reader of them. Instants in text are declared as `string`, because Hive's `timestamp` is written without a zone.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::server::Sandbox;
use crate::sql::{QueryError, bucket_and_prefix, hive_name};
use crate::store::{Condition, Metadata, StoreError};

/// Folders nested deeper than this are a loop of links.
const MAX_DEPTH: usize = 32;

/// A table to be made of a folder.
#[derive(Debug, Clone, Copy)]
pub struct TableFolder<'a> {
    /// The database, which must exist.
    pub database: &'a str,
    /// The table's name.
    pub name: &'a str,
    /// The folder with its files: `.parquet`, `.csv`, or `.jsonl` and `.ndjson`. Hidden files, and those that begin with `_`, are left out.
    pub folder: &'a Path,
    /// Where the files go: `s3://bucket/prefix`. The bucket must exist.
    pub location: &'a str,
}

/// Why a folder did not become a table.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The folder, or a file in it, can't be read.
    Unreadable(PathBuf, io::Error),
    /// A file is not of the format that its name says.
    Unusable(PathBuf, Box<dyn std::error::Error + Send + Sync>),
    /// The folder does not make one table, for the reason given.
    NotATable(PathBuf, String),
    /// The location is not `s3://bucket/prefix`.
    BadLocation(String),
    /// The store refused an object.
    Store(StoreError),
    /// The catalog refused the table.
    Catalog(QueryError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(out, "can't read {}: {error}", path.display()),
            Self::Unusable(path, error) => write!(out, "can't find out the columns of {}: {error}", path.display()),
            Self::NotATable(path, why) => write!(out, "can't make a table of {}: {why}", path.display()),
            Self::BadLocation(location) => write!(out, "{location:?} is not a place in S3; write it as s3://bucket/prefix"),
            Self::Store(error) => error.fmt(out),
            Self::Catalog(error) => out.write_str(&error.reason()),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::Unusable(_, error) => Some(error.as_ref()),
            Self::Store(error) => Some(error),
            Self::NotATable(..) | Self::BadLocation(_) | Self::Catalog(_) => None,
        }
    }
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<QueryError> for LoadError {
    fn from(error: QueryError) -> Self {
        Self::Catalog(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Csv,
    JsonLines,
}

impl Format {
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }

    fn columns(self, file: &Path) -> Result<Schema, LoadError> {
        let open = || File::open(file).map_err(|error| LoadError::Unreadable(file.to_owned(), error));
        let unusable = |error: ArrowError| LoadError::Unusable(file.to_owned(), error.into());
        match self {
            Self::Parquet => {
                let metadata = ArrowReaderMetadata::load(&open()?, Default::default())
                    .map_err(|error| LoadError::Unusable(file.to_owned(), error.into()))?;
                Ok(metadata.schema().as_ref().clone())
            }
            Self::Csv => {
                let format = arrow::csv::reader::Format::default().with_header(true);
                format.infer_schema(open()?, None).map(|(schema, _)| schema).map_err(unusable)
            }
            Self::JsonLines => {
                arrow::json::reader::infer_json_schema(BufReader::new(open()?), None).map(|(schema, _)| schema).map_err(unusable)
            }
        }
    }

    /// The type to declare.
    fn declared(self, kind: &DataType) -> String {
        let is_instant = matches!(kind, DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Date64);
        if is_instant && self != Self::Parquet { "string".to_owned() } else { hive_name(kind) }
    }

    /// The type of a column that is of one type in one file, and of another in the next.
    fn common(self, one: &DataType, other: &DataType) -> Option<DataType> {
        match (one, other) {
            _ if one == other => Some(one.clone()),
            (DataType::Null, kind) | (kind, DataType::Null) => Some(kind.clone()),
            _ if self == Self::Parquet => None,
            (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
            _ if one.is_nested() || other.is_nested() => None,
            _ => Some(DataType::Utf8),
        }
    }

    fn clauses(self) -> (&'static str, &'static str) {
        match self {
            Self::Parquet => ("STORED AS PARQUET", ""),
            Self::Csv => ("ROW FORMAT DELIMITED FIELDS TERMINATED BY ','", " TBLPROPERTIES ('skip.header.line.count'='1')"),
            Self::JsonLines => ("ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'", ""),
        }
    }
}

impl Sandbox {
    /// Puts the files of a folder into a bucket and declares them as a table; gives how many files that were.
    ///
    /// # Errors
    /// If the folder can't be read, holds no files of a table or files that disagree about a column, or the table exists already.
    pub async fn load(&self, table: TableFolder<'_>) -> Result<usize, LoadError> {
        let TableFolder { database, name, folder, location } = table;
        let not_a_table = |why: String| LoadError::NotATable(folder.to_owned(), why);
        let (bucket, prefix) = bucket_and_prefix(location).ok_or_else(|| LoadError::BadLocation(location.to_owned()))?;
        let files = files_below(folder, 0)?;
        let Some(format) = files.iter().find_map(|file| Format::of(file)) else {
            return Err(not_a_table("it holds no .parquet, .csv or .jsonl files".to_owned()));
        };
        let mut columns: Vec<Field> = Vec::new();
        let mut partitioned_by: Option<Vec<String>> = None;
        for file in &files {
            if Format::of(file) != Some(format) {
                return Err(not_a_table(format!("it holds files of more than one format, such as {}", file.display())));
            }
            let relative = file.strip_prefix(folder).unwrap_or(file);
            let keys = partition_keys(relative);
            match &partitioned_by {
                Some(others) if *others != keys => {
                    return Err(not_a_table(format!("its files are in partitions of different keys, {others:?} and {keys:?}")));
                }
                _ => partitioned_by = Some(keys),
            }
            for field in format.columns(file)?.fields() {
                match columns.iter_mut().find(|known| known.name().eq_ignore_ascii_case(field.name())) {
                    None => columns.push(field.as_ref().clone()),
                    Some(known) => {
                        let Some(kind) = format.common(known.data_type(), field.data_type()) else {
                            return Err(not_a_table(format!(
                                "its files disagree about column {}: it is {} and, in {}, {}",
                                field.name(),
                                known.data_type(),
                                file.display(),
                                field.data_type()
                            )));
                        };
                        known.set_data_type(kind);
                    }
                }
            }
            let path: Vec<&str> = relative.iter().filter_map(|part| part.to_str()).collect();
            let bytes = std::fs::read(file).map_err(|error| LoadError::Unreadable(file.clone(), error))?;
            self.store().put(bucket, &format!("{prefix}{}", path.join("/")), bytes.into(), Condition::Always, Metadata::default())?;
        }
        let keys = partitioned_by.unwrap_or_default();
        let of_folders: BTreeSet<String> = keys.iter().map(|key| key.to_lowercase()).collect();
        let columns: Vec<String> = columns
            .iter()
            .filter(|column| !of_folders.contains(&column.name().to_lowercase()))
            .map(|column| format!("{} {}", quoted(column.name()), format.declared(column.data_type())))
            .collect();
        let partitions = match keys.as_slice() {
            [] => String::new(),
            keys => {
                format!(" PARTITIONED BY ({})", keys.iter().map(|key| format!("{} string", quoted(key))).collect::<Vec<_>>().join(", "))
            }
        };
        let (stored, properties) = format.clauses();
        let columns = columns.join(", ");
        let declaration = format!(
            "CREATE EXTERNAL TABLE {} ({columns}){partitions} {stored} LOCATION 's3://{bucket}/{prefix}'{properties}",
            quoted(name)
        );
        self.run(Some(database), &declaration).await?;
        if !keys.is_empty() {
            self.run(Some(database), &format!("MSCK REPAIR TABLE {}", quoted(name))).await?;
        }
        Ok(files.len())
    }
}

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

/// The keys of the `key=value` folders that a file is in.
fn partition_keys(relative: &Path) -> Vec<String> {
    let folders = relative.parent().into_iter().flat_map(Path::iter).filter_map(|folder| folder.to_str());
    folders.map_while(|folder| folder.split_once('=').map(|(key, _)| key.to_owned())).collect()
}

/// The files below a folder, in order; those that are hidden are nobody's.
fn files_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |error| LoadError::Unreadable(folder.to_owned(), error);
    if depth > MAX_DEPTH {
        return Err(unreadable(io::Error::other("folders are nested too deep")));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '_']));
        match (is_hidden, path.is_dir()) {
            (true, _) => {}
            (false, true) => files.extend(files_below(&path, depth + 1)?),
            (false, false) => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}
