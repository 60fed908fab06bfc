//! The table that an aggregator writes: one that the workflow declares, or one that its name implies.

use crate::error::{Error, Result};
use crate::model::{Format, Table, TimeMark};
use crate::plugin::StepContext;

/// A table of that name in a folder of that name, Parquet, without partitions, key or cadence.
pub fn implicit(name: &str, time: &str) -> Table {
    Table {
        name: name.to_owned(),
        location: name.to_owned(),
        format: Format::Parquet,
        partition_by: Vec::new(),
        key: Vec::new(),
        time: time.to_owned(),
        time_marks: TimeMark::Start,
        cadence: None,
    }
}

/// The table to write to: the workflow's own of that name, else the one given.
///
/// # Errors
/// `invalid` if it is, or lies where, a table lies whose repairs are kept beside it: data that was captured is never overwritten.
pub fn target(context: &StepContext, into: &str, read: Option<&str>, implied: impl FnOnce() -> Table) -> Result<Table> {
    if into.trim().is_empty() {
        return Err(Error::invalid("`into` is empty; name the table to write"));
    }
    let table = context.tables.get(into).cloned().unwrap_or_else(implied);
    let source = read.and_then(|name| context.tables.get(name));
    let clash = context.tables.values().find(|other| {
        other.location == table.location && (other.name != table.name || source.is_some_and(|source| source.name == other.name))
    });
    match clash {
        None => Ok(table),
        Some(other) => Err(Error::invalid(format!(
            "`into: {into}` would overwrite `{}`, the location of table `{}`; write to a table of its own",
            table.location, other.name
        ))),
    }
}
