//! The status of every slot, by table, key and day: what is complete, repaired, missing, absent, suspect, wrong, or set aside by a person, as runs last saw
//! it, and who looked last.
//!
//! It is derived from what looks have found, and asks no table anything. `gather` reads what is new in the journals, `fold` says which look counts for
//! which slot, and `kept` keeps the result for the next question; what is lost or damaged is made anew. A day at which nobody looked is not in it: that
//! nothing is known does not make it complete.

mod fold;
mod gather;
mod kept;
mod model;
mod picture;
mod since;

use jiff::civil::Date;

pub use self::model::{DayStatus, KeyStatus, Look, States, Status, TableStatus};
pub use self::picture::{STYLE, element_of, page, picture, picture_of};
use crate::open::OpenLake;
use crate::provenance::subject;
use crate::request::awaitable;
use kept::{Days, Index, Looks};
use repair_core::engine::JsonFormat;
use repair_core::lake::overlay::aside::Asides;
use repair_core::model::{Key, Table};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};

/// Asks for the status of tables: await it. [`OpenLake::status`] makes it.
#[must_use = "nothing is looked up before this is awaited"]
pub struct StatusRequest<'a> {
    open: &'a OpenLake,
    table: Option<String>,
    key: Option<String>,
    since: Option<Date>,
    until: Option<Date>,
}

