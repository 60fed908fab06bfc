//! Reads the keys that another table lists, with their lifetimes. It knows nothing about slots.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan};

use crate::builtin::detect::expected::{MOST_KEYS, blind_if_missing};
use crate::error::{Error, Result};
use crate::lake::{Layer, ScanRequest, rollup, shape};
use crate::model::{Cadence, ExpectedKeys, Interval, Key, KeysFrom, Lifetime, Lifetimes, Table, Zone};
use crate::plugin::StepContext;

/// How many rows a table that lists keys may have: a key may close and open again, but not all the time.
const MOST_ROWS: usize = 4 * MOST_KEYS;

/// A date or a time in a table that lists keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Date(Date),
    Instant(Timestamp),
}

/// What a table says about a key: a line for each of its rows, and its calendar.
#[derive(Debug, Default)]
struct Listed {
    /// From when until when.
    rows: Vec<[Option<Moment>; 2]>,
    calendar: Option<String>,
    cadence: Option<String>,
}

/// The keys of a table that are expected at some time of an interval, in order, and their lifetimes within it.
///
/// # Errors
/// `blind` if the table lists no keys or does not exist; `invalid` if a value is not what its column is for.
pub(super) async fn keys(context: &StepContext, table: &Table, from: &KeysFrom, interval: &Interval) -> Result<(Vec<Key>, Lifetimes)> {
    ExpectedKeys::Table(from.clone()).check(&table.name, &table.key)?;
    let reference = context.table(&from.table)?;
    if context.lake.place(reference) == context.lake.place(table) {
        return Err(Error::invalid(format!(
            "tables `{}` and `{}` are the same files, so the one cannot list the expected keys of the other, because a series that never arrived \
             would be overlooked; list them in `keys` or in another table",
            reference.name, table.name
        )));
    }
    let on_reference = |error: Error| error.on("table", &reference.name);
    let mut listed = read(context, table, from, reference).await?;
    if listed.is_empty() {
        return Err(Error::blind(format!("table `{}` lists no keys, so nothing was examined", reference.name)));
    }
    if from.since.as_ref() == Some(&reference.time) {
        dates_at_midnight(&mut listed, &zone_of(reference));
    }
    let zone = table.day_zone();
    let (mut keys, mut lifetimes) = (Vec::with_capacity(listed.len()), Vec::new());
    for (key, listed) in listed {
        if let Some(name) = &listed.calendar {
            context.calendar(name).map_err(|error| on_reference(error.on("key", key.to_string())))?;
        }
        let stretches = listed.rows.iter().map(|row| stretch(row, &zone).map_err(|error| on_reference(error.on("key", key.to_string()))));
        let stretches = stretches.collect::<Result<Vec<_>>>()?;
        if let Some(lifetime) = Lifetime::within(key.clone(), stretches, interval) {
            keys.push(key);
            let every = listed.cadence.map(|cadence| cadence.parse::<Cadence>()).transpose();
            let every = every
                .map_err(|error| on_reference(error.on("key", lifetime.key.to_string())))?
                .filter(|every| Some(*every) != table.cadence);
            lifetimes.push(Lifetime { calendar: listed.calendar, every, ..lifetime });
        }
    }
    Ok((keys, Lifetimes::new(lifetimes)))
}

async fn read(context: &StepContext, table: &Table, from: &KeysFrom, reference: &Table) -> Result<BTreeMap<Key, Listed>> {
    let of_key = from.key_columns(&table.key);
    if from.until.as_ref() == Some(&reference.time) {
        return Err(Error::invalid(format!(
            "`until` names column `{}`, which is the time of table `{}` and so cannot be empty where a key is still expected; name another column \
             under `time` of that table, such as that of `since`",
            reference.time, reference.name
        )));
    }
    // Before any row is read, which may cost something.
    let schema = context.lake.describe(reference).await.map_err(blind_if_missing)?;
    let mut columns: Vec<String> = of_key.to_vec();
    columns.extend([&from.since, &from.until, &from.calendar, &from.cadence].into_iter().flatten().cloned());
    for column in &columns {
        if shape::find(&schema, column).map_err(|error| error.on("table", &reference.name))?.is_none() {
            let known: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            return Err(Error::invalid(format!(
                "table `{}`, which lists the keys of table `{}`, has no column `{column}`; its columns are {}",
                reference.name,
                table.name,
                known.join(", ")
            )));
        }
    }
    columns.sort_unstable();
    columns.dedup();
    let request = ScanRequest::new(Layer::Raw).with_columns(columns);
    let read = context.lake.scan(reference, &request).await;
    let mut batches = read.map_err(|error| empty_since(blind_if_missing(error), from, reference))?;
    let mut listed = BTreeMap::new();
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await.map_err(|error| empty_since(blind_if_missing(error), from, reference))? {
        context.check_cancelled()?;
        rows += batch.num_rows();
        add(&mut listed, &batch, of_key, from, reference).map_err(|error| error.on("table", &reference.name))?;
        if listed.len() > MOST_KEYS || rows > MOST_ROWS {
            let message = format!("the table lists more than {MOST_KEYS} keys; examine fewer at a time");
            return Err(Error::invalid(message).on("table", &reference.name));
        }
    }
    Ok(listed)
}

