//! The extent of a table in an interval, as S3 lists it.

use repair_core::Result;
use repair_core::lake::extent::{Extent, ExtentPart, Listing};
use repair_core::lake::overlay::owner;
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::model::{Interval, Partition, PathPattern, Table, TimeForm, Zone};

use crate::lake::AwsLake;
use crate::objects::{Location, Object, Objects};
use crate::place::Place;

impl AwsLake {
    /// Lists objects where the catalog says the table is. A view has no place of its own, so its extent is unknown.
    pub(crate) async fn size_up(&self, table: &Table, interval: Option<&Interval>) -> Result<Extent> {
        let place = Place::of(&self.shared.location, table)?;
        let raw = self.tables().table(table).await?;
        self.check_owner(table, Some(&raw)).await?;
        if raw.is_view {
            return Ok(Extent::unknown());
        }
        let data = raw.location.as_deref().map(Location::parse).transpose()?.unwrap_or(place.data);
        let by = partition::time_partition(table)?;
        let bounds = TimeBounds::of_interval(table, interval);
        let ours = &self.shared.location.bucket;
        let mut listing = Listing::default();
        let own = Paths::of(table, by);
        let parts = [
            (ExtentPart::Table, data.bucket.as_str(), &data.prefix, own),
            (ExtentPart::Repairs, ours, &place.repairs, Paths::Ours(by)),
            (ExtentPart::Exceptions, ours, &place.exceptions, Paths::Ours(by)),
            (ExtentPart::Retractions, ours, &place.retractions, Paths::Ours(None)),
        ];
        let ignored: Vec<glob::Pattern> = table.ignore.iter().filter_map(|pattern| glob::Pattern::new(pattern).ok()).collect();
        for (part, bucket, folder, paths) in parts {
            for object in within(&self.shared.objects.of_bucket(bucket), folder, &paths, &bounds).await? {
                let name = object.key.strip_prefix(folder.as_str()).unwrap_or(&object.key).trim_start_matches('/');
                let file = name.rsplit('/').next().unwrap_or(name);
                let is_left_out = || ignored.iter().any(|glob| glob.matches(file) || glob.matches(name)) || owner::is_object(name);
                if part == ExtentPart::Table && is_left_out() {
                    continue;
                }
                // The tag of an object is a digest of its content.
                listing.add(part, object.key, object.bytes, object.tag.as_str());
                listing.add_evidence(object.tag);
            }
        }
        Ok(listing.extent())
    }
}

/// What the paths of objects say about the times of their rows.
enum Paths<'a> {
    /// We wrote them: each row is in the folder of its time.
    Ours(Option<&'a Partition>),
    /// Folders of the short form, near which rows may be.
    Hive(&'a Table, &'a Partition),
    /// Folders and files by a pattern, in a zone; near which rows may be, if there is a table.
    Pattern(Option<&'a Table>, &'a PathPattern, Zone),
}

impl<'a> Paths<'a> {
    fn of(table: &'a Table, by: Option<&'a Partition>) -> Self {
        match (&table.layout, &table.reading.form, by) {
            (Some(layout), _, _) => Self::Pattern(Some(table), &layout.path, layout.zone.clone()),
            (None, TimeForm::Path(path), _) => Self::Pattern(None, path, table.reading.zone.clone().unwrap_or_default()),
            (None, _, Some(by)) => Self::Hive(table, by),
            (None, _, None) => Self::Ours(None),
        }
    }

    /// Whether a path below the table's folder may hold rows within bounds; one that says no time may.
    fn may_hold(&self, path: &str, bounds: &TimeBounds) -> bool {
        let value = |by: &Partition| path.split('/').find_map(|part| part.strip_prefix(&by.column)?.strip_prefix('=').map(str::to_owned));
        let span = match self {
            Self::Ours(None) => None,
            Self::Ours(Some(by)) => value(by).and_then(|value| partition::span(by.unit, &value)),
            Self::Hive(table, by) => {
                value(by).and_then(|value| partition::span(by.unit, &value)).map(|span| partition::with_slack(table, span))
            }
            Self::Pattern(table, pattern, zone) => {
                let names: Vec<&str> = path.trim_end_matches('/').split('/').collect();
                match table {
                    Some(table) => span_of_names(pattern, &names, zone).map(|span| partition::with_slack(table, span)),
                    // The time of rows is at the end of the path, so a folder says nothing yet.
                    None if path.ends_with('/') => None,
                    None => span_of_end(pattern, &names, zone),
                }
            }
        };
        span.is_none_or(|span| span.overlaps(bounds))
    }

    /// Whether everything must be listed: nothing is said, or only the names of files say it.
    fn lists_all(&self) -> bool {
        match self {
            Self::Ours(by) => by.is_none(),
            Self::Hive(..) => false,
            Self::Pattern(table, pattern, _) => table.is_none() || (pattern.names_a_file() && pattern.parts().len() == 1),
        }
    }
}

/// The time that names cover, from the table's folder in, or as many of them as say one.
fn span_of_names(pattern: &PathPattern, names: &[&str], zone: &Zone) -> Option<TimeBounds> {
    let (all, parts) = (pattern.to_string(), pattern.parts().len());
    let written: Vec<&str> = all.trim_matches('/').split('/').collect();
    // The whole of it, or what the folders say so far.
    (1..=parts.min(names.len())).rev().find_map(|count| {
        let part: PathPattern = written.get(..count)?.join("/").parse().ok()?;
        let start = part.read(names.get(..count)?)?.start?;
        partition::span_of(part.unit()?, start, zone)
    })
}

/// The time that the names at the end of an object's path cover.
fn span_of_end(pattern: &PathPattern, names: &[&str], zone: &Zone) -> Option<TimeBounds> {
    let names = if pattern.names_a_file() { names } else { names.split_last()?.1 };
    let start = pattern.read(names.get(names.len().checked_sub(pattern.parts().len())?..)?)?.start?;
    partition::span_of(pattern.unit()?, start, zone)
}

/// The objects of a folder that may hold rows within bounds.
async fn within(objects: &Objects, folder: &str, paths: &Paths<'_>, bounds: &TimeBounds) -> Result<Vec<Object>> {
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let below = |key: &str| key.strip_prefix(&folder).unwrap_or(key).to_owned();
    let is_all = *bounds == TimeBounds::ALL;
    if paths.lists_all() || is_all {
        let listed = data(objects.list(&folder).await?, &folder).into_iter();
        return Ok(listed.filter(|object| is_all || paths.may_hold(&below(&object.key), bounds)).collect());
    }
    let mut found = Vec::new();
    // Only the requested partitions are listed, since a table may have years of them.
    for partition in objects.folders(&folder).await? {
        if paths.may_hold(&below(&partition), bounds) {
            let listed = data(objects.list(&partition).await?, &folder);
            found.extend(listed.into_iter().filter(|object| paths.may_hold(&below(&object.key), bounds)));
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
