//! Arrays, and values inside JSON text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, Int64Array, ListArray, StringArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::Value;

use super::{Function, bad_argument, bad_type};

/// Trino's own limit.
const MAX_SEQUENCE: usize = 10_000;

pub(super) fn functions() -> impl Iterator<Item = Function> {
    [
        Function::new("sequence", (2, 3), sequence_type, sequence),
        Function::new("cardinality", (1, 1), |_, _| Ok(DataType::Int64), cardinality),
        Function::new("element_at", (2, 2), element_type, element_at),
        Function::new("$part_of", (3, 3), |_, _| Ok(DataType::Utf8), part_of).sharing_constants(),
        Function::new("json_extract_scalar", (2, 2), |_, _| Ok(DataType::Utf8), json_extract_scalar),
    ]
    .into_iter()
}

fn sequence_type(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    let item = match &kinds[0] {
        kind if kind.is_integer() => DataType::Int64,
        kind @ (DataType::Date32 | DataType::Timestamp(..)) => kind.clone(),
        _ => return Err(bad_type("sequence", kinds)),
    };
    Ok(DataType::List(Arc::new(Field::new_list_field(item, true))))
}

fn too_long() -> datafusion::error::DataFusionError {
    bad_argument(format!("result of sequence function must not have more than {MAX_SEQUENCE} entries"))
}

fn sequence(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let DataType::List(item) = kind else { return Err(bad_type("sequence", std::slice::from_ref(kind))) };
    let rows = columns[0].len();
    let mut offsets = vec![0_i32];
    let mut values: Vec<ArrayRef> = Vec::new();
    let mut nulls = Vec::with_capacity(rows);
    let mut total = 0_usize;
    for row in 0..rows {
        let null = columns.iter().any(|column| column.is_null(row));
        nulls.push(!null);
        if !null {
            let one: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
            let numbers = if item.data_type().is_integer() { integers(&one)? } else { instants(&one)? };
            total += numbers.len();
            let array: ArrayRef = Arc::new(Int64Array::from(numbers));
            values.push(match item.data_type() {
                DataType::Int64 => array,
                other => cast(&cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, None))?, other)?,
            });
        }
        offsets.push(i32::try_from(total).map_err(|_| too_long())?);
    }
    let values = if values.is_empty() {
        new_empty_array(item.data_type())
    } else {
        arrow::compute::concat(&values.iter().map(|value| value.as_ref() as &dyn Array).collect::<Vec<_>>())?
    };
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::new(offsets.into()), values, Some(nulls.into()))?))
}

