//! The scope of a detector of series: a table, an interval, the keys that must be present, and the slots that a calendar expects.
//!
//! None of this comes from the captured data, because an outage would delete its own evidence.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Layer, ScanRequest, rollup};
use crate::model::expected_slots;
use crate::model::{Findings, GapList, Interval, Key, Scope, SlotRange, SlotSet, Table};
use crate::plugin::StepContext;

/// The maximum number of keys of one detection. Each costs at least a word per window, and a longer list is surely not a list of series.
pub(super) const MOST_KEYS: usize = 1_000_000;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapsConfig {
    /// The table to examine; it needs a `cadence`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// The start of the interval: a date (from its first instant, in the table's zone), an instant, or relative to the run's now, such as
    /// `yesterday` or `now - 7d`.
    pub from: String,
    /// The end of the interval: a date (included, in the table's zone), an instant (not included), or relative to the run's now: `today` and
    /// other days are included.
    pub to: String,
    /// The calendar that defines which slots are expected.
    #[serde(default = "always")]
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The keys that must be present: one value each, or a list of values if the table has several key columns.
    #[serde(default, deserialize_with = "some_keys")]
    pub keys: Option<Vec<Key>>,
    /// Another table that lists the keys, instead of `keys`.
    #[serde(default)]
    pub keys_from: Option<KeysFrom>,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    pub allow_empty: bool,
}

/// A table that lists keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysFrom {
    /// The table; it must not be the one that is examined.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// Its columns that hold the key, in the order of the key columns. By default, columns with the names of the key columns.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
}

/// Refuses an empty list, because a check of no keys would make the table look clean.
pub(super) fn some_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Key>>, D::Error> {
    let keys = Option::<Vec<Key>>::deserialize(deserializer)?;
    if keys.as_ref().is_some_and(Vec::is_empty) {
        let why = "`keys` is empty, so nothing would be examined; list the keys, or leave `keys` out if the table is a single series";
        return Err(serde::de::Error::custom(why));
    }
    Ok(keys)
}

pub(super) fn always() -> String {
    "24x7".to_owned()
}

impl GapsConfig {
    /// Makes the checks that need no table.
    pub(super) fn check(&self) -> Result<()> {
        Interval::check(&self.from, &self.to)?;
        if self.keys.is_some() && self.keys_from.is_some() {
            return Err(Error::invalid("`keys` and `keys_from` are both given; keep one of them"));
        }
        Ok(())
    }

    /// The scope to examine.
    pub(super) async fn scope(&self, context: &StepContext) -> Result<Scope> {
        let table = context.table(&self.table)?;
        let interval = Interval::parse_at(&self.from, &self.to, &table.day_zone(), context.now)?;
        let keys = match (&self.keys, &self.keys_from) {
            (Some(keys), _) => keys.clone(),
            (None, Some(from)) => reference_keys(context, table, from).await?,
            (None, None) if table.key.is_empty() => vec![Key::default()],
            (None, None) => {
                return Err(Error::invalid(format!(
                    "table `{}` has a series for each {}, and the step does not say which are expected; give `keys`, or `keys_from` with a table \
                     that lists them (they are not read from the table itself, because a series that never arrived would be overlooked)",
                    table.name,
                    table.key.join(", "),
                )));
            }
        };
        Ok(Scope { table: table.name.clone(), grid: table.grid()?, keys, interval, calendar: self.calendar.clone() })
    }
}

/// The distinct values of the key columns of a table that lists them.
pub(super) async fn reference_keys(context: &StepContext, table: &Table, from: &KeysFrom) -> Result<Vec<Key>> {
    let reference = context.table(&from.table)?;
    if reference.name == table.name || reference.location == table.location {
        return Err(Error::invalid(format!(
            "table `{}` cannot list its own expected keys, because a series that never arrived would be overlooked; list them in `keys` or in \
             another table",
            table.name
        )));
    }
    let columns = from.columns.as_ref().unwrap_or(&table.key);
    if columns.len() != table.key.len() {
        return Err(Error::invalid(format!(
            "`keys_from` names {} columns, but a key of table `{}` has {} ({})",
            columns.len(),
            table.name,
            table.key.len(),
            table.key.join(", ")
        )));
    }
    let request = ScanRequest { layer: Layer::Raw, interval: None, keys: None, columns: Some(columns.clone()) };
    let mut batches = context.lake.scan(reference, &request).await.map_err(blind_if_missing)?;
    let mut keys = BTreeSet::new();
    while let Some(batch) = batches.try_next().await.map_err(blind_if_missing)? {
        add_keys(&mut keys, &batch, columns).map_err(|error| error.on("table", &reference.name))?;
        if keys.len() > MOST_KEYS {
            return Err(
                Error::invalid(format!("the table lists more than {MOST_KEYS} keys; examine fewer at a time")).on("table", &reference.name)
            );
        }
    }
    if keys.is_empty() {
        return Err(Error::blind(format!("table `{}` lists no keys, so nothing was examined", reference.name)));
    }
    Ok(keys.into_iter().collect())
}

