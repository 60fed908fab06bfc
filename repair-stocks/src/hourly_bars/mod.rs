//! The aggregator `stocks.hourly-bars`: aggregates minute bars to clock hours (UTC), and counts what each hour is made of.
//!
//! It reads only those minutes of the repaired view that the calendar expects. The table it writes has these columns:
//!
//! | column | content |
//! | --- | --- |
//! | `symbol` | the key, under the names of the table's own key columns |
//! | `hour` | when the hour begins, under the name of the table's own time column |
//! | `open`, `high`, `low`, `close` | the open of the first bar, the highest high, the lowest low, the close of the last bar; null in an hour without a bar |
//! | `volume` | the sum over all bars; in an hour without a bar, 0 if the hour is complete, else null |
//! | `expected` | minutes in which the market was open |
//! | `observed` | expected minutes with a bar of the table's own |
//! | `repaired` | expected minutes with only a repaired bar |
//! | `absent` | expected minutes without a bar that are confirmed absent |
//! | `complete` | whether every expected minute is observed, repaired or absent |
//!
//! There is a row for each symbol and each hour with at least one expected minute, even if no bar arrived in the whole hour.
//!
//! **Which hours.** All hours that the interval of the findings touches, each as a whole: where the interval begins or ends within an hour,
//! the minutes before and after are expected, read and counted like the others. So an hour is complete only if all of it is, however much of
//! it was searched for gaps.
//!
//! **What is not computed again.** Where bars and hours lie in folders by time, each folder of hours is computed only if something has changed: the
//! bars of its time, their repairs, what is confirmed absent, what is expected, the hours themselves, or this program.
//!
//! **What is left alone.** A lake replaces whole partitions. Hours of the same partitions that do not belong to this step (other times of
//! the day, other symbols) are read first and written back unchanged. Two steps that write the same partitions must not run at once: the
//! later one would write back what it read before the earlier one was done.

mod assemble;
mod kept;
mod known;
mod stretches;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use repair_core::builtin::target::{self, target};
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::model::Usage;
use repair_core::model::open_slots;
use repair_core::model::{Cadence, Calendar, Format, Interval, PartitionUnit, Scope, Table, TimeMark};
use repair_core::plugin::{AggregateRequest, Aggregated, Aggregator, Drawing, PluginKind, Registry, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::assemble::{Hour, Summary};
use self::known::Known;
use crate::bar::{CLOSE, HIGH, LOW, OPEN, VOLUME};

/// How many hours of all keys one rollup of the lake may cover, open or not: those that are open are held in memory, at about 300 bytes each until
/// they are written.
const MOST_HOURS_AT_ONCE: u64 = 1 << 19;
/// How many of them are read, in a lake of files, before they are written while the next ones are read: fewer than one rollup may cover, since of what is
/// read, all is in memory. A lake that is queried answers as much as it may with one query.
const HOURS_OF_STRETCH: u64 = MOST_HOURS_AT_ONCE / 4;
/// How many stretches of a lake of files are read at the same time, so that one has threads while another is put together by one.
const STRETCHES_AT_ONCE: usize = 2;
/// How many hours are written at once, held in memory at about 100 bytes each: those of a partition, or of the whole table if it has none.
const MOST_HOURS: usize = 5_000_000;

/// The configuration of `stocks.hourly-bars`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HourlyBarsConfig {
    /// The table of bars to aggregate, which is the table of the findings that `of` names.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The table to write: one of `tables`, or the name of a new one, stored in a folder of that name with a folder for each day.
    #[serde(deserialize_with = "target::into_name")]
    pub into: String,
    /// What to do with an incomplete hour: `mark` writes it with `complete` false, `skip` leaves it out; default `mark`.
    #[serde(default)]
    pub incomplete: Incomplete,
}

/// What to do with an incomplete hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Incomplete {
    /// Write it, with `complete` false.
    #[default]
    Mark,
    /// Leave it out.
    Skip,
}

pub(crate) fn register(registry: &mut Registry) {
    registry.aggregator(
        "stocks.hourly-bars",
        "aggregates minute bars to hours, and counts what each hour is made of",
        |config: HourlyBarsConfig| Ok(HourlyBars { config }),
    );
    registry.needs_one_row(PluginKind::Aggregator, "stocks.hourly-bars");
    let [open, high, low, close] = [OPEN, HIGH, LOW, CLOSE].map(str::to_owned);
    let [time, complete, repaired] = ["hour", "complete", "repaired"].map(str::to_owned);
    let candles = Drawing::Candles { time, open, high, low, close, complete, repaired };
    registry.drawn_as(PluginKind::Aggregator, "stocks.hourly-bars", candles);
}

