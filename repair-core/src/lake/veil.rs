//! A veil over a table: a reader behind it does not see some rows, or some cells of them, and sees other repairs than those of the lake.
//!
//! Strategies are compared behind a veil. It hides slots as a whole: the rows of a hidden slot, and what earlier runs repaired in it. Where cells are
//! hidden, they look like nulls, and all other values of the row are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{filter_record_batch, nullif};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::overlay::patch::Patches;
use super::partition::TimeBounds;
use super::query::Relation;
use super::shape::{self, KeyTime};
use super::{Layer, ScanRequest, overlay, rollup};
use crate::error::{Error, Result};
use crate::model::{Key, SlotGrid, SlotRange, SlotSet, Table};

/// The column of a veil's relation that says which cells of a slot are hidden: the number of a group of columns; null for the whole row.
const GROUP: &str = "repair_hidden_group";

/// What a reader of a table does not see, and which repairs it sees instead of those of hidden slots. A clone is cheap.
#[derive(Debug, Clone)]
pub struct Veil {
    hidden: Arc<Hidden>,
    repairs: Vec<RecordBatch>,
}

#[derive(Debug)]
struct Hidden {
    table: Table,
    grid: SlotGrid,
    slots: BTreeMap<Key, SlotSet>,
    cells: Option<HiddenCells>,
}

/// Of each hidden slot, the group of columns of which its cells are hidden.
#[derive(Debug)]
struct HiddenCells {
    groups: Vec<Arc<[String]>>,
    drawn: BTreeMap<Key, BTreeMap<i64, usize>>,
}

impl Hidden {
    fn slot(&self, time_us: i64) -> i64 {
        self.grid.slot_of_seconds(time_us.div_euclid(1_000_000))
    }
}

impl Veil {
    /// Hides the rows of slots of a table.
    pub fn new(table: &Table, grid: SlotGrid, slots: BTreeMap<Key, SlotSet>) -> Self {
        Self { hidden: Arc::new(Hidden { table: table.clone(), grid, slots, cells: None }), repairs: Vec::new() }
    }

    /// Hides cells instead of rows: in each of the slots those of one of these groups of columns, as `group` says.
    #[must_use]
    pub fn of_cells(self, groups: Vec<Arc<[String]>>, group: impl Fn(&Key, i64) -> usize) -> Self {
        let Hidden { table, grid, slots, .. } = self.hidden.as_ref();
        let of_key = |(key, slots): (&Key, &SlotSet)| (key.clone(), slots.iter().map(|slot| (slot, group(key, slot))).collect());
        let drawn = slots.iter().map(of_key).collect();
        let cells = Some(HiddenCells { groups, drawn });
        Self { hidden: Arc::new(Hidden { table: table.clone(), grid: *grid, slots: slots.clone(), cells }), repairs: self.repairs }
    }

    /// With these rows of the table's repairs, which are seen in the repaired view.
    #[must_use]
    pub fn with_repairs(self, repairs: Vec<RecordBatch>) -> Self {
        Self { repairs, ..self }
    }

    /// The same slots with all of their rows hidden, and no repairs: for what lies beside the table, such as its repairs.
    #[must_use]
    pub fn of_whole_rows(&self) -> Self {
        let Hidden { table, grid, slots, .. } = self.hidden.as_ref();
        Self::new(table, *grid, slots.clone())
    }

    /// The columns of which cells are hidden; none if rows are.
    pub fn columns(&self) -> BTreeSet<&str> {
        let groups = self.hidden.cells.iter().flat_map(|cells| &cells.groups);
        groups.flat_map(|group| group.iter().map(String::as_str)).collect()
    }

    /// Whether it hides nothing and shows no repair.
    pub fn is_empty(&self) -> bool {
        self.repairs.is_empty() && self.hidden.slots.values().all(SlotSet::is_empty)
    }

    /// The rows that are of no hidden slot. They are in the table's shape.
    ///
    /// # Errors
    /// `invalid` if they are not.
    pub fn outside(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let hidden = self.hidden.as_ref();
        let places = KeyTime::of(&hidden.table, batch)?;
        let mut seen = vec![true; batch.num_rows()];
        for run in places.runs() {
            let Some(slots) = hidden.slots.get(&places.key(run.start)) else { continue };
            for row in run {
                if let Some(seen) = seen.get_mut(row) {
                    *seen = !slots.contains(hidden.slot(places.times.value(row)));
                }
            }
        }
        if seen.iter().all(|seen| *seen) { Ok(batch.clone()) } else { Ok(filter_record_batch(batch, &BooleanArray::from(seen))?) }
    }