fn integers(one: &[ArrayRef]) -> Result<Vec<i64>> {
    let number = |column: &ArrayRef| {
        Ok::<_, datafusion::error::DataFusionError>(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().value(0))
    };
    let (start, stop) = (number(&one[0])?, number(&one[1])?);
    let step = match one.get(2) {
        Some(step) => number(step)?,
        None if start <= stop => 1,
        None => -1,
    };
    if step == 0 {
        return Err(bad_argument("step must not be zero"));
    }
    if (step > 0) != (start <= stop) && start != stop {
        return Err(bad_argument(
            "sequence stop value should be greater than or equal to start value if step is greater than zero otherwise stop should be less than or equal to start",
        ));
    }
    let mut numbers = Vec::new();
    let mut at = start;
    while (step > 0 && at <= stop) || (step < 0 && at >= stop) {
        if numbers.len() >= MAX_SEQUENCE {
            return Err(too_long());
        }
        numbers.push(at);
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(numbers)
}

/// Microseconds since 1970 of each date or instant.
fn instants(one: &[ArrayRef]) -> Result<Vec<i64>> {
    let micros = |column: &ArrayRef| {
        let instant = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        Ok::<_, datafusion::error::DataFusionError>(instant.as_primitive::<TimestampMicrosecondType>().value(0))
    };
    let (start, stop) = (micros(&one[0])?, micros(&one[1])?);
    let step = match one.get(2) {
        None => Span::new().days(if start <= stop { 1 } else { -1 }),
        Some(step) => {
            let step = cast(step, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
            let step = step.as_primitive::<IntervalMonthDayNanoType>().value(0);
            Span::new()
                .try_months(i64::from(step.months))
                .and_then(|span| span.try_days(i64::from(step.days)))
                .and_then(|span| span.try_nanoseconds(step.nanoseconds))
                .map_err(|error| bad_argument(error.to_string()))?
        }
    };
    if step.is_zero() {
        return Err(bad_argument("step must not be zero"));
    }
    let forward = !step.is_negative();
    let first = Timestamp::from_microsecond(start).map_err(|error| bad_argument(error.to_string()))?;
    let first = TimeZone::UTC.to_datetime(first);
    let mut found = Vec::new();
    for count in 0.. {
        let at = step.checked_mul(count).and_then(|span| first.checked_add(span)).and_then(|at| TimeZone::UTC.to_timestamp(at));
        let Ok(at) = at else { break };
        let at = at.as_microsecond();
        if (forward && at > stop) || (!forward && at < stop) {
            break;
        }
        if found.len() >= MAX_SEQUENCE {
            return Err(too_long());
        }
        found.push(at);
    }
    Ok(found)
}

fn cardinality(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let column = &columns[0];
    let length = |row: usize| match column.data_type() {
        DataType::List(_) => Ok(column.as_list::<i32>().value_length(row)),
        DataType::Map(..) => Ok(column.as_map().value_length(row)),
        other => Err(bad_type("cardinality", std::slice::from_ref(other))),
    };
    let lengths =
        (0..column.len()).map(|row| if column.is_null(row) { Ok(None) } else { length(row).map(|length| Some(i64::from(length))) });
    Ok(Arc::new(lengths.collect::<Result<Int64Array>>()?))
}

fn element_type(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    match &kinds[0] {
        DataType::List(item) => Ok(item.data_type().clone()),
        _ => Err(bad_type("element_at", kinds)),
    }
}

/// The place of an index in a list of a length. Indexes are counted from 1, or from the end if negative; `None` if out of range.
fn place(index: i64, length: usize) -> Result<Option<usize>> {
    if index == 0 {
        return Err(bad_argument("SQL array indices start at 1"));
    }
    let place = if index > 0 { index - 1 } else { i64::try_from(length).unwrap_or(i64::MAX) + index };
    Ok(usize::try_from(place).ok().filter(|place| *place < length))
}

fn element_at(columns: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let lists = columns[0].as_list::<i32>();
    let indexes = cast(&columns[1], &DataType::Int64)?;
    let indexes = indexes.as_primitive::<Int64Type>();
    let mut values = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let mut value = ScalarValue::try_from(kind)?;
        if lists.is_valid(row) && indexes.is_valid(row) {
            let items = lists.value(row);
            if let Some(place) = place(indexes.value(row), items.len())? {
                value = ScalarValue::try_from_array(&items, place)?;
            }
        }
        values.push(value);
    }
    if values.is_empty() { Ok(new_empty_array(kind)) } else { ScalarValue::iter_to_array(values) }
}

/// `element_at(split('a,b', ','), index)`.
fn part_of(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8)?;
    let separators = cast(&columns[1], &DataType::Utf8)?;
    let (texts, separators) = (texts.as_string::<i32>(), separators.as_string::<i32>());
    if texts.len() != 1 || separators.len() != 1 || separators.value(0).is_empty() {
        return Err(bad_argument("split takes a text and a separator"));
    }
    let parts: Vec<&str> = texts.value(0).split(separators.value(0)).collect();
    let indexes = cast(&columns[2], &DataType::Int64)?;
    let part = |index: Option<i64>| Ok(index.map(|index| place(index, parts.len())).transpose()?.flatten().map(|place| parts[place]));
    Ok(Arc::new(indexes.as_primitive::<Int64Type>().iter().map(part).collect::<Result<StringArray>>()?))
}

/// The member names and indexes of a path such as `$.a["b"][0]`.
fn json_path(path: &str) -> Option<Vec<String>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let step;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            step = after[..end].to_owned();
            rest = &after[end..];
        } else {
            let inside = rest.strip_prefix('[')?;
            let end = inside.find(']')?;
            step = inside[..end].trim_matches(['"', '\'']).to_owned();
            rest = &inside[end + 1..];
        }
        if step.is_empty() {
            return None;
        }
        steps.push(step);
    }
    Some(steps)
}

fn json_extract_scalar(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (documents, paths) = (cast(&columns[0], &DataType::Utf8)?, cast(&columns[1], &DataType::Utf8)?);
    let mut values = Vec::new();
    for (document, path) in documents.as_string::<i32>().iter().zip(paths.as_string::<i32>().iter()) {
        let (Some(document), Some(path)) = (document, path) else {
            values.push(None);
            continue;
        };
        let steps = json_path(path).ok_or_else(|| bad_argument(format!("Invalid JSON path: '{path}'")))?;
        let document: Option<Value> = serde_json::from_str(document).ok();
        let found = steps.iter().try_fold(document.as_ref(), |at, step| {
            Some(match at? {
                Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                other => other.get(step),
            })
        });
        values.push(match found.flatten() {
            Some(Value::String(text)) => Some(text.clone()),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => Some(value.to_string()),
            _ => None,
        });
    }
    Ok(Arc::new(StringArray::from(values)))
}
