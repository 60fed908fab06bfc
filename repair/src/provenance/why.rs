//! Why a slot is as it is.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::subject::{self, History, Subject, TableName};
use crate::open::OpenLake;
use crate::request::awaitable;
use repair_core::Result;
use repair_core::engine::{JsonFormat, load};
use repair_core::lake::overlay::aside::{Aside, Asides};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::lake::overlay::story::{self, Provenance, Standing, Story};
use repair_core::lake::stale;
use repair_core::model::{Identity, Interval, Key, SlotRange, Suspect};

/// A repair of the slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RepairStory {
    /// What was repaired, and by whom.
    #[serde(flatten)]
    pub repair: story::RecordedRepair,
    /// How many attempts the step took in all; `None` if no run did it.
    pub attempts: Option<u32>,
}

/// A stretch in which a source has nothing for any key, so that its silence proves nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SuspectSilence {
    /// The run that saw it.
    pub run: String,
    /// The stretch.
    #[serde(flatten)]
    pub silence: Suspect,
}

/// Another slot that could be meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OtherSlot {
    /// The slot.
    pub slot: Interval,
    /// What it is now.
    pub standing: Standing,
    /// An instant that means this slot and no other.
    pub at: Timestamp,
}

/// All that is known about a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SlotStory {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// The series.
    pub key: Key,
    /// The slot.
    pub slot: Interval,
    /// The time that its row has, if that is not where the slot begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The slot in which the instant lies, if this one was taken since its row has that time. Both may be meant where times mark the ends of slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherSlot>,
    /// What it is now.
    pub standing: Standing,
    /// The table's own rows.
    pub raw: Vec<Value>,
    /// Its repairs, the newest first.
    pub repairs: Vec<RepairStory>,
    /// What confirmed it absent, the newest first.
    pub exceptions: Vec<story::Exception>,
    /// The retractions that hide one of these.
    pub retractions: Vec<Retraction>,
    /// What people have decided about it: what counts is the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Aside>,
    /// How two sides disagree about it, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// The tables computed from it that are stale there.
    pub stale: Vec<String>,
    /// The suspect silence in which it lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectSilence>,
}

/// Asks why a slot is as it is: await it. [`OpenLake::why`] makes it.
#[must_use = "nothing is looked up before this is awaited"]
pub struct WhyRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    key: Option<String>,
    at: Timestamp,
}

impl WhyRequest<'_> {
    /// Chooses the series. The values of a key of several columns are separated by commas.
    pub fn key<'b>(mut self, key: impl Into<Option<&'b str>>) -> Self {
        self.key = key.into().map(str::to_owned);
        self
    }

    /// Takes the table from this workflow instead of the latest run that had it.
    pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
        self.table.declared_in(workflow.into());
        self
    }

    async fn perform(self) -> Result<SlotStory> {
        let Self { open, table, key, at } = self;
        let subject = table.open(open).await?;
        let key = subject::key(&subject.table, key.as_deref())?;
        let Subject { history, table, lake, .. } = &subject;
        let now = open.around.clock.now();
        let Story { standing, raw, repairs, exceptions, retractions, conflict } =
            story::of_slot(lake.as_ref(), table, &key, at, now).await?;
        if raw.is_empty() && repairs.is_empty() && exceptions.is_empty() {
            subject.check_key(&key).await?;
        }
        let slot = story::slot(table, at)?;
        let (time, other) = match table.identity() {
            Identity::Slot(grid) => {
                let (taken, lies_in) = (grid.slot_of(at), grid.slot_at(at));
                let time = grid.time_of(taken);
                let other = match grid.interval_of(SlotRange::new(lies_in, lies_in + 1)).filter(|_| lies_in != taken) {
                    Some(slot) => {
                        let at = middle(&slot);
                        let Story { standing, .. } = story::of_slot(lake.as_ref(), table, &key, at, now).await?;
                        Some(OtherSlot { slot, standing, at })
                    }
                    None => None,
                };
                (Some(time).filter(|time| *time != slot.from()), other)
            }
            Identity::Time | Identity::Key { .. } => (None, None),
        };
        let mut stale_in = Vec::new();
        for into in history.computed_from(&table.name).await? {
            let marks = stale::stale(lake.as_ref(), &into).await?;
            if marks.iter().any(|(stretch, _)| stretch.intersection(&slot).is_some()) {
                stale_in.push(into.name);
            }
        }
        let mut with_attempts = Vec::with_capacity(repairs.len());
        for repair in repairs {
            let attempts = attempts_of(history, &repair.provenance).await;
            with_attempts.push(RepairStory { repair, attempts });
        }
        let identity = table.identity();
        let at_slot = identity.slot(at.as_microsecond());
        let decisions = Asides::read(lake.as_ref(), table).await?;
        let about =
            |aside: &&Aside| aside.key.as_ref().is_none_or(|of| *of == key) && identity.grid().slots_in(&aside.interval).contains(at_slot);
        let decisions: Vec<Aside> = decisions.iter().filter(about).cloned().collect();
        let suspect = match standing {
            Standing::Missing => history.suspect(&table.name, &slot).await?,
            _ => None,
        };
        Ok(SlotStory {
            format: JsonFormat,
            table: table.name.clone(),
            key,
            slot,
            time,
            other,
            standing,
            raw,
            repairs: with_attempts,
            exceptions,
            retractions,
            decisions,
            conflict,
            stale: stale_in,
            suspect: suspect.map(|(run, silence)| SuspectSilence { run, silence }),
        })
    }
}

awaitable!(WhyRequest => SlotStory);

/// The instant in the middle of a slot.
fn middle(slot: &Interval) -> Timestamp {
    let half = slot.to().duration_since(slot.from()) / 2;
    slot.from().saturating_add(half).unwrap_or(slot.from())
}

/// How many attempts the step took; none for what no run did, such as a person's exception.
async fn attempts_of(history: &History<'_>, of: &Provenance) -> Option<u32> {
    let state = load(history.journal.as_ref(), &of.run).await.ok()?;
    state.steps.get(&of.step).map(|step| step.attempts)
}

impl OpenLake {
    /// Explains why the slot at an instant is as it is. The slot is that whose row has that time, and otherwise that in which it lies: raw, repaired (by what, from where, when), absent (on what evidence, until when), or
    /// missing.
    ///
    /// # Errors
    /// `not-found` if no run has had the table, or the table has never had the key; `invalid` if the key does not fit; those of the lake.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let at = "2024-03-04T14:31:00Z".parse().unwrap();
    /// let story = lake.why("bars", at).key("IBM").await?;
    /// println!("{:?}, repaired {} times", story.standing, story.repairs.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn why(&self, table: impl Into<String>, at: Timestamp) -> WhyRequest<'_> {
        WhyRequest { open: self, table: TableName::new(table.into()), key: None, at }
    }
}
