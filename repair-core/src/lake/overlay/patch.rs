//! Repaired cells: which patches a row of the repaired view gets.
//!
//! A patch changes some columns of one row. It was made for the values that these columns had, and keeps them, so it holds only where the
//! row still has the old value: a null that the table has filled since, or a value that somebody has corrected, is shown as it is. If several
//! patches of a column hold, the newest counts. The row may be the table's own or a repair.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, MutableArrayData, NullBufferBuilder, RecordBatch, StringArray, make_array, make_comparator,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, filter_record_batch, interleave, max, min};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimestampMicrosecondType};

use crate::error::{Error, Result};
use crate::lake::overlay::{Op, columns};
use crate::lake::rollup;
use crate::lake::shape::KeyTime;
use crate::model::{Key, Table};

/// The name of the column that holds the old values of a column.
pub fn was(column: &str) -> String {
    format!("{}{column}", columns::WAS)
}

/// The columns of patches: those that a table of repairs has beside its other columns if some rows change cells.
///
/// # Errors
/// `invalid` if the table lacks a column.
pub fn fields<'a>(table: &Schema, changed: impl IntoIterator<Item = &'a str>) -> Result<Vec<Field>> {
    let mut fields = vec![Field::new(columns::CELLS, DataType::Utf8, true)];
    for name in changed {
        let kind = table.field_with_name(name).map_err(|_| Error::invalid(format!("there is no column `{name}` to repair")))?.data_type();
        fields.push(Field::new(was(name), kind.clone(), true));
    }
    Ok(fields)
}

/// Columns as the text of [`columns::CELLS`].
///
/// # Errors
/// `internal` if they cannot be written as JSON.
pub fn to_text(changed: &[String]) -> Result<String> {
    serde_json::to_string(changed).map_err(|error| Error::internal("names of columns are not JSON").because(error))
}

/// The columns that the text of [`columns::CELLS`] lists.
///
/// # Errors
/// `invalid` if it is not a list of names.
pub fn from_text(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("`{text}` in column `{}` is not a list of columns", columns::CELLS)).because(error))
}

/// One patch of one slot.
#[derive(Debug)]
struct Patch {
    at_us: i64,
    run: Arc<str>,
    unit: Arc<str>,
    strategy: Arc<str>,
    columns: Arc<[String]>,
    batch: usize,
    row: usize,
}

impl Patch {
    fn cmp_by_age(&self, other: &Self) -> Ordering {
        (self.at_us, &self.run, &self.unit).cmp(&(other.at_us, &other.run, &other.unit))
    }
}

/// The patches of a table that are not retracted, by slot.
#[derive(Debug, Default)]
pub struct Patches {
    /// Newest first.
    by_slot: HashMap<Key, BTreeMap<i64, Vec<Patch>>>,
    batches: Vec<RecordBatch>,
    names: BTreeSet<Arc<str>>,
    lists: BTreeMap<String, Arc<[String]>>,
    /// The first and the last slot with a patch.
    hull: Option<(i64, i64)>,
}

/// A repaired cell of a row: the column, and the strategy that repaired it.
pub type NamedCell = (Arc<str>, Arc<str>);

/// Rows to which patches were applied.
#[derive(Debug, Clone)]
pub struct Patched {
    /// The rows, with the same columns.
    pub rows: RecordBatch,
    /// For each row with repaired cells, the columns and the strategy of each, in the order of the table.
    pub cells: BTreeMap<usize, Vec<NamedCell>>,
    /// The rows for whose cells there are patches that do not hold, because another value than the judged one is there now.
    pub changed: BTreeSet<usize>,
    /// The rows that have a value now for which there are patches that do not hold: a null was filled, or a value was corrected.
    pub overtaken: BTreeSet<usize>,
}

