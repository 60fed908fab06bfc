//! `invalid` of tables whose key identifies a row: judges the rows that the repaired view shows, each by itself.
//!
//! It reads only the columns that the rules name, and in full only the versions of keys whose row is wrong. It holds these keys, the repairs around
//! the interval for them, and their versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use futures::TryStreamExt;
use serde_json::Value;

use super::{Invalid, blamed, related, totals};
use crate::builtin::detect::expected::blind_if_missing;
use crate::builtin::detect::invalid::rule::{Breach, Broken, Rule};
use crate::builtin::detect::unique::{self, KEYS_AT_ONCE, replacing};
use crate::error::{Error, Result};
use crate::lake::overlay::base::{BaseRow, BaseRows};
use crate::lake::overlay::fingerprint::{RowHashes, of_hashes};
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::overlay::versions::{self, LOOKBACKS};
use crate::lake::overlay::{REPAIRED_BY, REPAIRED_CELLS};
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest, rollup};
use crate::model::{BadCells, DefectKind, Findings, Key, MAX_EXAMPLES, Rows, SlotRange, Table};
use crate::plugin::StepContext;

/// The most wrong rows of one step, so that they stay within some gigabytes. So many are no list of exceptions.
const MOST_WRONG: usize = 10_000_000;

/// Checks that a step asks of a table only what can be judged there.
///
/// # Errors
/// `invalid` with what does not fit.
pub(super) fn fits(with: &Value, table: &Table) -> Result<()> {
    unique::fits(with, table)?;
    if table.rows != Rows::Unique {
        return Ok(());
    }
    let rules = with.get("rules").and_then(Value::as_array).into_iter().flatten();
    let is_among = |rule: &Value, name: &str| match name {
        "min" | "max" => rule.get(name).is_some_and(Value::is_object),
        _ => rule.get(name).is_some(),
    };
    let names = ["outlier", "frozen", "never_falls", "jump", "min", "max"];
    match rules.flat_map(|rule| names.into_iter().filter(|name| is_among(rule, name))).next() {
        Some(name) => Err(among_neighbours(name, table)),
        None => Ok(()),
    }
}

fn among_neighbours(rule: &str, table: &Table) -> Error {
    Error::invalid(format!(
        "`{rule}` judges a row among its neighbours, and the rows of table `{}` have none, because it has `rows: unique`; judge each row by itself, with \
         `min`, `max`, `not`, `not_null`, `in`, `equals` or `holds`",
        table.name
    ))
}

/// How many rows that could not be judged are named.
const MOST_NAMED: usize = 3;

/// A row that is wrong.
struct Wrong {
    broken: Broken,
    /// Whether a repair stands there, and not the table's own row.
    is_repair: bool,
}

/// Finds the rows that break a rule.
pub(super) async fn detect(context: &StepContext, invalid: &Invalid, again: Option<&Findings>) -> Result<Findings> {
    let Invalid { series, rules } = invalid;
    let scope = match again {
        Some(before) => before.scope.clone(),
        None => unique::scope(context, series)?,
    };
    let mut found = unique::nothing(context, scope, again).await?;
    let table = context.table(&found.scope.table)?;
    if let Some(name) = rules.iter().find_map(Rule::among) {
        return Err(among_neighbours(name, table));
    }
    let interval = found.scope.interval;
    let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
    let mut of_table = rules.iter().map(|rule| rule.of_table(table, &schema)).collect::<Result<Vec<_>>>()?;
    related::read(context, &mut of_table).await?;
    totals::relate(context, table, &schema, &mut of_table).await?;
    totals::of_all(context, &mut of_table).await?;
    let columns: BTreeSet<&str> = of_table.iter().flat_map(Rule::columns).collect();
    let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
    let blamed = blamed(&of_table)?;
    let asked: Option<Vec<Key>> = again.map(|before| before.gaps.by_key().into_keys().collect());
    let request = ScanRequest::new(Layer::Repaired).in_interval(interval).of_keys(asked).with_columns(columns.clone());
    let mut shown = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
    let mut wrong: BTreeMap<Key, BTreeMap<i64, Wrong>> = BTreeMap::new();
    let (mut rows, mut count) = (0, 0);
    let mut unjudged: Vec<String> = Vec::new();
    while let Some(batch) = shown.try_next().await? {
        context.check_cancelled()?;
        rows += batch.num_rows() as u64;
        let broken = marked(&of_table, &blamed, &batch)?;
        let (by, cells) = (text(&batch, REPAIRED_BY)?, text(&batch, REPAIRED_CELLS)?);
        let places = KeyTime::of(table, &batch)?;
        for (row, broken) in broken.into_iter().enumerate() {
            let broken = held(again, &blamed, (&places, row), broken);
            if !broken.is_wrong() {
                if broken.open.is_some() {
                    found.counts.unjudged += 1;
                    if unjudged.len() < MOST_NAMED {
                        unjudged.push(places.key(row).to_string());
                    }
                }
                found.counts.replaced += u64::from(by.is_valid(row));
                found.counts.patched += u64::from(by.is_null(row) && cells.is_valid(row));
                continue;
            }
            let of_key = wrong.entry(places.key(row)).or_default();
            let time_us = places.times.value(row);
            let known = of_key.entry(time_us).or_insert(Wrong { broken, is_repair: by.is_valid(row) });
            known.broken = known.broken.or(broken);
            count += 1;
        }
        if count > MOST_WRONG {
            return Err(Error::invalid(format!(
                "more than {MOST_WRONG} rows of table `{}` break a rule in {interval}; use a shorter interval, or correct the rules",
                table.name
            )));
        }
    }
    if again.is_none() {
        totals::blind(&of_table, found.counts.unjudged)?;
    }
    found.notices.extend(totals::notice(table, &of_table, found.counts.unjudged, &unjudged));
    found.usage.rows_read += rows;
    (found.counts.expected, found.counts.present) = (rows, rows);
    found.counts.audited_keys = rows;
    let keys: Vec<Key> = wrong.keys().cloned().collect();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        context.check_cancelled()?;
        judge(context, table, (keys, &wrong), (rules, &blamed, &columns), &mut found).await?;
    }
    found.counts.defective = found.gaps.missing();
    found.counts.gaps = found.gaps.len() as u64;
    found.counts.cells = found.cells.len();
    Ok(Findings { kind: DefectKind::Invalid, ..found })
}

