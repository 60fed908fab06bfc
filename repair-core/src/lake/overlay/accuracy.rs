//! How accurate repairs were, by rows and values that the table got later.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lake::overlay::compaction::{Print, prints};
use crate::lake::overlay::patch::{self, same_values};
use crate::lake::overlay::retraction::{Kind, Retracted};
use crate::lake::overlay::story::{Provenance, PublishedRow, number, published, slot};
use crate::lake::overlay::{self, Op, columns};
use crate::lake::shape::KeyTime;
use crate::lake::{Lake, Layer, ScanRequest, shape};
use crate::model::{Interval, Key, Table};

/// How far the repairs of one column were from the true values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Values compared.
    pub count: u64,
    /// The mean absolute difference.
    pub mean_absolute: f64,
    /// The largest absolute difference.
    pub worst_absolute: f64,
    /// The mean difference relative to the true value, where that is not zero.
    pub mean_relative: f64,
    /// The largest relative difference.
    pub worst_relative: f64,
    #[serde(skip)]
    relative: u64,
}

impl Errors {
    fn add(&mut self, repaired: f64, truth: f64) {
        let running = |mean: &mut f64, count: &mut u64, value: f64| {
            *count += 1;
            #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
            let weight = 1.0 / *count as f64;
            *mean += (value - *mean) * weight;
        };
        let difference = (repaired - truth).abs();
        if !difference.is_finite() {
            return;
        }
        running(&mut self.mean_absolute, &mut self.count, difference);
        self.worst_absolute = self.worst_absolute.max(difference);
        if truth != 0.0 && (difference / truth).is_finite() {
            running(&mut self.mean_relative, &mut self.relative, difference / truth.abs());
            self.worst_relative = self.worst_relative.max(difference / truth.abs());
        }
    }
}

/// How accurate a strategy has been, where rows or values arrived in the table after the repair.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Its repairs of slots, as a whole or in some of their cells. Of several repairs of a slot or cell, one counts, see [`accuracy`].
    pub repaired: u64,
    /// Filled slots for which the table now has a row of its own, and repaired cells for which it now has another value.
    pub judged: u64,
    /// The accuracy of each column of numbers.
    pub columns: BTreeMap<String, Errors>,
}

/// How accurate each strategy has been so far. A repair that filled a slot is compared with the row that the table now has there, and a
/// repair that changed a cell with the value that the table now has there. Left out are repairs that replaced or removed a row, since that row was
/// there before; slots whose rows a repair replaces or removes, and cells that a later repair changes.
///
/// Each slot counts once, and so does each cell: of several repairs of it, by the newest that is not retracted, which is what readers saw; if all are
/// retracted, by the newest of them.
///
/// # Errors
/// Those of the lake.
pub async fn accuracy(lake: &dyn Lake, table: &Table, interval: Option<Interval>) -> Result<BTreeMap<String, Accuracy>> {
    Ok(judged(lake, table, interval).await?.into_iter().map(|(strategy, judged)| (strategy, judged.accuracy)).collect())
}

/// Slots, each with its key.
pub type KeySlots = BTreeSet<(Key, i64)>;

/// How a strategy was judged.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// How accurate it was.
    pub accuracy: Accuracy,
    /// The slots that it filled, and by which it was judged.
    pub slots: KeySlots,
    /// The slots of which it changed a cell, by column.
    pub cells: BTreeMap<String, KeySlots>,
}

impl Judged {
    /// Whether it was judged by nothing.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.cells.is_empty()
    }
}

/// A repair, and how it ranks among those of the same slot: what is not retracted comes before what is, then by age, as in the view.
struct Guess {
    row: PublishedRow,
    rank: (bool, Timestamp, String, String, String),
}

impl Guess {
    fn new(row: PublishedRow, retracted: &Retracted) -> Result<Self> {
        let Provenance { at, run, unit, step, retracted_by, .. } = row.provenance(retracted, Kind::Repairs)?;
        Ok(Self { rank: (retracted_by.is_none(), at, run, unit, step), row })
    }

    fn is_retracted(&self) -> bool {
        !self.rank.0
    }

    fn strategy(&self) -> String {
        self.row.text(columns::STRATEGY)
    }
}

