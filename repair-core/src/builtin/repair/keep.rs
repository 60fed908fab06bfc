//! The repairer `keep`: keeps one of several rows of a slot, or their mean.
//!
//! Identical rows need no choice. If rows differ and the rule does not single one out (two have the earliest time, or the same largest
//! value), none is kept, because a guess would be an invention. That is reported as a conflict, and the slot stays a duplicate. The same holds
//! for a mean if rows differ in a column that has none, such as text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, RecordBatch, TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::{SortOptions, cast, concat_batches, take_record_batch};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, UInt64Type};
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
use crate::builtin::repair::mean::{Mean, mean};
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::RowHashes;
use crate::lake::overlay::versions::{self, LOOKBACKS};
use crate::lake::shape::{self, KeyTime};
use crate::lake::{FILE, Layer, ScanRequest};
use crate::model::Usage;
use crate::model::{DefectKind, Findings, Fix, Interval, Key, Rows, SlotRange, Table, Unit, Wanted};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

/// The source of its rows.
const NAME: &str = "keep";

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepConfig {
    /// Which row of a slot to keep, or which version of a row. In a table with a `version`, by default the latest.
    #[serde(default)]
    pub keep: Option<Rule>,
}

/// Which row of a slot to keep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rule {
    /// The row with the earliest time within the slot.
    First,
    /// The row with the latest time within the slot.
    Last,
    /// The row of the file that comes first; only on a lake that knows files, and in their order: by the names of folders and files.
    #[serde(rename = "first_file")]
    FirstFile,
    /// The row of the file that comes last; only on a lake that knows files, and in their order: by the names of folders and files.
    #[serde(rename = "last_file")]
    LastFile,
    /// A row of means: of each column of numbers, the mean of its values. Any other column must have the same value in all rows.
    Mean,
    /// The row with the smallest value in this column; a row without a value is kept only if none has one.
    Min(String),
    /// The row with the largest value in this column; a row without a value is kept only if none has one.
    Max(String),
    /// The latest version: the row with the largest value in this column, which is a time or a number, also as text. If several have it, those in
    /// the next column decide. Other text has no order, and is refused.
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
    registry.repairer(
        "keep",
        "keeps one of several rows of a slot, or of several versions of a row, or their mean",
        |config: KeepConfig| Ok(Keep { rule: config.keep }),
    );
    registry.needs_one_row(PluginKind::Repairer, "keep");
    registry.takes_unique_rows(PluginKind::Repairer, "keep");
    registry.repairs_only("keep", &[DefectKind::Duplicate]);
    registry.fits(
        PluginKind::Repairer,
        "keep",
        |with, table| if with.get("keep").is_some() { Ok(()) } else { by_version(table).map(|_| ()) },
    );
}

/// The repairer `keep`.
struct Keep {
    /// `None` for the latest version.
    rule: Option<Rule>,
}

/// The rule that a table says: the latest version is kept.
fn by_version(table: &Table) -> Result<Rule> {
    if !table.version.is_empty() {
        return Ok(Rule::LatestBy(Columns(table.version.clone())));
    }
    let or = if table.rows == Rows::Unique { ", or name the columns under `version` of the table" } else { "" };
    Err(Error::invalid(format!(
        "`keep` is not said which of several rows of table `{}` to keep; write e.g. `with: {{ keep: {{ latest_by: updated_at }} }}`{or}",
        table.name
    )))
}

/// How many keys a unit has in a table whose key identifies a row, so that their versions stay within some hundred megabytes.
const KEYS_PER_UNIT: usize = 10_000;

/// Units of some keys each, over the whole interval: the versions of a row lie around it, so a unit of each day would read the same files again.
pub(super) fn units_of_keys(findings: &Findings) -> PlannedUnits {
    let grid = findings.scope.grid;
    let mut wanted: Vec<Wanted> = Vec::new();
    for (key, slots) in findings.gaps.iter() {
        match wanted.last_mut().filter(|last| last.key == *key) {
            Some(last) => last.slots.push(slots),
            None => wanted.push(Wanted { key: key.clone(), slots: vec![slots] }),
        }
    }
    let unit = move |wanted: &[Wanted]| {
        let slots = || wanted.iter().flat_map(|wanted| &wanted.slots);
        let hull = slots().map(|slots| slots.first).min().zip(slots().map(|slots| slots.end).max());
        let interval = hull.and_then(|(first, end)| grid.interval_of(SlotRange::new(first, end)));
        let interval = interval.ok_or_else(|| Error::invalid("the time of a row is out of range"))?;
        Ok(Unit { interval, wanted: wanted.to_vec() })
    };
    let units: Vec<Result<Unit>> = wanted.chunks(KEYS_PER_UNIT).map(unit).collect();
    Box::new(units.into_iter())
}

