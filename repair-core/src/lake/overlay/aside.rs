//! Slots that people have set aside: frozen, given up, or handled elsewhere. A detector still finds what is wrong with them, but it is counted
//! apart, and no repair writes to them.
//!
//! Each decision is a record in `…_retractions`, beside the exceptions: its parts name no run but the verdict, so it hides nothing, and a reader that
//! does not know of decisions goes on as before. Another record lifts it, as one undoes a retraction. A decision that a repair step makes, since it asks
//! no more after so many runs, has a part for each stretch of slots. Values only, but for reading them.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lake::ReadLake;
use crate::lake::overlay::retraction::{Part, Retraction, undone};
use crate::model::{Interval, Key, SlotGrid, SlotRange, Table};

/// Where a decision begins that has no beginning: a date that every lake can write, and earlier than any row.
pub const BEGINNING: &str = "0001-01-01";
/// A day and more after that, in any zone.
const BEGINNING_S: i64 = -62_135_596_800 + 3 * 86_400;

/// What is in the place of a run in a record of slots that are given up.
pub const GIVEN_UP: &str = ".given-up";

/// The id of a decision that no person has made, but a repair step whose workflow says so.
pub fn in_place_of_people(hash: &str) -> String {
    format!("{}-in-vain-{hash}", Verdict::GivenUp.as_str())
}

/// What a person has decided about slots. Where several decisions meet, the first in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nobody may touch them: they are neither repaired nor counted as wrong.
    Frozen,
    /// Somebody else repairs them.
    HandledElsewhere,
    /// Nobody will repair them.
    GivenUp,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Frozen, Self::HandledElsewhere, Self::GivenUp];

    /// The word, the same in reports and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::HandledElsewhere => "handled-elsewhere",
            Self::GivenUp => "given-up",
        }
    }

    /// The word in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::HandledElsewhere => "handled elsewhere",
            Self::GivenUp => "given up",
        }
    }

    /// What is in the place of a run. No run has such a name.
    fn in_place_of_run(self) -> &'static str {
        match self {
            Self::Frozen => ".frozen",
            Self::HandledElsewhere => ".handled-elsewhere",
            Self::GivenUp => GIVEN_UP,
        }
    }

    fn of(part: &Part) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.in_place_of_run() == part.run)
    }
}

/// A decision in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Aside {
    /// Its id, by which it is lifted.
    pub id: String,
    /// What was decided.
    pub verdict: Verdict,
    /// The series; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The slots that begin within this interval.
    pub interval: Interval,
    /// When it was decided.
    pub at: Timestamp,
    /// Who decided.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Aside {
    /// A decision of somebody at a time.
    pub fn new(id: impl Into<String>, verdict: Verdict, interval: Interval, at: Timestamp, by: impl Into<String>) -> Self {
        Self { id: id.into(), verdict, key: None, interval, at, by: by.into(), reason: String::new() }
    }

    /// It is about one series only.
    #[must_use]
    pub fn of_key(mut self, key: impl Into<Option<Key>>) -> Self {
        self.key = key.into();
        self
    }

    /// Why it was made.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The record that is kept of it.
    pub fn to_record(&self) -> Retraction {
        let part = Part { key: self.key.clone(), interval: Some(self.interval), ..Part::of_run(self.verdict.in_place_of_run()) };
        Retraction { id: self.id.clone(), parts: vec![part], undoes: None, at: self.at, by: self.by.clone(), reason: self.reason.clone() }
    }

    /// The time that it is about, in words.
    pub fn when(&self) -> String {
        // Nobody has rows of the first century: it has no beginning.
        if self.interval.from().as_second() < BEGINNING_S { format!("until {}", self.interval.to()) } else { self.interval.to_string() }
    }

    /// The decision in a sentence.
    pub fn in_words(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("{key} ")).unwrap_or_default();
        format!("{} ({key}{}, by {} on {:.0}: {}; {})", self.verdict.words(), self.when(), self.by, self.at, self.reason, self.id)
    }

    /// One for each part of a record.
    fn of(record: &Retraction) -> impl Iterator<Item = Self> {
        record.parts.iter().filter_map(|part| {
            let new = Self::new(&record.id, Verdict::of(part)?, part.interval?, record.at, &record.by);
            Some(new.of_key(part.key.clone()).because(&record.reason))
        })
    }
}

/// Whether a record is a decision about slots, and hides nothing.
pub fn is_decision(record: &Retraction) -> bool {
    record.parts.iter().any(|part| Verdict::of(part).is_some())
}

/// The decisions about a table that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Asides(Vec<Aside>);

