//! Lists what a run found and nothing has repaired since: key by key, stretch by stretch.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::ser::{SerializeMap, Serializer};
use serde::{Serialize, ser};

use crate::family::{Member, family, outermost};
use crate::open::OpenLake;
use crate::provenance::subject::History;
use crate::request::awaitable;
use repair_core::engine::{JsonFormat, gaps_of, load};
use repair_core::lake::overlay::aside;
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::model::{DefectKind, GapList, Key, Scope, Table};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};

/// What one detect step found when it, or a step that verifies it, last looked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Search {
    /// The run within the run whose step it is; `None` if it is the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The step.
    pub step: String,
    /// The table.
    pub table: String,
    /// What the slots have.
    pub kind: DefectKind,
    /// How many stretches.
    pub gaps: u64,
    /// How many slots.
    pub slots: u64,
    /// How many of these slots were repaired or confirmed absent since. No step has looked again, so they are still listed.
    pub repaired_since: u64,
}

/// Slots of a series that follow each other and have the same defect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DefectRange {
    /// The run within the run whose step it is; `None` if it is the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The step that found it.
    pub step: String,
    /// The table.
    pub table: String,
    /// What the slots have.
    pub kind: DefectKind,
    /// The series.
    pub key: Key,
    /// Where the first slot begins.
    pub from: Timestamp,
    /// Where the last slot ends.
    pub to: Timestamp,
    /// How many slots.
    pub slots: u64,
}

/// What a run found, as far as it knows that it is still so.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GapsReport {
    /// The run.
    pub run: String,
    /// The table, if only one was asked for.
    pub table: Option<String>,
    /// When the run last recorded something.
    pub as_of: Timestamp,
    /// Whether the run has ended.
    pub has_ended: bool,
    /// What was looked for, by step.
    pub searches: Vec<Search>,
    /// What has been undone or shown again in its tables since then, in sentences: slots whose repairs were undone are not listed.
    pub notes: Vec<String>,
    found: Vec<(Scope, GapList)>,
}

impl GapsReport {
    /// All stretches, in order of step, key and time. They are made one by one: a gap is kept in twenty bytes.
    pub fn ranges(&self) -> impl Iterator<Item = DefectRange> + '_ {
        self.searches.iter().zip(&self.found).flat_map(|(search, (scope, gaps))| {
            gaps.iter().map(|(key, slots)| DefectRange {
                run: search.run.clone(),
                step: search.step.clone(),
                table: search.table.clone(),
                kind: search.kind,
                key: key.clone(),
                from: scope.grid.start_of(slots.first),
                to: scope.grid.start_of(slots.end),
                slots: slots.len(),
            })
        })
    }

    /// How many stretches.
    pub fn len(&self) -> u64 {
        self.searches.iter().map(|search| search.gaps).sum()
    }

    /// Whether nothing is missing or wrong.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for GapsReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Ranges<'a>(&'a GapsReport);
        impl Serialize for Ranges<'_> {
            fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.ranges())
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("format", &JsonFormat)?;
        map.serialize_entry("run", &self.run)?;
        map.serialize_entry("table", &self.table)?;
        map.serialize_entry("as_of", &self.as_of)?;
        map.serialize_entry("has_ended", &self.has_ended)?;
        map.serialize_entry("searches", &self.searches)?;
        map.serialize_entry("notes", &self.notes)?;
        map.serialize_entry("gaps", &Ranges(self))?;
        map.end()
    }
}

/// Lists what a run found: await it. [`OpenLake::gaps`] makes it.
#[must_use = "nothing is looked up before this is awaited"]
pub struct GapsRequest<'a> {
    open: &'a OpenLake,
    subject: String,
}

