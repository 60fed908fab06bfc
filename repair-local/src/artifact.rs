//! Artifacts: what is too big for the journal, kept in the run's own area. Written and read as a stream, never held in memory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use repair_core::model::Usage;
use repair_core::{Error, ErrorKind, Result};

use crate::files::DataFile;
use crate::read::{self, Sink, parquet};
use crate::{files, place, write};

/// Rows in a batch that is read back; gaps and units are narrow.
const BATCH_ROWS: usize = 16_384;

fn path(root: &Path, run: &str, name: &str) -> PathBuf {
    place::run_folder(root, run).join(format!("{}.parquet", repair_core::lake::name::part(name)))
}

/// Writes the batches that `next` returns until it returns none; only then replaces the old artifact.
pub(crate) fn put(root: &Path, run: &str, name: &str, next: impl FnMut() -> Result<Option<RecordBatch>>) -> Result<Usage> {
    write::parquet_as_it_comes(&path(root, run, name), next).map_err(|error| error.on("artifact", name).on("run", run))
}

/// Keeps an artifact of a run and name as that of another.
pub(crate) fn copy(root: &Path, (from_run, from): (&str, &str), (run, name): (&str, &str)) -> Result<Usage> {
    let (source, target) = (path(root, from_run, from), path(root, run, name));
    if !files::there(&source)?.is_some_and(|kind| kind.is_file()) {
        return Err(missing(from_run, from, &source));
    }
    files::link_whole(&source, &target).map_err(|error| error.on("artifact", name).on("run", run))?;
    Ok(Usage { objects_written: 1, ..Usage::default() })
}

fn missing(run: &str, name: &str, path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("run {run} has no artifact `{name}`: there is no {}; was it removed?", path.display()))
}

/// An open artifact. It stays the same even if another takes its name.
pub(crate) struct Opened {
    file: DataFile,
    opened: parquet::Opened,
}

/// Opens an artifact.
///
/// # Errors
/// `not-found` if there is none of that name.
pub(crate) fn open(root: &Path, run: &str, name: &str) -> Result<Opened> {
    let path = path(root, run, name);
    let found = files::list(&path, &files::Listed::OURS)?.and_then(|mut files| files.pop());
    let file = found.ok_or_else(|| missing(run, name, &path))?;
    let opened = read::guarded(&file, || parquet::open(&file))?;
    Ok(Opened { file, opened })
}

impl Opened {
    /// Reads it all, on this thread.
    pub(crate) fn read(self, sink: &mut Sink<'_>) -> Result<()> {
        let Self { file, opened } = self;
        read::guarded(&file, || {
            let schema = opened.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let groups: Vec<usize> = (0..opened.footer().num_row_groups()).collect();
            let mut is_empty = true;
            opened.read(&names, &groups, BATCH_ROWS, &mut |batch| {
                is_empty = false;
                sink(batch)
            })?;
            if is_empty && !schema.fields().is_empty() {
                // It has no rows, but its columns are known.
                let _: ControlFlow<()> = sink(RecordBatch::new_empty(schema.clone()))?;
            }
            Ok(())
        })
    }
}
