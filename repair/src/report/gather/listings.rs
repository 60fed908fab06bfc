//! The listings: what was wrong, what was repaired and by whom, what was confirmed absent and on what evidence. Rows are read as they come;
//! only the first ones are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::completeness::Found;
use crate::report::MOST_ROWS;
use crate::report::csv::CsvWriter;
use crate::report::model::{Defect, Exception, Fix, Listing, Within};
use repair_core::lake::Lake;
use repair_core::lake::overlay::retraction::{Kind, Retracted};
use repair_core::lake::overlay::story::published_batches;
use repair_core::lake::overlay::{self, Op, columns};
use repair_core::lake::rollup::column;
use repair_core::lake::shape::{self, KeyTime};
use repair_core::model::{Estimates, Interval, Key, Table};
use repair_core::{Error, ErrorKind, Result};

/// Collects a listing.
pub(super) struct Collector<T> {
    rows: Vec<T>,
    total: u64,
    csv: CsvWriter,
    cells: fn(&T) -> Vec<String>,
}

impl<T> Collector<T> {
    fn new(columns: &[&str], path: Option<PathBuf>, cells: fn(&T) -> Vec<String>) -> Self {
        Self { rows: Vec::new(), total: 0, csv: CsvWriter::new(columns, path), cells }
    }

    fn push(&mut self, row: T) -> Result<()> {
        self.total += 1;
        self.csv.row((self.cells)(&row))?;
        if self.rows.len() < MOST_ROWS {
            self.rows.push(row);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Listing<T>> {
        Ok(Listing { total: self.total, rows: self.rows, csv: self.csv.finish(self.total)? })
    }
}

/// Where the CSV of a listing goes if it is long: beside the page.
fn beside(page: Option<&std::path::Path>, name: &str) -> Option<PathBuf> {
    let stem = page?.file_stem()?.to_string_lossy().into_owned();
    Some(page?.with_file_name(format!("{stem}-{name}.csv")))
}

pub(super) fn defects(page: Option<&std::path::Path>) -> Collector<Defect> {
    let names = ["table", "step", "kind", "key", "from", "to", "slots", "repaired", "absent", "arrived"];
    Collector::new(&names, beside(page, "defects"), |row| {
        let mut cells = vec![row.table.clone(), row.step.clone(), row.kind.as_str().to_owned(), row.key.to_string()];
        cells.extend([row.from, row.to].map(|at| at.to_string()));
        cells.extend([row.slots, row.repaired, row.absent, row.arrived].map(|count| count.to_string()));
        cells
    })
}

pub(super) fn fixes(page: Option<&std::path::Path>) -> Collector<Fix> {
    let names = ["table", "key", "from", "to", "slots", "op", "strategy", "source", "run", "step", "at", "within_95", "retracted_by"];
    Collector::new(&names, beside(page, "fixes"), |row| {
        let mut cells = vec![row.table.clone(), row.key.to_string(), row.from.to_string(), row.to.to_string(), row.slots.to_string()];
        cells.extend([&row.op, &row.strategy, &row.source, &row.run, &row.step].map(Clone::clone));
        cells.extend([row.at.to_string(), row.within_text(), row.retracted_by.clone().unwrap_or_default()]);
        cells
    })
}

pub(super) fn exceptions(page: Option<&std::path::Path>) -> Collector<Exception> {
    let names = ["table", "key", "from", "to", "slots", "source", "answer", "at", "recheck_after", "run", "step", "retracted_by"];
    Collector::new(&names, beside(page, "exceptions"), |row| {
        let mut cells = vec![row.table.clone(), row.key.to_string(), row.from.to_string(), row.to.to_string(), row.slots.to_string()];
        cells.extend([row.source.clone(), row.answer.clone(), row.at.to_string(), row.recheck_after.to_string()]);
        cells.extend([row.run.clone(), row.step.clone(), row.retracted_by.clone().unwrap_or_default()]);
        cells
    })
}

/// Adds what a detect step found.
pub(super) fn add_defects(into: &mut Collector<Defect>, found: &Found) -> Result<()> {
    let scope = &found.findings.scope;
    for ((key, slots), [repaired, absent, arrived]) in found.gaps.iter().zip(&found.became) {
        into.push(Defect {
            table: scope.table.clone(),
            step: found.step.clone(),
            kind: found.findings.kind,
            key: key.clone(),
            from: scope.grid.start_of(slots.first),
            to: scope.grid.start_of(slots.end),
            slots: slots.len(),
            repaired: *repaired,
            absent: *absent,
            arrived: *arrived,
        })?;
    }
    Ok(())
}

/// The columns of one batch of an overlay.
struct Rows<'a> {
    batch: &'a RecordBatch,
    places: KeyTime<'a>,
}

impl<'a> Rows<'a> {
    fn of(table: &Table, batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self { batch, places: KeyTime::of(table, batch)? })
    }

