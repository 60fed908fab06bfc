//! The repairer `backfill`: requests missing rows from a source, checks the answers, and decides what they prove. Crates for one kind of
//! row use [`Backfill`] with their own rule.
//!
//! It must not know what a row means, or which protocol a source uses.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::sync::OnceLock;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch, UInt64Builder};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::builtin::repair::judge::{Accepted, Judged, Question, times, vouched};
use crate::builtin::repair::latest::{self, Latest};
use crate::builtin::repair::neighbours::Neighbours;
use crate::builtin::repair::requests;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::rollup;
use crate::lake::shape::KeyTime;
use crate::model::Usage;
use crate::model::{
    Absence, AnswerPrint, Conflicts, DefectKind, Findings, Fix, Key, Lifetime, Rows, Scope, SlotRange, SlotSet, Suspect, Suspects, Table,
    Unit, Wanted,
};
use crate::plugin::{Answer, PlannedUnits, PluginKind, Reads, Registry, Repairer, Request, StepContext};

/// The rule that rows of a kind must satisfy, such as low ≤ open. Its error must be `invalid` and name the row.
pub type RowRule = fn(&Table, &RecordBatch) -> Result<()>;

/// By default, how long a slot stays confirmed absent before it is requested again.
pub(super) const RECHECK_AFTER: Period = Period::days(30);

/// By default, the longest stretch, in slots, in which all keys may be silent before the silence is suspect.
pub(super) const QUIET_SPELL_SLOTS: u64 = 30;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillConfig {
    /// The source to ask, one of `sources`.
    #[schemars(extend("x-names" = "source"))]
    pub source: String,
    /// How long a slot stays confirmed absent after the source says that it has no row; 30d by default.
    #[serde(default)]
    pub recheck_after: Option<Period>,
    /// The longest stretch in which all keys may be silent. In a longer one, the source's silence proves nothing absent. 30 slots (half an
    /// hour of minutes) by default.
    #[serde(default)]
    pub quiet_spell: Option<Period>,
    /// Whether to request the slots next to each gap too, if that costs no further request, and compare them with the table's rows; true by
    /// default. This scans the table's rows once, from the first gap to the last.
    #[serde(default)]
    pub neighbours: Option<bool>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer("backfill", "requests the missing rows from a source", |config: BackfillConfig| Ok(Backfill::new(&config, None)));
    registry.repairs_unique_rows("backfill", &[DefectKind::Different]);
    registry.fits(PluginKind::Repairer, "backfill", fits);
}

/// Checks that a step does not ask for what only series have.
fn fits(with: &serde_json::Value, table: &Table) -> Result<()> {
    let given = |name: &&&str| with.get(**name).is_some_and(|value| !value.is_null());
    match ["recheck_after", "quiet_spell", "neighbours"].iter().find(given) {
        Some(name) if table.rows == Rows::Unique => Err(Error::invalid(format!(
            "`{name}` is about slots of a series, and table `{}` has `rows: unique`, so it has none; remove `{name}`",
            table.name
        ))),
        _ => Ok(()),
    }
}

/// Requests missing rows from a source.
///
/// It makes the fewest requests that cover the gaps ([`requests::cover`]). An answer is used only if it is plausible: every row belongs to
/// a requested key and slot and has all columns of the table; times are on the grid, increasing, and not in the future; each slot appears
/// once; the values are not those of another request; and every row satisfies the rule of its kind. Rows of slots that were not missing are
/// dropped.
///
/// A slot for which the source has no row is confirmed absent only where the source vouches for the stretch ([`Answer::covered`]). A long
/// silence of all keys at once looks like a failed collector, so it is suspect instead ([`Fix::suspects`]). Suspect slots and all others
/// stay missing.
///
/// Slots next to gaps are requested too, if that costs no further request. If the source has another row there than the table, or vouches
/// that there is none, that is a conflict: it is counted and reported ([`Fix::conflicts`]), and changes nothing.
///
/// Answers of at least 10 rows with 5 different values are remembered for as long as the step is visited, whatever stops or kills the run in
/// between; shorter ones may be equal by chance, and are not compared.
pub struct Backfill {
    source: String,
    recheck_after: Period,
    quiet_spell: Option<Period>,
    neighbours: bool,
    rule: Option<RowRule>,
    /// Whether the same values for two requests are suspicious.
    compares: bool,
    accepted: Accepted,
    /// The columns of the table, read once, because a step repairs one table.
    columns: OnceCell<SchemaRef>,
    /// The rows next to the gaps, read once, because a step repairs one set of findings.
    beside: OnceCell<Neighbours>,
    /// The stretches in which the table has no row of any key, computed once.
    barren: OnceLock<Vec<SlotRange>>,
}

