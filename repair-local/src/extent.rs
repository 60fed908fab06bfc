//! The extent of a table in an interval, as its folders list it.

use std::time::SystemTime;

use repair_core::Result;
use repair_core::lake::extent::{Extent, ExtentPart, Listing};
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Interval, Table};

use crate::files::{self, Listed};
use crate::lake::Inner;
use crate::place::{self, Place};

pub(crate) fn extent(lake: &Inner, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
    let place = Place::to_read(&lake.root, table)?;
    let bounds = TimeBounds::of_interval(table, interval);
    let mut listing = Listing::default();
    // Before any file is looked at.
    let now = SystemTime::now();
    let mut is_settled = true;
    let within = [
        (ExtentPart::Table, place::prune(place.files(table)?, &bounds)),
        (ExtentPart::Repairs, place.repairs_within(table, &bounds)?),
        (ExtentPart::Exceptions, place.exceptions_within(table, &bounds)?),
        (ExtentPart::Retractions, files::list(&place.retractions, &Listed::OURS)?.unwrap_or_default()),
    ];
    for (part, files) in within {
        for file in files {
            // On a file system that keeps no times, only a change of size shows.
            let name = file.path.strip_prefix(&lake.root).unwrap_or(&file.path).to_string_lossy();
            listing.add(part, name, file.bytes, file.stamp.modified_ns().to_string());
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
    extent.evidence = extent.evidence.filter(|_| is_settled).zip(lake.program).map(|(evidence, program)| format!("{evidence} {program}"));
    Ok(extent)
}
