//! What there is to say about a run: read from its journal, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use repair_core::engine::news::{self, Follower, News};
use repair_core::engine::{Event, Journal, PAGE, load};
use repair_core::plugin::{Message, Registry};
use repair_core::workflow::Occasion;
use repair_core::{Error, Result};
use serde_json::Value;

use super::lineage;

/// The name under which OpenLineage events are delivered.
pub(super) const LINEAGE: &str = "lineage";

/// How many earlier runs of the workflow are asked how a table was.
const RUNS_BEFORE: usize = 20;

/// Something to say about a run, to whoever wants to hear of its occasion.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The event that it is about.
    pub(super) sequence: u64,
    /// When that happened.
    pub(super) at: Timestamp,
    /// Its id, without the receiver.
    pub(super) id: String,
    /// What it is about; `None` for an OpenLineage event.
    pub(super) what: Option<Occasion>,
    subject: String,
    text: String,
    body: Value,
}

impl Said {
    fn of(news: News) -> Result<Self> {
        let body = serde_json::to_value(&news).map_err(|error| Error::internal("a message is not JSON").because(error))?;
        Ok(Self {
            sequence: news.sequence,
            at: news.at,
            id: news.id,
            what: Some(news.what),
            subject: format!("[repair] {}: {}", news.workflow, news.what.as_str()),
            text: news.text,
            body,
        })
    }

    /// The text, for people.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Its JSON, for a receiver.
    pub(super) fn body(&self, to: &str) -> Value {
        let mut body = self.body.clone();
        if let (Some(fields), Some(_)) = (body.as_object_mut(), self.what) {
            fields.insert("id".to_owned(), self.id_for(to).into());
            fields.insert("to".to_owned(), to.into());
        }
        body
    }

    /// Its id, for a receiver.
    pub(super) fn id_for(&self, to: &str) -> String {
        format!("{}.{to}", self.id)
    }

    pub(super) fn message(&self, to: &str, now: Timestamp) -> Message {
        Message::new(self.id_for(to), self.subject.clone(), self.text.clone(), self.body(to), now)
    }
}

/// Reads what there is to say about a run, from its first event on.
pub(super) struct Reading {
    run: String,
    follower: Option<Follower>,
    next: u64,
    last_at: Option<Timestamp>,
    said: Vec<Arc<Said>>,
    lineage: lineage::Events,
    /// How each table was when this run ended before, if it has.
    ended: BTreeMap<String, u64>,
}

impl Reading {
    pub(super) fn new(run: &str, at: lineage::At) -> Self {
        Self {
            run: run.to_owned(),
            follower: None,
            next: 0,
            last_at: None,
            said: Vec::new(),
            lineage: lineage::Events::new(run, at),
            ended: BTreeMap::new(),
        }
    }

    /// The run as far as it was read.
    pub(super) fn follower(&self) -> Option<&Follower> {
        self.follower.as_ref()
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// When the last event was recorded.
    pub(super) fn last_at(&self) -> Option<Timestamp> {
        self.last_at
    }

    /// Whether the run has ended or rests.
    pub(super) fn is_at_rest(&self) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.state().ended.is_some() || follower.state().paused)
    }

    /// Reads on to the last event, and returns what there is to say so far. After an error, all is read again.
    ///
    /// # Errors
    /// Those of the journal; `invalid` if this program cannot read the definition of the run.
    pub(super) async fn read(&mut self, journal: &dyn Journal, registry: &Registry) -> Result<&[Arc<Said>]> {
        let read = self.read_on(journal, registry).await;
        if let Err(error) = read {
            *self = Self::new(&self.run, self.lineage.at().clone());
            return Err(error);
        }
        Ok(&self.said)
    }

    async fn read_on(&mut self, journal: &dyn Journal, registry: &Registry) -> Result<()> {
        loop {
            let page = journal.read(&self.run, self.next, PAGE).await?;
            let is_last = page.len() < PAGE;
            for recorded in page {
                let news = match &mut self.follower {
                    None => {
                        self.follower = Some(Follower::begin(&self.run, &recorded, registry)?);
                        Vec::new()
                    }
                    Some(follower) => follower.next(&recorded, registry)?,
                };
                let Some(follower) = &self.follower else { continue };
                let mut all = Vec::with_capacity(news.len());
                if matches!(recorded.event, Event::RunEnded { .. }) {
                    let now = news::tables(follower.state());
                    if follower.workflow().notify.values().any(|notifier| notifier.on.contains(&Occasion::Changed)) {
                        for (table, missing) in &now {
                            let before = match self.ended.get(table) {
                                Some(before) => Some(*before),
                                None => before(journal, &self.run, follower, recorded.at, table).await?,
                            };
                            if let Some(change) = news::change(table, before, *missing) {
                                all.push(Said::of(follower.changed(&recorded, change))?);
                            }
                        }
                    }
                    self.ended.extend(now);
                }
                for news in news {
                    all.push(Said::of(news)?);
                }
                if follower.workflow().lineage.is_some() {
                    all.extend(self.lineage.of(&recorded, follower).map(|(id, body)| Said {
                        sequence: recorded.sequence,
                        at: recorded.at,
                        id,
                        what: None,
                        subject: String::new(),
                        text: String::new(),
                        body,
                    }));
                }
                self.said.extend(all.into_iter().map(Arc::new));
                self.next = recorded.sequence + 1;
                self.last_at = Some(recorded.at);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// How many slots of a table were missing or wrong after the last run of the same workflow that ended before and examined it.
async fn before(journal: &dyn Journal, run: &str, follower: &Follower, ended_at: Timestamp, table: &str) -> Result<Option<u64>> {
    let listed = journal.listed(ended_at).await?;
    let mut earlier: Vec<(Timestamp, String)> = listed
        .into_iter()
        .filter(|other| other.run != run && other.begun.workflow == follower.state().started.workflow)
        .filter(|other| other.latest.outcome.is_some() && other.latest.at <= ended_at)
        .map(|other| (other.latest.at, other.run))
        .collect();
    earlier.sort_unstable();
    for (_, earlier) in earlier.into_iter().rev().take(RUNS_BEFORE) {
        let state = load(journal, &earlier).await?;
        if let Some(missing) = news::tables(&state).remove(table) {
            return Ok(Some(missing));
        }
    }
    Ok(None)
}