/// A row of a slot: its index, and what the rule compares.
struct Row {
    row: u32,
    time_us: i64,
    /// The number of its file, if files decide.
    file: u64,
    /// The larger one is kept.
    value: Option<OwnedRow>,
}

#[async_trait]
impl Repairer for Keep {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        if findings.kind != DefectKind::Duplicate {
            let what = findings.kind.as_str();
            return Err(Error::invalid(format!(
                "`keep` repairs duplicate slots, and these findings are {what} slots; use another repairer"
            )));
        }
        let table = context.table(&findings.scope.table)?;
        let rule = self.rule_for(table)?;
        if rule.is_of_files() {
            // A lake that does not know files refuses before any unit begins, and before it reads anything.
            let nothing = ScanRequest { keys: Some(Vec::new()), ..rule.request(findings.scope.interval, Vec::new()) };
            drop(context.lake.scan(table, &nothing).await.map_err(|error| rule.named(error))?);
        }
        if table.rows == Rows::Unique {
            return Ok(units_of_keys(findings));
        }
        Ok(by_day::units(findings.scope.grid, findings.gaps.iter()))
    }

    fn needs_files(&self, table: &Table) -> bool {
        self.rule_for(table).is_ok_and(|rule| rule.is_of_files())
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        let table = context.table(&findings.scope.table)?;
        let (rule, identity) = (self.rule_for(table)?, table.identity());
        let keys: Vec<Key> = unit.wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let request = rule.request(identity.widened(&unit.interval, LOOKBACKS), keys);
        let batches = context.lake.scan(table, &request).await.map_err(|error| rule.named(error))?;
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let Some(first) = batches.first() else { return Ok(fix) };
        let (rows, files) = apart(&concat_batches(first.schema_ref(), &batches)?)?;
        fix.usage = Usage { rows_read: rows.num_rows() as u64, ..Usage::default() };
        if rule.is_of_files() && files.is_none() {
            return Err(Error::internal("the lake did not say which files rows are in"));
        }
        let values = RowHashes::of(table, &rows)?;
        let (mut kept, mut means) = (Vec::new(), Vec::new());
        for ((key, slot), of_slot) in rule.rows_of_slots(table, findings, unit, &rows, files.as_ref())? {
            let time = findings.scope.grid.time_of(slot);
            let times_us: Vec<i64> = of_slot.iter().map(|row| row.time_us).collect();
            if !versions::are_near(&times_us, identity) && identity.lookback_us().is_some() {
                fix.conflicts.add(format!(
                    "{key} at {time}: its {} versions lie further apart than the `lookback` of the table; enlarge it if they are one row",
                    of_slot.len()
                ));
                continue;
            }
            match rule.choice(&of_slot, &values)? {
                Some(row) => kept.push(row),
                None if rule == Rule::Mean => {
                    let of_slot = UInt32Array::from_iter_values(of_slot.iter().map(|row| row.row));
                    match mean_row(table, &take_record_batch(&rows, &of_slot)?, time)? {
                        Ok(mean) => means.push(mean),
                        Err(why) => fix.conflicts.add(format!("{key} at {time}: {why}")),
                    }
                }
                None => {
                    let count = of_slot.len();
                    fix.conflicts.add(format!("{key} at {time}: `keep: {rule}` does not single out one of {count} rows"));
                }
            }
        }
        if !kept.is_empty() {
            fix.rows.push(take_record_batch(&rows, &UInt32Array::from(kept))?);
        }
        if !means.is_empty() {
            fix.rows.push(concat_batches(&rows.schema(), &means)?);
        }
        Ok(fix)
    }
}

impl Keep {
    fn rule_for(&self, table: &Table) -> Result<Rule> {
        self.rule.clone().map_or_else(|| by_version(table), Ok)
    }
}

