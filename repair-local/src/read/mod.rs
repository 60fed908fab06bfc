//! Reading files: whatever the format, rows come out in the shape of the lake's batches. Every error names its file.

mod bad;
mod csv;
mod flat;
mod folds;
mod jsonl;
mod marks;
mod open;
mod pages;
pub(crate) mod parquet;
mod pattern;
mod records;
mod sample;
mod text;
mod texts;
mod time;
mod together;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, new_null_array,
};
use ::arrow::compute::{cast, filter_record_batch, is_null, nullif};
use ::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::shape::{self, LeftOut};
use repair_core::model::{DateParts, Format, OnBadRow, Repeated, Table, TimeForm, Usage};
use repair_core::{Error, Result};

pub(crate) use self::bad::Tally;
use self::bad::{At, Judge, Rows};
use self::folds::Folds;
pub(crate) use self::sample::{head, sample};
use self::time::Times;
pub use self::time::{Stamp, stamp};
pub(crate) use self::together::{Joined, Next, Together};
use crate::files::DataFile;
use crate::held::{Held, Small};

/// Rows in a batch: enough to make the cost of each batch small, few enough that a batch of a wide table is small.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Receives batches; breaks when no more are wanted.
pub(crate) type Sink<'a> = dyn FnMut(RecordBatch) -> Result<ControlFlow<()>> + 'a;

/// Receives batches as a file has them, with the places of their rows.
type RowsOf<'a> = dyn FnMut(RecordBatch, &dyn Rows, &mut Judge<'_>) -> Result<ControlFlow<()>> + 'a;

/// The columns of a file as it has them; for a text file, as inferred from its first rows.
pub(crate) fn columns(table: &Table, file: &DataFile) -> Result<SchemaRef> {
    guarded(file, || match table.format {
        Format::Parquet => Ok(parquet::open(file)?.schema()),
        Format::Csv => csv::columns(table, file),
        Format::Jsonl => jsonl::columns(table, file),
        other => Err(unreadable(other)),
    })
}

/// The columns of each of some files, as [`columns`] finds them, and whether it was seen that the file that was read is the one that was listed.
pub(crate) fn columns_of_each(table: &Table, files: &[&DataFile], small: &Small) -> Result<Vec<(SchemaRef, bool)>> {
    let held = if table.format == Format::Parquet { vec![None; files.len()] } else { small.hold(files) };
    let texts: Vec<(&DataFile, Option<Held>)> = files.iter().copied().zip(held).collect();
    let found = if table.format == Format::Csv {
        catch_unwind(AssertUnwindSafe(|| csv::columns_of_texts(table, &texts))).unwrap_or_else(|_| vec![None; files.len()])
    } else {
        vec![None; files.len()]
    };
    let columns_of = |((file, held), found): (&(&DataFile, Option<Held>), Option<SchemaRef>)| match (found, held) {
        (Some(columns), _) => Ok((columns, true)),
        (None, Some(held)) => Ok((columns(table, &file.with(held))?, true)),
        (None, None) => Ok((columns(table, file)?, false)),
    };
    texts.iter().zip(found).map(columns_of).collect()
}

/// Whether bad rows are left out. A row is then judged by all columns of its table, whichever are read, so that all steps leave out the
/// same rows.
pub(crate) fn quarantines(table: &Table) -> bool {
    matches!(table.on_bad_row, OnBadRow::Quarantine(_))
}

