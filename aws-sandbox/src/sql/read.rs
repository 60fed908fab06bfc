//! Rows from objects: Parquet, JSON lines, CSV, delimited text; as the columns that the catalog declares.
//!
//! Of Parquet objects, only the footer and the needed columns are read and counted. Declared columns that an object lacks are null. A
//! column of another type than declared is an error in Trino's words, never a guess.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde_json::Value;

use crate::catalog::{StorageDescriptor, Table};
use crate::store::Store;

use super::error::QueryError;
use super::scanned::Scanned;
use super::table::constant;

/// The format of an object's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Parquet,
    JsonLines {
        ignore_malformed: bool,
    },
    /// Quoted CSV; every value is text.
    Csv {
        separator: char,
        quote: char,
        escape: char,
        skip_lines: usize,
    },
    /// Hive's own text form, without quotes.
    Delimited {
        separator: char,
        escape: Option<char>,
        null: String,
        skip_lines: usize,
    },
}

impl Form {
    pub(crate) fn of(descriptor: &StorageDescriptor, table: &Table) -> Result<Self, QueryError> {
        let info = descriptor.serde_info.clone().unwrap_or_default();
        let library = info.serialization_library.unwrap_or_default();
        let character = |name: &str, otherwise: char| info.parameters.get(name).and_then(|text| text.chars().next()).unwrap_or(otherwise);
        let skip_lines = table.parameters.get("skip.header.line.count").and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(match library.rsplit('.').next().unwrap_or_default() {
            "ParquetHiveSerDe" => Self::Parquet,
            "JsonSerDe" => {
                let ignore = info.parameters.get("ignore.malformed.json").is_some_and(|value| value.eq_ignore_ascii_case("true"));
                Self::JsonLines { ignore_malformed: ignore }
            }
            "OpenCSVSerde" => Self::Csv {
                separator: character("separatorChar", ','),
                quote: character("quoteChar", '"'),
                escape: character("escapeChar", '\\'),
                skip_lines,
            },
            "LazySimpleSerDe" => Self::Delimited {
                separator: character("field.delim", character("serialization.format", '\u{1}')),
                escape: info.parameters.get("escape.delim").and_then(|text| text.chars().next()),
                null: info.parameters.get("serialization.null.format").cloned().unwrap_or_else(|| "\\N".to_owned()),
                skip_lines,
            },
            _ => {
                return Err(QueryError::user(
                    "HIVE_UNSUPPORTED_FORMAT",
                    format!("Unable to create input format: the SerDe {library:?} of table {} is not known", table.name),
                ));
            }
        })
    }
}

/// An object to read, and the values of its partition's keys, followed by its place.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) form: Form,
    pub(crate) values: Vec<ScalarValue>,
}

impl Source {
    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    fn bad_data(&self, why: &str) -> DataFusionError {
        QueryError::user("HIVE_BAD_DATA", format!("{why} ({})", self.location())).into()
    }
}

/// Reads objects as the wanted columns of a table.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The columns of the result.
    pub(crate) schema: SchemaRef,
    /// All columns of the table; the first `in_objects` are in the objects.
    pub(crate) table: SchemaRef,
    pub(crate) in_objects: usize,
    /// The wanted columns, by their position in the table.
    pub(crate) columns: Vec<usize>,
    pub(crate) store: Store,
    pub(crate) scanned: Scanned,
}

impl Reader {
    pub(crate) async fn read(&self, source: Source) -> Result<Vec<RecordBatch>> {
        match &source.form {
            Form::Parquet => self.read_parquet(&source).await,
            text => self.read_text(&source, text).map(|batch| vec![batch]),
        }
    }

    /// The wanted columns that are in the objects.
    fn wanted(&self) -> impl Iterator<Item = (usize, &Field)> {
        self.columns.iter().filter(|&&column| column < self.in_objects).map(|&column| (column, self.table.field(column)))
    }