    /// What a scan of a layer sees.
    ///
    /// # Errors
    /// `invalid` if repairs are damaged.
    pub fn over(&self, layer: Layer) -> Result<Over> {
        let hidden = self.hidden.clone();
        let mut patches = Patches::default();
        if layer == Layer::Repaired && hidden.cells.is_some() {
            for repairs in &self.repairs {
                patches.add(&hidden.table, repairs, |time_us| hidden.slot(time_us), |_, _, _| true)?;
            }
        }
        Ok(Over { veil: self.clone(), patches })
    }

    /// The repairs as rows of the repaired view, of those columns, keys and times that are requested. `own` are the table's columns.
    ///
    /// # Errors
    /// `invalid` if the table lacks a column, or a repair does not fit.
    pub fn repaired_rows(&self, own: &SchemaRef, request: &ScanRequest) -> Result<Vec<RecordBatch>> {
        if self.repairs.is_empty() {
            return Ok(Vec::new());
        }
        let table = &self.hidden.table;
        let own = shape::project(table, own, request.columns.as_deref())?;
        let named = shape::as_requested(table, &own, request.columns.as_deref())?;
        let named = overlay::view_schema(&named);
        let view = overlay::view_schema(&own);
        let mut batches = Vec::new();
        for batch in &self.repairs {
            let batch = without_patches(&wanted(table, batch, request)?)?;
            let (mut fields, mut columns) = (Vec::new(), Vec::new());
            for (field, named) in view.fields().iter().zip(named.fields()) {
                let name = if field.name() == overlay::REPAIRED_BY { overlay::columns::STRATEGY } else { field.name().as_str() };
                let column: ArrayRef = match name {
                    overlay::REPAIRED_CELLS => new_null_array(field.data_type(), batch.num_rows()),
                    name => shape::cast_exact(rollup::column(&batch, name)?, field.data_type())?,
                };
                fields.push(named.as_ref().clone().with_nullable(field.is_nullable() || column.null_count() > 0));
                columns.push(column);
            }
            batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
        Ok(batches)
    }
}

/// A veil as a scan of one layer sees through it.
#[derive(Debug)]
pub struct Over {
    veil: Veil,
    patches: Patches,
}

impl Over {
    /// Rows of the layer as they are seen: without hidden rows, or without the values of hidden cells. In the repaired view, cells that were
    /// repaired have their new values.
    ///
    /// # Errors
    /// `invalid` if rows are not in the table's shape.
    pub fn shown(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let hidden = self.veil.hidden.as_ref();
        let Some(cells) = &hidden.cells else { return self.veil.outside(batch) };
        let places = KeyTime::of(&hidden.table, batch)?;
        let mut flags: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for run in places.runs() {
            let Some(drawn) = cells.drawn.get(&places.key(run.start)) else { continue };
            for row in run {
                let group = drawn.get(&hidden.slot(places.times.value(row))).and_then(|group| cells.groups.get(*group));
                for column in group.into_iter().flat_map(|group| group.iter()) {
                    if let Some(flag) = flags.entry(column).or_insert_with(|| vec![false; batch.num_rows()]).get_mut(row) {
                        *flag = true;
                    }
                }
            }
        }
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            match flags.remove(field.name().as_str()) {
                Some(flags) => {
                    fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                    columns.push(nullif(column, &BooleanArray::from(flags))?);
                }
                None => {
                    fields.push(field.clone());
                    columns.push(column.clone());
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        self.with_repaired_cells(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    /// Rows of the repaired view with the cells that were repaired; other rows as they are.
    fn with_repaired_cells(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let hidden = self.veil.hidden.as_ref();
        let Ok(at) = batch.schema_ref().index_of(overlay::REPAIRED_CELLS) else { return Ok(batch) };
        let Some(patched) = self.patches.apply(&hidden.table, &batch, |time_us| hidden.slot(time_us), |_| true)? else {
            return Ok(batch);
        };
        let (known, here) = (batch.column(at).as_string::<i32>(), patched.cells_column()?);
        // Of a row with a hidden cell, no cell was repaired before.
        let cells: StringArray = here.iter().zip(known.iter()).map(|(here, known)| here.or(known)).collect();
        let mut columns = patched.rows.columns().to_vec();
        if let Some(column) = columns.get_mut(at) {
            *column = Arc::new(cells);
        }
        Ok(RecordBatch::try_new(patched.rows.schema(), columns)?)
    }
}

/// The rows of repairs that are rows of the table, too: neither patches nor removals.
///
/// # Errors
/// `invalid` if they say nothing of what they do.
pub fn without_patches(repairs: &RecordBatch) -> Result<RecordBatch> {
    let op = rollup::column(repairs, overlay::columns::OP)?.as_string::<i32>();
    let is_row = |op: &str| matches!(overlay::Op::of_repair(op), Some(overlay::Op::Insert | overlay::Op::Replace));
    let keep: BooleanArray = op.iter().map(|op| Some(op.is_some_and(is_row))).collect();
    Ok(filter_record_batch(repairs, &keep)?)
}

/// The rows of a batch that a request wants.
///
/// # Errors
/// `invalid` if they are not in the table's shape.
pub fn wanted(table: &Table, batch: &RecordBatch, request: &ScanRequest) -> Result<RecordBatch> {
    let bounds = TimeBounds::of_interval(table, request.interval.as_ref());
    let places = KeyTime::of(table, batch)?;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let of_key = request.keys.as_ref().is_none_or(|keys| keys.contains(&places.key(row)));
            Some(of_key && bounds.contains(places.times.value(row)))
        })
        .collect();
    Ok(filter_record_batch(batch, &keep)?)
}

/// What of a veil is not rows, so that it can be sent to another process with [`Veil::to_parts`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VeilParts {
    table: Table,
    groups: Option<Vec<Vec<String>>>,
    repairs: usize,
}

impl VeilParts {
    /// How many relations belong to it.
    pub fn relations(&self) -> usize {
        self.repairs.saturating_add(1)
    }
}

impl Veil {
    /// The veil as text and relations, from which [`Veil::from_parts`] makes it again.
    ///
    /// # Errors
    /// `internal` if its slots are no rows.
    pub fn to_parts(&self) -> Result<(VeilParts, Vec<Relation>)> {
        let Hidden { table, grid, slots, cells } = self.hidden.as_ref();
        let (mut keys, mut times, mut groups): (Vec<&Key>, Vec<i64>, Vec<Option<i64>>) = Default::default();
        for (key, slots) in slots {
            let drawn = cells.as_ref().and_then(|cells| cells.drawn.get(key));
            for slot in slots.iter() {
                keys.push(key);
                times.push(grid.time_of(slot).as_microsecond());
                groups.push(drawn.and_then(|drawn| i64::try_from(*drawn.get(&slot)?).ok()));
            }
        }
        let mut fields: Vec<Field> = table.key.iter().map(|name| shape::key_field(name)).collect();
        fields.extend([shape::time_field(table), Field::new(GROUP, DataType::Int64, true)]);
        let schema = Arc::new(Schema::new(fields));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(table.key.len() + 2);
        for at in 0..table.key.len() {
            columns.push(Arc::new(keys.iter().map(|key| key.values().nth(at)).collect::<StringArray>()));
        }
        columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
        columns.push(Arc::new(Int64Array::from(groups)));
        let mut relations = vec![Relation { rows: vec![RecordBatch::try_new(schema.clone(), columns)?], schema }];
        relations.extend(self.repairs.iter().map(|rows| Relation { schema: rows.schema(), rows: vec![rows.clone()] }));
        let groups = cells.as_ref().map(|cells| cells.groups.iter().map(|group| group.to_vec()).collect());
        Ok((VeilParts { table: table.clone(), groups, repairs: self.repairs.len() }, relations))
    }

