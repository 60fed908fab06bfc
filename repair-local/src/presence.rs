//! Presence: which slots hold a row. Decodes the key and time columns only, and counts rows without making objects of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use repair_core::cost::Usage;
use repair_core::lake::PresenceRequest;
use repair_core::model::{Format, Key, KeyPresence, Presence, SlotGrid, SlotRange, SlotSet, Table, TablePresence};
use repair_core::{Error, Result};

use crate::files::{self, DataFile};
use crate::lake::Inner;
use crate::overlay;
use crate::partition::{SECOND_US, TimeBounds};
use crate::place::{self, Place};
use crate::read::{self, parquet};
use crate::shape;

/// Rows decoded at a time: two narrow columns, so more than in a scan.
const BATCH_ROWS: usize = 32_768;

/// Not looked up yet.
const UNKNOWN: u32 = u32::MAX;
/// A key that was not asked for.
const OTHER: u32 = u32::MAX - 1;

pub(crate) fn presence(lake: &Inner, table: &Table, request: &PresenceRequest) -> Result<TablePresence> {
    let grid = table.grid()?;
    shape::check_keys(table, &request.keys)?;
    let place = Place::of(&lake.root, table);
    let bounds = TimeBounds::of_slots(&grid, request.slots);
    let files = place::prune(table, place.files(table)?, &bounds)?;
    let mut keys = request.keys.clone();
    keys.sort_unstable();
    keys.dedup();
    let targets: HashMap<Key, u32> = keys.iter().cloned().zip(0..).collect();
    let new = || Counter::new(grid, request.slots, &targets);
    let pieces = pieces(table, files, &bounds)?;
    let counters = files::fold_parallel(&pieces, new, |counter, piece| read::guarded(&piece.file, || counter.read(table, piece, &bounds)))?;
    let mut counters = counters.into_iter();
    let mut total = counters.next().unwrap_or_else(new);
    for counter in counters {
        total.merge(&counter);
    }
    let mut usage = total.usage;
    let mut raw = Presence::new(grid, request.slots, []);
    raw.keys = keys.iter().cloned().zip(total.keys).collect();
    raw.other_rows = total.other_rows;
    raw.misaligned_rows = total.misaligned_rows;
    let repaired = overlay::live_slots(table, &place, request, &raw, &mut usage)?;
    let absent = overlay::absent_slots(table, &place, request, &mut usage)?;
    Ok(TablePresence { raw, repaired, absent, usage })
}

/// What one thread reads at once: a file, or some row groups of it.
struct Piece {
    file: DataFile,
    groups: Option<Vec<usize>>,
}

/// The pieces to read: files, or where these are too few to keep all threads busy, their row groups.
fn pieces(table: &Table, files: Vec<DataFile>, bounds: &TimeBounds) -> Result<Vec<Piece>> {
    if table.format != Format::Parquet || files.len() >= 2 * files::workers() {
        return Ok(files.into_iter().map(|file| Piece { file, groups: None }).collect());
    }
    let mut pieces = Vec::new();
    for file in files {
        let groups = read::guarded(&file, || {
            let opened = parquet::open(&file)?;
            read::check(table, &file, &opened.schema())?;
            opened.groups(table, bounds)
        })?;
        pieces.extend(groups.into_iter().map(|group| Piece { file: file.clone(), groups: Some(vec![group]) }));
    }
    Ok(pieces)
}

/// Counts rows of a range of slots, by key.
struct Counter<'a> {
    grid: SlotGrid,
    slots: SlotRange,
    /// The place of each key that was asked for in `keys`.
    targets: &'a HashMap<Key, u32>,
    keys: Vec<KeyPresence>,
    other_rows: u64,
    misaligned_rows: u64,
    usage: Usage,
}

impl<'a> Counter<'a> {
    fn new(grid: SlotGrid, slots: SlotRange, targets: &'a HashMap<Key, u32>) -> Self {
        let keys = vec![KeyPresence::new(grid.cadence, slots); targets.len()];
        Self { grid, slots, targets, keys, other_rows: 0, misaligned_rows: 0, usage: Usage::default() }
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.keys.iter_mut().zip(&other.keys) {
            mine.merge(theirs);
        }
        self.other_rows += other.other_rows;
        self.misaligned_rows += other.misaligned_rows;
        self.usage += other.usage;
    }

    fn read(&mut self, table: &Table, piece: &Piece, bounds: &TimeBounds) -> Result<()> {
        let file = &piece.file;
        if table.format != Format::Parquet {
            let fields = table.key.iter().map(|key| shape::key_field(key)).chain([shape::time_field(table)]);
            let shape = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
            let mut count = |batch: RecordBatch| self.count(table, file, &batch);
            let usage = read::rows(table, file, &shape, bounds, &mut count)?;
            self.usage += usage;
            return Ok(());
        }
        let opened = parquet::open(file)?;
        read::check(table, file, &opened.schema())?;
        let groups = match &piece.groups {
            Some(groups) => groups.clone(),
            None => opened.groups(table, bounds)?,
        };
        let names: Vec<&str> = table.key.iter().map(String::as_str).chain([table.time.as_str()]).collect();
        let mut count = |batch: RecordBatch| self.count(table, file, &batch);
        let usage = opened.with_dictionaries(&table.key).read(&names, groups, BATCH_ROWS, &mut count)?;
        self.usage += usage;
        Ok(())
    }

