//! The detector `sql`: the rows of a user's query are the defects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::builtin::detect::expected::{Examined, GapsConfig, always, blind_if_missing, interval_of};
use crate::builtin::detect::gaps::examined;
use crate::builtin::sql::{self, Places};
use crate::error::{Error, Result};
use crate::lake::overlay::fingerprint::{Hashing, RowHash, RowHashes, of_hashes};
use crate::lake::overlay::live::LiveRepairs;
use crate::lake::shape::KeyTime;
use crate::lake::{Layer, ScanRequest, overlay, shape};
use crate::model::{
    BadCells, Cells, DefectKind, ExpectedKeys, Findings, Fingerprints, GapList, Key, KeysFrom, MAX_EXAMPLES, Rows, Seen, SlotRange, Table,
};
use crate::plugin::{Detector, PluginKind, QueryRows, Registry, StepContext, UserQuery};

const NAME: &str = "sql";

/// How many defects one query may find.
const MOST_DEFECTS: usize = 5_000_000;

/// The columns of a result that are about a defect and not about its slot.
const KIND: &str = "kind";
const COLUMN: &str = "column";
const REASON: &str = "reason";

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlConfig {
    /// The table to examine.
    #[schemars(extend("x-names" = "table"))]
    table: String,
    /// The query, in the lake's own dialect. Each of its rows is a defect: the table's key columns and its time column say where. More columns may
    /// follow: `column`, the only column of the row that is wrong; `reason`, why, for reports; `kind`, which is compared with `kind` here. Every table has
    /// its own name, and its repaired view has that name with `_repaired`.
    query: String,
    /// What is wrong: `invalid`, the rows that the query names, or `missing`, rows that should be there and are not; default `invalid`.
    #[serde(default)]
    kind: Kind,
    /// Values that the query may name, as `:name`, beside `:from`, `:to`, `:now` and the parameters of the run.
    #[serde(default)]
    values: BTreeMap<String, Value>,
    /// The first date or instant to examine, or one relative to the run's now.
    from: String,
    /// The last date (included) or the instant at which to stop, or one relative to the run's now.
    to: String,
    /// The calendar that says which slots are expected; default `always`.
    #[serde(default = "always")]
    #[schemars(extend("x-names" = "calendar"))]
    calendar: String,
    /// The keys to examine, if the table does not say which.
    #[serde(default)]
    keys: Option<ExpectedKeys>,
    /// Another table that lists the keys: a short form of `keys`.
    #[serde(default)]
    keys_from: Option<KeysFrom>,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    allow_empty: bool,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Rows that should be there and are not.
    Missing,
    /// Rows, or cells of rows.
    #[default]
    Invalid,
}

impl Kind {
    fn defect(self) -> DefectKind {
        match self {
            Self::Missing => DefectKind::Missing,
            Self::Invalid => DefectKind::Invalid,
        }
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.detector(NAME, "finds the slots of a series that a query names", |config: SqlConfig| {
        let SqlConfig { table, query, kind, values, from, to, calendar, keys, keys_from, allow_empty } = config;
        sql::check(&query, &[], &values)?;
        let series = GapsConfig { table, from, to, calendar, keys, keys_from, allow_empty };
        series.check()?;
        Ok(Sql { series, query, kind, values })
    });
    registry.fits(PluginKind::Detector, NAME, |with, table| match (with.get("kind").and_then(Value::as_str), table.rows) {
        (None | Some("invalid"), Rows::Many) => table.check_one_row("`sql` that finds invalid rows"),
        _ => Ok(()),
    });
}

/// The detector `sql`.
struct Sql {
    series: GapsConfig,
    query: String,
    kind: Kind,
    values: BTreeMap<String, Value>,
}

/// What a query says of a slot.
#[derive(Debug, Default)]
struct Defect {
    /// The columns that are wrong; none if the whole row is.
    columns: BTreeSet<String>,
    is_whole: bool,
    reason: Option<String>,
}

type Defects = BTreeMap<Key, BTreeMap<i64, Defect>>;

#[async_trait]
impl Detector for Sql {
    fn query(&self) -> Option<UserQuery<'_>> {
        Some(UserQuery { sql: &self.query, lake: None, values: &self.values, has_interval: true, relations: &[], rows: QueryRows::Slots })
    }

    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let asked = match again {
            Some(before) => before.scope.clone(),
            None => self.series.scope(context).await?,
        };
        let base = examined(context, &asked, again, self.series.allow_empty).await?;
        let examined = Examined::of(context, &asked, again)?;
        if examined.is_empty() {
            return Ok(Findings { kind: self.kind.defect(), ..base });
        }
        let defects = self.defects(context, &base, &examined, again.is_none()).await?;
        match self.kind {
            Kind::Missing => Ok(missing(base, defects)),
            Kind::Invalid => self.invalid(context, base, defects).await,
        }
    }
}

