//! Reads the totals of another table to which a rule with `equals` compares values.
//!
//! The rows of the other table are read once for each window of slots that is examined, only the columns that are needed, in the repaired view. Where
//! both tables are series, a total counts only if each slot of the other table that is expected has its one row, or is confirmed absent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, StringArray};
use arrow::datatypes::Schema;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::equals::{Equals, Function, Gathered, Incomplete, Measured, Numbers, Related, Total, Totals};
use super::related::comparable;
use super::rule::Rule;
use crate::builtin::detect::expected::blind_if_missing;
use crate::error::{Error, Result};
use crate::lake::shape::{self, KeyTime};
use crate::lake::{Layer, PresenceRequest, ScanRequest, rollup};
use crate::model::{Cadence, Interval, Key, Rows, Scope, SlotGrid, SlotRange, SlotSet, Table, expected_slots};
use crate::plugin::StepContext;

/// How many slots of the other table, over all keys, are held at once: a bit each, and some bytes for each slot of this table.
const SLOTS_AT_ONCE: u64 = 1 << 24;

/// The most totals of a table without slots, so that they stay within some gigabytes.
const MOST_TOTALS: usize = 5_000_000;

/// Checks what needs nothing but what the workflow says of both tables.
///
/// # Errors
/// `invalid` if rows of one cannot belong to rows of the other.
pub(super) fn check(context: &StepContext, table: &Table, rules: &[Rule]) -> Result<()> {
    for of in rules.iter().filter_map(Rule::total) {
        let other = context.table(&of.table)?;
        if other.name == table.name {
            return Err(Error::invalid(format!(
                "`equals` compares table `{}` with itself; compare columns of a row by `holds`, and use `detect: sql` for anything else",
                table.name
            )));
        }
        if let (Some(cadence), Some(of_other)) = (table.cadence, other.cadence)
            && of_other > cadence
        {
            return Err(Error::invalid(format!(
                "a slot of table `{}` lasts {of_other}, which is longer than one of table `{}` ({cadence}), so none lies within one; give table `{}` \
                 the rule, with a total of table `{}`",
                other.name, table.name, other.name, table.name
            )));
        }
    }
    Ok(())
}

/// Finds the columns of both tables that the rules name.
///
/// # Errors
/// `blind` if the other table is not there; `invalid` if a column is not, or cannot be compared.
pub(super) async fn relate(context: &StepContext, table: &Table, own: &Schema, rules: &mut [Rule]) -> Result<()> {
    for rule in rules {
        let Some(of) = rule.total().cloned() else { continue };
        let other = context.table(&of.table)?;
        let schema = context.lake.describe(other).await.map_err(blind_if_missing)?;
        let find = |schema: &Schema, table: &Table, name: &str| -> Result<String> {
            let found = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?;
            Ok(found.ok_or_else(|| not_there(table, schema, name))?.name().clone())
        };
        let (function, column) = of.function()?;
        let column = column.map(|name| find(&schema, other, name)).transpose()?;
        let by = match &of.by {
            Some(by) => {
                let pair = |(of_other, of_own): (&String, &String)| Ok((find(&schema, other, of_other)?, find(own, table, of_own)?));
                by.iter().map(pair).collect::<Result<Vec<_>>>()?
            }
            None => {
                let pair = |name: &String| Ok((find(&schema, other, name).map_err(|error| by_default(&error, table))?, name.clone()));
                table.key.iter().map(pair).collect::<Result<Vec<_>>>()?
            }
        };
        if by.is_empty() && table.rows == Rows::Unique {
            return Err(belongs_to_all(table));
        }
        if let Some((of_other, of_own)) = by.iter().find(|(of_other, of_own)| *of_other == other.time || *of_own == table.time) {
            return Err(Error::invalid(format!(
                "`by` says that `{of_other}` equals `{of_own}`, and times are compared by slots; leave the time out"
            )));
        }
        let grid = if table.rows == Rows::Unique { None } else { Some(table.grid()?) };
        let is_checked =
            grid.is_some() && other.cadence.is_some() && other.key.iter().all(|key| by.iter().any(|(of_other, _)| of_other == key));
        let incomplete = of.incomplete.unwrap_or(if is_checked { Incomplete::Skip } else { Incomplete::Judge });
        let is_read = |name: &String| *name == table.time || table.key.contains(name);
        let related = Related {
            function,
            column,
            reads: by.iter().map(|(_, own)| own.clone()).filter(|own| !is_read(own)).collect(),
            by,
            table: table.clone(),
            grid,
            incomplete,
            is_checked: is_checked && incomplete == Incomplete::Skip,
            has_judged: AtomicBool::new(false),
            of,
        };
        rule.equals = Some(Equals::Related(Arc::new(related)));
    }
    Ok(())
}