/// The aggregator `stocks.hourly-bars`.
struct HourlyBars {
    config: HourlyBarsConfig,
}

/// The hours of a stretch, before they are written.
#[derive(Default)]
struct Read {
    hours: Vec<RecordBatch>,
    usage: Usage,
    /// What was found, by part.
    summaries: Vec<(usize, Summary)>,
}

/// The inputs of one aggregation.
struct Job<'a> {
    context: &'a StepContext,
    scope: &'a Scope,
    table: &'a Table,
    into: Table,
    calendar: &'a dyn Calendar,
    /// The columns of the table of bars.
    columns: SchemaRef,
    incomplete: Incomplete,
    /// The hours, cut where the partitions of the hours begin.
    parts: Vec<Interval>,
}

#[async_trait]
impl Aggregator for HourlyBars {
    fn check(&self, tables: &BTreeMap<String, Table>, _: Option<&str>) -> Result<()> {
        // That there is no such table is reported where the table is looked for.
        let Some(table) = tables.get(&self.config.table) else { return Ok(()) };
        let into = target(tables, &self.config.into, Some(&table.name), || implied(&self.config.into, table))?;
        check_bars(table)?;
        check_hours(table, &into)
    }

    fn columns(&self) -> Vec<(String, Vec<String>)> {
        vec![(self.config.table.clone(), measures().into_iter().map(|measure| measure.column).collect())]
    }

    fn needs_gaps(&self) -> bool {
        false
    }

    async fn aggregate(&self, context: &StepContext, request: AggregateRequest<'_>) -> Result<Aggregated> {
        let scope = self.scope(request)?;
        let table = context.table(&self.config.table)?;
        let into = target(&context.tables, &self.config.into, Some(&table.name), || implied(&self.config.into, table))?;
        check_bars(table)?;
        check_hours(table, &into)?;
        let hours = stretches::whole(PartitionUnit::Hour, &scope.interval)?;
        let unit = into.partition_by.first().map(|by| by.unit);
        let job = Job {
            context,
            scope,
            table,
            into,
            parts: stretches::cut(&hours, unit, 0)?,
            calendar: context.calendar(&scope.calendar)?.as_ref(),
            columns: context.lake.describe(table).await?,
            incomplete: self.config.incomplete,
        };
        let known = Known::of(&job, &job.parts).await?;
        let mut summaries: Vec<Summary> = match &known {
            Some(known) => known.holds().iter().map(|holds| holds.unwrap_or_default()).collect(),
            None => vec![Summary::default(); job.parts.len()],
        };
        let most_hours = MOST_HOURS_AT_ONCE / scope.keys.len().max(1) as u64;
        let at_once = if context.lake.is_queried() { MOST_HOURS_AT_ONCE } else { HOURS_OF_STRETCH };
        let mut stretches = Vec::new();
        for changed in job.changed(known.as_ref()) {
            stretches.extend(stretches::cut(&changed, unit, at_once / scope.keys.len().max(1) as u64)?);
        }
        let mut usage = Usage::default();
        // A query may cost, so no more of them run than one.
        let at_once = if context.lake.is_queried() { 1 } else { STRETCHES_AT_ONCE };
        let reads = stream::iter(stretches.clone()).map(|stretch| job.read(stretch, most_hours)).buffered(at_once);
        futures::pin_mut!(reads);
        let mut next = reads.next().await.transpose()?;
        for (done, stretch) in (1u64..).zip(&stretches) {
            let Some(read) = next.take() else { break };
            // The next stretches are read while this one is written. What was begun is ended, even if the other fails.
            let (written, after) = futures::join!(job.write(stretch, read, &mut summaries), reads.next());
            usage += written?;
            next = after.transpose()?;
            context.progress.advance(&context.step, done, stretches.len() as u64);
        }
        if let Some(known) = known.filter(|_| !stretches.is_empty()) {
            usage += known.keep(&job, &job.parts, &summaries).await;
        }
        let mut summary = Summary::default();
        summaries.iter().for_each(|part| summary += *part);
        let output = json!({
            "table": job.into.name,
            "location": job.into.location,
            "rows": summary.rows,
            "kept": summary.kept,
            "hours": summary.hours,
            "complete": summary.complete,
            "incomplete": summary.hours - summary.complete,
            "expected": summary.expected,
            "observed": summary.observed,
            "repaired": summary.repaired,
            "absent": summary.absent,
            "missing": summary.missing(),
        });
        Ok(Aggregated::new(output).with_usage(usage))
    }
}