/// The error of a row that cannot be read, with what to do where `since` is the table's time and empty: as a time it cannot be, and as a beginning it may.
fn empty_since(error: Error, from: &KeysFrom, reference: &Table) -> Error {
    if from.since.as_ref() != Some(&reference.time) || !error.message().contains("no value in time column") {
        return error;
    }
    let message = format!(
        "{}; or, where it is empty since the key has always been expected, name another column under `time` of table `{}`: then `{}` may be \
         empty",
        error.full(),
        reference.name,
        reference.time
    );
    Error::new(error.kind(), message)
}

fn add(listed: &mut BTreeMap<Key, Listed>, batch: &RecordBatch, of_key: &[String], from: &KeysFrom, reference: &Table) -> Result<()> {
    let keys = of_key.iter().map(|name| shape::key_text(reference, name, rollup::column(batch, name)?)).collect::<Result<Vec<_>>>()?;
    let moments = |name: &Option<String>| name.as_ref().map(|name| moments(reference, name, rollup::column(batch, name)?)).transpose();
    let (since, until) = (moments(&from.since)?, moments(&from.until)?);
    let words = |name: &Option<String>| name.as_ref().map(|name| texts(name, rollup::column(batch, name)?)).transpose();
    let (calendars, cadences) = (words(&from.calendar)?, words(&from.cadence)?);
    let at = |moments: &Option<Vec<Option<Moment>>>, row: usize| moments.as_ref().and_then(|all| all.get(row).copied().flatten());
    for row in 0..batch.num_rows() {
        let key = Key::new(keys.iter().map(|column| column.value(row)));
        let word = |all: &Option<StringArray>| {
            let word = all.as_ref().filter(|all| all.is_valid(row)).map(|all| all.value(row).trim().to_owned());
            word.filter(|word| !word.is_empty())
        };
        let (calendar, cadence) = (word(&calendars), word(&cadences));
        let is_new = !listed.contains_key(&key);
        let of = listed.entry(key.clone()).or_default();
        for (what, before, now) in [("calendars", &of.calendar, &calendar), ("cadences", &of.cadence, &cadence)] {
            if !is_new && before != now {
                let name = |name: &Option<String>| name.as_ref().map_or_else(|| "none".to_owned(), |name| format!("`{name}`"));
                let (one, other) = (name(before), name(now));
                return Err(Error::invalid(format!("key `{key}` has two {what}, {one} and {other}; give it the same in all of its rows")));
            }
        }
        (of.calendar, of.cadence) = (calendar, cadence);
        of.rows.push([at(&since, row), at(&until, row)]);
    }
    Ok(())
}

/// The zone of times of a table that carry none.
fn zone_of(reference: &Table) -> Zone {
    reference.reading.zone.clone().unwrap_or_default()
}

/// The time column of a table always holds instants. If all of them are midnights of its zone, they are dates.
fn dates_at_midnight(listed: &mut BTreeMap<Key, Listed>, zone: &Zone) {
    let date = |moment: Moment| match moment {
        Moment::Date(date) => Some(date),
        Moment::Instant(instant) => Some(zone.local(instant)).filter(|local| local.time() == Time::midnight()).map(DateTime::date),
    };
    let all = || listed.values().flat_map(|of| &of.rows).filter_map(|[since, _]| *since);
    if !all().all(|moment| date(moment).is_some()) {
        return;
    }
    for [since, _] in listed.values_mut().flat_map(|of| &mut of.rows) {
        *since = since.and_then(date).map(Moment::Date);
    }
}

/// From when until when a row says that its key is expected. A date is a day of the zone: the first day counts, and so does the last one.
fn stretch([since, until]: &[Option<Moment>; 2], zone: &Zone) -> Result<(Timestamp, Timestamp)> {
    let start = |date: Date| zone.start(date.at(0, 0, 0, 0));
    let from = match since {
        None => Timestamp::MIN,
        Some(Moment::Instant(instant)) => *instant,
        Some(Moment::Date(date)) => start(*date)?,
    };
    let to = match until {
        None => Timestamp::MAX,
        Some(Moment::Instant(instant)) => *instant,
        // A last day that is far away, as in 9999-12-31, means that there is none.
        Some(Moment::Date(date)) => date.checked_add(1.day()).ok().and_then(|next| start(next).ok()).unwrap_or(Timestamp::MAX),
    };
    if to < from {
        let shown = |moment: &Option<Moment>| match moment {
            Some(Moment::Date(date)) => date.to_string(),
            Some(Moment::Instant(instant)) => instant.to_string(),
            None => String::new(),
        };
        return Err(Error::invalid(format!(
            "a row ends at {}, before it begins at {}; correct the row, or swap `since` and `until`",
            shown(until),
            shown(since)
        )));
    }
    Ok((from, to))
}

