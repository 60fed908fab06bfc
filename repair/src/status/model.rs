//! The status of tables, as values: the same that `--json` prints. Pure.

use std::ops::AddAssign;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use repair_core::engine::JsonFormat;
use repair_core::lake::overlay::aside::Asides;
use repair_core::model::{DefectKind, Interval, Key};

/// How many expected slots are in each state. Every expected slot is in one, so all others add up to `expected`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct States {
    /// Slots in which a row is expected.
    pub expected: u64,
    /// Slots with a row of the table's own, and nothing known to be wrong with it.
    pub complete: u64,
    /// Slots whose row is a repair, or is changed by one.
    pub repaired: u64,
    /// Slots without a row.
    pub missing: u64,
    /// Slots that are confirmed to have no row.
    pub absent: u64,
    /// Slots with rows that break a rule, or with several rows.
    pub suspect: u64,
    /// Slots with a row that has other values than its source.
    pub wrong: u64,
    /// Slots that are missing, suspect or wrong, and that a person has given up.
    pub given_up: u64,
    /// Such slots that a person has frozen.
    pub frozen: u64,
    /// Such slots that somebody else repairs, as a person says.
    pub elsewhere: u64,
    /// Slots of which only rows were examined, so that nothing is known about what is missing.
    pub unexamined: u64,
}

impl States {
    /// All states, with what people call them and how many slots are in them: the worst first.
    pub fn by_name(&self) -> [(&'static str, u64); 10] {
        [
            ("missing", self.missing),
            ("wrong", self.wrong),
            ("suspect", self.suspect),
            ("unexamined", self.unexamined),
            ("given up", self.given_up),
            ("frozen", self.frozen),
            ("elsewhere", self.elsewhere),
            ("absent", self.absent),
            ("repaired", self.repaired),
            ("complete", self.complete),
        ]
    }

    /// How many slots nobody has put right or decided about.
    pub fn open(&self) -> u64 {
        self.missing + self.wrong + self.suspect + self.unexamined
    }

    /// Whether all states add up to what is expected.
    pub fn add_up(&self) -> bool {
        self.by_name().iter().map(|(_, slots)| slots).sum::<u64>() == self.expected
    }
}

impl AddAssign for States {
    fn add_assign(&mut self, other: Self) {
        let Self { expected, complete, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined } = other;
        self.expected += expected;
        self.complete += complete;
        self.repaired += repaired;
        self.missing += missing;
        self.absent += absent;
        self.suspect += suspect;
        self.wrong += wrong;
        self.given_up += given_up;
        self.frozen += frozen;
        self.elsewhere += elsewhere;
        self.unexamined += unexamined;
    }
}

/// A look at a table: a detect step, or a step that verified its findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Look {
    /// The run.
    pub run: String,
    /// Its workflow.
    pub workflow: String,
    /// The step that looked.
    pub step: String,
    /// The detect step whose look it is, or whose gaps it looked at again.
    pub of: String,
    /// What it looked for.
    pub kind: DefectKind,
    /// When it had looked.
    pub at: Timestamp,
    /// The time that it examined.
    pub interval: Interval,
    /// Whether it looked only at the gaps of an earlier look.
    pub again: bool,
    /// When the first evidence expires by which a slot counts as absent; `None` if none was, or the lake does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_until: Option<Timestamp>,
}

/// The slots of a key that begin on one day. As JSON it leaves out the states that none of them is in, since there may be many days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DayStatus {
    /// The day, in the table's zone.
    pub date: Date,
    /// How many slots are in each state.
    pub states: States,
    /// Which of the table's looks saw any of it last.
    pub look: usize,
    /// The part of the day that was looked at, if it was not all of it. What lies outside was never looked at.
    pub part: Option<Interval>,
}