fn not_there(table: &Table, schema: &Schema, name: &str) -> Error {
    let names = shape::names(schema);
    Error::invalid(format!("`equals` names column `{name}`, which table `{}` does not have; {names}", table.name))
}

fn by_default(error: &Error, table: &Table) -> Error {
    Error::invalid(format!(
        "{}. Rows belong to a row of table `{}` by its key columns ({}); if they have other names there, write e.g. `by: {{ THEIRS: {} }}`",
        error.message(),
        table.name,
        table.key.join(", "),
        table.key.first().map_or("ours", String::as_str)
    ))
}

fn belongs_to_all(table: &Table) -> Error {
    Error::invalid(format!(
        "`by` of `equals` is empty, so all rows would belong to each row of table `{}`; name columns, e.g. `by: {{ THEIRS: {} }}`",
        table.name,
        table.key.first().map_or("ours", String::as_str)
    ))
}

/// The rules with the totals of a window of slots of some keys.
///
/// # Errors
/// Those of the lake; `invalid` if a column cannot be compared.
pub(super) async fn of_window(context: &StepContext, rules: &[Rule], scope: &Scope, window: SlotRange, keys: &[Key]) -> Result<Vec<Rule>> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        let Some(Equals::Related(related)) = &rule.equals else { continue };
        let mut all: HashMap<Key, HashMap<i64, Total>> = HashMap::new();
        for part in parts(context, related, window, keys.len())? {
            context.check_cancelled()?;
            Reading::of(context, related, scope, part, keys)?.read(&mut all).await?;
        }
        rule.equals = Some(Equals::Known(Arc::new(Totals { related: related.clone(), all })));
    }
    Ok(rules)
}

/// The parts of a window of which the slots of the other table are held at once.
fn parts(context: &StepContext, related: &Related, window: SlotRange, keys: usize) -> Result<Vec<SlotRange>> {
    let other = context.table(&related.of.table)?;
    let of_own = related.table.cadence.map_or(1, Cadence::seconds);
    let in_own = u64::from(other.cadence.map_or(of_own, |cadence| cadence.seconds().min(of_own)).max(1));
    let ratio = u64::from(of_own).div_ceil(in_own).max(1);
    let keys = u64::try_from(keys.max(1)).unwrap_or(u64::MAX);
    let length = i64::try_from(SLOTS_AT_ONCE / ratio.saturating_mul(keys).max(1)).unwrap_or(i64::MAX).max(1);
    let mut parts = Vec::new();
    let mut first = window.first;
    while first < window.end {
        let end = first.saturating_add(length).min(window.end);
        parts.push(SlotRange::new(first, end));
        first = end;
    }
    Ok(parts)
}

/// The rules with the totals of all rows of the other tables, for a table without slots.
///
/// # Errors
/// Those of the lake; `invalid` if a column cannot be compared, or there are too many totals.
pub(super) async fn of_all(context: &StepContext, rules: &mut [Rule]) -> Result<()> {
    for rule in rules {
        let Some(Equals::Related(related)) = &rule.equals else { continue };
        let other = context.table(&related.of.table)?;
        let mut gathered: HashMap<Key, Gathered> = HashMap::new();
        let request = ScanRequest::new(Layer::Repaired).with_columns(columns(related, other));
        let mut rows = context.lake.scan(other, &request).await.map_err(blind_if_missing)?;
        while let Some(batch) = rows.try_next().await? {
            context.check_cancelled()?;
            let read = Batch::of(related, other, &batch)?;
            for row in 0..batch.num_rows() {
                if let (Some(key), Some(value)) = (read.key(row), read.value(row)) {
                    value.add_to(gathered.entry(key).or_default());
                }
            }
            if gathered.len() > MOST_TOTALS {
                return Err(Error::invalid(format!(
                    "the rows of table `{}` belong to more than {MOST_TOTALS} rows, which are too many totals to hold; use `detect: sql`",
                    other.name
                )));
            }
        }
        if gathered.is_empty() {
            return Err(Error::blind(format!(
                "table `{}` has no row that could belong to one of table `{}`, so nothing can be compared with it",
                other.name, related.table.name
            )));
        }
        let total = |gathered: Gathered| HashMap::from([(0, Total::Known(gathered.total(related.function)))]);
        let all = gathered.into_iter().map(|(key, gathered)| (key, total(gathered))).collect();
        rule.equals = Some(Equals::Known(Arc::new(Totals { related: related.clone(), all })));
    }
    Ok(())
}

