//! Late truth: rows, and values of cells, that arrived in the table after they had been repaired. They show how accurate the repairs were.
//!
//! Each report covers the whole interval that was examined, computed anew. Which slots were reported before is kept outside the runs, so
//! that over all runs each slot is new once, and each cell once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use futures::{StreamExt, TryStreamExt};

use crate::engine::drive::artifact::{from_json, not_ours, text, to_json};
use crate::engine::pure::event::{Event, LateTruth};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::overlay::accuracy::{Judged, KeySlots, judged};
use crate::lake::rollup::column;
use crate::model::{Key, Scope, Table};
use crate::plugin::StepContext;

/// Where reported slots are kept, in place of a run's id; no run can have this id.
const AREA: &str = "late.truth";

const STRATEGY: &str = "strategy";
const COLUMN: &str = "column";
const KEY: &str = "key";
const FIRST: &str = "first_slot";
const END: &str = "end_slot";
const REPORTED_BY: &str = "told_by";

/// What a strategy repaired: rows, or the cells of a column.
type What = (String, Option<String>);

/// Slots that were reported, by what was repaired, each with the step of the run that reported it first.
#[derive(Debug, Default)]
struct Reported(BTreeMap<What, BTreeMap<(Key, i64), Arc<str>>>);

impl Reported {
    /// Adds slots, and returns how many of them no other step has reported before, for this strategy or for one whose repair counted then. Adding them
    /// again gives the same result.
    fn add(&mut self, what: What, slots: KeySlots, by: &Arc<str>) -> u64 {
        let (strategy, column) = &what;
        let others = self.0.iter().filter(|((other, of), _)| of == column && other != strategy).map(|(_, slots)| slots);
        let others: Vec<&BTreeMap<(Key, i64), Arc<str>>> = others.collect();
        let is_known = |slot: &(Key, i64)| others.iter().any(|known| known.get(slot).is_some_and(|first| first != by));
        let slots: Vec<_> = slots.into_iter().map(|slot| (is_known(&slot), slot)).collect();
        let known = self.0.entry(what).or_default();
        slots.into_iter().map(|(old, slot)| u64::from(*known.entry(slot).or_insert_with(|| by.clone()) == *by && !old)).sum()
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    async fn read(lake: &dyn Lake, table: &Table) -> Result<Self> {
        let mut reported = Self::default();
        let mut batches = match lake.get_artifact(AREA, &table.location).await {
            Ok(batches) => batches,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(reported),
            Err(error) => return Err(error),
        };
        while let Some(batch) = batches.try_next().await? {
            let number = |name| column(&batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| not_ours(name));
            let (strategies, keys, by) = (text(&batch, STRATEGY)?, text(&batch, KEY)?, text(&batch, REPORTED_BY)?);
            let (first, end) = (number(FIRST)?, number(END)?);
            // Older versions repaired no cells.
            let columns = batch.column_by_name(COLUMN).map(|_| text(&batch, COLUMN)).transpose()?;
            for row in 0..batch.num_rows() {
                let key = Key::new(from_json::<Vec<String>>(keys.value(row))?);
                let by: Arc<str> = by.value(row).into();
                let column = columns.filter(|columns| columns.is_valid(row)).map(|columns| columns.value(row).to_owned());
                let known = reported.0.entry((strategies.value(row).to_owned(), column)).or_default();
                known.extend((first.value(row)..end.value(row)).map(|slot| ((key.clone(), slot), by.clone())));
            }
        }
        Ok(reported)
    }

    /// The slots as rows, one for each sequence of slots that the same step reported.
    fn to_batch(&self) -> Result<RecordBatch> {
        let mut rows: Vec<(&What, &Key, i64, i64, &str)> = Vec::new();
        for (what, slots) in &self.0 {
            for ((key, slot), by) in slots {
                match rows.last_mut() {
                    Some(last) if (last.0, last.1, last.3, last.4) == (what, key, *slot, by) => last.3 += 1,
                    _ => rows.push((what, key, *slot, slot + 1, by)),
                }
            }
        }
        let keys = rows.iter().map(|row| to_json(&row.1.values().collect::<Vec<_>>())).collect::<Result<Vec<_>>>()?;
        let columns: [(&str, ArrayRef); 6] = [
            (STRATEGY, Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0.0)))),
            (COLUMN, Arc::new(rows.iter().map(|row| row.0.1.as_deref()).collect::<StringArray>())),
            (KEY, Arc::new(StringArray::from(keys))),
            (FIRST, Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
            (END, Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>())),
            (REPORTED_BY, Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.4)))),
        ];
        let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), *name == COLUMN);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect())?)
    }
}

/// How accurate the repairs within a scope were, according to late rows; none if there are no late rows.
///
/// This reads the repairs of the interval, and the table's rows from the first repair to the last, so call it only if presence shows late
/// rows. Two runs that report the same slots at the same time may both count them as new.
pub(crate) async fn truth(context: &StepContext, scope: &Scope) -> Result<Option<Event>> {
    let (lake, table) = (context.lake.as_ref(), context.table(&scope.table)?);
    let accuracies = judged(lake, table, Some(scope.interval)).await?;
    if accuracies.values().all(Judged::is_empty) {
        return Ok(None);
    }
    let by: Arc<str> = to_json(&(&*context.run, &*context.step))?.into();
    let mut reported = Reported::read(lake, table).await?;
    let before = reported.len();
    let mut strategies = BTreeMap::new();
    for (strategy, judged) in accuracies.into_iter().filter(|(_, judged)| !judged.is_empty()) {
        let all = judged.cells.into_iter().map(|(column, slots)| (Some(column), slots)).chain([(None, judged.slots)]);
        let (mut count, mut new) = (0, 0);
        for (column, slots) in all.filter(|(_, slots)| !slots.is_empty()) {
            count += slots.len() as u64;
            new += reported.add((strategy.clone(), column), slots, &by);
        }
        strategies.insert(strategy, LateTruth { slots: count, new, columns: judged.accuracy.columns });
    }
    if reported.len() > before {
        let batches = futures::stream::iter([reported.to_batch()]).boxed();
        lake.put_artifact(AREA, &table.location, batches).await.map_err(|error: Error| error.on("table", &table.name))?;
    }
    Ok(Some(Event::LateTruth { step: context.step.to_string(), table: table.name.clone(), strategies }))
}