impl fmt::Debug for Backfill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backfill").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Backfill {
    /// Creates the repairer from its configuration, with the rule of a kind of row.
    pub fn new(config: &BackfillConfig, rule: Option<RowRule>) -> Self {
        Self {
            source: config.source.clone(),
            recheck_after: config.recheck_after.unwrap_or(RECHECK_AFTER),
            quiet_spell: config.quiet_spell,
            neighbours: config.neighbours.unwrap_or(true),
            rule,
            compares: true,
            accepted: Accepted::default(),
            columns: OnceCell::new(),
            beside: OnceCell::new(),
            barren: OnceLock::new(),
        }
    }

    /// The same, for rows that are computed and not looked up: the same values may come for two requests, as those of an average do.
    #[must_use]
    pub fn of_computed_rows(mut self) -> Self {
        self.compares = false;
        self
    }

    /// What it asks, for messages.
    fn asked(&self) -> &'static str {
        if self.compares { "source" } else { "repairer" }
    }

    async fn conflicts(
        &self,
        context: &StepContext,
        findings: &Findings,
        question: &Question<'_>,
        unit: &Unit,
        answer: &Answer,
    ) -> Result<Conflicts> {
        if !self.neighbours {
            return Ok(Conflicts::default());
        }
        let beside = self.beside.get_or_try_init(|| Neighbours::read(context, question.table, findings)).await?;
        beside.conflicts(question, &unit.wanted, answer)
    }

    /// The columns of the table; none while the table is empty.
    async fn columns(&self, context: &StepContext, table: &Table) -> Result<Option<SchemaRef>> {
        match self.columns.get_or_try_init(|| context.lake.describe(table)).await {
            Ok(columns) => Ok(Some(columns.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Decides what it means that the source has no rows for wanted slots of a key: which are absent, and which are suspect.
    fn judge_silence(
        &self,
        findings: &Findings,
        wanted: &Wanted,
        answer: &Answer,
        judged: &Judged<'_>,
        asked: SlotRange,
        now: Timestamp,
    ) -> Silence {
        let grid = findings.scope.grid;
        let mut silent = SlotSet::new(grid.cadence(), asked);
        for &slots in &wanted.slots {
            silent.insert_range(slots);
        }
        if let Some(answered) = judged.answered.get(&wanted.key) {
            silent.subtract(answered);
        }
        let is_nothing = silent.count() == wanted.len();
        silent.intersect(&vouched(grid, answer, &wanted.key, asked));
        let mut over = SlotSet::new(grid.cadence(), asked);
        over.insert_range(SlotRange::new(asked.first, by_day::slots_over(grid, now)));
        silent.intersect(&over);
        let quiet_spell_slots =
            self.quiet_spell.map_or(QUIET_SPELL_SLOTS, |spell| u64::try_from(grid.slots_of(spell.seconds(), asked.first)).unwrap_or(0));
        // An answer that fills nothing does not show how long the key is silent; the silence may extend beyond the request.
        let barren = self.barren.get_or_init(|| missing_of_all(findings));
        let mut suspect = SlotSet::new(grid.cadence(), asked);
        let begin = barren.partition_point(|stretch| stretch.end <= asked.first);
        for stretch in barren.iter().skip(begin).take_while(|stretch| stretch.first < asked.end) {
            let mut here = SlotSet::new(grid.cadence(), stretch.intersection(&asked));
            here.union(&silent);
            let too_long = |run: &SlotRange| run.len() > quiet_spell_slots || (is_nothing && stretch.len() > quiet_spell_slots);
            here.runs().filter(too_long).for_each(|run| suspect.insert_range(run));
        }
        silent.subtract(&suspect);
        Silence { absent: silent, suspect }
    }
}

/// What it means that a source has no rows for slots of a key.
struct Silence {
    /// The source vouches that there are no rows.
    absent: SlotSet,
    /// The source may have failed in the same way as whatever filled the table.
    suspect: SlotSet,
}

/// The stretches in which every examined key that is expected misses its rows, in order. A key with a calendar of its own has no say,
/// since it may be closed, unless all keys have one.
fn missing_of_all(findings: &Findings) -> Vec<SlotRange> {
    let scope = &findings.scope;
    let by_scope = |key: &Key| scope.lifetimes.of(key).is_none_or(|lifetime| lifetime.calendar.is_none() && lifetime.every.is_none());
    let none_by_scope = !scope.keys.iter().any(by_scope);
    let has_say = |key: &Key| none_by_scope || by_scope(key);
    let gaps = findings.gaps.runs().filter(|(key, _)| has_say(key)).map(|(_, runs)| Box::new(runs.iter()) as Gaps<'_>);
    let dead = scope.lifetimes.iter().filter(|lifetime| has_say(&lifetime.key));
    let dead = dead.map(|lifetime| Box::new(not_alive(lifetime, scope).into_iter()) as Gaps<'_>);
    let mut edges = edges(gaps.chain(dead).collect()).peekable();
    let all = scope.keys.iter().filter(|key| has_say(key)).count();
    let all = i64::try_from(all).unwrap_or(i64::MAX);
    let mut stretches: Vec<SlotRange> = Vec::new();
    let mut missing = 0;
    while let Some(pair) = edges.next() {
        missing += pair.1;
        let Some(next) = edges.peek() else { break };
        if missing >= all && next.0 > pair.0 {
            match stretches.last_mut() {
                Some(last) if last.end == pair.0 => last.end = next.0,
                _ => stretches.push(SlotRange::new(pair.0, next.0)),
            }
        }
    }
    stretches
}

/// Gaps in order.
type Gaps<'a> = Box<dyn Iterator<Item = SlotRange> + 'a>;

/// Where gaps begin, with 1, and where they end, with -1, in order: however many gaps there are, no more than one of each list is held.
fn edges(mut lists: Vec<Gaps<'_>>) -> impl Iterator<Item = (i64, i64)> {
    let mut next: BinaryHeap<Reverse<(i64, i64, usize)>> = BinaryHeap::with_capacity(2 * lists.len());
    let take = |list: usize, lists: &mut Vec<Gaps<'_>>, next: &mut BinaryHeap<Reverse<(i64, i64, usize)>>| {
        if let Some(gap) = lists.get_mut(list).and_then(Iterator::next) {
            next.push(Reverse((gap.first, 1, list)));
            next.push(Reverse((gap.end, -1, list)));
        }
    };
    (0..lists.len()).for_each(|list| take(list, &mut lists, &mut next));
    std::iter::from_fn(move || {
        let Reverse((at, step, list)) = next.pop()?;
        // Those of a list are in order, so the next gap begins here or later.
        if step < 0 {
            take(list, &mut lists, &mut next);
        }
        Some((at, step))
    })
}

/// The slots of a scope in which a key is not alive.
fn not_alive(lifetime: &Lifetime, scope: &Scope) -> Vec<SlotRange> {
    let all = scope.slots();
    let Some(alive) = &lifetime.alive else { return Vec::new() };
    let (mut dead, mut from) = (Vec::with_capacity(alive.len() + 1), all.first);
    for stretch in alive {
        let slots = scope.grid.slots_in(stretch);
        dead.push(SlotRange::new(from, slots.first.max(from)));
        from = slots.end.max(from);
    }
    dead.push(SlotRange::new(from, all.end.max(from)));
    dead.retain(|slots| !slots.is_empty());
    dead
}

#[async_trait]
impl Repairer for Backfill {
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        if context.table(&findings.scope.table)?.rows == Rows::Unique {
            return Ok(unique_units(findings, context.turn));
        }
        let limits = context.source(&self.source)?.limits();
        let grid = findings.scope.grid;
        let over = by_day::slots_over(grid, context.clock.now());
        let mut gaps = findings.gaps.by_key();
        for slots in gaps.values_mut() {
            // Slots that have not ended have no rows yet, and a request for them would be wasted.
            slots.iter_mut().for_each(|gap| gap.end = gap.end.min(over));
            slots.retain(|gap| !gap.is_empty());
        }
        let plan = requests::plan(&gaps, limits)?.of_turn(context.turn, &findings.scope.keys);
        let neighbours = self.neighbours;
        Ok(Box::new(
            plan.map(move |asked| requests::unit(if neighbours { requests::with_neighbours(asked, limits, over) } else { asked }, grid)),
        ))
    }

    fn worst(&self, context: &StepContext, _: &Unit) -> Usage {
        // At least one call, even if the source declares none, because it is called.
        let requests = context.source(&self.source).map_or(1, |source| source.requests_at_worst().max(1));
        Usage { source_requests: requests, ..Usage::default() }
    }

    fn reads(&self) -> Reads {
        if self.neighbours { Reads::Once } else { Reads::Nothing }
    }

    fn recall(&self, answers: &[AnswerPrint]) {
        self.accepted.recall(answers);
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let table = context.table(&findings.scope.table)?;
        if table.rows == Rows::Unique {
            return self.repair_unique(context, table, findings, unit).await;
        }
        let source = context.source(&self.source)?;
        let columns = self.columns(context, table).await?;
        let columns = columns.as_deref().map(|columns| needed(findings, unit, columns));
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let request = Request { table: table.clone(), keys, interval: unit.interval };
        let asked_at = context.clock.now();
        let answer = source.fetch(context, &request).await.map_err(|error| error.on(self.asked(), &self.source))?;
        let question = Question {
            asked: self.asked(),
            source: &self.source,
            table,
            grid: findings.scope.grid,
            keys: request.keys.iter().collect(),
            slots: findings.scope.grid.slots_in(&unit.interval),
            // The answer may hold slots that ended during the request.
            now: context.clock.now(),
            columns: columns.as_deref(),
        };
        let judged = question.judge(&answer.rows)?;
        if let Some(rule) = self.rule {
            for batch in &answer.rows {
                rule(table, batch).map_err(|error| error.on(self.asked(), &self.source))?;
            }
        }
        let answers = if self.compares { self.accepted.add(&question, &judged)? } else { Vec::new() };
        let conflicts = self.conflicts(context, findings, &question, unit, &answer).await?;
        let (mut absent, mut suspects) = (Vec::new(), Suspects::default());
        for wanted in &unit.wanted {
            let silence = self.judge_silence(findings, wanted, &answer, &judged, question.slots, asked_at);
            for slots in silence.absent.runs() {
                absent.push(self.absence(&question, &answer, &judged, &wanted.key, slots, asked_at)?);
            }
            for slots in silence.suspect.runs() {
                let Some(interval) = question.grid.interval_of(slots) else { continue };
                let keys = findings.scope.keys.len() as u64;
                suspects.add(slots.len(), Suspect { interval, source: self.source.clone(), keys });
            }
        }
        let rows = wanted_rows(&question, unit, &answer.rows)?;
        let usage = Usage { source_requests: answer.requests.max(1), source_rows: judged.rows, ..Usage::default() };
        Ok(Fix { rows, absent, source: self.source.clone(), conflicts, suspects, answers, usage, ..Fix::default() })
    }
}

/// How many keys a unit has at most in a table whose key identifies a row.
const KEYS_PER_UNIT: usize = 50_000;

/// Units of one day each, of rows that only their keys identify: a source is asked for all rows of a stretch of time.
fn unique_units(findings: &Findings, turn: u64) -> PlannedUnits {
    const DAY_US: i64 = 86_400_000_000;
    let grid = findings.scope.grid;
    let mut days: BTreeMap<i64, Vec<Wanted>> = BTreeMap::new();
    for (key, slots) in findings.gaps.iter() {
        for slot in slots.first..slots.end {
            let (of_day, slots) = (days.entry(slot.div_euclid(DAY_US)).or_default(), SlotRange::new(slot, slot + 1));
            match of_day.last_mut() {
                Some(last) if last.key == *key => last.slots.push(slots),
                _ => of_day.push(Wanted { key: key.clone(), slots: vec![slots] }),
            }
        }
    }
    let unit = move |wanted: &[Wanted]| {
        let slots = || wanted.iter().flat_map(|wanted| &wanted.slots);
        let hull = slots().map(|slots| slots.first).min().zip(slots().map(|slots| slots.end).max());
        let interval = hull.and_then(|(first, end)| grid.interval_of(SlotRange::new(first, end)));
        let interval = interval.ok_or_else(|| Error::invalid("the time of a row is out of range"))?;
        Ok(Unit { interval, wanted: wanted.to_vec() })
    };
    let of_day = move |of_day: Vec<Wanted>| -> Vec<Result<Unit>> { of_day.chunks(KEYS_PER_UNIT).map(unit).collect() };
    let mut days: Vec<Vec<Wanted>> = days.into_values().collect();
    // Another day comes first in each turn, so that none waits for ever for those before it.
    let (count, first) = (days.len(), requests::first_of_turn(turn, u32::try_from(days.len()).unwrap_or(u32::MAX)));
    days.rotate_left(usize::try_from(first).unwrap_or(0).min(count));
    Box::new(days.into_iter().flat_map(of_day))
}

impl Backfill {
    /// The rows of a source that a comparison with it found missing or different. Of several versions, the latest counts.
    async fn repair_unique(&self, context: &StepContext, table: &Table, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let source = context.source(&self.source)?;
        let columns = self.columns(context, table).await?;
        let columns = columns.as_deref().map(|columns| needed(findings, unit, columns));
        let request = Request { table: table.clone(), keys: Vec::new(), interval: unit.interval };
        let answer = source.fetch(context, &request).await.map_err(|error| error.on(self.asked(), &self.source))?;
        let (interval, now) = (unit.interval, context.clock.now());
        let question = latest::Question { source: &self.source, table, interval, now, columns: columns.as_deref() };
        question.judge(&answer.rows)?;
        if let Some(rule) = self.rule {
            for batch in &answer.rows {
                rule(table, batch).map_err(|error| error.on(self.asked(), &self.source))?;
            }
        }
        let latest = Latest::of(&self.source, table, &answer.rows)?;
        let source_rows = answer.rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let usage = Usage { source_requests: answer.requests.max(1), source_rows, ..Usage::default() };
        let mut fix = Fix { source: self.source.clone(), usage, ..Fix::default() };
        let mut places = UInt64Builder::new();
        for wanted in &unit.wanted {
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                let theirs = latest.of_key.get(&wanted.key).into_iter().flatten().find(|(time_us, _)| *time_us == slot);
                match theirs {
                    Some((_, row)) => places.append_value(*row as u64),
                    None => fix.conflicts.add(format!(
                        "{} at {}: the row was found in a comparison with its source, and `{}` has no such row, or a later version at another time",
                        wanted.key,
                        findings.scope.grid.time_of(slot),
                        self.source
                    )),
                }
            }
        }
        let places = places.finish();
        if let (Some(rows), false) = (&latest.rows, places.is_empty()) {
            fix.rows.push(take_record_batch(rows, &places)?);
        }
        Ok(fix)
    }

    fn absence(
        &self,
        question: &Question<'_>,
        answer: &Answer,
        judged: &Judged<'_>,
        key: &Key,
        slots: SlotRange,
        asked_at: Timestamp,
    ) -> Result<Absence> {
        let grid = question.grid;
        let first = grid.start_of(slots.first);
        let when = if slots.len() == 1 { first.to_string() } else { format!("{first} to {}", grid.start_of(slots.end)) };
        let vouched = answer.covered.iter().find(|covered| covered.key == *key && covered.interval.contains(first));
        let covers = vouched.map(|covered| format!(" that covers {}", covered.interval)).unwrap_or_default();
        let said = if answer.said.is_empty() { self.source.as_str() } else { answer.said.as_str() };
        let recheck_after = asked_at
            .checked_add(self.recheck_after.signed())
            .map_err(|error| Error::invalid("`recheck_after` is out of range").because(error))?;
        Ok(Absence {
            key: key.clone(),
            slots,
            source: self.source.clone(),
            asked_at,
            answer: format!("{said}: no row for {key} {when} in an answer of {} rows{covers}", judged.rows),
            recheck_after,
        })
    }
}

/// The columns that an answer must have: those of the table or, if only cells of its rows are wrong, the columns of these cells.
fn needed<'a>(findings: &Findings, unit: &Unit, columns: &'a Schema) -> Cow<'a, Schema> {
    let mut wrong: BTreeSet<&str> = BTreeSet::new();
    for wanted in &unit.wanted {
        for slots in &wanted.slots {
            let mut whole = slots.len();
            for (_, cells) in findings.cells.of_key(&wanted.key, *slots) {
                whole = whole.saturating_sub(1);
                wrong.extend(cells.columns.iter().map(String::as_str));
            }
            if !findings.deleted.is_empty() {
                // Where a row is to be removed, none is expected.
                let deleted = (slots.first..slots.end).filter(|slot| findings.deleted.contains(&wanted.key, *slot)).count();
                whole = whole.saturating_sub(deleted as u64);
            }
            if whole > 0 {
                return Cow::Borrowed(columns);
            }
        }
    }
    let fields: Vec<FieldRef> = columns.fields().iter().filter(|field| wrong.contains(field.name().as_str())).cloned().collect();
    Cow::Owned(Schema::new(fields))
}

/// The rows of wanted slots. Rows between gaps are in the answer because one request is cheaper than two.
fn wanted_rows(question: &Question<'_>, unit: &Unit, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let mut wanted: BTreeMap<&Key, SlotSet> = BTreeMap::new();
    for of_key in &unit.wanted {
        let set = wanted.entry(&of_key.key).or_insert_with(|| SlotSet::new(question.grid.cadence(), question.slots));
        of_key.slots.iter().for_each(|&slots| set.insert_range(slots));
    }
    let mut kept = Vec::with_capacity(batches.len());
    for batch in batches {
        let rows = KeyTime { keys: rollup::key_columns(question.table, batch)?, times: times(question.table, batch)? };
        let mut keep = BooleanBufferBuilder::new(batch.num_rows());
        for run in rows.runs() {
            match wanted.get(&rows.key(run.start)) {
                Some(slots) => run.for_each(|row| keep.append(slots.contains(question.grid.slot_of_us(rows.times.value(row))))),
                None => keep.append_n(run.len(), false),
            }
        }
        let rows = filter_record_batch(batch, &BooleanArray::new(keep.finish(), None))?;
        if rows.num_rows() > 0 {
            kept.push(rows);
        }
    }
    Ok(kept)
}
