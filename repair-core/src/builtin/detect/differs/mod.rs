//! The detector `differs`: finds expected slots whose row has other values than a source has.
//!
//! It asks the source for the slots, in as few requests as a repair would make, and compares each answer with the rows that readers see, with
//! live repairs and repaired cells. What it finds is wrong cells, so a repair changes these and keeps the rest of the row; or, with `patch: false`,
//! wrong rows. Only rows that both have can be different. What only one of them has is counted and reported, and so is what could not be
//! compared: that a source is silent must not look like a table that is right. Rows of which the source vouches that they do not exist are
//! found too if `deleted` says so, and a repair removes them.
//!
//! In a table whose key identifies a row, it also finds rows that only the source has: nothing else says which there should be.
//!
//! Answers are judged by the same rules as those to a repair. The engine counts the requests and reserves them in budgets.

mod compare;
mod deleted;
mod sample;
mod unique;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::detect::differs::compare::{Comparison, Found, Group};
use crate::builtin::detect::differs::deleted::{Deleted, Removal};
use crate::builtin::detect::differs::sample::{Sample, Seed};
use crate::builtin::detect::differs::values::Column;
use crate::builtin::detect::expected::{Examined, GapsConfig, blind_if_missing, nothing_expected};
use crate::builtin::detect::gaps::examined;
use crate::builtin::repair::by_day;
use crate::builtin::repair::judge::{Accepted, Question};
use crate::builtin::repair::requests::{self, Asked};
use crate::error::{Error, Result};
use crate::lake::shape;
use crate::model::{DefectKind, ExpectedKeys, Findings, GapList, Key, KeysFrom, Rows, Scope, Seen, SlotRange, Table};
use crate::plugin::{Asks, Detector, PluginKind, Registry, Request, StepContext};

/// How many slots, over all keys, are compared with one scan of the table: some hundred bytes each.
const SLOTS_AT_ONCE: u64 = 1 << 19;

/// How far apart numbers may be: all of them, or those of some columns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number of 0 or more, or such a number for each of some columns, e.g. `{ close: 0.001 }`")]
enum Apart {
    /// All numbers.
    All(f64),
    /// Those of these columns; others must be equal.
    Columns(BTreeMap<String, f64>),
}

