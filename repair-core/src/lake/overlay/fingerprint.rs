//! Fingerprints identify a table's own rows of a slot, in 128 bits. They are computed here from rows in shape, so every lake gets the same.
//! Values only, except for [`of_slots`].
//!
//! A row is the text of its values, each with its column's name, in order of name. Left out are nulls, so that a column added later changes
//! nothing; the key, which all rows of the slot share; and partition columns, which follow from the time. Numbers have the same text
//! whatever their type, and times are cut to milliseconds, which every lake keeps. The hashes of a slot's rows are sorted, so their order
//! does not matter. So rows of one fingerprint may still differ in what a text does not show: [`RowHashes::are_equal`] compares that as well.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::lake::overlay::versions::{self, Versions};
use crate::lake::shape;
use crate::lake::shape::KeyTime;
use crate::lake::{Lake, Layer, ScanRequest};
use crate::model::{Fingerprint, Fingerprints, GapList, Key, SlotGrid, Table};

/// The hash of one row.
pub type RowHash = [u8; 32];

/// The largest whole number up to which a float represents every whole number: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The fingerprint of the rows with these hashes; there may be none.
pub fn of_hashes(hashes: &mut [RowHash]) -> Fingerprint {
    hashes.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for hash in hashes {
        hasher.update(hash);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Fingerprint::new(bytes)
}

/// Hashes the wanted rows of a batch.
pub struct RowHashes<'a> {
    /// In order of name.
    columns: Vec<(&'a str, Text<'a>)>,
    /// Those of which two values may have one text.
    coarse: Vec<&'a ArrayRef>,
}

impl<'a> RowHashes<'a> {
    /// For the rows of a batch in shape.
    ///
    /// # Errors
    /// `invalid` if a column's type has no text form.
    pub fn of(table: &Table, batch: &'a RecordBatch) -> Result<Self> {
        let schema = batch.schema_ref();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let name = field.name().as_str();
            if !table.key.iter().any(|key| key == name) && !table.partition_by.iter().any(|by| by.column == name) {
                columns.push((name, column));
            }
        }
        Self::of_columns(columns)
    }

    /// For some cells of the rows of a batch: the values of these columns, and of no others. A column that the batch lacks is null.
    ///
    /// # Errors
    /// `invalid` if a column's type has no text form.
    pub fn of_cells(batch: &'a RecordBatch, names: &'a [String]) -> Result<Self> {
        let present = names.iter().filter_map(|name| Some((name.as_str(), batch.column_by_name(name)?)));
        Self::of_columns(present.collect())
    }

    fn of_columns(mut columns: Vec<(&'a str, &'a ArrayRef)>) -> Result<Self> {
        columns.sort_unstable_by_key(|(name, _)| *name);
        let coarse = columns.iter().map(|(_, column)| *column).filter(|column| is_coarse(column.data_type())).collect();
        let columns = columns.into_iter().map(|(name, column)| Ok((name, Text::of(column)?))).collect::<Result<_>>()?;
        Ok(Self { columns, coarse })
    }

    /// The hash of a row.
    ///
    /// # Errors
    /// `invalid` if a value has no text form.
    pub fn of_row(&self, row: usize) -> Result<RowHash> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for (name, values) in &self.columns {
            if let Some(text) = values.of_row(row)? {
                add(name);
                add(&text);
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Whether two rows have the same values, also where the text of a value does not show all of it: times below a millisecond, and lists and
    /// records. The numbers 0.0 and -0.0 are equal.
    ///
    /// # Errors
    /// `invalid` if a value has no text form.
    pub fn are_equal(&self, one: usize, other: usize) -> Result<bool> {
        let are_same = |column: &&ArrayRef| column.slice(one, 1) == column.slice(other, 1);
        Ok(self.coarse.iter().all(are_same) && self.of_row(one)? == self.of_row(other)?)
    }
}

/// Whether two values of a type may have the same text.
fn is_coarse(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..)) || kind.is_nested()
}

/// The values of a column as text, the same for every type that holds them.
enum Text<'a> {
    Float(&'a arrow::array::Float64Array),
    Narrow(&'a arrow::array::Float32Array),
    Instant(TimestampMicrosecondArray),
    Decimal(&'a ArrayRef, ArrayFormatter<'a>),
    Other(&'a ArrayRef, ArrayFormatter<'a>),
}

impl<'a> Text<'a> {
    fn of(column: &'a ArrayRef) -> Result<Self> {
        Ok(match column.data_type() {
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>()),
            DataType::Float32 => Self::Narrow(column.as_primitive::<Float32Type>()),
            DataType::Timestamp(_, zone) => {
                let micros = cast(column, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone.clone()))?;
                Self::Instant(micros.as_primitive::<TimestampMicrosecondType>().clone())
            }
            kind => {
                let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::new())?;
                if kind.is_decimal() { Self::Decimal(column, formatter) } else { Self::Other(column, formatter) }
            }
        })
    }

    /// `None` for a null.
    fn of_row(&self, row: usize) -> Result<Option<String>> {
        let text = match self {
            Self::Float(values) => values.is_valid(row).then(|| float(values.value(row), |value| format!("{value:?}"))),
            Self::Narrow(values) => values.is_valid(row).then(|| float(values.value(row).into(), |_| format!("{:?}", values.value(row)))),
            Self::Instant(values) => values.is_valid(row).then(|| values.value(row).div_euclid(1_000).to_string()),
            Self::Decimal(values, formatter) if values.is_valid(row) => {
                let text = formatter.value(row).try_to_string()?;
                Some(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text })
            }
            Self::Other(values, formatter) if !values.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) => {
                Some(formatter.value(row).try_to_string()?)
            }
            Self::Decimal(..) | Self::Other(..) => None,
        };
        Ok(text)
    }
}

