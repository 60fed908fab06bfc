//! Hides what a run added to its tables, and shows it again. Nothing is deleted.

use std::collections::BTreeSet;

use serde::Serialize;

use super::subject::{self, History};
use super::{NO_REASON, user};
use crate::family::{Member, family};
use crate::open::OpenLake;
use crate::request::awaitable;
use crate::within::Within;
use repair_core::engine::{Event, JsonFormat, for_each_event, new_run_id};
use repair_core::lake::Lake;
use repair_core::lake::overlay::retraction::{Part, Retraction, in_force};
use repair_core::model::{Interval, Table};
use repair_core::{Error, ErrorKind, Hint, Result};

/// What a change did to one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TableChange {
    /// The table.
    pub table: String,
    /// Repaired rows that were hidden or shown.
    pub rows: u64,
    /// Exceptions that were hidden, shown or recorded.
    pub absent: u64,
    /// From the first slot to the last.
    pub interval: Interval,
    /// The tables that were computed from it, and are stale there now.
    pub stale: Vec<String>,
}

/// What an undo, a redo or an exception changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The id of the change; [`OpenLake::redo`] takes the id of an undo.
    pub id: String,
    /// What changed, by table.
    pub tables: Vec<TableChange>,
}

impl Change {
    pub(super) fn new(id: String, tables: Vec<TableChange>) -> Self {
        Self { format: JsonFormat, id, tables }
    }

    /// Repaired rows that were hidden or shown, in all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Hides what a run added: await it. [`OpenLake::undo`] makes it.
#[must_use = "nothing is undone before this is awaited"]
pub struct UndoRequest<'a> {
    open: &'a OpenLake,
    run: String,
    step: Option<String>,
    keys: Vec<String>,
    within: Within,
    reason: String,
}

impl UndoRequest<'_> {
    /// Hides only what this step added.
    pub fn step<'b>(mut self, step: impl Into<Option<&'b str>>) -> Self {
        self.step = step.into().map(str::to_owned);
        self
    }

    /// Hides only this series, or another one with each call. The values of a key of several columns are separated by commas.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Hides only slots in this part of time. Its dates are days of each table's own zone.
    pub fn interval(mut self, within: impl Into<Within>) -> Self {
        self.within = within.into();
        self
    }

    /// Records why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    async fn perform(self) -> Result<Change> {
        let Self { open, run, step, keys, within, reason } = self;
        let history = History::of(open).await?;
        let members = family(history.journal.as_ref(), &run, open.around.clock.now()).await?;
        if let Some(running) = members.iter().find(|member| member.state.ended.is_none()) {
            let message = format!("run `{}` has not ended, and may still add to its tables", running.run);
            return Err(Error::new(ErrorKind::Conflict, message).hint(Hint::Cancel { run }));
        }
        let (targets, has_step) = targets(open, &history, members, step.as_deref()).await?;
        if let Some(step) = step.as_deref().filter(|_| !has_step) {
            return Err(Error::invalid(format!("run `{run}` has no step `{step}`")));
        }
        let lake = history.lake(Some(&run)).await?;
        let tables: Vec<&Table> = targets.iter().map(|target| &target.table).collect();
        known_keys(&history, lake.as_ref(), &tables, &keys).await?;
        let id = format!("undo-{}", new_run_id());
        let is_part = step.is_some() || !within.is_all() || !keys.is_empty();
        let (mut all, mut hidden) = (Vec::new(), false);
        for Target { table, parts: whole } in &targets {
            let interval = within.of(table)?;
            let whole = whole.iter().map(|part| Part { interval, ..part.clone() });
            let parts = if keys.is_empty() {
                whole.collect()
            } else {
                let keys = keys.iter().map(|text| subject::key(table, Some(text))).collect::<Result<Vec<_>>>()?;
                whole.flat_map(|part| keys.iter().map(move |key| Part { key: Some(key.clone()), ..part.clone() })).collect::<Vec<_>>()
            };
            let Some(changed) = subject::meant(lake.as_ref(), table, &parts, None).await? else { continue };
            if changed.rows == 0 && changed.absent == 0 {
                hidden = true;
                continue;
            }
            let at = open.around.clock.now();
            let retraction = Retraction { id: id.clone(), parts, undoes: None, at, by: user(), reason: reason.clone() };
            let written = history.retract(lake.as_ref(), table, &retraction, &run, changed).await;
            all.push(written.map_err(|error| error.on("undo", &id))?);
        }
        if all.is_empty() {
            let what = if is_part { "nothing in that part" } else { "nothing" };
            let more = if hidden { " that is not hidden already" } else { "" };
            return Err(Error::new(ErrorKind::NotFound, format!("run `{run}` added {what}{more}, so nothing was changed")));
        }
        Ok(Change::new(id, all))
    }
}

awaitable!(UndoRequest => Change);

/// What runs added to one table.
struct Target {
    table: Table,
    /// All of it: a part for each run.
    parts: Vec<Part>,
}

