//! Versions of rows that their key alone identifies, in SQL: which repair stands for a row, whatever time it has.

use repair_core::lake::partition::TimeBounds;

use super::{MILLI_US, Source, newest_first};

/// How many lookbacks around bounds repairs are read: one that stands for a row is within a lookback of it, and a newer one that outdates
/// it within another.
const REPAIRS_AROUND: i64 = 2;

impl Source<'_> {
    /// How far apart the versions of a row may lie, in milliseconds; `None` unless the key alone identifies a row. Times are whole
    /// milliseconds, so nothing is lost.
    fn lookback_ms(&self) -> Option<i64> {
        self.table.identity().lookback_us().map(|lookback_us| lookback_us.div_euclid(MILLI_US))
    }

    /// The bounds of repairs that decide about rows within bounds.
    pub(super) fn around_versions(&self, bounds: &TimeBounds) -> TimeBounds {
        bounds.of_versions(self.table, REPAIRS_AROUND)
    }

    /// The condition that two rows, `a` and `b`, are the same row though their times may differ; `None` unless the key alone identifies a
    /// row.
    pub(super) fn same_row(&self) -> Option<String> {
        let lookback_ms = self.lookback_ms()?;
        let keys: String = self.key_names().iter().map(|column| format!("a.{column} = b.{column} AND ")).collect();
        Some(format!("{keys}a.repair_slot BETWEEN b.repair_slot - {lookback_ms} AND b.repair_slot + {lookback_ms}"))
    }

    /// Of the live repairs of slots, those that no newer one outdates: where the key alone identifies a row, a newer repair of the same row
    /// may have another time.
    pub(super) fn not_outdated(&self, newest: String) -> String {
        let Some(lookback_ms) = self.lookback_ms() else { return newest };
        let keys = self.key_names().join(", ");
        let aged = format!("SELECT *, rank() OVER (PARTITION BY {keys} ORDER BY {}) AS repair_age FROM ({newest})", newest_first());
        let near = format!("RANGE BETWEEN {lookback_ms} PRECEDING AND {lookback_ms} FOLLOWING");
        format!(
            "SELECT * FROM (SELECT *, min(repair_age) OVER (PARTITION BY {keys} ORDER BY repair_slot {near}) AS repair_least_age FROM ({aged})) \
             WHERE repair_age = repair_least_age"
        )
    }
}
