//! Retractions: each is a small file beside its table, written whole or not at all.

use std::ops::ControlFlow;

use repair_core::Result;
use repair_core::lake::overlay::retraction;
use repair_core::lake::overlay::retraction::{Retracted, Retraction};
use repair_core::model::Table;

use crate::lake::Inner;
use crate::place::Place;
use crate::read::{self, parquet};
use crate::{files, write};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// Writes a retraction, unless it is already there.
pub(crate) fn retract(lake: &Inner, table: &Table, retraction: &Retraction) -> Result<()> {
    let batch = retraction.to_batch(table)?;
    let path = Place::to_write(&lake.root, table)?.retractions.join(retraction::object(&retraction.id));
    if files::there(&path)?.is_some() {
        // Who wrote it may have been killed before its name was on the disk.
        return path.parent().map_or(Ok(()), files::sync_folder);
    }
    write::parquet(&path, &batch.schema(), &[batch], Vec::new()).map(|_| ())
}

/// All retractions, oldest first.
pub(crate) fn retractions(table: &Table, place: &Place) -> Result<Vec<Retraction>> {
    let mut all = Vec::new();
    for file in files::list(&place.retractions, &files::Listed::OURS)?.unwrap_or_default() {
        let batch = read::guarded(&file, || {
            let opened = parquet::open(&file)?;
            let schema = opened.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let groups: Vec<usize> = (0..opened.footer().num_row_groups()).collect();
            let mut batches = Vec::new();
            opened.read(&names, &groups, BATCH_ROWS, &mut |batch| {
                batches.push(batch);
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(arrow::compute::concat_batches(&schema, &batches)?)
        })?;
        all.push(Retraction::from_batch(table, &batch).map_err(|error| error.on("file", file.path.display()))?);
    }
    all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    Ok(all)
}

/// What retractions hide of a table's overlay.
pub(crate) fn retracted(table: &Table, place: &Place) -> Result<Retracted> {
    Ok(Retracted::of(table, &retractions(table, place)?))
}