impl HourlyBars {
    /// The scope of the findings, which alone define what was expected.
    fn scope<'a>(&self, request: AggregateRequest<'a>) -> Result<&'a Scope> {
        let Some(findings) = request.findings else {
            return Err(Error::invalid(
                "hourly bars need the findings of a detect step, which define what was expected; name the step in `of`",
            ));
        };
        let looked_at = &findings.scope.table;
        if !findings.scope.lifetimes.is_empty() {
            return Err(Error::invalid(format!(
                "hourly bars expect all stocks at the same times, and the findings expect some stocks of table `{looked_at}` at other times (`since`, \
                 `until` or `calendar` of `keys`); aggregate by `sql`, or name a detect step for stocks that are expected throughout in `of`"
            )));
        }
        if *looked_at == self.config.table {
            Ok(&findings.scope)
        } else {
            Err(Error::invalid(format!(
                "the step aggregates table `{0}`, but its findings are about table `{looked_at}`; name a detect step for `{0}` in `of`",
                self.config.table
            )))
        }
    }
}

impl Job<'_> {
    /// The stretches of time of which the hours are to be computed, in order.
    fn changed(&self, known: Option<&Known>) -> Vec<Interval> {
        let mut all: Vec<Interval> = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            if known.is_some_and(|known| known.holds().get(at).is_some_and(Option::is_some)) {
                continue;
            }
            match all.last_mut().filter(|last| last.to() == part.from()) {
                Some(last) => *last = last.hull(part),
                None => all.push(*part),
            }
        }
        all
    }

    /// The part whose partition holds an hour.
    fn part_of(&self, hour: Timestamp) -> usize {
        self.parts.partition_point(|part| part.from() <= hour).saturating_sub(1)
    }

    /// Reads the hours of a stretch.
    async fn read(&self, stretch: Interval, most_hours: u64) -> Result<Read> {
        let mut read = Read::default();
        let mut count = 0;
        for piece in stretches::cut(&stretch, Some(PartitionUnit::Hour), most_hours)? {
            self.context.check_cancelled()?;
            let hours = self.hours(&piece, &mut read).await?;
            count += hours.iter().map(RecordBatch::num_rows).sum::<usize>();
            if count > MOST_HOURS {
                return Err(Error::invalid(format!(
                    "more than {MOST_HOURS} hours would be written at once; give table `{}` a finer `partition_by`, e.g. `[{{ date: day }}]`",
                    self.into.name
                )));
            }
            read.hours.extend(hours);
        }
        if read.hours.is_empty() {
            // A table without rows has columns, too.
            let nothing = RecordBatch::new_empty(self.rollup(&stretch, Vec::new()).schema(self.table, &self.columns)?);
            read.hours.push(assemble::rows(&self.into, &self.scope.keys, &[], &nothing)?);
        }
        Ok(read)
    }

    /// Writes the hours of a stretch that consists of whole partitions, except at the edges of the interval.
    async fn write(&self, stretch: &Interval, read: Read, summaries: &mut [Summary]) -> Result<Usage> {
        let Read { hours, summaries: found, mut usage } = read;
        let partitions = match self.into.partition_by.first() {
            Some(by) => Some(stretches::whole(by.unit, stretch)?),
            None => None,
        };
        let kept = kept::read(self.context.lake.as_ref(), &self.into, self.scope, stretch, partitions.as_ref()).await?;
        usage += kept.usage;
        for (part, found) in found {
            if let Some(summary) = summaries.get_mut(part) {
                *summary += found;
            }
        }
        for time in kept.times(&self.into)? {
            if let Some(summary) = summaries.get_mut(self.part_of(time)) {
                summary.kept += 1;
            }
        }
        let replaced = partitions.unwrap_or_else(|| kept.hull.map_or(*stretch, |hull| stretch.hull(&hull)));
        let rows = kept.beside(&self.into, hours)?;
        usage += self.context.lake.replace(&self.into, &replaced, rows).await?;
        Ok(usage)
    }

    /// The sums of the hours of a piece of time.
    fn rollup(&self, piece: &Interval, within: Vec<Interval>) -> Rollup {
        Rollup {
            interval: *piece,
            within,
            keys: self.scope.keys.clone(),
            every: Cadence::HOUR,
            measures: measures(),
            absent_as_of: Some(self.context.entered_at),
        }
    }

    /// The hours of a piece of time; `None` if the market was closed throughout.
    async fn hours(&self, piece: &Interval, read: &mut Read) -> Result<Option<RecordBatch>> {
        let grid = self.table.grid()?;
        let slots = grid.slots_in(piece);
        let open = self.calendar.open(piece)?;
        let expected = open_slots(grid, slots, &open);
        if expected.is_empty() {
            return Ok(None);
        }
        // One look at the rows: a bar that arrives meanwhile is counted as a bar or not at all, but never also as absent.
        let rollup = self.rollup(piece, open);
        let (rolled, took) = self.context.lake.rollup(self.table, &rollup).await?;
        read.usage += took;
        let rolled = assemble::one(&rollup.schema(self.table, &self.columns)?, rolled)?;
        let mut hours = assemble::hours(self.table, &self.scope.keys, &expected, &rolled)?;
        let is_written = |hour: &Hour| self.incomplete == Incomplete::Mark || hour.is_complete();
        for hour in &hours {
            let begins =
                Timestamp::from_second(hour.hour * 3_600).map_err(|error| Error::invalid("an hour is out of range").because(error))?;
            let part = self.part_of(begins);
            if read.summaries.last().is_none_or(|(last, _)| *last != part) {
                read.summaries.push((part, Summary::default()));
            }
            if let Some((_, summary)) = read.summaries.last_mut() {
                summary.add(hour);
                summary.rows += u64::from(is_written(hour));
            }
        }
        hours.retain(is_written);
        assemble::rows(&self.into, &self.scope.keys, &hours, &rolled).map(Some)
    }
}

