//! The detector `command`: asks a program which rows of a table are wrong.
//!
//! The program names rows by key and time, and nothing else. What is expected and what is there is found by the core, so a program that names nothing
//! cannot make an outage look clean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use repair_core::builtin::detect::{GapsConfig, find_gaps, find_gaps_allow_empty};
use repair_core::lake::overlay::fingerprint::{RowHash, RowHashes, of_hashes};
use repair_core::lake::shape::{self, KeyTime};
use repair_core::lake::{Layer, ScanRequest};
use repair_core::model::{
    BadCells, Cells, DefectKind, ExpectedKeys, ExpectedSlots, Findings, GapList, Interval, Key, KeysFrom, MAX_EXAMPLES, Scope, SlotRange,
    Table,
};
use repair_core::plugin::{Asks, Detector, PluginKind, Registry, StepContext};
use repair_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::ONE_CALL;
use crate::allowed::Options;
use crate::command::program::{Program, config, described};
use crate::command::{NAME, OF_TABLE, ROW_BYTES, id_of, kept, values_of};
use crate::rows::{self, RowFormat, Rows};

/// How many rows a program may be given at once. They are held in memory, and written as JSON.
const MOST_ROWS: usize = 1_000_000;

config! {
    /// The configuration of the detector.
    pub struct CommandDetectConfig {
        /// The table to examine; it needs a `cadence`.
        #[schemars(extend("x-names" = "table"))]
        pub table: String,
        /// The start of the interval: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as
        /// `yesterday` or `now - 7d`.
        pub from: String,
        /// The end of the interval: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and
        /// other days are included.
        pub to: String,
        /// The calendar that defines which slots are expected; what the program says of others does not count.
        #[serde(default = "always")]
        #[schemars(extend("x-names" = "calendar"))]
        pub calendar: String,
        /// The keys that must be present, by default those under `keys` of the table: a list of values (or of lists, if the table has several key
        /// columns), a file, or another table that lists them.
        #[serde(default)]
        pub keys: Option<ExpectedKeys>,
        /// Another table that lists the keys: a short form of `keys`.
        #[serde(default)]
        pub keys_from: Option<KeysFrom>,
        /// Whether it is fine that no slot at all is expected. Otherwise the step is blind then.
        #[serde(default)]
        pub allow_empty: bool,
        /// The columns that are wrong in the rows that the program names. A repair then changes these and keeps the rest of the row. By default, the whole
        /// row is wrong.
        #[serde(default)]
        pub columns: Vec<String>,
        /// How it writes the rows that are wrong, of which it names key and time: `jsonl` (an object a line, the default), `csv` or `arrow`.
        #[serde(default)]
        pub rows: RowFormat,
        /// Whether the request has the rows of the table, as readers see them; true by default. Without them, the program reads the data itself.
        #[serde(default)]
        pub with_rows: Option<bool>,
        /// Whether a plan and a comparison run the program, too; false by default, so that a plan runs no program that nobody expected to run.
        #[serde(default)]
        pub plan: bool,
    }
}

fn always() -> String {
    "24x7".to_owned()
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.detector(NAME, "asks a program which rows of a series are wrong", move |config: CommandDetectConfig| {
        CommandDetect::new(config, &options)
    });
    registry.finds(NAME, DefectKind::Invalid);
    registry.needs_one_row(PluginKind::Detector, NAME);
}

struct CommandDetect {
    program: Program,
    series: GapsConfig,
    columns: Arc<[String]>,
    rows: RowFormat,
    with_rows: bool,
    plan: bool,
    /// The name of the price of a call, empty if there is none.
    price: String,
}

/// The rows that a program judges.
#[derive(Default)]
struct Held {
    /// The slots that hold a row, by key.
    slots: BTreeMap<Key, BTreeSet<i64>>,
    /// The rows, if the program is given them.
    rows: Vec<RecordBatch>,
}

