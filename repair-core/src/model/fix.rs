//! Units, the pieces of repair work that succeed or fail as a whole, and fixes, their results.

use std::fmt;
use std::ops::AddAssign;

use arrow::array::RecordBatch;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::Estimates;
use crate::model::Interval;
use crate::model::Key;
use crate::model::SlotRange;
use crate::model::Usage;

/// The slots of one key that a unit must repair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// The key.
    pub key: Key,
    /// The slots, in order and disjoint.
    pub slots: Vec<SlotRange>,
}

impl Wanted {
    /// How many slots are wanted.
    pub fn len(&self) -> u64 {
        self.slots.iter().map(SlotRange::len).sum()
    }

    /// Whether no slot is wanted.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(SlotRange::is_empty)
    }
}

/// One request to a source, or one computation. Its content identifies it, not its position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// The time that the unit covers.
    pub interval: Interval,
    /// The slots to repair, by key; all lie within `interval`.
    pub wanted: Vec<Wanted>,
}

impl Unit {
    /// An id that two units share only if they are the same work on the same table by the same strategy.
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

    /// How many slots the unit must repair.
    pub fn slots(&self) -> u64 {
        self.wanted.iter().map(Wanted::len).sum()
    }
}

/// Slots that a source says hold nothing, with the evidence: this becomes an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The key.
    pub key: Key,
    /// The slots.
    pub slots: SlotRange,
    /// The source that was asked.
    pub source: String,
    /// When the source was asked.
    pub asked_at: Timestamp,
    /// What the source answered.
    pub answer: String,
    /// When the evidence expires and the source is asked again.
    pub recheck_after: Timestamp,
}

/// How many conflicts are described one by one; the others are only counted.
const MAX_EXAMPLES: usize = 5;

/// Slots where a source disagrees with the table's own rows. The rows stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    /// How many slots differ.
    pub slots: u64,
    /// What differs in each of the first few slots, in words.
    #[serde(rename = "told")]
    pub examples: Vec<String>,
    /// Next to how many gaps nothing was compared, because there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_compared: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Conflicts {
    /// Adds one slot, with a description of what differs there.
    pub fn add(&mut self, what: String) {
        self.slots += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(what);
        }
    }

    /// Whether there are none, and everything was compared.
    pub fn is_empty(&self) -> bool {
        self.slots == 0 && self.not_compared == 0
    }
}

impl AddAssign for Conflicts {
    fn add_assign(&mut self, other: Self) {
        self.slots += other.slots;
        self.not_compared += other.not_compared;
        let room = MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// How many stretches are listed; the slots of the others are only counted.
const MOST_STRETCHES: usize = 100;

/// Slots for which a source has nothing, in a stretch where the table has no row of any key either. A failed collector looks like this, so
/// the silence proves nothing: the slots stay missing, for another source or a person to settle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspects {
    /// How many slots are suspect, over all keys.
    pub slots: u64,
    /// The stretches, in order of time. Each is listed once, however many keys are silent in it.
    pub stretches: Vec<Suspect>,
}

/// A stretch of suspect silence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspect {
    /// The time from the first silent slot to the last.
    pub interval: Interval,
    /// The source that was asked.
    pub source: String,
    /// How many keys are expected there; the table has a row of none of them.
    pub keys: u64,
}

impl Suspects {
    /// Adds slots of one key, and the stretch in which they lie.
    pub fn add(&mut self, slots: u64, stretch: Suspect) {
        self.slots += slots;
        self.list(stretch);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Lists a stretch; stretches of one source that touch are merged.
    fn list(&mut self, mut stretch: Suspect) {
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
        other.stretches.into_iter().for_each(|stretch| self.list(stretch));
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.keys == 1 { "its only key".to_owned() } else { format!("any of its {} keys", self.keys) };
        let Self { interval, source, .. } = self;
        write!(f, "`{source}` has nothing from {} to {}, and the table has no row of {whose}", interval.from(), interval.to())
    }
}

/// What is remembered of the rows that a source returned for one key, so that the same answer to another request is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerPrint {
    /// The digest of the values and of the distances between the rows, in hexadecimal.
    pub print: String,
    /// The key.
    pub key: Key,
    /// The first slot that has a row.
    pub first: i64,
}

/// The result of a unit.
#[derive(Debug, Clone, Default)]
pub struct Fix {
    /// The repaired rows, in the table's schema, for wanted slots only.
    pub rows: Vec<RecordBatch>,
    /// The slots confirmed absent.
    pub absent: Vec<Absence>,
    /// Where the rows come from: the name of a source or of a computation.
    pub source: String,
    /// Where the source disagrees with the table.
    pub conflicts: Conflicts,
    /// Where the source has nothing, without proving anything absent.
    pub suspects: Suspects,
    /// What to remember of the answers of a source. The engine keeps it, and hands it to [`Repairer::recall`](crate::plugin::Repairer::recall)
    /// when the step goes on after a crash, a stop or a retry.
    pub answers: Vec<AnswerPrint>,
    /// Where the true values of estimated rows and cells probably lie, if the repairer's method says so.
    pub estimates: Estimates,
    /// What the unit consumed.
    pub usage: Usage,
}
