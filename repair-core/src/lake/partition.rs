//! Bounds on the time of rows, and the names of time partitions. Values only, no I/O.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::model::{Interval, Partition, PartitionUnit, Slack, SlotRange, Table, Zone};
use arrow::array::{RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::take_record_batch;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;

/// A write that touches more partitions than this is a mistake, such as a wrong year: this many hours are 27 years.
const MAX_PARTITIONS: usize = 240_000;

/// Bounds on the time column: `from <= time < to`, in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBounds {
    /// The first microsecond since the epoch that is within.
    pub from_us: i64,
    /// The first one after it that is not.
    pub to_us: i64,
}

impl TimeBounds {
    /// Every row.
    pub const ALL: Self = Self { from_us: i64::MIN, to_us: i64::MAX };

    /// The rows of a range of slots. Bounds in whole seconds are exact, because slots are computed from times cut to seconds.
    pub fn of_slots(grid: &crate::model::SlotGrid, slots: SlotRange) -> Self {
        if grid.is_instants() {
            return Self { from_us: slots.first, to_us: slots.end };
        }
        let (from_s, to_s) = grid.time_bounds_s(slots);
        Self { from_us: from_s.saturating_mul(SECOND_US), to_us: to_s.saturating_mul(SECOND_US) }
    }

    /// The rows that a scan of an interval returns: in a series, rows of slots that begin within the interval; otherwise, rows whose time
    /// is within it.
    pub fn of_interval(table: &Table, interval: Option<&Interval>) -> Self {
        let Some(interval) = interval else { return Self::ALL };
        match table.grid() {
            Ok(grid) => Self::of_slots(&grid, grid.slots_in(interval)),
            Err(_) => Self { from_us: first_microsecond(interval.from()), to_us: first_microsecond(interval.to()) },
        }
    }

    /// The bounds within which versions of the rows lie that are within these, so many lookbacks each way.
    #[must_use]
    pub fn of_versions(&self, table: &Table, lookbacks: i64) -> Self {
        let by_us = table.identity().lookback_us().map_or(0, |lookback_us| lookback_us.saturating_mul(lookbacks));
        Self { from_us: self.from_us.saturating_sub(by_us), to_us: self.to_us.saturating_add(by_us) }
    }

    /// Whether a time is within.
    pub fn contains(&self, time_us: i64) -> bool {
        self.from_us <= time_us && time_us < self.to_us
    }

    /// The time that is within both; it may be empty.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { from_us: self.from_us.max(other.from_us), to_us: self.to_us.min(other.to_us) }
    }

    /// Whether some time is within both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from_us.max(other.from_us) < self.to_us.min(other.to_us)
    }
}

/// The first whole microsecond at or after an instant.
fn first_microsecond(instant: Timestamp) -> i64 {
    let cut = instant.as_microsecond();
    // `as_microsecond` rounds towards zero, which is down only after the epoch.
    let behind = instant.as_nanosecond() > i128::from(cut) * 1_000;
    cut + i64::from(behind)
}

/// The table's time partition.
///
/// # Errors
/// `invalid` if there are several: each row would then have several places.
pub fn time_partition(table: &Table) -> Result<Option<&Partition>> {
    match table.partition_by.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Error::invalid(format!("table `{}` has more than one entry under `partition_by`; keep the finest", table.name))),
    }
}

/// The time that a partition's name covers; `None` if it is not a name of that unit.
pub fn span(unit: PartitionUnit, value: &str) -> Option<TimeBounds> {
    let length = match unit {
        PartitionUnit::Year => 4,
        PartitionUnit::Month => 7,
        PartitionUnit::Day => 10,
        PartitionUnit::Hour => 13,
    };
    let dashes_and_digits =
        value.bytes().enumerate().all(|(at, byte)| if matches!(at, 4 | 7 | 10) { byte == b'-' } else { byte.is_ascii_digit() });
    if value.len() != length || !dashes_and_digits {
        return None;
    }
    let number = |from: usize, to: usize, missing: i8| value.get(from..to).map_or(Some(missing), |text| text.parse::<i8>().ok());
    let year: i16 = value.get(0..4)?.parse().ok()?;
    let start = DateTime::new(year, number(5, 7, 1)?, number(8, 10, 1)?, number(11, 13, 0)?, 0, 0, 0).ok()?;
    Some(TimeBounds { from_us: microseconds(start)?, to_us: next(unit, start).and_then(microseconds).unwrap_or(i64::MAX) })
}