/// Reads the columns of `shape` from a file of a table. Rows outside the bounds may come too: only those pieces of the file are left out
/// that are known to hold none.
pub(crate) fn rows(
    table: &Table,
    file: &DataFile,
    shape: &SchemaRef,
    bounds: &TimeBounds,
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> Result<Usage> {
    guarded(file, || {
        let in_order = table.reading.repeated == Repeated::FileOrder;
        let folds = if in_order { in_file_order(table, file, shape)? } else { Folds::default() };
        let mut judge = Judge::new(table, file);
        let mut shaper = Shaper { table, file, shape, times: Times::new(table, file, folds), row: 0 };
        let mut into_shape = |batch: RecordBatch, rows: &dyn Rows, judge: &mut Judge<'_>| sink(shaper.shape(&batch, rows, judge)?);
        let mut usage = raw(table, file, shape, bounds, &mut judge, &mut into_shape)?;
        usage.rows_read = judge.rows_read;
        tally.merge(judge.finish());
        Ok(usage)
    })
}

/// A first pass over a file, which finds the rows that lie in doubled hours.
fn in_file_order(table: &Table, file: &DataFile, shape: &SchemaRef) -> Result<Folds> {
    let own = |field: &&Arc<Field>| *field.name() == table.time || table.key.contains(field.name()) || quarantines(table);
    let shape = Arc::new(Schema::new(shape.fields().iter().filter(own).cloned().collect::<Vec<_>>()));
    let mut judge = Judge::silent(table, file);
    let mut shaper = Shaper { table, file, shape: &shape, times: Times::new(table, file, Folds::collecting()), row: 0 };
    let mut look = |batch: RecordBatch, rows: &dyn Rows, judge: &mut Judge<'_>| {
        shaper.shape(&batch, rows, judge)?;
        Ok(ControlFlow::Continue(()))
    };
    raw(table, file, &shape, &TimeBounds::ALL, &mut judge, &mut look)?;
    Ok(shaper.times.into_folds().known())
}

/// The rows of a Parquet file, which has no lines.
struct Numbered<'a> {
    /// How many rows come before the batch.
    before: u64,
    /// The row groups that are read: how many rows come before each, among those that are read, and how many of the file are left out by then.
    groups: &'a [(u64, u64)],
}

impl Rows for Numbered<'_> {
    fn at(&self, row: usize) -> At {
        let row = self.before + row as u64;
        let group = self.groups.partition_point(|(first, _)| *first <= row).checked_sub(1);
        let left_out = group.and_then(|group| self.groups.get(group)).map_or(0, |(_, left_out)| *left_out);
        At::Row(row + left_out + 1)
    }
}

/// Reads rows as the file has them.
fn raw(
    table: &Table,
    file: &DataFile,
    shape: &SchemaRef,
    bounds: &TimeBounds,
    judge: &mut Judge<'_>,
    sink: &mut RowsOf<'_>,
) -> Result<Usage> {
    let roots = roots(table, shape);
    match table.format {
        Format::Parquet => {
            let opened = parquet::open(file)?;
            let names: Vec<&str> = roots.iter().map(String::as_str).collect();
            let groups = opened.groups(table, bounds)?;
            let (mut before, mut read, mut left_out, mut first) = (Vec::with_capacity(groups.len()), 0, 0, 0);
            for group in 0..opened.footer().num_row_groups() {
                if groups.binary_search(&group).is_ok() {
                    before.push((read, left_out));
                    read += opened.rows_of(group);
                } else {
                    left_out += opened.rows_of(group);
                }
            }
            opened.read(&names, &groups, BATCH_ROWS, &mut |batch| {
                let numbered = Numbered { before: first, groups: &before };
                first += batch.num_rows() as u64;
                judge.rows_read += batch.num_rows() as u64;
                sink(batch, &numbered, judge)
            })
        }
        Format::Csv => csv::rows(table, file, &roots, judge, sink),
        Format::Jsonl => jsonl::rows(table, file, &json_types(table, file, shape, &roots)?, judge, sink),
        other => Err(unreadable(other)),
    }
}

fn unreadable(format: Format) -> Error {
    Error::invalid(format!("files of the format {} cannot be read here; write `format: parquet`, `csv` or `jsonl`", format.as_str()))
}

/// Whether a text may be a time, in any form: it has a digit.
fn may_be_a_time(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
}

