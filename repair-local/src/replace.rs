//! Writing tables that we own: every partition is one file of ours, replaced as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use repair_core::cost::Usage;
use repair_core::lake::rollup;
use repair_core::model::{Format, Interval, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::lake::Inner;
use crate::partition::{self, TimeBounds};
use crate::place::{self, Place};
use crate::{files, shape, write};

/// The only file of a partition that we own.
const PART: &str = "part.parquet";

/// Makes every partition that the interval touches hold these rows and nothing else.
pub(crate) fn replace(lake: &Inner, table: &Table, interval: &Interval, rows: &[RecordBatch]) -> Result<Usage> {
    let place = Place::of(&lake.root, table);
    if !place.inside || place.data == lake.root {
        return Err(Error::invalid(format!(
            "table `{}` lies at {}, which is not a folder of its own below the lake's root {}, where alone we write; mend its `location`",
            table.name,
            place.data.display(),
            lake.root.display()
        )));
    }
    if table.format != Format::Parquet {
        return Err(Error::invalid(format!("tables are written as Parquet only; set `format: parquet` for table `{}`", table.name)));
    }
    let bounds = TimeBounds::of_interval(table, Some(interval));
    let mut batches: Vec<RecordBatch> = rows.iter().map(|batch| in_shape(table, batch)).collect::<Result<_>>()?;
    let schema: Option<SchemaRef> = batches.first().map(RecordBatch::schema);
    batches.retain(|batch| batch.num_rows() > 0);
    if let Some(odd) = batches.iter().find(|batch| Some(batch.schema()) != schema) {
        return Err(Error::invalid(format!(
            "the rows for table `{}` do not all have the same columns; {}",
            table.name,
            shape::names(odd.schema_ref())
        )));
    }
    let mut timed = Vec::with_capacity(batches.len());
    for batch in &batches {
        let times = shape::instants(table, rollup::column(batch, &table.time)?)?;
        if let Some(outside) = times.values().iter().find(|time_us| !bounds.contains(**time_us)) {
            let time = jiff::Timestamp::from_microsecond(*outside).map_or_else(|_| outside.to_string(), |time| time.to_string());
            return Err(Error::invalid(format!(
                "a row of {time} for table `{}` lies outside of {interval}, which is to be replaced",
                table.name
            )));
        }
        timed.push((batch, times));
    }
    let mut targets: BTreeMap<PathBuf, Vec<RecordBatch>> = BTreeMap::new();
    match place::time_partition(table)? {
        None => {
            targets.insert(place.data.clone(), batches.clone());
        }
        Some(by) => {
            let mut parts = write::by_partition(by.unit, timed)?;
            refuse_strangers(&place.data, |name| name.split_once('=').is_some_and(|(column, _)| column == by.column))?;
            for name in partition::all_in(by.unit, &bounds)? {
                let folder = place.data.join(format!("{}={name}", by.column));
                targets.insert(folder, parts.remove(&name).unwrap_or_default());
            }
        }
    }
    // All is looked at before anything is written.
    for folder in targets.keys() {
        refuse_strangers(folder, |name| name == PART)?;
    }
    let mut usage = Usage::default();
    for (folder, batches) in targets {
        match &schema {
            // A table that is one file says its columns even if it has no row.
            Some(schema) if !batches.is_empty() || folder == place.data => {
                usage += write::parquet(&folder.join(PART), schema, &batches, Vec::new())?;
            }
            _ => {
                if files::remove(&folder.join(PART))? && folder != place.data {
                    // A folder that someone put something into meanwhile stays.
                    let _ = fs::remove_dir(&folder);
                }
            }
        }
    }
    files::create_folder(&place.data)?;
    Ok(usage)
}

/// A batch with its key and time columns in shape.
fn in_shape(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let missing = table.key.iter().chain([&table.time]).find(|name| batch.column_by_name(name).is_none());
    if let Some(missing) = missing {
        return Err(Error::invalid(format!(
            "rows for table `{}` have no column `{missing}`; {}",
            table.name,
            shape::names(batch.schema_ref())
        )));
    }
    let mut fields: Vec<Field> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        if *name == table.time {
            fields.push(shape::time_field(table));
            columns.push(std::sync::Arc::new(shape::instants(table, column)?));
        } else if table.key.contains(name) {
            fields.push(shape::key_field(name));
            columns.push(std::sync::Arc::new(shape::key_text(table, name, column)?));
        } else {
            fields.push(field.as_ref().clone().with_nullable(true));
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)?)
}

/// Refuses a folder with something in it that we did not write: to replace it would be to lose it, to leave it would double rows.
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