/// The time that a folder covers whose name holds the start of a unit of time, on the clock of a zone.
pub fn span_of(unit: PartitionUnit, start: DateTime, zone: &Zone) -> Option<TimeBounds> {
    let at = |local: DateTime| zone.start(local).ok().map(Timestamp::as_microsecond);
    Some(TimeBounds { from_us: at(start)?, to_us: next(unit, start).and_then(at).unwrap_or(i64::MAX) })
}

/// The unit of time by which a table's files lie in folders, and the zone of the folders' names; `None` if the folders name no time.
pub fn folders(table: &Table) -> Option<(PartitionUnit, Zone)> {
    match (&table.layout, table.partition_by.as_slice()) {
        (Some(layout), _) => layout.path.unit().map(|unit| (unit, layout.zone.clone())),
        (None, [one, ..]) => Some((one.unit, Zone::utc())),
        (None, []) => None,
    }
}

/// The time of rows that are used if they lie in a folder that covers a time: those of the folder itself, and those that are no farther
/// from it than the table's slack. A row that lies farther away is never used, whatever interval is asked for.
pub fn with_slack(table: &Table, span: TimeBounds) -> TimeBounds {
    match table.slack {
        Slack::Seconds(seconds) => {
            let slack_us = i64::from(seconds) * SECOND_US;
            TimeBounds { from_us: span.from_us.saturating_sub(slack_us), to_us: span.to_us.saturating_add(slack_us) }
        }
        Slack::OneFolder => {
            // A version of a row lies in the folder of the day on which it was written, whatever the time of the row.
            let lookback_us = table.identity().lookback_us().unwrap_or(0);
            let Some((unit, zone)) = folders(table) else { return span };
            let folder = |time_us: i64| {
                let local = zone.local(Timestamp::from_microsecond(time_us).ok()?);
                span_of(unit, floor(unit, local), &zone)
            };
            TimeBounds {
                from_us: folder(span.from_us.saturating_sub(1))
                    .map_or(span.from_us, |before| before.from_us)
                    .min(span.from_us.saturating_sub(lookback_us)),
                to_us: folder(span.to_us).map_or(span.to_us, |after| after.to_us).max(span.to_us.saturating_add(lookback_us)),
            }
        }
    }
}

/// The start of the unit in which a local time lies.
fn floor(unit: PartitionUnit, local: DateTime) -> DateTime {
    let date = local.date();
    match unit {
        PartitionUnit::Year => date.first_of_year().at(0, 0, 0, 0),
        PartitionUnit::Month => date.first_of_month().at(0, 0, 0, 0),
        PartitionUnit::Day => date.at(0, 0, 0, 0),
        PartitionUnit::Hour => date.at(local.hour(), 0, 0, 0),
    }
}

/// The partition of an instant: its name, and the time it covers.
///
/// # Errors
/// `invalid` at the ends of the range of instants.
pub fn of_time(unit: PartitionUnit, time_us: i64) -> Result<(String, TimeBounds)> {
    let refuse =
        || Error::invalid(format!("a time of {time_us} µs since 1970 has no partition: partitions are named for the years 0 to 9999"));
    let time = Timestamp::from_microsecond(time_us).map_err(|_| refuse())?.to_zoned_datetime_utc();
    let value = match unit {
        PartitionUnit::Year => format!("{:04}", time.year()),
        PartitionUnit::Month => format!("{:04}-{:02}", time.year(), time.month()),
        PartitionUnit::Day => format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day()),
        PartitionUnit::Hour => format!("{:04}-{:02}-{:02}-{:02}", time.year(), time.month(), time.day(), time.hour()),
    };
    let bounds = span(unit, &value).ok_or_else(refuse)?;
    Ok((value, bounds))
}

