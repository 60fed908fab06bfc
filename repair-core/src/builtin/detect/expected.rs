//! What a detector of series is to look at: a table, a stretch of time, which keys must be there, which slots a calendar expects.
//!
//! None of it comes from the captured data: an outage would delete its own evidence.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Layer, ScanRequest, rollup};
use crate::model::expected_slots;
use crate::model::{Findings, GapList, Interval, Key, Scope, SlotRange, SlotSet, Table};
use crate::plugin::StepContext;

/// Keys that one look may be about. Each costs at least a word a window; more is surely not a list of series.
pub(super) const MOST_KEYS: usize = 1_000_000;

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapsConfig {
    /// The table to look at; it needs a `cadence`.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// Where to begin: a date (from its first instant, UTC) or an instant.
    pub from: String,
    /// Where to end: a date (the whole of it, UTC) or an instant (not included).
    pub to: String,
    /// The calendar that says which slots are expected.
    #[serde(default = "always")]
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The keys that must be there: one value each, or a list of values if the table has several key columns.
    #[serde(default, deserialize_with = "some_keys")]
    pub keys: Option<Vec<Key>>,
    /// A table of its own that lists the keys, instead of `keys`.
    #[serde(default)]
    pub keys_from: Option<KeysFrom>,
}

/// A table that lists keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysFrom {
    /// The table; not the one that is looked at.
    #[schemars(extend("x-names" = "table"))]
    pub table: String,
    /// Its columns that hold the key, in the order of the key; by default those named as the key columns.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
}

/// Refuses an empty list where it is written: nothing missing of no keys would look like a clean table.
pub(super) fn some_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Key>>, D::Error> {
    let keys = Option::<Vec<Key>>::deserialize(deserializer)?;
    if keys.as_ref().is_some_and(Vec::is_empty) {
        let why = "`keys` is empty, so nothing would be looked at; name the keys, or leave `keys` out of a table that is one series";
        return Err(serde::de::Error::custom(why));
    }
    Ok(keys)
}

pub(super) fn always() -> String {
    "24x7".to_owned()
}

impl GapsConfig {
    /// The stretch of time, after checking what can be checked without a table.
    pub(super) fn interval(&self) -> Result<Interval> {
        let interval = Interval::parse(&self.from, &self.to)?;
        if self.keys.is_some() && self.keys_from.is_some() {
            return Err(Error::invalid("`keys` and `keys_from` both say which keys are expected; keep one"));
        }
        Ok(interval)
    }

    /// What is to be looked at.
    pub(super) async fn scope(&self, context: &StepContext, interval: Interval) -> Result<Scope> {
        let table = context.table(&self.table)?;
        let keys = match (&self.keys, &self.keys_from) {
            (Some(keys), _) => keys.clone(),
            (None, Some(from)) => reference_keys(context, table, from).await?,
            (None, None) if table.key.is_empty() => vec![Key::default()],
            (None, None) => {
                return Err(Error::invalid(format!(
                    "table `{}` has a series for each {}, so the step must say which are expected: give `keys`, or `keys_from` a table that lists \
                     them; they are not read from the table itself, where a series that never came would be missed",
                    table.name,
                    table.key.join(", "),
                )));
            }
        };
        Ok(Scope { table: table.name.clone(), grid: table.grid()?, keys, interval, calendar: self.calendar.clone() })
    }
}

/// The distinct values of the key columns of a table that lists them.
async fn reference_keys(context: &StepContext, table: &Table, from: &KeysFrom) -> Result<Vec<Key>> {
    let reference = context.table(&from.table)?;
    if reference.name == table.name || reference.location == table.location {
        return Err(Error::invalid(format!(
            "table `{}` cannot say which of its own keys are expected: a series that never came would be missed; list them in `keys` or in a \
             table of their own",
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
    let mut batches = context.lake.scan(reference, &request).await.map_err(could_not_look)?;
    let mut keys = BTreeSet::new();
    while let Some(batch) = batches.try_next().await.map_err(could_not_look)? {
        add_keys(&mut keys, &batch, columns).map_err(|error| error.on("table", &reference.name))?;
        if keys.len() > MOST_KEYS {
            return Err(Error::invalid(format!("more than {MOST_KEYS} keys; look at fewer at a time")).on("table", &reference.name));
        }
    }
    if keys.is_empty() {
        return Err(Error::blind(format!("table `{}` lists no keys, so nothing was looked at", reference.name)));
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

/// A table that is not there could not be looked at: never "nothing missing", and not an error that a workflow may take for one of a
/// source's.
pub(super) fn could_not_look(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { error.of_kind(ErrorKind::Blind) } else { error }
}

/// The stretch of time of some slots.
///
/// # Errors
/// `invalid` at the far ends of time.
pub(super) fn interval_of(scope: &Scope, slots: SlotRange) -> Result<Interval> {
    scope.grid.interval_of(slots).ok_or_else(|| Error::invalid("a slot is out of the range of instants"))
}

/// The slots that one look is about: all that are expected, or those that were found before.
pub(super) enum LookedAt<'a> {
    Expected { keys: &'a [Key], slots: SlotSet },
    Again(&'a GapList),
}

impl<'a> LookedAt<'a> {
    /// Those of a scope.
    ///
    /// # Errors
    /// `blind` if the calendar does not cover it.
    pub(super) fn of(context: &StepContext, scope: &'a Scope, again: Option<&'a Findings>) -> Result<Self> {
        Ok(match again {
            Some(before) => Self::Again(&before.gaps),
            None => {
                let calendar = context.calendar(&scope.calendar)?;
                let slots = scope.slots();
                let open = match scope.grid.interval_of(slots) {
                    Some(interval) => calendar.open(&interval)?,
                    None => Vec::new(),
                };
                Self::Expected { keys: &scope.keys, slots: expected_slots(scope.grid, slots, &open) }
            }
        })
    }

    /// From the first to the last; `None` if there are none.
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

    /// Whether a slot of one of the keys is among them.
    pub(super) fn contains(&self, key: &Key, slot: i64) -> bool {
        match self {
            Self::Expected { slots, .. } => slots.contains(slot),
            Self::Again(gaps) => gaps.contains(key, slot),
        }
    }
}
