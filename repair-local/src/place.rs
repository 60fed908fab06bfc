//! Where a table lies, and what we keep beside it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use glob::Pattern;
use repair_core::lake::overlay::owner::{self as owners, Owner};
use repair_core::lake::partition::{self, TimeBounds, time_partition};
use repair_core::lake::{StageScope, name, overlay};
use repair_core::model::{Instants, PartitionUnit, PathPattern, Repeated, Skipped, Table, TimeForm};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile, Folder, Found, Listed, Skip};
use crate::owner;

/// The folder of runs' areas, below the root. Its name begins with a dot, so that no table includes it.
const RUNS: &str = ".repair/runs";

/// Where a table and its overlay lie.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The table's folder or file.
    pub(crate) data: PathBuf,
    /// Its repairs.
    pub(crate) repairs: PathBuf,
    /// Its exceptions.
    pub(crate) exceptions: PathBuf,
    /// Its retractions.
    pub(crate) retractions: PathBuf,
    /// Whether it lies below the root; we write only there.
    pub(crate) inside: bool,
    /// If the location is a glob: which files below `data` are meant.
    pub(crate) only: Option<Pattern>,
    /// The table, as the record of its overlay names it.
    pub(crate) owner: Owner,
    /// If a link in the table's path leads out of the root: where an earlier version kept its repairs, outside of it.
    pub(crate) outdated: Option<PathBuf>,
}

/// What the files of a folder share: the names of the folders, and the values of columns in them.
type FolderFacts = (Arc<[String]>, Arc<[(String, String)]>);