/// Names the file in every error, and turns a panic into an error: a damaged file can make a decoder panic, and one bad file must not take
/// the program down.
pub(crate) fn guarded<T>(file: &DataFile, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Error::invalid("the file is damaged; restore or remove it")));
    result.map_err(|error| error.on("file", file.path.display()))
}

/// The column of a file in which a column of the table is, and the names below it.
fn place_of<'a>(table: &'a Table, column: &'a str) -> Vec<&'a str> {
    match table.columns.get(column).and_then(|rule| rule.path.as_deref()) {
        Some(path) => path.split('.').collect(),
        None => vec![column],
    }
}

/// The columns of a file that hold the columns of a shape.
fn roots(table: &Table, shape: &Schema) -> Vec<String> {
    let mut roots: Vec<String> = Vec::with_capacity(shape.fields().len());
    for field in shape.fields() {
        let own = [field.name().as_str()];
        let columns = if *field.name() == table.time { table.time_columns() } else { own.to_vec() };
        for column in columns {
            if let Some(root) = place_of(table, column).first()
                && !roots.iter().any(|known| known == root)
            {
                roots.push((*root).to_owned());
            }
        }
    }
    roots
}

/// The type of a column of the table, given those of a file; `None` if the file does not have it.
fn type_in(table: &Table, fields: &Fields, column: &str) -> Option<DataType> {
    let mut fields = fields;
    let mut names = place_of(table, column).into_iter().peekable();
    while let Some(name) = names.next() {
        let (_, field) = fields.find(name)?;
        match (names.peek(), field.data_type()) {
            (None, kind) => return Some(kind.clone()),
            (Some(_), DataType::Struct(inner)) => fields = inner,
            _ => return None,
        }
    }
    None
}

/// The type of a column of a file without what `path` makes columns of their own; `None` if nothing is left. A record would show what a field was before a repair of its column.
fn without_own_columns(table: &Table, own: &Field) -> Option<DataType> {
    let is_place = *own.name() == table.time || table.key.contains(own.name()) || table.time_columns().contains(&own.name().as_str());
    let of_path = |path: &'_ str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    let paths = table.columns.values().filter_map(|rule| rule.path.as_deref()).map(of_path);
    let within: Vec<Vec<String>> = paths.filter(|path| path.first() == Some(own.name())).map(|path| path[1..].to_vec()).collect();
    let within: Vec<&[String]> = within.iter().map(Vec::as_slice).collect();
    if is_place { Some(own.data_type().clone()) } else { without(own.data_type(), &within) }
}

fn without(kind: &DataType, paths: &[&[String]]) -> Option<DataType> {
    match kind {
        _ if paths.is_empty() => Some(kind.clone()),
        _ if paths.iter().any(|path| path.is_empty()) => None,
        DataType::Struct(fields) => {
            let rest = |field: &Arc<Field>| {
                let within = paths.iter().filter_map(|path| path.split_first());
                let within: Vec<&[String]> = within.filter(|(first, _)| *first == field.name()).map(|(_, rest)| rest).collect();
                Some(Arc::new(field.as_ref().clone().with_data_type(without(field.data_type(), &within)?)))
            };
            let fields: Fields = fields.iter().filter_map(rest).collect();
            (!fields.is_empty()).then_some(DataType::Struct(fields))
        }
        _ => Some(kind.clone()),
    }
}