/// The names of the partitions that bounds touch, in order.
///
/// # Errors
/// `invalid` if there are too many.
pub fn all_in(unit: PartitionUnit, bounds: &TimeBounds) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut at = bounds.from_us;
    while at < bounds.to_us {
        if names.len() >= MAX_PARTITIONS {
            return Err(Error::invalid(format!("the interval touches more than {MAX_PARTITIONS} partitions; write it in smaller pieces")));
        }
        let (name, span) = of_time(unit, at)?;
        names.push(name);
        at = span.to_us;
    }
    Ok(names)
}

/// The rows of batches by the name of their partition, in their original order.
///
/// # Errors
/// As [`of_time`].
pub fn by_partition<'a>(
    unit: PartitionUnit,
    batches: impl IntoIterator<Item = (&'a RecordBatch, TimestampMicrosecondArray)>,
) -> Result<BTreeMap<String, Vec<RecordBatch>>> {
    let mut parts: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
    for (batch, times) in batches {
        let mut spans: Vec<(String, TimeBounds, Vec<u64>)> = Vec::new();
        // The parts by the start of their time.
        let mut by_start: BTreeMap<i64, usize> = BTreeMap::new();
        let mut last = 0;
        for (row, &time_us) in (0u64..).zip(times.values()) {
            if spans.get(last).is_none_or(|(_, span, _)| !span.contains(time_us)) {
                let before = by_start.range(..=time_us).next_back().map(|(_, known)| *known);
                last = match before.filter(|known| spans.get(*known).is_some_and(|(_, span, _)| span.contains(time_us))) {
                    Some(known) => known,
                    None => {
                        let (name, span) = of_time(unit, time_us)?;
                        by_start.insert(span.from_us, spans.len());
                        spans.push((name, span, Vec::new()));
                        spans.len() - 1
                    }
                };
            }
            spans[last].2.push(row);
        }
        let only_one = spans.len() == 1;
        for (name, _, rows) in spans {
            let rows = if only_one { batch.clone() } else { take_record_batch(batch, &UInt64Array::from(rows))? };
            parts.entry(name).or_default().push(rows);
        }
    }
    Ok(parts)
}

trait UtcDateTime {
    fn to_zoned_datetime_utc(self) -> DateTime;
}

impl UtcDateTime for Timestamp {
    fn to_zoned_datetime_utc(self) -> DateTime {
        TimeZone::UTC.to_datetime(self)
    }
}

fn microseconds(time: DateTime) -> Option<i64> {
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_microsecond())
}

fn next(unit: PartitionUnit, start: DateTime) -> Option<DateTime> {
    let date: Date = start.date();
    let span = match unit {
        PartitionUnit::Year => jiff::Span::new().years(1),
        PartitionUnit::Month => jiff::Span::new().months(1),
        PartitionUnit::Day => jiff::Span::new().days(1),
        PartitionUnit::Hour => return start.checked_add(jiff::Span::new().hours(1)).ok(),
    };
    Some(date.checked_add(span).ok()?.at(0, 0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_spans_agree() {
        for unit in [PartitionUnit::Year, PartitionUnit::Month, PartitionUnit::Day, PartitionUnit::Hour] {
            for time_us in [0, -1, 1_522_800_000_000_000, 1_522_799_999_999_999, 951_782_400_000_000] {
                let (name, bounds) = of_time(unit, time_us).unwrap();
                assert!(bounds.contains(time_us), "{name}");
                assert_eq!(span(unit, &name), Some(bounds));
                assert_ne!(of_time(unit, bounds.to_us).unwrap().0, name);
                assert_ne!(of_time(unit, bounds.from_us - 1).unwrap().0, name);
            }
        }
    }

    #[test]
    fn what_is_not_a_partition_is_told_apart() {
        for (unit, text) in [
            (PartitionUnit::Day, "2018-4-04"),
            (PartitionUnit::Day, "2018-02-30"),
            (PartitionUnit::Day, "2018-04"),
            (PartitionUnit::Hour, "2018-04-04-24"),
            (PartitionUnit::Month, "2018-13"),
            (PartitionUnit::Year, "+018"),
            (PartitionUnit::Year, "__HIVE_DEFAULT_PARTITION__"),
        ] {
            assert_eq!(span(unit, text), None, "{text}");
        }
    }
}