impl Asides {
    /// The decisions among the records of a table. What is lifted is left out.
    pub fn of(table: &Table, records: &[Retraction]) -> Self {
        let lifted = undone(records);
        let in_force = records.iter().filter(|record| !lifted.contains(record.id.as_str())).flat_map(Aside::of);
        // A table without key columns is one series, so a decision about its only key is about all.
        let mut all: Vec<Aside> = in_force.map(|aside| Aside { key: aside.key.filter(|_| !table.key.is_empty()), ..aside }).collect();
        let place = |aside: &Aside| (aside.key.clone(), aside.interval.from(), aside.interval.to());
        all.sort_by(|a, b| (a.verdict, a.at, &a.id).cmp(&(b.verdict, b.at, &b.id)).then_with(|| place(a).cmp(&place(b))));
        Self(all)
    }

    /// Reads those of a table.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn read(lake: &(impl ReadLake + ?Sized), table: &Table) -> Result<Self> {
        Ok(Self::of(table, &lake.retractions(table).await?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them: those that count before others first.
    pub fn iter(&self) -> impl Iterator<Item = &Aside> {
        self.0.iter()
    }

    /// As slots of a grid.
    pub fn on(&self, grid: SlotGrid) -> AsideSlots<'_> {
        let mut slots = AsideSlots { all: Vec::new(), of_key: HashMap::new(), of_any: Vec::new() };
        for aside in &self.0 {
            let range = grid.slots_in(&aside.interval);
            if range.is_empty() {
                continue;
            }
            match &aside.key {
                Some(key) => slots.of_key.entry(key).or_default().push(slots.all.len()),
                None => slots.of_any.push(slots.all.len()),
            }
            slots.all.push((aside, range));
        }
        slots
    }

    /// A digest of all of them: as long as it is the same, so are they.
    ///
    /// # Errors
    /// `internal` if they cannot be written as JSON.
    pub fn digest(&self) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(|error| Error::internal("decisions are not JSON").because(error))?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }
}

/// Decisions as slots.
#[derive(Debug, Clone)]
pub struct AsideSlots<'a> {
    /// In their order: those that count before others first.
    all: Vec<(&'a Aside, SlotRange)>,
    /// Which of them are about one key, and which about any.
    of_key: HashMap<&'a Key, Vec<usize>>,
    of_any: Vec<usize>,
}

