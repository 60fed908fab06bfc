//! The extent of a table in an interval, as its folders list it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    let settled = SystemTime::now().checked_sub(SETTLES);
    let mut is_settled = settled.is_some();
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
            match written(&metadata) {
                Some((at, evidence)) => {
                    is_settled &= settled.is_some_and(|settled| at <= settled);
                    listing.add_evidence(evidence);
                }
                None => is_settled = false,
            }
        }
    }
    let mut extent = listing.extent();
    extent.evidence = extent.evidence.filter(|_| is_settled);
    Ok(extent)
}

/// A second write within this time after the first might leave the same times, since some file systems keep them to two seconds only.
const SETTLES: Duration = Duration::from_secs(3);

/// When a file was last written or replaced, and what changes with that: besides its own times, the number of the file and the time at which the
/// system last changed it, which nobody can set.
#[cfg(unix)]
fn written(metadata: &Metadata) -> Option<(SystemTime, String)> {
    use std::os::unix::fs::MetadataExt as _;
    let changed = Duration::new(u64::try_from(metadata.ctime()).ok()?, u32::try_from(metadata.ctime_nsec()).ok()?);
    let evidence = format!("{} {} {} {:?}", metadata.dev(), metadata.ino(), metadata.len(), changed);
    Some((
        UNIX_EPOCH.checked_add(changed)?.max(metadata.modified().ok()?),
        format!("{evidence} {}.{}", metadata.mtime(), metadata.mtime_nsec()),
    ))
}

/// Elsewhere a file may be written so that nothing shows it.
#[cfg(not(unix))]
fn written(_: &Metadata) -> Option<(SystemTime, String)> {
    None
}