/// The columns of a file as those of its table, whatever they are in the file: key and time in shape, declared types, and columns from
/// within nested ones.
pub(crate) fn in_shape(table: &Table, columns: &Schema) -> Result<Schema> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(columns.fields().len());
    let field = |name: &str, kind: &DataType| {
        if *name == table.time {
            return Arc::new(shape::time_field(table));
        }
        if table.key.iter().any(|key| key == name) {
            return Arc::new(shape::key_field(name));
        }
        let kind = table.type_of(name).map_or_else(|| kind.clone(), text::data_type);
        Arc::new(Field::new(name, kind, true))
    };
    for own in columns.fields() {
        // A column with a path of its own hides one of the same name.
        if table.columns.get(own.name()).is_none_or(|rule| rule.path.is_none())
            && let Some(kind) = without_own_columns(table, own)
        {
            fields.push(field(own.name(), &kind));
        }
    }
    for (name, _) in table.columns.iter().filter(|(_, rule)| rule.path.is_some()) {
        if let Some(kind) = type_in(table, columns.fields(), name) {
            fields.push(field(name, &kind));
        }
    }
    if !fields.iter().any(|field| *field.name() == table.time) {
        fields.push(Arc::new(shape::time_field(table)));
    }
    let fields = fields.iter().map(|field| field.as_ref().clone()).collect();
    // What lines of the file disagree about, as columns of the table. A type that is declared decides between numbers and words.
    let is_hidden = |column: &str| table.columns.get(column).is_some_and(|rule| rule.path.is_some());
    let mut left_out = shape::left_out(columns);
    let within = |left_out: &LeftOut| {
        let below = format!("{}.", left_out.column);
        let is_within = |column: &&String| {
            let path = table.columns.get(*column).and_then(|rule| rule.path.as_deref());
            path.is_some_and(|path| path == left_out.column || path.starts_with(&below))
        };
        table.columns.keys().filter(is_within).map(|column| LeftOut { column: column.clone(), ..left_out.clone() }).collect::<Vec<_>>()
    };
    let of_paths: Vec<LeftOut> = left_out.iter().flat_map(within).collect();
    left_out.retain(|left_out| !is_hidden(&left_out.column));
    left_out.extend(of_paths);
    let mut mixed = shape::mixed(columns);
    mixed.retain(|mixed| !is_hidden(&mixed.column) && table.type_of(&mixed.column).is_none());
    let shaped = shape::of_file(fields, &left_out, &mixed)?;
    Ok(if shape::are_of_first_rows(columns) { shape::of_first_rows(shaped) } else { shaped })
}

/// The types in which JSON lines are decoded. Times, keys, whole numbers and what is declared come as text and are parsed by us: Arrow
/// would silently turn 1.5 into 1.
fn json_types(table: &Table, file: &DataFile, shape: &Schema, roots: &[String]) -> Result<Schema> {
    let times: Vec<&str> = table.time_columns();
    let is_text = |name: &str| {
        times.contains(&name)
            || table.key.iter().any(|key| key == name)
            || table.columns.contains_key(name)
            || shape.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Int64 || shape::is_text(field.data_type()))
            || table.nulls_of(name).next().is_some()
    };
    let nested: Vec<&str> =
        table.columns.values().filter_map(|rule| rule.path.as_deref()).filter_map(|path| path.split('.').next()).collect();
    let inferred = if roots.iter().any(|root| nested.contains(&root.as_str())) { Some(jsonl::columns(table, file)?) } else { None };
    let mut fields = Vec::with_capacity(roots.len());
    for root in roots {
        // A key that the path holds must not come as null.
        if file.path_value(root).is_some() && inferred.as_ref().is_none_or(|columns| columns.field_with_name(root).is_err()) {
            let columns = jsonl::columns(table, file)?;
            if columns.field_with_name(root).is_err() {
                continue;
            }
        }
        let whole = inferred.as_ref().filter(|_| nested.contains(&root.as_str())).and_then(|columns| columns.field_with_name(root).ok());
        let kind = match (whole, shape.field_with_name(root)) {
            (Some(field), _) => field.data_type().clone(),
            (None, _) if is_text(root) => DataType::Utf8,
            (None, Ok(field)) => field.data_type().clone(),
            (None, Err(_)) => DataType::Utf8,
        };
        fields.push(Field::new(root, kind, true));
    }
    Ok(Schema::new(fields))
}

/// Brings the batches of one file into shape.
struct Shaper<'a> {
    table: &'a Table,
    file: &'a DataFile,
    shape: &'a SchemaRef,
    times: Times<'a>,
    /// The rows before the batch.
    row: u64,
}

