//! What a report says, as values: the same that `--json` prints. It knows no HTML and no lake.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Serialize, Serializer};

use super::csv::Csv;
use crate::ledger::Costs;
use crate::status::{Look, States, TableStatus};
use repair_core::engine::{JsonFormat, Outcome};
use repair_core::model::{DefectKind, Interval, Key};

/// A report on a run, or on a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// What it is about.
    pub subject: Subject,
    /// When it was made. The state of tables is that of this instant.
    pub made_at: Timestamp,
    /// What was found, and what came of it, in a sentence.
    pub sentence: String,
    /// The same in numbers.
    pub numbers: Numbers,
    /// How complete the tables are.
    pub tables: Vec<TableReport>,
    /// What tables hold whose key identifies a row: nothing says how many rows are expected of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// The status of a table's slots by key and day, as runs last saw it. JSON has what all days come to; [`OpenLake::status`](crate::OpenLake::status) has
    /// each of them.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "without_days")]
    pub status: Option<TableStatus>,
    /// What aggregate steps wrote that is drawn as candles.
    pub candles: Vec<CandleChart>,
    /// The workflow, and the path that the run took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// When which step worked or waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// What was wrong.
    pub defects: Listing<Defect>,
    /// What was repaired, and by whom.
    pub fixes: Listing<Fix>,
    /// What was confirmed absent, and on what evidence.
    pub exceptions: Listing<Exception>,
    /// What the run used, by strategy, with its cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    /// What all runs in the lake used, by component: the pipeline's own usage is there too, if it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lake_costs: Option<Costs>,
    /// What is left, and why: the problems of the run.
    pub left: Vec<String>,
    /// What the report cannot show, and why.
    pub notes: Vec<String>,
}

/// A year of many keys has more days than a report should.
fn without_days<S: Serializer>(status: &Option<TableStatus>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        zone: &'a str,
        days: Option<(Date, Date)>,
        keys: usize,
        total: &'a States,
        never_looked: u64,
        latest: Option<&'a Look>,
        notes: &'a [String],
    }
    let shown = status.as_ref().map(|of| Shown {
        zone: &of.zone,
        days: of.days,
        keys: of.keys.len(),
        total: &of.total,
        never_looked: of.never_looked,
        latest: of.latest(),
        notes: &of.notes,
    });
    shown.serialize(serializer)
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Subject {
    /// A run.
    Run {
        /// Its id.
        run: String,
        /// Its workflow.
        workflow: String,
        /// When it started.
        started_at: Timestamp,
        /// When it ended, if it has.
        ended_at: Option<Timestamp>,
        /// How it ended, if it has.
        outcome: Option<Outcome>,
    },
    /// A table.
    Table {
        /// Its name.
        table: String,
        /// The run that examined it last, if one did: this is what is expected of it. Without one, the workflow says what is expected.
        #[serde(skip_serializing_if = "Option::is_none")]
        run: Option<String>,
        /// The workflow of that run, or the one that was given.
        workflow: String,
    },
}

/// What was found and what came of it. For a run these are the numbers of `show` and `costs`; for a table, those of its slots now. In a table
/// whose key identifies a row, keys that have a row stand for slots, and several versions of a row are what is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Numbers {
    /// Slots in which a row is expected.
    pub expected: u64,
    /// Slots that were missing or otherwise wrong.
    pub found: u64,
    /// Slots that were repaired.
    pub repaired: u64,
    /// Slots that were confirmed to have no row.
    pub absent: u64,
    /// Slots that are still missing or wrong.
    pub left: u64,
}

/// What a column of a picture stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day of the table's zone.
    Day,
    /// Seven days.
    Week,
    /// A month.
    Month,
    /// The whole interval.
    Whole,
}

impl Bucket {
    /// The word, such as `hour`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Whole => "interval",
        }
    }
}

/// The slots of one key in one stretch of time. Slots that nothing expects do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cell {
    /// Slots in which a row is expected.
    pub expected: u32,
    /// Of these, slots with a row of the table's own.
    pub own: u32,
    /// Slots with only a repaired row.
    pub repaired: u32,
    /// Slots without a row that are confirmed absent.
    pub absent: u32,
}

impl Cell {
    /// Slots with neither a row nor a reason.
    pub fn missing(self) -> u32 {
        self.expected.saturating_sub(self.own + self.repaired + self.absent)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.own += other.own;
        self.repaired += other.repaired;
        self.absent += other.absent;
    }
}

/// The cells of one key, one for each stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyCells {
    /// The key.
    pub key: Key,
    /// Its cells, in the order of the stretches.
    pub cells: Vec<Cell>,
}