impl Sql {
    /// What the query says of the slots that are examined. A first look refuses rows about anything else, and counts those about slots that nobody
    /// expects.
    async fn defects(
        &self,
        context: &StepContext,
        base: &Findings,
        examined: &Examined<'_>,
        is_first: bool,
    ) -> Result<(Defects, Vec<String>)> {
        let scope = &base.scope;
        let table = context.table(&scope.table)?;
        let keys: BTreeSet<&Key> = scope.keys.iter().collect();
        let slots = scope.slots();
        let values = sql::values(context, Some(&scope.interval), &self.values);
        let mut rows = sql::ask(context, &self.query, values, BTreeMap::new()).await.map_err(blind_if_missing)?;
        let (mut defects, mut count, mut unexpected) = (Defects::new(), 0, 0);
        while let Some(batch) = rows.try_next().await? {
            context.check_cancelled()?;
            count += batch.num_rows();
            if count > MOST_DEFECTS {
                return Err(Error::invalid(format!(
                    "the query gives more than {MOST_DEFECTS} rows, each a defect; select less, or examine a shorter interval"
                )));
            }
            let Places { rows, places } = Places::of(table, scope.grid, &batch)?;
            let of_defects = [KIND, COLUMN, REASON].map(|name| text_column(table, &rows, name)).into_iter().collect::<Result<Vec<_>>>()?;
            let [kinds, columns, reasons] = of_defects.as_slice() else { continue };
            for (row, (key, slot)) in places.into_iter().enumerate() {
                let said = |column: &Option<StringArray>| {
                    column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned())
                };
                let time = scope.grid.time_of(slot);
                if let Some(kind) = said(kinds).filter(|kind| kind != self.kind.defect().as_str()) {
                    return Err(Error::invalid(format!(
                        "the query says that {key} at {time} is `{kind}`, and this step finds what is `{}`; select only this, and let another step find \
                         the rest",
                        self.kind.defect().as_str()
                    )));
                }
                if !keys.contains(&key) || !examined.contains(&key, slot) {
                    let what = match () {
                        () if !is_first => continue,
                        () if !keys.contains(&key) => {
                            "which is none of the keys that the step examines; leave it out by `WHERE`, or add it under `keys`"
                        }
                        () if !slots.contains(slot) => {
                            "which is outside the interval that the step examines; write `WHERE ts >= :from AND ts < :to`"
                        }
                        () => {
                            unexpected += 1;
                            continue;
                        }
                    };
                    return Err(Error::invalid(format!("the query names {key} at {time}, {what}")));
                }
                let defect = defects.entry(key).or_default().entry(slot).or_default();
                match said(columns) {
                    Some(column) => drop(defect.columns.insert(column)),
                    None => defect.is_whole = true,
                }
                defect.reason = defect.reason.take().or_else(|| said(reasons));
            }
        }
        let notices = (unexpected > 0).then(|| {
            format!("{unexpected} rows of the query name slots of table `{}` that are not expected; they are left out", table.name)
        });
        Ok((defects, notices.into_iter().collect()))
    }

    /// The rows, or the cells of rows, that the query names. What a repair already replaces or changes is no longer wrong, unless the query looks at
    /// the repaired view.
    async fn invalid(&self, context: &StepContext, base: Findings, (defects, notices): (Defects, Vec<String>)) -> Result<Findings> {
        let mut found =
            Findings { kind: DefectKind::Invalid, gaps: GapList::default(), notices: [base.notices.clone(), notices].concat(), ..base };
        found.counts.gaps = 0;
        let slots = || defects.values().flat_map(BTreeMap::keys).copied();
        let (Some(first), Some(last)) = (slots().min(), slots().max()) else { return Ok(found) };
        let table = context.table(&found.scope.table)?;
        let grid = found.scope.grid;
        let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
        let mut columns: BTreeMap<&String, String> = BTreeMap::new();
        for name in defects.values().flat_map(BTreeMap::values).flat_map(|defect| &defect.columns) {
            if !columns.contains_key(name) {
                columns.insert(name, column_of(table, &schema, name)?);
            }
        }
        let all: Vec<String> = columns.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let has_whole = defects.values().flat_map(BTreeMap::values).any(|defect| defect.is_whole);
        let sees_repairs = self.query.to_lowercase().contains(&overlay::repaired_view(&table.name).to_lowercase());
        let keys: Vec<Key> = defects.keys().cloned().collect();
        let interval = interval_of(&found.scope, SlotRange::new(first, last + 1))?;
        let live = LiveRepairs::read(context.lake.as_ref(), table, interval, &keys, &all).await?;
        let request = ScanRequest::new(Layer::Raw).in_interval(interval).of_keys(keys).with_columns((!has_whole).then(|| all.clone()));
        let mut rows = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
        let mut hashing = Hashing::default();
        // The hashes of the wrong cells of each row, and the cells that a repair changes.
        let mut of_cells: BTreeMap<(Key, i64), (Vec<RowHash>, BTreeSet<String>)> = BTreeMap::new();
        while let Some(batch) = rows.try_next().await? {
            context.check_cancelled()?;
            found.usage.rows_read += batch.num_rows() as u64;
            let of = |key: &Key, slot: i64| defects.get(key).and_then(|of_key| of_key.get(&slot));
            hashing.add(table, grid, &batch, |key, slot| of(key, slot).is_some())?;
            let slot_of = |time_us: i64| grid.slot_of_row(time_us);
            let patched = live.patches().apply(table, &batch, |time_us| grid.slot_of_us(time_us), |time_us| slot_of(time_us).is_some())?;
            let places = KeyTime::of(table, &batch)?;
            for run in places.runs() {
                let key = places.key(run.start);
                for row in run {
                    let Some(slot) = slot_of(places.times.value(row)) else { continue };
                    let Some(defect) = of(&key, slot).filter(|defect| !defect.is_whole) else { continue };
                    let fixed = patched.as_ref().and_then(|patched| patched.cells.get(&row)).filter(|_| !sees_repairs);
                    let fixed: BTreeSet<String> = fixed.into_iter().flatten().map(|cell| cell.0.to_string()).collect();
                    let names: Vec<String> =
                        defect.columns.iter().filter_map(|name| columns.get(name)).filter(|name| !fixed.contains(*name)).cloned().collect();
                    let entry = of_cells.entry((key.clone(), slot)).or_default();
                    entry.0.push(RowHashes::of_cells(&batch, &names)?.of_row(row)?);
                    entry.1.extend(fixed);
                }
            }
        }
        let mut replaced: Vec<(Key, i64)> = Vec::new();
        let (mut judged, mut cells, mut without_row) = (Fingerprints::default(), Cells::default(), 0);
        for (key, of_key) in &defects {
            for (&slot, defect) in of_key {
                let fingerprint = hashing.fingerprint(key, slot);
                let replacing = live.get(key, slot).filter(|live| live.replaces);
                if let Some(live) = replacing.filter(|live| !sees_repairs && live.replaced == Some(fingerprint)) {
                    found.counts.replaced += u64::from(!live.removes);
                    replaced.extend((!live.removes).then(|| (key.clone(), slot)));
                    continue;
                }
                if hashing.rows(key, slot) == 0 {
                    without_row += 1;
                    continue;
                }
                let place = of_cells.get_mut(&(key.clone(), slot));
                match place.filter(|_| replacing.is_none()) {
                    Some((hashes, fixed)) => {
                        let wrong =
                            defect.columns.iter().filter_map(|name| columns.get(name)).filter(|name| !fixed.contains(*name)).cloned();
                        let wrong: BTreeSet<String> = wrong.collect();
                        if wrong.is_empty() {
                            found.counts.patched += 1;
                            replaced.push((key.clone(), slot));
                            continue;
                        }
                        let columns: Arc<[String]> = wrong.into_iter().collect();
                        cells.insert(key, slot, BadCells { columns, judged: of_hashes(hashes) });
                    }
                    None => judged.insert(key, slot, fingerprint),
                }
                found.counts.changed += u64::from(replacing.is_some());
                found.gaps.push(key, SlotRange::new(slot, slot + 1));
                if found.examples.len() < MAX_EXAMPLES {
                    let reason = defect.reason.as_deref().unwrap_or("the query names it");
                    found.examples.push(format!("{key} at {}: {reason}", grid.time_of(slot)));
                }
            }
        }
        if without_row > 0 {
            found
                .notices
                .push(format!("{without_row} rows of the query name slots in which table `{}` has no row; they are left out", table.name));
        }
        (found.counts.defective, found.counts.cells, found.counts.gaps) = (found.gaps.missing(), cells.len(), found.gaps.len() as u64);
        // If the query sees repairs, it names no slot that one has put right.
        let seen = Some(Seen { replaced: GapList::of_slots(replaced), ..Seen::default() });
        Ok(Findings { judged, cells, seen, hold_until: None, ..found })
    }
}

