//! The repairer `shifted`: copies the row of the same key from the same time of another day (week, year), for seasonal data such as demand.

use std::fmt;
use std::str::FromStr;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::builtin::period::Period;
use crate::builtin::repair::by_day;
use crate::builtin::repair::holes::{Model, On, Plan};
use crate::error::{Error, Result};
use crate::model::Usage;
use crate::model::{Findings, Fix, Key, SlotGrid, SlotRange, Unit};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

const NAME: &str = "shifted";

/// The maximum number of shifts of one step. Each may take one more scan of the table for each repaired day.
pub(super) const MOST_SHIFTS: usize = 16;

/// A distance in time: a length, and whether it goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shift {
    period: Period,
    back: bool,
}

impl Shift {
    /// The distance in seconds, negative if it goes back.
    pub(super) fn seconds(self) -> i64 {
        if self.back { -self.period.seconds() } else { self.period.seconds() }
    }

    /// The distance in slots.
    ///
    /// # Errors
    /// `invalid` if it is not a whole number of slots.
    fn slots(self, grid: SlotGrid) -> Result<i64> {
        let cadence_s = i64::from(grid.cadence().seconds());
        if !grid.is_plain() && grid.cadence().months().is_some() {
            return Err(Error::invalid(format!(
                "`shift: {self}` is a length of time, and months differ in length; `shifted` cannot repair a table with a cadence of {}",
                grid.cadence()
            )));
        }
        if self.seconds() % cadence_s == 0 {
            Ok(self.seconds() / cadence_s)
        } else {
            Err(Error::invalid(format!("`shift: {self}` is not a whole number of slots of {}, so it leads to no slot", grid.cadence())))
        }
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.back { "-" } else { "" }, self.period)
    }
}

impl FromStr for Shift {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (back, period) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        Ok(Self { period: period.parse()?, back })
    }
}

/// One shift or several, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shifts(Vec<Shift>);

impl<'de> Deserialize<'de> for Shifts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShiftsVisitor)
    }
}

struct ShiftsVisitor;

impl<'de> Visitor<'de> for ShiftsVisitor {
    type Value = Shifts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time such as -7d, or a list of some")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Shifts, E> {
        Ok(Shifts(vec![text.parse().map_err(|error: Error| E::custom(error.message()))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Shifts, A::Error> {
        let mut shifts: Vec<Shift> = Vec::new();
        while let Some(text) = texts.next_element::<String>()? {
            let shift = text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))?;
            if shifts.contains(&shift) {
                return Err(serde::de::Error::custom(format!("`{shift}` is listed twice")));
            }
            shifts.push(shift);
            if shifts.len() > MOST_SHIFTS {
                return Err(serde::de::Error::custom(format!("more than {MOST_SHIFTS} shifts are listed; each takes a scan of the table")));
            }
        }
        if shifts.is_empty() {
            return Err(serde::de::Error::custom("no shift is given; add one such as -7d"));
        }
        Ok(Shifts(shifts))
    }
}

impl JsonSchema for Shifts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Shifts".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let shift = serde_json::json!({ "type": "string", "pattern": "^[+-]?([0-9]+(s|m|min|h|d))+$" });
        schemars::json_schema!({
            "description": "How far to shift, back if it begins with -: one length of time, e.g. -7d, or a list, tried in order",
            "anyOf": [shift, { "type": "array", "items": shift, "minItems": 1, "maxItems": MOST_SHIFTS }]
        })
    }
}

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShiftedConfig {
    /// How far to shift: `-7d` is the same time a week before.
    pub shift: Shifts,
    /// What to take of several shifts: by default `first`, the row of the first that has one. `mean` and `median` are of the values of all shifts, in
    /// columns of numbers; other columns are null.
    #[serde(default)]
    pub take: Take,
    /// What the values are scaled to; nothing by default. In columns of numbers; other columns are null.
    #[serde(default)]
    pub scale_to: Option<ScaleTo>,
}

/// What to take of several shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Take {
    /// The first that has a row.
    #[default]
    First,
    /// The mean of all that have a value.
    Mean,
    /// The median of all that have a value.
    Median,
}

/// What shifted values are scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleTo {
    /// The values next to a gap: by the ratio of these to what the shifts have there, in a straight line from one edge to the other. Where a value is not
    /// above 0, by the difference instead of the ratio.
    Edges,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "copies the row of the same key from the same time of another day", |config: ShiftedConfig| {
        Ok(Shifted::new(config))
    });
    registry.needs_one_row(PluginKind::Repairer, NAME);
}

