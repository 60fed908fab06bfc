//! Writing tables that we own: every partition is one file of ours, replaced as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;
use repair_core::lake::partition;
use repair_core::lake::replacement::{Replacement, replacement};
use repair_core::model::Usage;
use repair_core::model::{Interval, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::lake::Inner;
use crate::place::Place;
use crate::{files, threads, write};

/// The name of the one file in each partition that we own.
const PART: &str = "part.parquet";

/// Replaces the content of every partition that the interval touches with these rows.
pub(crate) fn replace(lake: &Inner, table: &Table, interval: &Interval, rows: &[RecordBatch]) -> Result<Usage> {
    let place = Place::of(&lake.root, table)?;
    if !place.inside || place.data == lake.root {
        return Err(Error::invalid(format!(
            "table `{}` lies at {}, which is not a folder of its own below the lake's root {}, and we write nowhere else; correct its `location`",
            table.name,
            place.data.display(),
            lake.root.display()
        )));
    }
    let Replacement { schema, parts } = replacement(table, interval, rows)?;
    let by = partition::time_partition(table)?;
    if let Some(by) = by {
        refuse_strangers(&place.data, |name| name.split_once('=').is_some_and(|(column, _)| column == by.column))?;
    }
    let targets = parts.into_iter().map(|(name, batches)| match (by, name) {
        (Some(by), Some(name)) => (place.data.join(format!("{}={name}", by.column)), batches),
        _ => (place.data.clone(), batches),
    });
    let targets: BTreeMap<PathBuf, Vec<RecordBatch>> = targets.collect();
    // Everything is checked before anything is written.
    for folder in targets.keys() {
        refuse_strangers(folder, |name| name == PART)?;
    }
    // Each is let go as soon as it is written. Two wait for the disk in less time than one after the other.
    let targets: Vec<_> = targets.into_iter().map(|(folder, batches)| (folder, Mutex::new(batches))).collect();
    let written = threads::map_waiting(&targets, |(folder, batches)| {
        let batches = std::mem::take(&mut *batches.lock().unwrap_or_else(PoisonError::into_inner));
        match &schema {
            // If the table is one file, that file keeps its columns even without rows.
            Some(schema) if !batches.is_empty() || *folder == place.data => {
                write::parquet(&folder.join(PART), schema, &batches, Vec::new())
            }
            _ => {
                if files::remove(&folder.join(PART))? && *folder != place.data {
                    files::remove_empty_folder(folder);
                }
                Ok(Usage::default())
            }
        }
    })?;
    let mut usage = Usage::default();
    written.into_iter().for_each(|written| usage += written);
    files::create_folder(&place.data)?;
    // A table without rows has columns, too: those of one file.
    if let (Some(schema), Some((folder, _))) = (&schema, targets.first())
        && !has_files(&place.data)?
    {
        usage += write::parquet(&folder.join(PART), schema, &[], Vec::new())?;
    }
    Ok(usage)
}

/// Whether a table has any file, in its folder or in one of its partitions.
fn has_files(data: &Path) -> Result<bool> {
    let list = |folder: &Path| fs::read_dir(folder).map_err(|error| files::io_error(error, "list", folder));
    for entry in list(data)? {
        let path = entry.map_err(|error| files::io_error(error, "list", data))?.path();
        if path.file_name().is_some_and(|name| name == PART) || files::there(&path.join(PART))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rejects a folder that holds anything we did not write: replacing it would lose data, and leaving it would duplicate rows.
fn refuse_strangers(folder: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(files::io_error(error, "list", folder)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| files::io_error(error, "list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(['.', '_']) && !ours(&name) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} was not written by us, so its table is not ours to replace; move it away, or write to another table",
                    entry.path().display()
                ),
            ));
        }
    }
    Ok(())
}
