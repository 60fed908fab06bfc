//! The hours of earlier runs that still hold: of a partition in which neither the bars nor the hours have changed since, nothing is read or written.
//!
//! What is known is derived, lies in one artifact for each table of hours and list of stocks, and is safe to delete.

use std::collections::BTreeMap;

use jiff::Timestamp;
use repair_core::lake::{PresenceRequest, known, partition, program};
use repair_core::model::{Interval, Usage};
use repair_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Job;
use super::assemble::Summary;

/// Parts of more partitions than this are not known: they would be a long text.
const MOST_PARTS: usize = 10_000;

/// A partition, or the part of one that an interval touches, and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    interval: Interval,
    bars: String,
    /// The objects of the hours, as they were listed after they had been written.
    hours: String,
    /// Until when what is confirmed absent holds.
    until: Timestamp,
    summary: Summary,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Text {
    /// What else the hours follow from.
    asked: String,
    parts: Vec<Entry>,
}

/// What is known of an interval, part by part.
pub(super) struct Known {
    name: String,
    text: Text,
    /// For each part, what decides about its hours: the bars, their repairs, what is confirmed absent, and which slots are expected. `None` if
    /// that cannot be said.
    bars: Vec<Option<String>>,
    /// For each part, what is known of it, if that still holds.
    holds: Vec<Option<Summary>>,
}

impl Known {
    /// What is known of these parts. `None` if listings cannot say which have changed, or if there are too many.
    pub(super) async fn of(job: &Job<'_>, parts: &[Interval]) -> Result<Option<Self>> {
        let lake = job.context.lake.as_ref();
        let Some(program) = program::identity() else { return Ok(None) };
        // Without folders of time, whatever is written concerns all of it.
        if partition::folders(job.table).is_none() || partition::folders(&job.into).is_none() || parts.len() > MOST_PARTS {
            return Ok(None);
        }
        let keys = &job.scope.keys;
        let asked = digest(&format!("{program} {:?} {:?} {:?} {:?} {keys:?}", job.table, job.into, job.columns, job.incomplete));
        let name = digest(&format!("hours {} {} {keys:?}", lake.place(job.table), lake.place(&job.into)));
        let bars = job.bars(parts).await?;
        if bars.iter().all(Option::is_none) {
            return Ok(None);
        }
        let text = known::read(lake, &name).await?.and_then(|text| serde_json::from_str::<Text>(&text).ok());
        let text = text.filter(|text| text.asked == asked).unwrap_or(Text { asked, parts: Vec::new() });
        let of_part: BTreeMap<Timestamp, &Entry> = text.parts.iter().map(|entry| (entry.interval.from(), entry)).collect();
        let holds = |part: &Interval, bars: &Option<String>| {
            let entry = of_part.get(&part.from()).filter(|entry| entry.interval == *part && job.context.entered_at < entry.until)?;
            (bars.as_ref() == Some(&entry.bars)).then_some(*entry)
        };
        let entries: Vec<Option<&Entry>> = parts.iter().zip(&bars).map(|(part, bars)| holds(part, bars)).collect();
        // Whether somebody has changed the hours is asked only of parts whose bars are as they were.
        let asked_of: Vec<Interval> = entries.iter().flatten().map(|entry| entry.interval).collect();
        let mut listed = match asked_of.as_slice() {
            [] => Vec::new(),
            some => passing(lake.extents(&job.into, some).await)?.unwrap_or_default(),
        }
        .into_iter();
        let mut holds = Vec::with_capacity(parts.len());
        for entry in entries {
            let entry = entry.and_then(|entry| listed.next().filter(|listed| listed.digest == entry.hours).map(|_| entry.summary));
            holds.push(entry);
        }
        Ok(Some(Self { name, text, bars, holds }))
    }

    /// For each part, what is known of it, if that still holds.
    pub(super) fn holds(&self) -> &[Option<Summary>] {
        &self.holds
    }

    /// Keeps what was found of the parts that were computed. An error is no error of the step.
    pub(super) async fn keep(self, job: &Job<'_>, parts: &[Interval], found: &[Summary]) -> Usage {
        self.keep_found(job, parts, found).await.unwrap_or_else(|error| {
            tracing::warn!(step = &*job.context.step, error = error.full(), "which hours were computed is not kept for later runs");
            Usage::default()
        })
    }

    async fn keep_found(mut self, job: &Job<'_>, parts: &[Interval], found: &[Summary]) -> Result<Usage> {
        let lake = job.context.lake.as_ref();
        let mut usage = Usage::default();
        let mut computed = Vec::new();
        let mut absent: Option<Interval> = None;
        for (at, part) in parts.iter().enumerate() {
            let (Some(None), Some(summary)) = (self.holds.get(at), found.get(at)) else { continue };
            self.text.parts.retain(|entry| entry.interval.to() <= part.from() || part.to() <= entry.interval.from());
            if let Some(Some(bars)) = self.bars.get(at) {
                computed.push((*part, bars.clone(), *summary));
                if summary.absent > 0 {
                    absent = Some(absent.map_or(*part, |all| all.hull(part)));
                }
            }
        }
        // What is confirmed absent holds for a time. A rollup does not say how long.
        let until = match absent {
            None => Some(Timestamp::MAX),
            Some(interval) => {
                let slots = job.table.grid()?.slots_in(&interval);
                let presence =
                    lake.presence(job.table, &PresenceRequest::new(slots, job.scope.keys.clone(), job.context.entered_at)).await?;
                usage += presence.usage;
                presence.absent_until
            }
        };
        computed.retain(|(_, _, summary)| summary.absent == 0 || until.is_some());
        let intervals: Vec<Interval> = computed.iter().map(|(part, _, _)| *part).collect();
        let listed = lake.extents(&job.into, &intervals).await?;
        for ((interval, bars, summary), listed) in computed.into_iter().zip(listed) {
            let until = until.filter(|_| summary.absent > 0).unwrap_or(Timestamp::MAX);
            self.text.parts.push(Entry { interval, bars, hours: listed.digest, until, summary });
        }
        self.text.parts.sort_by_key(|entry| entry.interval.from());
        // The latest are kept, since they are asked for most.
        let surplus = self.text.parts.len().saturating_sub(MOST_PARTS);
        self.text.parts.drain(..surplus);
        let text =
            serde_json::to_string(&self.text).map_err(|error| Error::internal("what is known of hours is not JSON").because(error))?;
        usage += known::keep(lake, &self.name, text).await?;
        Ok(usage)
    }
}

impl Job<'_> {
    /// For each part, a digest of what its hours follow from, except what is the same for all parts.
    async fn bars(&self, parts: &[Interval]) -> Result<Vec<Option<String>>> {
        let Some(extents) = passing(self.context.lake.extents(self.table, parts).await)? else { return Ok(vec![None; parts.len()]) };
        let mut all = Vec::with_capacity(parts.len());
        for (part, extent) in parts.iter().zip(extents) {
            let open = self.calendar.open(part)?;
            all.push(extent.evidence.map(|evidence| digest(&format!("{evidence} {open:?}"))));
        }
        Ok(all)
    }
}

/// What a lake lists, unless it cannot say: then the step goes on without.
fn passing<T>(listed: Result<T>) -> Result<Option<T>> {
    listed.map(Some).or_else(|error| known::without(error).map(|()| None))
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