impl Rule {
    fn request(&self, interval: Interval, keys: Vec<Key>) -> ScanRequest {
        ScanRequest { files: self.is_of_files(), ..ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys) }
    }

    /// An error of a scan that may be about the rule.
    fn named(&self, error: Error) -> Error {
        if self.is_of_files() { error.on("`keep`", self.to_string()) } else { error }
    }

    fn rows_of_slots(
        &self,
        table: &Table,
        findings: &Findings,
        unit: &Unit,
        rows: &RecordBatch,
        files: Option<&UInt64Array>,
    ) -> Result<BTreeMap<(Key, i64), Vec<Row>>> {
        let wanted: BTreeMap<&Key, &[SlotRange]> = unit.wanted.iter().map(|wanted| (&wanted.key, wanted.slots.as_slice())).collect();
        let places = KeyTime::of(table, rows)?;
        let values = match self {
            Rule::First | Rule::Last | Rule::FirstFile | Rule::LastFile | Rule::Mean => None,
            Rule::Min(column) => Some(ranks(table, rows, std::slice::from_ref(column), true)?),
            Rule::Max(column) => Some(ranks(table, rows, std::slice::from_ref(column), false)?),
            Rule::LatestBy(columns) => Some(ranks(table, rows, &columns.0, false)?),
        };
        let identity = table.identity();
        let by_key = identity.lookback_us().is_some();
        let mut by_slot: BTreeMap<(Key, i64), Vec<Row>> = BTreeMap::new();
        for (row, number) in (0..rows.num_rows()).zip(0u32..) {
            let (key, time_us) = (places.key(row), places.times.value(row));
            let Some(slot) = findings.scope.grid.slot_of_row(time_us) else { continue };
            let is_wanted = wanted.get(&key).is_some_and(|ranges| by_key || ranges.iter().any(|range| range.contains(slot)));
            if is_wanted {
                let value = values.as_ref().map(|values| values.row(row).owned());
                let file = files.map_or(0, |files| files.value(row));
                let row = Row { row: number, time_us, file, value };
                by_slot.entry((key, if by_key { 0 } else { slot })).or_default().push(row);
            }
        }
        if !by_key {
            return Ok(by_slot);
        }
        // All rows of each key, of which the versions of a row that was found lie together.
        let mut by_found: BTreeMap<(Key, i64), Vec<Row>> = BTreeMap::new();
        for ((key, _), mut of_key) in by_slot {
            of_key.sort_by_key(|row| row.time_us);
            let times_us: Vec<i64> = of_key.iter().map(|row| row.time_us).collect();
            let found: Vec<i64> = wanted.get(&key).into_iter().copied().flatten().flat_map(|range| range.first..range.end).collect();
            let mut rest = of_key.into_iter();
            for together in versions::stretches(&times_us, identity) {
                let is_same = |slot: &&i64| times_us[together.clone()].iter().any(|time_us| identity.are_same_slots(*time_us, **slot));
                let versions: Vec<Row> = rest.by_ref().take(together.len()).collect();
                if let Some(slot) = found.iter().find(is_same) {
                    by_found.insert((key.clone(), *slot), versions);
                }
            }
        }
        Ok(by_found)
    }

    /// The row to keep; `None` if the rule does not single one out.
    fn choice(&self, rows: &[Row], values: &RowHashes<'_>) -> Result<Option<u32>> {
        let compare = |one: &Row, other: &Row| match self {
            Rule::First => other.time_us.cmp(&one.time_us),
            Rule::Last => one.time_us.cmp(&other.time_us),
            Rule::FirstFile => other.file.cmp(&one.file),
            Rule::LastFile => one.file.cmp(&other.file),
            Rule::Mean => Ordering::Equal,
            Rule::Min(_) | Rule::Max(_) | Rule::LatestBy(_) => one.value.cmp(&other.value),
        };
        let Some(best) = rows.iter().max_by(|one, other| compare(one, other)) else { return Ok(None) };
        for row in rows.iter().filter(|row| row.row != best.row && compare(row, best) != Ordering::Less) {
            if !values.are_equal(row.row as usize, best.row as usize)? {
                return Ok(None);
            }
        }
        Ok(Some(best.row))
    }
}

/// The rows as the table has them, and the numbers of their files, if these came.
fn apart(rows: &RecordBatch) -> Result<(RecordBatch, Option<UInt64Array>)> {
    let Ok(at) = rows.schema_ref().index_of(FILE) else { return Ok((rows.clone(), None)) };
    let files = rows.column(at).as_primitive_opt::<UInt64Type>();
    let files = files.ok_or_else(|| Error::internal("the numbers of files are not numbers"))?.clone();
    let own: Vec<usize> = (0..rows.num_columns()).filter(|column| *column != at).collect();
    Ok((rows.project(&own)?, Some(files)))
}