impl Serialize for DayStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let States { expected, complete, repaired, missing, absent, suspect, wrong, given_up, frozen, elsewhere, unexamined } = self.states;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("date", &self.date)?;
        map.serialize_entry("expected", &expected)?;
        let states = [
            ("complete", complete),
            ("repaired", repaired),
            ("missing", missing),
            ("absent", absent),
            ("suspect", suspect),
            ("wrong", wrong),
            ("given_up", given_up),
            ("frozen", frozen),
            ("elsewhere", elsewhere),
            ("unexamined", unexamined),
        ];
        states.iter().filter(|(_, slots)| *slots > 0).try_for_each(|(name, slots)| map.serialize_entry(name, slots))?;
        map.serialize_entry("look", &self.look)?;
        if let Some(part) = &self.part {
            map.serialize_entry("part", part)?;
        }
        map.end()
    }
}

/// A key, day by day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyStatus {
    /// The key.
    pub key: Key,
    /// All of its days.
    pub total: States,
    /// How many of the days between the first and the last were never looked at for this key.
    pub never_looked: u64,
    /// The days that were looked at, in order. A day that is not listed was never looked at, which does not mean that it is complete.
    pub days: Vec<DayStatus>,
}

/// The status of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// Its name.
    pub table: String,
    /// The zone of its days.
    pub zone: String,
    /// Its cadence.
    pub cadence: String,
    /// The days that are listed, from the first to the last; `None` if there are none.
    pub days: Option<(Date, Date)>,
    /// All keys and days.
    pub total: States,
    /// How many days of keys between the first and the last day were never looked at.
    pub never_looked: u64,
    /// Who looked: days refer to them by their place in this list.
    pub looks: Vec<Look>,
    /// What people have set aside.
    #[serde(skip_serializing_if = "Asides::is_empty")]
    pub decisions: Asides,
    /// By key, in order.
    pub keys: Vec<KeyStatus>,
    /// What the status leaves out, and what has changed since.
    pub notes: Vec<String>,
}

impl TableStatus {
    /// The latest look, if there was one.
    pub fn latest(&self) -> Option<&Look> {
        self.looks.iter().max_by_key(|look| look.at)
    }

    /// The days on which most slots are open, over all keys: the worst first, with what was seen of all keys.
    pub fn worst_days(&self, most: usize) -> Vec<(Date, States)> {
        let mut by_day = std::collections::BTreeMap::<Date, States>::new();
        self.keys.iter().flat_map(|key| &key.days).for_each(|day| *by_day.entry(day.date).or_default() += day.states);
        let mut all: Vec<(Date, States)> = by_day.into_iter().filter(|(_, states)| states.open() > 0).collect();
        all.sort_by_key(|(date, states)| (std::cmp::Reverse(states.open()), *date));
        all.truncate(most);
        all
    }
}

/// The status of tables, as runs last saw them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// When it was asked for.
    pub as_of: Timestamp,
    /// By table, in order of name.
    pub tables: Vec<TableStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_as_json_has_the_states_that_slots_are_in() {
        let states = States { expected: 3, missing: 1, given_up: 2, ..States::default() };
        let day = DayStatus { date: Date::constant(2024, 3, 4), states, look: 1, part: None };
        let json = serde_json::to_value(day).unwrap();
        assert_eq!(json, serde_json::json!({ "date": "2024-03-04", "expected": 3, "missing": 1, "given_up": 2, "look": 1 }));
    }

    #[test]
    fn each_state_is_named_once_and_counts() {
        let states = States {
            missing: 1,
            wrong: 2,
            suspect: 3,
            unexamined: 4,
            given_up: 5,
            frozen: 6,
            elsewhere: 7,
            absent: 8,
            repaired: 9,
            complete: 10,
            expected: 55,
        };
        assert!(states.add_up());
        assert_eq!(states.by_name().map(|(_, slots)| slots), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let mut twice = states;
        twice += states;
        assert!(twice.add_up() && twice.expected == 110 && twice.open() == 20);
    }
}