    fn texts(&self, name: &str) -> Option<&'a StringArray> {
        self.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())
    }

    fn text(&self, name: &str, row: usize) -> String {
        self.texts(name).filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_owned()).unwrap_or_default()
    }

    /// The intervals of the estimates of a row, by column.
    fn estimated(&self, row: usize) -> Result<BTreeMap<String, [f64; 2]>> {
        let text = self.text(columns::ESTIMATED, row);
        if text.is_empty() { Ok(BTreeMap::new()) } else { Estimates::of_text(&text) }
    }

    fn instant(&self, name: &str, row: usize) -> Result<Timestamp> {
        let times = column(self.batch, name)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::invalid(format!("column `{name}` is not a time")))?;
        Timestamp::from_microsecond(times.value(row)).map_err(|error| Error::invalid("a time is out of range").because(error))
    }
}

/// The stretch of time of the slot of a row.
fn slot_of(table: &Table, time_us: i64) -> Result<(Timestamp, Timestamp)> {
    let time = Timestamp::from_microsecond(time_us).map_err(|error| Error::invalid("a time is out of range").because(error))?;
    Ok(match table.grid() {
        Ok(grid) => {
            let slot = grid.slot_of(time);
            (grid.start_of(slot), grid.start_of(slot + 1))
        }
        Err(_) => (time, time),
    })
}

/// Whose rows are listed, and where.
pub(super) struct Part<'a> {
    pub(super) lake: &'a dyn Lake,
    pub(super) table: &'a Table,
    pub(super) interval: Interval,
    /// Only those of this run.
    pub(super) run: Option<&'a str>,
    /// Runs whose rows are listed elsewhere in the report.
    pub(super) beside: &'a BTreeSet<String>,
}

const FIX: [&str; 7] = [columns::OP, columns::RUN, columns::STEP, columns::UNIT, columns::STRATEGY, columns::SOURCE, columns::AT];
const EXCEPTION: [&str; 7] =
    [columns::RUN, columns::STEP, columns::UNIT, columns::SOURCE, columns::AT, columns::ANSWER, columns::RECHECK_AFTER];

