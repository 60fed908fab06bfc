//! The scope of a detector of series: a table, an interval, the keys that must be present, and the slots that a calendar expects.
//!
//! None of this comes from the captured data, because an outage would delete its own evidence.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::builtin::detect::reference;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ExpectedKeys, ExpectedSlots, Findings, GapList, Interval, Key, KeysFrom, Lifetimes, Scope, SlotRange, Table};
use crate::plugin::StepContext;

/// The maximum number of keys of one detection. Each costs at least a word per window, and a longer list is surely not a list of series.
pub(super) const MOST_KEYS: usize = 1_000_000;

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapsConfig {
    /// The table to examine; it needs a `cadence`, or `rows: unique` where a detector finds wrong rows.
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
    /// The keys that must be present, by default those under `keys` of the table: a list of values (or of lists, if the table has several key
    /// columns), a file, or another table that lists them.
    #[serde(default)]
    pub keys: Option<ExpectedKeys>,
    /// Another table that lists the keys: a short form of `keys`.
    #[serde(default)]
    pub keys_from: Option<KeysFrom>,
    /// Whether it is fine that no slot at all is expected, as on a day on which a market is closed. Otherwise the step is blind then.
    #[serde(default)]
    pub allow_empty: bool,
}

pub(super) fn always() -> String {
    "24x7".to_owned()
}

impl GapsConfig {
    /// Makes the checks that need no table.
    ///
    /// # Errors
    /// `invalid` if the interval cannot be one, or keys are given twice.
    pub fn check(&self) -> Result<()> {
        Interval::check(&self.from, &self.to)?;
        if self.keys.is_some() && self.keys_from.is_some() {
            return Err(Error::invalid("`keys` and `keys_from` are both given; keep one of them"));
        }
        Ok(())
    }

    /// The scope to examine.
    ///
    /// # Errors
    /// `invalid` if nothing says which keys are expected; `blind` if none is; those of the lake, if a table lists them.
    pub async fn scope(&self, context: &StepContext) -> Result<Scope> {
        let table = context.table(&self.table)?;
        let interval = Interval::parse_at(&self.from, &self.to, &table.day_zone(), context.now)?;
        let own = self.keys.clone().or_else(|| self.keys_from.clone().map(ExpectedKeys::Table));
        let (keys, lifetimes) = match expected_keys(context, table, own.as_ref(), &interval, self.allow_empty).await? {
            Some(listed) => listed,
            None if table.key.is_empty() => (vec![Key::default()], Lifetimes::default()),
            None => {
                return Err(Error::invalid(format!(
                    "table `{}` has a series for each {}, and nothing says which are expected; give `keys` to the step or the table: a list, or \
                     `{{ table: … }}` with a table that lists them (they are not read from the table itself, because a series that never arrived would be overlooked)",
                    table.name,
                    table.key.join(", "),
                )));
            }
        };
        Ok(Scope { table: table.name.clone(), grid: table.grid()?, keys, interval, calendar: self.calendar.clone(), lifetimes })
    }
}

/// The keys of a table that are expected in an interval, and their lifetimes in it; `None` if neither a step nor the table says which.
///
/// # Errors
/// `blind` if a table that lists keys lists none that is expected there, unless that is fine.
pub(super) async fn expected_keys(
    context: &StepContext,
    table: &Table,
    own: Option<&ExpectedKeys>,
    interval: &Interval,
    allow_empty: bool,
) -> Result<Option<(Vec<Key>, Lifetimes)>> {
    match own.or(table.keys.as_ref()) {
        Some(ExpectedKeys::List(keys)) => Ok(Some((keys.clone(), Lifetimes::default()))),
        Some(ExpectedKeys::Table(from)) => {
            let (keys, lifetimes) = reference::keys(context, table, from, interval).await?;
            if keys.is_empty() && !allow_empty { Err(no_key_alive(&from.table, interval)) } else { Ok(Some((keys, lifetimes))) }
        }
        None => Ok(None),
    }
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
    let Some(last) = last_end(context, scope)? else { return Ok(Some(scope.clone())) };
    // The slot in which this instant lies was not over then.
    let (slots, end) = (scope.slots(), scope.grid.slot_at(last));
    if slots.end <= end {
        return Ok(Some(scope.clone()));
    }
    let interval = (slots.first < end).then(|| Interval::new(scope.interval.from(), scope.grid.start_of(end)));
    Ok(interval.transpose()?.map(|interval| Scope { interval, ..scope.clone() }))
}

/// When the last slots end that are expected, if their table says how long it takes them to settle.
fn last_end(context: &StepContext, scope: &Scope) -> Result<Option<Timestamp>> {
    let Some(after) = context.table(&scope.table)?.settles_after else { return Ok(None) };
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    Ok(Some(context.now.checked_sub(after).unwrap_or(Timestamp::MIN)))
}

/// The slots of a range that are expected of the keys of a scope at the run's now.
///
/// # Errors
/// `blind` if a calendar does not cover the range.
pub(super) fn expected_of<'a>(context: &StepContext, scope: &'a Scope, slots: SlotRange) -> Result<ExpectedSlots<'a>> {
    let last = last_end(context, scope)?.unwrap_or(Timestamp::MAX);
    ExpectedSlots::of(scope, slots, last, |name| context.calendar(name))
}

/// The error where no slot of a scope is expected: nothing was examined, which must not look like a clean table.
pub(super) fn nothing_expected(context: &StepContext, scope: &Scope) -> Result<Error> {
    let table = context.table(&scope.table)?;
    let young = table.settles_after.map(|after| format!(", and slots that ended less than {after:?} ago are not expected yet"));
    let lives = (!scope.lifetimes.is_empty()).then_some(" while a key is expected");
    Ok(Error::blind(format!(
        "no slot of table `{}` is expected in {}: calendar `{}` has none there{}{}; nothing was examined. Correct `from`, `to` or `calendar`, or \
         write `allow_empty: true` under `with` if there may be nothing to expect",
        table.name,
        scope.interval,
        scope.calendars().join("`, `"),
        lives.unwrap_or_default(),
        young.unwrap_or_default()
    )))
}

/// The error where no key is expected in an interval, according to the table that lists them.
fn no_key_alive(table: &str, interval: &Interval) -> Error {
    Error::blind(format!(
        "no key that table `{table}` lists is expected in {interval}, by its columns `since` and `until`; nothing was examined. Correct `from` and \
         `to` or the table, or write `allow_empty: true` under `with` if there may be nothing to expect"
    ))
}

/// The slots to examine: all that are expected, or those of earlier findings.
pub(super) enum Examined<'a> {
    Expected { keys: &'a [Key], slots: ExpectedSlots<'a> },
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
                let slots = match settled(context, scope)? {
                    Some(settled) => settled.slots(),
                    None => SlotRange::new(scope.slots().first, scope.slots().first),
                };
                Self::Expected { keys: &scope.keys, slots: expected_of(context, scope, slots)? }
            }
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Expected { slots, .. } => slots.is_empty(),
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
            Self::Expected { slots, .. } => slots.contains(key, slot),
            Self::Again(gaps) => gaps.contains(key, slot),
        }
    }
}
