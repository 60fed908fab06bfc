//! Staged units: one object each in the run's own area, with everything that publishing needs, so that a unit is never paid for twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use jiff::Timestamp;
use repair_core::cost::Usage;
use repair_core::lake::overlay::{self, Op};
use repair_core::lake::{StageRequest, Staged};
use repair_core::model::{Absence, Fix, Key, SlotGrid, Table};
use repair_core::{Error, ErrorKind, Result};

use crate::files::{self, DataFile};
use crate::lake::Inner;
use crate::place;
use crate::read::{self, parquet};
use crate::{shape, write};

/// Where a staged object's footer holds its [`Staged`], as JSON.
const SUMMARY: &str = "repair.staged";

/// Absent slots in one batch of rows.
const ABSENT_ROWS: usize = 65_536;

/// A scope whose strings are owned, so that it can go to another thread.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) run: String,
    pub(crate) step: String,
    pub(crate) table: Table,
    pub(crate) folder: PathBuf,
}

impl Scope {
    pub(crate) fn of(root: &Path, scope: &repair_core::lake::StageScope<'_>) -> Self {
        Self {
            run: scope.run.to_owned(),
            step: scope.step.to_owned(),
            table: scope.table.clone(),
            folder: place::staged_folder(root, scope),
        }
    }

    pub(crate) fn object(&self, unit: &str) -> PathBuf {
        self.folder.join(format!("{}.parquet", files::name_part(unit)))
    }
}

/// A request whose parts are owned.
pub(crate) struct Request {
    unit: String,
    strategy: String,
    repaired_at: Timestamp,
    fix: Fix,
}

impl Request {
    pub(crate) fn of(request: &StageRequest<'_>) -> Self {
        Self {
            unit: request.unit.to_owned(),
            strategy: request.strategy.to_owned(),
            repaired_at: request.repaired_at,
            // Columns are shared, not copied.
            fix: request.fix.clone(),
        }
    }
}

/// The columns of a staged object: those of a table's repairs, and the evidence of absences.
fn staged_schema(table: &Schema) -> SchemaRef {
    let repairs = overlay::repairs_schema(table);
    let evidence = [
        Field::new(overlay::columns::ANSWER, DataType::Utf8, true),
        Field::new(overlay::columns::RECHECK_AFTER, overlay::instant_type(), true),
    ];
    Arc::new(Schema::new(repairs.fields().iter().cloned().chain(evidence.map(Arc::new)).collect::<Vec<_>>()))
}

/// The table's columns, and whether they may be older than the table; those of the rows, if the table has no file yet.
fn table_schema(lake: &Inner, table: &Table, fix: &Fix) -> Result<(SchemaRef, bool)> {
    let (schema, is_old) = lake.recent_schema(table)?;
    let schema = match schema {
        Some(schema) => schema,
        None => {
            let mut fields = Vec::new();
            for batch in &fix.rows {
                shape::merge(table.format, &mut fields, batch.schema_ref())?;
            }
            if fields.is_empty() {
                fields.push(shape::time_field(table));
            }
            shape::of_table(table, fields)?
        }
    };
    shape::refuse_reserved(table, &schema)?;
    Ok((schema, is_old))
}

/// Keeps what came of a unit.
pub(crate) fn stage(lake: &Inner, scope: &Scope, request: &Request) -> Result<Staged> {
    let (own, is_old) = table_schema(lake, &scope.table, &request.fix)?;
    let (schema, batches) = match rows_to_stage(scope, request, &own) {
        // The table may have a column by now, or one of a wider type.
        Err(_) if is_old => {
            lake.forget_schema(&scope.table);
            let (own, _) = table_schema(lake, &scope.table, &request.fix)?;
            rows_to_stage(scope, request, &own)?
        }
        rows => rows?,
    };
    let rows = request.fix.rows.iter().map(|batch| batch.num_rows() as u64).sum();
    let absent = request.fix.absent.iter().map(|absence| absence.slots.len()).sum();
    // What staging itself takes is only known once the file is written; it is added when the summary is read.
    let conflicts = request.fix.conflicts.clone();
    let summary = Staged { unit: request.unit.clone(), rows, absent, conflicts, usage: request.fix.usage };
    let json = serde_json::to_string(&summary).map_err(|error| Error::internal("a summary is not JSON").because(error))?;
    let written = write::parquet(&scope.object(&request.unit), &schema, &batches, vec![(SUMMARY.to_owned(), json)])?;
    let mut usage = summary.usage;
    usage += written;
    Ok(Staged { usage, ..summary })
}

/// The rows of a staged object, repaired and absent, and their columns.
fn rows_to_stage(scope: &Scope, request: &Request, own: &SchemaRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = staged_schema(own);
    let mut batches = Vec::with_capacity(request.fix.rows.len() + 1);
    for rows in &request.fix.rows {
        batches.push(repaired(scope, request, own, &schema, rows).map_err(|error| error.on("unit", &request.unit))?);
    }
    if !request.fix.absent.is_empty() {
        let grid = scope.table.grid()?;
        for absence in &request.fix.absent {
            absences(scope, request, &grid, &schema, absence, &mut batches)?;
        }
    }
    Ok((schema, batches))
}

fn constant(value: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

fn constant_instant(value: Timestamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(value.as_microsecond(), rows).with_timezone("UTC"))
}