impl<'a> AsideSlots<'a> {
    /// The decisions about a key, in their order.
    fn about<'b>(&'b self, key: &'b Key) -> impl Iterator<Item = (&'a Aside, SlotRange)> + 'b {
        let (mut own, mut any) = (self.of_key.get(key).map_or(&[][..], Vec::as_slice), self.of_any.as_slice());
        std::iter::from_fn(move || {
            let next = match (own.split_first(), any.split_first()) {
                (Some((one, rest)), other) if other.is_none_or(|(other, _)| one < other) => {
                    own = rest;
                    one
                }
                (_, Some((other, rest))) => {
                    any = rest;
                    other
                }
                _ => return None,
            };
            self.all.get(*next).copied()
        })
    }

    /// The decision that counts for a slot.
    pub fn get(&self, key: &Key, slot: i64) -> Option<&'a Aside> {
        self.about(key).find(|(_, slots)| slots.contains(slot)).map(|(aside, _)| aside)
    }

    /// Slots of a key, cut where the decision changes that counts for them.
    pub fn cut(&self, key: &Key, range: SlotRange) -> Vec<(SlotRange, Option<&'a Aside>)> {
        let within: Vec<(&Aside, SlotRange)> = self.about(key).filter(|(_, slots)| !slots.intersection(&range).is_empty()).collect();
        if within.is_empty() {
            return vec![(range, None)];
        }
        let ends = within.iter().flat_map(|(_, slots)| [slots.first, slots.end]).filter(|at| range.first < *at && *at < range.end);
        let bounds: BTreeSet<i64> = ends.chain([range.first, range.end]).collect();
        let bounds: Vec<i64> = bounds.into_iter().collect();
        let of = |first: i64| within.iter().find(|(_, slots)| slots.contains(first)).map(|(aside, _)| *aside);
        bounds.windows(2).map(|pair| (SlotRange::new(pair[0], pair[1]), of(pair[0]))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::overlay::retraction::{Retracted, in_force};
    use crate::model::Cadence;

    fn table() -> Table {
        Table { key: vec!["sensor".into()], cadence: Some(Cadence::HOUR), ..Table::implicit("readings", "ts") }
    }

    fn aside(id: &str, verdict: Verdict, from: &str, to: &str) -> Aside {
        let at = "2024-04-01T00:00:00Z".parse().unwrap();
        Aside::new(id, verdict, Interval::parse(from, to).unwrap(), at, "me").because("it is old")
    }

    #[test]
    fn a_decision_comes_back_from_its_rows_hides_nothing_and_can_be_lifted() {
        let table = table();
        let one = aside("a", Verdict::Frozen, "2024-03-04", "2024-03-05").of_key(Key::from("co"));
        let record = one.to_record();
        let read = Retraction::from_batch(&table, &record.to_batch(&table).unwrap()).unwrap();
        assert!(is_decision(&read));
        assert_eq!(in_force(std::slice::from_ref(&read)).count(), 0);
        assert!(Retracted::of(&table, std::slice::from_ref(&read)).is_empty());
        assert_eq!(Asides::of(&table, std::slice::from_ref(&read)).iter().collect::<Vec<_>>(), [&one]);
        let lift = Retraction { id: "b".into(), parts: Vec::new(), undoes: Some("a".into()), ..record };
        assert!(Asides::of(&table, &[read, lift]).is_empty());
    }

    #[test]
    fn a_decision_of_many_stretches_is_one_that_is_lifted_as_one() {
        let table = table();
        let interval = |from: &str, to: &str| Some(Interval::parse(from, to).unwrap());
        let part = |key: &str, interval| Part { key: Some(Key::from(key)), interval, ..Part::of_run(GIVEN_UP) };
        let parts = vec![
            part("co", interval("2024-03-04T01:00:00Z", "2024-03-04T03:00:00Z")),
            part("co", interval("2024-03-04T05:00:00Z", "2024-03-04T06:00:00Z")),
            part("no", interval("2024-03-04T00:00:00Z", "2024-03-04T01:00:00Z")),
        ];
        let frozen = aside("a", Verdict::Frozen, "2024-03-04T02:00:00Z", "2024-03-04T04:00:00Z").to_record();
        let record = Retraction { id: in_place_of_people("1"), parts, ..frozen.clone() };
        let records = [record.clone(), frozen];
        let asides = Asides::of(&table, &records);
        assert_eq!(asides.iter().count(), 4);
        let grid = table.grid().unwrap();
        let on = asides.on(grid);
        let day = grid.slots_in(&Interval::parse("2024-03-04", "2024-03-04").unwrap());
        let verdicts = |key: &str| -> Vec<Option<Verdict>> {
            (day.first..day.first + 7).map(|slot| on.get(&Key::from(key), slot).map(|aside| aside.verdict)).collect()
        };
        let (given_up, frozen) = (Some(Verdict::GivenUp), Some(Verdict::Frozen));
        assert_eq!(verdicts("co"), [None, given_up, frozen, frozen, None, given_up, None]);
        assert_eq!(verdicts("no"), [given_up, None, frozen, frozen, None, None, None]);
        let lift = Retraction { id: "b".into(), parts: Vec::new(), undoes: Some(record.id.clone()), ..record };
        assert_eq!(Asides::of(&table, &[&records[..], &[lift]].concat()).iter().count(), 1);
    }

    #[test]
    fn the_strongest_decision_counts_and_slots_are_cut_where_it_changes() {
        let table = table();
        let records = [
            aside("a", Verdict::GivenUp, "2024-03-04T00:00:00Z", "2024-03-04T12:00:00Z").to_record(),
            aside("b", Verdict::Frozen, "2024-03-04T06:00:00Z", "2024-03-04T08:00:00Z").of_key(Key::from("co")).to_record(),
        ];
        let asides = Asides::of(&table, &records);
        let grid = table.grid().unwrap();
        let day = grid.slots_in(&Interval::parse("2024-03-04", "2024-03-04").unwrap());
        let on = asides.on(grid);
        let cut = |key: &str| -> Vec<(u64, Option<Verdict>)> {
            on.cut(&Key::from(key), day).into_iter().map(|(slots, aside)| (slots.len(), aside.map(|aside| aside.verdict))).collect()
        };
        let (given_up, frozen) = (Some(Verdict::GivenUp), Some(Verdict::Frozen));
        assert_eq!(cut("co"), [(6, given_up), (2, frozen), (4, given_up), (12, None)]);
        assert_eq!(cut("no"), [(12, given_up), (12, None)]);
        for slot in day.first..day.end {
            let alone = on.get(&Key::from("co"), slot).map(|aside| aside.verdict);
            let cut = on.cut(&Key::from("co"), day).into_iter().find(|(slots, _)| slots.contains(slot)).unwrap();
            assert_eq!(alone, cut.1.map(|aside| aside.verdict));
        }
    }
}