impl Place {
    /// Where a table lies in the lake of a root. The overlay lies beside the table, but never outside the root: the overlay of a table
    /// elsewhere lies in the root, under the table's name.
    ///
    /// Whose the overlay there is, is not asked: see [`Place::to_read`] and [`Place::to_write`].
    ///
    /// # Errors
    /// If the path cannot be looked at.
    pub(crate) fn of(root: &Path, table: &Table) -> Result<Self> {
        let (location, only) = split_glob(root, &table.location)?;
        let location = Path::new(&location);
        let data = normalized(&root.join(location));
        let below = |path: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
        let relative = match below(&data) {
            // An absolute path may lead into the root by another name.
            None if location.is_absolute() => files::real(&data)?.as_deref().and_then(below),
            relative => relative,
        };
        let data = relative.as_ref().map_or(data, |relative| root.join(relative));
        // The folder beside which the overlay would lie, and the table's name in it. A glob stands for some files of a folder, and another
        // glob for others.
        let named = match (data.parent(), data.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) if only.is_none() && relative.as_ref().is_some_and(|relative| relative.parent().is_some()) => {
                Some((resolved(parent)?, name.to_owned()))
            }
            _ => None,
        };
        let is_behind_link = named.as_ref().is_some_and(|(folder, _)| !folder.starts_with(root));
        let beside = named.clone().filter(|_| !is_behind_link);
        let outdated = named.filter(|_| is_behind_link).map(|(folder, name)| folder.join(overlay::repairs(&name)));
        let owner = match &beside {
            Some((_, name)) => Owner::beside(table, name),
            None => {
                let folder = relative.clone().unwrap_or_else(|| if location.is_absolute() { data.clone() } else { from_root(root, &data) });
                let only = only.as_ref().map(Pattern::as_str);
                let parts = [folder.to_str().filter(|folder| !folder.is_empty()), only].into_iter().flatten();
                Owner::elsewhere(table, parts.collect::<Vec<_>>().join("/"))
            }
        };
        let is_inside = beside.is_some();
        let (folder, name) = beside.unwrap_or_else(|| (root.to_owned(), name::part(&table.name)));
        Ok(Self {
            data,
            repairs: folder.join(overlay::repairs(&name)),
            exceptions: folder.join(overlay::exceptions(&name)),
            retractions: folder.join(overlay::retractions(&name)),
            inside: is_inside,
            only,
            owner,
            outdated,
        })
    }

    /// As [`Place::of`], for whoever reads the overlay.
    ///
    /// # Errors
    /// `conflict` if the overlay is that of another table.
    pub(crate) fn to_read(root: &Path, table: &Table) -> Result<Self> {
        let place = Self::of(root, table)?;
        owner::check(root, table, &place)?;
        Ok(place)
    }

    /// As [`Place::of`], for whoever adds to the overlay.
    ///
    /// # Errors
    /// `conflict` if the overlay is that of another table.
    pub(crate) fn to_write(root: &Path, table: &Table) -> Result<Self> {
        let place = Self::of(root, table)?;
        owner::claim(root, table, &place)?;
        Ok(place)
    }

    /// The table's files, with what their paths say.
    ///
    /// # Errors
    /// `not-found` if nothing is at the table's location; `blind` if a file is there of which nobody said what it is; `invalid` if a path
    /// is not as the table says.
    pub(crate) fn files(&self, table: &Table) -> Result<Vec<DataFile>> {
        Ok(self.find(table, None)?.files)
    }

    /// As [`Place::files`], with the folders, without those that are to be skipped.
    ///
    /// # Errors
    /// As [`Place::files`], for what is not skipped.
    pub(crate) fn find(&self, table: &Table, skip: Option<Skip<'_>>) -> Result<Found> {
        let except = [self.repairs.as_path(), self.exceptions.as_path(), self.retractions.as_path()];
        // A glob that names overlays means them.
        let names_overlays = self.only.as_ref().is_some_and(|only| only.as_str().split('/').any(|name| owners::named(name).is_some()));
        let is_left_out: Option<fn(&Path) -> Result<bool>> = if names_overlays { None } else { Some(owner::is_overlay) };
        let (only, are_ours) = (self.only.as_ref(), names_overlays || owner::is_overlay(&self.data)?);
        let listed = Listed { format: table.format, ignore: &table.ignore, except: &except, only, is_left_out, are_ours };
        let mut found = files::find(&self.data, &listed, skip)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no folder {}; create it or correct `location` of table `{}`", self.data.display(), table.name),
            )
        })?;
        if self.only.is_some() && found.files.is_empty() && skip.is_none() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no file matches `{}`; correct `location` of table `{}`", table.location, table.name),
            ));
        }
        // Unless a file's own name says something, the files of a folder are alike.
        let by_folder =
            table.layout.as_ref().is_none_or(|layout| !layout.path.names_a_file()) && !matches!(table.reading.form, TimeForm::Path(_));
        let mut last: Option<(FolderFacts, DataFile)> = None;
        for file in &mut found.files {
            if let Some(((folders, values), known)) = &last
                && Arc::ptr_eq(folders, &file.folders)
                && Arc::ptr_eq(values, &file.values)
            {
                (file.span, file.reach, file.time_us, file.values) = (known.span, known.reach, known.time_us, known.values.clone());
                continue;
            }
            let (folders, values) = (file.folders.clone(), file.values.clone());
            read_path(table, file)?;
            last = by_folder.then(|| ((folders, values), file.clone()));
        }
        Ok(found)
    }

    /// The files of the table's repairs; none if nothing has been repaired.
    pub(crate) fn repair_files(&self) -> Result<Vec<DataFile>> {
        Ok(files::list(&self.repairs, &Listed::OURS)?.unwrap_or_default())
    }

    /// Those of them that may hold rows within bounds. Only their folders are listed.
    ///
    /// # Errors
    /// `invalid` if the name of a folder is not one that we write.
    pub(crate) fn repairs_within(&self, table: &Table, bounds: &TimeBounds) -> Result<Vec<DataFile>> {
        ours_within(table, &self.repairs, bounds)
    }

    /// The files of the table's exceptions that may hold rows within bounds. Only their folders are listed.
    ///
    /// # Errors
    /// `invalid` if the name of a folder is not one that we write.
    pub(crate) fn exceptions_within(&self, table: &Table, bounds: &TimeBounds) -> Result<Vec<DataFile>> {
        ours_within(table, &self.exceptions, bounds)
    }
}

fn ours_within(table: &Table, folder: &Path, bounds: &TimeBounds) -> Result<Vec<DataFile>> {
    let by = time_partition(table)?;
    let is_elsewhere = |folder: &Folder<'_>| {
        let of_time = folder.hive.last().zip(by).filter(|((column, _), by)| *column == by.column);
        of_time.and_then(|((_, value), by)| partition::span(by.unit, value)).is_some_and(|span| !span.overlaps(bounds))
    };
    let found = files::find(folder, &Listed::OURS, Some(&is_elsewhere))?;
    prune_ours(table, found.map(|found| found.files).unwrap_or_default(), bounds)
}