/// The aggregates of an hour.
fn measures() -> Vec<Measure> {
    let measure = |column: &str, function| Measure { name: column.to_owned(), column: column.to_owned(), function };
    vec![
        measure(OPEN, Function::First),
        measure(HIGH, Function::Max),
        measure(LOW, Function::Min),
        measure(CLOSE, Function::Last),
        measure(VOLUME, Function::Sum),
    ]
}

/// The table that a new name implies: a folder for each day, and the key of the table of bars.
fn implied(name: &str, table: &Table) -> Table {
    Table::new(name, Format::Parquet, "hour")
        .with_partition("date", PartitionUnit::Day)
        .with_key(table.key.clone())
        .with_cadence(Cadence::HOUR)
}

fn check_bars(table: &Table) -> Result<()> {
    table.check_one_row("`stocks.hourly-bars`")?;
    let grid = table.grid()?;
    let cadence = grid.cadence();
    if !grid.is_plain() {
        return Err(Error::invalid(format!(
            "the bars of table `{}` do not begin at whole multiples of {cadence}, by `at` or `before` under `cadence`; aggregate it with `sql`",
            table.name
        )));
    }
    if Cadence::HOUR.seconds().is_multiple_of(cadence.seconds()) {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "an hour is not a multiple of {cadence}, the cadence of table `{}`; aggregate it with `sql`",
            table.name
        )))
    }
}

/// Checks that a table can hold the hours of a table of bars.
fn check_hours(table: &Table, into: &Table) -> Result<()> {
    if into.key.len() != table.key.len() {
        return Err(Error::invalid(format!(
            "table `{}` has {} key columns, but table `{}`, whose hours it must hold, has {}; give both the same number",
            into.name,
            into.key.len(),
            table.name,
            table.key.len()
        )));
    }
    if let Some(cadence) = into.cadence.filter(|cadence| *cadence != Cadence::HOUR) {
        return Err(Error::invalid(format!("table `{}` must hold hours, but has a cadence of {cadence}; write `cadence: 1h`", into.name)));
    }
    if into.time_marks == TimeMark::End {
        return Err(Error::invalid(format!(
            "table `{}` has `time_marks: end`, but the time of an hour is its beginning; remove `time_marks`",
            into.name
        )));
    }
    let own = into.key.iter().chain([&into.time]);
    if let Some(taken) = own.clone().find(|name| assemble::VALUES.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "table `{}` has `{taken}` as a key or time column, but hours have a value column of that name; rename it",
            into.name
        )));
    }
    Ok(())
}
