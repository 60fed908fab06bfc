//! What a table holds whose key identifies a row, and what repairs make of it.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use jiff::{Timestamp, ToSpan};

use super::listings::Part;
use crate::report::model::{Held, HeldDay, Numbers, OnRecord};
use crate::report::picture::markup::{count, grouped, visible};
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::{Layer, RowCountRequest, ScanRequest};
use repair_core::model::{Counts, Interval, Key, Zone};
use repair_core::{Error, Result};

/// With more days than this, they are not counted one by one.
const MOST_DAYS: usize = 4_000;
const DAY_S: u32 = 86_400;
/// Every zone has had its midnights at multiples of this since 1972.
const QUARTER_S: u32 = 900;

/// Reads what the table of a part holds; `counts` are those of the search for several versions.
pub(super) async fn look(part: &Part<'_>, counts: &Counts, patched: &BTreeSet<(Key, i64)>, as_of: Timestamp) -> Result<Held> {
    let (table, interval, zone) = (part.table, part.interval, part.table.day_zone());
    let days = days(&interval, &zone)?;
    let every_s = if zone == Zone::utc() { DAY_S } else { QUARTER_S };
    let counted = part.lake.row_counts(table, &RowCountRequest::new(interval, every_s)).await?;
    let mut held = Held {
        table: table.name.clone(),
        interval,
        zone: zone.name().to_owned(),
        rows: 0,
        unreadable: counted.quarantine.rows(),
        keys: counts.audited_keys,
        several: counts.defective,
        surplus: counts.duplicates,
        settled: counts.replaced,
        changed: counts.changed,
        shown: 0,
        on_record: OnRecord { patched: patched.len() as u64, absent: part.absent(as_of).await?, ..OnRecord::default() },
        days: if days.len() <= MOST_DAYS { days } else { Vec::new() },
    };
    for (stretch, rows) in counted.rows.values().flatten() {
        held.rows += rows;
        // A stretch may begin before the interval does.
        let start = Timestamp::from_second(stretch.saturating_mul(i64::from(every_s))).unwrap_or(Timestamp::MIN).max(interval.from());
        let day = held.days.partition_point(|day| day.from <= start).checked_sub(1);
        if let Some(day) = day.and_then(|day| held.days.get_mut(day)) {
            day.rows += rows;
        }
    }
    let live = LiveRepairs::of_all(part.lake, table, table.identity().widened(&interval, 1), None, &[]).await?;
    let us = [interval.from(), interval.to()].map(Timestamp::as_microsecond);
    for (_, _, live) in live.iter().filter(|(_, time_us, _)| (us[0]..us[1]).contains(time_us)) {
        let record = &mut held.on_record;
        *match (live.removes, live.replaces) {
            (true, _) => &mut record.removed,
            (false, true) => &mut record.replaced,
            (false, false) => &mut record.added,
        } += 1;
    }
    let mut shown = part.lake.scan(table, &ScanRequest::new(Layer::Repaired).in_interval(interval).with_columns(Vec::new())).await?;
    while let Some(batch) = shown.try_next().await? {
        held.shown += batch.num_rows() as u64;
    }
    Ok(held)
}

/// The days that an interval touches.
fn days(interval: &Interval, zone: &Zone) -> Result<Vec<HeldDay>> {
    let (mut date, mut days) = (zone.local(interval.from()).date(), Vec::new());
    loop {
        let from = zone.day(date)?.from();
        if from >= interval.to() || days.len() > MOST_DAYS {
            return Ok(days);
        }
        days.push(HeldDay { from, rows: 0 });
        date = date.checked_add(1.day()).map_err(|error| Error::invalid("a date is out of range").because(error))?;
    }
}

impl Held {
    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            expected: self.keys,
            found: self.several + self.settled,
            repaired: self.on_record.repairs(),
            absent: self.on_record.absent,
            left: self.several,
        }
    }

    pub(super) fn sentence(&self) -> String {
        let (name, unreadable) = (visible(&self.table), count(self.unreadable, "row"));
        if self.rows == 0 {
            let unread = if self.unreadable > 0 { format!(" that can be read, and {unreadable} that cannot") } else { String::new() };
            return format!(
                "Table {name} has no row of its own in this time{unread}, so nothing was examined. This does not mean that nothing is missing."
            );
        }
        let mut text = format!("Table {name} holds {} of {}", count(self.rows, "row"), count(self.keys, "key"));
        match self.several {
            0 => text.push_str(", and none has several versions that no repair replaces"),
            several => text.push_str(&format!(
                "; {} several versions, {} too many, and no repair replaces them",
                has(several),
                grouped(self.surplus)
            )),
        }
        if self.settled > 0 {
            text.push_str(&format!("; {} several versions that a repair replaces", has(self.settled)));
        }
        if self.unreadable > 0 {
            text.push_str(&format!("; {unreadable} could not be read"));
        }
        text.push_str(&format!(". With repairs it shows {}. ", count(self.shown, "row")));
        text.push_str("Nothing says which rows it should have, so none is counted as missing.");
        text
    }
}

fn has(rows: u64) -> String {
    format!("{} {}", count(rows, "row"), if rows == 1 { "has" } else { "have" })
}
