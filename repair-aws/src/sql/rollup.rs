//! Rollups: measures of buckets of slots.

use std::fmt::Write as _;

use repair_core::Result;
use repair_core::lake::Layer;
use repair_core::lake::overlay;
use repair_core::lake::partition::TimeBounds;
use repair_core::lake::rollup::{Function, Rollup};
use repair_core::model::{SlotGrid, SlotRange};

use super::slots::Slots;
use super::{Source, Wanted, name, values};
use crate::catalog::Kind;

impl Source<'_> {
    /// A rollup. Its result has the key, the bucket counted from `first_bucket`, the measures, then how many slots are observed, how many
    /// are repaired, and how many rows there are beyond one for each slot. If a slot has several rows, the same one counts as in the core. If
    /// rows are judged, the last column says what cannot be read of rows that have no bucket.
    /// Floats are added in order of time by a running sum, since an aggregate would add them in any order and round differently each time.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn rollup(&self, grid: &SlotGrid, rollup: &Rollup, first_bucket: i64) -> Result<String> {
        let slots = grid.slots_in(&rollup.interval);
        let mut columns: Vec<&str> = rollup.measures.iter().map(|measure| measure.column.as_str()).collect();
        columns.sort_unstable();
        columns.dedup();
        let wanted = Wanted { bounds: TimeBounds::of_slots(grid, slots), keys: Some(&rollup.keys), columns: &columns };
        let start_ms = Slots::new(*grid, &wanted.bounds)?.start_ms("repair_slot");
        let every_s = i64::from(rollup.every.seconds());
        let keys = self.key_names();
        let key_list: String = keys.iter().map(|key| format!("{key}, ")).collect();
        let expected = match ranges(grid, rollup) {
            ranges if ranges.is_empty() => String::new(),
            ranges => format!(
                " WHERE repair_slot IS NULL OR {}",
                ranges
                    .iter()
                    .map(|range| format!("repair_slot BETWEEN {} AND {}", range.first, range.end - 1))
                    .collect::<Vec<_>>()
                    .join(" OR ")
            ),
        };
        // A row with repaired cells counts as repaired, though it is the table's own.
        let by = format!("coalesce({}, {})", name(overlay::REPAIRED_BY), name(overlay::REPAIRED_CELLS));
        let mut least = vec![format!("CASE WHEN {by} IS NULL THEN 0 ELSE 1 END")];
        least.extend(rollup.measures.iter().map(|measure| format!("{} ASC NULLS FIRST", name(&measure.column))));
        let bucket = format!("PARTITION BY {key_list}repair_bucket");
        let whole = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING";
        let mut measures = String::new();
        for (number, measure) in rollup.measures.iter().enumerate() {
            let column = name(&measure.column);
            let value = match values::declared(self.table, self.raw, &measure.column).map(|declared| crate::catalog::kind_of(&declared)) {
                Some(Kind::Float) => format!("CAST({column} AS double)"),
                Some(Kind::Whole) => format!("CAST({column} AS bigint)"),
                _ => column.clone(),
            };
            let computed = match measure.function {
                Function::First => format!("first_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Last => format!("last_value({value}) IGNORE NULLS OVER ({bucket} ORDER BY repair_slot {whole})"),
                Function::Min => format!("min({value}) OVER ({bucket})"),
                Function::Max => format!("max({value}) OVER ({bucket})"),
                Function::Sum => {
                    format!("sum({value}) OVER ({bucket} ORDER BY repair_slot ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
                }
            };
            let _ = write!(measures, "{computed} AS repair_m{number}, ");
        }
        let results: String = (0..rollup.measures.len()).map(|number| format!("repair_m{number}, ")).collect();
        let (path, first_path) = if self.is_judged_in(Layer::Repaired, &columns)? {
            (", repair_path", format!("min(repair_path) OVER ({bucket}) AS repair_path, "))
        } else {
            ("", String::new())
        };
        Ok(format!(
            "SELECT {key_list}repair_bucket, {results}repair_slots - repair_fixed, repair_fixed, repair_rows - repair_slots{path} FROM (\
             SELECT {key_list}repair_bucket, {first_path}{measures}repair_rows, count(*) OVER ({bucket}) AS repair_slots, count({by}) OVER ({bucket}) AS repair_fixed, \
             row_number() OVER ({bucket} ORDER BY repair_slot DESC) AS repair_place FROM (\
             SELECT *, count(*) OVER ({bucket}) AS repair_rows, row_number() OVER (PARTITION BY {key_list}repair_slot ORDER BY {least}) AS repair_place_in_slot FROM (\
             SELECT *, ({start_ms} - {base_ms}) / {every_ms} AS repair_bucket FROM ({rows}){expected})) \
             WHERE repair_place_in_slot = 1) WHERE repair_place = 1",
            least = least.join(", "),
            base_ms = first_bucket * every_s * 1_000,
            every_ms = every_s * 1_000,
            rows = self.rows(Layer::Repaired, &wanted)?,
        ))
    }
}

/// The slots within the interval that a calendar expects; empty if it expects all.
fn ranges(grid: &SlotGrid, rollup: &Rollup) -> Vec<SlotRange> {
    let all = grid.slots_in(&rollup.interval);
    let within = rollup.within.iter().map(|interval| grid.slots_over(interval).intersection(&all));
    let some: Vec<SlotRange> = within.filter(|range| !range.is_empty()).collect();
    // No expected slot is within the interval. That selects no slot, which is not the same as all.
    if some.is_empty() && !rollup.within.is_empty() { vec![SlotRange::new(0, 0)] } else { some }
}