impl Patched {
    /// The column [`REPAIRED_CELLS`](super::REPAIRED_CELLS).
    ///
    /// # Errors
    /// `internal` if a name cannot be written as JSON.
    pub fn cells_column(&self) -> Result<StringArray> {
        let json = |text: &str| serde_json::to_string(text).map_err(|error| Error::internal("a name is not JSON").because(error));
        let rows = self.rows.num_rows();
        let (mut texts, mut offsets, mut valid) = (String::new(), vec![0i32; rows + 1], NullBufferBuilder::new(rows));
        let end = |texts: &String| i32::try_from(texts.len()).map_err(|_| Error::invalid("too many repaired cells for one batch of rows"));
        // There are far more rows than repaired cells, and mostly the cells of one row are those of the one before.
        let (mut done, mut last): (usize, Option<(&Vec<NamedCell>, String)>) = (0, None);
        for (&row, cells) in &self.cells {
            if last.as_ref().is_none_or(|(known, _)| *known != cells) {
                let pairs = cells.iter().map(|(column, strategy)| Ok(format!("{}:{}", json(column)?, json(strategy)?)));
                last = Some((cells, format!("{{{}}}", pairs.collect::<Result<Vec<_>>>()?.join(","))));
            }
            let begin = end(&texts)?;
            offsets.get_mut(done..=row).into_iter().flatten().for_each(|offset| *offset = begin);
            texts.push_str(last.as_ref().map_or("", |(_, text)| text.as_str()));
            valid.append_n_nulls(row - done);
            valid.append_non_null();
            done = row + 1;
        }
        let all = end(&texts)?;
        offsets.get_mut(done..).into_iter().flatten().for_each(|offset| *offset = all);
        valid.append_n_nulls(rows - done);
        Ok(StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from(texts.into_bytes()), valid.finish())?)
    }
}

/// The columns that are needed to apply patches, beside key, time and the changed columns with their old values.
pub const NEEDED: [&str; 6] = [columns::OP, columns::RUN, columns::UNIT, columns::STRATEGY, columns::AT, columns::CELLS];

impl Patches {
    /// Adds the patches among rows of a table's repairs, in shape; `keep` gets the key, time and index of each, and leaves out those that
    /// are retracted. `repairs` is the table of repairs. `slot` is the slot of a time in microseconds.
    ///
    /// # Errors
    /// `invalid` if a column is missing or damaged.
    pub fn add(
        &mut self,
        repairs: &Table,
        batch: &RecordBatch,
        slot: impl Fn(i64) -> i64,
        mut keep: impl FnMut(&Key, i64, usize) -> bool,
    ) -> Result<()> {
        let Some(cells) = batch.column_by_name(columns::CELLS) else { return Ok(()) };
        if cells.null_count() == cells.len() {
            return Ok(());
        }
        let op = text(batch, columns::OP)?;
        let mut kept = vec![false; batch.num_rows()];
        let places = KeyTime::of(repairs, batch)?;
        for run in places.runs() {
            let key = places.key(run.start);
            for row in run {
                kept[row] = op.is_valid(row) && op.value(row) == Op::Patch.as_str() && keep(&key, places.times.value(row), row);
            }
        }
        let batch = filter_record_batch(batch, &BooleanArray::from(kept))?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let number = self.batches.len();
        let (runs, units, cells) = (text(&batch, columns::RUN)?, text(&batch, columns::UNIT)?, text(&batch, columns::CELLS)?);
        let at = rollup::column(&batch, columns::AT)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::invalid(format!("column `{}` is not a time", columns::AT)))?;
        let places = KeyTime::of(repairs, &batch)?;
        let strategies = text(&batch, columns::STRATEGY)?;
        let [mut run, mut unit, mut strategy]: [Arc<str>; 3] = ["".into(), "".into(), "".into()];
        let renewed = |known: &mut Arc<str>, text: &str| {
            if **known != *text {
                *known = text.into();
            }
        };
        let mut last: Option<(&str, Arc<[String]>)> = None;
        for rows in places.runs() {
            let of_key = self.by_slot.entry(places.key(rows.start)).or_default();
            for row in rows {
                let list = cells.value(row);
                let columns = match &last {
                    Some((known, columns)) if *known == list => columns.clone(),
                    _ => {
                        let columns: Arc<[String]> = match self.lists.get(list) {
                            Some(known) => known.clone(),
                            None => from_text(list)?.into(),
                        };
                        self.lists.insert(list.to_owned(), columns.clone());
                        for name in columns.iter().filter(|name| batch.column_by_name(name).is_some()) {
                            if !self.names.contains(name.as_str()) {
                                self.names.insert(name.as_str().into());
                            }
                        }
                        last = Some((list, columns.clone()));
                        columns
                    }
                };
                renewed(&mut run, runs.value(row));
                renewed(&mut unit, units.value(row));
                renewed(&mut strategy, if strategies.is_valid(row) { strategies.value(row) } else { "unknown" });
                let at_us = if at.is_null(row) { i64::MIN } else { at.value(row) };
                let (run, unit, strategy) = (run.clone(), unit.clone(), strategy.clone());
                let patch = Patch { at_us, run, unit, strategy, columns, batch: number, row };
                let slot = slot(places.times.value(row));
                self.hull = Some(self.hull.map_or((slot, slot), |(first, last)| (first.min(slot), last.max(slot))));
                let of_slot = of_key.entry(slot).or_default();
                let place = of_slot.partition_point(|known| known.cmp_by_age(&patch).is_gt());
                of_slot.insert(place, patch);
            }
        }
        self.batches.push(batch);
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// The columns of which cells are changed, in order of name.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The slots with patches, by key.
    pub fn slots(&self) -> impl Iterator<Item = (&Key, i64)> {
        self.by_slot.iter().flat_map(|(key, slots)| slots.keys().map(move |slot| (key, *slot)))
    }