/// The slots that the query names and that hold no row. Nothing else is expected and missing.
fn missing(base: Findings, (defects, mut notices): (Defects, Vec<String>)) -> Findings {
    let mut gaps = GapList::default();
    let mut there = 0;
    for (key, of_key) in &defects {
        for &slot in of_key.keys() {
            if base.gaps.contains(key, slot) {
                gaps.push(key, SlotRange::new(slot, slot + 1));
            } else {
                there += 1;
            }
        }
    }
    if there > 0 {
        notices.push(format!("{there} rows of the query name slots that hold a row or are confirmed absent; they are not missing"));
    }
    let mut counts = base.counts;
    counts.expected = counts.expected.saturating_sub(counts.missing) + gaps.missing();
    (counts.missing, counts.gaps) = (gaps.missing(), gaps.len() as u64);
    // Which slots it would have named otherwise is not known.
    Findings { counts, gaps, seen: None, notices: [base.notices.clone(), notices].concat(), hold_until: None, ..base }
}

/// A column of a result as text, unless it is one of the table's own, by which a row is found.
fn text_column(table: &Table, rows: &arrow::array::RecordBatch, name: &str) -> Result<Option<StringArray>> {
    let is_place = table.time == name || table.key.iter().any(|key| key == name);
    let Some(column) = rows.column_by_name(name).filter(|_| !is_place) else { return Ok(None) };
    let text = cast(column, &DataType::Utf8)?;
    Ok(text.as_any().downcast_ref::<StringArray>().cloned())
}

/// A column of the table by the name that a query gives it.
fn column_of(table: &Table, schema: &arrow::datatypes::Schema, name: &str) -> Result<String> {
    let field = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?.ok_or_else(|| {
        Error::invalid(format!(
            "the query says that column `{name}` is wrong, and table `{}` has none; {}",
            table.name,
            shape::names(schema)
        ))
    })?;
    if *field.name() == table.time || table.key.contains(field.name()) {
        return Err(Error::invalid(format!(
            "the query says that column `{name}` is wrong, by which rows of table `{}` are identified, so it cannot be repaired",
            table.name
        )));
    }
    Ok(field.name().clone())
}