/// The dates or times of a column, which may be text.
fn moments(reference: &Table, name: &str, array: &ArrayRef) -> Result<Vec<Option<Moment>>> {
    let zone = zone_of(reference);
    let rows = 0..array.len();
    Ok(match array.data_type() {
        DataType::Date32 | DataType::Date64 => {
            let days = cast(array, &DataType::Date32)?;
            let days = days.as_primitive::<Date32Type>();
            let date = |days: i32| Date::constant(1970, 1, 1).checked_add(i64::from(days).days()).map(Moment::Date);
            let too_far = |_| Error::invalid(format!("column `{name}` holds a date that is too far away"));
            rows.map(|row| days.is_valid(row).then(|| date(days.value(row)).map_err(too_far)).transpose()).collect::<Result<_>>()?
        }
        DataType::Timestamp(_, of) => {
            let times = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, of.clone()))?;
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let moment = |us: i64| {
                let instant = Timestamp::from_microsecond(us)
                    .map_err(|_| Error::invalid(format!("column `{name}` holds a time that is too far away")))?;
                match of {
                    Some(_) => Ok(Moment::Instant(instant)),
                    None => zone.start(Zone::utc().local(instant)).map(Moment::Instant),
                }
            };
            rows.map(|row| times.is_valid(row).then(|| moment(times.value(row))).transpose()).collect::<Result<_>>()?
        }
        DataType::Null => vec![None; array.len()],
        _ => {
            let texts = texts(name, array).map_err(|_| {
                Error::invalid(format!(
                    "column `{name}` is {}, and says from when or until when a key is expected; store dates, times, or text such as 2024-03-04 or \
                     2024-03-04T14:30:00Z",
                    array.data_type()
                ))
            })?;
            let moment = |text: &str| {
                match text.trim() {
                "" => Ok(None),
                text => parsed(text, &zone).map(Some).ok_or_else(|| {
                    Error::invalid(format!(
                        "`{text}` in column `{name}` is neither a date nor a time; write e.g. 2024-03-04 or 2024-03-04T14:30:00Z, and nothing where \
                         there is no end (or declare the word for nothing under `nulls`)"
                    ))
                }),
            }
            };
            rows.map(|row| if texts.is_valid(row) { moment(texts.value(row)) } else { Ok(None) }).collect::<Result<_>>()?
        }
    })
}

/// A date, an instant, or a time of the zone.
fn parsed(text: &str, zone: &Zone) -> Option<Moment> {
    if text.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        return Some(Moment::Date(date));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(Moment::Instant(instant));
    }
    // Anything shorter has no hour, and is no date either.
    let local = text.parse::<DateTime>().ok().filter(|_| text.len() > 10)?;
    zone.start(local).ok().map(Moment::Instant)
}

fn texts(name: &str, array: &ArrayRef) -> Result<StringArray> {
    let is_text = match array.data_type() {
        DataType::Dictionary(_, values) => values.is_string(),
        kind => kind.is_string() || kind.is_null(),
    };
    if !is_text {
        return Err(Error::invalid(format!("column `{name}` is {}, and must be text", array.data_type())));
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_days_and_times_are_not_included() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let moment = |text: &str| parsed(text, &zone);
        let of = |since: &str, until: &str| stretch(&[moment(since), moment(until)], &zone).map(|(from, to)| format!("{from} {to}"));
        assert_eq!(of("2024-03-30", "2024-03-31").unwrap(), "2024-03-29T23:00:00Z 2024-03-31T22:00:00Z");
        assert_eq!(of("2024-03-30", "2024-03-30").unwrap(), "2024-03-29T23:00:00Z 2024-03-30T23:00:00Z", "one day");
        assert_eq!(of("2024-03-30T10:00", "2024-03-30T10:00:00Z").unwrap(), "2024-03-30T09:00:00Z 2024-03-30T10:00:00Z");
        assert_eq!(of("2024-03-30 10:00", "9999-12-31").unwrap(), format!("2024-03-30T09:00:00Z {}", Timestamp::MAX));
        assert!(of("2024-03-30", "2024-03-28").unwrap_err().message().contains("before it begins"));
        for text in ["2024-03", "soon", "20240330", "2024-3-4", "1711756800", "N/A"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