/// The mean of the rows of a slot, or why there is none. Its time is that of the rows, or of the slot if they differ.
fn mean_row(table: &Table, rows: &RecordBatch, slot: Timestamp) -> Result<Result<RecordBatch, String>> {
    let schema = rows.schema();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        columns.push(match mean(column)? {
            Mean::Of(value) => value,
            Mean::None if *field.name() == table.time => {
                let slot = TimestampMicrosecondArray::from(vec![slot.as_microsecond()]);
                cast(&(Arc::new(slot.with_timezone("UTC")) as ArrayRef), column.data_type())?
            }
            Mean::None => return Ok(Err(format!("its {} rows differ in column `{}`, which has no mean", rows.num_rows(), field.name()))),
        });
    }
    Ok(Ok(RecordBatch::try_new(schema, columns)?))
}

/// What rows are compared by: the values of some columns, of which the first counts most. A null ranks below everything, so that any value is
/// preferred.
pub(in crate::builtin) fn ranks(table: &Table, rows: &RecordBatch, columns: &[String], descending: bool) -> Result<arrow::row::Rows> {
    let options = SortOptions { descending, nulls_first: true };
    let values = columns.iter().map(|column| comparable(table, rows, column)).collect::<Result<Vec<_>>>()?;
    let fields = values.iter().map(|values| SortField::new_with_options(values.data_type().clone(), options)).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&values)?)
}

/// Whole numbers of up to 38 digits are below it.
const MOST_WHOLE: u128 = 10u128.pow(38);

/// A column in a form that compares as people mean it: text that holds times or numbers as these. Other text is refused, unless it is the same in
/// all rows.
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
        let whole = |text: Option<&str>| match of(text) {
            Some(text) => text.parse::<i128>().ok().filter(|whole| whole.unsigned_abs() < MOST_WHOLE).map(Some),
            None => Some(None),
        };
        if let Some(all) = texts.iter().map(whole).collect::<Option<Vec<_>>>() {
            // Of large ones, several are nearest to one float.
            return Ok(Arc::new(Decimal128Array::from(all).with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?));
        }
        return Ok(Arc::new(texts.iter().map(|text| of(text)?.parse::<f64>().ok()).collect::<Float64Array>()));
    }
    // Of other text, nothing says which is larger: as text, `v9` is above `v10`, and `12/31/2023` above `01/02/2024`.
    if let Some(one) = present().next()
        && let Some(other) = present().find(|other| *other != one)
    {
        return Err(Error::invalid(format!(
            "column `{column}` of table `{}` holds `{one}` and `{other}`, which are neither times as in ISO 8601 nor numbers, so nothing says which \
             is the larger one; name a column of times or numbers, or write the values as such, e.g. 2024-03-04T14:30:00Z",
            table.name
        )));
    }
    Ok(Arc::new(texts.iter().map(of).collect::<arrow::array::StringArray>()))
}

/// The instant of a text: one with a zone, or a date with or without a time of day, which counts as UTC.
fn instant(text: &str) -> Option<Timestamp> {
    let local = || text.parse::<DateTime>().ok().and_then(|local| TimeZone::UTC.to_timestamp(local).ok());
    let is_date = text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-');
    is_date.then(|| text.parse::<Timestamp>().ok().or_else(local)).flatten()
}

impl Rule {
    /// Whether the files of rows decide.
    fn is_of_files(&self) -> bool {
        matches!(self, Self::FirstFile | Self::LastFile)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Last => f.write_str("last"),
            Self::FirstFile => f.write_str("first_file"),
            Self::LastFile => f.write_str("last_file"),
            Self::Mean => f.write_str("mean"),
            Self::Min(column) => write!(f, "{{ min: {column} }}"),
            Self::Max(column) => write!(f, "{{ max: {column} }}"),
            Self::LatestBy(columns) => write!(f, "{{ latest_by: {} }}", columns.0.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn numbers_in_texts_rank_by_all_their_digits() {
        for (texts, ranks_of) in [
            (["9007199254740993", "9007199254740992", "+9007199254740994"], [1, 0, 2]),
            (["10", " 9", "-1"], [2, 1, 0]),
            (["1e3", "2", "1.5"], [2, 1, 0]),
            (["9", "", "10"], [1, 0, 2]),
        ] {
            let rows = RecordBatch::try_from_iter([("v", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef)]).unwrap();
            let ranks = ranks(&Table::implicit("t", "ts"), &rows, &["v".to_owned()], false).unwrap();
            let mut order: Vec<usize> = (0..texts.len()).collect();
            order.sort_by_key(|row| ranks.row(*row));
            let place = |row: usize| order.iter().position(|at| *at == row);
            assert_eq!([place(0), place(1), place(2)], ranks_of.map(Some), "{texts:?}");
        }
    }
}