    /// The veil that [`Veil::to_parts`] took apart.
    ///
    /// # Errors
    /// `internal` if something is missing; `invalid` if the table has no slots.
    pub fn from_parts(parts: VeilParts, relations: Vec<Relation>) -> Result<Self> {
        let lacking = || Error::internal("a veil came without its rows");
        let mut relations = relations.into_iter();
        let slots = relations.next().ok_or_else(lacking)?;
        let grid = parts.table.grid()?;
        let mut drawn: BTreeMap<Key, BTreeMap<i64, Option<usize>>> = BTreeMap::new();
        for batch in &slots.rows {
            let places = KeyTime::of(&parts.table, batch)?;
            let groups = rollup::column(batch, GROUP)?.as_primitive_opt::<Int64Type>().ok_or_else(lacking)?;
            for run in places.runs() {
                let of_key = drawn.entry(places.key(run.start)).or_default();
                for row in run {
                    let group = if groups.is_null(row) { None } else { usize::try_from(groups.value(row)).ok() };
                    of_key.insert(grid.slot_of_seconds(places.times.value(row).div_euclid(1_000_000)), group);
                }
            }
        }
        let set = |slots: &BTreeMap<i64, Option<usize>>| {
            let ends = slots.first_key_value().zip(slots.last_key_value()).map(|((first, _), (last, _))| (*first, last.saturating_add(1)));
            let mut set = SlotSet::new(grid.cadence(), ends.map_or(SlotRange::new(0, 0), |(first, end)| SlotRange::new(first, end)));
            for slot in slots.keys() {
                set.insert(*slot);
            }
            set
        };
        let veil = Self::new(&parts.table, grid, drawn.iter().map(|(key, slots)| (key.clone(), set(slots))).collect());
        let veil = match parts.groups {
            None => veil,
            Some(groups) => {
                let none = groups.len();
                veil.of_cells(groups.into_iter().map(Into::into).collect(), |key, slot| {
                    drawn.get(key).and_then(|slots| *slots.get(&slot)?).unwrap_or(none)
                })
            }
        };
        let mut repairs = Vec::with_capacity(parts.repairs);
        for relation in relations {
            repairs.extend(relation.rows);
        }
        Ok(veil.with_repairs(repairs))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use arrow::datatypes::Float64Type;

    use super::*;
    use crate::model::Cadence;

    const FIRST: i64 = 28_491_840;

    fn rows(slots: impl Iterator<Item = i64> + Clone) -> RecordBatch {
        let times = TimestampMicrosecondArray::from_iter_values(slots.clone().map(|slot| slot * 60_000_000)).with_timezone("UTC");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let values = Float64Array::from_iter_values(slots.clone().map(|slot| (slot - FIRST) as f64));
        let columns: [(&str, ArrayRef); 3] =
            [("sensor", Arc::new(StringArray::from_iter_values(slots.map(|_| "a")))), ("ts", Arc::new(times)), ("value", Arc::new(values))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn hidden() -> BTreeMap<Key, SlotSet> {
        let mut set = SlotSet::new(Cadence::MINUTE, SlotRange::new(FIRST, FIRST + 10));
        set.insert_range(SlotRange::new(FIRST + 2, FIRST + 4));
        BTreeMap::from([(Key::from("a"), set)])
    }

    fn values(batch: &RecordBatch) -> Vec<Option<f64>> {
        batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn rows_and_cells_are_hidden_and_a_veil_that_was_taken_apart_hides_the_same() {
        let table = Table { key: vec!["sensor".to_owned()], cadence: Some(Cadence::MINUTE), ..Table::implicit("readings", "ts") };
        let grid = table.grid().unwrap();
        let of_rows = Veil::new(&table, grid, hidden());
        let group: Arc<[String]> = vec!["value".to_owned()].into();
        let of_cells = of_rows.clone().of_cells(vec![vec!["other".to_owned()].into(), group], |_, slot| usize::from(slot == FIRST + 3));
        for veil in [&of_rows, &of_cells] {
            let (parts, relations) = veil.to_parts().unwrap();
            assert_eq!(parts.relations(), relations.len());
            let sent: VeilParts = serde_json::from_str(&serde_json::to_string(&parts).unwrap()).unwrap();
            let again = Veil::from_parts(sent, relations).unwrap();
            for veil in [veil, &again] {
                let seen = values(&veil.over(Layer::Raw).unwrap().shown(&rows(FIRST..FIRST + 5)).unwrap());
                let expected = if veil.columns().is_empty() {
                    vec![Some(0.0), Some(1.0), Some(4.0)]
                } else {
                    vec![Some(0.0), Some(1.0), Some(2.0), None, Some(4.0)]
                };
                assert_eq!(seen, expected);
                assert_eq!(
                    values(&veil.of_whole_rows().over(Layer::Raw).unwrap().shown(&rows(FIRST + 3..FIRST + 5)).unwrap()),
                    [Some(4.0)]
                );
                assert!(!veil.is_empty());
            }
        }
        assert!(Veil::new(&table, grid, BTreeMap::new()).is_empty());
    }
}
