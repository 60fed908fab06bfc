//! Turns repaired rows into repaired cells, where only cells of a row were found wrong: of what a repairer returns, only the values of these
//! cells are used.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};

use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::{RowHashes, of_hashes};
use crate::lake::overlay::patch;
use crate::lake::rollup::{column, key_columns};
use crate::lake::{Lake, overlay, shape};
use crate::model::{BadCells, Findings, Fix, Key, SlotRange, Table, Unit};

/// Takes the rows of slots with wrong cells out of a fix, and returns the cells as rows that change them. A cell for which the fix has the same
/// value as before is confirmed. One for which it has no value stays as it is, and so do those of a row that has changed since it was judged,
/// which is reported as a conflict.
///
/// # Errors
/// `invalid` if a value does not fit its column; those of the lake.
pub(crate) async fn taken_out(
    (lake, table): (&dyn Lake, &Table),
    findings: &Findings,
    base: &OnceCell<BaseRows>,
    unit: &Unit,
    fix: &mut Fix,
) -> Result<Vec<RecordBatch>> {
    let has_cells = |key: &Key, slots: &SlotRange| findings.cells.of_key(key, *slots).next().is_some();
    let is_of_cells =
        !findings.cells.is_empty() && unit.wanted.iter().any(|wanted| wanted.slots.iter().any(|slots| has_cells(&wanted.key, slots)));
    if !is_of_cells || fix.rows.is_empty() {
        return Ok(Vec::new());
    }
    let identity = table.identity();
    let mut whole = Vec::with_capacity(fix.rows.len());
    // For each row of the fix with wrong cells, by batch: its place, key and slot, in order.
    let mut found: Vec<(usize, usize, Key, i64, &BadCells)> = Vec::new();
    for (number, batch) in fix.rows.iter().enumerate() {
        let keys = key_columns(table, batch)?;
        let times = column(batch, &table.time)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::invalid(format!("column `{}` is not a time in microseconds", table.time)))?;
        let mut rest = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let key = Key::new(keys.iter().map(|column| column.value(row)));
            let slot = identity.slot(times.value(row));
            let cells = findings.cells.get(&key, slot);
            rest.push(cells.is_none());
            found.extend(cells.map(|cells| (number, row, key, slot, cells)));
        }
        whole.push(BooleanArray::from(rest));
    }
    let patches = if found.is_empty() {
        Vec::new()
    } else {
        patches(table, base.get_or_try_init(|| read_base(lake, table, findings)).await?, &found, fix)?
    };
    fix.rows = fix.rows.iter().zip(whole).map(|(batch, whole)| filter_record_batch(batch, &whole)).collect::<Result<_, _>>()?;
    fix.rows.retain(|batch| batch.num_rows() > 0);
    Ok(patches)
}

/// Reads the rows of all slots with wrong cells, once for all units of a step.
async fn read_base(lake: &dyn Lake, table: &Table, findings: &Findings) -> Result<BaseRows> {
    let (mut hull, mut keys, mut columns) = (None, Vec::<Key>::new(), BTreeSet::new());
    for (key, slot, cells) in findings.cells.iter() {
        let here = SlotRange::new(slot, slot + 1);
        hull = Some(hull.map_or(here, |hull: SlotRange| SlotRange::new(hull.first.min(here.first), hull.end.max(here.end))));
        if keys.last() != Some(key) {
            keys.push(key.clone());
        }
        columns.extend(cells.columns.iter());
    }
    let far = || Error::invalid("the time of a slot is out of range");
    let interval = hull.and_then(|hull| table.identity().grid().interval_of(hull)).ok_or_else(far)?;
    let columns: Vec<String> = columns.into_iter().cloned().collect();
    BaseRows::read(lake, table, (interval, &keys), (&columns, false), |key, slot| findings.cells.get(key, slot).is_some()).await
}

