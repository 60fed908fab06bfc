//! Our own objects in a lake, wherever they lie, and whether they are what we wrote.

use std::fs::{self, File};
use std::path::Path;

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use repair_core::lake::StateCheck;
use repair_core::lake::overlay::owner::{Owner, RECORD};
use repair_core::lake::seal::Verdict;
use repair_core::{Error, Result};

use crate::files::io_error;
use crate::read::parquet;
use crate::threads::map_parallel;
use crate::{owner, place};

/// Reads all artifacts, staged units and overlays below a root.
pub(crate) fn check(root: &Path) -> Result<StateCheck> {
    let mut ours = Vec::new();
    let mut folders = vec![(root.to_owned(), false)];
    while let Some((folder, is_ours)) = folders.pop() {
        let entries: Vec<fs::DirEntry> =
            fs::read_dir(&folder).and_then(Iterator::collect).map_err(|error| io_error(error, "list", &folder))?;
        for entry in entries {
            let path = entry.path();
            // Whoever follows links may leave the lake, or go in circles.
            match entry.file_type().map_err(|error| io_error(error, "look at", &path))? {
                kind if kind.is_dir() => {
                    let is_ours = is_ours || path == place::own_folder(root) || owner::is_overlay(&path)?;
                    folders.push((path, is_ours));
                }
                kind if is_ours && kind.is_file() && is_object(&path) => ours.push(path),
                _ => {}
            }
        }
    }
    ours.sort();
    let mut check = StateCheck::default();
    let verdicts = map_parallel(&ours, |path| Ok(verdict(path)))?;
    for (path, (bytes, verdict)) in ours.iter().zip(verdicts) {
        check.add(path.strip_prefix(root).unwrap_or(path).display().to_string(), bytes, verdict);
    }
    Ok(check)
}

fn is_object(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet") || path.file_name().is_some_and(|name| name == RECORD)
}

/// The size of an object, and whether it is what we wrote. One without a seal must be readable.
fn verdict(path: &Path) -> (u64, Result<Verdict>) {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return (0, Err(io_error(error, "read", path))),
    };
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if path.file_name().is_some_and(|name| name == RECORD) {
        let record = fs::read(path).map_err(|error| io_error(error, "read", path));
        let owner = record.and_then(|record| Owner::of_record(&record, &path.display().to_string()));
        return (bytes, owner.map(|_| Verdict::Intact));
    }
    let verdict = parquet::verdict(&file, path).and_then(|verdict| match verdict {
        Verdict::Unsealed => ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map(|_| Verdict::Unsealed)
            .map_err(|error| Error::invalid("it is not a readable Parquet file").because(error)),
        verdict => Ok(verdict),
    });
    (bytes, verdict)
}
