//! Where things lie in the bucket. Keys only, no I/O.

use repair_core::lake::{StageScope, name, overlay};
use repair_core::model::Table;
use repair_core::{Error, Result};

use crate::objects::Location;

/// The folder for what is neither a table nor beside one. Athena ignores keys with a part that begins with `_`.
pub(crate) const OWN: &str = "_repair";

/// The name of the one object in each partition that we own.
pub(crate) const PART: &str = "part.parquet";

/// Where a table and its overlay lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The table's folder, where the workflow says it is, without a `/` at its end.
    pub(crate) data: Location,
    /// Its repairs, always within the lake.
    pub(crate) repairs: String,
    /// Its exceptions.
    pub(crate) exceptions: String,
    /// The retractions of both.
    pub(crate) retractions: String,
    /// The key of the table's folder if it lies within the lake; we write only there.
    pub(crate) inside: Option<String>,
}

impl Place {
    /// Where a table lies: at a relative location within the lake, or at its own `s3://…`. The overlay lies beside the table, but never
    /// outside the lake: the overlay of a table elsewhere lies in the lake, under the table's name.
    ///
    /// # Errors
    /// `invalid` if the location is not a place in a bucket.
    pub(crate) fn of(lake: &Location, table: &Table) -> Result<Self> {
        if table.location.contains(['*', '?', '[']) {
            return Err(Error::invalid(format!(
                "table `{}` has the location `{}`, and Athena reads whole folders, not the files that match a glob; name the folder, and leave \
                 files out with `ignore`, or declare a table of its own for them",
                table.name, table.location
            )));
        }
        let data = if table.location.contains("://") {
            Location::parse(&table.location)?
        } else {
            let relative = table.location.trim_matches('/');
            if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(Error::invalid(format!(
                    "table `{}` has the location `{}`, which is not a place in a bucket; write a path within the lake such as `{}`, or `s3://bucket/path`",
                    table.name, table.location, table.name
                )));
            }
            lake.join(relative)
        };
        let within = if lake.prefix.is_empty() { String::new() } else { format!("{}/", lake.prefix) };
        let inside = (data.bucket == lake.bucket && data.prefix.starts_with(&within) && data.prefix.len() > within.len())
            .then(|| data.prefix.clone());
        let beside = inside.clone().unwrap_or_else(|| format!("{within}{}", name::part(&table.name)));
        Ok(Self {
            data,
            repairs: overlay::repairs(&beside),
            exceptions: overlay::exceptions(&beside),
            retractions: overlay::retractions(&beside),
            inside,
        })
    }
}

/// The folder of a partition.
pub(crate) fn partition(folder: &str, partition: Option<(&str, &str)>) -> String {
    match partition {
        Some((column, value)) => format!("{folder}/{column}={value}"),
        None => folder.to_owned(),
    }
}

/// The prefix of the areas of all runs, with a `/` at its end.
pub(crate) fn areas(lake: &Location) -> String {
    format!("{}/", lake.join(&format!("{OWN}/runs")).prefix)
}

fn run(lake: &Location, run: &str) -> String {
    lake.join(&format!("{OWN}/runs/{}", name::part(run))).prefix
}

/// The key of an artifact.
pub(crate) fn artifact(lake: &Location, of: &str, artifact: &str) -> String {
    format!("{}/{}.parquet", run(lake, of), name::part(artifact))
}

/// The prefix under which the units of a visit are staged, with a `/` at its end.
pub(crate) fn staged(lake: &Location, scope: &StageScope<'_>) -> String {
    format!("{}/staged/{}-{}/", run(lake, scope.run), name::part(scope.step), scope.visit)
}

/// The key of a staged unit.
pub(crate) fn unit(lake: &Location, scope: &StageScope<'_>, unit: &str) -> String {
    format!("{}{}.parquet", staged(lake, scope), name::part(unit))
}

#[cfg(test)]
mod tests {
    use repair_core::model::Format;

    use super::*;

    #[test]
    fn we_write_only_within_the_lake() {
        let lake = Location::parse("s3://bucket/lake").unwrap();
        let of = |location: &str| {
            let table = Table::new("bars", Format::Parquet, "ts").with_location(location);
            Place::of(&lake, &table)
        };
        let inside = of("raw/bars/").unwrap();
        assert_eq!((inside.data.prefix.as_str(), inside.repairs.as_str()), ("lake/raw/bars", "lake/raw/bars_repairs"));
        assert_eq!(of("s3://bucket/lake/raw/bars").unwrap(), inside);
        for outside in ["s3://other/lake/bars", "s3://bucket/lakeside/bars", "s3://bucket/lake"] {
            let place = of(outside).unwrap();
            assert_eq!((place.inside, place.exceptions.as_str()), (None, "lake/bars_exceptions"), "{outside}");
        }
        assert!(of("../bars").is_err());
        assert!(of("").is_err());
    }
}