fn add_keys(keys: &mut BTreeSet<Key>, batch: &RecordBatch, columns: &[String]) -> Result<()> {
    let columns = columns.iter().map(|name| Ok(cast(rollup::column(batch, name)?, &DataType::Utf8)?)).collect::<Result<Vec<_>>>()?;
    if columns.iter().any(|column| column.null_count() > 0) {
        return Err(Error::invalid("a key is null in the table that lists the keys"));
    }
    let columns: Vec<_> = columns.iter().map(|column| column.as_string::<i32>()).collect();
    keys.extend((0..batch.num_rows()).map(|row| Key::new(columns.iter().map(|column| column.value(row)))));
    Ok(())
}

/// Makes `not-found` `blind`: a table that does not exist could not be examined. This is never "nothing missing", and must not look like an
/// error of a source.
pub(super) fn blind_if_missing(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { error.of_kind(ErrorKind::Blind) } else { error }
}

/// The interval that slots cover.
///
/// # Errors
/// `invalid` if it is out of the range of instants.
pub(super) fn interval_of(scope: &Scope, slots: SlotRange) -> Result<Interval> {
    scope.grid.interval_of(slots).ok_or_else(|| Error::invalid("the time of a slot is out of range"))
}

/// The scope without the slots that are not expected yet, because the table's `settles_after` has not passed since their end at the run's now.
/// `None` if no slot is left.
pub(super) fn settled(context: &StepContext, scope: &Scope) -> Result<Option<Scope>> {
    let Some(after) = context.table(&scope.table)?.settles_after else { return Ok(Some(scope.clone())) };
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    let last = context.now.checked_sub(after).unwrap_or(Timestamp::MIN);
    // The slot in which this instant lies was not over then.
    let (slots, end) = (scope.slots(), scope.grid.slot_at(last));
    if slots.end <= end {
        return Ok(Some(scope.clone()));
    }
    let interval = (slots.first < end).then(|| Interval::new(scope.interval.from(), scope.grid.start_of(end)));
    Ok(interval.transpose()?.map(|interval| Scope { interval, ..scope.clone() }))
}

/// The error where no slot of a scope is expected: nothing was examined, which must not look like a clean table.
pub(super) fn nothing_expected(context: &StepContext, scope: &Scope) -> Result<Error> {
    let table = context.table(&scope.table)?;
    let young = table.settles_after.map(|after| format!(", and slots that ended less than {after:?} ago are not expected yet"));
    Ok(Error::blind(format!(
        "no slot of table `{}` is expected in {}: calendar `{}` has none there{}; nothing was examined. Correct `from`, `to` or `calendar`, or \
         write `allow_empty: true` under `with` if there may be nothing to expect",
        table.name,
        scope.interval,
        scope.calendar,
        young.unwrap_or_default()
    )))
}

/// The slots to examine: all that are expected, or those of earlier findings.
pub(super) enum Examined<'a> {
    Expected { keys: &'a [Key], slots: SlotSet },
    Again(&'a GapList),
}

impl<'a> Examined<'a> {
    /// The slots of a scope or, with `again`, of those findings.
    ///
    /// # Errors
    /// `blind` if the calendar does not cover the scope.
    pub(super) fn of(context: &StepContext, scope: &'a Scope, again: Option<&'a Findings>) -> Result<Self> {
        Ok(match again {
            Some(before) => Self::Again(&before.gaps),
            None => {
                let calendar = context.calendar(&scope.calendar)?;
                let slots = match settled(context, scope)? {
                    Some(settled) => settled.slots(),
                    None => SlotRange::new(scope.slots().first, scope.slots().first),
                };
                Self::Expected { keys: &scope.keys, slots: expected_slots(scope.grid, slots, calendar.as_ref())? }
            }
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Expected { slots, .. } => slots.count() == 0,
            Self::Again(gaps) => gaps.is_empty(),
        }
    }

    /// The range from the first slot to the last; `None` if there are none.
    pub(super) fn hull(&self) -> Option<SlotRange> {
        match self {
            Self::Expected { slots, .. } => Some(slots.range()).filter(|range| !range.is_empty()),
            Self::Again(gaps) => gaps.hull(),
        }
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Expected { keys, .. } => keys.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect(),
            Self::Again(gaps) => gaps.by_key().into_keys().collect(),
        }
    }

    /// Whether a slot of a key is to be examined.
    pub(super) fn contains(&self, key: &Key, slot: i64) -> bool {
        match self {
            Self::Expected { slots, .. } => slots.contains(slot),
            Self::Again(gaps) => gaps.contains(key, slot),
        }
    }
}
