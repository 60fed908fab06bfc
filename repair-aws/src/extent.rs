//! The extent of a table in an interval, as S3 lists it.

use jiff::{SignedDuration, Timestamp};
use repair_core::Result;
use repair_core::lake::extent::{Extent, ExtentPart, Listing};
use repair_core::lake::overlay::owner;
use repair_core::lake::partition::{self, TimeBounds};
use repair_core::lake::program;
use repair_core::model::{Interval, Partition, PathPattern, Table, TimeForm, Zone};

use crate::catalog::Relation;
use crate::lake::AwsLake;
use crate::objects::{Location, Object, Objects};
use crate::place::Place;

impl AwsLake {
    /// The extents in these intervals, each of all time if it is `None`. Lists objects where the catalog says the table is. A view has no place of
    /// its own, so its extent is unknown.
    pub(crate) async fn size_up(&self, table: &Table, intervals: &[Option<Interval>]) -> Result<Vec<Extent>> {
        let all: Vec<TimeBounds> = intervals.iter().map(|interval| TimeBounds::of_interval(table, interval.as_ref())).collect();
        let hull =
            |all: TimeBounds, one: &TimeBounds| TimeBounds { from_us: all.from_us.min(one.from_us), to_us: all.to_us.max(one.to_us) };
        let Some(hull) = all.split_first().map(|(first, others)| others.iter().fold(*first, hull)) else { return Ok(Vec::new()) };
        let raw = self.tables().table(table).await?;
        self.check_owner(table, Some(&raw)).await?;
        let Some((objects, seen)) = self.objects_of(table, &raw, &hull).await? else {
            return Ok(all.iter().map(|_| Extent::unknown()).collect());
        };
        // What Athena reads of the objects also depends on the catalog, and what is made of it on this program.
        let seen = seen.zip(program::identity());
        let extent = |bounds: &TimeBounds| {
            let mut listing = Listing::default();
            for object in objects.iter().filter(|object| *bounds == TimeBounds::ALL || object.span.is_none_or(|span| span.overlaps(bounds)))
            {
                // The tag of an object is a digest of its content.
                listing.add(object.part, object.key.as_str(), object.bytes, object.tag.as_str());
                listing.add_evidence(object.tag.as_str());
            }
            let mut extent = listing.extent();
            let seen = extent.evidence.zip(seen.as_ref());
            extent.evidence = seen.map(|(listed, (seen, program))| {
                blake3::hash(format!("{listed} {} {program}", seen.of_all()).as_bytes()).to_hex().to_string()
            });
            extent
        };
        Ok(all.iter().map(extent).collect())
    }

    /// The objects of a table and its overlay that may hold rows within bounds, and what decides which of them Athena reads. `None` for a view,
    /// which has no place of its own.
    pub(crate) async fn objects_of(
        &self,
        table: &Table,
        raw: &Relation,
        bounds: &TimeBounds,
    ) -> Result<Option<(Vec<Listed>, Option<Seen>)>> {
        if raw.is_view {
            return Ok(None);
        }
        let place = Place::of(&self.shared.location, table)?;
        let data = raw.location.as_deref().map(Location::parse).transpose()?.unwrap_or(place.data);
        let by = partition::time_partition(table)?;
        let ours = &self.shared.location.bucket;
        let mut all = Vec::new();
        let own = Paths::of(table, by);
        let parts = [
            (ExtentPart::Table, data.bucket.as_str(), &data.prefix, own),
            (ExtentPart::Repairs, ours, &place.repairs, Paths::Ours(by)),
            (ExtentPart::Exceptions, ours, &place.exceptions, Paths::Ours(by)),
            (ExtentPart::Retractions, ours, &place.retractions, Paths::Ours(None)),
        ];
        let ignored: Vec<glob::Pattern> = table.ignore.iter().filter_map(|pattern| glob::Pattern::new(pattern).ok()).collect();
        for (part, bucket, folder, paths) in parts {
            for (object, span) in within(&self.shared.objects.of_bucket(bucket), folder, &paths, bounds).await? {
                let name = object.key.strip_prefix(folder.as_str()).unwrap_or(&object.key).trim_start_matches('/');
                let file = name.rsplit('/').next().unwrap_or(name);
                let is_left_out = || ignored.iter().any(|glob| glob.matches(file) || glob.matches(name)) || owner::is_object(name);
                if part == ExtentPart::Table && is_left_out() {
                    continue;
                }
                all.push(Listed { part, key: object.key, bytes: object.bytes, tag: object.tag, span });
            }
        }
        let seen = Seen::of(raw, &data, Timestamp::now());
        Ok(Some((all, seen)))
    }
}