/// Whether the names of the folders down to one say that its files hold no rows within bounds.
pub(crate) fn is_elsewhere(table: &Table, folder: &Folder<'_>, bounds: &TimeBounds) -> bool {
    let span = match &table.layout {
        Some(layout) if !layout.path.names_a_file() && folder.names.len() == layout.path.parts().len() => {
            let names: Vec<&str> = folder.names.iter().map(String::as_str).collect();
            let start = layout.path.read(&names).and_then(|facts| facts.start);
            layout.path.unit().zip(start).and_then(|(unit, start)| partition::span_of(unit, start, &layout.zone))
        }
        Some(_) => None,
        None => {
            let by = time_partition(table).ok().flatten();
            let of_time = folder.hive.last().zip(by).filter(|((column, _), by)| *column == by.column);
            of_time.and_then(|((_, value), by)| partition::span(by.unit, value))
        }
    };
    span.is_some_and(|span| !partition::with_slack(table, span).overlaps(bounds))
}

/// Notes what the path of a file says: the time that its folder covers, keys, and perhaps the time of its rows.
fn read_path(table: &Table, file: &mut DataFile) -> Result<()> {
    let refuse = |file: &DataFile, what: String| Error::invalid(what).on("file", file.path.display());
    if let Some(layout) = &table.layout {
        let mut names = file.names();
        if !layout.path.names_a_file() {
            // A table that is one file has no folders.
            names.truncate(layout.path.parts().len().min(file.folders.len()));
        }
        let facts = layout.path.read(&names).ok_or_else(|| {
            let what = format!(
                "`{}` does not match `{}` of table `{}`; rename the folder, or correct `partition_by`",
                file.names().join("/"),
                layout.path,
                table.name
            );
            refuse(file, what)
        })?;
        if let (Some(unit), Some(start)) = (layout.path.unit(), facts.start) {
            file.span = partition::span_of(unit, start, &layout.zone);
        }
        add_values(file, facts.keys);
    } else {
        file.span = time_span(table, file)?;
    }
    if let TimeForm::Path(path) = &table.reading.form {
        let names = file.names();
        let parts = path.parts().len().min(names.len());
        let facts = path.read(&names[names.len() - parts..]).ok_or_else(|| {
            let what = format!(
                "`{}` does not end like `{path}`, where table `{}` has its time; rename the file, or correct `path` under `time`",
                file.names().join("/"),
                table.name
            );
            refuse(file, what)
        })?;
        if let Some(start) = facts.start {
            file.time_us = Some(time_of(table, path, start).map_err(|why| refuse(file, why.message().to_owned()))?);
        }
        add_values(file, facts.keys);
    } else if is_in_folders(table) {
        file.time_us = file.span.map(|span| span.from_us);
    }
    file.reach = file.span.map(|span| partition::with_slack(table, span));
    Ok(())
}

/// The instant of a time in a path. A day begins at its first instant; an hour that the clock shows twice, or never, is what the table says.
fn time_of(table: &Table, path: &PathPattern, start: jiff::civil::DateTime) -> Result<i64> {
    let (reading, zone) = (&table.reading, table.reading.zone.clone().unwrap_or_default());
    let is_of_day = path.unit() == Some(PartitionUnit::Hour);
    let why = match zone.instants(start).filter(|_| is_of_day) {
        Some(Instants::One(us)) => return Ok(us),
        Some(Instants::Two(earlier, later)) => match reading.repeated {
            Repeated::Earlier => return Ok(earlier),
            Repeated::Later => return Ok(later),
            _ => format!(
                "the clock in {} shows {start} twice; say which is meant with `repeated: earlier` or `later` under `time`",
                zone.name()
            ),
        },
        Some(Instants::None(us)) if reading.skipped == Skipped::Shift => return Ok(us),
        Some(Instants::None(_)) => format!(
            "the clock in {} never shows {start}; rename the file, or say `skipped: shift` under `time`, which takes it for an hour later",
            zone.name()
        ),
        None => return Ok(zone.start(start)?.as_microsecond()),
    };
    Err(Error::invalid(why))
}

/// Adds values of columns that the path of a file has.
fn add_values(file: &mut DataFile, more: BTreeMap<String, String>) {
    if !more.is_empty() {
        file.values = file.values.iter().cloned().chain(more).collect();
    }
}