impl Default for Apart {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl Apart {
    fn check(&self, what: &str) -> Result<()> {
        let numbers: Vec<f64> = match self {
            Self::All(number) => vec![*number],
            Self::Columns(columns) => columns.values().copied().collect(),
        };
        match numbers.iter().find(|number| !(number.is_finite() && **number >= 0.0)) {
            Some(odd) => Err(Error::invalid(format!("`{what}` is {odd}, and must be a number of 0 or more"))),
            None => Ok(()),
        }
    }
}

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DiffersConfig {
    /// The table to examine; it needs a `cadence`, or `rows: unique`.
    #[schemars(extend("x-names" = "table"))]
    table: String,
    /// The source to compare it with, one of `sources`.
    #[schemars(extend("x-names" = "source"))]
    source: String,
    /// The start of the interval: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as
    /// `yesterday` or `now - 7d`.
    from: String,
    /// The end of the interval: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and
    /// other days are included.
    to: String,
    /// The calendar that defines which slots are expected; others are not compared.
    #[serde(default = "super::expected::always")]
    #[schemars(extend("x-names" = "calendar"))]
    calendar: String,
    /// The keys that must be present, by default those under `keys` of the table: a list of values (or of lists, if the table has several key
    /// columns), a file, or another table that lists them.
    #[serde(default)]
    keys: Option<ExpectedKeys>,
    /// Another table that lists the keys: a short form of `keys`.
    #[serde(default)]
    keys_from: Option<KeysFrom>,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    allow_empty: bool,
    /// The columns to compare, which the source must have. By default all that both have, except key and time.
    #[serde(default)]
    #[schemars(length(min = 1))]
    columns: Option<Vec<String>>,
    /// How far numbers may be apart and still be the same, for all columns of numbers or by column; 0 by default.
    #[serde(default)]
    tolerance: Apart,
    /// The same, as a part of the source's number, e.g. 0.01 for one in a hundred; 0 by default. Of both, the one that allows more counts.
    #[serde(default)]
    relative: Apart,
    /// The share of days of keys to compare, e.g. `5%`; all by default.
    #[serde(default)]
    sample: Option<Sample>,
    /// What the sample is drawn from: the same seed draws the same days. By default the run's now, so that each run draws others.
    #[serde(default)]
    seed: Option<u64>,
    /// Whether a repair changes only the cells that differ; otherwise it replaces the row. True by default.
    #[serde(default = "yes")]
    patch: bool,
    /// What is done about rows of which the source vouches that they do not exist: `keep` counts them, `remove` lets a repair remove them. By
    /// default they are kept.
    #[serde(default)]
    deleted: Option<Deleted>,
}

fn yes() -> bool {
    true
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector("differs", "finds the slots of a series whose rows have other values than a source", Differs::new);
    registry.finds("differs", DefectKind::Different);
    registry.needs_one_row(PluginKind::Detector, "differs");
    registry.takes_unique_rows(PluginKind::Detector, "differs");
    registry.fits(PluginKind::Detector, "differs", unique::fits);
}

/// The detector `differs`.
#[derive(Debug)]
struct Differs {
    series: GapsConfig,
    source: String,
    columns: Option<Vec<String>>,
    tolerance: Apart,
    relative: Apart,
    sample: Option<Sample>,
    seed: Option<u64>,
    patch: bool,
    /// Whether rows are removed, and within which limits.
    removal: Option<Removal>,
}

impl Differs {
    fn new(config: DiffersConfig) -> Result<Self> {
        let DiffersConfig { table, source, from, to, calendar, keys, keys_from, allow_empty, .. } = config;
        let DiffersConfig { columns, tolerance, relative, sample, seed, patch, deleted, .. } = config;
        if columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid("`columns` is empty, so nothing would be compared; list columns, or leave it out to compare all"));
        }
        tolerance.check("tolerance")?;
        relative.check("relative")?;
        if seed.is_some() && sample.is_none() {
            return Err(Error::invalid("`seed` is given without `sample`, so nothing is drawn from it; add a `sample` or remove it"));
        }
        let series = GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty };
        series.check()?;
        let removal = deleted.and_then(Deleted::removal);
        Ok(Self { series, source, columns, tolerance, relative, sample, seed, patch, removal })
    }

    /// What was given of its `with` that only series have, so that a workflow in which the table was not known is checked too.
    fn asked_of_series(&self) -> serde_json::Value {
        let given = |given: bool| if given { serde_json::Value::from(true) } else { serde_json::Value::Null };
        serde_json::json!({ "sample": given(self.sample.is_some()), "deleted": given(self.removal.is_some()) })
    }

    /// The slots to ask for, by key.
    fn wanted(&self, context: &StepContext, scope: &Scope, examined: &Examined<'_>) -> Result<BTreeMap<Key, Vec<SlotRange>>> {
        let mut wanted: BTreeMap<Key, Vec<SlotRange>> = match examined {
            Examined::Again(gaps) => gaps.by_key(),
            Examined::Expected { keys, slots } => match self.sample {
                None => keys.iter().map(|key| (key.clone(), slots.of_key(key).runs().collect())).collect(),
                Some(sample) => {
                    let seed = self.seed.map_or(Seed::Now(context.now), Seed::Given);
                    let zone = context.table(&scope.table)?.day_zone();
                    let keys: BTreeSet<&Key> = keys.iter().collect();
                    let of_key = |key: &Key| slots.of_key(key);
                    let drawn = sample::drawn(sample, seed, (scope.grid, &zone), slots.range(), keys.iter().copied(), of_key)?;
                    drawn.into_iter().map(|(key, slots)| (key.clone(), slots)).collect()
                }
            },
        };
        // A source has no rows of slots that have not ended.
        let over = by_day::slots_over(scope.grid, context.clock.now());
        for slots in wanted.values_mut() {
            slots.iter_mut().for_each(|slots| slots.end = slots.end.min(over));
            slots.retain(|slots| !slots.is_empty());
        }
        wanted.retain(|_, slots| !slots.is_empty());
        Ok(wanted)
    }

    /// The requests, in order of time, so that no part of the table is read for many of them.
    fn requests(&self, context: &StepContext, wanted: &BTreeMap<Key, Vec<SlotRange>>) -> Result<Vec<Asked>> {
        let mut plan = requests::cover(wanted, context.source(&self.source)?.limits())?;
        plan.sort_by_key(|asked| (asked.slots.first, asked.wanted.first().map(|wanted| wanted.key.clone())));
        Ok(plan)
    }

    /// The columns to compare.
    fn compared(&self, table: &Table, schema: &Schema) -> Result<Vec<Column>> {
        let is_own = |name: &str| {
            name == table.time || table.key.iter().any(|key| key == name) || table.partition_by.iter().any(|by| by.column == name)
        };
        let find = |name: &str| -> Result<&Field> {
            let found = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?;
            found.filter(|field| !is_own(field.name())).map(AsRef::as_ref).ok_or_else(|| {
                let others: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| !is_own(name)).collect();
                let others = others.join(", ");
                Error::invalid(format!("table `{}` has no column `{name}` to compare; there are {others}", table.name))
            })
        };
        let fields: Vec<&Field> = match &self.columns {
            Some(named) => named.iter().map(|name| find(name)).collect::<Result<_>>()?,
            None => schema.fields().iter().map(AsRef::as_ref).filter(|field| !is_own(field.name())).collect(),
        };
        let mut columns: Vec<Column> = Vec::with_capacity(fields.len());
        for field in &fields {
            if columns.iter().any(|known| known.name == *field.name()) {
                return Err(Error::invalid(format!("column `{}` is listed twice under `columns`; list it once", field.name())));
            }
            columns.push(Column { name: field.name().clone(), tolerance: values::Tolerance::default() });
        }
        for (apart, what) in [(&self.tolerance, "tolerance"), (&self.relative, "relative")] {
            let put = |column: &mut Column, number: f64| match what {
                "tolerance" => column.tolerance.absolute = number,
                _ => column.tolerance.relative = number,
            };
            match apart {
                Apart::All(number) => {
                    let of_numbers = columns.iter_mut().zip(&fields).filter(|(_, field)| field.data_type().is_numeric());
                    of_numbers.for_each(|(column, _)| put(column, *number));
                }
                Apart::Columns(named) => {
                    for (name, number) in named {
                        let field = find(name)?;
                        let Some(column) = columns.iter_mut().find(|column| column.name == *field.name()) else {
                            return Err(Error::invalid(format!(
                                "`{what}` names column `{name}`, which is not among `columns`; add it there"
                            )));
                        };
                        if !field.data_type().is_numeric() {
                            let kind = field.data_type();
                            return Err(Error::invalid(format!("`{what}` is for numbers, and column `{name}` is {kind}; remove it there")));
                        }
                        put(column, *number);
                    }
                }
            }
        }
        if columns.is_empty() {
            return Err(Error::invalid(format!(
                "table `{}` has no columns beside key and time, so there is nothing to compare",
                table.name
            )));
        }
        Ok(columns)
    }
}