    /// Combines the columns of an object and those of its partition in the wanted order.
    fn assemble(&self, source: &Source, mut read: HashMap<usize, ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for &column in &self.columns {
            let kind = self.table.field(column).data_type();
            columns.push(match column.checked_sub(self.in_objects) {
                None => read.remove(&column).unwrap_or_else(|| new_null_array(kind, rows)),
                Some(key) => match source.values.get(key) {
                    Some(value) => constant(value, kind, rows)?,
                    None => new_null_array(kind, rows),
                },
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    async fn read_parquet(&self, source: &Source) -> Result<Vec<RecordBatch>> {
        let object = ParquetObject {
            store: self.store.clone(),
            scanned: self.scanned.clone(),
            bucket: source.bucket.clone(),
            key: source.key.clone(),
            size: source.size,
        };
        let builder = ParquetRecordBatchStreamBuilder::new(object).await.map_err(|error| parquet_error(error, source))?;
        let file_schema = Arc::clone(builder.schema());
        // Trino finds columns by name, whatever their case.
        let found: HashMap<String, usize> =
            file_schema.fields().iter().enumerate().map(|(index, field)| (field.name().to_lowercase(), index)).collect();
        let mut pairs: Vec<(usize, usize)> =
            self.wanted().filter_map(|(column, field)| found.get(field.name()).map(|&index| (index, column))).collect();
        pairs.sort_unstable();
        let mask = ProjectionMask::roots(builder.parquet_schema(), pairs.iter().map(|&(index, _)| index));
        let mut stream = builder.with_projection(mask).build().map_err(|error| parquet_error(error, source))?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| parquet_error(error, source))?;
            let mut read = HashMap::new();
            for (position, &(_, column)) in pairs.iter().enumerate() {
                let declared = self.table.field(column);
                read.insert(column, as_declared(batch.column(position), declared, source)?);
            }
            batches.push(self.assemble(source, read, batch.num_rows())?);
        }
        Ok(batches)
    }

    fn read_text(&self, source: &Source, form: &Form) -> Result<RecordBatch> {
        if source.key.ends_with(".gz") {
            return Err(QueryError::system(
                "HIVE_CANNOT_OPEN_SPLIT",
                format!("the sandbox reads no compressed text: {}", source.location()),
            )
            .into());
        }
        let object = self.store.get(&source.bucket, &source.key).map_err(|error| open_error(&error.to_string(), source))?;
        self.scanned.add(object.bytes.len() as u64)?;
        let text = String::from_utf8_lossy(&object.bytes);
        if let Form::JsonLines { ignore_malformed } = form {
            return self.read_json(source, &text, *ignore_malformed);
        }
        let rows = match form {
            Form::Csv { separator, quote, escape, skip_lines } => csv_rows(&text, *separator, *quote, *escape, *skip_lines),
            Form::Delimited { separator, escape, null, skip_lines } => delimited_rows(&text, *separator, *escape, null, *skip_lines),
            Form::Parquet | Form::JsonLines { .. } => Vec::new(),
        };
        let quoted = matches!(form, Form::Csv { .. });
        let mut read = HashMap::new();
        for (column, field) in self.wanted() {
            let texts = StringArray::from_iter(rows.iter().map(|row| row.get(column).and_then(Option::as_deref)));
            read.insert(column, text_as(&texts, field, quoted, source)?);
        }
        self.assemble(source, read, rows.len())
    }

    fn read_json(&self, source: &Source, text: &str, ignore_malformed: bool) -> Result<RecordBatch> {
        let mut rows: Vec<HashMap<String, Value>> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<serde_json::Map<String, Value>>(line) {
                Ok(row) => rows.push(row.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()),
                Err(_) if ignore_malformed => rows.push(HashMap::new()),
                Err(error) => {
                    return Err(source.bad_data(&format!("HiveException: Row is not a valid JSON Object - line {}: {error}", number + 1)));
                }
            }
        }
        let mut read = HashMap::new();
        for (column, field) in self.wanted() {
            let values = rows.iter().map(|row| row.get(field.name()).unwrap_or(&Value::Null));
            read.insert(
                column,
                json_as(values, field.data_type()).map_err(|why| source.bad_data(&format!("Field {}: {why}", field.name())))?,
            );
        }
        self.assemble(source, read, rows.len())
    }
}

fn open_error(why: &str, source: &Source) -> DataFusionError {
    QueryError::system("HIVE_CANNOT_OPEN_SPLIT", format!("Error opening Hive split {}: {why}", source.location())).into()
}

fn parquet_error(error: ParquetError, source: &Source) -> DataFusionError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<QueryError>() {
            Ok(own) => (*own).into(),
            Err(other) => open_error(&other.to_string(), source),
        },
        other => source.bad_data(&other.to_string()),
    }
}