/// Whether the time column has the name of the column in the folders that carry the time, as in tables whose writer takes that column
/// out of the files.
fn is_in_folders(table: &Table) -> bool {
    match (&table.layout, table.partition_by.as_slice()) {
        (None, [by]) => by.column == table.time,
        (Some(layout), _) => layout.path.parts().iter().any(|part| PathPattern::column_of(part) == Some(table.time.as_str())),
        _ => false,
    }
}

/// Splits a location that is a glob into the folder before its first open name, and the rest. A location that exists as it is written is
/// none.
pub(crate) fn split_glob(root: &Path, location: &str) -> Result<(String, Option<Pattern>)> {
    if !location.contains(['*', '?', '[']) || files::there(&root.join(location))?.is_some() {
        return Ok((location.to_owned(), None));
    }
    let names: Vec<&str> = location.split('/').collect();
    let open = names.iter().position(|name| name.contains(['*', '?', '['])).unwrap_or(0);
    Ok(match Pattern::new(&names[open..].join("/")) {
        Ok(pattern) => (names[..open].join("/"), Some(pattern)),
        // Nothing is there under this name, which is what the caller reports.
        Err(_) => (location.to_owned(), None),
    })
}

/// The path without `.` and `..`, by its text alone, since a path that does not exist yet cannot be resolved.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// The path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> Result<PathBuf> {
    for above in path.ancestors() {
        if let Some(real) = files::real(above)? {
            return Ok(path.strip_prefix(above).map_or_else(|_| real.clone(), |rest| real.join(rest)));
        }
    }
    Ok(path.to_owned())
}

/// A path outside the root, as one from the root: both may be moved together.
fn from_root(root: &Path, path: &Path) -> PathBuf {
    let shared = root.components().zip(path.components()).take_while(|(one, other)| one == other).count();
    let up = root.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(path.components().skip(shared)).collect()
}

/// The time that a file's path covers; `None` if the path does not say.
///
/// # Errors
/// `invalid` if the folder's name does not match the table's `partition_by`.
pub(crate) fn time_span(table: &Table, file: &DataFile) -> Result<Option<TimeBounds>> {
    if file.span.is_some() {
        return Ok(file.span);
    }
    let Some(by) = time_partition(table)? else { return Ok(None) };
    let Some(value) = file.path_value(&by.column) else { return Ok(None) };
    let span = partition::span(by.unit, value).ok_or_else(|| {
        let example = partition::of_time(by.unit, 1_522_800_000_000_000).map(|(name, _)| name).unwrap_or_default();
        Error::invalid(format!(
            "`{}={value}` is not a partition of table `{}`, whose `partition_by` says one such as `{}={example}`; correct `partition_by`, e.g. \
             `partition_by: \"{}=%Y%m%d\"`, or rename the folder",
            by.column, table.name, by.column, by.column
        ))
        .on("file", file.path.display())
    })?;
    Ok(Some(span))
}

/// The files of a table that may hold rows within bounds.
pub(crate) fn prune(mut files: Vec<DataFile>, bounds: &TimeBounds) -> Vec<DataFile> {
    files.retain(|file| file.reach.is_none_or(|reach| reach.overlaps(bounds)));
    files
}

/// The files of an overlay that may hold rows within bounds. We wrote them, so each row is in its folder.
///
/// # Errors
/// `invalid` if the folder's name is not one that we write.
pub(crate) fn prune_ours(table: &Table, files: Vec<DataFile>, bounds: &TimeBounds) -> Result<Vec<DataFile>> {
    let mut kept = Vec::with_capacity(files.len());
    for file in files {
        if time_span(table, &file)?.is_none_or(|span| span.overlaps(bounds)) {
            kept.push(file);
        }
    }
    Ok(kept)
}

/// The folder for what is neither a table nor beside one.
pub(crate) fn own_folder(root: &Path) -> PathBuf {
    root.join(".repair")
}

/// The folder of the areas of all runs.
pub(crate) fn areas(root: &Path) -> PathBuf {
    root.join(RUNS)
}

/// The area of a run.
pub(crate) fn run_folder(root: &Path, run: &str) -> PathBuf {
    root.join(RUNS).join(name::part(run))
}

/// Where the units of a visit are staged.
pub(crate) fn staged_folder(root: &Path, scope: &StageScope<'_>) -> PathBuf {
    run_folder(root, scope.run).join("staged").join(format!("{}-{}", name::part(scope.step), scope.visit))
}
