//! The detector: values that are far from what is usual for their sensor.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::TryStreamExt;
use repair::arrow::array::{Array, AsArray};
use repair::arrow::compute::cast;
use repair::arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use repair::core::builtin::detect::find_gaps;
use repair::core::lake::rollup::column;
use repair::core::lake::{Layer, ScanRequest};
use repair::core::model::{DefectKind, Findings, GapList, Key, Scope, SlotRange, Table};
use repair::core::plugin::{Detector, StepContext};
use repair::{Interval, Result};

/// Finds rows whose value is further from the sensor's median than `factor` times the usual distance, which is the median distance.
///
/// Its fields are its configuration: in Rust, a detector needs no other.
pub(crate) struct Spikes {
    pub(crate) table: String,
    /// The sensors. They are named here and not read from the data, because an outage would then hide itself.
    pub(crate) sensors: Vec<String>,
    pub(crate) interval: Interval,
    pub(crate) column: String,
    pub(crate) factor: f64,
}

/// The values of each sensor, by slot.
type Values = BTreeMap<Key, BTreeMap<i64, f64>>;

#[async_trait]
impl Detector for Spikes {
    async fn detect(&self, context: &StepContext, again: Option<&Findings>) -> Result<Findings> {
        let table = context.table(&self.table)?;
        // A second look covers only what was found before; its scope stays.
        let scope = match again {
            Some(before) => before.scope.clone(),
            None => self.scope(table)?,
        };
        // Counts which slots hold a row. What cannot be looked at is an error, which is passed on.
        let mut findings = find_gaps(context, &scope, again).await?;
        let values = self.values(context, table, &scope).await?;
        let mut spikes = GapList::default();
        for (key, values) in &values {
            let usual = median(values.values().copied());
            let distance = median(values.values().map(|value| (value - usual).abs()));
            let looked_at = |slot| again.is_none_or(|before| before.gaps.contains(key, slot));
            for (&slot, value) in values.iter().filter(|(slot, _)| looked_at(**slot)) {
                if (value - usual).abs() > self.factor * distance {
                    spikes.push(key, SlotRange::new(slot, slot + 1));
                }
            }
        }
        findings.kind = DefectKind::Invalid;
        findings.counts.defective = spikes.missing();
        findings.counts.gaps = spikes.len() as u64;
        findings.gaps = spikes;
        Ok(findings)
    }
}

impl Spikes {
    fn scope(&self, table: &Table) -> Result<Scope> {
        let mut keys: Vec<Key> = self.sensors.iter().map(|sensor| Key::from(sensor.as_str())).collect();
        keys.sort();
        Ok(Scope {
            table: table.name.clone(),
            grid: table.grid()?,
            keys,
            interval: self.interval,
            calendar: "24x7".to_owned(),
            lifetimes: Default::default(),
        })
    }

    /// Reads the repaired view, so that a second look sees what was corrected.
    async fn values(&self, context: &StepContext, table: &Table, scope: &Scope) -> Result<Values> {
        let request = ScanRequest::new(Layer::Repaired)
            .in_interval(scope.interval)
            .of_keys(scope.keys.clone())
            .with_columns(vec![self.column.clone()]);
        let mut values = Values::new();
        let mut batches = context.lake.scan(table, &request).await?;
        while let Some(batch) = batches.try_next().await? {
            context.check_cancelled()?;
            let sensors = cast(column(&batch, "sensor")?, &DataType::Utf8)?;
            let numbers = cast(column(&batch, &self.column)?, &DataType::Float64)?;
            let times = column(&batch, &table.time)?.as_primitive::<TimestampMicrosecondType>();
            for row in (0..batch.num_rows()).filter(|&row| numbers.is_valid(row)) {
                let key = Key::from(sensors.as_string::<i32>().value(row));
                let slot = scope.grid.slot_of_seconds(times.value(row).div_euclid(1_000_000));
                values.entry(key).or_default().insert(slot, numbers.as_primitive::<Float64Type>().value(row));
            }
        }
        Ok(values)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repair::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use repair::core::testing::{MemoryLake, VirtualClock, context, plugin_suite};

    use super::*;
    use crate::readings;

    /// Two sensors, on a lake in memory. The value of the second one at 05:00 is absurd, and 07:00 is missing.
    fn world() -> StepContext {
        let hours: Vec<(&str, i64)> =
            (0..24).map(|hour| ("a", hour)).chain((0..24).filter(|hour| *hour != 7).map(|hour| ("b", hour))).collect();
        let value = |(sensor, hour): &(&str, i64)| if (*sensor, *hour) == ("b", 5) { 900.0 } else { 20.0 + (hour % 5) as f64 };
        let midnight = interval().from().as_microsecond();
        let times = hours.iter().map(|(_, hour)| midnight + hour * 3_600_000_000);
        let columns: [(&str, ArrayRef); 3] = [
            ("sensor", Arc::new(StringArray::from_iter_values(hours.iter().map(|(sensor, _)| sensor)))),
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
            ("value", Arc::new(Float64Array::from_iter_values(hours.iter().map(value)))),
        ];
        let lake = MemoryLake::default();
        lake.put_table(&readings(), &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
        let clock = VirtualClock::starting_at("2024-03-05T00:00:00Z".parse().unwrap());
        context(Arc::new(lake), [readings()], Arc::new(clock))
    }

    fn interval() -> Interval {
        Interval::parse("2024-03-04", "2024-03-04").unwrap()
    }

    fn spikes(factor: f64) -> Spikes {
        let sensors = vec!["b".to_owned(), "a".to_owned()];
        Spikes { table: "readings".to_owned(), sensors, interval: interval(), column: "value".to_owned(), factor }
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_far_from_the_median_is_found() {
        let found = spikes(20.0).detect(&world(), None).await.unwrap();
        let slot = found.scope.grid.slot_of("2024-03-04T05:00:00Z".parse().unwrap());
        assert_eq!(found.gaps.iter().collect::<Vec<_>>(), [(&Key::from("b"), SlotRange::new(slot, slot + 1))]);
        assert_eq!((found.counts.expected, found.counts.present, found.counts.missing, found.counts.defective), (48, 47, 1, 1));
        assert_eq!(spikes(1_000.0).detect(&world(), None).await.unwrap().counts.defective, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_promises_what_a_detector_promises() {
        plugin_suite::detector(&spikes(20.0), &world()).await;
    }
}