fn float(value: f64, shortest: impl FnOnce(f64) -> String) -> String {
    if value.fract() == 0.0 && value.abs() <= EXACT { format!("{:.0}", value + 0.0) } else { shortest(value) }
}

/// The fingerprint of cells that are null, whatever their columns.
pub fn of_nulls() -> Fingerprint {
    of_hashes(&mut [*blake3::Hasher::new().finalize().as_bytes()])
}

/// The hashes of rows by slot, collected while they are read.
#[derive(Debug, Default)]
pub struct Hashing {
    slots: BTreeMap<Key, BTreeMap<i64, Vec<RowHash>>>,
}

impl Hashing {
    /// Adds those rows of a batch in shape whose slots are wanted.
    ///
    /// # Errors
    /// `invalid` if it is not in shape, or a value has no text form.
    pub fn add(&mut self, table: &Table, grid: SlotGrid, batch: &RecordBatch, wanted: impl Fn(&Key, i64) -> bool) -> Result<()> {
        let rows = KeyTime::of(table, batch)?;
        let mut hashes = None;
        for run in rows.runs() {
            let key = rows.key(run.start);
            for row in run {
                let Some(slot) = grid.slot_of_row(rows.times.value(row)).filter(|slot| wanted(&key, *slot)) else { continue };
                let hashes = match &mut hashes {
                    Some(hashes) => hashes,
                    none => none.insert(RowHashes::of(table, batch)?),
                };
                let hash = hashes.of_row(row)?;
                match self.slots.get_mut(&key) {
                    Some(of_key) => of_key.entry(slot).or_default().push(hash),
                    None => {
                        self.slots.insert(key.clone(), BTreeMap::from([(slot, vec![hash])]));
                    }
                }
            }
        }
        Ok(())
    }

    /// How many rows of a slot were added.
    pub fn rows(&self, key: &Key, slot: i64) -> u64 {
        self.slots.get(key).and_then(|slots| slots.get(&slot)).map_or(0, |hashes| hashes.len() as u64)
    }

    /// The fingerprint of a slot's rows, or of no rows if none were added.
    pub fn fingerprint(&mut self, key: &Key, slot: i64) -> Fingerprint {
        match self.slots.get_mut(key).and_then(|slots| slots.get_mut(&slot)) {
            Some(hashes) => of_hashes(hashes),
            None => of_hashes(&mut []),
        }
    }
}