/// Refuses findings of a rule that could judge no row.
///
/// # Errors
/// `blind` if rows were not judged, and none was.
pub(super) fn blind(rules: &[Rule], unjudged: u64) -> Result<()> {
    let related = rules.iter().filter_map(|rule| match &rule.equals {
        Some(Equals::Related(related)) => Some(related),
        Some(Equals::Known(totals)) => Some(&totals.related),
        _ => None,
    });
    match related.into_iter().find(|related| !related.has_judged.load(Ordering::Relaxed)) {
        Some(related) if unjudged > 0 => Err(Error::blind(format!(
            "no row of table `{}` could be compared with table `{}`, which lacks rows of all of them; repair that table first, or write `incomplete: judge` \
             to compare with the rows that are there",
            related.table.name, related.of.table
        ))),
        _ => Ok(()),
    }
}

/// What is to be said about rows that a rule could not judge.
pub(super) fn notice(table: &Table, rules: &[Rule], unjudged: u64, examples: &[String]) -> Option<String> {
    let others: BTreeSet<&str> = rules.iter().filter_map(Rule::total).map(|of| of.table.as_str()).collect();
    let others: Vec<&str> = others.into_iter().collect();
    let (rows, are) = if unjudged == 1 { ("1 row".to_owned(), "was") } else { (format!("{unjudged} rows"), "were") };
    (unjudged > 0).then(|| {
        format!(
            "{rows} of table `{}` {are} not compared with table `{}`, which lacks rows there or has several in a slot, such as {}; they are counted as `unjudged`",
            table.name,
            others.join("` and `"),
            examples.join(", ")
        )
    })
}

/// The columns of the other table to read.
fn columns(related: &Related, other: &Table) -> Vec<String> {
    let is_read = |name: &&String| **name == other.time || other.key.contains(name);
    let all: BTreeSet<&String> =
        related.by.iter().map(|(of_other, _)| of_other).chain(&related.column).filter(|name| !is_read(name)).collect();
    all.into_iter().cloned().collect()
}

/// A row's contribution.
enum Value {
    Row,
    Number(Measured),
}

impl Value {
    fn add_to(self, gathered: &mut Gathered) {
        match self {
            Self::Row => gathered.add_row(),
            Self::Number(number) => gathered.add(number),
        }
    }
}

/// The columns of a batch of the other table.
struct Batch<'a> {
    related: &'a Related,
    by: Vec<StringArray>,
    numbers: Option<Numbers>,
    /// The column whose values are counted.
    counted: Option<arrow::array::ArrayRef>,
}

impl<'a> Batch<'a> {
    fn of(related: &'a Related, other: &Table, batch: &arrow::array::RecordBatch) -> Result<Self> {
        let by = related.by.iter().map(|(name, _)| comparable(name, rollup::column(batch, name)?)).collect::<Result<_>>();
        let by = by.map_err(|error| error.on("table", &other.name))?;
        let column = related.column.as_ref().map(|name| Ok::<_, Error>((name, rollup::column(batch, name)?))).transpose()?;
        let (numbers, counted) = match column {
            Some((_, values)) if related.function == Function::Count => (None, Some(values.clone())),
            Some((name, values)) => (Some(Numbers::of(name, values).map_err(|error| error.on("table", &other.name))?), None),
            None => (None, None),
        };
        Ok(Self { related, by, numbers, counted })
    }

    /// The values of the columns of `by`; none if one is null, so that the row belongs to none.
    fn key(&self, row: usize) -> Option<Key> {
        self.by.iter().all(|column| column.is_valid(row)).then(|| Key::new(self.by.iter().map(|column| column.value(row))))
    }

    /// What the row adds; none if it has no value, or one that is no finite number.
    fn value(&self, row: usize) -> Option<Value> {
        match (&self.numbers, &self.counted) {
            (Some(numbers), _) => numbers.get(row).filter(|value| value.number.as_float().is_finite()).map(Value::Number),
            (None, Some(counted)) => (!counted.logical_nulls().is_some_and(|nulls| nulls.is_null(row))).then_some(Value::Row),
            (None, None) => {
                debug_assert_eq!(self.related.function, Function::Count, "all others have a column");
                Some(Value::Row)
            }
        }
    }
}