/// An object of a table or its overlay.
pub(crate) struct Listed {
    pub(crate) part: ExtentPart,
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) tag: String,
    /// The time of the rows that it may hold; `None` if its path does not say.
    pub(crate) span: Option<TimeBounds>,
}

/// What decides which objects Athena reads of a table, and how: as long as this and the objects stay the same, so do the table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The definition in the catalog.
    definition: String,
    /// If the partitions that are seen change as time goes on, in steps of an hour at least: the hour it is.
    hour: Option<String>,
    /// The partitions of times before this are seen for ever.
    settled_us: i64,
}

/// How long after its time a partition may begin to be seen: names of folders may be those of any zone, and of a day that has just begun.
const UNSETTLED: SignedDuration = SignedDuration::from_hours(72);

impl Seen {
    /// `None` if the definition does not say: partitions that are registered one by one may each be moved to another place, which no listing
    /// shows.
    fn of(raw: &Relation, data: &Location, now: Timestamp) -> Option<Self> {
        let properties = || raw.parameters.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
        let property = |name: &str| properties().find(|(known, _)| known == name).map(|(_, value)| value);
        let definition = format!("{:?} {:?} {:?} {:?}", raw.columns, raw.partitions, raw.location, raw.parameters);
        let fixed = Self { definition, hour: None, settled_us: i64::MAX };
        if raw.partitions.is_empty() {
            return Some(fixed);
        }
        if !property("projection.enabled").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        if let Some(template) = property("storage.location.template") {
            // What lies elsewhere is not listed.
            let place = Location::parse(template).ok().filter(|place| place.bucket == data.bucket)?;
            if !data.prefix.is_empty() && !place.prefix.strip_prefix(&data.prefix).is_some_and(|rest| rest.starts_with('/')) {
                return None;
            }
        }
        let moving: Vec<String> = properties()
            .filter(|(name, _)| name.ends_with(".range"))
            .map(|(_, value)| value.to_ascii_uppercase())
            .filter(|range| range.contains("NOW"))
            .collect();
        if moving.is_empty() {
            return Some(fixed);
        }
        if properties().any(|(name, value)| name.ends_with(".format") && (value.contains("mm") || value.contains("ss"))) {
            return None;
        }
        // A range that only ends with the present leaves out nothing that it has had.
        let is_fixed_first =
            |range: &String| range.split_once(',').is_some_and(|(first, last)| !first.contains("NOW") && last.trim() == "NOW");
        let settled_us = if moving.iter().all(is_fixed_first) { now.checked_sub(UNSETTLED).ok()?.as_microsecond() } else { i64::MIN };
        Some(Self { hour: Some(now.strftime("%F %H").to_string()), settled_us, ..fixed })
    }

    /// What decides about all of the table.
    fn of_all(&self) -> String {
        format!("{} {:?}", self.definition, self.hour)
    }