    /// Whether a slot has patches.
    pub fn has(&self, key: &Key, slot: i64) -> bool {
        self.by_slot.get(key).is_some_and(|slots| slots.contains_key(&slot))
    }

    /// Applies the patches to rows of the table, or to rows of repairs. `table` has the names of the key and time columns; `slot` is the
    /// slot nearest to a time in microseconds, and `is_aligned` is whether a row of that time belongs to it. `None` if no row has a patch.
    ///
    /// # Errors
    /// `invalid` if rows are not in shape, or patches do not fit their columns.
    pub fn apply(
        &self,
        table: &Table,
        rows: &RecordBatch,
        slot: impl Fn(i64) -> i64,
        is_aligned: impl Fn(i64) -> bool,
    ) -> Result<Option<Patched>> {
        if self.is_empty() {
            return Ok(None);
        }
        let places = KeyTime::of(table, rows)?;
        let spans = min(places.times).zip(max(places.times)).map(|(first_us, last_us)| (slot(first_us), slot(last_us)));
        if spans.zip(self.hull).is_none_or(|((first, last), hull)| last < hull.0 || first > hull.1) {
            return Ok(None);
        }
        let mut found: Vec<(usize, &[Patch])> = Vec::new();
        for run in places.runs() {
            let Some(slots) = self.by_slot.get(&places.key(run.start)) else { continue };
            let times = &places.times.values()[run.clone()];
            let (Some(&first_us), Some(&last_us)) = (times.first(), times.last()) else { continue };
            if times.is_sorted() {
                // There are far fewer patches than rows, so each is looked up among the rows that follow those of the one before.
                let mut begin = 0;
                for (&of, patches) in slots.range(slot(first_us)..=slot(last_us)) {
                    begin += times.get(begin..).unwrap_or_default().partition_point(|&time_us| slot(time_us) < of);
                    let rows = times.iter().enumerate().skip(begin).take_while(|(_, time_us)| slot(**time_us) == of);
                    found.extend(rows.filter(|(_, time_us)| is_aligned(**time_us)).map(|(row, _)| (run.start + row, patches.as_slice())));
                }
                continue;
            }
            for (row, &time_us) in run.zip(times) {
                if let Some(patches) = slots.get(&slot(time_us)).filter(|_| is_aligned(time_us)) {
                    found.push((row, patches));
                }
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let schema = rows.schema();
        let mut patched = Patched { rows: rows.clone(), cells: BTreeMap::new(), changed: BTreeSet::new(), overtaken: BTreeSet::new() };
        let mut values: Vec<ArrayRef> = rows.columns().to_vec();
        for (field, column) in schema.fields().iter().zip(&mut values) {
            if self.names.contains(field.name().as_str()) {
                self.apply_column(field.name(), column, &found, &mut patched)?;
            }
        }
        patched.rows = RecordBatch::try_new(nullable(&schema, &values), values)?;
        Ok(Some(patched))
    }

    fn apply_column(&self, name: &str, column: &mut ArrayRef, found: &[(usize, &[Patch])], patched: &mut Patched) -> Result<()> {
        let (old, shared): (String, Arc<str>) = (was(name), name.into());
        let mut same: HashMap<usize, (usize, Same)> = HashMap::new();
        let mut sources: Vec<ArrayRef> = vec![column.clone()];
        let mut chosen: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for &(row, patches) in found {
            let (mut any, mut late) = (false, false);
            for patch in patches.iter().filter(|patch| patch.columns.iter().any(|changed| changed == name)) {
                let Some(batch) = self.batches.get(patch.batch) else { continue };
                let (source, same) = match same.entry(patch.batch) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(unknown) => {
                        let (new, old) = (rollup::column(batch, name)?, rollup::column(batch, &old)?);
                        let compare = same_values(column, old, name)?;
                        sources.push(new.clone());
                        unknown.insert((sources.len() - 1, compare))
                    }
                };
                if same(row, patch.row) {
                    patched.cells.entry(row).or_default().push((shared.clone(), patch.strategy.clone()));
                    chosen.insert(row, (*source, patch.row));
                    any = false;
                    break;
                }
                late = !any && rollup::column(batch, &old)?.is_null(patch.row);
                any = true;
            }
            // If the newest filled a null, the table has got the value since: that is no change of what was repaired.
            if any && !late {
                patched.changed.insert(row);
            }
            if any && column.is_valid(row) {
                patched.overtaken.insert(row);
            }
        }
        if !chosen.is_empty() {
            let arrays: Vec<&dyn Array> = sources.iter().map(AsRef::as_ref).collect();
            if let Some(odd) = arrays.iter().find(|array| array.data_type() != column.data_type()) {
                let (is, kind) = (odd.data_type(), column.data_type());
                return Err(Error::invalid(format!("repaired cells of column `{name}` are {is}, and the column is {kind}")));
            }
            *column = with_values(&arrays, &chosen)?;
        }
        Ok(())
    }
}

/// The first array, with some values of the others: for some rows, the number of the array and of the row there.
fn with_values(arrays: &[&dyn Array], chosen: &BTreeMap<usize, (usize, usize)>) -> Result<ArrayRef> {
    let Some(own) = arrays.first() else { return Err(Error::internal("there is no column to change")) };
    let kind = own.data_type();
    if !(kind.is_primitive() || matches!(kind, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8)) {
        let place = |row| chosen.get(&row).copied().unwrap_or((0, row));
        return Ok(interleave(arrays, &(0..own.len()).map(place).collect::<Vec<_>>())?);
    }
    // There are far more rows than changed ones, and what lies between these is copied as a whole.
    let data: Vec<_> = arrays.iter().map(|array| array.to_data()).collect();
    let mut values = MutableArrayData::new(data.iter().collect(), false, own.len());
    let mut done = 0;
    for (&row, &(array, from)) in chosen {
        values.try_extend(0, done, row)?;
        values.try_extend(array, from, from + 1)?;
        done = row + 1;
    }
    values.try_extend(0, done, own.len())?;
    Ok(make_array(values.freeze()))
}

/// The schema, with columns that hold nulls nullable.
fn nullable(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let field = |(field, column): (&Arc<Field>, &ArrayRef)| match column.is_nullable() && !field.is_nullable() {
        true => Arc::new(field.as_ref().clone().with_nullable(true)),
        false => field.clone(),
    };
    Arc::new(Schema::new_with_metadata(schema.fields().iter().zip(columns).map(field).collect::<Vec<_>>(), schema.metadata().clone()))
}

/// Whether a value of one column is that of another: nulls are equal, and so are all that are not a number.
pub type Same = Box<dyn Fn(usize, usize) -> bool>;

/// How to compare the rows of two columns of the same type.
///
/// # Errors
/// `invalid` if their types differ, or cannot be compared.
pub fn same_values(one: &ArrayRef, other: &ArrayRef, name: &str) -> Result<Same> {
    if one.data_type() != other.data_type() {
        let (is, kind) = (other.data_type(), one.data_type());
        return Err(Error::invalid(format!("old values of column `{name}` are {is}, and the column is {kind}")));
    }
    // The comparison of arrays distinguishes 0 and -0.
    macro_rules! floats {
        ($kind:ty) => {{
            let (one, other) = (one.as_primitive::<$kind>().clone(), other.as_primitive::<$kind>().clone());
            Ok(Box::new(move |row, with| match (one.is_valid(row), other.is_valid(with)) {
                (true, true) => {
                    let (one, other) = (one.value(row), other.value(with));
                    one == other || (one.is_nan() && other.is_nan())
                }
                (one, other) => one == other,
            }))
        }};
    }
    match one.data_type() {
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        _ => {
            let compare = make_comparator(one.as_ref(), other.as_ref(), SortOptions::default()).map_err(|error| {
                Error::invalid(format!("values of column `{name}` cannot be compared, so its cells cannot be repaired")).because(error)
            })?;
            Ok(Box::new(move |row, with| compare(row, with) == Ordering::Equal))
        }
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    rollup::column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| Error::invalid(format!("column `{name}` is not text")))
}