/// Copies the table's own row of the same key from the shifted time, with all its values.
///
/// - It copies only rows of the table itself, never repairs, and never rows of slots that were found to be wrong, rows of which a repair changes
///   cells, or rows without any value.
/// - Where only cells are wrong, a row serves if it has all of them right.
/// - Shifts are tried in order, and the first that has a row counts. They are not averaged unless `take` says so, because that invents values.
/// - Slots are counted: a day is 24 hours, even where clocks change, but in a table of days or weeks it is a day of the table's zone.
/// - A slot for which no shift has a row stays missing, as does one that has not ended.
#[derive(Debug)]
pub struct Shifted {
    shifts: Vec<Shift>,
    /// How whole gaps are estimated, where values are not just copied.
    plan: Option<Plan>,
}

impl Shifted {
    /// Creates the repairer from its configuration.
    pub fn new(config: ShiftedConfig) -> Self {
        let shifts = config.shift.0;
        let is_copied = config.take == Take::First && config.scale_to.is_none();
        let plan = (!is_copied).then(|| Plan {
            name: NAME,
            columns: None,
            periods: None,
            zone: None,
            window: None,
            max_gap: None,
            on: On::default(),
            model: Model::Shifted {
                shifts_s: shifts.iter().map(|shift| shift.seconds()).collect(),
                take: config.take,
                to_edges: config.scale_to.is_some(),
            },
        });
        Self { shifts, plan }
    }
}

#[async_trait]
impl Repairer for Shifted {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    /// A unit is a day of all keys, up to a limit.
    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        context.table(&findings.scope.table)?.check_one_row("`shifted`")?;
        let grid = findings.scope.grid;
        for shift in &self.shifts {
            shift.slots(grid)?;
        }
        if let Some(plan) = &self.plan {
            return plan.units(context, findings).await;
        }
        let over = by_day::slots_over(grid, context.clock.now());
        Ok(by_day::units(grid, findings.gaps.iter().map(|(key, gap)| (key, SlotRange::new(gap.first, gap.end.min(over))))))
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        if let Some(plan) = &self.plan {
            return plan.fix(context, findings, unit).await;
        }
        let table = context.table(&findings.scope.table)?;
        let grid = findings.scope.grid;
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let mut open: Vec<(&Key, i64)> = Vec::new();
        for wanted in &unit.wanted {
            open.extend(wanted.slots.iter().flat_map(|slots| slots.first..slots.end).map(|slot| (&wanted.key, slot)));
        }
        for shift in &self.shifts {
            context.check_cancelled()?;
            let by = shift.slots(grid)?;
            let first = open.iter().map(|(_, slot)| *slot).min();
            let Some((first, last)) = first.zip(open.iter().map(|(_, slot)| *slot).max()) else { break };
            let mut keys: Vec<Key> = open.iter().map(|(key, _)| (*key).clone()).collect();
            keys.dedup();
            let slots = SlotRange::new(first.saturating_add(by), last.saturating_add(by).saturating_add(1));
            let Some(own) = by_day::raw_rows(context.lake.as_ref(), table, grid, slots, keys).await? else { continue };
            let rows = &own.rows;
            fix.usage.rows_read += rows.num_rows() as u64;
            let copyable = own.copyable(table, |_| true)?;
            let known = by_day::by_slot(table, grid, rows, |key, slot, _| !findings.is_of_wrong_whole_rows(key, slot))?;
            let (mut from, mut to, mut left) = (Vec::new(), Vec::new(), Vec::new());
            for (key, slot) in open {
                let serves = |row: &&u32| by_day::serves(findings, (key, slot), (slot + by, **row as usize), (&own, &copyable));
                match known.get(key).and_then(|known| known.get(&(slot + by))).filter(serves) {
                    Some(&row) => {
                        from.push(row);
                        to.push(by_day::time_us(grid, slot));
                    }
                    None => left.push((key, slot)),
                }
            }
            open = left;
            if !from.is_empty() {
                fix.rows.push(by_day::with_times(table, &take_record_batch(rows, &UInt32Array::from(from))?, to)?);
            }
        }
        Ok(fix)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shifts_are_one_or_a_list() {
        let read = |value| serde_json::from_value::<ShiftedConfig>(json!({ "shift": value })).map(|config| config.shift.0);
        let seconds = |value| read(value).unwrap().iter().map(|shift| shift.seconds()).collect::<Vec<_>>();
        assert_eq!(seconds(json!("-7d")), [-604_800]);
        assert_eq!(seconds(json!(["-1d", "1d", "+2h"])), [-86_400, 86_400, 7_200]);
        for odd in [json!("7"), json!("--7d"), json!([]), json!(["1d", "1d"]), json!("0s"), json!(7)] {
            assert!(read(odd.clone()).is_err(), "{odd}");
        }
        assert!(read(json!(vec!["1d"; 20])).is_err());
        assert_eq!(read(json!("-7d")).unwrap()[0].to_string(), "-7d");
    }
}