    /// What decides about the rows of times before an instant.
    pub(crate) fn before(&self, to_us: i64) -> String {
        if to_us <= self.settled_us { self.definition.clone() } else { self.of_all() }
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

    /// The time of the rows that a path below the table's folder may hold, if it says one.
    fn span(&self, path: &str) -> Option<TimeBounds> {
        let value = |by: &Partition| path.split('/').find_map(|part| part.strip_prefix(&by.column)?.strip_prefix('=').map(str::to_owned));
        match self {
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
        }
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

/// If more folders than this are wanted, all objects are listed: an answer holds up to 1,000 of them.
const MOST_FOLDERS: usize = 30;

/// The objects of a folder that may hold rows within bounds, with the time of their rows if the path says one.
async fn within(objects: &Objects, folder: &str, paths: &Paths<'_>, bounds: &TimeBounds) -> Result<Vec<(Object, Option<TimeBounds>)>> {
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let span = |key: &str| paths.span(key.strip_prefix(&folder).unwrap_or(key));
    let is_all = *bounds == TimeBounds::ALL;
    let is_wanted = |span: &Option<TimeBounds>| is_all || span.is_none_or(|span| span.overlaps(bounds));
    let mut listed = Vec::new();
    if paths.lists_all() || is_all {
        listed = objects.list(&folder).await?;
    } else {
        // Only the requested partitions are listed, since a table may have years of them.
        let mut folders = objects.folders(&folder).await?;
        folders.retain(|partition| is_wanted(&span(partition)));
        if folders.len() > MOST_FOLDERS {
            folders = vec![folder.clone()];
        }
        for partition in folders {
            listed.extend(objects.list(&partition).await?);
        }
    }
    let with_span = data(listed, &folder).into_iter().map(|object| {
        let span = span(&object.key);
        (object, span)
    });
    Ok(with_span.filter(|(_, span)| is_wanted(span)).collect())
}

/// Whether Athena treats it as data: no part of its name, from the table's folder on, begins with `.` or `_`.
fn data(listed: Vec<Object>, folder: &str) -> Vec<Object> {
    let is_data = |object: &Object| {
        let name = object.key.strip_prefix(folder).unwrap_or(&object.key);
        !name.is_empty() && !name.ends_with('/') && !name.split('/').any(|part| part.starts_with(['.', '_']))
    };
    listed.into_iter().filter(is_data).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Column;

    #[test]
    fn what_is_seen_follows_from_the_catalog_or_is_not_known() {
        let data = Location::parse("s3://lake/bars/").unwrap();
        let now: Timestamp = "2026-03-05T10:20:00Z".parse().unwrap();
        let table = |parameters: &[(&str, &str)]| Relation {
            partitions: vec![Column { name: "day".into(), declared: "string".into() }],
            location: Some("s3://lake/bars/".into()),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
            ..Relation::default()
        };
        let projected = ("projection.enabled", "true");
        let seen = |parameters: &[(&str, &str)], now: Timestamp| Seen::of(&table(parameters), &data, now);
        assert_eq!(seen(&[], now), None, "registered partitions may be moved");
        assert!(Seen::of(&Relation { partitions: Vec::new(), ..table(&[]) }, &data, now).is_some());
        let fixed = [projected, ("projection.day.range", "2026-01-01,2026-12-31")];
        assert_eq!(seen(&fixed, now), seen(&fixed, Timestamp::MAX));
        assert_ne!(seen(&fixed, now), seen(&[projected, ("projection.day.range", "2026-01-01,2026-12-30")], now));
        for template in ["s3://other/bars/${day}", "s3://lake/bars-old/${day}"] {
            assert_eq!(seen(&[projected, ("storage.location.template", template)], now), None, "{template}");
        }
        assert!(seen(&[projected, ("storage.location.template", "s3://lake/bars/v1/${day}")], now).is_some());
        let moving = [projected, ("projection.day.range", "2026-01-01,NOW")];
        assert_eq!(seen(&moving, now).map(|seen| seen.hour), seen(&moving, "2026-03-05T10:59:59Z".parse().unwrap()).map(|seen| seen.hour));
        let later = "2026-03-05T11:00:00Z".parse().unwrap();
        let all = |parameters: &[(&str, &str)], now: Timestamp| seen(parameters, now).unwrap().of_all();
        assert_ne!(all(&moving, now), all(&moving, later));
        // What was seen of a week ago is seen for ever, unless the range also begins with the present.
        let week_ago = now.as_microsecond() - 7 * 86_400_000_000;
        let before = |parameters: &[(&str, &str)], now: Timestamp| seen(parameters, now).unwrap().before(week_ago);
        assert_eq!(before(&moving, now), before(&moving, later));
        let both = [projected, ("projection.day.range", "NOW-30DAYS,NOW")];
        assert_ne!(before(&both, now), before(&both, later));
        assert_eq!(seen(&[moving[0], moving[1], ("projection.day.format", "yyyy-MM-dd-HH-mm")], now), None);
    }
}
