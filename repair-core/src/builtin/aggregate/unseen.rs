//! What a query does not see: rows that cannot be read, and rows that lie off the grid of their table, which the repaired view leaves out. A detect step counts them; a workflow
//! without one would never hear of them, so the step that reads them does.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::builtin::detect::{check_alignment, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::names;
use crate::lake::{PresenceRequest, RowCountRequest, overlay};
use crate::model::{Findings, Interval, Key, SlotRule, Table, Usage};
use crate::plugin::{StepContext, is_named_in};

const DAY_S: u32 = 86_400;

/// What was found of the tables that a query reads through their repaired views.
#[derive(Default)]
pub(super) struct Unseen {
    /// For each table that has rows off the grid: its name, how many they are, and how many rows were looked at; for each that has rows that cannot be read: its name, how many, and
    /// the first.
    pub(super) tables: Vec<Value>,
    /// What looking consumed.
    pub(super) usage: Usage,
}

impl Unseen {
    /// Looks at the tables that have a cadence and whose repaired views a query names: within an interval, or else at all their rows.
    /// A table in which the findings of the step have been found was looked at then.
    ///
    /// # Errors
    /// `blind` if more rows are off the grid than a table allows.
    pub(super) async fn look(context: &StepContext, sql: &str, findings: Option<&Findings>, asked: Option<Interval>) -> Result<Self> {
        let mut found = Self::default();
        let is_known = |table: &Table| findings.is_some_and(|findings| findings.scope.table == table.name && findings.counts.expected > 0);
        for table in context.tables.values() {
            if is_named_in(sql, &table.name) && findings.is_none_or(|findings| findings.scope.table != table.name) {
                let (left_out, usage) = context.left_out(table).await?;
                found.usage += usage;
                if let Some(first) = left_out.iter().next() {
                    found.tables.push(json!({ "table": table.name, "unread": left_out.rows(), "first": first.to_string() }));
                }
            }
            if table.cadence.is_none() || is_known(table) || !names(sql, &overlay::repaired_view(&table.name)) {
                continue;
            }
            match found.of_table(context, table, asked).await {
                Ok((0, _)) => {}
                Ok((off, rows)) => found.tables.push(json!({ "table": table.name, "misaligned": off, "rows": rows })),
                // The query says what is missing.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.on("table", &table.name)),
            }
        }
        Ok(found)
    }

    /// How many rows of a table are off the grid, and how many there are.
    async fn of_table(&mut self, context: &StepContext, table: &Table, asked: Option<Interval>) -> Result<(u64, u64)> {
        let within = match asked {
            Some(interval) => Some(interval),
            None => self.hull(context, table).await?,
        };
        let Some(interval) = within else { return Ok((0, 0)) };
        let grid = table.grid()?;
        // Which series a row belongs to does not matter, so all of them are looked at as one, and no key needs to be known.
        let one = Table { key: Vec::new(), keys: None, ..table.clone() };
        let (mut off, mut rows) = (0, 0);
        for window in windows(grid.cadence(), grid.slots_in(&interval), 1) {
            context.check_cancelled()?;
            let request = PresenceRequest::new(window, vec![Key::default()], context.entered_at);
            let presence = context.lake.presence(&one, &request).await?;
            self.usage += presence.usage;
            off += presence.raw.misaligned_rows;
            rows += presence.raw.misaligned_rows;
            rows += presence.raw.keys.values().flat_map(|key| &key.rows).map(|rows| u64::from(*rows)).sum::<u64>();
        }
        let view = overlay::repaired_view(&table.name);
        check_alignment(table, off, rows, &format!("`{view}`, which the query reads, leaves them out"))?;
        Ok((off, rows))
    }

    /// The days from the first row of a table to the last.
    async fn hull(&mut self, context: &StepContext, table: &Table) -> Result<Option<Interval>> {
        let rows = Table { cadence: None, slots: SlotRule::default(), key: Vec::new(), keys: None, ..table.clone() };
        let counts = context.lake.row_counts(&rows, &RowCountRequest::new(any_time()?, DAY_S)).await?;
        self.usage += counts.usage;
        let mut days = counts.rows.values().flat_map(|of_key| of_key.iter().filter(|(_, rows)| **rows > 0).map(|(day, _)| *day));
        let Some(first) = days.next() else { return Ok(None) };
        let (first, last) = days.fold((first, first), |(first, last), day| (first.min(day), last.max(day)));
        let of_day =
            |day: i64| Timestamp::from_second(day.saturating_mul(DAY_S.into())).map_err(|_| Error::invalid("a time is out of range"));
        // The slot of the first row may begin before it.
        let before = SignedDuration::from_secs(i64::from(table.grid()?.cadence().seconds()));
        let from = of_day(first)?.checked_sub(before).map_err(|_| Error::invalid("a time is out of range"))?;
        Ok(Some(Interval::new(from, of_day(last + 1)?)?))
    }
}

/// All times that rows of tables have.
fn any_time() -> Result<Interval> {
    Interval::parse("1700-01-01", "2299-12-31")
}
