//! Records what a person knows about slots that have no row, and removes such records.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;

use super::subject::{self, Subject, TableName};
use super::{Change, TableChange, user};
use crate::open::OpenLake;
use crate::request::awaitable;
use crate::within::Within;
use repair_core::engine::new_run_id;
use repair_core::lake::overlay::retraction::{Kind, Part, Retracted, Retraction};
use repair_core::lake::overlay::story::published;
use repair_core::lake::{StageRequest, StageScope, overlay};
use repair_core::model::{Absence, Fix, Interval, Table};
use repair_core::{Error, ErrorKind, Result};

/// When to ask again about an exception without an end: a date that every lake can write, and so late that it means never.
const NEVER: &str = "9999-01-01T00:00:00Z";

/// More slots than this at once are probably a typing mistake.
const MOST_SLOTS: u64 = 10_000_000;

/// The step of a person's exception.
const STEP: &str = "except";

/// Records that slots have no row and need none: await it. [`OpenLake::except`] makes it.
#[must_use = "nothing is recorded before this is awaited"]
pub struct ExceptRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    key: Option<String>,
    within: Within,
    reason: String,
    until: Option<Timestamp>,
}

/// Removes the exceptions of slots: await it. [`OpenLake::unexcept`] makes it.
#[must_use = "nothing is removed before this is awaited"]
pub struct UnexceptRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    key: Option<String>,
    within: Within,
    reason: String,
}

macro_rules! about_a_series {
    ($request:ident) => {
        impl $request<'_> {
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
        }
    };
}

about_a_series!(ExceptRequest);
about_a_series!(UnexceptRequest);

impl ExceptRequest<'_> {
    /// Asks sources about these slots again after this instant. Without this, never.
    pub fn until(mut self, until: impl Into<Option<Timestamp>>) -> Self {
        self.until = until.into();
        self
    }

    async fn perform(self) -> Result<Change> {
        let Self { open, table, key, within, reason, until } = self;
        check_reason(&reason)?;
        let subject = table.open(open).await?;
        let key = subject::key(&subject.table, key.as_deref())?;
        subject.check_key(&key).await?;
        let Subject { history, table, lake, .. } = subject;
        let interval = exactly(&within, &table)?;
        let never = NEVER.parse().map_err(|error| Error::internal("a constant is not an instant").because(error))?;
        let slots = table.grid()?.slots_in(&interval);
        if slots.is_empty() || slots.len() > MOST_SLOTS {
            let message = format!("{interval} holds {} slots of table `{}`; give from 1 to {MOST_SLOTS}", slots.len(), table.name);
            return Err(Error::invalid(message));
        }
        let (run, asked_at) = (format!("except-{}", new_run_id()), open.around.clock.now());
        let recheck_after = until.unwrap_or(never);
        if recheck_after <= asked_at {
            return Err(Error::invalid(format!("{recheck_after} is in the past; an exception ends at a later instant")));
        }
        let source = format!("person:{}", user());
        let absence = Absence { key, slots, source: source.clone(), asked_at, answer: reason.clone(), recheck_after };
        let fix = Fix { absent: vec![absence], source, ..Fix::default() };
        let scope = StageScope { run: &run, step: STEP, visit: 1, table: &table };
        let units = [STEP.to_owned()];
        lake.stage(&scope, &StageRequest::new(STEP, "person", asked_at, &fix)).await?;
        let mut changed = TableChange { table: table.name.clone(), rows: 0, absent: slots.len(), interval, stale: Vec::new() };
        let change = Retraction { id: run.clone(), parts: Vec::new(), undoes: None, at: asked_at, by: user(), reason };
        history.mark_stale(lake.as_ref(), &change, &run, &mut changed).await?;
        lake.publish(&scope, 0, &units).await?;
        lake.discard_staged(&scope, &units).await?;
        Ok(Change::new(run, vec![changed]))
    }
}

impl UnexceptRequest<'_> {
    async fn perform(self) -> Result<Change> {
        let Self { open, table, key, within, reason } = self;
        check_reason(&reason)?;
        let subject = table.open(open).await?;
        let key = subject::key(&subject.table, key.as_deref())?;
        subject.check_key(&key).await?;
        let Subject { history, table, lake, .. } = subject;
        let interval = exactly(&within, &table)?;
        let retracted = Retracted::of(&table, &lake.retractions(&table).await?);
        let mut runs = BTreeSet::new();
        for row in published(lake.as_ref(), &table, overlay::exceptions, Some(interval), Some(std::slice::from_ref(&key))).await? {
            let provenance = row.provenance(&retracted, Kind::Exceptions)?;
            if provenance.retracted_by.is_none() {
                runs.insert(provenance.run);
            }
        }
        let of_table = (!table.key.is_empty()).then(|| key.clone());
        let part = |run: &String| Part { key: of_table.clone(), interval: Some(interval), kind: Kind::Exceptions, ..Part::of_run(run) };
        let parts: Vec<Part> = runs.iter().map(part).collect();
        let changed = if parts.is_empty() { None } else { subject::meant(lake.as_ref(), &table, &parts, None).await? };
        let Some(changed) = changed else {
            let message = format!("{key} in table `{}` has no exceptions in {interval}, so nothing was changed", table.name);
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let id = format!("undo-{}", new_run_id());
        let retraction = Retraction { id: id.clone(), parts, undoes: None, at: open.around.clock.now(), by: user(), reason };
        let run = runs.first().cloned().unwrap_or_default();
        Ok(Change::new(id, vec![history.retract(lake.as_ref(), &table, &retraction, &run, changed).await?]))
    }
}

awaitable!(ExceptRequest => Change);
awaitable!(UnexceptRequest => Change);

/// What a person knows of slots is about a part of time, which is given.
fn exactly(within: &Within, table: &Table) -> Result<Interval> {
    within.of(table)?.ok_or_else(|| Error::invalid("nothing says which slots are meant; give the first and the last"))
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.trim().is_empty() { Err(Error::invalid("the reason is empty; write how you know, for those who ask later")) } else { Ok(()) }
}

impl OpenLake {
    /// Records that the slots of a series in an interval have no row and need none. The reason is how you know.
    ///
    /// # Errors
    /// `invalid` if the interval holds no slot, or far too many; `not-found` if no run has had the table, or the table has never had the key.
    pub fn except(&self, table: impl Into<String>, within: impl Into<Within>, reason: impl Into<String>) -> ExceptRequest<'_> {
        ExceptRequest {
            open: self,
            table: TableName::new(table.into()),
            key: None,
            within: within.into(),
            reason: reason.into(),
            until: None,
        }
    }

    /// Removes the exceptions of a series in an interval, whether a person or a run recorded them. [`OpenLake::redo`] restores them.
    ///
    /// # Errors
    /// `not-found` if there are none; otherwise as [`OpenLake::except`].
    pub fn unexcept(&self, table: impl Into<String>, within: impl Into<Within>, reason: impl Into<String>) -> UnexceptRequest<'_> {
        UnexceptRequest { open: self, table: TableName::new(table.into()), key: None, within: within.into(), reason: reason.into() }
    }
}