/// A Parquet object, whose bytes are counted as they are read.
struct ParquetObject {
    store: Store,
    scanned: Scanned,
    bucket: String,
    key: String,
    size: u64,
}

impl ParquetObject {
    fn bytes(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        let object = self.store.get_range(&self.bucket, &self.key, range).map_err(|error| ParquetError::External(Box::new(error)))?;
        self.scanned.add(object.bytes.len() as u64).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(object.bytes)
    }
}

impl AsyncFileReader for ParquetObject {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let bytes = self.bytes(range);
        Box::pin(async move { bytes })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        Box::pin(async move {
            let size = self.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        })
    }
}

/// Converts finer units to milliseconds, rounded half up, as Trino does.
fn rounded(value: i64, per_millisecond: i64) -> i64 {
    let half = per_millisecond / 2;
    if value >= 0 { value.saturating_add(half) / per_millisecond } else { (value + 1).saturating_sub(half) / per_millisecond }
}

fn is_integer(kind: &DataType) -> bool {
    kind.is_integer()
}

/// A column of a Parquet object as the catalog declares it.
fn as_declared(column: &ArrayRef, declared: &Field, source: &Source) -> Result<ArrayRef> {
    let (from, to) = (column.data_type(), declared.data_type());
    if from == to {
        return Ok(Arc::clone(column));
    }
    if let (DataType::Timestamp(unit, _), DataType::Timestamp(TimeUnit::Millisecond, None)) = (from, to) {
        let any = column.as_any();
        let milliseconds: TimestampMillisecondArray = match unit {
            TimeUnit::Microsecond => match any.downcast_ref::<TimestampMicrosecondArray>() {
                Some(micros) => micros.unary(|value| rounded(value, 1_000)),
                None => return Err(source.bad_data("a timestamp column is none")),
            },
            TimeUnit::Nanosecond => match any.downcast_ref::<TimestampNanosecondArray>() {
                Some(nanos) => nanos.unary(|value| rounded(value, 1_000_000)),
                None => return Err(source.bad_data("a timestamp column is none")),
            },
            _ => return Ok(cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })?),
        };
        return Ok(Arc::new(milliseconds));
    }
    let textual = |kind: &DataType| {
        matches!(
            kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView
        )
    };
    let fits = match (from, to) {
        (DataType::Dictionary(_, value), to) => textual(value) && textual(to),
        (from, to) if is_integer(from) => is_integer(to) || to.is_decimal(),
        (DataType::Float32, DataType::Float64) => true,
        (from, to) if from.is_decimal() => to.is_decimal(),
        (from, to) if textual(from) => textual(to),
        (DataType::List(_) | DataType::LargeList(_), DataType::List(_)) => true,
        (DataType::Struct(_), DataType::Struct(_)) | (DataType::Map(..), DataType::Map(..)) => true,
        _ => false,
    };
    if !fits {
        return Err(source.bad_data(&format!(
            "Field {}'s type {} in parquet file {} is incompatible with type {} defined in table schema",
            declared.name(),
            physical_name(from),
            source.location(),
            super::types::trino_name(to)
        )));
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
        .map_err(|error| source.bad_data(&format!("Field {}: {error}", declared.name())))
}

