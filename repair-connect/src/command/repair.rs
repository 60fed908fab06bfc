//! The repairer `command`: gives a program the slots that are wrong, with rows around them if it wants some, and takes the rows that it computes.
//!
//! A unit is judged and cut as a request to a source is: [`Backfill`] asks a source that stands for the program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use async_trait::async_trait;
use futures::TryStreamExt;
use repair_core::builtin::Period;
use repair_core::builtin::repair::{Backfill, BackfillConfig};
use repair_core::lake::shape::KeyTime;
use repair_core::lake::{Layer, ScanRequest};
use repair_core::model::{Estimates, Findings, Fix, Interval, Key, SlotGrid, SlotRange, Table, Unit};
use repair_core::plugin::{Answer, Limits, PlannedUnits, PluginKind, Reads, Registry, Repairer, Request, Source, StepContext};
use repair_core::text::visible;
use repair_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use crate::allowed::Options;
use crate::columns::TableColumns;
use crate::command::program::{Program, config, described};
use crate::command::source::limits;
use crate::command::{NAME, OF_TABLE, ROW_BYTES, id_of, kept, values_of};
use crate::rows::{self, Intervals, RowFormat};

/// How many rows around the slots a program may be given. They are held in memory, and written as JSON.
const MOST_AROUND: usize = 1_000_000;

