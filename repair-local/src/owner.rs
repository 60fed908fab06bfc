//! Whose an overlay is, in files: see [`repair_core::lake::overlay::owner`].

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use repair_core::lake::overlay;
use repair_core::lake::overlay::owner::{self, Kind, MAX_BYTES, Owner, RECORD};
use repair_core::model::Table;
use repair_core::{Error, ErrorKind, Result};

use crate::files;
use crate::place::{self, Place};
use crate::read::parquet;

/// Checks that the overlay at a table's place is its own, or nobody's yet.
///
/// # Errors
/// `conflict` if it is that of another table; `invalid` if its record cannot be read.
pub(crate) fn check(root: &Path, table: &Table, place: &Place) -> Result<()> {
    if let Some(outside) = &place.outdated
        && files::there(outside)?.is_some()
        && files::there(&outside.join(RECORD))?.is_none()
    {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "table `{}` is behind a symbolic link that leads out of the lake, where an earlier version kept its repairs, at {}; they are \
                 now kept within the lake, so move that folder, and those of exceptions and retractions beside it, to {}",
                table.name,
                outside.display(),
                place.repairs.display()
            ),
        ));
    }
    match recorded(place)? {
        Some(owner) if !is_same(root, place, &owner)? => Err(conflict(root, place, &owner)),
        _ => Ok(()),
    }
}

/// As [`check`], before something is added to the overlay: from now on, it is that table's.
pub(crate) fn claim(root: &Path, table: &Table, place: &Place) -> Result<()> {
    check(root, table, place)?;
    if recorded(place)?.is_some() {
        return Ok(());
    }
    // Of several who write the first record, one succeeds, and all others see it.
    files::write_new(&place.repairs.join(RECORD), &place.owner.to_record()?)?;
    check(root, table, place)
}

/// The record of the overlay at a place; `None` if it has none.
fn recorded(place: &Place) -> Result<Option<Owner>> {
    let path = place.repairs.join(RECORD);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(files::io_error(error, "read", &path)),
    };
    let mut record = Vec::new();
    // A longer one is cut, and then no record.
    file.take(MAX_BYTES as u64).read_to_end(&mut record).map_err(|error| files::io_error(error, "read", &path))?;
    Owner::of_record(&record, &path.display().to_string()).map(Some)
}

/// Whether a record means the table of a place.
fn is_same(root: &Path, place: &Place, owner: &Owner) -> Result<bool> {
    if owner.beside || place.owner.beside || owner.is_same(&place.owner) {
        return Ok(owner.is_same(&place.owner));
    }
    // The same files under another name. Globs are the same if their texts are, and their folders.
    let resolved = |location: &str| -> Result<_> {
        let (folder, only) = place::split_glob(root, location)?;
        let folder = place::normalized(&root.join(folder));
        Ok((files::real(&folder)?.unwrap_or(folder), only))
    };
    Ok(resolved(&owner.location)? == resolved(&place.owner.location)?)
}

fn conflict(root: &Path, place: &Place, owner: &Owner) -> Error {
    let at = |owner: &Owner| -> PathBuf {
        if owner.beside {
            let name = place.repairs.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            place.repairs.with_file_name(name.strip_suffix(&overlay::repairs("")).unwrap_or(&name))
        } else {
            place::normalized(&root.join(&owner.location))
        }
    };
    let (theirs, ours) = (at(owner), at(&place.owner));
    let record = place.repairs.join(RECORD);
    owner.conflict(&theirs.display().to_string(), (&place.owner, &ours.display().to_string()), &record.display().to_string())
}

/// How deep the first file of an overlay lies: in the folder of a partition.
const MAX_DEPTH: usize = 1;

/// Whether a folder is a table of an overlay: it is named like one, and there is a record, or its files have a column that only ours have, if
/// an earlier version wrote them.
///
/// # Errors
/// If that cannot be found out.
pub(crate) fn is_overlay(folder: &Path) -> Result<bool> {
    let Some((kind, beside)) = folder.file_name().and_then(|name| name.to_str()).and_then(owner::named) else { return Ok(false) };
    let record = folder.with_file_name(overlay::repairs(beside)).join(RECORD);
    Ok(files::there(&record)?.is_some_and(|kind| kind.is_file()) || has_mark(folder, kind, 0)?)
}

/// Whether the first Parquet file has the column. One that is damaged is left to those who read the table.
fn has_mark(folder: &Path, kind: Kind, depth: usize) -> Result<bool> {
    let entries: Vec<fs::DirEntry> =
        fs::read_dir(folder).and_then(Iterator::collect).map_err(|error| files::io_error(error, "list", folder))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if depth < MAX_DEPTH && files::is_folder(&path)? {
            if has_mark(&path, kind, depth + 1)? {
                return Ok(true);
            }
        } else if name.ends_with(".parquet") {
            return parquet::has_column(&path, kind.mark());
        }
    }
    Ok(false)
}
