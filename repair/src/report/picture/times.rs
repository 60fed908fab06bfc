//! How stretches of time are labelled on an axis.

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::report::model::Bucket;
use repair_core::model::Zone;

/// The labels of an axis: of each stretch, and of the days or years above them, each with the index of its first stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Labels {
    /// By stretch.
    pub(in crate::report) fine: Vec<String>,
    /// Where a new day, month or year begins, in order.
    pub(in crate::report) coarse: Vec<(usize, String)>,
}

/// The zone of this name; UTC if there is none.
pub(in crate::report) fn zone(name: &str) -> Zone {
    name.parse().unwrap_or_default()
}

/// Labels stretches that begin at these times.
pub(in crate::report) fn labels(starts: &[Timestamp], bucket: Bucket, zone: &Zone) -> Labels {
    let local: Vec<DateTime> = starts.iter().map(|start| zone.local(*start)).collect();
    let (fine, coarse) = match bucket {
        Bucket::Hour => ("%H:%M", "%Y-%m-%d"),
        Bucket::Day | Bucket::Week => ("%d", "%Y-%m"),
        Bucket::Month => ("%m", "%Y"),
        Bucket::Whole => ("%Y-%m-%d", ""),
    };
    let words = |time: &DateTime, format: &str| time.strftime(format).to_string();
    let mut above: Vec<(usize, String)> = Vec::new();
    for (index, time) in local.iter().enumerate() {
        let label = words(time, coarse);
        if !label.is_empty() && above.last().is_none_or(|(_, last)| *last != label) {
            above.push((index, label));
        }
    }
    Labels { fine: local.iter().map(|time| words(time, fine)).collect(), coarse: above }
}

/// An instant in a zone, to the minute.
pub(in crate::report) fn minute(instant: Timestamp, zone: &Zone) -> String {
    zone.local(instant).strftime("%Y-%m-%d %H:%M").to_string()
}

/// How long something took, in two units at most.
pub(in crate::report) fn duration(from: Timestamp, to: Timestamp) -> String {
    let millis = to.as_millisecond().saturating_sub(from.as_millisecond()).max(0);
    let (seconds, minutes, hours, days) = (millis / 1_000, millis / 60_000, millis / 3_600_000, millis / 86_400_000);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () if seconds > 0 => format!("{seconds}.{} s", millis % 1_000 / 100),
        () => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_name_each_day_once() {
        let starts = ["2026-03-05T22:00:00Z", "2026-03-05T23:00:00Z", "2026-03-06T00:00:00Z"].map(|text| text.parse().unwrap());
        let of = labels(&starts, Bucket::Hour, &Zone::utc());
        assert_eq!(of.fine, ["22:00", "23:00", "00:00"]);
        assert_eq!(of.coarse, [(0, "2026-03-05".to_owned()), (2, "2026-03-06".to_owned())]);
        assert_eq!(duration(starts[0], starts[2]), "2 h 0 min");
    }
}
