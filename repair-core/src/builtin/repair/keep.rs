//! The repairer `keep`: keeps one of several rows of a slot.
//!
//! Identical rows need no choice. If rows differ and the rule does not single one out (two have the earliest time, or the same largest
//! value), none is kept, because a guess would be an invention. That is reported as a conflict, and the slot stays a duplicate.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::repair::by_day;
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::{RowHash, RowHashes};
use crate::lake::shape::{self, KeyTime};
use crate::lake::{Layer, ScanRequest};
use crate::model::Usage;
use crate::model::{DefectKind, Findings, Fix, Key, SlotRange, Table, Unit};
use crate::plugin::{PlannedUnits, Registry, Repairer, StepContext};

/// The source of its rows.
const NAME: &str = "keep";

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepConfig {
    /// Which row of a slot to keep.
    pub keep: Rule,
}

/// Which row of a slot to keep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rule {
    /// The row with the earliest time within the slot.
    First,
    /// The row with the latest time within the slot.
    Last,
    /// The row with the smallest value in this column; a row without a value is kept only if none has one.
    Min(String),
    /// The row with the largest value in this column; a row without a value is kept only if none has one.
    Max(String),
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer("keep", "keeps one of several rows of a slot", |config: KeepConfig| Ok(Keep { rule: config.keep }));
}

/// The repairer `keep`.
struct Keep {
    rule: Rule,
}

/// A row of a slot: its index, its hash, and the values that the rule compares.
struct Row {
    row: u32,
    hash: RowHash,
    time_us: i64,
    value: Option<f64>,
}

#[async_trait]
impl Repairer for Keep {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    async fn plan(&self, _: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        if findings.kind != DefectKind::Duplicate {
            let what = findings.kind.as_str();
            return Err(Error::invalid(format!(
                "`keep` repairs duplicate slots, and these findings are {what} slots; use another repairer"
            )));
        }
        Ok(by_day::units(findings.scope.grid, findings.gaps.iter()))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let table = context.table(&findings.scope.table)?;
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let request = ScanRequest { layer: Layer::Raw, interval: Some(unit.interval), keys: Some(keys), columns: None };
        let batches: Vec<RecordBatch> = context.lake.scan(table, &request).await?.try_collect().await?;
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let Some(first) = batches.first() else { return Ok(fix) };
        let rows = concat_batches(first.schema_ref(), &batches)?;
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        let mut kept = Vec::new();
        for ((key, slot), of_slot) in self.rows_of_slots(table, findings, unit, &rows)? {
            match self.choice(&of_slot) {
                Some(row) => kept.push(row),
                None => {
                    let (count, time) = (of_slot.len(), findings.scope.grid.time_of(slot));
                    fix.conflicts.add(format!("{key} at {time}: `keep: {}` does not single out one of {count} rows", self.rule));
                }
            }
        }
        if !kept.is_empty() {
            fix.rows.push(take_record_batch(&rows, &UInt32Array::from(kept))?);
        }
        Ok(fix)
    }
}

impl Keep {
    fn rows_of_slots(&self, table: &Table, findings: &Findings, unit: &Unit, rows: &RecordBatch) -> Result<BTreeMap<(Key, i64), Vec<Row>>> {
        let wanted: BTreeMap<&Key, &[SlotRange]> = unit.wanted.iter().map(|wanted| (&wanted.key, wanted.slots.as_slice())).collect();
        let (places, hashes) = (KeyTime::of(table, rows)?, RowHashes::of(table, rows)?);
        let values = match &self.rule {
            Rule::First | Rule::Last => None,
            Rule::Min(column) | Rule::Max(column) => Some(numbers(table, rows, column)?),
        };
        let mut by_slot: BTreeMap<(Key, i64), Vec<Row>> = BTreeMap::new();
        for (row, number) in (0..rows.num_rows()).zip(0u32..) {
            let (key, time_us) = (places.key(row), places.times.value(row));
            let Some(slot) = findings.scope.grid.slot_of_row(time_us) else { continue };
            if wanted.get(&key).is_some_and(|ranges| ranges.iter().any(|range| range.contains(slot))) {
                let value = values.as_ref().filter(|values| values.is_valid(row)).map(|values| values.value(row));
                let row = Row { row: number, hash: hashes.of_row(row)?, time_us, value };
                by_slot.entry((key, slot)).or_default().push(row);
            }
        }
        Ok(by_slot)
    }

    /// The row to keep; `None` if the rule does not single one out.
    fn choice(&self, rows: &[Row]) -> Option<u32> {
        let compare = |one: &Row, other: &Row| match &self.rule {
            Rule::First => other.time_us.cmp(&one.time_us),
            Rule::Last => one.time_us.cmp(&other.time_us),
            // A null ranks below everything, so that any value is preferred.
            Rule::Max(_) => order(one.value, other.value),
            Rule::Min(_) => order(one.value.map(|value| -value), other.value.map(|value| -value)),
        };
        let best = rows.iter().max_by(|one, other| compare(one, other))?;
        let is_single = rows.iter().all(|row| row.hash == best.hash || compare(row, best) == Ordering::Less);
        is_single.then_some(best.row)
    }
}

fn order(one: Option<f64>, other: Option<f64>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        (one, other) => one.is_some().cmp(&other.is_some()),
    }
}

fn numbers(table: &Table, rows: &RecordBatch, column: &str) -> Result<Float64Array> {
    use arrow::array::AsArray;
    let values: Option<&ArrayRef> = shape::find_column(rows, column).map_err(|error| error.on("table", &table.name))?;
    let values = values.ok_or_else(|| {
        Error::invalid(format!(
            "`keep` names column `{column}`, which table `{}` does not have; {}",
            table.name,
            shape::names(&rows.schema())
        ))
    })?;
    if !values.data_type().is_numeric() {
        return Err(Error::invalid(format!(
            "`keep` compares numbers, and column `{column}` of table `{}` is {}",
            table.name,
            values.data_type()
        )));
    }
    Ok(arrow::compute::cast(values, &DataType::Float64)?.as_primitive::<arrow::datatypes::Float64Type>().clone())
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Last => f.write_str("last"),
            Self::Min(column) => write!(f, "{{ min: {column} }}"),
            Self::Max(column) => write!(f, "{{ max: {column} }}"),
        }
    }
}
