//! Records what people decide about slots: frozen, given up, handled elsewhere. Lists such decisions, and lifts them.

use std::path::Path;

use serde::Serialize;

use super::subject::{self, Subject, TableName};
use super::user;
use crate::open::OpenLake;
use crate::request::awaitable;
use repair_core::engine::{JsonFormat, new_run_id};
use repair_core::lake::overlay::aside::{Aside, Asides, BEGINNING, Verdict};
use repair_core::lake::overlay::retraction::Retraction;
use repair_core::model::Interval;
use repair_core::{Error, ErrorKind, Result};

/// A decision that was recorded or lifted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Decided {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// The decision.
    pub decision: Aside,
    /// The record that lifts it, if it was lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_by: Option<String>,
}

/// The decisions about a table that are in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AsidesReport {
    /// The format of its JSON.
    pub format: JsonFormat,
    /// The table.
    pub table: String,
    /// The decisions: those that count before others first.
    pub decisions: Asides,
}

/// Sets slots aside: await it. [`OpenLake::set_aside`] makes it.
#[must_use = "nothing is recorded before this is awaited"]
pub struct SetAsideRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    verdict: Verdict,
    key: Option<String>,
    from: Option<String>,
    to: String,
    reason: String,
}

/// Lifts a decision: await it. [`OpenLake::lift`] makes it.
#[must_use = "nothing is lifted before this is awaited"]
pub struct LiftRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
    id: String,
    reason: String,
}

/// Lists decisions: await it. [`OpenLake::asides`] makes it.
#[must_use = "nothing is listed before this is awaited"]
pub struct AsidesRequest<'a> {
    open: &'a OpenLake,
    table: TableName,
}

macro_rules! of_a_table {
    ($request:ident) => {
        impl $request<'_> {
            /// Takes the table from this workflow instead of the latest run that had it.
            pub fn declared_in<'b>(mut self, workflow: impl Into<Option<&'b Path>>) -> Self {
                self.table.declared_in(workflow.into());
                self
            }
        }
    };
}

of_a_table!(SetAsideRequest);
of_a_table!(LiftRequest);
of_a_table!(AsidesRequest);

impl SetAsideRequest<'_> {
    /// Chooses one series; without this, it is about all. The values of a key of several columns are separated by commas.
    pub fn key<'b>(mut self, key: impl Into<Option<&'b str>>) -> Self {
        self.key = key.into().map(str::to_owned);
        self
    }

    /// Begins here: a date of the table's zone, or an instant. Without this, it has no beginning.
    pub fn from<'b>(mut self, from: impl Into<Option<&'b str>>) -> Self {
        self.from = from.into().map(str::to_owned);
        self
    }

    async fn perform(self) -> Result<Decided> {
        let Self { open, table, verdict, key, from, to, reason } = self;
        if reason.trim().is_empty() {
            return Err(Error::invalid("the reason is empty; write why, for those who ask later"));
        }
        let subject = table.open(open).await?;
        let key = match (key, subject.table.key.is_empty()) {
            (None, _) => None,
            (Some(text), _) => {
                let key = subject::key(&subject.table, Some(&text))?;
                subject.check_key(&key).await?;
                Some(key)
            }
        };
        let Subject { table, lake, .. } = subject;
        let interval = Interval::parse_in(from.as_deref().unwrap_or(BEGINNING), &to, &table.day_zone())?;
        if table.identity().grid().slots_in(&interval).is_empty() {
            return Err(Error::invalid(format!("{interval} holds no slot of table `{}`", table.name)));
        }
        let (id, at) = (format!("{}-{}", verdict.as_str(), new_run_id()), open.around.clock.now());
        let decision = Aside::new(id, verdict, interval, at, user()).of_key(key).because(reason);
        lake.retract(&table, &decision.to_record()).await?;
        Ok(Decided { format: JsonFormat, table: table.name, decision, lifted_by: None })
    }
}

impl LiftRequest<'_> {
    async fn perform(self) -> Result<Decided> {
        let Self { open, table, id, reason } = self;
        let Subject { table, lake, .. } = table.open(open).await?;
        let all = Asides::read(lake.as_ref(), &table).await?;
        let Some(decision) = all.iter().find(|aside| aside.id == id).cloned() else {
            let known: Vec<&str> = all.iter().map(|aside| aside.id.as_str()).collect();
            let known = if known.is_empty() { "none is in force".to_owned() } else { format!("in force are {}", known.join(", ")) };
            return Err(Error::new(ErrorKind::NotFound, format!("table `{}` has no decision `{id}` in force; {known}", table.name)));
        };
        let record = Retraction {
            id: format!("lift-{}", new_run_id()),
            parts: Vec::new(),
            undoes: Some(id),
            at: open.around.clock.now(),
            by: user(),
            reason,
        };
        lake.retract(&table, &record).await?;
        Ok(Decided { format: JsonFormat, table: table.name, decision, lifted_by: Some(record.id) })
    }
}

impl AsidesRequest<'_> {
    async fn perform(self) -> Result<AsidesReport> {
        let Subject { table, lake, .. } = self.table.open(self.open).await?;
        let decisions = Asides::read(lake.as_ref(), &table).await?;
        Ok(AsidesReport { format: JsonFormat, table: table.name, decisions })
    }
}

awaitable!(SetAsideRequest => Decided);
awaitable!(LiftRequest => Decided);
awaitable!(AsidesRequest => AsidesReport);

impl OpenLake {
    /// Sets slots of a table aside, up to a date of the table's zone (which is included) or to an instant (which is not): detectors still find what
    /// is wrong with them and count it apart, and no repair writes to them. The reason is for those who ask later.
    ///
    /// # Errors
    /// `invalid` if the reason is empty or the time holds no slot; `not-found` if no run has had the table, or the table has never had the key.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// use repair::provenance::Verdict;
    ///
    /// let decided = lake.set_aside("bars", Verdict::Frozen, "2023-12-31", "the year is closed").await?;
    /// lake.lift("bars", decided.decision.id, "it was opened again").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_aside(
        &self,
        table: impl Into<String>,
        verdict: Verdict,
        to: impl Into<String>,
        reason: impl Into<String>,
    ) -> SetAsideRequest<'_> {
        let table = TableName::new(table.into());
        SetAsideRequest { open: self, table, verdict, key: None, from: None, to: to.into(), reason: reason.into() }
    }

    /// Lifts a decision about slots, by its id: they are as any other again.
    ///
    /// # Errors
    /// `not-found` if no such decision about the table is in force.
    pub fn lift(&self, table: impl Into<String>, id: impl Into<String>, reason: impl Into<String>) -> LiftRequest<'_> {
        LiftRequest { open: self, table: TableName::new(table.into()), id: id.into(), reason: reason.into() }
    }

    /// Lists the decisions about slots of a table that are in force.
    ///
    /// # Errors
    /// `not-found` if no run has had the table.
    pub fn asides(&self, table: impl Into<String>) -> AsidesRequest<'_> {
        AsidesRequest { open: self, table: TableName::new(table.into()) }
    }
}
