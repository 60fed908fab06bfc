//! The extent of a table in an interval, as its folders list it.

use std::time::UNIX_EPOCH;

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
    let within = [
        (ExtentPart::Table, place::prune(place.files(table)?, &bounds)),
        (ExtentPart::Repairs, place::prune_ours(table, place.repair_files()?, &bounds)?),
        (ExtentPart::Exceptions, place::prune_ours(table, place.exception_files()?, &bounds)?),
        (ExtentPart::Retractions, files::list(&place.retractions, &Listed::OURS)?.unwrap_or_default()),
    ];
    for (part, files) in within {
        for file in files {
            let metadata = std::fs::metadata(&file.path).map_err(|error| files::io_error(error, "look at", &file.path))?;
            // On a file system that keeps no times, only a change of size shows.
            let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let name = file.path.strip_prefix(&lake.root).unwrap_or(&file.path).to_string_lossy();
            listing.add(part, name, metadata.len(), changed.as_nanos().to_string());
        }
    }
    Ok(listing.extent())
}