/// What is wrong with a row, where a rule that found it wrong before can no longer judge it: that proves nothing.
fn held(again: Option<&Findings>, blamed: &[String], (places, row): (&KeyTime<'_>, usize), mut broken: Broken) -> Broken {
    let (Some(open), Some(before)) = (broken.open, again) else { return broken };
    let (key, time_us) = (places.key(row), places.times.value(row));
    let is_blamed = |name: &String| blamed.iter().position(|blamed| blamed == name).is_some_and(|at| open.cells >> at & 1 == 1);
    let was_wrong = match before.cells.get(&key, time_us) {
        Some(cells) => cells.columns.iter().any(is_blamed),
        None => before.gaps.contains(&key, time_us),
    };
    if was_wrong {
        broken.add(open);
    }
    broken
}

/// Adds the wrong rows of some keys to the findings, once it is known which versions there are.
async fn judge(
    context: &StepContext,
    table: &Table,
    (keys, wrong): (&[Key], &BTreeMap<Key, BTreeMap<i64, Wrong>>),
    (rules, blamed, columns): (&[Rule], &[String], &[String]),
    found: &mut Findings,
) -> Result<()> {
    let identity = table.identity();
    let (lake, interval) = (context.lake.as_ref(), found.scope.interval);
    let (versions, read) = versions::read(lake, table, &interval, keys.to_vec()).await?;
    found.usage.rows_read += read;
    let live = LiveRepairs::read(lake, table, identity.widened(&interval, LOOKBACKS), keys, columns).await?;
    let base = BaseRows::read(lake, table, (interval, keys), (columns, false), |_, _| true).await?;
    for key in keys {
        let none = Vec::new();
        let of_key = versions.get(key).unwrap_or(&none);
        let mut last_whole: Option<usize> = None;
        for (&time_us, Wrong { broken, is_repair }) in wrong.get(key).into_iter().flatten() {
            let at =
                of_key.iter().position(|versions| versions.times_us().iter().any(|version| identity.are_same_slots(*version, time_us)));
            let own = at.and_then(|at| of_key.get(at));
            let is_replaced = own.is_some_and(|own| replacing(&live, key, own, identity).is_some());
            // Which of several versions counts, is for `duplicates` to find out.
            let is_whole = broken.whole || (!is_repair && !is_replaced && own.is_some_and(|own| own.len() > 1));
            if is_whole {
                if at.is_some() && last_whole == at {
                    continue;
                }
                last_whole = at;
                let fingerprint = own.map_or_else(|| of_hashes(&mut []), |own| own.fingerprint());
                found.judged.insert(key, time_us, fingerprint);
            } else {
                let names: Arc<[String]> =
                    blamed.iter().enumerate().filter(|(at, _)| broken.cells >> at & 1 == 1).map(|(_, name)| name.clone()).collect();
                let Some(BaseRow::One(batch, row)) = base.get(key, time_us) else {
                    let message = format!("table `{}` changed while it was examined; run the step again", table.name);
                    return Err(Error::new(crate::error::ErrorKind::Transient, message));
                };
                let batch = base.batches().get(batch).ok_or_else(|| Error::internal("a batch is missing"))?;
                let judged = of_hashes(&mut [RowHashes::of_cells(batch, &names)?.of_row(row)?]);
                found.cells.insert(key, time_us, BadCells { columns: names, judged });
            }
            found.gaps.push(key, SlotRange::new(time_us, time_us + 1));
            if found.examples.len() < MAX_EXAMPLES
                && let Some(rule) = broken.rule.and_then(|rule| rules.get(rule as usize))
            {
                let what = if *is_repair { "its repair" } else { "its row" };
                found.examples.push(format!("{key} at {}: {what} breaks `{rule}`", found.scope.grid.time_of(time_us)));
            }
        }
    }
    Ok(())
}

fn marked(rules: &[Rule], blamed: &[String], batch: &RecordBatch) -> Result<Vec<Broken>> {
    let bit = |name: &String| blamed.iter().position(|known| known == name).map_or(0, |at| 1u128 << at);
    let mut broken = vec![Broken::default(); batch.num_rows()];
    for (number, rule) in (0u32..).zip(rules) {
        let cells = rule.blamed().iter().map(bit).fold(0, |all, bit| all | bit);
        rule.mark(batch, Breach { rule: number, cells }, &mut broken)?;
    }
    Ok(broken)
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    rollup::column(batch, name)?
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::internal(format!("column `{name}` of a repaired view is not text")))
}