/// The fingerprints of slots, from one scan of the table's own rows. If the key alone identifies a row, those of all its versions.
///
/// # Errors
/// Those of the lake.
pub async fn of_slots(lake: &dyn Lake, table: &Table, slots: &GapList) -> Result<Fingerprints> {
    let mut all = Fingerprints::default();
    let Some(hull) = slots.hull() else { return Ok(all) };
    let identity = table.identity();
    let grid = identity.grid();
    let interval = grid.interval_of(hull).ok_or_else(|| Error::invalid("a slot is out of the range of instants"))?;
    let keys: Vec<Key> = slots.by_key().into_keys().collect();
    shape::check_keys(table, &keys)?;
    if identity.lookback_us().is_some() {
        let (rows, _) = versions::read(lake, table, &interval, keys).await?;
        for (key, range) in slots.iter() {
            for slot in range.first..range.end {
                let of_key = rows.get(key).into_iter().flatten();
                let same = of_key.into_iter().find(|of| of.times_us().iter().any(|time_us| identity.are_same_slots(*time_us, slot)));
                all.insert(key, slot, same.map_or_else(|| of_hashes(&mut []), Versions::fingerprint));
            }
        }
        return Ok(all);
    }
    let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys);
    let mut batches = lake.scan(table, &request).await?;
    let mut hashing = Hashing::default();
    while let Some(batch) = batches.try_next().await? {
        hashing.add(table, grid, &batch, |key, slot| slots.contains(key, slot))?;
    }
    for (key, range) in slots.iter() {
        (range.first..range.end).for_each(|slot| {
            let fingerprint = hashing.fingerprint(key, slot);
            all.insert(key, slot, fingerprint);
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, Float32Array, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder, TimestampNanosecondArray,
    };

    use super::*;
    use crate::model::{Cadence, Format, TimeMark};

    fn table() -> Table {
        Table {
            name: "bars".into(),
            location: "bars".into(),
            format: Format::Parquet,
            partition_by: vec![crate::model::Partition { column: "date".into(), unit: crate::model::PartitionUnit::Day }],
            key: vec!["symbol".into()],
            time: "ts".into(),
            time_marks: TimeMark::Start,
            slots: crate::model::SlotRule { tolerance_s: 10, ..Default::default() },
            cadence: Some(Cadence::MINUTE),
            ..Table::implicit("bars", "ts")
        }
    }

    fn batch(rows: &[(i64, &str)], value: ArrayRef, more: &[(&str, ArrayRef)]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC");
        let key = StringArray::from_iter_values(rows.iter().map(|_| "A"));
        let note = StringArray::from_iter_values(rows.iter().map(|row| row.1));
        let own: Vec<(&str, ArrayRef)> =
            vec![("ts", Arc::new(times)), ("value", value), ("symbol", Arc::new(key)), ("note", Arc::new(note))];
        RecordBatch::try_from_iter(own.into_iter().chain(more.iter().cloned())).unwrap()
    }

    fn print(batches: &[RecordBatch]) -> Fingerprint {
        let mut hashing = Hashing::default();
        for batch in batches {
            hashing.add(&table(), table().grid().unwrap(), batch, |_, slot| slot == 0).unwrap();
        }
        hashing.fingerprint(&Key::from("A"), 0)
    }

    #[test]
    fn rows_of_one_fingerprint_may_still_differ() {
        let list = |items: &[&str]| items.iter().map(|item| Some((*item).to_owned())).collect::<Vec<_>>();
        let lists = |one: &[&str], other: &[&str]| {
            let mut builder = ListBuilder::new(StringBuilder::new());
            builder.append_value(list(one));
            builder.append_value(list(other));
            Arc::new(builder.finish()) as ArrayRef
        };
        let micros = |one: i64, other: i64| Arc::new(TimestampMicrosecondArray::from(vec![one, other])) as ArrayRef;
        let nanos = |one: i64, other: i64| Arc::new(TimestampNanosecondArray::from(vec![one, other])) as ArrayRef;
        let floats = |one: f64, other: f64| Arc::new(Float64Array::from(vec![one, other])) as ArrayRef;
        for (value, are_equal, is_one_print) in [
            (micros(5_000, 5_000), true, true),
            (micros(5_000, 5_001), false, true),
            (micros(5_000, 6_000), false, false),
            (nanos(5_000_000, 5_000_000), true, true),
            (nanos(5_000_000, 5_000_001), false, true),
            (lists(&["a", "b"], &["a", "b"]), true, true),
            (lists(&["a, b"], &["a", "b"]), false, true),
            (floats(0.0, -0.0), true, true),
            (floats(1e16, 1e16 + 2.0), false, false),
        ] {
            let what = format!("{value:?}");
            let batch = batch(&[(0, "x"), (0, "x")], value, &[]);
            let table = table();
            let hashes = RowHashes::of(&table, &batch).unwrap();
            assert_eq!(hashes.are_equal(0, 1).unwrap(), are_equal, "{what}");
            assert_eq!(hashes.of_row(0).unwrap() == hashes.of_row(1).unwrap(), is_one_print, "{what}");
        }
    }

    #[test]
    fn neither_order_nor_type_nor_new_columns_matter_and_all_else_does() {
        let floats = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let rows = [(0, "x"), (5_000_000, "y")];
        let one = print(&[batch(&rows, floats(&[5.0, 0.1]), &[])]);
        let swapped = [(5_000_000, "y"), (0, "x"), (60_000_000, "elsewhere")];
        let decimals = Decimal128Array::from(vec![10, 500, 1]).with_precision_and_scale(10, 2).unwrap();
        let null = Arc::new(Float64Array::from(vec![None::<f64>; 3])) as ArrayRef;
        let date = Arc::new(StringArray::from(vec!["1970-01-01"; 3])) as ArrayRef;
        assert_eq!(print(&[batch(&swapped, Arc::new(decimals), &[("later", null), ("date", date)])]), one);
        let parts = [
            batch(&rows[..1], Arc::new(Int64Array::from(vec![5])), &[]),
            batch(&rows[1..], Arc::new(Float32Array::from(vec![0.1_f32])), &[]),
        ];
        assert_eq!(print(&parts), one);
        for other in [
            vec![batch(&rows, floats(&[5.0, 0.2]), &[])],
            vec![batch(&[(0, "x"), (5_000_000, "z")], floats(&[5.0, 0.1]), &[])],
            vec![batch(&[(0, "x"), (6_000_000, "y")], floats(&[5.0, 0.1]), &[])],
            vec![batch(&rows[..1], floats(&[5.0]), &[])],
            vec![batch(&rows, floats(&[5.0, 0.1]), &[]), batch(&rows[..1], floats(&[5.0]), &[])],
            Vec::new(),
        ] {
            assert_ne!(print(&other), one);
        }
        assert_eq!(Fingerprint::parse(&one.to_string()).unwrap(), one);
        for odd in ["", "0x", "+0000000000000000000000000000000000", "g0000000000000000000000000000000"] {
            assert!(Fingerprint::parse(odd).is_err(), "{odd}");
        }
    }
}