/// Parquet's name of the type of such values.
fn physical_name(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "BOOLEAN",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::Date32 => "INT32",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 | DataType::Timestamp(..) | DataType::Time64(_) => "INT64",
        DataType::FixedSizeBinary(_) | DataType::Decimal128(..) | DataType::Decimal256(..) => "FIXED_LEN_BYTE_ARRAY",
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) | DataType::Map(..) => "GROUP",
        _ => "BINARY",
    }
}

/// A column of text as the catalog declares it.
fn text_as(texts: &StringArray, field: &Field, quoted: bool, source: &Source) -> Result<ArrayRef> {
    let kind = field.data_type();
    if *kind == DataType::Utf8 {
        return Ok(Arc::new(texts.clone()));
    }
    if kind.is_nested() {
        return Err(source.bad_data(&format!("Field {}: nested types are not read from text", field.name())));
    }
    if !quoted {
        // Hive's text form gives null for what it cannot parse, such as an instant with a `T`.
        if matches!(kind, DataType::Timestamp(..)) {
            let plain = StringArray::from_iter(texts.iter().map(|text| text.filter(|text| !text.contains('T'))));
            return Ok(cast_with_options(&plain, kind, &CastOptions::default())?);
        }
        return Ok(cast_with_options(texts, kind, &CastOptions::default())?);
    }
    // OpenCSVSerde: an empty field is null unless its type is text; dates are days and timestamps milliseconds since 1970.
    let filled = StringArray::from_iter(texts.iter().map(|text| text.filter(|text| !text.is_empty())));
    let number = match kind {
        DataType::Date32 | DataType::Timestamp(..) => &DataType::Int64,
        other => other,
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let read = cast_with_options(&filled, number, &strict)
        .map_err(|error| source.bad_data(&format!("Error Parsing a column in the table: field {}: {error}", field.name())))?;
    Ok(match (kind, read.as_any().downcast_ref::<Int64Array>()) {
        (DataType::Timestamp(TimeUnit::Millisecond, None), Some(numbers)) => {
            Arc::new(numbers.reinterpret_cast::<arrow::datatypes::TimestampMillisecondType>())
        }
        (DataType::Date32, Some(numbers)) => {
            let days = cast_with_options(numbers, &DataType::Int32, &strict)?;
            cast_with_options(&days, kind, &strict)?
        }
        _ => read,
    })
}

/// JSON values as a column.
fn json_as<'a>(values: impl Iterator<Item = &'a Value>, kind: &DataType) -> Result<ArrayRef, String> {
    if kind.is_nested() {
        let scalars: Vec<ScalarValue> = values.map(|value| json_scalar(value, kind)).collect::<Result<_, _>>()?;
        if scalars.is_empty() {
            return Ok(arrow::array::new_empty_array(kind));
        }
        return ScalarValue::iter_to_array(scalars).map_err(|error| error.to_string());
    }
    let is_instant = matches!(kind, DataType::Timestamp(..));
    let texts: StringArray = values
        .map(|value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            // A number is milliseconds since 1970.
            Value::Number(millis) if is_instant => {
                millis.as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()).map(|instant| instant.to_string())
            }
            other => Some(other.to_string()),
        })
        .collect();
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&texts, kind, &strict).map_err(|error| error.to_string())
}

fn json_scalar(value: &Value, kind: &DataType) -> Result<ScalarValue, String> {
    let null = || ScalarValue::try_from(kind).map_err(|error| error.to_string());
    match (value, kind) {
        (Value::Null, _) => null(),
        (Value::Array(items), DataType::List(field)) => {
            let items: Vec<ScalarValue> = items.iter().map(|item| json_scalar(item, field.data_type())).collect::<Result<_, _>>()?;
            Ok(ScalarValue::List(ScalarValue::new_list_nullable(&items, field.data_type())))
        }
        (Value::Object(members), DataType::Struct(fields)) => {
            let lower: HashMap<String, &Value> = members.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
            let arrays: Vec<ArrayRef> = fields
                .iter()
                .map(|field| {
                    let value = lower.get(&field.name().to_lowercase()).copied().unwrap_or(&Value::Null);
                    json_scalar(value, field.data_type())?.to_array().map_err(|error| error.to_string())
                })
                .collect::<Result<_, _>>()?;
            let array = arrow::array::StructArray::try_new(fields.clone(), arrays, None).map_err(|error| error.to_string())?;
            Ok(ScalarValue::Struct(Arc::new(array)))
        }
        (_, kind) if kind.is_nested() => Err(format!("{value} is no {}", super::types::trino_name(kind))),
        (value, kind) => {
            let array = json_as(std::iter::once(value), kind)?;
            ScalarValue::try_from_array(&array, 0).map_err(|error| error.to_string())
        }
    }
}

