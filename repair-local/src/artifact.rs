//! Artifacts: what is too big for the journal, kept in the run's own area. Written and read as a stream, never held in memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use repair_core::lake::KeptObject;
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

/// The objects of the areas of all runs, in order.
pub(crate) fn kept(root: &Path) -> Result<Vec<KeptObject>> {
    let areas = place::areas(root);
    let (mut kept, mut folders) = (Vec::new(), vec![areas.clone()]);
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            // Nothing is kept, or another process has just removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(files::io_error(error, "list", &folder)),
        };
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| files::io_error(error, "look at", &path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let below =
                    path.strip_prefix(&areas).ok().map(|below| below.iter().filter_map(|part| part.to_str()).collect::<Vec<_>>().join("/"));
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                kept.extend(below.and_then(|below| KeptObject::at(&below, bytes)));
            }
        }
    }
    kept.sort();
    Ok(kept)
}

/// Removes objects of the areas of runs, and the folders that are empty then.
pub(crate) fn remove_kept(root: &Path, objects: &[KeptObject]) -> Result<()> {
    let areas = place::areas(root);
    for object in objects {
        let path = areas.join(object.path()?);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(files::io_error(error, "remove", &path)),
        }
    }
    for area in objects.iter().map(|object| &object.area).collect::<BTreeSet<_>>() {
        remove_empty(&areas.join(area));
    }
    Ok(())
}

/// Removes a folder and those in it, as far as they are empty. That one stays is no error.
fn remove_empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
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
