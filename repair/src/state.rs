//! Checks what the lake and the journal keep themselves.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, StringArray};
use futures::TryStreamExt;
use repair_core::engine::{Event, Journal, JsonFormat, RunState, for_each_event, load_whole};
use repair_core::lake::overlay::story::published_batches;
use repair_core::lake::overlay::{self, columns};
use repair_core::lake::rollup::column;
use repair_core::lake::{Damaged, Lake, StateCheck, name};
use repair_core::model::Table;
use repair_core::{Error, Result};
use serde::Serialize;

use crate::open::OpenLake;
use crate::prune::PRUNED;

/// Steps, each with its run before it.
type Places<'a> = BTreeSet<(&'a String, &'a String)>;

/// What a check of our own state found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StateReport {
    /// The format of this object as JSON.
    pub format: JsonFormat,
    /// Runs whose whole history was read.
    pub runs: u64,
    /// The events of these runs.
    pub events: u64,
    /// Artifacts, staged units and overlays.
    #[serde(flatten)]
    pub objects: StateCheck,
}

impl StateReport {
    /// Whether nothing is damaged.
    pub fn is_intact(&self) -> bool {
        self.objects.damaged.is_empty()
    }
}

impl OpenLake {
    /// Reads everything that is kept about runs and repairs: the journal with all events, artifacts, staged units, and the overlays of all
    /// tables in the lake. Reports what is not what was written, and what the journal says was written and is gone. Changes nothing.
    ///
    /// # Errors
    /// `not-found` if nothing was ever run in the lake; if its objects cannot be listed.
    pub async fn verify_state(&self) -> Result<StateReport> {
        let journal = self.journal().await?;
        let lake = self.lake_of(None).await?;
        let mut report = StateReport { format: JsonFormat, runs: 0, events: 0, objects: lake.check_state().await? };
        let mut damaged = |place: String, error: repair_core::Error| {
            report.objects.damaged.push(Damaged { place, what: error.full() });
        };
        let mut written: BTreeMap<String, Written> = BTreeMap::new();
        match journal.runs().await {
            Err(error) => damaged("journal".to_owned(), error),
            Ok(heads) => {
                for head in heads {
                    let mut of_run = Written::default();
                    match history(journal.as_ref(), &head.run, &mut of_run).await {
                        Ok(events) => {
                            written.insert(head.run, of_run);
                            report.runs += 1;
                            report.events += events;
                        }
                        Err(error) => damaged(format!("run {}", head.run), error),
                    }
                }
            }
        }
        let is_damaged = !report.objects.damaged.is_empty();
        let lost = self.lost(journal.as_ref(), lake.as_ref(), &written, is_damaged).await?;
        report.objects.damaged.extend(lost);
        Ok(report)
    }
}

/// The objects that a run has written, by its journal.
#[derive(Default)]
struct Written {
    /// The names of its artifacts.
    artifacts: BTreeSet<String>,
    /// The tables that its repair steps worked on, by step.
    tables: BTreeMap<String, BTreeSet<String>>,
    /// What each repair step added.
    added: BTreeMap<String, Added>,
    state: Option<RunState>,
}

/// How many rows a step added to overlays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Added {
    rows: u64,
    absent: u64,
}

/// Reads and folds the history of a run; returns how many events it has.
async fn history(journal: &dyn Journal, run: &str, written: &mut Written) -> Result<u64> {
    let state = load_whole(journal, run).await?;
    let events = state.next_sequence;
    written.state = Some(state);
    for_each_event(journal, run, |recorded| {
        match recorded.event {
            Event::UnitsPlanned { step, table, artifact, .. } => {
                written.artifacts.insert(artifact);
                written.tables.entry(step).or_default().insert(table);
            }
            Event::StepSucceeded { findings: Some(findings), .. } => {
                written.artifacts.extend(findings.seen.and_then(|seen| seen.artifact));
                written.artifacts.insert(findings.artifact);
            }
            Event::PublishEnded { step, rows, absent, .. } => {
                let added = written.added.entry(step).or_default();
                added.rows += rows;
                added.absent += absent;
            }
            _ => {}
        }
        Ok(())
    })
    .await?;
    Ok(events)
}

impl OpenLake {
    /// What the journal says was written, and is gone.
    async fn lost(
        &self,
        journal: &dyn Journal,
        lake: &dyn Lake,
        runs: &BTreeMap<String, Written>,
        is_damaged: bool,
    ) -> Result<Vec<Damaged>> {
        let mut lost = Vec::new();
        let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for object in lake.kept().await? {
            kept.entry(object.area).or_default().insert(object.name);
        }
        for (run, written) in runs {
            let area = name::part(run);
            let there = kept.get(&area);
            if kept.get(&name::part(PRUNED)).is_some_and(|pruned| pruned.contains(&area)) {
                continue;
            }
            let is_gone = |artifact: &&String| !there.is_some_and(|there| there.contains(&name::part(artifact)));
            lost.extend(written.artifacts.iter().filter(is_gone).map(|artifact| Damaged {
                place: format!("{area}/{artifact}"),
                what: format!("run `{run}` has written it, and it is gone"),
            }));
        }
        lost.extend(self.lost_rows(journal, runs, is_damaged).await?);
        Ok(lost)
    }