impl GapsRequest<'_> {
    async fn perform(self) -> Result<GapsReport> {
        let Self { open, subject } = self;
        let history = History::of(open).await?;
        let heads = history.journal.runs().await?;
        if heads.iter().any(|head| head.run == subject) {
            let members = members(&history, &subject).await?;
            if members.iter().all(|member| member.state.findings.is_empty()) {
                let message = format!("no detect step of run {subject} has succeeded, so nothing is known about what is missing");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            return report(&history, subject, None, &members).await;
        }
        let mut known: BTreeSet<String> = heads.into_iter().map(|head| head.run).collect();
        for head in history.latest().await? {
            let state = load(history.journal.as_ref(), &head.run).await?;
            if state.findings.values().any(|found| found.scope.table == subject) {
                // The items of a map examine a part each.
                let run = outermost(history.journal.as_ref(), head.run.clone(), open.around.clock.now()).await?;
                let mut members = members(&history, &run).await?;
                if members.iter().all(|member| member.run != head.run) {
                    members = vec![Member { run: head.run.clone(), state, step: None, is_latest: true }];
                }
                return report(&history, run, Some(subject), &members).await;
            }
            known.extend(state.findings.into_values().map(|found| found.scope.table));
        }
        let close = closest(&subject, known.iter().map(String::as_str)).map(|close| format!("; did you mean `{close}`?"));
        let close = close.unwrap_or_default();
        let message = format!("`{subject}` is neither a run in this lake nor a table that a run has examined{close}");
        Err(Error::new(ErrorKind::NotFound, message))
    }
}

/// A run, and those within it of the latest visits of its steps.
async fn members(history: &History<'_>, run: &str) -> Result<Vec<Member>> {
    let mut members = family(history.journal.as_ref(), run, history.open.around.clock.now()).await?;
    members.retain(|member| member.is_latest);
    Ok(members)
}

async fn report(history: &History<'_>, run: String, table: Option<String>, members: &[Member]) -> Result<GapsReport> {
    let lake = history.lake(Some(&run)).await?;
    let (mut searches, mut found) = (Vec::new(), Vec::new());
    for Member { run: of, state, .. } in members {
        for (step, findings) in &state.findings {
            if table.as_ref().is_some_and(|table| *table != findings.scope.table) {
                continue;
            }
            let gaps = gaps_of(lake.as_ref(), of, &findings.artifact).await.map_err(|error| error.on("step", step).on("run", of))?;
            searches.push(Search {
                run: (*of != run).then(|| of.clone()),
                step: step.clone(),
                table: findings.scope.table.clone(),
                kind: findings.kind,
                gaps: gaps.len() as u64,
                slots: gaps.missing(),
                repaired_since: state.resolved.get(step).copied().unwrap_or(0),
            });
            found.push((findings.scope.clone(), gaps));
        }
    }
    let as_of = members.iter().map(|member| member.state.updated_at).max().unwrap_or_default();
    let has_ended = members.iter().all(|member| member.state.ended.is_some());
    let mut notes = Vec::new();
    for (name, declared) in declared(history, members) {
        if searches.iter().any(|search| search.table == name) {
            let records = lake.retractions(&declared).await?;
            notes.extend(undone_since(&name, &records, as_of));
        }
    }
    Ok(GapsReport { run, table, as_of, has_ended, searches, notes, found })
}

/// The tables of runs, as these declare them.
fn declared(history: &History<'_>, members: &[Member]) -> BTreeMap<String, Table> {
    let workflows = members.iter().filter_map(|member| history.open.workflow_of(&member.state).ok());
    workflows.flat_map(|workflow| workflow.tables).collect()
}

/// What was hidden or shown again in a table after a moment.
fn undone_since(table: &str, records: &[Retraction], moment: Timestamp) -> Vec<String> {
    let is_decision = |id: &str| records.iter().any(|record| record.id == id && aside::is_decision(record));
    // A mark says that what was computed into this table is stale, not that its rows have changed.
    let is_other = |id: &str| is_decision(id) || id.starts_with("stale-");
    let later = records.iter().filter(|record| record.at > moment);
    let changes = later.filter(|record| !is_other(&record.id) && !record.undoes.as_deref().is_some_and(is_other));
    let sentence = |record: &Retraction| {
        let what = if record.undoes.is_some() { "shown again" } else { "undone" };
        format!(
            "repairs of table {table} were {what} since ({}); no step has looked again, so their slots count as they did before",
            record.id
        )
    };
    changes.map(sentence).collect()
}

awaitable!(GapsRequest => GapsReport);

impl OpenLake {
    /// Lists what is missing or wrong, as the detect and verify steps of a run, and of the runs within it, last saw it: of a run, by its id, or of a table,
    /// by its name, as the latest run examined it.
    ///
    /// # Errors
    /// `not-found` if there is no such run, none of its detect steps has succeeded, and no run has examined such a table; those
    /// of the lake.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// for gap in lake.gaps("monday").await?.ranges() {
    ///     println!("{} {} {} {}", gap.key, gap.from, gap.to, gap.slots);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn gaps(&self, run_or_table: impl Into<String>) -> GapsRequest<'_> {
        GapsRequest { open: self, subject: run_or_table.into() }
    }
}
