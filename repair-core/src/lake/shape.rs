//! The one shape of batches: keys as UTF-8, the time column as microseconds in UTC, all others as the table has them. Values only, no I/O.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::model::{Format, Key, Table};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};

use super::partition::SECOND_US;

const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// Casts values; one that does not fit is an error, not a null.
///
/// # Errors
/// `invalid` if one does not fit.
pub fn cast_strict(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to { Ok(array.clone()) } else { Ok(cast_with_options(array, to, &STRICT)?) }
}

/// Casts values that are to be kept; one that would not come back the same is an error. Rounding a float to a narrower float counts as the
/// same, since it was rounded when it was made.
///
/// # Errors
/// `invalid` if one would change.
pub fn cast_exact(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(array.clone());
    }
    let done = cast_strict(array, to)?;
    let same = if from.is_floating() && to.is_floating() {
        let (before, after) = (cast_strict(array, &DataType::Float64)?, cast_strict(&done, &DataType::Float64)?);
        let infinite =
            |values: &ArrayRef| values.as_primitive::<arrow::datatypes::Float64Type>().iter().flatten().filter(|v| v.is_infinite()).count();
        infinite(&before) == infinite(&after)
    } else if matches!(from, DataType::Null) || (is_text(from) && is_text(to)) {
        true
    } else {
        let back = cast_strict(&done, from)?;
        arrow::compute::kernels::cmp::not_distinct(array, &back)?.true_count() == array.len()
    };
    if same { Ok(done) } else { Err(Error::invalid(format!("{from} values would change as {to}"))) }
}

/// Whether values are text, in any of Arrow's encodings.
pub fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_key(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_key(values),
        // Old Parquet writers store text without marking it as text.
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        other => is_text(other) || other.is_integer() || other.is_floating(),
    }
}

/// Checks that a column can identify series.
///
/// # Errors
/// `invalid` if it cannot.
pub fn check_key_type(table: &Table, column: &str, kind: &DataType) -> Result<()> {
    if is_key(kind) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "key column `{column}` of table `{}` is {kind}; a key must be text or whole numbers: store it as one of these, or correct `key`",
        table.name
    )))
}

/// Checks that a column can be the time.
///
/// # Errors
/// `invalid` if it cannot.
pub fn check_time_type(table: &Table, kind: &DataType) -> Result<()> {
    if matches!(kind, DataType::Timestamp(_, _) | DataType::Date32) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "time column `{}` of table `{}` is {kind}, not a timestamp; store it as a TIMESTAMP in UTC, or correct `time`",
        table.time, table.name
    )))
}

/// A key column as UTF-8, without nulls.
///
/// # Errors
/// `invalid` if it has nulls, or is of a type that cannot be a key.
pub fn key_text(table: &Table, column: &str, array: &ArrayRef) -> Result<StringArray> {
    refuse_nulls(table, "key", column, array.as_ref())?;
    key_values(table, column, array)
}

