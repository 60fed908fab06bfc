//! Staged units: one object each, in the run's own area, with all that publishing needs, so that no unit is paid for twice.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use jiff::Timestamp;
use repair_core::lake::overlay::staging;
use repair_core::lake::{StageRequest, StageScope, Staged, name, shape};
use repair_core::model::Usage;
use repair_core::model::{Absence, Fingerprints, Fix, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile};
use crate::lake::Inner;
use crate::place::{self, Place};
use crate::read::{self, parquet};
use crate::threads;
use crate::write;

/// Rows in a batch when a staged object is read.
const BATCH_ROWS: usize = 65_536;

/// A scope with owned strings, so that it can go to another thread.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) run: String,
    pub(crate) step: String,
    pub(crate) visit: u32,
    pub(crate) table: Table,
    pub(crate) folder: PathBuf,
}

impl Scope {
    pub(crate) fn of(root: &Path, scope: &repair_core::lake::StageScope<'_>) -> Self {
        Self {
            run: scope.run.to_owned(),
            step: scope.step.to_owned(),
            visit: scope.visit,
            table: scope.table.clone(),
            folder: place::staged_folder(root, scope),
        }
    }

    fn borrowed(&self) -> StageScope<'_> {
        StageScope { run: &self.run, step: &self.step, visit: self.visit, table: &self.table }
    }

    pub(crate) fn object(&self, unit: &str) -> PathBuf {
        self.folder.join(format!("{}.parquet", name::part(unit)))
    }
}

/// A request with owned parts.
pub(crate) struct Request {
    unit: String,
    strategy: String,
    repaired_at: Timestamp,
    fix: Fix,
    replaces: Option<Fingerprints>,
    patches: Vec<RecordBatch>,
    removed: Vec<Absence>,
}

impl Request {
    pub(crate) fn of(request: &StageRequest<'_>) -> Self {
        Self {
            unit: request.unit.to_owned(),
            strategy: request.strategy.to_owned(),
            repaired_at: request.repaired_at,
            // Columns are shared, not copied.
            fix: request.fix.clone(),
            replaces: request.replaces.cloned(),
            patches: request.patches.to_vec(),
            removed: request.removed.to_vec(),
        }
    }

    fn borrowed(&self) -> StageRequest<'_> {
        let request = StageRequest::new(&self.unit, &self.strategy, self.repaired_at, &self.fix);
        request.replacing(self.replaces.as_ref()).patching(&self.patches).removing(&self.removed)
    }
}

/// The table's columns, and whether they may be out of date. If the table has no file yet, the columns of the rows.
fn table_schema(lake: &Inner, table: &Table, fix: &Fix) -> Result<(SchemaRef, bool)> {
    let (schema, is_old) = lake.recent_schema(table)?;
    let schema = schema.map_or_else(|| staging::schema_of_fix(table, fix), Ok)?;
    shape::refuse_reserved(table, &schema)?;
    Ok((schema, is_old))
}

/// A repaired unit, ready to be kept.
pub(crate) struct Prepared {
    summary: Staged,
    file: write::ForOnce,
}

impl Prepared {
    /// Keeps it.
    pub(crate) fn keep(self) -> Result<Staged> {
        let mut usage = self.summary.usage;
        usage += self.file.write()?;
        Ok(Staged { usage, ..self.summary })
    }
}

/// Prepares a repaired unit to be kept.
pub(crate) fn prepare(lake: &Inner, scope: &Scope, request: &Request) -> Result<Prepared> {
    // What could not be published would be paid for in vain.
    Place::to_read(&lake.root, &scope.table)?;
    let (own, is_old) = table_schema(lake, &scope.table, &request.fix)?;
    let (schema, batches) = match staging::rows(&scope.borrowed(), &request.borrowed(), &own) {
        // The table may have gained a column meanwhile, or one of a wider type.
        Err(_) if is_old => {
            lake.forget_schema(&scope.table);
            let (own, _) = table_schema(lake, &scope.table, &request.fix)?;
            staging::rows(&scope.borrowed(), &request.borrowed(), &own)?
        }
        rows => rows?,
    };
    // The usage of staging itself is known only once the file is written; it is added when the summary is read.
    let summary = staging::summary(&request.borrowed());
    let json = serde_json::to_string(&summary).map_err(|error| Error::internal("a summary is not JSON").because(error))?;
    let footer = vec![(staging::SUMMARY.to_owned(), json)];
    Ok(Prepared { file: write::ForOnce::new(scope.object(&request.unit), schema, batches, footer)?, summary })
}

