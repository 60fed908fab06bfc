//! Bounds of each key, from a table that lists them.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use crate::builtin::detect::expected::blind_if_missing;
use crate::builtin::detect::invalid::rule::FromTable;
use crate::builtin::detect::invalid::value::{Value, Values};
use crate::error::{Error, Result};
use crate::lake::shape::{self, KeyTime};
use crate::lake::{Layer, ScanRequest, rollup};
use crate::model::{Key, Scope};
use crate::plugin::StepContext;

/// How many keys without a bound are named.
const MOST_NAMED: usize = 5;

/// Reads the bounds of the expected keys, and says which have none.
///
/// # Errors
/// `blind` if the table is not there; `invalid` if it has not the same key columns, or no such column of numbers.
pub(super) async fn of_keys(context: &StepContext, from: &FromTable, scope: &Scope) -> Result<(BTreeMap<Key, Value>, Option<String>)> {
    let (table, of) = (context.table(&from.table)?, context.table(&scope.table)?);
    if table.key != of.key {
        return Err(Error::invalid(format!(
            "table `{}` has the key {}, and the bounds of table `{}` need its key, {}",
            table.name,
            listed(&table.key),
            of.name,
            listed(&of.key)
        )));
    }
    let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
    let column = shape::find(&schema, &from.column).map_err(|error| error.on("table", &table.name))?.ok_or_else(|| {
        let names = shape::names(&schema);
        Error::invalid(format!("a bound is in column `{}`, which table `{}` does not have; {names}", from.column, table.name))
    })?;
    let request = ScanRequest::new(Layer::Repaired).of_keys(scope.keys.clone()).with_columns(vec![column.name().clone()]);
    let mut rows = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
    let mut bounds: BTreeMap<Key, (i64, Value)> = BTreeMap::new();
    while let Some(batch) = rows.try_next().await? {
        context.check_cancelled()?;
        let places = KeyTime::of(table, &batch)?;
        let values = Values::of(column.name(), rollup::column(&batch, column.name())?)?;
        for row in 0..batch.num_rows() {
            let Some(bound) = values.get(row).filter(|bound| bound.is_finite()) else { continue };
            let time_us = places.times.value(row);
            let known = bounds.entry(places.key(row)).or_insert((time_us, bound));
            if time_us >= known.0 {
                *known = (time_us, bound);
            }
        }
    }
    let without: Vec<&Key> = scope.keys.iter().filter(|key| !bounds.contains_key(key)).collect();
    let notice = (!without.is_empty()).then(|| {
        let named: Vec<String> = without.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        let more = if without.len() > named.len() { format!(" and {} more", without.len() - named.len()) } else { String::new() };
        format!("table `{}` has no `{}` for {}{more}, so their values are not judged by it", table.name, column.name(), named.join(", "))
    });
    Ok((bounds.into_iter().map(|(key, (_, bound))| (key, bound)).collect(), notice))
}

fn listed(key: &[String]) -> String {
    if key.is_empty() { "of no column".to_owned() } else { key.join(", ") }
}
