//! The repairer `keep`: keeps one of several rows of a slot.
//!
//! Identical rows need no choice. If rows differ and the rule does not single one out (two have the earliest time, or the same largest
//! value), none is kept, because a guess would be an invention. That is reported as a conflict, and the slot stays a duplicate.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::compute::{SortOptions, cast, concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

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
    /// The latest version: the row with the largest value in this column, which is a time, a number or text. If several have it, those in the next
    /// column decide.
    #[serde(rename = "latest_by")]
    LatestBy(Columns),
}

/// One column or several, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns(Vec<String>);

/// The most columns that decide between versions.
const MOST_COLUMNS: usize = 4;

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column, or a list of columns")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Columns, E> {
        Ok(Columns(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Columns, A::Error> {
        let mut columns: Vec<String> = Vec::new();
        while let Some(text) = texts.next_element::<String>()? {
            if columns.contains(&text) {
                return Err(serde::de::Error::custom(format!("column `{text}` is listed twice")));
            }
            columns.push(text);
        }
        if columns.is_empty() || columns.len() > MOST_COLUMNS {
            return Err(serde::de::Error::custom(format!("list one column or several, up to {MOST_COLUMNS}")));
        }
        Ok(Columns(columns))
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Columns".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A column, or several of which the next decides where the one before is equal",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MOST_COLUMNS }]
        })
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer("keep", "keeps one of several rows of a slot", |config: KeepConfig| Ok(Keep { rule: config.keep }));
}

/// The repairer `keep`.
struct Keep {
    rule: Rule,
}

/// A row of a slot: its index, its hash, and what the rule compares.
struct Row {
    row: u32,
    hash: RowHash,
    time_us: i64,
    /// The larger one is kept.
    value: Option<OwnedRow>,
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
            Rule::Min(column) => Some(ranks(table, rows, std::slice::from_ref(column), true)?),
            Rule::Max(column) => Some(ranks(table, rows, std::slice::from_ref(column), false)?),
            Rule::LatestBy(columns) => Some(ranks(table, rows, &columns.0, false)?),
        };
        let mut by_slot: BTreeMap<(Key, i64), Vec<Row>> = BTreeMap::new();
        for (row, number) in (0..rows.num_rows()).zip(0u32..) {
            let (key, time_us) = (places.key(row), places.times.value(row));
            let Some(slot) = findings.scope.grid.slot_of_row(time_us) else { continue };
            if wanted.get(&key).is_some_and(|ranges| ranges.iter().any(|range| range.contains(slot))) {
                let value = values.as_ref().map(|values| values.row(row).owned());
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
            Rule::Min(_) | Rule::Max(_) | Rule::LatestBy(_) => one.value.cmp(&other.value),
        };
        let best = rows.iter().max_by(|one, other| compare(one, other))?;
        let is_single = rows.iter().all(|row| row.hash == best.hash || compare(row, best) == Ordering::Less);
        is_single.then_some(best.row)
    }
}

/// What rows are compared by: the values of some columns, of which the first counts most. A null ranks below everything, so that any value is
/// preferred.
fn ranks(table: &Table, rows: &RecordBatch, columns: &[String], descending: bool) -> Result<arrow::row::Rows> {
    let options = SortOptions { descending, nulls_first: true };
    let values = columns.iter().map(|column| comparable(table, rows, column)).collect::<Result<Vec<_>>>()?;
    let fields = values.iter().map(|values| SortField::new_with_options(values.data_type().clone(), options)).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&values)?)
}

/// A column in a form that compares as people mean it: text that holds times or numbers as these.
fn comparable(table: &Table, rows: &RecordBatch, column: &str) -> Result<ArrayRef> {
    let values: Option<&ArrayRef> = shape::find_column(rows, column).map_err(|error| error.on("table", &table.name))?;
    let values = values.ok_or_else(|| {
        Error::invalid(format!(
            "`keep` names column `{column}`, which table `{}` does not have; {}",
            table.name,
            shape::names(&rows.schema())
        ))
    })?;
    let kind = values.data_type();
    if kind.is_numeric() || kind.is_temporal() || matches!(kind, DataType::Boolean | DataType::Null) {
        return Ok(values.clone());
    }
    if !matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Err(Error::invalid(format!(
            "`keep` compares numbers, times and text, and column `{column}` of table `{}` is {kind}",
            table.name
        )));
    }
    let texts = cast(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let present = || texts.iter().flatten().map(str::trim).filter(|text| !text.is_empty());
    let of = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let mixed = |what: &str, other: &str| {
        Error::invalid(format!(
            "column `{column}` of table `{}` holds {what} and `{other}`, which cannot be compared; correct the value, or name it under `nulls` of the table",
            table.name
        ))
    };
    if present().any(|text| instant(text).is_some()) {
        if let Some(other) = present().find(|text| instant(text).is_none()) {
            return Err(mixed("times", other));
        }
        let nanoseconds = texts.iter().map(|text| i64::try_from(instant(&of(text)?)?.as_nanosecond()).ok());
        return Ok(Arc::new(nanoseconds.collect::<TimestampNanosecondArray>()));
    }
    if present().any(|text| text.parse::<f64>().is_ok()) {
        if let Some(other) = present().find(|text| text.parse::<f64>().is_err()) {
            return Err(mixed("numbers", other));
        }
        return Ok(Arc::new(texts.iter().map(|text| of(text)?.parse::<f64>().ok()).collect::<Float64Array>()));
    }
    Ok(Arc::new(texts.iter().map(of).collect::<arrow::array::StringArray>()))
}

/// The instant of a text: one with a zone, or a date with or without a time of day, which counts as UTC.
fn instant(text: &str) -> Option<Timestamp> {
    let local = || text.parse::<DateTime>().ok().and_then(|local| TimeZone::UTC.to_timestamp(local).ok());
    let is_date = text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-');
    is_date.then(|| text.parse::<Timestamp>().ok().or_else(local)).flatten()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Last => f.write_str("last"),
            Self::Min(column) => write!(f, "{{ min: {column} }}"),
            Self::Max(column) => write!(f, "{{ max: {column} }}"),
            Self::LatestBy(columns) => write!(f, "{{ latest_by: {} }}", columns.0.join(", ")),
        }
    }
}
