//! What readers of a table do not see of its files: rows that cannot be read and are left out, and rows that lie too far from the folder of their time to be used. A detector
//! counts both in the table that it examines. Whoever reads another table, and concludes something from what is not there, asks here.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::context::StepContext;
use super::query::UserQuery;
use crate::error::{ErrorKind, Result};
use crate::lake::partition::folders;
use crate::lake::query::names;
use crate::lake::{PresenceRequest, ReadLake, RowCountRequest, overlay};
use crate::model::{Cadence, Interval, OnBadRow, Quarantine, Rows, Slack, SlotRule, Table, Usage, Zone};

/// The rows of a table that cannot be read, and that its `on_bad_row` leaves out of every answer.
///
/// # Errors
/// Those of reading, and `invalid` if there are more such rows than the table allows.
pub async fn left_out(lake: &dyn ReadLake, table: &Table) -> Result<(Quarantine, Usage)> {
    if table.on_bad_row == OnBadRow::Refuse {
        return Ok(Default::default());
    }
    // Slots do not matter, so none need be known; nor do keys, but a row without its key cannot be read.
    let rows = Table { cadence: None, slots: SlotRule::default(), keys: None, ..table.clone() };
    let counts = lake.row_counts(&rows, &RowCountRequest::new(Interval::parse("1700-01-01", "2299-12-31")?, 86_400)).await;
    match counts {
        Ok(counts) => Ok((counts.quarantine, counts.usage)),
        // Who reads it says so.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(error.on("table", &table.name)),
    }
}

/// How many rows of each file of a table lie so far from the folder of their time that they are never used, whatever their time is. They are counted as presence is, so a lake
/// that keeps what it has counted reads each file once. A lake that does not know files counts them under one name.
///
/// # Errors
/// Those of reading.
pub async fn strays(lake: &dyn ReadLake, table: &Table) -> Result<(BTreeMap<String, u64>, Usage)> {
    if folders(table).is_none() {
        return Ok(Default::default());
    }
    // Which slots and keys there are does not matter. The folders are those of the table, and so is what it says of the distance to them.
    let slack = match table.identity().lookback_us() {
        Some(lookback_us) if table.slack == Slack::OneFolder => Slack::Seconds(u32::try_from(lookback_us / 1_000_000).unwrap_or(u32::MAX)),
        _ => table.slack,
    };
    let days = Table {
        cadence: Some(Cadence::DAY),
        slots: SlotRule::default(),
        rows: Rows::One,
        version: Vec::new(),
        lookback: None,
        keys: None,
        slack,
        zone: Some(Zone::utc()),
        ..table.clone()
    };
    let all = days.grid()?.slots_in(&Interval::parse("1900-01-01", "2099-12-31")?);
    match lake.presence(&days, &PresenceRequest::new(all, Vec::new(), Timestamp::MAX)).await {
        Ok(found) => Ok((found.raw.stray_rows.into_iter().filter(|(_, rows)| *rows > 0).collect(), found.usage)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(error.on("table", &table.name)),
    }
}

/// Why a row that is not found in a table may be in its files nevertheless, in words that call the table `of`; `None` if all of its rows are used.
///
/// # Errors
/// As [`left_out`] and [`strays`].
pub async fn doubt(lake: &dyn ReadLake, table: &Table, of: &str) -> Result<(Option<String>, Usage)> {
    let (left_out, mut usage) = left_out(lake, table).await?;
    let (strays, more) = strays(lake, table).await?;
    usage += more;
    let far = strays.first_key_value().map(|(file, _)| {
        let rows: u64 = strays.values().sum();
        let (rows, lie) = if rows == 1 { ("1 row".to_owned(), "lies") } else { (format!("{rows} rows"), "lie") };
        format!("{rows} of {of} {lie} too far from the folder of their time to be used, such as in {file}")
    });
    let both: Vec<String> = left_out.said(of).into_iter().chain(far).collect();
    Ok(((!both.is_empty()).then(|| both.join("; ")), usage))
}

/// Whether a query names a table, by its name or that of its repaired view.
pub fn is_named_in(sql: &str, table: &str) -> bool {
    names(sql, table) || names(sql, &overlay::repaired_view(table))
}

/// The tables that a query names.
pub(crate) fn named_in<'a>(tables: &'a BTreeMap<String, Table>, sql: &'a str) -> impl Iterator<Item = &'a Table> {
    tables.values().filter(move |table| is_named_in(sql, &table.name))
}

impl StepContext {
    /// The rows of a table that cannot be read, and that its `on_bad_row` leaves out of every answer; and what it takes to count them. A detector counts those of the table
    /// that it examines by itself. Of other tables that a step reads, nobody would hear.
    ///
    /// # Errors
    /// Those of reading, and `invalid` if there are more such rows than the table allows.
    pub async fn left_out(&self, table: &Table) -> Result<(Quarantine, Usage)> {
        left_out(self.lake.as_ref(), table).await
    }

    /// Why a row that is not found in a table may be in its files nevertheless: some of them cannot be read, or lie too far from the folder of their time to be used. In words
    /// that call the table `of`; `None` if all of its rows are used. A source that vouches for what it does not have asks this first.
    ///
    /// # Errors
    /// As [`StepContext::left_out`].
    pub async fn doubt(&self, table: &Table, of: &str) -> Result<(Option<String>, Usage)> {
        doubt(self.lake.as_ref(), table, of).await
    }

    /// The rows that a query does not see since they cannot be read, in a sentence for each table that it names; not of the table `except`.
    ///
    /// # Errors
    /// As [`StepContext::left_out`].
    pub(crate) async fn unread_by(&self, query: UserQuery<'_>, except: Option<&str>) -> Result<(Vec<String>, Usage)> {
        let other;
        let (lake, tables): (&dyn ReadLake, _) = match query.lake {
            None => (self.lake.as_ref(), &self.tables),
            Some(profile) => {
                let elsewhere = self.elsewhere(profile)?;
                other = elsewhere.lake();
                (other.as_ref(), &elsewhere.tables)
            }
        };
        let (mut said, mut usage) = (Vec::new(), Usage::default());
        for table in named_in(tables, query.sql).filter(|table| except != Some(table.name.as_str())) {
            let (left_out, used) = left_out(lake, table).await?;
            usage += used;
            said.extend(left_out.said(&format!("table `{}`, which the query reads,", table.name)));
        }
        Ok((said, usage))
    }
}
