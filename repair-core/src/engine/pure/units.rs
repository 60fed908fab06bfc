//! The units of one visit of a repair step: the fold of its events. Pure. A running attempt keeps its own copy, in step with the run's.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::engine::pure::answers::Answers;
use crate::engine::pure::event::{ErrorRecord, Event, FindingsRecord};
use crate::error::ErrorKind;
use crate::model::Usage;
use crate::model::{AnswerPrint, Conflicts, Suspects};

/// How many errors of units are kept in full. For further ones, only the kind is kept.
const KEPT_ERRORS: usize = 100;

/// The counts of units, in the order of the output.
const COUNTS: [&str; 12] = [
    "units",
    "succeeded",
    "failed",
    "pending",
    "slots",
    "repaired",
    "absent",
    "unresolved",
    "suspect",
    "conflicts",
    "not_compared",
    "requests",
];

/// The state of a unit. Every unit is always in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UnitState {
    /// The unit has not succeeded or failed yet.
    Pending,
    /// Its rows are in the run's staging area, and readers do not see them yet.
    Staged,
    /// Its rows are published, and readers see them.
    Published,
    /// Its last attempt failed with an error of this kind.
    Failed(ErrorKind),
}

/// Units that are published together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The indexes of the units; empty once they are published.
    pub units: Vec<u32>,
    /// Whether they are published.
    pub ended: bool,
}

/// The units of one visit of a repair step, and the state of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitStates {
    /// The detect step whose findings they repair.
    pub of: String,
    /// The table being repaired.
    pub table: String,
    /// The name of the strategy.
    pub strategy: String,
    /// The artifact that lists the units.
    pub artifact: String,
    /// The number of slots to repair.
    pub slots: u64,
    /// By index.
    #[serde(with = "in_runs")]
    states: Vec<UnitState>,
    pending: u64,
    staged: u64,
    published: u64,
    failed: BTreeMap<ErrorKind, u64>,
    /// The last errors of failed units, by index; only some are kept.
    pub errors: BTreeMap<u32, ErrorRecord>,
    /// The number of its first batch. Batches are numbered across all strategies of a visit.
    first_batch: u32,
    /// Batches whose publication has started.
    pub batches: Vec<Batch>,
    /// Rows published.
    pub rows: u64,
    /// Slots recorded as absent.
    pub absent: u64,
    /// Slots where a source disagreed with the table.
    pub conflicts: Conflicts,
    /// Slots for which a source had nothing, without that proving that they are absent.
    pub suspects: Suspects,
    /// What to remember of the answers of a source.
    answers: Answers,
    /// What its units used.
    pub usage: Usage,
    /// What earlier strategies left to repair; none for the first strategy.
    pub left: Option<Box<FindingsRecord>>,
}

/// The results of a strategy that ended in this visit, while the step continued with the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlierStrategy {
    /// The name of the strategy.
    pub strategy: String,
    /// The error that ended it, if there was one.
    pub error: Option<ErrorRecord>,
    /// How many batches it published.
    pub batches: u32,
    /// Slots for which a source had nothing, without that proving that they are absent.
    pub suspects: Suspects,
    /// Its counts, as conditions see them.
    #[serde(deserialize_with = "known_counts")]
    counts: BTreeMap<&'static str, u64>,
}

/// Counts under the names that this program knows.
fn known_counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let known = |(name, count): (String, u64)| {
        let known = COUNTS.iter().find(|known| **known == name);
        known.map(|known| (*known, count)).ok_or_else(|| D::Error::custom(format!("there is no count `{name}`")))
    };
    counts.into_iter().map(known).collect()
}

/// States in runs of equal ones: each state, and how often it follows.
mod in_runs {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::UnitState;