config! {
    /// The configuration of the repairer.
    pub struct CommandRepairConfig {
        /// How it writes rows: `jsonl` (an object a line, the default), `csv` or `arrow`.
        #[serde(default)]
        pub rows: RowFormat,
        /// How much time before and after the slots it is given the rows of, as readers see them, e.g. `7d`; by default none.
        #[serde(default)]
        pub around: Option<Period>,
        /// What repaired rows name as their source; `command` by default.
        #[serde(default)]
        pub name: Option<String>,
        /// The most slots, over all keys, that one call repairs; 10,000 by default.
        #[serde(default)]
        pub rows_per_request: Option<u64>,
        /// The most keys that one call repairs; 100 by default.
        #[serde(default)]
        pub keys_per_request: Option<usize>,
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.repairer(NAME, "gives a program what is wrong, and takes its rows", move |config: CommandRepairConfig| {
        CommandRepair::new(&config, &options)
    });
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

struct CommandRepair {
    asking: Arc<Asking>,
    name: String,
    backfill: Backfill,
}

/// What all units share.
struct Asking {
    program: Program,
    rows: RowFormat,
    around: Option<Period>,
    limits: Limits,
    columns: TableColumns,
}

impl CommandRepair {
    fn new(config: &CommandRepairConfig, options: &Options) -> Result<Self> {
        let name = config.name.clone().unwrap_or_else(|| NAME.to_owned());
        if name.trim().is_empty() {
            return Err(Error::invalid("`name` is empty; write what repaired rows name as their source, or remove it"));
        }
        let asking = Asking {
            program: Program::new(config.program(), &OF_TABLE, ROW_BYTES, options)?,
            rows: config.rows,
            around: config.around,
            limits: limits(config.rows_per_request, config.keys_per_request)?,
            columns: TableColumns::default(),
        };
        let backfill = BackfillConfig { source: name.clone(), recheck_after: None, quiet_spell: None, neighbours: Some(false) };
        Ok(Self { asking: Arc::new(asking), name, backfill: Backfill::new(&backfill, None).of_computed_rows() })
    }

    /// The same context, in which the program is the only source, and where the intervals of its estimates go.
    fn within(&self, context: &StepContext, unit: Option<(&Findings, &Unit)>) -> (StepContext, Arc<Mutex<Estimates>>) {
        let unit = unit.map(|(findings, unit)| Asked {
            kind: findings.kind.as_str(),
            grid: findings.scope.grid,
            wanted: unit.wanted.iter().map(|wanted| (wanted.key.clone(), wanted.slots.clone())).collect(),
            cells: cells_of(findings, unit),
        });
        let estimates: Arc<Mutex<Estimates>> = Arc::default();
        let source: Arc<dyn Source> = Arc::new(OfUnit { asking: self.asking.clone(), unit, estimates: estimates.clone() });
        (context.clone().with_sources([(self.name.clone(), source)]), estimates)
    }
}

/// The wrong cells of each slot of which the rest of the row is right.
fn cells_of(findings: &Findings, unit: &Unit) -> BTreeMap<(Key, i64), Vec<String>> {
    let of_wanted = unit.wanted.iter().flat_map(|wanted| wanted.slots.iter().map(move |slots| (&wanted.key, *slots)));
    let cells = of_wanted
        .flat_map(|(key, slots)| findings.cells.of_key(key, slots).map(move |(slot, cells)| ((key.clone(), slot), cells.columns.to_vec())));
    cells.collect()
}

#[async_trait]
impl Repairer for CommandRepair {
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        self.backfill.plan(&self.within(context, None).0, findings).await
    }

    fn reads(&self) -> Reads {
        if self.asking.around.is_some() { Reads::EachUnit } else { Reads::Nothing }
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let (within, estimates) = self.within(context, Some((findings, unit)));
        let mut fix = self.backfill.repair(&within, findings, unit).await?;
        // No code that can panic runs under the lock, so the data behind a poisoned lock is intact.
        fix.estimates.extend(std::mem::take(&mut *estimates.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(fix)
    }
}

/// What a unit asks for.
struct Asked {
    kind: &'static str,
    grid: SlotGrid,
    wanted: BTreeMap<Key, Vec<SlotRange>>,
    cells: BTreeMap<(Key, i64), Vec<String>>,
}

impl Asked {
    fn wants(&self, key: &Key, slot: i64) -> bool {
        self.wanted.get(key).is_some_and(|slots| slots.iter().any(|slots| slots.contains(slot)))
    }

    /// The slots, each as the row that belongs there, without its values.
    fn as_json(&self, table: &Table) -> Vec<Value> {
        let mut all = Vec::new();
        for (key, slots) in &self.wanted {
            for slot in slots.iter().flat_map(|slots| slots.first..slots.end) {
                let mut row: Map<String, Value> =
                    table.key.iter().zip(key.values()).map(|(column, value)| (column.clone(), value.into())).collect();
                row.insert(table.time.clone(), self.grid.time_of(slot).to_string().into());
                if let Some(columns) = self.cells.get(&(key.clone(), slot)) {
                    row.insert("$columns".to_owned(), columns.clone().into());
                }
                all.push(row.into());
            }
        }
        all
    }
}

/// The program as a source for one unit.
struct OfUnit {
    asking: Arc<Asking>,
    unit: Option<Asked>,
    estimates: Arc<Mutex<Estimates>>,
}

#[async_trait]
impl Source for OfUnit {
    fn limits(&self) -> Limits {
        self.asking.limits
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let asking = &self.asking;
        let unit = self.unit.as_ref().ok_or_else(|| Error::internal("a program is asked for no unit"))?;
        let (table, program) = (&request.table, &asking.program);
        let columns = asking.columns.of(context, table, None).await?;
        let id = id_of(&[&context.run, &context.step, "repair"], table, &request.interval, &request.keys);
        let mut asked = program.request("repair", context, &id);
        asked.extend([
            ("table".to_owned(), described(table, columns.as_deref())),
            ("from".to_owned(), request.interval.from().to_string().into()),
            ("to".to_owned(), request.interval.to().to_string().into()),
            ("defect".to_owned(), unit.kind.into()),
            ("wanted".to_owned(), unit.as_json(table).into()),
        ]);
        if let Some(around) = asking.around {
            asked.insert("rows".to_owned(), rows_around(context, request, unit, around).await?.into());
        }
        let answered = program.call(context, asked, values_of(table, &request.interval, &request.keys), &[]).await?;
        let decoded = rows::decoded(asking.rows, answered.answer.clone(), kept(table), columns).await;
        let checked = decoded.and_then(|rows| {
            if !rows.covered.is_empty() {
                return Err(Error::invalid("a `$covered`, which is for sources alone: a repair confirms nothing absent"));
            }
            let mut intervals = rows.estimated.iter().peekable();
            let (mut estimates, mut before) = (Estimates::default(), 0);
            // A source may return what lies between gaps. A program was given each slot, and must keep to them.
            for batch in &rows.batches {
                let places = KeyTime::of(table, batch)?;
                for row in 0..batch.num_rows() {
                    let (key, time_us) = (places.key(row), places.times.value(row));
                    let slot = unit.grid.slot_of_us(time_us);
                    if !unit.wants(&key, slot) {
                        let time = unit.grid.time_of(slot);
                        return Err(Error::invalid(format!("a row of {key} at {time}, which was not requested")));
                    }
                    if let Some((_, of_row)) = intervals.next_if(|(number, _)| *number == before + row) {
                        add(&mut estimates, batch, row, (&key, slot), of_row)?;
                    }
                }
                before += batch.num_rows();
            }
            Ok((rows, estimates))
        });
        let (rows, estimates) = checked.map_err(|error| answered.refused(&error))?;
        self.estimates.lock().unwrap_or_else(PoisonError::into_inner).extend(estimates);
        Ok(Answer::new(rows.batches).with_said(format!("`{}`, exit code {}", program.name(), answered.code)))
    }
}

/// Adds the intervals of a row.
///
/// # Errors
/// `invalid` if one is of a column in which the row has no number, or ends before it begins.
fn add(estimates: &mut Estimates, batch: &RecordBatch, row: usize, (key, slot): (&Key, i64), intervals: &Intervals) -> Result<()> {
    for (column, [low, high]) in intervals {
        let is_number = batch.column_by_name(column).is_some_and(|values| values.data_type().is_numeric() && values.is_valid(row));
        if !is_number {
            return Err(Error::invalid(format!("an interval of `{}` for {key}, where the row has no number", visible(column))));
        }
        if low > high {
            return Err(Error::invalid(format!("an interval of `{column}` for {key} from {low} to {high}, which ends before it begins")));
        }
        estimates.insert_interval(key, slot, column, [*low, *high]);
    }
    Ok(())
}

/// The rows around the slots of a unit, as readers see them, without what is wrong.
async fn rows_around(context: &StepContext, request: &Request, unit: &Asked, around: Period) -> Result<Vec<Value>> {
    let out_of_range = |error: jiff::Error| Error::invalid("`around` is out of range").because(error);
    let from = request.interval.from().checked_sub(around.signed()).map_err(out_of_range)?;
    let to = request.interval.to().checked_add(around.signed()).map_err(out_of_range)?;
    let scan = ScanRequest::new(Layer::Repaired).in_interval(Interval::new(from, to)?).of_keys(request.keys.clone());
    let mut batches = match context.lake.scan(&request.table, &scan).await {
        Ok(batches) => batches,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut all, mut count) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await? {
        context.check_cancelled()?;
        let places = KeyTime::of(&request.table, &batch)?;
        // Of a row with wrong cells the rest is right; it is given, and `$columns` of the request says what is not.
        let is_right = |row: usize| {
            let (key, slot) = (places.key(row), unit.grid.slot_of_us(places.times.value(row)));
            !unit.wants(&key, slot) || unit.cells.contains_key(&(key, slot))
        };
        let keep: Vec<bool> = (0..batch.num_rows()).map(is_right).collect();
        count += keep.iter().filter(|keep| **keep).count();
        if count > MOST_AROUND {
            return Err(Error::invalid(format!(
                "there are more than {MOST_AROUND} rows around the slots of one call; shorten `around`, or lower `keys_per_request`"
            )));
        }
        all.push(rows::only(&batch, keep)?);
    }
    rows::as_json(&all)
}
