//! What is retracted, in SQL: the rows of an overlay without those that a retraction in force hides.
//!
//! Retractions are joined, never listed, so that no statement grows with them, and the view shows a new one at once. A part that names a key
//! is found by run and key, any other by run, so that no row is compared with all parts of its run.

use repair_core::Result;
use repair_core::lake::overlay::columns;
use repair_core::lake::overlay::retraction::{Kind as RetractedKind, names};
use repair_core::lake::partition::TimeBounds;

use super::slots::Slots;
use super::{Source, milliseconds, name, text};
use crate::catalog::Relation;

impl Source<'_> {
    /// What is selected of rows of the overlay, beside key, slot and time, so that it is known which are retracted.
    pub(super) fn of_retractions(&self) -> Vec<String> {
        if self.retracted.is_some() { vec![name(columns::RUN), name(columns::STEP)] } else { Vec::new() }
    }

    /// Those of `rows` that are not retracted. They have the slot columns of a time within `bounds`, and those of
    /// [`Source::of_retractions`].
    pub(super) fn not_retracted(&self, rows: String, kind: RetractedKind, bounds: &TimeBounds) -> Result<String> {
        let Some(retracted) = self.retracted else { return Ok(rows) };
        let begin = match self.table.grid() {
            Ok(grid) => Slots::new(grid, bounds)?.start_ms("repair_slot"),
            Err(_) => "repair_ms".to_owned(),
        };
        let keys: Vec<(String, String)> =
            self.table.key.iter().zip(self.key_names()).map(|(key, own)| (own, name(&format!("repair_hidden_{key}")))).collect();
        let hidden = hidden(retracted, kind, self.table.key.iter().zip(&keys).map(|(key, (_, hidden))| (key.as_str(), hidden.as_str())));
        let all = |word: &str, between: &str| keys.iter().map(|(_, key)| format!("{key} IS {word}")).collect::<Vec<_>>().join(between);
        let narrowed = |side: &str| {
            // An interval is never empty, so its start is in it, however its end is rounded.
            format!(
                "a.{run} = {side}.repair_hidden_run AND ({side}.repair_hidden_step IS NULL OR {side}.repair_hidden_step = a.{step}) AND \
                 ({side}.repair_hidden_from IS NULL OR a.repair_begin = {side}.repair_hidden_from OR \
                 (a.repair_begin > {side}.repair_hidden_from AND a.repair_begin < {side}.repair_hidden_to))",
                run = name(columns::RUN),
                step = name(columns::STEP),
            )
        };
        let mut joins = String::new();
        let mut shown = Vec::new();
        if !keys.is_empty() {
            let same: String = keys.iter().map(|(own, hidden)| format!("a.{own} = b.{hidden} AND ")).collect();
            joins = format!(" LEFT JOIN (SELECT * FROM ({hidden}) WHERE {}) b ON {same}{}", all("NOT NULL", " AND "), narrowed("b"));
            shown.push("b.repair_hidden_run IS NULL");
        }
        let of_any = if keys.is_empty() { hidden } else { format!("SELECT * FROM ({hidden}) WHERE {}", all("NULL", " OR ")) };
        joins.push_str(&format!(" LEFT JOIN ({of_any}) c ON {}", narrowed("c")));
        shown.push("c.repair_hidden_run IS NULL");
        Ok(format!("SELECT a.* FROM (SELECT *, {begin} AS repair_begin FROM ({rows})) a{joins} WHERE {}", shown.join(" AND ")))
    }
}

/// The parts of retractions in force that hide rows of a kind. `keys` are columns, and what they are called in the result.
fn hidden<'a>(retracted: &Relation, kind: RetractedKind, keys: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let instant = |column: &str, called: &str| format!("{} AS {called}", milliseconds(&name(column)));
    let mut select = vec![
        format!("{} AS repair_hidden_run", name(columns::RUN)),
        format!("{} AS repair_hidden_step", name(columns::STEP)),
        instant(names::FROM, "repair_hidden_from"),
        instant(names::TO, "repair_hidden_to"),
    ];
    // A part that does not name all columns of a key names none.
    select.extend(keys.map(|(key, called)| match retracted.kind(key) {
        Some(_) => format!("{} AS {called}", name(key)),
        None => format!("CAST(NULL AS varchar) AS {called}"),
    }));
    // A retraction and those that undo it are one window.
    format!(
        "SELECT {select} FROM (SELECT *, max({undoes}) OVER (PARTITION BY coalesce({undoes}, {id})) AS repair_undone FROM {retracted}) \
         WHERE repair_undone IS NULL AND {kind} IN ({all}, {own})",
        select = select.join(", "),
        undoes = name(names::UNDOES),
        id = name(names::ID),
        retracted = retracted.quoted(),
        kind = name(names::KIND),
        all = text(RetractedKind::All.as_str()),
        own = text(kind.as_str()),
    )
}
