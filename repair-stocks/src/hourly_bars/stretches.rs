//! Stretches of time that consist of whole hours and whole partitions. It works on values only.

use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan};
use repair_core::model::{Interval, PartitionUnit};
use repair_core::{Error, Result};

/// The smallest stretch of whole units, in UTC, that contains an interval.
pub(super) fn whole(unit: PartitionUnit, interval: &Interval) -> Result<Interval> {
    let last = interval.to().checked_sub(SignedDuration::from_nanos(1)).map_err(out_of_range)?;
    Interval::new(instant(begin(unit, interval.from()))?, end(unit, last)?)
}

/// Cuts an interval where units begin, into as few stretches as possible of at most `most_hours` hours. A single unit may be longer, and is
/// not cut. Without a unit, the interval is not cut at all.
pub(super) fn cut(interval: &Interval, unit: Option<PartitionUnit>, most_hours: u64) -> Result<Vec<Interval>> {
    let Some(unit) = unit else { return Ok(vec![*interval]) };
    let most = SignedDuration::from_hours(i64::try_from(most_hours).unwrap_or(i64::MAX).clamp(1, ALL_HOURS));
    let mut stretches = Vec::new();
    let mut from = interval.from();
    while from < interval.to() {
        let mut to = end(unit, from)?;
        while to < interval.to() {
            let longer = end(unit, to)?.min(interval.to());
            if longer.duration_since(from) > most {
                break;
            }
            to = longer;
        }
        let stretch = Interval::new(from, to.min(interval.to()))?;
        from = stretch.to();
        stretches.push(stretch);
    }
    Ok(stretches)
}

/// More hours than any interval can have.
const ALL_HOURS: i64 = 1 << 40;

fn begin(unit: PartitionUnit, instant: Timestamp) -> DateTime {
    let now = instant.to_zoned_datetime(TimeZone::UTC).datetime();
    match unit {
        PartitionUnit::Year => date(now.year(), 1, 1).at(0, 0, 0, 0),
        PartitionUnit::Month => date(now.year(), now.month(), 1).at(0, 0, 0, 0),
        PartitionUnit::Day => now.date().at(0, 0, 0, 0),
        PartitionUnit::Hour => now.date().at(now.hour(), 0, 0, 0),
    }
}

/// The end of the unit that contains an instant.
fn end(unit: PartitionUnit, within: Timestamp) -> Result<Timestamp> {
    let length: Span = match unit {
        PartitionUnit::Year => 1.year(),
        PartitionUnit::Month => 1.month(),
        PartitionUnit::Day => 1.day(),
        PartitionUnit::Hour => 1.hour(),
    };
    instant(begin(unit, within).checked_add(length).map_err(out_of_range)?)
}

fn instant(time: DateTime) -> Result<Timestamp> {
    time.to_zoned_datetime(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(out_of_range)
}

fn out_of_range(error: jiff::Error) -> Error {
    Error::invalid("the interval reaches beyond the range of instants").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(from: &str, to: &str) -> Interval {
        Interval::parse(from, to).unwrap()
    }

    #[test]
    fn whole_units_contain_the_interval_and_no_more() {
        let lunch = interval("2024-02-29T11:30:00Z", "2024-02-29T12:00:00.000000001Z");
        for (unit, whole_unit) in [
            (PartitionUnit::Hour, interval("2024-02-29T11:00:00Z", "2024-02-29T13:00:00Z")),
            (PartitionUnit::Day, interval("2024-02-29", "2024-02-29")),
            (PartitionUnit::Month, interval("2024-02-01", "2024-02-29")),
            (PartitionUnit::Year, interval("2024-01-01", "2024-12-31")),
        ] {
            assert_eq!(whole(unit, &lunch).unwrap(), whole_unit);
            assert_eq!(whole(unit, &whole_unit).unwrap(), whole_unit, "already whole");
        }
    }

    #[test]
    fn stretches_meet_where_units_begin_and_respect_the_limit() {
        let all = interval("2024-01-30T22:00:00Z", "2024-03-02T02:00:00Z");
        for (unit, most_hours, count) in [
            (Some(PartitionUnit::Day), 48, 17),
            (Some(PartitionUnit::Day), 0, 33),
            (Some(PartitionUnit::Month), 1, 3),
            (Some(PartitionUnit::Hour), u64::MAX, 1),
            (None, 1, 1),
        ] {
            let stretches = cut(&all, unit, most_hours).unwrap();
            assert_eq!(stretches.len(), count, "{unit:?} {most_hours}");
            assert_eq!((stretches[0].from(), stretches[count - 1].to()), (all.from(), all.to()));
            for pair in stretches.windows(2) {
                assert_eq!(pair[0].to(), pair[1].from());
                assert_eq!(instant(begin(unit.unwrap(), pair[1].from())).unwrap(), pair[1].from(), "cut within a unit");
            }
        }
    }
}