/// The provenance, in the order of the schema.
fn provenance(scope: &Scope, request: &Request, op: Op, source: &str, at: Timestamp, rows: usize) -> [ArrayRef; 7] {
    [
        constant(op.as_str(), rows),
        constant(&scope.run, rows),
        constant(&scope.step, rows),
        constant(&request.unit, rows),
        constant(&request.strategy, rows),
        constant(source, rows),
        constant_instant(at, rows),
    ]
}

/// Repaired rows in the table's columns; columns that the fix lacks are null.
fn repaired(scope: &Scope, request: &Request, own: &SchemaRef, schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let table = &scope.table;
    let count = rows.num_rows();
    if let Some(unknown) = rows.schema_ref().fields().iter().find(|field| own.field_with_name(field.name()).is_err()) {
        return Err(Error::invalid(format!(
            "repaired rows have a column `{}` that table `{}` has not; {}",
            unknown.name(),
            table.name,
            shape::names(own)
        )));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in own.fields() {
        let name = field.name();
        columns.push(match rows.column_by_name(name) {
            Some(column) if *name == table.time => Arc::new(shape::instants(table, column)?),
            Some(column) if table.key.contains(name) => Arc::new(shape::key_text(table, name, column)?),
            Some(column) => shape::cast_exact(column, field.data_type()).map_err(|error| {
                let (from, to) = (column.data_type(), field.data_type());
                Error::invalid(format!("repaired values of column `{name}` do not fit table `{}`: {from} to {to}", table.name))
                    .because(error)
            })?,
            None if *name == table.time || table.key.contains(name) => {
                return Err(Error::invalid(format!(
                    "repaired rows have no column `{name}`, which says their slot; {}",
                    shape::names(&rows.schema())
                )));
            }
            None => new_null_array(field.data_type(), count),
        });
    }
    columns.extend(provenance(scope, request, Op::Insert, &request.fix.source, request.repaired_at, count));
    columns.push(new_null_array(&DataType::Utf8, count));
    columns.push(new_null_array(&overlay::instant_type(), count));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// An absence as rows, one a slot.
fn absences(
    scope: &Scope,
    request: &Request,
    grid: &SlotGrid,
    schema: &SchemaRef,
    absence: &Absence,
    batches: &mut Vec<RecordBatch>,
) -> Result<()> {
    let table = &scope.table;
    let mut first = absence.slots.first;
    while first < absence.slots.end {
        let end = absence.slots.end.min(first.saturating_add(i64::try_from(ABSENT_ROWS).unwrap_or(i64::MAX)));
        let mut times = Int64Builder::new();
        (first..end).for_each(|slot| times.append_value(grid.time_of(slot).as_microsecond()));
        let times = times.finish();
        let count = times.len();
        let own = schema.fields().len() - 9;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in &schema.fields()[..own] {
            let name = field.name();
            columns.push(match key_value(table, &absence.key, name)? {
                Some(value) => constant(value, count),
                None if *name == table.time => Arc::new(TimestampMicrosecondArray::new(times.values().clone(), None).with_timezone("UTC")),
                None => new_null_array(field.data_type(), count),
            });
        }
        columns.extend(provenance(scope, request, Op::Absent, &absence.source, absence.asked_at, count));
        let mut answer = StringBuilder::new();
        (0..count).for_each(|_| answer.append_value(&absence.answer));
        columns.push(Arc::new(answer.finish()));
        columns.push(constant_instant(absence.recheck_after, count));
        batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        first = end;
    }
    Ok(())
}

/// The value of a key in a column, if the column is one of the key's.
fn key_value<'a>(table: &Table, key: &'a Key, column: &str) -> Result<Option<&'a str>> {
    shape::check_keys(table, std::slice::from_ref(key))?;
    Ok(table.key.iter().position(|name| name == column).and_then(|at| key.values().nth(at)))
}

/// The files of the staged objects of a scope.
fn staged_files(scope: &Scope) -> Result<Vec<DataFile>> {
    Ok(files::list(&scope.folder, &["parquet"], &[])?.unwrap_or_default())
}

/// The units that are staged; reads footers only.
pub(crate) fn staged(scope: &Scope) -> Result<Vec<Staged>> {
    files::map_parallel(&staged_files(scope)?, summary)
}

fn summary(file: &DataFile) -> Result<Staged> {
    read::guarded(file, || {
        let opened = parquet::open(file)?;
        let footer = opened.footer().file_metadata();
        let pairs = footer.key_value_metadata();
        let json = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == SUMMARY)?.value.as_deref()).unwrap_or_default();
        let mut staged: Staged = serde_json::from_str(json)
            .map_err(|error| Error::invalid("a staged object does not say which unit it is; remove it").because(error))?;
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
    let found = files::list(&path, &[], &[])?.and_then(|mut files| files.pop());
    let file = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("unit {unit} is not staged: there is no {}; repair it again", path.display()))
            .on("unit", unit)
    })?;
    let staged = summary(&file)?;
    let mut batches = Vec::new();
    read::guarded(&file, || {
        let opened = parquet::open(&file)?;
        let schema = opened.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let groups = (0..opened.footer().num_row_groups()).collect();
        opened.read(&names, groups, ABSENT_ROWS, &mut |batch| {
            batches.push(batch);
            Ok(std::ops::ControlFlow::Continue(()))
        })
    })?;
    Ok((staged, batches))
}

/// Removes the staged objects of units. The folder stays: others may be staging into it.
pub(crate) fn discard(scope: &Scope, units: &[String]) -> Result<()> {
    let paths: Vec<PathBuf> = units.iter().map(|unit| scope.object(unit)).collect();
    files::remove_all(&scope.folder, &paths)
}