/// A key column as UTF-8. Whole numbers are keys also if they are stored as floats.
///
/// # Errors
/// `invalid` if it is of a type that cannot be a key, or holds a number that is not whole.
pub fn key_values(table: &Table, column: &str, array: &ArrayRef) -> Result<StringArray> {
    check_key_type(table, column, array.data_type())?;
    if array.data_type().is_floating() {
        let whole = cast_exact(array, &DataType::Int64).map_err(|error| {
            let message = format!(
                "key column `{column}` of table `{}` holds a number that is not whole; a key must be text or whole numbers",
                table.name
            );
            Error::invalid(message).because(error)
        })?;
        return Ok(cast_strict(&whole, &DataType::Utf8)?.as_string::<i32>().clone());
    }
    Ok(cast_strict(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn refuse_nulls(table: &Table, role: &str, column: &str, array: &dyn Array) -> Result<()> {
    // The values of a dictionary may hold nulls too.
    match array.logical_null_count() {
        0 => Ok(()),
        nulls => Err(Error::invalid(format!(
            "{nulls} rows have no value in {role} column `{column}` of table `{}`, so they belong to no slot; remove \
             them from the table, or give them one",
            table.name
        ))),
    }
}

/// The time column as microseconds in UTC, without nulls. A time without a zone is taken as UTC; finer units are rounded down.
///
/// # Errors
/// `invalid` if it has nulls, or is not a time.
pub fn instants(table: &Table, array: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    check_time_type(table, array.data_type())?;
    refuse_nulls(table, "time", &table.time, array.as_ref())?;
    let too_far = |_| arrow::error::ArrowError::ComputeError("a time is too far from 1970 for microseconds".to_owned());
    let scale = |value: i64, factor: i64| value.checked_mul(factor).ok_or(()).map_err(too_far);
    let times: TimestampMicrosecondArray = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            array.as_primitive::<TimestampSecondType>().try_unary(|value| scale(value, SECOND_US))?
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().try_unary(|value| scale(value, 1_000))?
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        // Arrow's cast would round towards 1970.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().unary(|value| value.div_euclid(1_000))
        }
        _ => array.as_primitive::<Date32Type>().unary(|days| i64::from(days) * 86_400 * SECOND_US),
    };
    Ok(times.with_timezone("UTC"))
}

/// Checks that keys have as many values as the table has key columns; others would silently match nothing.
///
/// # Errors
/// `invalid` if one does not.
pub fn check_keys(table: &Table, keys: &[Key]) -> Result<()> {
    match keys.iter().find(|key| key.values().len() != table.key.len()) {
        None => Ok(()),
        Some(odd) => Err(Error::invalid(format!(
            "the key `{odd}` has {} values, and table `{}` has {} key columns; give one value for each",
            odd.values().len(),
            table.name,
            table.key.len()
        ))),
    }
}

/// The field of a key column in the shape of batches.
pub fn key_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

/// The field of the time column in the shape of batches.
pub fn time_field(table: &Table) -> Field {
    Field::new(&table.time, overlay::instant_type(), false)
}

/// The type that values of both types fit into, if there is one.
fn common_type(format: Format, a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float64, Int64, Null, Timestamp, Utf8};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        _ if a.is_integer() && b.is_integer() => {
            let (wider, narrower) = if a.primitive_width() >= b.primitive_width() { (a, b) } else { (b, a) };
            match (wider.is_signed_integer(), narrower.is_signed_integer()) {
                (true, true) | (false, false) => Some(wider.clone()),
                _ if ![a, b].contains(&&DataType::UInt64) => Some(Int64),
                _ => None,
            }
        }
        _ if a.is_numeric() && b.is_numeric() && (a.is_floating() || b.is_floating()) => Some(Float64),
        (Decimal128(p, s), Decimal128(q, t)) if s == t => Some(Decimal128(*p.max(q), *s)),
        (Timestamp(_, zone), Timestamp(_, other)) if zone == other => Some(Timestamp(TimeUnit::Microsecond, zone.clone())),
        _ if is_text(a) && is_text(b) => Some(Utf8),
        // In text files, values of several types are text.
        _ if format != Format::Parquet && !a.is_nested() && !b.is_nested() => Some(Utf8),
        _ => None,
    }
}

/// Adds the columns of another file to those of a table. Columns that a file lacks are null in its rows; types widen.
///
/// # Errors
/// `invalid` if a column has types that no common type fits.
pub fn merge(format: Format, all: &mut Vec<Field>, file: &Schema) -> Result<()> {
    for field in file.fields() {
        match all.iter_mut().find(|known| known.name() == field.name()) {
            None => all.push(Field::new(field.name(), field.data_type().clone(), true)),
            Some(known) => {
                let kind = common_type(format, known.data_type(), field.data_type()).ok_or_else(|| {
                    Error::invalid(format!(
                        "column `{}` is {} in one file and {} in another; rewrite one of them",
                        field.name(),
                        known.data_type(),
                        field.data_type()
                    ))
                })?;
                known.set_data_type(kind);
            }
        }
    }
    Ok(())
}

/// The columns of a table in the shape of batches, from those of its files. Key columns that only paths contain come last.
///
/// # Errors
/// `invalid` if the key or time column is missing or unusable.
pub fn of_table(table: &Table, mut fields: Vec<Field>) -> Result<SchemaRef> {
    for field in &mut fields {
        if *field.name() == table.time {
            *field = time_field(table);
        } else if table.key.contains(field.name()) {
            *field = key_field(field.name());
        } else if table.format != Format::Parquet && *field.data_type() == DataType::Null {
            field.set_data_type(DataType::Utf8);
        }
    }
    let missing: Vec<Field> =
        table.key.iter().filter(|key| fields.iter().all(|field| field.name() != *key)).map(|key| key_field(key)).collect();
    fields.extend(missing);
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns as a phrase: `it has a, b, c`.
pub fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) }
}

