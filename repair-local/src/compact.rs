//! Compaction: many small files of an overlay become one with the same rows, which is written and read back before they are removed.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use repair_core::lake::overlay::compaction::{self, Compactable, Compacted, Member, Source};
use repair_core::lake::overlay::owner::{self, Kind};
use repair_core::lake::seal::{self, Verdict};
use repair_core::model::Table;
use repair_core::{Error, Result};

use crate::files::{self, DataFile, Listed};
use crate::lake::Inner;
use crate::place::Place;
use crate::read::{self, parquet as read_parquet};
use crate::write;

/// Rows in a batch when a file is read.
const BATCH_ROWS: usize = 65_536;

/// The folder of a table of the overlay.
fn folder(place: &Place, kind: Kind) -> Result<&Path> {
    match kind {
        Kind::Repairs => Ok(&place.repairs),
        Kind::Exceptions => Ok(&place.exceptions),
        Kind::Retractions => Err(Error::invalid("retractions are not compacted")),
    }
}

/// A file that we published, with the folder of its partition and its name.
struct Found {
    partition: Option<String>,
    name: String,
    file: DataFile,
}

/// The files of a folder that we published.
fn found(folder: &Path) -> Result<Vec<Found>> {
    let of_overlay = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut all = Vec::new();
    for file in files::list(folder, &Listed::OURS)?.unwrap_or_default() {
        let Ok(below) = file.path.strip_prefix(folder) else { continue };
        let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
        let (partition, name) = match parts.as_deref() {
            Some([name]) => (None, (*name).to_owned()),
            Some([partition, name]) => (Some((*partition).to_owned()), (*name).to_owned()),
            _ => continue,
        };
        let path = partition.iter().map(String::as_str).chain([name.as_str()]).collect::<Vec<_>>().join("/");
        if owner::is_object(&format!("{of_overlay}/{path}")) {
            all.push(Found { partition, name, file });
        }
    }
    Ok(all)
}

/// The published files of one partition.
fn found_in(place: &Place, kind: Kind, partition: Option<&str>) -> Result<Vec<Found>> {
    let mut all = found(folder(place, kind)?)?;
    all.retain(|found| found.partition.as_deref() == partition);
    Ok(all)
}

/// Lists what could be compacted.
pub(crate) fn compactable(lake: &Inner, table: &Table) -> Result<Vec<Compactable>> {
    let place = Place::to_read(&lake.root, table)?;
    let mut all = Vec::new();
    for kind in [Kind::Repairs, Kind::Exceptions] {
        for Found { partition, name, file } in found(folder(&place, kind)?)? {
            all.push((kind, partition, Member { name, bytes: file.bytes }));
        }
    }
    Ok(compaction::compactable(all))
}

/// Writes the file that some become.
pub(crate) fn compact(lake: &Inner, table: &Table, of: &Compactable) -> Result<Vec<Compacted>> {
    let place = Place::to_read(&lake.root, table)?;
    // What a compaction that was killed has not finished, the next one removes.
    files::remove_abandoned(folder(&place, of.kind)?);
    let files = found_in(&place, of.kind, of.partition.as_deref())?;
    let mut sources = Vec::with_capacity(of.members.len());
    for Member { name, .. } in &of.members {
        let found = files.iter().find(|found| found.name == *name).ok_or_else(|| compaction::outdated(name))?;
        let bytes = whole(&found.file)?;
        let digest = compaction::digest(&bytes);
        let (schema, batches) = decoded(&found.file, bytes)?;
        sources.push(Source { name: name.clone(), digest, schema, batches });
    }
    let folder = of
        .partition
        .as_ref()
        .map_or_else(|| folder(&place, of.kind).map(Path::to_owned), |partition| Ok(folder(&place, of.kind)?.join(partition)))?;
    let mut all = Vec::new();
    for merged in compaction::merged(sources)? {
        let path = folder.join(&merged.object);
        let usage = write::parquet(&path, &merged.schema, &merged.batches, Vec::new())?;
        let written =
            files::list(&path, &Listed::OURS)?.and_then(|mut files| files.pop()).ok_or_else(|| compaction::not_written(&merged.object))?;
        merged.check(&decoded(&written, whole(&written)?)?.1)?;
        all.push(merged.written(of, written.bytes, usage));
    }
    Ok(all)
}

/// Removes the files that another stands for.
pub(crate) fn discard(lake: &Inner, table: &Table, compacted: &Compacted) -> Result<()> {
    let place = Place::to_read(&lake.root, table)?;
    let files = found_in(&place, compacted.kind, compacted.partition.as_deref())?;
    let members: Vec<PathBuf> =
        files.iter().filter(|found| compacted.members.contains(&found.name)).map(|found| found.file.path.clone()).collect();
    let Some(folder) = members.first().and_then(|path| path.parent()) else { return Ok(()) };
    if files.iter().all(|found| found.name != compacted.object) {
        return Err(compaction::not_written(&compacted.object));
    }
    // Who wrote the file may have been killed before its name was on the disk.
    files::sync_folder(folder)?;
    read_parquet::forget(&members);
    files::remove_all(folder, &members)
}

/// The bytes of a file of ours.
fn whole(file: &DataFile) -> Result<Bytes> {
    let bytes: Bytes = std::fs::read(&file.path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => compaction::outdated(&file.path.display().to_string()).because(error),
            _ => files::io_error(error, "read", &file.path),
        })?
        .into();
    let verdict = seal::check(&mut Cursor::new(&bytes)).map_err(|error| files::io_error(error, "read", &file.path))?;
    if verdict == Verdict::Changed {
        let message = "the file is not what we wrote: something has changed it since; restore it from a backup";
        return Err(Error::invalid(message).on("file", file.path.display()));
    }
    Ok(bytes)
}

/// The columns and rows of a file.
fn decoded(file: &DataFile, bytes: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let unreadable = |error: parquet::errors::ParquetError| Error::invalid("its rows cannot be read").because(error);
    read::guarded(file, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?;
        let schema = builder.schema().clone();
        let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(unreadable)?;
        Ok((schema, batches.collect::<Result<Vec<_>, _>>()?))
    })
}