    fn count(&mut self, table: &Table, file: &DataFile, batch: &RecordBatch) -> Result<ControlFlow<()>> {
        let times = batch.column_by_name(&table.time).ok_or_else(|| Error::internal("the time column did not come"))?;
        let times = shape::instants(table, times)?;
        let keys: Vec<KeyColumn> = table.key.iter().map(|name| KeyColumn::of(table, file, name, batch)).collect::<Result<_>>()?;
        let (ids, distinct) = ids(&keys, batch.num_rows());
        let mut targets = vec![UNKNOWN; distinct];
        let cadence_us = i64::from(self.grid.cadence.seconds()) * SECOND_US;
        let (mut last_us, mut slot) = (i64::MIN, i64::MIN);
        let mut aligned_us = 0i64;
        for (row, &time_us) in times.values().iter().enumerate() {
            // Mostly a row is of the slot after that of the row before it: no division then.
            if last_us.checked_add(cadence_us) == Some(time_us) && row > 0 {
                slot += 1;
                aligned_us = aligned_us.wrapping_add(cadence_us);
            } else {
                slot = self.grid.slot_of_seconds(time_us.div_euclid(SECOND_US));
                aligned_us = self.grid.time_of_seconds(slot).wrapping_mul(SECOND_US);
            }
            last_us = time_us;
            if !self.slots.contains(slot) {
                continue;
            }
            let id = ids.get(row);
            let mut target = targets[id];
            if target == UNKNOWN {
                let key = Key::new(keys.iter().map(|column| column.value(row)));
                target = self.targets.get(&key).copied().unwrap_or(OTHER);
                targets[id] = target;
            }
            match self.keys.get_mut(target as usize) {
                Some(presence) => {
                    presence.add_row(slot);
                    self.misaligned_rows += u64::from(time_us != aligned_us);
                }
                None => self.other_rows += 1,
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A key column of a batch: as codes, or one value for all rows.
enum KeyColumn {
    Codes(Int32Array, StringArray),
    Constant(String),
}

impl KeyColumn {
    fn of(table: &Table, file: &DataFile, name: &str, batch: &RecordBatch) -> Result<Self> {
        let Some(column) = batch.column_by_name(name) else {
            return Ok(Self::Constant(file.hive_value(name).unwrap_or_default().to_owned()));
        };
        let coded: ArrayRef = match column.data_type() {
            DataType::Dictionary(code, value)
                if **code == DataType::Int32 && **value == DataType::Utf8 && column.logical_null_count() == 0 =>
            {
                column.clone()
            }
            _ => {
                let text: ArrayRef = Arc::new(shape::key_text(table, name, column)?);
                cast(&text, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))?
            }
        };
        let coded = coded.as_dictionary::<Int32Type>();
        let values = coded.values().as_string_opt::<i32>().ok_or_else(|| Error::internal("a dictionary of text has no text"))?;
        Ok(Self::Codes(coded.keys().clone(), values.clone()))
    }

    fn value(&self, row: usize) -> &str {
        match self {
            Self::Codes(codes, values) => values.value(code(codes, row)),
            Self::Constant(value) => value,
        }
    }
}

fn code(codes: &Int32Array, row: usize) -> usize {
    usize::try_from(codes.value(row)).unwrap_or(0)
}

/// For each row a number that says its key, within one batch.
enum Ids<'a> {
    /// All rows are of one key.
    One,
    /// The codes of the only column that varies.
    Codes(&'a [i32]),
    Dense(Vec<u32>),
}

impl Ids<'_> {
    #[inline]
    fn get(&self, row: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Codes(codes) => usize::try_from(codes[row]).unwrap_or(0),
            Self::Dense(ids) => ids[row] as usize,
        }
    }
}

/// The ids of the rows, and how many different there may be.
fn ids(keys: &[KeyColumn], rows: usize) -> (Ids<'_>, usize) {
    let mut varying = keys.iter().filter_map(|column| match column {
        KeyColumn::Codes(codes, values) => Some((codes, values)),
        KeyColumn::Constant(_) => None,
    });
    let Some((first, values)) = varying.next() else { return (Ids::One, 1) };
    let mut ids = Ids::Codes(first.values());
    let mut distinct = values.len();
    for (codes, _) in varying {
        let mut numbers: HashMap<(usize, usize), u32> = HashMap::new();
        let mut dense = Vec::with_capacity(rows);
        let mut last = None;
        for row in 0..rows {
            let pair = (ids.get(row), code(codes, row));
            let id = match last {
                Some((same, id)) if same == pair => id,
                _ => {
                    let next = u32::try_from(numbers.len()).unwrap_or(0);
                    *numbers.entry(pair).or_insert(next)
                }
            };
            last = Some((pair, id));
            dense.push(id);
        }
        distinct = numbers.len();
        ids = Ids::Dense(dense);
    }
    (ids, distinct)
}

/// Empty sets for the keys of a request.
pub(crate) fn empty_sets(grid: SlotGrid, request: &PresenceRequest) -> BTreeMap<Key, SlotSet> {
    request.keys.iter().map(|key| (key.clone(), SlotSet::new(grid.cadence, request.slots))).collect()
}