impl CommandDetect {
    fn new(config: CommandDetectConfig, options: &Options) -> Result<Self> {
        let program = Program::new(config.program(), &OF_TABLE, ROW_BYTES, options)?;
        let CommandDetectConfig {
            table, from, to, calendar, keys, keys_from, allow_empty, mut columns, rows, with_rows, plan, source, ..
        } = config;
        let series = GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty };
        series.check()?;
        columns.sort();
        columns.dedup();
        let price = source.unwrap_or_default();
        Ok(Self { program, series, columns: columns.into(), rows, with_rows: with_rows.unwrap_or(true), plan, price })
    }

    /// The rows of the repaired view, so that a second look sees what was corrected.
    async fn held(&self, context: &StepContext, table: &Table, scope: &Scope, slots: SlotRange, keys: Vec<Key>) -> Result<Held> {
        let mut held = Held::default();
        let interval = interval_of(scope, slots)?;
        let columns = (!self.with_rows).then(Vec::new);
        let scan = ScanRequest::new(Layer::Repaired).in_interval(interval).of_keys(keys).with_columns(columns);
        let (mut batches, mut count) = (context.lake.scan(table, &scan).await?, 0);
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            let places = KeyTime::of(table, &batch)?;
            for run in places.runs() {
                let of_key = held.slots.entry(places.key(run.start)).or_default();
                of_key.extend(run.filter_map(|row| scope.grid.slot_of_row(places.times.value(row))));
            }
            count += batch.num_rows();
            if self.with_rows && count > MOST_ROWS {
                return Err(Error::invalid(format!(
                    "there are more than {MOST_ROWS} rows to judge; shorten the interval, or write `with_rows: false` and let the program read the data itself"
                )));
            }
            if self.with_rows {
                held.rows.push(batch);
            }
        }
        Ok(held)
    }

    /// The slots that the program finds wrong, by key.
    async fn judge(
        &self,
        context: &StepContext,
        (table, scope): (&Table, &Scope),
        slots: SlotRange,
        keys: &[Key],
        again: bool,
    ) -> Result<BTreeMap<Key, BTreeSet<i64>>> {
        let held = self.held(context, table, scope, slots, keys.to_vec()).await?;
        let interval = interval_of(scope, slots)?;
        let columns = context.lake.describe(table).await?;
        let id = id_of(&[&context.run, &context.step, "detect"], table, &interval, keys);
        let mut asked = self.program.request("detect", context, &id);
        asked.extend([
            ("table".to_owned(), described(table, Some(&columns))),
            ("from".to_owned(), interval.from().to_string().into()),
            ("to".to_owned(), interval.to().to_string().into()),
            ("keys".to_owned(), json!(keys)),
            ("again".to_owned(), again.into()),
        ]);
        if self.with_rows {
            asked.insert("rows".to_owned(), Value::Array(rows::as_json(&held.rows)?));
        }
        let call = context.calls.begin(ONE_CALL).await?;
        let answered = self.program.call(context, asked, values_of(table, &interval, keys), &[]).await;
        context.calls.end(call, answered.is_ok().then_some(ONE_CALL)).await?;
        let answered = answered?;
        // Only which rows are meant is read, so that a program cannot say something that nobody looks at.
        let places: Vec<_> = table.key.iter().map(|name| shape::key_field(name)).chain([shape::time_field(table)]).collect();
        let decoded = rows::decoded(self.rows, answered.answer.clone(), kept(table), Some(Arc::new(Schema::new(places)))).await;
        let found = decoded.and_then(Rows::without_estimates).and_then(|rows| {
            if !rows.covered.is_empty() {
                return Err(Error::invalid("a `$covered`, which is for sources alone"));
            }
            let mut wrong: BTreeMap<Key, BTreeSet<i64>> = BTreeMap::new();
            for batch in &rows.batches {
                let places = KeyTime::of(table, batch)?;
                for row in 0..batch.num_rows() {
                    let (key, time_us) = (places.key(row), places.times.value(row));
                    let slot =
                        scope.grid.slot_of_row(time_us).filter(|slot| held.slots.get(&key).is_some_and(|slots| slots.contains(slot)));
                    let Some(slot) = slot else {
                        let time = Timestamp::from_microsecond(time_us).map_or_else(|_| format!("{time_us} µs"), |time| time.to_string());
                        return Err(Error::invalid(format!("a row of {key} at {time}, and it was asked about no such row")));
                    };
                    wrong.entry(key).or_default().insert(slot);
                }
            }
            Ok(wrong)
        });
        found.map_err(|error| answered.refused(&error))
    }

    /// The wrong cells of slots: those of the table's own rows, which a repair then changes. A slot that only a repair fills is wrong as a whole.
    async fn cells(&self, context: &StepContext, table: &Table, scope: &Scope, wrong: &GapList) -> Result<Cells> {
        let mut cells = Cells::default();
        let Some(hull) = wrong.hull().filter(|_| !self.columns.is_empty()) else { return Ok(cells) };
        let schema = context.lake.describe(table).await?;
        let own = |name: &str| name == table.time || table.key.iter().any(|key| key == name);
        let mut columns = Vec::with_capacity(self.columns.len());
        for name in self.columns.iter() {
            let field = shape::find(&schema, name)?.filter(|field| !own(field.name())).ok_or_else(|| {
                Error::invalid(format!(
                    "`columns` names `{name}`, and table `{}` has no such column of values; {}",
                    table.name,
                    shape::names(&schema)
                ))
            })?;
            columns.push(field.name().clone());
        }
        columns.sort();
        let columns: Arc<[String]> = columns.into();
        let scan = ScanRequest::new(Layer::Raw)
            .in_interval(interval_of(scope, hull)?)
            .of_keys(wrong.keys().cloned().collect::<Vec<_>>())
            .with_columns(columns.to_vec());
        let mut hashes: BTreeMap<(Key, i64), Vec<RowHash>> = BTreeMap::new();
        let mut batches = context.lake.scan(table, &scan).await?;
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            let (places, of_cells) = (KeyTime::of(table, &batch)?, RowHashes::of_cells(&batch, &columns)?);
            for row in 0..batch.num_rows() {
                let Some(slot) = scope.grid.slot_of_row(places.times.value(row)) else { continue };
                let key = places.key(row);
                if wrong.contains(&key, slot) {
                    hashes.entry((key, slot)).or_default().push(of_cells.of_row(row)?);
                }
            }
        }
        for ((key, slot), mut rows) in hashes {
            cells.insert(&key, slot, BadCells { columns: columns.clone(), judged: of_hashes(&mut rows) });
        }
        Ok(cells)
    }
}