/// How complete a table is, by key and stretch of time. Before is what the table holds of its own; after is that with its live repairs, and
/// with what is confirmed absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// The detect step that says what is expected.
    pub step: String,
    /// What was examined.
    pub interval: Interval,
    /// The calendar that says which slots are expected.
    pub calendar: String,
    /// The zone in which times are shown.
    pub zone: String,
    /// How often a series has a row.
    pub cadence: String,
    /// What a stretch is.
    pub bucket: Bucket,
    /// When each stretch begins. Stretches in which nothing is expected are left out.
    pub starts: Vec<Timestamp>,
    /// The keys that are shown, in order.
    pub keys: Vec<KeyCells>,
    /// How many keys there are. If not all are shown, these are the least complete ones.
    pub all_keys: usize,
    /// All keys and stretches together.
    pub total: CellSum,
    /// One series, with its repaired stretches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}

/// What a table holds whose key identifies a row, see [`Rows::Unique`](repair_core::model::Rows::Unique), and what repairs make of it. Which
/// rows it should hold is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Held {
    /// The table.
    pub table: String,
    /// What was examined. A row belongs to it if its time does.
    pub interval: Interval,
    /// The zone of its days.
    pub zone: String,
    /// Rows of the table's own, all versions.
    pub rows: u64,
    /// Rows that could not be read. They are in no other number.
    pub unreadable: u64,
    /// Keys with a row of the table's own.
    pub keys: u64,
    /// Rows with several versions that no repair replaces.
    pub several: u64,
    /// The versions of these beyond the first.
    pub surplus: u64,
    /// Rows with several versions that a repair replaces.
    pub settled: u64,
    /// Rows whose versions have changed since a repair replaced them, and which have one version now.
    pub changed: u64,
    /// Rows in the repaired view.
    pub shown: u64,
    /// What the overlay has on record, without what was undone.
    pub on_record: OnRecord,
    /// The rows of the table's own, by day, from the first day of the interval to the last. Empty if there are too many days to be counted one
    /// by one.
    pub days: Vec<HeldDay>,
}

/// The repairs of rows that the overlay of a table holds, by what they do. A row counts once, by its newest repair; a repair that was undone does
/// not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OnRecord {
    /// Rows that the table lacked.
    pub added: u64,
    /// Rows that replace others, such as several versions.
    pub replaced: u64,
    /// Rows that are removed.
    pub removed: u64,
    /// Rows of which cells are changed.
    pub patched: u64,
    /// Rows that a source confirmed not to exist.
    pub absent: u64,
}

impl OnRecord {
    /// All repairs of rows.
    pub fn repairs(&self) -> u64 {
        self.added + self.replaced + self.removed + self.patched
    }
}

/// The rows of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldDay {
    /// When it begins, in the zone of the table.
    pub from: Timestamp,
    /// Its rows, all versions.
    pub rows: u64,
}

/// A sum of cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CellSum {
    /// Slots in which a row is expected.
    pub expected: u64,
    /// Of these, slots with a row of the table's own.
    pub own: u64,
    /// Slots with only a repaired row.
    pub repaired: u64,
    /// Slots without a row that are confirmed absent.
    pub absent: u64,
    /// Slots with neither a row nor a reason.
    pub missing: u64,
    /// Pairs of key and stretch in which something is expected.
    pub cells: u64,
    /// Of these, those that are complete before repairs.
    pub complete_before: u64,
    /// Of these, those that are complete with repairs and confirmed absences.
    pub complete_after: u64,
}

impl CellSum {
    pub(super) fn add(&mut self, cell: Cell) {
        if cell.expected == 0 {
            return;
        }
        self.expected += u64::from(cell.expected);
        self.own += u64::from(cell.own);
        self.repaired += u64::from(cell.repaired);
        self.absent += u64::from(cell.absent);
        self.missing += u64::from(cell.missing());
        self.cells += 1;
        self.complete_before += u64::from(cell.own >= cell.expected);
        self.complete_after += u64::from(cell.missing() == 0);
    }
}

/// The values of one key over a part of the interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Series {
    /// The key.
    pub key: Key,
    /// The column.
    pub column: String,
    /// The expected slots, in order.
    pub points: Vec<Point>,
}

/// One expected slot of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// When the slot begins.
    pub at: Timestamp,
    /// Its value, if it has one.
    pub value: Option<f64>,
    /// The strategy that repaired it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired_by: Option<String>,
    /// If it is an estimate: the interval in which the true value lies in 95 % of cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated: Option<[f64; 2]>,
    /// Whether it is confirmed absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

/// Candles of several keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CandleChart {
    /// The step that wrote them.
    pub step: String,
    /// The table.
    pub table: String,
    /// The zone in which times are shown.
    pub zone: String,
    /// By key: those of whose rows most were missing.
    pub keys: Vec<KeyCandles>,
    /// How many keys there are.
    pub all_keys: usize,
}

/// The candles of one key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeyCandles {
    /// The key.
    pub key: Key,
    /// In order of time.
    pub candles: Vec<Candle>,
}

/// One candle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Candle {
    /// When it begins.
    pub at: Timestamp,
    /// Open, high, low, close; none where there was nothing to compute them from.
    pub prices: Option<[f64; 4]>,
    /// Whether all that it was computed from was there.
    pub complete: bool,
    /// How many repaired rows are in it.
    pub repaired: u64,
}