/// Rows of quoted CSV. A line break inside quotes does not end a row.
fn csv_rows(text: &str, separator: char, quote: char, escape: char, skip_lines: usize) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    let mut row: Vec<Option<String>> = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut touched = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == escape && c != quote && quoted {
            // The escape is literal unless a character follows that it can escape.
            match characters.next_if(|next| *next == quote || *next == escape) {
                Some(next) => field.push(next),
                None => field.push(c),
            }
        } else if c == quote {
            if quoted && characters.next_if_eq(&quote).is_some() {
                field.push(quote);
            } else {
                quoted = !quoted;
                touched = true;
            }
        } else if c == separator && !quoted {
            row.push(Some(std::mem::take(&mut field)));
            touched = true;
        } else if (c == '\n' || c == '\r') && !quoted {
            if c == '\r' {
                characters.next_if_eq(&'\n');
            }
            if touched || !field.is_empty() {
                row.push(Some(std::mem::take(&mut field)));
                rows.push(std::mem::take(&mut row));
            }
            touched = false;
        } else {
            field.push(c);
        }
    }
    if touched || !field.is_empty() {
        row.push(Some(field));
        rows.push(row);
    }
    rows.drain(..skip_lines.min(rows.len()));
    rows
}

/// Rows of Hive's text form.
fn delimited_rows(text: &str, separator: char, escape: Option<char>, null: &str, skip_lines: usize) -> Vec<Vec<Option<String>>> {
    text.lines()
        .skip(skip_lines)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut row = Vec::new();
            let mut field = String::new();
            let mut characters = line.chars();
            while let Some(c) = characters.next() {
                if Some(c) == escape {
                    field.extend(characters.next());
                } else if c == separator {
                    row.push(std::mem::take(&mut field));
                } else {
                    field.push(c);
                }
            }
            row.push(field);
            row.into_iter().map(|field| (field != null).then_some(field)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_keeps_what_quotes_protect() {
        let rows = csv_rows("a,b\r\n\"x, y\",\"say \"\"hi\"\"\"\n\"two\nlines\",\n\n1,\"a\\\"b\"", ',', '"', '\\', 1);
        let expected = [["x, y", "say \"hi\""], ["two\nlines", ""], ["1", "a\"b"]];
        assert_eq!(rows.len(), 3);
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(row.iter().map(|field| field.as_deref().unwrap()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn delimited_text_knows_null_and_escapes() {
        let rows = delimited_rows("h\n1|a\\|b|\\N\n||", '|', None, "\\N", 1);
        assert_eq!(rows[0], [Some("1".to_owned()), Some("a\\".to_owned()), Some("b".to_owned()), None]);
        assert_eq!(rows[1], [Some(String::new()), Some(String::new()), Some(String::new())]);
        let rows = delimited_rows("a\\|b|c", '|', Some('\\'), "\\N", 0);
        assert_eq!(rows[0], [Some("a|b".to_owned()), Some("c".to_owned())]);
    }

    #[test]
    fn microseconds_round_half_up() {
        for (micros, millis) in [(1_499, 1), (1_500, 2), (-1_499, -1), (-1_500, -1), (-1_501, -2), (-500, 0), (-501, -1)] {
            assert_eq!(rounded(micros, 1_000), millis, "{micros}");
        }
    }
}