fn interval_of(scope: &Scope, slots: SlotRange) -> Result<Interval> {
    scope.grid.interval_of(slots).ok_or_else(|| Error::invalid("the time of a slot is out of range"))
}

#[async_trait]
impl Detector for CommandDetect {
    fn cells(&self) -> Vec<Vec<String>> {
        if self.columns.is_empty() { Vec::new() } else { vec![self.columns.to_vec()] }
    }

    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context).await?,
        };
        let base = if self.series.allow_empty {
            find_gaps_allow_empty(context, &scope, again).await?
        } else {
            find_gaps(context, &scope, again).await?
        };
        let table = context.table(&scope.table)?;
        let (slots, keys) = match again {
            Some(before) => (before.gaps.hull(), before.gaps.keys().cloned().collect()),
            None => (Some(scope.slots()), scope.keys.clone()),
        };
        // A call about no row proves nothing.
        let slots = slots.filter(|slots| !slots.is_empty() && base.counts.present > 0);
        let wrong = match slots {
            Some(slots) => self.judge(context, (table, &scope), slots, &keys, again.is_some()).await.map_err(blind_if_missing)?,
            None => BTreeMap::new(),
        };
        let expected = match slots {
            Some(slots) => Some(ExpectedSlots::of(&scope, slots, context.now, |name| context.calendar(name))?),
            None => None,
        };
        let mut gaps = GapList::default();
        let mut examples = Vec::new();
        for (key, slots) in &wrong {
            let counts = |slot: &i64| match again {
                Some(before) => before.gaps.contains(key, *slot),
                None => expected.as_ref().is_some_and(|expected| expected.contains(key, *slot)),
            };
            for &slot in slots.iter().filter(|slot| counts(slot)) {
                gaps.push(key, SlotRange::new(slot, slot + 1));
                if examples.len() < MAX_EXAMPLES {
                    examples.push(format!("{key} at {}: `{}` finds its row wrong", scope.grid.time_of(slot), self.program.name()));
                }
            }
        }
        let cells = self.cells(context, table, &scope, &gaps).await?;
        let mut counts = base.counts;
        (counts.defective, counts.gaps, counts.cells) = (gaps.missing(), gaps.len() as u64, cells.len());
        let mut found = base;
        (found.kind, found.counts, found.gaps, found.cells, found.examples) = (DefectKind::Invalid, counts, gaps, cells, examples);
        found.hold_until = None;
        Ok(found)
    }

    async fn asks(&self, context: &StepContext) -> Result<Option<Asks>> {
        if self.plan {
            return Ok(None);
        }
        let table = context.table(&self.series.table)?;
        let interval = Interval::parse_at(&self.series.from, &self.series.to, &table.day_zone(), context.now)?;
        let asks = Asks::new(&self.price, &table.name, interval, 0, 1).with_reads(1, if self.columns.is_empty() { 2 } else { 3 });
        Ok(Some(asks.of_program(self.program.name())))
    }
}

/// What could not be looked at is never clean.
fn blind_if_missing(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { error.of_kind(ErrorKind::Blind) } else { error }
}