/// The files of the staged objects of a scope.
fn staged_files(scope: &Scope) -> Result<Vec<DataFile>> {
    Ok(files::list(&scope.folder, &files::Listed::OURS)?.unwrap_or_default())
}

/// The staged units. One that is damaged is none; it is written anew when its unit is repaired again.
pub(crate) fn staged(scope: &Scope) -> Result<Vec<Staged>> {
    let found = threads::map_parallel(&staged_files(scope)?, |file| match summary(file) {
        Ok(staged) => Ok(Some(staged)),
        Err(error) if error.kind() == ErrorKind::Invalid => {
            tracing::warn!(run = scope.run, step = scope.step, error = error.full(), "a staged unit is damaged, so it is repaired again");
            Ok(None)
        }
        Err(error) => Err(error),
    })?;
    Ok(found.into_iter().flatten().collect())
}

fn summary(file: &DataFile) -> Result<Staged> {
    read::guarded(file, || {
        let opened = parquet::open(file)?;
        let footer = opened.footer().file_metadata();
        let pairs = footer.key_value_metadata();
        let json = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == staging::SUMMARY)?.value.as_deref()).unwrap_or_default();
        let mut staged: Staged = serde_json::from_str(json)
            .map_err(|error| Error::invalid("a staged object does not name its unit; remove it").because(error))?;
        staged.usage += Usage {
            rows_written: u64::try_from(footer.num_rows()).unwrap_or(0),
            bytes_written: file.bytes,
            objects_written: 1,
            ..Usage::default()
        };
        Ok(staged)
    })
}

/// The rows of a staged unit, and its summary.
///
/// # Errors
/// `not-found` if it is not staged.
pub(crate) fn load(scope: &Scope, unit: &str) -> Result<(Staged, Vec<RecordBatch>)> {
    let path = scope.object(unit);
    let found = files::list(&path, &files::Listed::OURS)?.and_then(|mut files| files.pop());
    let file = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("unit {unit} is not staged: there is no {}; it has to be repaired again", path.display()))
            .on("unit", unit)
    })?;
    let lost = |what: &str, error: Error| {
        let message = format!("the staged unit {unit} {what}, in {}; it has to be repaired again", path.display());
        Error::new(ErrorKind::NotFound, message).on("unit", unit).because(error)
    };
    // An error of the disk may pass; whatever else is wrong with the file does not.
    let damaged = |error: Error| if error.kind() == ErrorKind::Invalid { lost("is damaged", error) } else { error };
    let staged = summary(&file).map_err(damaged)?;
    if staged.unit != unit {
        return Err(lost("is another one", Error::invalid(format!("the file holds unit {}", staged.unit))));
    }
    let mut batches = Vec::new();
    read::guarded(&file, || {
        let opened = parquet::open(&file)?;
        let schema = opened.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let groups: Vec<usize> = (0..opened.footer().num_row_groups()).collect();
        opened.read(&names, &groups, BATCH_ROWS, &mut |batch| {
            batches.push(batch);
            Ok(std::ops::ControlFlow::Continue(()))
        })
    })
    .map_err(damaged)?;
    Ok((staged, batches))
}

/// Removes the staged objects of units. The folder stays, since others may be staging into it.
pub(crate) fn discard(scope: &Scope, units: &[String]) -> Result<()> {
    let paths: Vec<PathBuf> = units.iter().map(|unit| scope.object(unit)).collect();
    parquet::forget(&paths);
    files::remove_all(&scope.folder, &paths)
}