impl Shaper<'_> {
    fn shape(&mut self, batch: &RecordBatch, at: &dyn Rows, judge: &mut Judge<'_>) -> Result<RecordBatch> {
        let (table, file) = (self.table, self.file);
        let rows = batch.num_rows();
        let mut good: Option<Vec<bool>> = None;
        // A row is rejected once, for the first thing that is wrong with it.
        let mut reject = |row: usize, column: &str, why: String| -> Result<()> {
            let good = good.get_or_insert_with(|| vec![true; rows]);
            if std::mem::replace(&mut good[row], false) {
                judge.reject(at.at(row), Some(column), || why)?;
            }
            Ok(())
        };
        let mut columns: Vec<Option<ArrayRef>> = Vec::with_capacity(self.shape.fields().len());
        for field in self.shape.fields() {
            let name = field.name();
            let mut refuse = |row: usize, why: String| reject(row, name, why);
            columns.push(if *name == table.time {
                // Times come last: which of two instants a row means may depend on its series.
                None
            } else if table.key.contains(name) {
                Some(match (found(table, batch, name)?, file.path_value(name)) {
                    (Some(column), _) => Arc::new(key(table, name, &column, &mut refuse)?),
                    (None, Some(value)) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))),
                    (None, None) => return Err(missing("key", table, file, name, &batch.schema())),
                })
            } else {
                Some(match found(table, batch, name)? {
                    Some(column) => value(table, name, &column, field.data_type(), &mut refuse)?,
                    None => new_null_array(field.data_type(), rows),
                })
            });
        }
        let time_columns = self.time_columns(batch)?;
        let times: ArrayRef = match (&time_columns, self.times.in_path()) {
            (None, Some(us)) => {
                let all = arrow::array::TimestampMicrosecondArray::from_value(us, rows);
                Arc::new(all.with_timezone("UTC"))
            }
            (None, None) => return Err(missing("time", table, file, &table.time, &batch.schema())),
            (Some(times), _) => {
                let keys: Vec<&ArrayRef> = self
                    .shape
                    .fields()
                    .iter()
                    .zip(&columns)
                    .filter(|(field, _)| table.key.contains(field.name()))
                    .filter_map(|(_, column)| column.as_ref())
                    .collect();
                let key_of = |row: usize| keys.iter().map(|key| key.as_string::<i32>().value(row)).collect::<Vec<_>>().join("\u{0}");
                let mut refuse = |row: usize, why: String| reject(row, &table.time, why);
                Arc::new(self.times.instants(self.row, times, &key_of, &mut refuse)?)
            }
        };
        self.row += rows as u64;
        let columns: Vec<ArrayRef> = columns.into_iter().map(|column| column.unwrap_or_else(|| times.clone())).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let Some(good) = good else { return Ok(RecordBatch::try_new_with_options(self.shape.clone(), columns, &options)?) };
        // Values of rows that are left out may be null where none may be.
        let loose: Vec<Field> = self.shape.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let all = RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), columns, &options)?;
        let kept = filter_record_batch(&all, &BooleanArray::from(good))?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.shape.clone(), kept.columns().to_vec(), &options)?)
    }

    /// The columns that hold the time; `None` if the path holds it.
    fn time_columns(&self, batch: &RecordBatch) -> Result<Option<Vec<ArrayRef>>> {
        let names = self.table.time_columns();
        let mut columns = Vec::with_capacity(names.len());
        for name in &names {
            match found(self.table, batch, name)? {
                Some(column) => columns.push(column),
                None if self.times.in_path().is_some() => return Ok(None),
                None => return Err(missing("time", self.table, self.file, name, &batch.schema())),
            }
        }
        Ok((!columns.is_empty()).then_some(columns))
    }
}

/// A column of the table in a batch of a file; `None` if the file does not have it.
fn found(table: &Table, batch: &RecordBatch, column: &str) -> Result<Option<ArrayRef>> {
    at_path(batch, place_of(table, column))
}

