//! Which slots rows could be of that lie in the folder of a time far from theirs. Either says something else: their time, or their folder. So they could
//! be those of their key at their time, or of any key in the time of their folder.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use repair_core::Result;
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Layer, ReadLake, ScanRequest, rollup};
use repair_core::model::{Interval, Key, Rows, Slack, Table};

/// Days of keys that are counted, at about 100 bytes each. Of an archive with more, it is not known which slots its strays could be of.
const MOST_DAYS: usize = 2_000_000;

/// Microseconds in a day.
const DAY_US: i64 = 86_400_000_000;

/// What strays could be.
#[derive(Debug, Default)]
pub(super) struct Astray {
    /// The times of the folders that they lie in.
    folders: Vec<TimeBounds>,
    /// Of their keys, the days of their times, since 1970 in UTC.
    days: BTreeMap<Key, BTreeSet<i64>>,
}

/// Finds what the strays of an archive could be, by reading all keys and times with and without them; `strays` says in which files they are. `None` if that
/// cannot be known: they could be anything.
///
/// # Errors
/// Those of reading.
pub(super) async fn of(lake: &dyn ReadLake, archive: &Table, strays: &BTreeMap<String, u64>) -> Result<Option<Astray>> {
    if archive.rows == Rows::Unique {
        return Ok(None);
    }
    let Some(folders) = strays.keys().map(|file| folder(archive, file)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    // However far from its folder a row lies, it is used.
    let all = Table { slack: Slack::Seconds(u32::MAX), ..archive.clone() };
    let mut counts: BTreeMap<(Key, i64), i64> = BTreeMap::new();
    for (table, sign) in [(&all, 1), (archive, -1)] {
        let mut rows = lake.scan(table, &ScanRequest::new(Layer::Raw).with_columns(Vec::new())).await?;
        while let Some(batch) = rows.try_next().await? {
            let rows = KeyTime { keys: rollup::key_columns(archive, &batch)?, times: super::archive::times(archive, &batch)? };
            for run in rows.runs() {
                let key = rows.key(run.start);
                // Rows of one day follow each other, mostly.
                let (mut day, mut count) = (None, 0);
                for row in run {
                    let of_row = rows.times.value(row).div_euclid(DAY_US);
                    if let Some(before) = day.replace(of_row).filter(|before| *before != of_row) {
                        *counts.entry((key.clone(), before)).or_default() += std::mem::take(&mut count);
                    }
                    count += sign;
                }
                if let Some(day) = day {
                    *counts.entry((key, day)).or_default() += count;
                }
            }
            if counts.len() > MOST_DAYS {
                return Ok(None);
            }
        }
    }
    counts.retain(|_, rows| *rows != 0);
    // The files may have changed meanwhile.
    let found: i64 = counts.values().sum();
    if counts.values().any(|rows| *rows < 0) || u64::try_from(found).ok() != Some(strays.values().sum()) {
        return Ok(None);
    }
    let mut astray = Astray { folders, ..Astray::default() };
    for (key, day) in counts.into_keys() {
        astray.days.entry(key).or_default().insert(day);
    }
    Ok(Some(astray))
}

/// The time of the folder that a file lies in, by its path.
fn folder(archive: &Table, file: &str) -> Option<TimeBounds> {
    let names: Vec<&str> = file.split(['/', '\\']).collect();
    let Some(layout) = &archive.layout else {
        let by = partition::time_partition(archive).ok()??;
        let value = |name: &&str| {
            name.split_once('=').filter(|(column, _)| column.eq_ignore_ascii_case(&by.column)).map(|(_, value)| value.to_owned())
        };
        return partition::span(by.unit, &names.iter().rev().find_map(value)?);
    };
    let unit = layout.path.unit()?;
    let folders = names.len() - usize::from(!layout.path.names_a_file());
    // What is read most closely to the file is its folder; above are those of the lake.
    let start = names.get(..folders)?.windows(layout.path.parts().len()).rev().find_map(|names| layout.path.read(names)?.start)?;
    partition::span_of(unit, start, &layout.zone)
}

impl Astray {
    /// The parts of an interval in which no stray could be a row of a key.
    pub(super) fn without(&self, key: &Key, interval: Interval) -> Vec<Interval> {
        let days = self.days.get(key).into_iter().flatten();
        let days = days.map(|day| TimeBounds { from_us: day * DAY_US, to_us: (day + 1) * DAY_US });
        let mut doubtful: Vec<TimeBounds> = self.folders.iter().copied().chain(days).collect();
        doubtful.sort_unstable_by_key(|bounds| bounds.from_us);
        let (mut from_us, to_us) = (interval.from().as_microsecond(), interval.to().as_microsecond());
        let mut free = Vec::new();
        for bounds in doubtful {
            free.push((from_us, bounds.from_us.min(to_us)));
            from_us = from_us.max(bounds.to_us);
        }
        free.push((from_us, to_us));
        let at = |us: i64| jiff::Timestamp::from_microsecond(us).ok();
        free.into_iter().filter(|(from, to)| from < to).filter_map(|(from, to)| Interval::new(at(from)?, at(to)?).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repair_core::model::{Format, PartitionUnit};

    fn bounds(from_h: i64, to_h: i64) -> TimeBounds {
        TimeBounds { from_us: from_h * DAY_US / 24, to_us: to_h * DAY_US / 24 }
    }

    fn interval(from_h: i64, to_h: i64) -> Interval {
        let at = |hour: i64| jiff::Timestamp::from_second(hour * 3_600).unwrap();
        Interval::new(at(from_h), at(to_h)).unwrap()
    }

    #[test]
    fn what_a_stray_could_be_is_its_key_at_its_time_and_all_keys_in_its_folder() {
        let astray = Astray { folders: vec![bounds(48, 72)], days: [(Key::from("a"), [0, 5].into())].into() };
        assert_eq!(astray.without(&"a".into(), interval(0, 240)), [interval(24, 48), interval(72, 120), interval(144, 240)]);
        assert_eq!(astray.without(&"b".into(), interval(0, 240)), [interval(0, 48), interval(72, 240)]);
        assert_eq!(astray.without(&"b".into(), interval(50, 60)), []);
        assert_eq!(astray.without(&"b".into(), interval(100, 110)), [interval(100, 110)]);
    }

    #[test]
    fn the_time_of_a_folder_is_read_from_a_path() {
        let day = |day: i8| {
            let from_us = format!("2024-03-{day:02}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_microsecond();
            TimeBounds { from_us, to_us: from_us + DAY_US }
        };
        let hive = Table::new("t", Format::Csv, "ts").with_partition("date", PartitionUnit::Day);
        for path in ["/lake/date=2020-01-01/old/date=2024-03-11/b.csv", "s3://b/lake/old/Date=2024-03-11/b.csv"] {
            assert_eq!(folder(&hive, path), Some(day(11)), "{path}");
        }
        assert_eq!(folder(&hive, "/lake/old/b.csv"), None);
        let layout = Table::new("t", Format::Csv, "ts").with_layout("%Y/%m/%d".parse().unwrap(), repair_core::model::Zone::utc());
        assert_eq!(folder(&layout, "/lake/2020/01/old/2024/03/11/b.csv"), Some(day(11)));
        assert_eq!(folder(&layout, "b.csv"), None);
    }
}