/// What a run and those within it added, by table, all of it or that of a step; and whether there is such a step. A step that ran other runs stands for all
/// that these added.
async fn targets(open: &OpenLake, history: &History<'_>, members: Vec<Member>, step: Option<&str>) -> Result<(Vec<Target>, bool)> {
    let mut targets: Vec<Target> = Vec::new();
    let mut has_step = false;
    for member in members {
        let is_outermost = member.step.is_none();
        let workflow = match open.workflow_of(&member.state) {
            Ok(workflow) => workflow,
            Err(error) => return Err(error.on("run", &member.run)),
        };
        let own = step.is_some_and(|step| workflow.step(step).is_some());
        let whole = step.is_none() || (!is_outermost && member.step.as_deref() == step);
        has_step |= own || whole;
        if !own && !whole {
            continue;
        }
        let mut repaired = BTreeSet::new();
        for_each_event(history.journal.as_ref(), &member.run, |recorded| {
            if let Event::UnitsPlanned { table, .. } = recorded.event {
                repaired.insert(table);
            }
            Ok(())
        })
        .await?;
        let part = Part { step: step.filter(|_| !whole).map(str::to_owned), ..Part::of_run(&member.run) };
        for table in repaired.iter().filter_map(|name| workflow.tables.get(name)) {
            // An overlay has one retraction of an id.
            match targets.iter_mut().find(|target| (&target.table.name, &target.table.location) == (&table.name, &table.location)) {
                Some(target) => target.parts.push(part.clone()),
                None => targets.push(Target { table: table.clone(), parts: vec![part.clone()] }),
            }
        }
    }
    Ok((targets, has_step))
}

/// Refuses keys that none of the tables has ever had: what was to be undone would stay.
async fn known_keys(history: &History<'_>, lake: &dyn Lake, tables: &[&Table], keys: &[String]) -> Result<()> {
    for text in keys {
        let mut unknown = None;
        for table in tables {
            unknown = subject::unknown_key(history, lake, table, &subject::key(table, Some(text))?).await?;
            if unknown.is_none() {
                break;
            }
        }
        if let Some(error) = unknown {
            return Err(error);
        }
    }
    Ok(())
}

/// Shows again what an undo has hidden: await it. [`OpenLake::redo`] makes it.
#[must_use = "nothing is shown again before this is awaited"]
pub struct RedoRequest<'a> {
    open: &'a OpenLake,
    undo: String,
    reason: String,
}

impl RedoRequest<'_> {
    /// Records why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    async fn perform(self) -> Result<Change> {
        let Self { open, undo, reason } = self;
        let history = History::of(open).await?;
        let id = format!("redo-{undo}");
        let (mut all, mut known) = (Vec::new(), false);
        for (table, run) in history.tables().await? {
            let lake = history.lake(Some(&run)).await?;
            let retractions = lake.retractions(&table).await?;
            known |= retractions.iter().any(|retraction| retraction.id == undo);
            let Some(undone) = in_force(&retractions).find(|retraction| retraction.id == undo).cloned() else { continue };
            let Some(changed) = subject::meant(lake.as_ref(), &table, &undone.parts, Some(&undone.id)).await? else { continue };
            let run = undone.parts.first().map(|part| part.run.clone()).unwrap_or_default();
            let at = open.around.clock.now();
            let redo = Retraction { id: id.clone(), parts: Vec::new(), undoes: Some(undone.id), at, by: user(), reason: reason.clone() };
            all.push(history.retract(lake.as_ref(), &table, &redo, &run, changed).await?);
        }
        if all.is_empty() {
            let error = |message: String| Error::new(ErrorKind::NotFound, message);
            return Err(if known {
                error(format!("`{undo}` hides nothing any more, so nothing was changed"))
            } else {
                error(format!("there is no undo `{undo}` here")).hint(Hint::Retractions)
            });
        }
        Ok(Change::new(id, all))
    }
}

awaitable!(RedoRequest => Change);

impl OpenLake {
    /// Hides what a run and the runs within it added to their tables, all of it or a part. It stays in the lake, and [`OpenLake::redo`] shows it again. Tables that
    /// were computed from it are marked stale.
    ///
    /// # Errors
    /// `not-found` if there is no such run, it added nothing, or a table has never had a key; `conflict` if the run has not ended.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let change = lake.undo("monday").step("fill").reason("the source was wrong").await?;
    /// println!("{} rows are hidden", change.rows());
    /// lake.redo(change.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn undo(&self, run: impl Into<String>) -> UndoRequest<'_> {
        UndoRequest { open: self, run: run.into(), step: None, keys: Vec::new(), within: Within::default(), reason: NO_REASON.to_owned() }
    }

    /// Shows again what an undo has hidden.
    ///
    /// # Errors
    /// `not-found` if there is no such undo, or it hides nothing any more.
    pub fn redo(&self, undo: impl Into<String>) -> RedoRequest<'_> {
        RedoRequest { open: self, undo: undo.into(), reason: NO_REASON.to_owned() }
    }
}