fn patches(table: &Table, base: &BaseRows, found: &[(usize, usize, Key, i64, &BadCells)], fix: &mut Fix) -> Result<Vec<RecordBatch>> {
    let grid = table.identity().grid();
    // The rows to change, by the columns to change, the batch of the base row, and the batch of the fix.
    let mut groups: BTreeMap<(Vec<String>, usize, usize), Group> = BTreeMap::new();
    let mut hashes: HashMap<(usize, &[String]), RowHashes<'_>> = HashMap::new();
    let mut new: HashMap<(usize, usize, &str), Option<NewValues>> = HashMap::new();
    for (number, row, key, slot, cells) in found {
        let mut refuse = |why: &str| fix.conflicts.add(format!("{key} at {}: {why}", grid.time_of(*slot)));
        let (batch, own) = match base.get(key, *slot) {
            Some(BaseRow::One(batch, own)) => (batch, own),
            Some(BaseRow::Several) => {
                refuse("the table has several rows, so its cells are not repaired; repair the duplicates first");
                continue;
            }
            None => {
                refuse("the row whose cells were found wrong is gone");
                continue;
            }
        };
        let (rows, theirs) = (&base.batches()[batch], &fix.rows[*number]);
        let hashes = match hashes.entry((batch, cells.columns.as_ref())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(RowHashes::of_cells(rows, &cells.columns)?),
        };
        if of_hashes(&mut [hashes.of_row(own)?]) != cells.judged {
            refuse("the row has changed since its cells were found wrong, so they are left as they are");
            continue;
        }
        let mut changed = Vec::new();
        for name in cells.columns.iter() {
            let values = match new.entry((batch, *number, name.as_str())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(NewValues::of(table, name, rows, theirs)?),
            };
            if values.as_ref().is_some_and(|values| values.0.is_valid(*row)) {
                changed.push(name.clone());
            }
        }
        if !changed.is_empty() {
            let group = groups.entry((changed, batch, *number)).or_default();
            group.key.push(key);
            group.time_us.push(grid.time_of(*slot).as_microsecond());
            group.old.push(own as u64);
            group.new.push(*row as u64);
        }
    }
    let rows = |((changed, batch, number), group): (&(Vec<String>, usize, usize), &Group)| {
        group.rows(table, changed, &base.batches()[*batch], &fix.rows[*number])
    };
    groups.iter().map(rows).collect()
}

/// The new values of a column, as the table would hold them.
struct NewValues(ArrayRef);

impl NewValues {
    /// `None` if the fix does not have the column, or the rows to change do not.
    fn of(table: &Table, name: &str, rows: &RecordBatch, fix: &RecordBatch) -> Result<Option<Self>> {
        let (Some(old), Some(new)) = (rows.column_by_name(name), shape::find_column(fix, name)?) else { return Ok(None) };
        let new = shape::cast_exact(new, old.data_type()).map_err(|error| {
            Error::invalid(format!("repaired values of column `{name}` do not fit table `{}`", table.name)).because(error)
        })?;
        Ok(Some(Self(new)))
    }
}

/// Rows to change in the same columns.
#[derive(Default)]
struct Group<'a> {
    key: Vec<&'a Key>,
    time_us: Vec<i64>,
    /// The rows in the batch with the old values.
    old: Vec<u64>,
    /// The rows in the batch with the new values.
    new: Vec<u64>,
}

impl Group<'_> {
    fn rows(&self, table: &Table, changed: &[String], base: &RecordBatch, fix: &RecordBatch) -> Result<RecordBatch> {
        let mut fields: Vec<Field> = Vec::new();
        let mut values: Vec<ArrayRef> = Vec::new();
        for (at, name) in table.key.iter().enumerate() {
            fields.push(shape::key_field(name));
            let column: StringArray = self.key.iter().map(|key| key.values().nth(at)).collect();
            values.push(Arc::new(column));
        }
        fields.push(shape::time_field(table));
        values.push(Arc::new(TimestampMicrosecondArray::from(self.time_us.clone()).with_timezone("UTC")));
        let (old, new) = (UInt64Array::from(self.old.clone()), UInt64Array::from(self.new.clone()));
        for name in changed {
            let was = take(column(base, name)?, &old, None)?;
            let theirs = shape::find_column(fix, name)?.ok_or_else(|| Error::internal(format!("the fix has no column `{name}`")))?;
            let kind = was.data_type().clone();
            fields.push(Field::new(name, kind.clone(), true));
            values.push(shape::cast_exact(&take(theirs, &new, None)?, &kind)?);
            fields.push(Field::new(patch::was(name), kind, true));
            values.push(was);
        }
        fields.push(Field::new(overlay::columns::CELLS, arrow::datatypes::DataType::Utf8, true));
        let list = patch::to_text(changed)?;
        values.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(list, self.key.len()))));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?)
    }
}