impl StatusRequest<'_> {
    /// Only this table.
    pub fn table<'b>(mut self, table: impl Into<Option<&'b str>>) -> Self {
        self.table = table.into().map(str::to_owned);
        self
    }

    /// Only this series. The values of a key of several columns are separated by commas.
    pub fn key<'b>(mut self, key: impl Into<Option<&'b str>>) -> Self {
        self.key = key.into().map(str::to_owned);
        self
    }

    /// Only this day, in the zone of each table, and later ones.
    pub fn since(mut self, date: impl Into<Option<Date>>) -> Self {
        self.since = date.into();
        self
    }

    /// Only this day, in the zone of each table, and earlier ones.
    pub fn until(mut self, date: impl Into<Option<Date>>) -> Self {
        self.until = date.into();
        self
    }

    async fn perform(self) -> Result<Status> {
        let (history, lake) = gather::lake(self.open).await?;
        let index = gather::index(&history, lake.as_ref()).await?;
        if let Some(name) = self.table.as_ref().filter(|name| !index.tables.contains_key(*name)) {
            let close = closest(name, index.tables.keys().map(String::as_str));
            let close = close.map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
            return Err(Error::new(ErrorKind::NotFound, format!("no run here has examined a table `{name}`{close}")));
        }
        let mut tables = Vec::new();
        for (name, looks) in &index.tables {
            if looks.looks.is_empty() || self.table.as_ref().is_some_and(|table| table != name) {
                continue;
            }
            let of_table = self.of_table(&history, lake.as_ref(), name, &index).await;
            tables.push(of_table.map_err(|error| error.on("table", name))?);
        }
        if let Some(key) = self.key.as_ref().filter(|_| tables.iter().all(|table| table.keys.is_empty())) {
            return Err(Error::new(ErrorKind::NotFound, format!("no look of a run has examined key `{key}`")));
        }
        Ok(Status { format: JsonFormat, as_of: self.open.around.clock.now(), tables })
    }

    async fn of_table(
        &self,
        history: &subject::History<'_>,
        lake: &dyn repair_core::lake::Lake,
        name: &str,
        index: &Index,
    ) -> Result<TableStatus> {
        let looks = index.tables.get(name).ok_or_else(|| Error::internal("a table has no looks"))?;
        let mut notes = Vec::new();
        let declared = gather::declared(history, looks, name).await?;
        let records = match &declared {
            Some(table) => lake.retractions(table).await?,
            None => {
                notes.push(
                    "the latest run that examined it no longer says what the table is, so what people have set aside is not known"
                        .to_owned(),
                );
                Vec::new()
            }
        };
        let decisions = declared.as_ref().map(|table| Asides::of(table, &records)).unwrap_or_default();
        let Some(days) = gather::days(history, lake, (name, declared.as_ref(), looks), &decisions).await? else {
            notes.push(
                "its rows are identified by their key or time, so it has no slots; `repair gaps` lists what is wrong with them".to_owned(),
            );
            return self.listed(name, declared.as_ref(), None, looks, (decisions, notes));
        };
        notes.extend(days.head.notes.iter().cloned());
        notes.extend(since::notes(index, looks, &records));
        self.listed(name, declared.as_ref(), Some(days), looks, (decisions, notes))
    }

    /// The days that were asked for.
    fn listed(
        &self,
        name: &str,
        declared: Option<&Table>,
        days: Option<Days>,
        looks: &Looks,
        (decisions, notes): (Asides, Vec<String>),
    ) -> Result<TableStatus> {
        let mut status = TableStatus {
            table: name.to_owned(),
            zone: String::new(),
            cadence: String::new(),
            days: None,
            total: States::default(),
            never_looked: 0,
            looks: Vec::new(),
            decisions,
            keys: Vec::new(),
            notes,
        };
        let Some(Days { head, of_key }) = days else { return Ok(status) };
        (status.zone, status.cadence) = (head.zone, head.grid.cadence().to_string());
        // Where several tables are listed, a key that does not fit one is none of its keys.
        let is_meant = |key: &Key| match (self.key.as_deref(), declared) {
            (None, _) => true,
            (Some(text), Some(table)) => subject::key(table, Some(text)).is_ok_and(|meant| meant == *key),
            (Some(text), None) => Key::typed(text, key.values().len()).is_some_and(|meant| meant == *key),
        };
        let is_asked = |date: Date| self.since.is_none_or(|since| date >= since) && self.until.is_none_or(|until| date <= until);
        let mut places: Vec<Option<usize>> = vec![None; looks.looks.len()];
        for (key, cells) in of_key {
            if !is_meant(&key) {
                continue;
            }
            let mut of_key = KeyStatus { key, total: States::default(), never_looked: 0, days: Vec::with_capacity(cells.len()) };
            for cell in cells.into_iter().filter(|cell| is_asked(cell.date)) {
                let place = places.get_mut(cell.look).ok_or_else(|| Error::internal("a day names a look that there is not"))?;
                let look = match *place {
                    Some(look) => look,
                    None => {
                        status.looks.push(looks.looks[cell.look].look.clone());
                        *place = Some(status.looks.len() - 1);
                        status.looks.len() - 1
                    }
                };
                of_key.total += cell.states;
                let part = cell.part.and_then(|part| head.grid.interval_of(part));
                of_key.days.push(DayStatus { date: cell.date, states: cell.states, look, part });
            }
            if of_key.days.is_empty() {
                continue;
            }
            status.total += of_key.total;
            status.keys.push(of_key);
        }
        let dates = || status.keys.iter().flat_map(|key| &key.days).map(|day| day.date);
        status.days = dates().min().zip(dates().max());
        if let Some((first, last)) = status.days {
            let all: std::collections::BTreeSet<Date> = dates().collect();
            // Of a longer cadence, no slot begins on most days.
            let days = if head.grid.cadence().seconds() > 86_400 {
                u64::try_from(all.len()).unwrap_or(0)
            } else {
                u64::try_from((last - first).get_days()).unwrap_or(0) + 1
            };
            for key in &mut status.keys {
                key.never_looked = days.saturating_sub(key.days.len() as u64);
            }
            status.never_looked = status.keys.iter().map(|key| key.never_looked).sum();
        }
        Ok(status)
    }
}

awaitable!(StatusRequest => Status);

impl OpenLake {
    /// Asks for the status of every slot of all tables that runs have examined, by key and day: how many slots are complete, repaired, missing, absent,
    /// suspect, wrong, or set aside by people, as runs last saw them. Nothing is looked at again, so what happened since is not in it; the notes of a
    /// table say what did.
    ///
    /// # Errors
    /// `not-found` if no run has examined such a table, or such a key of one; those of the journal and the lake.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// for table in lake.status().table("bars").await?.tables {
    ///     println!("{} of {} slots of {} are missing", table.total.missing, table.total.expected, table.table);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> StatusRequest<'_> {
        StatusRequest { open: self, table: None, key: None, since: None, until: None }
    }
}
