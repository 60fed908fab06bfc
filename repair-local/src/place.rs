//! Where a table lies, and what we keep beside it.

use std::path::{Component, Path, PathBuf};

use repair_core::lake::partition::{self, TimeBounds, time_partition};
use repair_core::lake::{StageScope, name, overlay};
use repair_core::model::Table;
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile};

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
}

impl Place {
    /// Where a table lies in the lake of a root. The overlay lies beside the table, but never outside the root: the overlay of a table
    /// elsewhere lies in the root, under the table's name.
    pub(crate) fn of(root: &Path, table: &Table) -> Self {
        let location = Path::new(&table.location);
        let data = normalized(&root.join(location));
        let below = |path: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
        let relative = below(&data).or_else(|| {
            // An absolute path may lead into the root by another name.
            location.is_absolute().then(|| data.canonicalize().ok()).flatten().as_deref().and_then(below)
        });
        let (folder, name) = match &relative {
            Some(relative) => match (relative.parent(), relative.file_name().and_then(|name| name.to_str())) {
                (Some(parent), Some(name)) => (root.join(parent), name.to_owned()),
                _ => (root.to_owned(), name::part(&table.name)),
            },
            None => (root.to_owned(), name::part(&table.name)),
        };
        Self {
            data: relative.as_ref().map_or(data, |relative| root.join(relative)),
            repairs: folder.join(overlay::repairs(&name)),
            exceptions: folder.join(overlay::exceptions(&name)),
            retractions: folder.join(overlay::retractions(&name)),
            inside: relative.is_some(),
        }
    }

    /// The table's files.
    ///
    /// # Errors
    /// `not-found` if nothing is at the table's location.
    pub(crate) fn files(&self, table: &Table) -> Result<Vec<DataFile>> {
        files::list(&self.data, table.format.endings(), &[&self.repairs, &self.exceptions, &self.retractions])?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no folder {}; create it or correct `location` of table `{}`", self.data.display(), table.name),
            )
        })
    }

    /// The files of the table's repairs; none if nothing has been repaired.
    pub(crate) fn repair_files(&self) -> Result<Vec<DataFile>> {
        Ok(files::list(&self.repairs, &["parquet"], &[])?.unwrap_or_default())
    }

    /// The files of the table's exceptions.
    pub(crate) fn exception_files(&self) -> Result<Vec<DataFile>> {
        Ok(files::list(&self.exceptions, &["parquet"], &[])?.unwrap_or_default())
    }
}

/// The path without `.` and `..`, by its text alone, since a path that does not exist yet cannot be resolved.
fn normalized(path: &Path) -> PathBuf {
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

/// The time that a file's path covers; `None` if the path does not say.
///
/// # Errors
/// `invalid` if the folder's name does not match the table's `partition_by`.
pub(crate) fn time_span(table: &Table, file: &DataFile) -> Result<Option<TimeBounds>> {
    let Some(by) = time_partition(table)? else { return Ok(None) };
    let Some(value) = file.hive_value(&by.column) else { return Ok(None) };
    let span = partition::span(by.unit, value).ok_or_else(|| {
        let example = partition::of_time(by.unit, 1_522_800_000_000_000).map(|(name, _)| name).unwrap_or_default();
        Error::invalid(format!(
            "`{}={value}` is not a partition of table `{}`, whose `partition_by` says one such as `{}={example}`; rename the folder, or \
             correct `partition_by`",
            by.column, table.name, by.column
        ))
        .on("file", file.path.display())
    })?;
    Ok(Some(span))
}

/// The files that may hold rows within bounds. All names are checked, also those of files that are left out.
///
/// # Errors
/// As [`time_span`].
pub(crate) fn prune(table: &Table, files: Vec<DataFile>, bounds: &TimeBounds) -> Result<Vec<DataFile>> {
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

/// The area of a run.
pub(crate) fn run_folder(root: &Path, run: &str) -> PathBuf {
    root.join(RUNS).join(name::part(run))
}

/// Where the units of a visit are staged.
pub(crate) fn staged_folder(root: &Path, scope: &StageScope<'_>) -> PathBuf {
    run_folder(root, scope.run).join("staged").join(format!("{}-{}", name::part(scope.step), scope.visit))
}