/// The key and time columns and the requested ones, in the table's order.
///
/// # Errors
/// `invalid` if the table lacks a requested column.
pub fn project(table: &Table, schema: &SchemaRef, columns: Option<&[String]>) -> Result<SchemaRef> {
    let Some(columns) = columns else { return Ok(schema.clone()) };
    if let Some(unknown) = columns.iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(Error::invalid(format!("table `{}` has no column `{unknown}`; {}", table.name, names(schema))));
    }
    let wanted = |field: &Field| *field.name() == table.time || table.key.contains(field.name()) || columns.contains(field.name());
    Ok(Arc::new(Schema::new(schema.fields().iter().filter(|field| wanted(field)).cloned().collect::<Vec<_>>())))
}

/// The names of columns that we add.
pub const RESERVED: [&str; 11] = [
    overlay::REPAIRED_BY,
    overlay::columns::OP,
    overlay::columns::RUN,
    overlay::columns::STEP,
    overlay::columns::UNIT,
    overlay::columns::STRATEGY,
    overlay::columns::SOURCE,
    overlay::columns::AT,
    overlay::columns::REPLACED,
    overlay::columns::ANSWER,
    overlay::columns::RECHECK_AFTER,
];

/// Rejects a table whose own columns have names that we add.
///
/// # Errors
/// `invalid` with the column's name.
pub fn refuse_reserved(table: &Table, schema: &Schema) -> Result<()> {
    match RESERVED.iter().find(|name| schema.field_with_name(name).is_ok()) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "table `{}` has a column `{name}`, a name that repairs use for a column of theirs; rename it",
            table.name
        ))),
    }
}

/// The key and time columns of a batch in shape.
pub struct KeyTime<'a> {
    /// The key columns, in the key's order.
    pub keys: Vec<&'a StringArray>,
    /// The time column.
    pub times: &'a TimestampMicrosecondArray,
}

impl<'a> KeyTime<'a> {
    /// The columns of a batch.
    ///
    /// # Errors
    /// `invalid` or `internal` if the batch is not in shape.
    pub fn of(table: &Table, batch: &'a RecordBatch) -> Result<Self> {
        let keys = crate::lake::rollup::key_columns(table, batch)?;
        let times = crate::lake::rollup::column(batch, &table.time)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal("the time column is not in microseconds"))?;
        Ok(Self { keys, times })
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> Key {
        Key::new(self.keys.iter().map(|column| column.value(row)))
    }

    /// The first row after `row` with another key. Rows of one key mostly follow each other, so callers look a key up once for each run.
    pub fn end_of_run(&self, row: usize) -> usize {
        let rows = self.times.len();
        let mut end = row + 1;
        while end < rows && self.keys.iter().all(|column| column.value(end) == column.value(row)) {
            end += 1;
        }
        end
    }

    /// The rows, cut into runs of one key.
    pub fn runs(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let mut row = 0;
        std::iter::from_fn(move || {
            (row < self.times.len()).then(|| {
                let run = row..self.end_of_run(row);
                row = run.end;
                run
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn nothing_is_kept_that_would_not_come_back() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None]));
        let whole: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), None]));
        let huge: ArrayRef = Arc::new(Int64Array::from(vec![(1 << 53) + 1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["007"]));
        let wide: ArrayRef = Arc::new(Float64Array::from(vec![1e300]));
        let tenth: ArrayRef = Arc::new(Float64Array::from(vec![0.1]));
        assert!(cast_exact(&floats, &DataType::Int64).is_err());
        assert!(cast_exact(&whole, &DataType::Int64).is_ok());
        assert!(cast_exact(&huge, &DataType::Float64).is_err());
        assert!(cast_exact(&text, &DataType::Int64).is_err());
        assert!(cast_exact(&wide, &DataType::Float32).is_err());
        assert!(cast_exact(&tenth, &DataType::Float32).is_ok());
        assert!(cast_exact(&tenth, &DataType::Decimal128(10, 2)).is_ok());
        assert!(cast_exact(&tenth, &DataType::Decimal128(10, 0)).is_err());
    }

    #[test]
    fn times_are_cut_downwards_also_before_1970() {
        let table = Table {
            name: "bars".into(),
            location: "bars".into(),
            format: Format::Parquet,
            partition_by: vec![],
            key: vec![],
            time: "ts".into(),
            time_marks: crate::model::TimeMark::Start,
            cadence: None,
            ..Table::implicit("bars", "ts")
        };
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_999]));
        assert_eq!(instants(&table, &times).unwrap().values().as_ref(), [-1, 1]);
        let far: ArrayRef = Arc::new(arrow::array::TimestampSecondArray::from(vec![i64::MAX / 2]));
        assert!(instants(&table, &far).unwrap_err().full().contains("too far"));
    }
}
