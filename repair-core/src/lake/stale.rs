//! Aggregates that were computed from what was taken back since: marked beside their table, until they are computed again.
//!
//! A mark is a retraction in the aggregate's own table, which has no repairs that it could hide. A step that computes the marked stretch
//! again undoes the mark.

use jiff::Timestamp;
use serde_json::Value;

use crate::error::Result;
use crate::lake::Lake;
use crate::lake::overlay::retraction::{Retraction, in_force};
use crate::model::{Interval, Table};

/// The table that an aggregate step says it wrote, if it says so in its output: `table` and `location`.
///
/// Its marks have no key and are not sorted by time, so neither is asked for.
pub fn written(output: &Value) -> Option<Table> {
    let text = |name: &str| output.get(name).and_then(Value::as_str);
    Some(Table { location: text("location")?.to_owned(), ..Table::implicit(text("table")?, "time") })
}

/// The stretches of an aggregate's table that are not to be trusted, each with its mark.
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

/// Where the output of an aggregate step tells which stretches of its table stay stale.
pub(crate) const BEYOND: &str = "stale";

/// Takes away the marks of what was computed again: those that were there when that began, and lie within. Returns the stretches that stay
/// stale, in order.
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
            // To compute it again after a crash is to say the same again.
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