/// The columns that an answer must have: those that are named. A null is something to compare, whether or not the table has nulls.
fn named_columns(differs: &Differs, columns: &[Column], schema: &Schema) -> Option<Schema> {
    differs.columns.as_ref()?;
    let named = columns.iter().filter_map(|column| schema.field_with_name(&column.name).ok());
    Some(Schema::new(named.map(|field| field.clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// The requests whose slots are compared with one scan of the table.
fn groups(plan: &[Asked]) -> Vec<&[Asked]> {
    let mut groups = Vec::new();
    let (mut first, mut slots) = (0, 0u64);
    for (at, asked) in plan.iter().enumerate() {
        let more: u64 = asked.wanted.iter().map(crate::model::Wanted::len).sum();
        if at > first && slots + more > SLOTS_AT_ONCE {
            groups.push(&plan[first..at]);
            (first, slots) = (at, 0);
        }
        slots += more;
    }
    groups.extend(plan.get(first..).filter(|rest| !rest.is_empty()));
    groups
}

#[async_trait]
impl Detector for Differs {
    async fn asks(&self, context: &StepContext) -> Result<Option<Asks>> {
        if context.table(&self.series.table)?.rows == Rows::Unique {
            return unique::asks(self, context).map(Some);
        }
        let scope = self.series.scope(context).await?;
        let examined = Examined::of(context, &scope, None)?;
        if examined.is_empty() && !self.series.allow_empty {
            return Err(nothing_expected(context, &scope)?);
        }
        let wanted = self.wanted(context, &scope, &examined)?;
        let slots = wanted.values().flatten().map(SlotRange::len).sum();
        let plan = self.requests(context, &wanted)?;
        let calls = context.source(&self.source)?.requests_at_worst();
        let asks = Asks::new(&self.source, &scope.table, scope.interval, slots, plan.len() as u64);
        // Presence, then the rows of each group of requests, then those that are to be removed.
        let reads = 1 + groups(&plan).len() as u64;
        Ok(Some(asks.with_calls_at_worst(calls).with_reads(reads, reads + u64::from(self.removal.is_some()))))
    }

    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        if context.table(&self.series.table)?.rows == Rows::Unique {
            unique::fits(&self.asked_of_series(), context.table(&self.series.table)?)?;
            return unique::detect(context, self, again).await;
        }
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context).await?,
        };
        let table = context.table(&scope.table)?;
        table.check_one_row("a comparison of a table with a source")?;
        let source = context.source(&self.source)?;
        let base = examined(context, &scope, again, self.series.allow_empty).await?;
        let examined = Examined::of(context, &scope, again)?;
        let wanted = self.wanted(context, &scope, &examined)?;
        let plan = self.requests(context, &wanted)?;
        let mut found = Found::default();
        if !plan.is_empty() {
            let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
            let columns = self.compared(table, &schema)?;
            let needed = named_columns(self, &columns, &schema);
            let (accepted, total, mut done) = (Accepted::default(), plan.len() as u64, 0u64);
            let comparison = Comparison {
                context,
                table,
                grid: scope.grid,
                source: &self.source,
                columns: &columns,
                patch: self.patch,
                removal: self.removal,
                again,
            };
            for requests in groups(&plan) {
                context.check_cancelled()?;
                let mut group = Group::read(&comparison, requests, &mut found).await?;
                for asked in requests {
                    let keys: Vec<Key> = asked.wanted.iter().map(|wanted| wanted.key.clone()).collect();
                    let interval =
                        scope.grid.interval_of(asked.slots).ok_or_else(|| Error::invalid("the time of a slot is out of range"))?;
                    let request = Request { table: table.clone(), keys, interval };
                    let answer = source.fetch(context, &request).await.map_err(|error| error.on("source", &self.source))?;
                    let question = Question {
                        asked: "source",
                        source: &self.source,
                        table,
                        grid: scope.grid,
                        keys: request.keys.iter().collect(),
                        slots: asked.slots,
                        now: context.clock.now(),
                        columns: needed.as_ref(),
                    };
                    let judged = question.judge(&answer.rows)?;
                    accepted.add(&question, &judged)?;
                    group.compare(&comparison, asked, &answer, &judged, &mut found)?;
                    done += 1;
                    context.progress.advance(&context.step, done, total);
                }
                group.finish(&comparison, &mut found)?;
            }
        }
        if again.is_none() && base.counts.expected > 0 && found.saw_nothing() {
            return Err(found.blind(table, &self.source, &scope));
        }
        if let (None, Some(removal)) = (again, self.removal) {
            removal.check(&found.counts, &table.name, &self.source)?;
        }
        let gaps = found.gaps();
        let mut counts = base.counts;
        (counts.defective, counts.gaps, counts.cells) = (gaps.missing(), gaps.len() as u64, found.cells.len());
        (counts.replaced, counts.patched, counts.changed) = (found.replaced, found.patched, found.changed);
        counts.overtaken_cells = found.overtaken;
        // A row that is to be removed is a defect.
        counts.conflicts += found.counts.only_table - found.counts.deleted;
        counts.compared = Some(found.counts);
        let mut notices = base.notices;
        match again {
            // What was seen outside these slots still holds.
            Some(before) => notices.clone_from(&before.notices),
            None => notices.extend(found.notices(table, &self.source)),
        }
        let deleted = found.deleted();
        let mut usage = base.usage;
        usage += found.usage;
        let seen = Some(Seen { replaced: GapList::of_slots(std::mem::take(&mut found.standing)), ..Seen::default() });
        Ok(Findings {
            kind: DefectKind::Different,
            seen,
            counts,
            gaps,
            judged: found.judged,
            cells: found.cells,
            deleted,
            examples: found.examples,
            notices,
            usage,
            ..base
        })
    }
}