/// The steps of a workflow, and the ways between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Graph {
    /// The steps, in the order of the text.
    pub nodes: Vec<Node>,
    /// The ways between them.
    pub edges: Vec<Edge>,
}

/// A step in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What kind of step it is, with its plug-in.
    pub what: String,
    /// How often the run entered it.
    pub visits: u32,
    /// Whether its last attempt failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// A way from one step to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Edge {
    /// The index of the step where it begins.
    pub from: usize,
    /// The index of the step to which it leads.
    pub to: usize,
    /// When it is taken.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Whether it is taken when an error is caught.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub catches: bool,
    /// How often the run took it.
    pub taken: u32,
}

/// When which step worked or waited.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timeline {
    /// When the run started.
    pub from: Timestamp,
    /// When it ended, or when its last event was.
    pub to: Timestamp,
    /// The steps, in the order in which the run first entered them.
    pub rows: Vec<TimelineRow>,
}

/// The times of one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TimelineRow {
    /// The step.
    pub step: String,
    /// In order.
    pub spans: Vec<Span>,
    /// Spans beyond those that are kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a step did for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Doing {
    /// An attempt that succeeded.
    Succeeded,
    /// An attempt that failed.
    Failed,
    /// An attempt that has not ended.
    Working,
    /// It waited, as it was asked to.
    Waited,
    /// It waited before a retry.
    Backoff,
}

/// A stretch in which a step did one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// What it did.
    pub doing: Doing,
}

/// Rows of a table in a report: the first ones, and how many there are. All of them are in its CSV.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Listing<T> {
    /// How many there are.
    pub total: u64,
    /// The first [`MOST_ROWS`](super::MOST_ROWS).
    pub rows: Vec<T>,
    /// All of them, as text.
    #[serde(skip)]
    pub(super) csv: Csv,
}

/// Slots in a row that were missing or otherwise wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Defect {
    /// The table.
    pub table: String,
    /// The step that found it.
    pub step: String,
    /// What is wrong.
    pub kind: DefectKind,
    /// The key.
    pub key: Key,
    /// When the first slot begins.
    pub from: Timestamp,
    /// When the last slot ends.
    pub to: Timestamp,
    /// How many slots.
    pub slots: u64,
    /// How many of them a repaired row fills or replaces now.
    pub repaired: u64,
    /// How many are confirmed absent.
    pub absent: u64,
    /// How many a row of the table's own fills by now.
    pub arrived: u64,
}

/// How far the true values of some estimates probably are from them: in 95 % of cases, if the model that estimated them is right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Within {
    /// How many slots have such an estimate.
    pub slots: u64,
    /// Half the interval of the slot where it is shortest, in the column's unit.
    pub least: f64,
    /// Half the interval of the slot where it is longest.
    pub most: f64,
}

impl Within {
    /// Of one slot, by the ends of its interval.
    pub(crate) fn of([low, high]: [f64; 2]) -> Self {
        let half = (high - low) / 2.0;
        Self { slots: 1, least: half, most: half }
    }

    /// Of the slots of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { slots: self.slots + other.slots, least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

/// A number to three significant digits.
fn short(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let magnitude = number.abs().log10().floor();
    let decimals = (0u8..=12).find(|decimals| magnitude + f64::from(*decimals) >= 2.0).unwrap_or(12);
    let text = format!("{number:.*}", usize::from(decimals));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// As people read it: `±0.5`, or `±0.5 to ±1.8`.
impl std::fmt::Display for Within {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, most) = (short(self.least), short(self.most));
        if least == most { write!(f, "±{most}") } else { write!(f, "±{least} to ±{most}") }
    }
}

/// Slots in a row that one step repaired in one way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fix {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// When the first slot begins.
    pub from: Timestamp,
    /// When the last slot ends.
    pub to: Timestamp,
    /// How many slots.
    pub slots: u64,
    /// `insert`, `replace` or `patch`.
    pub op: String,
    /// The strategy.
    pub strategy: String,
    /// The source of the rows.
    pub source: String,
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// When the first of them was repaired.
    pub at: Timestamp,
    /// For each column whose values are estimates with an interval, how far the true values probably are from them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub within: BTreeMap<String, Within>,
    /// The retraction that hides them, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retracted_by: Option<String>,
}

impl Fix {
    /// How far true values probably are from the estimates, in words: `temp ±0.5 to ±1.8`.
    pub(crate) fn within_text(&self) -> String {
        self.within.iter().map(|(column, within)| format!("{column} {within}")).collect::<Vec<_>>().join(", ")
    }
}

/// Slots in a row that are confirmed to have no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Exception {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// When the first slot begins.
    pub from: Timestamp,
    /// When the last slot ends.
    pub to: Timestamp,
    /// How many slots.
    pub slots: u64,
    /// The source that was asked.
    pub source: String,
    /// What it answered.
    pub answer: String,
    /// When it was asked.
    pub at: Timestamp,
    /// When it is asked again.
    pub recheck_after: Timestamp,
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// The retraction that hides it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retracted_by: Option<String>,
}