    pub(super) fn serialize<S: Serializer>(states: &[UnitState], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(states.chunk_by(|one, next| one == next).filter_map(|run| Some((run.first()?, run.len()))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<UnitState>, D::Error> {
        let runs = Vec::<(UnitState, u32)>::deserialize(deserializer)?;
        let count = runs.iter().try_fold(0u32, |count, (_, more)| count.checked_add(*more));
        let count = count.ok_or_else(|| D::Error::custom("there are too many units"))?;
        let mut states = Vec::with_capacity(count as usize);
        runs.into_iter().for_each(|(state, count)| states.extend(std::iter::repeat_n(state, count as usize)));
        Ok(states)
    }
}

impl EarlierStrategy {
    /// A strategy and its units; no units, if planning them failed.
    pub(crate) fn new(strategy: &str, units: Option<&UnitStates>, error: Option<ErrorRecord>) -> Self {
        let batches = units.map_or(0, |units| u32::try_from(units.batches.len()).unwrap_or(u32::MAX));
        let suspects = units.map(|units| units.suspects.clone()).unwrap_or_default();
        Self { strategy: strategy.to_owned(), error, batches, suspects, counts: units.map(UnitStates::counts).unwrap_or_default() }
    }

    /// How many of its units failed.
    pub fn failed(&self) -> u64 {
        self.count("failed")
    }

    /// How many units it had.
    pub fn units(&self) -> u64 {
        self.count("units")
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// A strategy and its counts, as they appear in the output.
fn output_of(strategy: Option<&str>, counts: &BTreeMap<&'static str, u64>) -> Value {
    let named = COUNTS.iter().filter_map(|name| Some(((*name).to_owned(), json!(counts.get(name)?))));
    Value::Object(std::iter::once(("strategy".to_owned(), json!(strategy))).chain(named).collect())
}

/// What conditions see as the `$output` of a repair step: the totals over all strategies and, if there were several, each one's own counts.
pub(crate) fn repair_output(earlier: &[EarlierStrategy], units: Option<&UnitStates>) -> Value {
    let now = units.map(UnitStates::counts).unwrap_or_default();
    let mut total = now.clone();
    for earlier in earlier {
        for (name, count) in &earlier.counts {
            *total.entry(name).or_default() += count;
        }
    }
    // Later strategies repair what is left of the slots that the first one was to repair.
    let slots = earlier.iter().find(|earlier| !earlier.counts.is_empty()).map_or(now.get("slots"), |first| first.counts.get("slots"));
    let slots = slots.copied().unwrap_or(0);
    let of = |name: &str| total.get(name).copied().unwrap_or(0);
    let unresolved = slots.saturating_sub(of("repaired") + of("absent"));
    // A slot that is suspect to one strategy may be repaired by another, and one that is suspect to two must count once.
    let suspect = earlier.iter().map(|earlier| earlier.count("suspect")).chain(now.get("suspect").copied()).max().unwrap_or(0);
    total.extend([("slots", slots), ("unresolved", unresolved), ("suspect", suspect.min(unresolved))]);
    let last = units.map_or_else(|| earlier.last().map(|last| last.strategy.as_str()), |units| Some(&units.strategy));
    let mut output = output_of(last, &total);
    if !earlier.is_empty() {
        let each = |strategy: &str, counts: &BTreeMap<&'static str, u64>, error: Option<&ErrorRecord>| {
            let mut one = output_of(Some(strategy), counts);
            if let Some(error) = error {
                one["error"] = json!({ "kind": error.kind, "message": error.message });
            }
            one
        };
        let mut list: Vec<Value> = earlier.iter().map(|earlier| each(&earlier.strategy, &earlier.counts, earlier.error.as_ref())).collect();
        list.extend(units.map(|units| each(&units.strategy, &now, units.an_error().as_ref())));
        output["strategies"] = Value::Array(list);
    }
    output
}

impl UnitStates {
    /// The units that a `units-planned` event planned; none for any other event.
    pub(crate) fn planned(event: &Event, first_batch: u32) -> Option<Self> {
        let Event::UnitsPlanned { of, table, strategy, units, slots, artifact, left, .. } = event else { return None };
        Some(Self {
            of: of.clone(),
            table: table.clone(),
            strategy: strategy.clone(),
            artifact: artifact.clone(),
            slots: *slots,
            states: vec![UnitState::Pending; *units as usize],
            pending: u64::from(*units),
            staged: 0,
            published: 0,
            failed: BTreeMap::new(),
            errors: BTreeMap::new(),
            first_batch,
            batches: Vec::new(),
            rows: 0,
            absent: 0,
            conflicts: Conflicts::default(),
            suspects: Suspects::default(),
            answers: Answers::default(),
            usage: Usage::default(),
            left: left.clone(),
        })
    }

    /// How many units there are.
    pub fn len(&self) -> u64 {
        self.states.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// How many are pending.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// How many are staged.
    pub fn staged(&self) -> u64 {
        self.staged
    }

    /// How many are published.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many failed, by kind of error.
    pub fn failed_by_kind(&self) -> impl Iterator<Item = (ErrorKind, u64)> + '_ {
        self.failed.iter().map(|(kind, count)| (*kind, *count))
    }

    /// The state of a unit.
    pub fn state(&self, unit: u32) -> Option<UnitState> {
        self.states.get(unit as usize).copied()
    }

    /// The indexes of units in a state.
    pub fn indexes(&self, wanted: impl Fn(UnitState) -> bool) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.states).filter(move |(_, state)| wanted(**state)).map(|(index, _)| index)
    }

    /// For each unit whether it is in a state.
    pub(crate) fn are(&self, wanted: impl Fn(UnitState) -> bool) -> Vec<bool> {
        self.states.iter().map(|state| wanted(*state)).collect()
    }

    /// Forgets the answers of a source.
    pub(crate) fn forget_answers(&mut self) {
        self.answers = Answers::default();
    }

    /// What is to be remembered of the answers of a source, which is forgotten here.
    pub(crate) fn take_answers(&mut self) -> Vec<AnswerPrint> {
        std::mem::take(&mut self.answers).iter().collect()
    }

    /// The error of one of the failed units; none if none failed.
    pub fn an_error(&self) -> Option<ErrorRecord> {
        let kept = self.errors.iter().find(|(unit, _)| matches!(self.state(**unit), Some(UnitState::Failed(_))));
        kept.map(|(_, error)| error.clone()).or_else(|| {
            let (kind, count) = self.failed.iter().next()?;
            let units = if *count == 1 { "unit" } else { "units" };
            Some(ErrorRecord { kind: *kind, message: format!("{count} {units} failed"), retry_after_ms: None })
        })
    }

    /// The counts that conditions see.
    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::from([
            ("units", self.len()),
            ("succeeded", self.staged + self.published),
            ("failed", self.failed()),
            ("pending", self.pending),
            ("slots", self.slots),
            ("repaired", self.rows),
            ("absent", self.absent),
            ("unresolved", self.unresolved()),
            ("suspect", self.suspects.slots),
            ("conflicts", self.conflicts.slots),
            ("requests", self.usage.source_requests),
        ]);
        if self.conflicts.not_compared > 0 {
            counts.insert("not_compared", self.conflicts.not_compared);
        }
        counts
    }

    /// How many slots are neither repaired nor confirmed absent.
    pub fn unresolved(&self) -> u64 {
        self.slots.saturating_sub(self.rows + self.absent)
    }

    /// Whether everything that was staged is published, so that nothing that was paid for is left waiting.
    pub fn is_published(&self) -> bool {
        self.staged == 0 && self.batches.iter().all(|batch| batch.ended)
    }

    /// The number of the next batch to publish.
    pub(crate) fn next_batch(&self) -> u32 {
        self.first_batch + u32::try_from(self.batches.len()).unwrap_or(u32::MAX)
    }

    /// Batches whose publication has started and not ended, by number.
    pub(crate) fn begun_batches(&self) -> impl Iterator<Item = (u32, &[u32])> {
        (self.first_batch..).zip(&self.batches).filter(|(_, batch)| !batch.ended).map(|(number, batch)| (number, batch.units.as_slice()))
    }

    fn count(&mut self, state: UnitState) -> &mut u64 {
        match state {
            UnitState::Pending => &mut self.pending,
            UnitState::Staged => &mut self.staged,
            UnitState::Published => &mut self.published,
            UnitState::Failed(kind) => self.failed.entry(kind).or_default(),
        }
    }

    fn put(&mut self, unit: u32, to: UnitState) -> Option<UnitState> {
        let state = self.states.get_mut(unit as usize)?;
        let from = std::mem::replace(state, to);
        *self.count(from) -= 1;
        *self.count(to) += 1;
        if let UnitState::Failed(kind) = from
            && self.failed.get(&kind) == Some(&0)
        {
            self.failed.remove(&kind);
        }
        Some(from)
    }

    /// Makes failed units pending again: those that failed with one of the kinds, or all if none are given.
    pub(crate) fn retry(&mut self, kinds: Option<&[ErrorKind]>) {
        let again = |state| matches!(state, UnitState::Failed(kind) if kinds.is_none_or(|kinds| kinds.contains(&kind)));
        for unit in self.indexes(again).collect::<Vec<_>>() {
            self.put(unit, UnitState::Pending);
        }
    }

    /// Folds an event about these units; other events change nothing.
    ///
    /// # Errors
    /// Why the event is not possible in this state.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::UnitsEnded { staged, usage, conflicts, suspects, answers, failed, .. } => {
                for &unit in staged {
                    self.end(unit, UnitState::Staged)?;
                    self.errors.remove(&unit);
                }
                self.usage += *usage;
                self.conflicts += conflicts.clone();
                self.suspects += suspects.clone();
                answers.iter().for_each(|answer| self.answers.push(answer));
                for failed in failed {
                    self.end(failed.unit, UnitState::Failed(failed.error.kind))?;
                    if self.errors.len() < KEPT_ERRORS || self.errors.contains_key(&failed.unit) {
                        self.errors.insert(failed.unit, failed.error.clone());
                    }
                }
            }
            Event::UnitsLost { units, .. } => {
                for &unit in units {
                    if self.state(unit) != Some(UnitState::Staged) {
                        return Err("a unit that was lost is not staged");
                    }
                    self.put(unit, UnitState::Pending);
                }
                // What is left of a batch is published under its number.
                for batch in self.batches.iter_mut().filter(|batch| !batch.ended) {
                    batch.units.retain(|unit| !units.contains(unit));
                    batch.ended = batch.units.is_empty();
                }
            }
            Event::PublishStarted { batch, units, .. } => {
                if *batch != self.next_batch() {
                    return Err("the batch is out of order");
                }
                if units.iter().any(|unit| self.state(*unit) != Some(UnitState::Staged)) {
                    return Err("a unit of the batch is not staged");
                }
                self.batches.push(Batch { units: units.clone(), ended: false });
            }
            Event::PublishEnded { batch, rows, absent, usage, .. } => {
                let index = batch.checked_sub(self.first_batch).ok_or("the batch belongs to another strategy")?;
                let batch = self
                    .batches
                    .get_mut(index as usize)
                    .filter(|batch| !batch.ended)
                    .ok_or("publication of the batch was never started")?;
                batch.ended = true;
                for unit in std::mem::take(&mut batch.units) {
                    self.put(unit, UnitState::Published);
                }
                self.rows += rows;
                self.absent += absent;
                self.usage += *usage;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, unit: u32, to: UnitState) -> Result<(), &'static str> {
        match self.put(unit, to) {
            Some(UnitState::Pending) => Ok(()),
            Some(_) => Err("a unit ended twice"),
            None => Err("the unit was never planned"),
        }
    }
}