/// The column of a batch to which the names lead, through records; `None` if there is none.
fn at_path<'a>(batch: &RecordBatch, names: impl IntoIterator<Item = &'a str>) -> Result<Option<ArrayRef>> {
    let mut names = names.into_iter();
    let Some(mut array) = names.next().and_then(|root| batch.column_by_name(root)).cloned() else { return Ok(None) };
    for name in names {
        let Some(outer) = array.as_struct_opt() else { return Ok(None) };
        let Some(inner) = outer.column_by_name(name) else { return Ok(None) };
        // What is within nothing is nothing.
        array = if outer.null_count() > 0 { nullif(inner, &is_null(outer)?)? } else { inner.clone() };
    }
    Ok(Some(array))
}

fn as_text(array: &ArrayRef) -> Result<StringArray> {
    let text = if *array.data_type() == DataType::Utf8 { array.clone() } else { cast(array, &DataType::Utf8)? };
    Ok(text.as_string::<i32>().clone())
}

/// The values of a key column. Whole numbers are keys, too, however they are stored.
fn key(table: &Table, name: &str, column: &ArrayRef, reject: text::Reject<'_>) -> Result<StringArray> {
    let text = shape::key_values(table, name, column)?;
    if text.null_count() == 0 && table.nulls_of(name).next().is_none() {
        return Ok(text);
    }
    for row in 0..text.len() {
        if text.is_null(row) || table.nulls_of(name).any(|word| word == text.value(row)) {
            reject(
                row,
                format!("there is no value in key column `{name}`, so the row belongs to no slot; remove the row, or add the value"),
            )?;
        }
    }
    Ok(text.iter().map(|text| Some(text.unwrap_or_default())).collect())
}

/// The values of a column in the table's type.
fn value(table: &Table, name: &str, column: &ArrayRef, target: &DataType, reject: text::Reject<'_>) -> Result<ArrayRef> {
    if let Some(nested) = nested(table, name, column, target, reject)? {
        return Ok(nested);
    }
    let is_text = shape::is_text(column.data_type());
    if is_text && (!shape::is_text(target) || table.nulls_of(name).next().is_some()) {
        let parsed = text::values(table, name, &as_text(column)?, target, reject)?;
        return shape::cast_strict(&parsed, target);
    }
    shape::cast_exact(column, target).map_err(|error| {
        let (from, table) = (column.data_type(), &table.name);
        let why = format!(
            "column `{name}` is {from} in this file and {target} across all files of table `{table}`, and not every value stays the same as that; \
             write the column with one type in all files"
        );
        Error::invalid(why).because(error)
    })
}

/// The values of a column of records or lists, each of their fields and items in the table's type; `None` if it is of neither.
fn nested(table: &Table, name: &str, column: &ArrayRef, target: &DataType, reject: text::Reject<'_>) -> Result<Option<ArrayRef>> {
    if column.data_type() == target {
        return Ok(None);
    }
    Ok(match target {
        DataType::Struct(fields) => {
            let Some(records) = column.as_struct_opt() else { return Ok(None) };
            let mut columns = Vec::with_capacity(fields.len());
            for field in fields {
                columns.push(match records.column_by_name(field.name()) {
                    Some(values) => value(table, &format!("{name}.{}", field.name()), values, field.data_type(), reject)?,
                    None => new_null_array(field.data_type(), records.len()),
                });
            }
            Some(Arc::new(StructArray::try_new(fields.clone(), columns, records.nulls().cloned())?))
        }
        DataType::List(item) => {
            let Some(lists) = column.as_list_opt::<i32>() else { return Ok(None) };
            let offsets = lists.offsets();
            let mut reject_item = |at: usize, why: String| {
                let row = offsets.partition_point(|end| usize::try_from(*end).is_ok_and(|end| end <= at));
                reject(row.saturating_sub(1), why)
            };
            let items = value(table, name, lists.values(), item.data_type(), &mut reject_item)?;
            Some(Arc::new(ListArray::try_new(item.clone(), offsets.clone(), items, lists.nulls().cloned())?))
        }
        _ => None,
    })
}

