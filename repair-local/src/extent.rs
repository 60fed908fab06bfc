//! The extent of a table in intervals, as its folders list it.

use std::time::SystemTime;

use repair_core::Result;
use repair_core::lake::extent::{Extent, ExtentPart, Listing};
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Interval, Table};

use crate::files::{self, DataFile, Listed};
use crate::lake::Inner;
use crate::place::{self, Place};

/// The extents in these intervals, each of all time if it is `None`.
pub(crate) fn extents(lake: &Inner, table: &Table, intervals: &[Option<Interval>]) -> Result<Vec<Extent>> {
    let place = Place::to_read(&lake.root, table)?;
    let all: Vec<TimeBounds> = intervals.iter().map(|interval| TimeBounds::of_interval(table, interval.as_ref())).collect();
    let hull = |all: TimeBounds, one: &TimeBounds| TimeBounds { from_us: all.from_us.min(one.from_us), to_us: all.to_us.max(one.to_us) };
    let Some(hull) = all.split_first().map(|(first, others)| others.iter().fold(*first, hull)) else { return Ok(Vec::new()) };
    // Before any file is looked at.
    let now = SystemTime::now();
    let spans = |files: Vec<DataFile>| files.into_iter().map(|file| (file.reach, file)).collect::<Vec<_>>();
    let ours =
        |files: Vec<DataFile>| -> Result<Vec<_>> { files.into_iter().map(|file| Ok((place::time_span(table, &file)?, file))).collect() };
    let listed = [
        (ExtentPart::Table, spans(place::prune(place.files(table)?, &hull))),
        (ExtentPart::Repairs, ours(place.repairs_within(table, &hull)?)?),
        (ExtentPart::Exceptions, ours(place.exceptions_within(table, &hull)?)?),
        (
            ExtentPart::Retractions,
            files::list(&place.retractions, &Listed::OURS)?.unwrap_or_default().into_iter().map(|file| (None, file)).collect(),
        ),
    ];
    let extent = |bounds: &TimeBounds| {
        let (mut listing, mut is_settled) = (Listing::default(), true);
        for (part, files) in &listed {
            for (_, file) in files.iter().filter(|(span, _)| span.is_none_or(|span| span.overlaps(bounds))) {
                // On a file system that keeps no times, only a change of size shows.
                let name = file.path.strip_prefix(&lake.root).unwrap_or(&file.path).to_string_lossy();
                listing.add(*part, name, file.bytes, file.stamp.identity());
                match file.stamp.evidence() {
                    Some(evidence) => {
                        is_settled &= file.stamp.is_settled(now, lake.settles);
                        listing.add_evidence(evidence);
                    }
                    None => is_settled = false,
                }
            }
        }
        let mut extent = listing.extent();
        // What rests on it also rests on how this program reads the files.
        extent.evidence =
            extent.evidence.filter(|_| is_settled).zip(lake.program).map(|(evidence, program)| format!("{evidence} {program}"));
        extent
    };
    Ok(all.iter().map(extent).collect())
}
