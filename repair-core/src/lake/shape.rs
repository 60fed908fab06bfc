//! The one shape of batches: keys as UTF-8, the time column as microseconds in UTC, all others as the table has them. Values only, no I/O.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::model::{Format, Key, Table};
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, FixedSizeListArray, GenericListArray, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray, make_comparator,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, SortOptions, cast_with_options};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Date32Type, Field, Float64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use arrow::util::display::array_value_to_string;
use jiff::Span;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

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
    if are_kept(array, &done)? { Ok(done) } else { Err(Error::invalid(format!("{from} values would change as {to}"))) }
}

/// Whether values that were cast are still the same.
fn are_kept(before: &ArrayRef, after: &ArrayRef) -> Result<bool> {
    let (from, to) = (before.data_type(), after.data_type());
    if from == to {
        return Ok(true);
    }
    if from.is_floating() && to.is_floating() {
        let (before, after) = (cast_strict(before, &DataType::Float64)?, cast_strict(after, &DataType::Float64)?);
        let infinite =
            |values: &ArrayRef| values.as_primitive::<Float64Type>().iter().flatten().filter(|value| value.is_infinite()).count();
        return Ok(infinite(&before) == infinite(&after));
    }
    if from.is_decimal() && to.is_floating() {
        return are_same_numbers(before, after);
    }
    if from.is_floating() && to.is_decimal() {
        return are_same_numbers(after, before);
    }
    if matches!(from, DataType::Null) || (is_text(from) && is_text(to)) {
        return Ok(true);
    }
    if is_text(from) && is_bytes(to) {
        return Err(Error::invalid(
            "text does not say which bytes it stands for; declare the column of the table as `text` if its bytes are text, or take them from a table that \
             holds bytes, such as one of Parquet",
        ));
    }
    if let (Some(before), Some(after)) = (before.as_struct_opt(), after.as_struct_opt()) {
        for (name, values) in before.column_names().into_iter().zip(before.columns()) {
            // That a field has the same type does not say that the cast took it from the same field.
            let is_kept = match after.column_by_name(name) {
                Some(cast) if cast.data_type() == values.data_type() => same_values(values, cast)?.count_set_bits() == values.len(),
                Some(cast) => are_kept(values, cast)?,
                None => false,
            };
            if !is_kept {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Some(before), Some(after)) = (items(before), items(after)) {
        return Ok(before.len() == after.len() && are_kept(&before, &after)?);
    }
    let back = cast_strict(after, from)?;
    Ok(same_values(before, &back)?.count_set_bits() == before.len())
}

/// The items of all lists of a column, or the entries of its maps.
fn items(lists: &ArrayRef) -> Option<ArrayRef> {
    let of_lists =
        || lists.as_list_opt::<i32>().map(GenericListArray::values).or_else(|| lists.as_list_opt::<i64>().map(GenericListArray::values));
    let of_list = of_lists().or_else(|| lists.as_fixed_size_list_opt().map(FixedSizeListArray::values)).cloned();
    of_list.or_else(|| lists.as_map_opt().map(|maps| Arc::new(maps.entries().clone()) as ArrayRef))
}

/// In which rows two columns of one type have the same value, which may be a list or a record. Nulls are the same.
///
/// # Errors
/// `invalid` if their values cannot be compared.
pub fn same_values(one: &ArrayRef, other: &ArrayRef) -> Result<BooleanBuffer> {
    if !one.data_type().is_nested() {
        return Ok(not_distinct(one, other)?.values().clone());
    }
    let compare = make_comparator(one.as_ref(), other.as_ref(), SortOptions::default())?;
    Ok(BooleanBuffer::collect_bool(one.len(), |row| compare(row, row) == Ordering::Equal))
}

/// Whether decimals are the numbers that floats print: each float is the nearest to its decimal, and has the decimal's digits. Arrow's casts
/// compute with rounded numbers, which are only exact for the 15 digits that every float keeps.
fn are_same_numbers(decimals: &ArrayRef, floats: &ArrayRef) -> Result<bool> {
    const KEPT: f64 = 1e15;
    const EXACT_POWERS: std::ops::RangeInclusive<i32> = 0..=22;
    let Some((_, scale)) = digits(decimals.data_type()) else { return Ok(false) };
    let kind = floats.data_type();
    let near = cast_strict(&cast_strict(decimals, kind)?, &DataType::Float64)?;
    let (near, floats) = (near.as_primitive::<Float64Type>(), cast_strict(floats, &DataType::Float64)?);
    let floats = floats.as_primitive::<Float64Type>();
    for row in 0..decimals.len() {
        let is_same = match (near.is_valid(row), floats.is_valid(row)) {
            (false, false) => true,
            (true, true) if EXACT_POWERS.contains(&scale) && near.value(row).abs() * 10f64.powi(scale) < KEPT => {
                near.value(row) == floats.value(row)
            }
            (true, true) => {
                let text = array_value_to_string(decimals, row)?;
                let (float, places) = (floats.value(row), usize::try_from(scale).unwrap_or(0));
                let printed = format!("{float:.places$}");
                text.parse() == Ok(float) && printed.trim_start_matches('-') == text.trim_start_matches('-')
            }
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The type in which values are written: a date in milliseconds would be a number for other programs.
pub fn plain_type(kind: &DataType) -> DataType {
    if *kind == DataType::Date64 { DataType::Timestamp(TimeUnit::Millisecond, None) } else { kind.clone() }
}

/// Whether values are text, in any of Arrow's encodings.
pub fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
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

/// The time column as microseconds in UTC, without nulls. A time without a zone is taken as UTC, and a date is its start in the zone of the table's
/// dates; finer units are rounded down.
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
        _ => starts(table, array.as_primitive::<Date32Type>())?,
    };
    Ok(times.with_timezone("UTC"))
}

/// When dates begin, in the zone in which dates of the table are times.
fn starts(table: &Table, dates: &Date32Array) -> Result<TimestampMicrosecondArray> {
    let zone = table.date_zone();
    if zone.is_utc() {
        return Ok(dates.unary(|days| i64::from(days) * 86_400 * SECOND_US));
    }
    let mut known: HashMap<i32, i64> = HashMap::new();
    let start = |&days: &i32| match known.get(&days) {
        Some(start_us) => Ok(*start_us),
        None => {
            let date = Date::constant(1970, 1, 1).checked_add(Span::new().try_days(days).map_err(out_of_range)?).map_err(out_of_range)?;
            let start_us = zone.start(date.at(0, 0, 0, 0))?.as_microsecond();
            known.insert(days, start_us);
            Ok(start_us)
        }
    };
    dates.values().iter().map(start).collect::<Result<Vec<i64>>>().map(TimestampMicrosecondArray::from)
}

fn out_of_range(error: jiff::Error) -> Error {
    Error::invalid("a date is out of range").because(error)
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

/// The type that values of both types fit into, if there is one: no value changes, or [`cast_exact`] refuses it when it is read.
fn common_type(format: Format, a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Date32, Dictionary, Float64, Int64, List, Null, Struct, Timestamp, Utf8};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        _ if a.is_integer() && b.is_integer() => {
            let (wider, narrower) = if a.primitive_width() >= b.primitive_width() { (a, b) } else { (b, a) };
            match (wider.is_signed_integer(), narrower.is_signed_integer()) {
                (true, true) | (false, false) => Some(wider.clone()),
                _ if ![a, b].contains(&&DataType::UInt64) => Some(Int64),
                _ => common_decimal(digits(a)?, digits(b)?),
            }
        }
        _ if a.is_numeric() && b.is_numeric() && (a.is_floating() || b.is_floating()) => Some(Float64),
        _ if a.is_numeric() && b.is_numeric() => common_decimal(digits(a)?, digits(b)?),
        (Timestamp(unit, zone), Timestamp(other_unit, other)) => {
            let unit = if unit == other_unit { *unit } else { TimeUnit::Microsecond };
            match (zone, other) {
                _ if zone == other => Some(Timestamp(unit, zone.clone())),
                (Some(zone), Some(other)) if is_utc(zone) && is_utc(other) => Some(Timestamp(unit, Some("UTC".into()))),
                // The same text would be another instant.
                _ if format == Format::Parquet => None,
                _ => Some(Utf8),
            }
        }
        // A date begins at midnight of a clock without a zone.
        (Date32, Timestamp(_, None)) | (Timestamp(_, None), Date32) if format == Format::Parquet => {
            Some(Timestamp(TimeUnit::Microsecond, None))
        }
        _ if is_text(a) && is_text(b) => Some(Utf8),
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => common_type(format, values, other),
        // What one of them lacks is null in its records.
        (Struct(fields), Struct(others)) => {
            let mut all: Vec<Arc<Field>> = fields.to_vec();
            for other in others {
                let Some(known) = all.iter_mut().find(|known| known.name() == other.name()) else {
                    all.push(Arc::new(other.as_ref().clone().with_nullable(true)));
                    continue;
                };
                *known = common_field(format, known, other)?;
            }
            let nullable = |field: &Arc<Field>| match others.find(field.name()) {
                Some(_) => field.clone(),
                None => Arc::new(field.as_ref().clone().with_nullable(true)),
            };
            Some(Struct(all.iter().map(nullable).collect()))
        }
        (List(item), List(other)) => Some(List(common_field(format, item, other)?)),
        // In text files, values of several types are text.
        _ if format != Format::Parquet && !a.is_nested() && !b.is_nested() => Some(Utf8),
        _ => None,
    }
}

/// The field of records, or the item of lists, that holds the values of both.
fn common_field(format: Format, one: &Field, other: &Field) -> Option<Arc<Field>> {
    let kind = common_type(format, one.data_type(), other.data_type())?;
    Some(Arc::new(Field::new(one.name(), kind, one.is_nullable() || other.is_nullable())))
}

/// Whether a zone is UTC by any of its usual names.
fn is_utc(zone: &str) -> bool {
    ["UTC", "+00:00", "-00:00", "+00", "+0000", "Z", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "Etc/Zulu"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(zone))
}

/// The digits of a whole or decimal number: before the decimal point, and after it (the scale, which may be negative).
fn digits(kind: &DataType) -> Option<(i32, i32)> {
    Some(match kind {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (i32::from(*precision) - i32::from(*scale), i32::from(*scale)),
        _ => return None,
    })
}

/// The decimal that holds all digits of both; `None` if it would need more than Arrow's widest decimals have.
fn common_decimal((whole, scale): (i32, i32), (other_whole, other_scale): (i32, i32)) -> Option<DataType> {
    let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
    let (precision, scale) = (u8::try_from((whole + scale).max(1)).ok()?, i8::try_from(scale).ok()?);
    if precision <= DECIMAL128_MAX_PRECISION {
        return Some(DataType::Decimal128(precision, scale));
    }
    (precision <= DECIMAL256_MAX_PRECISION).then_some(DataType::Decimal256(precision, scale))
}

/// A column that is not among a table's columns, because its types in two files have no common type, because two files write its name in
/// different cases, so that it would be two columns, each with a part of the values, or because a file has its name twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The column.
    pub column: String,
    /// Its type in each of the files.
    pub types: [String; 2],
    /// The files.
    pub files: [String; 2],
    /// Its name in the second file, if that differs in case; its own name, if a file has it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<String>,
}

impl LeftOut {
    /// Whether this is a name of the column.
    pub fn is_named(&self, name: &str) -> bool {
        self.column == name || self.also.as_deref() == Some(name)
    }

    /// Whether a file has the column twice, by this name or by one that differs in nothing but case.
    fn is_twice(&self, name: &str) -> bool {
        self.also.as_ref() == Some(&self.column) && self.column.to_lowercase() == name.to_lowercase()
    }

    /// What is wrong with the column.
    pub fn why(&self) -> String {
        let ([one, other], [of_one, of_other]) = (&self.types, &self.files);
        match &self.also {
            Some(also) if *also == self.column => {
                format!("column `{also}` is twice in a file, as {of_one} and as {of_other}, and only one can have the name")
            }
            Some(also) => format!(
                "column `{}` of {of_one} is written `{also}` in {of_other}, so it would be two columns, each with a part of the values",
                self.column
            ),
            None => {
                format!("column `{}` is {one} in {of_one} and {other} in {of_other}, and no type holds the values of both", self.column)
            }
        }
    }

    /// The same, of a column that differs within a file, by its lines.
    fn within(&self, file: &str) -> Self {
        let [one, other] = &self.files;
        Self { files: [format!("{one} of {file}"), format!("{other} of {file}")], ..self.clone() }
    }

    /// The error for whoever names the column.
    pub fn refusal(&self) -> Error {
        let remedy = match &self.also {
            Some(also) if *also == self.column => "give the other a name of its own",
            Some(_) => "write its name in one way in all files",
            None => "write it with one type in all files",
        };
        Error::invalid(format!("{}, so it cannot be read; {remedy}, or do not name it", self.why()))
    }
}

/// The key of a described schema's metadata that lists its [`LeftOut`] columns.
const LEFT_OUT: &str = "repair:left-out";

/// The columns that a table's description lacks because its files disagree about them.
pub fn left_out(schema: &Schema) -> Vec<LeftOut> {
    schema.metadata().get(LEFT_OUT).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The key of a described schema's metadata that lists its columns that [`mixed`] means.
const MIXED: &str = "repair:mixed";

/// The columns that are text because one file of text has words in them, where another has numbers alone, or because a file has both. What computes
/// leaves them empty, so one word can take a column of numbers from all rows. The place with numbers comes first. Types that are declared are never
/// mixed, and those of keys and times do not matter.
pub fn mixed(schema: &Schema) -> Vec<LeftOut> {
    schema.metadata().get(MIXED).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The key of a file's metadata that says that its columns were read from some of its rows.
const PART: &str = "repair:part";

/// The columns of a file of which only the first rows were read: what has no value there may have one later.
#[must_use]
pub fn of_first_rows(schema: Schema) -> Schema {
    let mut metadata = schema.metadata().clone();
    metadata.insert(PART.to_owned(), String::new());
    schema.with_metadata(metadata)
}

/// Whether these are columns that [`of_first_rows`] has marked.
pub fn are_of_first_rows(schema: &Schema) -> bool {
    schema.metadata().contains_key(PART)
}

/// The key of a described schema's metadata that lists its columns that [`empty`] means.
const EMPTY: &str = "repair:empty";

/// A column of which no value has been read, so that it may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyColumn {
    /// The column.
    pub column: String,
    /// Whether all rows of all files were read: it has no value anywhere. If not, later rows of a long file may have some.
    pub is_whole: bool,
}

impl EmptyColumn {
    /// That it has no value, and what to do about it.
    pub fn why(&self, table: &str) -> String {
        let column = &self.column;
        let (no_value, whole) = match self.is_whole {
            true => ("has no value in any row", ""),
            false => ("has no value in the first rows of any file", ", so it is read as text"),
        };
        format!("column `{column}` of table `{table}` {no_value}{whole}; declare what it is, `columns: {{ {column}: number }}` or `text`")
    }
}

/// The columns of a table that have no value, and whose types are not declared: none in any row, or, in files of text, none in the first rows.
pub fn empty(schema: &Schema) -> Vec<EmptyColumn> {
    schema.metadata().get(EMPTY).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The columns of a table's files, put together file by file. Columns that a file lacks are null in its rows; types widen. A column whose
/// types have no common type is left out, so that it only stops those who ask for it.
#[derive(Debug, Default)]
pub struct Merged {
    fields: Vec<Field>,
    /// For each field, the file that determined its type, and the type there.
    origins: Vec<(String, DataType)>,
    left_out: Vec<LeftOut>,
    mixed: Vec<LeftOut>,
    /// The columns that have no value in the first rows of a file, and of which no more was read.
    partly_read: BTreeSet<String>,
}

impl Merged {
    /// Adds the columns of a file. What [`left_out`] and [`mixed`] say of them is about lines of the file.
    pub fn add(&mut self, format: Format, file: &str, schema: &Schema) {
        for within in left_out(schema) {
            if let Some(at) = self.fields.iter().position(|known| within.is_named(known.name()) || within.is_twice(known.name())) {
                self.fields.remove(at);
                self.origins.remove(at);
            }
            if !self.left_out.iter().any(|known| known.is_named(&within.column)) {
                self.left_out.push(within.within(file));
            }
        }
        for within in mixed(schema) {
            if !self.mixed.iter().any(|known| known.column == within.column) {
                self.mixed.push(within.within(file));
            }
        }
        if are_of_first_rows(schema) {
            let empty = schema.fields().iter().filter(|field| *field.data_type() == DataType::Null);
            self.partly_read.extend(empty.map(|field| field.name().clone()));
        }
        for field in schema.fields() {
            let kind = field.data_type();
            if self.left_out.iter().any(|left_out| left_out.is_named(field.name()) || left_out.is_twice(field.name())) {
                continue;
            }
            let Some(at) = self.fields.iter().position(|known| known.name() == field.name()) else {
                if let Some(known) = self.in_another_case(field.name(), schema) {
                    self.fields.remove(known.0);
                    let (of_one, one) = self.origins.remove(known.0);
                    let types = [one.to_string(), kind.to_string()];
                    let (files, also) = ([of_one, file.to_owned()], Some(field.name().clone()));
                    self.left_out.push(LeftOut { column: known.1, types, files, also });
                    continue;
                }
                self.fields.push(Field::new(field.name(), kind.clone(), true));
                self.origins.push((file.to_owned(), kind.clone()));
                continue;
            };
            self.note_mixed(at, file, kind);
            match common_type(format, self.fields[at].data_type(), kind) {
                Some(common) if common == *self.fields[at].data_type() => {}
                Some(common) => {
                    self.fields[at].set_data_type(common);
                    self.origins[at] = (file.to_owned(), kind.clone());
                }
                None => {
                    self.fields.remove(at);
                    let (of_one, one) = self.origins.remove(at);
                    let types = [one.to_string(), kind.to_string()];
                    self.left_out.push(LeftOut { column: field.name().clone(), types, files: [of_one, file.to_owned()], also: None });
                }
            }
        }
    }

    /// Notes a column that has numbers in one file, and text or true and false in another.
    fn note_mixed(&mut self, at: usize, file: &str, kind: &DataType) {
        let (known, (of_one, _)) = (&self.fields[at], &self.origins[at]);
        let one = known.data_type();
        let are_words = |kind: &DataType| is_text(kind) || *kind == DataType::Boolean;
        let (types, files) = match (one.is_numeric(), kind.is_numeric()) {
            (true, false) if are_words(kind) => ([one, kind], [of_one.as_str(), file]),
            (false, true) if are_words(one) => ([kind, one], [file, of_one.as_str()]),
            _ => return,
        };
        if !self.mixed.iter().any(|mixed| mixed.column == *known.name()) {
            let (types, files) = (types.map(DataType::to_string), files.map(str::to_owned));
            self.mixed.push(LeftOut { column: known.name().clone(), types, files, also: None });
        }
    }

    /// The place and the name of a known column that differs from this one in nothing but case. One that the same file has, too, is another column.
    fn in_another_case(&self, name: &str, of_file: &Schema) -> Option<(usize, String)> {
        let lower = name.to_lowercase();
        let is_it = |known: &Field| known.name().to_lowercase() == lower && of_file.field_with_name(known.name()).is_err();
        let at = self.fields.iter().position(is_it)?;
        Some((at, self.fields.get(at)?.name().clone()))
    }

    /// The columns of the table in the shape of batches, as [`of_table`]. [`left_out`] lists those that it lacks, and [`mixed`] those that are text because of one file.
    ///
    /// # Errors
    /// As [`of_table`].
    pub fn finish(self, table: &Table) -> Result<SchemaRef> {
        let is_place = |column: &String| *column == table.time || table.key.contains(column);
        let empty = self.fields.iter().filter(|field| *field.data_type() == DataType::Null && !is_place(field.name()));
        let empty: Vec<EmptyColumn> =
            empty.map(|field| EmptyColumn { column: field.name().clone(), is_whole: !self.partly_read.contains(field.name()) }).collect();
        let schema = of_table(table, self.fields)?;
        let is_left_out = |column: &String| self.left_out.iter().any(|left_out| left_out.is_named(column));
        let mixed: Vec<&LeftOut> = self.mixed.iter().filter(|mixed| !is_place(&mixed.column) && !is_left_out(&mixed.column)).collect();
        let left_out: Vec<&LeftOut> = self.left_out.iter().collect();
        let mut metadata = notes(&left_out, &mixed)?;
        if !empty.is_empty() {
            metadata.insert(
                EMPTY.to_owned(),
                serde_json::to_string(&empty).map_err(|error| Error::internal("columns are not JSON").because(error))?,
            );
        }
        Ok(if metadata.is_empty() { schema } else { Arc::new(Schema::clone(&schema).with_metadata(metadata)) })
    }
}

/// What [`left_out`] and [`mixed`] read.
fn notes(left_out: &[&LeftOut], mixed: &[&LeftOut]) -> Result<HashMap<String, String>> {
    let mut metadata = HashMap::new();
    for (key, columns) in [(LEFT_OUT, left_out), (MIXED, mixed)] {
        if !columns.is_empty() {
            let json = serde_json::to_string(columns).map_err(|error| Error::internal("columns are not JSON").because(error))?;
            metadata.insert(key.to_owned(), json);
        }
    }
    Ok(metadata)
}

/// The columns of one file, with those that its lines disagree about, of which `files` are the lines: those that are left out, and those that
/// are text because of a word.
///
/// # Errors
/// `internal` if a name is no JSON.
pub fn of_file(fields: Vec<Field>, left_out: &[LeftOut], mixed: &[LeftOut]) -> Result<Schema> {
    Ok(Schema::new_with_metadata(fields, notes(&left_out.iter().collect::<Vec<_>>(), &mixed.iter().collect::<Vec<_>>())?))
}

/// Adds the columns of more rows to others. Columns that rows lack are null in them; types widen.
///
/// # Errors
/// `invalid` if a column has types that no common type fits.
pub fn merge(format: Format, all: &mut Vec<Field>, more: &Schema) -> Result<()> {
    for field in more.fields() {
        match all.iter_mut().find(|known| known.name() == field.name()) {
            None => all.push(Field::new(field.name(), field.data_type().clone(), true)),
            Some(known) => {
                let kind = common_type(format, known.data_type(), field.data_type()).ok_or_else(|| {
                    Error::invalid(format!(
                        "column `{}` is {} in some rows and {} in others, and no type holds the values of both; give it one type",
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

/// The column that a user names: the one of that name or, if there is none, the only one whose name differs in nothing but case. Some
/// engines keep all names in lower case, and the same workflow must run on each. `None` if there is no such column.
///
/// # Errors
/// `invalid` if several columns differ only in case, or the column was left out because its files disagree about it.
pub fn find<'a>(schema: &'a Schema, name: &str) -> Result<Option<&'a Arc<Field>>> {
    if let Some((_, field)) = schema.fields().find(name) {
        return Ok(Some(field));
    }
    let lower = name.to_lowercase();
    let is_same = |other: &str| other.to_lowercase() == lower;
    let left_out = left_out(schema);
    if let Some(exactly) = left_out.iter().find(|left_out| left_out.is_named(name)) {
        return Err(exactly.refusal());
    }
    let mut fields = schema.fields().iter().filter(|field| is_same(field.name()));
    let mut others = left_out.iter().filter(|left_out| is_same(&left_out.column));
    match (fields.next(), fields.next(), others.next()) {
        (Some(one), Some(other), _) => Err(ambiguous(name, one.name(), other.name())),
        (Some(one), None, Some(other)) => Err(ambiguous(name, one.name(), &other.column)),
        (None, _, Some(one)) => Err(others.next().map_or_else(|| one.refusal(), |other| ambiguous(name, &one.column, &other.column))),
        (one, None, None) => Ok(one),
        (None, Some(_), None) => Ok(None),
    }
}

fn ambiguous(name: &str, one: &str, other: &str) -> Error {
    Error::invalid(format!("`{name}` could be column `{one}` or `{other}`, which differ only in case; write the one that is meant exactly"))
}

/// The column of a batch that a user names, as [`find`].
///
/// # Errors
/// As [`find`].
pub fn find_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a ArrayRef>> {
    Ok(find(batch.schema_ref(), name)?.and_then(|field| batch.column_by_name(field.name())))
}

/// The key and time columns and the requested ones, in the table's order, with the table's own names; [`as_requested`] renames them.
///
/// # Errors
/// `invalid` if the table lacks a requested column, or its files disagree about one.
pub fn project(table: &Table, schema: &SchemaRef, columns: Option<&[String]>) -> Result<SchemaRef> {
    // Without metadata: batches with the same columns have the same schema.
    let plain = |fields: Vec<Arc<Field>>| Ok(Arc::new(Schema::new(fields)));
    let Some(columns) = columns else { return plain(schema.fields().to_vec()) };
    let mut wanted: Vec<&str> = Vec::with_capacity(columns.len());
    for name in columns {
        let field = find(schema, name).map_err(|error| error.on("table", &table.name))?;
        let unknown = || Error::invalid(format!("table `{}` has no column `{name}`; {}", table.name, names(schema)));
        wanted.push(field.ok_or_else(unknown)?.name());
    }
    let is_wanted =
        |field: &Field| *field.name() == table.time || table.key.contains(field.name()) || wanted.contains(&field.name().as_str());
    plain(schema.fields().iter().filter(|field| is_wanted(field)).cloned().collect())
}

/// Projected columns with the names by which they were requested. Key and time have those of the workflow.
///
/// # Errors
/// `invalid` if a column was requested by two names.
pub fn as_requested(table: &Table, projected: &SchemaRef, columns: Option<&[String]>) -> Result<SchemaRef> {
    let Some(columns) = columns.filter(|columns| columns.iter().any(|name| projected.field_with_name(name).is_err())) else {
        return Ok(projected.clone());
    };
    let mut names: HashMap<&str, &str> = HashMap::new();
    for name in columns {
        let Some(field) = find(projected, name)? else { continue };
        match names.insert(field.name(), name) {
            Some(other) if other != name => return Err(Error::invalid(format!("`{other}` and `{name}` are one column; request it once"))),
            _ => {}
        }
    }
    let is_own = |name: &String| *name == table.time || table.key.contains(name);
    let named = |field: &Arc<Field>| match names.get(field.name().as_str()) {
        Some(name) if !is_own(field.name()) && *name != field.name() => Arc::new(field.as_ref().clone().with_name(*name)),
        _ => field.clone(),
    };
    Ok(Arc::new(Schema::new(projected.fields().iter().map(named).collect::<Vec<_>>())))
}

/// A batch whose key and time columns have the workflow's names, where it has them in another case.
///
/// # Errors
/// `invalid` if several columns differ only in case, and none has the workflow's name.
pub fn in_workflow_names(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().to_vec();
    for name in table.key.iter().chain([&table.time]) {
        let Some(found) = find(batch.schema_ref(), name)? else { continue };
        if found.name() != name {
            let named = Arc::new(found.as_ref().clone().with_name(name));
            fields.iter_mut().filter(|field| field.name() == found.name()).for_each(|field| *field = named.clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), batch.columns().to_vec(), &options)?)
}

/// The names of columns that we add.
pub const RESERVED: [&str; 14] = [
    overlay::REPAIRED_BY,
    overlay::REPAIRED_CELLS,
    overlay::columns::OP,
    overlay::columns::RUN,
    overlay::columns::STEP,
    overlay::columns::UNIT,
    overlay::columns::STRATEGY,
    overlay::columns::SOURCE,
    overlay::columns::AT,
    overlay::columns::REPLACED,
    overlay::columns::CELLS,
    overlay::columns::ANSWER,
    overlay::columns::ESTIMATED,
    overlay::columns::RECHECK_AFTER,
];

/// How a column gets another name.
fn rename(table: &Table) -> &'static str {
    match table.format {
        Format::Csv => "rename it in the files, or give the table names of its own for all columns, `csv: { names: […] }`",
        _ => "rename it in the files",
    }
}

/// Rejects a table whose declared columns have names that we add, before its files are looked at.
///
/// # Errors
/// `invalid` with the column's name.
pub fn refuse_declared(table: &Table) -> Result<()> {
    let own = table.key.iter().chain([&table.time]).chain(&table.csv.names).chain(table.columns.keys());
    match own.map(String::as_str).find(|name| overlay::is_ours(name)) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "table `{}` names a column `{name}`, a name that repairs use for a column of theirs; give the column another name, in its files, too",
            table.name
        ))),
    }
}

/// Rejects a table whose own columns have names that we add.
///
/// # Errors
/// `invalid` with the column's name.
pub fn refuse_reserved(table: &Table, schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| overlay::is_ours(field.name())).map(|field| field.name()) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "table `{}` has a column `{name}`, a name that repairs use for a column of theirs; {}",
            table.name,
            rename(table)
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
        self.keys.iter().fold(rows, |end, column| row + 1 + equal_to_first(column, row, end))
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

/// How many values follow each other behind a first one, and equal it, before an end.
fn equal_to_first(column: &StringArray, first: usize, end: usize) -> usize {
    /// So many are compared at once: most runs are either long, or over at once.
    const AT_ONCE: usize = 64;
    let (offsets, bytes) = (column.value_offsets(), column.value_data());
    let at = |row: usize| offsets.get(row).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
    let (begin, length) = (at(first), at(first + 1) - at(first));
    let is_equal = |row: usize| bytes.get(at(row)..at(row + 1)) == bytes.get(begin..begin + length);
    let (mut equal, all) = (0, end.saturating_sub(first + 1));
    if all == 0 || !is_equal(first + 1) {
        return 0;
    }
    while equal < all {
        let many = AT_ONCE.min(all - equal);
        // If all are as long as the first, they equal it exactly if they equal the bytes that begin one value before.
        let from = first + equal;
        let window = offsets.get(from..from + many + 2).unwrap_or_default();
        let are_as_long = window.windows(2).all(|pair| matches!(pair, [one, next] if usize::try_from(next - one) == Ok(length)));
        let (before, here) = (at(from), at(from + 1));
        if are_as_long && bytes.get(before..before + many * length) == bytes.get(here..here + many * length) {
            equal += many;
            continue;
        }
        return equal + (0..many).take_while(|more| is_equal(first + equal + more + 1)).count();
    }
    equal
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Float64Builder, Int64Array, ListBuilder, StructArray, TimestampNanosecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn table() -> Table {
        Table {
            name: "bars".into(),
            location: "bars".into(),
            format: Format::Parquet,
            partition_by: vec![],
            key: vec![],
            time: "ts".into(),
            time_marks: crate::model::TimeMark::Start,
            cadence: None,
            ..Table::implicit("bars", "ts")
        }
    }

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
        let decimal = |value: i128, precision, scale| {
            Arc::new(Decimal128Array::from(vec![Some(value), None]).with_data_type(DataType::Decimal128(precision, scale))) as ArrayRef
        };
        assert!(cast_exact(&decimal(10, 10, 2), &DataType::Float64).is_ok());
        assert!(cast_exact(&decimal(10, 10, 2), &DataType::Float32).is_ok());
        assert!(cast_exact(&decimal(40_157_347_293_560_832, 17, 1), &DataType::Float64).is_err());
        assert!(cast_exact(&decimal(9_007_199_254_740_992, 20, 0), &DataType::Float64).is_ok());
        assert!(cast_exact(&decimal(9_007_199_254_740_993, 20, 0), &DataType::Float64).is_err());
        assert!(
            cast_exact(&(Arc::new(Float64Array::from(vec![4_015_734_729_356_083.0])) as ArrayRef), &DataType::Decimal128(17, 1)).is_err()
        );
    }

    #[test]
    fn lists_and_records_are_kept_if_all_that_they_hold_is() {
        let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
        let list = |kind: DataType| DataType::List(field("item", kind));
        let record = |kind: DataType| DataType::Struct([field("n", kind), field("of", list(DataType::Utf8))].into_iter().collect());
        let items = [vec![Some(1.0), None], vec![], vec![Some(0.1)]];
        let floats = |all: &[Vec<Option<f64>>]| {
            let mut lists = ListBuilder::new(Float64Builder::new());
            all.iter().for_each(|items| lists.append_value(items.iter().copied()));
            lists.append_null();
            Arc::new(lists.finish()) as ArrayRef
        };
        let (some, whole) = (floats(&items), floats(&items[..2]));
        assert!(cast_exact(&some, &list(DataType::Float32)).is_ok());
        assert!(cast_exact(&some, &list(DataType::Decimal128(10, 2))).is_ok());
        assert!(cast_exact(&some, &list(DataType::Int32)).is_err());
        let done = cast_exact(&whole, &list(DataType::Int32)).unwrap();
        assert_eq!(done.as_list::<i32>().value(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
        assert!(done.is_null(2));
        let of_records = |numbers: Vec<i64>| {
            let of: ArrayRef = cast_strict(&floats(&items[..numbers.len() - 1]), &list(DataType::Utf8)).unwrap();
            let columns =
                [(field("n", DataType::Int64), Arc::new(Int64Array::from(numbers)) as ArrayRef), (field("of", of.data_type().clone()), of)];
            Arc::new(StructArray::from(columns.to_vec())) as ArrayRef
        };
        assert!(cast_exact(&of_records(vec![1, 2]), &record(DataType::Int16)).is_ok());
        assert!(cast_exact(&of_records(vec![1, 1 << 20]), &record(DataType::Int16)).is_err());
        assert!(cast_exact(&of_records(vec![1, (1 << 53) + 1]), &record(DataType::Float64)).is_err());
        let same = same_values(&some, &floats(&[items[0].clone(), vec![None], items[2].clone()])).unwrap();
        assert_eq!(same.iter().collect::<Vec<_>>(), [true, false, true, true]);
    }

    #[test]
    fn a_date_begins_in_the_zone_of_the_table() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![19_812, 19_813, 19_812]));
        let mut table = Table { cadence: Some(crate::model::Cadence::DAY), ..table() };
        let starts = |table: &Table| {
            let at = |us: &i64| jiff::Timestamp::from_microsecond(*us).unwrap().to_string();
            instants(table, &dates).unwrap().values().iter().map(at).collect::<Vec<_>>()
        };
        assert_eq!(starts(&table), ["2024-03-30T00:00:00Z", "2024-03-31T00:00:00Z", "2024-03-30T00:00:00Z"]);
        table.zone = Some("Europe/Berlin".parse().unwrap());
        assert_eq!(starts(&table), ["2024-03-29T23:00:00Z", "2024-03-30T23:00:00Z", "2024-03-29T23:00:00Z"]);
        table.zone = Some("America/New_York".parse().unwrap());
        assert_eq!(starts(&table), ["2024-03-30T04:00:00Z", "2024-03-31T04:00:00Z", "2024-03-30T04:00:00Z"]);
    }

    #[test]
    fn text_is_not_taken_for_bytes_and_fields_are_not_swapped() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["01ff"]));
        assert!(cast_exact(&text, &DataType::Binary).unwrap_err().to_string().contains("which bytes"));
        let record = |names: [&str; 2]| {
            let of = |at: usize| {
                (
                    Arc::new(Field::new(names[at], DataType::Int64, true)),
                    Arc::new(Int64Array::from(vec![i64::from(names[at] == "b")])) as ArrayRef,
                )
            };
            Arc::new(StructArray::from(vec![of(0), of(1)])) as ArrayRef
        };
        let (one, other) = (record(["a", "b"]), record(["b", "a"]));
        // Fields are found by name, or it is refused.
        if let Ok(cast) = cast_exact(&one, other.data_type()) {
            assert!(same_values(&cast, &other).unwrap().value(0));
        }
    }

    #[test]
    fn a_common_type_holds_the_values_of_both() {
        use DataType::{
            Date32, Decimal128, Decimal256, Dictionary, Float32, Float64, Int8, Int32, Int64, Struct, Timestamp, UInt8, UInt64, Utf8,
        };
        let time = |unit, zone: Option<&str>| Timestamp(unit, zone.map(Into::into));
        let (micro, nano) = (TimeUnit::Microsecond, TimeUnit::Nanosecond);
        let dictionary = |values| Dictionary(Box::new(Int32), Box::new(values));
        let record =
            |fields: &[(&str, DataType)]| Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect());
        let list = |item| DataType::new_list(item, true);
        // The order of the fields does not matter.
        let sorted = |kind: Option<DataType>| kind.map(|kind| in_order(&kind));
        for (one, other, common) in [
            (Decimal128(10, 2), Decimal128(12, 4), Some(Decimal128(12, 4))),
            (Decimal128(8, 0), Decimal128(10, 2), Some(Decimal128(10, 2))),
            (Decimal128(10, 2), Decimal128(9, 5), Some(Decimal128(13, 5))),
            (Decimal128(5, -3), Decimal128(4, 2), Some(Decimal128(10, 2))),
            (Decimal128(38, 0), Decimal128(10, 2), Some(Decimal256(40, 2))),
            (Decimal256(76, 0), Decimal128(10, 2), None),
            (Decimal128(10, 2), Int32, Some(Decimal128(12, 2))),
            (Decimal128(10, 2), Int64, Some(Decimal128(21, 2))),
            (Decimal128(38, 30), Int64, Some(Decimal256(49, 30))),
            (UInt8, Decimal128(3, 1), Some(Decimal128(4, 1))),
            (Decimal128(10, 2), Float64, Some(Float64)),
            (Float32, Float64, Some(Float64)),
            (Int64, Float32, Some(Float64)),
            (Int8, UInt64, Some(Decimal128(20, 0))),
            (dictionary(Utf8), Utf8, Some(Utf8)),
            (dictionary(Int64), Int32, Some(Int64)),
            (
                record(&[("a", Int32), ("b", Utf8)]),
                record(&[("a", Int64), ("c", list(Int32))]),
                Some(record(&[("a", Int64), ("b", Utf8), ("c", list(Int32))])),
            ),
            (record(&[("a", Int32)]), record(&[("a", Utf8)]), None),
            (list(record(&[("a", Int32)])), list(record(&[("b", Utf8)])), Some(list(record(&[("a", Int32), ("b", Utf8)])))),
            (list(Int32), record(&[("a", Int32)]), None),
            (Date32, time(micro, None), Some(time(micro, None))),
            (Date32, time(micro, Some("UTC")), None),
            (time(micro, None), time(nano, None), Some(time(micro, None))),
            (time(micro, Some("UTC")), time(nano, Some("+00:00")), Some(time(micro, Some("UTC")))),
            (time(nano, Some("Z")), time(nano, Some("Etc/UTC")), Some(time(nano, Some("UTC")))),
            (time(micro, Some("UTC")), time(micro, None), None),
            (time(micro, Some("UTC")), time(micro, Some("Europe/Berlin")), None),
            (Int64, Utf8, None),
        ] {
            assert_eq!(sorted(common_type(Format::Parquet, &one, &other)), common, "{one} and {other}");
            assert_eq!(sorted(common_type(Format::Parquet, &other, &one)), common, "{other} and {one}");
        }
        assert_eq!(common_type(Format::Csv, &Int64, &Utf8), Some(Utf8), "in text files, values of several types are text");
    }

    /// A type with the fields of its records in order.
    fn in_order(kind: &DataType) -> DataType {
        match kind {
            DataType::Struct(fields) => {
                let mut fields: Vec<Field> =
                    fields.iter().map(|field| field.as_ref().clone().with_data_type(in_order(field.data_type()))).collect();
                fields.sort_by(|one, other| one.name().cmp(other.name()));
                DataType::Struct(fields.into())
            }
            DataType::List(item) => DataType::List(Arc::new(item.as_ref().clone().with_data_type(in_order(item.data_type())))),
            other => other.clone(),
        }
    }

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn a_name_in_another_case_in_another_file_is_no_other_column() {
        let (table, ts) = (table(), ("ts", DataType::Date32));
        let of =
            |names: &[&str]| schema(&[&[ts.clone()][..], &names.iter().map(|name| (*name, DataType::Int64)).collect::<Vec<_>>()].concat());
        let described = |files: &[&[&str]]| {
            let mut merged = Merged::default();
            for (file, names) in ["a", "b", "c"].into_iter().zip(files) {
                merged.add(Format::Parquet, file, &of(names));
            }
            merged.finish(&table).unwrap()
        };
        let split = described(&[&["v", "w"], &["V", "w"], &["v", "w"]]);
        assert_eq!(names(&split), "it has ts, w");
        for name in ["v", "V"] {
            let refused = project(&table, &split, Some(&[name.to_owned()])).unwrap_err();
            assert!(refused.message().contains("column `v` of a is written `V` in b, so it would be two columns"), "{refused}");
        }
        // One file that has both has two columns, in whichever order the files are read.
        for files in [[&["v", "V"][..], &["V"][..]], [&["V"][..], &["v", "V"][..]]] {
            let both = described(&files);
            assert!(left_out(&both).is_empty() && both.fields().len() == 3, "{both}");
        }
    }

    #[test]
    fn a_column_that_files_disagree_about_stops_only_those_who_name_it() {
        let table = table();
        let mut merged = Merged::default();
        let ts = ("ts", DataType::Date32);
        merged.add(Format::Parquet, "a", &schema(&[ts.clone(), ("v", DataType::Int32), ("Note", DataType::Int64)]));
        merged.add(Format::Parquet, "b", &schema(&[ts.clone(), ("v", DataType::Float64), ("Note", DataType::Int64)]));
        merged.add(Format::Parquet, "c", &schema(&[ts.clone(), ("v", DataType::Float64), ("Note", DataType::Utf8)]));
        merged.add(Format::Parquet, "d", &schema(&[ts, ("v", DataType::Float64), ("Note", DataType::Boolean)]));
        let described = merged.finish(&table).unwrap();
        assert_eq!(names(&described), "it has ts, v");
        let expected =
            LeftOut { column: "Note".into(), types: ["Int64".into(), "Utf8".into()], files: ["a".into(), "c".into()], also: None };
        assert_eq!(left_out(&described), [expected]);
        for name in ["Note", "note"] {
            let refused = project(&table, &described, Some(&[name.to_owned()])).unwrap_err();
            assert!(refused.message().contains("column `Note` is Int64 in a and Utf8 in c"), "{refused}");
        }
        let all = project(&table, &described, None).unwrap();
        assert_eq!(all, project(&table, &described, Some(&["v".to_owned()])).unwrap(), "batches carry no metadata");
    }

    #[test]
    fn a_name_is_found_exactly_or_in_another_case() {
        let schema =
            schema(&[("Close", DataType::Int64), ("close", DataType::Int64), ("REGION", DataType::Int64), ("Straße", DataType::Int64)]);
        let found = |name: &str| find(&schema, name).map(|field| field.map(|field| field.name().clone()));
        assert_eq!(found("Close").unwrap().as_deref(), Some("Close"));
        assert_eq!(found("close").unwrap().as_deref(), Some("close"));
        assert_eq!(found("region").unwrap().as_deref(), Some("REGION"));
        assert_eq!(found("STRAßE").unwrap().as_deref(), Some("Straße"));
        assert_eq!(found("nothing").unwrap(), None);
        assert!(found("CLOSE").unwrap_err().message().contains("`Close` or `close`"));
    }

    #[test]
    fn times_are_cut_downwards_also_before_1970() {
        let table = table();
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_999]));
        assert_eq!(instants(&table, &times).unwrap().values().as_ref(), [-1, 1]);
        let far: ArrayRef = Arc::new(arrow::array::TimestampSecondArray::from(vec![i64::MAX / 2]));
        assert!(instants(&table, &far).unwrap_err().full().contains("too far"));
    }

    #[test]
    fn runs_of_one_key_are_found_whatever_their_length() {
        let table = Table { key: vec!["a".into(), "b".into()], ..table() };
        let mut state = 7u64;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((state >> 33) % end).unwrap()
        };
        for _ in 0..200 {
            let names = ["", "x", "xx", "y", "long enough", "long enouch"];
            let mut rows: Vec<(&str, &str)> = Vec::new();
            for _ in 0..below(9) {
                let (one, other) = (names[below(6)], names[below(6)]);
                rows.extend(std::iter::repeat_n((one, other), [1, 2, 63, 64, 65, 66, 130][below(7)]));
            }
            // A slice begins within the values of its array.
            let column = |of: fn(&(&'static str, &'static str)) -> &'static str| {
                let values = std::iter::repeat_n("x", 3).chain(rows.iter().map(of));
                StringArray::from_iter_values(values).slice(3, rows.len())
            };
            let (one, other) = (column(|row| row.0), column(|row| row.1));
            let times = TimestampMicrosecondArray::from(vec![0; rows.len()]).with_timezone("UTC");
            let batch: [(&str, ArrayRef); 3] = [("a", Arc::new(one)), ("b", Arc::new(other)), ("ts", Arc::new(times))];
            let batch = RecordBatch::try_from_iter(batch).unwrap();
            let found: Vec<std::ops::Range<usize>> = KeyTime::of(&table, &batch).unwrap().runs().collect();
            let mut expected: Vec<std::ops::Range<usize>> = Vec::new();
            for (at, row) in rows.iter().enumerate() {
                match expected.last_mut().filter(|last| rows[last.start] == *row) {
                    Some(last) => last.end = at + 1,
                    None => expected.push(at..at + 1),
                }
            }
            assert_eq!(found, expected);
        }
    }
}
