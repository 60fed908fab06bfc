//! The extent of a table in an interval, as S3 lists it.

use repair_core::Result;
use repair_core::lake::extent::{Extent, ExtentPart, Listing};
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::model::{Interval, Partition, Table};

use crate::lake::AwsLake;
use crate::objects::{Location, Object, Objects};
use crate::place::Place;

impl AwsLake {
    /// Lists objects where the catalog says the table is. A view has no place of its own, so its extent is unknown.
    pub(crate) async fn size_up(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        let place = Place::of(&self.shared.location, table)?;
        let raw = self.tables().table(table).await?;
        if raw.is_view {
            return Ok(Extent::unknown());
        }
        let data = raw.location.as_deref().map(Location::parse).transpose()?.unwrap_or(place.data);
        let by = partition::time_partition(table)?;
        let bounds = TimeBounds::of_interval(table, interval);
        let ours = &self.shared.location.bucket;
        let mut listing = Listing::default();
        let parts = [
            (ExtentPart::Table, data.bucket.as_str(), &data.prefix, by),
            (ExtentPart::Repairs, ours, &place.repairs, by),
            (ExtentPart::Exceptions, ours, &place.exceptions, by),
            (ExtentPart::Retractions, ours, &place.retractions, None),
        ];
        for (part, bucket, folder, by) in parts {
            for object in within(&self.shared.objects.of_bucket(bucket), folder, by, &bounds).await? {
                listing.add(part, object.key, object.bytes, object.tag);
            }
        }
        Ok(listing.extent())
    }
}

/// The objects of a folder that may hold rows within bounds.
async fn within(objects: &Objects, folder: &str, by: Option<&Partition>, bounds: &TimeBounds) -> Result<Vec<Object>> {
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let Some(by) = by.filter(|_| *bounds != TimeBounds::ALL) else { return Ok(data(objects.list(&folder).await?, &folder)) };
    let mut found = Vec::new();
    // Only the requested partitions are listed, since a table may have years of them.
    for partition in objects.folders(&folder).await? {
        if may_hold(by, &partition, bounds) {
            found.extend(data(objects.list(&partition).await?, &folder).into_iter().filter(|object| may_hold(by, &object.key, bounds)));
        }
    }
    Ok(found)
}

/// Whether Athena treats it as data: no part of its name, from the table's folder on, begins with `.` or `_`.
fn data(listed: Vec<Object>, folder: &str) -> Vec<Object> {
    let is_data = |object: &Object| {
        let name = object.key.strip_prefix(folder).unwrap_or(&object.key);
        !name.is_empty() && !name.ends_with('/') && !name.split('/').any(|part| part.starts_with(['.', '_']))
    };
    listed.into_iter().filter(is_data).collect()
}

/// Whether a key may be in a partition within bounds; a key that names no partition may.
fn may_hold(by: &Partition, key: &str, bounds: &TimeBounds) -> bool {
    let value = key.split('/').find_map(|part| part.strip_prefix(&by.column)?.strip_prefix('='));
    value.and_then(|value| partition::span(by.unit, value)).is_none_or(|span| span.overlaps(bounds))
}
