//! The piece of repair work that succeeds or fails as one, and what came of it.

use std::fmt;
use std::ops::AddAssign;

use arrow::array::RecordBatch;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::Interval;
use crate::model::Key;
use crate::model::SlotRange;
use crate::model::Usage;

/// Slots of one key that a unit is to repair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// Whose.
    pub key: Key,
    /// Which slots, in order, disjoint.
    pub slots: Vec<SlotRange>,
}

impl Wanted {
    /// How many slots.
    pub fn len(&self) -> u64 {
        self.slots.iter().map(SlotRange::len).sum()
    }

    /// Whether none.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(SlotRange::is_empty)
    }
}

/// One request to a source, or one computation. Known by its content, not by its position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// The stretch of time it asks about.
    pub interval: Interval,
    /// The slots it is to repair, by key; all within `interval`.
    pub wanted: Vec<Wanted>,
}

impl Unit {
    /// A name that two units share only if they are the same work on the same table by the same strategy.
    pub fn id(&self, table: &str, strategy: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(table);
        add(strategy);
        add(&self.interval.from().to_string());
        add(&self.interval.to().to_string());
        for wanted in &self.wanted {
            add("key");
            wanted.key.values().for_each(&mut add);
            add("slots");
            for slots in &wanted.slots {
                add(&slots.first.to_string());
                add(&slots.end.to_string());
            }
        }
        hasher.finalize().to_hex().as_str()[..24].to_owned()
    }

    /// How many slots it is to repair.
    pub fn slots(&self) -> u64 {
        self.wanted.iter().map(Wanted::len).sum()
    }
}

/// Slots that a source, asked, says hold nothing: the evidence for an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// Whose.
    pub key: Key,
    /// Which slots.
    pub slots: SlotRange,
    /// Who was asked.
    pub source: String,
    /// When.
    pub asked_at: Timestamp,
    /// What it answered.
    pub answer: String,
    /// When to ask again.
    pub recheck_after: Timestamp,
}

/// Conflicts that are told word for word; of more, the number is known.
const MOST_TOLD: usize = 5;

/// Slots of which a source says something else than the table's own rows, which stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    /// How many slots.
    pub slots: u64,
    /// What differs, of the first few.
    pub told: Vec<String>,
}

impl Conflicts {
    /// Adds one slot, and what differs there.
    pub fn add(&mut self, what: String) {
        self.slots += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(what);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }
}

impl AddAssign for Conflicts {
    fn add_assign(&mut self, other: Self) {
        self.slots += other.slots;
        let room = MOST_TOLD.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(room));
    }
}

/// Stretches that are told one by one; of more, the number of slots is known.
const MOST_STRETCHES: usize = 100;

/// Slots of which a source has nothing, in a stretch in which the table has nothing of any key either: a collector that failed looks so,
/// and such a silence proves nothing. They stay missing, for another source or a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspects {
    /// How many slots, over all keys.
    pub slots: u64,
    /// The stretches, in order of time, each told once however many keys are silent in it.
    pub stretches: Vec<Suspect>,
}

/// A stretch of suspect silence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspect {
    /// From the first slot that is silent to the last.
    pub interval: Interval,
    /// Who was asked.
    pub source: String,
    /// How many keys there should be, of none of which the table has a row there.
    pub keys: u64,
}

impl Suspects {
    /// Adds slots of one key, and the stretch in which they lie.
    pub fn add(&mut self, slots: u64, stretch: Suspect) {
        self.slots += slots;
        self.tell(stretch);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Stretches of one source that touch are one.
    fn tell(&mut self, mut stretch: Suspect) {
        let touches = |one: &Suspect, other: &Suspect| {
            one.source == other.source && one.interval.from() <= other.interval.to() && other.interval.from() <= one.interval.to()
        };
        self.stretches.retain(|known| {
            let apart = !touches(known, &stretch);
            if !apart {
                stretch.interval = stretch.interval.hull(&known.interval);
                stretch.keys = stretch.keys.max(known.keys);
            }
            apart
        });
        let at = self.stretches.partition_point(|known| *known < stretch);
        self.stretches.insert(at, stretch);
        self.stretches.truncate(MOST_STRETCHES);
    }
}

impl AddAssign for Suspects {
    fn add_assign(&mut self, other: Self) {
        self.slots += other.slots;
        other.stretches.into_iter().for_each(|stretch| self.tell(stretch));
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.keys == 1 { "its only key".to_owned() } else { format!("any of its {} keys", self.keys) };
        let Self { interval, source, .. } = self;
        write!(f, "`{source}` has nothing from {} to {}, and the table nothing of {whose}", interval.from(), interval.to())
    }
}

/// What came of a unit.
#[derive(Debug, Clone, Default)]
pub struct Fix {
    /// Rows of the table's schema, for wanted slots only.
    pub rows: Vec<RecordBatch>,
    /// Slots confirmed absent.
    pub absent: Vec<Absence>,
    /// Where the rows come from: a source's name, or the name of a computation.
    pub source: String,
    /// Where the source says otherwise than the table.
    pub conflicts: Conflicts,
    /// Where the source has nothing, and that proves nothing.
    pub suspects: Suspects,
    /// What it took.
    pub usage: Usage,
}
