//! Artifacts: what is too big for the journal, kept in the run's own area.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use repair_core::cost::Usage;
use repair_core::{Error, ErrorKind, Result};

use crate::read::{self, parquet};
use crate::{files, place, write};

/// Rows in a batch that is read back.
const BATCH_ROWS: usize = 65_536;

fn path(root: &Path, run: &str, name: &str) -> std::path::PathBuf {
    place::run_folder(root, run).join(format!("{}.parquet", files::name_part(name)))
}

pub(crate) fn put(root: &Path, run: &str, name: &str, batches: &[RecordBatch]) -> Result<Usage> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    write::parquet(&path(root, run, name), &schema, batches, Vec::new()).map_err(|error| error.on("artifact", name).on("run", run))
}

pub(crate) fn get(root: &Path, run: &str, name: &str) -> Result<Vec<RecordBatch>> {
    let path = path(root, run, name);
    let found = files::list(&path, &[], &[])?.and_then(|mut files| files.pop());
    let file = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("run {run} has no artifact `{name}`: there is no {}; was it removed?", path.display()))
    })?;
    read::guarded(&file, || {
        let opened = parquet::open(&file)?;
        let schema = opened.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let groups = (0..opened.footer().num_row_groups()).collect();
        let mut batches = Vec::new();
        opened.read(&names, groups, BATCH_ROWS, &mut |batch| {
            batches.push(batch);
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        if batches.is_empty() && !schema.fields().is_empty() {
            // No rows, but their columns are known.
            batches.push(RecordBatch::new_empty(schema.clone()));
        }
        Ok(batches)
    })
}