/// Checks that a file has the table's key and time columns, of usable types.
pub(crate) fn check(table: &Table, file: &DataFile, columns: &Schema) -> Result<()> {
    let check = || {
        // A column that is not there since its lines disagree is not missing.
        let left_out = shape::left_out(columns);
        for column in table.key.iter().map(String::as_str).chain(table.time_columns()).filter(|_| !left_out.is_empty()) {
            let place = place_of(table, column);
            let is_of = |left_out: &&LeftOut| (1..=place.len()).any(|length| left_out.is_named(&place[..length].join(".")));
            if let Some(left_out) = left_out.iter().find(is_of) {
                return Err(left_out.refusal());
            }
        }
        for key in &table.key {
            match type_in(table, columns.fields(), key) {
                Some(kind) if table.format == Format::Parquet => shape::check_key_type(table, key, &kind)?,
                Some(_) => {}
                None if file.path_value(key).is_some() => {}
                None => return Err(missing("key", table, file, key, columns)),
            }
        }
        for column in table.time_columns() {
            match type_in(table, columns.fields(), column) {
                // In text files, times are parsed by us, whatever type was inferred.
                Some(kind) if table.format == Format::Parquet => check_time(table, column, &kind)?,
                Some(_) => {}
                None if file.time_us.is_some() => {}
                None => return Err(missing("time", table, file, column, columns)),
            }
        }
        if !table.reading.columns.is_empty() && columns.field_with_name(&table.time).is_ok() {
            return Err(Error::invalid(format!(
                "table `{}` calls its time `{}`, and the file has a column of that name, which is not the time; give the time another `name`",
                table.name, table.time
            )));
        }
        if matches!(table.reading.form, TimeForm::Path(_)) && file.time_us.is_none() {
            return Err(Error::internal("a file's path holds no time"));
        }
        Ok(())
    };
    check().map_err(|error: Error| error.on("file", file.path.display()))
}

/// Checks that a column of a Parquet file can hold the time, as the table says that it is written.
fn check_time(table: &Table, column: &str, kind: &DataType) -> Result<()> {
    let is_number = kind.is_integer() || kind.is_floating();
    match &table.reading.form {
        TimeForm::Epoch(_) if is_number || shape::is_text(kind) => Ok(()),
        // Digits such as 20240304.
        TimeForm::Pattern(_) if kind.is_integer() => Ok(()),
        TimeForm::Iso if *kind == DataType::Date32 && !table.takes_dates() => Err(Error::invalid(format!(
            "time column `{column}` of table `{}` holds dates without a time of day, and the table has a row every {}; name the column of the time of day, too: \
             `time: {{ columns: [{column}, …], zone: … }}`",
            table.name,
            table.cadence.map(|cadence| cadence.to_string()).unwrap_or_default()
        ))),
        // A year.
        TimeForm::Iso if kind.is_integer() && table.date_parts() == DateParts::Year => Ok(()),
        _ if shape::is_text(kind) => Ok(()),
        _ if is_number && table.reading.columns.len() < 2 => Err(Error::invalid(format!(
            "time column `{column}` of table `{}` is {kind}, not a timestamp; if it counts from 1970, say in which unit, e.g. `time: {{ column: \
             {column}, epoch: ms }}`",
            table.name
        ))),
        _ if table.reading.columns.len() > 1 => Ok(()),
        _ => shape::check_time_type(table, kind),
    }
}

fn missing(role: &str, table: &Table, file: &DataFile, column: &str, columns: &Schema) -> Error {
    let setting = if role == "key" { "key" } else { "time" };
    let hint = if table.format == Format::Csv { csv::hint(table, file, column) } else { None };
    let help = hint.unwrap_or_else(|| format!("correct `{setting}` of table `{}`", table.name));
    Error::invalid(format!("no {role} column `{column}`; {}; {help}", shape::names(columns)))
}