/// The repairs that are compared with what the table has now.
#[derive(Default)]
struct Guesses {
    /// The one that counts of each slot that was filled.
    rows: BTreeMap<(Key, i64), Guess>,
    /// All that changed cells of a slot, the one that counts first.
    cells: BTreeMap<(Key, i64), Vec<Guess>>,
    /// Where a repair that is in force replaces or removes rows of the table: these were found wrong, so they are no truth to compare with.
    replaced: KeySlots,
    span: Option<(i64, i64)>,
}

impl Guesses {
    fn reach(&mut self, time_us: i64) {
        let (first, last) = self.span.unwrap_or((time_us, time_us));
        self.span = Some((first.min(time_us), last.max(time_us)));
    }

    fn fill(&mut self, place: (Key, i64), guess: Guess) {
        match self.rows.entry(place) {
            Entry::Vacant(none) => {
                none.insert(guess);
            }
            Entry::Occupied(mut other) if other.get().rank < guess.rank => {
                other.insert(guess);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// How many repairs count for each strategy.
    fn repaired(&self) -> Result<BTreeMap<String, u64>> {
        let mut repaired: BTreeMap<String, u64> = BTreeMap::new();
        for guess in self.rows.values() {
            *repaired.entry(guess.strategy()).or_default() += 1;
        }
        for patches in self.cells.values() {
            let mut known = BTreeSet::new();
            for patch in patches {
                let mut counts = false;
                for column in patch::from_text(&patch.row.text(columns::CELLS))? {
                    counts |= known.insert(column);
                }
                if counts {
                    *repaired.entry(patch.strategy()).or_default() += 1;
                }
            }
        }
        Ok(repaired)
    }
}

/// As [`accuracy`], with the slots by which each strategy was judged.
///
/// # Errors
/// Those of the lake.
pub async fn judged(lake: &dyn Lake, table: &Table, interval: Option<Interval>) -> Result<BTreeMap<String, Judged>> {
    let mut strategies: BTreeMap<String, Judged> = BTreeMap::new();
    let identity = table.identity();
    let slot_of = |time_us: i64| identity.slot(time_us);
    let mut guesses = Guesses::default();
    let retracted = Retracted::of(table, &lake.retractions(table).await?);
    for row in published(lake, table, overlay::repairs, interval, None).await? {
        let place = (row.key.clone(), slot_of(row.time_us));
        let (op, time_us) = (row.text(columns::OP), row.time_us);
        let guess = Guess::new(row, &retracted)?;
        if op == Op::Insert.as_str() {
            guesses.reach(time_us);
            guesses.fill(place, guess);
        } else if op == Op::Patch.as_str() {
            guesses.reach(time_us);
            guesses.cells.entry(place).or_default().push(guess);
        } else if !guess.is_retracted() {
            guesses.replaced.insert(place);
        }
    }
    for patches in guesses.cells.values_mut() {
        patches.sort_by(|one, other| other.rank.cmp(&one.rank));
    }
    for (strategy, repaired) in guesses.repaired()? {
        strategies.entry(strategy).or_default().accuracy.repaired = repaired;
    }
    guesses.rows.retain(|place, _| !guesses.replaced.contains(place));
    guesses.cells.retain(|place, _| !guesses.replaced.contains(place));
    let Some((first, last)) = guesses.span.filter(|_| !guesses.rows.is_empty() || !guesses.cells.is_empty()) else { return Ok(strategies) };
    let instant = |us: i64| Timestamp::from_microsecond(us).map_err(|error| Error::invalid("a time is out of range").because(error));
    let hull = slot(table, instant(first)?)?.hull(&slot(table, instant(last)?)?);
    let keys: BTreeSet<&Key> = guesses.rows.keys().chain(guesses.cells.keys()).map(|(key, _)| key).collect();
    let request = ScanRequest::new(Layer::Raw).in_interval(hull).of_keys(keys.into_iter().cloned().collect::<Vec<_>>());
    let mut raw = lake.scan(table, &request).await?;
    // Of several rows of a slot, one counts as the truth: the same one in whatever order a lake gives them.
    let mut truths: BTreeMap<(Key, i64), (Print, usize, usize)> = BTreeMap::new();
    let mut batches: Vec<RecordBatch> = Vec::new();
    while let Some(batch) = raw.try_next().await? {
        let places = KeyTime::of(table, &batch)?;
        let mut of_rows = Vec::new();
        let mut is_guessed = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let of = identity.of_row(places.times.value(row)).map(|slot| (places.key(row), slot));
            let of = of.filter(|of| guesses.rows.contains_key(of) || guesses.cells.contains_key(of));
            is_guessed.push(of.is_some());
            of_rows.extend(of);
        }
        if of_rows.is_empty() {
            continue;
        }
        let batch = filter_record_batch(&batch, &BooleanArray::from(is_guessed))?;
        for (row, (of, print)) in of_rows.into_iter().zip(prints(&batch)?).enumerate() {
            let found = (print, batches.len(), row);
            truths.entry(of).and_modify(|known| *known = found.min(*known)).or_insert(found);
        }
        batches.push(batch);
    }
    for (of, (_, at, row)) in truths {
        let Some(batch) = batches.get(at) else { continue };
        let schema = batch.schema();
        let numeric: Vec<&str> =
            schema.fields().iter().filter(|field| field.data_type().is_numeric()).map(|field| field.name().as_str()).collect();
        let patches = guesses.cells.remove(&of).unwrap_or_default();
        let wrong = wrong_cells(&patches, (batch, row))?;
        // Values that were found wrong are no truth.
        let is_truth = |repair: &PublishedRow| {
            let known = |name: &&&str| repair.number(name).is_some() && number(batch, name, row).is_some();
            wrong.is_empty() || !numeric.iter().filter(known).all(|name| wrong.contains(*name))
        };
        if let Some(repair) = guesses.rows.remove(&of).filter(|repair| is_truth(&repair.row)) {
            let strategy = strategies.entry(repair.strategy()).or_default();
            strategy.accuracy.judged += 1;
            strategy.slots.insert(of.clone());
            for name in numeric.iter().filter(|name| !wrong.contains(**name)) {
                if let (Some(guess), Some(truth)) = (repair.row.number(name), number(batch, name, row)) {
                    strategy.accuracy.columns.entry((*name).to_owned()).or_default().add(guess, truth);
                }
            }
        }
        cells(&wrong, &patches, (batch, row), &of, &mut strategies)?;
    }
    Ok(strategies)
}

/// The columns of a row whose values were found wrong: a repair of the cell is in force, and was made for the value that the row still has.
fn wrong_cells(patches: &[Guess], (batch, row): (&RecordBatch, usize)) -> Result<BTreeSet<String>> {
    let mut wrong = BTreeSet::new();
    for Guess { row: patch, .. } in patches.iter().filter(|patch| !patch.is_retracted()) {
        for name in patch::from_text(&patch.text(columns::CELLS))? {
            let Some(now) = batch.column_by_name(&name) else { continue };
            if has_old_value(patch, &name, now, row)? {
                wrong.insert(name);
            }
        }
    }
    Ok(wrong)
}

/// Compares repaired cells of one row with the values that it has now. Patches come in the order in which they count.
fn cells(
    wrong: &BTreeSet<String>,
    patches: &[Guess],
    (batch, row): (&RecordBatch, usize),
    of: &(Key, i64),
    strategies: &mut BTreeMap<String, Judged>,
) -> Result<()> {
    let mut changed = Vec::with_capacity(patches.len());
    for patch in patches {
        changed.push(patch::from_text(&patch.row.text(columns::CELLS))?);
    }
    let names: BTreeSet<&String> = changed.iter().flatten().collect();
    for name in names.into_iter().filter(|name| !wrong.contains(*name)) {
        let Some(now) = batch.column_by_name(name).filter(|now| now.is_valid(row)) else { continue };
        for (patch, _) in patches.iter().zip(&changed).filter(|(_, changed)| changed.contains(name)) {
            if has_old_value(&patch.row, name, now, row)? {
                continue;
            }
            let strategy = strategies.entry(patch.strategy()).or_default();
            if strategy.cells.entry(name.clone()).or_default().insert(of.clone()) {
                strategy.accuracy.judged += 1;
            }
            if let (Some(guess), Some(truth)) = (patch.row.number(name), number(batch, name, row)) {
                strategy.accuracy.columns.entry(name.clone()).or_default().add(guess, truth);
            }
            break;
        }
    }
    Ok(())
}

/// Whether a row still has the value of a column for which a patch was made.
fn has_old_value(patch: &PublishedRow, name: &str, now: &ArrayRef, row: usize) -> Result<bool> {
    let Some(old) = patch.value(&patch::was(name)) else { return Ok(false) };
    let Ok(old) = shape::cast_exact(&old, now.data_type()) else { return Ok(false) };
    Ok(same_values(now, &old, name)?(row, 0))
}