/// The rows of the other table that belong to a range of slots.
struct Reading<'a> {
    context: &'a StepContext,
    related: &'a Related,
    scope: &'a Scope,
    other: &'a Table,
    /// The slots of the other table, if it is a series.
    of_other: Option<(SlotGrid, SlotRange)>,
    grid: SlotGrid,
    part: SlotRange,
    interval: Interval,
    keys: &'a [Key],
}

/// What is there of the rows that belong to the rows of one key.
struct There {
    by_slot: HashMap<i64, Gathered>,
    /// The slots of the other table that have a value, and those that have several rows.
    seen: Option<(SlotSet, SlotSet)>,
}

impl<'a> Reading<'a> {
    fn of(context: &'a StepContext, related: &'a Related, scope: &'a Scope, part: SlotRange, keys: &'a [Key]) -> Result<Self> {
        let other = context.table(&related.of.table)?;
        let grid = scope.grid;
        let interval = grid.interval_of(part).ok_or_else(|| Error::invalid("the time of a slot is out of range"))?;
        let of_other = match other.cadence {
            Some(_) => other.grid().map(|grid| Some((grid, grid.slots_in(&interval))))?,
            None => None,
        };
        Ok(Self { context, related, scope, other, of_other, grid, part, interval, keys })
    }

    /// The values of the columns of `by` in a key of this table; none if one of them is not part of its key.
    fn group_of(&self, key: &Key) -> Option<Key> {
        let values: Vec<&str> = key.values().collect();
        let at = |own: &String| self.related.table.key.iter().position(|column| column == own);
        let group = self.related.by.iter().map(|(_, own)| values.get(at(own)?).copied()).collect::<Option<Vec<&str>>>()?;
        Some(Key::new(group))
    }

    /// The key of the other table in the values of the columns of `by`; none if they do not have all of it.
    fn key_of(&self, group: &Key) -> Option<Key> {
        let values: Vec<&str> = group.values().collect();
        let at = |column: &String| self.related.by.iter().position(|(of_other, _)| of_other == column);
        let key = self.other.key.iter().map(|column| values.get(at(column)?).copied()).collect::<Option<Vec<&str>>>()?;
        Some(Key::new(key))
    }

    async fn read(&self, all: &mut HashMap<Key, HashMap<i64, Total>>) -> Result<()> {
        let is_own_key = self.related.table.key.iter().all(|key| self.related.by.iter().any(|(_, own)| own == key));
        let groups: Option<BTreeMap<Key, &Key>> = self.keys.iter().map(|key| Some((self.group_of(key)?, key))).collect();
        let keys: Option<BTreeSet<Key>> = groups.as_ref().and_then(|groups| groups.keys().map(|group| self.key_of(group)).collect());
        let request = ScanRequest::new(Layer::Repaired)
            .in_interval(self.interval)
            .of_keys(keys.map(|keys| keys.into_iter().collect::<Vec<_>>()))
            .with_columns(columns(self.related, self.other));
        let mut rows = self.context.lake.scan(self.other, &request).await.map_err(blind_if_missing)?;
        let mut there: HashMap<Key, There> = HashMap::new();
        while let Some(batch) = rows.try_next().await? {
            self.context.check_cancelled()?;
            let (read, times) = (Batch::of(self.related, self.other, &batch)?, KeyTime::of(self.other, &batch)?.times);
            for row in 0..batch.num_rows() {
                let Some(key) = read.key(row).filter(|key| groups.as_ref().is_none_or(|groups| groups.contains_key(key))) else { continue };
                self.add(there.entry(key).or_insert_with(|| self.nothing()), times.value(row), read.value(row));
            }
        }
        if !self.related.is_checked {
            for (group, there) in there {
                let of_key = all.entry(group).or_default();
                let total = |(slot, gathered): (i64, Gathered)| (slot, Total::Known(gathered.total(self.related.function)));
                of_key.extend(there.by_slot.into_iter().map(total));
            }
            return Ok(());
        }
        for group in groups.iter().flat_map(|groups| groups.keys()) {
            if !there.contains_key(group) {
                there.insert(group.clone(), self.nothing());
            }
        }
        // Several keys that share a total may live at different times.
        self.complete(groups.filter(|_| is_own_key).unwrap_or_default(), there, all).await
    }