    /// The rows that runs have added to overlays, and that are gone. Rows are counted, since a compaction puts them into other objects.
    async fn lost_rows(&self, journal: &dyn Journal, runs: &BTreeMap<String, Written>, is_damaged: bool) -> Result<Vec<Damaged>> {
        let mut lost = Vec::new();
        let mut tables: Vec<(Table, &String, Places<'_>)> = Vec::new();
        for (run, written) in runs {
            let Some(state) = written.state.as_ref().filter(|_| !written.added.is_empty()) else { continue };
            // Which tables a definition means that this program cannot read, is not known.
            let Ok(workflow) = self.workflow_of(state) else { continue };
            for step in written.added.keys() {
                let of_step = written.tables.get(step).into_iter().flatten();
                for table in of_step.filter_map(|table| workflow.tables.get(table)) {
                    match tables.iter_mut().find(|(known, ..)| (&known.name, &known.location) == (&table.name, &table.location)) {
                        Some((_, _, steps)) => drop(steps.insert((run, step))),
                        None => tables.push((table.clone(), run, BTreeSet::from([(run, step)]))),
                    }
                }
            }
        }
        let mut found: BTreeMap<(String, String), Added> = BTreeMap::new();
        let mut unread = BTreeSet::new();
        for (table, run, steps) in &tables {
            let lake = self.lake_of(Some((journal, run))).await?;
            let mut counted = Ok(());
            for (is_repair, beside) in [(true, overlay::repairs as fn(&str) -> String), (false, overlay::exceptions)] {
                let wanted = |added: &Added| if is_repair { added.rows > 0 } else { added.absent > 0 };
                let is_wanted = steps.iter().any(|(run, step)| runs.get(*run).and_then(|of| of.added.get(*step)).is_some_and(wanted));
                if is_wanted && counted.is_ok() {
                    counted = count_rows(lake.as_ref(), table, beside, is_repair, &mut found).await;
                }
            }
            if let Err(error) = counted {
                unread.extend(steps.iter().copied());
                // An object that is damaged is listed by itself.
                if !is_damaged {
                    lost.push(Damaged { place: overlay::repairs(&table.name), what: error.full() });
                }
            }
        }
        let all: Places<'_> = tables.iter().flat_map(|(_, _, steps)| steps.iter().copied()).collect();
        for (run, step) in all.into_iter().filter(|place| !unread.contains(place)) {
            let Some((written, added)) = runs.get(run).and_then(|written| Some((written, written.added.get(step)?))) else { continue };
            let there = found.get(&(run.clone(), step.clone())).copied().unwrap_or_default();
            let names: Vec<&str> = written.tables.get(step).into_iter().flatten().map(String::as_str).collect();
            for (beside, added, there) in
                [(overlay::repairs as fn(&str) -> String, added.rows, there.rows), (overlay::exceptions, added.absent, there.absent)]
            {
                if there < added {
                    let gone = added - there;
                    lost.push(Damaged {
                        place: names.iter().map(|name| beside(name)).collect::<Vec<_>>().join(", "),
                        what: format!("of {added} rows that step `{step}` of run `{run}` added, {gone} are gone"),
                    });
                }
            }
        }
        Ok(lost)
    }
}

/// Counts the rows of an overlay by the run and step that added them.
async fn count_rows(
    lake: &dyn Lake,
    table: &Table,
    beside: fn(&str) -> String,
    is_repair: bool,
    found: &mut BTreeMap<(String, String), Added>,
) -> Result<()> {
    let mut names = vec![columns::RUN, columns::STEP, columns::UNIT, columns::AT];
    names.extend(is_repair.then_some(columns::OP));
    let Some((_, mut batches)) = published_batches(lake, table, beside, None, None, Some(&names)).await? else { return Ok(()) };
    while let Some(batch) = batches.try_next().await? {
        let text = |name: &str| -> Result<&StringArray> {
            column(&batch, name)?.as_string_opt::<i32>().ok_or_else(|| Error::invalid(format!("column `{name}` of an overlay is not text")))
        };
        let (runs, steps) = (text(columns::RUN)?, text(columns::STEP)?);
        for row in 0..batch.num_rows() {
            let added = found.entry((runs.value(row).to_owned(), steps.value(row).to_owned())).or_default();
            if is_repair {
                added.rows += 1;
            } else {
                added.absent += 1;
            }
        }
    }
    Ok(())
}
