//! Aggregates that are stale because rows they were computed from have been retracted. They are marked beside their table until they are
//! computed again.
//!
//! A mark is a retraction in the aggregate's own table, which has no repairs to hide. A step that computes the marked stretch again undoes
//! the mark.

use jiff::Timestamp;
use serde_json::Value;

use crate::error::Result;
use crate::lake::Lake;
use crate::lake::overlay::retraction::{Retraction, in_force};
use crate::model::{Interval, Table};

/// The table that an aggregate step wrote, if its output says so in `table` and `location`.
///
/// Marks have no key and are not sorted by time, so neither is needed.
pub fn written(output: &Value) -> Option<Table> {
    let text = |name: &str| output.get(name).and_then(Value::as_str);
    Some(Table { location: text("location")?.to_owned(), ..Table::implicit(text("table")?, "time") })
}

/// The stale stretches of an aggregate's table, each with its mark.
///
/// # Errors
/// Those of the lake.
pub async fn stale(lake: &dyn Lake, into: &Table) -> Result<Vec<(Interval, Retraction)>> {
    let all = lake.retractions(into).await?;
    let marks = in_force(&all).filter_map(|mark| {
        let stretch = mark.parts.iter().filter_map(|part| part.interval).reduce(|one, other| one.hull(&other))?;
        Some((stretch, mark.clone()))
    });
    Ok(marks.collect())
}

/// The key in an aggregate step's output that lists the stretches of its table that stay stale.
pub(crate) const BEYOND: &str = "stale";

/// Undoes the marks of what was computed again: those that existed when the computation began, and that it covers. Returns the stretches
/// that stay stale, in order.
///
/// # Errors
/// Those of the lake.
pub(crate) async fn refresh(lake: &dyn Lake, into: &Table, computed: &Interval, by: &str, began: Timestamp) -> Result<Vec<Interval>> {
    let mut beyond = Vec::new();
    for (stretch, mark) in stale(lake, into).await? {
        if mark.at > began || !computed.covers(&stretch) {
            beyond.push(stretch);
            continue;
        }
        let undoing = Retraction {
            // The id follows from the mark's, so that computing again after a crash writes the same.
            id: format!("computed-{}", mark.id),
            parts: Vec::new(),
            undoes: Some(mark.id),
            at: began,
            by: by.to_owned(),
            reason: format!("computed again, {stretch}"),
        };
        lake.retract(into, &undoing).await?;
    }
    beyond.sort_unstable();
    beyond.dedup();
    Ok(beyond)
}