    fn nothing(&self) -> There {
        let seen = self.of_other.filter(|_| self.related.is_checked).map(|(grid, slots)| {
            let none = SlotSet::new(grid.cadence(), slots);
            (none.clone(), none)
        });
        There { by_slot: HashMap::new(), seen }
    }

    /// Adds a row of the other table to the slot of this one in which it begins.
    fn add(&self, there: &mut There, time_us: i64, value: Option<Value>) {
        let start = match self.of_other {
            // A row that is off its grid is in no slot.
            Some((grid, _)) => match grid.slot_of_row(time_us) {
                Some(slot) => {
                    if let (Some((seen, several)), true) = (&mut there.seen, value.is_some())
                        && !seen.insert(slot)
                        && self.other.rows == Rows::One
                    {
                        several.insert(slot);
                    }
                    grid.start_of(slot)
                }
                None => return,
            },
            None => Timestamp::from_microsecond(time_us).unwrap_or(Timestamp::MAX),
        };
        let slot = self.grid.slot_at(start);
        if let Some(value) = value
            && self.part.contains(slot)
        {
            value.add_to(there.by_slot.entry(slot).or_default());
        }
    }

    /// Adds the totals, each known only if all that it needs is there.
    async fn complete(
        &self,
        groups: BTreeMap<Key, &Key>,
        mut there: HashMap<Key, There>,
        all: &mut HashMap<Key, HashMap<i64, Total>>,
    ) -> Result<()> {
        let Some((grid, slots)) = self.of_other else { return Ok(()) };
        let mut by_calendar: BTreeMap<&str, SlotSet> = BTreeMap::new();
        let mut lacking: BTreeMap<Key, SlotSet> = BTreeMap::new();
        for (group, there) in &there {
            let own = groups.get(group).copied();
            let calendar = own.map_or(self.scope.calendar.as_str(), |own| self.scope.calendar_of(own));
            if !by_calendar.contains_key(calendar) {
                by_calendar.insert(calendar, expected_slots(grid, slots, self.context.calendar(calendar)?.as_ref())?);
            }
            let Some(mut lacks) = by_calendar.get(calendar).cloned() else { continue };
            if let Some(alive) = own.and_then(|own| self.scope.lifetimes.of(own)).and_then(|lifetime| lifetime.alive.as_deref()) {
                let mut lived = SlotSet::new(grid.cadence(), slots);
                alive.iter().for_each(|stretch| lived.insert_range(grid.slots_in(stretch)));
                lacks.intersect(&lived);
            }
            if let Some((seen, _)) = &there.seen {
                lacks.subtract(seen);
            }
            lacking.insert(group.clone(), lacks);
        }
        // What is confirmed absent, or removed, is not lacking.
        let incomplete = |(group, lacks): (&Key, &SlotSet)| if lacks.is_empty() { None } else { self.key_of(group) };
        let keys: BTreeSet<Key> = lacking.iter().filter_map(incomplete).collect();
        if !keys.is_empty() {
            let request = PresenceRequest::new(slots, keys.into_iter().collect(), self.context.entered_at);
            let presence = self.context.lake.presence(self.other, &request).await.map_err(blind_if_missing)?;
            for (group, lacks) in &mut lacking {
                let Some(key) = self.key_of(group) else { continue };
                [&presence.absent, &presence.removed].iter().filter_map(|of| of.get(&key)).for_each(|absent| lacks.subtract(absent));
            }
        }
        for (group, lacks) in &lacking {
            let Some(mut there) = there.remove(group) else { continue };
            let of_key = all.entry(group.clone()).or_default();
            for slot in self.part.first..self.part.end {
                // A date that a zone skipped has no length.
                let Some(within) = self.grid.interval_of(SlotRange::new(slot, slot + 1)) else { continue };
                let within = grid.slots_in(&within);
                let is_lacking = lacks.count_in(within) > 0 || there.seen.as_ref().is_some_and(|(_, several)| several.count_in(within) > 0);
                let gathered = there.by_slot.remove(&slot).unwrap_or_default();
                let total = if is_lacking { Total::Incomplete } else { Total::Known(gathered.total(self.related.function)) };
                of_key.insert(slot, total);
            }
        }
        Ok(())
    }
}