impl Part<'_> {
    async fn retracted(&self) -> Result<Retracted> {
        Ok(Retracted::of(self.table, &self.lake.retractions(self.table).await?))
    }

    fn hidden(retracted: &Retracted, kind: Kind, key: &Key, rows: &Rows<'_>, row: usize, (run, step): (&str, &str)) -> Option<String> {
        retracted.hiding(kind, run, step, key, rows.places.times.value(row)).map(str::to_owned)
    }

    /// Lists repairs, and shows each slot of which cells are repaired, by whatever run. Returns how many rows of other runs there are.
    pub(super) async fn fixes(&self, into: &mut Collector<Fix>, patched: &mut (dyn FnMut(&Key, i64) + Send)) -> Result<u64> {
        let retracted = self.retracted().await?;
        let mut others = 0;
        let mut columns = FIX.to_vec();
        columns.extend(self.has_estimates().await?.then_some(columns::ESTIMATED));
        let Some((ours, mut batches)) =
            published_batches(self.lake, self.table, overlay::repairs, Some(self.interval), None, Some(&columns)).await?
        else {
            return Ok(0);
        };
        let mut last: Option<Fix> = None;
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows::of(&ours, &batch)?;
            for row in 0..batch.num_rows() {
                let (run, step, op) = (rows.text(columns::RUN, row), rows.text(columns::STEP, row), rows.text(columns::OP, row));
                let key = rows.places.key(row);
                let retracted_by = Self::hidden(&retracted, Kind::Repairs, &key, &rows, row, (&run, &step));
                if op == Op::Patch.as_str()
                    && retracted_by.is_none()
                    && let Some(slot) = self.table.identity().of_row(rows.places.times.value(row))
                {
                    patched(&key, slot);
                }
                if self.run.is_some_and(|own| own != run) {
                    others += u64::from(!self.beside.contains(&run));
                    continue;
                }
                let (from, to) = slot_of(self.table, rows.places.times.value(row))?;
                let fix = Fix {
                    table: self.table.name.clone(),
                    op,
                    strategy: rows.text(columns::STRATEGY, row),
                    source: rows.text(columns::SOURCE, row),
                    at: rows.instant(columns::AT, row)?,
                    within: rows.estimated(row)?.into_iter().map(|(column, interval)| (column, Within::of(interval))).collect(),
                    retracted_by,
                    slots: 1,
                    key,
                    from,
                    to,
                    run,
                    step,
                };
                match &mut last {
                    Some(before) if before.to == fix.from && same_fix(before, &fix) => {
                        (before.to, before.slots) = (fix.to, before.slots + 1);
                        for (column, within) in fix.within {
                            let known = before.within.get(&column).copied();
                            before.within.insert(column, known.map_or(within, |known| known.and(within)));
                        }
                    }
                    _ => {
                        if let Some(done) = last.replace(fix) {
                            into.push(done)?;
                        }
                    }
                }
            }
        }
        last.map_or(Ok(()), |done| into.push(done))?;
        Ok(others)
    }

    /// Whether the overlay may have intervals of estimates; older ones have no column for them.
    async fn has_estimates(&self) -> Result<bool> {
        let repairs = self.lake.repairs_of(self.table).await?;
        match self.lake.describe(&repairs).await {
            Ok(schema) => Ok(shape::find(&schema, columns::ESTIMATED)?.is_some()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The intervals of the estimates of a column that readers see for a key, each with the strategy that made it, by slot.
    pub(super) async fn estimates(&self, key: &Key, column: &str) -> Result<BTreeMap<i64, (String, [f64; 2])>> {
        let mut found: BTreeMap<i64, (Timestamp, String, [f64; 2])> = BTreeMap::new();
        if !self.has_estimates().await? {
            return Ok(BTreeMap::new());
        }
        let retracted = self.retracted().await?;
        let columns = [columns::OP, columns::RUN, columns::STEP, columns::STRATEGY, columns::AT, columns::ESTIMATED];
        let keys = [key.clone()];
        let published =
            published_batches(self.lake, self.table, overlay::repairs, Some(self.interval), Some(&keys), Some(&columns)).await?;
        let Some((ours, mut batches)) = published else { return Ok(BTreeMap::new()) };
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows::of(&ours, &batch)?;
            for row in 0..batch.num_rows() {
                let (run, step) = (rows.text(columns::RUN, row), rows.text(columns::STEP, row));
                let is_hidden = Self::hidden(&retracted, Kind::Repairs, key, &rows, row, (&run, &step)).is_some();
                let slot = self.table.identity().of_row(rows.places.times.value(row));
                let (Some(slot), false, true) = (slot, is_hidden, rows.text(columns::OP, row) != Op::Patch.as_str()) else { continue };
                let (at, strategy) = (rows.instant(columns::AT, row)?, rows.text(columns::STRATEGY, row));
                // The latest repair counts, whether or not it is an estimate.
                let interval = rows.estimated(row)?.get(column).copied().unwrap_or([f64::NAN; 2]);
                if found.get(&slot).is_none_or(|(known, ..)| *known <= at) {
                    found.insert(slot, (at, strategy, interval));
                }
            }
        }
        let is_known = |(slot, (_, strategy, interval)): (i64, (Timestamp, String, [f64; 2]))| {
            interval.iter().all(|end| end.is_finite()).then_some((slot, (strategy, interval)))
        };
        Ok(found.into_iter().filter_map(is_known).collect())
    }

    /// How many places are confirmed absent by evidence that counts at an instant, by whatever run.
    pub(super) async fn absent(&self, as_of: Timestamp) -> Result<u64> {
        let retracted = self.retracted().await?;
        let Some((ours, mut batches)) =
            published_batches(self.lake, self.table, overlay::exceptions, Some(self.interval), None, Some(&EXCEPTION)).await?
        else {
            return Ok(0);
        };
        let mut places: BTreeSet<(Key, i64)> = BTreeSet::new();
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows::of(&ours, &batch)?;
            for row in 0..batch.num_rows() {
                let (run, step, key) = (rows.text(columns::RUN, row), rows.text(columns::STEP, row), rows.places.key(row));
                let hidden = Self::hidden(&retracted, Kind::Exceptions, &key, &rows, row, (&run, &step));
                if hidden.is_none() && rows.instant(columns::RECHECK_AFTER, row)? > as_of {
                    places.insert((key, rows.places.times.value(row)));
                }
            }
        }
        Ok(places.len() as u64)
    }

    /// Lists confirmed absences. Returns how many of other runs there are.
    pub(super) async fn exceptions(&self, into: &mut Collector<Exception>) -> Result<u64> {
        let retracted = self.retracted().await?;
        let mut others = 0;
        let Some((ours, mut batches)) =
            published_batches(self.lake, self.table, overlay::exceptions, Some(self.interval), None, Some(&EXCEPTION)).await?
        else {
            return Ok(0);
        };
        let mut last: Option<Exception> = None;
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows::of(&ours, &batch)?;
            for row in 0..batch.num_rows() {
                let run = rows.text(columns::RUN, row);
                if self.run.is_some_and(|own| own != run) {
                    others += u64::from(!self.beside.contains(&run));
                    continue;
                }
                let (key, step) = (rows.places.key(row), rows.text(columns::STEP, row));
                let (from, to) = slot_of(self.table, rows.places.times.value(row))?;
                let exception = Exception {
                    table: self.table.name.clone(),
                    source: rows.text(columns::SOURCE, row),
                    answer: rows.text(columns::ANSWER, row),
                    at: rows.instant(columns::AT, row)?,
                    recheck_after: rows.instant(columns::RECHECK_AFTER, row)?,
                    retracted_by: Self::hidden(&retracted, Kind::Exceptions, &key, &rows, row, (&run, &step)),
                    slots: 1,
                    key,
                    from,
                    to,
                    run,
                    step,
                };
                match &mut last {
                    Some(before) if before.to == exception.from && same_exception(before, &exception) => {
                        (before.to, before.slots) = (exception.to, before.slots + 1);
                    }
                    _ => {
                        if let Some(done) = last.replace(exception) {
                            into.push(done)?;
                        }
                    }
                }
            }
        }
        last.map_or(Ok(()), |done| into.push(done))?;
        Ok(others)
    }
}

fn same_fix(one: &Fix, other: &Fix) -> bool {
    (&one.key, &one.op, &one.strategy, &one.source) == (&other.key, &other.op, &other.strategy, &other.source)
        && (&one.run, &one.step, &one.retracted_by) == (&other.run, &other.step, &other.retracted_by)
}

fn same_exception(one: &Exception, other: &Exception) -> bool {
    (&one.key, &one.source, &one.answer, one.recheck_after) == (&other.key, &other.source, &other.answer, other.recheck_after)
        && (&one.run, &one.step, &one.retracted_by) == (&other.run, &other.step, &other.retracted_by)
}
